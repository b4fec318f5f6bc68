"""Glaciers in time: mass balance, flow and geometry, step by step; units as in `physics.ice`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from map2map.physics.ice import Flow, conserve_mass, longest_step, shallow_ice
from map2map.physics.ice_membrane import membrane_flow
from map2map.typing import Array

__all__ = ["Climate", "Frame", "Massif", "Physics", "evolve"]

Physics = Literal["membrane", "shallow_ice"]

LONGEST_STEP, COURANT, ROUGH = 1.0, 0.5, 0.03
"""Of the evolution: time step [yr], its part of the longest stable one, tolerance of velocities."""

FILM = 0.1
"""Thickness below which no ice is written [m]."""


@dataclass(frozen=True)
class Climate:
    """Surface mass balance: how much a year adds to the ice, by elevation and time.

    Args:
        equilibrium: Elevation at which as much snow falls as melts [m].
        gradient: Increase of the balance with elevation [1/yr].
        most: The balance that it does not exceed [m of ice per yr].
        warming: Rise of the equilibrium, from the time ``since`` on [m/yr].
        since: See ``warming`` [yr].
    """

    equilibrium: float
    gradient: float = 0.008
    most: float = 2.0
    warming: float = 0.0
    since: float = 0.0

    def balance(self, surface: Array, time: float) -> Array:
        """The balance [m/yr] at a surface of this elevation [m]."""
        equilibrium = self.equilibrium + self.warming * max(0.0, time - self.since)
        balance: Array = np.minimum(self.gradient * (surface - equilibrium), self.most)
        return balance


@dataclass(frozen=True)
class Massif:
    """Where glaciers grow, and what they are made of.

    Args:
        topography: Elevation of the bed [m], shape (y, x).
        spacing: Cell size [m].
        arrhenius: Rate factor A of the ice [MPa^-3 yr^-1].
        slidingco: Sliding coefficient c [km MPa^-3 yr^-1].
    """

    topography: Array
    spacing: float
    arrhenius: float
    slidingco: float

    def flow(self, thickness: Array, physics: Physics = "membrane") -> Flow:
        """Velocities of ice of this thickness [m]."""
        made = {"membrane": membrane_flow, "shallow_ice": shallow_ice}[physics]
        return made(
            thickness,
            self.topography + thickness,
            self.spacing,
            arrhenius=self.arrhenius,
            slidingco=self.slidingco,
        )


class Frame(NamedTuple):
    """A glacier at one time [yr]: thickness [m], shape (y, x), and velocities [m/yr]."""

    time: float
    thickness: Array
    flow: Flow


def evolve(
    massif: Massif, climate: Climate, times: list[float], thickness: Array | None = None
) -> Iterator[Frame]:
    """Follow glaciers by their mass balance and flow.

    Args:
        massif: Where.
        climate: Its mass balance.
        times: When to look at them [yr], ascending, after 0.
        thickness: Of the ice at time 0 [m]; default: none.

    Yields:
        What they are at each of the times.
    """
    ice = np.zeros_like(massif.topography) if thickness is None else thickness
    now, flow = 0.0, None
    for target in times:
        while now < target:
            surface = massif.topography + ice
            flow = membrane_flow(
                ice,
                surface,
                massif.spacing,
                arrhenius=massif.arrhenius,
                slidingco=massif.slidingco,
                start=flow,
                tolerance=ROUGH,
            )
            stable = longest_step(flow.mean, massif.spacing, COURANT)
            # the last step ends at the target, however it is rounded
            step = min(stable, LONGEST_STEP, target - now)
            balance = climate.balance(surface, now)
            ice = conserve_mass(ice, flow.mean, massif.spacing, step, balance)
            now = target if step == target - now else now + step
        # rock that holds a film of ice is no glacier
        seen = np.where(ice < FILM, 0.0, ice)
        yield Frame(now, seen, massif.flow(seen))
