"""One packed run: how it is described, read shard by shard, and written.

A run is written to a temporary name and renamed when it is complete; its attributes tell from which
files and with which settings it was made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError, RecipeError, SaveError, SourceError
from map2map.grids import Grid
from map2map.layouts import OVERHEAD, Layout, boxes, tiles
from map2map.records import FORMAT, KEY, identity
from map2map.sources import Axis, Source, Stored, ZarrSource, open_source
from map2map.sources.zarr import COMPRESSIONS
from map2map.typing import Shape
from map2map.windows import Halo, Window, per_axis

__all__ = ["Job", "Packed", "Place", "Settings", "need", "out_dtype", "pack_run"]

SHARD = 64 << 20
DTYPES = ("float16", "float32", "float64")
WRITING = 4
"""Copies of a shard in memory while it is written: its cast, its parts encoded, and joined."""
READING = 3
"""Copies of a box while it is read: the buffer, and the library's array or a map's pages."""
SPARE = 48 << 20
"""Bytes that buffers of the libraries' threads take besides, measured."""
EXACT = 2.0**53
"""Whole numbers up to here are exact in float64, in which they are read."""


@dataclass(frozen=True)
class Settings:
    """How runs are packed.

    Args:
        crop: Cells per axis of the crops that will be read, one number or one per axis.
        halo: Cells read around them: for all sides, per axis, or low and high per axis.
        targets: Fields that are read without a halo.
        scale_factor: Cells of a target per cell of the others and axis.
        dtype: Of the numbers; that of the files if not given.
        compression: One of `COMPRESSIONS`.
        shard_bytes: Of a file at most, before compression.
        overhead: What reading one chunk costs besides its bytes, in bytes; larger makes chunks
            larger.
    """

    crop: int | Sequence[int]
    halo: int | Sequence[int] = 0
    targets: tuple[str, ...] = ()
    scale_factor: int = 1
    dtype: str | None = None
    compression: str = "zstd"
    shard_bytes: int = SHARD
    overhead: int = OVERHEAD

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise RecipeError(f"unknown dtype {self.dtype!r}; use one of {', '.join(DTYPES)}")
        if self.compression not in COMPRESSIONS:
            raise RecipeError(
                f"unknown compression {self.compression!r}; use one of {', '.join(COMPRESSIONS)}"
            )
        if self.scale_factor < 1 or self.overhead < 0:
            raise RecipeError(
                f"the scale factor is {self.scale_factor} and the overhead {self.overhead}; they "
                f"are at least 1 and 0"
            )

    def window(self, shape: Shape, *, target: bool) -> Shape:
        """What is read of a field at once: a crop, with its halo if it is an input.

        Args:
            shape: Cells per axis of the inputs.
            target: Whether it is a target.

        Raises:
            GeometryError: If crop or halo do not fit the field.
        """
        crop = per_axis(self.crop, shape, "crop")
        if any(not 1 <= c <= n for c, n in zip(crop, shape, strict=True)):
            raise GeometryError(
                f"the crop is {crop}, but the fields are {shape}: a crop has at least one cell, "
                f"and is no larger than the field (its halo may be)"
            )
        halo = Halo.parse(self.halo, len(shape))
        for low, high, n in zip(halo.low, halo.high, shape, strict=True):
            if not (0 <= low <= n and 0 <= high <= n):
                raise GeometryError(
                    f"the halo {self.halo} is out of range: on an axis of {n} cells it has 0 to "
                    f"{n} on each side"
                )
        if target:
            return tuple(self.scale_factor * c for c in crop)
        return Window((0,) * len(crop), crop).grow(halo).shape


@dataclass(frozen=True)
class Place:
    """Where a field of a run is."""

    path: Path
    variable: str


@dataclass(frozen=True)
class Job:
    """One run to pack: all that a worker has to know.

    Args:
        path: The group to make.
        places: Where each field is.
        layouts: How each is cut up.
        settings: How it is packed.
        ndim: Number of axes of the grid.
        memory: Bytes that may be used.
        overwrite: Whether it takes the place of another.
    """

    path: Path
    places: Mapping[str, Place]
    layouts: Mapping[str, Layout]
    settings: Settings
    ndim: int
    memory: int
    overwrite: bool = False

    def record(self) -> dict[str, Any]:
        """What the group shall say of its making."""
        chosen = self.settings
        return {
            "format": FORMAT,
            "inputs": {
                name: {"path": str(place.path), "variable": place.variable, **identity(place.path)}
                for name, place in self.places.items()
            },
            "settings": {
                "crop": np.atleast_1d(chosen.crop).tolist(),
                "halo": np.atleast_1d(chosen.halo).tolist(),
                "targets": sorted(chosen.targets),
                "scale_factor": chosen.scale_factor,
                "dtype": chosen.dtype,
                "compression": chosen.compression,
                "chunk": {name: list(layout.chunk) for name, layout in self.layouts.items()},
                "shard": {name: list(layout.shard) for name, layout in self.layouts.items()},
            },
        }


@dataclass(frozen=True)
class Packed:
    """What became of a run: bytes of values read, bytes on the disk, seconds."""

    path: Path
    read: int
    written: int
    seconds: float


def pack_run(
    job: Job, tell: Callable[[int], object] | None = None, stop: Event | None = None
) -> Packed:
    """Pack one run.

    Args:
        job: What to do.
        tell: Given the bytes of values of each shard when it is written.
        stop: When set, the run is given up.

    Raises:
        SourceError: If a file cannot be read, or changes meanwhile.
        SaveError: If the disk refuses, or ``stop`` is set.
        FieldError: If the dtype cannot hold the values.
    """
    start, record = perf_counter(), job.record()
    opened = {
        name: (open_source(place.path, ndim=job.ndim), place.variable)
        for name, place in job.places.items()
    }
    stored = {name: source.stored(variable) for name, (source, variable) in opened.items()}
    fields = as_written(stored, job.settings)
    with ZarrSource.create(
        job.path,
        fields,
        overwrite=job.overwrite,
        chunks={name: layout.chunk for name, layout in job.layouts.items()},
        shards={name: layout.shard for name, layout in job.layouts.items()},
        compression=job.settings.compression,
        attrs={KEY: record},
    ) as sink:
        for field in fields:
            source, variable = opened[field.name]
            for shard, values in shards(source, source.stored(variable), job, field):
                if stop is not None and stop.is_set():
                    raise SaveError(f"packing {job.path} was stopped")
                sink.write(field.name, shard, values)
                if tell is not None:
                    tell(
                        prod(shard.shape)
                        * stored[field.name].channels
                        * itemsize(source.stored(variable))
                    )
        if job.record() != record:
            raise SourceError(
                f"a file of {job.path} was changed while it was packed "
                f"({', '.join(str(place.path) for place in job.places.values())}); pack it again"
            )
    read = sum(nbytes(item) for item in stored.values())
    return Packed(job.path, read, identity(job.path)["bytes"], perf_counter() - start)


def as_written(stored: Mapping[str, Stored], settings: Settings) -> list[Stored]:
    """The fields as they are written: named as asked, their axes in one name space.

    An axis that has other cells or coordinates than another field's of its name is called after its
    field, too, because a group has room for one axis of a name.
    """
    known: dict[str, Axis] = {}
    fields = []
    for name, item in stored.items():
        axes = []
        for axis, size in zip(item.axes, item.shape, strict=False):
            values = np.arange(size) if axis.values is None else axis.values
            taken = known.get(axis.name)
            other = axis.name in stored or axis.name == "channel"
            if taken is not None and taken.values is not None:
                other |= not np.array_equal(taken.values, values)
            used = replace(axis, name=f"{axis.name}_{name}") if other else axis
            known.setdefault(used.name, replace(used, values=values))
            axes.append(used)
        dtype = str(out_dtype(item, settings))
        fields.append(
            # the groups of its file are not packed, but what they say of it is
            replace(item, name=name, dtype=dtype, axes=tuple(axes), attrs=item.said, around={})
        )
    return fields


def shards(
    source: Source, stored: Stored, job: Job, field: Stored
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """The shards of a field with their values (channels, *cells), read in boxes of many."""
    layout, grid = job.layouts[field.name], Grid(stored.shape)
    kind = stored.floating
    per_cell = READING * stored.channels * kind.itemsize
    room = job.memory - SPARE - WRITING * prod(layout.shard) * stored.channels * itemsize(field)
    for box in boxes(layout, max(1, int(room / per_cell))):
        values = np.empty((stored.channels, *box.shape), kind)
        source.read(stored.name, box, values, grid)
        # pages of a memory map count as memory of this process until it is unmapped
        source.release()
        for shard in tiles(box, layout.shard):
            cells = (
                slice(a - c, b - c)
                for a, b, c in zip(shard.start, shard.stop, box.start, strict=True)
            )
            where = f"field {field.name!r} of {source.path}"
            yield shard, cast(values[(slice(None), *cells)], np.dtype(field.dtype), where)
        # before the next is made
        del values


def cast(values: NDArray[Any], dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    """Values as another dtype.

    Raises:
        FieldError: If they do not fit.
    """
    if values.dtype == dtype:
        return values
    if dtype.kind != "f":
        if not np.all(np.abs(values) < EXACT):
            raise FieldError(
                f"{where} is of {dtype}, but has missing values or numbers beyond 2^53, which "
                f"cannot be kept; pack it as float32 or float64"
            )
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if np.count_nonzero(np.isinf(found)) > np.count_nonzero(np.isinf(values)):
        raise FieldError(
            f"{where} has values beyond {np.finfo(dtype).max:g}, the largest of {dtype}; pack it "
            f"with a larger dtype"
        )
    return found


def out_dtype(stored: Stored, settings: Settings) -> np.dtype[Any]:
    """Of a field when it is packed, in the order of this machine's bytes."""
    return np.dtype(settings.dtype or stored.dtype).newbyteorder("=")


def itemsize(stored: Stored) -> int:
    """Bytes of a number."""
    return np.dtype(stored.dtype).itemsize


def nbytes(stored: Stored) -> int:
    """Bytes of the values of a field."""
    return prod(stored.shape) * stored.channels * itemsize(stored)


def need(stored: Stored, layout: Layout) -> int:
    """Bytes that packing a field needs, one shard at a time."""
    wide = max(itemsize(stored), stored.floating.itemsize)
    box = prod(min(s, n) for s, n in zip(layout.shard, layout.shape, strict=True))
    numbers = WRITING * prod(layout.shard) + READING * box
    return SPARE + int(numbers * stored.channels * wide)
