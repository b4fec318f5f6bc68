"""Rollouts: an emulator of one step, applied to what it gives, again and again; and their scores.

A target that is a later frame of an input becomes that input in the next step, and an input that is
an earlier frame of another becomes what that was; inputs that nothing feeds, such as masks, stay as
they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.arrays import Settings
from map2map.baselines import read_field
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.fields import same_units
from map2map.frames import times_of
from map2map.globe import latitudes
from map2map.metrics.latitudes import LatitudeScores
from map2map.runs import Files, Patterns, Runs
from map2map.sources import Axis, Stored, format_for
from map2map.times import duration, unit
from map2map.typing import Array
from map2map.windows import Window

__all__ = [
    "check_feed",
    "fed_targets",
    "feed_of",
    "history_of",
    "later_truths",
    "lead_scores",
    "rollout",
    "write_rollout",
]

Track = Callable[[Iterable[int], int], Iterable[int]]
"""Shows the progress of so many steps."""


def rollout(
    emulator: Emulator,
    fields: Mapping[str, Any],
    steps: int,
    feed: Mapping[str, str],
    settings: Settings | None = None,
) -> Iterator[dict[str, Any]]:
    """Apply an emulator to what it gives, one step after another.

    Args:
        emulator: Of one step.
        fields: What it starts from, as `Emulator.apply` takes it by name.
        steps: How many.
        feed: For outputs, the input that each becomes in the next step, and for inputs, the one
            that each becomes as an earlier frame of it; other inputs are kept.
        settings: How the emulator is applied.

    Yields:
        Targets of each step by name, as `Emulator.apply` gives them, also those that feed nothing.

    Raises:
        RecipeError: If there are no steps.
        FieldError: If an output cannot feed an input.
        GeometryError: If outputs have fewer cells than inputs, so that they cannot feed them.
    """
    if steps < 1:
        raise RecipeError(f"a rollout has 1 step or more, not {steps}")
    check_feed(emulator, feed)
    now = dict(fields)
    for _ in range(steps):
        found = emulator.apply(now, settings=settings)
        yield found
        last = dict(now)
        for target, name in feed.items():
            value, before = found[target] if target in found else last[target], now[name]
            if value.shape[-emulator.ndim :] != before.shape[-emulator.ndim :]:
                raise GeometryError(
                    f"{target!r} has shape {tuple(value.shape)}, but {name!r}, which it is to "
                    f"feed, {tuple(before.shape)}: a rollout needs an emulator whose output is as "
                    f"large as its input; train it with a `pad`, or on periodic axes"
                )
            now[name] = value


def check_feed(emulator: Emulator, feed: Mapping[str, str]) -> None:
    """Refuse outputs that cannot become inputs.

    Raises:
        FieldError: If there is none, or names, channels or units do not fit.
    """
    inputs, targets = emulator.inputs, emulator.targets
    if not feed or len(set(feed.values())) < len(feed):
        raise FieldError(
            f"outputs feed {', '.join(feed.values()) or 'nothing'}, but in a rollout one at least "
            f"feeds an input, and each another one: OUTPUT=INPUT, of {', '.join(targets.names)} "
            f"and {', '.join(inputs.names)}"
        )
    for target, name in feed.items():
        sources = (*targets.names, *inputs.names)
        for wanted, known in ((target, sources), (name, inputs.names)):
            if wanted not in known:
                raise FieldError(
                    f"{target!r} is to feed {name!r}, but the emulator has no "
                    f"{wanted!r}{near_names(wanted, known)}"
                )
        one = targets[target] if target in targets.names else inputs[target]
        other = inputs[name]
        alike = not (one.units and other.units) or same_units(one.units, other.units)
        if one.channels != other.channels or not alike:
            raise FieldError(
                f"{target!r} [{one.units}] of {one.channels} channels cannot feed {name!r} "
                f"[{other.units}] of {other.channels}"
            )


def feed_of(emulator: Emulator, learnt: Mapping[str, Files]) -> dict[str, str]:
    """Which outputs and inputs feed which inputs: what were later frames of them in training.

    Args:
        emulator: The emulator.
        learnt: Where its fields were in training (`patterns.learnt_files`).
    """
    arrays = {
        (str(files.pattern), files.variable or name): name
        for name, files in learnt.items()
        if files.later is None and name in emulator.inputs.names
    }
    found = {}
    for target in emulator.targets.names:
        files = learnt.get(target)
        if files is not None and files.later is not None:
            key = str(files.pattern), files.variable or target
            if key in arrays:
                found[target] = arrays[key]
    return found | history_of(emulator, learnt, found)


def history_of(
    emulator: Emulator, learnt: Mapping[str, Files], feed: Mapping[str, str]
) -> dict[str, str]:
    """Which inputs become which others a step later, being earlier frames of them.

    Raises:
        FieldError: If an input is of an earlier frame, but nothing can become it.
    """
    known = {name: learnt[name] for name in emulator.needed() if name in learnt}
    places = {
        (str(files.pattern), files.variable or name, offset(files.later)): name
        for name, files in known.items()
    }
    found = {}
    for name, files in known.items():
        if offset(files.later) >= 0:
            continue
        later = offset(files.later) + offset(one_step(feed, learnt))
        source = places.get((str(files.pattern), files.variable or name, later))
        if source not in emulator.inputs.names or name not in emulator.inputs.names:
            raise FieldError(
                f"{name!r} is {files.later} later than the start of a step, and in a rollout "
                f"becomes another frame with every step, but no input is what it becomes; roll "
                f"out emulators whose earlier inputs are whole steps apart, and not computed"
            )
        found[str(source)] = name
    return found


def offset(later: str | int | None) -> int:
    """How much later a field is: in frames, or in microseconds."""
    if later is None or isinstance(later, int):
        return later or 0
    length = int(duration(later.strip().lstrip("-")).astype(np.int64))
    return -length if later.strip().startswith("-") else length


def fed_targets(emulator: Emulator, feed: Mapping[str, str]) -> dict[str, str]:
    """Only the outputs that feed inputs."""
    return {target: name for target, name in feed.items() if target in emulator.targets.names}


def one_step(feed: Mapping[str, str], learnt: Mapping[str, Files]) -> str | int:
    """How much later outputs are than inputs.

    Raises:
        FieldError: If it is not known, or not the same for all.
    """
    earlier = {name for name, files in learnt.items() if offset(files.later) < 0}
    # inputs that become earlier frames tell nothing of the step
    feed = {name: other for name, other in feed.items() if other not in earlier}
    steps = {name: learnt[name].later for name in feed if name in learnt}
    found = [step for step in steps.values() if step is not None]
    if len(found) < len(feed) or len({str(step) for step in found}) > 1:
        raise FieldError(
            f"a step of the emulator is {steps or 'not known'}; it must be the same for all "
            f"outputs, as `later` of their files in training, or as --step says"
        )
    return found[0]


def many(step: str | int, count: int) -> str | int:
    """So many steps."""
    if isinstance(step, int):
        return count * step
    return f"{count * int(duration(step).astype(np.int64))} us"


def write_rollout(
    emulator: Emulator,
    runs: Runs,
    steps: int,
    feed: Mapping[str, str],
    output: Path,
    *,
    step: str | int = 1,
    overwrite: bool = False,
    track: Track = lambda numbers, _: numbers,
) -> None:
    """Write a rollout from the first run, all or nothing: (time, …) for each output.

    Args:
        emulator: Of one step.
        runs: Of its inputs; the first is where the rollout starts.
        steps: How many.
        feed: See `rollout`.
        output: What to write: a file, Zarr store or folder.
        step: How much later an output is, a time or frames. Outputs get the times when they are
            valid, in the units of the input's; without units, steps are counted.
        overwrite: Whether an output may be replaced.
        track: Shows the progress.
    """
    check_feed(emulator, feed)
    source, variable = runs.source(runs.reference, 0)
    first = source.stored(variable)
    axis = valid_times(first.frame_axis, runs.runs[0].frame, step, steps)
    about = {"emulator": "rollout", "steps_from": str(runs.runs[0])}
    stored = [
        Stored(
            entry.name,
            first.shape,
            entry.channels or 1,
            units=entry.units,
            axes=first.axes,
            attrs=about,
            frames=steps,
            frame_axis=axis,
        )
        for entry in emulator.targets
    ]
    kind: Any = format_for(output)
    with kind.create(output, stored, overwrite=overwrite) as sink:
        made = rollout(emulator, inputs_of(emulator, runs, 0), steps, feed)
        for k in track(range(steps), steps):
            for name, values in next(made).items():
                sink.write(name, Window.whole(values.shape[1:]), values, k)


def valid_times(axis: Axis | None, frame: int | None, step: str | int, steps: int) -> Axis:
    """The axis of frames of a rollout."""
    count = np.arange(1, steps + 1)
    if axis is None or axis.values is None or frame is None or isinstance(step, int):
        return Axis("step", count)
    times_of(axis, "the input")  # they can be told exactly
    length = unit((axis.units or "us").split()[0])
    later = count * int(duration(step).astype(np.int64))
    start = axis.values[frame]
    whole = start.dtype.kind in "iu" and not (later % length).any()
    return replace(axis, values=start + (later // length if whole else later / length))


def inputs_of(emulator: Emulator, runs: Runs, run: int) -> dict[str, Array]:
    """All inputs of a run, and its styles, which stay what they are."""
    shape = runs.shape_of(run)
    fields = {name: read_field(runs, name, run, shape) for name in emulator.inputs.names}
    return fields | {
        name: np.full((), value, np.float32) for name, value in runs.styles_of(run).items()
    }


def later_truths(
    emulator: Emulator,
    patterns: Patterns,
    feed: Mapping[str, str],
    steps: int,
    step: str | int,
) -> Runs:
    """Runs that have the truth of all steps: targets named ``TARGET+1`` to ``TARGET+steps``.

    Runs that lack any of these frames are left out.

    Args:
        emulator: Of one step.
        patterns: Where its inputs are.
        feed: The inputs that outputs are later frames of.
        steps: How many.
        step: How much later an output is, a time or frames.
    """
    targets, places = [], dict(patterns)
    for target, name in fed_targets(emulator, feed).items():
        entry = patterns.get(name)
        if not isinstance(entry, Files):
            raise FieldError(f"{name!r} is in no file, so there is no truth of {target!r}")
        for k in range(1, steps + 1):
            key = f"{target}+{k}"
            targets.append(replace(emulator.targets[target], name=key))
            files = replace(entry, variable=entry.variable or name, later=many(step, k))
            places[key] = files
    return Runs(
        list(emulator.inputs),
        targets,
        places,
        emulator.domain,
        derived=emulator.derived,
        styles=list(emulator.styles),
    )


def lead_scores(
    emulator: Emulator,
    runs: Runs,
    feed: Mapping[str, str],
    steps: int,
    climatology: Mapping[str, Array] | None = None,
    *,
    track: Track = lambda numbers, _: numbers,
) -> xr.Dataset:
    """RMSE, MAE, bias and anomaly correlation per lead time, beside persistence and climatology.

    Means over cells are weighted by cos(latitude) where the first axis is one of latitudes. See
    `metrics.latitudes.LatitudeScores`.

    Args:
        emulator: Of one step.
        runs: Where rollouts start, with the truth of all steps (`later_truths`).
        feed: See `rollout`; these outputs are scored.
        steps: How many.
        climatology: Of each of them, what is usual (channel, *space); without, no ``acc``.
        track: Shows the progress over the starts.

    Returns:
        Scores along ``method``, ``lead`` (in steps) and ``channel``, such as ``t[3]``.
    """
    usual, moved = climatology or {}, feed
    feed = fed_targets(emulator, feed)
    rows = row_latitudes(runs)
    methods = ("emulator", "persistence", *(["climatology"] if usual else []))
    sums = {(m, k, t): LatitudeScores(rows) for m in methods for k in range(steps) for t in feed}
    for run in track(range(len(runs)), len(runs)):
        shape, start = runs.shape_of(run), inputs_of(emulator, runs, run)
        for k, made in enumerate(rollout(emulator, start, steps, moved)):
            for target, name in feed.items():
                truth = as_rows(read_field(runs, f"{target}+{k + 1}", run, shape))
                values = {"emulator": made[target], "persistence": start[name]}
                if target in usual:
                    values["climatology"] = usual[target]
                mean = as_rows(usual[target]) if target in usual else None
                for method, value in values.items():
                    sums[method, k, target].add(as_rows(value), truth, mean)
    found = [
        xr.concat(
            [
                xr.concat([sums[m, k, t].result() for t in feed], "channel", join="outer")
                for k in range(steps)
            ],
            "lead",
        )
        for m in methods
    ]
    names = [
        t if (emulator.targets[t].channels or 1) == 1 else f"{t}[{i}]"
        for t in feed
        for i in range(emulator.targets[t].channels or 1)
    ]
    scores = xr.concat(found, "method", join="outer")
    units = [
        emulator.targets[t].units or ""
        for t in feed
        for _ in range(emulator.targets[t].channels or 1)
    ]
    places = {"method": list(methods), "lead": np.arange(1, steps + 1), "channel": names}
    scores = scores.assign_coords(places | {"units": ("channel", units)})
    scores.lead.attrs["units"] = "steps"
    return scores.assign_attrs(starts=len(runs))


def row_latitudes(runs: Runs) -> NDArray[np.float64]:
    """Of the rows of cells [degrees]; all 0 if the first axis is none of latitudes."""
    found, rows = latitudes(runs), runs.shape_of(0)[0]
    known = found is not None and len(found) == rows and found.size == rows
    return found.ravel() if found is not None and known else np.zeros(rows)


def as_rows(values: Array) -> Array:
    """Fields (channel, *space) as (channel, row, cell)."""
    return np.asarray(values).reshape(*values.shape[:2], -1)
