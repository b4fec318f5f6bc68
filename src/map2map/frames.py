"""Frames of files: which are taken, by their times, and which others belong to them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, RecipeError
from map2map.patterns import Files
from map2map.sources import Axis
from map2map.times import NoLaterError, Times, decode, select, starts

__all__ = ["choose", "times_of"]

Numbers = NDArray[np.intp]


def choose(
    count: int,
    axis: Axis | None,
    files: Mapping[str, Files],
    every: int,
    where: object,
    *,
    among: bool = False,
    beyond: bool = False,
) -> tuple[Numbers, dict[str, Numbers]]:
    """The frames that are taken, and those of the fields that are read from others.

    Args:
        count: How many frames there are.
        axis: The axis that counts them, as far as the file tells.
        files: Of each field: which dates it asks for, and how much later or earlier it is.
        every: Take every so many-th of them.
        where: Of which file, for messages.
        among: Whether it is one file among others, which may have no frame of these dates.
        beyond: Whether what is read from later and earlier frames may lie beyond these dates.

    Returns:
        Numbers of frames; and for each field that is later or earlier as many numbers of its own.
        All that fields read, now, later and earlier, has the dates that any of them asks for,
        unless `beyond`: frames near the ends of these dates, or of the file, are left out.

    Raises:
        RecipeError: If dates or steps cannot be read, or no frame is left.
        FieldError: If they are asked for, but the file tells no times.
    """
    allowed = np.ones(count, bool)
    for name, entry in files.items():
        for key, dates in entry.dates.items():
            if axis is None or axis.name != key:
                raise RecipeError(
                    f"`only` of field {name!r} names {key!r}, but its placeholders are "
                    f"{', '.join(sorted(entry.placeholders)) or 'none'}, and the axis of frames "
                    f"of {where} {f'is {axis.name!r}' if axis else 'has no name'}"
                )
            chosen = np.zeros(count, bool)
            chosen[select(times_of(axis, where), dates, strict=not among)] = True
            allowed &= chosen
    later = {
        name: frames_later(count, axis, entry.later, where)
        for name, entry in files.items()
        if entry.later is not None
    }
    taken = allowed.copy()
    for numbers in later.values():
        # -1, none, is no frame that is allowed
        taken &= (numbers >= 0) & (allowed[numbers] | beyond)
    frames = np.flatnonzero(taken)[::every]
    if not len(frames) and not among:
        steps = ", ".join(f"{name} {files[name].later}" for name in later)
        among_them = "" if beyond else " among them"
        found = f"{int(allowed.sum())} of {count} have the dates that `only` asks for"
        raise NoLaterError(
            f"no frame of {where} is left: {found}, and none of these has all its later and "
            f"earlier ones{among_them} ({steps})",
            f"{where} has {count} frames" if allowed.all() else f"of {where}, {found}",
        )
    return frames, {name: numbers[frames] for name, numbers in later.items()}


def frames_later(count: int, axis: Axis | None, step: str | int, where: object) -> Numbers:
    """For each frame, the one that is so much later (earlier if negative); -1 if there is none."""
    found = np.full(count, -1)
    if isinstance(step, int):
        if step == 0:
            raise RecipeError(
                "`later` is 0 frames, but must be 1 or more, -1 or less for earlier ones, or a time"
            )
        numbers = np.arange(count) + step
        return np.where((numbers >= 0) & (numbers < count), numbers, found)
    first, other = starts(times_of(axis, where), step.strip().lstrip("-"))
    if step.strip().startswith("-"):
        first, other = other, first
    found[first] = other
    return found


def times_of(axis: Axis | None, where: object) -> Times:
    """The times of frames, exactly.

    Raises:
        FieldError: If they are not told.
    """
    if axis is None or axis.values is None:
        name = "" if axis is None else f" {axis.name!r}"
        raise FieldError(
            f"times of frames are asked for, but the axis of frames{name} of {where} has no "
            f"coordinates; write them, or count frames: `later: 1`"
        )
    return decode(axis.values, axis.units, axis.calendar or "standard")
