"""Fields in memory: small splits are read once and kept, larger ones lie in memory maps."""

import time
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from map2map.fields import FieldSet
from map2map.grids import Grid
from map2map.readers import Reader
from map2map.runs import Run, Runs
from map2map.sources import Stored
from map2map.sources.base import copies_of
from map2map.typing import Array
from map2map.windows import Window, pieces

__all__ = ["Kept", "Views", "read_fields", "whole_bytes"]


AGE = 1.0
"""Seconds until a file whose windows are remembered is looked at again: was it replaced?"""


def whole_bytes(runs: Runs) -> int:
    """Bytes that all fields of all runs take in memory, as float32."""
    total = 0
    for run in runs.groups:
        cells = int(np.prod(runs.shape_of(run)))
        fine = cells * runs.scale_factor ** len(runs.shape_of(run))
        total += cells * runs.inputs.channels
        total += fine * runs.targets.channels if runs.numbers is None else 0
    return 4 * total


class Kept:
    """Whole fields of runs, each set read when it is first asked for, and kept.

    Args:
        runs: The runs.
        most: How many of the last ones are kept; default: all.
    """

    def __init__(self, runs: Runs, most: int | None = None) -> None:
        self.runs, self.most = runs, most
        self._values: dict[tuple[int, tuple[str, ...]], NDArray[np.float32]] = {}
        self._lock = Lock()

    def read(self, run: int, fields: FieldSet, window: Window, grid: Grid, out: Array) -> None:
        """Copy a window of fields, shape (channels, *window), as `Source.read` would read it."""
        if self._on_plane(run, fields):
            read_fields(self.runs, run, fields, window, grid, out)
            return
        values = self._whole(run, fields, grid)
        stored = Stored("fields", grid.shape, len(values))
        for index, view in copies_of(stored, window, out, grid):
            view[...] = values[index]

    def view(self, run: int, fields: FieldSet, window: Window, grid: Grid) -> Array | None:
        """A window of fields where it is kept; None if it has to be put together."""
        parts = pieces(window, grid)
        if self._on_plane(run, fields) or len(parts) > 1 or parts[0].is_zero or parts[0].reverse:
            return None
        return self._whole(run, fields, grid)[(slice(None), *parts[0].source)]

    def _on_plane(self, run: int, fields: FieldSet) -> bool:
        """Whether some are computed on a plane, not on all that it is a plane of."""
        return self.runs.runs[run].plane is not None and bool(
            set(fields.names) & set(self.runs.derived)
        )

    def _whole(self, number: int, fields: FieldSet, grid: Grid) -> NDArray[np.float32]:
        """All cells of a run: of a plane, a view of what it is a plane of."""
        run = self.runs.runs[number]
        key = run.group, fields.names
        with self._lock:
            if key not in self._values:
                whole = self.runs.groups[run.group]
                if run.plane is not None:
                    source, variable = self.runs.source(fields.names[0], whole)
                    grid = Grid(source.stored(variable).shape)
                values = np.empty((fields.channels, *grid.shape), np.float32)
                read_fields(self.runs, whole, fields, Window.whole(grid.shape), grid, values)
                self._values[key] = values
                if self.most is not None and len(self._values) > self.most:
                    del self._values[next(iter(self._values))]
            values = self._values[key]
        if run.plane is None:
            return values
        axis, cell = run.plane
        return values[(slice(None),) * (1 + axis) + (cell,)]


@dataclass(frozen=True)
class View:
    """A part of a window, where it lies.

    Args:
        channels: Which of the window's channels.
        values: The numbers, shape (channels, *window).
        reader: What maps its file, and the field there; None if it is kept.
        whole: The map that the numbers are in.
    """

    channels: slice
    values: Array
    reader: tuple[Reader, str] | None = None
    whole: object = None


class Views:
    """Windows that lie in memory as they are, remembered.

    To find out where a small window lies takes longer than to copy it.

    Args:
        runs: The runs.
        kept: What is kept of them; None, if they are in files.
        most: How many windows are remembered.
    """

    def __init__(self, runs: Runs, kept: Kept | None, most: int = 1 << 16) -> None:
        self.runs, self.kept, self.most = runs, kept, most
        self._known: dict[tuple[int, int, Window], list[View]] = {}
        self._looked: dict[int, float] = {}

    def copy(self, run: int, side: int, window: Window, out: Array) -> bool:
        """Copy a window that is remembered, shape (channels, *window).

        Args:
            run: Number of the run.
            side: 0 for its inputs, 1 for its targets.
            window: Which cells.
            out: Where they go.

        Returns:
            Whether it was; nothing is copied otherwise.
        """
        views = self._known.get((run, side, window))
        if views is None:
            return False
        for view in views:
            if view.reader is not None and not self._is_current(*view.reader, view.whole):
                return False
            np.copyto(out[view.channels], view.values, casting="same_kind")
        return True

    def _is_current(self, reader: Reader, variable: str, whole: object) -> bool:
        """Whether a file is the one that was mapped; it is looked at once in a while."""
        now, looked = time.monotonic(), self._looked.get(id(whole), 0.0)
        if now - looked > AGE and reader.mapped(variable) is not whole:
            return False
        if now - looked > AGE:
            self._looked[id(whole)] = now
        return True

    def remember(self, run: int, side: int, window: Window, grid: Grid) -> None:
        """Remember a window, if it lies in memory as it is."""
        fields = (self.runs.inputs, self.runs.targets)[side]
        if len(self._known) >= self.most:
            return
        views = []
        if self.kept is not None:
            values = self.kept.view(run, fields, window, grid)
            views = [] if values is None else [View(slice(None), values)]
        else:
            for name, channels in fields.slices.items():
                reader, variable = self.runs.source(name, run)
                found = reader.view(variable, window, grid)
                if found is None:
                    return
                views.append(View(channels, found[0], (reader, variable), found[1]))
        if views:
            self._known[run, side, window] = views


def read_fields(
    runs: Runs, run: int | Run, fields: FieldSet, window: Window, grid: Grid, out: Array
) -> None:
    """Read a window of several fields of a run from their files, shape (channels, *window)."""
    for name, channels in fields.slices.items():
        source, variable = runs.source(name, run)
        source.read(variable, window, out[channels], grid)
