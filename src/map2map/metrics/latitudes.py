"""What a forecast on latitudes and longitudes is worth: every part of the globe by its area.

Cells of a grid of latitudes and longitudes are smaller near the poles, so scores are means with the
weights n cos(latitude) / sum cos(latitude), whose mean is 1. After Rasp et al. 2020 and 2024
(WeatherBench, arXiv:2002.00469 and arXiv:2308.15560).

`latitude_scores` is a metric like the others, of one field of one run. `LatitudeScores` adds up
many samples of forecasts, where the root is taken of the mean over all.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from map2map.errors import FieldError, GeometryError
from map2map.metrics.base import Pair, Values, as_array, as_channels, check_units, pair, score
from map2map.physics.spacing import Spacing

__all__ = ["LatitudeScores", "forecast_scores", "latitude_scores", "latitude_weights"]


def latitude_weights(latitude: ArrayLike) -> NDArray[np.float64]:
    """The weight of each latitude: n cos(latitude) / sum cos(latitude).

    >>> latitude_weights([-60.0, 0.0, 60.0])
    array([0.75, 1.5 , 0.75])

    Args:
        latitude: Of the rows of cells [degrees north], shape (n,).

    Raises:
        GeometryError: If they are no latitudes.
    """
    degrees = np.asarray(latitude, np.float64)
    if degrees.ndim != 1 or not len(degrees) or not (np.abs(degrees) <= 90).all():
        raise GeometryError(
            f"latitudes are numbers from -90 to 90, one per row of cells, not {latitude!r}"
        )
    area = np.cos(np.deg2rad(degrees))
    if len(area) * area.max() < 1e-9:
        raise GeometryError("all latitudes are poles, where cells have no area")
    return np.asarray(len(area) * area / area.sum())


class LatitudeScores:
    """RMSE, MAE, bias and anomaly correlation of one field over any number of samples, per channel.

    - ``rmse``: root of the mean over samples of the weighted mean of squared errors.
    - ``acc``: mean over samples of ``sum w f' t' / sqrt(sum w f'^2 sum w t'^2)``, where f' and t'
      are what forecast and truth have more than the climatology.

    Cells where truth or forecast, and for ``acc`` the climatology, is not finite are left out, of
    each sample and channel by itself; a channel without cells left counts in no mean over samples.

    Args:
        latitude: Of the rows of cells [degrees north], shape (latitude,).
    """

    def __init__(self, latitude: ArrayLike) -> None:
        self.weights = latitude_weights(latitude)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add(self, prediction: Values, truth: Values, climatology: Values | None = None) -> None:
        """Take in a sample; all of shape (channel, latitude, longitude), in physical units.

        Args:
            prediction: Values [u].
            truth: Values [u].
            climatology: What is usual at this place and time of the year [u]; for ``acc``.

        Raises:
            FieldError: If units or channels do not fit.
            GeometryError: If shapes do not fit.
        """
        check_units(prediction, truth)
        p, t = (as_channels(x).astype(np.float64) for x in (prediction, truth))
        self._check(p, t)
        usual = None
        if climatology is not None:
            check_units(climatology, truth)
            usual = as_channels(climatology).astype(np.float64)
            self._check(usual, t)
        error = p - t
        weights = np.where(np.isfinite(error), self.weights[:, None], 0)
        total = weights.sum(axis=(1, 2))
        error = np.where(weights > 0, error, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in (
                ("squared", error**2),
                ("absolute", np.abs(error)),
                ("bias", error),
            ):
                self._count(name, (weights * values).sum(axis=(1, 2)) / total)
            if usual is not None:
                self._count("acc", correlation(p - usual, t - usual, self.weights))

    def _check(self, values: NDArray[Any], truth: NDArray[Any]) -> None:
        if values.shape != truth.shape:
            raise GeometryError(
                f"prediction or climatology has shape {values.shape}, but the truth {truth.shape}"
            )
        if truth.ndim != 3 or truth.shape[1] != len(self.weights):
            raise GeometryError(
                f"the fields have shape {truth.shape}, but must have (channel, latitude, "
                f"longitude) with {len(self.weights)} latitudes"
            )
        known = len(next(iter(self._sums.values()), truth))
        if known != len(truth):
            raise FieldError(f"a sample has {len(truth)} channels, but the ones before it {known}")

    def _count(self, name: str, values: NDArray[np.float64]) -> None:
        known = np.isfinite(values)
        self._sums[name] = self._sums.get(name, np.zeros(len(values))) + np.where(known, values, 0)
        self._counts[name] = self._counts.get(name, np.zeros(len(values), np.int64)) + known

    def result(self) -> xr.Dataset:
        """The scores along ``channel``; NaN where they are not defined.

        Raises:
            FieldError: If there was no sample.
        """
        if not self._sums:
            raise FieldError("there is nothing to score: no sample was given")
        with np.errstate(divide="ignore", invalid="ignore"):
            means = {name: total / self._counts[name] for name, total in self._sums.items()}
        dims = ("channel",)
        weighted = " weighted by cos(latitude)" if np.ptp(self.weights) else ""
        found = {
            "rmse": score(
                np.sqrt(means["squared"]),
                "field",
                f"root of the mean over samples of squared errors{weighted}",
                0,
                dims,
            ),
            "mae": score(means["absolute"], "field", f"mean of |error|{weighted}", 0, dims),
            "bias": score(means["bias"], "field", f"mean error{weighted}", 0, dims),
        }
        if "acc" in means:
            found["acc"] = score(
                means["acc"],
                "1",
                f"mean over samples of the correlation of anomalies{weighted}",
                1,
                dims,
            )
        return xr.Dataset(found)


def correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlation of two anomalies per channel, about zero; NaN where one of them is zero."""
    finite = np.isfinite(first) & np.isfinite(second)
    w = np.where(finite, weights[:, None], 0)
    first, second = np.where(finite, first, 0), np.where(finite, second, 0)
    both, one, other = ((w * x).sum(axis=(1, 2)) for x in (first * second, first**2, second**2))
    return np.asarray(both / np.sqrt(one * other))


def forecast_scores(
    prediction: Any, truth: Any, latitude: ArrayLike, climatology: Any = None
) -> xr.Dataset:
    """The scores of `LatitudeScores` over samples that are in memory.

    Args:
        prediction: Values [u], shape (sample, channel, latitude, longitude).
        truth: Values [u], of the same shape.
        latitude: Of the rows of cells [degrees north].
        climatology: Values [u], of the same shape, or without samples, the same for all.

    Raises:
        FieldError, GeometryError: If they do not fit together.
    """
    p, t = as_array(prediction), as_array(truth)
    if p.shape != t.shape or t.ndim != 4:
        raise GeometryError(
            f"prediction and truth have the shapes {p.shape} and {t.shape}, but must have the same "
            f"(sample, channel, latitude, longitude)"
        )
    usual = None if climatology is None else np.broadcast_to(as_array(climatology), t.shape)
    scores = LatitudeScores(latitude)
    for i in range(len(t)):
        scores.add(p[i], t[i], None if usual is None else usual[i])
    return scores.result()


def latitude_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """RMSE, MAE, bias and anomaly correlation weighted by cos(latitude); nothing without latitudes.

    Over cells that count, with w their cosines: ``rmse = sqrt(sum w (p - t)^2 / sum w)``, of
    several channels the root of the mean over them, and ``acc = sum w p' t' / sqrt(sum w p'^2 sum w
    t'^2)``, where p' and t' are what they have more than the climatology; of several channels the
    mean, of vectors with sums over components. A bias of vectors is that of their lengths.
    ``level_…`` are those of each channel, where there are several that are no components.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L], which does not matter here.
        about: ``periodic``, ``vector``, ``mask``, ``latitude`` and ``climatology``.
    """
    both = pair(prediction, truth, spacing, **about)
    if both.latitude is None:
        return xr.Dataset()
    weights = np.cos(np.deg2rad(both.latitude))
    if both.counts is not None:
        weights = np.where(both.counts, weights, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        squared, absolute, bias = weighted_errors(both, weights / weights.sum())
        whole, acc = anomaly_correlations(both, weights)
    by = "weighted by cos(latitude)"
    found = {
        "latitude_rmse": score(
            np.sqrt(squared.mean()), "field", f"root of the mean squared error {by}", 0
        ),
        "latitude_mae": score(absolute.mean(), "field", f"mean absolute error {by}", 0),
        "latitude_bias": score(
            length_bias(both, weights / weights.sum()) if both.vector else bias.mean(),
            "field",
            f"mean error of values, of vectors of their lengths, {by}",
            0,
        ),
    }
    if both.usual is not None:
        found["acc"] = score(whole, "1", f"correlation of anomalies {by}", 1)
    if len(both.truth) > 1 and not both.vector:
        level = ["level"]
        found |= {
            "level_latitude_rmse": score(
                np.sqrt(squared), "field", f"root mean squared error {by}, per level", 0, level
            ),
            "level_latitude_bias": score(bias, "field", f"mean error {by}, per level", 0, level),
        }
        if both.usual is not None:
            found["level_acc"] = score(
                acc, "1", f"correlation of anomalies {by}, per level", 1, level
            )
    return xr.Dataset(found)


def weighted_errors(both: Pair, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of squared errors, absolute errors and errors, shape (3, channel)."""
    sums = []
    for p, t in zip(both.prediction, both.truth, strict=True):
        error = np.where(shares > 0, p.astype(np.float64) - t, 0)
        sums.append([(shares * x).sum() for x in (error**2, np.abs(error), error)])
    return np.array(sums).T


def length_bias(both: Pair, shares: NDArray[np.float64]) -> float:
    """Mean error of the lengths of vectors."""
    p, t = (np.linalg.norm(x.astype(np.float64), axis=0) for x in (both.prediction, both.truth))
    return float((shares * np.where(shares > 0, p - t, 0)).sum())


def anomaly_correlations(
    both: Pair, weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Of everything and of each channel; NaN where it is not defined."""
    none = np.full(len(both.truth), np.nan)
    if both.usual is None:
        return float("nan"), none
    sums = []
    for p, t, u in zip(both.prediction, both.truth, both.usual, strict=True):
        usual = u.astype(np.float64)
        w = np.where(np.isfinite(usual), weights, 0)
        first, second = (np.where(w > 0, x - usual, 0) for x in (p, t))
        sums.append([(w * x).sum() for x in (first * second, first**2, second**2)])
    products, one, other = np.array(sums).T
    each = products / np.sqrt(one * other)
    if both.vector:
        return float(products.sum() / np.sqrt(one.sum() * other.sum())), each
    defined = each[np.isfinite(each)]
    return float(defined.mean()) if len(defined) else float("nan"), each
