"""How the runs of `air_sea_fluxes` are written: NetCDF after the CF conventions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np

from map2map.files import replacing
from map2map.typing import Array

__all__ = ["About", "write"]


@dataclass(frozen=True)
class About:
    """What is told of a variable.

    Args:
        standard_name: Its name in the CF conventions.
        units: Its units.
        masked: Whether it is NaN on land.
        static: Whether it has no axis of time.
    """

    standard_name: str
    units: str
    masked: bool = False
    static: bool = False


def write(
    path: Path,
    grid: tuple[Array, Array],
    hours: float,
    about: Mapping[str, About],
    frames: Sequence[Mapping[str, Array]],
) -> None:
    """Write the fields of a run, all or nothing.

    Args:
        path: The file.
        grid: Latitudes and longitudes of the centers of cells [degrees].
        hours: From time to time.
        about: The variables.
        frames: Their values at each time, shape (lat, lon) each.
    """
    with replacing(path) as part, netCDF4.Dataset(part, "w") as file:
        file.Conventions = "CF-1.11"
        file.title = "air and sea, simulated"
        file.createDimension("bnds", 2)
        axes = (("lat", "latitude", "degrees_north"), ("lon", "longitude", "degrees_east"))
        for (name, standard_name, units), values in zip(axes, grid, strict=True):
            add_axis(file, name, values, standard_name, units)
            file[name].bounds = f"{name}_bnds"
            half = (values[1] - values[0]) / 2
            bounds = file.createVariable(f"{name}_bnds", "f8", (name, "bnds"))
            bounds[:] = np.stack([values - half, values + half], axis=1)
        times = hours * np.arange(len(frames))
        add_axis(file, "time", times, "time", "hours since 2000-01-01 00:00:00")
        file["time"].calendar = "standard"
        for name, known in about.items():
            dimensions = ("lat", "lon") if known.static else ("time", "lat", "lon")
            fill = np.float32(np.nan) if known.masked else False
            item = file.createVariable(name, "f4", dimensions, zlib=True, fill_value=fill)
            item.standard_name, item.units = known.standard_name, known.units
            item[:] = (
                frames[0][name] if known.static else np.stack([frame[name] for frame in frames])
            )


def add_axis(
    file: netCDF4.Dataset, name: str, values: Array, standard_name: str, units: str
) -> None:
    """A dimension with its coordinates."""
    file.createDimension(name, len(values))
    coordinate = file.createVariable(name, "f8", (name,))
    coordinate[:] = values
    coordinate.standard_name, coordinate.units = standard_name, units
