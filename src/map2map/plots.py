"""Figures: slices and spectra of fields, in physical units. Nothing here needs a display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.physics.spectra import cross_correlation, power_spectrum
from map2map.typing import Array

__all__ = ["Panel", "columns", "draw_epochs", "history", "slices", "spectra"]

Panel = tuple[str, Array]
"""A title and values of shape (channel, *space)."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
COLORS = ("black", "tab:orange", "tab:blue", "tab:green", "tab:red")


@dataclass(frozen=True)
class Look:
    """How slices are labelled and colored."""

    units: str
    spacing: float | None
    length: str
    symmetric: bool = False


def middle_slice(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The middle plane of a field (*space) on 3 axes; fewer axes are left as they are."""
    while values.ndim > 2:
        values = values[values.shape[0] // 2]
    return values


def middle(values: Array, space: Sequence[int]) -> Array:
    """The middle ``space`` cells of a field (channel, *space), if it has more on every axis."""
    excess = [n - m for n, m in zip(values.shape[1:], space, strict=True)]
    if min(excess) < 0:
        return values
    return values[
        (slice(None), *(slice(e // 2, e // 2 + n) for e, n in zip(excess, space, strict=True)))
    ]


def color_limits(images: Sequence[NDArray[np.floating]]) -> tuple[float, float, str]:
    """Limits that cover 99 % of the values, and a color map: diverging if both signs occur."""
    values = np.concatenate([image[np.isfinite(image)].ravel() for image in images])
    if values.size == 0:
        return 0.0, 1.0, "viridis"
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    if low < 0 < high and min(-low, high) > 0.1 * max(-low, high):
        limit = max(-low, high)
        return -limit, limit, "RdBu_r"
    return low, high, "viridis"


def slices(
    panels: Sequence[Panel],
    differences: Sequence[Panel] = (),
    *,
    units: str = "",
    spacing: float | None = None,
    length: str = "",
    channels: int = 3,
) -> Figure:
    """Middle slices side by side: a row per channel, a column per panel.

    Args:
        panels: Fields drawn on one color scale per row; those larger than the last (inputs with a
            halo) are cut to their middle, and those of fewer channels left blank.
        differences: Fields drawn on one color scale of their own, symmetric about zero.
        units: Units of the colors.
        spacing: Cell size, in units of length that the axes then show; else they count cells.
        length: Name of the units of length.
        channels: Most channels to draw.
    """
    space = panels[-1][1].shape[1:]
    panels = [(title, middle(values, space)) for title, values in panels]
    rows = min(channels, max(len(values) for _, values in (*panels, *differences)))
    columns = len(panels) + len(differences)
    with mpl.rc_context(STYLE):
        size = (2.3 * columns + 1.2, 2.3 * rows + 0.6)
        figure = Figure(figsize=size, layout="compressed")
        axes = figure.subplots(rows, columns, squeeze=False)
        look = Look(units, spacing, length)
        for row in range(rows):
            start = 0
            for group, symmetric in ((panels, False), (differences, True)):
                here = axes[row, start : start + len(group)]
                start += len(group)
                drawn = [
                    (a, t, v[row]) for a, (t, v) in zip(here, group, strict=True) if row < len(v)
                ]
                for axis in here[len(drawn) :]:
                    axis.set_axis_off()
                if drawn:
                    _draw_row(figure, drawn, row, replace(look, symmetric=symmetric))
    return figure


def _draw_row(
    figure: Figure, drawn: Sequence[tuple[Axes, str, Array]], row: int, look: Look
) -> None:
    planes = [middle_slice(np.asarray(values, dtype=float)) for _, _, values in drawn]
    cell = look.spacing or 1
    if planes[0].ndim == 1:
        for (axis, title, _), plane in zip(drawn, planes, strict=True):
            axis.plot(np.arange(len(plane)) * cell, plane, lw=1)
            axis.set_title(title)
        return
    low, high, cmap = color_limits(planes)
    if look.symmetric:
        low, high, cmap = -max(abs(low), abs(high)), max(abs(low), abs(high)), "RdBu_r"
    for number, ((axis, title, _), plane) in enumerate(zip(drawn, planes, strict=True)):
        extent = (0, plane.shape[1] * cell, 0, plane.shape[0] * cell)
        image = axis.imshow(plane, origin="lower", vmin=low, vmax=high, cmap=cmap, extent=extent)
        if row == 0:
            axis.set_title(title)
        axis.tick_params(labelsize=7, labelleft=number == 0)
        if look.length:
            axis.set_xlabel(f"[{look.length}]")
    label = f"[{look.units}]" if look.units not in ("", "1") else None
    figure.colorbar(image, ax=[axis for axis, _, _ in drawn], label=label, shrink=0.9, pad=0.01)


def columns(panels: Sequence[Panel], units: str = "") -> Figure:
    """Single cells: their channels, against one another.

    Args:
        panels: What is drawn, each (channel, *space) with one cell; the first stands out.
        units: Of the values.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.2))
        axis = figure.subplots()
        for color, (title, values) in zip(COLORS, panels, strict=False):
            flat = np.ravel(values)
            axis.plot(flat, np.arange(len(flat)), color=color, label=title, lw=1)
        axis.invert_yaxis()
        axis.set_xlabel(f"[{units}]" if units not in ("", "1") else "value")
        axis.set_ylabel("channel")
        axis.legend()
    return figure


def spectra(
    truth: Panel,
    others: Sequence[Panel],
    spacing: float | Sequence[float],
    *,
    quantity: str = "power",
    length: str = "",
) -> Figure:
    """Power spectra, their ratio to the truth's (transfer function) and cross-correlations.

    Args:
        truth: What is compared with; shape (channel, *space), power is summed over channels.
        others: What is compared.
        spacing: Cell size [L].
        quantity: What the spectrum is of.
        length: Name of the units of length L.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 5.4))
        top, ratio, correlation = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1, 1]}
        )
        title, values = truth
        ndim = values.ndim - 1
        k, reference = power_spectrum(values, spacing, ndim)
        dimension = k**ndim / (2 * np.pi if ndim < 3 else 2 * np.pi**2)
        top.plot(k, dimension * reference, color=COLORS[0], label=title)
        styles = (("-", "--", ":", "-.")[i % 4] for i in range(len(others)))
        for color, style, (name, other) in zip(COLORS[1:], styles, others, strict=False):
            _, power = power_spectrum(other, spacing, ndim)
            top.plot(k, dimension * power, style, color=color, label=name)
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio.plot(k, np.sqrt(power / reference), style, color=color)
                correlation.plot(
                    k, cross_correlation(other, values, spacing, ndim)[1], style, color=color
                )
        top.set_xscale("log")
        if np.any(reference > 0):
            top.set_yscale("log")
        _limits(ratio, correlation)
        top.set_ylabel(rf"{quantity} per $\ln k$")
        ratio.set_ylabel(r"$\sqrt{P / P_\mathrm{truth}}$")
        correlation.set_ylabel("$r(k)$")
        correlation.set_xlabel(f"$k$ [rad / {length}]" if length else "$k$ [rad / cell]")
        top.legend()
    return figure


def _limits(*axes: Axes) -> None:
    """Show all that lies within [0, 1.5], and no more than there is."""
    for axis in axes:
        axis.axhline(1, color="0.7", lw=0.8, zorder=0)
        values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
        values = values[np.isfinite(values) & (np.abs(values) < 1.5)]
        low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
        pad = 0.05 * max(high - low, 0.02)
        axis.set_ylim(low - pad, high + pad)


def draw_epochs(axis: Axes, values: Sequence[float | None] | Array, **how: Any) -> None:
    """Draw a number per epoch, from 1 on: the epochs that have one are joined.

    Where some have none, such as those that were not validated, and where there are few, each that
    has is marked.

    Args:
        axis: Where.
        values: One per epoch; NaN or None for one without.
        **how: The look of the line.
    """
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    there = np.isfinite(numbers)
    marked = there.sum() < len(numbers) or len(numbers) < 3
    how = {"marker": "o" if marked else None, "markersize": 3, **how}
    axis.plot(1 + np.flatnonzero(there), numbers[there], **how)


def history(losses: Mapping[str, Sequence[float | None]]) -> Figure:
    """Learning curves: a loss per epoch and split."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.8))
        axis = figure.subplots()
        for color, (name, values) in zip(COLORS[1:], losses.items(), strict=False):
            draw_epochs(axis, values, color=color, label=name)
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss")
        axis.set_yscale("log")
        axis.legend()
    return figure
