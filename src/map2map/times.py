"""Times as whole numbers: axes of data sets, steps between their frames, and slices of them.

Times are ``datetime64[us]``, differences ``timedelta64[us]``, both 64-bit integers: a step of 6 h
is 6 h after 40 years, too. (Seconds since 1970 in single precision are 128 s apart, so that a
quarter of six-hourly steps would come out a step short.)
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from map2map.errors import FieldError, RecipeError

__all__ = [
    "NoLaterError",
    "Steps",
    "Times",
    "decode",
    "duration",
    "frames_in",
    "select",
    "starts",
    "step_of_axis",
    "told_briefly",
]

Times = NDArray[np.datetime64]
Steps = NDArray[np.timedelta64]

SECOND = 1_000_000
"""In microseconds."""

UNITS = {
    "us": 1, "microsecond": 1, "ms": 1000, "millisecond": 1000, "s": SECOND, "sec": SECOND,
    "second": SECOND, "min": 60 * SECOND, "minute": 60 * SECOND, "h": 3600 * SECOND,
    "hr": 3600 * SECOND, "hour": 3600 * SECOND, "d": 86400 * SECOND, "day": 86400 * SECOND,
}  # fmt: skip
"""Microseconds of each unit. Months and years are none: they are of different lengths."""

CALENDARS = ("standard", "gregorian", "proleptic_gregorian")
REFORM = np.datetime64("1582-10-15", "us")
"""Before it, the calendar called "standard" is the Julian one."""

NEAR = SECOND // 1000
"""How far from a whole second a time of floating point may be to mean it."""


SINCE = re.compile(
    r"\s*([A-Za-z]+)\s+since\s+(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ]+(\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.0*)?)?)?)?"
    r"\s*(?:Z|UTC|\+?00?:?(?:00)?)?\s*"
)
"""Units of times: unit, year, month, day, hour, minute and second, in universal time."""


class NoLaterError(RecipeError):
    """No frame has a later or earlier one that is asked for; who knows for what says so.

    Args:
        message: What is said.
        found: What there is.
    """

    def __init__(self, message: str, found: str) -> None:
        super().__init__(message)
        self.found = found


def unit(name: str) -> int:
    """Microseconds of a unit.

    Raises:
        RecipeError: If there is none of this name, or its length varies.
    """
    # "hours" is "hour", but "s" is no plural
    for each in (name, name.lower(), name.lower().removesuffix("s")):
        if each in UNITS:
            return UNITS[each]
    raise RecipeError(
        f"there is no unit of time {name!r} of one length; there are {', '.join(UNITS)}"
    )


def duration(step: str | timedelta | np.timedelta64) -> np.timedelta64:
    """A duration such as "6h", "90 min" or "3d".

    >>> print(duration("72h") == duration("3 days"))
    True

    Raises:
        RecipeError: If it is none, or not more than zero.
    """
    if isinstance(step, timedelta | np.timedelta64):
        found = np.timedelta64(step, "us")
    else:
        match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]+)\s*", str(step))
        if match is None:
            raise RecipeError(
                f"{step!r} is no duration; write a whole number and a unit: 6h, 3d; or of frames, "
                f"a number alone: 1"
            )
        found = np.timedelta64(int(match[1]) * unit(match[2]), "us")
    if not found > np.timedelta64(0, "us"):
        raise RecipeError(f"a step lasts longer than zero, not {step!r}")
    return found


def told_briefly(microseconds: int) -> str:
    """A duration in the longest unit of which it is a whole number.

    >>> told_briefly(21_600_000_000), told_briefly(90_000_000), told_briefly(-86_400_000_000)
    ('6h', '90s', '-1d')
    """
    for name in ("d", "h", "min", "s", "ms"):
        if microseconds and not microseconds % UNITS[name]:
            return f"{microseconds // UNITS[name]}{name}"
    return f"{microseconds}us"


def decode(values: ArrayLike, units: str | None = None, calendar: str = "standard") -> Times:
    """Times from numbers as files have them, exactly.

    Args:
        values: numpy's datetime64; or numbers in ``units``, as the CF conventions have them.
        units: Such as "hours since 1900-01-01" or "days since 2000-01-01 12:00:00".
        calendar: Of these units.

    Raises:
        FieldError: If they cannot be told to the second, or are of another calendar.
    """
    given = np.asarray(values)
    if given.dtype.kind == "M":
        times = given.astype("datetime64[us]")
        if (times.astype(given.dtype) != given).any():
            raise FieldError("times are told in parts of a microsecond; round them first")
        return times
    if units is None or given.dtype.kind not in "iuf":
        raise FieldError(
            f"times are of type {given.dtype}" + (" without units" if units is None else "")
            + "; they are datetime64, or numbers with units such as 'hours since 1900-01-01'"
        )  # fmt: skip
    length, start = reference(units, calendar)
    if given.dtype.kind == "f":
        return start + whole_seconds(given, length, units).astype("timedelta64[us]")
    return start + (given.astype(np.int64) * length).astype("timedelta64[us]")


def reference(units: str, calendar: str) -> tuple[int, np.datetime64]:
    """Microseconds of a unit, and since when it is counted."""
    match = SINCE.fullmatch(units)
    if match is None:
        raise FieldError(
            f"units of time {units!r} cannot be read; they are like 'hours since 1900-01-01 "
            f"00:00:00', in universal time"
        )
    if calendar.lower() not in CALENDARS:
        raise FieldError(
            f"times are in the calendar {calendar!r}; those that can be read are "
            f"{', '.join(CALENDARS)}"
        )
    year, month, day = (int(part) for part in match.groups()[1:4])
    hour, minute, second = (int(part or 0) for part in match.groups()[4:])
    text = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    try:
        start = np.datetime64(text, "us")
    except ValueError as error:
        raise FieldError(f"units of time {units!r} name no date: {error}") from error
    if start < REFORM and calendar.lower() != "proleptic_gregorian":
        raise FieldError(
            f"times are counted in {units!r}, from before the calendar reform of 1582, after which "
            f"other tools disagree; write them with a later date, or in the calendar "
            f"'proleptic_gregorian'"
        )
    return unit(match[1]), start


def whole_seconds(values: NDArray[Any], length: int, units: str) -> NDArray[np.int64]:
    """Microseconds of numbers that floating point has rounded.

    Raises:
        FieldError: If they are too coarse to tell seconds, or no numbers.
    """
    if not np.isfinite(values).all():
        raise FieldError(f"{int((~np.isfinite(values)).sum())} times are NaN or infinite")
    apart = float(np.spacing(np.abs(values).max(initial=0)))
    exact = values.astype(np.longdouble) * length
    found: NDArray[np.int64] = np.rint(exact / SECOND).astype(np.int64) * SECOND
    off = np.abs(exact - found)
    # whole numbers that are told from their halves have not been rounded to be so
    rounded = apart > 0.5 or (values != np.rint(values)).any()
    if (rounded and apart * length > NEAR) or (off > NEAR).any():
        far = float(off.max(initial=0)) / SECOND
        raise FieldError(
            f"times are told in {units!r} as {values.dtype}, in which neighboring numbers are "
            f"{apart * length / SECOND:g} s apart, and are up to {far:g} s "
            f"from whole seconds; store them as integers or in double precision"
        )
    return found


def step_of_axis(times: Times) -> np.timedelta64:
    """The shortest step between neighbors of an axis, of which all others must be multiples.

    Raises:
        FieldError: If there are fewer than two times, they do not ascend, or are no multiples.
    """
    if times.ndim != 1 or len(times) < 2:
        raise FieldError(f"an axis of {times.size} times has no step; it needs two or more")
    steps = np.diff(times)
    zero = np.timedelta64(0, "us")
    if not (steps > zero).all():
        i = int((~(steps > zero)).argmax())
        raise FieldError(f"times must ascend, but {times[i + 1]} follows {times[i]}; sort them")
    least: np.timedelta64 = steps.min()
    uneven = steps % least != zero
    if uneven.any():
        i = int(uneven.argmax())
        raise FieldError(
            f"times are {least.item()} apart where they are closest, but from {times[i]} to "
            f"{times[i + 1]} it is {steps[i].item()}, no multiple; choose times that are even"
        )
    return least


def frames_in(step: str | timedelta | np.timedelta64, times: Times) -> int:
    """How many frames of an axis a step is.

    >>> frames_in("24h", decode([0, 6, 12], "hours since 2020-01-01"))
    4

    Raises:
        RecipeError: If it is no whole number of them.
        FieldError: If the axis has no step.
    """
    asked, found = duration(step), step_of_axis(times)
    whole = max(1, int(asked // found))
    if asked % found != np.timedelta64(0, "us"):
        raise RecipeError(
            f"a step of {step} was asked for, but the data have one frame every {found.item()}; "
            f"use a multiple of it, such as {(found * whole).item()}"
        )
    return whole


def starts(times: Times, step: str | timedelta | np.timedelta64) -> NDArray[np.intp]:
    """The frames that have another one exactly a step later, for axes with gaps, too.

    Returns:
        Shape (2, pair): frame, and the one a step later.

    Raises:
        RecipeError: If the step is no multiple of the axis's, or there is no such pair.
        FieldError: If the axis has no step.
    """
    frames_in(step, times)
    later = times + duration(step)
    index = np.searchsorted(times, later)
    first = np.flatnonzero(times[np.minimum(index, len(times) - 1)] == later)
    if not len(first):
        found = f"there are {len(times)} frames from {times[0]} to {times[-1]}"
        raise NoLaterError(
            f"no frame has another one {step} later: {found}; use a shorter step or more data",
            found,
        )
    return np.stack([first, index[first]])


def select(
    times: Times, which: str | int | Sequence[str | int], *, strict: bool = True
) -> NDArray[np.intp]:
    """The frames of some dates, in the order of the axis.

    >>> days = np.arange("2019", "2021", dtype="datetime64[D]").astype("datetime64[us]")
    >>> [len(select(days, which)) for which in ("2019-02", "2019-12-30:2020-01-02", 2020)]
    [28, 4, 366]

    Args:
        times: Of the axis, in any order.
        which: A date, of a year, month, day or time, and all that is in it; two of them with a
            colon between, both with what is in them, of which one may be left out; or several of
            these. Also ``slice('2019-01-01', '2020-03-25')``.
        strict: Whether there must be frames in each of them.

    Raises:
        RecipeError: If it is malformed, ends before it starts, or no frame is in it.
    """
    wanted = [which] if isinstance(which, str | int) else list(which)
    kept = np.zeros(len(times), bool)
    for each in wanted:
        first, last = ends(str(each))
        inside = np.ones(len(times), bool)
        if first is not None:
            inside &= times >= first
        if last is not None:
            inside &= times < last
        if strict and not inside.any():
            covered = f"from {times.min()} to {times.max()}" if len(times) else "none"
            raise RecipeError(f"there are no frames in {each!s}: the data have times {covered}")
        kept |= inside
    if not wanted:
        raise RecipeError("no times were asked for; give a date, such as 2019, or several")
    return np.flatnonzero(kept)


def ends(text: str) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """When a date or range of dates starts, and the first moment after it; None if it is open."""
    legacy = re.fullmatch(r"\s*slice\((.*),(.*)\)\s*", text)
    if legacy:
        parts = [part.strip().strip("'\"") for part in legacy.groups()]
        parts = ["" if part == "None" else part for part in parts]
    else:
        # a colon between dates, not between hours and minutes
        parts = [part.strip() for part in re.split(r":(?=\s*\d{4}-|\s*\d{4}\s*$|\s*$)", text)]
        open_start = re.fullmatch(r"\s*:(.*)", text)
        parts = ["", open_start[1].strip()] if open_start else parts
    if len(parts) > 2 or not any(parts):
        raise RecipeError(f"{text!r} is no range of dates; write 2019-01-01:2020-03-25")
    first, last = parts[0], parts[-1]
    low = period(first)[0] if first else None
    high = period(last)[1] if last else None
    if low is not None and high is not None and not low < high:
        raise RecipeError(f"{text!r} ends before it starts")
    return low, high


def period(text: str) -> tuple[np.datetime64, np.datetime64]:
    """The start of a year, month, day, hour, minute or second, and that of the next."""
    if re.fullmatch(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?", text):
        try:
            found = np.datetime64(text.replace(" ", "T"))
        except ValueError:
            pass
        else:
            return found.astype("datetime64[us]"), (found + 1).astype("datetime64[us]")
    raise RecipeError(f"{text!r} is no date; write 2019, 2019-01, 2019-01-31 or 2019-01-31T06:00")
