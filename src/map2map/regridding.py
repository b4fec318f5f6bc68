"""Conservative regridding between grids of latitudes and longitudes, land left out.

A cell of the target gets the mean of the cells of the source that it overlaps, each as much as the
area of the overlap on the sphere. That area is the product of the overlap in longitude and that in
the sine of latitude, so the weights are two small matrices, and xarray-regrid applies them, lazily
where the data are lazy. They are made here: xarray-regrid's own take cells for points (what lies
beyond the outermost centers is lost) and the sphere for a cylinder within each cell.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from xarray_regrid.methods.conservative import apply_weights

from map2map.errors import GeometryError
from map2map.typing import Array

__all__ = ["Axes", "Regridder", "cell_bounds"]

LATITUDES = {"degrees_north", "degree_north", "degreen", "degrees_n", "degree_n"}
LONGITUDES = {"degrees_east", "degree_east", "degreee", "degrees_e", "degree_e"}
NAMES = {"lat": "latitude", "latitude": "latitude", "lon": "longitude", "longitude": "longitude"}

ROUNDING = 1e-9
"""How much of a cell may be missing for want of digits."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Latitudes and longitudes of a grid: names, centers and bounds of its cells.

    Args:
        lat: Coordinate of the latitudes [degrees]; north or south first.
        lon: Coordinate of the longitudes [degrees].
        lat_bounds: Southern and northern edge of each cell, shape (lat, 2).
        lon_bounds: Western and eastern edge, shape (lon, 2).
    """

    lat: xr.DataArray
    lon: xr.DataArray
    lat_bounds: Array
    lon_bounds: Array

    @classmethod
    def of(cls, data: xr.DataArray | xr.Dataset, bounds: xr.Dataset | None = None) -> "Axes":
        """Those of a variable or of a whole file.

        Args:
            data: With one axis of latitudes and one of longitudes, told by their units or names.
            bounds: The file, whose variables of bounds (CF conventions) are used; without any,
                edges lie midway between centers, and those outside as far as inside.

        Raises:
            GeometryError: If there are no such axes, or they do not ascend or descend.
        """
        lat, lon = axis_of(data, "latitude"), axis_of(data, "longitude")
        return cls(lat, lon, np.clip(cell_bounds(lat, bounds), -90, 90), cell_bounds(lon, bounds))

    @property
    def area(self) -> Array:
        """Area of the cells on the sphere of radius 1, shape (lat, lon)."""
        height = np.diff(np.sin(np.radians(self.lat_bounds)), axis=1)
        area: Array = height * np.diff(np.radians(self.lon_bounds), axis=1).T
        return area


@dataclass(frozen=True, eq=False)
class Regridder:
    """Brings fields from one grid to another.

    Args:
        source: The grid that fields are on.
        target: The grid that they shall be on.
        least: How much of the area of a target's cell must have values, for it to get one; 0: any
            (a millionth). What has none in the source (NaN) or lies outside its grid has no part in
            the mean.

    A mean over all of a cell conserves the integral: the sum over cells of area times value is that
    of the source. Where part of a cell has no values the mean is that of the rest, and the integral
    over the valid part is conserved if it is multiplied by `valid_share`.
    """

    source: Axes
    target: Axes
    least: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise GeometryError(f"`least` is a share of a cell's area, 0 to 1, not {self.least}")

    @cached_property
    def weights(self) -> dict[Hashable, xr.DataArray]:
        """Shares of the target's cells that lie in the source's, one matrix per axis.

        They add up to less than 1 where a cell reaches beyond the source's grid.
        """
        north = [np.sin(np.radians(axes.lat_bounds)) for axes in (self.source, self.target)]
        # round the globe: a cell may be met one turn further
        turns = [shares(self.source.lon_bounds + 360 * n, self.target.lon_bounds) for n in TURNS]
        return {
            "lat": xr.DataArray(shares(*north), dims=("lat", "target_lat")),
            "lon": xr.DataArray(np.sum(turns, axis=0), dims=("lon", "target_lon")),
        }

    def __call__(self, field: xr.DataArray, counts: xr.DataArray | None = None) -> xr.DataArray:
        """Regrid a field; its other axes stay, and it stays lazy if it is.

        Args:
            field: With the axes of the source.
            counts: Cells of the source that are used: those not 0; default: all that are not NaN.

        Returns:
            On the target, of the same dtype, NaN where too little is known. Axes are called as in
            the target.

        Raises:
            GeometryError: If the field is not on the source's grid.
        """
        names = self.source.lat.name, self.source.lon.name
        shape = tuple(field.sizes.get(name) for name in names)
        if shape != self.source.area.shape:
            raise GeometryError(
                f"{field.name!r} has {dict(field.sizes)} cells, but is regridded from "
                f"{self.source.area.shape} along {names}"
            )
        if counts is not None:
            unlike = [name for name in names if counts.sizes.get(name) != field.sizes[name]]
            if unlike:
                raise GeometryError(
                    f"what counts of {field.name!r} has {dict(counts.sizes)} cells, not those of "
                    f"the field, {dict(field.sizes)}"
                )
            # coordinates of one grid may differ by rounding from file to file
            counts = counts.assign_coords({name: field[name] for name in names})
            field = field.where(counts.fillna(0) != 0)
        values = field.astype(np.float64)
        if values.chunks:
            # each block is regridded whole: as many times are in memory as a chunk has
            values = values.chunk(dict.fromkeys(names, -1))
        cells = [f"{name}_of_target" for name in names]
        found = xr.apply_ufunc(
            self._regrid,
            values,
            input_core_dims=[list(names)],
            output_core_dims=[cells],
            exclude_dims=set(names),
            dask="parallelized",
            dask_gufunc_kwargs={
                "output_sizes": dict(zip(cells, self.target.area.shape, strict=True))
            },
            output_dtypes=[np.float64],
        )
        axes = self.target.lat, self.target.lon
        found = found.rename(dict(zip(cells, (axis.name for axis in axes), strict=True)))
        result: xr.DataArray = found.assign_coords({axis.name: axis for axis in axes})
        result.attrs = dict(field.attrs)
        return result.astype(field.dtype).rename(field.name)

    def _regrid(self, values: Array) -> Array:
        """Values in memory, their last axes those of the grid."""
        names = [f"axis_{i}" for i in range(values.ndim - 2)] + ["lat", "lon"]
        # a cell without any values is 0 / 0, which has no value, as it should
        with np.errstate(invalid="ignore"):
            found = apply_weights(
                xr.DataArray(values, dims=names),
                self.weights,
                skipna=True,
                nan_threshold=1 - max(self.least - ROUNDING, 0),
            )
        regridded: Array = found.to_numpy()
        return regridded

    def valid_share(self, counts: xr.DataArray) -> xr.DataArray:
        """How much of each of the target's cells has values, 0 to 1.

        Args:
            counts: The source's cells that have: those not 0 and not NaN.
        """
        known = (counts.fillna(0) != 0).astype(np.float64)
        covered = np.multiply.outer(*(w.to_numpy().sum(axis=0) for w in self.weights.values()))
        share: xr.DataArray = Regridder(self.source, self.target, 0.0)(known).fillna(0.0) * covered
        return share


TURNS = (-1, 0, 1)
"""How many times 360 degrees longitudes may differ by name alone."""


def shares(source: Array, target: Array) -> Array:
    """How much of each interval of the target lies in each of the source, shape (source, target).

    Args:
        source: Lower and upper ends, shape (source, 2).
        target: Likewise.
    """
    low = np.maximum(source[:, None, 0], target[None, :, 0])
    high = np.minimum(source[:, None, 1], target[None, :, 1])
    overlap: Array = np.maximum(high - low, 0) / (target[:, 1] - target[:, 0])
    return overlap


def axis_of(data: xr.DataArray | xr.Dataset, kind: str) -> xr.DataArray:
    """The coordinate of one axis, of latitudes or of longitudes.

    Raises:
        GeometryError: If there is not exactly one.
    """
    known = LATITUDES if kind == "latitude" else LONGITUDES
    found = [
        name
        for name in data.dims
        if name in data.coords
        and (
            str(data[name].attrs.get("units", "")).lower() in known
            or NAMES.get(str(name).lower()) == kind
        )
    ]
    if len(found) != 1:
        raise GeometryError(
            f"regridding needs one axis of {kind}s, told by its units or name, but there are "
            f"{found or 'none'} among the axes {list(data.dims)}; curvilinear grids and meshes "
            f"have to be brought to such axes before"
        )
    return data[found[0]]


def cell_bounds(axis: xr.DataArray, file: xr.Dataset | None = None) -> Array:
    """Lower and upper edges of the cells of an axis, shape (cell, 2).

    Args:
        axis: Centers of cells.
        file: Where its bounds are, if its attribute ``bounds`` names some.

    Raises:
        GeometryError: If centers neither ascend nor descend, or the cells of bounds do not lie side
            by side.
    """
    centers = axis.to_numpy().astype(np.float64)
    name = axis.attrs.get("bounds")
    if file is not None and name in file:
        edges = np.sort(file[name].to_numpy().astype(np.float64), axis=1)
    elif len(centers) < 2:
        raise GeometryError(
            f"axis {axis.name!r} has one cell, whose edges are not known without bounds"
        )
    else:
        middle = (centers[1:] + centers[:-1]) / 2
        ends = 2 * centers[0] - middle[0], 2 * centers[-1] - middle[-1]
        around = np.concatenate([ends[:1], middle, ends[1:]])
        edges = np.sort(np.stack([around[:-1], around[1:]], axis=1), axis=1)
    steps = np.diff(centers)
    side_by_side = edges if len(steps) == 0 or steps[0] > 0 else edges[::-1]
    apart = side_by_side[1:, 0] - side_by_side[:-1, 1]
    if not (np.all(steps > 0) or np.all(steps < 0)) or np.abs(apart).max(initial=0) > 1e-4:
        raise GeometryError(
            f"the cells of axis {axis.name!r} must lie side by side, in order: "
            f"{centers[:3].tolist()}, …; sort them, or mend their bounds"
        )
    return edges
