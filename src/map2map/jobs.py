"""Jobs of applying: which emulator, the files of which runs, and what is to be written."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from map2map.arrays import Applicable, Settings, require_noise
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.grids import Domain
from map2map.runs import Files, Runs, distinct_names
from map2map.slopes import Derivative, Velocity
from map2map.told import Told

__all__ = [
    "Job",
    "Slope",
    "check_members",
    "computed",
    "emulator_at",
    "jobs_of",
    "load",
    "open_runs",
]


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
