"""Two streams of radiation through a layer: what it reflects, transmits and emits.

All arguments are arrays of one shape, or such that broadcast; so are results, which are parts of
what enters, or, of emission, parts of the Planck function's hemispheric flux.

Sources: MW80: Meador & Weaver 1980, *J. Atmos. Sci.* 37, 630; Z80: Zdunkowski, Welch & Korb 1980,
*Beitr. Phys. Atmos.* 53, 147 (coefficients, also in MW80's table 1); J76: Joseph, Wiscombe &
Weinman 1976, *J. Atmos. Sci.* 33, 2452; E42: Elsasser 1942, *Heat Transfer by Infrared Radiation in
the Atmosphere* (diffusivity).
"""

from typing import NamedTuple

import numpy as np

from map2map.typing import Array

__all__ = ["DIFFUSIVITY", "Emission", "Layer", "delta_scaled", "emission", "layer"]

DIFFUSIVITY = 1.66
"""Mean path of diffuse thermal radiation over the thickness of a layer (E42)."""

SMALLEST = 1e-6
"""Of the eigenvalue k, which would be 0 where nothing is absorbed."""


class Layer(NamedTuple):
    """What becomes of solar radiation that enters a layer; diffuse, and of the direct beam.

    Args:
        reflected: Part of diffuse radiation that is reflected.
        transmitted: Part of it that is transmitted.
        beam_up: Part of the beam that leaves at the top, scattered.
        beam_down: Part of the beam that leaves at the base, scattered.
        beam: Part of the beam that is left, exp(-tau / mu).
    """

    reflected: Array
    transmitted: Array
    beam_up: Array
    beam_down: Array
    beam: Array


def delta_scaled(depth: Array, albedo: Array, asymmetry: Array) -> tuple[Array, Array, Array]:
    """Optical depth, single-scattering albedo and asymmetry without the forward peak (J76).

    The part g^2 of what is scattered goes on as if nothing had been.
    """
    peak = asymmetry**2
    left = 1 - albedo * peak
    return depth * left, albedo * (1 - peak) / left, asymmetry / (1 + asymmetry)


def layer(depth: Array, albedo: Array, asymmetry: Array, mu: Array) -> Layer:
    """Solar radiation in a homogeneous layer: MW80 eqs. (14), (15) and (25) with Z80's PIFM.

    Args:
        depth: Optical depth.
        albedo: Single-scattering albedo.
        asymmetry: Of scattering.
        mu: Cosine of the sun's zenith angle, above 0.
    """
    g1 = 2 - albedo * (1.25 + 0.75 * asymmetry)
    g2 = 0.75 * albedo * (1 - asymmetry)
    k = np.sqrt(np.maximum((g1 - g2) * (g1 + g2), SMALLEST**2))
    left = np.exp(-depth / mu)
    # the solution has a removable pole where k mu = 1; mu is moved in all of it, or it would remain
    mu = np.where(np.abs(1 - k * mu) < 1e-5, (1 + 1e-5) / k, mu)
    km = k * mu
    g3 = 0.5 - 0.75 * mu * asymmetry
    g4 = 1 - g3
    a1, a2 = g1 * g4 + g2 * g3, g1 * g3 + g2 * g4
    beam, once = np.exp(-depth / mu), np.exp(-k * depth)
    twice = once**2
    below = k * (1 + twice) - g1 * np.expm1(-2 * k * depth)
    part = albedo / ((1 - km**2) * below)
    up = (1 - km) * (a2 + k * g3) - (1 + km) * (a2 - k * g3) * twice
    up = up - 2 * (k * g3 - a2 * km) * once * beam
    down = (1 + km) * (a1 + k * g4) - (1 - km) * (a1 - k * g4) * twice
    down = 2 * (k * g4 + a1 * km) * once - beam * down
    up = np.clip(part * up, 0, 1 - left)
    return Layer(
        -g2 * np.expm1(-2 * k * depth) / below,
        2 * k * once / below,
        up,
        np.clip(part * down, 0, 1 - left - up),
        left,
    )


class Emission(NamedTuple):
    """Thermal radiation of a layer.

    Args:
        transmitted: Part of what enters that leaves on the other side; the rest is absorbed.
        up: Flux that it emits upward [that of the Planck functions].
        down: Flux that it emits downward.
    """

    transmitted: Array
    up: Array
    down: Array


def emission(depth: Array, above: Array, below: Array) -> Emission:
    """Thermal radiation of a layer that does not scatter.

    The Planck function varies linearly with optical depth, which makes black layers radiate with
    the temperatures of their surfaces, and transparent ones with their mean.

    Args:
        depth: Optical depth of absorption.
        above: Planck function at the top [W m-2].
        below: Planck function at the base.
    """
    slant = DIFFUSIVITY * depth
    transmitted = np.exp(-slant)
    # (1 - exp(-x)) / x, 1 for x -> 0
    mean = np.where(slant > 1e-12, -np.expm1(-slant) / np.maximum(slant, 1e-12), 1.0)
    return Emission(
        transmitted,
        above * (1 - mean) + below * (mean - transmitted),
        below * (1 - mean) + above * (mean - transmitted),
    )
