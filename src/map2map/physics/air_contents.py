"""What columns of air could contain: vapor, trace gases, aerosol and clouds, drawn at random.

Amounts and profiles are round numbers from climatologies; clouds are layers in the lower, middle
and upper troposphere where random weather makes them. Arrays are (column, level) from the top down.
"""

from dataclasses import dataclass

import numpy as np

from map2map.physics.air_columns import surface_noise
from map2map.typing import Array

__all__ = ["CloudLayers", "aerosols", "clouds", "humidity", "overlap", "trace_gases"]

FREEZING, ALL_ICE = 273.15, 250.15
"""Between these temperatures, clouds hold both water and ice [K]."""

GASES = {
    "co2": (6.3e-4, 1.0),
    "n2o": (5.1e-7, 0.25),
    "ch4": (1.06e-6, 0.35),
    "cfc11": (1.05e-9, 0.02),
    "cfc12": (2.1e-9, 0.1),
    "hcfc22": (7.4e-10, 0.2),
    "ccl4": (4.1e-10, 0.02),
}
"""Mass mixing ratio at the ground [kg kg-1], and the part of it that reaches 40 km."""

OXYGEN = 0.2314
"""Of dry air by mass."""

AEROSOL = [5e-9, 6e-9, 3e-9, 1e-9, 3e-9, 5e-9, 2e-9, 3e-9, 3e-10, 2e-10, 2e-9, 1e-10]
"""Typical mass mixing ratios at the ground [kg kg-1]."""

AEROSOL_HEIGHT = [900, 900, 700, 2500, 2000, 1500, 2000, 2500, 2500, 2500, 2500, 20000]
"""Over which they fall by e [m]."""

DECKS = (
    # name: center and half thickness [m], largest water content [kg kg-1], how common
    (1200.0, 700.0, 3.5e-4, 0.15),
    (4800.0, 1300.0, 2.0e-4, -0.35),
    (9500.0, 1600.0, 4.0e-5, -0.1),
)


def saturation(temperature: Array, pressure: Array) -> Array:
    """Specific humidity at saturation over water [kg kg-1]; below 180 K that at 180 K.

    Bolton 1980, *Mon. Weather Rev.* 108, 1046, eq. (10).
    """
    celsius = np.maximum(temperature, 180.0) - 273.15
    vapor = 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))
    humid: Array = 0.622 * vapor / np.maximum(pressure - 0.378 * vapor, vapor)
    return humid


def humidity(temperature: Array, pressure: Array, cloudy: Array, relative: Array) -> Array:
    """Specific humidity [kg kg-1]: saturated in clouds, dry at 3e-6 in the stratosphere.

    Args:
        temperature: [K].
        pressure: [Pa].
        cloudy: Cloud fraction.
        relative: Relative humidity of clear air at the ground, (column,).
    """
    clear = relative[:, None] * np.clip(pressure / 1e5, 0, 1) ** 0.5
    wet = (clear + (1 - clear) * cloudy) * saturation(temperature, pressure)
    # above the tropopause it is what rose through the cold tropics
    humid: Array = np.where(pressure < 2e4, np.minimum(wet, 3e-6), wet) + 5e-7
    return humid


def trace_gases(latitude: Array, height: Array, humid: Array) -> dict[str, Array]:
    """Mass mixing ratios [kg kg-1] of gases other than vapor, by name.

    Args:
        latitude: Of the columns [rad].
        height: Of the levels [m].
        humid: Specific humidity, of which there is the less dry air.
    """
    sine = np.sin(latitude)[:, None]
    dry = 1 - humid
    # long-lived gases are lost in the stratosphere, and sink at the poles
    lost = np.clip((height - 10e3 - 6e3 * (1 - sine**2)) / 30e3, 0, 1)
    found = {
        name: amount * (1 + 0.01 * sine) * dry * left**lost
        for name, (amount, left) in GASES.items()
    }
    layer = 20e3 + 5e3 * (1 - sine**2)
    shape = np.exp(-(((height - layer - 11e3) / 11e3) ** 2))
    ozone = 5e-8 + (1.35e-5 - 4e-6 * sine**2) * shape
    order = ("co2", "n2o", "ch4", "o2", "cfc11", "cfc12", "hcfc22", "ccl4")
    return {"o3": ozone} | {n: OXYGEN * dry if n == "o2" else found[n] for n in order}


def aerosols(latitude: Array, longitude: Array, height: Array, rng: np.random.Generator) -> Array:
    """Mass mixing ratios of twelve kinds [kg kg-1], (kind, column, level), log-normal in space."""
    found = []
    for typical, scale in zip(AEROSOL, AEROSOL_HEIGHT, strict=True):
        patches = np.exp(0.8 * surface_noise(latitude, longitude, rng))
        found.append(typical * patches[:, None] * np.exp(-np.clip(height / scale, 0, 12)))
    return np.stack(found)


@dataclass(frozen=True)
class CloudLayers:
    """Clouds of columns, shape (column, level).

    Args:
        fraction: Part of the area.
        liquid: Water per air, mean over the area [kg kg-1].
        ice: Likewise.
        liquid_radius: Effective radius of drops [m].
        ice_radius: Of crystals [m].
    """

    fraction: Array
    liquid: Array
    ice: Array
    liquid_radius: Array
    ice_radius: Array


def clouds(
    latitude: Array,
    longitude: Array,
    height: Array,
    temperature: Array,
    rng: np.random.Generator,
) -> CloudLayers:
    """Low, middle and high clouds, each where a random function of the globe is high enough.

    Args:
        latitude: Of the columns [rad].
        longitude: Likewise.
        height: Of levels above the ground [m].
        temperature: [K]; cold clouds are ice.
        rng: What draws them.
    """
    clear, water = np.ones_like(height), np.zeros_like(height)
    for center, half, content, common in DECKS:
        weather, rich, shift, depth = (
            surface_noise(latitude, longitude, rng, 20)[:, None] for _ in range(4)
        )
        cover = np.clip(0.8 * (weather + common), 0, 1)
        # higher in the tropics, where the troposphere is
        middle = (center + 0.25 * half * shift) * (0.8 + 0.5 * np.cos(latitude)[:, None] ** 2)
        reach = half * (0.7 + 0.25 * np.clip(depth, -2, 2))
        shape = np.clip(1 - ((height - middle) / reach) ** 2, 0, 1)
        fraction = cover * np.sqrt(shape)
        # no wisps that have hardly an area
        fraction = np.where(fraction < 0.01, 0, fraction)
        clear *= 1 - fraction
        water += fraction * content * np.exp(0.6 * rich) * (0.3 + 0.7 * shape)
    warm = np.clip((temperature - ALL_ICE) / (FREEZING - ALL_ICE), 0, 1) ** 2
    celsius = np.clip(temperature - 273.15, -80, 0)
    land = surface_noise(latitude, longitude, rng)[:, None]
    return CloudLayers(
        1 - clear,
        water * warm,
        water * (1 - warm),
        1e-6 * (10 + 1.5 * np.clip(land, -2, 2) + 1.5e-4 * np.clip(height, 0, 15e3)),
        1e-6 * (55 + 0.5 * celsius + 2 * np.clip(land, -2, 2)),
    )


def overlap(latitude: Array, height: Array) -> Array:
    """Overlap of clouds of neighboring levels, (column, level - 1): exp(-distance / z0).

    z0 = 2.9 km - 27 m per degree of latitude: Shonk, Hogan, Edwards & Mace 2010, *Q. J. R.
    Meteorol. Soc.* 136, 1191, eq. (12).
    """
    decorrelation = 2900 - 27 * np.rad2deg(np.abs(latitude))[:, None]
    parameter: Array = np.exp(np.diff(height, axis=1) / decorrelation)
    return parameter
