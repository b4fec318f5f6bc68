"""Scores level by level, of fields whose channels are levels."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.fields import Field
from map2map.figures.base import (
    Case,
    Levels,
    RunFigure,
    bracket,
    heading,
    name_methods,
    noted,
)
from map2map.inks import Inks, dash, from_zero, shorten, text, tint
from map2map.streams import Percentiles

__all__ = ["Profiles"]

BANDS = (5.0, 25.0, 75.0, 95.0)
MOST_BANDS = 3
"""Methods whose errors have a panel with bands."""


class Profiles(RunFigure):
    """Bias with bands of the error, MAE and RMSE per level, over all cells of all runs.

    Fields of one channel and vectors have none.

    Args:
        features: How many profiles the channels of the field are.
        level_first: Whether its channels are (level, feature), flattened, not (feature, level).
        downwards: Whether levels count downwards, as where the pressure rises from one to the
            next, so that the first is at the top.
    """

    def __init__(
        self, features: int = 1, level_first: bool = False, downwards: bool = True
    ) -> None:
        self.levels = Levels(features, level_first, downwards)
        self.methods: tuple[str, ...] = ()
        self.count: dict[str, int] = {}
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.spread: dict[str, Percentiles] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        if not case.has_levels:
            return
        self.methods = case.methods
        channels = len(case.truth)
        self.levels.split(case.truth)
        for method in case.predictions:
            sums = self.sums.setdefault(method, np.zeros((3, channels)))
            spread = self.spread.setdefault(method, Percentiles(channels))
            for prediction, truth in case.parts(method):
                error = prediction - truth.astype(np.float64)
                sums += np.stack([error.sum(1), np.abs(error).sum(1), np.square(error).sum(1)])
                spread.add(error)
                self.count[method] = self.count.get(method, 0) + error.shape[1]

    def scores(
        self, method: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Bias, MAE and RMSE [u] of every channel."""
        bias, absolute, squared = self.sums[method] / self.count[method]
        return bias, absolute, np.sqrt(squared)

    def bands(self, method: str) -> NDArray[np.float64]:
        """The percentiles 5, 25, 75 and 95 of the error [u], shape (4, channel)."""
        return self.spread[method].values(BANDS)

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """A figure per feature: errors of each method, then MAE and RMSE of all."""
        if not self.sums:
            return {}
        return {
            suffix: self._draw(feature, field, inks)
            for feature, suffix in enumerate(self.levels.suffixes())
        }

    def _draw(self, feature: int, field: Field, inks: Inks) -> Figure:
        banded = [*self.sums][:MOST_BANDS]
        columns = len(banded) + 2
        figure = Figure(figsize=(2.2 * columns + 0.6, 4.6), layout="constrained")
        axes = figure.subplots(1, columns, sharey=True)
        units = bracket(field.units)
        for axis, method in zip(axes, banded, strict=False):
            number = self.methods.index(method)
            parts = (*self.bands(method), self.scores(method)[0])
            low, lower, upper, high, bias = (self.levels.split(x)[feature] for x in parts)
            level, color = np.arange(len(bias)), tint(inks, number)
            axis.axvline(0, color=inks.faint, lw=0.8)
            axis.fill_betweenx(level, low, high, color=color, alpha=0.16, lw=0)
            axis.fill_betweenx(level, lower, upper, color=color, alpha=0.28, lw=0)
            axis.plot(bias, level, color=color, ls=dash(number), lw=1.7)
            axis.set_title(text(f"error of {shorten(method, 18)}"))
            axis.set_xlabel(text(f"error{units}"))
        for axis, score, name in zip(axes[-2:], (1, 2), ("MAE", "RMSE"), strict=True):
            for method in reversed(self.sums):
                number = self.methods.index(method)
                values = self.levels.split(self.scores(method)[score])[feature]
                axis.plot(
                    values,
                    np.arange(len(values)),
                    color=tint(inks, number),
                    ls=dash(number),
                    lw=1.5,
                )
            from_zero(axis, "x", [self.scores(method)[score] for method in self.sums])
            axis.set_title(name)
            axis.set_xlabel(text(f"{name}{units}"))
        for axis in axes:
            if axis.get_xscale() == "linear":
                axis.xaxis.get_major_locator().set_params(nbins=4)
        self.levels.show(axes[0], len(level))
        axes[0].set_ylabel("level, from 0")
        what = f"profile {feature}, " if self.levels.features > 1 else ""
        noted(
            figure,
            "Errors: lines are means (bias), bands hold 50 % and 90 % of the errors in all cells.",
        )
        name_methods(
            figure,
            heading(field, f"{what}errors per level"),
            inks,
            self.methods,
            [*self.sums],
            truth=False,
        )
        return figure
