"""Slopes: how much a field changes along an axis."""

from collections.abc import Mapping

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.errors import GeometryError
from map2map.typing import Array

__all__ = ["Gradient"]


class Gradient(Derived):
    """Derivative of a field along one axis [u/L].

    Central differences of second order, and one-sided ones of first order at the edges of a grid
    that is not periodic. If coordinates descend along the axis, the derivative is still that with
    respect to the coordinate.

    Args:
        of: The field, of one channel [u].
        axis: The axis; 0 is the first of the arrays, -1 the last.
    """

    margin = 1
    needs_steps = True

    def __init__(self, of: str, axis: int) -> None:
        self.of, self.axis = of, axis

    @property
    def needs(self) -> tuple[str, ...]:
        """The field."""
        return (self.of,)

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:
        """The derivative, shape (1, *space)."""
        x = values[self.of]
        ndim = x.ndim - 1
        if not -ndim <= self.axis < ndim:
            raise GeometryError(f"{self.of!r} has axes 0 to {ndim - 1}, so none of {self.axis}")
        axis = self.axis % ndim
        if x.shape[1 + axis] < 2:
            raise GeometryError(
                f"{self.of!r} has one cell on axis {axis}, too few for a derivative along it"
            )
        slope: Array = np.gradient(x, box.steps[axis], axis=1 + axis)
        return slope
