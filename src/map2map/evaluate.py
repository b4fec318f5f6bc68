"""Evaluate: metrics of an emulator and its baselines, run by run, as one Dataset of named scores.

One run is in memory at a time. The cells that count are those where the truth and all predictions
are finite, so that all methods are scored on the same cells; what is left out is counted and told.
Of a run without such a cell the scores are NaN.
"""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

import map2map.metrics
from map2map.baselines import Baseline, read_field
from map2map.crops import Where
from map2map.emulator import Emulator
from map2map.ensembles import EMULATOR, MEAN, Ensembles, check_members, placed
from map2map.errors import FieldError, M2MError, RecipeError, SaveError, near_names
from map2map.examples import Examples, middle
from map2map.fields import Field
from map2map.figures import Case
from map2map.globe import latitudes
from map2map.grids import Grid
from map2map.metrics import Pointwise
from map2map.metrics.base import slabs
from map2map.patterns import some
from map2map.runs import Runs, distinct_names
from map2map.scores import Joint, Table, with_summary
from map2map.styles import outside
from map2map.typing import Array

__all__ = ["Options", "evaluate", "metrics_available"]

log = logging.getLogger(__name__)

SPECTRAL = ("spectral", "bispectrum")
"""Metrics of periodic fields, whose number of wavenumbers depends on the grid."""

LATITUDE = "latitude"
"""The metric that needs to know where on the globe cells are."""

LAYERED = ("profile",)
"""Metrics with as many numbers as an axis has cells."""


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    Args:
        metrics: Names of metrics; default: all. The pointwise ones are always there.
        bootstrap: How often runs are drawn for the uncertainty of means over runs.
        seed: Of these draws, and of what the emulator draws.
        track: Shows the progress over so many runs.
        where: Which cells are scored; default: all that are finite.
        watch: Is shown every field of every run that is scored, with what was predicted; figures.
        climatology: Of targets, what is usual in each cell, shape (channel, *space); for anomaly
            correlations.
        members: Of an ensemble that the emulator makes of each run, from two on: it is scored as
            such, the first of them as the emulator's prediction, and their mean beside it. Member m
            of run r, of N, is that of the seed and r N + m more. None: one prediction.
    """

    metrics: Sequence[str] | None = None
    bootstrap: int = 1000
    seed: int = 0
    track: Callable[[Iterable[int], int], Iterable[int]] = field(default=lambda runs, _: runs)
    where: Where | None = None
    watch: Callable[[Case], None] | None = None
    climatology: Mapping[str, Array] = field(default_factory=dict)
    members: int | None = None

    def __post_init__(self) -> None:
        for name in self.metrics or ():
            if name not in metrics_available():
                raise RecipeError(
                    f"there is no metric {name!r}{near_names(name, metrics_available())}"
                )
        if self.bootstrap < 1:
            raise RecipeError(f"the bootstrap draws runs at least once, not {self.bootstrap} times")
        check_members(self.members)


def metrics_available() -> dict[str, Callable[..., xr.Dataset]]:
    """The metrics by their short names: all functions of `map2map.metrics`."""
    functions = {name: getattr(map2map.metrics, name) for name in map2map.metrics.__all__}
    return {
        name.removesuffix("_scores"): function
        for name, function in functions.items()
        if inspect.isfunction(function)
    }


def evaluate(
    emulator: Emulator,
    runs: Runs,
    baselines: Mapping[str, Baseline],
    options: Options | None = None,
) -> xr.Dataset:
    """Score an emulator and its baselines on runs.

    Args:
        emulator: In evaluation mode, on its device.
        runs: With the emulator's inputs and targets.
        baselines: By name.
        options: Metrics and uncertainty.

    Returns:
        The scores; see the page on evaluation for its variables.

    Raises:
        M2MError: If data cannot be read or do not fit the emulator, or nothing can be scored.
    """
    options = options or Options()
    for name in (EMULATOR, MEAN):
        if name in baselines:
            raise RecipeError(f"a baseline cannot be called {name!r}; choose another name")
    try:
        with TemporaryDirectory(prefix="m2m-evaluate-") as folder:
            evaluation = Evaluation(emulator, runs, baselines, options, Path(folder))
            for run in options.track(range(len(runs)), len(runs)):
                evaluation.add(run)
            return evaluation.result()
    except OSError as error:
        if isinstance(error, M2MError):
            raise
        raise SaveError(f"cannot keep slices of the runs in a temporary folder: {error}") from error


class Evaluation:
    """An evaluation under way.

    Args:
        emulator: What is evaluated.
        runs: On what.
        baselines: Beside what.
        options: How.
        folder: For what is too large to keep in memory.
    """

    def __init__(
        self,
        emulator: Emulator,
        runs: Runs,
        baselines: Mapping[str, Baseline],
        options: Options,
        folder: Path,
    ) -> None:
        self.emulator, self.runs, self.baselines, self.options = emulator, runs, baselines, options
        self.names, self.folder = run_names(runs), folder
        names = runs.targets.names
        self.fields = emulator.targets.subset(names).with_vectors()
        self.made = Ensembles(emulator, self.fields, options.members, options.seed)
        self.methods = [*self.made.methods, *baselines]
        scored = [each.name for each in self.fields]
        self.table = Table(self.methods, self.names, scored)
        self.examples = Examples(folder, scored, self.methods)
        self.grid: Grid = self.grid_of(0)
        self.wraps = [beyond == "periodic" for beyond in self.grid.beyond]
        available = metrics_available()
        chosen = dict.fromkeys(["pointwise", *(options.metrics or available)])
        if not runs.domain.same_shape and not all(self.wraps):
            # there would be none, and of another length for every shape
            chosen = {name: None for name in chosen if name not in SPECTRAL}
        if not runs.domain.same_shape:
            chosen = {name: None for name in chosen if name not in LAYERED}
        if LATITUDE in (options.metrics or ()) and latitudes(runs, 0, names[0]) is None:
            raise RecipeError(
                f"the metric {LATITUDE!r} needs an axis of latitudes, told by its units "
                f"(degrees_north) or name (lat, latitude), with coordinates in the files, but "
                f"{names[0]!r} of {runs.runs[0]} has none"
            )
        self.metrics = [available[name] for name in chosen]
        self.joints: dict[str, Joint] = {}
        self.together: dict[tuple[str, str], Pointwise] = {}
        self.masked_fields: set[str] = set()
        self.outside: dict[str, list[str]] = {}

    def grid_of(self, run: int) -> Grid:
        """The grid of the targets of a run."""
        scale = self.runs.scale_factor
        shape = tuple(n * scale for n in self.runs.shape_of(run))
        return self.emulator.domain.grid(shape, scale)

    def add(self, run: int) -> None:
        """Score all methods on one run."""
        self.grid = self.grid_of(run)
        shape = self.runs.shape_of(run)
        inputs = {
            name: read_field(self.runs, name, run, shape) for name in self.emulator.inputs.names
        }
        with TemporaryDirectory(prefix="members-", dir=self.folder) as spool:
            told = {**inputs, **self.styles_of(run)}
            predictions, members = self.made.of_run(run, told, self.grid.shape, Path(spool))
            predictions |= {name: made(run, inputs) for name, made in self.baselines.items()}
            excluded = self.excluded(run)
            planes = {}
            for scored, parts in self.fields.items():
                truth, found = self.sides(run, parts, predictions)
                if excluded is not None:
                    truth[:, excluded] = np.nan
                self.score(run, scored, truth, found, members.get(scored.name, []))
                sides = {"truth": truth, **found}
                planes[scored.name] = {side: middle(values) for side, values in sides.items()}
            self.examples.keep(run, planes)

    def sides(
        self, run: int, parts: Sequence[str], predictions: Mapping[str, Mapping[str, Array]]
    ) -> tuple[Array, dict[str, Array]]:
        """The truth of a field made of these targets, and by method who predicts all of them."""
        whole = [read_field(self.runs, name, run, self.grid.shape) for name in parts]
        found = {}
        for method, values in predictions.items():
            if all(name in values for name in parts):
                pairs = zip(parts, whole, strict=True)
                found[method] = joined([placed(values[name], x.shape, method) for name, x in pairs])
        return joined(whole), found

    def styles_of(self, run: int) -> dict[str, Any]:
        """The styles of a run; notes those outside the range of the training."""
        values = self.runs.styles_of(run)
        for text in outside(self.emulator, values):
            self.outside.setdefault(text, []).append(self.names[run])
        return dict(values)

    def excluded(self, run: int) -> NDArray[np.bool_] | None:
        """Cells that are not to be scored, shape (*space)."""
        where = self.options.where
        if where is None:
            return None
        names = (*self.runs.inputs.names, *self.runs.targets.names)
        if where.field not in names:
            raise FieldError(
                f"the cells to score are those where {where.field!r} is large, which is neither "
                f"input nor target{near_names(where.field, names)}"
            )
        values = read_field(self.runs, where.field, run, self.grid.shape)
        with np.errstate(invalid="ignore"):
            return np.asarray(~(values > where.above).any(axis=0))

    def cells(
        self, run: int, name: str, truth: Array, found: Mapping[str, Array]
    ) -> NDArray[np.bool_]:
        """Where the truth and all predictions are finite; tells and scores what is left out."""
        counts = np.isfinite(truth).all(axis=0)
        covered = np.ones_like(counts)
        cells = max(1, int(counts.sum()))
        for method, values in found.items():
            finite = np.isfinite(values).all(axis=0)
            missing = int((counts & ~finite).sum())
            if missing:
                log.warning(
                    "%s of %r is not finite in %d of %d cells of run %s, where the truth is; they "
                    "count for no method",
                    method,
                    name,
                    missing,
                    cells,
                    self.names[run],
                )
            share = xr.Dataset({"not_finite": counted("not_finite", missing / cells)})
            self.table.add(method, run, name, share)
            covered &= finite
        masked = 1 - counts.mean()
        if masked:
            self.masked_fields.add(name)
            # that cells are left out which nobody asked for is no news
            level = logging.INFO if self.options.where is None else logging.DEBUG
            log.log(
                level,
                "%r of run %s is masked in %.3g %% of the cells",
                name,
                self.names[run],
                100 * masked,
            )
        share = xr.Dataset({"masked_truth": counted("masked_truth", masked)})
        self.table.add(EMULATOR, run, name, share)
        return counts & covered

    def score(
        self,
        run: int,
        scored: Field,
        truth: Array,
        found: Mapping[str, Array],
        members: Sequence[Array] = (),
    ) -> None:
        """Score all methods' predictions of one field, and the ensemble if there is one."""
        name = scored.name
        counts = self.cells(run, name, truth, found)
        if not counts.any():
            log.warning(
                "no cell of %r in run %s can be scored: the truth or a prediction is finite in "
                "none (%s); its scores are NaN, and means over runs leave it out",
                name,
                self.names[run],
                ", ".join(found),
            )
            return
        kept = None if counts.all() else counts
        vector = scored.kind == "vector"
        told = self.told(run, scored, truth)
        for method, values in found.items():
            for metric in self.metrics:
                scores = metric(
                    values,
                    truth,
                    self.grid.spacing,
                    periodic=self.wraps,
                    vector=vector,
                    mask=kept,
                    **told,
                )
                self.table.add(method, run, name, scores)
        for method, scores in self.made.scores(scored, truth, found, members, kept).items():
            self.table.add(method, run, name, scores)
        if self.options.watch is not None:
            self.options.watch(
                Case(
                    scored,
                    self.names[run],
                    truth,
                    found,
                    counts,
                    tuple(self.methods),
                    self.grid.spacing,
                )
            )
        for method, values in found.items():
            pooled = self.together.setdefault((method, name), Pointwise())
            for part in slabs(values, truth, kept):
                pooled.add(*part)
        joint = self.joints.setdefault(name, Joint.like(truth, found[EMULATOR], counts))
        joint.add(truth, found[EMULATOR], counts)

    def told(self, run: int, scored: Field, truth: Array) -> dict[str, Any]:
        """What metrics are told of a field on the globe: where it is, and what is usual there."""
        parts = self.fields[scored]
        latitude = latitudes(self.runs, run, parts[0])
        if latitude is None:
            return {}
        usual = [self.options.climatology.get(name) for name in parts]
        known = [values for values in usual if values is not None]
        if len(known) < len(parts) or known[0].shape[1:] != truth.shape[1:]:
            return {"latitude": latitude}
        return {"latitude": latitude, "climatology": np.concatenate(known)}

    def result(self) -> xr.Dataset:
        """All scores of all runs.

        Raises:
            FieldError: If no cell of a field can be scored in any of them.
        """
        targets = [*self.fields]
        empty = [target.name for target in targets if target.name not in self.joints]
        if empty:
            rest = [target.name for target in targets if target.name in self.joints]
            others = f", or score the others (--targets {' '.join(rest)})" if rest else ""
            raise FieldError(
                f"no cell of {' and '.join(map(repr, empty))} can be scored in any of "
                f"{len(self.names)} runs: the truth or a prediction is finite in none; give other "
                f"runs{others}"
            )
        scores = self.table.dataset()
        scores = scores.rename(masked_truth="masked")
        scores = with_summary(scores, self.options.bootstrap, self.options.seed)
        scores = scores.assign_coords(
            units=("field", [str(f.units) for f in targets]),
            kind=("field", [str(f.kind) for f in targets]),
        )
        errors = scores.relative_l2.sel({"method": EMULATOR}).mean("field").values
        scores = scores.assign(self.examples.chosen(errors, self.names))
        scores["seconds"] = xr.Variable(
            "run", self.made.seconds, {"units": "s", "long_name": "time to apply the emulator"}
        )
        scores = scores.assign(self.over_all())
        joints = [self.joints[target.name] for target in targets]
        scores["joint"] = xr.Variable(
            ("field", "bin", "bin_output"),
            np.stack([joint.counts for joint in joints]).astype(float),
            {
                "units": "1",
                "long_name": "counts of values of truth (bin) and emulator (bin_output)",
            },
        )
        scores["joint_edges"] = xr.Variable(
            ("field", "edge"),
            np.stack([joint.edges for joint in joints]),
            {"units": "field", "long_name": "edges of the bins; outer bins hold what is beyond"},
        )
        return scores.assign(self.made.by_spread()).assign_attrs(self.notes())

    def over_all(self) -> dict[str, xr.Variable]:
        """Scores of all cells of all runs together: R² is no mean of those of runs."""
        none = Pointwise().result()
        told = {
            "rmse": ("field", "root of the mean squared error of values", 0.0),
            "r2": ("1", "coefficient of determination, with the truth's mean per channel", 1.0),
            "relative_error": ("1", "root of summed squared errors / summed squared truth", 0.0),
        }
        results = {key: pooled.result() for key, pooled in self.together.items()}
        made = {}
        for name, (units, what, perfect) in told.items():
            values = [
                [results.get((method, f.name), none)[name] for f in self.fields]
                for method in self.methods
            ]
            attrs = {"units": units, "long_name": f"{what}; over all runs", "perfect": perfect}
            short = name.replace("relative_error", "relative_l2")
            made[f"{short}_all"] = xr.Variable(("method", "field"), values, attrs)
        return made

    def notes(self) -> dict[str, Any]:
        """Why spectra are missing, and what the grid is."""
        reasons = []
        if not all(self.wraps):
            reasons.append("the grid is not periodic")
        if self.masked_fields:
            reasons.append(f"cells of {', '.join(sorted(self.masked_fields))} are masked")
        if reasons:
            log.info("without spectra where %s", " and ".join(reasons))
        missing = {"spectra_missing": " and ".join(reasons)} if reasons else {}
        members = {} if self.options.members is None else {"members": self.options.members}
        beyond = "; ".join(
            f"{text} ({some(runs, 3)})" for text, runs in sorted(self.outside.items())
        )
        if beyond:
            log.warning("styles outside the training's range: %s", beyond)
        return {
            **missing,
            **members,
            **({"styles_outside": beyond} if beyond else {}),
            "spacing": "unknown" if self.grid.spacing is None else list(self.grid.spacing),
            "periodic": [int(wraps) for wraps in self.wraps],
        }


SHARES = {
    "not_finite": "share of the truth's cells where this prediction is not finite; not scored",
    "masked_truth": "share of the cells where the truth is not finite; not scored",
}


def counted(name: str, share: float) -> xr.Variable:
    """A share of cells that do not count."""
    attrs = {"units": "1", "long_name": SHARES[name], "perfect": 0.0}
    return xr.Variable((), np.float64(share), attrs)


def joined(parts: Sequence[Array]) -> Array:
    """Channels of several fields as those of one."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def run_names(runs: Runs) -> list[str]:
    """A name for every run: that of its first file, with its folder or its path if need be."""
    paths = [run.paths.get(runs.targets.names[0], run.path) for run in runs]
    files = list(dict.fromkeys(paths))
    names = dict(zip(files, distinct_names(files), strict=True))
    frames = ["" if run.frame is None else f"[{run.frame}]" for run in runs]
    return [names[path] + frame for path, frame in zip(paths, frames, strict=True)]
