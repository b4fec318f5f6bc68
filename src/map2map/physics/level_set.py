"""Fronts that move: a level set, carried by a flow and burning on at a speed of its own.

A front is where G = 0, and G is a signed distance, positive behind the front. Arrays have three
axes. The first is open: G goes on with slope 1 beyond its ends, as behind and in front of a front
that lies across it; the others are periodic. Lengths are in cells.

References: O88: Osher & Sethian 1988, J. Comput. Phys. 79, 12 (G-equation and upwind differences);
S94: Sussman, Smereka & Osher 1994, J. Comput. Phys. 114, 146 (distances by relaxation); R00: Russo
& Smereka 2000, J. Comput. Phys. 163, 51 (without moving the front).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from map2map.typing import Array

__all__ = ["advance", "burnt_fraction", "largest_step", "redistance", "refined"]

SHARE = 0.7
"""Of a cell that is crossed in a step."""


def advance(level: Array, velocity: Array, speed: float, markstein: float, step: float) -> Array:
    """G after a step of dG/dt + u . grad G = S (|grad G| + M laplacian G).

    For a distance, |grad G| = 1, the right side is S (1 - M kappa) |grad G|: a front that is convex
    towards what it burns, of curvature kappa, is slower (M > 0). Derivatives are upwind, of second
    order and essentially non-oscillatory (O88); the step is one of Heun's.

    Args:
        level: G [cells], shape (x, y, z).
        velocity: Of the flow, u [cells/T], shape (3, x, y, z).
        speed: At which the front burns on, S [cells/T].
        markstein: Markstein's length M [cells].
        step: Time [T]; see `largest_step`.
    """
    first = level + step * rate(level, velocity, speed, markstein)
    found: Array = 0.5 * (level + first + step * rate(first, velocity, speed, markstein))
    return found


def largest_step(velocity: Array, speed: float, markstein: float) -> float:
    """The time in which nothing crosses more than 0.7 of a cell, nor diffuses further [T]."""
    crossing = float(np.abs(velocity).sum(axis=0).max()) + speed
    spreading = 6 * speed * markstein
    return SHARE / max(crossing, spreading, 1e-30)


def rate(level: Array, velocity: Array, speed: float, markstein: float) -> Array:
    """dG/dt [cells/T]."""
    found = np.zeros_like(level)
    squares = np.zeros_like(level)
    bend = np.zeros_like(level)
    for axis in range(level.ndim):
        before, after, second = one_sided(level, axis)
        u = velocity[axis]
        found -= u * np.where(u > 0, before, after)
        # of both one-sided slopes, what comes from the burnt side
        largest = np.maximum(-before, after)
        np.maximum(largest, 0, out=largest)
        largest *= largest
        squares += largest
        if markstein:
            bend += second
    found += speed * np.sqrt(squares)
    if markstein:
        found += speed * markstein * bend
    return found


def one_sided(level: Array, axis: int) -> tuple[Array, Array, Array]:
    """Derivatives from below and from above along an axis, of second order, and the second one.

    Of the two second differences that a derivative can be corrected by, it takes the smaller, and
    none where they differ in sign.
    """
    wide = extended(level, axis, 2)
    first = np.diff(wide, axis=axis)
    second = np.diff(first, axis=axis)
    low, high = cut(second, axis, 0, -1), cut(second, axis, 1, None)
    smaller, larger = np.minimum(low, high), np.maximum(low, high)
    # in place, because new arrays cost more than what is done with them
    np.maximum(smaller, 0, out=smaller)
    np.minimum(larger, 0, out=larger)
    smaller += larger
    smaller *= 0.5
    before = cut(first, axis, 1, -2) + cut(smaller, axis, 0, -1)
    after = cut(first, axis, 2, -1) - cut(smaller, axis, 1, None)
    return before, after, cut(second, axis, 1, -1)


def extended(level: Array, axis: int, cells: int) -> Array:
    """G with more cells on both sides of an axis."""
    n = level.shape[axis]
    if axis != 0:
        around: Array = np.take(level, np.arange(-cells, n + cells) % n, axis=axis)
        return around
    beyond = np.arange(1, cells + 1, dtype=level.dtype)[:, None, None]
    return np.concatenate([level[:1] - beyond[::-1], level, level[-1:] + beyond])


def cut(values: Array, axis: int, start: int, stop: int | None) -> Array:
    """A slice along an axis."""
    found: Array = values[(slice(None),) * axis + (slice(start, stop),)]
    return found


def redistance(level: Array, iterations: int) -> Array:
    """The signed distance to the front of G [cells].

    In cells at the front the distance is G / |grad G|, but no more than to where G crosses zero on
    the way to a neighbor, and stays (R00); from there it relaxes outwards (S94), a third of a cell
    per iteration.

    Args:
        level: G, of any slope.
        iterations: How often to relax.
    """
    sign = np.where(level > 0, 1, -1).astype(level.dtype)
    near, distance = at_front(level)
    found = np.where(near, sign * distance, level)
    for _ in range(iterations):
        squares = np.zeros_like(level)
        for axis in range(level.ndim):
            before, after, _ = one_sided(found, axis)
            before *= sign
            after *= sign
            np.negative(after, out=after)
            np.maximum(before, after, out=before)
            np.maximum(before, 0, out=before)
            before *= before
            squares += before
        relaxed = found - sign * (np.sqrt(squares) - 1) / 3
        found = np.where(near, found, relaxed)
    return found


def at_front(level: Array) -> tuple[NDArray[np.bool_], Array]:
    """Cells with a neighbor on the other side of the front, and their distance to it [cells]."""
    size = np.abs(level)
    near = np.zeros(level.shape, bool)
    nearest = np.full_like(level, np.inf)
    squares = np.full_like(level, 1e-12)
    for axis in range(level.ndim):
        wide = extended(level, axis, 1)
        sides = cut(wide, axis, 0, -2), cut(wide, axis, 2, None)
        squares += ((sides[1] - sides[0]) / 2) ** 2
        for side in sides:
            crosses = (side > 0) != (level > 0)
            near |= crosses
            share = size / np.maximum(size + np.abs(side), 1e-12)
            nearest = np.where(crosses, np.minimum(nearest, share), nearest)
    return near, np.minimum(size / np.sqrt(squares), nearest)


def burnt_fraction(level: Array) -> float:
    """Share of the volume behind the front, whose cells are cut by it as if it were flat."""
    return float(np.clip(level + 0.5, 0, 1).mean(dtype=np.float64))


def refined(level: Array, factor: int) -> NDArray[np.float64]:
    """G on cells that are ``factor`` times smaller, and so as many times more of them, by splines.

    It is exact for a plane, and G stays in units of the cells that it had.
    """
    found = level.astype(np.float64)
    for axis, n in enumerate(level.shape):
        fine = (np.arange(n * factor) + 0.5) / factor - 0.5
        if axis == 0:
            spline = CubicSpline(np.arange(n), np.eye(n))
        else:
            spline = CubicSpline(
                np.arange(n + 1), np.eye(n + 1, n) + last_row(n), bc_type="periodic"
            )
        # as a matrix: one product is quicker than as many splines
        found = np.moveaxis(
            np.tensordot(spline(fine % n if axis else fine), found, (1, axis)), 0, axis
        )
    return found


def last_row(n: int) -> NDArray[np.float64]:
    """What makes the unit vectors of a periodic axis end as they start."""
    found = np.zeros((n + 1, n))
    found[n, 0] = 1
    return found
