"""Pictures of labels and parameters: those of `label_plots`, and learning from the card."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from map2map import label_plots
from map2map.inks import Inks, shorten, text
from map2map.plots import draw_epochs
from map2map.report.curves import first_to_last
from map2map.report.drawing import Picture
from map2map.report.filling import by_epoch
from map2map.report.run_scores import LINE, RunScores, percent, rate
from map2map.report.wording import count, listed, number

__all__ = ["decisions", "measures", "parameters"]

PANELS = 6
"""Most measures that are drawn."""


def decisions(scores: RunScores) -> dict[str, Picture]:
    """What is said of labels: right or wrong, at any threshold, how certain, and of which runs."""
    mine = scores.of("emulator")
    classes = listed(scores.classes)
    single = scores.pers[0]
    rates = "; ".join(f"{percent(rate(scores, 'emulator', per).mean)} per {per}"
                      for per in scores.pers)  # fmt: skip
    areas = ", ".join(
        f"{float(value):.3f} per {per}"
        for per, value in zip(mine.per.values, mine.auc.mean("class").values, strict=True)
    )
    subject = f"for {scores.classes[1]}" if len(scores.classes) == 2 else "for each class"
    found = {
        "confusion": Picture(
            "confusion",
            f"The emulator: how many {single}s, and how many runs, of each class (row) are "
            f"predicted to be which (column), and their share of the row.",
            f"Tables of {classes} against the same. Right: {rates}.",
            _plot(label_plots.confusion, mine),
        ),
        "roc": Picture(
            "roc",
            f"ROC curve {subject}: true against false positive rate of every threshold. Chance is "
            f"the dotted line.",
            f"Curves from lower left to upper right. Area below them: {areas}.",
            _plot(label_plots.roc, mine),
        ),
        "reliability": Picture(
            "reliability",
            f"Reliability {subject}: how often it is so, against the probability that is stated. "
            f"Reliable is the dotted line. Below, how many are given that probability.",
            f"Curves in a square, bars below. Calibration errors per {single} and per run stand in "
            f"the table of scores.",
            _plot(label_plots.reliability, mine),
        ),
        "logits": Picture(
            "logits",
            "Mean logit of every run, by its truth; the dotted line parts right from wrong, bars "
            "are medians. Dots are spread sideways to be seen.",
            f"{count(int(scores.right('emulator').sum()), 'dot')} right and "
            f"{int((~scores.right('emulator')).sum())} wrong, beside a dotted line at 0.",
            _plot(label_plots.group_logits, mine),
        ),
    }
    if "mean_line" in scores.methods:
        said = "; ".join(f"{percent(rate(scores, 'mean_line', p).mean)} per {p}"
                         for p in scores.pers)  # fmt: skip
        found["confusion_line"] = Picture(
            "confusion-mean-line",
            f"The {LINE}, which knows only the mean of the input: the same table.",
            f"Tables of {classes} against the same. Right: {said}.",
            _plot(label_plots.confusion, scores.of("mean_line")),
        )
    return found


def parameters(scores: RunScores) -> dict[str, Picture]:
    """Predicted against true parameters, of the emulator and of the mean line."""
    units = [scores.units(name) for name in scores.targets]
    found = {}
    for method, who in (("emulator", "The emulator"), ("mean_line", f"The {LINE}")):
        if method not in scores.methods:
            continue
        mine = scores.of(method)
        told = ", ".join(
            f"{name}: RMSE {number(float(mine.rmse.sel(parameter=name, per='group')))}"
            for name in scores.targets
        )
        found[method] = Picture(
            f"parameters-{method.replace('_', '-')}",
            f"{who}: predicted against true value of every run; equal on the line.",
            f"Dots beside a rising line, a panel for each parameter. {told}.",
            _plot(partial(label_plots.parameters, units=units), mine),
            wide=len(units) > 1,
        )
    return found


def _plot(draw: Callable[[xr.Dataset], Figure], data: xr.Dataset) -> Callable[[Inks], Figure]:
    """A figure in the inks, which are matplotlib's settings meanwhile."""
    return lambda _: draw(data)


def measures(card: Mapping[str, Any], name: str) -> Picture | None:
    """Accuracy and other measures after each epoch, if the card holds them."""
    held = card.get("scores")
    every = held.get("measures") if isinstance(held, Mapping) else None
    families: dict[str, dict[str, list[float]]] = {}
    for key, values in every.items() if isinstance(every, Mapping) else ():
        measure, _, split = str(key).rpartition("/")
        numbers = by_epoch(values)
        if numbers is not None:
            families.setdefault(measure, {})[split] = numbers
    # of two classes, recall is TPR
    families = {k: v for k, v in families.items() if k != "TPR" or "recall" not in families}
    shown = dict(list(families.items())[:PANELS])
    if not shown:
        return None
    said = "; ".join(
        f"{measure}, {split}: {first_to_last(values)}"
        for measure, parts in shown.items()
        for split, values in parts.items()
    )
    return Picture(
        name,
        f"{listed(list(shown))} after each epoch; training dashed, validation solid.",
        f"Lines, from the first epoch to the last. {said}.",
        partial(_draw_measures, shown),
        wide=len(shown) > 2,
    )


def _draw_measures(shown: Mapping[str, Mapping[str, list[float]]], inks: Inks) -> Figure:
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(
        figsize=(2.7 * across if across > 1 else 4.6, (2.0 if across > 1 else 3) * down)
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis, (measure, parts) in zip(axes, shown.items(), strict=False):
        for split, values in parts.items():
            how: dict[str, Any] = (
                {"ls": "--", "lw": 1.2} if split == "train" else {"ls": "-", "lw": 1.8}
            )
            draw_epochs(axis, values, color=inks.ink, **how)
        axis.set_title(text(shorten(measure)))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if measure.rpartition("_")[2] not in ("rmse", "mae", "bias"):
            low, high = axis.get_ylim()
            axis.set_ylim(max(low, -0.04), min(high, 1.04))
    for axis in axes[max(0, len(shown) - across) : len(shown)]:
        axis.set_xlabel("epoch")
    return figure
