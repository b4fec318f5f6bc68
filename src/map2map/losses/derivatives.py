"""Gradients, or the divergence, of output and target."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from map2map.errors import GeometryError, RecipeError
from map2map.losses.physical import PhysicalLoss, or_one
from map2map.physics.operators import difference, neighbors

__all__ = ["Derivatives"]


class Derivatives(PhysicalLoss):
    """Mean squared error of derivatives, in parts of the mean square of the target's gradient.

    In physical values, by differences of cells that the crop has: nothing is made up beyond its
    edges, and a whole periodic field has none. A gradient is between each cell and the next; a
    divergence, whose terms must be known at one place, between the neighbors of a cell. Both are
    divided by the mean square of one component of the target's gradient, over the batch, so that
    the loss has no units, for flows without divergence too; a target without any gradient counts as
    if that were one unit.

    Args:
        field: The target that is compared; not needed if there is one.
        of: "gradient", of every channel, or "divergence", of a vector.
        absolute: Whether errors stay in physical units instead, squared.
    """

    def __init__(
        self,
        field: str | None = None,
        *,
        of: Literal["gradient", "divergence"] = "gradient",
        absolute: bool = False,
    ) -> None:
        super().__init__(field)
        if of not in ("gradient", "divergence"):
            raise RecipeError(f"`of` is gradient or divergence, not {of!r}")
        self.of, self.absolute = of, absolute

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: All targets as they came out, normalized, shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all. Derivatives of
                which one does not are left out.

        Raises:
            GeometryError: If a crop has too few cells.
        """
        self.check_alike(output, target)
        mine, grid = self.channels(self.name), self.grid(target.shape[2:])
        assert not isinstance(grid.periodic, bool)
        if min(grid.shape) < (3 if self.of == "divergence" else 2):
            raise GeometryError(f"crops of {grid.shape} cells have no {self.of}; make them larger")
        found, truth = (self.physical(values, self.name) for values in (output, target))
        known = torch.ones_like(truth, dtype=torch.bool) if counts is None else counts[:, mine]
        wrong, truth = (torch.where(known, values, 0.0) for values in (found - truth, truth))
        sizes = self.spacing(grid) if self.absolute else grid.spacing or (1.0,) * grid.ndim
        if not self.absolute:
            # in units in which no square overflows or vanishes
            units = or_one(truth.detach().square().mean().sqrt())
            wrong, truth = wrong / units, truth / units
            sizes = tuple(size / min(sizes) for size in sizes)
        if self.of == "divergence":
            self.vector(self.name, grid.ndim)
            errors = divergence(wrong, known, sizes, grid.periodic)
        else:
            errors = gradient(wrong, known, sizes, grid.periodic)
        if self.absolute:
            return errors
        return errors / or_one(gradient(truth, known, sizes, grid.periodic).detach())


def gradient(
    values: Tensor, known: Tensor, sizes: Sequence[float], periodic: Sequence[bool]
) -> Tensor:
    """Mean square of the differences of neighbors that are both known, over all axes."""
    sums, number = [], known.new_zeros((), dtype=torch.long)
    for axis, (size, wraps) in enumerate(zip(sizes, periodic, strict=True), start=2):
        both = torch.stack(neighbors(known, axis, periodic=wraps)).all(dim=0)
        slopes = difference(values, axis, size, periodic=wraps)
        sums.append(torch.where(both, slopes, 0.0).square().sum())
        number = number + both.sum()
    return torch.stack(sums).sum() / number.clamp(min=1)


def divergence(
    values: Tensor, known: Tensor, sizes: Sequence[float], periodic: Sequence[bool]
) -> Tensor:
    """Mean square of the divergence at cells of which all neighbors are known."""
    parts, there = [], []
    for axis, (size, wraps) in enumerate(zip(sizes, periodic, strict=True)):
        i = axis + 1  # of a component, without the axis of channels
        slopes = difference(values[:, axis], i, size, periodic=wraps, central=True)
        pair = neighbors(known[:, axis], i, periodic=wraps, central=True)
        parts.append(inner(slopes, i, periodic))
        there.append(inner(torch.stack(pair).all(dim=0), i, periodic))
    counts = torch.stack(there).all(dim=0)
    total = torch.where(counts, torch.stack(parts).sum(dim=0), 0.0)
    return total.square().sum() / counts.sum().clamp(min=1)


def inner(values: Tensor, done: int, periodic: Sequence[bool]) -> Tensor:
    """Without the outermost cells of axes that are not periodic, but of the one that is done."""
    for axis, wraps in enumerate(periodic, start=1):
        if axis != done and not wraps:
            values = values.narrow(axis, 1, values.shape[axis] - 2)
    return values
