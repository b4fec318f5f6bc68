"""xarray at the edges: a Dataset of inputs to a Dataset of targets, coordinates and units kept."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.arrays import Applicable, Settings, apply_arrays, domain_of_input
from map2map.errors import FieldError, GeometryError, near_names
from map2map.fields import Field, FieldSet, field_channels, same_units
from map2map.grids import Domain, Grid
from map2map.physics.spacing import step_of
from map2map.readers import resolve
from map2map.sources import Axis
from map2map.styles import style_of, warn_outside
from map2map.tiling import Tiling

__all__ = ["apply_dataset", "check_units", "grid_attributes", "grid_declared", "moved_coordinate"]


def apply_dataset(
    emulator: Applicable,
    data: xr.Dataset,
    domain: Domain | None = None,
    settings: Settings | None = None,
    *,
    other_grid: bool = False,
) -> xr.Dataset:
    """Apply an emulator to the variables of a Dataset.

    The last axes of a variable are those of the grid; before them comes that of the channels, if
    there are several; those before that (time, say) are gone through one by one.

    Args:
        emulator: The emulator.
        data: Has a variable for each of its inputs.
        domain: What lies beyond the edges; default: what the attributes say, or the training's.
        settings: How it is applied.
        other_grid: Whether periodic axes and spacing may differ from the training's.

    Raises:
        FieldError: If a variable is missing, or has other units or channels.
        GeometryError: If grids do not fit.
    """
    ndim = emulator.ndim
    _, names = resolve(emulator.inputs.names, emulator.derived, [str(name) for name in data])
    known = emulator.inputs.names
    styles = styles_in(emulator, data)
    fields = [emulator.inputs[n] if n in known else Field(n, channels=1) for n in names]
    variables = {field.name: variable(data, field, ndim) for field in fields}
    first = variables[fields[0].name]
    space, extra = first.dims[-ndim:], leading(fields[0], first, ndim)
    for field in fields:
        array = variables[field.name]
        if (array.dims[-ndim:], leading(field, array, ndim)) != (space, extra):
            raise GeometryError(
                f"field {field.name!r} has the axes {array.dims}, but {first.name!r} has "
                f"{first.dims}; "
                f"let them agree but for that of the channels"
            )
    spacing = [step_of(data.coords[axis].values if axis in data.coords else None) for axis in space]
    domain = domain or grid_declared(data.attrs, emulator.domain)
    shape = tuple(data.sizes[axis] for axis in space)
    domain_of_input(emulator, domain, spacing, shape=shape, other_grid=other_grid)
    outer = tuple(data.sizes[axis] for axis in extra)
    along = [
        Axis(str(axis), data.coords[axis].values if axis in data.coords else None) for axis in space
    ]
    results: dict[str, list[NDArray[Any]]] = {name: [] for name in emulator.targets.names}
    places = list(np.ndindex(*outer))
    rows = [{n: style_at(n, value, extra, at) for n, value in styles.items()} for at in places]
    warn_outside(emulator, [style_of(emulator, row) for row in rows])
    for where, row in zip(places, rows, strict=True):
        values = {name: array.values[where] for name, array in variables.items()} | row
        for name, value in apply_arrays(emulator, values, domain, settings, along).items():
            results[name].append(value)
    grid = domain.grid(tuple(data.sizes[axis] for axis in space))
    tiling = Tiling(grid, emulator.footprint)
    out = xr.Dataset(attrs=data.attrs | grid_attributes(grid))
    for field in emulator.targets:
        if field.name in first.dims:
            raise FieldError(
                f"the emulator gives {field.name!r}, but this is also the name of an axis of the "
                f"Dataset; rename the axis (Dataset.rename)"
            )
        channels = field_channels(field)
        shape = (*outer, *(() if channels == 1 else (channels,)), *tiling.shape)
        axes = () if channels == 1 else (component_axis(field, emulator.inputs, variables, ndim),)
        out[field.name] = (
            (*extra, *axes, *space),
            np.stack(results[field.name]).reshape(shape),
            {"units": field.units},
        )
    return out.assign_coords(coordinates(data, out, space, tiling))


def styles_in(emulator: Applicable, data: xr.Dataset) -> dict[str, Any]:
    """The styles that a Dataset tells, as variables, coordinates or attributes.

    Raises:
        FieldError: If one is not told, or in other units.
    """
    found = {}
    for field in emulator.styles:
        if field.name in data.variables:
            found[field.name] = data[field.name]
            check_units(field, data[field.name].attrs.get("units"))
        elif field.name in data.attrs:
            found[field.name] = data.attrs[field.name]
        else:
            raise FieldError(
                f"the Dataset has neither a variable nor an attribute {field.name!r}, a style that "
                f"the emulator takes{near_names(field.name, [*map(str, data), *data.attrs])}"
            )
    return found


def style_at(name: str, value: Any, extra: tuple[Hashable, ...], where: tuple[int, ...]) -> Any:
    """A style of one of the grids that a Dataset holds.

    Raises:
        FieldError: If it has an axis of the grid.
    """
    if not isinstance(value, xr.DataArray):
        return value
    others = [axis for axis in value.dims if axis not in extra]
    if others:
        raise FieldError(
            f"the style {name!r} is one number of a run, but the variable has the axes "
            f"{', '.join(map(str, others))} beside {', '.join(map(str, extra)) or 'none'}"
        )
    at = dict(zip(extra, where, strict=True))
    return value.isel({axis: at[axis] for axis in value.dims}).values


def variable(data: xr.Dataset, field: Field, ndim: int) -> xr.DataArray:
    """A variable that is an input, checked."""
    if field.name not in data.data_vars:
        raise FieldError(
            f"the Dataset has no variable {field.name!r}, which the emulator takes"
            f"{f' in {field.units}' if field.units else ''}"
            f"{near_names(field.name, map(str, data.data_vars))}"
        )
    array = data[field.name]
    channels = field_channels(field)
    axes = ndim + (channels > 1)
    if array.ndim < axes or (channels > 1 and array.shape[-axes] != channels):
        raise FieldError(
            f"variable {field.name!r} has the axes {dict(array.sizes)}, but the emulator takes "
            f"{channels} channels on {ndim} axes, which are the last: "
            f"(…{', channel' if channels > 1 else ''}, *space)"
        )
    check_units(field, array.attrs.get("units"))
    return array


def leading(field: Field, array: xr.DataArray, ndim: int) -> tuple[Hashable, ...]:
    """The axes before those of channels and grid."""
    return array.dims[: array.ndim - ndim - (field_channels(field) > 1)]


def component_axis(
    field: Field, inputs: FieldSet, variables: Mapping[str, xr.DataArray], ndim: int
) -> Hashable:
    """A name for the axis of a target's channels: that of an input that has as many."""
    for entry in inputs:
        if entry.channels == field.channels and entry.name in variables:
            return variables[entry.name].dims[-ndim - 1]
    return f"{field.name}_component"


def check_units(field: Field, found: Any) -> None:
    """Refuse units that are not those the emulator has learnt.

    Raises:
        FieldError: If they differ.
    """
    if found is not None and field.units is not None and not same_units(str(found), field.units):
        raise FieldError(
            f"field {field.name!r} is in units of {str(found)!r}, but the emulator takes "
            f"{field.units!r}; convert it, or correct its attribute `units`"
        )


def grid_attributes(grid: Grid) -> dict[str, Any]:
    """What an output says of its grid, so that what was made up can be told from what was not."""
    beyond = ["interior" if side == "refuse" else side for side in grid.beyond]
    return {"grid_beyond_edges": ", ".join(beyond)}


def grid_declared(attrs: Mapping[str, Any], learnt: Domain) -> Domain:
    """What an input's attributes say of its grid, or else what the emulator has learnt."""
    said = attrs.get("grid_beyond_edges")
    if not isinstance(said, str):
        return learnt
    periodic = [side.strip() == "periodic" for side in said.split(",")]
    return Domain(learnt.ndim, periodic, learnt.pad, learnt.spacing)


def coordinates(
    data: xr.Dataset, out: xr.Dataset, space: tuple[Hashable, ...], tiling: Tiling
) -> dict[Hashable, Any]:
    """The coordinates of an output."""
    kept: dict[Hashable, Any] = {}
    start, stop = tiling.domain.start, tiling.domain.stop
    cut = {axis: slice(a, b) for axis, a, b in zip(space, start, stop, strict=True)}
    for name, coord in data.coords.items():
        if not set(coord.dims) <= set(out.dims):
            continue
        if tiling.footprint.scale == 1 or not set(coord.dims) & set(space):
            kept[name] = coord.isel({a: cut[a] for a in coord.dims if a in cut})
        elif len(coord.dims) == 1:
            axis = space.index(coord.dims[0])
            values = moved_coordinate(coord.values, axis, tiling)
            if values is not None:
                kept[name] = (coord.dims, values, coord.attrs)
    return kept


def moved_coordinate(values: NDArray[Any], axis: int, tiling: Tiling) -> NDArray[Any] | None:
    """The coordinates of the output's cells; None if they cannot be told.

    Args:
        values: Of the input's cells on this axis.
        axis: The axis.
        tiling: Which cells get an output, and how fine.
    """
    start, stop, scale = tiling.domain.start[axis], tiling.domain.stop[axis], tiling.footprint.scale
    if scale == 1:
        return values[start:stop]
    if values.dtype.kind not in "fiu" or len(values) < 2:
        return None
    centers = start + (np.arange(scale * (stop - start)) + 0.5) / scale - 0.5
    # between the two nearest cells; at the ends, as between the last two
    left = np.clip(np.floor(centers).astype(int), 0, len(values) - 2)
    part = centers - left
    moved: NDArray[Any] = values[left] * (1 - part) + values[left + 1] * part
    return moved
