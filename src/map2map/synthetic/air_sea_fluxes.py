"""A sea under weather, on two grids with coasts of their own: coarse air, fine sea → fluxes.

An atmosphere's forecasts have cells of a quarter of a degree, which know coasts only roughly; the
ocean's have a twelfth, with eddies. What the sea gets of the air is computed on the fine grid by
COARE's formulae (`physics.bulk_fluxes`) of what the forecasts do not tell:

- the wind and the air before they were averaged over coarse cells, and mixed with those on land,
  where it blows less and days are warm and nights cold;
- how the air answers to eddies that the forecasts do not see: above water warmer than around it by
  1 K the wind blows ``WIND_PER_WARMTH`` faster (0.2 to 0.6 m/s are observed: Chelton & Xie 2010),
  and the air is warmer by ``AIR_PER_WARMTH`` of it, as humid as before relative to saturation;
- waves that are young, and therefore rough, where the coast is close upwind: their age follows from
  fetch and wind (Hasselmann et al. 1973), their roughness from their age (Edson et al. 2013).

So bulk formulae of regridded forecasts are not the truth, and a network may learn the rest, which
depends on surroundings and coasts.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from map2map.errors import RecipeError
from map2map.files import refuse_existing
from map2map.memory import keep_freed_memory
from map2map.physics.basin import Basin, Waves, beside_smooth, fetch, peak_wave_speed
from map2map.physics.bulk_fluxes import Air, Fluxes, Sea, saturation_humidity, turbulent_fluxes
from map2map.simulations import SPLITS, seeds_of_splits
from map2map.synthetic.air_sea_files import About, write
from map2map.typing import Array, Shape

__all__ = ["Setting", "simulate"]

log = logging.getLogger(__name__)

SOUTH, WEST = 37.0, 2.0
"""Corner of the grids [degrees]."""
WIND_PER_WARMTH = 0.4
"""[m/s/K]"""
AIR_PER_WARMTH = 0.4
"""[K/K]"""
EDDY_CELLS = 8.0
"""What is wider than an eddy, in cells of the ocean: deviation of a Gaussian."""
SEA_HEAT = 1025.0 * 3990.0
"""Heat that warms a cubic meter of sea water by 1 K [J/m^3/K]."""
AIR_DENSITY = 1.2
FRICTION, TURN = 0.7, np.radians(20)
"""What friction leaves of the geostrophic wind, and how far it turns it towards low pressure."""

ATMOSPHERE = {
    "u10": About("eastward_wind", "m s-1"),
    "v10": About("northward_wind", "m s-1"),
    "t2m": About("air_temperature", "K"),
    "q2m": About("specific_humidity", "kg kg-1"),
    "sp": About("surface_air_pressure", "Pa"),
    "land": About("land_area_fraction", "1", static=True),
}
OCEAN = {
    "sst": About("sea_surface_temperature", "K", masked=True),
    "uo": About("surface_eastward_sea_water_velocity", "m s-1", masked=True),
    "vo": About("surface_northward_sea_water_velocity", "m s-1", masked=True),
    "zos": About("sea_surface_height_above_geoid", "m", masked=True),
    "mld": About("ocean_mixed_layer_thickness", "m", masked=True, static=True),
    "mask": About("sea_binary_mask", "1", static=True),
}
FLUXES = {
    "taux": About("surface_downward_eastward_stress", "N m-2", masked=True),
    "tauy": About("surface_downward_northward_stress", "N m-2", masked=True),
    "sensible": About("surface_downward_sensible_heat_flux", "W m-2", masked=True),
    "latent": About("surface_downward_latent_heat_flux", "W m-2", masked=True),
    "sst_increment": About("change_of_sea_surface_temperature", "K", masked=True),
}


@dataclass(frozen=True)
class Setting:
    """What the runs of a data set have in common.

    Args:
        cells: Of the ocean's grid to the north and to the east.
        ratio: Cells of the ocean along a side of one of the atmosphere.
        spacing: Size of the ocean's cells [degrees].
        days: How long a run is.
        hours: From time to time.
        basin: Seed of the coasts.
    """

    cells: tuple[int, int] = (72, 96)
    ratio: int = 3
    spacing: float = 1 / 12
    days: float = 7.0
    hours: float = 6.0
    basin: int = 0

    def __post_init__(self) -> None:
        if self.ratio < 1 or any(n < 4 * self.ratio or n % self.ratio for n in self.cells):
            raise RecipeError(
                f"the ocean's grid of {self.cells} cells must be a multiple of `ratio`, "
                f"{self.ratio}, and 4 times as large at least"
            )
        if not (0 < self.spacing <= 1 and 0 < self.hours <= 24 * self.days) or self.basin < 0:
            raise RecipeError(
                f"`spacing` must be above 0 and at most 1, `hours` and `days` positive and a run "
                f"no shorter than a step, and `basin` not negative: {self}"
            )

    @property
    def steps(self) -> int:
        """How many times a run has."""
        return int(self.days * 24 / self.hours)

    @property
    def seconds(self) -> float:
        """From time to time."""
        return self.hours * 3600


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    train: int = 6,
    test: int = 2,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate weeks of weather above a sea with eddies, and what the sea gets of it.

    Each run has three NetCDF files in ``train`` or ``test``, with an axis of time, coordinates
    ``lat`` and ``lon`` and their bounds: ``atmosphere_NN.nc`` on the coarse grid (wind at 10 m
    ``u10``, ``v10`` [m/s]; at 2 m temperature ``t2m`` [K] and specific humidity ``q2m`` [kg/kg];
    pressure ``sp`` [Pa]; and without time the share of ``land``), ``ocean_NN.nc`` on the fine one
    (``sst`` [K], currents ``uo``, ``vo`` [m/s], height of the surface ``zos`` [m]; without time
    the depth of the mixed layer ``mld`` [m] and ``mask``, 1 where there is sea) and
    ``fluxes_NN.nc`` on that as well (stress ``taux``, ``tauy`` [N/m^2], ``sensible`` and
    ``latent`` heat [W/m^2], positive into the sea, and what these change the temperature of the
    mixed layer by until the next time, ``sst_increment`` [K]). On land the ocean's fields and the
    fluxes are NaN; the atmosphere has values there. Radiation is left out.

    All runs have the same coasts; a run depends on its split and seed, not on how many there are.

    Args:
        out: Folder to write to.
        train: Runs for training; their seeds are ``seed``, ``seed`` + 1, …
        test: Runs for testing, likewise; they are others than those for training.
        setting: Grids and times.
        seed: Seed of the first run of both splits.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    runs = seeds_of_splits(train, test, seed, "run")
    kinds = {"atmosphere": ATMOSPHERE, "ocean": OCEAN, "fluxes": FLUXES}
    files = [
        {kind: out / split / f"{kind}_{number:02d}.nc" for kind in kinds} for split, number in runs
    ]
    every = [path for each in files for path in each.values()]
    refuse_existing(every, overwrite=overwrite, choose="another folder or seed")
    keep_freed_memory()
    basin, coarse = grids(setting)
    for (split, number), paths in zip(runs, files, strict=True):
        rng = np.random.default_rng([SPLITS.index(split), number])
        frames = list(weeks(basin, setting, rng))
        for kind, (path, about) in zip(
            paths, zip(paths.values(), kinds.values(), strict=True), strict=True
        ):
            lat, lon = coarse if kind == "atmosphere" else (basin.lat, basin.lon)
            write(path, (lat, lon), setting.hours, about, [frame[kind] for frame in frames])
        log.info("simulated run %d of the %s split", number, split)
    return [path for paths in files for path in paths.values()]


def grids(setting: Setting) -> tuple[Basin, tuple[Array, Array]]:
    """The sea on the fine grid, and latitudes and longitudes of the coarse one."""
    lat, lon = (
        first + setting.spacing * (np.arange(n) + 0.5)
        for first, n in zip((SOUTH, WEST), setting.cells, strict=True)
    )
    basin = Basin.draw(lat, lon, np.random.default_rng([2, setting.basin]))
    north, east = (axis.reshape(-1, setting.ratio).mean(axis=1) for axis in (lat, lon))
    return basin, (north, east)


@dataclass(frozen=True)
class Weather:
    """The air of a run.

    Args:
        basin: What it blows over.
        stream: Streamfunction of the geostrophic wind, but for its mean [m^2/s].
        mean: Mean geostrophic wind to the east and the north [m/s].
        warmth: What is warmer or colder than the wind brings it [K].
        damp: Relative humidity beside its mean [1].
    """

    basin: Basin
    stream: Waves
    mean: tuple[float, float]
    warmth: Waves
    damp: Waves

    @classmethod
    def draw(cls, basin: Basin, rng: np.random.Generator) -> "Weather":
        """Draw it: synoptic waves and fronts that the mean wind takes along."""
        speed, angle = rng.uniform(4, 10), rng.uniform(-np.pi / 3, np.pi / 3)
        mean = (float(speed * np.cos(angle)), float(speed * np.sin(angle)))
        stream = Waves.draw(40, (120e3, 1500e3), 1.0, rng, drift=mean)
        # of such size that winds deviate from their mean by 8 m/s
        size = 8 / np.sqrt((stream.amplitudes**2 * (stream.numbers**2).sum(0)).sum() / 2)
        stream = Waves(stream.amplitudes * size, stream.numbers, stream.frequencies, stream.phases)
        warmth = Waves.draw(30, (100e3, 1000e3), 1.2, rng, drift=mean, tilt=0.5)
        damp = Waves.draw(30, (100e3, 1000e3), 0.1, rng, drift=mean, tilt=0.5)
        return cls(basin, stream, mean, warmth, damp)

    def at(self, time: float) -> dict[str, Array]:
        """Wind, temperature, relative humidity and pressure at a time [s], on the fine grid."""
        x, y = self.basin.xy
        to_east, to_north = self.stream.slopes(x, y, time)
        u, v = self.mean[0] - to_north, self.mean[1] + to_east
        land = ~self.basin.sea
        # on land there is more friction
        slow = FRICTION * np.where(land, 0.6, 1.0)
        hour = 2 * np.pi * (time / 3600 - 15) / 24
        warmth = 0.25 * v + self.warmth(x, y, time) + np.where(land, 4 * np.cos(hour), 0)
        stream = self.stream(x, y, time) + self.mean[1] * x - self.mean[0] * y
        return {
            "u": slow * (np.cos(TURN) * u - np.sin(TURN) * v),
            "v": slow * (np.sin(TURN) * u + np.cos(TURN) * v),
            "temperature": 286.5 - 5e-6 * y + warmth,
            "relative": np.clip(0.72 + self.damp(x, y, time), 0.35, 0.98),
            "pressure": 101500 + AIR_DENSITY * self.basin.coriolis * stream,
        }


def weeks(
    basin: Basin, setting: Setting, rng: np.random.Generator
) -> Iterator[dict[str, dict[str, Array]]]:
    """All fields of all kinds, time after time."""
    x, y = basin.xy
    weather = Weather.draw(basin, rng)
    eddies = Waves.draw(40, (60e3, 300e3), 0.06, rng, drift=(-0.05, 0.0), tilt=1.0)
    fronts = Waves.draw(40, (60e3, 600e3), 0.5, rng, drift=(0.05, -0.05), tilt=0.5)
    depth = 30 * np.exp(Waves.draw(20, (100e3, 600e3), 0.3, rng)(x, y))
    warmed = np.zeros(basin.sea.shape)
    for step in range(setting.steps):
        time = step * setting.seconds
        height = eddies(x, y, time) * basin.openness
        uo, vo = basin.currents(height)
        sst = 288.5 - 6e-6 * y + 10 * height + fronts(x, y, time) + warmed
        air = weather.at(time)
        fluxes = coupled_fluxes(basin, air, sst, (uo, vo))
        increment = (fluxes.sensible + fluxes.latent) * setting.seconds / (SEA_HEAT * depth)
        humidity = air["relative"] * saturation_humidity(air["temperature"], air["pressure"])
        atmosphere = {
            "u10": air["u"],
            "v10": air["v"],
            "t2m": air["temperature"],
            "q2m": humidity,
            "sp": air["pressure"],
            "land": (~basin.sea).astype(float),
        }
        sea = {"sst": sst, "uo": uo, "vo": vo, "zos": height, "mld": depth}
        yield {
            "atmosphere": {
                name: coarsened(values, basin.lat, setting.ratio)
                for name, values in atmosphere.items()
            },
            "ocean": {name: np.where(basin.sea, values, np.nan) for name, values in sea.items()}
            | {"mask": basin.sea.astype(float)},
            "fluxes": {
                "taux": fluxes.stress_x,
                "tauy": fluxes.stress_y,
                "sensible": fluxes.sensible,
                "latent": fluxes.latent,
                "sst_increment": increment,
            },
        }
        warmed = warmed + np.nan_to_num(increment)


def coupled_fluxes(
    basin: Basin, air: dict[str, Array], sst: Array, current: tuple[Array, Array]
) -> Fluxes:
    """The fluxes of air that answers to eddies, over waves that have grown so far; NaN on land."""
    warmer = beside_smooth(sst, basin.sea, EDDY_CELLS)
    wind = np.hypot(air["u"], air["v"])
    faster = 1 + np.maximum(WIND_PER_WARMTH * warmer / np.maximum(wind, 0.1), -0.9)
    u, v = air["u"] * faster, air["v"] * faster
    temperature = air["temperature"] + AIR_PER_WARMTH * warmer
    humidity = air["relative"] * saturation_humidity(temperature, air["pressure"])
    waves = peak_wave_speed(wind * faster, fetch(basin, u, v))
    sea = basin.sea
    at_sea = turbulent_fluxes(
        Air(u[sea], v[sea], temperature[sea], humidity[sea], air["pressure"][sea]),
        Sea(sst[sea], current[0][sea], current[1][sea], waves[sea]),
    )
    return Fluxes(**{name: spread(values, sea) for name, values in vars(at_sea).items()})


def spread(values: Array, sea: NDArray[np.bool_]) -> Array:
    """Values of the cells of the sea in their places; NaN on land."""
    whole = np.full(sea.shape, np.nan)
    whole[sea] = values
    return whole


def coarsened(values: Array, lat: Array, ratio: int) -> Array:
    """Means over blocks of cells, each as much as its area."""
    shape: Shape = (values.shape[0] // ratio, ratio, values.shape[1] // ratio, ratio)
    area = np.cos(np.radians(lat))[:, None] * np.ones(values.shape[1])
    total = (values * area).reshape(shape).sum(axis=(1, 3))
    mean: Array = total / area.reshape(shape).sum(axis=(1, 3))
    return mean
