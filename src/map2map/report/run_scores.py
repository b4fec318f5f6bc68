"""Scores of labels and parameters of whole runs: read, checked and asked by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import SourceError
from map2map.report.scores import Held, Score, json_of, powers

__all__ = ["LINE", "RunScores", "of_runs", "percent", "rate", "run_scores"]

LINE = "global-mean line"
"""What knows only the mean of the input, for a reader."""

TABLE = ("group_truth", "group_name")
NEEDED = {
    "label": ("accuracy", "accuracy_low", "accuracy_high", "confusion", "auc", "roc_fpr",
              "roc_tpr", "reliability_count", "reliability_predicted", "reliability_observed",
              "calibration_error", "group_predicted", "group_probability", "group_log_odds",
              "group_images", "group_right", *TABLE),
    "parameter": ("rmse", "r2", "group_output", "group_spread", "group_samples", *TABLE),
}  # fmt: skip
AXES = {"label": ("per", "class", "group"), "parameter": ("per", "parameter", "group")}


@dataclass(frozen=True)
class RunScores(Held):
    """Scores of labels or parameters, per sample and per group of samples of one run."""

    @property
    def kind(self) -> str:
        """Label or parameter."""
        return str(self.data.attrs["kind"])

    @property
    def targets(self) -> list[str]:
        """Names of what is told."""
        return str(self.data.attrs.get("targets", self.kind)).split(", ")

    @property
    def classes(self) -> list[str]:
        """Of a label."""
        return [str(name) for name in self.data["class"].values]

    @property
    def pers(self) -> list[str]:
        """What scores are of: images or samples, and groups; one where they are the same."""
        names = [str(name) for name in self.data["per"].values]
        return names if self.samples > self.groups else names[-1:]

    @property
    def groups(self) -> int:
        """How many."""
        return self.data.sizes["group"]

    @property
    def samples(self) -> int:
        """How many in all groups."""
        name = "group_images" if self.kind == "label" else "group_samples"
        return int(self.of("emulator")[name].sum())

    def of(self, method: str) -> xr.Dataset:
        """The scores of a method."""
        return self.data.sel({"method": method})

    def units(self, target: str) -> str:
        """Of a parameter; empty if it has none."""
        every = str(self.data.attrs.get("units", "")).split(", ")
        if len(every) != len(self.targets) or target not in self.targets:
            return ""
        units = every[self.targets.index(target)]
        return "" if units == "1" else powers(units)

    def told(self) -> dict[str, list[str]]:
        """What the placeholders, but those of targets, stand for: a text for each group."""
        return {
            str(name): [str(value) for value in values.values]
            for name, values in self.data.coords.items()
            if values.dims == ("group",) and name not in ("group", "group_name", *self.targets)
        }

    def right(self, method: str) -> NDArray[np.bool_]:
        """Whether the class of each group is right."""
        mine = self.of(method)
        found: NDArray[np.bool_] = mine.group_predicted.values == mine.group_truth.values
        return found


def of_runs(data: xr.Dataset) -> bool:
    """Whether scores are of labels or parameters; else they are of fields."""
    return str(data.attrs.get("kind")) in NEEDED


def run_scores(path: Path, data: xr.Dataset) -> RunScores:
    """Scores of labels or parameters, checked.

    Raises:
        SourceError: If something lacks, or there is nothing.
    """
    kind = str(data.attrs["kind"])
    lacks = [name for name in AXES[kind] if name not in data.coords]
    lacks += [name for name in NEEDED[kind] if name not in data.variables]
    if lacks:
        raise SourceError(
            f"{path} lacks {', '.join(lacks)} of the {kind}; write the scores anew with "
            f"`m2m evaluate`"
        )
    empty = [name for name in AXES[kind] if data.sizes.get(name) == 0]
    if empty:
        raise SourceError(f"{path} has scores of no {empty[0]}; there is nothing to report")
    card = json_of(path, data, "card")
    card = card if isinstance(card, Mapping) else {}
    return RunScores(data, path, card, json_of(path, data, "data"))


def rate(scores: RunScores, method: str, per: str) -> Score:
    """Share of right classes, with its Wilson interval where cases are independent."""
    at = {"method": method, "per": per}
    names = ("accuracy", "accuracy_low", "accuracy_high")
    return Score(*(float(scores.data[name].sel(at)) for name in names))


def percent(share: float) -> str:
    """A share in percent; 100 only if it is all.

    >>> percent(0.7604), percent(0.9999), percent(1.0)
    ('76.0 %', '> 99.9 %', '100 %')
    """
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share > 0.9995 or share < 0.0005:
        return "> 99.9 %" if share > 0.5 else "< 0.1 %"
    return f"{100 * share:.1f} %"
