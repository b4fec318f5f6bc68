"""How large errors are where the truth has a given value."""

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
    noted,
)
from map2map.inks import Inks, dash, from_zero, plain_decades, text, tint
from map2map.streams import BinMoments

__all__ = ["Dispersion"]

FINE = 4096
"""Bins that are counted; groups of them are drawn."""


class Dispersion(RunFigure):
    """Mean and deviation of the absolute error in bins of the truth, over its own range.

    Args:
        bins: About how many are drawn; not more.
    """

    def __init__(self, bins: int = 24) -> None:
        at_least(1, bins=bins)
        self.bins = bins
        self.methods: tuple[str, ...] = ()
        self.moments: dict[str, BinMoments] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        self.methods = case.methods
        low, high = case.range_of(case.truth)
        for method in case.predictions:
            moments = self.moments.setdefault(method, BinMoments(1, max(FINE, 8 * self.bins)))
            moments.cover(low, high)
            for prediction, truth in case.parts(method):
                for p, t in zip(prediction, truth, strict=True):
                    moments.add(t, [np.abs(p - t.astype(np.float64))])

    def curves(
        self, method: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Edges of the bins [u]; number of values, mean and deviation of |error| [u] in each."""
        edges, count, mean, deviation = self.moments[method].groups(self.bins)
        return edges, count, mean[0], deviation[0]

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """Lines and bands; below them, how many values there are."""
        figure = Figure(figsize=(6.0, 4.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
        for method in reversed(self.moments):
            number = self.methods.index(method)
            edges, count, mean, deviation = self.curves(method)
            color, centers = tint(inks, number), (edges[1:] + edges[:-1]) / 2
            some = count > 0
            band = (np.maximum(mean - deviation, 0), mean + deviation)
            top.fill_between(
                centers[some], band[0][some], band[1][some], color=color, alpha=0.18, lw=0
            )
            top.plot(centers[some], mean[some], color=color, ls=dash(number), marker=".", lw=1.6)
        bottom.stairs(np.where(some, count, np.nan), edges, color=inks.ink, lw=1.2)
        bottom.set_xlim(edges[0], edges[-1])
        bottom.set_yscale("log")
        plain_decades(bottom.yaxis)
        from_zero(top, "y", [self.curves(method)[2] for method in self.moments])
        units = bracket(field.units)
        top.set_ylabel(text(f"|error|{units}"))
        bottom.set_ylabel("values")
        bottom.set_xlabel(text(f"true {field.name}{units}"))
        noted(figure, "Lines: mean in each bin; bands: one standard deviation to either side.")
        name_methods(
            figure,
            heading(field, "absolute error where the truth has a value"),
            inks,
            self.methods,
            [*self.moments],
            truth=False,
        )
        return {"": figure}
