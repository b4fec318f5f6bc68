"""Exact quantiles of more values than fit into memory.

A quantile interpolates between two order statistics as numpy does, and these are exact:
floating-point numbers sort like the integers of their bits, so the range of these integers is cut
into 65536 buckets and counted, then the buckets that hold the wanted ranks are, until a bucket is
one number, or has so few that they can be kept and sorted. Tails, offsets and constants do no harm,
since buckets follow the numbers that there are rather than a scale. Numbers of 32 bits need at most
2 passes, those of 64 bits at most 4, and mostly 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.typing import Array

__all__ = ["Selection", "around"]

BUCKETS = 16
"""Bits by which a pass of `Selection` narrows down a number."""

KEEP = 1 << 18
"""As many numbers are kept and sorted rather than counted."""


@dataclass
class Interval:
    """Numbers among which some ranks lie, by their keys ``low <= key <= high``."""

    low: int
    high: int
    below: int
    count: int
    ranks: list[int]
    counts: NDArray[np.int64] | None = None
    kept: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shift = max(0, (self.high - self.low).bit_length() - BUCKETS)
        if self.count > KEEP:
            self.counts = np.zeros(((self.high - self.low) >> self.shift) + 1, np.int64)

    def add(self, keys: NDArray[Any]) -> None:
        """Count or keep those that lie here."""
        kind = keys.dtype.type
        # unsigned numbers below `low` wrap around to large ones
        offset = keys - kind(self.low)
        offset = offset[offset <= kind(self.high - self.low)]
        if self.counts is None:
            self.kept.append(offset)
        else:
            bucket = (offset >> kind(self.shift)).astype(np.intp)
            self.counts += np.bincount(bucket, minlength=len(self.counts))

    def settle(self, found: dict[int, int]) -> list["Interval"]:
        """Find the keys of the ranks, or narrower intervals."""
        if self.counts is None:
            offsets = np.sort(np.concatenate(self.kept))
            found |= {rank: self.low + int(offsets[rank - self.below]) for rank in self.ranks}
            return []
        until = np.cumsum(self.counts)
        narrower: dict[int, Interval] = {}
        for rank in self.ranks:
            bucket = int(np.searchsorted(until, rank - self.below, side="right"))
            low = self.low + (bucket << self.shift)
            if self.shift == 0:
                found[rank] = low
            elif bucket in narrower:
                narrower[bucket].ranks.append(rank)
            else:
                high = min(self.high, low + (1 << self.shift) - 1)
                count = int(self.counts[bucket])
                below = self.below + int(until[bucket]) - count
                narrower[bucket] = Interval(low, high, below, count, [rank])
        return list(narrower.values())


class Selection:
    """Exact order statistics in a few passes, in bounded memory.

    Args:
        ranks: Which of the sorted values are wanted, from 0.
        count: How many values there are.
        extremes: The smallest and the largest.
        dtype: Of the values: float32 or float64.
    """

    def __init__(
        self,
        ranks: Sequence[int],
        count: int,
        extremes: tuple[float, float],
        dtype: np.dtype[Any],
    ) -> None:
        self.dtype = dtype
        self.found: dict[int, int] = {}
        low, high = (int(keys_of(np.array([v], dtype))[0]) for v in extremes)
        wanted = sorted(set(ranks))
        self.pending = [Interval(low, high, 0, count, wanted)] if wanted else []

    def add(self, values: Array) -> None:
        """Take in finite values; in every pass the same."""
        keys = keys_of(values.astype(self.dtype, copy=False))
        for interval in self.pending:
            interval.add(keys)

    def settle(self) -> bool:
        """End a pass; whether another is needed."""
        self.pending = [new for old in self.pending for new in old.settle(self.found)]
        return bool(self.pending)

    def value(self, rank: int) -> float:
        """The value of a rank, when all are found."""
        key = np.array([self.found[rank]], unsigned(self.dtype))
        top = key.dtype.type(1 << (8 * key.itemsize - 1))
        return float(np.where(key & top, key ^ top, ~key).view(self.dtype)[0])


def unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The whole numbers of as many bits."""
    return np.dtype(f"u{dtype.itemsize}")


def keys_of(values: Array) -> NDArray[Any]:
    """Whole numbers that sort like the values, which are finite."""
    # -0 becomes +0, so that they are one number
    bits = np.ascontiguousarray(values + values.dtype.type(0)).view(unsigned(values.dtype))
    top = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.asarray(np.where(bits & top, ~bits, bits | top))


def around(quantile: float, count: int) -> tuple[int, int, float]:
    """The ranks about a quantile, and how far it is from the first to the second."""
    place = quantile * (count - 1)
    return floor(place), ceil(place), place - floor(place)
