"""Ice flow with membrane stresses: a column of ice is held and pushed by those around it.

The depth-integrated viscosity approximation (G11: Goldberg 2011, J. Glaciol. 57, 157; L19: Lipscomb
et al. 2019, Geosci. Model Dev. 12, 387): like the first-order approximation of Blatter and Pattyn
it has shear over the depth as well as stretching along the horizontal, but the latter is that of
the velocity averaged over the depth, for which there is one elliptic equation on the plane,

    div (2 eta H [e + tr(e) 1]) - tau_b = -tau_d,        e = (grad u + grad u^T) / 2,

with the thickness H, the viscosity eta averaged over the depth, the basal stress tau_b and the
driving stress tau_d. In an infinite parallel slab it gives the shallow-ice velocities.

Velocities are known at cells. The stretching is that of bilinear elements between four cells that
all have ice, integrated by their corner values, so that the discrete operator is symmetric and
positive, and margins are free of stress. Units and conventions are those of `physics.ice`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from map2map.errors import GeometryError
from map2map.physics.ice import METERS_PER_KM, Flow, Velocity, driving_stress, shallow_ice
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

__all__ = ["membrane_flow"]

NODES, SHARES = np.polynomial.legendre.leggauss(4)
DEPTHS, SHARES = (NODES[:, None] + 1) / 2, SHARES / 2
"""Depths below the surface in units of the thickness, (levels, 1), and weights of integrals."""

SLOWEST = 1e-5
"""Rate of stretching that is always there [1/yr]; without any, ice at rest would be rigid."""

STRESS_RELAXATION, VELOCITY_RELAXATION = 0.5, 1.2
"""They make iterations contract by about half, whether stress decides velocity or the reverse."""

NEWTON = 6
"""Steps, which square the error; it starts below a factor of two."""

THINNEST = 1e-3
"""Ice that is thinner does not move [m]: a film that transport leaves ahead of a margin."""

TINY = 1e-12
"""A stress that is none [MPa]."""


def membrane_flow(
    thickness: Array,
    surface: Array,
    spacing: Spacing,
    *,
    arrhenius: ArrayLike = 78.0,
    slidingco: ArrayLike = 0.0,
    start: Flow | None = None,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> Flow:
    """Velocities of ice with membrane stresses.

    Args:
        thickness: Of the ice [m], shape (y, x); 0 where there is none.
        surface: Its elevation, or that of the bed where there is no ice [m], same shape.
        spacing: Cell size along y and x [m], or one for both.
        arrhenius: Rate factor A [MPa^-3 yr^-1], a number or a field.
        slidingco: Sliding coefficient c [km MPa^-3 yr^-1], a number or a field.
        start: Flow from which to iterate, of a glacier like it; default: in shallow ice.
        tolerance: Relative change of velocities, in the mean square, at which to stop.
        iterations: The most there may be.

    Returns:
        Velocities, 0 where there is no ice.

    Raises:
        FieldError: If values are not finite, or thickness, A or c negative.
        GeometryError: If shapes differ or are not of two axes, or iterations do not suffice.
    """
    if thickness.ndim != 2:
        raise GeometryError(f"ice flows on the two axes y and x, not in shape {thickness.shape}")
    coefficients = {"arrhenius": arrhenius, "slidingco": slidingco}
    first = shallow_ice(thickness, surface, spacing, **coefficients).mean
    icy = thickness > THINNEST
    if not icy.any():
        return Flow(first, first, first, np.zeros(icy.shape))
    driving = np.concatenate([part[icy] for part in driving_stress(thickness, surface, spacing)])
    columns = Columns(
        thickness[icy],
        *(np.broadcast_to(np.asarray(c, float), icy.shape)[icy] for c in coefficients.values()),
    )
    stretching = Stretching.between(icy, cell_sizes(spacing, 2))
    mean, stress = np.concatenate([first.x[icy], first.y[icy]]), magnitude(driving)
    if start is not None:
        mean = np.concatenate([start.mean.x[icy], start.mean.y[icy]])
        # cells that had no ice take what drives them
        stress = np.where(start.drag[icy] > 0, start.drag[icy], stress)
    strains = stretching.rates @ mean
    for _ in range(iterations):
        response = columns.response(stress, stretching.squared(strains))
        before, mean = mean, stretching.balance(response, driving, mean, tolerance / 100)
        change = np.linalg.norm(mean - before)
        if change <= tolerance * np.linalg.norm(mean):
            break
        stress = relaxed(stress, magnitude(mean) / response.mean)
        strains = stretching.rates @ (before + VELOCITY_RELAXATION * (mean - before))
    else:
        raise GeometryError(
            f"the velocities of this glacier still change by {change / np.linalg.norm(mean):.1g} "
            f"after {iterations} iterations; allow more of them, a larger `tolerance`, or smooth "
            f"the surface"
        )

    def on_grid(values: Array) -> Array:
        field = np.zeros(icy.shape)
        field[icy] = values
        return field

    average = Velocity(*(on_grid(part) for part in mean.reshape(2, -1)))
    return Flow(
        average.scaled(on_grid(response.base / response.mean)),
        average,
        average.scaled(on_grid(response.surface / response.mean)),
        on_grid(magnitude(mean) / response.mean),
    )


def relaxed(stress: Array, found: Array) -> Array:
    """Part of the way from a basal stress to the one found, as a geometric mean."""
    # tiny rather than 0, from which there would be no way back
    result: Array = stress ** (1 - STRESS_RELAXATION) * np.maximum(found, TINY) ** STRESS_RELAXATION
    return result


def magnitude(vectors: Array) -> Array:
    """Of vectors whose x components come first, then all y components."""
    length: Array = np.hypot(*vectors.reshape(2, -1))
    return length


@dataclass(frozen=True)
class Response:
    """What columns answer to basal stress and stretching; arrays (column,).

    Args:
        stiffness: Viscosity, integrated over the depth [MPa yr m].
        base: Velocity at the base per basal stress [m/yr/MPa].
        mean: Velocity averaged over the depth per basal stress.
        surface: Velocity at the surface per basal stress.
    """

    stiffness: Array
    base: Array
    mean: Array
    surface: Array


@dataclass(frozen=True)
class Columns:
    """Ice of given thickness [m], A [MPa^-3 yr^-1] and c [km MPa^-3 yr^-1]; arrays (column,)."""

    thickness: Array
    arrhenius: Array
    slidingco: Array

    def response(self, stress: Array, stretching: Array) -> Response:
        """Integrals over the depth, the functions F_1 and F_2 of G11 and L19 among them.

        At the depth d, in units of the thickness, the shear stress is d tau_b. Glen's law gives
        the fluidity 1 / eta = 2 A (stress)^2, of which one part is that shear and the other comes
        from the stretching with a stress of 2 eta times it: a cubic equation for the fluidity.

        Args:
            stress: Basal stress [MPa].
            stretching: Square of the effective rate of stretching [1/yr^2].
        """
        shear = 2 * self.arrhenius * (DEPTHS * stress) ** 2
        rest = 8 * self.arrhenius * (stretching + SLOWEST**2)
        fluidity = largest_root(shear, rest)

        def integral(values: Array) -> Array:
            total: Array = self.thickness * (SHARES @ values)
            return total

        base = METERS_PER_KM * self.slidingco * stress**2
        return Response(
            integral(1 / fluidity),
            base,
            base + integral(fluidity * DEPTHS**2),
            base + integral(fluidity * DEPTHS),
        )


def largest_root(a: Array, b: Array) -> Array:
    """The positive root f of f^3 = a f^2 + b, for a >= 0 and b > 0, by Newton's method.

    The start lies above the root, where the cubic is convex, so every step is a step closer.
    """
    root: Array = a + np.cbrt(b)
    for _ in range(NEWTON):
        root = root - (root**3 - a * root**2 - b) / (3 * root**2 - 2 * a * root)
    return root


@dataclass(frozen=True)
class Stretching:
    """Rates of stretching at the corners of elements, from velocities at cells with ice.

    Args:
        rates: Matrix from velocities, x components first, to du/dx, dv/dy, du/dx + dv/dy and
            du/dy + dv/dx, each at all corners.
        transposed: The transpose of it.
        squares: The squares of that, for the diagonal of products.
        columns: The cell that each corner is.
    """

    rates: Any
    transposed: Any
    squares: Any
    columns: NDArray[np.intp]

    @classmethod
    def between(cls, icy: NDArray[np.bool_], sizes: tuple[float, ...]) -> "Stretching":
        """Elements between cells with ice, of a grid with these cell sizes along y and x [m]."""
        number = np.cumsum(icy).reshape(icy.shape) - 1
        full = icy[:-1, :-1] & icy[:-1, 1:] & icy[1:, :-1] & icy[1:, 1:]
        # low y low x, low y high x, high y low x, high y high x
        corners = [
            number[rows, cells][full]
            for rows in (slice(None, -1), slice(1, None))
            for cells in (slice(None, -1), slice(1, None))
        ]
        # the cells whose difference is a derivative at each corner, (corner, 2)
        x, y = (
            np.concatenate([np.stack([corners[i], corners[j]], axis=-1) for i, j in pairs])
            for pairs in (((0, 1), (0, 1), (2, 3), (2, 3)), ((0, 2), (1, 3), (0, 2), (1, 3)))
        )
        size = np.count_nonzero(icy)
        by_dy, by_dx = (np.tile([-1 / cell, 1 / cell], (len(x), 1)) for cell in sizes)
        entries = [
            (x, by_dx),
            (y + size, by_dy),
            (np.hstack([x, y + size]), np.hstack([by_dx, by_dy])),
            (np.hstack([y, x + size]), np.hstack([by_dy, by_dx])),
        ]
        where, values = (np.concatenate([entry[k].ravel() for entry in entries]) for k in (0, 1))
        starts = np.concatenate([[0], np.cumsum(np.repeat([2, 2, 4, 4], len(x)))])
        rates = sparse.csr_array((values, where, starts), shape=(4 * len(x), 2 * size))
        transposed = rates.T.tocsr()
        return cls(rates, transposed, transposed.power(2), np.concatenate(corners))

    @property
    def weights(self) -> Array:
        """Of the squares of the rates in four times the square of the effective rate."""
        return np.repeat([2.0, 2.0, 2.0, 1.0], self.columns.size)

    def squared(self, strains: Array) -> Array:
        """Square of the effective rate of stretching at each cell, averaged over its corners."""
        at_corners = (self.weights * strains**2).reshape(4, -1).sum(axis=0) / 4
        size = self.rates.shape[1] // 2
        corners = np.bincount(self.columns, minlength=size)
        mean: Array = np.bincount(self.columns, at_corners, size) / np.maximum(corners, 1)
        return mean

    def balance(self, response: Response, driving: Array, start: Array, precision: float) -> Array:
        """Mean velocities at which membrane, basal and driving stresses balance.

        Args:
            response: Of the columns.
            driving: Stress [MPa], x components first.
            start: Velocities near those that are sought.
            precision: Of the balance, relative to the driving stress.

        Returns:
            Velocities [m/yr], x components first.
        """
        # a corner stands for a quarter of a cell
        stiffness = self.weights * np.tile(response.stiffness[self.columns] / 4, 4)
        friction = np.tile(1 / response.mean, 2)
        size = driving.size
        diagonal = friction + self.squares @ stiffness
        operator = LinearOperator(
            (size, size),
            matvec=lambda u: self.transposed @ (stiffness * (self.rates @ u)) + friction * u,
            dtype=float,
        )
        scaling = LinearOperator((size, size), matvec=lambda u: u / diagonal, dtype=float)
        solution, _ = cg(operator, driving, x0=start, rtol=precision, maxiter=10 * size, M=scaling)
        velocities: Array = solution
        return velocities
