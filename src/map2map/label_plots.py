"""Figures of labels and parameters, from their scores; and of saliency. Nothing needs a display.

Letters and lines that stand for the truth have matplotlib's color of text and others those of its
cycle, whatever they are, so that the figures fit light pages and dark ones.
"""

from collections.abc import Sequence
from textwrap import fill
from typing import Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.plots import STYLE, color_limits
from map2map.typing import Array

__all__ = ["confusion", "group_logits", "parameters", "reliability", "roc", "saliency"]

PER = {"image": ("per image", "-", "o"), "group": ("per run", "--", "s")}
"""How scores of images and of groups, which are runs, are named, their line and their marker."""

GOLDEN = (5**0.5 - 1) / 2
FAINT = "0.6"


def confusion(scores: xr.Dataset) -> Figure:
    """How many of each true class (row) are predicted to be which (column), and their share.

    Args:
        scores: From `map2map.metrics.labels.label_scores`.
    """
    names = [fill(plain(name), 12) for name in scores["class"].values]
    with mpl.rc_context(STYLE):
        side = 0.85 * max(2, len(names)) + 0.9
        figure = Figure(figsize=(2 * side + 0.7, side + 0.5))
        axes = figure.subplots(1, 2)
        for axis, (per, (title, *_)) in zip(axes, PER.items(), strict=True):
            table = scores.confusion.sel(per=per).transpose("truth", "predicted").values
            with np.errstate(invalid="ignore"):
                share = table / table.sum(axis=1, keepdims=True)
            image = axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
            for (row, column), number in np.ndenumerate(table):
                part = share[row, column]
                told = "none" if np.isnan(part) else f"{100 * part:.1f} %"
                # the cells have colors of their own, on light pages and on dark ones
                color = "white" if part > 0.55 else "#1a1a1a"
                if np.isnan(part):
                    color = mpl.rcParams["text.color"]
                axis.text(column, row, f"{number}\n{told}", ha="center", va="center", color=color)
            ticks = range(len(names))
            axis.set_xticks(ticks, names)
            axis.set_yticks(ticks, names, rotation=90, va="center", ma="center")
            axis.tick_params(length=0)
            axis.set_xlabel("predicted")
            axis.set_title(f"{title}: {share_of(scores.accuracy.sel(per=per))} right")
        axes[0].set_ylabel("truth")
        figure.colorbar(image, ax=axes, label="share of the truth", shrink=0.8, pad=0.02)
    return figure


def roc(scores: xr.Dataset) -> Figure:
    """True against false positive rate of every threshold, with the area under the curve.

    Of two classes, for the second; of more, for each against the others.

    Args:
        scores: From `map2map.metrics.labels.label_scores`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=figure_size(scores, 3.6))
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=":", label="chance")
        for number, name in enumerate(shown(scores)):
            for per, (title, line, _) in PER.items():
                part = scores.sel({"class": name, "per": per})
                what = title if len(shown(scores)) == 1 else f"{plain(name)}, {title}"
                area = float(part.auc)
                label = f"{what}: AUC {'undefined' if np.isnan(area) else format(area, '.3f')}"
                axis.plot(part.roc_fpr, part.roc_tpr, line, color=color_of(number), label=label)
        axis.set_aspect("equal")
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("false positive rate")
        axis.set_ylabel("true positive rate")
        if len(shown(scores)) == 1:
            axis.set_title(f"{plain(shown(scores)[0])} is positive")
        name_curves(figure, axis, "lower right")
    return figure


def reliability(scores: xr.Dataset) -> Figure:
    """How often what is given a probability is so, and how many are given it.

    Of two classes, for the second; of more, for each against the others.

    Args:
        scores: From `map2map.metrics.labels.label_scores`.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=figure_size(scores, 4.6))
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        top.plot([0, 1], [0, 1], color=FAINT, lw=0.8, ls=":", label="reliable")
        edges = np.linspace(0, 1, scores.sizes["bin"] + 1)
        for number, name in enumerate(shown(scores)):
            for per, (title, line, marker) in PER.items():
                part = scores.sel({"class": name, "per": per})
                some = part.reliability_count.values > 0
                what = title if len(shown(scores)) == 1 else f"{plain(name)}, {title}"
                top.plot(
                    part.reliability_predicted.values[some],
                    part.reliability_observed.values[some],
                    f"{marker}{line}",
                    ms=4,
                    color=color_of(number),
                    label=f"{what}: error {float(part.calibration_error):.3f}",
                )
                bottom.stairs(part.reliability_count.values, edges, ls=line, color=color_of(number))
        top.set_ylim(-0.03, 1.03)
        top.set_xlim(-0.03, 1.03)
        subject = plain(shown(scores)[0]) if len(shown(scores)) == 1 else "the class"
        top.set_ylabel(f"share that is {subject}")
        name_curves(figure, top, None)
        bottom.set_yscale("symlog", linthresh=1)
        bottom.set_ylim(0, 3 * max(1, int(scores.reliability_count.max())))
        bottom.set_ylabel("number")
        bottom.set_xlabel(f"predicted probability of {subject}")
    return figure


def group_logits(scores: xr.Dataset) -> Figure:
    """What each group's mean logits say, by its truth; a dotted line parts right from wrong.

    Of two classes, the mean logit of the second; of more, that of the truth less the largest other.

    Args:
        scores: From `map2map.metrics.labels.label_scores`.
    """
    names = scores["class"].values
    truth, odds = scores.group_truth.values, scores.group_log_odds.values
    two = len(names) == 2
    y = odds[:, 1] if two else lead(odds, truth)
    right = scores.group_predicted.values == truth
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 1.1 * len(names), 3.6))
        axis = figure.subplots()
        # spread evenly, without chance, so that the same scores make the same figure
        x = truth + 0.56 * ((np.arange(len(truth)) * GOLDEN) % 1 - 0.5)
        for chosen, color, marker, label in (
            (right, "C0", "o", "right"),
            (~right, "C1", "X", "wrong"),
        ):
            axis.plot(
                x[chosen],
                y[chosen],
                marker,
                ms=4.5,
                mew=0,
                alpha=0.8,
                color=color,
                label=f"{label}: {chosen.sum()}",
            )
        for number in range(len(names)):
            mine = y[truth == number]
            if mine.size:
                axis.hlines(
                    np.median(mine),
                    number - 0.36,
                    number + 0.36,
                    mpl.rcParams["text.color"],
                    lw=1.2,
                )
        axis.axhline(0, color=FAINT, lw=0.8, ls=":")
        ticks = [f"{plain(name)}\n{(truth == i).sum()} runs" for i, name in enumerate(names)]
        axis.set_xticks(range(len(names)), ticks)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_xlabel("truth")
        axis.set_ylabel(
            f"mean logit of {plain(names[1])}" if two else "mean logit of the truth - largest other"
        )
        figure.legend(loc="outside upper center", ncols=2, handletextpad=0.1)
    return figure


def lead(odds: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logit of the true class less the largest other, shape (group,), from log odds."""
    log_p = -np.logaddexp(0, -odds)
    true = np.arange(odds.shape[1]) == truth[:, None]
    difference: NDArray[np.float64] = log_p[true] - np.where(true, -np.inf, log_p).max(axis=1)
    return difference


def saliency(
    image: Array,
    values: Array,
    *,
    percentiles: Sequence[float] = (95, 99),
    units: str = "",
    title: str = "input",
    of: str = "logit",
) -> Figure:
    """An input, what the answer hangs on, and the cells that it hangs on most.

    Args:
        image: Input [u], shape (y, x).
        values: Gradient or other saliency, signed or not, shape (y, x).
        percentiles: Of the absolute values; cells below are left out, the input shown instead.
        units: Name of the units u.
        title: Of the input.
        of: What the saliency is of.
    """
    image, values = np.asarray(image, float), np.asarray(values, float)
    panels = 2 + len(percentiles)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * panels + 1.6, 3.0), layout="compressed")
        axes = figure.subplots(1, panels)
        low, high, cmap = color_limits([image])
        shown = axes[0].imshow(image, origin="lower", vmin=low, vmax=high, cmap=cmap)
        label = f"[{units}]" if units not in ("", "1") else None
        figure.colorbar(shown, ax=axes[0], label=label, shrink=0.75, location="left", pad=0.02)
        axes[0].set_title(plain(title))
        size = np.abs(values)
        limit = float(np.nanpercentile(size, 99.5)) if np.isfinite(size).any() else 1.0
        limit = limit or 1.0
        signed = bool((values < 0).any())
        style = {
            "origin": "lower",
            "vmin": -limit if signed else 0,
            "vmax": limit,
            "cmap": "RdBu_r" if signed else "Reds",
        }
        drawn = axes[1].imshow(values, **style)
        axes[1].set_title(f"saliency of the {plain(of)}")
        for axis, percentile in zip(axes[2:], percentiles, strict=True):
            backdrop(axis, image)
            axis.imshow(most(values, percentile), **style)
            axis.set_title(f"strongest {100 - percentile:g} % of cells")
        for axis in axes:
            axis.tick_params(labelsize=7)
        for axis in axes[1:]:
            axis.tick_params(labelleft=False)
        figure.colorbar(drawn, ax=list(axes[1:]), shrink=0.75, pad=0.01)
    return figure


def backdrop(axis: Axes, image: Array) -> None:
    """The input in pale gray."""
    low, high, _ = color_limits([image])
    # the upper half of the grays, in front of which colors stand out
    axis.imshow(image, origin="lower", vmin=low - (high - low), vmax=high, cmap="gray")


def most(values: Array, percentile: float) -> Array:
    """Values whose size is at or above a percentile and not zero; the others are NaN."""
    size = np.abs(values)
    if not np.isfinite(size).any():
        return values
    return np.where((size >= np.nanpercentile(size, percentile)) & (size > 0), values, np.nan)


def parameters(scores: xr.Dataset, units: Sequence[str] = ()) -> Figure:
    """Predicted against true values of groups, a panel per parameter, with the line of equality.

    Bars are the predicted standard deviations, or else the spread of a group's samples.

    Args:
        scores: From `map2map.metrics.parameters.parameter_scores`.
        units: Names of the parameters' units.
    """
    names = [plain(name) for name in scores.parameter.values]
    predicted = "group_std" in scores
    bars = scores.group_std if predicted else scores.group_spread
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * columns + 0.2, 2.9 * rows + 0.3))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        for number, (axis, name) in enumerate(zip(axes, names, strict=False)):
            part = scores.isel(parameter=number)
            truth, output = part.group_truth.values, part.group_output.values
            axis.axline((truth.mean(),) * 2, slope=1, color=mpl.rcParams["text.color"], lw=0.8)
            axis.errorbar(
                truth,
                output,
                bars.isel(parameter=number).values,
                fmt="o",
                ms=3,
                lw=0.7,
                alpha=0.8,
                color="C0",
            )
            unit = f" [{units[number]}]" if units and units[number] not in ("", "1") else ""
            axis.set_xlabel(f"true {name}{unit}")
            axis.set_ylabel(f"predicted {name}{unit}")
            r2, rmse = (float(part[score].sel(per="group")) for score in ("r2", "rmse"))
            told = "undefined" if np.isnan(r2) else f"{r2:.3f}"
            axis.set_title(f"$R^2$ {told}, rmse {rmse:.3g}")
        what = "predicted deviation" if predicted else "spread of samples"
        figure.supxlabel(f"a dot per run, bars: {what}", fontsize=8)
    return figure


def shown(scores: xr.Dataset) -> list[str]:
    """Classes that have a curve: the second of two, whose other is its mirror image, or all."""
    names = [str(name) for name in scores["class"].values]
    return names[1:] if len(names) == 2 else names


def color_of(number: int) -> str:
    """The color of a class."""
    return f"C{number % 10}"


def figure_size(scores: xr.Dataset, height: float) -> tuple[float, float]:
    """Size of a figure of curves [inch], with room for the names of many below."""
    number = len(shown(scores))
    return 3.6, height + (0 if number == 1 else 0.32 * number + 0.3)


def name_curves(figure: Figure, axis: Axes, place: Literal["lower right"] | None) -> None:
    """A legend: if it is short, within the axes where curves leave room, or above; else below."""
    if len(axis.lines) <= 3 and place is not None:
        axis.legend(loc=place)
    elif len(axis.lines) <= 3:
        figure.legend(loc="outside upper left")
    else:
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles[1:], labels[1:], loc="outside lower center")


def share_of(value: xr.DataArray) -> str:
    """A share as a percentage."""
    return f"{100 * float(value):.1f} %"


def plain(name: object) -> str:
    """Words of the user's as they stand: in matplotlib, $ begins mathematics."""
    return str(name).replace("$", r"\$")
