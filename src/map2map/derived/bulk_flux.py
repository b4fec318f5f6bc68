"""Turbulent fluxes between air and sea by COARE's bulk formulae."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError, RecipeError, near_names
from map2map.physics.bulk_fluxes import Air, Scheme, Sea, turbulent_fluxes
from map2map.typing import Array

__all__ = ["BulkFlux"]

Flux = Literal[
    "stress_x",
    "stress_y",
    "sensible",
    "latent",
    "evaporation",
    "friction_velocity",
    "stability",
    "neutral_wind",
]

COLDEST = 150.0
"""No air or sea is as cold; numbers below it are in other units [K]."""


class BulkFlux(Derived):
    """One or several turbulent fluxes, of wind, air, and the surface of the sea in each cell.

    Heat fluxes [W/m^2] and stresses [N/m^2] are positive into the sea. Where an argument is NaN, so
    is the flux. An argument is the name of a field or the value that it has everywhere.

    Args:
        flux: Which: stress_x, stress_y, sensible, latent, evaporation [kg/m^2/s],
            friction_velocity [m/s], stability [1] or neutral_wind [m/s]; or several, as channels.
        u: Wind to the east [m/s].
        v: Wind to the north [m/s].
        temperature: Of the air [K].
        humidity: Specific humidity of the air [kg/kg].
        sst: Temperature of the sea's surface [K].
        pressure: At the surface [Pa].
        current: Names of the currents to the east and the north [m/s]; default: none.
        heights: Of the wind, and of temperature and humidity [m].
        version: Of COARE, "3.0" or "3.5".
    """

    def __init__(  # noqa: PLR0913, each is a field
        self,
        flux: str | list[str],
        u: str,
        v: str,
        temperature: str | float,
        humidity: str | float,
        sst: str | float,
        pressure: str | float = 101325.0,
        current: list[str] | None = None,
        heights: tuple[float, float] = (10.0, 2.0),
        version: str = "3.5",
    ) -> None:
        self.flux, self.u, self.v = flux, u, v
        self.temperature, self.humidity, self.sst = temperature, humidity, sst
        self.pressure, self.current = pressure, current
        self.heights, self.version = (float(heights[0]), float(heights[1])), version
        for name in self.fluxes:
            if name not in get_args(Flux):
                raise RecipeError(f"no bulk flux {name!r}{near_names(name, get_args(Flux))}")
        if not self.fluxes or (current is not None and len(current) != 2):
            raise RecipeError(
                f"a bulk flux needs at least one name in `flux`, and `current` two fields, to the "
                f"east and the north, not {flux} and {current}"
            )
        self.channels = len(self.fluxes)
        self.scheme()

    @property
    def fluxes(self) -> list[str]:
        """Which are computed."""
        return [self.flux] if isinstance(self.flux, str) else list(self.flux)

    @property
    def needs(self) -> tuple[str, ...]:
        """All arguments that are fields."""
        every = (self.u, self.v, self.temperature, self.humidity, self.sst, self.pressure)
        return tuple(
            dict.fromkeys(x for x in (*every, *(self.current or ())) if isinstance(x, str))
        )

    def scheme(self) -> Scheme:
        """The formulae."""
        return Scheme(self.version, *self.heights)  # type: ignore[arg-type]

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The fluxes, shape (channels, *space)."""

        def of(argument: str | float) -> Array:
            return values[argument] if isinstance(argument, str) else np.asarray(argument)

        temperature, sst = (self._warm(of(x), x) for x in (self.temperature, self.sst))
        u, v = of(self.u), of(self.v)
        current = [of(name) for name in self.current or ()]
        fluxes = turbulent_fluxes(
            Air(u, v, temperature, of(self.humidity), of(self.pressure)),
            Sea(sst, *current),
            self.scheme(),
        )
        shape = np.broadcast_shapes(u.shape, v.shape)
        found = [np.broadcast_to(getattr(fluxes, name), shape) for name in self.fluxes]
        if {len(each) for each in found} != {1}:
            raise FieldError(f"bulk fluxes are computed of fields of one channel, not {shape[0]}")
        return np.concatenate(found)

    @staticmethod
    def _warm(values: Array, argument: str | float) -> Array:
        """Refuse degrees Celsius."""
        coldest = np.min(values, initial=np.inf, where=np.isfinite(values))
        if coldest < COLDEST:
            raise FieldError(
                f"bulk fluxes need temperatures in K, but {argument!r} has {coldest:g}; convert "
                f"degrees Celsius, and fill land with a temperature or NaN"
            )
        return values
