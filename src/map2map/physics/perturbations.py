"""Initial conditions: Gaussian fields, and their displacements of first and second order.

Reference: C06: Crocce, Pueblas & Scoccimarro 2006, MNRAS 373, 369, appendix D.
"""

from collections.abc import Callable
from functools import reduce
from math import pi

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from map2map.errors import GeometryError
from map2map.physics.operators import derivative, wavenumbers
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

__all__ = [
    "Displacement",
    "gaussian_field",
    "inverse_gradient",
    "inverse_laplacian",
    "inverse_laplacian_modes",
    "second_order",
    "zeldovich",
]

Displacement = Float[Tensor, "3 *space"]


def gaussian_field(
    size: int, box: float, seed: int, power: Callable[[Array], Array]
) -> Float[Tensor, "n n n"]:
    """Gaussian random field of a given power spectrum in a periodic cube.

    The same seed gives the same modes whatever the ``size``: they are drawn in the order of
    their largest wavenumber component. Nyquist modes are left empty, because a displacement along
    their axis cannot be represented on the grid.

    Args:
        size: Cells per axis.
        box: Side of the cube [L].
        seed: Seed of the random numbers.
        power: Maps wavenumbers [rad/L] to power [u^2 L^3], normalized as in `spectra`.

    Returns:
        Values [u], in double precision and of mean 0.
    """
    half = (size - 1) // 2
    both, upper = np.arange(-half, half + 1), np.arange(half + 1)
    x, y, z = (axis.ravel() for axis in np.meshgrid(both, both, upper, indexing="ij"))
    # one of each mode and its mirror image
    keep = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    x, y, z = x[keep], y[keep], z[keep]
    shell = np.maximum(np.maximum(abs(x), abs(y)), z)
    order = np.lexsort((z, y, x, shell))
    x, y, z = x[order], y[order], z[order]
    noise = np.random.default_rng(seed).standard_normal((len(x), 2)) @ np.array([1, 1j])
    k = 2 * np.pi / box * np.sqrt(x**2 + y**2 + z**2)
    # <|mode|^2> = P N^2 / V for N cells in a volume V
    deviation = np.sqrt(power(k) * size**6 / box**3 / 2)
    modes = np.zeros((size, size, size // 2 + 1), dtype=np.complex128)
    modes[x, y, z] = deviation * noise
    plane = z == 0
    modes[-x[plane], -y[plane], 0] = modes[x[plane], y[plane], 0].conj()
    field: Tensor = torch.fft.irfftn(torch.from_numpy(modes), s=(size,) * 3)
    return field


def zeldovich(overdensity: Float[Tensor, "*space"], spacing: Spacing) -> Displacement:
    """Displacement psi = -grad laplacian^-1 delta of first order [L].

    Args:
        overdensity: Linear overdensity delta.
        spacing: Cell size [L]; one per axis, or one for all.
    """
    return -inverse_gradient(overdensity, spacing)


def second_order(zeldovich: Displacement, spacing: Spacing) -> Displacement:
    """The displacement of second order that a growth factor D2 multiplies [L].

    It is grad laplacian^-1 sum_{i<j} (psi_i,i psi_j,j - psi_i,j psi_j,i) (C06), to be multiplied by
    D2 < 0, `map2map.physics.cosmology.growth_factor_second`.

    Args:
        zeldovich: Displacement psi of first order [L], at the time to which D refers (z = 0).
        spacing: Cell size [L]; one per axis, or one for all.
    """
    sizes = check_displacement(zeldovich, spacing)
    strain = [[derivative(psi, j - 3, sizes[j]) for j in range(3)] for psi in zeldovich]
    source = torch.zeros_like(zeldovich[0])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        source = source + strain[i][i] * strain[j][j] - strain[i][j] * strain[j][i]
    return inverse_gradient(source, spacing)


def inverse_gradient(
    source: Float[Tensor, "*space"], spacing: Spacing, *, spectral: bool = True
) -> Displacement:
    """The gradient of laplacian^-1 of a source [L].

    Args:
        source: Its mean is ignored.
        spacing: Cell size [L]; one per axis, or one for all.
        spectral: Whether the gradient is exact, or central differences of fourth order.
    """
    sizes = cell_sizes(spacing, source.ndim)
    k = wavenumbers(source.shape, sizes)
    potential = inverse_laplacian_modes(torch.fft.rfftn(source), k)
    parts = []
    for wave, size, n in zip(k, sizes, source.shape, strict=True):
        phase = wave * size
        factor = phase if spectral else (8 * torch.sin(phase) - torch.sin(2 * phase)) / 6
        if n % 2 == 0:
            # the wave of alternating signs has no gradient at the cells
            factor = torch.where(phase.abs() > pi * (1 - 1e-9), 0, factor)
        modes = potential * (1j * (factor / size).to(source))
        parts.append(torch.fft.irfftn(modes, s=source.shape))
    return torch.stack(parts)


def inverse_laplacian(source: Float[Tensor, "*space"], spacing: Spacing) -> Float[Tensor, "*space"]:
    """The field of mean 0 whose Laplacian is the source [u L^2].

    Args:
        source: Values [u]; their mean is ignored.
        spacing: Cell size [L]; one per axis, or one for all.
    """
    k = wavenumbers(source.shape, spacing)
    modes = inverse_laplacian_modes(torch.fft.rfftn(source), k)
    field: Tensor = torch.fft.irfftn(modes, s=source.shape)
    return field


def inverse_laplacian_modes(modes: Tensor, k: list[Tensor]) -> Tensor:
    """The modes of laplacian^-1 of a field, from its own; the mean is 0.

    Args:
        modes: Of `torch.fft.rfftn`.
        k: Their wavenumbers, see `map2map.physics.operators.wavenumbers`.
    """
    squared = reduce(torch.add, (part**2 for part in k))
    squared[(0,) * modes.ndim] = 1
    solved = -modes / squared.to(modes.real)
    solved[(0,) * modes.ndim] = 0
    return solved


def check_displacement(displacement: Tensor, spacing: Spacing) -> tuple[float, ...]:
    """Distance of the particles per axis.

    Raises:
        GeometryError: If the displacement is not one of three components on three axes.
    """
    if displacement.ndim != 4 or displacement.shape[0] != 3:
        raise GeometryError(
            f"a displacement has shape (3, n, n, n), not {tuple(displacement.shape)}"
        )
    return cell_sizes(spacing, 3)
