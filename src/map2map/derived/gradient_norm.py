"""How steep a field is, whatever the direction."""

from collections.abc import Mapping

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError
from map2map.physics.flames import gradient_norm
from map2map.typing import Array

__all__ = ["GradientNorm"]


class GradientNorm(Derived):
    """Length of the gradient of a field [u/L].

    Central differences of second order, and one-sided ones of first order at the edges of a grid
    that is not periodic. Of a filtered progress variable it is the resolved flame surface density.

    Args:
        of: The field, of one channel [u].
    """

    margin = 1
    needs_steps = True

    def __init__(self, of: str) -> None:
        self.of = of

    @property
    def needs(self) -> tuple[str, ...]:
        """The field."""
        return (self.of,)

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:
        """The length, shape (1, *space)."""
        x = values[self.of]
        if len(x) != 1:
            raise FieldError(
                f"{self.of!r} has {len(x)} channels, but the length of a gradient is that of one"
            )
        return gradient_norm(x[0], [abs(step) for step in box.steps])[None]
