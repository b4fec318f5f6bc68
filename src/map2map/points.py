"""The points of a search space that has finitely many: their numbers, and those not yet tried."""

import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from map2map.spaces import Choice, Range, Space, label

__all__ = ["count_of", "number_of", "point_of", "untried"]


def count_of(space: Space) -> int | None:
    """How many points there are; None if there is no end of them.

    >>> count_of({"a": Range(1, 3, whole=True), "b": Choice((True, False))})
    6
    """
    counts = [_count(what) for what in space.values()]
    whole = [count for count in counts if count is not None]
    return math.prod(whole) if len(whole) == len(counts) else None


def number_of(space: Space, values: Mapping[str, Any]) -> int:
    """The number of a point, from 0, of a space that has finitely many.

    >>> number_of({"a": Range(1, 3, whole=True), "b": Choice((True, False))}, {"a": 3, "b": True})
    4
    """
    number = 0
    for key, what in space.items():
        number = number * (_count(what) or 1) + _place(what, values[key])
    return number


def point_of(space: Space, number: int) -> dict[str, Any]:
    """The point of a number.

    >>> point_of({"a": Range(1, 3, whole=True), "b": Choice((True, False))}, 4)
    {'a': 3, 'b': True}
    """
    values = {}
    for key, what in reversed(space.items()):  # type: ignore[call-overload]
        number, place = divmod(number, _count(what) or 1)
        values[key] = _value(what, place)
    return {key: values[key] for key in space}


def untried(
    space: Space, tried: Collection[Mapping[str, Any]], rng: np.random.Generator
) -> dict[str, Any] | None:
    """A point that was not tried, drawn at random; None if there is none left.

    Args:
        space: With finitely many points.
        tried: Those that were.
        rng: What draws.
    """
    count = count_of(space) or 0
    numbers = {number_of(space, values) for values in tried}
    if len(numbers) >= count:
        return None
    number = int(rng.integers(count))
    while number in numbers:
        number = (number + 1) % count
    return point_of(space, number)


def _step(what: Range) -> float | None:
    return what.step if what.step is not None else 1 if what.whole else None


def _count(what: Range | Choice) -> int | None:
    if isinstance(what, Choice):
        return len(what.values)
    step = _step(what)
    if step is None:
        return None
    return int((Decimal(str(what.high)) - Decimal(str(what.low))) / Decimal(str(step))) + 1


def _place(what: Range | Choice, value: Any) -> int:
    if isinstance(what, Choice):
        names: Sequence[str] = [label(each) for each in what.values]
        return names.index(label(value))
    place: int = round((value - what.low) / (_step(what) or 1))
    return place


def _value(what: Range | Choice, place: int) -> Any:
    if isinstance(what, Choice):
        return what.values[place]
    value = Decimal(str(what.low)) + place * Decimal(str(_step(what)))
    return int(value) if what.whole else float(value)
