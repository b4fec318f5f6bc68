"""Premixed flames: their profile, what a filter leaves of them, and how much surface that hides.

The progress variable c is 0 in fresh gas and 1 in burnt gas. The flame surface density is |grad c|
[1/L]: its integral over a volume is the flame's surface in there, because that along a line across
a flame is 1.

References: E96: Echekki & Ferziger 1996, Combust. Sci. Technol. 118, 293 (a flame with a reaction
rate in two pieces); C02: Charlette, Meneveau & Veynante 2002, Combust. Flame 131, 159.
"""

from math import isfinite, sqrt

import numpy as np
from scipy.ndimage import gaussian_filter1d

from map2map.errors import GeometryError, RecipeError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

__all__ = ["flame_profile", "gaussian_filter", "gradient_norm", "wrinkling"]

BETA = 4.0
"""Of the reaction zone: how much thinner it is than the zone in front, plus one."""


def flame_profile(distance: Array, thickness: float, beta: float = BETA) -> Array:
    """Progress variable of a plane laminar flame (E96).

    Ahead of the reaction, c = (1 - 1/beta) exp(x / d) is convection against diffusion; behind its
    beginning, c = 1 - exp((1 - beta) x / d) / beta solves both with a rate in proportion to 1 - c.
    Value and slope are continuous, and the slope is largest there, 1 / thickness.

    Args:
        distance: x, from where the reaction begins, positive towards burnt gas [L].
        thickness: Thermal thickness of the flame, 1 / largest |grad c| [L].
        beta: Of E96, above 1.

    Returns:
        c, in double precision.
    """
    if not (thickness > 0 and beta > 1):
        raise RecipeError(f"a flame needs thickness > 0 and beta > 1, not {thickness}, {beta}")
    x = np.asarray(distance, np.float64) * beta / (beta - 1) / thickness
    ahead = (1 - 1 / beta) * np.exp(np.minimum(x, 0))
    behind = 1 - np.exp((1 - beta) * np.maximum(x, 0)) / beta
    found: Array = np.where(x < 0, ahead, behind)
    return found


def gradient_norm(
    values: Array, spacing: Spacing = 1.0, periodic: tuple[bool, ...] | None = None
) -> Array:
    """Length of a gradient [u/L], from central differences of second order.

    Args:
        values: Of a scalar [u], shape (*space); axes of one cell have no derivative.
        spacing: Cell size [L]; one per axis, or one for all.
        periodic: Which axes are, default none; at the ends of others differences are one-sided.
    """
    sizes = cell_sizes(spacing, values.ndim)
    squares = np.zeros_like(values)
    for axis, (size, wraps) in enumerate(
        zip(sizes, periodic or (False,) * values.ndim, strict=True)
    ):
        if values.shape[axis] > 1:
            slope = np.gradient(values, size, axis=axis)
            if wraps:
                # only the ends differ
                ends = np.take(values, [-2, -1, 0, 1], axis=axis, mode="wrap")
                inner = np.moveaxis(np.gradient(ends, size, axis=axis), axis, 0)
                moved = np.moveaxis(slope, axis, 0)
                moved[-1], moved[0] = inner[1], inner[2]
            squares += slope**2
    return np.sqrt(squares, out=squares)


def gaussian_filter(
    values: Array, width: float, periodic: tuple[bool, ...], spacing: Spacing = 1.0
) -> Array:
    """A field as a large-eddy simulation has it: filtered by exp(-6 x^2 / width^2), normalized.

    That is the Gaussian of as large a second moment as a box of the same width. It is positive, so
    the norm of a filtered gradient is at most the filtered norm.

    Args:
        values: Shape (*space).
        width: Of the filter [L]; 0 changes nothing.
        periodic: Which axes are; beyond the ends of others values stay what they are there.
        spacing: Cell size [L]; one per axis, or one for all.
    """
    if len(periodic) != values.ndim or not (width >= 0 and isfinite(width)):
        raise GeometryError(
            f"a filter needs a width of 0 or more and one of `periodic` for each of {values.ndim} "
            f"axes, not {width} and {periodic}"
        )
    found = values
    for axis, (size, wraps) in enumerate(
        zip(cell_sizes(spacing, values.ndim), periodic, strict=True)
    ):
        sigma = width / size / sqrt(12)
        if sigma > 0:
            mode = "wrap" if wraps else "nearest"
            found = gaussian_filter1d(found, sigma, axis=axis, mode=mode, truncate=4)
    return found


def wrinkling(width: float, cutoff: float, beta: float = 0.5) -> float:
    """Flame surface over that of the filtered flame, (1 + width / cutoff)^beta (C02).

    The power law of C02 with a constant exponent, and the inner cut-off in place of
    the efficiency function, which needs the velocity below the filter's scale: turbulence is taken
    to wrinkle the flame at all scales between cut-off and filter.

    Args:
        width: Of the filter [L].
        cutoff: Inner cut-off, the scale of the smallest wrinkles [L]; about the laminar thickness.
        beta: Exponent; 0.5 in C02, and the fractal dimension of the surface less 2.
    """
    if not (width >= 0 and cutoff > 0 and isfinite(width) and isfinite(beta) and beta >= 0):
        raise RecipeError(
            f"a closure needs width >= 0, cutoff > 0 and beta >= 0, not width {width}, cutoff "
            f"{cutoff}, beta {beta}"
        )
    return float((1 + width / cutoff) ** beta)
