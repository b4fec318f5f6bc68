"""What every metric starts from: prediction and truth made alike, and which cells count."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from map2map.errors import FieldError, GeometryError
from map2map.physics.spacing import Spacing, cell_sizes, step_of
from map2map.typing import Array, Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Pair", "Values", "is_latitude", "pair", "score", "slabs"]

Values = Union[Array, "Tensor", xr.DataArray]
"""A field of shape (channel, *space). A DataArray's axis of channels is called ``channel`` or
``component``, and may be missing if there is one."""

CHANNELS = ("channel", "component")

SLAB = 1 << 21
"""Cells that are taken at a time."""


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth, both of shape (channel, *space), in physical units.

    Args:
        prediction: Values [u].
        truth: Values [u].
        counts: Cells that count, shape (*space); None if all do.
        sizes: Cell size of each axis [L].
        periodic: Whether each axis continues at its other side.
        vector: Whether the channels are the components of a vector, one per axis.
        latitude: Of every cell [degrees north], shape (*space); None if it is not known.
        usual: The climatology [u], of the truth's shape; None if it is not known.
    """

    prediction: Array
    truth: Array
    counts: NDArray[np.bool_] | None
    sizes: tuple[float, ...]
    periodic: tuple[bool, ...]
    vector: bool
    latitude: Array | None = None
    usual: Array | None = None

    @property
    def space(self) -> Shape:
        """Cells per axis."""
        return self.truth.shape[1:]

    @property
    def whole(self) -> bool:
        """Whether all cells count and all axes are periodic, as for a Fourier transform."""
        return self.counts is None and all(self.periodic)

    def channels(self) -> Iterator[tuple[Array, Array]]:
        """Prediction and truth of one channel after another, in the cells that count, flat."""
        for p, t in zip(self.prediction, self.truth, strict=True):
            yield (
                (p.ravel(), t.ravel()) if self.counts is None else (p[self.counts], t[self.counts])
            )


def pair(
    prediction: Values,
    truth: Values,
    spacing: Spacing | None = None,
    *,
    periodic: bool | Sequence[bool] = True,
    vector: bool = False,
    mask: Values | NDArray[np.bool_] | None = None,
    latitude: ArrayLike | None = None,
    climatology: Values | None = None,
) -> Pair:
    """A prediction and its truth, checked; these are the arguments of every metric.

    Args:
        prediction: Values [u], shape (channel, *space): an array, a tensor or a DataArray.
        truth: Values [u], of the same shape.
        spacing: Cell size [L], one per axis or one for all; by default that of a DataArray's
            coordinates, else 1.
        periodic: Whether the field continues at its other side, one value or one per axis.
        vector: Whether the channels are the components of a vector, one per axis.
        mask: True for cells that count, shape (*space). Cells where truth or prediction is not
            finite never count.
        latitude: Of the cells [degrees north], of a shape that broadcasts to (*space); by default
            that of a DataArray's coordinates.
        climatology: What is usual [u], of the same shape as the truth.

    Raises:
        FieldError: If units or channels do not fit, or no cell counts.
        GeometryError: If shapes do not fit.
    """
    check_units(prediction, truth)
    if spacing is None:
        spacing = spacing_of(truth) or spacing_of(prediction) or 1.0
    p, t = as_channels(prediction), as_channels(truth)
    if p.shape != t.shape:
        raise GeometryError(f"the prediction has shape {p.shape}, but the truth {t.shape}")
    space = t.shape[1:]
    if not 1 <= len(space) <= 3:
        raise GeometryError(
            f"a field has shape (channel, *space) with 1 to 3 axes of space, not {t.shape}; "
            f"give a field of one channel a first axis of length 1"
        )
    if vector and len(t) != len(space):
        raise FieldError(
            f"a vector has one component per axis, but the field has {len(t)} channels on "
            f"{len(space)} axes"
        )
    wraps = (periodic,) * len(space) if isinstance(periodic, bool) else tuple(periodic)
    if len(wraps) != len(space):
        raise GeometryError(f"`periodic` needs 1 or {len(space)} values, not {len(wraps)}")
    counts = np.ones(space, bool) if mask is None else as_array(mask).astype(bool)
    if counts.shape != space:
        raise GeometryError(f"the mask has shape {counts.shape}, but the field {space} cells")
    usual = None if climatology is None else as_channels(climatology)
    if usual is not None and usual.shape != t.shape:
        raise GeometryError(f"the climatology has shape {usual.shape}, but the truth {t.shape}")
    for values in (*p, *t):
        counts = counts & np.isfinite(values)
    if not counts.any():
        raise FieldError("no cell of prediction and truth counts: all are masked or not finite")
    return Pair(
        p,
        t,
        None if counts.all() else counts,
        cell_sizes(spacing, len(space)),
        wraps,
        vector,
        latitudes(latitude_of(truth) if latitude is None else latitude, space),
        usual,
    )


def latitude_of(values: Values) -> Array | None:
    """Latitudes from a DataArray's coordinates, if it has some, one axis long."""
    if not isinstance(values, xr.DataArray):
        return None
    axes = [name for name in values.dims if name not in CHANNELS]
    for i, name in enumerate(axes):
        if name in values.coords and is_latitude(str(name), values[name].attrs.get("units")):
            return values[name].to_numpy().reshape(-1, *(1,) * (len(axes) - i - 1))
    return None


def is_latitude(name: str, units: str | None) -> bool:
    """Whether an axis is one of latitudes, by its units as the CF conventions have them, or name.

    A name counts unless there are units of something else.

    >>> is_latitude("y", "degrees_north"), is_latitude("lat", None), is_latitude("lat", "m")
    (True, True, False)
    """
    said = "" if units is None else str(units).lower().replace("degrees", "degree")
    north = said in ("degree_north", "degree_n", "degreen")
    return north or (said in ("", "degree") and name.lower() in ("lat", "latitude"))


def latitudes(degrees: ArrayLike | None, space: Shape) -> Array | None:
    """Latitudes of all cells, checked.

    Raises:
        GeometryError: If they are no latitudes, or of other cells.
    """
    if degrees is None:
        return None
    given = np.asarray(degrees, np.float64)
    if not (np.abs(given) <= 90).all():
        raise GeometryError("latitudes are numbers from -90 to 90 degrees north")
    try:
        return np.broadcast_to(given, space)
    except ValueError as error:
        raise GeometryError(
            f"latitudes of shape {given.shape} are not those of {space} cells"
        ) from error


def as_array(values: Any) -> NDArray[Any]:
    """The values on the host."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def as_channels(values: Values) -> Array:
    """The values, shape (channel, *space), in single or double precision."""
    if isinstance(values, xr.DataArray):
        named: Sequence[Hashable] = [name for name in CHANNELS if name in values.dims]
        values = values.transpose(named[0], ...) if named else values.expand_dims("channel")
    array = as_array(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    return array


def check_units(prediction: Values, truth: Values) -> None:
    """Refuse DataArrays of different units."""
    units = [
        values.attrs["units"]
        for values in (prediction, truth)
        if isinstance(values, xr.DataArray) and "units" in values.attrs
    ]
    if len(set(units)) > 1:
        raise FieldError(
            f"the prediction is in units of {units[0]!r}, but the truth in {units[1]!r}; "
            f"convert one of them"
        )


def spacing_of(values: Values) -> tuple[float, ...] | None:
    """Cell sizes from a DataArray's coordinates, if they are evenly spaced."""
    if not isinstance(values, xr.DataArray):
        return None
    sizes = []
    for name in values.dims:
        if name in CHANNELS:
            continue
        step = step_of(values[name].to_numpy() if name in values.coords else None)
        if step is None or math.isnan(step):
            return None
        sizes.append(abs(step))
    return tuple(sizes)


def score(
    value: Any, units: str, long_name: str, perfect: float | None, dims: Sequence[str] = ()
) -> xr.Variable:
    """A named score.

    Args:
        value: The number, or numbers along ``dims``.
        units: "1" if it has none; else a product of powers of "field", the units of the field, and
            "L", the unit of length, such as "field^2 L^3".
        long_name: What exactly it is.
        perfect: What it is for a perfect prediction; None if that depends on the truth.
        dims: Names of its axes.
    """
    attrs = {"units": units, "long_name": long_name}
    known = {} if perfect is None else {"perfect": float(perfect)}
    return xr.Variable(tuple(dims), np.asarray(value, np.float64), attrs | known)


def slabs(
    prediction: Array, truth: Array, counts: NDArray[np.bool_] | None
) -> Iterator[tuple[Array, Array]]:
    """Both a few million cells at a time, shape (channel, cells); only those that count."""
    rows = max(1, SLAB // max(1, truth[0, 0].size))
    for start in range(0, truth.shape[1], rows):
        part = slice(start, start + rows)
        p, t = (x[:, part].reshape(len(truth), -1) for x in (prediction, truth))
        if counts is None:
            yield p, t
        else:
            kept = counts[part].ravel()
            yield p[:, kept], t[:, kept]
