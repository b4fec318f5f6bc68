"""How large a vector is."""

from collections.abc import Mapping

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.typing import Array

__all__ = ["Magnitude"]


class Magnitude(Derived):
    """Length of a vector [u], such as the speed.

    Args:
        of: The fields that make up the vector: its components, or one vector field.
    """

    def __init__(self, of: list[str]) -> None:
        self.of = of

    @property
    def needs(self) -> tuple[str, ...]:
        """The components."""
        return tuple(self.of)

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The length, shape (1, *space)."""
        every = np.concatenate(list(values.values()))
        length: Array = np.linalg.norm(every, axis=0, keepdims=True)
        return length
