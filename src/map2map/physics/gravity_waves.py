"""Drag of gravity waves that rise, saturate and break: a spectrum of them, column by column.

Waves of horizontal wavenumber k leave a launch level in several directions (azimuths) with several
phase speeds, each carrying a flux of momentum F(c) [Pa] in its direction. On their way up, with c
and the wind U in the direction of the wave:

- F stays as it is while the wave does not break;
- a wave breaks where it would overturn, and keeps what is just stable (L81, with u' = c - U and
  w' = u' k (c - U) / N):

      F <= e rho k (c - U)^3 / (2 N),

  e being the part of the time and area in which there are waves;
- at a critical level, where U reaches c, nothing is left.

What is lost between two half levels accelerates the air between them, dU/dt = g dF/dp, so that
momentum is conserved exactly. The flux at launch has the shape that observations suggest, S03 eq.
(24) and O10 with s = 1: F(c) proportional to x / (1 + x^4) per phase speed, x = c / c*, c being
relative to the wind at the launch level, so that it is the same in all directions.

Waves are hydrostatic, do not feel the rotation of the Earth, and rise at once; each phase speed
breaks by itself, where S03 and O10 compare the whole spectrum with one that is saturated.

Sources: L81: Lindzen 1981, *J. Geophys. Res.* 86, 9707, section 2; S03: Scinocca 2003, *J. Atmos.
Sci.* 60, 667; O10: Orr, Bechtold, Scinocca, Ern & Janiskova 2010, *J. Climate* 23, 5905.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi
from typing import NamedTuple

import numpy as np

from map2map.errors import GeometryError, RecipeError
from map2map.physics.air_columns import GAS_CONSTANT, GRAVITY, HEAT_CAPACITY
from map2map.typing import Array

__all__ = ["Air", "Drag", "Spectrum", "rising_fluxes", "saturated_flux", "wave_drag"]

WEAKEST = 1e-6
"""Square of the buoyancy frequency [s-2] below which layers are taken as barely stable."""


@dataclass(frozen=True)
class Spectrum:
    """Waves at their launch.

    Args:
        flux: Momentum flux into each direction, all phase speeds together [Pa].
        azimuths: Number of directions, evenly from east, anticlockwise; even, so that each has its
            opposite.
        speeds: Number of phase speeds.
        slowest: Smallest phase speed relative to the wind at launch [m/s].
        fastest: Largest one; between them, speeds have equal ratios.
        peak: c*, near which most of the flux is [m/s].
        wavelength: Horizontal one, 2 pi / k [m].
        presence: e, the part of time and area in which there are waves.
    """

    flux: float = 3.75e-3
    azimuths: int = 4
    speeds: int = 40
    slowest: float = 1.0
    fastest: float = 90.0
    peak: float = 15.0
    wavelength: float = 200e3
    presence: float = 0.01

    def __post_init__(self) -> None:
        if self.azimuths < 2 or self.azimuths % 2 or self.speeds < 1:
            raise RecipeError(
                f"waves need an even number of azimuths and at least one speed, not "
                f"{self.azimuths} and {self.speeds}"
            )
        if not (self.flux >= 0 and 0 < self.slowest <= self.fastest < np.inf):
            raise RecipeError(
                f"waves need flux >= 0 and 0 < slowest <= fastest, not {self.flux}, "
                f"{self.slowest}, {self.fastest}"
            )
        if min(self.peak, self.wavelength, self.presence) <= 0:
            raise RecipeError(
                f"`peak`, `wavelength` and `presence` must be positive, not {self.peak}, "
                f"{self.wavelength}, {self.presence}"
            )

    @property
    def phase_speeds(self) -> Array:
        """Relative to the wind at launch [m/s], shape (speed,)."""
        speeds: Array = np.geomspace(self.slowest, self.fastest, self.speeds)
        return speeds

    @property
    def launched(self) -> Array:
        """Flux of each phase speed [Pa], shape (speed,)."""
        x = self.phase_speeds / self.peak
        # times x, because an interval of equal ratios is as wide as its speed
        weight = x**2 / (1 + x**4)
        flux: Array = self.flux * weight / weight.sum()
        return flux

    @property
    def directions(self) -> Array:
        """Cosines and sines of the azimuths, shape (2, azimuth)."""
        half = 2 * pi * np.arange(self.azimuths // 2) / self.azimuths
        one = np.stack([np.cos(half), np.sin(half)])
        # opposite directions are opposite to the last bit
        return np.concatenate([one, -one], axis=1)


class Air(NamedTuple):
    """Columns at their half levels, from the top down, shape (column, level + 1).

    Args:
        pressure: [Pa].
        u: Wind to the east [m/s].
        v: Wind to the north [m/s].
        density: [kg m-3].
        buoyancy: Frequency N [s-1].
    """

    pressure: Array
    u: Array
    v: Array
    density: Array
    buoyancy: Array

    @staticmethod
    def of(u: Array, v: Array, temperature: Array, half: Array) -> "Air":
        """From winds [m/s] and temperatures [K] of levels, and pressures of half levels [Pa].

        Between levels the mean is taken; at the top and the ground the level's own. The buoyancy
        frequency is that of hydrostatic air, N^2 = g / T (dT/dz + g / cp).

        Raises:
            GeometryError: If shapes do not fit, or pressures do not increase from above 0.
        """
        shape = (len(u), u.shape[1] + 1)
        if not u.shape == v.shape == temperature.shape or half.shape != shape:
            raise GeometryError(
                f"columns have winds {u.shape} and {v.shape}, temperatures {temperature.shape} and "
                f"half levels {half.shape}; all need the same levels, and one half level more"
            )
        if not (np.diff(half, axis=1) > 0).all() or not (half[:, 0] > 0).all():
            raise GeometryError(
                "pressures of half levels must increase from the top, where they are above 0 Pa, "
                "down to the ground"
            )
        warmth = between(temperature)
        log_pressure = np.log((half[:, 1:] + half[:, :-1]) / 2)
        # dT/dz = -g / (R T) dT/dln p
        slope = np.diff(temperature, axis=1) / np.diff(log_pressure, axis=1)
        slope = np.concatenate([slope[:, :1], slope, slope[:, -1:]], axis=1)
        lapse = GRAVITY / HEAT_CAPACITY - GRAVITY / (GAS_CONSTANT * warmth) * slope
        squared = np.maximum(GRAVITY / warmth * lapse, WEAKEST)
        density = half / (GAS_CONSTANT * warmth)
        return Air(half, between(u), between(v), density, np.sqrt(squared))


def between(levels: Array) -> Array:
    """Means of neighbors, and the first and last one: from levels to half levels."""
    inner = (levels[:, 1:] + levels[:, :-1]) / 2
    return np.concatenate([levels[:, :1], inner, levels[:, -1:]], axis=1)


def saturated_flux(intrinsic: Array, density: Array, buoyancy: Array, spectrum: Spectrum) -> Array:
    """The largest flux with which waves are stable [Pa], 0 at and beyond a critical level.

    Args:
        intrinsic: Phase speed relative to the wind, c - U [m/s].
        density: [kg m-3].
        buoyancy: Frequency [s-1].
        spectrum: Tells wavenumber and presence.
    """
    k = 2 * pi / spectrum.wavelength
    # multiplied, because NumPy's powers are fifty times slower
    above = np.maximum(intrinsic, 0)
    flux: Array = above * above * above * (spectrum.presence * k / 2 * density / buoyancy)
    return flux


def rising_fluxes(air: Air, spectrum: Spectrum, launch: int) -> Iterator[Array]:
    """Fluxes of all waves [Pa], shape (azimuth, speed, column), half level by half level.

    Args:
        air: The columns.
        spectrum: Waves at their launch, where they break if they are not stable.
        launch: Half level of the launch, counted from the top.

    Yields:
        Those at ``launch``, ``launch`` - 1, …, 0, the top.
    """
    cosine, sine = (part[:, None] for part in spectrum.directions)
    wind = cosine * air.u[:, launch] + sine * air.v[:, launch]
    speed = spectrum.phase_speeds[:, None] + wind[:, None]
    flux = np.broadcast_to(spectrum.launched[:, None], speed.shape)
    for half in range(launch, -1, -1):
        wind = cosine * air.u[:, half] + sine * air.v[:, half]
        most = saturated_flux(
            speed - wind[:, None], air.density[:, half], air.buoyancy[:, half], spectrum
        )
        flux = np.minimum(flux, most)
        yield flux


class Drag(NamedTuple):
    """What waves do to columns.

    Args:
        x: Acceleration to the east [m s-2], shape (column, level); 0 below the launch.
        y: Acceleration to the north.
        flux_x: Flux of eastward momentum through half levels [Pa], shape (column, level + 1);
            below the launch that of the launch.
        flux_y: Of northward momentum.
    """

    x: Array
    y: Array
    flux_x: Array
    flux_y: Array


def wave_drag(
    u: Array, v: Array, temperature: Array, half: Array, spectrum: Spectrum, launch: int
) -> Drag:
    """Acceleration of columns by the waves that break in them.

    Args:
        u: Wind to the east [m/s], shape (column, level), from the top down.
        v: Wind to the north.
        temperature: [K].
        half: Pressure of the half levels [Pa], shape (column, level + 1).
        spectrum: Waves at their launch.
        launch: Half level of the launch, counted from the top.

    Raises:
        GeometryError: If shapes do not fit, pressures do not increase, or there is no such level.
    """
    air = Air.of(u, v, temperature, half)
    if not 0 < launch < half.shape[1]:
        raise GeometryError(
            f"waves are launched at half level {launch}; columns have those from 1 to "
            f"{half.shape[1] - 1}"
        )
    flux = np.empty((2, *half.shape))
    for i, waves in enumerate(rising_fluxes(air, spectrum, launch)):
        per_azimuth = waves.sum(axis=1)
        # opposite directions are subtracted first, so that equal ones give 0 exactly
        east, west = np.split(per_azimuth, 2)
        flux[:, :, launch - i] = np.split(spectrum.directions, 2, axis=1)[0] @ (east - west)
    flux[:, :, launch + 1 :] = flux[:, :, launch : launch + 1]
    drag = GRAVITY * np.diff(flux, axis=2) / np.diff(half, axis=1)
    return Drag(drag[0], drag[1], flux[0], flux[1])
