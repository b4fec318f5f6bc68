"""Scores per level, of fields whose channels are levels."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from map2map.inks import Inks, dash, from_zero, legend, text, tint
from map2map.report.drawing import Picture
from map2map.report.scores import Scores, column_means
from map2map.report.wording import count, number

__all__ = ["profiles"]

PANELS = {"level_bias": "bias", "level_mae": "MAE", "level_rmse": "RMSE", "level_r2": "R²"}
BEYOND = 2
"""How far beyond the emulator's errors the axis of bias may reach."""


def profiles(scores: Scores, field: str, name: str) -> Picture | None:
    """Bias with bands of the error, MAE, RMSE and R² per level, if they were scored."""
    if not all(scores.known(each, field=field) for each in ("level_bias", "level_rmse")):
        return None
    levels = len(per_level(scores, "level_rmse", scores.methods[0], field))
    units = scores.units(field)
    bands = scores.known("level_bands", method=scores.methods[0], field=field)
    caption = (
        f"Scores of {field} per level, the first of {levels} at the top: bias, mean absolute error "
        f"(MAE) and root mean squared error (RMSE)"
        + (f" [{units}]" if units else "")
        + ", and R². Lines are means over "
        + count(len(scores.runs), "run")
        + (
            "; the dark band holds the middle 50 % of the emulator's errors, the light one 90 %"
            + (", percentiles of a run on average" if len(scores.runs) > 1 else "")
            if bands
            else ""
        )
        + ("; biases of baselines may reach beyond the panel" if scores.baselines else "")
        + "."
    )
    ends = ", ".join(f"{method}: {_range(scores, method, field)}" for method in scores.methods)
    alt = f"Panels of lines against level. RMSE from its smallest to its largest level, {ends}."
    return Picture(name, caption, alt, partial(_draw, scores, field), wide=True)


def per_level(scores: Scores, name: str, method: str, field: str) -> NDArray[np.float64]:
    """Mean over runs of a score, shape (level,), without levels that only other fields have."""
    mean = column_means(scores.values(name, method=method, field=field))
    return mean[: _levels(scores, field)]


def _levels(scores: Scores, field: str) -> int:
    """How many levels a field has: where any method has a number."""
    known = np.isfinite(scores.values("level_rmse", field=field)).any(axis=(0, 1))
    return int(np.flatnonzero(known)[-1]) + 1


def _range(scores: Scores, method: str, field: str) -> str:
    values = per_level(scores, "level_rmse", method, field)
    values = values[np.isfinite(values)]
    return f"{number(values.min())} to {number(values.max())}" if values.size else "unknown"


def _bands(scores: Scores, field: str) -> dict[float, NDArray[np.float64]]:
    """Percentiles of the emulator's error per level, means over runs; nothing if not scored."""
    emulator = scores.methods[0]
    if not scores.known("level_bands", method=emulator, field=field):
        return {}
    mean = column_means(scores.values("level_bands", method=emulator, field=field))
    percentiles = np.asarray(scores.data["band"].values, float).tolist()
    kept = mean[:, : _levels(scores, field)]
    return dict(zip(percentiles, kept, strict=True))


def _draw(scores: Scores, field: str, inks: Inks) -> Figure:
    shown = [name for name in PANELS if scores.known(name, field=field)]
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    units, bands = scores.units(field), _bands(scores, field)
    level = np.arange(_levels(scores, field))
    for axis, name in zip(axes, shown, strict=True):
        curves = [per_level(scores, name, method, field) for method in scores.methods]
        if name == "level_bias":
            axis.axvline(0, color=inks.faint, lw=0.8, zorder=0)
            for low, high, alpha in ((5, 95, 0.15), (25, 75, 0.28)):
                if {low, high} <= set(bands):
                    axis.fill_betweenx(
                        level, bands[low], bands[high], color=tint(inks, 0), alpha=alpha, lw=0
                    )
        for method in reversed(range(len(curves))):
            axis.plot(
                curves[method],
                level,
                color=tint(inks, method),
                ls=dash(method),
                lw=1.5 if method else 2.0,
            )
        _fit(axis, name, curves, [*bands.values()])
        suffix = f" [{units}]" if units and name != "level_r2" else ""
        axis.set_xlabel(text(f"{PANELS[name]}{suffix}"))
    axes[0].set_ylim(len(level) - 0.5, -0.5)
    axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("level, from 0")
    legend(figure, scores.methods, inks, range(len(scores.methods)))
    return figure


def _fit(
    axis: Axes,
    name: str,
    curves: Sequence[NDArray[np.float64]],
    bands: Sequence[NDArray[np.float64]],
) -> None:
    """Show all of the emulator, and of baselines what is not far beyond."""
    every = np.concatenate(curves)
    if not np.isfinite(curves[0]).any():
        return
    if name == "level_bias":
        reach = max(float(np.nanmax(np.abs(x))) for x in (curves[0], *bands))
        most = max(reach, min(float(np.nanmax(np.abs(every))), BEYOND * reach)) or 1.0
        axis.set_xlim(-1.05 * most, 1.05 * most)
    elif name == "level_r2":
        low = min(float(np.nanmin(curves[0])), max(float(np.nanmin(every)), -0.5))
        axis.set_xlim(low - 0.05 * (1 - low), 1 + 0.05 * (1 - low) + 1e-6)
    else:
        from_zero(axis, "x", curves)
    if axis.get_xscale() == "linear":
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.ticklabel_format(axis="x", scilimits=(-3, 5), useMathText=True)
