"""Some columns as they are: truth and prediction per level."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from matplotlib.figure import Figure

from map2map.fields import Field
from map2map.figures.base import (
    Case,
    Levels,
    RunFigure,
    at_least,
    bracket,
    heading,
    name_methods,
)
from map2map.inks import Inks, dash, ending, shorten, text, tint
from map2map.typing import Array, Shape

__all__ = ["Samples"]


@dataclass(frozen=True)
class Column:
    """A cell of a run.

    Args:
        run: Name of the run.
        cell: Which.
        truth: Values [u], shape (channel,).
        predictions: Values of the same shape, by method.
    """

    run: str
    cell: Shape
    truth: Array
    predictions: Mapping[str, Array]


class Samples(RunFigure):
    """Random columns, each cell of any run as likely as another: truth and prediction per level.

    Fields of one channel and vectors have none.

    Args:
        columns: How many.
        seed: Of the random numbers; the same for all fields, whose columns are then the same.
        features: How many profiles the channels of the field are.
        level_first: Whether its channels are (level, feature), flattened, not (feature, level).
        downwards: Whether levels count downwards, as where the pressure rises from one to the
            next, so that the first is at the top.
    """

    def __init__(
        self,
        columns: int = 4,
        seed: int = 0,
        features: int = 1,
        level_first: bool = False,
        downwards: bool = True,
    ) -> None:
        at_least(1, columns=columns)
        at_least(0, seed=seed)
        self.columns, self.seed = columns, seed
        self.levels = Levels(features, level_first, downwards)
        self.methods: tuple[str, ...] = ()
        self.drawn: list[tuple[float, Column]] = []

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        if not case.has_levels:
            return
        self.methods = case.methods
        self.levels.split(case.truth)
        key = int.from_bytes(blake2b(case.run.encode(), digest_size=8).digest())
        rng = np.random.default_rng([self.seed, key])
        cells = np.flatnonzero(case.counts)
        n = min(self.columns, len(cells))
        # every cell has an exponential number, and the cells of the smallest are drawn; of n cells
        # the smallest numbers can be had without the others (Rényi 1953)
        numbers = np.cumsum(rng.exponential(size=n) / (len(cells) - np.arange(n)))
        for number, flat in zip(numbers, rng.choice(cells, n, replace=False), strict=True):
            cell = tuple(int(i) for i in np.unravel_index(flat, case.space))
            made = {name: column_at(x, cell) for name, x in case.predictions.items()}
            column = Column(case.run, cell, column_at(case.truth, cell), made)
            self.drawn.append((float(number), column))
        self.drawn = sorted(self.drawn, key=lambda each: each[0])[: self.columns]

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """A figure per feature: a panel per column."""
        if not self.drawn:
            return {}
        return {
            suffix: self._draw(feature, field, inks)
            for feature, suffix in enumerate(self.levels.suffixes())
        }

    def _draw(self, feature: int, field: Field, inks: Inks) -> Figure:
        most = 4
        columns = min(most, len(self.drawn))
        rows = -(-len(self.drawn) // most)
        figure = Figure(figsize=(2.2 * columns + 0.6, 3.6 * rows + 0.8), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axis, (_, column) in zip(axes.ravel(), self.drawn, strict=False):
            truth = self.levels.split(column.truth)[feature]
            level = np.arange(len(truth))
            axis.plot(truth, level, color=inks.ink, lw=2.2)
            for method in reversed([*column.predictions]):
                number = self.methods.index(method)
                values = self.levels.split(column.predictions[method])[feature]
                axis.plot(values, level, color=tint(inks, number), ls=dash(number), lw=1.4)
            where = ", ".join(map(str, column.cell))
            axis.set_title(text(f"{ending(column.run)}\ncell {where}"), fontsize=8)
            axis.xaxis.get_major_locator().set_params(nbins=4)
            axis.set_xlabel(text(f"{shorten(field.name)}{bracket(field.units)}"))
        for axis in axes.ravel()[len(self.drawn) :]:
            axis.set_axis_off()
        self.levels.show(axes[0, 0], len(level))
        for axis in axes[:, 0]:
            axis.set_ylabel("level, from 0")
        what = f"profile {feature}, " if self.levels.features > 1 else ""
        name_methods(
            figure,
            heading(field, f"{what}random columns"),
            inks,
            self.methods,
            [*self.drawn[0][1].predictions],
            truth=True,
        )
        return figure


def column_at(values: Array, cell: Shape) -> Array:
    """What is at a cell, shape (channel,), in a copy."""
    for index in reversed(cell):
        values = values[..., index]
    return values.copy()
