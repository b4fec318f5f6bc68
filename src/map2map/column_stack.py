"""Columns of the radiation data as arrays of one level and feature each, and stacks of them.

The groups of a raw file become ``x`` (column, 138, 47) and ``y`` (column, 138, 6); what has fewer
levels than the 138 interfaces gets rows of zeros:

| channels of x | group | of | zero rows |
|---|---|---|---|
| 0-1 | ``hl_inputs`` (column, 138, 2) | interfaces | |
| 2 | ``inter_inputs`` (column, 136, 1) | between layers | first and last |
| 3-29 | ``col_inputs`` (column, 137, 27) | layers | first |
| 30-46 | ``sca_inputs`` (column, 17) | the column, the same on all rows | |

| channels of y | array | zero rows |
|---|---|---|
| 0-3 | ``flux_dn_sw``, ``flux_up_sw``, ``flux_dn_lw``, ``flux_up_lw`` (column, 138) | |
| 4-5 | ``hr_sw``, ``hr_lw`` (column, 137) | first |

A stack is what dask calls a stack of npy files: ``x/0.npy``, ``x/1.npy``, …, shards of the first
axis. Its ``info`` is not the pickle that dask writes, since reading one runs code, but a text,
``info.json``, with the same keys: chunks, dtype, axis. The shards are enough to read a stack.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.files import replacing
from map2map.typing import Array

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "StackWriter",
    "assemble_inputs",
    "assemble_outputs",
    "shard_sizes",
    "write_statistics",
]

LEVELS = 138
"""Interfaces of the data set's 137 layers."""

INPUTS = {
    "hl_inputs": (LEVELS, 2),
    "inter_inputs": (LEVELS - 2, 1),
    "col_inputs": (LEVELS - 1, 27),
    "sca_inputs": (17,),
}
"""Groups of inputs and their shapes behind the axis of columns, in the order of their channels."""

OUTPUTS = {
    "flux_dn_sw": (LEVELS,),
    "flux_up_sw": (LEVELS,),
    "flux_dn_lw": (LEVELS,),
    "flux_up_lw": (LEVELS,),
    "hr_sw": (LEVELS - 1,),
    "hr_lw": (LEVELS - 1,),
}
"""Likewise of outputs."""


def assemble_inputs(groups: Mapping[str, Any]) -> Any:
    """One array of all inputs, (column, level, feature), of the groups' dtype.

    Args:
        groups: Arrays of NumPy or dask by their names; there may be others. Those of dask stay
            lazy, and keep their chunks along columns.

    Raises:
        FieldError: If one is missing.
        GeometryError: If one has another shape, or other columns.
    """
    check(groups, INPUTS)
    columns = groups["sca_inputs"][:, None, :]
    repeated = np.broadcast_to(columns, (columns.shape[0], LEVELS, columns.shape[2]))
    return np.concatenate(
        [
            groups["hl_inputs"],
            np.pad(groups["inter_inputs"], ((0, 0), (1, 1), (0, 0))),
            np.pad(groups["col_inputs"], ((0, 0), (1, 0), (0, 0))),
            repeated,
        ],
        axis=2,
    )


def assemble_outputs(arrays: Mapping[str, Any]) -> Any:
    """One array of all outputs, (column, level, feature); see `assemble_inputs`."""
    check(arrays, OUTPUTS)
    return np.stack(
        [
            np.pad(arrays[name], ((0, 0), (1, 0))) if shape[0] < LEVELS else arrays[name]
            for name, shape in OUTPUTS.items()
        ],
        axis=2,
    )


def check(arrays: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse other arrays than there should be.

    Raises:
        FieldError: If one is missing.
        GeometryError: If one has another shape, or other columns.
    """
    for name, shape in expected.items():
        if name not in arrays:
            raise FieldError(f"no array {name!r} among the columns{near_names(name, arrays)}")
        if arrays[name].shape[1:] != shape:
            raise GeometryError(
                f"array {name!r} has shape {arrays[name].shape}, not {('column', *shape)}; columns "
                f"of another number of levels have no place in this layout; train on the raw files"
            )
    columns = {name: arrays[name].shape[0] for name in expected}
    if len(set(columns.values())) > 1:
        raise GeometryError(f"arrays have different numbers of columns: {columns}")


def shard_sizes(columns: int, shards: int) -> list[int]:
    """Columns of each shard: columns // shards of them; what remains is one shard more.

    >>> shard_sizes(10, 3)
    [3, 3, 3, 1]

    Raises:
        RecipeError: If there are fewer columns than shards.
    """
    if not 1 <= shards <= columns:
        raise RecipeError(f"{columns} columns cannot be {shards} shards; take 1 to {columns}")
    size = columns // shards
    rest = columns - size * shards
    return [size] * shards + ([rest] if rest else [])


class StackWriter:
    """Writes blocks of columns as shards of given sizes, one shard in memory at a time.

    Args:
        folder: ``x`` or ``y``, where ``0.npy``, … shall be.
        sizes: Columns of each shard.

    Attributes:
        files: The shards that are written.
    """

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self.folder, self.sizes = folder, list(sizes)
        self.files: list[Path] = []
        self._waiting: list[Array] = []

    @property
    def waiting(self) -> int:
        """Columns that are not written yet."""
        return sum(len(block) for block in self._waiting)

    def add(self, block: Array) -> None:
        """Write columns, (column, level, feature), or keep them until a shard is full."""
        self._waiting.append(block)
        while len(self.files) < len(self.sizes) and self.waiting >= self.sizes[len(self.files)]:
            size, joined = self.sizes[len(self.files)], np.concatenate(self._waiting)
            path = self.folder / f"{len(self.files)}.npy"
            with replacing(path) as part, part.open("wb") as file:
                np.save(file, joined[:size])
            self.files.append(path)
            self._waiting = [joined[size:]]

    def close(self) -> None:
        """Write what the stack is.

        Raises:
            GeometryError: If there are other than the announced columns.
        """
        if len(self.files) < len(self.sizes) or self.waiting or not self._waiting:
            raise GeometryError(
                f"{self.folder} should have shards of {self.sizes} columns, but {len(self.files)} "
                f"of them are full and {self.waiting} columns are left"
            )
        last = self._waiting[-1]
        chunks = [self.sizes, *([n] for n in last.shape[1:])]
        info = {"chunks": chunks, "dtype": last.dtype.str, "axis": 0}
        with replacing(self.folder / "info.json") as part:
            part.write_text(json.dumps(info) + "\n")


def write_statistics(path: Path, x: Sequence[Path], y: Sequence[Path]) -> None:
    """Write moments of the columns of shards, a shard in memory at a time.

    A ``.npz`` file with ``x_mean``, ``x_std`` (138, 47), ``y_mean``, ``y_std`` (138, 6), the
    deviations those of the population, and the numbers of columns ``x_nb`` and ``y_nb``.

    Args:
        path: The file.
        x: Shards of inputs.
        y: Shards of outputs.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, files in (("x", x), ("y", y)):
        # twice, since the mean of squares minus the square of the mean may be below zero
        shards = [np.load(file, mmap_mode="r") for file in files]
        total = sum(len(shard) for shard in shards)
        mean = sum(shard.sum(axis=0, dtype=np.float64) for shard in shards) / total
        spread = sum(np.square(shard - mean).sum(axis=0) for shard in shards) / total
        found[f"{name}_mean"] = mean.astype(np.float32)
        found[f"{name}_std"] = np.sqrt(spread).astype(np.float32)
        found[f"{name}_nb"] = np.array(total)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **found)
