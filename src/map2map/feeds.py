"""What feeds what when an emulator of steps in time is applied again and again.

A target that is a later frame of an input becomes that input in the next step, of several the last;
an input that is an earlier frame of another becomes what that frame is then, be it another input or
an earlier target.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from map2map.derived import Derived
from map2map.emulator import Emulator
from map2map.errors import FieldError, RecipeError, near_names
from map2map.fields import Field, same_units
from map2map.runs import Files, Runs
from map2map.sources import open_source
from map2map.times import NoLaterError, duration, told_briefly
from map2map.told import Told

__all__ = [
    "Series",
    "check_computed",
    "check_feed",
    "check_kept",
    "fed_targets",
    "feed_of",
    "history_of",
    "in_words",
    "label",
    "later_field",
    "one_step",
    "series_of",
    "share",
    "shifted",
    "told_as_steps",
    "with_variable",
]

Series = Mapping[str, tuple[str, ...]]
"""For each input that is fed, the targets that are its later frames, one after another."""


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


def check_kept(runs: Runs, patterns: Mapping[str, Any], feed: Mapping[str, str]) -> None:
    """Refuse inputs and styles that change in time, but that nothing becomes.

    Args:
        runs: Where steps start.
        patterns: Where their fields are.
        feed: What feeds what.

    Raises:
        FieldError: If there are some: they would not be known in later steps.
    """
    check_computed(runs.inputs.names, runs.derived, feed)
    for name in runs.inputs.names:
        if name in feed.values():
            continue
        for source in (name, *made_from(name, runs.derived)):
            if runs.framed(source):
                of = "" if source == name else f" ({name!r} is computed from it)"
                raise FieldError(
                    f"{source!r} changes in time{of}, but no output becomes it, so that it is not "
                    f"known in later steps; learn it as a target, too, or make it a constant of a "
                    f"run (a file without frames)"
                )
    for name in runs.styles.names:
        told = patterns.get(name)
        if isinstance(told, Told) and told.coordinate:
            raise FieldError(
                f"the style {name!r} is told by the coordinate of a frame, so that it is another "
                f"one in each, but steps that follow one another have the styles of their start; "
                f"give it a value, or tell it by a placeholder, attribute or table of the run"
            )


def check_computed(
    names: Iterable[str], derived: Mapping[str, Derived], feed: Mapping[str, str]
) -> None:
    """Refuse inputs that are kept, but computed from others that outputs become.

    Args:
        names: Inputs that are read or given.
        derived: How they are computed, those that are.
        feed: What feeds what.

    Raises:
        FieldError: If there are some: they would stay what they are in the first step.
    """
    for name in names:
        fed = [one for one in made_from(name, derived) if one in feed.values()]
        if fed and name not in feed.values():
            raise FieldError(
                f"{name!r} is computed from {fed[0]!r}, which outputs become in each step, but it "
                f"would stay as it is in the first; learn it as a target, too, or without it; in "
                f"memory (map2map.rollout.rollout), leave it out of the fields, so that it is "
                f"computed anew"
            )


def made_from(name: str, derived: Mapping[str, Derived]) -> list[str]:
    """The fields whose values a field is computed from, and what those are computed from."""
    how = derived.get(name)
    if how is None or not how.needs_values:
        return []
    return [one for need in how.needs for one in (need, *made_from(need, derived))]


def feed_of(emulator: Emulator, learnt: Mapping[str, Files]) -> dict[str, str]:
    """Which outputs and inputs feed which inputs: what were later frames of them in training.

    Args:
        emulator: The emulator.
        learnt: Where its fields were in training (`patterns.learnt_files`).

    Raises:
        FieldError: If no output is a later frame of an input.
    """
    inputs = {
        place(name, files): name
        for name, files in learnt.items()
        if offset(files.later) == 0 and name in emulator.inputs.names
    }
    last: dict[str, str] = {}
    for target in emulator.targets.names:
        files = learnt.get(target)
        if files is None or offset(files.later) <= 0:
            continue
        name = inputs.get(place(target, files))
        # of several later frames the last one begins the next step
        if name and offset(files.later) >= offset(learnt[last.get(name, target)].later):
            last[name] = target
    found = {target: name for name, target in last.items()}
    if not found:
        raise FieldError(
            f"no output of the emulator ({', '.join(emulator.targets.names)}) was a later frame of "
            f"an input ({', '.join(emulator.inputs.names)}) in training, so nothing is fed back; "
            f"in a rollout some output becomes an input: say which with --feed OUTPUT=INPUT, or "
            f"train it on later frames"
        )
    return found | history_of(emulator, learnt, found)


def history_of(
    emulator: Emulator,
    learnt: Mapping[str, Files],
    feed: Mapping[str, str],
    step: str | int | None = None,
) -> dict[str, str]:
    """Which inputs become which others a step later, being earlier frames of them.

    Args:
        emulator: The emulator.
        learnt: Where its fields were in training.
        feed: Which outputs become which inputs.
        step: How long a step is; default: as in training.

    Raises:
        FieldError: If an input is of an earlier frame, but nothing can become it.
    """
    known = {name: learnt[name] for name in emulator.needed() if name in learnt}
    targets = {name: learnt[name] for name in emulator.targets.names if name in learnt}
    places = {
        (*place(name, files), offset(files.later)): name
        for name, files in (targets | known).items()
    }
    found = {}
    for name, files in known.items():
        if offset(files.later) >= 0:
            continue
        later = offset(files.later) + offset(one_step(feed, learnt) if step is None else step)
        source = places.get((*place(name, files), later))
        sources = (*emulator.inputs.names, *emulator.targets.names)
        if source not in sources or name not in emulator.inputs.names:
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


def place(name: str, files: Files) -> tuple[str, str]:
    """Which array a field is read from, whatever frame of it."""
    # a .npy file has one array, whose name is nothing
    alone = str(files.pattern).endswith(".npy")
    return str(files.pattern), files.variable or ("" if alone else name)


def fed_targets(
    emulator: Emulator, feed: Mapping[str, str], learnt: Mapping[str, Files] | None = None
) -> dict[str, str]:
    """Only the outputs that feed inputs, those that are of the start of a step.

    Args:
        emulator: The emulator.
        feed: What feeds what.
        learnt: Where its fields were in training: tells inputs that are earlier frames.
    """
    earlier = {name for name, files in (learnt or {}).items() if offset(files.later) < 0}
    return {
        target: name
        for target, name in feed.items()
        if target in emulator.targets.names and name not in earlier
    }


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
    unknown = [name for name in feed if steps.get(name) is None]
    if unknown or not feed:
        raise FieldError(
            f"how much later {', '.join(unknown) or 'outputs'} are than what they feed is not "
            f"known: in training their files had no `later`; say it (--step 6h, or --step 1 for "
            f"one frame)"
        )
    if len({str(step) for step in found}) != 1:
        told = ", ".join(f"{name} by {in_words(step)}" for name, step in steps.items() if step)
        raise FieldError(
            f"outputs are not all equally much later than what they feed ({told or 'none'}); say "
            f"how long a step is (--step), or feed others"
        )
    return found[0]


def shifted(later: str | int | None, step: str | int, count: int) -> str | int:
    """So many steps later than something that is already later, or earlier.

    Raises:
        FieldError: If one counts frames, the other time.
    """
    if later is not None and isinstance(later, int) != isinstance(step, int):
        raise FieldError(
            f"fields that are {later!r} and {step!r} later are counted in frames and in time; "
            f"say both in one way"
        )
    total = offset(later) + count * offset(step)
    return total if isinstance(step, int) else told_briefly(total)


def with_variable(name: str, files: Files) -> Files:
    """The files of a field, which also fields of other names can be read from."""
    # the one array of a file may be called anything
    own = files.variable is None and name in open_source(files.paths(name)[0]).fields
    return replace(files, variable=name) if own else files


def later_field(target: Field, k: int, files: Files, step: str | int) -> tuple[Field, Files]:
    """What is true of a field so many steps later, as a field of its own: ``TARGET+K``.

    Args:
        target: The field.
        k: How many steps.
        files: Where it is, `with_variable`.
        step: A time or frames.

    Returns:
        The field, and where it is.
    """
    part = target.component
    part = part and replace(part, vector=f"{part.vector}+{k}")
    later = shifted(files.later, step, k)
    return (
        replace(target, name=f"{target.name}+{k}", component=part),
        replace(files, later=later),
    )


def in_words(step: str | int) -> str:
    """A step, for a reader.

    >>> in_words("6h"), in_words(1), in_words(2)
    ('6h', '1 frame', '2 frames')
    """
    if not isinstance(step, int):
        return step
    return "1 frame" if step == 1 else f"{step} frames"


@contextmanager
def told_as_steps(steps: int, step: str | int, remedy: str) -> Iterator[None]:
    """Says of how many steps there is no truth, where no frame has so much later ones.

    Args:
        steps: How many are asked for.
        step: How long each is.
        remedy: What to do.

    Raises:
        RecipeError: If there is none.
    """
    try:
        yield
    except NoLaterError as error:
        raise RecipeError(
            f"no frame has the truth of {steps} steps of {in_words(step)} behind it, "
            f"{in_words(shifted(None, step, steps))} in all: {error.found}; {remedy}"
        ) from error


def share(step: str | int, parts: int) -> str | int:
    """One of so many equal parts of a step.

    Raises:
        FieldError: If there is none in whole frames or microseconds.
    """
    whole = offset(step)
    if whole % parts:
        raise FieldError(f"a step of {step} has no {parts} equal parts")
    if parts == 1:
        return step
    return whole // parts if isinstance(step, int) else told_briefly(whole // parts)


def series_of(
    emulator: Emulator, feed: Mapping[str, str], learnt: Mapping[str, Files]
) -> dict[str, tuple[str, ...]]:
    """The targets that are later frames of each input that is fed, one after another.

    Raises:
        FieldError: If they are not evenly spaced, or not equally many for all.
    """
    found: dict[str, tuple[str, ...]] = {}
    for last, name in fed_targets(emulator, feed, learnt).items():
        found[name] = (last,)
        files = learnt.get(last)
        if files is None or files.later is None:
            continue
        mine = {
            offset(learnt[target].later): target
            for target in emulator.targets.names
            if target in learnt and place(target, learnt[target]) == place(last, files)
        }
        whole, laters = offset(files.later), sorted(mine)
        found[name] = tuple(mine[k] for k in laters)
        if [k * len(mine) for k in laters] != [whole * (i + 1) for i in range(len(mine))]:
            told = ", ".join(str(learnt[target].later) for target in found[name])
            raise FieldError(
                f"{', '.join(found[name])} are {told} later than {name!r}; in a rollout outputs "
                f"are evenly spaced"
            )
    if len({len(targets) for targets in found.values()}) > 1:
        told = "; ".join(f"{name}: {', '.join(targets)}" for name, targets in found.items())
        raise FieldError(f"a rollout has equally many outputs of every input that is fed: {told}")
    return found


def label(series: tuple[str, ...], name: str) -> str:
    """What a series is called: its target, or if there are several the input that they are of."""
    return series[0] if len(series) == 1 else name
