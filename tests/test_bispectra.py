"""Bispectra of fields whose bispectra are known, and against all triangles one by one."""

from itertools import product

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError
from map2map.physics.bispectra import bispectrum, triangle_counts


def naive(field, sizes, width):
    """Every triangle of the full transform whose sides are in the same bin, one by one."""
    shape = field.shape
    modes = np.fft.fftn(field)
    fundamental = 2 * np.pi / max(n * d for n, d in zip(shape, sizes, strict=True))
    count = int(2 / 3 * np.pi / max(sizes) / (width * fundamental) * (1 + 1e-9))
    wave = {}
    for index in np.ndindex(shape):
        # signed, because three modes that add up to an alias are no triangle
        mode = tuple(i if i <= n // 2 else i - n for i, n in zip(index, shape, strict=True))
        parts = zip(mode, shape, sizes, strict=True)
        wave[mode] = np.sqrt(sum((2 * np.pi * i / n / d) ** 2 for i, n, d in parts))
    edge = lambda b: b * width * fundamental * (1 + 1e-9)  # noqa: E731
    sums, triangles, means = np.zeros((3, count))
    for b in range(count):
        inside = {i for i, k in wave.items() if edge(b) < k <= edge(b + 1) and k > 0}
        means[b] = np.mean([wave[i] for i in inside])
        for first, second in product(inside, repeat=2):
            third = tuple(-i - j for i, j in zip(first, second, strict=True))
            if third in inside:
                sums[b] += (modes[first] * modes[second] * modes[third]).real
                triangles[b] += 1
    volume, cells = np.prod(shape) * np.prod(sizes), np.prod(shape)
    with np.errstate(invalid="ignore"):
        return means, sums / triangles * volume**2 / cells**3, triangles


def mean(values, triangles):
    some = triangles > 0
    return np.average(values[some], weights=triangles[some])


@pytest.mark.parametrize(
    ("shape", "sizes", "width"),
    [
        ((12, 12), (0.5, 0.5), 1),
        ((13, 12), (0.5, 0.5), 2),
        ((12, 18), (0.7, 0.4), 1),
        ((7, 6, 8), (1.0, 1.1, 0.9), 1),
        ((9, 9, 9), (2.0, 2.0, 2.0), 1),
    ],
)
def test_it_is_the_mean_over_all_triangles_one_by_one(shape, sizes, width):
    field = np.random.default_rng(0).gamma(1.0, size=shape)
    expected_k, expected, triangles = naive(field, sizes, width)
    k, found = bispectrum(field, sizes, width=width)
    np.testing.assert_array_equal(triangle_counts(shape, sizes, width)[1], triangles)
    np.testing.assert_allclose(k, expected_k)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.nanmax(abs(expected)))


@pytest.mark.parametrize(("shape", "spacing"), [((48, 48), 0.5), ((24, 24, 24), 2.0)])
def test_skewed_white_noise_has_its_third_moment_times_the_cell_squared(shape, spacing):
    _, triangles = triangle_counts(shape, spacing, 2)
    found = [
        mean(bispectrum(noise, spacing, width=2)[1], triangles)
        for noise in np.random.default_rng(0).gamma(0.2, size=(100, *shape))
    ]
    # the third central moment of a gamma distribution is twice its shape
    expected = 2 * 0.2 * spacing ** (2 * len(shape))
    uncertainty = np.std(found) / np.sqrt(len(found))
    assert uncertainty < 0.06 * expected
    assert abs(np.mean(found) - expected) < 3 * uncertainty


def test_three_waves_that_close_have_the_product_of_their_amplitudes():
    n, spacing = 24, 0.5
    x, y = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    modes = [(5, 0), (-3, 4), (-2, -4)]
    field = sum(
        a * np.cos(2 * np.pi * (i * x + j * y) / n)
        for a, (i, j) in zip((1, 2, 3), modes, strict=True)
    )
    _, found = bispectrum(field, spacing)
    _, triangles = triangle_counts((n, n), spacing)
    # |(5, 0)| = |(-3, 4)| = 5 in the fifth bin; sqrt(20) = 4.47 as well; 3! orders, both signs
    expected = np.where(triangles > 0, 0.0, np.nan)
    volume, cells = (n * spacing) ** 2, n**2
    expected[4] = 12 * (cells / 2) ** 3 * 6 / triangles[4] * volume**2 / cells**3
    np.testing.assert_allclose(found, expected, atol=1e-9 * expected[4])


def test_a_gaussian_field_has_none_and_its_square_has_some():
    noise = np.random.default_rng(0).normal(size=(64, 64))
    _, triangles = triangle_counts(noise.shape, 1.0, 2)
    # of white noise, the deviation of the mean over triangles is sqrt(6 V / triangles)
    deviation = np.sqrt(6 * noise.size / np.maximum(triangles, 1))
    _, gaussian = bispectrum(noise, 1.0, width=2)
    _, squared = bispectrum(noise**2, 1.0, width=2)
    assert (abs(gaussian / deviation) < 4)[triangles > 0].all()
    # the third central moment of a squared normal number is 8
    assert mean(squared, triangles) == pytest.approx(8, rel=0.2)


def test_components_add_up_and_tensors_are_arrays():
    field = np.random.default_rng(0).gamma(1.0, size=(2, 8, 8, 8))
    _, both = bispectrum(torch.from_numpy(field), 1.5, ndim=3)
    parts = [bispectrum(part, 1.5)[1] for part in field]
    np.testing.assert_allclose(both, np.sum(parts, axis=0))


def test_refusals_say_what_does_not_fit():
    with pytest.raises(GeometryError, match="2 or 3 space axes, not 1"):
        bispectrum(np.zeros(8), 1.0)
    with pytest.raises(GeometryError, match="no whole bin of 9 modes"):
        bispectrum(np.zeros((8, 8)), 1.0, width=9)
