"""A small weather: eddies of shallow water on a rotating sphere, told as a reanalysis of the air.

The dynamics are those of `physics.shallow_water` over mountains, relaxed in `RELAXED` towards a jet
u = `JET` sin^2(2 latitude) in balance with its geopotential, and stirred at wavenumbers `STIRRED`
by random torques that last `PERSISTENCE` (after Vallis, Gerber, Kushner & Cash 2004, J. Atmos. Sci.
61, 264). On every level the wind carries two tracers, temperature and humidity, which are relaxed
towards what is warm and moist at the equator and over the sea.

From layer and tracers, with phi' the geopotential of the surface of the layer less its mean:

- the wind on a level p is A V with A(p) = 1 + `SHEAR` ln(500 hPa / p): equivalent barotropic
  (Charney 1949, J. Meteor. 6, 371);
- geopotential is that of the ICAO standard atmosphere, and A phi';
- temperature is that of the standard atmosphere, `SHEAR` phi' / R, which is in hydrostatic balance
  with the geopotential (dPhi/dln p = -R T), and the tracer, which is not: it is carried alone;
- pressure at sea level is p0 exp(A(1000 hPa) phi' / (R T0)); the wind at 10 m is slower than that
  of 1000 hPa and turned towards low pressure, more so over land; the temperature at 2 m follows
  that of the lowest level with 6.5 K/km, and over land the hour of the day.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from map2map.errors import RecipeError, SaveError
from map2map.files import refuse_existing, replacing
from map2map.physics.harmonics import Harmonics, Spectrum
from map2map.physics.shallow_water import RADIUS, ShallowWater, State
from map2map.times import duration, period
from map2map.typing import Array

__all__ = ["Setting", "simulate"]

log = logging.getLogger(__name__)

DAY = 86400.0

JET, RELAXED = 45.0, 10 * DAY
"""Speed that flows are relaxed to [m/s], and in which time [s]."""

STIRRED, PERSISTENCE, TORQUE = (6, 11), 2 * DAY, 1.2e-10
"""Wavenumbers from and to, how long a torque lasts [s], and its deviation [1/s2]."""

DEPTH = 3e4
"""Mean geopotential of the layer's surface [m2/s2]: of gravity waves of 170 m/s."""

MOUNTAINS = 1.2e4
"""Geopotential of the highest [m2/s2]."""

SHEAR = 0.6
"""How much faster the wind is at a pressure e times lower than 500 hPa."""

WARMTH, WARMED, MOISTENED = 40.0, 12 * DAY, 5 * DAY
"""What the equator is warmer than the poles at 1000 hPa [K]; times of relaxation of tracers [s]."""

HYPERDIFFUSION = 0.25 * DAY
"""In which the smallest scales fade [s]."""

GAS, LAPSE, GRAVITY = 287.05, 0.0065, 9.80665
T0, P0 = 288.15, 1013.25
"""Of the standard atmosphere: gas constant [J/kg/K], lapse rate [K/m], gravity [m/s2], temperature
[K] and pressure [hPa] at sea level."""

DIURNAL = 6.0
"""Amplitude of the hours of the day in the temperature over land at the equator [K]."""

STEPS = 6
"""Time steps between frames."""

UPPER = {
    "geopotential": "m**2 s**-2",
    "specific_humidity": "kg kg**-1",
    "temperature": "K",
    "u_component_of_wind": "m s**-1",
    "v_component_of_wind": "m s**-1",
}
SURFACE = {
    "10m_u_component_of_wind": "m s**-1",
    "10m_v_component_of_wind": "m s**-1",
    "2m_temperature": "K",
    "mean_sea_level_pressure": "Pa",
}
STATIC = {
    "geopotential_at_surface": "m**2 s**-2",
    "land_sea_mask": "(0 - 1)",
    "soil_type": "~",
}
SPACE = ("latitude", "longitude")
HOURS = 6
"""Between frames."""


@dataclass(frozen=True)
class Setting:
    """Grid and times.

    Args:
        latitudes: Rows of cells, evenly between the poles.
        longitudes: Cells of a row, the first at 0 degrees east.
        levels: Pressures [hPa], ascending.
        truncation: Largest wavenumber of the dynamics, 11 or more; below half of the longitudes.
        spin_up: Days that are simulated before the first frame.
        statistics: Share of the frames, from the first on, that mean and deviation are taken of.
    """

    latitudes: int = 24
    longitudes: int = 48
    levels: list[int] = field(default_factory=lambda: [250, 500, 700, 850])
    truncation: int = 15
    spin_up: float = 20.0
    statistics: float = 0.75

    def __post_init__(self) -> None:
        if self.latitudes < 4 or not STIRRED[1] <= self.truncation < self.longitudes / 2:
            raise RecipeError(
                f"the weather needs latitudes >= 4 and {STIRRED[1]} <= truncation < longitudes / "
                f"2, not {self.latitudes}, {self.truncation} and {self.longitudes}"
            )
        ascending = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if not (self.levels and ascending and self.levels[0] >= 150 and self.levels[-1] <= 1000):
            raise RecipeError(f"`levels` ascend, from 150 to 1000 hPa at most, not {self.levels}")
        if not (self.spin_up >= 0 and 0 < self.statistics <= 1):
            raise RecipeError(
                f"`spin_up` is 0 or more and `statistics` a share above 0, not {self.spin_up} and "
                f"{self.statistics}"
            )


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    days: int = 75,
    start: str = "2019-01-01",
    setting: Setting = DEFAULT,
    zarr_format: Literal[2, 3] = 2,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate a weather on a sphere, as a reanalysis would tell it.

    Writes ``weather.zarr``, a Zarr store as WeatherBench has them (consolidated, compressed by
    Blosc), float32: on levels (time, level, latitude, longitude) geopotential, specific_humidity,
    temperature, u_ and v_component_of_wind; at the surface (time, latitude, longitude)
    10m_u_component_of_wind, 10m_v_component_of_wind, 2m_temperature, mean_sea_level_pressure; and
    (latitude, longitude) geopotential_at_surface, land_sea_mask, soil_type. Frames are 6 hours
    apart. Beside it, ``mean.nc`` and ``std.nc`` have moments of all variables by their names, per
    level.

    All frames are in memory, some 100 bytes per cell of a frame.

    Args:
        out: Folder to write to.
        days: How long; 4 frames each.
        start: Date of the first frame.
        setting: Grid, levels and times.
        zarr_format: Of the store.
        seed: Of land, mountains and stirring.
        overwrite: Whether existing data may be replaced.

    Returns:
        The store and the two files.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If data exist, or cannot be written.
    """
    if days < 1 or seed < 0 or zarr_format not in (2, 3):
        raise RecipeError(
            f"simulate needs days >= 1, seed >= 0 and zarr_format 2 or 3, not days {days}, seed "
            f"{seed}, zarr_format {zarr_format}"
        )
    first = period(start)[0]
    paths = [out / name for name in ("weather.zarr", "mean.nc", "std.nc")]
    refuse_existing(paths, overwrite=overwrite)
    data = weather(setting, days * 24 // HOURS, first, seed)
    count = max(1, round(setting.statistics * data.sizes["time"]))
    known = data.isel(time=slice(0, count)).astype(np.float64)
    write_store(paths[0], data, zarr_format)
    for path, moment in zip(paths[1:], ("mean", "std"), strict=True):
        found = xr.Dataset(
            {
                name: getattr(values, moment)([d for d in values.dims if d != "level"])
                for name, values in known.data_vars.items()
            }
        )
        found.attrs["title"] = f"{moment} of the first {count} frames of weather.zarr"
        with replacing(path) as part:
            found.to_netcdf(part)
    log.info("simulated %d frames of 6 hours to %s", data.sizes["time"], out)
    return paths


def weather(setting: Setting, frames: int, first: np.datetime64, seed: int) -> xr.Dataset:
    """All frames, with coordinates and units."""
    rng = np.random.default_rng(seed)
    land = Land.draw(setting, rng)
    times = first + np.arange(frames) * duration(f"{HOURS}h")
    latitude = (np.arange(setting.latitudes) + 0.5) * 180 / setting.latitudes - 90
    places = {
        "time": times.astype("datetime64[ns]"),
        "level": np.array(setting.levels),
        "latitude": latitude,
        "longitude": np.arange(setting.longitudes) * 360 / setting.longitudes,
    }
    shape = setting.latitudes, setting.longitudes
    upper = {n: np.empty((frames, len(setting.levels), *shape), np.float32) for n in UPPER}
    surface = {n: np.empty((frames, *shape), np.float32) for n in SURFACE}
    air = Air(setting, land)
    for k, state in enumerate(states(air, frames, rng)):
        hour = (times[k] - times[k].astype("datetime64[D]")) / np.timedelta64(1, "h")
        for name, values in air.told(state, latitude, float(hour)).items():
            (upper if name in upper else surface)[name][k] = values
    data = xr.Dataset(coords=places, attrs={"title": "weather of shallow water, simulated"})
    data.attrs["parameters"] = json.dumps(asdict(setting) | {"seed": seed})
    static = land.told(latitude, setting.longitudes)
    for found, units, dims in (
        (upper, UPPER, ("time", "level", *SPACE)),
        (surface, SURFACE, ("time", *SPACE)),
        (static, STATIC, SPACE),
    ):
        for name, values in found.items():
            data[name] = (dims, values.astype(np.float32), {"units": units[name]})
    for name, unit in (
        ("level", "hPa"),
        ("latitude", "degrees_north"),
        ("longitude", "degrees_east"),
    ):
        data[name].attrs["units"] = unit
    return data


@dataclass(frozen=True)
class Land:
    """Land and mountains, as coefficients (m, n).

    Args:
        harmonics: Of the sphere.
        share: Of land in a cell, before it is cut to between 0 and 1.
        ground: Geopotential [m2/s2].
        soil: Kind of soil, a field of deviation 1.
    """

    harmonics: Harmonics
    share: Spectrum
    ground: Spectrum
    soil: Spectrum

    @classmethod
    def draw(cls, setting: Setting, rng: np.random.Generator) -> "Land":
        """Draw continents of wavenumbers to 5 with mountains in their middle, a third of all."""
        h = Harmonics(setting.truncation, RADIUS)
        size = setting.truncation + 1
        height = h.field(noise(rng, size, 1, 5))
        height -= np.quantile(height, 0.65)
        ground = h.spectrum(MOUNTAINS * np.maximum(height / height.max(), 0) ** 2)
        return cls(h, h.spectrum(0.5 + 2 * height), ground, noise(rng, size, 2, 8))

    def mask(self, latitude: Array | None = None, longitudes: int = 0) -> Array:
        """Share of land, 0 to 1."""
        return np.clip(self.harmonics.field(self.share, latitude, longitudes), 0, 1)

    def told(self, latitude: Array, longitudes: int) -> dict[str, Array]:
        """The static variables by name."""
        mask = self.mask(latitude, longitudes)
        soil = np.clip(
            np.floor(4 + 1.5 * self.harmonics.field(self.soil, latitude, longitudes)), 1, 7
        )
        return {
            "geopotential_at_surface": self.harmonics.field(self.ground, latitude, longitudes),
            "land_sea_mask": mask,
            "soil_type": np.where(mask > 0.5, soil, 0),
        }


class Air:
    """The air over a land: what it is relaxed to, and how it is told.

    Args:
        setting: Levels and grid.
        land: The land.
    """

    def __init__(self, setting: Setting, land: Land) -> None:
        self.setting, self.land, h = setting, land, land.harmonics
        self.pressure = np.array(setting.levels, np.float64)
        self.speed = speed(self.pressure)
        self.water = ShallowWater(
            h,
            ground=land.ground,
            speeds=np.concatenate([self.speed, self.speed]),
            damping=HYPERDIFFUSION,
        )
        self.goal = self._goal()
        count = len(self.pressure)
        self.rates = np.repeat([1 / WARMED, 1 / MOISTENED], count)[:, None, None]

    def _goal(self) -> State:
        """A jet in balance, and tracers that are warm and moist at the equator."""
        h, water = self.land.harmonics, self.water
        sine = h.mu[:, None] * np.ones(h.shape[1])
        cosine = np.sqrt(1 - sine**2)
        u = JET * (2 * sine * cosine) ** 2 * cosine
        vorticity = h.divergence(0 * u, -u)
        none = 0 * vorticity
        tracers = np.zeros((2 * len(self.pressure), *none.shape), complex)
        still = replace(water, ground=None).change(State(vorticity, none, none, tracers))
        # the geopotential whose Laplacian holds back all divergence
        phi = h.inverse_laplacian * still.divergence - self.land.ground
        phi[0, 0] += DEPTH * np.sqrt(2) - phi[0, 0]
        warm = WARMTH * (1 / 3 - sine**2) * (self.pressure / 1000)[:, None, None]
        standard = standard_temperature(self.pressure)[:, None, None]
        humid = 0.8 - 0.4 * self.land.mask()
        moist = humid * saturation(standard + warm, self.pressure[:, None, None])
        return State(vorticity, none, phi, h.spectrum(np.concatenate([warm, moist])))

    def forcing(self, state: State, torque: Spectrum) -> State:
        """Relaxation and stirring [per s]."""
        goal = self.goal
        return State(
            (goal.vorticity - state.vorticity) / RELAXED + torque,
            (goal.divergence - state.divergence) / RELAXED,
            (goal.phi - state.phi) / RELAXED,
            (goal.tracers - state.tracers) * self.rates,
        )

    def told(self, state: State, latitude: Array, hour: float) -> dict[str, Array]:
        """The variables of a frame by name, (level, latitude, longitude) or without levels.

        Args:
            state: The layer.
            latitude: Of the rows [degrees].
            hour: Of the day, universal time.
        """
        h, n, count = self.land.harmonics, self.setting.longitudes, len(self.pressure)
        cosine = np.cos(np.deg2rad(latitude))[:, None]
        u, v = (w / cosine for w in h.wind(state.vorticity, state.divergence, latitude, n))
        top = state.phi + self.land.ground
        top[0, 0] = 0
        phi, tracers = h.field(top, latitude, n), h.field(state.tracers, latitude, n)
        p, share = self.pressure[:, None, None], self.speed[:, None, None]
        temperature = standard_temperature(p) + SHEAR * phi / GAS + tracers[:count]
        static = self.land.told(latitude, n)
        land, height = static["land_sea_mask"], static["geopotential_at_surface"] / GRAVITY
        below = standard_temperature(np.array(P0)) - standard_temperature(self.pressure[-1])
        local = np.deg2rad(15 * (hour - 14) + np.arange(n) * 360 / n)
        slow = speed(np.array(1000.0)) * (0.8 - 0.3 * land)
        turn = np.deg2rad(15 + 15 * land) * np.tanh(latitude / 10)[:, None]
        return {
            "geopotential": standard_geopotential(p) + share * phi,
            "specific_humidity": np.maximum(tracers[count:], 1e-7),
            "temperature": temperature,
            "u_component_of_wind": share * u,
            "v_component_of_wind": share * v,
            "10m_u_component_of_wind": slow * (np.cos(turn) * u - np.sin(turn) * v),
            "10m_v_component_of_wind": slow * (np.sin(turn) * u + np.cos(turn) * v),
            "2m_temperature": temperature[-1] + below
            + land * (DIURNAL * cosine * np.cos(local) - LAPSE * height),
            "mean_sea_level_pressure": 100 * P0 * np.exp(speed(np.array(1000.0)) * phi / GAS / T0),
        }  # fmt: skip


def states(air: Air, frames: int, rng: np.random.Generator) -> Iterator[State]:
    """The states of all frames, after the spin-up."""
    state, size = air.goal, air.setting.truncation + 1
    seconds = HOURS * 3600 / STEPS
    kept = np.exp(-HOURS * 3600 / PERSISTENCE)
    torque = TORQUE * noise(rng, size, *STIRRED)
    before = round(air.setting.spin_up * 24 / HOURS)
    for k in range(before + frames):
        if k >= before:
            yield state
        torque = kept * torque + np.sqrt(1 - kept**2) * TORQUE * noise(rng, size, *STIRRED)
        for _ in range(STEPS):
            state = air.water.step(state, seconds, lambda now, t=torque: air.forcing(now, t))  # type: ignore[misc]


def noise(rng: np.random.Generator, size: int, low: int, high: int) -> Spectrum:
    """Coefficients (m, n) of a random field of deviation 1 with n from ``low`` to ``high``."""
    drawn = rng.normal(size=(2, high + 1, high + 1))
    m, n = np.mgrid[: high + 1, : high + 1]
    found = np.zeros((size, size), np.complex128)
    found[: high + 1, : high + 1] = np.where((m <= n) & (n >= low), drawn[0] + 1j * drawn[1], 0)
    found[0] = found[0].real
    power = (np.abs(found[0]) ** 2).sum() + 2 * (np.abs(found[1:]) ** 2).sum()
    scaled: Spectrum = found * np.sqrt(2 / power)
    return scaled


def speed(pressure: Array) -> Array:
    """The wind at a pressure [hPa] over that of the layer."""
    return 1 + SHEAR * np.log(500 / pressure)


def standard_temperature(pressure: Array) -> Array:
    """Of the ICAO standard atmosphere [K] below its tropopause, and no less than there."""
    found: Array = np.maximum(T0 * (pressure / P0) ** (GAS * LAPSE / GRAVITY), 216.65)
    return found


def standard_geopotential(pressure: Array) -> Array:
    """Of the ICAO standard atmosphere below its tropopause [m2/s2]."""
    return GRAVITY * T0 / LAPSE * (1 - (pressure / P0) ** (GAS * LAPSE / GRAVITY))


def saturation(temperature: Array, pressure: Array) -> Array:
    """Specific humidity of saturated air [kg/kg] (Bolton 1980, Mon. Weather Rev. 108, eq. 10)."""
    celsius = temperature - 273.15
    vapor = 6.112 * np.exp(17.67 * celsius / (celsius + 243.5))
    found: Array = 0.622 * vapor / pressure
    return found


def write_store(path: Path, data: xr.Dataset, zarr_format: int, every: int = 8) -> None:
    """Write a Zarr store, all or nothing; an existing one is replaced.

    Raises:
        SaveError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoding: dict[str, Any] = {
        str(name): {
            "chunks": tuple(min(every, n) if d == "time" else n for d, n in values.sizes.items())
        }
        for name, values in data.data_vars.items()
    }
    encoding["time"] = {"units": "hours since 1900-01-01", "dtype": "int64"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # that consolidated metadata are not yet part of the specification of Zarr 3
            warnings.simplefilter("ignore")
            data.to_zarr(part, zarr_format=zarr_format, consolidated=True, encoding=encoding)
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
    except OSError as error:
        raise SaveError(f"cannot write {path}: {error}; make room or choose another") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
