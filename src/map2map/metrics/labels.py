"""What an emulator of labels is worth: per image, and per group of images of one cube or run."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError
from map2map.metrics.base import as_array, score
from map2map.metrics.curves import UNDEFINED, curves, reliability
from map2map.metrics.groups import Groups, counts, finite

__all__ = ["label_scores", "log_odds", "wilson"]

NORMAL_95 = 1.959963984540054
"""Half of a normal distribution's middle 95 %, in standard deviations."""


def label_scores(
    logits: Any,
    labels: Any,
    groups: Any = None,
    *,
    classes: Sequence[str],
    bins: int = 10,
) -> xr.Dataset:
    """Everything about predicted labels, ready to be written as NetCDF.

    Most scores are given twice, along ``per``: of single images, and of groups, whose logits are
    the means of those of their images. Images of one group are alike, so it is the number of groups
    that tells how sure a score is, and only their accuracy has an interval. Scores of a class
    compare it with all others. A ratio 0/0 is NaN: precision of a class that was never predicted,
    recall and ROC of one that does not occur.

    Args:
        logits: Shape (image, 1) for two classes, positive for the second; (image, class) for more.
        labels: The true classes, as whole numbers counting from 0, shape (image,). Smoothed labels
            are for training; a truth is one class.
        groups: A whole number per image, the same for those that belong together, shape (image,);
            by default each image is a group.
        classes: Names of the classes.
        bins: Bins of probability, equally wide, of the reliability curve.

    Returns:
        Scores along ``per``, ``class``, ``truth``, ``predicted``, ``threshold`` and ``bin``, and a
        table along ``group``; the attribute ``positive`` names the second of two classes.

    Raises:
        FieldError: If labels are no classes, differ within a group, or logits are not finite.
        GeometryError: If shapes do not fit.
    """
    names = list(classes)
    z = checked_logits(logits, names)
    truth = checked_labels(labels, names, len(z))
    together = Groups.of(groups, len(z))
    odds = log_odds(z), log_odds(together.mean(z))
    truths = truth, together.shared(truth[:, None], "labels")[:, 0]
    scores = [scores_of(o, t, bins) for o, t in zip(odds, truths, strict=True)]
    longest = max(part.sizes["threshold"] for part in scores)
    found = xr.concat(
        [part.pad(threshold=(0, longest - part.sizes["threshold"])) for part in scores],
        xr.Variable("per", ["image", "group"]),
        combine_attrs="override",
    )
    right = together.mean((predicted(odds[0]) == truth)[:, None])[:, 0]
    low, high = wilson(int((predicted(odds[1]) == truths[1]).sum()), len(together.names))
    of_groups = xr.Dataset(
        {
            "accuracy_low": interval_end(low, "lower", together),
            "accuracy_high": interval_end(high, "upper", together),
            "group_log_odds": score(
                odds[1],
                "1",
                "log odds of the class from the mean logits; of two classes, the mean logit of the "
                "second, and its negative",
                None,
                ("group", "class"),
            ),
            "group_probability": score(
                probability(odds[1]), "1", "probability of the class", None, ("group", "class")
            ),
            "group_predicted": flags(predicted(odds[1]), names, "predicted class"),
            "group_truth": flags(truths[1], names, "true class"),
            "group_images": counts(together.counts, "number of images", ("group",)),
            "group_right": score(
                right, "1", "share of images whose own prediction is right", 1, ("group",)
            ),
        }
    )
    edges = np.linspace(0, 1, bins + 1)
    about = {"positive": names[1]} if len(names) == 2 else {}
    return (
        found.merge(of_groups)
        .assign_attrs(about)
        .assign_coords(
            {
                "class": names,
                "truth": names,
                "predicted": names,
                "group": together.names,
                "bin": (
                    "bin",
                    (edges[:-1] + edges[1:]) / 2,
                    {"units": "1", "long_name": "middle of a bin of probability"},
                ),
            }
        )
    )


def checked_logits(logits: Any, classes: list[str]) -> NDArray[np.float64]:
    """Logits in double precision, as many as the classes need."""
    z = finite(logits, "logits")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise FieldError(f"labels need two classes or more, of different names, not {classes}")
    expected = 1 if len(classes) == 2 else len(classes)
    if z.shape[1] != expected:
        raise GeometryError(
            f"the logits have shape {z.shape}; {len(classes)} classes {classes} need "
            f"({len(z)}, {expected})"
            + ("; of two classes, give the logit of the second" if expected == 1 else "")
        )
    return z


def checked_labels(labels: Any, classes: list[str], images: int) -> NDArray[np.int64]:
    """Labels as whole numbers."""
    truth = as_array(labels)
    if truth.shape != (images,):
        raise GeometryError(
            f"the labels have shape {truth.shape}, but there are {images} images; give the class "
            f"of each"
        )
    if truth.dtype.kind not in "iub":
        raise FieldError(
            f"labels are whole numbers, the places of classes in {classes}, not {truth.dtype}; "
            f"give hard labels, even if the training softened them"
        )
    truth = truth.astype(np.int64)
    outside = (truth < 0) | (truth >= len(classes))
    if outside.any():
        raise FieldError(
            f"image {int(outside.argmax())} has label {int(truth[outside.argmax()])}, but the "
            f"classes are 0 to {len(classes) - 1}: {classes}"
        )
    return truth


def log_odds(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of p / (1 - p) of each class, shape (image, class), exact for certain ones too."""
    if logits.shape[1] == 1:
        return np.concatenate([-logits, logits], axis=1)
    others = np.empty_like(logits)
    for k in range(logits.shape[1]):
        others[:, k] = np.logaddexp.reduce(np.delete(logits, k, axis=1), axis=1)
    return logits - others


def probability(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each class, from its log odds."""
    return np.asarray(np.exp(-np.logaddexp(0, -odds)))


def predicted(odds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The most probable class, shape (image,); of equal ones of two classes, the second."""
    most = odds[:, 1] >= 0 if odds.shape[1] == 2 else odds.argmax(axis=1)
    return np.asarray(most, np.int64)


def scores_of(odds: NDArray[np.float64], truth: NDArray[np.int64], bins: int) -> xr.Dataset:
    """Scores of images or of groups."""
    number = odds.shape[1]
    confusion = np.bincount(truth * number + predicted(odds), minlength=number**2)
    confusion = confusion.reshape(number, number)
    hits, predictions, truths = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    p, is_class = probability(odds), truth[:, None] == np.arange(number)
    # twice the same for two classes, of which one is customary
    squares = ((p - is_class) ** 2).sum(axis=1) / (2 if number == 2 else 1)
    found = {
        "confusion": counts(confusion, "number of cases", ("truth", "predicted")),
        "accuracy": score(hits.sum() / len(truth), "1", "share of right predictions", 1),
        "precision": ratio(hits, predictions, "share of those predicted so that are so", 1),
        "recall": ratio(
            hits, truths, "share of those that are so that are predicted so; true positive rate", 1
        ),
        "fpr": ratio(
            predictions - hits,
            len(truth) - truths,
            "share of those that are not so that are predicted so; false positive rate",
            0,
        ),
        "f1": ratio(2 * hits, predictions + truths, "harmonic mean of precision and recall", 1),
        "cross_entropy": score(
            np.logaddexp(0, -odds)[is_class].mean(), "1", "mean of -ln p of the true class", 0
        ),
        "brier": score(
            squares.mean(),
            "1",
            "Brier score, mean squared error of the probabilities"
            + (" of one of two classes" if number == 2 else ", summed over classes"),
            0,
        ),
        **curves(odds, is_class),
        **reliability(p, is_class, bins),
    }
    return xr.Dataset(found)


def ratio(part: Any, whole: Any, long_name: str, perfect: float) -> xr.Variable:
    """A share per class."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = score(np.true_divide(part, whole), "1", long_name, perfect, ("class",))
    value.attrs["comment"] = UNDEFINED
    return value


def flags(value: NDArray[np.int64], classes: list[str], long_name: str) -> xr.Variable:
    """A class per group, as its place among the names."""
    attrs = {
        "units": "1",
        "long_name": f"{long_name}, as its place among the classes",
        "flag_values": np.arange(len(classes)),
        "flag_meanings": " ".join(name.replace(" ", "_") for name in classes),
    }
    return xr.Variable(("group",), value, attrs)


def interval_end(value: float, which: str, groups: Groups) -> xr.Variable:
    """An end of the interval of the accuracy; images have none unless each is a group."""
    values = [value if groups.alone else math.nan, value]
    return score(
        values,
        "1",
        f"{which} end of the accuracy's 95 % Wilson interval; none for images, which are not "
        f"independent within a group",
        None,
        ("per",),
    )


def wilson(right: int, cases: int, deviations: float = NORMAL_95) -> tuple[float, float]:
    """Interval of a share from independent cases (Wilson 1927), by default of 95 %.

    >>> wilson(10, 10)
    (0.7224671997275386, 1.0)
    """
    if cases == 0:
        return math.nan, math.nan
    share, z2 = right / cases, deviations**2
    center = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = math.sqrt(share * (1 - share) / cases + z2 / (4 * cases**2)) * deviations
    half /= 1 + z2 / cases
    return (
        0.0 if right == 0 else center - half,
        1.0 if right == cases else center + half,
    )
