"""Readers: what gives windows of a field, be it in a file, a number, or computed from others."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from map2map.derived import Box, Derived
from map2map.errors import FieldError, GeometryError
from map2map.grids import Grid
from map2map.physics.spacing import step_of
from map2map.sources import Axis, Source, Stored
from map2map.sources.base import check_target, copies_of
from map2map.typing import Array, Shape
from map2map.windows import Window

__all__ = [
    "ConstantReader",
    "DerivedReader",
    "FrameReader",
    "PlaneReader",
    "Reader",
    "box_of",
    "derive",
    "resolve",
]


T = TypeVar("T")


class Reader(Protocol):
    """Gives windows of fields, as a `Source` does."""

    @property
    def path(self) -> Path:
        """The file, or one of them."""

    def stored(self, field: str) -> Stored:
        """What is known of a field."""

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Read a window of it; see `Source.read`."""

    def view(
        self, field: str, window: Window, grid: Grid | None = None
    ) -> tuple[Array, object] | None:
        """A window where it lies in a memory map; see `Source.view`."""

    def mapped(self, field: str) -> Array | None:
        """All of it in a memory map; see `Source.mapped`."""

    def release(self) -> None:
        """Give back memory."""


class Unmapped:
    """What is not in a file has no memory map."""

    def view(
        self, field: str, window: Window, grid: Grid | None = None
    ) -> tuple[Array, object] | None:
        """None: it has to be made."""

    def mapped(self, field: str) -> Array | None:
        """None, likewise."""


@dataclass(frozen=True)
class FrameReader:
    """One frame of a file that has several.

    Args:
        source: The file.
        frame: The number of the frame; fields without frames are the same in all.
    """

    source: Source
    frame: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    def stored(self, field: str) -> Stored:
        """What the file says of a field."""
        return self.source.stored(field)

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Read a window of the frame."""
        self.source.read(field, window, out, grid, self.frame)

    def view(
        self, field: str, window: Window, grid: Grid | None = None
    ) -> tuple[Array, object] | None:
        """A window of the frame in a memory map."""
        return self.source.view(field, window, grid, self.frame)

    def mapped(self, field: str) -> Array | None:
        """All frames in a memory map."""
        return self.source.mapped(field)

    def release(self) -> None:
        """Give back memory."""
        self.source.release()


@dataclass(frozen=True)
class PlaneReader:
    """One plane of fields that have one more axis; it reads nothing else.

    Args:
        reader: Of the fields.
        axis: The axis that the plane lies across.
        number: Which cell of it.
    """

    reader: Reader
    axis: int
    number: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.reader.path

    def stored(self, field: str) -> Stored:
        """The same without that axis."""
        whole = self.reader.stored(field)
        shape = without(whole.shape, self.axis)
        return replace(whole, shape=shape, axes=without(whole.axes, self.axis))

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Read a window of the plane."""
        wide, around = self._wide(field, window, grid)
        self.reader.read(field, wide, np.expand_dims(out, 1 + self.axis), around)

    def view(
        self, field: str, window: Window, grid: Grid | None = None
    ) -> tuple[Array, object] | None:
        """A window of the plane in a memory map."""
        found = self.reader.view(field, *self._wide(field, window, grid))
        return found and (found[0].squeeze(1 + self.axis), found[1])

    def mapped(self, field: str) -> Array | None:
        """All planes in a memory map."""
        return self.reader.mapped(field)

    def _wide(self, field: str, window: Window, grid: Grid | None) -> tuple[Window, Grid]:
        """The window of all axes, and their grid."""
        whole, a = self.reader.stored(field).shape, self.axis
        wide = Window(
            (*window.start[:a], self.number, *window.start[a:]),
            (*window.stop[:a], self.number + 1, *window.stop[a:]),
        )
        return wide, around_plane(grid or Grid(without(whole, a)), whole, a)

    def release(self) -> None:
        """Give back memory."""
        self.reader.release()


@lru_cache(maxsize=64)
def around_plane(grid: Grid, whole: Shape, axis: int) -> Grid:
    """The grid of a whole field, from that of its planes across an axis."""
    beyond = (*grid.beyond[:axis], "periodic", *grid.beyond[axis:])
    return Grid(whole, None, tuple(side == "periodic" for side in beyond), grid.pad)


def without(values: Sequence[T], axis: int) -> tuple[T, ...]:
    """All values but that of one axis; none if there are none."""
    return (*values[:axis], *values[axis + 1 :])


@dataclass(frozen=True)
class ConstantReader(Unmapped):
    """A field that has the same value everywhere.

    Args:
        value: The value.
        like: What is known of a field on the same grid.
        path: Of that field, for messages.
    """

    value: float
    like: Stored
    path: Path

    def stored(self, field: str) -> Stored:
        """A field of one channel on that grid."""
        return self.like.beside(field, 1, ())

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Fill a window; zeros where they are made up."""
        stored = replace(self.stored(field), frames=None)
        check_target(stored, window, out, grid)
        for _, view in copies_of(stored, window, out, grid):
            view[...] = self.value

    def release(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class DerivedReader(Unmapped):
    """A field that is computed from others, window by window.

    Args:
        derived: How.
        readers: Of the fields that it needs: the reader, and the name there.
        spacing: Cell size per axis where files have no coordinates, if known.
    """

    derived: Derived
    readers: Mapping[str, tuple[Reader, str]]
    spacing: tuple[float, ...] | None = None

    @property
    def path(self) -> Path:
        """Of the first field that it needs."""
        return next(iter(self.readers.values()))[0].path

    def stored(self, field: str) -> Stored:
        """A field on the grid of those that it needs."""
        reader, name = next(iter(self.readers.values()))
        channels = self.derived.channels
        return reader.stored(name).beside(field, channels, (channels,))

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Compute a window."""
        stored = replace(self.stored(field), frames=None)
        grid = grid or Grid(stored.shape)
        check_target(stored, window, out, grid)
        for index, view in copies_of(stored, window, out, grid):
            cells = Window(*zip(*((s.start, s.stop) for s in index[1:]), strict=True))
            view[...] = self._compute(stored, cells, grid)

    def _compute(self, stored: Stored, cells: Window, grid: Grid) -> Array:
        margin = self.derived.margin
        start, stop = [], []
        for a, b, n, beyond in zip(cells.start, cells.stop, grid.shape, grid.beyond, strict=True):
            wraps = beyond == "periodic"
            start.append(a - margin if wraps else max(a - margin, 0))
            stop.append(b + margin if wraps else min(b + margin, n))
        wide = Window(tuple(start), tuple(stop))
        values = {}
        for name, (reader, variable) in self.readers.items():
            channels = reader.stored(variable).channels
            values[name] = np.empty((channels, *wide.shape), np.float64)
            reader.read(variable, wide, values[name], grid)
        box = Box((), ())
        if self.derived.needs_steps:
            box = box_of(stored.axes, self.spacing or grid.spacing, wide, self.derived, self.path)
        result = self.derived.compute(values, box)
        inside = (
            slice(a - b, c - b) for a, b, c in zip(cells.start, wide.start, cells.stop, strict=True)
        )
        return result[(slice(None), *inside)]

    def release(self) -> None:
        """Give back memory."""
        for reader, _ in self.readers.values():
            reader.release()


def resolve(
    names: Sequence[str], derived: Mapping[str, Derived], given: Container[str] = ()
) -> tuple[dict[str, Derived], tuple[str, ...]]:
    """Which fields are computed, and which have to be given.

    Args:
        names: Fields that are wanted.
        derived: How fields can be computed, also those that others are computed from.
        given: Fields that are given, and so not computed.

    Returns:
        How fields are computed, each behind those that it needs; and the others.
    """
    computed: dict[str, Derived] = {}
    stored: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...] = ()) -> None:
        if name in above:
            raise FieldError(f"field {name!r} is computed from itself: {' <- '.join(above)}")
        if name not in derived or name in given:
            stored[name] = None
        elif name not in computed:
            for need in derived[name].needs:
                visit(need, (*above, name))
            computed[name] = derived[name]

    for name in names:
        visit(name)
    return computed, tuple(stored)


def box_of(
    axes: Sequence[Axis],
    spacing: Sequence[float] | None,
    window: Window,
    derived: Derived,
    where: object,
) -> Box:
    """Where a window lies.

    Args:
        axes: Of the grid, as far as known.
        spacing: Cell sizes, for axes without coordinates.
        window: The window; it may reach beyond the grid.
        derived: For what, in messages.
        where: Of which file, likewise.

    Raises:
        GeometryError: If cell sizes are not known or not even.
    """
    steps, coordinates = [], []
    for i, (a, b) in enumerate(zip(window.start, window.stop, strict=True)):
        values = axes[i].values if axes else None
        step = step_of(values)
        if step is not None and isnan(step):
            name = axes[i].name
            raise GeometryError(
                f"{derived} needs even cells, but the coordinates {name!r} of {where} are not; "
                f"interpolate the fields to an even grid"
            )
        if step is None and spacing is None:
            raise GeometryError(
                f"{derived} needs the cell size, but {where} has no coordinates on axis {i}; add "
                f"them to the file, or declare the spacing of the grid (data.domain.spacing)"
            )
        first = 0.0
        if step is None:
            step = (spacing or ())[i]
        elif values is not None:
            first = float(values[0])
        steps.append(step)
        coordinates.append(first + step * np.arange(a, b, dtype=np.float64))
    return Box(tuple(steps), tuple(coordinates))


def derive(
    derived: Mapping[str, Derived],
    values: Mapping[str, Array],
    grid: Grid,
    axes: Sequence[Axis] = (),
    dtype: type[np.floating[Any]] = np.float32,
) -> dict[str, Array]:
    """Derived fields of whole fields in memory.

    Args:
        derived: How, by name, each behind those that it needs; see `resolve`.
        values: Fields by name, each (channel, *space).
        grid: Of the fields.
        axes: With coordinates, if there are any.
        dtype: Of what is returned.

    Returns:
        By name, shape (channels, *space).

    Raises:
        FieldError: If a field that is needed is missing.
    """
    made: dict[str, Array] = {}
    for name, how in derived.items():
        known = {**values, **made}
        missing = [need for need in how.needs if need not in known]
        if missing:
            raise FieldError(
                f"field {name!r} is computed from {', '.join(how.needs)}, but "
                f"{', '.join(missing)} is missing; give it, or {name!r} itself"
            )
        memory = InMemory({need: known[need] for need in how.needs}, tuple(axes))
        reader = DerivedReader(how, {need: (memory, need) for need in how.needs}, grid.spacing)
        made[name] = np.empty((how.channels, *grid.shape), dtype)
        reader.read(name, Window.whole(grid.shape), made[name], grid)
    return made


@dataclass(frozen=True)
class InMemory(Unmapped):
    """Fields in memory, read as if they were in a file.

    Args:
        values: By name, each (channel, *space).
        axes: With coordinates, if there are any.
    """

    values: Mapping[str, Array]
    axes: tuple[Axis, ...] = ()
    path: Path = Path("the fields in memory")

    def stored(self, field: str) -> Stored:
        """What is known of a field."""
        channels, *shape = self.values[field].shape
        return Stored(field, tuple(shape), channels, axes=self.axes)

    def read(self, field: str, window: Window, out: Array, grid: Grid | None = None) -> None:
        """Copy a window."""
        for index, view in copies_of(self.stored(field), window, out, grid):
            view[...] = self.values[field][index]

    def release(self) -> None:
        """Nothing is held."""
