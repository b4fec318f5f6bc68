"""Shallow water on a rotating sphere, in spherical harmonics, with tracers that it carries.

The layer has the geopotential phi = g times its depth, over a ground of geopotential phi_s, and the
wind V, told by its vorticity zeta and divergence delta:

    d zeta/dt  = - div (V (zeta + f))
    d delta/dt = curl (V (zeta + f)) - Laplacian (phi + phi_s + V^2 / 2)
    d phi/dt   = - div (V phi)
    d q/dt     = - div (s V q) + s q delta              of each tracer, carried by s V

Products are made on a grid where none of them is aliased, so the mean of phi stays what it is, and
energy changes with what truncation cuts off and with the error of time steps, which are Runge's and
Kutta's of fourth order. Without hyperdiffusion nothing else is lost.

Sources: W92: Williamson et al. 1992, J. Comput. Phys. 102, 211 (equations and test cases); HJ92:
Hack & Jakob 1992, NCAR Technical Note TN-343+STR (the method).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from map2map.errors import RecipeError
from map2map.physics.harmonics import Harmonics, Spectrum
from map2map.typing import Array

__all__ = ["OMEGA", "RADIUS", "ShallowWater", "State", "solid_rotation"]

RADIUS, OMEGA = 6.37122e6, 7.292e-5
"""Of the Earth [m], and its rotation [1/s], as in W92."""


@dataclass(frozen=True)
class State:
    """The layer at a time, as coefficients (m, n).

    Args:
        vorticity: [1/s].
        divergence: [1/s].
        phi: Geopotential of the depth [m2/s2].
        tracers: Of any units, shape (tracer, m, n).
    """

    vorticity: Spectrum
    divergence: Spectrum
    phi: Spectrum
    tracers: Spectrum

    def plus(self, other: "State", share: float) -> "State":
        """This and a share of another."""
        return State(
            self.vorticity + share * other.vorticity,
            self.divergence + share * other.divergence,
            self.phi + share * other.phi,
            self.tracers + share * other.tracers,
        )


Forcing = Callable[[State], State]
"""What else changes a state [per s]."""


@dataclass(frozen=True)
class ShallowWater:
    """The sphere, and how states change on it.

    Args:
        harmonics: Truncation and radius.
        omega: Rotation of the sphere [1/s].
        ground: Geopotential of the ground, coefficients (m, n); default: flat.
        speeds: Of each tracer, the share of the wind that carries it.
        damping: Time in which hyperdiffusion damps the smallest scales by e [s]; 0: none.
        tilt: Angle between the axes of rotation and of the grid [rad], for tests.
    """

    harmonics: Harmonics
    omega: float = OMEGA
    ground: Spectrum | None = None
    speeds: Array = field(default_factory=lambda: np.zeros(0))
    damping: float = 0.0
    tilt: float = 0.0

    @cached_property
    def coriolis(self) -> Array:
        """F = 2 omega sin(latitude) on the grid [1/s]; about the tilted axis."""
        h = self.harmonics
        longitude = 2 * np.pi * np.arange(h.shape[1]) / h.shape[1]
        cosine = np.sqrt(1 - h.mu**2)[:, None]
        along = h.mu[:, None] * np.cos(self.tilt)
        found: Array = 2 * self.omega * (along - np.cos(longitude) * cosine * np.sin(self.tilt))
        return found

    def change(self, state: State) -> State:
        """How a state changes [per s]."""
        h = self.harmonics
        u, v = h.wind(state.vorticity, state.divergence)
        parts = np.stack([state.vorticity, state.phi, state.divergence, *state.tracers])
        zeta, phi, delta, *carried = h.field(parts)
        absolute = zeta + self.coriolis
        x, y = u * absolute, v * absolute
        kinetic = h.spectrum((u**2 + v**2) / (2 * (1 - h.mu**2)[:, None]))
        if self.ground is not None:
            kinetic = kinetic + self.ground
        tracers = np.zeros_like(state.tracers)
        if len(self.speeds):
            q = self.speeds[:, None, None] * np.stack(carried)
            tracers = h.spectrum(q * delta) - h.divergence(u * q, v * q)
        flux, curl, mass = h.divergence(np.stack([x, y, u * phi]), np.stack([y, -x, v * phi]))
        return State(-flux, curl - h.laplacian * (state.phi + kinetic), -mass, tracers)

    def step(self, state: State, seconds: float, forcing: Forcing | None = None) -> State:
        """The state a time step later.

        Raises:
            RecipeError: If it has grown beyond all bounds: the step is too long.
        """

        def rate(now: State) -> State:
            return self.change(now) if forcing is None else self.change(now).plus(forcing(now), 1)

        first = rate(state)
        second = rate(state.plus(first, seconds / 2))
        third = rate(state.plus(second, seconds / 2))
        fourth = rate(state.plus(third, seconds))
        for each, share in ((first, 1), (second, 2), (third, 2), (fourth, 1)):
            state = state.plus(each, share * seconds / 6)
        if not np.isfinite(state.phi).all():
            raise RecipeError(
                f"shallow water cannot be followed in steps of {seconds:g} s at truncation "
                f"{self.harmonics.truncation}; take shorter ones"
            )
        return self._damped(state, seconds) if self.damping else state

    def _damped(self, state: State, seconds: float) -> State:
        """After hyperdiffusion of eighth order, which leaves means as they are."""
        h = self.harmonics
        rate = (h.laplacian / h.laplacian[-1]) ** 4 / self.damping
        left = np.exp(-rate * seconds)
        return State(
            state.vorticity * left, state.divergence * left, state.phi * left, state.tracers * left
        )

    def mean(self, values: Array) -> float:
        """Mean over the sphere of a field on the grid."""
        return float((values.mean(-1) * self.harmonics.weights).sum() / 2)

    def mass(self, state: State) -> float:
        """Mean geopotential of the depth [m2/s2], which is its mass but for constants."""
        return self.mean(self.harmonics.field(state.phi))

    def energy(self, state: State) -> float:
        """Mean of phi V^2 / 2 + ((phi + phi_s)^2 - phi_s^2) / 2 [m4/s4]: kinetic and potential."""
        h = self.harmonics
        u, v = h.wind(state.vorticity, state.divergence)
        phi = h.field(state.phi)
        ground = 0.0 if self.ground is None else h.field(self.ground)
        kinetic = phi * (u**2 + v**2) / (2 * (1 - h.mu**2)[:, None])
        return self.mean(kinetic + phi**2 / 2 + phi * ground)


def solid_rotation(water: ShallowWater, speed: float, phi: float) -> State:
    """A flow that rotates as a solid about the axis of the sphere, and stays so (W92, case 2).

    phi = phi0 - (a omega u0 + u0^2 / 2) sin^2(latitude about that axis), with which pressure,
    Coriolis and centrifugal force are in balance.

    Args:
        water: The sphere; its tilt tells the axis.
        speed: u0, at the equator of the flow [m/s].
        phi: phi0, at that equator [m2/s2].
    """
    h = water.harmonics
    sine = replace(water, omega=0.5).coriolis
    vorticity = 2 * speed / h.radius * sine
    depth = phi - (h.radius * water.omega * speed + speed**2 / 2) * sine**2
    none = np.zeros((h.truncation + 1,) * 2, np.complex128)
    tracers = np.zeros((len(water.speeds), *none.shape), np.complex128)
    return State(h.spectrum(vorticity), none, h.spectrum(depth), tracers)
