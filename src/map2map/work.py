"""The work of a job: its files and tiles, opened, and the tiles computed one after another."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.arrays import (
    domain_of_input,
    make_engine,
    make_tiling,
    numpy_dtype,
    where_not_finite,
)
from map2map.datasets import (
    check_units,
    grid_attributes,
    grid_declared,
    moved_coordinate,
)
from map2map.engine import Engine, NonFiniteError
from map2map.errors import FieldError, RecipeError
from map2map.jobs import Job, check_members, computed, load, open_runs
from map2map.noise import seed_of
from map2map.patterns import learnt_files
from map2map.physics.spacing import step_of
from map2map.runs import Files
from map2map.sources import Axis, NpySource, Stored
from map2map.stages import Stage
from map2map.styles import style_attributes, warn_outside
from map2map.tiling import Tile, overlapping

__all__ = ["Report", "Work"]


@dataclass
class Report:
    """What applying has done.

    Args:
        output: What was written.
        cells: Output cells that were computed (not those of a former, broken run).
        tiles: Their tiles.
        tile: Input cells of a tile.
        seconds: Time in all.
        computing: Time in which the network ran.
    """

    output: Path
    cells: int = 0
    tiles: int = 0
    tile: tuple[int, ...] = ()
    seconds: float = 0.0
    computing: float = 0.0


class Work:
    """A job, opened: its emulator, its files and its tiles.

    Args:
        job: The job.
        resume: Whether it goes on with a run that broke off, and so with its tiles.
    """

    def __init__(self, job: Job, *, resume: bool = False) -> None:
        self.job, learnt = job, load(job)
        self.record, self.runs = learnt.training_record, open_runs(learnt, job)
        self.emulator = emulator = computed(job, learnt)
        for entry in emulator.inputs:
            path = self.runs.runs[0].paths.get(entry.name)
            if path is None:  # computed, or the same everywhere
                continue
            source, name = self.runs.source(entry.name, 0)
            given = job.inputs[entry.name]
            # an npy file has no name for its field, the others have
            said = isinstance(given, Files) and given.variable is not None
            if name != entry.name and not said and not NpySource.claims(path):
                raise FieldError(
                    f"{path} has no field {entry.name!r}, only {name!r}; if that is it, say "
                    f"so: {entry.name}={path}::{name}"
                )
            check_units(entry, source.stored(name).units)
        source, name = self.runs.source(self.runs.reference, 0)
        self.first = source.stored(name)
        if job.output.resolve() in [path.resolve() for path in self.runs.runs[0].paths.values()]:
            raise RecipeError(f"{job.output} is an input, and would be replaced; choose another")
        domain = job.domain or grid_declared(self.first.attrs, emulator.domain)
        spacing = [step_of(axis.values) for axis in self.first.axes]
        shape = self.runs.shape
        domain_of_input(emulator, domain, spacing, shape=shape, other_grid=job.other_grid)
        check_members(job, learnt)
        self.members = job.members or 1
        if job.members is not None and self.runs.runs[0].frame is not None:
            raise RecipeError(
                f"{self.runs.runs[0].path} has frames, and so has the output; write each member "
                f"to a file of its own: put {{member}} into the name, such as out_{{member}}.nc"
            )
        self.grid = domain.grid(self.runs.shape)
        self.styles = self._styles()
        self._engines: dict[tuple[float, ...], Engine] = {}
        self.engine = self.engine_of(0)
        tile = Stage.tile_before(job.output) if resume and job.settings.tile is None else None
        settings = job.settings if tile is None else replace(job.settings, tile=tile)
        self.tiling = make_tiling(self.engine, emulator, self.grid, settings)

    def __len__(self) -> int:
        return self.members * len(self.runs) * len(self.tiling)

    def _styles(self) -> list[tuple[float, ...]]:
        """The styles of every frame; tells those that lie outside the range of the training."""
        if self.job.styles is not None:
            rows = list(self.job.styles)
        else:
            rows = [tuple(self.runs.styles_of(k).values()) for k in range(len(self.runs))]
        if len(rows) != len(self.runs):
            raise RecipeError(f"there are styles of {len(rows)} frames for {len(self.runs)}")
        warn_outside(self.emulator, map(self._named, dict.fromkeys(rows)))
        return rows

    def _named(self, row: tuple[float, ...]) -> dict[str, float]:
        return dict(zip(self.emulator.styles.names, row, strict=True))

    def engine_of(self, frame: int) -> Engine:
        """What computes the tiles of a frame, with its styles."""
        row = self.styles[frame]
        if row not in self._engines:
            # frames come one after another
            self._engines = {row: make_engine(self.emulator, self.job.settings, self._named(row))}
        return self._engines[row]

    def tile(self, number: int) -> Tile:
        """A tile of a frame or member; they are counted one frame or member after another."""
        return replace(self.tiling[number % len(self.tiling)], index=number)

    def frame(self, tile: Tile) -> int:
        """The frame that a tile belongs to, as they are counted in the input."""
        return self.place(tile) % len(self.runs)

    def place(self, tile: Tile) -> int:
        """The entry of the output's first axis that a tile belongs to: its frame or member."""
        return tile.index // len(self.tiling)

    def member(self, tile: Tile) -> int:
        """The member that a tile belongs to."""
        return self.place(tile) // len(self.runs)

    def compute(self, tile: Tile, values: NDArray[Any]) -> NDArray[Any]:
        """The outputs of a tile, shape (channel, *tile.target.shape)."""
        return self.engine_of(self.frame(tile))(tile, values, self.member(tile))

    def stage(self) -> Stage:
        """Where the output grows."""
        scale = self.emulator.footprint.scale
        return Stage(
            self.job.output,
            self._outputs(),
            self._plan(),
            tuple(scale * n for n in self.tiling.size),
            overwrite=self.job.overwrite,
        )

    def _outputs(self) -> list[Stored]:
        first = self.first
        axes = tuple(
            Axis(
                axis.name,
                None if axis.values is None else moved_coordinate(axis.values, i, self.tiling),
                axis.units,
            )
            for i, axis in enumerate(first.axes)
        )
        frames = first.frame_axis
        if frames is not None and frames.values is not None:
            taken = [run.frame or 0 for run in self.runs]
            frames = replace(frames, values=frames.values[taken])
        count = None if self.runs.runs[0].frame is None else len(self.runs)
        if self.job.members is not None:
            count, frames = self.members, Axis("member", np.arange(self.members))
        about = grid_attributes(self.grid) | {"emulator": self.job.emulator.name} | self._seed()
        about |= style_attributes([self._named(row) for row in self.styles])
        dtype = np.dtype(numpy_dtype(self.engine)).name
        # frames are those of the input; what is given is valid so much later
        learnt = learnt_files(self.record)
        later = {n: {"later": e.later} for n, e in learnt.items() if e.later is not None}
        return [
            Stored(
                entry.name,
                self.tiling.shape,
                entry.channels or 1,
                dtype,
                None if entry.units == "1" and not axes else entry.units,
                axes,
                about | later.get(entry.name, {}),
                frames=count,
                frame_axis=frames,
            )
            for entry in self.emulator.targets
        ]

    def _seed(self) -> dict[str, int]:
        """What random numbers depend on, where there are any."""
        return seed_of(self.engine.module, self.job.settings.running.seed)

    def _plan(self) -> dict[str, Any]:
        inputs = self.job.inputs
        files = {n: Path(str(e.pattern)) for n, e in inputs.items() if isinstance(e, Files)}
        digest = blake2b(self.job.emulator.read_bytes(), digest_size=16).hexdigest()
        running = asdict(self.job.settings.running)
        return {
            "emulator": digest,
            "inputs": {
                name: [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]
                for name, path in files.items()
            },
            "values": {n: e for n, e in inputs.items() if isinstance(e, int | float)},
            **({"styles": [list(row) for row in self.styles]} if len(self.emulator.styles) else {}),
            **({"slope": asdict(self.job.slope)} if self.job.slope else {}),
            "grid": asdict(self.grid),
            "precision": running["precision"],
            "winograd": running["winograd"],
            "tile": self.tiling.size,
            "tiles": len(self),
            **self._seed(),
        }

    def run(
        self, stage: Stage, numbers: Sequence[int], progress: Callable[[int], None] | None = None
    ) -> Report:
        """Compute tiles and write them.

        Args:
            stage: Where to; `Stage.begin` has made it.
            numbers: Of the tiles; those that are finished already are left out.
            progress: Called with the number of output cells that are ready.
        """
        report = Report(self.job.output, tile=self.tiling.size)
        start = time.perf_counter()

        def compute(tile: Tile, values: NDArray[Any]) -> NDArray[Any]:
            began = time.perf_counter()
            output = self.compute(tile, values)
            report.computing += time.perf_counter() - began
            return output

        def write(tile: Tile, values: NDArray[Any]) -> None:
            slices = self.emulator.targets.slices
            parts = {name: values[channels] for name, channels in slices.items()}
            stage.write(tile.index, tile.target, parts, self.place(tile))
            report.tiles += 1
            report.cells += values[0].size
            if progress is not None:
                progress(values[0].size)

        try:
            with stage:
                todo = (self.tile(i) for i in numbers if i not in stage.done)
                overlapping(todo, self.read, compute, write)
        except NonFiniteError as error:
            files = f" of {self.runs.runs[self.frame(error.tile)]}"
            raise FieldError(
                where_not_finite(error, self.emulator.inputs, self.grid, files)
            ) from error
        report.seconds = time.perf_counter() - start
        return report

    def read(self, tile: Tile) -> NDArray[Any]:
        """What a tile reads, shape (channel, *tile.read.shape)."""
        shape = self.emulator.inputs.channels, *tile.read.shape
        values = np.empty(shape, numpy_dtype(self.engine))
        for name, channels in self.emulator.inputs.slices.items():
            source, variable = self.runs.source(name, self.frame(tile))
            source.read(variable, tile.read, values[channels], self.tiling.grid)
            source.release()
        return values
