"""Scores as JSON: method, field, score, and what it is over runs, for other programs to read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from map2map.errors import SaveError
from map2map.files import replacing

__all__ = ["FORMAT", "check_table", "save_table", "table"]

FORMAT = 1
"""Version of the file."""

PARTS = ("mean", "low", "high")


def check_table(path: Path, *, overwrite: bool) -> None:
    """Refuse a table that is there, before anything is computed.

    Raises:
        SaveError: If it is.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise SaveError(
            f"{path}, where the scores go as JSON, exists already; choose another name for the "
            f"scores, or give --overwrite"
        )


def save_table(scores: xr.Dataset, path: Path, of: Path) -> None:
    """Write `table`.

    Args:
        scores: What ``m2m evaluate`` writes.
        path: The JSON file.
        of: The file with all of them.

    Raises:
        SaveError: If it cannot be written; a former file is unchanged.
    """
    known = ("emulator", "emulator_digest", "kind", "samples")
    about = {key: scores.attrs[key] for key in known if key in scores.attrs}
    found = {"format": FORMAT, "all": of.name} | plain(about) | {"scores": table(scores)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def table(scores: xr.Dataset) -> dict[str, Any]:
    """What is one number, or one for each class and way of counting, of every method and field.

    Of emulators of fields a score is ``{"mean", "low", "high", "units", "runs"}``: the mean over
    runs, the ends of its 95 % interval (null with one run), and how many runs had it; of RMSE, R²
    and relative L2 also ``all``, that of all cells of all runs together. Of labels and
    parameters it is ``{"sample", "group", "units"}`` ("image" of labels), per sample and per run,
    each a number, or numbers by class.

    Args:
        scores: From `map2map.evaluate.evaluate` or `map2map.evaluate_runs.evaluate_runs`.
    """
    of = _of_runs if "per" in scores.dims else _of_fields
    return {str(method): of(scores.sel({"method": method})) for method in scores.method.values}


def _of_fields(scores: xr.Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, own in zip(scores.field.values, scores.units.values, strict=True):
        rows = scores.sel(field=name)
        found[str(name)] = {}
        for key in map(str, scores.data_vars):
            if rows[key].dims != ("run",) or f"{key}_mean" not in rows:
                continue
            count = int(np.isfinite(rows[key]).sum())
            if not count:
                continue
            found[str(name)][key] = {
                **{part: plain(rows[f"{key}_{part}"].item()) for part in PARTS},
                "units": rows[key].attrs["units"].replace("field", str(own)),
                "runs": count,
                **({"all": plain(rows[f"{key}_all"].item())} if f"{key}_all" in rows else {}),
            }
    return found


def _of_runs(scores: xr.Dataset) -> dict[str, Any]:
    names = scores.attrs["targets"].split(", ")
    units = dict(zip(names, scores.attrs["units"].split(", "), strict=True))
    found: dict[str, Any] = {name: {} for name in names}
    for key, values in scores.data_vars.items():
        if "per" not in values.dims or set(values.dims) - {"per", "class", "parameter"}:
            continue
        for name in names:
            own = values.sel(parameter=name) if "parameter" in values.dims else values
            numbers = {str(per): _by_class(own.sel(per=per)) for per in scores.per.values}
            unit = values.attrs.get("units", "1").replace("field", units[name])
            found[name][str(key)] = numbers | {"units": unit}
    return found


def _by_class(values: xr.DataArray) -> Any:
    if "class" not in values.dims:
        return plain(values.item())
    return {str(name): plain(values.sel({"class": name}).item()) for name in values["class"].values}


def plain(value: Any) -> Any:
    """What JSON takes: it knows no NaN, and no numbers of numpy.

    >>> plain({"a": [np.float64("nan"), np.int64(3)]})
    {'a': [None, 3]}
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
