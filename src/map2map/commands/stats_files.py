"""Statistics as JSON, NetCDF and figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from map2map.files import replacing
from map2map.statistics import Statistics
from map2map.typing import Array

__all__ = ["FORMATS", "Row", "SpectrumRow", "save", "save_figure", "to_json"]

FORMATS = (".json", ".nc")
MOST_LINES = 10
"""More rows of a field are not drawn: nobody could tell them apart."""


@dataclass(frozen=True)
class SpectrumRow:
    """A mean spectrum.

    Args:
        k: Wavenumbers [rad/length].
        power: Power [units^2 length^ndim].
        modes: Modes per wavenumber.
        ndim: Number of axes.
        length: Name of the unit of length; empty if it is not known.
    """

    k: Array
    power: Array
    modes: Array
    ndim: int
    length: str


@dataclass(frozen=True)
class Row:
    """What was found out about a field, or about one of its channels."""

    field: str
    files: tuple[str, ...]
    channel: int | None
    units: str | None
    statistics: Statistics
    spectrum: SpectrumRow | None = None

    @property
    def mean(self) -> float:
        """The mean; NaN if there is no finite value."""
        moments = self.statistics.moments
        return moments.mean if moments.count else np.nan

    @property
    def label(self) -> str:
        """What tells it from other rows of the field."""
        file = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        return file if self.channel is None else f"{file}, channel {self.channel}"


def as_dict(row: Row) -> dict[str, Any]:
    """A row in plain words and numbers; None for what is not a finite number."""
    moments, histogram = row.statistics.moments, row.statistics.histogram
    found: dict[str, Any] = {
        "field": row.field,
        "files": list(row.files),
        "channel": row.channel,
        "units": row.units,
        "count": moments.count,
        "nan": moments.nan,
        "inf": moments.inf,
        "mean": row.mean,
        "std": moments.std,
        "min": moments.low,
        "max": moments.high,
        "quantiles": {f"{q:g}": value for q, value in row.statistics.quantiles().items()},
    }
    found = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in found.items()
    }
    if histogram is not None:
        found["histogram"] = {
            "edges": histogram.edges.tolist(),
            "counts": histogram.counts.tolist(),
            "below": histogram.below,
            "above": histogram.above,
        }
    if row.spectrum is not None:
        found["spectrum"] = {
            "k": row.spectrum.k.tolist(),
            "power": row.spectrum.power.tolist(),
            "modes": row.spectrum.modes.tolist(),
            "length": row.spectrum.length or None,
        }
    return found


def to_json(rows: Sequence[Row]) -> str:
    """All rows, a list in JSON."""
    return json.dumps([as_dict(row) for row in rows], indent=1)


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows to a JSON or NetCDF file."""
    with replacing(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(to_json(rows) + "\n")
        else:
            dataset(rows).to_netcdf(temporary, engine="netcdf4")


def dataset(rows: Sequence[Row]) -> Any:
    """All rows along a dimension ``row``; shorter histograms and spectra are filled with NaN."""
    import xarray as xr

    moments = [row.statistics.moments for row in rows]
    wanted = rows[0].statistics.wanted.quantiles
    whole = {name: ("row", [getattr(m, name) for m in moments]) for name in ("count", "nan", "inf")}
    real = {
        "mean": ("row", [row.mean for row in rows]),
        "std": ("row", [m.std for m in moments]),
        "min": ("row", [m.low if m.count else np.nan for m in moments]),
        "max": ("row", [m.high if m.count else np.nan for m in moments]),
    }
    long: dict[str, Any] = {}
    if wanted:
        found = [[row.statistics.quantiles().get(q, np.nan) for q in wanted] for row in rows]
        long["quantiles"] = (("row", "quantile"), found)
    histograms = [row.statistics.histogram for row in rows]
    if any(histograms):
        counts: list[Any] = [() if h is None else h.counts for h in histograms]
        edges: list[Any] = [() if h is None else h.edges for h in histograms]
        long["histogram"] = (("row", "bin"), filled(counts))
        long["edges"] = (("row", "edge"), filled(edges))
    for name, key in (("wavenumber", "k"), ("power", "power"), ("modes", "modes")):
        if any(row.spectrum for row in rows):
            values = [() if row.spectrum is None else getattr(row.spectrum, key) for row in rows]
            long[name] = (("row", "mode"), filled(values))
    coords = {
        "field": ("row", [row.field for row in rows]),
        "units": ("row", [row.units or "" for row in rows]),
        "label": ("row", [row.label for row in rows]),
        **({"quantile": list(wanted)} if wanted else {}),
    }
    return xr.Dataset({**whole, **real, **long}, coords)


def filled(values: Sequence[Any]) -> Array:
    """Rows of unequal lengths, filled up with NaN."""
    found = np.full((len(values), max(len(row) for row in values)), np.nan)
    for k, row in enumerate(values):
        found[k, : len(row)] = row
    return found


def save_figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw the histogram and spectrum of every field."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from map2map.plots import STYLE

    fields = list(dict.fromkeys(row.field for row in rows))
    columns = 1 + any(row.spectrum is not None for row in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns + 0.4, 2.6 * len(fields) + 0.2))
        axes = figure.subplots(len(fields), columns, squeeze=False)
        for name, panels in zip(fields, axes, strict=True):
            mine = [row for row in rows if row.field == name]
            draw_histograms(panels[0], mine)
            if columns > 1:
                draw_spectra(panels[1], mine)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, format=path.suffix[1:])


def draw_histograms(axis: Any, rows: Sequence[Row]) -> None:
    """The density of values, on a logarithmic scale, with the mean and a deviation about it."""
    first = rows[0]
    for row in rows[:MOST_LINES]:
        histogram = row.statistics.histogram
        if histogram is not None and histogram.counts.any():
            share = histogram.counts / histogram.counts.sum() / np.diff(histogram.edges)
            axis.stairs(np.where(share > 0, share, np.nan), histogram.edges, label=row.label)
    if not axis.patches:
        axis.text(0.5, 0.5, "no histogram", ha="center", transform=axis.transAxes)
        return
    axis.set_yscale("log")
    if len(rows) == 1:
        deviation = first.statistics.moments.std
        axis.axvspan(first.mean - deviation, first.mean + deviation, color="0.92", zorder=0)
        axis.axvline(first.mean, color="0.6", lw=0.8, zorder=0)
    elif len(rows) <= MOST_LINES:
        axis.legend()
    units = f" [{first.units}]" if first.units not in (None, "", "1") else ""
    axis.set_xlabel(f"{first.field}{units}")
    axis.set_ylabel("probability density")
    more = f", {MOST_LINES} of {len(rows)} drawn" if len(rows) > MOST_LINES else ""
    alone = f"{first.label}; shaded: one deviation about the mean"
    axis.set_title(alone if len(rows) == 1 else f"{first.field}{more}")


def draw_spectra(axis: Any, rows: Sequence[Row]) -> None:
    """Power per logarithm of the wavenumber, which has the field's units squared."""
    length = ""
    # channels of one file have their spectrum in common
    drawn = {id(row.spectrum): row for row in rows if row.spectrum is not None}
    for row in list(drawn.values())[:MOST_LINES]:
        found = row.spectrum
        if found is None:
            continue
        share = found.k**found.ndim / (2 * np.pi if found.ndim < 3 else 2 * np.pi**2)
        if found.ndim == 1:
            share = found.k / np.pi
        axis.plot(found.k, share * found.power, lw=1, label=row.label)
        length = found.length
    axis.set_xscale("log")
    if any(np.any(np.asarray(line.get_ydata()) > 0) for line in axis.lines):
        axis.set_yscale("log")
    axis.set_xlabel(f"$k$ [rad / {length}]" if length else "$k$")
    units = rows[0].units
    axis.set_ylabel(r"power per $\ln k$" + (f" [({units})$^2$]" if units else ""))
    if 1 < len(drawn) <= MOST_LINES:
        axis.legend()
