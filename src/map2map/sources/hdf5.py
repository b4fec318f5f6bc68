"""HDF5: data sets at any path of a file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from map2map.errors import SaveError
from map2map.sources.base import Copy, Source
from map2map.sources.pools import LIBRARIES, Pool
from map2map.sources.sinks import Sink, chunk_shape
from map2map.sources.stored import Axis, Stored
from map2map.typing import Shape

__all__ = ["Hdf5Source"]


class Hdf5Source(Source):
    """An HDF5 file. A field is a data set of real numbers, named by its path: ``group/data``.

    Its ``units`` attribute is kept, and coordinates that are attached as dimension scales; packed
    values are not decoded, as HDF5 knows no such rule (NetCDF does).
    """

    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5", ".hdf", ".he5")
    __slots__ = ()

    @classmethod
    def create(
        cls,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        chunks: Shape | None = None,
        compression: str | None = None,
    ) -> "Hdf5Sink":
        """Write a run.

        Args:
            path: The file.
            fields: What it shall hold.
            overwrite: Whether it may replace another file.
            chunks: Cells per chunk, on every spatial axis; if not given, the data are contiguous
                (or, if compressed, chunked as the library thinks fit).
            compression: As h5py names it, e.g. "gzip".
        """
        return Hdf5Sink(path, fields, overwrite=overwrite, chunks=chunks, compression=compression)

    def _scan(self) -> dict[str, Stored | str]:
        with LIBRARIES.lock:
            file = LIBRARIES.get(self.path, open_file)
            found: dict[str, Stored | str] = {}
            known: dict[str, dict[str, Any]] = {}

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset) and not item.is_scale:
                    found[name] = self._about(name, item, known)

            file.visititems(visit)
        return found

    def _find(self, name: str) -> Stored | str | None:
        # soft and external links are not visited, but can be asked for by name
        with LIBRARIES.lock:
            try:
                item = LIBRARIES.get(self.path, open_file)[name]
            except (KeyError, OSError, ValueError):
                return None
            return self._about(name, item, {}) if isinstance(item, h5py.Dataset) else None

    def _about(self, name: str, item: Any, known: dict[str, dict[str, Any]]) -> Stored | str:
        if item.shape is None:
            return f"data set {name!r} of {self.path} is empty; make it again"
        attrs = said(item)
        units = attrs.pop("units", None)
        units = None if units is None else str(units)
        about = self._describe(
            name,
            item.shape,
            item.dtype,
            units=units,
            attrs=attrs,
            around=around(item, known),
        )
        if isinstance(about, str):
            return about
        found = self._with_axes(about, [axis_of(item.dims[i]) for i in range(len(item.shape))])
        frames = found.frame_axis if found.frame_axis and found.frame_axis.name else None
        named = found.axes if all(axis.name for axis in found.axes) else ()
        return replace(found, axes=named, frame_axis=frames)

    def release(self) -> None:
        """Unmap the file."""
        MAPS.drop(self.path)

    def mapped(self, field: str) -> NDArray[Any] | None:
        """The array in the file; None if the library has to read it."""
        stored = self.stored(field)
        values = MAPS.get(self.path, MappedFile).array(stored.name)
        if values is not None:
            self._check_unchanged(stored, values.shape)
        return values

    def _fill(self, stored: Stored, copies: list[Copy]) -> None:
        mapped = self.mapped(stored.name)
        if mapped is not None:
            for index, target in copies:
                np.copyto(target, mapped[index], casting="same_kind")
            return
        with LIBRARIES.lock:
            values = LIBRARIES.get(self.path, open_file)[stored.name]
            self._check_unchanged(stored, values.shape)
            for index, target in copies:
                np.copyto(target, values[index], casting="same_kind")


class MappedFile:
    """A file whose contiguous arrays are read from a memory map.

    The library serves one thread at a time, and takes ten times as long as a copy for a slice
    across the last axis.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes: NDArray[np.uint8] | None = None
        self._arrays: dict[str, NDArray[Any] | None] = {}

    def array(self, name: str) -> NDArray[Any] | None:
        """An array of the file; None if the library has to read it."""
        if name not in self._arrays:
            with LIBRARIES.lock:
                self._arrays[name] = self._map(LIBRARIES.get(self.path, open_file)[name])
        return self._arrays[name]

    def _map(self, item: Any) -> NDArray[Any] | None:
        # where it is; not known if it is chunked, compressed, external, virtual or never written
        start = item.id.get_offset()
        if (
            start is None
            or item.chunks is not None
            or item.external
            or item.dtype.kind not in "fiu"
        ):
            return None
        if self._bytes is None:
            self._bytes = np.memmap(self.path, np.uint8, "r")
        part = self._bytes[start : start + item.nbytes]
        if part.nbytes < item.nbytes:
            return None
        values: NDArray[Any] = part.view(np.ndarray).view(item.dtype).reshape(item.shape)
        return values


MAPS: Pool[MappedFile] = Pool(256)
"""Files that are mapped."""


def open_file(path: Path) -> Any:
    """Open for reading, without a lock that would keep others from writing."""
    return h5py.File(path, "r", locking=False)


def said(item: Any) -> dict[str, Any]:
    """The attributes of a data set or group that are one word or number."""
    found = {key: plain(value) for key, value in item.attrs.items()}
    return {key: value for key, value in found.items() if value is not None}


def around(item: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The attributes of the groups that an item is in, the inner ones before the outer ones.

    Args:
        item: A data set or group.
        known: Those that are known already, by the name of the innermost group; it is added to.
    """
    name = item.name.rpartition("/")[0]
    if name not in known:
        group = item.parent
        known[name] = (around(group, known) if name else {}) | said(group)
    return known[name]


def axis_of(dimension: Any) -> Axis:
    """What is attached to a dimension; without a name if nothing is."""
    if not len(dimension):
        return Axis(dimension.label)
    scale = dimension[0]
    said = (plain(scale.attrs.get(key)) for key in ("units", "calendar"))
    name = dimension.label or scale.name.rpartition("/")[2]
    return Axis(name, np.asarray(scale[:]), *(x if x is None else str(x) for x in said))


def plain(value: Any) -> str | int | float | None:
    """An attribute that is one word or number; None if it is anything else."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1:
        value = value.item()
    return value if isinstance(value, str | int | float) else None


class Hdf5Sink(Sink):
    """Writes an HDF5 file."""

    def __init__(
        self,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        chunks: Shape | None = None,
        compression: str | None = None,
    ) -> None:
        super().__init__(path, fields, overwrite=overwrite)
        self.chunks = chunks
        self.compression = compression

    def _prepare(self, path: Path) -> None:
        with LIBRARIES.lock:
            self._file = h5py.File(path, "w")
            for name, stored in self.fields.items():
                chunks = None
                if self.chunks is not None:
                    cells = (min(n, m) for n, m in zip(self.chunks, stored.shape, strict=True))
                    chunks = chunk_shape(stored, tuple(cells))
                item = self._file.create_dataset(
                    name,
                    stored.full_shape,
                    stored.dtype,
                    chunks=chunks,
                    compression=self.compression,
                )
                item.attrs.update(stored.attrs)
                if stored.units is not None:
                    item.attrs["units"] = stored.units
                self._attach(name, stored, item)

    def _attach(self, name: str, stored: Stored, item: Any) -> None:
        axes = dict(enumerate(stored.axes, len(stored.full_shape) - len(stored.shape)))
        if stored.frames is not None:
            axes[0] = stored.frame_axis or Axis("time")
        for i, axis in axes.items():
            item.dims[i].label = axis.name
            if axis.values is None:
                continue
            if axis.name not in self._file:
                scale = self._file.create_dataset(axis.name, data=np.asarray(axis.values))
                scale.make_scale(axis.name)
                scale.attrs.update(axis.attributes)
            elif self._file[axis.name].shape != (item.shape[i],):
                raise SaveError(
                    f"axis {axis.name!r} of field {name!r} has {item.shape[i]} cells, but "
                    f"{self._file[axis.name].shape} in another field of {self.path}; name their "
                    f"axes differently, or write two files"
                )
            item.dims[i].attach_scale(self._file[axis.name])

    def _put(self, stored: Stored, index: tuple[slice, ...], values: NDArray[Any]) -> None:
        with LIBRARIES.lock:
            self._file[stored.name][index] = values

    def _close(self) -> None:
        with LIBRARIES.lock:
            self._file.close()
