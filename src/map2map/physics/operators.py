"""Gradient, divergence, curl and Laplacian of periodic fields, on 1 to 3 axes.

Fields have shape (batch, channel, *space): one channel for scalars, one per axis for vectors.
Derivatives are spectral, or central differences of second or fourth order.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from map2map.errors import GeometryError, RecipeError, near_names
from map2map.physics.spacing import Spacing, cell_sizes

__all__ = [
    "Scheme",
    "curl",
    "derivative",
    "difference",
    "divergence",
    "gradient",
    "laplacian",
    "wavenumbers",
]

Scheme = Literal["spectral", "central", "central4"]

STENCILS = {"central": {1: 1 / 2}, "central4": {1: 2 / 3, 2: -1 / 12}}
"""Weights of f(x + i) - f(x - i); errors are of order spacing^2 and spacing^4."""


def gradient(
    field: Float[Tensor, "batch 1 *space"], spacing: Spacing = 1.0, scheme: Scheme = "spectral"
) -> Float[Tensor, "batch ndim *space"]:
    """Gradient of a scalar field.

    Args:
        field: Values [u].
        spacing: Cell size [L]; one per axis, or one for all.
        scheme: "spectral", or central differences of second ("central") or fourth order
            ("central4").

    Returns:
        Derivative along each axis [u/L].
    """
    ndim, sizes = check_field(field, 1, spacing)
    parts = [derivative(field[:, 0], axis - ndim, sizes[axis], scheme) for axis in range(ndim)]
    return torch.stack(parts, dim=1)


def divergence(
    vector: Float[Tensor, "batch ndim *space"], spacing: Spacing = 1.0, scheme: Scheme = "spectral"
) -> Float[Tensor, "batch 1 *space"]:
    """Divergence of a vector field [u/L]; the arguments are those of `gradient`."""
    ndim, sizes = check_field(vector, None, spacing)
    parts = (derivative(vector[:, i], i - ndim, sizes[i], scheme) for i in range(ndim))
    return reduce(torch.add, parts)[:, None]


def curl(
    vector: Float[Tensor, "batch ndim *space"], spacing: Spacing = 1.0, scheme: Scheme = "spectral"
) -> Float[Tensor, "batch channel *space"]:
    """Curl of a vector field [u/L]; the arguments are those of `gradient`.

    Returns:
        In three dimensions the vector, of 3 channels; in two the scalar dv_1/dx_0 - dv_0/dx_1, of 1
        channel, which is its component out of the plane.
    """
    ndim, sizes = check_field(vector, None, spacing)
    if ndim == 1:
        raise GeometryError("there is no curl on one axis; it needs two or three")

    def rotation(i: int, j: int) -> Tensor:
        along = derivative(vector[:, j], i - ndim, sizes[i], scheme)
        return along - derivative(vector[:, i], j - ndim, sizes[j], scheme)

    planes = [(0, 1)] if ndim == 2 else [(1, 2), (2, 0), (0, 1)]
    return torch.stack([rotation(*plane) for plane in planes], dim=1)


def laplacian(
    field: Float[Tensor, "batch 1 *space"], spacing: Spacing = 1.0, scheme: Scheme = "spectral"
) -> Float[Tensor, "batch 1 *space"]:
    """Divergence of the gradient [u/L^2]; the arguments are those of `gradient`."""
    return divergence(gradient(field, spacing, scheme), spacing, scheme)


def derivative(
    field: Tensor, axis: int, spacing: float = 1.0, scheme: Scheme = "spectral"
) -> Tensor:
    """Derivative along one axis [u/L].

    Args:
        field: Values [u], of any shape.
        axis: Along which to differentiate.
        spacing: Cell size of this axis [L].
        scheme: See `gradient`.
    """
    if scheme not in get_args(Scheme):
        raise RecipeError(f"unknown scheme {scheme!r}{near_names(scheme, get_args(Scheme))}")
    if scheme == "spectral":
        size = field.shape[axis]
        k = torch.fft.rfftfreq(
            size, spacing / (2 * torch.pi), dtype=torch.float64, device=field.device
        )
        if size % 2 == 0:
            # the wave of alternating signs is stationary at the cells, whatever its amplitude
            k[-1] = 0
        factor = (1j * k.to(field.dtype)).reshape(-1, *(1,) * ((-1 - axis) % field.ndim))
        result: Tensor = torch.fft.irfft(factor * torch.fft.rfft(field, dim=axis), n=size, dim=axis)
        return result
    differences = (
        weight * (field.roll(-cells, axis) - field.roll(cells, axis))
        for cells, weight in STENCILS[scheme].items()
    )
    return reduce(torch.add, differences) / spacing


def difference(
    field: Tensor, axis: int, spacing: float = 1.0, *, periodic: bool = False, central: bool = False
) -> Tensor:
    """Difference quotient along one axis, of values that are there: nothing beyond an edge is used.

    Args:
        field: Values [u], of any shape.
        axis: Along which to differentiate.
        spacing: Cell size of this axis [L].
        periodic: Whether the first cell follows the last one.
        central: Between the neighbors of a cell, at its center, instead of between a cell and the
            next, at the face between both.

    Returns:
        Derivative [u/L]; on an axis that is not periodic of one cell less, or of two if central.
    """
    behind, ahead = neighbors(field, axis, periodic=periodic, central=central)
    return (ahead - behind) / ((2 if central else 1) * spacing)


def neighbors(
    field: Tensor, axis: int, *, periodic: bool, central: bool = False
) -> tuple[Tensor, Tensor]:
    """The values that `difference` subtracts from each other, behind and ahead."""
    if periodic:
        return (field.roll(1, axis) if central else field), field.roll(-1, axis)
    size = field.shape[axis]
    count = max(size - (2 if central else 1), 0)
    return field.narrow(axis, 0, count), field.narrow(axis, size - count, count)


def wavenumbers(shape: Sequence[int], spacing: Spacing = 1.0) -> list[Tensor]:
    """Wavenumbers of the modes of `torch.fft.rfftn`, in double precision.

    Args:
        shape: Cells per axis.
        spacing: Cell size [L]; one per axis, or one for all.

    Returns:
        For each axis, its component of the wavenumber [rad/L], shaped to broadcast with the modes.
    """
    sizes = cell_sizes(spacing, len(shape))
    parts = []
    for axis, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        frequencies = torch.fft.rfftfreq if axis == len(shape) - 1 else torch.fft.fftfreq
        k = frequencies(n, size / (2 * torch.pi), dtype=torch.float64)
        parts.append(k.reshape(-1, *(1,) * (len(shape) - 1 - axis)))
    return parts


def check_field(
    field: Tensor, channels: int | None, spacing: Spacing
) -> tuple[int, tuple[float, ...]]:
    """Number of space axes and cell size of each.

    Args:
        field: Values, shape (batch, channel, *space).
        channels: How many there must be; one per axis if None.
        spacing: Cell size; one per axis, or one for all.

    Raises:
        GeometryError: If the field has other axes or channels.
    """
    ndim = field.ndim - 2
    if not 1 <= ndim <= 3 or field.shape[1] != (channels or ndim):
        expected = "1 channel" if channels == 1 else "one channel per space axis"
        raise GeometryError(
            f"expected a field of shape (batch, channel, *space) with {expected} and 1 to 3 space "
            f"axes, not {tuple(field.shape)}"
        )
    return ndim, cell_sizes(spacing, ndim)
