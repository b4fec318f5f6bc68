"""Turbulent fluxes between air and sea by the bulk formulae of COARE.

Monin-Obukhov similarity: wind, temperature and humidity follow logarithmic profiles that stability
bends, from roughness lengths at the surface, which the wind itself makes, to the heights they are
given at. The scales of the profiles, u*, θ* and q*, are found by iteration.

Fairall, Bradley, Hare, Grachev & Edson 2003 (J. Climate 16, 571) is version 3.0; Edson et al. 2013
(J. Phys. Oceanogr. 43, 1589) is 3.5. Neither the cool skin and warm layer nor rain are here: give
the temperature of the surface.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from map2map.errors import RecipeError, near_names
from map2map.typing import Array

__all__ = [
    "Air",
    "Fluxes",
    "Scheme",
    "Sea",
    "air_density",
    "saturation_humidity",
    "turbulent_fluxes",
]

VON_KARMAN = 0.4
GRAVITY = 9.81
"""Of the surface [m/s^2]."""
GAS_CONSTANT = 287.1
"""Of dry air [J/kg/K]."""
HEAT_CAPACITY = 1004.67
"""Of dry air at constant pressure [J/kg/K]."""
LAPSE = 0.0098
"""Of temperature in air that is mixed [K/m]."""
MOIST = 0.61
"""Virtual temperature is T (1 + 0.61 q)."""
SALTY = 0.98
"""Saturation over sea water relative to fresh water."""
FREEZING = 273.16
"""Where the scheme's formulae for air and water vapor have 0 degrees Celsius [K]."""
GUST, LEAST_GUST = 1.2, 0.2
"""Gusts in units of the convective velocity, and the least ones [m/s]."""
LEAST_ROUGH = 0.1
"""Of the roughness length of smooth flow."""
MOST_STABLE = 50.0
"""The largest z/L [1]."""

Version = Literal["3.0", "3.5"]


@dataclass(frozen=True)
class Air:
    """The air above the surface; arrays, or numbers, that go together.

    Args:
        u: Wind to the east [m/s].
        v: Wind to the north [m/s].
        temperature: Of the air [K].
        humidity: Specific humidity [kg/kg].
        pressure: At the surface [Pa].
    """

    u: ArrayLike
    v: ArrayLike
    temperature: ArrayLike
    humidity: ArrayLike
    pressure: ArrayLike = 101325.0


@dataclass(frozen=True)
class Sea:
    """The surface of the sea.

    Args:
        temperature: Of the surface [K].
        u: Current to the east [m/s].
        v: Current to the north [m/s].
        wave_speed: Phase speed of the waves that carry most energy [m/s]; None: those of a sea
            that has grown to its wind.
    """

    temperature: ArrayLike
    u: ArrayLike = 0.0
    v: ArrayLike = 0.0
    wave_speed: ArrayLike | None = None


@dataclass(frozen=True)
class Scheme:
    """Which formulae, and the heights at which the air is known.

    Args:
        version: Of COARE.
        wind_height: Of the wind [m].
        air_height: Of temperature and humidity [m].
        boundary_layer: Height of the layer that convection mixes [m], which sets its gusts.
        gusts: Whether gusts add to the mean wind.
        iterations: How often the scales are found anew.
    """

    version: Version = "3.5"
    wind_height: float = 10.0
    air_height: float = 2.0
    boundary_layer: float = 600.0
    gusts: bool = True
    iterations: int = 10

    def __post_init__(self) -> None:
        if self.version not in get_args(Version):
            raise RecipeError(
                f"there is no version {self.version!r} of COARE here"
                f"{near_names(self.version, get_args(Version))}"
            )
        lengths = self.wind_height, self.air_height, self.boundary_layer
        if min(lengths) <= 0 or self.iterations < 1:
            raise RecipeError(
                f"heights must be positive, and there is at least one iteration, not {lengths} m "
                f"and {self.iterations}"
            )


@dataclass(frozen=True)
class Fluxes:
    """What the sea gets through its surface; positive numbers go down, into the sea.

    Args:
        stress_x: Of the wind on the sea, to the east [N/m^2].
        stress_y: Likewise to the north [N/m^2].
        sensible: Sensible heat [W/m^2]; negative where the sea is warmer than the air.
        latent: Latent heat [W/m^2]; negative where water evaporates.
        evaporation: Of water [kg/m^2/s]; positive where it leaves the sea.
        friction_velocity: u* [m/s], gusts included.
        stability: z/L at the height of the wind [1]; positive where it is stable.
        neutral_wind: Speed at 10 m for the same stress if the air were neutral [m/s].
    """

    stress_x: Array
    stress_y: Array
    sensible: Array
    latent: Array
    evaporation: Array
    friction_velocity: Array
    stability: Array
    neutral_wind: Array


DEFAULT = Scheme()


def turbulent_fluxes(air: Air, sea: Sea, scheme: Scheme = DEFAULT) -> Fluxes:
    """The turbulent fluxes, cell by cell; NaN where an argument is NaN.

    Args:
        air: At the scheme's heights.
        sea: Its surface.
        scheme: Which formulae.
    """
    temperature, humidity, pressure, surface = (
        np.asarray(x, np.float64)
        for x in (air.temperature, air.humidity, air.pressure, sea.temperature)
    )
    u = np.asarray(air.u, np.float64) - np.asarray(sea.u, np.float64)
    v = np.asarray(air.v, np.float64) - np.asarray(sea.v, np.float64)
    wave_speed = None if sea.wave_speed is None else np.asarray(sea.wave_speed, np.float64)
    wind = np.hypot(u, v)
    warmer = surface - temperature - LAPSE * scheme.air_height
    moister = SALTY * saturation_humidity(surface, pressure) - humidity
    viscosity = air_viscosity(temperature)
    virtual = temperature * (1 + MOIST * humidity)

    gust = np.full(np.broadcast_shapes(wind.shape, warmer.shape, moister.shape), 0.5)
    if not scheme.gusts:
        gust = np.zeros_like(gust)
    speed = np.hypot(wind, gust)
    friction, heat, moisture = 0.035 * speed, -0.03 * warmer, -0.03 * moister
    zeta, rough = np.zeros_like(speed), np.full_like(speed, 1e-4)
    for _ in range(scheme.iterations):
        # of calm air without gusts there is nothing to divide by
        still = np.maximum(friction, 1e-9)
        neutral_wind = still / VON_KARMAN * np.log(10 / rough) * share(wind, speed)
        charnock = charnock_of(scheme.version, neutral_wind, still, wave_speed)
        smooth = 0.11 * viscosity / still
        # version 3.5 has a negative parameter below 3 m/s, and gusts might carry the sum below 0
        rough = np.maximum(charnock * still**2 / GRAVITY + smooth, LEAST_ROUGH * smooth)
        rough_scalar = scalar_roughness(scheme.version, rough * still / viscosity)
        buoyancy = heat * (1 + MOIST * humidity) + MOIST * temperature * moisture
        per_height = VON_KARMAN * GRAVITY * buoyancy / (virtual * still**2)
        zeta, zeta_air = (
            np.minimum(per_height * z, MOST_STABLE) for z in (scheme.wind_height, scheme.air_height)
        )
        friction = speed * VON_KARMAN / (np.log(scheme.wind_height / rough) - psi_wind(zeta))
        exchange = VON_KARMAN / (np.log(scheme.air_height / rough_scalar) - psi_scalar(zeta_air))
        heat, moisture = -warmer * exchange, -moister * exchange
        if scheme.gusts:
            rising = -GRAVITY / temperature * friction * (heat + MOIST * temperature * moisture)
            convective = np.cbrt(np.maximum(rising, 0) * scheme.boundary_layer)
            speed = np.hypot(wind, np.maximum(GUST * convective, LEAST_GUST))

    density = air_density(temperature, humidity, pressure)
    # along the mean wind, of which gusts have no direction; calm air pushes nowhere
    stress = density * friction**2 / np.where(speed > 0, speed, 1)
    evaporation = -density * friction * moisture
    celsius = surface - FREEZING
    return Fluxes(
        stress * u,
        stress * v,
        density * HEAT_CAPACITY * friction * heat,
        -(2.501 - 0.00237 * celsius) * 1e6 * evaporation,
        evaporation,
        friction,
        zeta,
        friction / VON_KARMAN * np.log(10 / rough) * share(wind, speed),
    )


def share(part: Array, whole: Array) -> Array:
    """The ratio; 0 of nothing."""
    ratio: Array = part / np.where(whole > 0, whole, 1)
    return ratio


def charnock_of(
    version: Version, neutral_wind: Array, friction: Array, wave_speed: Array | None
) -> Array:
    """Charnock's parameter [1], of the wind at 10 m or of the age of the waves.

    By the age of waves: 0.114 (u* / c)^0.622 (Edson et al. 2013), of either version.
    """
    if wave_speed is not None:
        aged: Array = 0.114 * (friction / wave_speed) ** 0.622
        return aged
    if version == "3.0":
        return np.interp(neutral_wind, (10, 18), (0.011, 0.018))
    of_wind: Array = 0.0017 * np.minimum(neutral_wind, 19) - 0.005
    return of_wind


def scalar_roughness(version: Version, reynolds: Array) -> Array:
    """Roughness lengths of temperature and humidity [m], of the Reynolds number of roughness."""
    most, factor, power = (1.15e-4, 5.5e-5, -0.6) if version == "3.0" else (1.6e-4, 5.8e-5, -0.72)
    length: Array = np.minimum(most, factor * reynolds**power)
    return length


def psi_wind(zeta: Array) -> Array:
    """What stability adds to the logarithm in the profile of wind, with the sign turned.

    Unstable: between Businger and Dyer's form and that of free convection (Fairall et al. 1996).
    Stable: Beljaars & Holtslag 1991, coefficients of COARE.
    """
    unstable, stable = np.minimum(zeta, 0), np.maximum(zeta, 0)
    x = (1 - 15 * unstable) ** 0.25
    dyer = 2 * np.log((1 + x) / 2) + np.log((1 + x**2) / 2) - 2 * np.arctan(x) + np.pi / 2
    below = blend(unstable, dyer, psi_free(1 - 10.15 * unstable))
    decay = np.exp(-np.minimum(50, 0.35 * stable))
    above = -(0.7 * stable + 0.75 * (stable - 5 / 0.35) * decay + 0.75 * 5 / 0.35)
    return np.where(zeta < 0, below, above)


def psi_scalar(zeta: Array) -> Array:
    """The same in the profiles of temperature and humidity."""
    unstable, stable = np.minimum(zeta, 0), np.maximum(zeta, 0)
    dyer = 2 * np.log((1 + np.sqrt(1 - 15 * unstable)) / 2)
    below = blend(unstable, dyer, psi_free(1 - 34.15 * unstable))
    decay = np.exp(-np.minimum(50, 0.35 * stable))
    # the constant is rounded to 8.525 in the published form; exactly this it is 0 at 0
    constant = 2 / 3 * 14.28 - 1
    above = -((1 + 2 / 3 * stable) ** 1.5 + 2 / 3 * (stable - 14.28) * decay + constant)
    return np.where(zeta < 0, below, above)


def psi_free(cubed: Array) -> Array:
    """The form of free convection, of the cube of its argument."""
    x, root = np.cbrt(cubed), np.sqrt(3)
    free: Array = (
        1.5 * np.log((1 + x + x**2) / 3) - root * np.arctan((1 + 2 * x) / root) + np.pi / root
    )
    return free


def blend(zeta: Array, near: Array, far: Array) -> Array:
    """From the form near neutral to that far from it."""
    weight = zeta**2 / (1 + zeta**2)
    blended: Array = (1 - weight) * near + weight * far
    return blended


def saturation_humidity(temperature: ArrayLike, pressure: ArrayLike) -> Array:
    """Specific humidity of saturated air over fresh water [kg/kg] (Buck 1981).

    Args:
        temperature: [K].
        pressure: [Pa].
    """
    celsius = np.asarray(temperature, np.float64) - FREEZING
    hectopascals = np.asarray(pressure, np.float64) / 100
    vapor = (
        6.1121 * np.exp(17.502 * celsius / (celsius + 240.97)) * (1.0007 + 3.46e-6 * hectopascals)
    )
    humidity: Array = 0.622 * vapor / (hectopascals - 0.378 * vapor)
    return humidity


def air_density(temperature: ArrayLike, humidity: ArrayLike, pressure: ArrayLike) -> Array:
    """Density of moist air [kg/m^3]."""
    virtual = np.asarray(temperature, np.float64) * (1 + MOIST * np.asarray(humidity, np.float64))
    density: Array = np.asarray(pressure, np.float64) / (GAS_CONSTANT * virtual)
    return density


def air_viscosity(temperature: Array) -> Array:
    """Kinematic viscosity of air [m^2/s] (Andreas 1989)."""
    t = temperature - FREEZING
    viscosity: Array = 1.326e-5 * (1 + 6.542e-3 * t + 8.301e-6 * t**2 - 4.84e-9 * t**3)
    return viscosity
