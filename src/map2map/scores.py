"""The file of scores: put together, summarized over runs, written whole or not at all."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import SaveError
from map2map.files import replacing
from map2map.sources.sinks import move
from map2map.typing import Array, Shape

__all__ = [
    "FORMAT",
    "NAMES",
    "Joint",
    "Table",
    "attributes",
    "bootstrap",
    "check_output",
    "save_scores",
    "with_summary",
]

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the file; a reader refuses one that it does not know."""

NAMES = {
    "relative_l2": "relative L2 error",
    "r2": "R²",
    "pearson": "Pearson's r",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "bias": "bias",
    "crps": "CRPS",
    "crps_plain": "CRPS of these members",
    "spread": "spread of members",
    "spread_skill": "spread / error of the mean",
    "rank_error": "unevenness of ranks",
    "energy_score": "energy score",
    "max_error": "largest error",
    "wasserstein": "Wasserstein distance",
    "mean_error": "error of the mean",
    "integral_error": "error of the integral",
    "profile_error": "error of the profile",
    "divergence_error": "error of the divergence",
    "curl_error": "error of the curl",
    "latitude_rmse": "RMSE by area",
    "latitude_mae": "mean absolute error by area",
    "latitude_bias": "bias by area",
    "acc": "anomaly correlation",
}
"""What scores are called on screen and page; others by the name of their variable."""

JOINT_BINS = 128
CHUNK = 1 << 20
"""Values that are counted at a time."""

SUMMARIZED_CURVES = ("transfer", "correlation", "error_power")


class Table:
    """Scores by method, run and field, as they come in.

    Args:
        methods: Names of the emulator and the baselines.
        runs: Names of the runs.
        fields: Names of the targets.
    """

    def __init__(self, methods: Sequence[str], runs: Sequence[str], fields: Sequence[str]) -> None:
        self.axes = {"method": list(methods), "run": list(runs), "field": list(fields)}
        self.variables: dict[str, xr.Variable] = {}
        self.coords: dict[str, xr.Variable] = {}

    def add(self, method: str, run: int, field: str, scores: xr.Dataset) -> None:
        """Take in what a metric says; scores whose name ends in _truth are of no method."""
        for name, coord in scores.coords.items():
            self.coords[str(name)] = coord.variable
        for key, value in scores.data_vars.items():
            name = str(key)
            place = {"method": method, "run": self.axes["run"][run], "field": field}
            if name.endswith("_truth"):
                del place["method"]
            dims = (*place, *map(str, value.dims))
            if name not in self.variables:
                sizes = (*(len(self.axes[axis]) for axis in place), *value.shape)
                self.variables[name] = xr.Variable(dims, np.full(sizes, np.nan), dict(value.attrs))
            mine = self._wide_enough(name, value.shape)
            index = tuple(self.axes[axis].index(entry) for axis, entry in place.items())
            # in one go, as a single number is no view
            cells: tuple[Any, ...] = (*index, *(slice(0, n) for n in value.shape))
            mine.values[cells] = value.values
            units = mine.attrs["units"].split(" or ")
            if value.attrs["units"] not in units:
                mine.attrs["units"] = " or ".join([*units, value.attrs["units"]])

    def _wide_enough(self, name: str, shape: Shape) -> xr.Variable:
        """A variable, filled up with NaN if some field has more levels than those before."""
        mine = self.variables[name]
        axes = mine.dims[mine.ndim - len(shape) :]
        more = {
            axis: (0, n - mine.sizes[axis])
            for axis, n in zip(axes, shape, strict=True)
            if n > mine.sizes[axis]
        }
        if more:
            mine = self.variables[name] = mine.pad(more, constant_values=np.nan)
        return mine

    def dataset(self) -> xr.Dataset:
        """All of it."""
        return xr.Dataset(self.variables, {**self.axes, **self.coords})


@dataclass
class Joint:
    """Counts of values of truth and output, in bins that the first run sets.

    Args:
        edges: Of the bins [u]; the outermost bins also hold what is beyond.
        counts: Shape (truth, output).
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def like(cls, truth: Array, output: Array, kept: NDArray[np.bool_]) -> "Joint":
        """Bins for values like these."""
        ends = [(float(x[:, kept].min()), float(x[:, kept].max())) for x in (truth, output)]
        low, high = min(a for a, _ in ends), max(b for _, b in ends)
        margin = 0.05 * (high - low) or 1e-6 * abs(high) or 1.0
        edges = np.linspace(low - margin, high + margin, JOINT_BINS + 1)
        return cls(edges, np.zeros((JOINT_BINS, JOINT_BINS), np.int64))

    def add(self, truth: Array, output: Array, kept: NDArray[np.bool_]) -> None:
        """Count values."""
        low, width = self.edges[0], self.edges[1] - self.edges[0]
        for t, p in zip(truth, output, strict=True):
            values = t[kept], p[kept]
            for start in range(0, len(values[0]), CHUNK):
                bins = [
                    ((x[start : start + CHUNK] - low) / width).clip(0, JOINT_BINS - 1).astype(int)
                    for x in values
                ]
                index = bins[0] * JOINT_BINS + bins[1]
                self.counts += np.bincount(index, minlength=JOINT_BINS**2).reshape(JOINT_BINS, -1)


def bootstrap(
    values: NDArray[Any], resamples: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Percentile interval of the mean over the first axis, by drawing its entries anew.

    All scores are of the same draws, so that differences between methods can be told. Entries that
    are NaN do not count (with `scipy.stats.bootstrap`, one of them makes the interval NaN).

    Args:
        values: Shape (run, ...).
        resamples: How often the runs are drawn.
        rng: Draws them.
        level: Of confidence.

    Returns:
        The lower and upper end; NaN where there are fewer than two runs.
    """
    flat = values.reshape(len(values), -1)
    drawn = rng.integers(len(values), size=(resamples, len(values)))
    weights = np.zeros((resamples, len(values)))
    np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1)
    finite = np.isfinite(flat)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(finite, flat, 0) / (weights @ finite)
    ends = np.full((2, flat.shape[1]), np.nan)
    enough = finite.sum(axis=0) >= 2
    if enough.any():
        tail = 50 * (1 - level)
        ends[:, enough] = np.nanpercentile(means[:, enough], [tail, 100 - tail], axis=0)
    low, high = ends.reshape(2, *values.shape[1:])
    return low, high


def with_summary(scores: xr.Dataset, resamples: int, seed: int) -> xr.Dataset:
    """Add mean, and ends of the 95 % bootstrap interval, over runs."""
    found = {}
    for key, value in scores.data_vars.items():
        name = str(key)
        scalar = value.dims == ("method", "run", "field")
        if not scalar and name not in SUMMARIZED_CURVES:
            continue
        by_run = np.moveaxis(value.values, 1, 0)
        finite = np.isfinite(by_run)
        with np.errstate(invalid="ignore"):
            mean = np.where(finite, by_run, 0).sum(axis=0) / finite.sum(axis=0)
        # of the same seed, so of the same draws
        low, high = bootstrap(by_run, resamples, np.random.default_rng(seed))
        dims = [dim for dim in value.dims if dim != "run"]
        for suffix, numbers, what in (
            ("mean", mean, "mean over runs"),
            ("low", low, "lower end of the 95 % bootstrap interval of the mean over runs"),
            ("high", high, "upper end of the 95 % bootstrap interval of the mean over runs"),
        ):
            attrs = {**value.attrs, "long_name": f"{value.attrs['long_name']}; {what}"}
            found[f"{name}_{suffix}"] = xr.Variable(dims, numbers, attrs)
    return scores.assign(found)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that is there, or cannot be, before anything is computed.

    Raises:
        SaveError: Which, and why.
    """
    if path.suffix not in (".nc", ".zarr"):
        raise SaveError(f"scores are written to NAME.nc or NAME.zarr, not {path}")
    if path.exists() and not overwrite:
        raise SaveError(f"{path} exists already; choose another name, or give --overwrite")
    if path.exists() and path.is_dir() != (path.suffix == ".zarr" and is_zarr(path)):
        raise SaveError(f"{path} will not be overwritten: it is not a file of scores")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {path.parent}: {error}; choose another") from error


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def save_scores(scores: xr.Dataset, path: Path) -> None:
    """Write scores as NetCDF, or as Zarr if the name ends in .zarr.

    Raises:
        SaveError: If it cannot be written; a former file is unchanged.
    """
    if path.suffix == ".zarr":
        save_zarr(scores, path)
        return
    packed = {str(k): {"zlib": True} for k, v in scores.data_vars.items() if v.size > 1 << 16}
    with replacing(path) as temporary:
        try:
            scores.to_netcdf(temporary, engine="netcdf4", encoding=packed)
        except (RuntimeError, AttributeError) as error:
            # what the NetCDF library makes of a full disk
            raise OSError(str(error)) from error


def save_zarr(scores: xr.Dataset, path: Path) -> None:
    """Write scores as a Zarr store."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        scores.to_zarr(part, mode="w", zarr_format=2, consolidated=True)
        move(part, path)
    except OSError as error:
        kept = "; what was there is unchanged" if path.exists() else ""
        raise SaveError(
            f"cannot write {path}: {error}{kept}; make room or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part, ignore_errors=True)


def attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    """Global attributes, without those that are not known."""
    return {"format": FORMAT, **{key: value for key, value in about.items() if value is not None}}
