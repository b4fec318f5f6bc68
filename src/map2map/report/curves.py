"""Curves: spectra and errors against scale, runs one by one, learning."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from map2map.inks import (
    MARKERS,
    Inks,
    dash,
    legend,
    plain_decades,
    positive,
    shorten,
    text,
    tint,
)
from map2map.plots import draw_epochs
from map2map.report.drawing import Picture
from map2map.report.scores import HEADLINE, Scores, column_means, quantiles
from map2map.report.wording import count, number

__all__ = ["bispectrum", "error_by_scale", "first_to_last", "learning", "runs", "spectra"]

NAMED_RUNS = 16
"""Most runs that are named below an axis."""


def order(scores: Scores) -> list[tuple[int, str]]:
    """Methods with their numbers, in the order of drawing: the emulator last, on top."""
    numbered = list(enumerate(scores.methods))
    return [*numbered[:0:-1], numbered[0]]


def bands(scores: Scores) -> str:
    """What bands and lines are, for a caption."""
    if len(scores.runs) == 1:
        return "There is one run, so no spread is shown."
    return (
        f"Lines are means over {len(scores.runs)} runs; bands are 95 % bootstrap intervals of "
        f"these means."
    )


def _curve(
    axis: Axes,
    k: NDArray[np.float64],
    parts: Sequence[NDArray[np.floating[Any]]],
    **how: Any,
) -> None:
    """A line with a band about it."""
    mean, low, high = parts
    axis.fill_between(k, low, high, color=how["color"], alpha=0.22, lw=0)
    axis.plot(k, mean, **how)


def _how(inks: Inks, method: int) -> dict[str, Any]:
    return {
        "color": tint(inks, method),
        "ls": dash(method),
        "lw": 2.0 if method == 0 else 1.5,
        "zorder": 3 if method == 0 else 2,
    }


def spectra(scores: Scores, field: str, name: str) -> Picture | None:
    """Power, transfer function and correlation with the truth, if they were scored."""
    if not all(scores.known(each, field=field) for each in ("transfer", "correlation")):
        return None
    ends = ", ".join(
        f"{method}: transfer {_range(scores, 'transfer', method, field)}, correlation "
        f"{_range(scores, 'correlation', method, field)}"
        for method in scores.methods
    )
    several = len(scores.runs) > 1
    caption = (
        f"Spectra of {field} against the wavenumber k [{scores.wavenumber_units()}]. "
        f"Top: {scores.label('power')}"
        + _bracket(scores.units_of("power", field))
        + (
            ", mean over runs; the grey band holds the middle 68 % of the runs' true spectra"
            if several
            else ""
        )
        + f". Middle: {scores.label('transfer')}; 1 is perfect. Bottom: "
        f"{scores.label('correlation')}; 1 is perfect. {bands(scores)}"
    )
    alt = (
        f"Three panels of lines against wavenumber. From the largest scale to the smallest, {ends}."
    )
    return Picture(name, caption, alt, partial(_draw_spectra, scores, field))


def _bracket(units: str) -> str:
    return f" [{units}]" if units else ""


def _range(scores: Scores, name: str, method: str, field: str) -> str:
    mean = scores.curve(name, method, field)[0]
    mean = mean[np.isfinite(mean)]
    return f"{number(mean[0])} to {number(mean[-1])}" if mean.size else "unknown"


def _draw_spectra(scores: Scores, field: str, inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 6.4), layout="constrained")
    top, transfer, correlation = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [1.7, 1, 1]}
    )
    k = np.asarray(scores.data["k"].values, np.float64)
    numbers: list[int | None] = []
    for axis in (transfer, correlation):
        axis.axhline(1, color=inks.faint, lw=0.8, zorder=0)
    if scores.known("power_truth", field=field):
        truth = scores.values("power_truth", field=field)
        if len(truth) > 1:
            low, high = quantiles(truth, (0.16, 0.84))
            top.fill_between(k, positive(low), positive(high), color=inks.ink, alpha=0.18, lw=0)
        top.plot(k, positive(column_means(truth)), color=inks.ink, lw=2.4)
        numbers.append(None)
    for method, label in order(scores):
        how = _how(inks, method)
        if scores.known("power", method=label, field=field):
            power = column_means(scores.values("power", method=label, field=field))
            top.plot(k, positive(power), **how)
        _curve(transfer, k, scores.curve("transfer", label, field), **how)
        _curve(correlation, k, scores.curve("correlation", label, field), **how)
    numbers += list(range(len(scores.methods)))
    names = [*(["truth"] if None in numbers else []), *scores.methods]
    legend(figure, names, inks, numbers)
    if any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in top.lines):
        top.set_yscale("log")
    top.set_xscale("log")
    for axis, label in ((transfer, "transfer"), (correlation, "correlation r")):
        axis.set_ylabel(label)
    _fit(transfer, 0.0, 2.0)
    _fit(correlation, -1.0, 1.02)
    units = scores.units_of("power", field) if "power" in scores.data else ""
    top.set_ylabel(text(f"power{_bracket(shorten(units))}"))
    correlation.set_xlabel(text(f"k [{scores.wavenumber_units()}]"))
    plain_decades(correlation.xaxis)
    return figure


def _fit(axis: Axes, low: float, high: float) -> None:
    """Show what lies between two values, all of the last line, and no more than there is."""
    curves = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    emulator = curves[-1][np.isfinite(curves[-1])]
    if emulator.size:
        low, high = min(low, float(emulator.min())), max(high, float(emulator.max()))
    values = np.concatenate(curves)
    values = np.clip(values[np.isfinite(values)], low, high)
    pad = 0.06 * max(float(np.ptp(values)), 0.01)
    axis.set_ylim(float(values.min()) - pad, float(values.max()) + pad)


def error_by_scale(scores: Scores, field: str, name: str) -> Picture | None:
    """The part of the truth's power that is not explained, against scale, if it was scored."""
    if not scores.known("error_power", field=field):
        return None
    caption = (
        f"Error of {field} against scale: {scores.label('error_power')}; 0 is perfect. "
        f"k [{scores.wavenumber_units()}]. {bands(scores)}"
    )
    ends = ", ".join(f"{m}: {_range(scores, 'error_power', m, field)}" for m in scores.methods)
    alt = f"Lines on logarithmic axes. From the largest scale to the smallest, {ends}."
    return Picture(name, caption, alt, partial(_draw_error, scores, field))


def _draw_error(scores: Scores, field: str, inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axis = figure.subplots()
    k = np.asarray(scores.data["k"].values, np.float64)
    for method, label in order(scores):
        mean, low, high = scores.curve("error_power", label, field)
        parts = (positive(mean), np.maximum(low, 1e-12), positive(high))
        _curve(axis, k, parts, **_how(inks, method))
    axis.set_xscale("log")
    lines = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    drawn = np.concatenate([line[np.isfinite(line)] for line in lines])
    if drawn.size:
        axis.set_yscale("log")
        axis.set_ylim(drawn.min() / 1.6, drawn.max() * 1.6)
    axis.set_ylabel("$1 - r^2$")
    axis.set_xlabel(text(f"k [{scores.wavenumber_units()}]"))
    plain_decades(axis.xaxis)
    legend(figure, scores.methods, inks, range(len(scores.methods)))
    return figure


def bispectrum(scores: Scores, field: str, name: str) -> Picture | None:
    """Bispectra and their ratio to the truth's, if they were scored."""
    if not all(scores.known(each, field=field) for each in ("bispectrum", "bispectrum_truth")):
        return None
    units, several = scores.units_of("bispectrum", field), len(scores.runs) > 1
    caption = (
        f"Bispectrum of {field}. Top: the {scores.label('bispectrum')}{_bracket(units)}, mean over "
        f"{count(len(scores.runs), 'run')}"
        + ("; the grey band holds the middle 68 % of the runs' true ones" if several else "")
        + ". Bottom: mean over mean of the truth; 1 is perfect"
        + ("; left out where the truth's is within two standard errors of 0" if several else "")
        + f". k [{scores.wavenumber_units('kb')}]."
    )
    if not significant(scores.values("bispectrum_truth", field=field)).any():
        caption = caption.replace(". Top: ", ": ", 1).partition(". Bottom: ")[0] + (
            f". The truth's mean is within two standard errors of 0 at every k "
            f"[{scores.wavenumber_units('kb')}], so ratios to it would mean nothing."
        )
    alt = "Lines of the truth and of each method against wavenumber, and below their ratio."
    return Picture(name, caption, alt, partial(_draw_bispectrum, scores, field))


def _draw_bispectrum(scores: Scores, field: str, inks: Inks) -> Figure:
    every = scores.values("bispectrum_truth", field=field)
    truth = column_means(every)
    certain = np.where(significant(every), truth, np.nan)
    # without a ratio that means something, there is no panel for it
    panels = 2 if np.isfinite(certain).any() else 1
    figure = Figure(figsize=(4.6, 1.4 + 1.5 * panels), layout="constrained")
    top, ratio = figure.subplots(
        panels, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [1.5, 1][:panels]}
    )[[0, -1], 0]
    k = np.asarray(scores.data["kb"].values, np.float64)
    if len(every) > 1:
        low, high = quantiles(every, (0.16, 0.84))
        top.fill_between(k, low, high, color=inks.ink, alpha=0.18, lw=0)
    top.plot(k, truth, color=inks.ink, lw=2.4)
    for method, label in order(scores):
        mean = column_means(scores.values("bispectrum", method=label, field=field))
        top.plot(k, mean, **_how(inks, method))
        if panels == 2:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio.plot(k, mean / certain, **_how(inks, method))
    top.set_xscale("log")
    if np.all(truth[np.isfinite(truth)] > 0):
        top.set_yscale("log")
    else:
        largest = float(np.nanmax(np.abs(truth)))
        top.set_yscale("symlog", linthresh=1e-2 * largest or 1.0)
        top.axhline(0, color=inks.faint, lw=0.8, zorder=0)
    if panels == 2:
        _fit(ratio, -1.0, 3.0)
        ratio.axhline(1, color=inks.faint, lw=0.8, zorder=0)
        ratio.set_ylabel("ratio to truth")
    top.set_ylabel(text(f"bispectrum{_bracket(shorten(scores.units_of('bispectrum', field)))}"))
    ratio.set_xlabel(text(f"k [{scores.wavenumber_units('kb')}]"))
    plain_decades(ratio.xaxis)
    numbers: list[int | None] = [None, *range(len(scores.methods))]
    legend(figure, ["truth", *scores.methods], inks, numbers)
    return figure


def significant(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a mean over runs, the first axis, is more than two standard errors from 0.

    Of a single run nobody knows the error, which here is 0 then.
    """
    mean = column_means(values)
    error = np.sqrt(column_means((values - mean) ** 2) / max(len(values) - 1, 1))
    found: NDArray[np.bool_] = np.abs(mean) > 2 * error
    return found


def runs(scores: Scores, field: str, name: str) -> Picture | None:
    """The error of every run, in the order of the emulator's, if there are several."""
    if len(scores.runs) < 2:
        return None
    own = scores.values(HEADLINE, method="emulator", field=field)
    label = scores.called(HEADLINE)
    caption = (
        f"{label[:1].upper()}{label[1:]} of {field} for each of {len(scores.runs)} runs, "
        f"in the order of the emulator's; 0 is perfect."
    )
    alt = f"Points. The emulator's errors lie between {number(float(np.nanmin(own)))} and " + (
        f"{number(float(np.nanmax(own)))}."
    )
    return Picture(name, caption, alt, partial(_draw_runs, scores, field))


def _draw_runs(scores: Scores, field: str, inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axis = figure.subplots()
    rank = np.argsort(scores.values(HEADLINE, method="emulator", field=field))
    place = np.arange(1, len(rank) + 1)
    size = 5.0 if len(rank) <= 40 else 3.0
    for method, label in order(scores):
        values = scores.values(HEADLINE, method=label, field=field)[rank]
        marker = MARKERS[method % len(MARKERS)]
        how: dict[str, Any] = {
            "color": tint(inks, method),
            "ls": "none",
            "marker": marker,
            "ms": size,
        }
        axis.plot(place, positive(values), **how)
    axis.set_yscale("log")
    plain_decades(axis.yaxis)
    axis.set_ylabel(text(shorten(scores.called(HEADLINE), 36)))
    if len(rank) <= NAMED_RUNS:
        names = [text(shorten(scores.runs[i], 18)) for i in rank]
        axis.set_xticks(place, names, rotation=90 if max(map(len, names)) > 4 else 0)
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("run, from the emulator's best to its worst")
    axis.set_xlim(0.4, len(rank) + 0.6)
    numbers = range(len(scores.methods))
    box = legend(figure, scores.methods, inks, numbers)
    for method, handle in zip(numbers, box.get_lines(), strict=True):
        handle.set(linestyle="none", marker=MARKERS[method % len(MARKERS)], markersize=5)
    return figure


def learning(losses: Mapping[str, Sequence[float]], loss: str, name: str) -> Picture | None:
    """The loss after each epoch, if the card holds it."""
    if not losses:
        return None
    shown = {split: np.asarray(values, np.float64) for split, values in losses.items()}
    said = ", ".join(f"{split}: {first_to_last(v)}" for split, v in shown.items())
    low = "; the ring is the lowest value of validation" if "val" in shown else ""
    caption = f"Learning curve: {loss or 'loss'} of normalized fields after each epoch{low}."
    return Picture(
        name, caption, f"Lines, from the first epoch to the last, {said}.", partial(_learn, shown)
    )


def first_to_last(values: Sequence[float] | NDArray[np.float64]) -> str:
    """The first and the last number of a curve, for those who do not see it."""
    there = [float(value) for value in values if np.isfinite(value)]
    return f"{number(there[0])} to {number(there[-1])}"


def _learn(losses: Mapping[str, NDArray[np.float64]], inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 3.0))
    axis = figure.subplots()
    # not a method's colors: what is told apart here are splits
    for place, (split, values) in enumerate(losses.items()):
        color = inks.ink if split in ("train", "val") else tint(inks, place)
        how: dict[str, Any] = (
            {"ls": "--", "lw": 1.2} if split == "train" else {"ls": "-", "lw": 1.8}
        )
        draw_epochs(axis, values, color=color, **how)
    if "val" in losses and np.isfinite(losses["val"]).any():
        best = int(np.nanargmin(losses["val"]))
        axis.plot(best + 1, losses["val"][best], "o", mfc="none", mec=inks.ink, ms=9)
    box = axis.legend(
        [line for line in axis.lines if line.get_linestyle() != "None"][: len(losses)],
        ["x"] * len(losses),
    )
    for label, split in zip(box.get_texts(), losses, strict=True):
        label.set_text(text(shorten({"train": "training", "val": "validation"}.get(split, split))))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss")
    if any((values > 0).any() for values in losses.values()):
        axis.set_yscale("log")
        plain_decades(axis.yaxis)
    return figure
