"""Folders of cases: a glacier each, in one NetCDF file or an npy file per field."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.physics.spacing import step_of
from map2map.sources import open_source
from map2map.typing import Shape

__all__ = ["Case", "cases_of", "check_resampling", "largest_patch", "patterns", "resample"]

EXAMPLE = "ex.nc"
"""What the file is called that ice-flow models write; any other single NetCDF file will do."""

SLOPES = {"slopsurfx": "x", "slopsurfy": "y"}
"""Along which axis `usurf` has them."""


@dataclass(frozen=True)
class Case:
    """A glacier.

    Args:
        name: Of its folder.
        files: For each field, or for all of them (NetCDF: the key is empty), the file.
        complete: Whether the file also holds the slopes, so that they are not computed.
    """

    name: str
    files: dict[str, Path]
    complete: bool = False

    def holds(self, field: str) -> bool:
        """Whether a field that could be computed is there and to be taken."""
        return self.complete or field in self.files

    def path(self, field: str) -> Path:
        """The file of a field.

        Raises:
            FieldError: If there is none.
        """
        found = self.files.get("") or self.files.get(field)
        if found is None:
            raise FieldError(
                f"case {self.name!r} has no {field}.npy{near_names(field, self.files)}"
            )
        return found

    def shape(self, field: str) -> Shape:
        """Cells per axis."""
        source = open_source(self.path(field), ndim=2, framed=True)
        return source.stored(field).shape

    def steps(self, field: str) -> tuple[float | None, ...]:
        """From a cell to the next along y and x, negative if coordinates descend.

        Args:
            field: Whose axes they are.

        Returns:
            NaN where coordinates are not even, None where there are none.
        """
        if "" in self.files:
            axes = open_source(self.path(field), ndim=2, framed=True).stored(field).axes
            return tuple(step_of(axis.values) for axis in axes) or (None, None)
        return tuple(
            step_of(np.load(self.files[axis], allow_pickle=False)) if axis in self.files else None
            for axis in "yx"
        )

    def spacing(self) -> list[float] | None:
        """Cell size per axis that beside npy files ``y.npy`` and ``x.npy`` tell."""
        steps = (None,) if "" in self.files else self.steps("")
        if any(step is not None and isnan(step) for step in steps):
            raise GeometryError(f"x.npy and y.npy of case {self.name!r} are not evenly spaced")
        return None if None in steps else [abs(step) for step in steps if step is not None]

    def check_axes(self, fields: Sequence[str], *, named: bool = False) -> None:
        """Refuse fields whose rows are columns.

        Args:
            fields: Which are there.
            named: Whether other axes than y, x are refused, too.

        Raises:
            FieldError: If a field is not there.
            GeometryError: If the last axes of one are called x, y.
        """
        source = open_source(self.files[""], ndim=2, framed=True) if "" in self.files else None
        for name in fields:
            path, axes = self.path(name), source.stored(name).axes if source else ()
            found = [axis.name for axis in axes]
            if found == ["x", "y"] or (named and found not in ([], ["y", "x"])):
                raise GeometryError(
                    f"field {name!r} of {path} has the axes {', '.join(found)}, but "
                    f"they are to be y, x, rows first; transpose it or rename them"
                )


def cases_of(folder: Path) -> list[Case]:
    """The cases in a folder, sorted; hidden and empty folders are left out.

    Raises:
        RecipeError: If there are none, or a case has neither one NetCDF file nor npy files.
    """
    if not folder.is_dir():
        raise RecipeError(
            f"there is no folder {folder}; data are in data_dir/dataset/train/CASE and "
            f"data_dir/dataset/test/CASE (see --data_dir and --dataset)"
        )
    cases = []
    for each in sorted(folder.iterdir()):
        if not each.is_dir() or each.name.startswith("."):
            continue
        netcdf, arrays = sorted(each.glob("*.nc")), sorted(each.glob("*.npy"))
        if (each / EXAMPLE).is_file() or len(netcdf) == 1:
            file = each / EXAMPLE if (each / EXAMPLE).is_file() else netcdf[0]
            cases.append(Case(each.name, {"": file}))
        elif netcdf:
            raise RecipeError(
                f"{each} has {len(netcdf)} NetCDF files; leave one, or call it {EXAMPLE}"
            )
        elif arrays:
            cases.append(Case(each.name, {path.stem: path for path in arrays}))
    if not cases:
        raise RecipeError(
            f"no case in {folder}: a case is a folder with {EXAMPLE}, or with NAME.npy for each "
            f"field, (time, y, x)"
        )
    return cases


def patterns(cases: Sequence[Case], fields: Sequence[str]) -> dict[str, Any]:
    """Where the files of each field are, as a recipe says it."""
    return {
        name: {"pattern": [str(case.path(name)) for case in cases], "variable": variable}
        for name in fields
        # an npy file has no name for what it holds
        for variable in [name if "" in cases[0].files else None]
    }


def largest_patch(cases: Sequence[Case], field: str) -> int:
    """The largest power of two that fits into every case."""
    smallest = min(n for case in cases for n in case.shape(field))
    return 1 << (smallest.bit_length() - 1)


def check_resampling(cases: Sequence[Case], fields: Sequence[str], factor: float) -> None:
    """Refuse what `resample` cannot do.

    Raises:
        RecipeError: If a field cannot be resampled, or a case has fewer cells than a block.
    """
    computed = sorted({"slopsurfn", "X", "Y"} & set(fields))
    if computed:
        raise RecipeError(f"{', '.join(computed)} cannot be resampled; leave --resample_data out")
    for case in cases:
        stored = dict.fromkeys("usurf" if computes(case, name) else name for name in fields)
        case.check_axes(list(stored), named=True)
        shape = case.shape(next(iter(stored)))
        if min(shape) < factor:
            raise RecipeError(
                f"--resample_data {factor:g} makes a cell of {factor:g} x {factor:g}, but case "
                f"{case.name!r} has {' x '.join(map(str, shape))}; choose a smaller number"
            )


def computes(case: Case, field: str) -> bool:
    """Whether a field is a slope that resampling computes first."""
    return field in SLOPES and not case.holds(field)


def resample(case: Case, fields: Sequence[str], factor: float, folder: Path) -> Case:
    """Write a case on coarser or finer cells.

    Args:
        case: The case.
        fields: What it shall hold; slopes are computed before.
        factor: Above 1, a whole number: means over blocks of so many cells, NaN left out, rows and
            columns beyond the last block dropped. Below 1: a bicubic spline at every so many-th of
            a cell.
        folder: Where it is written.
    """
    path = folder / case.name / EXAMPLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(case, fields) as data:
        if factor > 1:
            blocks = data[list(fields)].coarsen(x=int(factor), y=int(factor), boundary="trim")
            blocks.mean().astype(np.float32).to_netcdf(path)
        else:
            refined(data[list(fields)], factor).astype(np.float32).to_netcdf(path)
    return Case(case.name, {"": path}, complete=True)


def opened(case: Case, fields: Sequence[str]) -> xr.Dataset:
    """A case as a Dataset, with slopes."""
    if "" in case.files:
        data = xr.open_dataset(case.files[""]).load()
    else:
        stored = [name for name in (*fields, "usurf") if name in case.files]
        arrays = {n: np.load(case.files[n], allow_pickle=False) for n in dict.fromkeys(stored)}
        data = xr.Dataset({name: (("time", "y", "x"), a) for name, a in arrays.items()})
        steps = case.spacing()
        if steps is not None:
            ends = dict(zip("yx", steps, strict=True))
            data = data.assign_coords({a: dx * np.arange(data.sizes[a]) for a, dx in ends.items()})
    for name, axis in SLOPES.items():
        if name in fields and computes(case, name):
            if "usurf" not in data or axis not in data.coords:
                raise FieldError(f"case {case.name!r} lacks usurf or {axis}, which {name} needs")
            data[name] = data.usurf.differentiate(axis, edge_order=1)
    return data


def refined(data: xr.Dataset, factor: float) -> xr.Dataset:
    """Bicubic splines at finer positions."""
    from scipy.interpolate import RectBivariateSpline

    sizes = [data.sizes[axis] for axis in "yx"]
    where = [factor * np.arange(int(n / factor)) for n in sizes]
    where = [each[each <= n - 1] for each, n in zip(where, sizes, strict=True)]
    cells = [np.arange(n) for n in sizes]
    out = {}
    for name, values in data.items():
        frames = values.values.reshape(-1, *sizes)
        unknown = int((~np.isfinite(frames)).sum())
        if unknown:
            raise FieldError(
                f"field {name!r} is NaN or infinite in {unknown} cells, which a spline would "
                f"spread over its frame; mend them, or leave out --resample_data"
            )
        finer = [RectBivariateSpline(*cells, frame)(*where) for frame in frames]
        out[name] = (values.dims, np.stack(finer).reshape(*values.shape[:-2], *map(len, where)))
    coords = {
        axis: np.interp(at, cell, data[axis])
        for axis, at, cell in zip("yx", where, cells, strict=True)
        if axis in data.coords
    }
    if "time" in data.coords:
        coords["time"] = data["time"].values
    return xr.Dataset(out, coords)
