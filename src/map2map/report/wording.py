"""Numbers as a reader wants them: as many digits as they are certain to, and no more."""

import math
from collections.abc import Sequence

from map2map.report.scores import SUPERSCRIPT, Score

__all__ = ["count", "duration", "listed", "number", "numbers", "score", "times"]

# typographic signs, by number since they look like others
MINUS, TIMES, DASH = "\u2212", "\u00d7", "\u2013"


def decade(value: float) -> int:
    """The exponent of ten of a number that is not 0."""
    return math.floor(math.log10(abs(value)))


def numbers(values: Sequence[float], resolution: float) -> tuple[list[str], str]:
    """Numbers that are read together, all to the same resolution, and their power of ten.

    >>> numbers([0.17342, 12.5], 0.001)
    (['0.173', '12.500'], '')
    """
    finite = [value for value in values if math.isfinite(value)]
    largest = max((abs(value) for value in finite), default=0.0)
    largest = largest if largest >= resolution else 0.0
    power = decade(largest) if largest > 0 else 0
    scale = 0 if -4 < power < 5 else power
    digits = max(0, scale - decade(resolution)) if resolution > 0 else 0
    written = []
    for value in values:
        if not math.isfinite(value):
            written.append(DASH)
            continue
        text = f"{value / 10.0**scale:.{digits}f}"
        if float(text) == 0:
            text = text.lstrip("-")
        written.append(text.replace("-", MINUS))
    return written, f"{TIMES}10{str(scale).translate(SUPERSCRIPT)}" if scale else ""


def number(value: float, perfect: float = 0.0, digits: int = 3) -> str:
    """A number to so many significant digits, or to two of its distance from a perfect 1.

    >>> number(0.0123456), number(0.99987, perfect=1.0)
    ('0.0123', '0.99987')
    """
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else DASH
    (written,), power = numbers([value], _resolution(value, perfect, digits))
    return written + power


def _resolution(value: float, perfect: float, digits: int = 3) -> float:
    resolution = 10.0 ** (decade(value) - digits + 1) if value else 1e-3
    if perfect and value != perfect:
        resolution = min(resolution, max(10.0 ** (decade(value - perfect) - 1), 1e-9))
        # what is tiny beside a perfect score is as good as 0
        resolution = max(resolution, 1e-3 * abs(perfect)) if abs(value) < 0.1 else resolution
    return resolution


def score(value: Score, perfect: float = 0.0, most: int = 5) -> tuple[str, str]:
    """A mean, and its interval in brackets (empty if it is not known).

    The last digit is about a third of the interval's half-width or less, but there are no more than
    ``most`` digits.

    >>> score(Score(0.17342, 0.1672, 0.1796))
    ('0.173', '[0.167, 0.180]')
    """
    if not value.has_interval:
        return number(value.mean, perfect), ""
    half = (value.high - value.low) / 2
    if half <= 0:
        resolution = _resolution(value.mean, perfect)
    else:
        resolution = 10.0 ** (decade(half) - (half < 3 * 10.0 ** decade(half)))
        # an interval that is tiny or huge beside the mean is no reason for eight digits or none
        about = max(abs(value.mean), abs(value.low), abs(value.high))
        finest = _resolution(about, perfect, most)
        resolution = max(min(resolution, 10.0 ** (decade(about) - 1)), finest)
    (mean, low, high), power = numbers([value.mean, value.low, value.high], resolution)
    return mean + power, f"[{low}, {high}]{power}"


def times(ratio: float) -> str:
    """A factor to two or three digits, in thousands with a narrow space.

    >>> times(2.345), times(41234.0)
    ('2.3', '41\u202f000')
    """
    if ratio < 1:
        return number(ratio, digits=2)
    if ratio < 99.5:
        return _two(ratio)
    step = 10 ** (decade(ratio) - 1)
    return f"{round(ratio / step) * step:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(0.0123), duration(75.0), duration(7200.0)
    ('12 ms', '75 s', '2.0 h')
    """
    if not math.isfinite(seconds):
        return DASH
    for limit, size, unit in (
        (0.9995e-3, 1e-6, "µs"),
        (0.9995, 1e-3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 60.0, "min"),
        (172800.0, 3600.0, "h"),
        (math.inf, 86400.0, "days"),
    ):
        if seconds < limit:
            return f"{_two(seconds / size)} {unit}"
    return DASH


def _two(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "run"), count(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
