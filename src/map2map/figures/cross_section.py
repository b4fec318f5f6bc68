"""A plane of truth and prediction, and how they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.errors import GeometryError
from map2map.fields import Field
from map2map.figures.base import (
    Case,
    RunFigure,
    at_least,
    bracket,
    heading,
    name_methods,
    noted,
    titled,
)
from map2map.inks import DIVERGING, MASKED, Inks, dash, shorten, text, tint
from map2map.plots import color_limits
from map2map.typing import Array

__all__ = ["CrossSection"]

MOST_CELLS = 512
"""Of a row of cells that are levels, so many are drawn."""


@dataclass(frozen=True)
class Plane:
    """What is drawn of a field of one run.

    Args:
        run: Name of the run.
        where: What the plane is, in words; empty if it is the whole field.
        axes: Names of the vertical and the horizontal axis; of a line, of the latter only.
        sizes: Their cell sizes.
        truth: Values [u], shape (vertical, horizontal) or (horizontal,).
        predictions: Values of the same shape, by method.
        methods: All methods, in the order of their colors.
        downwards: Whether the vertical axis counts downwards, as that of levels.
    """

    run: str
    where: str
    axes: tuple[str, ...]
    sizes: tuple[float, ...]
    truth: Array
    predictions: Mapping[str, Array]
    methods: tuple[str, ...]
    downwards: bool = False


class CrossSection(RunFigure):
    """A plane of the first runs: truth and predictions on one color scale, and their differences.

    Fields on three axes are cut; those on two are drawn whole, and those on one as lines, or as
    level against cell if their channels are levels.

    Args:
        axis: Which axis of space the plane is across, from 0.
        index: Which cell of that axis; from the end if negative; default: the middle one.
        runs: How many runs.
        channels: How many channels, from the first on.
    """

    def __init__(
        self, axis: int = 0, index: int | None = None, runs: int = 1, channels: int = 3
    ) -> None:
        at_least(0, axis=axis)
        at_least(1, runs=runs, channels=channels)
        self.axis, self.index, self.runs, self.channels = axis, index, runs, channels
        self.seen = 0
        self.planes: dict[str, Plane] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run."""
        if self.seen >= self.runs:
            return
        shown = {"truth": case.truth, **case.predictions}
        curtain = len(case.space) == 1 and case.has_levels
        channels = 1 if curtain else min(self.channels, len(case.truth))
        for channel in range(channels):
            cut = {}
            for name, values in shown.items():
                chosen = values[:, :MOST_CELLS] if curtain else self.cut(values[channel])
                counts = case.counts[:MOST_CELLS] if curtain else self.cut(case.counts)
                cut[name] = np.where(counts, chosen, np.nan)
            parts = [str(self.seen)] if self.runs > 1 else []
            parts += [str(channel)] if channels > 1 else []
            truth = cut.pop("truth")
            where, axes, sizes = self.place(case, curtain)
            which = f"channel {channel}" if channels > 1 else ""
            what = ", ".join(each for each in (which, where) if each)
            self.planes["-".join(parts)] = Plane(
                case.run, what, axes, sizes, truth, cut, case.methods, curtain
            )
        self.seen += 1

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """The plane of a channel, shape (*space).

        Raises:
            GeometryError: If there is no such axis or cell.
        """
        if values.ndim < 3:
            return values
        if self.axis >= values.ndim:
            raise GeometryError(
                f"a plane across axis {self.axis} was asked for, but the field has the axes 0 to "
                f"{values.ndim - 1}"
            )
        cells = values.shape[self.axis]
        index = cells // 2 if self.index is None else self.index
        if not -cells <= index < cells:
            raise GeometryError(
                f"the plane {index} across axis {self.axis} was asked for, but there are {cells} "
                f"cells; give an index from 0 to {cells - 1}"
            )
        return np.asarray(values.take(index, self.axis))

    def place(self, case: Case, curtain: bool) -> tuple[str, tuple[str, ...], tuple[float, ...]]:
        """What the plane is, its axes, and their cell sizes."""
        ndim = len(case.space)
        if curtain:
            some = case.space[0] > MOST_CELLS
            where = f"the first {MOST_CELLS} of {case.space[0]} cells" if some else ""
            return where, ("level, from 0", "cell"), (1.0, 1.0)
        where, left = "", list(range(ndim))
        if ndim > 2:
            cells = case.space[self.axis]
            index = (cells // 2 if self.index is None else self.index) % cells
            where = f"cell {index} of {cells} along axis {self.axis}"
            left.remove(self.axis)
        sizes = case.sizes or (1.0,) * ndim
        kind = "cells" if case.sizes is None else "length"
        return where, tuple(f"axis {i} [{kind}]" for i in left), tuple(sizes[i] for i in left)

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """A figure per run and channel."""
        return {
            suffix: _draw_line(plane, field, inks)
            if plane.truth.ndim == 1
            else _draw_plane(plane, field)
            for suffix, plane in self.planes.items()
        }


def _draw_plane(plane: Plane, field: Field) -> Figure:
    """Truth and predictions above the differences; beside each other if there is one method."""
    names = [*plane.predictions]
    vertical, horizontal = (
        n * size for n, size in zip(plane.truth.shape, plane.sizes, strict=True)
    )
    tall = float(np.clip(vertical / horizontal, 0.25, 2.5)) if not plane.downwards else 0.7
    alone = len(names) == 1
    rows, columns = (1, 3) if alone else (2, 1 + len(names))
    figure = Figure(
        figsize=(2.5 * columns + 1.2, rows * (2.5 * tall + 0.4) + 1.3), layout="compressed"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    values = [plane.truth, *plane.predictions.values()]
    errors = [each - plane.truth for each in plane.predictions.values()]
    above = [*grid[0, : 1 + len(names)]]
    below = [*(grid[0, 2:] if alone else grid[1, 1:])]
    if not alone:
        grid[1, 0].set_axis_off()
    low, high, colors = color_limits(values)
    smallest, largest, _ = color_limits(errors)
    limit = max(abs(smallest), abs(largest)) or 1.0
    units = bracket(field.units)
    _images(figure, above, plane, values, (Normalize(low, high), colors, f"{field.name}{units}"))
    _images(
        figure, below, plane, errors, (Normalize(-limit, limit), DIVERGING, f"difference{units}")
    )
    for axis, name in zip(above, ["truth", *names], strict=True):
        axis.set_title(text(shorten(name)))
    for axis, name in zip(below, names, strict=True):
        axis.set_title(text(f"{shorten(name)} - truth"))
    above[0].set_ylabel(plane.axes[0])
    for axis in (*above, *below):
        axis.tick_params(labelsize=7, labelleft=axis is above[0])
        axis.xaxis.get_major_locator().set_params(nbins=4)
        if alone or axis in below or axis is above[0]:
            axis.set_xlabel(plane.axes[1])
    titled(figure, heading(field, _heading(plane)))
    noted(
        figure,
        "Colors cover 99 % of the values; those of differences have their zero in the middle.",
    )
    return figure


def _images(
    figure: Figure,
    axes: Sequence[Axes],
    plane: Plane,
    images: Sequence[NDArray[np.floating]],
    look: tuple[Normalize, str, str],
) -> None:
    """Images on one color scale, with its bar."""
    norm, colors, label = look
    cmap = mpl.colormaps[colors].with_extremes(bad=MASKED)
    height, width = (n * size for n, size in zip(plane.truth.shape, plane.sizes, strict=True))
    origin = "upper" if plane.downwards else "lower"
    extent = (0, width, height, 0) if plane.downwards else (0, width, 0, height)
    for axis, image in zip(axes, images, strict=True):
        axis.imshow(
            image,
            origin=origin,  # type: ignore[arg-type]
            extent=extent,
            norm=norm,
            cmap=cmap,
            aspect="auto" if plane.downwards else "equal",
            interpolation="none",
        )
    bar = figure.colorbar(
        ScalarMappable(norm, cmap), ax=[*axes], label=text(label), location="bottom", extend="both",
        shrink=0.9, aspect=16 * len(axes), pad=0.02,
    )  # fmt: skip
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_linewidth(0.5)


def _draw_line(plane: Plane, field: Field, inks: Inks) -> Figure:
    """Truth and predictions above the differences."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    x = (np.arange(len(plane.truth)) + 0.5) * plane.sizes[0]
    top.plot(x, plane.truth, color=inks.ink, lw=2.2)
    bottom.axhline(0, color=inks.faint, lw=0.8)
    for name in reversed([*plane.predictions]):
        number = plane.methods.index(name)
        how = {"color": tint(inks, number), "ls": dash(number), "lw": 1.4}
        top.plot(x, plane.predictions[name], **how)
        bottom.plot(x, plane.predictions[name] - plane.truth, **how)
    top.set_ylabel(text(f"{field.name}{bracket(field.units)}"))
    bottom.set_ylabel(text(f"difference{bracket(field.units)}"))
    bottom.set_xlabel(plane.axes[-1])
    name_methods(
        figure,
        heading(field, _heading(plane)),
        inks,
        plane.methods,
        [*plane.predictions],
        truth=True,
    )
    return figure


def _heading(plane: Plane) -> str:
    run = f"run {shorten(plane.run, 40)}"
    return f"{plane.where}, {run}" if plane.where else run
