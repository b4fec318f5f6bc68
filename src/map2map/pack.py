"""Pack: runs of field files as sharded Zarr groups, cut up for reading crops anywhere.

Every run becomes one group, ``FOLDER/<run>.zarr``, with an array per field, so that training reads
any field of a packed set from ``FOLDER/*.zarr``. `plan` finds out what is to be done, `pack` does
it; a broken pack goes on where it stopped, because complete runs are known by their records.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, prod
from pathlib import Path

from map2map.errors import M2MError, RecipeError, SaveError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.layouts import Layout, lay_out
from map2map.packed import (
    Job,
    Packed,
    Place,
    Settings,
    nbytes,
    need,
    out_dtype,
    pack_run,
)
from map2map.patterns import Files, Found
from map2map.records import differences, record_of
from map2map.runs import Runs
from map2map.sources import Stored
from map2map.typing import Shape
from map2map.workers import on_dask, on_threads

__all__ = ["Plan", "Settings", "pack", "plan"]


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Args:
        folder: Where the packed runs go.
        settings: How they are packed.
        fields: What is stored of each field, as in the first run's file.
        windows: What is read of each field at once.
        layouts: How each is cut up.
        jobs: The runs to pack.
        complete: Those that are packed already.
    """

    folder: Path
    settings: Settings
    fields: Mapping[str, Stored]
    windows: Mapping[str, Shape]
    layouts: Mapping[str, Layout]
    jobs: tuple[Job, ...]
    complete: tuple[Path, ...]

    @property
    def least_memory(self) -> int:
        """Bytes that packing one run needs."""
        return max(need(self.fields[name], layout) for name, layout in self.layouts.items())

    def chunk_bytes(self, name: str) -> int:
        """Bytes of the values of a field's chunk."""
        stored = self.fields[name]
        width = out_dtype(stored, self.settings).itemsize
        return prod(self.layouts[name].chunk) * stored.channels * width

    @property
    def run_bytes(self) -> int:
        """Bytes of the values of a run, as in its files."""
        return sum(nbytes(stored) for stored in self.fields.values())


def plan(
    patterns: Mapping[str, Files],
    folder: Path,
    settings: Settings,
    *,
    ndim: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Find runs, check them against one another, and choose layouts.

    Args:
        patterns: Where the files of each field are.
        folder: Where the packed runs go.
        settings: How they are packed.
        ndim: Number of axes of the grid, see `Runs`.
        overwrite: Whether runs that were packed otherwise, or from other files, are packed again.

    Raises:
        SourceError, FieldError, GeometryError: If files are missing, unreadable or do not fit.
        RecipeError: If a target is no field.
        SaveError: If there is something in ``folder`` that may not be replaced.
    """
    unknown = [name for name in settings.targets if name not in patterns]
    if unknown or set(settings.targets) >= set(patterns):
        raise RecipeError(
            f"the targets are {', '.join(settings.targets)}, but the fields {', '.join(patterns)}; "
            f"name some of them, not all (if no field has a halo, use a halo of 0)"
        )
    inputs = [Field(name) for name in patterns if name not in settings.targets]
    targets = [Field(name) for name in patterns if name in settings.targets]
    runs = Runs(inputs, targets, patterns, Domain(ndim), scale_factor=settings.scale_factor)
    fields, windows, layouts = {}, {}, {}
    for name in patterns:
        source, variable = runs.source(name, 0)
        fields[name] = source.stored(variable)
        windows[name] = settings.window(runs.shape, target=name in settings.targets)
        layouts[name] = lay_out(
            fields[name].shape,
            windows[name],
            fields[name].channels * out_dtype(fields[name], settings).itemsize,
            overhead=settings.overhead,
            shard_bytes=settings.shard_bytes,
        )
    first = next(iter(patterns))
    names = run_names([run.found[first] for run in runs])
    folder = folder.resolve()
    jobs = [
        Job(folder / f"{name}.zarr", places(runs, k), layouts, settings, runs.ndim, 0)
        for k, name in enumerate(names)
    ]
    parts = divided(folder, jobs, overwrite=overwrite)
    return Plan(folder, settings, fields, windows, layouts, *parts)


def places(runs: Runs, k: int) -> dict[str, Place]:
    """Where the fields of a run are; all of its files are looked into."""
    found = {}
    for name, path in runs.runs[k].paths.items():
        _, variable = runs.source(name, k)
        # of the same meaning in the folder of any worker
        found[name] = Place(path.resolve(), variable)
    return found


def run_names(found: Sequence[Found]) -> list[str]:
    """A name for every run, sorted as its files are: of its array, or what wildcards stand for.

    >>> run_names([Found(Path(f"data/za_{k}.npy"), wild=(k,)) for k in ("00", "01")])
    ['run_00', 'run_01']
    >>> run_names([Found(Path("cubes.h5"), "gr_seed0001", {"seed": "0001"}, ("gr", "0001"))])
    ['gr_seed0001']
    """
    several = len({entry.variable for entry in found}) > 1
    names = []
    for entry in found:
        wild = "_".join(part for part in entry.wild if part) or entry.path.stem
        if entry.variable and (several or entry.told):
            wild = entry.variable.strip("/")
        name = re.sub(r"[^\w.-]+", "_", wild).strip("._") or "run"
        names.append(name if name[0].isalpha() else f"run_{name}")
    if len(set(names)) == len(names) and sorted(names, key=lambda name: f"{name}.zarr") == names:
        return names
    # training sorts by name, and must find the runs in the order in which their files are
    return [f"{k:0{len(str(len(names) - 1))}}_{name}" for k, name in enumerate(names)]


def divided(
    folder: Path, jobs: Sequence[Job], *, overwrite: bool
) -> tuple[tuple[Job, ...], tuple[Path, ...]]:
    """The runs that are to be packed, and those that are packed already.

    Raises:
        SaveError: If the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise SaveError(f"{folder} is a file; give another folder for the packed runs")
    mine = {job.path for job in jobs}
    for job in jobs:
        inputs = {place.path for place in job.places.values()}
        if any(path in mine or mine & set(path.parents) for path in inputs):
            raise SaveError(f"{job.path} would be packed into itself; choose another folder")
    pending, complete = [], []
    for job in jobs:
        asked, found = job.record(), record_of(job.path)
        if found is None and job.path.exists():
            raise SaveError(f"{job.path} was not made by pack, and stays; choose another folder")
        differs = differences(found, asked) if found is not None else []
        if differs and not overwrite:
            raise SaveError(
                f"{job.path} exists and was packed otherwise: {'; '.join(differs)}; choose another "
                f"folder, or ask to overwrite it"
            )
        if found is None or differs:
            pending.append(replace(job, overwrite=found is not None))
        else:
            complete.append(job.path)
    for path in sorted(folder.glob("*.zarr")) if jobs else ():
        found = None if path in mine else record_of(path)
        differs = differences(found, jobs[0].record(), inputs=False) if found is not None else []
        if path not in mine and (found is None or differs):
            why = "; ".join(differs) or "it was not made by pack"
            raise SaveError(
                f"{path} is in the way: every {folder.name}/*.zarr is a run of the packed set, but "
                f"{why}; choose another folder, or remove it"
            )
    return tuple(pending), tuple(complete)


def pack(
    todo: Plan,
    *,
    memory: int,
    threads: int = 2,
    dask: str | None = None,
    tell: Callable[[int], object] | None = None,
    done: Callable[[Packed], object] = lambda _: None,
) -> None:
    """Pack the runs that are not packed yet.

    Args:
        todo: What to do.
        memory: Bytes that may be used; with dask, on each worker.
        threads: Most runs at the same time, if there is memory for them.
        dask: Instead of threads, the workers of this scheduler: an address, or "local" for workers
            on this machine.
        tell: Given the bytes of values of each shard when it is written (not with dask).
        done: Given each run when it is complete.

    Raises:
        RecipeError: If the memory is too small.
        M2MError: The first that packing a run raises. Runs that are complete stay.
    """
    if todo.least_memory > memory:
        least, allowed = (ceil(n / 2**20) for n in (todo.least_memory, memory))
        raise RecipeError(
            f"packing needs {least} MiB of memory, but {allowed} MiB are allowed; allow more, or "
            f"smaller shards"
        )
    if not todo.jobs:
        return
    count = 1 if dask else max(1, min(threads, len(todo.jobs), memory // todo.least_memory))
    jobs = [replace(job, memory=memory // count) for job in todo.jobs]
    with locked(todo.folder):
        remove_broken(todo.folder)
        try:
            if dask:
                on_dask(pack_run, jobs, dask, done)
            else:
                on_threads(partial(pack_run, tell=tell), jobs, count, done)
        except M2MError as error:
            count = len(todo.complete) + sum(record_of(j.path) == j.record() for j in jobs)
            raise type(error)(
                f"{error}; {count} of {len(jobs) + len(todo.complete)} runs are packed and stay in "
                f"{todo.folder}, and the same command goes on from there"
            ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from packing into a folder; the system ends that with this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SaveError(f"cannot write into {folder}: {error}; choose another folder") from error
    try:
        lock(handle, folder)
        yield
    finally:
        os.close(handle)


def lock(handle: int, folder: Path) -> None:
    """Take the lock of a folder, where the system has such locks."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock
    except ImportError:  # not on Windows
        return
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        raise SaveError(
            f"another process is packing into {folder}; wait until it ends, or stop it"
        ) from None
    except OSError:  # some network file systems have none
        return


def remove_broken(folder: Path) -> None:
    """Remove what packs that were killed have left behind."""
    for path in folder.glob(".*.zarr.*.part*"):
        shutil.rmtree(path, ignore_errors=True)
