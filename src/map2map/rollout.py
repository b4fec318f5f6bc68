"""Rollouts: an emulator of steps in time, applied to what it gives, again and again.

What becomes what, `map2map.feeds` tells; inputs that nothing feeds, such as masks, stay as they
are. An emulator with several later outputs makes as many times in one step.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from hashlib import blake2b
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from map2map.arrays import (
    Settings,
    apply_arrays,
    drawn,
    make_engine,
    make_tiling,
    numpy_dtype,
    where_not_finite,
)
from map2map.baselines import read_field
from map2map.emulator import Emulator
from map2map.engine import NonFiniteError
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.feeds import Series, check_computed, check_feed, label, share
from map2map.fields import field_channels
from map2map.frames import times_of
from map2map.grids import Grid
from map2map.noise import seed_of
from map2map.physics.spacing import step_of
from map2map.records import identity
from map2map.runs import Runs
from map2map.sources import Axis, Stored
from map2map.stages import Stage
from map2map.styles import style_attributes, style_of, warn_outside
from map2map.tiling import Tile, overlapping, take
from map2map.times import duration, unit
from map2map.typing import Array
from map2map.windows import Window

__all__ = ["followed", "inputs_of", "rollout", "write_rollout"]

Track = Callable[[Iterable[int], int], Iterable[int]]
"""Shows the progress of so many steps."""

Read = Callable[[Window, Array, Grid], None]
"""Reads a window of an input."""


ELSEWHERE = "start elsewhere (--only): from NaN no rollout goes on"
"""What to do about NaN in the input, if not to mend it."""


def rollout(
    emulator: Emulator,
    fields: Mapping[str, Any],
    steps: int,
    feed: Mapping[str, str],
    settings: Settings | None = None,
    start: int = 0,
) -> Iterator[dict[str, Any]]:
    """Apply an emulator to what it gives, one step after another.

    Args:
        emulator: Of one step.
        fields: What it starts from, as `Emulator.apply` takes it by name.
        steps: How many.
        feed: For outputs, the input that each becomes in the next step, and for inputs, the one
            that each becomes as an earlier frame of it; other inputs are kept.
        settings: How the emulator is applied; default: its own. What it draws at random, it draws
            anew in every step.
        start: Of several rollouts, the number of this one, which draws other random numbers.

    Yields:
        Targets of each step by name, as `Emulator.apply` gives them, also those that feed nothing.

    Raises:
        RecipeError: If there are no steps.
        FieldError: If an output cannot feed an input, or is NaN or infinite; or if an input is
            given that is computed from one that is fed (leave it out).
        GeometryError: If outputs have fewer cells than inputs, so that they cannot feed them.
    """
    warn_outside(emulator, [style_of(emulator, fields)])
    yield from followed(emulator, fields, steps, feed, settings, start)


def followed(
    emulator: Emulator,
    fields: Mapping[str, Any],
    steps: int,
    feed: Mapping[str, str],
    settings: Settings | None = None,
    start: int = 0,
) -> Iterator[dict[str, Any]]:
    """`rollout`, without a word on styles outside the range of the training."""
    if steps < 1:
        raise RecipeError(f"a rollout has 1 step or more, not {steps}")
    check_feed(emulator, feed)
    check_computed([n for n in emulator.inputs.names if n in fields], emulator.derived, feed)
    settings = settings or emulator.settings
    now = dict(fields)
    for k in range(1, steps + 1):
        how = settings.of_step(k - 1, start)
        found = apply_arrays(emulator, now, settings=how, remedy=ELSEWHERE)
        yield found
        if k == steps:
            return
        last = dict(now)
        for target, name in feed.items():
            if target in found and not bool(np.isfinite(np.asarray(found[target])).all()):
                raise blown_up(target, k, steps)
            value, before = found[target] if target in found else last[target], now[name]
            if value.shape[-emulator.ndim :] != before.shape[-emulator.ndim :]:
                raise too_small(target, name, value.shape, before.shape)
            now[name] = value


def write_rollout(  # noqa: PLR0913 - what a rollout is made of
    emulator: Emulator,
    runs: Runs,
    steps: int,
    feed: Mapping[str, str],
    output: Path,
    *,
    step: str | int = 1,
    series: Series | None = None,
    settings: Settings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    track: Track = lambda numbers, _: numbers,
) -> None:
    """Write a rollout from the first run, all or nothing: (time, …) for each output.

    Every step is computed tile by tile, and what it gives lies on disk until the next has read it,
    so that fields may be larger than the memory. Tiles do not show in the result. If it breaks
    off, the steps that are finished are kept beside the output (`Stage`), and the same call with
    ``resume`` goes on behind them; nothing is kept of a rollout that blew up.

    Args:
        emulator: Of one step.
        runs: Of its inputs; the first is where the rollout starts.
        steps: How many.
        feed: See `rollout`.
        output: What to write: a file, Zarr store or folder.
        step: How much later an output is, a time or frames. Outputs get the times when they are
            valid, in the units of the input's; where it has none that are even, steps are
            counted.
        series: Which outputs are frames of one array (`feeds.series_of`); they are written as one,
            under the name of the input that they are later frames of.
        settings: Tiles, memory, precision and seed; default: the emulator's own.
        overwrite: Whether an output may be replaced, or what is left of a rollout that broke off.
        resume: Whether to go on with one that broke off; if there is none, it starts.
        track: Shows the progress.

    Raises:
        FieldError: If outputs cannot become inputs, inputs hold NaN or are computed from those that
            are fed, or the rollout blows up.
        GeometryError: If outputs have fewer cells than inputs.
        SaveError: If it cannot be written, or what broke off was another rollout.
    """
    check_feed(emulator, feed)
    check_computed(emulator.inputs.names, runs.derived, feed)
    settings = settings or emulator.settings
    styles = style_of(emulator, runs.styles_of(0))
    warn_outside(emulator, [styles])
    source, variable = runs.source(runs.reference, 0)
    first = source.stored(variable)
    written = written_of(emulator, series)
    parts = max(map(len, written.values()))
    axis = valid_times(first.frame_axis, runs.runs[0].frame, share(step, parts), steps * parts)
    about = about_of(emulator, runs, settings, styles)
    stored = [
        Stored(
            name,
            first.shape,
            emulator.targets[targets[-1]].channels or 1,
            units=emulator.targets[targets[-1]].units,
            axes=first.axes,
            attrs=about,
            frames=steps * parts,
            frame_axis=axis,
        )
        for name, targets in written.items()
    ]
    output = Path(output)
    if not output.absolute().parent.is_dir():
        raise SaveError(f"there is no folder {output.absolute().parent} to write {output.name} to")
    stepper = Stepper(emulator, runs, feed, tiled(settings, output, resume=resume), styles)
    plan = plan_of(emulator, runs, feed, settings)
    plan |= {"tile": stepper.tiling.size, "steps": steps}
    stage = Stage(output, stored, plan, stepper.tiling.size, overwrite=overwrite, counted="steps")
    stage.begin(resume=resume)
    places = {t: (name, i) for name, members in written.items() for i, t in enumerate(members)}
    try:
        stepper.begin(stage.folder / "now", len(stage.finished()), steps)
        with stage:
            for k in track(range(len(stage.done), steps), steps - len(stage.done)):

                def write(target: str, window: Window, values: Array, k: int = k) -> None:
                    name, part = places[target]
                    stage.sink.write(name, window, values, k * parts + part)

                stepper.step(k, steps, write)
                # what it started from is still there: either this is noted, or it is done again
                stage.write(k, Window.whole(stepper.tiling.shape), {})
                stepper.become(k)
    except FieldError:
        # going on would not change it
        shutil.rmtree(stage.folder, ignore_errors=True)
        raise
    except BaseException:
        stage.discard_if_empty()
        raise
    stage.finish(steps)


def tiled(settings: Settings, output: Path, *, resume: bool) -> Settings:
    """With the tiles of what broke off, if that goes on and no others are asked for."""
    before = Stage.tile_before(output) if resume and settings.tile is None else None
    return settings if before is None else replace(settings, tile=before)


def about_of(
    emulator: Emulator, runs: Runs, settings: Settings, styles: Mapping[str, float]
) -> dict[str, Any]:
    """What a file says of a rollout."""
    return {
        "emulator": "rollout",
        "steps_from": str(runs.runs[0]),
        **style_attributes([styles]),
        **seed_of(emulator, settings.running.seed),
    }


def plan_of(
    emulator: Emulator, runs: Runs, feed: Mapping[str, str], settings: Settings
) -> dict[str, Any]:
    """What a rollout is made from; see `Stage`."""
    digest = blake2b(json.dumps(asdict(emulator.card()), default=str).encode(), digest_size=16)
    for name, value in emulator.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    start, styles = runs.runs[0], runs.styles_of(0)
    return {
        "emulator": digest.hexdigest(),
        "inputs": {
            name: [str(path.resolve()), *identity(path).values()]
            for name, path in start.paths.items()
        },
        "start": str(start),
        "feed": dict(feed),
        "precision": asdict(settings.running)["precision"],
        **({"styles": styles} if styles else {}),
        **seed_of(emulator, settings.running.seed),
    }


class Stepper:
    """Applies an emulator again and again to the first of some runs, tile by tile.

    Args:
        emulator: Of one step.
        runs: Of its inputs.
        feed: See `rollout`.
        settings: How the emulator is applied.
        styles: By name, the same in all steps.
    """

    def __init__(
        self,
        emulator: Emulator,
        runs: Runs,
        feed: Mapping[str, str],
        settings: Settings,
        styles: Mapping[str, float],
    ) -> None:
        self.emulator, self.runs, self.feed = emulator, runs, feed
        shape = runs.shape_of(0)
        self.engine = make_engine(emulator, settings, styles)
        self.tiling = make_tiling(self.engine, emulator, emulator.domain.grid(shape), settings)
        if self.tiling.shape != tuple(shape):
            raise too_small(*next(iter(feed.items())), self.tiling.shape, shape)
        # where each input is: the output of a step, or before that an input of the run
        self.at: dict[str, tuple[int | None, str]] = {n: (None, n) for n in emulator.inputs.names}
        self.now: dict[str, Read] = {}

    def begin(self, folder: Path, done: int, steps: int) -> None:
        """Start, or go on behind steps that are done.

        Args:
            folder: Where the outputs of the last step lie, until they are read.
            done: How many steps are.
            steps: Of how many.
        """
        self.folder, self.steps = folder, steps
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise SaveError(f"cannot make {folder}: {error}") from error
        for k in range(done):
            self._move(k)
        if done < steps:
            self._open()

    def step(self, k: int, steps: int, write: Callable[[str, Window, Array], None]) -> None:
        """Compute a step; `become` then lets its outputs become inputs.

        Args:
            k: Its number, from 0 on.
            steps: Of how many, for messages.
            write: Takes the values of a target in a window.
        """
        emulator, tiling = self.emulator, self.tiling
        made = self._arrays(k) if k + 1 < steps else {}
        compute = partial(self.engine, member=drawn(k))
        bad = set[str]()

        def read(tile: Tile) -> NDArray[Any]:
            shape = emulator.inputs.channels, *tile.read.shape
            values = np.empty(shape, numpy_dtype(self.engine))
            for name, channels in emulator.inputs.slices.items():
                self.now[name](tile.read, values[channels], tiling.grid)
            return values

        def keep(tile: Tile, values: NDArray[Any]) -> None:
            for target, channels in emulator.targets.slices.items():
                write(target, tile.target, values[channels])
                if target in made:
                    made[target][(slice(None), *tile.target.slices)] = values[channels]
                    if not np.isfinite(values[channels]).all():
                        bad.add(target)

        try:
            overlapping((tiling[i] for i in range(len(tiling))), read, compute, keep)
        except NonFiniteError as error:
            files = f" of {self.runs.runs[0]}"
            raise FieldError(
                where_not_finite(error, emulator.inputs, tiling.grid, files, ELSEWHERE)
            ) from error
        if bad:
            raise blown_up(min(bad), k + 1, steps)
        for array in made.values():
            array.flush()

    def become(self, k: int) -> None:
        """Let outputs and inputs become the inputs of the step behind this one."""
        if k + 1 == self.steps:
            return
        self._move(k)
        self._open()
        kept = {self._path(*place) for place in self.at.values() if place[0] is not None}
        for path in self.folder.glob("*.npy"):
            if path not in kept:
                path.unlink()

    def _move(self, k: int) -> None:
        """Where inputs are after a step."""
        before = dict(self.at)
        for source, name in self.feed.items():
            made = source in self.emulator.targets.names
            self.at[name] = (k, source) if made else before[source]

    def _open(self) -> None:
        """Readers of all inputs, from where they are."""
        for name, (k, at) in self.at.items():
            if k is None:
                source, variable = self.runs.source(at, 0)
                self.now[name] = partial(source.read, variable)
            else:
                self.now[name] = partial(taken, self._read(k, at))

    def _read(self, k: int, target: str) -> Array:
        path = self._path(k, target)
        try:
            return np.asanyarray(np.load(path, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise SaveError(
                f"cannot read {path}, which the next step starts from: {error}; start anew "
                f"(--overwrite)"
            ) from error

    def _path(self, k: int | None, target: str) -> Path:
        return self.folder / f"{k}-{self.emulator.targets.names.index(target)}.npy"

    def _arrays(self, k: int) -> dict[str, np.memmap[Any, Any]]:
        """Room on disk for the outputs that become inputs."""
        return {
            target: np.lib.format.open_memmap(
                self._path(k, target),
                mode="w+",
                dtype=numpy_dtype(self.engine),
                shape=(field_channels(self.emulator.targets[target]), *self.tiling.shape),
            )
            for target in self.emulator.targets.names
            if target in self.feed
        }


def taken(values: Array, window: Window, out: Array, grid: Grid) -> None:
    """Read a window of an array."""
    take(values, window, grid, out)


def blown_up(target: str, k: int, steps: int) -> FieldError:
    """What is said of an output that is not finite."""
    return FieldError(
        f"{target!r} is NaN or infinite after step {k} of {steps}: the rollout blew up; take "
        f"fewer steps, or train over several (map2map.unrolled.Unrolled)"
    )


def too_small(target: str, name: str, found: Sequence[int], shape: Sequence[int]) -> GeometryError:
    """What is said of an output with other cells than the input that it feeds."""
    return GeometryError(
        f"{target!r} has shape {tuple(found)}, but {name!r}, which it is to feed, {tuple(shape)}: "
        f"a rollout needs an emulator whose output is as large as its input; train it with a "
        f"`pad`, or on periodic axes"
    )


def written_of(emulator: Emulator, series: Series | None) -> dict[str, tuple[str, ...]]:
    """What is written under which name: series, and outputs that feed nothing by themselves.

    Raises:
        FieldError: If there are some of those beside series of several.
    """
    found = {label(targets, name): targets for name, targets in (series or {}).items()}
    parts = max(map(len, found.values()), default=1)
    known = {target for targets in found.values() for target in targets}
    others = [name for name in emulator.targets.names if name not in known]
    if others and parts > 1:
        raise FieldError(
            f"{', '.join(others)} are given once in a step, but others {parts} times, so that they "
            f"have no common times; roll out emulators whose outputs are all equally many"
        )
    # in the order of the outputs
    found |= {name: (name,) for name in others}
    first = {name: emulator.targets.names.index(targets[0]) for name, targets in found.items()}
    return {name: found[name] for name in sorted(found, key=first.__getitem__)}


def valid_times(axis: Axis | None, frame: int | None, step: str | int, steps: int) -> Axis:
    """The axis of frames of a rollout."""
    count = np.arange(1, steps + 1)
    if axis is None or axis.values is None or frame is None:
        return Axis("step", count)
    if isinstance(step, int):
        spacing = even_step(axis.values)
        if spacing is None:
            return Axis("step", count)
        return replace(axis, values=axis.values[frame] + count * (step * spacing))
    times_of(axis, "the input")  # they can be told exactly
    length = unit((axis.units or "us").split()[0])
    later = count * int(duration(step).astype(np.int64))
    start = axis.values[frame]
    whole = start.dtype.kind in "iu" and not (later % length).any()
    return replace(axis, values=start + (later // length if whole else later / length))


def even_step(values: Array) -> float | int | None:
    """From one frame to the next; None if they are not even."""
    step = step_of(values)
    if step is None or isnan(step):
        return None
    if values.dtype.kind == "f":
        return step
    # whole numbers stay what they are
    whole = {int(n) for n in np.diff(values.astype(np.int64))}
    return whole.pop() if len(whole) == 1 else None


def inputs_of(emulator: Emulator, runs: Runs, run: int) -> dict[str, Array]:
    """All inputs of a run, and its styles, which stay what they are."""
    shape = runs.shape_of(run)
    fields = {name: read_field(runs, name, run, shape) for name in emulator.inputs.names}
    return fields | {name: np.full((), value) for name, value in runs.styles_of(run).items()}
