"""Tables of predictions: labels and parameters per sample and per run, for files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import RecipeError, SaveError
from map2map.fields import Field
from map2map.files import replacing
from map2map.metrics.groups import Groups
from map2map.predictions import Predictions
from map2map.runs import Run
from map2map.scores import save_scores

__all__ = ["as_dataset", "probabilities", "save_table"]

OURS = ("sample", "run", "frame", "axis", "plane", "group")
"""Names of columns; a placeholder that is called so gets another."""


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of classes, shape (sample, class): from one logit, of the second of two, or one for each.

    >>> probabilities(np.array([[0.0]]))
    array([[0.5, 0.5]])
    """
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    # relative to the largest, so that nothing overflows
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return found


def as_dataset(found: Predictions) -> xr.Dataset:
    """Predictions with names, along ``sample``, and along ``group`` their means over each run.

    Of a label L: ``L_logit``, ``L_probability`` of each class (along ``L_class``) and
    ``L_predicted``, the name of the likeliest; of a parameter P: ``P_predicted`` in its units. Of
    groups they are called ``group_L_logit`` and so on, from the mean of logits.

    Beside them ``run``, the values of placeholders, and of frames and planes their numbers.
    """
    samples, groups = list(found.runs), found.runs.groups
    numbers = Groups.of(found.groups, len(samples))
    data: dict[str, Any] = {}
    for name, channels in found.targets.slices.items():
        values = found.outputs[:, channels]
        field = found.targets[name]
        data |= columns(field, values, "sample", "")
        data |= columns(field, numbers.mean(values), "group", "group_")
        if found.std is not None:
            std = found.std[:, channels][:, 0]
            data[f"{name}_std"] = "sample", std, {"units": field.units or "1"}
    coords: dict[str, Any] = {
        f"{field.name}_class": list(field.classes) for field in found.targets if field.classes
    }
    mine = [groups[int(number)] for number in numbers.names]
    coords |= {"group": numbers.names, "group_run": ("group", [str(run) for run in mine])}
    coords |= {f"group_{key}": ("group", v) for key, v in told(mine).items()}
    coords |= {"run": ("sample", [str(groups[k]) for k in found.groups])}
    coords |= {"group_of_sample": ("sample", found.groups)}
    coords |= {key: ("sample", values) for key, values in told(samples).items()}
    if any(run.frame is not None for run in samples):
        # -1 where there are none
        frames = [-1 if run.frame is None else run.frame for run in samples]
        coords |= {"frame": ("sample", frames)}
    planes = [run.plane for run in samples if run.plane is not None]
    if planes:
        coords |= {"axis": ("sample", [axis for axis, _ in planes])}
        coords |= {"plane": ("sample", [number for _, number in planes])}
    return xr.Dataset(data, coords)


def columns(field: Field, values: NDArray[np.float64], dim: str, front: str) -> dict[str, Any]:
    """What is said of one label or parameter."""
    if field.kind == "parameter":
        attrs = {"units": field.units or "1"}
        return {f"{front}{field.name}_predicted": (dim, values[:, 0], attrs)}
    along, share = f"{field.name}_class", probabilities(values)
    names = np.array(field.classes or ())[share.argmax(axis=1)]
    logit = (dim, values[:, 0]) if values.shape[1] == 1 else ((dim, along), values)
    return {
        f"{front}{field.name}_logit": logit,
        f"{front}{field.name}_probability": ((dim, along), share),
        f"{front}{field.name}_predicted": (dim, names),
    }


def told(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What the placeholders of runs stand for."""
    keys = dict.fromkeys(key for run in runs for key in run.told)
    return {
        f"placeholder_{key}" if key in OURS else key: [run.told.get(key, "") for run in runs]
        for key in keys
    }


def rows(table: xr.Dataset) -> list[dict[str, Any]]:
    """A row for each sample, and then for each run that has several of them."""
    found = lines(table, "sample", "")
    if table.sizes["group"] < table.sizes["sample"]:
        found += lines(table, "group", "group_")
    return found


def lines(table: xr.Dataset, dim: str, front: str) -> list[dict[str, Any]]:
    """The rows along one dimension."""
    found: list[dict[str, Any]] = [{"per": dim} for _ in range(table.sizes[dim])]
    for name in (*table.coords, *table.data_vars):
        values = table[name]
        if values.dims[:1] != (dim,):
            continue
        title = "group" if name == "group_of_sample" else str(name)
        title = title if title == "group" else title.removeprefix(front)
        units = values.attrs.get("units", "1")
        each = {title if units == "1" else f"{title} [{units}]": values.values}
        if values.ndim > 1:
            classes = table[str(values.dims[1])].values
            each = {f"{title}_{one}": values.values[:, k] for k, one in enumerate(classes)}
        for key, column in each.items():
            for row, value in zip(found, column.tolist(), strict=True):
                row[key] = value
    return found


def save_table(table: xr.Dataset, path: Path) -> None:
    """Write predictions as NetCDF (.nc) or as one table of text (.csv).

    Raises:
        RecipeError: If the name ends otherwise.
        SaveError: If it cannot be written; what was there before is still there.
    """
    check_ending(path)
    if path.suffix == ".nc":
        save_scores(table, path)
        return
    entries = rows(table)
    names = list(dict.fromkeys(name for row in entries for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows(entries)


def check_ending(path: Path, *, overwrite: bool = True) -> None:
    """Refuse an output before anything is computed.

    Raises:
        RecipeError: If its name does not end in .nc or .csv.
        SaveError: If it is there already, and not to be overwritten.
    """
    if path.suffix not in (".nc", ".csv"):
        raise RecipeError(
            f"labels and parameters of runs are a table: -o takes NAME.nc or NAME.csv, not {path}"
        )
    if path.exists() and not overwrite:
        raise SaveError(
            f"{path} exists already; choose another name, or overwrite it (--overwrite)"
        )
