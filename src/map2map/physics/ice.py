"""Ice flow: velocities in the shallow-ice approximation, and the conservation of mass.

Fields are arrays (…, y, x). Lengths are in m, times in yr, stresses in MPa, so velocities in m/yr.
Glen's flow law is *strain rate = A stress^3*, with A in MPa^-3 yr^-1 (``arrhenius``).

Sliding is Weertman's, u_b = c tau_b^3, with tau_b the basal stress and c in **km** MPa^-3 yr^-1
(``slidingco``): under 0.1 MPa, c = 1 makes 1 m/yr. A kilometer is what c is measured against in the
sum ``strflowctrl`` = A + c by which some emulators are told of both.

Sources: G09: Greve & Blatter 2009, *Dynamics of Ice Sheets and Glaciers*; C10: Cuffey & Paterson
2010, *The Physics of Glaciers*, 4th edition; H83: Hutter 1983, *Theoretical Glaciology*, where the
approximation comes from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

__all__ = [
    "DENSITY",
    "GRAVITY",
    "METERS_PER_KM",
    "Flow",
    "Velocity",
    "check_column",
    "conserve_mass",
    "driving_stress",
    "longest_step",
    "shallow_ice",
    "slopes",
]

DENSITY, GRAVITY = 910.0, 9.81
"""Of ice [kg/m3], and the acceleration of gravity [m/s2]."""

EXPONENT = 3
"""Of Glen's flow law."""

METERS_PER_KM, PASCALS_PER_MPA = 1e3, 1e6


@dataclass(frozen=True)
class Velocity:
    """A horizontal velocity.

    Args:
        x: Component along the last axis [m/yr], shape (…, y, x).
        y: Component along the axis before it [m/yr].
    """

    x: Array
    y: Array

    @property
    def speed(self) -> Array:
        """Its magnitude [m/yr]."""
        magnitude: Array = np.hypot(self.x, self.y)
        return magnitude

    def scaled(self, factor: ArrayLike) -> "Velocity":
        """The same direction, ``factor`` times as fast."""
        return Velocity(np.multiply(self.x, factor), np.multiply(self.y, factor))

    def capped(self, most: float) -> "Velocity":
        """The same direction, no faster than ``most`` [m/yr]."""
        return self.scaled(most / np.maximum(self.speed, most))


@dataclass(frozen=True)
class Flow:
    """How a glacier moves.

    Args:
        base: Velocity at the bed.
        mean: Velocity averaged over the thickness.
        surface: Velocity at the surface.
        drag: Magnitude of the stress at the base [MPa].
    """

    base: Velocity
    mean: Velocity
    surface: Velocity
    drag: Array

    def named(self) -> dict[str, Array]:
        """The components [m/yr] by the names that glacier models give them in files."""
        return {
            "ubar": self.mean.x,
            "vbar": self.mean.y,
            "uvelsurf": self.surface.x,
            "vvelsurf": self.surface.y,
            "uvelbase": self.base.x,
            "vvelbase": self.base.y,
        }


def slopes(surface: Array, spacing: Spacing) -> tuple[Array, Array]:
    """Slope of a surface along the last axis, and along the axis before it.

    Central differences; at the edges one-sided ones of first order.

    Args:
        surface: Elevation [m], shape (…, y, x).
        spacing: Cell size along y and x [m], or one for both.

    Returns:
        d surface / dx and d surface / dy, dimensionless.

    Raises:
        GeometryError: If an axis has fewer than two cells.
    """
    dy, dx = cell_sizes(spacing, 2)
    if surface.ndim < 2 or min(surface.shape[-2:]) < 2:
        raise GeometryError(
            f"slopes need at least 2 cells on the axes y and x, but the surface has shape "
            f"{surface.shape}"
        )
    along_x: Array = np.gradient(surface, dx, axis=-1)
    along_y: Array = np.gradient(surface, dy, axis=-2)
    return along_x, along_y


def driving_stress(thickness: Array, surface: Array, spacing: Spacing) -> tuple[Array, Array]:
    """Driving stress, -density gravity thickness grad surface [MPa], along x and along y.

    The arguments are those of `shallow_ice`.
    """
    check_column(thickness, surface)
    weight = DENSITY * GRAVITY / PASCALS_PER_MPA * thickness
    along_x, along_y = slopes(surface, spacing)
    return -weight * along_x, -weight * along_y


def shallow_ice(
    thickness: Array,
    surface: Array,
    spacing: Spacing,
    *,
    arrhenius: ArrayLike = 78.0,
    slidingco: ArrayLike = 0.0,
) -> Flow:
    """Velocities in the shallow-ice approximation, where a column of ice feels no other.

    The basal stress tau_b is the driving stress, and with the thickness H

    - u_b = c tau_b^3 at the base;
    - u_s = u_b + A/2 tau_b^3 H at the surface (G09, Eq. (5.84) for a constant A; C10, Eq. (8.35));
    - u = u_b + 2A/5 tau_b^3 H on average over the depth, the integral of the former over it.

    It is the leading order in the ratio of thickness and length (H83), and too fast where ice is
    steep or slides.

    Args:
        thickness: Of the ice [m], shape (…, y, x); 0 where there is none.
        surface: Its elevation, or that of the bed where there is no ice [m], same shape.
        spacing: Cell size along y and x [m], or one for both.
        arrhenius: Rate factor A [MPa^-3 yr^-1], a number or a field.
        slidingco: Sliding coefficient c [km MPa^-3 yr^-1], a number or a field.

    Returns:
        Velocities, 0 where there is no ice.

    Raises:
        FieldError: If values are not finite, or thickness, A or c negative.
        GeometryError: If shapes differ, or an axis has fewer than two cells.
    """
    check_coefficients(thickness, arrhenius=arrhenius, slidingco=slidingco)
    stress = Velocity(*driving_stress(thickness, surface, spacing))
    drag = stress.speed
    squared = drag ** (EXPONENT - 1)
    base = stress.scaled(squared * METERS_PER_KM * np.asarray(slidingco))
    deformation = stress.scaled(2 * np.asarray(arrhenius) * squared * thickness)

    def plus(part: float) -> Velocity:
        return Velocity(base.x + deformation.x * part, base.y + deformation.y * part)

    return Flow(base, plus(1 / (EXPONENT + 2)), plus(1 / (EXPONENT + 1)), drag)


def longest_step(velocity: Velocity, spacing: Spacing, courant: float = 1.0) -> float:
    """The longest time step of `conserve_mass` in which no cell gives more than it has [yr].

    Args:
        velocity: Averaged over the depth.
        spacing: Cell size along y and x [m], or one for both.
        courant: The largest part of a cell's ice that may leave it in a step.

    Returns:
        The step; infinite if nothing moves.
    """
    dy, dx = cell_sizes(spacing, 2)
    x, y = faces(velocity)
    leaving = (out_of(x, -1) / dx + out_of(y, -2) / dy).max()
    return courant / float(leaving) if leaving > 0 else np.inf


def conserve_mass(
    thickness: Array, velocity: Velocity, spacing: Spacing, step: float, balance: ArrayLike = 0.0
) -> Array:
    """Thickness after a time step: d thickness / dt = - div(thickness velocity) + balance.

    Upwind and explicit: what leaves a cell through a face enters the neighbor, at
    the mean velocity of both, so the sum over cells changes only by the balance, and by what leaves
    the grid; from beyond its edges nothing comes. Then the balance is added, as far as there is ice
    to melt, so that the thickness is never negative.

    Args:
        thickness: Of the ice [m], shape (…, y, x).
        velocity: Averaged over the depth.
        spacing: Cell size along y and x [m], or one for both.
        step: Duration [yr]; at most `longest_step`.
        balance: Surface mass balance [m of ice per yr], a number or a field.

    Raises:
        RecipeError: If the step is not positive, or too long.
    """
    longest = longest_step(velocity, spacing)
    if not 0 < step <= longest * (1 + 1e-12):
        raise RecipeError(
            f"a time step must be positive and at most {longest:.4g} yr for these velocities and "
            f"cells, or ice would leave cells that have none, not {step:.4g} yr"
        )
    dy, dx = cell_sizes(spacing, 2)
    gained = np.zeros_like(thickness)
    for face, axis, cell in zip(faces(velocity), (-1, -2), (dx, dy), strict=True):
        edge = [(0, 0)] * thickness.ndim
        edge[axis % thickness.ndim] = (1, 1)
        padded = np.pad(thickness, edge)
        before, after = cut(padded, axis, 0, -1), cut(padded, axis, 1, None)
        flux = np.maximum(face, 0) * before + np.minimum(face, 0) * after
        gained -= np.diff(flux, axis=axis) / cell
    moved: Array = np.maximum(thickness + step * gained, 0)
    result: Array = np.maximum(moved + step * np.asarray(balance), 0)
    return result


def faces(velocity: Velocity) -> tuple[Array, Array]:
    """Velocities across the faces between cells along x and along y, with those at the edges."""

    def across(values: Array, axis: int) -> Array:
        inside = (cut(values, axis, 1, None) + cut(values, axis, 0, -1)) / 2
        ends = cut(values, axis, 0, 1), cut(values, axis, -1, None)
        return np.concatenate([ends[0], inside, ends[1]], axis=axis)

    return across(velocity.x, -1), across(velocity.y, -2)


def out_of(face: Array, axis: int) -> Array:
    """Sum of the velocities with which ice leaves each cell through its two faces on an axis."""
    leaving: Array = np.maximum(cut(face, axis, 1, None), 0) - np.minimum(cut(face, axis, 0, -1), 0)
    return leaving


def cut(values: Array, axis: int, start: int, stop: int | None) -> Array:
    """A slice along one of the last two axes."""
    index = (..., slice(start, stop)) if axis == -1 else (..., slice(start, stop), slice(None))
    return values[index]


def check_column(thickness: Array, surface: Array) -> None:
    """Refuse what is no glacier.

    Raises:
        FieldError: If values are not finite, or a thickness is negative.
        GeometryError: If shapes differ.
    """
    if thickness.shape != surface.shape:
        raise GeometryError(
            f"thickness and surface are on different grids: {thickness.shape}, {surface.shape}"
        )
    for name, values in (("thickness", thickness), ("surface", surface)):
        if not np.isfinite(values).all():
            raise FieldError(
                f"the {name} holds {np.count_nonzero(~np.isfinite(values))} values that are not "
                f"finite; fill them first"
            )
    if thickness.size and thickness.min() < 0:
        raise FieldError(f"a thickness cannot be negative, but one is {thickness.min():g} m")


def check_coefficients(thickness: Array, **coefficients: ArrayLike) -> None:
    """Refuse rate factors and sliding coefficients that are negative, or of another shape.

    Raises:
        FieldError: If one is.
    """
    for name, given in coefficients.items():
        values = np.asarray(given, dtype=float)
        if values.shape not in ((), thickness.shape) or not (values >= 0).all():
            raise FieldError(
                f"`{name}` must be a number or a field of shape {thickness.shape}, nowhere "
                f"negative, not {given if values.ndim == 0 else f'one of shape {values.shape}'}"
            )
