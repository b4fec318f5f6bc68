"""What ``m2m evaluate`` does with an emulator of labels or parameters."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from map2map.commands.arguments import fields_at, with_only
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.evaluate_runs import evaluate_runs
from map2map.patterns import Files
from map2map.predictions import predict_runs
from map2map.runs import Runs, variable_of
from map2map.sources import open_source
from map2map.told import Told

__all__ = ["open_told", "scores_of_runs", "show_runs"]

log = logging.getLogger(__name__)

OF_LABEL = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall (TPR)",
    "fpr": "FPR",
    "f1": "F1",
    "auc": "area under ROC",
    "cross_entropy": "cross-entropy",
    "brier": "Brier score",
    "calibration_error": "calibration error",
}


def open_told(
    emulator: Emulator, places: Sequence[str], only: Sequence[str], *, truth: bool = True
) -> Runs:
    """The runs of an emulator of labels or parameters.

    Args:
        emulator: The emulator.
        places: Where its inputs are, as typed; and labels and parameters, where they are values.
        only: Values of placeholders that are taken, as typed: ``seed=0:100`` or ``seed=1,5``.
        truth: Whether labels and parameters are needed.
    """
    names = emulator.targets.names
    given = {place.partition("=")[0] for place in places if "=" in place}
    values = {
        name: told_at(place.partition("=")[2])
        for place in places
        for name in [place.partition("=")[0]]
        if name in names
    }
    if values and not truth:
        raise RecipeError(f"{', '.join(values)} is predicted here, so it is not given")
    others = [place for place in places if place.partition("=")[0] not in names]
    inputs = fields_at(others, emulator.needed(given), [n for n in emulator.derived if n in given])
    patterns: dict[str, Any] = dict(with_only(inputs, only))
    if truth:
        patterns |= learnt(emulator) | values
    targets = list(emulator.targets) if truth else []
    domain = emulator.domain
    if domain.planes is not None and planes_alone(patterns, emulator.ndim):
        domain = replace(domain, planes=None)
    runs = Runs(list(emulator.inputs), targets, patterns, domain, derived=emulator.derived)
    warn_of_factors(emulator)
    return runs


def planes_alone(patterns: Mapping[str, Any], ndim: int) -> bool:
    """Whether the first array is no cube that planes are taken of, but one plane.

    It has the axes of a plane, or an axis of one cell in front of them.
    """
    name, files = next((n, entry) for n, entry in patterns.items() if isinstance(entry, Files))
    path = files.paths(name)[0]
    source = open_source(path)
    found = files.found(name, lambda _: list(source.fields))[0]
    shape = source.stored(variable_of(name, source, found.variable)).full_shape
    return len(shape) == ndim or (len(shape) == ndim + 1 and shape[0] == 1)


def warn_of_factors(emulator: Emulator) -> None:
    """Tell if inputs were multiplied by class in training, which is not done here."""
    factors = emulator.training_record.get("class_factors") or {}
    told = [f"those of {name} by {factor:g}" for name, factor in factors.items() if factor != 1]
    if told:
        log.warning(
            "the emulator was trained and tested on normalized inputs that were multiplied: %s "
            "(class_factors in its card); here they stay as they are, because the class is what is "
            "to be found out, so that scores may differ",
            ", ".join(told),
        )


def told_at(text: str) -> str | Told:
    """A value, or a table and its column, as typed.

    >>> told_at("2.5"), told_at("runs.csv::mass").column
    ('2.5', 'mass')
    """
    path, _, column = text.partition("::")
    return Told(table=path, column=column or None) if path.endswith(".csv") else text


def learnt(emulator: Emulator) -> dict[str, Told]:
    """Where the labels and parameters were told in training, as the card's recipe says."""
    try:
        data = emulator.training_record["recipe"]["data"]["train"]
    except (KeyError, TypeError):
        return {}
    entries = {name: data.get(name) for name in emulator.targets.names}
    return {name: Told(**entry) for name, entry in entries.items() if isinstance(entry, Mapping)}


def scores_of_runs(
    emulator: Emulator,
    runs: Runs,
    targets: Sequence[str] | None,
    track: Callable[[Iterable[int], int], Iterable[int]],
) -> xr.Dataset:
    """Predict and score."""
    return evaluate_runs(predict_runs(emulator, runs, track=track), targets)


def show_runs(scores: xr.Dataset) -> None:
    """Print the scores, per sample and per run."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    table = Table(title=title(scores), title_justify="left")
    table.add_column("")
    ways = [(m, per) for m in scores.method.values for per in scores.per.values]
    for method, per in ways:
        # a group of samples is a run
        table.add_column(f"{method}, per {'run' if per == 'group' else per}", justify="right")
    for label, row in rows(scores):
        table.add_row(label, *(text(row, method, per) for method, per in ways))
    console.print(table)


def title(scores: xr.Dataset) -> str:
    """What the table is of."""
    return (
        f"{scores.attrs['targets']}: {scores.attrs['samples']} samples of "
        f"{scores.sizes['group']} runs"
    )


def rows(scores: xr.Dataset) -> list[tuple[str, xr.DataArray]]:
    """Scores with their names, each along method and per."""
    if scores.attrs["kind"] == "label":
        chosen = []
        for key, label in OF_LABEL.items():
            if key in scores:
                values = scores[key]
                if "class" in values.dims:
                    positive = scores.attrs.get("positive")
                    values = values.sel({"class": positive}) if positive else values.mean("class")
                chosen.append((label, values))
        return chosen
    units = scores.attrs["units"].split(", ")
    found = []
    for name, unit in zip(scores.parameter.values, units, strict=True):
        for key, label in (("rmse", "RMSE"), ("mae", "MAE"), ("bias", "bias"), ("r2", "R²"),
                           ("pearson", "Pearson's r")):  # fmt: skip
            dimension = f" [{unit}]" if key in ("rmse", "mae", "bias") and unit != "1" else ""
            title = f"{name}: {label}{dimension}".replace("[", r"\[")
            found.append((title, scores[key].sel(parameter=name)))
    return found


def text(row: xr.DataArray, method: str, per: str) -> str:
    """A number."""
    value = float(row.sel({"method": method, "per": per}))
    return "-" if np.isnan(value) else f"{value:.4g}"
