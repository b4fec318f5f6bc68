"""Potentials against plane waves, Fourier transforms of numpy and the published form."""

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError, RecipeError
from map2map.physics.perturbations import inverse_gradient, inverse_laplacian
from map2map.physics.potentials import newtonian_potential, relativistic_correction


def waves(shape, spacing):
    """Wavenumbers of the full transform, per axis."""
    k = [2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)]
    return np.meshgrid(*k, indexing="ij")


def smooth_field(shape, spacing, highest, seed=0):
    """A random field without wavenumbers above ``highest`` modes of the box."""
    rng = np.random.default_rng(seed)
    modes = np.fft.fftn(rng.normal(size=shape))
    for k, n, d in zip(waves(shape, spacing), shape, spacing, strict=True):
        modes[np.abs(k) > (highest + 0.5) * 2 * np.pi / (n * d)] = 0
    return np.fft.ifftn(modes).real


def test_the_laplacian_of_newtons_potential_is_the_density():
    shape, spacing = (8, 9, 10), (3.0, 4.0, 5.0)
    density = smooth_field(shape, spacing, 3)
    phi = newtonian_potential(torch.tensor(density), spacing, 2.0, 0.3).numpy()
    k2 = sum(k**2 for k in waves(shape, spacing))
    laplacian = np.fft.ifftn(-k2 * np.fft.fftn(phi)).real
    # 4 pi G a^2 rho delta / c^2 = 3/2 Om (H0 / c)^2 delta / a
    expected = 1.5 * 0.3 * (100 / 299792.458) ** 2 * 3 * (density - density.mean())
    np.testing.assert_allclose(laplacian, expected, atol=1e-12 * np.abs(expected).max())
    assert abs(phi.mean()) < 1e-12 * phi.std()


def test_the_inverse_laplacian_is_that_whose_gradient_there_is():
    field = torch.tensor(smooth_field((6, 8, 7), (1.0, 2.0, 1.5), 2))
    slope = inverse_gradient(field, (1.0, 2.0, 1.5))
    k = waves(field.shape, (1.0, 2.0, 1.5))
    modes = np.fft.fftn(inverse_laplacian(field, (1.0, 2.0, 1.5)).numpy())
    for axis in range(3):
        np.testing.assert_allclose(np.fft.ifftn(1j * k[axis] * modes).real, slope[axis], atol=1e-12)


def test_the_correction_of_a_plane_wave():
    """Phi = A cos kx: Theta = -A^2/24 cos 2kx, so -phi^2 - 4 Theta = -A^2/3 cos 2kx."""
    x = torch.arange(12, dtype=torch.float64)[:, None, None] * (2 * np.pi / 12)
    phi = (3.0 * torch.cos(x)).expand(12, 5, 6).contiguous()
    expected = (-3.0 * torch.cos(2 * x)).expand(12, 5, 6)
    torch.testing.assert_close(relativistic_correction(phi, (0.7, 1.0, 2.0)), expected)


def test_the_correction_is_the_published_one():
    """By second derivatives and the full transform, on a grid fine enough for its products."""
    shape, spacing = (14, 13, 12), (2.0, 3.0, 2.5)
    phi = smooth_field(shape, spacing, 2)
    k = waves(shape, spacing)
    k2 = sum(one**2 for one in k)
    k2[0, 0, 0] = 1

    def derivative(values, *axes):
        modes = np.fft.fftn(values)
        for axis in axes:
            modes = 1j * k[axis] * modes
        return np.fft.ifftn(modes).real

    def inverse(values):
        modes = -np.fft.fftn(values) / k2
        modes[0, 0, 0] = 0
        return np.fft.ifftn(modes).real

    hessian = [[derivative(phi, i, j) for j in range(3)] for i in range(3)]
    trace = sum(hessian[i][i] for i in range(3))
    psi = inverse(-0.5 * (trace**2 - sum(one**2 for row in hessian for one in row)))
    theta = inverse(psi - sum(derivative(phi, i) ** 2 for i in range(3)) / 3)
    expected = -(phi**2) - 4 * theta
    expected -= expected.mean()
    found = relativistic_correction(torch.tensor(phi), spacing).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


def test_the_correction_is_of_second_order_and_does_not_depend_on_units():
    phi = torch.tensor(smooth_field((8, 8, 8), (1.0,) * 3, 2))
    once = relativistic_correction(phi, 1.0)
    torch.testing.assert_close(relativistic_correction(-3 * phi, 20.0), 9 * once)


def test_the_correction_has_no_mean_and_no_nyquist_modes():
    phi = torch.tensor(np.random.default_rng(0).normal(size=(6, 4, 8)))
    modes = np.fft.fftn(relativistic_correction(phi, 1.0).numpy())
    scale = np.abs(modes).max()
    for part in (modes[0, 0, 0], modes[3], modes[:, 2], modes[:, :, 4]):
        assert np.abs(part).max() < 1e-12 * scale


def test_other_axes_and_impossible_universes_are_refused():
    with pytest.raises(GeometryError, match=r"three axes, not shape \(4, 4\)"):
        relativistic_correction(torch.zeros(4, 4), 1.0)
    with pytest.raises(RecipeError, match="between 0 and 1, not 2"):
        newtonian_potential(torch.zeros(4, 4, 4), 1.0, 0.0, 2)
