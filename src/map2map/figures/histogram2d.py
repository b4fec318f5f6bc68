"""Which values are predicted where the truth has a given one."""

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.fields import Field
from map2map.figures.base import (
    Case,
    RunFigure,
    at_least,
    bracket,
    heading,
    noted,
    titled,
)
from map2map.inks import SEQUENTIAL, Inks, plain_decades, shorten, text
from map2map.streams import Bins, gathered, grouped

__all__ = ["Histogram2d"]

MOST_COLUMNS = 3


class Histogram2d(RunFigure):
    """Numbers of pairs of true and predicted values at the same cell, on axes that hold them all.

    Args:
        bins: About how many are drawn along each axis; not more.
    """

    def __init__(self, bins: int = 100) -> None:
        at_least(1, bins=bins)
        self.bins = bins
        self.ruler = Bins(4 * bins)
        self.found: dict[str, NDArray[np.int64]] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        places = self.ruler.cover(*case.range_of(case.truth, *case.predictions.values()))
        size = self.ruler.count
        for method in case.predictions:
            old = self.found.get(method, np.zeros((len(places),) * 2, np.int64))
            wide = gathered(gathered(old, places, size, 0), places, size, 1)
            self.found[method] = np.array(wide)
        for method, found in self.found.items():
            for prediction, truth in case.parts(method) if method in case.predictions else ():
                for p, t in zip(prediction, truth, strict=True):
                    index = self.ruler.numbers(t) * size + self.ruler.numbers(p)
                    found += np.bincount(index, minlength=size**2).reshape(size, size)

    def counts(self, method: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges of the bins of both axes [u], and numbers of shape (truth, prediction)."""
        starts, edges = self.ruler.groups(self.bins)
        return edges, np.asarray(grouped(grouped(self.found[method], starts, 0), starts, 1))

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """A panel per method, with the line of a perfect one."""
        shown = [*self.found]
        columns = min(len(shown), MOST_COLUMNS)
        rows = -(-len(shown) // columns)
        figure = Figure(figsize=(1.2 + 3.0 * columns, 0.9 + 2.9 * rows), layout="compressed")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        counted = {method: self.counts(method) for method in shown}
        most = max(int(count.max()) for _, count in counted.values())
        norm = LogNorm(1, max(most, 2))
        units = bracket(field.units)
        for axis, (method, (edges, count)) in zip(axes.ravel(), counted.items(), strict=False):
            seen = np.where(count > 0, count, np.nan)
            image = axis.pcolormesh(edges, edges, seen.T, norm=norm, cmap=SEQUENTIAL,
                rasterized=True)  # fmt: skip
            ends = edges[[0, -1]]
            axis.plot(ends, ends, color=inks.ink, lw=0.9, ls=(0, (4, 3)))
            axis.set_xlim(*ends)
            axis.set_ylim(*ends)
            axis.set_aspect("equal")
            axis.set_title(text(shorten(method)))
            axis.xaxis.get_major_locator().set_params(nbins=5)
        for axis in axes.ravel()[len(shown) :]:
            axis.set_axis_off()
        for axis in axes[-1]:
            axis.set_xlabel(text(f"truth{units}"))
        for axis in axes[:, 0]:
            axis.set_ylabel(text(f"prediction{units}"))
        bar = figure.colorbar(image, ax=axes, label="values per bin", shrink=0.8)
        bar.outline.set_visible(False)
        plain_decades(bar.ax.yaxis)
        titled(figure, heading(field, "truth and prediction at the same cell"))
        noted(figure, "The dashed line is a perfect prediction.")
        return {"": figure}
