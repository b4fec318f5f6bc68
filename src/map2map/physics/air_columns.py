"""Columns of air that could be those of a weather model: levels, climate by season, random weather.

A column is a row of numbers from the top down, as in weather models; arrays are (column, level),
and half levels, the interfaces between levels, are one more. Pressures are in Pa, heights in m,
temperatures in K, winds in m/s, latitudes and longitudes in radians.

The climate is made of formulas that have jets, tropopause and stratopause where they are observed
(A87: Andrews, Holton & Leovy 1987, *Middle Atmosphere Dynamics*, chapter 1); the weather is random
waves that are geostrophic and hydrostatic where the Coriolis parameter does not vary (A87, 3.4).
"""

from dataclasses import dataclass

import numpy as np

from map2map.errors import RecipeError
from map2map.typing import Array

__all__ = [
    "GAS_CONSTANT",
    "GRAVITY",
    "HEAT_CAPACITY",
    "HybridLevels",
    "Weather",
    "log_height",
    "mean_temperature",
    "mean_wind",
    "season_of",
    "spiral",
    "surface_noise",
    "thickness",
]

GRAVITY, GAS_CONSTANT, HEAT_CAPACITY = 9.80665, 287.06, 1004.0
"""Of the Earth [m s-2]; of dry air [J kg-1 K-1], the latter at constant pressure."""

SURFACE, SCALE_HEIGHT = 101325.0, 7000.0
"""Mean pressure at sea level [Pa], and over which height it falls by e [m]."""

EARTH, ROTATION = 6.371e6, 7.292e-5
"""Radius [m] and angular velocity [s-1]."""

TERRAIN = 0.8
"""How fast levels take the shape of the ground; below 1.1 they never cross if ps > 530 hPa."""


@dataclass(frozen=True)
class HybridLevels:
    """Levels that follow the ground below and are of constant pressure at the top.

    Half level k is at p = p_k (1 - f_k) + f_k p_k ps / p0, with p0 = 1013.25 hPa and
    f = (p_k / p0)^0.8. The reference pressures p_k have logarithms as (1 - k / levels)^stretch.

    Args:
        levels: Number of levels; half levels are one more.
        top: Reference pressure of the highest half level [Pa].
        bottom: That of the lowest one, p0 if it is the ground [Pa].
        stretch: Above 1, levels are denser below.
    """

    levels: int
    top: float = 1.0
    bottom: float = SURFACE
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if not (self.levels >= 2 and 0 < self.top < self.bottom <= SURFACE and self.stretch > 0):
            raise RecipeError(
                f"columns need levels >= 2, 0 < top < bottom <= {SURFACE:g} Pa and stretch > 0, "
                f"not {self.levels}, {self.top}, {self.bottom}, {self.stretch}"
            )

    @property
    def reference(self) -> Array:
        """Pressure of the half levels where that of the ground is p0 [Pa], shape (level + 1,)."""
        height = (1 - np.arange(self.levels + 1) / self.levels) ** self.stretch
        pressure: Array = self.bottom * (self.top / self.bottom) ** height
        return pressure

    def half(self, surface: Array) -> Array:
        """Pressure of half levels [Pa], (column, level + 1), by that of the ground, (column,)."""
        reference = self.reference
        follows = (reference / SURFACE) ** TERRAIN
        pressure: Array = reference * (1 - follows + follows * surface[:, None] / SURFACE)
        return pressure


def log_height(pressure: Array) -> Array:
    """Log-pressure height H ln(p0 / p) [m], H = 7 km."""
    height: Array = SCALE_HEIGHT * np.log(SURFACE / pressure)
    return height


def thickness(temperature: Array, half: Array) -> Array:
    """Thickness of levels in hydrostatic balance [m], finite even if the top has no pressure.

    Args:
        temperature: Of the levels [K].
        half: Pressure of the half levels [Pa].
    """
    middle = (half[:, 1:] + half[:, :-1]) / 2
    layers: Array = GAS_CONSTANT / GRAVITY * temperature * np.diff(half, axis=1) / middle
    return layers


def season_of(day: float) -> float:
    """1 in the middle of the northern summer, -1 in that of the southern, by the day of a year."""
    return float(np.cos(2 * np.pi * (day - 172) / 365.25))


def spiral(columns: int, start: float = 0.0) -> tuple[Array, Array]:
    """Latitudes and longitudes of columns that cover the globe evenly, from north to south.

    Each turn of the spiral has as many columns, so that neighbors in the row are neighbors on the
    globe, as in the files of weather models.

    Args:
        columns: How many.
        start: Longitude of the first.
    """
    sine = 1 - (2 * np.arange(columns) + 1) / columns
    turns = max(1, round(np.sqrt(columns / 2)))
    longitude = (start + 2 * np.pi * turns * np.arange(columns) / columns) % (2 * np.pi)
    return np.arcsin(sine), longitude


def mean_temperature(latitude: Array, height: Array, season: float) -> Array:
    """Climate [K] at log-pressure heights: (column,) and (column, level) -> (column, level).

    Falls by 4.8 to 6 K/km to the tropopause, at 9 km at the poles and 16 km at the equator, rises
    to the stratopause at 50 km, and falls above.
    """
    sine, z = np.sin(latitude)[:, None], height / 1e3
    summer = season * sine
    ground = 300 - 42 * sine**2 + 14 * summer * np.abs(sine)
    tropopause = 9 + 7.5 * (1 - sine**2) ** 2
    # rounded over a kilometer, as it is observed
    falls = (6 - 1.2 * sine**2) * (z - soft_plus(z - tropopause, 0.8))
    coldest = ground - (6 - 1.2 * sine**2) * tropopause
    rise = np.clip((z - tropopause) / (50 - tropopause), 0, 1)
    warms = (266 + 12 * summer - coldest) * rise**2 * (3 - 2 * rise)
    temperature: Array = ground - falls + warms - (2.2 + 0.8 * summer) * soft_plus(z - 53, 3.0)
    return temperature


def mean_wind(latitude: Array, height: Array, season: float, oscillation: float) -> Array:
    """Climate of the westerly wind [m/s]: shapes as in `mean_temperature`.

    Subtropical jets at 35 degrees and 12 km, polar night jet and summer easterlies at 45 degrees
    and 60 km, trade winds, and the quasi-biennial oscillation of the tropical stratosphere, whose
    phase ``oscillation`` is [rad].
    """
    phi, z = latitude[:, None], height / 1e3
    wind = -7 * np.exp(-((phi / 0.3) ** 2) - z / 3)
    for side in (-1, 1):
        subtropics, middle = (phi - 0.61 * side) / 0.24, (phi - 0.8 * side) / 0.4
        winter = -side * season
        wind += (28 + 10 * winter) * np.exp(-(subtropics**2) - ((z - 11.5) / 6) ** 2)
        wind += (5 + 62 * winter) * np.exp(-(middle**2) - ((z - 60) / 20) ** 2)
    tropics = np.exp(-((phi / 0.22) ** 2) - ((z - 26) / 8) ** 2)
    westerly: Array = wind + 22 * tropics * np.sin(2 * np.pi * z / 15 + oscillation)
    return westerly


def soft_plus(x: Array, width: float) -> Array:
    """The positive part of x, rounded over ``width``."""
    rounded: Array = width * np.logaddexp(0, x / width)
    return rounded


def surface_noise(
    latitude: Array, longitude: Array, rng: np.random.Generator, largest: int = 12
) -> Array:
    """A random function on the globe, of mean 0 and deviation 1 over many draws: (column,).

    Args:
        latitude: Of the columns.
        longitude: Of the columns.
        rng: What draws it.
        largest: Largest wavenumber.
    """
    count = 48
    order = rng.integers(0, largest + 1, count)
    across = rng.uniform(-largest, largest, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    weight = (1 + order**2 + across**2) ** -0.5
    # waves around a pole would make it a point of all values
    around = np.cos(latitude)[:, None] ** np.minimum(order, 2)
    waves = around * np.cos(longitude[:, None] * order + latitude[:, None] * across + phase)
    noise: Array = waves @ weight * np.sqrt(2 / np.square(weight).sum())
    return noise


@dataclass(frozen=True)
class Weather:
    """Random waves of a day: what makes columns of one latitude differ.

    A wave of the stream function psi has zonal and meridional wavenumbers m and l and tilts with
    height, so u = -d psi/dy, v = d psi/dx and T = f H / R d psi/dz (A87, 3.4.1 with 3.1.3c).

    Args:
        zonal: m, whole numbers, shape (wave,).
        meridional: l.
        vertical: Vertical wavenumbers [rad/m].
        phase: Phases [rad].
        speed: Wind speeds [m/s] in the lower atmosphere.
        growth: Height over which they grow by e [m].
    """

    zonal: Array
    meridional: Array
    vertical: Array
    phase: Array
    speed: Array
    growth: Array

    @staticmethod
    def draw(rng: np.random.Generator) -> "Weather":
        """Long waves, which reach the mesosphere, and shorter ones, which do not."""
        long, short = 8, 24
        zonal = np.concatenate([rng.integers(1, 4, long), rng.integers(4, 13, short)])
        steep = np.concatenate([rng.uniform(1, 4, long), rng.uniform(3, 12, short)])
        length = np.concatenate([rng.uniform(25e3, 60e3, long), rng.uniform(8e3, 40e3, short)])
        count = long + short
        return Weather(
            zonal.astype(np.float64),
            steep * rng.choice([-1, 1], count),
            2 * np.pi / length * rng.choice([-1, 1], count),
            rng.uniform(0, 2 * np.pi, count),
            rng.rayleigh(np.where(np.arange(count) < long, 2.2, 1.6)),
            np.where(np.arange(count) < long, 45e3, 1e9),
        )

    def at(self, latitude: Array, longitude: Array, height: Array) -> tuple[Array, Array, Array]:
        """Winds u, v [m/s] and temperature [K], shape (column, level), that they add.

        Args:
            latitude: Of the columns, (column,).
            longitude: Of the columns.
            height: Log-pressure heights of the levels, (level,).
        """
        angle = longitude[:, None] * self.zonal + latitude[:, None] * self.meridional + self.phase
        horizontal = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        tilt = self.vertical[:, None] * height
        speed = self.speed[:, None] * np.exp(np.minimum(height, 50e3) / self.growth[:, None])
        # amplitude of psi over the radius of the Earth
        psi = speed / np.hypot(self.zonal, self.meridional)[:, None]

        def added(factor: Array) -> Array:
            # sin(angle + tilt) as a sum of products
            waves = factor[:, None] * psi
            product: Array = horizontal @ np.concatenate(
                [waves * np.cos(tilt), waves * np.sin(tilt)]
            )
            return product

        # waves fade towards the poles, where meridians meet
        cosine = np.cos(latitude)[:, None]
        coriolis = 2 * ROTATION * np.sin(latitude)[:, None]
        warm = -coriolis * SCALE_HEIGHT / GAS_CONSTANT * EARTH * cosine**2
        return (
            cosine**2 * added(self.meridional),
            -cosine * added(self.zonal),
            warm * added(self.vertical),
        )
