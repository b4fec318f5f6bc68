"""Optical properties of columns of air: gases, aerosol and clouds in three solar and thermal bands.

Bands are wide and gray, so that a column costs milliseconds: coefficients are round numbers that
give absorption, and optical depths of clear air, of the right size (P92: Peixoto & Oort 1992,
*Physics of Climate*, chapter 6). Cloud particles are large against the wavelength, so extinction is
twice their cross section, 3 / (2 rho r) per mass (S89: Slingo 1989, *J. Atmos. Sci.* 46, 1419).

Shapes: (level, column) from the top down; layers for each of (region, band, column), the regions
being clear and cloudy, as in `map2map.physics.radiation`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from map2map.physics.air_columns import GRAVITY
from map2map.physics.radiation import STEFAN_BOLTZMANN
from map2map.physics.two_stream import Emission, Layer, delta_scaled, emission, layer
from map2map.typing import Array

__all__ = [
    "SOLAR_ALBEDO",
    "SOLAR_PARTS",
    "THERMAL_EMISSIVITY",
    "THERMAL_PARTS",
    "Contents",
    "planck",
    "solar_layers",
    "thermal_layers",
]

SOLAR_PARTS = np.array([0.47, 0.31, 0.22])
"""Of the sun's light below 0.69 um, to 1.19 um, and beyond."""

SOLAR_ALBEDO = np.array([[0.02, 0.24, 0.74, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0.77, 0.23]])
"""Weights by which bands take albedos of six: up to 0.25, 0.44, 0.69, 1.19, 2.38 um, and beyond."""

THERMAL_PARTS = np.array([0.40, 0.38, 0.22])
"""Of black-body radiation where water absorbs, in the window, and where carbon dioxide does."""

THERMAL_EMISSIVITY = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
"""Weights by which bands take emissivities of two: outside the window, and in it."""

SOLAR_GASES = {
    "q": (0.0, 3e-3, 2.5e-2),
    "o3": (10.0, 0.0, 0.0),
    "co2": (0.0, 0.0, 3e-3),
    "ch4": (0.0, 0.0, 0.3),
    "n2o": (0.0, 0.0, 0.1),
    "o2": (0.0, 2e-6, 0.0),
}
"""Absorption [m2 kg-1] in each solar band."""

THERMAL_GASES = {
    "q": (1.0, 6e-3, 3e-2),
    "o3": (0.0, 25.0, 0.0),
    "co2": (0.0, 5e-4, 3.0),
    "ch4": (15.0, 0.5, 0.0),
    "n2o": (20.0, 1.0, 0.0),
    "cfc11": (0.0, 1500.0, 0.0),
    "cfc12": (0.0, 1500.0, 0.0),
    "hcfc22": (0.0, 900.0, 0.0),
    "ccl4": (0.0, 900.0, 0.0),
}
"""Absorption [m2 kg-1] in each thermal band, at the pressure of the ground."""

BROADENED = ("q", "co2", "ch4", "n2o")
"""Gases whose lines are wider where the pressure is higher."""

RAYLEIGH = np.array([0.15, 0.014, 0.002])
"""Optical depth of scattering by the whole air."""

AEROSOL = np.array(
    [
        [2500, 700, 100, 2200, 900, 350, 3000, 5000, 9000, 8000, 4000, 4000],
        [0.99, 0.98, 0.95, 0.94, 0.91, 0.85, 0.96, 0.98, 0.25, 0.3, 0.99, 0.99],
    ]
)
"""Extinction [m2 kg-1] and single-scattering albedo: sea salt and dust of three sizes, organic and
black carbon, each hydrophobic and hydrophilic, sulfate below and in the stratosphere."""

AEROSOL_BANDS = np.array([1.0, 0.45, 0.12])
"""Extinction of each solar band over that of the first."""

AEROSOL_ASYMMETRY = 0.7

WATER, ICE = 1000.0, 917.0
"""Densities [kg m-3]."""

SOLAR_CLOUD = {
    "liquid": ((0.999999, 0.9998, 0.98), 0.86),
    "ice": ((0.999999, 0.9993, 0.95), 0.79),
}
"""Single-scattering albedo in each solar band, and asymmetry."""

THERMAL_CLOUD = 0.5
"""Part of the extinction that absorbs thermal radiation."""

SURFACE_PRESSURE = 101325.0


@dataclass(frozen=True)
class Contents:
    """What columns hold, shape (level, column).

    Args:
        half: Pressure of the half levels [Pa], (level + 1, column).
        gases: Mass mixing ratios [kg kg-1] by name; "q" is humidity.
        aerosol: Mass mixing ratios, (kind, level, column).
        fraction: Of clouds.
        liquid: Water per air, mean over clear and cloudy [kg kg-1].
        ice: Likewise.
        liquid_radius: Effective radius [m].
        ice_radius: Likewise.
    """

    half: Array
    gases: Mapping[str, Array]
    aerosol: Array
    fraction: Array
    liquid: Array
    ice: Array
    liquid_radius: Array
    ice_radius: Array

    @property
    def mass(self) -> Array:
        """Of air [kg m-2]."""
        mass: Array = np.diff(self.half, axis=0) / GRAVITY
        return mass

    @property
    def broadening(self) -> Array:
        """Pressure over that of the ground."""
        return (self.half[1:] + self.half[:-1]) / 2 / SURFACE_PRESSURE

    def cloud_depths(self) -> dict[str, Array]:
        """Optical depth of the two kinds of particles within clouds."""
        # where there is no cloud, what water there is counts for nothing
        covered = np.where(self.fraction > 0, self.fraction, np.inf)
        per_area = 1.5 * self.mass / covered
        return {
            "liquid": per_area * self.liquid / (WATER * self.liquid_radius),
            "ice": per_area * self.ice / (ICE * self.ice_radius),
        }

    def absorption(self, table: Mapping[str, tuple[float, ...]], *, broadened: bool) -> Array:
        """Optical depth of gases in each band, (level, band, column)."""
        depth = np.zeros((len(self.half) - 1, 3, self.half.shape[1]))
        for name, coefficients in table.items():
            path = self.gases[name] * self.mass
            if broadened and name in BROADENED:
                path = path * self.broadening
            depth += np.array(coefficients)[:, None] * path[:, None]
        return depth


def solar_layers(contents: Contents, mu: Array) -> Iterator[Layer]:
    """What each layer does to solar radiation, from the top down.

    Args:
        contents: Of the columns.
        mu: Cosine of the sun's zenith angle, above 0, shape (column,).
    """
    gases = contents.absorption(SOLAR_GASES, broadened=False)
    clouds, mass = contents.cloud_depths(), contents.mass
    for level, absorbed in enumerate(gases):
        rayleigh = RAYLEIGH[:, None] * (mass[level] * GRAVITY / SURFACE_PRESSURE)
        hazy = contents.aerosol[:, level] * mass[level]
        haze = AEROSOL_BANDS[:, None] * (AEROSOL[0] @ hazy)
        scattered_haze = AEROSOL_BANDS[:, None] * (AEROSOL[0] * AEROSOL[1] @ hazy)
        # extinction, scattering, and scattering times asymmetry of the clear and the cloudy region
        depth = np.stack([absorbed + rayleigh + haze] * 2)
        scattered = np.stack([rayleigh + scattered_haze] * 2)
        forward = np.stack([AEROSOL_ASYMMETRY * scattered_haze] * 2)
        for kind, (albedo, asymmetry) in SOLAR_CLOUD.items():
            extinction = clouds[kind][level]
            depth[1] += extinction
            scattered[1] += np.array(albedo)[:, None] * extinction
            forward[1] += asymmetry * np.array(albedo)[:, None] * extinction
        yield layer(
            *delta_scaled(
                depth,
                scattered / np.maximum(depth, 1e-30),
                forward / np.maximum(scattered, 1e-30),
            ),
            mu,
        )


def planck(temperature: Array) -> Array:
    """Hemispheric flux of a black body in each band [W m-2], (…, column) -> (…, band, column)."""
    flux: Array = THERMAL_PARTS[:, None] * (STEFAN_BOLTZMANN * temperature**4)[..., None, :]
    return flux


def thermal_layers(contents: Contents, temperature: Array) -> Iterator[Emission]:
    """What each layer does to thermal radiation, from the top down.

    Args:
        contents: Of the columns.
        temperature: Of the half levels [K], (level + 1, column).
    """
    gases = contents.absorption(THERMAL_GASES, broadened=True)
    depths = contents.cloud_depths()
    clouds = THERMAL_CLOUD * (depths["liquid"] + depths["ice"])
    black = planck(temperature)
    for level, clear in enumerate(gases):
        depth = np.stack([clear, clear + clouds[level]])
        yield emission(depth, black[level], black[level + 1])
