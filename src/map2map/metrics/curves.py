"""Curves of predicted probabilities: receiver operating characteristic and reliability."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.metrics.base import score
from map2map.metrics.groups import counts
from map2map.typing import Array

__all__ = ["UNDEFINED", "curves", "reliability", "roc"]

POINTS = 1000
"""Most points of a curve that are kept; areas are of all."""

UNDEFINED = "NaN where a ratio is 0/0, as for a class that does not occur"


def curves(odds: NDArray[np.float64], is_class: NDArray[np.bool_]) -> dict[str, xr.Variable]:
    """ROC curves of all classes, of as many points as the longest needs, and their areas."""
    found = [roc(o, c) for o, c in zip(odds.T, is_class.T, strict=True)]
    longest = max(len(threshold) for threshold, *_ in found)
    table = np.full((3, len(found), longest), np.nan)
    for number, (*curve, _) in enumerate(found):
        table[:, number, : len(curve[0])] = curve
    dims = ("class", "threshold")
    area = score([area for *_, area in found], "1", "area under the ROC curve", 1, ("class",))
    area.attrs["comment"] = UNDEFINED
    return {
        "auc": area,
        "roc_fpr": score(table[1], "1", "false positive rate of the ROC curve", None, dims),
        "roc_tpr": score(table[2], "1", "true positive rate of the ROC curve", None, dims),
        "roc_threshold": score(
            table[0], "1", "log odds from which on the class is predicted", None, dims
        ),
    }


def roc(
    values: Array, positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    """Receiver operating characteristic.

    Args:
        values: The larger, the more probably positive, shape (image,).
        positive: What is, shape (image,).

    Returns:
        Thresholds from infinity downwards, false and true positive rates of values at or above
        them, in the corners of the curve and at most `POINTS` of those; and the area under the
        curve of all points. Rates are NaN if no image could have them.
    """
    order = np.argsort(values, kind="stable")[::-1]
    ordered = values[order]
    # equal values are told apart by no threshold
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    true = np.append(0, np.cumsum(positive[order])[last])
    false = np.append(0, last + 1) - true
    threshold = np.append(np.inf, ordered[last])
    with np.errstate(invalid="ignore"):
        fpr, tpr = np.true_divide(false, false[-1]), np.true_divide(true, true[-1])
    area = float((np.diff(fpr) * (tpr[1:] + tpr[:-1])).sum() / 2)
    corner = np.ones(len(true), bool)
    corner[1:-1] = (
        np.diff(true)[1:] * np.diff(false)[:-1] != np.diff(true)[:-1] * np.diff(false)[1:]
    )
    kept = np.flatnonzero(corner)
    if len(kept) > POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, POINTS).round().astype(int)]
    return threshold[kept], fpr[kept], tpr[kept], area


def reliability(
    p: NDArray[np.float64], is_class: NDArray[np.bool_], bins: int
) -> dict[str, xr.Variable]:
    """How often what is predicted with a probability is so, in bins of the probability."""
    shape = (p.shape[1], bins)
    place = np.minimum((p * bins).astype(int), bins - 1) + bins * np.arange(p.shape[1])
    number, stated, true = (
        np.bincount(place.ravel(), weights, minlength=p.shape[1] * bins).reshape(shape)
        for weights in (None, p.ravel(), is_class.ravel())
    )
    with np.errstate(invalid="ignore"):
        mean, share = stated / number, true / number
    error = np.abs(stated - true).sum(axis=1) / len(p)
    dims = ("class", "bin")
    return {
        "reliability_count": counts(number, "number of cases in a bin of probability", dims),
        "reliability_predicted": score(mean, "1", "mean probability in the bin", None, dims),
        "reliability_observed": score(share, "1", "share in the bin that is so", None, dims),
        "calibration_error": score(
            error,
            "1",
            "expected calibration error: mean distance of stated and observed share over bins, "
            "weighted by cases",
            0,
            ("class",),
        ),
    }
