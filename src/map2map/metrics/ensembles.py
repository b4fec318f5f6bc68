"""What an ensemble is worth: whether its members scatter as the truth does around their mean.

No metric of one prediction: `EnsembleScores` takes all members and adds up, window by window, so
that neither the members nor the runs need be in memory at once. Truth and members that are drawn
from one distribution get the perfect scores, but for the chance of the draws.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError
from map2map.metrics.base import SLAB, Values, as_channels, pair, score
from map2map.typing import Array

__all__ = ["EnsembleScores", "crps_score", "ensemble_scores", "slabs_of"]

PER_OCTAVE = 2
"""Bins of the spread whenever it doubles."""


class EnsembleScores:
    """Scores of an ensemble of one field, over all cells and channels that are given.

    - ``crps``: continuous ranked probability score, mean |x - y| - mean |x - x'| / 2 of members x
      and truth y. The fair one (Ferro 2014, doi:10.1002/qj.2270) takes the mean over different
      members x and x', so that it does not depend on their number: it is that of infinitely many.
      ``crps_plain`` takes all pairs. Of one prediction both terms are its mean absolute error.
    - ``energy_score``: the same of vectors, with their lengths for the absolute values, fair.
    - ``spread``: root of the mean variance of members around their mean (with M - 1 below the
      line), times the root of (M + 1) / M, with which it is the rmse of the mean if the truth is
      like a member (Fortin et al. 2014, doi:10.1175/JHM-D-14-0008.1).
    - ``spread_skill``: that spread divided by the rmse of the mean of members.
    - ``rank_histogram``: how often so many members are below the truth; flat if the truth is like a
      member, a U if they scatter too little. A truth equal to members counts for all ranks it could
      have, in equal parts.
    - ``rank_error``: summed distances of these shares from those of a flat histogram.

    Args:
        members: How many there are.
        vector: Whether channels are components of a vector.

    Raises:
        FieldError: If there are fewer than two.
    """

    def __init__(self, members: int, *, vector: bool = False) -> None:
        if members < 2:
            raise FieldError(f"an ensemble is scored from 2 members on, not {members}")
        self.members, self.vector = members, vector
        self.count = self.cells = 0
        self.distance = self.pairs = self.variance = self.squared = 0.0
        self.lengths = self.length_pairs = 0.0
        # by the numbers of members that are less than the truth, and equal to it
        self.ranks = np.zeros((members + 1, members + 1), np.int64)
        # by bins of the spread: how often, summed variance, summed squared error of the mean
        self.bins: dict[int, NDArray[np.float64]] = {}

    def add(self, members: Sequence[Array], truth: Array) -> None:
        """Take in a window; all of shape (channel, *space), in physical units.

        Cells where any of them is not finite are left out.

        Raises:
            GeometryError: If there are other members than was said, or shapes differ.
        """
        shapes = {np.shape(member) for member in members}
        if len(members) != self.members or shapes != {truth.shape}:
            raise GeometryError(
                f"{self.members} members of the truth's shape {truth.shape} were expected, not "
                f"{len(members)} of {', '.join(map(str, sorted(shapes)))}"
            )
        channels = len(truth)
        y = np.asarray(truth, np.float64).reshape(channels, -1)
        x = np.stack([np.asarray(m, np.float64).reshape(channels, -1) for m in members])
        finite = np.isfinite(y).all(axis=0) & np.isfinite(x).all(axis=(0, 1))
        if not finite.all():
            x, y = x[..., finite], y[:, finite]
        if not y.size:
            return
        self.count += y.size
        self.cells += y.shape[1]
        if self.vector:
            self._add_lengths(x, y)
        self._add_numbers(x.reshape(self.members, -1), y.reshape(-1))

    def _add_lengths(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Distances of vectors, shape (member, component, cell) and (component, cell)."""
        self.lengths += float(np.linalg.norm(x - y, axis=1).mean(axis=0).sum())
        for first, second in combinations(x, 2):
            self.length_pairs += float(np.linalg.norm(first - second, axis=0).sum())

    def _add_numbers(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Numbers, shape (member, number) and (number)."""
        size = self.members
        less, equal = (x < y).sum(axis=0), (x == y).sum(axis=0)
        table = np.bincount(less * (size + 1) + equal, minlength=(size + 1) ** 2)
        self.ranks += table.reshape(size + 1, size + 1)
        self.distance += float(np.abs(x - y).mean(axis=0).sum())
        error = x.mean(axis=0) - y
        variance = x.var(axis=0, ddof=1)
        self.squared += float((error**2).sum())
        self.variance += float(variance.sum())
        # of sorted numbers, the k-th is subtracted size - 1 - k times and subtracted from k times
        weights = 2.0 * np.arange(size) - (size - 1)
        self.pairs += float((weights @ np.sort(x, axis=0)).sum())
        self._add_bins(variance, error)

    def _add_bins(self, variance: NDArray[np.float64], error: NDArray[np.float64]) -> None:
        scattered = variance > 0
        variance, error = variance[scattered], error[scattered]
        if not variance.size:
            return
        place = np.floor(np.log2(variance) / 2 * PER_OCTAVE).astype(int)
        low = int(place.min())
        sums = [np.bincount(place - low, w) for w in (None, variance, error**2)]
        for number, three in enumerate(np.array(sums, np.float64).T, start=low):
            if three[0]:
                self.bins[number] = self.bins.get(number, np.zeros(3)) + three

    def merge(self, other: "EnsembleScores") -> None:
        """Take in what another has added up, of as many members."""
        for name in (
            "count", "cells", "distance", "pairs", "variance", "squared", "lengths", "length_pairs",
            "ranks",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for number, three in other.bins.items():
            self.bins[number] = self.bins.get(number, np.zeros(3)) + three

    @property
    def histogram(self) -> NDArray[np.float64]:
        """How often each rank occurs, shape (members + 1,); ties are in equal parts."""
        found = np.zeros(self.members + 1)
        for less, equal in np.argwhere(self.ranks):
            found[less : less + equal + 1] += self.ranks[less, equal] / (equal + 1)
        return found

    def by_spread(self) -> NDArray[np.float64]:
        """Spread, rmse of the mean and share of the numbers, in bins of the spread: (3, bin)."""
        rows = [self.bins[number] for number in sorted(self.bins)]
        count, variance, squared = np.array(rows).reshape(-1, 3).T
        spread = np.sqrt(self._factor * variance / count)
        return np.stack([spread, np.sqrt(squared / count), count / max(1, self.count)])

    @property
    def _factor(self) -> float:
        """Of the variance of members, for the mean squared error of their mean."""
        return (self.members + 1) / self.members

    def result(self) -> xr.Dataset:
        """The scores; NaN if nothing was added."""
        size, n = self.members, self.count or np.nan
        pairs = self.pairs / n
        shares = self.histogram / n
        spread = float(np.sqrt(self._factor * self.variance / n))
        skill = float(np.sqrt(self.squared / n))
        found = {
            "crps": crps_score(self.distance / n - pairs / (size * (size - 1))),
            "crps_plain": score(
                self.distance / n - pairs / size**2,
                "field",
                "continuous ranked probability score of these members, mean over cells",
                0,
            ),
            "spread": score(
                spread,
                "field",
                "root of the mean variance of members, times the root of (M + 1) / M",
                None,
            ),
            "spread_skill": score(
                spread / skill if skill else np.nan,
                "1",
                "spread of members / rmse of their mean",
                1,
            ),
            "rank_error": score(
                np.abs(shares - 1 / (size + 1)).sum(),
                "1",
                "summed distances of shares of ranks from those of a flat histogram",
                0,
            ),
            "rank_histogram": score(
                shares, "1", "share of cells where so many members are below the truth", None,
                ("rank",),
            ),
        }  # fmt: skip
        if self.vector:
            cells = self.cells or np.nan
            energy = self.lengths / cells - self.length_pairs / cells / (size * (size - 1))
            found["energy_score"] = score(
                energy, "field", "fair energy score of vectors, mean over cells", 0
            )
        return xr.Dataset(found)


def crps_score(value: float) -> xr.Variable:
    """A fair score of an ensemble, or, which is the same of one prediction, the mean error."""
    what = "fair continuous ranked probability score, mean over cells"
    return score(value, "field", f"{what}; of one prediction, its mean absolute error", 0)


def ensemble_scores(
    members: Sequence[Values],
    truth: Values,
    *,
    vector: bool = False,
    mask: Values | NDArray[np.bool_] | None = None,
) -> xr.Dataset:
    """Scores of an ensemble, as `EnsembleScores` tells them.

    Args:
        members: Each with values [u], shape (channel, *space); see `map2map.metrics.base.pair`.
        truth: Values [u], of the same shape.
        vector: Whether the channels are the components of a vector, one per axis.
        mask: True for cells that count, shape (*space).

    Raises:
        FieldError: If there are fewer than two members, units do not fit, or no cell counts.
        GeometryError: If shapes do not fit.
    """
    scores = EnsembleScores(len(members), vector=vector)
    counts: NDArray[np.bool_] | None = None
    for member in members:
        checked = pair(member, truth, vector=vector, mask=mask)
        if checked.counts is not None:
            counts = checked.counts if counts is None else counts & checked.counts
    if counts is not None and not counts.any():
        raise FieldError("no cell counts: in each, the truth or a member is masked or not finite")
    for part in slabs_of([as_channels(m) for m in members], as_channels(truth), counts):
        scores.add(*part)
    return scores.result()


def slabs_of(
    members: Sequence[Array], truth: Array, counts: NDArray[np.bool_] | None
) -> Iterator[tuple[list[Array], Array]]:
    """A few million numbers at a time, shape (channel, cells); only cells that count."""
    rows = max(1, SLAB // max(1, truth[:, 0].size * len(members)))
    for start in range(0, truth.shape[1], rows):
        part = slice(start, start + rows)
        sides = [x[:, part].reshape(len(truth), -1) for x in (truth, *members)]
        if counts is not None:
            kept = counts[part].ravel()
            sides = [x[:, kept] for x in sides]
        yield sides[1:], sides[0]
