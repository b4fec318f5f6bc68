"""What heat fluxes change the temperature of the ocean's mixed layer by."""

from collections.abc import Mapping

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError, RecipeError
from map2map.times import duration
from map2map.typing import Array

__all__ = ["MixedLayerWarming"]


class MixedLayerWarming(Derived):
    """Sum of heat fluxes times a step, over the heat capacity of a layer: ``Q dt / (rho c h)`` [K].

    The heat budget of a slab that is mixed and exchanges nothing sideways or below. Fluxes
    [W/m^2] are positive into the sea. Where one is NaN, or the layer has no depth, it is NaN.

    Args:
        fluxes: The fields of the fluxes; all that there are: sensible, latent, radiation.
        depth: Of the layer [m], the name of a field or a number.
        step: How long they act, such as ``6h``.
        density: Of sea water [kg/m^3].
        heat_capacity: Of sea water [J/kg/K].
    """

    persistent = 0.0

    def __init__(
        self,
        fluxes: list[str],
        depth: str | float,
        step: str,
        density: float = 1025.0,
        heat_capacity: float = 3990.0,
    ) -> None:
        self.fluxes, self.depth, self.step = list(fluxes), depth, step
        self.density, self.heat_capacity = density, heat_capacity
        self.seconds = duration(step).astype(np.int64) / 1e6
        if not self.fluxes or min(density, heat_capacity) <= 0:
            raise RecipeError(
                f"a mixed layer is warmed by at least one flux, and density and heat capacity are "
                f"positive, not {self.fluxes}, {density} and {heat_capacity}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The fluxes and the depth."""
        depth = [self.depth] if isinstance(self.depth, str) else []
        return tuple(dict.fromkeys((*self.fluxes, *depth)))

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The change of temperature, shape (1, *space)."""
        for name in self.needs:
            if len(values[name]) != 1:
                raise FieldError(
                    f"a mixed layer is warmed by fields of one channel, but {name!r} has "
                    f"{len(values[name])}"
                )
        depth = values[self.depth] if isinstance(self.depth, str) else np.float64(self.depth)
        heat = np.sum([values[name] for name in self.fluxes], axis=0) * self.seconds
        with np.errstate(divide="ignore", invalid="ignore"):
            layer = np.where(depth > 0, depth, np.nan)
            warming: Array = heat / (self.density * self.heat_capacity * layer)
        return warming
