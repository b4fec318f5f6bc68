"""How often which values occur, in the truth and as predicted."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.fields import Field
from map2map.figures.base import (
    Case,
    RunFigure,
    at_least,
    bracket,
    heading,
    name_methods,
)
from map2map.inks import Inks, dash, text, tint
from map2map.streams import Bins, gathered, grouped

__all__ = ["Histogram"]

FINE = 4096
"""Bins that are counted; groups of them are drawn."""


class Histogram(RunFigure):
    """Numbers of values of the truth and of predictions, on a logarithmic axis.

    Args:
        bins: About how many are drawn; not more.
    """

    def __init__(self, bins: int = 60) -> None:
        at_least(1, bins=bins)
        self.bins = bins
        self.methods: tuple[str, ...] = ()
        self.ruler = Bins(max(FINE, 8 * bins))
        self.found: dict[str | None, NDArray[np.int64]] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        self.methods = case.methods
        places = self.ruler.cover(*case.range_of(case.truth, *case.predictions.values()))
        size = self.ruler.count
        names = (None, *case.predictions)
        old = {name: self.found.get(name, np.zeros(len(places), np.int64)) for name in names}
        self.found |= {n: np.asarray(gathered(v, places, size, 0)) for n, v in old.items()}
        for number, method in enumerate(case.predictions):
            for prediction, truth in case.parts(method):
                self._count(method, prediction, size)
                if number == 0:
                    self._count(None, truth, size)

    def _count(self, name: str | None, values: NDArray[np.floating], size: int) -> None:
        for channel in values:
            self.found[name] += np.bincount(self.ruler.numbers(channel), minlength=size)

    def counts(self, method: str | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges of the bins [u], and how many values of a method (None: the truth) are in each."""
        starts, edges = self.ruler.groups(self.bins)
        return edges, np.asarray(grouped(self.found[method], starts))

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """Steps."""
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        axis = figure.subplots()
        shown = [name for name in self.found if name is not None]
        edges, truth = self.counts(None)
        axis.stairs(truth, edges, color=inks.ink, lw=2.2, baseline=None)
        for method in reversed(shown):
            number = self.methods.index(method)
            _, count = self.counts(method)
            axis.stairs(
                count, edges, color=tint(inks, number), ls=dash(number), lw=1.4, baseline=None
            )
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.7)
        axis.set_xlim(edges[0], edges[-1])
        axis.set_xlabel(text(f"{field.name}{bracket(field.units)}"))
        axis.set_ylabel("values per bin")
        name_methods(
            figure, heading(field, "distribution of values"), inks, self.methods, shown, truth=True
        )
        return {"": figure}
