"""What is known of values that come run by run, once, and of a range that nobody knows before.

`Bins` have equal widths, which are powers of two, and edges at multiples of them. Where values lie
beyond, neighbors become one bin of twice the width, so that no value changes sides, and what was
counted is what would have been counted with the final bins from the start. `Percentiles` counts
values by the leading bits of their numbers, which sort like them, so its bins are fine for small
values and coarse for large ones, of whatever range.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.quantiles import keys_of
from map2map.typing import Array

__all__ = ["BinMoments", "Bins", "Percentiles", "gathered", "grouped"]

FINEST = 50
"""Bits that a bin's number may have, so that it is exact in double precision."""

BITS = 14
"""Leading bits by which `Percentiles` counts: a sign, 8 of the exponent, and 5 of the fraction."""


class Bins:
    """Bins of equal width that widen until they cover all values.

    >>> bins = Bins(most=4)
    >>> _ = bins.cover(0.0, 3.0)
    >>> bins.edges.tolist(), bins.cover(0.0, 7.9).tolist(), bins.edges.tolist()
    ([0.0, 1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], [0.0, 2.0, 4.0, 6.0, 8.0])

    Args:
        most: How many bins there may be; at least half as many are in use, unless all values are
            (nearly) the same.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.power, self.first, self.count = 0, 0, 0
        self.low, self.high = np.inf, -np.inf

    @property
    def width(self) -> float:
        """Of a bin."""
        return float(np.ldexp(1.0, self.power))

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ends of all bins, one more than there are bins."""
        places = np.arange(self.first, self.first + self.count + 1, dtype=float)
        return np.asarray(np.ldexp(places, self.power))

    def cover(self, low: float, high: float) -> NDArray[np.intp]:
        """Make room for finite values from ``low`` to ``high``.

        Returns:
            The new number of every bin that there was; the same for those that became one.
        """
        before, first, count = self.power, self.first, self.count
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        power = power_for(self.low, self.high, self.most)
        self.power = power if count == 0 else max(power, before)
        self.first, last = (int(self._places(x)) for x in (self.low, self.high))
        self.count = last - self.first + 1
        old = np.arange(first, first + count, dtype=np.int64)
        return np.asarray((old >> min(self.power - before, 63)) - self.first, np.intp)

    def numbers(self, values: Array) -> NDArray[np.intp]:
        """The bin of each value, which is covered."""
        found: NDArray[np.intp] = self._places(values) - self.first
        return found

    def _places(self, values: Array | float) -> NDArray[np.intp]:
        return np.floor(np.ldexp(np.asarray(values, np.float64), -self.power)).astype(np.intp)

    def groups(self, most: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """At most so many groups of equally many neighbors, for drawing.

        Returns:
            The first bin of each group, and the edges of the groups. The last group may reach
            beyond the last bin.
        """
        size = max(1, -(-self.count // most))
        starts = np.arange(0, self.count, size)
        places = self.first + size * np.arange(len(starts) + 1, dtype=float)
        return starts, np.ldexp(places, self.power)


def power_for(low: float, high: float, most: int) -> int:
    """The smallest power of two of a width at which ``most`` bins hold all values."""
    largest = max(abs(low), abs(high))
    if largest == 0:
        return -1000
    finest = int(np.frexp(largest)[1]) - FINEST
    reach = high / (most - 1) - low / (most - 1)
    if reach == 0:
        return finest
    # `most - 1` of a width of at least this, and the bin that the first begins within, are enough
    power = max(int(np.frexp(reach)[1]), finest)
    while power > finest and count_for(low, high, power - 1) <= most:
        power -= 1
    return power


def count_for(low: float, high: float, power: int) -> float:
    """How many bins of a width of two to a power hold all values."""
    first, last = np.floor(np.ldexp([low, high], -power))
    return float(last - first + 1)


def gathered(values: NDArray[Any], places: NDArray[np.intp], size: int, axis: int) -> NDArray[Any]:
    """Sums of what goes to the same place along an axis, which becomes ``size`` long."""
    moved = np.moveaxis(values, axis, 0)
    out = np.zeros((size, *moved.shape[1:]), values.dtype)
    np.add.at(out, places, moved)
    return np.moveaxis(out, 0, axis)


def grouped(values: NDArray[Any], starts: NDArray[np.intp], axis: int = -1) -> NDArray[Any]:
    """Sums over groups of neighbors, as `Bins.groups` gives them."""
    return np.asarray(np.add.reduceat(values, starts, axis=axis))


class BinMoments:
    """Number, mean and deviation of values of several series, by the bin of another value.

    Args:
        series: How many series.
        most: Number of bins; see `Bins`.
    """

    def __init__(self, series: int, most: int) -> None:
        self.bins = Bins(most)
        self.count = np.zeros(0)
        self.total, self.about = np.zeros((series, 0)), np.zeros((series, 0))

    def cover(self, low: float, high: float) -> None:
        """Make room for bins of finite values from ``low`` to ``high``."""
        places = self.bins.cover(low, high)
        self.count, self.total, self.about = merged(
            self.count, self.total, self.about, places, self.bins.count
        )

    def add(self, by: Array, values: Sequence[Array]) -> None:
        """Take in as many values of every series as there are of ``by``, which is covered."""
        places, size = self.bins.numbers(by), self.bins.count
        count = np.bincount(places, minlength=size).astype(float)
        total, about = np.zeros_like(self.total), np.zeros_like(self.about)
        for row, each in enumerate(values):
            exact = np.asarray(each, np.float64)
            total[row] = np.bincount(places, exact, minlength=size)
            mean = total[row] / np.maximum(count, 1)
            about[row] = np.bincount(places, (exact - mean[places]) ** 2, minlength=size)
        twice = np.tile(np.arange(size), 2)
        self.count, self.total, self.about = merged(
            np.concatenate([self.count, count]),
            np.concatenate([self.total, total], axis=1),
            np.concatenate([self.about, about], axis=1),
            twice,
            size,
        )

    def groups(
        self, most: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Edges of at most so many groups; number, mean and deviation of the values in each.

        Mean and deviation have shape (series, group), and are NaN where there is no value.
        """
        starts, edges = self.bins.groups(most)
        places = np.searchsorted(starts, np.arange(self.bins.count), side="right") - 1
        count, total, about = merged(self.count, self.total, self.about, places, len(starts))
        with np.errstate(invalid="ignore", divide="ignore"):
            return edges, count, total / count, np.sqrt(about / count)


def merged(
    count: NDArray[np.float64],
    total: NDArray[np.float64],
    about: NDArray[np.float64],
    places: NDArray[np.intp],
    size: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Numbers, sums and squared deviations from the means, of bins that become one."""
    mean = total / np.maximum(count, 1)
    counts = gathered(count, places, size, 0)
    totals = gathered(total, places, size, 1)
    gap = mean - (totals / np.maximum(counts, 1))[:, places]
    # deviations are squared about the means, where a difference of sums of squares would cancel
    abouts = gathered(about + count * gap**2, places, size, 1)
    return counts, totals, abouts


class Percentiles:
    """Percentiles of several series, each to 3 % or better of itself.

    Args:
        series: How many.
    """

    def __init__(self, series: int) -> None:
        self.counts = np.zeros((series, 1 << BITS), np.int64)
        self.low, self.high = np.full(series, np.inf), np.full(series, -np.inf)

    def add(self, values: Array) -> None:
        """Take in finite values, shape (series, n)."""
        if values.shape[1] == 0:
            return
        top = np.finfo(np.float32).max
        for row, each in enumerate(values):
            single = np.clip(each, -top, top).astype(np.float32)
            keys = (keys_of(single) >> np.uint32(32 - BITS)).astype(np.intp)
            self.counts[row] += np.bincount(keys, minlength=1 << BITS)
        self.low = np.minimum(self.low, values.min(axis=1))
        self.high = np.maximum(self.high, values.max(axis=1))

    def values(self, wanted: Sequence[float]) -> NDArray[np.float64]:
        """Percentiles of every series, shape (wanted, series); NaN of those without values."""
        found = np.full((len(wanted), len(self.counts)), np.nan)
        for row, counts in enumerate(self.counts):
            (used,) = np.nonzero(counts)
            if not used.size:
                continue
            edges = np.stack([numbers_of(used), numbers_of(used + 1)])
            edges = edges.clip(self.low[row], self.high[row])
            until = np.cumsum(counts[used])
            ranks = np.asarray(wanted) / 100 * (until[-1] - 1)
            place = np.searchsorted(until, ranks, side="right").clip(max=len(used) - 1)
            below = until[place] - counts[used][place]
            share = (ranks - below + 0.5) / counts[used][place]
            found[:, row] = edges[0, place] + share.clip(0, 1) * (edges[1] - edges[0])[place]
        return found


def numbers_of(buckets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Where buckets of `Percentiles` begin."""
    keys = (buckets.astype(np.uint64) << np.uint64(32 - BITS)).clip(max=2**32 - 1)
    short = keys.astype(np.uint32)
    top = np.uint32(1 << 31)
    floats = np.where(short & top, short ^ top, ~short).astype(np.uint32).view(np.float32)
    return np.nan_to_num(floats.astype(np.float64), nan=np.inf)
