"""Evaluate labels and parameters: scores per sample and per run, beside those of the mean line."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import FieldError
from map2map.fields import Field
from map2map.metrics.labels import label_scores
from map2map.metrics.parameters import parameter_scores
from map2map.predictions import Predictions

__all__ = ["evaluate_runs"]


def evaluate_runs(found: Predictions, names: Sequence[str] | None = None) -> xr.Dataset:
    """Score predictions whose truth is known.

    Args:
        found: The predictions.
        names: Of the targets that are scored: one label, or parameters; default: all.

    Returns:
        What `label_scores` or `parameter_scores` give, along ``method``: the emulator, and
        mean_line, the best line through the means of the inputs, if the emulator's card knows it.
        The attribute ``kind`` says which, ``group_name`` what each group is.

    Raises:
        FieldError: If there is no truth, or the targets do not fit one table.
    """
    if found.truth is None:
        raise FieldError("the truth of the runs is not known, so there is nothing to score")
    targets = found.runs.targets if names is None else found.runs.targets.subset(names)
    kind = targets.fields[0].kind
    if len(targets) > 1 and any(field.kind == "label" for field in targets):
        raise FieldError(
            f"{', '.join(targets.names)} do not fit one table of scores; name one label, or "
            f"parameters (--targets)"
        )
    methods = {"emulator": found.outputs}
    if found.line is not None:
        methods["mean_line"] = found.line
    channels = [found.runs.targets.slices[name] for name in targets.names]
    parts = []
    for values in methods.values():
        outputs, truth = (
            np.concatenate([side[:, c] for c in channels], axis=1) for side in (values, found.truth)
        )
        if kind == "label":
            parts.append(of_label(targets.fields[0], outputs, truth, found.groups))
        else:
            std = found.std if values is found.outputs else None
            if std is not None:
                std = np.concatenate([std[:, c] for c in channels], axis=1)
            parts.append(
                parameter_scores(outputs, truth, found.groups, names=targets.names, std=std)
            )
    # the line tells no uncertainties
    for name in set(parts[0]) - set(parts[-1]):
        parts[-1][name] = xr.full_like(parts[0][name], np.nan)
    if kind == "label":
        longest = max(part.sizes["threshold"] for part in parts)
        parts = [part.pad(threshold=(0, longest - part.sizes["threshold"])) for part in parts]
    scores = xr.concat(
        parts,
        xr.Variable("method", list(methods)),
        data_vars="all",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    groups = [found.runs.groups[int(number)] for number in scores.group.values]
    about: dict[str, str | int] = {
        "kind": str(kind),
        "targets": ", ".join(targets.names),
        "units": ", ".join(field.units or "1" for field in targets),
        "samples": len(found.outputs),
    }
    told = {
        key: ("group", [run.told[key] for run in groups])
        for key in groups[0].told
        if key not in scores.coords and key not in scores
    }
    return scores.assign_coords(
        {"group_name": ("group", [str(run) for run in groups]), **told}
    ).assign_attrs(about)


def of_label(
    label: Field, logits: NDArray[np.float64], truth: NDArray[np.float64], groups: NDArray[np.int64]
) -> xr.Dataset:
    """Scores of one label."""
    classes = label.classes or ()
    numbers = truth[:, 0] > 0.5 if len(classes) == 2 else truth.argmax(axis=1)
    return label_scores(logits, numbers.astype(int), groups, classes=classes)
