"""NetCDF, classic and 4: packed and missing values decoded, units and coordinates kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import netCDF4
import numpy as np
from numpy.typing import NDArray

from map2map.errors import SaveError, SourceError
from map2map.sources.base import Copy, Source
from map2map.sources.classic import classic_size
from map2map.sources.pools import LIBRARIES
from map2map.sources.sinks import Sink
from map2map.sources.stored import Axis, Stored

__all__ = ["NetcdfSource"]

Version = Literal["NETCDF4", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF3_CLASSIC"]

SPATIAL = {"x", "y", "z", "lat", "lon", "latitude", "longitude"}
MARKS = ("_FillValue", "missing_value", "valid_min", "valid_max", "valid_range")
DECODED = {"units", "scale_factor", "add_offset", "_Unsigned", *MARKS}
"""Attributes that have been acted on."""


class NetcdfSource(Source):
    """A NetCDF file. A field is a variable of real numbers that is not a coordinate.

    Packed values are decoded, and what is missing (fill values, beyond the valid range) is NaN.

    If ``ndim`` is not given, the spatial axes are those after a dimension named "channel", if
    there is one first; else the last ones as long as they are named x, y, z, lat, lon, latitude or
    longitude, or their coordinates have an attribute ``axis`` of X, Y or Z, or units of degrees
    north or east; else all but the first. Time and pressure levels thus make channels; to read
    single steps of (time, y, x) as windows, open with ``ndim=3``.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".nc", ".nc4", ".cdf", ".netcdf")
    __slots__ = ()

    @classmethod
    def create(
        cls,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        version: Version = "NETCDF4",
    ) -> "NetcdfSink":
        """Write a run.

        Args:
            path: The file.
            fields: What it shall hold; axes without a name are called z, y, x.
            overwrite: Whether it may replace another file.
            version: Which NetCDF.
        """
        return NetcdfSink(path, fields, overwrite=overwrite, version=version)

    def _scan(self) -> dict[str, Stored | str]:
        with LIBRARIES.lock:
            file = LIBRARIES.get(self.path, open_file)
            groups = [file]
            found: dict[str, Stored | str] = {}
            for group in groups:
                groups.extend(group.groups.values())
                for variable in group.variables.values():
                    if variable.name not in variable.dimensions and variable.ndim > 0:
                        name = f"{group.path}/{variable.name}".lstrip("/")
                        found[name] = self._about(name, variable, group)
        return found

    def _about(self, name: str, variable: Any, group: Any) -> Stored | str:
        if not isinstance(variable.datatype, np.dtype):
            return (
                f"variable {name!r} of {self.path} is of type {variable.datatype}; a field has "
                f"real numbers; save it as such"
            )
        attrs = {key: variable.getncattr(key) for key in variable.ncattrs()}
        scales = [attrs[key] for key in ("scale_factor", "add_offset") if key in attrs]
        dtype = np.result_type(*(np.asarray(scale) for scale in scales), np.float32)
        axes = [axis_of(dimension, group) for dimension in variable.dimensions]
        units = attrs.get("units")
        around: dict[str, Any] = {}
        outer = group
        while outer is not None:
            around = said(outer) | around
            outer = outer.parent
        about = self._describe(
            name,
            variable.shape,
            dtype if scales else variable.datatype,
            spatial_axes(variable.dimensions, [is_spatial for _, is_spatial in axes]),
            units=None if units is None else str(units),
            attrs={key: value for key, value in said(variable).items() if key not in DECODED},
            around=around,
        )
        if isinstance(about, str):
            return about
        return self._with_axes(about, [axis for axis, _ in axes])

    def _fill(self, stored: Stored, copies: list[Copy]) -> None:
        with LIBRARIES.lock:
            variable = LIBRARIES.get(self.path, open_file)[stored.name]
            self._check_unchanged(stored, variable.shape)
            variable.set_auto_mask(can_mask(variable))
            for index, target in copies:
                values = variable[index]
                np.copyto(target, np.ma.getdata(values), casting="same_kind")
                absent = np.ma.getmask(values)
                if absent is not np.ma.nomask:
                    np.copyto(target, np.nan, where=absent)


def open_file(path: Path) -> Any:
    """Open for reading.

    Raises:
        SourceError: If a classic file is shorter than it should be; the library would read zeros.
    """
    with path.open("rb") as file:
        if file.read(3) == b"CDF":
            expected, found = classic_size(file), path.stat().st_size
            if expected is None or found < expected:
                announced = "is not complete" if expected is None else f"announces {expected} bytes"
                raise SourceError(
                    f"{path} is truncated: its header {announced}, but there are {found} bytes; "
                    f"copy or make it again"
                )
    return netCDF4.Dataset(path, "r")


def can_mask(variable: Any) -> bool:
    """Whether what marks missing values can occur: NaN cannot, among packed integers.

    The library would warn of it at every read.
    """
    marks = [getattr(variable, key) for key in MARKS if key in variable.ncattrs()]
    return variable.dtype.kind not in "iu" or not marks or bool(np.isfinite(marks[0]).all())


def said(item: Any) -> dict[str, Any]:
    """The attributes of a variable or group that are one word or number."""
    found = {key: item.getncattr(key) for key in item.ncattrs()}
    return {k: v for k, v in found.items() if isinstance(v, str | int | float | np.number)}


def axis_of(dimension: str, group: Any) -> tuple[Axis, bool]:
    """A dimension with its coordinates, and whether it looks spatial."""
    while group is not None and dimension not in group.dimensions:
        group = group.parent
    coord = None if group is None else group.variables.get(dimension)
    if coord is None or coord.ndim != 1 or not isinstance(coord.datatype, np.dtype):
        return Axis(dimension), dimension.lower() in SPATIAL
    units = str(getattr(coord, "units", ""))
    is_spatial = (
        dimension.lower() in SPATIAL
        or str(getattr(coord, "axis", "")).upper() in {"X", "Y", "Z"}
        or units in {"degrees_north", "degrees_east"}
    )
    values = np.ma.filled(coord[:].astype(np.float64), np.nan)
    calendar = getattr(coord, "calendar", None)
    return Axis(dimension, values, units or None, calendar and str(calendar)), is_spatial


def spatial_axes(dimensions: Sequence[str], is_spatial: Sequence[bool]) -> int | None:
    """How many of the last dimensions are spatial; None to take all but the first."""
    if len(dimensions) > 1 and dimensions[0].startswith("channel"):
        return len(dimensions) - 1
    count = 0
    while count < len(dimensions) and is_spatial[-1 - count]:
        count += 1
    return count or None


class NetcdfSink(Sink):
    """Writes a NetCDF file."""

    names_axes: ClassVar[bool] = True

    def __init__(
        self,
        path: Path | str,
        fields: Sequence[Stored],
        *,
        overwrite: bool = False,
        version: Version = "NETCDF4",
    ) -> None:
        super().__init__(path, fields, overwrite=overwrite)
        self.version = version

    def _prepare(self, path: Path) -> None:
        with LIBRARIES.lock:
            self._file = netCDF4.Dataset(path, "w", format=self.version)
            for name, stored in self.fields.items():
                self._add_field(name, stored)

    def _add_field(self, name: str, stored: Stored) -> None:
        ndim, axes = len(stored.shape), stored.axes
        names = [axis.name for axis in axes]
        for axis, size in zip(axes, stored.shape, strict=True):
            self._add_axis(name, axis, size)
        # a field of one channel needs no axis for it where the others are seen to be spatial
        unclear = spatial_axes(names, [n in SPATIAL for n in names]) != ndim
        if stored.leading and (stored.channels > 1 or unclear):
            channel = self._file.dimensions.get("channel")
            other = channel is not None and channel.size != stored.channels
            names.insert(0, f"channel_{stored.channels}" if other else "channel")
            self._add_axis(name, Axis(names[0]), stored.channels)
        if stored.frames is not None:
            frames = stored.frame_axis or Axis("time")
            names.insert(0, frames.name)
            self._add_axis(name, frames, stored.frames)
        try:
            item = self._file.createVariable(name, stored.dtype, names, fill_value=False)
        except (TypeError, RuntimeError) as error:
            raise SaveError(
                f"{self.version} cannot hold field {name!r} of dtype {stored.dtype}: {error}; "
                f"write it as float32 or float64"
            ) from error
        item.setncatts(dict(stored.attrs))
        if stored.units is not None:
            item.units = stored.units

    def _add_axis(self, field: str, axis: Axis, size: int) -> None:
        if axis.name in self._file.dimensions:
            found = self._file.dimensions[axis.name].size
            if found != size:
                raise SaveError(
                    f"axis {axis.name!r} of field {field!r} has {size} cells, but {found} in "
                    f"another field of {self.path}; name their axes differently, or write two files"
                )
            return
        self._file.createDimension(axis.name, size)
        if axis.values is not None:
            values = np.asarray(axis.values)
            # other files may have another byte order, or say so
            values = values.astype(values.dtype.newbyteorder("="))
            coord = self._file.createVariable(axis.name, values.dtype, (axis.name,))
            coord[:] = values
            coord.setncatts(axis.attributes)

    def _put(self, stored: Stored, index: tuple[slice, ...], values: NDArray[Any]) -> None:
        with LIBRARIES.lock:
            variable = self._file[stored.name]
            if variable.ndim == len(index):
                variable[index] = values
            else:
                variable[index[1:]] = values[0]

    def _close(self) -> None:
        with LIBRARIES.lock:
            if self._file.isopen():
                self._file.close()
