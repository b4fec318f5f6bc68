"""The figure of a search: the scores of its trials, against their order and what was varied."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from map2map.plots import COLORS, STYLE
from map2map.spaces import Choice, Range, Space, Trial, label, short_label, short_names

__all__ = ["draw_search"]


def draw_search(
    trials: Sequence[Trial], space: Space, by: str, *, maximize: bool = False
) -> Figure:
    """A search: the scores of its trials one after another, and against each value varied.

    Trials that a pruner ended are hollow, at the best that they had reached; those that failed are
    crosses at the edge, on the side of bad scores.

    Args:
        trials: The trials.
        space: What was varied.
        by: Name of the scores.
        maximize: Whether more of it is better.
    """
    columns = 2 if len(space) == 4 else min(3, len(space))
    rows = -(-len(space) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 2.7 * columns), 2.8 + 2.3 * rows))
        grid = figure.add_gridspec(rows + 1, columns)
        top = figure.add_subplot(grid[0, :])
        edge = 0.04 if maximize else 0.96
        _dots(top, trials, [t.number for t in trials], edge)
        _best_so_far(top, trials, maximize)
        scores = [t.score for t in trials if t.score is not None]
        if scores and min(scores) > 0:
            top.set_yscale("log")
            _plain_ticks(top.yaxis, min(scores), max(scores))
        top.set_xlabel("trial")
        top.set_ylabel(by)
        top.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=4)
        short = short_names(list(space))
        for i, (key, what) in enumerate(space.items()):
            axis = figure.add_subplot(grid[1 + i // columns, i % columns], sharey=top)
            had = [t for t in trials if key in t.values]
            _values_along(axis, what)
            _dots(axis, had, [_place(what, t.values[key]) for t in had], edge)
            axis.set_xlabel(short[key])
            if i % columns:
                axis.tick_params(labelleft=False, which="both")
            else:
                axis.set_ylabel(by)
    return figure


def _dots(axis: Axes, trials: Sequence[Trial], where: Sequence[float], edge: float) -> None:
    """A mark for each trial, by its state."""
    looks: dict[str, dict[str, Any]] = {
        "completed": {"marker": "o", "color": COLORS[2]},
        "pruned": {"marker": "o", "facecolors": "none", "edgecolors": "0.6"},
        "failed": {"marker": "x", "color": COLORS[4], "transform": axis.get_xaxis_transform()},
    }
    for state, look in looks.items():
        marks = [
            (x, edge if state == "failed" else t.score)
            for t, x in zip(trials, where, strict=True)
            if t.state == state and (state == "failed" or t.score is not None)
        ]
        if marks:
            x, y = zip(*marks, strict=True)
            axis.scatter(x, y, s=18, lw=1, label=state, zorder=2, **look)


def _best_so_far(axis: Axes, trials: Sequence[Trial], maximize: bool) -> None:
    done = [(t.number, t.score) for t in trials if t.state == "completed" and t.score is not None]
    if not done:
        return
    numbers, scores = zip(*done, strict=True)
    best = (np.maximum if maximize else np.minimum).accumulate(scores)
    x, y = [*numbers, trials[-1].number], [*best, best[-1]]
    axis.plot(x, y, color=COLORS[1], drawstyle="steps-post", label="best so far", zorder=1)


def _values_along(axis: Axes, what: Range | Choice) -> None:
    """Scale, limits and ticks of what was varied."""
    if isinstance(what, Choice):
        names = [short_label(value) for value in what.values]
        if len(set(names)) < len(names):
            names = [label(value) for value in what.values]
        names = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
        tilt = 30 if sum(map(len, names)) > 18 else 0
        axis.set_xticks(range(len(names)), names, rotation=tilt, ha="right" if tilt else "center")
        axis.set_xlim(-0.5, len(names) - 0.5)
        return
    if not what.log:
        pad = 0.05 * (what.high - what.low)
        axis.set_xlim(what.low - pad, what.high + pad)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=what.whole))
        return
    pad = (what.high / what.low) ** 0.05
    axis.set_xscale("log")
    axis.set_xlim(what.low / pad, what.high * pad)
    _plain_ticks(axis.xaxis, what.low, what.high, whole=what.whole)


def _plain_ticks(axis: Axis, low: float, high: float, *, whole: bool = False) -> None:
    """Ticks of a logarithmic axis within two decades, where the powers of ten are too few."""
    if high / low >= 100:
        return
    axis.set_ticks(_round_ticks(low, high, whole=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
    axis.set_minor_locator(NullLocator())


def _round_ticks(low: float, high: float, *, whole: bool) -> list[float]:
    """Round numbers from low to high: in equal steps where these are near, else by digits."""
    if high / low < 4:
        steps = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
        found = [float(f"{step:.10g}") for step in steps]
    else:
        digits = (1, 2, 5) if high / low < 10 else (1, 3)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        if whole:
            found = [tick for tick in found if tick.is_integer()]
    edge = 1e-9 * high
    inside = sorted({tick for tick in found if low - edge <= tick <= high + edge})
    # of one score there is only one tick
    return inside or [float(f"{low:.3g}")]


def _place(what: Range | Choice, value: Any) -> float:
    return what.values.index(value) if isinstance(what, Choice) else float(value)
