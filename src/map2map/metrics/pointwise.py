"""Scores that compare cell by cell, added up over any number of windows or runs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.metrics.base import Values, pair, score, slabs
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["Pointwise", "pointwise_scores"]


@dataclass
class Pointwise:
    """RMSE, MAE, bias, relative error and R² of one field, over all cells that are given.

    Sums are in float64. R² = 1 - sum (p - t)² / sum (t - mean t)², with the mean per channel over
    everything given; cells where truth or prediction is not finite are left out.

    >>> scores = Pointwise()
    >>> scores.add(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    >>> round(scores.result()["r2"], 3), scores.result()["rmse"] ** 2
    (0.111, 2.0000000000000004)
    """

    count: int = 0
    error: float = 0.0
    absolute: float = 0.0
    squared: float = 0.0
    largest: float = 0.0
    truth: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    truth_squared: float = 0.0
    _shift: NDArray[np.float64] | None = None
    _cells: int = 0

    def add(self, prediction: Array, truth: Array) -> None:
        """Take in a window; both of shape (channel, *space), in physical units."""
        channels = len(truth)
        p, t = (np.asarray(x, np.float64).reshape(channels, -1) for x in (prediction, truth))
        finite = np.isfinite(p).all(axis=0) & np.isfinite(t).all(axis=0)
        if not finite.all():
            p, t = p[:, finite], t[:, finite]
        if t.size == 0:
            return
        error = p - t
        self.count += t.size
        self._cells += t.shape[1]
        self.error += float(error.sum())
        self.absolute += float(np.abs(error).sum())
        self.squared += float((error**2).sum())
        self.largest = max(self.largest, float(np.abs(error).max()))
        if self._shift is None:
            self._shift = t.mean(axis=1)
            self.truth = np.zeros(channels)
        # about a shift near the mean, so that the difference of squares does not cancel
        about = t - self._shift[:, None]
        self.truth = self.truth + about.sum(axis=1)
        self.truth_squared += float((about**2).sum())

    def result(self) -> dict[str, float]:
        """The scores; NaN where they are not defined."""
        if self.count == 0 or self._shift is None:
            nan = float("nan")
            return dict.fromkeys(("rmse", "mae", "bias", "max_error", "relative_error", "r2"), nan)
        variance = self.truth_squared - float((self.truth**2).sum()) / self._cells
        mean = self._shift + self.truth / self._cells
        power = variance + float((mean**2).sum()) * self._cells
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "rmse": float(np.sqrt(self.squared / self.count)),
                "mae": self.absolute / self.count,
                "bias": self.error / self.count,
                "max_error": self.largest,
                "relative_error": float(np.sqrt(np.float64(self.squared) / power)),
                "r2": float(1 - np.float64(self.squared) / variance),
            }


class Together:
    """Moments of two sets of numbers, from part to part.

    Attributes:
        count: Numbers so far.
        means: Of both.
        moments: Summed products of the deviations from the means, shape (2, 2).
    """

    def __init__(self) -> None:
        self.count, self.means, self.moments = 0, np.zeros(2), np.zeros((2, 2))

    def add(self, first: Array, second: Array) -> None:
        """Take in as many numbers of both."""
        both = np.stack([np.ravel(first), np.ravel(second)]).astype(np.float64)
        if not both.size:
            return
        n, means = both.shape[1], both.mean(axis=1)
        about = both - means[:, None]
        gap, total = means - self.means, self.count + n
        # Chan, Golub and LeVeque (1979), eq. 2.1
        self.moments += about @ about.T + np.outer(gap, gap) * self.count * n / total
        self.means += gap * n / total
        self.count = total

    @property
    def excess(self) -> float:
        """By how much the mean of the first is larger; NaN if there are no numbers."""
        return float(self.means[0] - self.means[1]) if self.count else float("nan")

    @property
    def correlation(self) -> float:
        """Pearson's correlation coefficient; NaN if one of them is constant."""
        variances = np.diag(self.moments)
        # what is below the rounding of a constant is no variance
        least = self.count * (np.abs(self.means) * 1e-7) ** 2
        if not self.count or (variances <= least).any():
            return float("nan")
        return float(self.moments[0, 1] / np.sqrt(variances.prod()))


def pointwise_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Scores of single cells: RMSE, MAE, bias, R², correlation, relative L2 and largest error.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L], which does not matter here.
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    scores, together = Pointwise(), Together()
    for p, t in slabs(both.prediction, both.truth, both.counts):
        scores.add(p, t)
        # what is a component's changes its sign with the axis; what is of lengths does not
        sides = (np.linalg.norm(x, axis=0) for x in (p, t)) if both.vector else (p, t)
        together.add(*sides)
    found = scores.result()
    return xr.Dataset(
        {
            "rmse": score(found["rmse"], "field", "root of the mean squared error of values", 0),
            "mae": score(found["mae"], "field", "mean absolute error of values", 0),
            "bias": score(
                together.excess, "field", "mean error of values; of vectors, of their lengths", 0
            ),
            "pearson": score(
                together.correlation,
                "1",
                "Pearson's correlation of values; of vectors, of their lengths",
                1,
            ),
            "r2": score(
                found["r2"],
                "1",
                "coefficient of determination, with the truth's mean per channel",
                1,
            ),
            "relative_l2": score(
                found["relative_error"],
                "1",
                "root of summed squared errors / summed squared truth",
                0,
            ),
            "max_error": score(found["max_error"], "field", "largest absolute error of a value", 0),
        }
    )
