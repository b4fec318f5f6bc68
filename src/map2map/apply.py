"""Apply an emulator to fields in files, of any size: tile by tile, resumable, by any processes."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.arrays import (
    Applicable,
    Settings,
    domain_of_input,
    make_engine,
    make_tiling,
    numpy_dtype,
    require_noise,
    where_not_finite,
)
from map2map.datasets import (
    check_units,
    grid_attributes,
    grid_declared,
    moved_coordinate,
)
from map2map.emulator import Emulator
from map2map.engine import Engine, NonFiniteError, Running
from map2map.errors import FieldError, RecipeError
from map2map.grids import Domain
from map2map.noise import draws_noise
from map2map.patterns import learnt_files
from map2map.physics.spacing import step_of
from map2map.processes import processes
from map2map.runs import Files, Runs, distinct_names
from map2map.slopes import Derivative, Velocity
from map2map.sources import Axis, NpySource, Stored, open_source
from map2map.stages import Stage
from map2map.styles import outside
from map2map.tiling import Tile, overlapping
from map2map.told import Told
from map2map.windows import Window, round_up
from map2map.workers import on_dask

__all__ = ["Job", "Report", "Slope", "apply_files", "check", "jobs_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slope:
    """What is computed of an emulator instead of its targets.

    Args:
        by: Their derivative by this style or input; or None: the velocity of displacements.
        Om: Matter density for the velocity, if there is no style of that name.
    """

    by: str | None = None
    Om: float | None = None


@dataclass(frozen=True)
class Job:
    """An emulator, the files of one run, and where the output goes: all that a process needs.

    Args:
        emulator: Its file.
        inputs: For each of its inputs, the file; for each of its styles, where it is told.
        output: What to write: a file, Zarr store or folder of npy files.
        domain: What lies beyond the edges; default: what the files say, or the training's.
        other_grid: Whether periodic axes and cell size may differ from the training's.
        settings: How it is applied.
        overwrite: Whether an output may be replaced.
        trust: Import paths that the emulator's card may import.
        callback_at: Folder of the user's code that its card needs.
        members: Of an ensemble, which are written along an axis ``member`` before all others;
            member m is what the seed and m more gives. None: one output, without that axis.
        slope: What is computed instead of the targets, if it is not they.
        styles: For each frame the styles, in their order, instead of where they are told.
    """

    emulator: Path
    inputs: Mapping[str, Files | Told | float]
    output: Path
    domain: Domain | None = None
    other_grid: bool = False
    settings: Settings = field(default_factory=Settings)
    overwrite: bool = False
    trust: tuple[str, ...] = ()
    callback_at: Path | None = None
    members: int | None = None
    slope: Slope | None = None
    styles: tuple[tuple[float, ...], ...] | None = None


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


def jobs_of(job: Job) -> list[Job]:
    """A job for every run that the patterns of the inputs match, and every member with a file.

    Raises:
        RecipeError: If there are several, and ``{run}`` is not in the name of the output.
    """
    emulator = load(job)
    check_members(job, emulator)
    runs = open_runs(emulator, job)
    text = str(job.output)
    # the frames of a file belong together, whichever of them are taken
    files = list({id(run.found): run.paths for run in runs}.values())
    rows: dict[int, list[tuple[float, ...]]] = {}
    for k, run in enumerate(runs):
        rows.setdefault(id(run.found), []).append(tuple(runs.styles_of(k).values()))
    if len(files) > 1 and "{run}" not in text:
        raise RecipeError(
            f"{len(files)} runs match, but there is one output {text}; put {{run}} into its name"
        )
    jobs = []
    for paths, styles in zip(files, rows.values(), strict=True):
        # told by what is about to be left out, such as placeholders
        told = runs.styles.names if job.styles is None else ()
        inputs = {name: entry for name, entry in job.inputs.items() if name not in told}
        for name, path in paths.items():
            entry = inputs[name]
            assert isinstance(entry, Files)
            inputs[name] = replace(entry, pattern=str(path))
        jobs.append(replace(job, inputs=inputs, styles=tuple(styles) if told else job.styles))
    names = distinct_names([next(iter(paths.values())) for paths in files])
    jobs = [
        replace(each, output=Path(text.replace("{run}", name.replace(os.sep, "_"))))
        for each, name in zip(jobs, names, strict=True)
    ]
    if "{member}" not in text:
        return jobs
    return [member_of(each, m) for each in jobs for m in range(job.members or 0)]


def member_of(job: Job, member: int) -> Job:
    """The job of one member of an ensemble that has a file of its own."""
    output = Path(str(job.output).replace("{member}", str(member)))
    return replace(job, output=output, members=None, settings=job.settings.of_member(member))


def check_members(job: Job, emulator: Emulator) -> None:
    """Refuse an ensemble of equal members, or of none.

    Raises:
        RecipeError: If it is asked for.
    """
    if job.members is None:
        if "{member}" in str(job.output):
            raise RecipeError(
                f"{job.output} is to be named after members, but there are none; say how many "
                f"(--members 10, members=10)"
            )
        return
    if job.members < 1:
        raise RecipeError(f"an ensemble has at least 1 member, not {job.members}")
    require_noise(emulator)


def open_runs(emulator: Emulator, job: Job) -> Runs:
    """The runs that the inputs' files make."""
    # units are compared, and refused, later
    inputs = [replace(entry, units=None) for entry in emulator.inputs]
    styles = list(emulator.styles) if job.styles is None else []
    return Runs(inputs, [], job.inputs, emulator.domain, derived=emulator.derived, styles=styles)


def load(job: Job) -> Emulator:
    """The emulator of a job."""
    return emulator_at(job.emulator, job.trust, job.callback_at)


def computed(job: Job, emulator: Emulator) -> Applicable:
    """What a job computes: the targets of its emulator, or how they change."""
    if job.slope is None:
        return emulator
    if job.slope.by is None:
        return Velocity(emulator, job.slope.Om)
    return Derivative(emulator, job.slope.by)


def emulator_at(
    path: Path, trust: tuple[str, ...] = (), callback_at: Path | None = None
) -> Emulator:
    """The emulator in a file; once per process."""
    version = path.stat().st_mtime_ns if path.exists() else 0
    return load_once(path, version, trust, callback_at)


@lru_cache(maxsize=2)
def load_once(path: Path, _: int, trust: tuple[str, ...], callback_at: Path | None) -> Emulator:
    """The emulator in a file."""
    return Emulator.load(path, trust=trust, callback_at=callback_at)


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
        tile = Stage.tile_before(job.output) if resume else None
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
        for row in dict.fromkeys(rows):
            for text in outside(self.emulator, self._named(row)):
                log.warning("%s; what the emulator gives there was never tested", text)
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

    def compute(self, tile: Tile, values: NDArray[np.float32]) -> NDArray[Any]:
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
        if len(set(self.styles)) == 1:
            about |= {
                f"style_{n}": f"{value:g}" for n, value in self._named(self.styles[0]).items()
            }
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
        noisy = draws_noise(self.engine.module)
        return {"seed": self.job.settings.running.seed} if noisy else {}

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

        def compute(tile: Tile, values: NDArray[np.float32]) -> NDArray[Any]:
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

    def read(self, tile: Tile) -> NDArray[np.float32]:
        """What a tile reads, shape (channel, *tile.read.shape)."""
        values = np.empty((self.emulator.inputs.channels, *tile.read.shape), np.float32)
        for name, channels in self.emulator.inputs.slices.items():
            source, variable = self.runs.source(name, self.frame(tile))
            source.read(variable, tile.read, values[channels], self.tiling.grid)
            source.release()
        return values


def apply_files(
    job: Job,
    *,
    resume: bool = False,
    scheduler: str | None = None,
    progress: Callable[[Work], Any] | None = None,
) -> Report:
    """Apply an emulator to one run.

    Under torchrun all processes call this and share the tiles.

    Args:
        job: What to do.
        resume: Whether to go on with a run that broke off; if there is none, it starts.
        scheduler: Address of a dask.distributed scheduler whose workers share the tiles, or
            "local" for workers on this machine.
        progress: Called with the work once it is known; returns a context manager that gives a
            function to be called with the number of output cells that are ready.

    Raises:
        FieldError, GeometryError: If the files do not fit the emulator.
        SaveError: If the output exists, or cannot be written; what was finished is kept.
    """
    with processes() as group:
        work = Work(job, resume=resume)
        stage = work.stage()
        try:
            if group.rank == 0:
                stage.begin(resume=resume)
            group.wait()
            with (progress or quiet)(work) as told:
                if scheduler is None:
                    numbers = range(group.rank, len(work), group.count)
                    report = work.run(stage, numbers, told)
                else:
                    report = by_workers(work, stage, scheduler, told)
        except BaseException:
            if group.count == 1:
                stage.discard_if_empty()
            raise
        report.cells, report.tiles = group.total([report.cells, report.tiles])
        if group.rank == 0:
            stage.finish(len(work))
        group.wait()
    return report


@contextmanager
def quiet(_: Work) -> Iterator[None]:
    """No progress."""
    yield None


def by_workers(
    work: Work, stage: Stage, scheduler: str, told: Callable[[int], None] | None
) -> Report:
    """Let the workers of a dask.distributed cluster compute the tiles."""
    start = time.perf_counter()
    report = Report(work.job.output, tile=work.tiling.size)
    todo = sorted(set(range(len(work))) - stage.finished())
    # for workers that run in another folder
    inputs = {
        name: replace(entry, pattern=str(Path(str(entry.pattern)).resolve()))
        if isinstance(entry, Files)
        else entry
        for name, entry in work.job.inputs.items()
    }
    if work.job.styles is None:
        # where they are told, such as in a table
        inputs = {n: e for n, e in inputs.items() if n not in work.emulator.styles.names}
    job = replace(
        work.job,
        emulator=work.job.emulator.resolve(),
        inputs=inputs,
        output=work.job.output.resolve(),
        styles=tuple(work.styles) if len(work.emulator.styles) else None,
        settings=replace(work.job.settings, tile=work.tiling.size),
    )

    def done(part: Report) -> None:
        report.tiles += part.tiles
        report.cells += part.cells
        report.computing += part.computing
        if told is not None:
            told(part.cells)

    on_dask(partial(part_of, job), shares(todo), scheduler, done)
    report.seconds = time.perf_counter() - start
    return report


def shares(numbers: Sequence[int], most: int = 64) -> list[Sequence[int]]:
    """Tiles in groups: as few as keep many workers busy to the end."""
    size = max(1, len(numbers) // most)
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def part_of(job: Job, numbers: Sequence[int]) -> Report:
    """Some tiles of a job whose stage is there; runs on a worker."""
    work = Work(job)
    return work.run(work.stage(), numbers)


def check(job: Job, count: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Compute random windows of an output again, in float64 and as plainly as can be.

    Args:
        job: Whose output is there.
        count: How many windows.
        seed: Of the random numbers.

    Returns:
        For each target the largest deviation, in its units, and its rms in these windows.
    """
    seed_there = job.settings.running.seed
    running = Running("fp64", channels_last=False, rings=False, seed=seed_there)
    plain = Settings(running, allow_nonfinite=True)
    work = Work(replace(job, settings=replace(plain, tile=job.settings.tile)))
    domain, step = work.tiling.domain, work.emulator.footprint.multiple
    framed = work.runs.runs[0].frame is not None or job.members is not None
    output = open_source(job.output, ndim=work.emulator.ndim, framed=framed)
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(work.emulator.targets.names, (0.0, 0.0))
    squares, cells = dict.fromkeys(found, 0.0), dict.fromkeys(found, 0)
    for _ in range(count):
        start, stop = [], []
        for a, b in zip(domain.start, domain.stop, strict=True):
            size = (
                min(round_up(16, step), b - a) if work.emulator.footprint.whole is None else b - a
            )
            start.append(a + step * int(rng.integers((b - a - size) // step + 1)))
            stop.append(start[-1] + size)
        number = int(rng.integers(work.members * len(work.runs))) * len(work.tiling)
        tile = work.tiling.tile(Window(tuple(start), tuple(stop)), number)
        values = work.compute(tile, work.read(tile))
        for name, channels in work.emulator.targets.slices.items():
            variable = name if name in output.fields else next(iter(output.fields))
            expected = values[channels]
            written = np.empty(expected.shape)
            output.read(variable, tile.target, written, frame=work.place(tile))
            finite = np.isfinite(expected)
            error = np.abs(written - expected)[finite].max(initial=0.0)
            if not np.array_equal(finite, np.isfinite(written)):
                error = np.inf
            squares[name] += float((expected[finite] ** 2).sum())
            cells[name] += int(finite.sum())
            found[name] = (max(found[name][0], float(error)), 0.0)
    return {
        name: (error, float(np.sqrt(squares[name] / max(1, cells[name]))))
        for name, (error, _) in found.items()
    }
