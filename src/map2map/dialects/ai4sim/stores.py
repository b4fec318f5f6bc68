"""What is in a Zarr store of weather, and which of it settings ask for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import RecipeError, SourceError, near_names
from map2map.times import Times, decode, ends, select

__all__ = ["Recipe", "Store", "dates", "hours", "opened_store"]

WHERE = "WeatherBench 2 (weatherbench2.readthedocs.io); or `m2m simulate vortex_weather`"
"""Where the data come from."""

MASKS = (
    "geopotential_at_surface", "high_vegetation_cover", "lake_cover", "lake_depth",
    "land_sea_mask", "low_vegetation_cover", "soil_type", "type_of_high_vegetation",
    "type_of_low_vegetation",
)  # fmt: skip
"""Static variables that the collection knows."""

SPACE = ("latitude", "longitude")

Recipe = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """What the settings take from a Zarr store.

    Args:
        path: The store.
        shape: Latitudes and longitudes.
        upper: Variables on levels, in the order of the network's channels.
        surface: Variables at the surface, likewise.
        masks: Static variables, likewise.
        levels: Pressures [hPa] of the channels of a variable on levels.
        part: Which of the store's levels these are, first and one behind the last.
        whole: Whether these are all.
        times: Of the frames.
    """

    path: Path
    shape: tuple[int, int]
    upper: tuple[str, ...]
    surface: tuple[str, ...]
    masks: tuple[str, ...]
    levels: tuple[int, ...]
    part: tuple[int, int]
    whole: bool
    times: Times

    @classmethod
    def of(cls, of_data: Mapping[str, Any]) -> "Store":
        """Look into the store that settings name.

        Raises:
            SourceError: If there is none.
            RecipeError: If it does not have what they ask for.
        """
        if of_data["zarr_store"] is None:
            raise RecipeError(f"data.init_args.zarr_store is missing; data are at {WHERE}")
        path = Path(str(of_data["zarr_store"]))
        if not path.is_dir():
            raise SourceError(
                f"there is no store {path} on this machine (data.init_args.zarr_store); real data "
                f"are at {WHERE}"
            )
        # sorted, as the collection's networks have them
        upper, surface, masks = (
            tuple(sorted(names_of(key, of_data[key])))
            for key in ("plevel_variables", "surface_variables", "constant_mask_list")
        )
        for mask in masks:
            if mask not in MASKS:
                raise RecipeError(
                    f"data.init_args.constant_mask_list names {mask!r}, which is no mask of the "
                    f"collection's{near_names(mask, MASKS)}; there are {', '.join(MASKS)}"
                )
        try:
            opened = opened_store(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{path} cannot be read as a Zarr store: {' '.join(str(error).split())}"
            ) from error
        with opened:
            for names, dims in (
                (upper, ("time", "level", *SPACE)),
                (surface, ("time", *SPACE)),
                (masks, SPACE),
            ):
                for name in names:
                    check_variable(path, opened, name, dims)
            for name in ("time", "level", *SPACE):
                if name not in opened.coords:
                    raise SourceError(f"{path} has no coordinate {name}")
            part = part_of(path, of_data["plevels"], opened["level"].values)
            attrs = opened["time"].attrs
            calendar = str(attrs.get("calendar", "standard"))
            times = decode(opened["time"].values, attrs.get("units"), calendar)
            return cls(
                path,
                (opened.sizes["latitude"], opened.sizes["longitude"]),
                upper,
                surface,
                masks,
                tuple(int(level) for level in opened["level"].values[slice(*part)]),
                part,
                part == (0, opened.sizes["level"]),
                times,
            )

    def frames(self, key: str, value: Any) -> NDArray[np.intp]:
        """The frames of the dates of a split.

        Args:
            key: Of the setting, for messages.
            value: Its dates.
        """
        wanted = dates(key, value)
        try:
            return select(self.times, wanted)
        except RecipeError as error:
            raise RecipeError(f"data.init_args.{key}: {error}") from error

    def files(self, name: str, only: Sequence[str] = (), later: str | None = None) -> Recipe | str:
        """Where a variable is, as a recipe says it.

        Args:
            name: The variable.
            only: The dates that are taken; none: all.
            later: How much later than the others it is read.
        """
        variable = name
        if name in self.upper and not self.whole:
            variable = f"{name}[{self.part[0]}:{self.part[1]}]"
        found: Recipe = {"pattern": str(self.path)}
        if later is not None or variable != name:
            found["variable"] = variable
        if only:
            found["only"] = {"time": list(only)}
        if later is not None:
            found["later"] = later
        return found if len(found) > 1 else str(self.path)

    def inputs(self, only: Sequence[str]) -> dict[str, Recipe | str]:
        """Where the inputs of some dates are: the first field says which."""
        names = (*self.upper, *self.surface, *self.masks)
        return {name: self.files(name, only if name == names[0] else ()) for name in names}

    def numbers(self, path: Path, variable: str) -> list[float] | None:
        """What a file of moments has for the levels; None if it has these and no others."""
        if variable not in self.upper or path.is_dir():
            return None
        with xr.open_dataset(path, decode_times=False) as opened:
            if variable not in opened or "level" not in opened[variable].coords:
                return None
            values = opened[variable]
            if values.level.values.tolist() == list(self.levels):
                return None
            missing = sorted(set(self.levels) - set(values.level.values.tolist()))
            if missing:
                raise RecipeError(f"{path} has no {variable} at {missing} hPa")
            found: list[float] = values.sel(level=list(self.levels)).values.astype(float).tolist()
            return found


def opened_store(path: Path) -> xr.Dataset:
    """A Zarr store, nothing of it read, numbers as they are stored."""
    # the fill value of a Zarr 2 array may be 0, which is a time, and a share of land, like others
    found: xr.Dataset = xr.open_zarr(
        path, decode_times=False, mask_and_scale=False, chunks=None, consolidated=False
    )
    return found


def names_of(key: str, value: Any) -> list[str]:
    """A list of names of variables, each once; none is none."""
    names = [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(f"data.init_args.{key} is {value!r}, but must be a list of variables")
    if len(set(names)) < len(names) or (not names and key != "constant_mask_list"):
        raise RecipeError(f"data.init_args.{key} is {names}, but must be variables, each once")
    return names


def check_variable(path: Path, opened: xr.Dataset, name: str, dims: tuple[str, ...]) -> None:
    """Refuse a store that lacks a variable, or has it along other axes."""
    if name not in opened:
        there = [str(found) for found in opened.data_vars]
        raise SourceError(f"{path} has no variable {name!r}{near_names(name, there)}")
    if opened[name].dims != dims:
        raise SourceError(
            f"{name!r} of {path} has the axes {', '.join(map(str, opened[name].dims))}, but must "
            f"have {', '.join(dims)}, in this order"
        )


def part_of(path: Path, wanted: Any, there: Any) -> tuple[int, int]:
    """Which levels of a store are wanted, as first and one behind the last."""
    has = [int(level) for level in there]
    if not isinstance(wanted, list) or not wanted:
        raise RecipeError(f"data.init_args.plevels is {wanted!r}, but must be a list of levels")
    missing = [level for level in wanted if level not in has]
    if missing:
        raise RecipeError(
            f"data.init_args.plevels asks for {missing} hPa, but {path} has {has}; say "
            f"--data.plevels '{has}'"
        )
    first = has.index(wanted[0])
    if has[first : first + len(wanted)] != wanted:
        raise RecipeError(
            f"data.init_args.plevels are {wanted}, which are not neighbors in {path}, of {has}; "
            f"write a store of these levels, in this order (xarray: "
            f"data.sel(level={wanted}).to_zarr(...))"
        )
    return first, first + len(wanted)


def dates(key: str, value: Any) -> list[str]:
    """Dates of a split, as a recipe has them.

    >>> dates("train_time", "slice('2019-01-01','2020-03-25')"), dates("test_time", [2018, 2020])
    (['2019-01-01:2020-03-25'], ['2018', '2020'])

    Args:
        key: For messages.
        value: A year or date, Python's slice of two as a text, or a list of these.

    Raises:
        RecipeError: If it is none of these.
    """
    wanted = value if isinstance(value, list) else [value]
    found = []
    for each in wanted:
        text = str(each).strip()
        match = re.fullmatch(r"slice\((.*)\)", text, re.DOTALL)
        if match:
            parts = [part.strip().strip("'\"") for part in match[1].split(",")]
            if len(parts) == 3 and parts[2] == "None":
                parts.pop()
            if len(parts) > 2:
                raise RecipeError(
                    f"data.init_args.{key}: {text} has a step, but the step of frames is "
                    f"train_time_step; write slice('2019-01-01', '2020-03-25')"
                )
            # of one argument, Python's slice ends there
            parts = ["None", *parts] if len(parts) == 1 else parts
            text = ":".join("" if part == "None" else part for part in parts)
        try:
            ends(text)
        except RecipeError as error:
            raise RecipeError(
                f"data.init_args.{key} is {value!r}: {error}; or as a text, in quotation marks, "
                f"\"slice('2019-01-01', '2020-03-25')\""
            ) from error
        found.append(text)
    if not found:
        raise RecipeError(f"data.init_args.{key} is empty; give a year, or a slice of two dates")
    return found


def hours(key: str, value: Any) -> int:
    """A step in whole hours."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RecipeError(f"data.init_args.{key} is {value!r}, but must be hours, 1 or more")
    return value
