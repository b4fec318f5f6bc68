"""A scores file as `m2m evaluate` writes it: read, checked, and asked by name."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import SourceError
from map2map.scores import FORMAT, NAMES

__all__ = [
    "HEADLINE",
    "Held",
    "Score",
    "Scores",
    "json_of",
    "open_scores",
    "read_scores",
    "scores_of",
]

HEADLINE = "relative_l2"
"""The score that methods and runs are ranked by."""

AXES = ("method", "run", "field")

SHARES = ("not_finite", "masked")
"""Shares of cells that are not scored, which are told beside the scores."""

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Score:
    """A mean over runs and its 95 % interval, NaN where it is not known."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is a mean."""
        return math.isfinite(self.mean)

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Held:
    """What a scores file holds, of an emulator and of baselines.

    Args:
        data: Everything in the file, in memory; see docs/report.md for its variables.
        path: The file.
        card: The emulator's card.
        about: What else the file says that is text in JSON: where the data are.
    """

    data: xr.Dataset
    path: Path
    card: Mapping[str, Any]
    about: Any

    @property
    def methods(self) -> list[str]:
        """The emulator, then the baselines."""
        return [str(name) for name in self.data["method"].values]

    @property
    def baselines(self) -> list[str]:
        """What the emulator is compared with."""
        return self.methods[1:]

    def perfect(self, name: str) -> float | None:
        """What a perfect prediction scores; None if the file does not say, as no number is."""
        try:
            return float(self.data[name].attrs["perfect"])
        except (KeyError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Scores(Held):
    """Scores of fields."""

    @property
    def fields(self) -> list[str]:
        """Names of the targets."""
        return [str(name) for name in self.data["field"].values]

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return [str(name) for name in self.data["run"].values]

    def units(self, field: str) -> str:
        """Units of a field; empty if it has none."""
        if "units" not in self.data.coords:
            return ""
        units = str(self.data["units"].sel(field=field).item())
        return "" if units == "1" else powers(units)

    def units_of(self, name: str, field: str) -> str:
        """Units of a variable, with those of the field for the word "field"; empty if none."""
        units = str(self.data[name].attrs.get("units", "1"))
        own = self.units(field)
        if units == "field":
            return own
        units = units.replace("field", f"({own})" if own else "field units")
        return "" if units == "1" else powers(units)

    def wavenumber_units(self, name: str = "k") -> str:
        """Units of the wavenumbers."""
        return powers(str(self.data[name].attrs.get("units", "rad / cell")))

    def cell_size(self) -> float | None:
        """Side of a cell, if it is known and the same on all axes."""
        try:
            sizes = np.unique(np.asarray(self.data.attrs["spacing"], dtype=float))
        except (KeyError, TypeError, ValueError):
            return None
        return float(sizes[0]) if len(sizes) == 1 and sizes[0] > 0 else None

    def length_units(self) -> str:
        """Units of lengths, which are those that wavenumbers have below the line."""
        if "k" not in self.data.coords:
            return ""
        _, slash, length = self.wavenumber_units().partition("/")
        return length.strip().removeprefix("(").removesuffix(")") if slash else ""

    def label(self, name: str) -> str:
        """What a variable is, in the file's words."""
        return str(self.data[name].attrs.get("long_name", name.replace("_", " ")))

    def called(self, name: str) -> str:
        """The short name of a score."""
        return NAMES.get(name, name.replace("_", " "))

    def known(self, name: str, **where: str) -> bool:
        """Whether a variable is there, and has a number at least once."""
        if name not in self.data:
            return False
        chosen = self.data[name].sel({k: v for k, v in where.items() if k in self.data[name].dims})
        return bool(np.isfinite(chosen.values.astype(float)).any())

    def values(self, name: str, **where: str) -> NDArray[np.float64]:
        """The numbers of a variable at labels, such as ``method="emulator"``."""
        return np.asarray(self.data[name].sel(where).values, dtype=np.float64)

    def scalars(self) -> list[str]:
        """Names of the scores that are one number per method, run and field."""
        every = [str(name) for name, values in self.data.items() if values.dims == AXES]
        return [name for name in every if name not in SHARES]

    def share(self, name: str, field: str, method: str | None = None) -> float:
        """The mean share of cells of a field that are not scored for a reason."""
        if not self.known(name, field=field):
            return 0.0
        where = {"field": field} | ({} if method is None else {"method": method})
        return float(np.nanmean(self.values(name, **where)))

    def score(self, name: str, method: str, field: str) -> Score:
        """Mean over runs of a scalar score, with its interval."""
        if f"{name}_mean" in self.data:
            parts = [
                float(self.data[f"{name}_{part}"].sel({"method": method, "field": field}))
                if f"{name}_{part}" in self.data
                else math.nan
                for part in ("mean", "low", "high")
            ]
            return Score(*parts)
        return Score(_mean(self.values(name, method=method, field=field)))

    def curve(
        self, name: str, method: str, field: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean over runs of a curve, shape (k), and its interval's ends (NaN if not known)."""
        found = []
        for part in ("mean", "low", "high"):
            whole = f"{name}_{part}"
            if whole in self.data:
                found.append(self.values(whole, method=method, field=field))
            else:
                curves = self.values(name, method=method, field=field)
                mean = column_means(curves)
                found.append(mean if part == "mean" else np.full_like(mean, np.nan))
        return found[0], found[1], found[2]

    def best_baseline(self, field: str) -> str | None:
        """The baseline of the lowest error, or none."""
        means = {name: self.score(HEADLINE, name, field).mean for name in self.baselines}
        means = {name: mean for name, mean in means.items() if math.isfinite(mean)}
        return min(means, key=lambda name: means[name]) if means else None

    def seconds(self) -> NDArray[np.float64]:
        """Seconds that the emulator took for each run, where known."""
        if "seconds" not in self.data:
            return np.empty(0)
        seconds = np.asarray(self.data["seconds"].values, dtype=np.float64).ravel()
        return seconds[np.isfinite(seconds)]

    @property
    def simulator_seconds(self) -> float | None:
        """Seconds that the simulator takes for a run, if told."""
        try:
            seconds = float(self.data.attrs["simulator_seconds"])
        except (KeyError, TypeError, ValueError):
            return None
        return seconds if math.isfinite(seconds) and seconds > 0 else None


def powers(units: str) -> str:
    """Units with their powers raised.

    >>> powers("(km/s)^2 Mpc^-3")
    '(km/s)² Mpc⁻³'
    """
    return re.sub(r"(?:\^|\*\*)(-?\d+)", lambda found: found[1].translate(SUPERSCRIPT), units)


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def column_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def quantiles(values: NDArray[np.float64], shares: Sequence[float]) -> list[NDArray[np.float64]]:
    """Quantiles over the first axis of what is finite; NaN where nothing is."""
    known = np.isfinite(values).any(axis=0)
    found = [np.full(values.shape[1:], np.nan) for _ in shares]
    for out, share in zip(found, shares, strict=True):
        out[known] = np.nanquantile(values[:, known], share, axis=0)
    return found


def open_scores(path: Path | str) -> xr.Dataset:
    """What is in a scores file of any kind, in memory.

    Raises:
        SourceError: If it is missing, truncated, of an unknown format, or no scores file.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"there are no scores {path}; `m2m evaluate` writes them")
    data = _opened(path)
    if "format" not in data.attrs or "method" not in data.coords:
        lacks = "the attribute format" if "format" not in data.attrs else "method"
        raise _foreign(path, lacks)
    if str(data.attrs["format"]) != str(FORMAT):
        raise SourceError(
            f"{path} has scores of format {data.attrs['format']}, but this version reads {FORMAT}; "
            f"use the version of map2map that wrote it, {data.attrs.get('versions', 'not told')}"
        )
    if data.sizes.get("method") == 0:
        raise SourceError(f"{path} has scores of no method; there is nothing to report")
    first = str(np.atleast_1d(data["method"].values)[0])
    if first != "emulator":
        raise SourceError(
            f"{path} has {first!r} as its first method, where the emulator is expected"
        )
    return data


def read_scores(path: Path | str) -> Scores:
    """Read the scores of fields into memory.

    Raises:
        SourceError: If it is missing, truncated, of an unknown format, or no scores file.
    """
    return scores_of(Path(path), open_scores(path))


def scores_of(path: Path, data: xr.Dataset) -> Scores:
    """Scores of fields, checked."""
    missing = [name for name in AXES if name not in data.coords]
    if missing:
        raise _foreign(path, ", ".join(missing))
    if HEADLINE not in data or data[HEADLINE].dims != AXES:
        raise SourceError(
            f"{path} lacks {HEADLINE} of every method, run and field; "
            f"write the scores anew with `m2m evaluate`"
        )
    empty = [name for name in AXES if data.sizes[name] == 0]
    if empty:
        raise SourceError(f"{path} has scores of no {empty[0]}; there is nothing to report")
    card = json_of(path, data, "card")
    return Scores(
        data, path, card if isinstance(card, Mapping) else {}, json_of(path, data, "data")
    )


def _foreign(path: Path, lacks: str) -> SourceError:
    return SourceError(
        f"{path} is not a scores file: it lacks {lacks}; "
        f"`m2m report` takes what `m2m evaluate` has written"
    )


def _opened(path: Path) -> xr.Dataset:
    try:
        if path.suffix == ".zarr" or path.is_dir():
            with xr.open_dataset(path, engine="zarr", consolidated=False) as opened:
                return opened.load()
        with xr.open_dataset(path, engine="netcdf4") as opened:
            return opened.load()
    # xarray and its backends raise whatever the damaged byte leads to
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{path} cannot be read as scores, which are NetCDF or Zarr; it is of another kind, "
            f"damaged or truncated ({said}); write it anew with `m2m evaluate`"
        ) from error


def json_of(path: Path, data: xr.Dataset, name: str) -> Any:
    """An attribute that is text in JSON; nothing if it is not there."""
    text = data.attrs.get(name)
    if text is None:
        return {}
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"the attribute {name} of {path} is damaged ({error}); "
            f"write the scores anew with `m2m evaluate`"
        ) from error
