"""Spectra of fields whose spectra are known."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError
from map2map.physics import modes, spectra
from map2map.physics.spectra import (
    cross_correlation,
    cross_spectrum,
    mode_counts,
    power_spectrum,
    transfer,
)


def wave(shape, modes, phase=0.3):
    cells = np.meshgrid(*map(np.arange, shape), indexing="ij")
    turns = sum(m * x / n for m, x, n in zip(modes, cells, shape, strict=True))
    return np.cos(2 * np.pi * turns + phase)


@pytest.mark.parametrize("shape", [(4096,), (64, 64), (24, 24, 24), (25, 31, 17), (96, 33)])
def test_white_noise_has_flat_power_equal_to_its_variance_per_cell(shape):
    noise = np.random.default_rng(0).normal(scale=3.0, size=shape)
    k, power = power_spectrum(noise, spacing=0.5)
    expected = 3.0**2 * 0.5 ** len(shape)
    _, modes = mode_counts(shape, 0.5)
    np.testing.assert_allclose(np.average(power, weights=modes), expected, rtol=0.05)
    # flat: each bin deviates by what its number of independent modes allows
    deviation = (power / expected - 1) / np.sqrt(2 / modes)
    assert 0.6 < deviation.std() < 1.4
    fit, covariance = np.polyfit(k, power / expected, 1, w=np.sqrt(modes / 2), cov="unscaled")
    assert abs(fit[0]) < 3 * np.sqrt(covariance[0, 0])


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(
    "modes", [(5, -5), (5, 5), (-5, 5), (0, 7), (7, 0), (3, 0), (0, 1), (1, 0)]
)
def test_a_plane_wave_of_any_direction_has_its_power_in_its_bin(modes, size):
    spacing = 0.25
    _, power = power_spectrum(wave((size, size), modes), spacing)
    k, counts = mode_counts((size, size), spacing)
    where = int(np.ceil(np.hypot(*modes) - 1e-9)) - 1
    # the mean square of a cosine is 1/2, spread over the modes of the bin
    expected = np.zeros(len(k))
    expected[where] = 0.5 * (size * spacing) ** 2 / counts[where]
    np.testing.assert_allclose(power, expected, atol=1e-12 * expected.max())


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (6, 9), (5, 8, 4), (12,)])
def test_bins_hold_every_mode_of_the_full_transform_up_to_the_smallest_nyquist(shape):
    spacing = [0.5, 0.4, 0.7][: len(shape)]
    axes = [2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)]
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    fundamental = 2 * np.pi / max(n * d for n, d in zip(shape, spacing, strict=True))
    edges = np.arange(0, np.pi / max(spacing) * (1 + 1e-9), fundamental)
    mean, counts = mode_counts(shape, spacing)
    assert len(mean) == len(edges) - 1
    for number in range(len(mean)):
        inside = (k > edges[number] * (1 + 1e-9)) & (k <= edges[number + 1] * (1 + 1e-9))
        inside &= k > 0
        assert counts[number] == inside.sum()
        np.testing.assert_allclose(mean[number], k[inside].mean())


# of either order, so that each axis is once the one whose Nyquist ends the bins
@pytest.mark.parametrize("sizes", [(0.5, 0.4, 0.7), (0.7, 0.5, 0.4)])
@pytest.mark.parametrize("shape", [(8,), (8, 8), (7, 7), (6, 9), (8, 6, 10), (5, 8, 4)])
def test_power_is_the_mean_over_the_modes_of_the_full_transform(shape, sizes):
    first, second = np.random.default_rng(0).normal(size=(2, *shape))
    spacing = sizes[: len(shape)]
    axes = [2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)]
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    fundamental = 2 * np.pi / max(n * d for n, d in zip(shape, spacing, strict=True))
    product = (np.fft.fftn(first) * np.fft.fftn(second).conj()).real
    _, found = cross_spectrum(first, second, spacing)
    edges = fundamental * np.arange(len(found) + 1) * (1 + 1e-9)
    scale = np.prod(spacing) / np.prod(shape)
    expected = [product[(k > a) & (k <= b) & (k > 0)].mean() * scale for a, b in pairwise(edges)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_power_adds_up_to_the_variance():
    # all power below the Nyquist, so that every mode is in a bin (Parseval)
    rng = np.random.default_rng(0)
    waves = [(1, 2, 0), (-3, 2, 5), (0, 0, 4), (6, -1, 1)]
    field = 2.0 + sum(rng.normal() * wave((16, 18, 20), mode, rng.normal()) for mode in waves)
    spacing = (1.0, 0.9, 0.8)
    _, power = power_spectrum(field, spacing)
    _, counts = mode_counts(field.shape, spacing)
    volume = field.size * np.prod(spacing)
    np.testing.assert_allclose((power * counts).sum() / volume, field.var(), rtol=1e-10)


def test_a_gaussian_field_has_the_spectrum_it_was_made_with():
    shape, spacing = (96, 96), 2.0
    rng = np.random.default_rng(0)
    axes = [2 * np.pi * np.fft.fftfreq(n, spacing) for n in shape]
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    noise = np.fft.fftn(rng.normal(size=shape))
    field = np.fft.ifftn(noise * np.sqrt(np.exp(-((k / 0.6) ** 2)) / spacing**2)).real
    mean, power = power_spectrum(field, spacing)
    _, counts = mode_counts(shape, spacing)
    deviation = (power / np.exp(-((mean / 0.6) ** 2)) - 1) / np.sqrt(2 / counts)
    assert abs(deviation[2:].mean()) < 0.5
    assert np.abs(deviation[2:]).max() < 4


def test_the_power_of_a_vector_is_the_sum_of_that_of_its_components():
    field = np.random.default_rng(0).normal(size=(3, 8, 10, 6))
    _, power = power_spectrum(field, 1.5, ndim=3)
    parts = [power_spectrum(part, 1.5)[1] for part in field]
    np.testing.assert_allclose(power, np.sum(parts, axis=0))
    np.testing.assert_allclose(power_spectrum(field, (1.5, 1.5, 1.5))[1], power)


def test_tensors_and_arrays_of_any_precision_give_the_same():
    field = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32) + 1000
    tensor = torch.from_numpy(field).requires_grad_()
    for one, other in zip(power_spectrum(tensor, 1.0), power_spectrum(field, 1.0), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(power_spectrum(field.astype(np.float64), 1.0)[1], other)


@pytest.mark.parametrize("shape", [(64,), (48, 33), (17, 24, 20), (40, 12, 8)])
def test_blocks_and_threads_change_nothing(shape, monkeypatch):
    first, second = np.random.default_rng(0).normal(size=(2, 2, *shape))
    pairs = [(first, first), (first, second)]
    expected = spectra.spectra(pairs, 0.5, len(shape))
    counts = mode_counts(shape, 0.5)
    modes.tally.cache_clear()
    monkeypatch.setattr(modes, "BLOCK", 1)
    monkeypatch.setattr(modes, "GROUPS", 3)
    monkeypatch.setattr(spectra, "threads", lambda: 4)
    np.testing.assert_allclose(spectra.spectra(pairs, 0.5, len(shape))[1], expected[1], rtol=1e-12)
    np.testing.assert_allclose(mode_counts(shape, 0.5), counts, rtol=1e-12)
    modes.tally.cache_clear()


@pytest.mark.parametrize("shape", [(48, 33), (17, 24, 20)])
def test_single_precision_is_good_to_its_rounding(shape):
    # a steep spectrum on a large mean, in units far from one
    rng = np.random.default_rng(0)
    field = 1e-25 * (10 + np.cumsum(rng.normal(size=shape), axis=0)).astype(np.float32)
    before = field.copy()
    _, (single,) = spectra.spectra([(field, field)], 1.0, len(shape), double=False)
    _, double = power_spectrum(field, 1.0)
    np.testing.assert_allclose(single, double, rtol=1e-4)
    assert (single != double).any()
    np.testing.assert_array_equal(field, before)


def test_cross_spectrum_is_bilinear_and_blind_to_a_quarter_of_a_wave():
    x, y = np.random.default_rng(0).normal(size=(2, 16, 12))
    both = power_spectrum(x + y, 1.0)[1]
    parts = power_spectrum(x, 1.0)[1] + power_spectrum(y, 1.0)[1]
    np.testing.assert_allclose(cross_spectrum(x, y, 1.0)[1], (both - parts) / 2)
    shifted = cross_spectrum(wave((16, 16), (3, -2), 0), wave((16, 16), (3, -2), np.pi / 2), 1.0)
    np.testing.assert_allclose(shifted[1], 0, atol=1e-12)


def test_correlation_and_transfer_of_a_scaled_noisy_copy():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 128, 128))
    k, r = cross_correlation(2 * truth + 2 * noise, truth, 1.0)
    _, ratio = transfer(2 * truth + 2 * noise, truth, 1.0)
    assert k.shape == r.shape == ratio.shape == (64,)
    np.testing.assert_allclose(r[8:].mean(), np.sqrt(0.5), rtol=0.01)
    np.testing.assert_allclose(ratio[8:].mean(), np.sqrt(8), rtol=0.02)
    np.testing.assert_allclose(cross_correlation(-3 * truth, truth, 1.0)[1], -1)
    np.testing.assert_allclose(transfer(-3 * truth, truth, 1.0)[1], 3)


def test_no_power_gives_no_number_and_no_warning():
    k, r = cross_correlation(np.zeros((8, 8)), np.ones((8, 8)), 1.0)
    assert np.isnan(r).all()
    assert k.shape == (4,)


def test_errors_say_what_does_not_fit():
    with pytest.raises(GeometryError, match="different shapes"):
        cross_spectrum(np.zeros((4, 4)), np.zeros((4, 5)), 1.0)
    with pytest.raises(GeometryError, match="give `ndim` if the first axes are components"):
        power_spectrum(np.zeros((3, 4, 4, 4)), 1.0)
    with pytest.raises(GeometryError, match="positive values"):
        power_spectrum(np.zeros((4, 4)), (1.0, 0.0))
    with pytest.raises(GeometryError, match="no whole bin"):
        power_spectrum(np.zeros(1), 1.0)
