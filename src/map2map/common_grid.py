"""Fields of several models on one grid: what `m2m prepare` does before a network can see them.

An atmosphere and an ocean have files, grids, coasts and times of their own. `prepare` regrids all
of them conservatively to one grid, at the times of that one, and writes a Zarr store per run, a few
times after the others, so that runs may be longer than memory is large. What was written before it
was interrupted stays written.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from scipy.ndimage import distance_transform_edt

from map2map.errors import FieldError, RecipeError, SourceError, near_names
from map2map.prepared_stores import paired
from map2map.regridding import Axes, Regridder
from map2map.typing import Array

__all__ = ["CommonGrid", "Counts", "Part", "fill_nearest"]


@dataclass(frozen=True)
class Counts:
    """Which cells of a grid count: those where a variable is within limits, and not NaN.

    Args:
        variable: In the files of the part, such as the share of land.
        above: What it must exceed.
        below: What it must stay below.
    """

    variable: str
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise RecipeError(
                f"which cells count by {self.variable!r} needs a limit: `above: 0.5` of a mask "
                f"of the sea, `below: 0.5` of a share of land"
            )

    def __call__(self, file: xr.Dataset) -> xr.DataArray:
        """True where cells count."""
        values = file[self.variable]
        counts = values.notnull()
        counts = counts if self.above is None else counts & (values > self.above)
        return counts if self.below is None else counts & (values < self.below)


@dataclass(frozen=True)
class Part:
    """Variables of files that have one grid.

    Args:
        files: Pattern of the files, NetCDF or Zarr, a file per run. What wildcards and placeholders
            stand for pairs the runs of all parts; without any, the file is the same for all runs.
        variables: Names in the files; or names to be written, each with its name in the files.
        counts: Cells that have a part in what is written; default: all that are not NaN.
        least: How much of the area of a cell must count for it to have a value.
        fill: What cells without a value get: that of the nearest cell that has one, or a number.
            Default: they stay NaN, which is right for targets, as NaN is left out of losses and
            scores; a network's inputs need numbers everywhere.
    """

    files: str | list[str]
    variables: list[str] | dict[str, str]
    counts: Counts | None = None
    least: float = 0.5
    fill: Literal["nearest"] | float | None = None

    @property
    def names(self) -> dict[str, str]:
        """Names to be written, and those in the files."""
        if isinstance(self.variables, dict):
            return self.variables
        return {name: name for name in self.variables}


@dataclass(frozen=True)
class CommonGrid:
    """What is written where.

    Args:
        out: The Zarr store of a run: ``{run}`` stands for what the wildcards of the parts' files
            stand for, and a placeholder of theirs for the same text.
        like: The part whose grid and times all others are brought to.
        parts: By name.
        times: How many are in memory at once, and in a chunk of the store.
    """

    out: str
    like: str
    parts: dict[str, Part]
    times: int = 8

    def __post_init__(self) -> None:
        if self.like not in self.parts:
            raise RecipeError(
                f"`like` names the part {self.like!r}{near_names(self.like, self.parts)}"
            )
        if self.times < 1:
            raise RecipeError(f"`times` is {self.times}; one at least is in memory")
        names = [name for part in self.parts.values() for name in part.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RecipeError(
                f"two parts write {', '.join(twice)}; give one another name: `variables: "
                f"{{new_name: {twice[0]}}}`"
            )

    def runs(self) -> dict[Path, dict[str, Path]]:
        """For the store of each run, the file of each part.

        Raises:
            SourceError: If files are missing.
            RecipeError: If several runs would be written to one store.
        """
        return paired(self.out, {name: part.files for name, part in self.parts.items()})

    @property
    def several(self) -> int:
        """How many are computed at once, and in a chunk of a store."""
        return self.times

    @property
    def axis(self) -> str:
        """Along which slabs follow each other."""
        return "time"

    def opened(self, files: Mapping[str, Path]) -> AbstractContextManager[xr.Dataset]:
        """All fields of a run, lazily: nothing is read before it is asked for."""
        return opened(self, files)


@contextmanager
def opened(declared: CommonGrid, files: Mapping[str, Path]) -> Iterator[xr.Dataset]:
    """All fields of a run on the common grid, lazily: nothing is read before it is asked for."""
    with ExitStack() as stack:
        given = {
            name: in_chunks(stack.enter_context(open_part(part, files[name])), declared.times)
            for name, part in declared.parts.items()
        }
        like = given[declared.like]
        target = Axes.of(like, like)
        fields: dict[str, xr.DataArray] = {}
        for name, part in declared.parts.items():
            fields |= regridded(part, given[name], target, like.get("time"), name)
        yield xr.Dataset(fields)


def in_chunks(file: xr.Dataset, times: int) -> xr.Dataset:
    """A file that is read lazily, so many times at once."""
    return file.chunk({"time": times}) if "time" in file.dims else file.chunk()


def open_part(part: Part, path: Path) -> xr.Dataset:
    """A file of a part.

    Raises:
        SourceError: If it cannot be read.
        FieldError: If a variable is missing.
    """
    try:
        file = xr.open_dataset(path, engine="zarr" if path.is_dir() else "netcdf4")
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    for name in (*part.names.values(), *([part.counts.variable] if part.counts else [])):
        if name not in file:
            near = near_names(name, map(str, file))
            file.close()
            raise FieldError(f"no variable {name!r} in {path}{near}")
    return file


def regridded(
    part: Part, file: xr.Dataset, target: Axes, times: xr.DataArray | None, name: str
) -> dict[str, xr.DataArray]:
    """The fields of a part on the common grid, at its times, by the names they are written by."""
    chosen = file[[*part.names.values()]]
    counts = None if part.counts is None else part.counts(file)
    if "time" in chosen.dims and times is not None:
        absent = np.setdiff1d(times.to_numpy(), file["time"].to_numpy())
        if len(absent):
            raise SourceError(
                f"part {name!r} lacks {len(absent)} of {times.size} times, the first {absent[0]}; "
                f"choose files that cover those of the part whose grid is used"
            )
        chosen = chosen.sel(time=times)
        counts = counts.sel(time=times) if counts is not None and "time" in counts.dims else counts
    source = Axes.of(chosen, file)
    same = all(
        np.array_equal(a, b) for a, b in ((source.lat, target.lat), (source.lon, target.lon))
    )
    regrid = Regridder(source, target, part.least)
    found = {}
    for written, variable in part.names.items():
        field = chosen[variable].astype(np.float32)
        # what tells which cells count has values in all of them
        its = None if part.counts is not None and variable == part.counts.variable else counts
        if not same:
            field = regrid(field, its)
        elif its is not None:
            field = field.where(its)
        if part.fill is not None:
            field = filled(field, part.fill, [str(target.lat.name), str(target.lon.name)])
        found[written] = field.transpose(..., target.lat.name, target.lon.name).rename(written)
    return found


def filled(field: xr.DataArray, fill: Literal["nearest"] | float, axes: list[str]) -> xr.DataArray:
    """The field without NaN."""
    if fill != "nearest":
        return field.fillna(np.float32(fill))
    done: xr.DataArray = xr.apply_ufunc(
        fill_nearest,
        field,
        input_core_dims=[axes],
        output_core_dims=[axes],
        dask="parallelized",
        output_dtypes=[field.dtype],
        keep_attrs=True,
    )
    return done


def fill_nearest(values: Array) -> Array:
    """Each cell that is NaN gets the value of the nearest that is not, counted in cells.

    Args:
        values: Shape (*times, lat, lon). Where all of a time is NaN it stays so.
    """
    done = values.copy()
    for index in np.ndindex(values.shape[:-2]):
        empty = np.isnan(values[index])
        if empty.any() and not empty.all():
            nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
            done[index] = values[index][tuple(nearest)]
    return done
