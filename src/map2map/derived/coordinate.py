"""Where a cell is."""

from collections.abc import Mapping

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.errors import GeometryError
from map2map.typing import Array

__all__ = ["Coordinate"]


class Coordinate(Derived):
    """The coordinate of each cell along one axis [L].

    Args:
        like: A field on the grid.
        axis: The axis; 0 is the first of the arrays, -1 the last.
    """

    needs_steps = True
    needs_values = False

    def __init__(self, like: str, axis: int) -> None:
        self.like, self.axis = like, axis

    @property
    def needs(self) -> tuple[str, ...]:
        """The field on the grid."""
        return (self.like,)

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:
        """The coordinates, shape (1, *space)."""
        shape = values[self.like].shape[1:]
        if not -len(shape) <= self.axis < len(shape):
            raise GeometryError(
                f"{self.like!r} has axes 0 to {len(shape) - 1}, so none of {self.axis}"
            )
        axis = self.axis % len(shape)
        along = [1] * len(shape)
        along[axis] = shape[axis]
        return np.broadcast_to(box.coordinates[axis].reshape(along), shape)[None]
