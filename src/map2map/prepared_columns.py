"""Columns of air as one array of levels and features: what `m2m prepare` makes of groups.

Files of columns keep profiles on layers, on the interfaces of layers, and numbers of the whole
column in groups of their own. `prepare` puts groups side by side on the levels of one array, with
rows of zeros where a group has no level, and writes a Zarr store per run, some columns after the
others, so that runs may be larger than memory. What was written before it was interrupted stays
written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr

from map2map.errors import FieldError, GeometryError, RecipeError, SourceError, near_names
from map2map.prepared_stores import paired

__all__ = ["ColumnStacks", "Group", "Stack", "stacked"]

COLUMN = "column"
"""The first axis of all that is written."""


@dataclass(frozen=True)
class Group:
    """A variable of the files, as features of each level.

    Args:
        variable: Its name; an array (column, level), or (column, level, feature).
        above: Rows of zeros above its first level.
        below: Rows of zeros below its last level.
        repeated: Whether it is numbers of the whole column, (column) or (column, feature), which
            are the same on all levels.
    """

    variable: str
    above: int = 0
    below: int = 0
    repeated: bool = False

    def __post_init__(self) -> None:
        if min(self.above, self.below) < 0 or (self.repeated and (self.above or self.below)):
            raise RecipeError(
                f"the group {self.variable!r} has `above` {self.above} and `below` {self.below}; "
                f"they are numbers of rows, and what is `repeated` is on all levels"
            )

    def levels(self, shape: Sequence[int]) -> int | None:
        """The levels that an array covers with the rows around it; None if it has none."""
        return None if self.repeated else self.above + shape[1] + self.below

    def placed(self, values: Any, levels: int) -> Any:
        """An array as (column, level, feature)."""
        da: Any = dask.array
        axes = 2 if self.repeated else 3
        values = values.reshape(*values.shape, 1) if values.ndim < axes else values
        if not self.repeated:
            return da.pad(values, ((0, 0), (self.above, self.below), (0, 0)))
        columns, features = values.shape
        return da.broadcast_to(
            values[:, None, :], (columns, levels, features), (values.chunks[0], levels, features)
        )


@dataclass(frozen=True)
class Stack:
    """Groups side by side, as one array.

    Args:
        files: Pattern of the files, NetCDF or Zarr, a file per run. What wildcards and placeholders
            stand for pairs the runs of all stacks.
        groups: In the order of their features.
        feature_first: Whether the array is (column, feature, level), so that a range of its
            channels is profiles, ``variable: y[0:138]``; else (column, level, feature).
    """

    files: str | list[str]
    groups: list[Group]
    feature_first: bool = False

    def __post_init__(self) -> None:
        if not any(not group.repeated for group in self.groups):
            raise RecipeError(
                f"a stack needs a group with levels, but those of {self.files!r} are "
                f"{', '.join(group.variable for group in self.groups) or 'none'}, all repeated"
            )


@dataclass(frozen=True)
class ColumnStacks:
    """What is written where.

    Args:
        out: The Zarr store of a run: ``{run}`` stands for what the wildcards of the files stand
            for, and a placeholder of theirs for the same text.
        stacks: By the name of the array that is written.
        columns: How many are in memory at once, and in a chunk of the store.
    """

    out: str
    stacks: dict[str, Stack]
    columns: int = 512

    def __post_init__(self) -> None:
        if self.columns < 1 or not self.stacks:
            raise RecipeError(
                f"`columns` is {self.columns}, and `stacks` are "
                f"{', '.join(self.stacks) or 'none'}; at least one of both is needed"
            )

    def runs(self) -> dict[Path, dict[str, Path]]:
        """For the store of each run, the file of each stack.

        Raises:
            SourceError: If files are missing.
            RecipeError: If several runs would be written to one store.
        """
        return paired(self.out, {name: stack.files for name, stack in self.stacks.items()})

    @property
    def several(self) -> int:
        """How many are computed at once, and in a chunk of a store."""
        return self.columns

    @property
    def axis(self) -> str:
        """Along which slabs follow each other."""
        return COLUMN

    def opened(self, files: Mapping[str, Path]) -> AbstractContextManager[xr.Dataset]:
        """All fields of a run, lazily: nothing is read before it is asked for."""
        return opened(self, files)


@contextmanager
def opened(declared: ColumnStacks, files: Mapping[str, Path]) -> Iterator[xr.Dataset]:
    """All stacks of a run, lazily: nothing is read before it is asked for.

    Raises:
        GeometryError: If one has other columns than another.
    """
    with ExitStack() as stack:
        found = {}
        for name, own in declared.stacks.items():
            file = stack.enter_context(open_file(files[name]))
            found[name] = stacked(own, file, name, declared.columns)
        columns = {name: array.sizes[COLUMN] for name, array in found.items()}
        if len(set(columns.values())) > 1:
            given = ", ".join(f"{n} in {files[name]}" for name, n in columns.items())
            raise GeometryError(f"the stacks of a run have different numbers of columns: {given}")
        yield xr.Dataset(found)


def open_file(path: Path) -> xr.Dataset:
    """A file of columns.

    Raises:
        SourceError: If it cannot be read.
    """
    try:
        return xr.open_dataset(path, engine="zarr" if path.is_dir() else "netcdf4")
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"cannot read {path}: {' '.join(str(error).split())}") from error


def stacked(stack: Stack, file: xr.Dataset, name: str, columns: int) -> xr.DataArray:
    """The array of a stack, float32, lazily, in chunks of so many columns.

    Args:
        stack: What it is made of.
        file: Where.
        name: Of the array.
        columns: In a chunk.

    Raises:
        FieldError: If a variable is missing.
        GeometryError: If one has other axes, levels or columns than the stack needs.
    """
    arrays = []
    for group in stack.groups:
        if group.variable not in file:
            near = near_names(group.variable, map(str, file))
            raise FieldError(f"no variable {group.variable!r} for the stack {name!r}{near}")
        variable = file[group.variable]
        if variable.ndim not in ((1, 2) if group.repeated else (2, 3)):
            axes = (
                "(column) or (column, feature)" if group.repeated else "(column, level[, feature])"
            )
            raise GeometryError(
                f"variable {group.variable!r} of the stack {name!r} has shape {variable.shape}, "
                f"not {axes}; numbers of the whole column are `repeated: true`"
            )
        arrays.append(variable.chunk({variable.dims[0]: columns}).data.astype(np.float32))
    check(stack, name, arrays)
    levels = next(n for n in levels_of(stack, arrays) if n is not None)
    parts = [group.placed(x, levels) for group, x in zip(stack.groups, arrays, strict=True)]
    da: Any = dask.array
    values = da.concatenate(parts, axis=2).rechunk((columns, -1, -1))
    dims = [COLUMN, f"{name}_level", f"{name}_feature"]
    if stack.feature_first:
        values, dims = values.transpose(0, 2, 1), [dims[0], dims[2], dims[1]]
    told = ", ".join(
        f"{group.variable}*{part.shape[2]}" for group, part in zip(stack.groups, parts, strict=True)
    )
    return xr.DataArray(values, dims=dims, attrs={"features": told})


def levels_of(stack: Stack, arrays: Sequence[Any]) -> list[int | None]:
    """The levels that each group covers; None for numbers of the whole column."""
    return [group.levels(x.shape) for group, x in zip(stack.groups, arrays, strict=True)]


def check(stack: Stack, name: str, arrays: Sequence[Any]) -> None:
    """Refuse groups that cannot stand side by side.

    Raises:
        GeometryError: If they cover different levels, or have different columns.
    """
    levels = levels_of(stack, arrays)
    known = {n for n in levels if n is not None}
    columns = {len(x) for x in arrays}
    if len(known) > 1 or len(columns) > 1:
        each = "; ".join(
            f"{group.variable} {x.shape}" + (f" covers {n} levels" if n is not None else "")
            for group, x, n in zip(stack.groups, arrays, levels, strict=True)
        )
        what = "levels" if len(known) > 1 else "columns"
        raise GeometryError(
            f"groups of the stack {name!r} have different numbers of {what}: {each}; fill up "
            f"levels with `above` and `below`"
        )
