"""Stages: where an output grows tile by tile, until it is complete and takes its name.

Beside the output ``run.zarr`` there is a hidden folder ``.run.zarr.part`` with the fields as far as
they are written, what they were made from (``plan.json``), and the numbers of the tiles that are
finished (``done.*``, one file per process). Another process may go on from there.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from map2map.errors import SaveError
from map2map.files import replacing
from map2map.grids import Grid
from map2map.sources import NpySource, Stored, ZarrSource, format_for, open_source
from map2map.sources.sinks import Sink
from map2map.typing import Shape
from map2map.windows import Window, slabs

__all__ = ["Stage"]

CHUNK = 128
"""Cells per axis of a chunk that readers like."""


class Stage:
    """An output that is being made, by one process or several.

    Args:
        path: Where the output shall be.
        fields: What it holds.
        plan: What it is made from and how; another plan cannot go on with it.
        tile: Cells of a tile in the output; files of chunked formats are divided likewise, so that
            no two tiles share one.
        overwrite: Whether an output, or what is left of a broken run, may be replaced.
        counted: What tiles are called, if they are none of space; the plan tells how many.

    Attributes:
        done: Tiles that are finished.
    """

    def __init__(
        self,
        path: Path,
        fields: Sequence[Stored],
        plan: Mapping[str, Any],
        tile: Shape,
        *,
        overwrite: bool = False,
        counted: str = "tiles",
    ) -> None:
        self.path, self.fields, self.plan, self.tile = path, list(fields), dict(plan), tile
        self.overwrite, self.counted = overwrite, counted
        self.folder = path.with_name(f".{path.name}.part")
        self.done: set[int] = set()
        self._journal: Any = None
        self._final: Sink | None = None
        sink = self._make_sink(path)
        if not sink.resumable:
            # these formats have to be written in one go, from the complete fields
            self._final, sink = sink, NpySource.create(self.folder / "fields", self.fields)
        self.sink = sink.in_part(self.folder / "data")

    def _make_sink(self, path: Path) -> Sink:
        kind = format_for(path)
        if kind is ZarrSource:
            return ZarrSource.create(
                path,
                self.fields,
                overwrite=self.overwrite,
                chunks=tuple(chunk_of(n) for n in self.tile),
                shards=self.tile,
            )
        sink: Sink = kind.create(path, self.fields, overwrite=self.overwrite)  # type: ignore[attr-defined]
        return sink

    def begin(self, *, resume: bool) -> None:
        """Make the stage, or go on with the one there is; by one process, before all others.

        Raises:
            SaveError: If a stage is there and nobody asked to go on, or it is of another plan.
        """
        if self.folder.exists():
            before, done = self._plan_before(), len(self.finished())
            if resume:
                self._check_plan(before)
            elif self.overwrite:
                shutil.rmtree(self.folder)
            else:
                raise SaveError(
                    f"a run that was to write {self.path} broke off with {done} of "
                    f"{before.get(self.counted, '?')} {self.counted} finished; go on with it "
                    f"(--resume) or start anew (--overwrite)"
                )
        if not self.folder.exists():
            try:
                self.folder.mkdir(parents=True)
            except OSError as error:
                raise SaveError(f"cannot make {self.folder}: {error}") from error
            with replacing(self.folder / "plan.json") as temporary:
                temporary.write_text(json.dumps(self.plan))
            with self.sink as sink:
                sink.suspend()

    def _plan_before(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / "plan.json").read_text()))
        except (OSError, ValueError):
            return {}

    def _check_plan(self, before: dict[str, Any]) -> None:
        for key, value in json.loads(json.dumps(self.plan)).items():
            if before.get(key) != value:
                raise SaveError(
                    f"the run that broke off had {key} {before.get(key)!r}, not {value!r}; go on "
                    f"with the same, or start anew (--overwrite)"
                )

    @staticmethod
    def tile_before(path: Path) -> Shape | None:
        """The tiles of a run that broke off: whoever goes on uses the same."""
        try:
            plan = json.loads((path.with_name(f".{path.name}.part") / "plan.json").read_text())
            return tuple(int(n) for n in plan["tile"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def finished(self) -> set[int]:
        """Tiles that any process has finished."""
        # what follows the last line's end was cut off
        texts = (file.read_text().rpartition("\n")[0] for file in self.folder.glob("done.*"))
        return {int(line) for text in texts for line in text.split()}

    def __enter__(self) -> Self:
        self.done = self.finished()
        self.sink.__enter__()
        name = f"done.{socket.gethostname()}.{os.getpid()}"
        self._journal = (self.folder / name).open("a", buffering=1)
        return self

    def write(
        self, tile: int, window: Window, values: Mapping[str, NDArray[Any]], frame: int = 0
    ) -> None:
        """Write the fields of a tile of a frame, and that it is finished."""
        for name, part in values.items():
            self.sink.write(name, window, part, frame)
        try:
            self._journal.write(f"{tile}\n")
        except OSError as error:
            raise SaveError(f"cannot write to {self.folder}: {error}; go on (--resume)") from error
        self.done.add(tile)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._journal.close()
        if kind is None:
            self.sink.suspend()
        else:
            self.sink.__exit__(kind, error, traceback)

    def discard_if_empty(self) -> None:
        """Remove it if nothing is finished that is worth going on with."""
        if not self.finished():
            shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, tiles: int) -> None:
        """Give the output its name; by one process, when all are done.

        Raises:
            SaveError: If tiles are missing, or it cannot be written.
        """
        missing = tiles - len(self.finished())
        if missing:
            raise SaveError(
                f"{missing} of {tiles} {self.counted} are missing in {self.folder}; --resume"
            )
        with self.sink:
            pass
        if self._final is not None:
            framed = any(item.frames is not None for item in self.fields)
            source = open_source(self.folder / "fields", ndim=len(self.tile), framed=framed)
            self._copy(source, self._final)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self, source: Any, sink: Sink) -> None:
        """Write the complete fields in a format that has to be written in one go."""
        with sink:
            for item in self.fields:
                windows = product(range(item.frames or 1), slabs(tuple(item.shape), item.channels))
                for frame, slab in windows:
                    values = np.empty((item.channels, *slab.shape), item.dtype)
                    source.read(item.name, slab, values, Grid(tuple(item.shape)), frame)
                    source.release()
                    sink.write(item.name, slab, values, frame)


def chunk_of(cells: int) -> int:
    """The largest divisor of a tile that makes a good chunk; the tile if there is none."""
    divisors = [n for n in range(16, min(cells, CHUNK) + 1) if cells % n == 0]
    return divisors[-1] if divisors else cells
