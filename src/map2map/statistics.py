"""Statistics of fields larger than memory, in a few passes over the data.

The first pass finds counts, extremes, mean and deviation: of each block in two passes over the
block, merged by Chan's formula, all in float64, so that a large mean costs no digits. Histogram
and quantiles need the extremes and so further passes; quantiles are exact (`map2map.quantiles`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.grids import Grid
from map2map.physics.spacing import Spacing, step_of
from map2map.physics.spectra import mode_counts, power_spectrum
from map2map.quantiles import Selection, around
from map2map.sources import Source, Stored
from map2map.typing import Array
from map2map.windows import Window, slabs

__all__ = [
    "Histogram",
    "Moments",
    "Part",
    "Spectrum",
    "Statistics",
    "Wanted",
    "read_pass",
    "spacing_of",
    "spectrum_memory",
]

BLOCK = 1 << 18
"""Numbers that are looked at at once: they fit into a processor's cache."""


@dataclass
class Moments:
    """Counts, extremes, mean and deviation of the finite values, in one pass.

    Attributes:
        count: Finite values.
        nan: Values that are not a number.
        inf: Infinite values of either sign.
        mean: Their mean.
        squares: Sum of squared differences from the mean.
        low: The smallest.
        high: The largest.
    """

    count: int = 0
    nan: int = 0
    inf: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: Array) -> None:
        """Take in more values, of any shape."""
        finite, nan = only_finite(values)
        other = Moments(finite.size, nan, values.size - finite.size - nan)
        if finite.size:
            wide = finite.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                other.mean = float(wide.mean())
                wide -= other.mean
                other.squares = float(np.vdot(wide, wide))
            other.low, other.high = float(finite.min()), float(finite.max())
        self.merge(other)

    def merge(self, other: "Moments") -> None:
        """Take in what is known of other values (Chan, Golub & LeVeque 1983)."""
        total = self.count + other.count
        if other.count:
            step = other.mean - self.mean
            self.squares += other.squares + step * step * (self.count / total) * other.count
            self.mean += step * (other.count / total)
        self.count, self.nan, self.inf = total, self.nan + other.nan, self.inf + other.inf
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def std(self) -> float:
        """Deviation from the mean, of the population (numpy's default)."""
        return float(np.sqrt(self.squares / self.count)) if self.count else np.nan


class Histogram:
    """Counts in bins of equal width; the last one includes its upper edge.

    Args:
        bins: How many.
        low: Lower edge of the first.
        high: Upper edge of the last; if equal, the bins are about it.
    """

    def __init__(self, bins: int, low: float, high: float) -> None:
        if low == high:
            around = max(0.5, abs(low) * 2.0**-20)
            low, high = low - around, high + around
        share = np.arange(bins + 1) / bins
        # the difference of two large numbers may be too large for a number
        self.edges = low * (1 - share) + high * share
        self.edges[[0, -1]] = low, high
        self.counts = np.zeros(bins, np.int64)
        self.below = self.above = 0

    def add(self, values: Array) -> None:
        """Take in more finite values."""
        edges, bins = self.edges, len(self.counts)
        low, high = edges[0], edges[-1]
        self.below += int(np.count_nonzero(values < low))
        self.above += int(np.count_nonzero(values > high))
        inside = values[(values >= low) & (values <= high)].astype(np.float64)
        scale = 2.0 if high / 2 - low / 2 > np.finfo(float).max / 2 else 1.0
        share = (inside / scale - low / scale) / (high / scale - low / scale)
        index = np.minimum((share * bins).astype(np.intp), bins - 1)
        # rounding may put a value next to an edge on its wrong side
        index -= inside < edges[index]
        index += (inside >= edges[index + 1]) & (index < bins - 1)
        self.counts += np.bincount(index, minlength=bins)


@dataclass(frozen=True)
class Wanted:
    """What is wanted beyond `Moments`.

    Args:
        quantiles: Between 0 and 1.
        bins: Of the histogram; 0 for none.
        limits: Of the histogram; if not given, the extremes.
    """

    quantiles: tuple[float, ...] = ()
    bins: int = 0
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        wrong = [q for q in self.quantiles if not 0 <= q <= 1]
        if wrong:
            raise RecipeError(f"quantiles lie between 0 and 1, not {', '.join(map(str, wrong))}")
        if self.bins < 0:
            raise RecipeError(f"a histogram has 1 or more bins (0: none is made), not {self.bins}")
        if self.limits is not None and not -np.inf < self.limits[0] < self.limits[1] < np.inf:
            raise RecipeError(f"the range of a histogram is from low to high, not {self.limits}")


class Statistics:
    """All statistics of one set of values, in as many passes as they need.

    Args:
        wanted: What to find beyond the moments.
        dtype: Of the values: float32 or float64.
    """

    def __init__(self, wanted: Wanted, dtype: np.dtype[Any]) -> None:
        self.wanted, self.dtype = wanted, dtype
        self.moments = Moments()
        self.histogram: Histogram | None = None
        self.selection: Selection | None = None
        self.passes = 0
        self.needs_pass = True

    def add(self, values: Array) -> None:
        """Take in values, of any shape; in every pass the same."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            if self.passes == 0:
                self.moments.add(block)
                continue
            finite, _ = only_finite(block)
            if self.passes == 1 and self.histogram is not None:
                self.histogram.add(finite)
            if self.selection is not None:
                self.selection.add(finite)

    def settle(self) -> None:
        """End a pass."""
        self.passes += 1
        moments, wanted = self.moments, self.wanted
        if self.passes > 1:
            self.needs_pass = self.selection is not None and self.selection.settle()
            return
        if moments.count and wanted.bins:
            limits = wanted.limits or (moments.low, moments.high)
            self.histogram = Histogram(wanted.bins, *limits)
        if moments.count and wanted.quantiles:
            ranks = [r for q in wanted.quantiles for r in around(q, moments.count)[:2]]
            self.selection = Selection(
                ranks, moments.count, (moments.low, moments.high), self.dtype
            )
        self.needs_pass = self.histogram is not None or self.selection is not None

    def quantiles(self) -> dict[float, float]:
        """The wanted quantiles, when no pass is needed any more."""
        found = {}
        if self.selection is not None:
            for q in self.wanted.quantiles:
                low, high, share = around(q, self.moments.count)
                a, b = self.selection.value(low), self.selection.value(high)
                found[q] = a * (1 - share) + b * share if a != b else a
        return found


def only_finite(values: Array) -> tuple[Array, int]:
    """The finite values, and how many are no number."""
    mask = np.isfinite(values)
    if mask.all():
        return values.reshape(-1), 0
    return values[mask], int(np.count_nonzero(np.isnan(values)))


@dataclass(frozen=True)
class Part:
    """A field of a file, and whose values it has.

    Args:
        source: The file.
        stored: The field.
        into: What takes its values in: one for all, or one for each of its channels.
    """

    source: Source
    stored: Stored
    into: tuple[Statistics, ...]

    @property
    def nbytes(self) -> int:
        """Of its values, as in the file."""
        return int(np.prod(self.stored.full_shape)) * np.dtype(self.stored.dtype).itemsize


def read_pass(
    parts: Sequence[Part], *, memory: int = 64 << 20, tell: Callable[[int], object] | None = None
) -> list[Part]:
    """Read fields once, a slab at a time.

    Args:
        parts: What to read.
        memory: Bytes that a slab may take.
        tell: Given the bytes of each slab, as in its file.

    Returns:
        What has to be read again.
    """
    for part in parts:
        for values in slabs_of(part, memory):
            if len(part.into) == 1:
                part.into[0].add(values)
            else:
                for statistics, channel in zip(part.into, values, strict=True):
                    statistics.add(channel)
            if tell is not None:
                tell(values.size * np.dtype(part.stored.dtype).itemsize)
    # several parts may go into one
    for statistics in {id(one): one for part in parts for one in part.into}.values():
        statistics.settle()
    return [part for part in parts if any(one.needs_pass for one in part.into)]


def slabs_of(part: Part, memory: int) -> Iterator[Array]:
    """The values of a field, (channels, *cells), some rows at a time."""
    stored, dtype = part.stored, part.stored.floating
    # the buffer, and what a library may hold at the same time
    numbers = max(1, memory // (2 * dtype.itemsize))
    for window in slabs(stored.shape, stored.channels, numbers):
        values = np.empty((stored.channels, *window.shape), dtype)
        part.source.read(stored.name, window, values, Grid(stored.shape))
        part.source.release()
        yield values
        del values


SPECTRUM_CELL = {1: 72, 2: 72, 3: 48}
"""Bytes per cell that `power_spectrum` takes besides the field, by the number of axes, measured."""


class Spectrum:
    """Mean isotropic power spectrum of fields that each fit into memory.

    Args:
        spacing: Cell size [L]; one per axis, or one for all.
        memory: Bytes that may be used.
    """

    def __init__(self, spacing: Spacing, memory: int) -> None:
        self.spacing, self.memory = spacing, memory
        self.total: Array | None = None
        self.k: Array = np.empty(0)
        self.modes: Array = np.empty(0)
        self.fields, self.first = 0, ""

    def add(self, source: Source, stored: Stored) -> None:
        """Read a field and take in its spectrum, summed over its channels.

        Raises:
            GeometryError: If it does not fit into memory, or has another grid than fields before.
            FieldError: If some of its values are not finite.
        """
        where = f"field {stored.name!r} of {source.path}"
        needed = spectrum_memory(stored)
        if needed > self.memory:
            raise GeometryError(
                f"the spectrum of {where} needs {needed / 2**20:.0f} MiB of memory, but "
                f"{self.memory / 2**20:.0f} MiB are allowed; allow more, or leave the spectrum out"
            )
        values = np.empty((stored.channels, *stored.shape), stored.floating)
        source.read(stored.name, Window.whole(stored.shape), values, Grid(stored.shape))
        source.release()
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise FieldError(f"{where} has values that are not finite, and so has no spectrum")
        k, power = power_spectrum(values, self.spacing, len(stored.shape))
        if self.total is None:
            self.k, self.modes = mode_counts(stored.shape, self.spacing)
            self.total, self.first = np.zeros(len(k)), where
        elif not np.array_equal(k, self.k):
            raise GeometryError(
                f"{where} has {stored.shape} cells, and other wavenumbers than {self.first}; "
                f"average spectra of equal grids only, or take each file by itself"
            )
        self.total, self.fields = self.total + power, self.fields + 1

    @property
    def power(self) -> Array:
        """The mean [u^2 L^ndim] at the wavenumbers ``k`` [rad/L]."""
        return np.empty(0) if self.total is None else np.asarray(self.total / self.fields)


def spectrum_memory(stored: Stored) -> int:
    """Bytes that the spectrum of a field takes."""
    besides = SPECTRUM_CELL[min(len(stored.shape), 3)]
    return math.prod(stored.shape) * (stored.channels * stored.floating.itemsize + besides)


def spacing_of(stored: Stored) -> tuple[float, ...] | None:
    """Cell size per axis by the coordinates; None if there are not coordinates on all axes.

    Raises:
        GeometryError: If coordinates are not evenly spaced.
    """
    sizes = []
    for axis in stored.axes:
        step = step_of(axis.values)
        if step is None:
            return None
        if math.isnan(step):
            steps = np.diff(np.asarray(axis.values, np.float64))
            raise GeometryError(
                f"axis {axis.name!r} of field {stored.name!r} is not evenly spaced: its steps are "
                f"{steps.min():g} to {steps.max():g}; give the spacing if it is to be taken so"
            )
        sizes.append(abs(step))
    return tuple(sizes) or None
