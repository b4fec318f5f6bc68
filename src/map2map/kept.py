"""Fields kept in memory: splits that are small are read once, and windows copied from there."""

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from map2map.fields import FieldSet
from map2map.grids import Grid
from map2map.runs import Run, Runs
from map2map.sources import Stored
from map2map.sources.base import copies_of
from map2map.typing import Array
from map2map.windows import Window

__all__ = ["Kept", "read_fields", "whole_bytes"]


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
        if self.runs.runs[run].plane is not None and set(fields.names) & set(self.runs.derived):
            # computed on the plane, not on all that it is a plane of
            read_fields(self.runs, run, fields, window, grid, out)
            return
        values = self._whole(run, fields, grid)
        stored = Stored("fields", grid.shape, len(values))
        for index, view in copies_of(stored, window, out, grid):
            view[...] = values[index]

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


def read_fields(
    runs: Runs, run: int | Run, fields: FieldSet, window: Window, grid: Grid, out: Array
) -> None:
    """Read a window of several fields of a run from their files, shape (channels, *window)."""
    for name, channels in fields.slices.items():
        source, variable = runs.source(name, run)
        source.read(variable, window, out[channels], grid)
