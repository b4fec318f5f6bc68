"""Cloudy columns of air, drawn at random, and the radiation in them.

Climate and weather are those of `map2map.physics.air_columns`, gases, aerosol and clouds those of
`map2map.physics.air_contents`, to which sun and ground are added.
"""

from dataclasses import dataclass

import numpy as np

from map2map.physics.air_columns import (
    HybridLevels,
    Weather,
    log_height,
    mean_temperature,
    surface_noise,
    thickness,
)
from map2map.physics.air_contents import (
    CloudLayers,
    aerosols,
    clouds,
    humidity,
    overlap,
    trace_gases,
)
from map2map.physics.column_optics import (
    SOLAR_ALBEDO,
    SOLAR_PARTS,
    THERMAL_EMISSIVITY,
    Contents,
    planck,
    solar_layers,
    thermal_layers,
)
from map2map.physics.radiation import Clouds, Fluxes, solar_fluxes, thermal_fluxes
from map2map.typing import Array

__all__ = ["LEVELS", "Sky"]

LEVELS = 137
"""As many as ECMWF's model has."""

SOLAR_CONSTANT, SHALLOWEST = 1361.0, 1e-3
"""Irradiance of the sun in the mean over a year [W m-2], and least cosine of its angle."""

GASES = ("q", "o3", "co2", "n2o", "ch4", "o2", "cfc11", "cfc12", "hcfc22", "ccl4")
"""In the order of the data set."""


@dataclass(frozen=True)
class Sky:
    """Columns, arrays of shape (column, level).

    Args:
        latitude: [rad], (column,).
        longitude: [rad].
        half: Pressure of half levels [Pa], (column, level + 1).
        middle: Temperature of levels [K].
        warmth: Temperature of half levels [K].
        skin: Temperature of the ground [K], (column,).
        mu: Cosine of the sun's zenith angle, 0 at night, (column,).
        sun: Solar irradiance [W m-2], (column,).
        surface: Albedos, for the beam 6 more, and 2 emissivities, (column, 14).
        gases: Mass mixing ratios by name [kg kg-1].
        aerosol: Those of aerosol, (kind, column, level).
        layers: The clouds.
        overlapping: Of neighboring levels, (column, level - 1).
    """

    latitude: Array
    longitude: Array
    half: Array
    middle: Array
    warmth: Array
    skin: Array
    mu: Array
    sun: Array
    surface: Array
    gases: dict[str, Array]
    aerosol: Array
    layers: CloudLayers
    overlapping: Array

    @staticmethod
    def draw(
        latitude: Array, longitude: Array, season: float, hour: float, keys: list[int]
    ) -> "Sky":
        """Random weather.

        Args:
            latitude: Of the columns [rad].
            longitude: Likewise.
            season: 1 in the northern summer, -1 in the southern.
            hour: Universal time.
            keys: What makes the weather another; the first is that of the planet.
        """
        rng, terrain = np.random.default_rng(keys), np.random.default_rng(keys[0])
        land = np.clip(surface_noise(latitude, longitude, terrain, 10), -3, 3)
        weather = np.clip(surface_noise(latitude, longitude, rng), -3, 3)
        ground = 600 * np.clip(land, 0, None)
        half = HybridLevels(LEVELS, 1.0, stretch=1.4).half(
            (101325 + 900 * weather) * np.exp(-ground / 8400)
        )
        pressure = (half[:, 1:] + half[:, :-1]) / 2
        waves = Weather.draw(rng).at(latitude, longitude, log_height(pressure.mean(axis=0)))[2]
        middle = mean_temperature(latitude, log_height(pressure), season) + waves
        warmth = np.concatenate(
            [middle[:, :1], (middle[:, 1:] + middle[:, :-1]) / 2, middle[:, -1:]], axis=1
        )
        mu = sun_height(latitude, longitude, season, hour)
        # land is heated by the sun, the sea is not
        skin = warmth[:, -1] + np.where(land > 0, 12 * mu - 3, 0.8) + 0.5 * weather
        layers = thickness(middle, half)
        height = np.cumsum(layers[:, ::-1], axis=1)[:, ::-1] - layers / 2
        sky = clouds(latitude, longitude, height, middle, rng)
        relative = 0.75 + 0.08 * weather
        humid = humidity(middle, pressure, sky.fraction, relative)
        return Sky(
            latitude,
            longitude,
            half,
            middle,
            warmth,
            skin,
            mu,
            np.full(len(mu), SOLAR_CONSTANT * (1 - 0.033 * season)),
            surfaces(land, skin, mu),
            {"q": humid} | trace_gases(latitude, height, humid),
            aerosols(latitude, longitude, height, rng),
            sky,
            overlap(latitude, height),
        )

    def fluxes(self, size: float) -> tuple[Fluxes, Fluxes]:
        """Solar and thermal fluxes with clouds of this size [m]; infinite: without sides."""
        sky = self.layers
        fraction, above = sky.fraction.T, self.overlapping.T
        cloudy = Clouds(fraction, above, thickness(self.middle, self.half).T, size)
        contents = Contents(
            self.half.T,
            {name: values.T for name, values in self.gases.items()},
            np.swapaxes(self.aerosol, 1, 2),
            fraction,
            sky.liquid.T,
            sky.ice.T,
            sky.liquid_radius.T,
            sky.ice_radius.T,
        )
        # at night there is no flux, but the formulas need some angle
        mu = np.maximum(self.mu, SHALLOWEST)
        sun = SOLAR_PARTS[:, None] * (self.sun * self.mu)
        diffuse, beam = (SOLAR_ALBEDO @ self.surface[:, i : i + 6].T for i in (0, 6))
        solar = solar_fluxes(list(solar_layers(contents, mu)), cloudy, mu, sun, (diffuse, beam))
        emissivity = THERMAL_EMISSIVITY @ self.surface[:, 12:].T
        black = list(thermal_layers(contents, self.warmth.T))
        return solar, thermal_fluxes(black, cloudy, planck(self.skin), emissivity)

    def inputs(self) -> dict[str, Array]:
        """Groups of variables as in files of inputs, see `map2map.synthetic.radiation_columns`."""
        sky, aerosol = self.layers, np.moveaxis(self.aerosol, 0, 2)
        gases = np.stack([self.gases[name] for name in GASES] + [sky.fraction], axis=2)
        water = np.stack([sky.liquid, sky.ice, sky.liquid_radius, sky.ice_radius], axis=2)
        scalars = [self.skin[:, None], self.mu[:, None], self.surface, self.sun[:, None]]
        return {
            "sca_inputs": np.concatenate(scalars, axis=1),
            "col_inputs": np.concatenate([gases, aerosol, water], axis=2),
            "hl_inputs": np.stack([self.warmth, self.half], axis=2),
            "inter_inputs": self.overlapping[:, :, None],
            "pressure_hl": self.half[:, :, None],
            "lat": np.rad2deg(self.latitude),
            "lon": np.rad2deg(self.longitude),
        }


def sun_height(latitude: Array, longitude: Array, season: float, hour: float) -> Array:
    """Cosine of the sun's zenith angle, 0 where it is below the horizon."""
    declination = np.deg2rad(23.44) * season
    angle = longitude + np.pi * (hour - 12) / 12
    cosine = np.sin(latitude) * np.sin(declination)
    cosine = cosine + np.cos(latitude) * np.cos(declination) * np.cos(angle)
    height: Array = np.maximum(cosine, 0)
    return height


def surfaces(land: Array, skin: Array, mu: Array) -> Array:
    """Albedos of six bands, those for the beam, and two emissivities, (column, 14).

    Snow and ice where it is cold, vegetation and soil on land; the sea reflects a low sun, by
    Taylor, Edwards, Glew, Hignett & Slingo 1996, *Q. J. R. Meteorol. Soc.* 122, 839, eq. (3).
    """
    snow = np.clip((271 - skin) / 6, 0, 1)[:, None]
    dry = np.clip(0.5 + land / 3, 0, 1)[:, None]
    soil = dry * [0.06, 0.08, 0.13, 0.32, 0.28, 0.2] + (1 - dry) * [
        0.03,
        0.04,
        0.06,
        0.25,
        0.15,
        0.05,
    ]
    sea = (0.037 / (1.1 * mu**1.4 + 0.15))[:, None]
    white = np.array([0.85, 0.87, 0.86, 0.7, 0.3, 0.1])
    bare, beam = (np.where(land[:, None] > 0, soil, other) for other in (0.06 + 0 * soil, sea))
    black = np.where(land[:, None] > 0, [0.97, 0.94], [0.98, 0.985])
    emissivity = black + snow * (0.99 - black)
    return np.concatenate([kind + snow * (white - kind) for kind in (bare, beam)] + [emissivity], 1)
