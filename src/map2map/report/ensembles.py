"""Ensembles: how often the truth has which rank, and whether members scatter as their mean errs."""

from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from map2map.inks import Inks, plain_decades, shorten, text, tint
from map2map.report.drawing import Picture
from map2map.report.scores import Scores, column_means
from map2map.report.wording import number

__all__ = ["ranks", "spread"]

LEAST = 1e-3
"""Share of the numbers that a bin of the spread needs to be shown."""


def ranks(scores: Scores, field: str, name: str) -> Picture | None:
    """The histogram of ranks, if there is an ensemble."""
    if not scores.known("rank_histogram", field=field):
        return None
    shares = column_means(scores.values("rank_histogram", method="emulator", field=field))
    members = len(shares) - 1
    caption = (
        f"Ranks of the truth among {members} members: the share of cells of {field} in which so "
        f"many members are below it. The line is {number(1 / (members + 1))}, for members that "
        f"scatter as the truth does; a U is of members that scatter too little, a hump of members "
        f"that scatter too much, a slope of members that are too low or too high."
    )
    ends = (float(shares[0] + shares[-1]) / 2, float(shares[members // 2]))
    alt = (
        f"Bars. At either end {number(ends[0])} on average, in the middle {number(ends[1])}, "
        f"where a flat histogram has {number(1 / (members + 1))}."
    )
    return Picture(name, caption, alt, partial(_draw_ranks, scores, field))


def _draw_ranks(scores: Scores, field: str, inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axis = figure.subplots()
    every = scores.values("rank_histogram", method="emulator", field=field)
    shares = column_means(every)
    place = np.arange(len(shares))
    axis.bar(place, shares, width=0.9, color=tint(inks, 0), alpha=0.75)
    axis.axhline(1 / len(shares), color=inks.ink, lw=1.0, ls="--")
    axis.set_ylim(0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("members below the truth")
    axis.set_ylabel("share of cells")
    return figure


def spread(scores: Scores, field: str, name: str) -> Picture | None:
    """The error of the mean where members scatter so much, if there is an ensemble."""
    if not scores.known("binned_skill", field=field):
        return None
    ratio = scores.score("spread_skill", "emulator", field).mean
    units = scores.units(field)
    caption = (
        f"Root mean squared error of the ensemble's mean of {field}, in the cells where members "
        f"scatter so much: the root of their variance times (M + 1) / M"
        + (f" [{units}]" if units else "")
        + ". On the line both are the same, as they are for members that scatter as the truth does;"
        f" above it members scatter too little. Where few members scatter more or less by chance, "
        f"points lie flatter. Over all cells the spread is {number(ratio)} times the error. Bars "
        f"at the bottom are shares of the cells."
    )
    alt = f"Points about a diagonal; over all, spread is {number(ratio)} times the error."
    return Picture(name, caption, alt, partial(_draw_spread, scores, field))


def _draw_spread(scores: Scores, field: str, inks: Inks) -> Figure:
    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axis = figure.subplots()
    x, y, share = (
        scores.values(each, field=field)
        for each in ("binned_spread", "binned_skill", "binned_share")
    )
    shown = (share >= LEAST) & (x > 0) & (y > 0)
    x, y, share = x[shown], y[shown], share[shown]
    if not x.size:
        return figure
    low, high = min(x.min(), y.min()) / 1.3, max(x.max(), y.max()) * 1.3
    axis.plot([low, high], [low, high], color=inks.ink, lw=1.0, ls="--")
    axis.plot(x, y, "-o", color=tint(inks, 0), lw=1.5, ms=4)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    below = axis.twinx()
    below.bar(x, share, width=0.3 * x, color=inks.faint, alpha=0.5, zorder=0)
    below.set_ylim(0, 5 * share.max())
    below.set_yticks([])
    for side in (axis.xaxis, axis.yaxis):
        plain_decades(side)
    units = scores.units(field)
    bracket = f" [{shorten(units)}]" if units else ""
    axis.set_xlabel(text(f"spread of members{bracket}"))
    axis.set_ylabel(text(f"error of their mean{bracket}"))
    return figure
