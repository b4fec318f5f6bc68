"""Between particles (Lagrangian) and grids (Eulerian): cloud-in-cell, on 1 to 3 axes.

`deposit` and `interpolate` are each other's adjoint (Hockney & Eastwood 1988, section 5.3), and
both are differentiable in positions and values. Positions are in cells, and cell i has its center
at i; particles that the grid's cells carry start at the centers.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from map2map.errors import GeometryError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Shape

__all__ = [
    "deposit",
    "displaced",
    "displacement_to_density",
    "interpolate",
    "lagrangian_to_eulerian",
]

Periodic = bool | Sequence[bool]
"""One value per axis, or one for all."""


def deposit(
    positions: Float[Tensor, "batch ndim *points"],
    weights: Float[Tensor, "batch channel *points"] | None,
    shape: Sequence[int],
    *,
    periodic: Periodic = True,
) -> Float[Tensor, "batch channel *space"]:
    """Add particles to the 2^ndim cells around each of them.

    Args:
        positions: Of the particles [cells].
        weights: What each particle carries [u]; 1 if None.
        shape: Cells per axis of the grid.
        periodic: Whether particles beyond an edge come in at the other one; else they are lost. One
            value per axis, or one for all.

    Returns:
        The sum [u] that falls into each cell. If periodic, the total is that of the weights.
    """
    shape = tuple(shape)
    batch = check_positions(positions, shape)
    if weights is None:
        weights = positions.new_ones((batch, 1, *positions.shape[2:]))
    if weights.shape[0] != batch or weights.shape[2:] != positions.shape[2:]:
        raise GeometryError(
            f"weights of shape {tuple(weights.shape)} do not fit positions of shape "
            f"{tuple(positions.shape)}; they must agree in all but the second axis"
        )
    carried = weights.reshape(batch, weights.shape[1], -1)
    field = carried.new_zeros(batch, weights.shape[1], prod(shape))
    for index, share in corners(positions, shape, periodic=periodic):
        field = field.scatter_add(2, index[:, None].expand(carried.shape), carried * share[:, None])
    return field.reshape(batch, weights.shape[1], *shape)


def interpolate(
    field: Float[Tensor, "batch channel *space"],
    positions: Float[Tensor, "batch ndim *points"],
    *,
    periodic: Periodic = True,
) -> Float[Tensor, "batch channel *points"]:
    """Read a field at particles, linearly between the 2^ndim cells around each of them.

    Args:
        field: Values [u].
        positions: Of the particles [cells].
        periodic: Whether the first cell follows the last one; else the field is 0 beyond an edge.
            One value per axis, or one for all.

    Returns:
        Values [u] at the particles.
    """
    shape = tuple(field.shape[2:])
    batch = check_positions(positions, shape)
    if field.shape[0] != batch:
        raise GeometryError(f"{field.shape[0]} fields, but {batch} sets of positions")
    flat = field.reshape(batch, field.shape[1], -1)
    count = prod(positions.shape[2:])
    values = flat.new_zeros(batch, field.shape[1], count)
    for index, share in corners(positions, shape, periodic=periodic):
        read = flat.gather(2, index[:, None].expand(values.shape))
        values = values + read * share[:, None]
    return values.reshape(batch, field.shape[1], *positions.shape[2:])


def lagrangian_to_eulerian(
    displacement: Float[Tensor, "batch ndim *space"],
    values: Float[Tensor, "batch channel *space"] | None,
    spacing: Spacing,
    *,
    scale: int = 1,
    pad: int = 0,
    periodic: Periodic = True,
) -> Float[Tensor, "batch channel *mesh"]:
    """Deposit what the cells of a Lagrangian grid carry where they are displaced to.

    Args:
        displacement: Of the cells [L]; one component per axis.
        values: What each cell carries [u]; 1 if None.
        spacing: Cell size of the Lagrangian grid [L]; one per axis, or one for all.
        scale: Cells of the result per Lagrangian cell and axis.
        pad: Cells of the result added on *each* side of axes that are not periodic, to catch what
            leaves a crop.
        periodic: Whether the grid is a whole periodic box; else what leaves it is lost. One value
            per axis, or one for all.

    Returns:
        The sum [u] in each cell, ``scale`` n + 2 ``pad`` cells per axis (``scale`` n of those
        that are periodic).
    """
    space = tuple(displacement.shape[2:])
    if scale < 1 or pad < 0:
        raise GeometryError(f"`scale` must be at least 1 and `pad` at least 0, not {scale, pad}")
    check_positions(displacement, space)
    wraps = wrapping(periodic, len(space))
    if all(wraps) and pad:
        raise GeometryError(f"a periodic box has nothing around it, but `pad` is {pad}; use 0")
    pads = [0 if wrapped else pad for wrapped in wraps]
    positions = displaced(displacement, spacing, scale)
    if any(pads):
        first = positions.new_tensor(pads).reshape(-1, *(1,) * len(space))
        positions = positions + first
    shape = tuple(scale * n + 2 * more for n, more in zip(space, pads, strict=True))
    return deposit(positions, values, shape, periodic=periodic)


def displaced(
    displacement: Float[Tensor, "batch ndim *space"], spacing: Spacing, scale: int = 1
) -> Float[Tensor, "batch ndim *space"]:
    """Positions of displaced cells, in cells that are ``scale`` times smaller."""
    ndim = displacement.ndim - 2
    positions = []
    for axis, size in enumerate(cell_sizes(spacing, ndim)):
        cells = torch.arange(displacement.shape[2 + axis]).to(displacement)
        along = cells.reshape(-1, *(1,) * (ndim - 1 - axis))
        positions.append((displacement[:, axis] / size + along) * scale)
    return torch.stack(positions, dim=1)


def displacement_to_density(
    displacement: Float[Tensor, "batch ndim *space"],
    spacing: Spacing,
    *,
    scale: int = 1,
    pad: int = 0,
    periodic: Periodic = True,
) -> Float[Tensor, "batch 1 *mesh"]:
    """Overdensity rho / mean(rho) - 1 of equal particles displaced from the cells of a grid.

    The arguments are those of `lagrangian_to_eulerian`. The mean is that of the Lagrangian grid,
    so a crop from which matter leaves ends up below it.
    """
    count = lagrangian_to_eulerian(
        displacement, None, spacing, scale=scale, pad=pad, periodic=periodic
    )
    return count * float(scale ** (displacement.ndim - 2)) - 1


def corners(
    positions: Tensor, shape: Shape, *, periodic: Periodic
) -> Iterator[tuple[Int[Tensor, "batch point"], Float[Tensor, "batch point"]]]:
    """The cells around each particle, as flat indices, and the share of each.

    Shares of cells beyond an edge that is not periodic are 0.
    """
    axes, wraps = [], wrapping(periodic, len(shape))
    for axis, size in enumerate(shape):
        along = positions[:, axis].reshape(positions.shape[0], -1)
        low = along.detach().floor()
        above = along - low  # differentiable: the cell is a constant
        cell = low.long()
        stride = prod(shape[axis + 1 :])
        sides = []
        for offset, share in ((cell, 1 - above), (cell + 1, above)):
            wrapped = offset.remainder(size)
            if not wraps[axis]:
                share = share * (wrapped == offset)
            sides.append((wrapped * stride, share))
        axes.append(sides)
    for corner in product(*axes):
        index, share = corner[0]
        for more, factor in corner[1:]:
            index, share = index + more, share * factor
        yield index, share


def wrapping(periodic: Periodic, ndim: int) -> tuple[bool, ...]:
    """Whether each axis is periodic.

    Raises:
        GeometryError: If there are other axes than values.
    """
    found = (periodic,) * ndim if isinstance(periodic, bool) else tuple(periodic)
    if len(found) != ndim:
        raise GeometryError(f"`periodic` of {ndim} axes needs 1 or {ndim} values, not {found}")
    return found


def check_positions(positions: Tensor, shape: Shape) -> int:
    """The number of sets of positions, if there is one component per axis.

    Raises:
        GeometryError: If not, or if there are not 1 to 3 axes.
    """
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise GeometryError(f"cloud-in-cell is for grids of 1 to 3 axes, not of shape {shape}")
    if positions.ndim < 3 or positions.shape[1] != len(shape):
        raise GeometryError(
            f"on a grid of shape {shape}, positions or displacements must have shape "
            f"(batch, {len(shape)}, *points), not {tuple(positions.shape)}"
        )
    return positions.shape[0]
