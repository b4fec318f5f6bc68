"""Zarr, formats 2 and 3: an array or a group of them, sharded or not."""

import base64
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from map2map.errors import SaveError, SourceError, near_names
from map2map.sources.base import Copy, Source
from map2map.sources.pools import Pool
from map2map.sources.sinks import Sink, chunk_shape
from map2map.sources.stored import Axis, Stored
from map2map.typing import Shape

__all__ = ["COMPRESSIONS", "ZarrSource"]

METADATA = ("zarr.json", ".zgroup", ".zarray")
STORES: Pool[Any] = Pool(64)
MISSING = ("_FillValue", "missing_value")

COMPRESSIONS: Mapping[str, Any] = {
    "zstd": "auto",
    "blosc": BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
    "none": None,
}
"""How chunks may be compressed; "auto" is Zarr's own choice for numbers, which is zstd."""

Sizes = Shape | Mapping[str, Shape] | None
"""Cells on every spatial axis, the same for all fields or by field."""


class ZarrSource(Source):
    """A Zarr store on disk. A field is an array of real numbers, named by its path in the group.

    The store may be one array, which is then named by the folder. Names, coordinates and units of
    axes are kept where the dimensions are named (as xarray writes them), and values packed by
    ``scale_factor`` and ``add_offset`` are decoded.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".zarr",)
    __slots__ = ()

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether ``path`` is a folder with Zarr's metadata."""
        return any((path / name).is_file() for name in METADATA)

    @classmethod
    def create(
        cls,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        chunks: Sizes = None,
        shards: Sizes = None,
        compression: str = "zstd",
        attrs: Mapping[str, Any] | None = None,
    ) -> "ZarrSink":
        """Write a run as a Zarr 3 group.

        Args:
            path: The folder.
            fields: What it shall hold.
            overwrite: Whether it may replace another store.
            chunks: Cells per chunk, on every spatial axis; at most 64 if not given.
            shards: Cells per file, a multiple of ``chunks``; if not given, a file per chunk.
            compression: Of the chunks: one of `COMPRESSIONS`.
            attrs: What is said of the group.
        """
        sink = ZarrSink(path, fields, overwrite=overwrite, chunks=chunks, shards=shards)
        if compression not in COMPRESSIONS:
            raise SaveError(
                f"unknown compression {compression!r}{near_names(compression, COMPRESSIONS)}"
            )
        sink.compression, sink.attrs = compression, dict(attrs or {})
        return sink

    def _root(self) -> Any:
        # by its metadata, as the folder itself stays the same when that is rewritten
        for name in METADATA:
            if (self.path / name).is_file():
                return STORES.get(self.path / name, open_store)
        raise SourceError(
            f"{self.path} is not a Zarr store: there is none of {', '.join(METADATA)} in it; "
            f"give the folder that has it"
        )

    def _scan(self) -> dict[str, Stored | str]:
        root = self._root()
        if isinstance(root, zarr.Array):
            return {self.path.stem: self._about(self.path.stem, root, {}, {})}
        members = dict(root.members(max_depth=None))
        arrays = {name: item for name, item in members.items() if isinstance(item, zarr.Array)}
        groups = {"": said(root)}
        # outer groups before those inside
        for name in sorted(members.keys() - arrays.keys()):
            groups[name] = groups.get(name.rpartition("/")[0], {}) | said(members[name])
        coords = {name: item for name, item in arrays.items() if is_coordinate(name, item)}
        return {
            name: self._about(name, item, coords, groups.get(name.rpartition("/")[0], {}))
            for name, item in sorted(arrays.items())
            if name not in coords
        }

    def _about(
        self, name: str, item: Any, coords: dict[str, Any], around: dict[str, Any]
    ) -> Stored | str:
        attrs = dict(item.attrs)
        units = attrs.get("units")
        scale = [attrs[key] for key in ("scale_factor", "add_offset") if key in attrs]
        about = self._describe(
            name,
            item.shape,
            np.dtype(np.float64) if scale else item.dtype,
            units=None if units is None else str(units),
            attrs={key: attrs[key] for key in attrs.keys() - UNSAID},
            around=around,
        )
        names = dimension_names(item)
        if isinstance(about, str) or len(names) != len(item.shape):
            return about
        folder = name.rpartition("/")[0]
        axes = []
        for dimension in names:
            coord = coords.get(f"{folder}/{dimension}".lstrip("/"), coords.get(dimension))
            values = None if coord is None else np.asarray(coord[:])
            said = {} if coord is None else coord.attrs
            about_axis = (said.get(key) for key in ("units", "calendar"))
            axes.append(Axis(dimension, values, *(x if x is None else str(x) for x in about_axis)))
        return self._with_axes(about, axes)

    def _fill(self, stored: Stored, copies: list[Copy]) -> None:
        root = self._root()
        item = root if isinstance(root, zarr.Array) else root[stored.name]
        self._check_unchanged(stored, item.shape)
        for index, target in copies:
            values, absent = decode(np.asarray(item[index]), item)
            np.copyto(target, values, casting="same_kind")
            if absent is not None:
                np.copyto(target, np.nan, where=absent)


def open_store(metadata: Path) -> Any:
    """The array or group that a metadata file belongs to, for reading."""
    return zarr.open(metadata.parent, mode="r")


def said(group: Any) -> dict[str, Any]:
    """The attributes of a group that are one word or number."""
    return {k: v for k, v in dict(group.attrs).items() if isinstance(v, str | int | float)}


def dimension_names(item: Any) -> tuple[str, ...]:
    """The names of an array's axes, as Zarr 3 or xarray write them; empty if there are none."""
    names = getattr(item.metadata, "dimension_names", None) or item.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names and all(isinstance(name, str) for name in names) else ()


def is_coordinate(name: str, item: Any) -> bool:
    """Whether an array holds the coordinates of the axis that it is named after."""
    return dimension_names(item) == (name.rpartition("/")[2],)


UNSAID = {"units", "scale_factor", "add_offset", "_ARRAY_DIMENSIONS", *MISSING}
"""Attributes that have been acted on."""


def decode(values: NDArray[Any], item: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Physical values, and where there are none, by the attributes that xarray writes."""
    attrs = item.attrs
    fills = [attrs[key] for key in MISSING if key in attrs]
    # xarray's _FillValue is the fill value of a Zarr 2 array; 0 is Zarr's own default
    if item.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attrs and item.fill_value:
        fills.append(item.fill_value)
    absent: NDArray[np.bool_] | None = None
    for fill in fills:
        # in Zarr 3, xarray writes floating fill values as the base64 of a double
        number = struct.unpack("<d", base64.b64decode(fill))[0] if isinstance(fill, str) else fill
        here = np.asarray(values == np.asarray(number).astype(values.dtype))
        absent = here if absent is None else absent | here
    if "scale_factor" in attrs or "add_offset" in attrs:
        scale, offset = attrs.get("scale_factor", 1.0), attrs.get("add_offset", 0.0)
        values = values.astype(np.float64) * scale + offset
    return values, absent


class ZarrSink(Sink):
    """Writes a Zarr 3 group."""

    resumable: ClassVar[bool] = True
    names_axes: ClassVar[bool] = True

    def __init__(
        self,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        chunks: Sizes = None,
        shards: Sizes = None,
    ) -> None:
        super().__init__(path, fields, overwrite=overwrite)
        self.chunks = chunks
        self.shards = shards
        self.compression = "zstd"
        self.attrs: dict[str, Any] = {}

    def _prepare(self, path: Path) -> None:
        group = zarr.open_group(path, mode="w", zarr_format=3, attributes=self.attrs)
        self._arrays: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for name, stored in self.fields.items():
            chunks = of_field(self.chunks, name) or tuple(min(64, n) for n in stored.shape)
            shards = of_field(self.shards, name)
            alike = len({item.channels for item in self.fields.values()}) == 1
            channel = "channel" if alike else f"channel_{name.replace('/', '_')}"
            names = ((channel,) if stored.leading else ()) + tuple(
                axis.name for axis in stored.axes
            )
            every = [*zip(stored.axes, stored.shape, strict=False)]
            if stored.frames is not None:
                frames = stored.frame_axis or Axis("time")
                names = (frames.name, *names)
                every.append((frames, stored.frames))
            array = group.create_array(
                name,
                shape=stored.full_shape,
                dtype=np.dtype(stored.dtype),
                chunks=chunk_shape(stored, chunks),
                shards=None if shards is None else chunk_shape(stored, shards),
                compressors=COMPRESSIONS[self.compression],
                dimension_names=names,
                attributes={k: plain(v) for k, v in stored.attrs.items() if k not in UNSAID}
                | ({} if stored.units is None else {"units": stored.units}),
            )
            self._arrays[name] = array
            for axis, size in every:
                if sizes.setdefault(axis.name, size) != size:
                    raise SaveError(
                        f"axis {axis.name!r} of field {name!r} has {size} cells, but "
                        f"{sizes[axis.name]} in another field of {self.path}; name their axes "
                        f"differently, or write two stores"
                    )
                if axis.values is not None and axis.name not in group:
                    group.create_array(
                        axis.name,
                        data=np.asarray(axis.values),
                        dimension_names=(axis.name,),
                        attributes=axis.attributes,
                    )

    def _reopen(self, path: Path) -> None:
        group = zarr.open_group(path, mode="r+")
        self._arrays = {name: group[name] for name in self.fields}

    def _put(self, stored: Stored, index: tuple[slice, ...], values: NDArray[Any]) -> None:
        self._arrays[stored.name][index] = values

    def _close(self) -> None:
        self._arrays.clear()

    def _may_replace(self) -> bool:
        return ZarrSource.claims(self.path)


def of_field(sizes: Sizes, name: str) -> Shape | None:
    """The sizes that were given for a field, if any."""
    return sizes.get(name) if isinstance(sizes, Mapping) else sizes


def plain(value: Any) -> Any:
    """An attribute as JSON has it: numpy's numbers are Python's."""
    return value.item() if isinstance(value, np.generic) else value
