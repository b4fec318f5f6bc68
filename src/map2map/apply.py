"""Apply an emulator to fields in files, of any size: tile by tile, resumable, by any processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from map2map.arrays import Settings
from map2map.engine import Running
from map2map.jobs import Job
from map2map.processes import processes
from map2map.runs import Files
from map2map.sources import open_source
from map2map.stages import Stage
from map2map.windows import Window, round_up
from map2map.work import Report, Work
from map2map.workers import on_dask

__all__ = ["apply_files", "check"]


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
