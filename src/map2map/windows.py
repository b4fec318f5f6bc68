"""Windows: crops, halos, tiles and wrapping. The only index arithmetic in the package.

A window is a box of cells that may reach beyond its grid. Reading one means copying a few
contiguous slices (`pieces`): at most two per axis where the grid is periodic, so 2^d in all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod

import numpy as np

from map2map.errors import GeometryError
from map2map.grids import Grid
from map2map.typing import Shape

__all__ = [
    "Halo",
    "Piece",
    "Run",
    "Window",
    "anchors",
    "crop_window",
    "per_axis",
    "pieces",
    "round_up",
    "slabs",
]


@dataclass(frozen=True)
class Halo:
    """Cells read around a crop: so many below and above it, on every axis.

    >>> Halo.parse((1, 2, 3, 4), ndim=2)
    Halo(low=(1, 3), high=(2, 4))
    """

    low: Shape
    high: Shape

    @classmethod
    def parse(cls, value: int | Sequence[int], ndim: int) -> "Halo":
        """Read any of map2map's three formats.

        Args:
            value: One number for all sides; one per axis, for both of its sides; or two per axis
                (low, high, low, high, …). On one axis, two numbers are low and high.
            ndim: Number of axes.

        Raises:
            GeometryError: If there are another number of values.
        """
        numbers = (value,) if isinstance(value, int | np.integer) else tuple(value)
        if not all(isinstance(n, int | np.integer) for n in numbers):
            raise GeometryError(f"a halo is made of whole numbers of cells, not {value!r}")
        sides = tuple(int(n) for n in numbers)
        if len(sides) == 1:
            return cls(sides * ndim, sides * ndim)
        if len(sides) == 2 * ndim:
            return cls(sides[0::2], sides[1::2])
        if len(sides) == ndim:
            return cls(sides, sides)
        raise GeometryError(
            f"a halo on {ndim} axes has 1 value (all sides), {ndim} (one per axis) or {2 * ndim} "
            f"(low and high per axis), not {len(sides)}: {value!r}"
        )

    def scaled(self, factor: int) -> "Halo":
        """The same halo in cells that are ``factor`` times smaller."""
        return Halo(tuple(factor * n for n in self.low), tuple(factor * n for n in self.high))


@dataclass(frozen=True)
class Window:
    """A half-open box of cells, ``start <= cell < stop`` on every axis.

    A window may reach beyond the grid; what lies there is decided when it is read.

    >>> Window((0, 4), (4, 8)).grow(Halo.parse(2, ndim=2))
    Window(start=(-2, 2), stop=(6, 10))
    """

    start: Shape
    stop: Shape

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise GeometryError(f"window from {self.start} to {self.stop}: unequal dimensions")
        if any(b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise GeometryError(
                f"the window from {self.start} to {self.stop} holds no cell; a negative halo must "
                f"leave something of the crop"
            )

    @classmethod
    def whole(cls, shape: Shape) -> "Window":
        """The window that is the grid."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def shape(self) -> Shape:
        """Cells per axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.start)

    @property
    def slices(self) -> tuple[slice, ...]:
        """For an array of the grid; only of a window inside it."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def grow(self, halo: Halo) -> "Window":
        """Add the halo's cells; a negative halo takes cells away."""
        return Window(
            tuple(a - n for a, n in zip(self.start, halo.low, strict=True)),
            tuple(b + n for b, n in zip(self.stop, halo.high, strict=True)),
        )

    def scaled(self, factor: int) -> "Window":
        """The same box in cells that are ``factor`` times smaller."""
        return Window(tuple(factor * a for a in self.start), tuple(factor * b for b in self.stop))


@dataclass(frozen=True)
class Run:
    """Consecutive cells of one axis that one slice of the file supplies.

    Args:
        target: Where they go in the window.
        source: Where they lie in the grid; empty if they are made up as zeros; a single cell
            that is repeated for "edge".
        reverse: Whether they are read backwards (mirrored).
    """

    target: slice
    source: slice
    reverse: bool = False


@dataclass(frozen=True)
class Piece:
    """A box of a window that one slice of the file supplies: a `Run` per axis."""

    target: tuple[slice, ...]
    source: tuple[slice, ...]
    reverse: tuple[int, ...] = ()
    """Axes on which the cells are read backwards."""

    @property
    def is_zero(self) -> bool:
        """Whether nothing is read, and the box is filled with zeros."""
        return any(run.start == run.stop for run in self.source)


def axis_runs(start: int, stop: int, size: int, beyond: str) -> list[Run]:
    """Split ``start <= cell < stop`` on an axis of ``size`` cells into runs."""
    runs: list[Run] = []
    cell = start
    while cell < stop:
        turn, offset = divmod(cell, size)
        inside = turn == 0 or beyond == "periodic"
        end = min(stop, (turn + 1) * size)
        target_start = cell - start
        reverse = False
        if inside:
            source = slice(offset, offset + end - cell)
        elif beyond == "edge":
            end = min(stop, 0) if cell < 0 else stop
            source = slice(0, 1) if cell < 0 else slice(size - 1, size)
        elif beyond in ("zero", "model"):  # the latter only to fill up a size
            end = min(stop, 0) if cell < 0 else stop
            source = slice(0, 0)
        elif beyond == "reflect" and size > 1:
            # mirrored at the outermost cells: the pattern repeats after 2 (size - 1) cells
            period = 2 * (size - 1)
            phase = cell % period
            reverse = phase >= size
            if reverse:
                end = min(stop, cell + period - phase)
                source = slice(period - phase - (end - cell) + 1, period - phase + 1)
            else:
                end = min(stop, cell + size - phase)
                if cell < 0:
                    end = min(end, 0)
                source = slice(phase, phase + end - cell)
        elif beyond == "reflect":
            end, source = stop, slice(0, 1)
        else:
            raise GeometryError(
                f"a window from cell {start} to {stop} reaches beyond an axis of {size} cells that "
                f"is not periodic; choose a crop that stays inside, or declare what to make up "
                f"there (pad: reflect, edge or zero)"
            )
        runs.append(Run(slice(target_start, end - start), source, reverse))
        cell = end
    return runs


@lru_cache(maxsize=1 << 12)
def pieces(window: Window, grid: Grid) -> tuple[Piece, ...]:
    """The slices that make up a window, whatever lies beyond the edges of the grid.

    A window no larger than a periodic grid has at most 2^d pieces.

    Raises:
        GeometryError: If the window reaches beyond an edge where nothing may be made up.
    """
    if window.ndim != grid.ndim:
        raise GeometryError(f"a {window.ndim}-D window was asked of a {grid.ndim}-D grid")
    axes = [
        axis_runs(a, b, n, beyond)
        for a, b, n, beyond in zip(window.start, window.stop, grid.shape, grid.beyond, strict=True)
    ]
    return tuple(
        Piece(
            tuple(run.target for run in runs),
            tuple(run.source for run in runs),
            tuple(axis for axis, run in enumerate(runs) if run.reverse),
        )
        for runs in product(*axes)
    )


def per_axis(value: int | Sequence[int] | None, default: Shape, name: str) -> Shape:
    """One number per axis from one for all, one each, or none (the default).

    Raises:
        GeometryError: If there are another number of values.
    """
    if value is None:
        return default
    numbers = (value,) if isinstance(value, int | np.integer) else tuple(value)
    if len(numbers) == 1:
        numbers *= len(default)
    if len(numbers) != len(default):
        raise GeometryError(
            f"`{name}` has {len(numbers)} values, {numbers}, but the fields have {len(default)} "
            f"axes; give 1 or {len(default)}"
        )
    return tuple(int(n) for n in numbers)


Bounds = tuple[int, int] | None
"""First and last anchor on an axis for which all cells are in the grid; None: anywhere."""


def bounds(
    grid: Grid, crop: Shape, halo: Halo, *, flips: bool = False, permute: bool = False
) -> tuple[Bounds, ...]:
    """Where crops may start so that nothing need be made up.

    Args:
        grid: On axes that are not periodic a crop stays inside, because a target is never made
            up; its halo, too, where nothing is made up.
        crop: Shape of the crop.
        halo: Cells read around it.
        flips: Whether low and high sides may be exchanged.
        permute: Whether axes may be exchanged.

    Raises:
        GeometryError: If a crop does not fit.
    """
    found: list[Bounds] = []
    for axis, (n, beyond) in enumerate(zip(grid.shape, grid.beyond, strict=True)):
        if beyond == "periodic":
            found.append(None)
            continue
        axes = range(grid.ndim) if permute else (axis,)
        size = max(crop[a] for a in axes)
        low, high = (max(side[a] for a in axes) for side in (halo.low, halo.high))
        low, high = (max(low, high), max(low, high)) if flips else (low, high)
        low, high = (max(low, 0), max(high, 0)) if beyond in ("refuse", "model") else (0, 0)
        if n - size - high < low:
            raise GeometryError(
                f"axis {axis} has {n} cells and is not periodic, too few for a crop of {size} with "
                f"a halo of {low} and {high}; use a smaller crop, or declare a `pad`"
            )
        found.append((low, n - size - high))
    return tuple(found)


def anchors(
    start: Shape, stop: Shape | None, step: Shape, shape: Shape, within: Sequence[Bounds] = ()
) -> tuple[Sequence[int], ...]:
    """The first cells of the crops, per axis: ``start, start + step, … < stop``.

    Args:
        start: First anchor.
        stop: Anchors are below this; if not given, the shape, and then a last anchor is added
            where the step would leave cells behind before a bound.
        step: From anchor to anchor.
        shape: Cells per axis.
        within: Bounds of the anchors.

    Raises:
        GeometryError: If a step is 0, or there is no crop.
    """
    if 0 in step:
        raise GeometryError(f"`crop_step` is {step}, but a step of 0 never ends; use at least 1")
    axes = []
    for axis, bound in enumerate(within or (None,) * len(shape)):
        low, last = bound or (0, shape[axis] - 1)
        # from the first cell that can be read on
        first = start[axis] if bound is None else max(start[axis], low)
        end = (
            last + 1 if stop is None else stop[axis] if bound is None else min(stop[axis], last + 1)
        )
        cells = list(range(first, end, step[axis]))
        if bound is not None and stop is None and cells and cells[-1] < last:
            cells.append(last)
        axes.append(cells)
    if not all(axes):
        raise GeometryError(
            f"no crop starts between crop_start {start} and crop_stop {stop or shape} with "
            f"crop_step {step}"
        )
    return tuple(axes)


@lru_cache(maxsize=1 << 12)
def crop_window(
    anchor: Shape, crop: Shape, halo: Halo, axes: Shape | None = None, flips: Sequence[bool] = ()
) -> Window:
    """The window to read so that a symmetry turns it into a crop with its halo.

    Args:
        anchor: First cell of the crop in the grid; it is not turned.
        crop: Shape of the crop after the symmetry.
        halo: Halo after the symmetry.
        axes: New axis i of the symmetry is old axis ``axes[i]``.
        flips: Whether each old axis is reversed.
    """
    ndim = len(crop)
    axes = tuple(range(ndim)) if axes is None else axes
    flips = flips or (False,) * ndim
    new = [axes.index(old) for old in range(ndim)]
    low = tuple((halo.high if flip else halo.low)[i] for i, flip in zip(new, flips, strict=True))
    high = tuple((halo.low if flip else halo.high)[i] for i, flip in zip(new, flips, strict=True))
    stop = tuple(a + crop[i] for a, i in zip(anchor, new, strict=True))
    return Window(tuple(anchor), stop).grow(Halo(low, high))


def slabs(shape: Shape, channels: int = 1, cells: int = 1 << 22) -> Iterator[Window]:
    """Windows along the first axis that cover a grid once, each of about ``cells`` numbers."""
    rows = max(1, cells // (channels * prod(shape[1:])))
    rest = (0,) * (len(shape) - 1)
    for start in range(0, shape[0], rows):
        yield Window((start, *rest), (min(start + rows, shape[0]), *shape[1:]))


def round_up(size: int, multiple: int) -> int:
    """The smallest multiple that is not below ``size``."""
    return multiple * ceil(size / multiple)
