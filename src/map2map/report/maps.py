"""Pictures of fields: slices of truth, emulator and difference; truth against emulator."""

from functools import partial

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from map2map.inks import DIVERGING, MASKED, SEQUENTIAL, Inks, shorten, text, tint
from map2map.plots import color_limits
from map2map.report.drawing import Picture
from map2map.report.scores import HEADLINE, Scores
from map2map.report.wording import MINUS, listed, number

__all__ = ["drawn", "joint", "slices"]

MOST = 3
"""Components of a field that are all drawn."""

SHARP = 256
"""Cells per axis up to which every cell of a slice is kept."""


def slices(scores: Scores, field: str, component: int, name: str) -> Picture | None:
    """Truth, emulator and their difference, for the best, median and worst run.

    Of components but the first, only the median run is shown, which keeps the page small.
    """
    wanted = {"field": field}
    if not all(scores.known(each, **wanted) for each in ("slice_truth", "slice")):
        return None
    if component >= scores.data.sizes["component"]:
        return None
    at = {"field": field, "component": scores.data["component"].values[component]}
    truth = np.asarray(scores.data["slice_truth"].sel(at).values, np.float64)
    if not np.isfinite(truth).any():
        return None
    baseline = scores.best_baseline(field)
    made = {
        method: np.asarray(scores.data["slice"].sel({**at, "method": method}).values, np.float64)
        for method in ("emulator", *([baseline] if baseline else []))
    }
    kept, examples = _examples(scores, field, len(truth))
    if component > 0 and len(kept) == 3:
        kept, examples = kept[1:2], examples[1:2]
    truth = truth[kept]
    made = {method: values[kept] for method, values in made.items()}
    units = scores.units(field)
    part = f", component {component}" if _components(scores, field) > 1 else ""
    ranked = f" for the emulator's {listed([what for what, _ in examples])} run by its relative L2"
    ranked = "" if examples[0][0] == "the run" else f"{ranked} error"
    caption = (
        f"Middle slices of {field}{part}"
        + (f" [{units}]" if units else "")
        + ranked
        + ": truth, emulator, and what is too much (red) or too little (blue) in the emulator"
        + (f" and in the best baseline, {baseline}" if baseline else "")
        + ". Truth and emulator share one scale, all differences another, symmetric about 0, which "
        "holds 99 % of the emulator's differences; colors beyond a scale saturate."
        + _width(scores, truth.shape[-1])
        + (" Grey cells have no value." if np.isnan(truth).any() else "")
    )
    error = made["emulator"] - truth
    spread, rest = (float(np.nanstd(x)) if np.isfinite(x).any() else np.nan for x in (truth, error))
    alt = (
        f"A row of images for each of {', '.join(' '.join(e) for e in examples)}. "
        f"The shown truth has a standard deviation of {number(spread)} {units}, the emulator's "
        f"difference from it one of {number(rest)} {units}."
    )
    draw = partial(_draw_slices, truth, made, examples, units)
    return Picture(name, caption, alt, draw, wide=True)


def _width(scores: Scores, cells: int) -> str:
    size = scores.cell_size()
    if size is None:
        return f" Slices are {cells} cells wide."
    units = scores.length_units()
    each = f"of {size:g} {units}" if units not in ("", "L") else f"of side {size:g}"
    fine = ", drawn with fewer, averaged dots" if cells > SHARP else ""
    return f" Slices are {cells} cells {each} wide{fine}."


def drawn(scores: Scores, field: str) -> list[int]:
    """Which components are drawn: all of a vector; of many levels three."""
    known = "slice_truth" in scores.data and "component" in scores.data["slice_truth"].dims
    count = _components(scores, field) if known else 1
    return [*range(count)] if count <= MOST else [0, count // 2, count - 1]


def _components(scores: Scores, field: str) -> int:
    values = scores.data["slice_truth"].sel(field=field)
    present = np.isfinite(values.values).any(
        axis=tuple(axis for axis, dim in enumerate(values.dims) if dim != "component")
    )
    return int(present.sum())


def _examples(scores: Scores, field: str, rows: int) -> tuple[list[int], list[tuple[str, str]]]:
    """Which examples to draw, what they are, and their runs with their errors; no run twice."""
    whats = [str(what) for what in scores.data["example"].values]
    if "example_run" not in scores.data:
        return [*range(rows)], [(what, "") for what in whats]
    names = [str(run) for run in scores.data["example_run"].values]
    kept = [row for row in range(rows) if names[row] not in names[:row]]
    found = []
    for row in kept:
        run, label = names[row], shorten(names[row], 20)
        if run in scores.runs:
            error = scores.values(HEADLINE, method="emulator", field=field, run=run)
            label += f", error {number(float(error), digits=2)}"
        same = " and ".join(w for w, name in zip(whats, names, strict=True) if name == run)
        found.append((same if len(kept) > 1 else "the run", label))
    return kept, found


def _draw_slices(
    truth: NDArray[np.float64],
    made: dict[str, NDArray[np.float64]],
    examples: list[tuple[str, str]],
    units: str,
    inks: Inks,
) -> Figure:
    differences = [values - truth for values in made.values()]
    low, high, colors = color_limits([truth, made["emulator"]])
    _, _, limit = _symmetric(differences[0])
    titles = ["truth", "emulator", f"emulator {MINUS} truth"]
    titles += [f"{text(shorten(name, 16))} {MINUS} truth" for name in [*made][1:]]
    columns = [truth, made["emulator"], *differences]
    if truth.shape[-2] == 1:
        return _draw_lines(truth, made, examples, units, inks)
    height, width = truth.shape[-2:]
    tall = min(max(height / width, 0.4), 2.0)
    figure = Figure(
        figsize=(2.15 * len(columns) + 0.3, 2.1 * tall * len(truth) + 0.95), layout="compressed"
    )
    axes = figure.subplots(len(truth), len(columns), squeeze=False)
    for row, (what, run) in enumerate(examples):
        for column, (title, values) in enumerate(zip(titles, columns, strict=True)):
            axis = axes[row, column]
            norm = Normalize(low, high) if column < 2 else Normalize(-limit, limit)
            _image(axis, values[row], norm, colors if column < 2 else DIVERGING)
            if row == 0:
                axis.set_title(title)
        axes[row, 0].set_ylabel(f"{text(what)}\n{text(run)}", fontsize=8)
    label = text(f"[{units}]") if units else None
    for group, norm, cmap in (
        (axes[:, :2], Normalize(low, high), colors),
        (axes[:, 2:], Normalize(-limit, limit), DIVERGING),
    ):
        bar = figure.colorbar(
            ScalarMappable(norm, cmap),
            ax=list(group.ravel()),
            location="bottom",
            label=label,
            aspect=40,
            shrink=0.9,
            pad=0.015,
            extend="both",
        )
        bar.outline.set_linewidth(0.5)
    return figure


def _symmetric(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Limits about zero that cover 99 % of the values."""
    low, high, _ = color_limits([values])
    limit = max(abs(low), abs(high))
    return -limit, limit, limit


def _image(axis: Axes, values: NDArray[np.float64], norm: Normalize, cmap: str) -> None:
    sharp = max(values.shape) <= SHARP
    axis.imshow(
        values,
        origin="lower",
        norm=norm,
        cmap=mpl.colormaps[cmap].with_extremes(bad=MASKED),
        # values are averaged, not their colors, so that what is seen stands on the color bar
        interpolation="none" if sharp else "antialiased",
        interpolation_stage="data",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set(visible=True, linewidth=0.4)


def _draw_lines(
    truth: NDArray[np.float64],
    made: dict[str, NDArray[np.float64]],
    examples: list[tuple[str, str]],
    units: str,
    inks: Inks,
) -> Figure:
    """Fields on one axis: the values, and beside them the differences."""
    figure = Figure(figsize=(8.6, 1.9 * len(truth) + 0.4))
    axes = figure.subplots(len(truth), 2, squeeze=False, sharex=True)
    for row, (what, run) in enumerate(examples):
        axes[row, 0].plot(truth[row, 0], color=inks.ink, lw=2)
        for method, values in reversed([*enumerate(made.values())]):
            axes[row, 1].plot((values - truth)[row, 0], color=tint(inks, method), lw=1.4)
        axes[row, 0].plot(made["emulator"][row, 0], color=tint(inks, 0), lw=1.2)
        axes[row, 0].set_ylabel(f"{text(what)}\n{text(run)}", fontsize=8)
    suffix = text(f" [{units}]") if units else ""
    axes[0, 0].set_title(f"truth and emulator{suffix}")
    axes[0, 1].set_title(f"difference from the truth{suffix}")
    return figure


def joint(scores: Scores, field: str, name: str) -> Picture | None:
    """A histogram of truth against emulator, if it was counted."""
    if not all(scores.known(each, field=field) for each in ("joint", "joint_edges")):
        return None
    counts = scores.values("joint", field=field)
    edges = scores.values("joint_edges", field=field)
    if counts.shape != (len(edges) - 1,) * 2 or not np.nansum(counts) > 0:
        return None
    units = scores.units(field)
    total = float(np.nansum(counts))
    close = _within(counts, edges)
    caption = (
        f"Values of {field}"
        + (f" [{units}]" if units else "")
        + f" in the truth and in the emulator at the same cell: {_thousands(total)} values of all "
        "runs. The dashed line is a perfect emulator, the solid line the median of the emulator's "
        "values where the truth has a given value, and the thin lines hold the middle 68 %."
    )
    alt = (
        f"A two-dimensional histogram along the diagonal. {100 * close:.0f} % of the values lie "
        f"within one twentieth of the shown range of the truth."
    )
    return Picture(name, caption, alt, partial(_draw_joint, counts, edges, units))


def _thousands(number: float) -> str:
    return f"{round(number):,}".replace(",", "\u202f")


def _within(counts: NDArray[np.float64], edges: NDArray[np.float64]) -> float:
    centers = (edges[1:] + edges[:-1]) / 2
    near = np.abs(centers[:, None] - centers) <= (edges[-1] - edges[0]) / 20
    return float(np.nansum(counts * near) / np.nansum(counts))


def conditional(
    counts: NDArray[np.float64], edges: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Quantile of the second axis given the first, by interpolation within bins.

    Args:
        counts: Shape (bin, bin_output).
        edges: Of the bins of either axis.
        share: The quantile, between 0 and 1.

    Returns:
        One value per bin of the first axis; NaN where fewer than 20 values lie.
    """
    found = np.full(len(counts), np.nan)
    for row, line in enumerate(counts):
        if line.sum() >= 20:
            below = np.concatenate([[0.0], np.cumsum(line)]) / line.sum()
            found[row] = np.interp(share, below, edges)
    return found


def _draw_joint(
    counts: NDArray[np.float64], edges: NDArray[np.float64], units: str, inks: Inks
) -> Figure:
    figure = Figure(figsize=(4.6, 4.0))
    axis = figure.subplots()
    counts = np.nan_to_num(counts)
    seen = np.where(counts > 0, counts, np.nan)
    norm = LogNorm(1, max(float(counts.max()), 2.0))
    # an image of the cells' colors, since ten thousand outlines make a heavy page
    image = axis.pcolormesh(edges, edges, seen.T, norm=norm, cmap=SEQUENTIAL, rasterized=True)
    axis.plot(edges[[0, -1]], edges[[0, -1]], color=inks.ink, lw=1, ls=(0, (4, 3)))
    centers = (edges[1:] + edges[:-1]) / 2
    for share, width in ((0.16, 0.5), (0.84, 0.5), (0.5, 1.1)):
        # rimmed, to be seen on light and on dark cells
        rim = [withStroke(linewidth=width + 0.8, foreground=inks.paper)]
        values = conditional(counts, edges, share)
        axis.plot(centers, values, color=inks.ink, lw=width, path_effects=rim)
    axis.set_aspect("equal")
    suffix = f" [{shorten(units)}]" if units else ""
    axis.set_xlabel(text(f"truth{suffix}"))
    axis.set_ylabel(text(f"emulator{suffix}"))
    bar = figure.colorbar(image, ax=axis, label="values per bin", shrink=0.85)
    bar.outline.set_visible(False)
    return figure
