"""Crops: where they are, what is varied about them, and what was drawn for one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from map2map.errors import GeometryError, RecipeError
from map2map.grids import Grid
from map2map.symmetry import Symmetry
from map2map.typing import Shape
from map2map.windows import Bounds

__all__ = ["Augment", "Crops", "Draw", "HaloFormat", "Layout", "Where"]

HaloFormat = int | list[int]


@dataclass(frozen=True)
class Where:
    """Which crops are worth reading: those whose middle cell is of interest.

    They are drawn anew at random in every epoch, as many as would tile the grid; runs without any
    are left out.

    Args:
        field: The field that tells; an input or a target.
        above: What it must exceed in the middle cell of a crop.
    """

    field: str
    above: float = 0.0


@dataclass(frozen=True)
class Crops:
    """Where the crops of a run are, and what is read around them.

    Args:
        size: Cells per axis of the input's crop, one number or one per axis; default: the field.
        start: First cell of the first crop; default 0.
        stop: First cells of crops are below this; default: the field's size.
        step: From crop to crop; default: the size.
        halo: Cells of the input read around a crop: for all sides, per axis, or low and high per
            axis; "auto" computes them from the model's footprint.
        target_halo: Likewise around the target's crop, in its own cells.
        scale_factor: Target cells per input cell and axis; "auto" finds it from the first run's
            files. The model must have as many.
        where: Draw crops at random among those whose middle is of interest, instead.
    """

    size: int | list[int] | None = None
    start: int | list[int] | None = None
    stop: int | list[int] | None = None
    step: int | list[int] | None = None
    halo: HaloFormat | Literal["auto"] = "auto"
    target_halo: HaloFormat = 0
    scale_factor: int | Literal["auto"] = "auto"
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.scale_factor != "auto" and self.scale_factor < 1:
            raise GeometryError(f"the scale factor is {self.scale_factor}; it must be at least 1")
        if self.where is not None and (self.start, self.stop) != (None, None):
            raise RecipeError(
                "crops are either on a lattice (start, stop, step) or drawn where a field is large "
                "(where)"
            )


@dataclass(frozen=True)
class Augment:
    """What is varied from epoch to epoch.

    Args:
        symmetries: Which symmetries of the grid the physics has: "none", "all", "flips",
            "permutations", or the numbers of the axes that may be flipped.
        shift: Crops are moved by a random number of cells below this, one number or one per axis.
        add: Deviation of a random number added to all cells of a channel, of the normalized fields.
        mul: Deviation of the logarithm of a random factor, likewise, after ``add``.
        label_smoothing: The probability that labels leave to other classes than the true one.
    """

    symmetries: Literal["none", "all", "flips", "permutations"] | list[int] = "none"
    shift: int | list[int] | None = None
    add: float | None = None
    mul: float | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise RecipeError(
                f"`label_smoothing` is {self.label_smoothing}; it must be at least 0 and below 0.5"
            )
        for name in ("add", "mul"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise RecipeError(f"`{name}` is a deviation, {value}; it cannot be negative")


@dataclass(frozen=True)
class Draw:
    """What is random about one sample.

    Args:
        symmetry: Applied to input and target.
        shift: Cells the crop is moved by.
        add: Added to the normalized fields, shape (channel,) or None.
        mul: Multiplied after that, shape (channel,) or None.
        anchor: First cell of a crop that was drawn; None if it is on the lattice.
        directions: Whether coordinates ascend (1) or descend (-1), per axis; empty: all ascend.
    """

    symmetry: Symmetry
    shift: Shape
    add: NDArray[np.float32] | None = None
    mul: NDArray[np.float32] | None = None
    anchor: Shape | None = None
    directions: Shape = ()


@dataclass(frozen=True)
class Layout:
    """Where the crops of a run are.

    Args:
        grid: Of the inputs.
        target_grid: Of the targets.
        bounds: First and last anchor per axis, where there is a limit.
        anchors: First cells of the crops, per axis.
        choices: Numbers of the cells that a crop may start at if it is drawn, counted along the
            last axis first; None if crops are on the lattice.
    """

    grid: Grid
    target_grid: Grid
    bounds: tuple[Bounds, ...]
    anchors: tuple[Sequence[int], ...]
    choices: NDArray[np.int64] | None = None

    @cached_property
    def count(self) -> int:
        """How many crops a run has in an epoch."""
        if self.choices is not None and not len(self.choices):
            return 0
        return prod(len(axis) for axis in self.anchors)

    def anchor(self, number: int) -> Shape:
        """First cell of a crop on the lattice."""
        found = []
        for axis in reversed(self.anchors):
            number, i = divmod(number, len(axis))
            found.append(axis[i])
        return tuple(reversed(found))

    def choice(self, number: int, rng: np.random.Generator | None) -> Shape | None:
        """First cell of a crop that is drawn; without random numbers they are spread evenly."""
        if self.choices is None:
            return None
        among = len(self.choices)
        i = (2 * number + 1) * among // (2 * self.count) if rng is None else rng.integers(among)
        cell = np.unravel_index(int(self.choices[i]), self.grid.shape)
        return tuple(int(c) for c in cell)
