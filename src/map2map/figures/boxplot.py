"""How errors spread in every run."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from map2map.fields import Field
from map2map.figures.base import (
    Case,
    RunFigure,
    at_least,
    bracket,
    heading,
    name_methods,
    noted,
)
from map2map.inks import Inks, dash, ending, from_zero, text, tint

__all__ = ["Boxplot"]

PERCENTILES = (5, 25, 50, 75, 95)
"""Lower whisker, box, median, upper whisker."""


class Boxplot(RunFigure):
    """Percentiles and mean of the absolute error in every run.

    Args:
        most: Of more runs than that there are no boxes, but bands.
    """

    def __init__(self, most: int = 24) -> None:
        at_least(1, most=most)
        self.most = most
        self.methods: tuple[str, ...] = ()
        self.runs: list[str] = []
        self.found: dict[str, dict[str, NDArray[np.float64]]] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        self.methods = case.methods
        self.runs.append(case.run)
        for method in case.predictions:
            errors = [np.abs(p - t).ravel() for p, t in case.parts(method)]
            error = np.concatenate(errors)
            mean = error.mean()
            ends = np.percentile(error, PERCENTILES, overwrite_input=True)
            self.found.setdefault(method, {})[case.run] = np.append(ends, mean)

    def boxes(self, method: str) -> NDArray[np.float64]:
        """Percentiles 5, 25, 50, 75, 95 and mean of |error| [u] of every run, shape (run, 6)."""
        unknown = np.full(len(PERCENTILES) + 1, np.nan)
        return np.stack([self.found[method].get(run, unknown) for run in self.runs])

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """Boxes side by side, or bands if there are many runs."""
        few = len(self.runs) <= self.most
        width = 1.6 + 0.28 * len(self.runs) * (1 + len(self.found)) if few else 7.0
        figure = Figure(figsize=(float(np.clip(width, 4.6, 12)), 3.8), layout="constrained")
        axis = figure.subplots()
        for place, method in enumerate(self.found):
            number = self.methods.index(method)
            values = self.boxes(method)
            if few:
                self._draw_boxes(axis, place, values, tint(inks, number))
            else:
                x, color = np.arange(len(values)), tint(inks, number)
                low, lower, median, upper, high, mean = values.T
                axis.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
                axis.fill_between(x, lower, upper, color=color, alpha=0.22, lw=0)
                axis.plot(x, median, color=color, ls=dash(number), lw=1.4)
                axis.plot(x, mean, "D", color=color, ms=2)
        if few:
            names = [text(ending(run, 20)) for run in self.runs]
            upright = max(map(len, names)) * len(names) > 90
            axis.set_xticks(range(len(names)), names, rotation=60 if upright else 0,
                ha="right" if upright else "center", rotation_mode="anchor")  # fmt: skip
            axis.tick_params(axis="x", length=0)
            axis.set_xlim(-0.6, len(names) - 0.4)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set_xlabel("run, in the order given")
        from_zero(axis, "y", [self.boxes(method) for method in self.found])
        axis.set_ylabel(text(f"|error|{bracket(field.units)}"))
        what = "Boxes: middle half; whiskers: 5 to 95 %" if few else "Bands: middle half, 5 to 95 %"
        noted(figure, f"{what}; lines: median; diamonds: mean.")
        name_methods(
            figure,
            heading(field, "absolute error in every run"),
            inks,
            self.methods,
            [*self.found],
            truth=False,
        )
        return {"": figure}

    def _draw_boxes(self, axis: Axes, place: int, values: NDArray[np.float64], color: str) -> None:
        """The boxes of one method, each at its place within the room of a run."""
        step = 0.8 / len(self.found)
        where = [i for i, one in enumerate(values) if np.isfinite(one).all()]
        keys = ("whislo", "q1", "med", "q3", "whishi", "mean")
        stats = [dict(zip(keys, values[i], strict=True)) for i in where]
        line = {"color": color, "lw": 1.1}
        axis.bxp(
            stats,
            positions=[i + (place - (len(self.found) - 1) / 2) * step for i in where],
            widths=min(0.8 * step, 0.3),
            showfliers=False,
            showmeans=True,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": f"{color}33", "edgecolor": color, "lw": 1.1},
            whiskerprops=line,
            capprops=line,
            medianprops={"color": color, "lw": 1.8},
            meanprops={"marker": "D", "mfc": color, "mec": "none", "ms": 3.5},
        )
