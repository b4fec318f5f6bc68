"""Derivatives against analytic waves, and the identities of vector calculus."""

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError, RecipeError
from map2map.physics.operators import (
    curl,
    derivative,
    divergence,
    gradient,
    laplacian,
    wavenumbers,
)

SCHEMES = ["spectral", "central", "central4"]
SPACING = (0.5, 0.25, 0.4)
GRIDS = [(12,), (10, 15), (8, 9, 12)]


def wave(shape, modes):
    """A sine wave, its phase, and its wavenumbers."""
    cells = [torch.arange(n, dtype=torch.float64) for n in shape]
    x = torch.meshgrid(*cells, indexing="ij")
    k = [2 * np.pi * m / (n * d) for m, n, d in zip(modes, shape, SPACING, strict=False)]
    phase = sum(ki * xi * d for ki, xi, d in zip(k, x, SPACING, strict=False)) + 0.4
    return phase, k


def seen(k, spacing, scheme):
    """The wavenumber that a scheme takes k for."""
    w = k * spacing
    return {
        "spectral": k,
        "central": np.sin(w) / spacing,
        "central4": (8 * np.sin(w) - np.sin(2 * w)) / (6 * spacing),
    }[scheme]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", GRIDS)
def test_the_gradient_of_a_wave_is_its_wavenumber(shape, scheme):
    phase, k = wave(shape, (2, -3, 1))
    result = gradient(torch.sin(phase)[None, None], SPACING[: len(shape)], scheme)
    for axis in range(len(shape)):
        expected = seen(k[axis], SPACING[axis], scheme) * torch.cos(phase)
        torch.testing.assert_close(result[0, axis], expected)


@pytest.mark.parametrize(("scheme", "order"), [("central", 2), ("central4", 4)])
def test_differences_converge_with_their_order(scheme, order):
    errors = []
    for n in (32, 64):
        x = torch.arange(n, dtype=torch.float64) * 2 * np.pi / n
        error = derivative(torch.sin(x), 0, 2 * np.pi / n, scheme) - torch.cos(x)
        errors.append(float(error.abs().max()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", GRIDS)
def test_the_divergence_of_a_wave_along_a_vector(shape, scheme):
    phase, k = wave(shape, (1, 2, -2))
    amplitudes = (3.0, -1.0, 0.5)[: len(shape)]
    vector = torch.stack([a * torch.sin(phase) for a in amplitudes])[None]
    sizes = SPACING[: len(shape)]
    slope = sum(a * seen(ki, d, scheme) for a, ki, d in zip(amplitudes, k, sizes, strict=True))
    result = divergence(vector, sizes, scheme)
    torch.testing.assert_close(result, slope * torch.cos(phase)[None, None])


def test_the_curl_of_a_wave_is_the_cross_product_with_its_wavenumber():
    phase, k = wave((8, 9, 12), (1, 2, -2))
    amplitudes = np.array([3.0, -1.0, 0.5])
    vector = torch.stack([a * torch.sin(phase) for a in amplitudes])[None]
    expected = torch.stack([a * torch.cos(phase) for a in np.cross(k, amplitudes)])[None]
    torch.testing.assert_close(curl(vector, SPACING), expected)


def test_the_curl_in_the_plane_is_the_component_out_of_it():
    vector = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, 6, 7)))
    space = torch.zeros(2, 3, 6, 7, 5, dtype=torch.float64)
    space[:, :2] = vector[..., None]
    out_of_plane = curl(space, (0.3, 0.7, 1.0))[:, 2:, ..., 0]
    torch.testing.assert_close(curl(vector, (0.3, 0.7)), out_of_plane)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_gradient_has_no_curl_and_a_curl_no_divergence(scheme):
    rng = np.random.default_rng(0)
    zero = pytest.approx(0, abs=1e-11)
    for shape in GRIDS[1:]:
        scalar = torch.from_numpy(rng.normal(size=(2, 1, *shape)))
        spacing = SPACING[: len(shape)]
        assert float(curl(gradient(scalar, spacing, scheme), spacing, scheme).abs().max()) == zero
    vector = torch.from_numpy(rng.normal(size=(2, 3, *GRIDS[2])))
    result = divergence(curl(vector, SPACING, scheme), SPACING, scheme)
    assert float(result.abs().max()) == zero


@pytest.mark.parametrize("scheme", SCHEMES)
def test_divergence_is_minus_the_adjoint_of_gradient(scheme):
    rng = np.random.default_rng(0)
    scalar = torch.from_numpy(rng.normal(size=(1, 1, 6, 8, 5)))
    vector = torch.from_numpy(rng.normal(size=(1, 3, 6, 8, 5)))
    there = (gradient(scalar, SPACING, scheme) * vector).sum()
    back = (scalar * divergence(vector, SPACING, scheme)).sum()
    torch.testing.assert_close(there, -back)


def test_the_laplacian_of_a_wave_is_minus_its_square_wavenumber():
    phase, k = wave((8, 9, 12), (1, 2, -2))
    field = torch.sin(phase)[None, None]
    torch.testing.assert_close(laplacian(field, SPACING), -sum(x**2 for x in k) * field)


def test_the_nyquist_wave_has_no_slope_and_single_precision_is_kept():
    alternating = torch.tensor([1.0, -1.0] * 4)
    for scheme in SCHEMES:
        slope = derivative(alternating, 0, 1.0, scheme)
        assert slope.dtype == torch.float32
        torch.testing.assert_close(slope, torch.zeros(8))


def test_wavenumbers_are_those_of_the_real_transform():
    phase, k = wave((8, 10), (-3, 2))
    modes = torch.fft.rfftn(torch.sin(phase)).abs()
    x, y = torch.broadcast_tensors(*wavenumbers((8, 10), SPACING[:2]))
    where = modes > 1e-9
    assert where.sum() == 1
    np.testing.assert_allclose([float(x[where]), float(y[where])], k)


def test_errors_say_what_does_not_fit():
    with pytest.raises(GeometryError, match="one channel per space axis"):
        divergence(torch.zeros(1, 2, 4, 4, 4))
    with pytest.raises(GeometryError, match="with 1 channel"):
        gradient(torch.zeros(1, 2, 4, 4))
    with pytest.raises(GeometryError, match="no curl on one axis"):
        curl(torch.zeros(1, 1, 4))
    with pytest.raises(RecipeError, match="did you mean 'central"):
        derivative(torch.zeros(4), 0, 1.0, "centre")
