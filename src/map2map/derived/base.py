"""What every derived field does: compute itself from other fields, on any window."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from map2map.typing import Array

__all__ = ["Box", "Derived"]


@dataclass(frozen=True)
class Box:
    """Where on the grid the values of a window lie.

    Args:
        steps: From each cell to the next, per axis, negative if coordinates descend.
        coordinates: Of the cells, per axis; empty on axes that have none.
    """

    steps: tuple[float, ...]
    coordinates: tuple[Array, ...] = ()


class Derived(ABC):
    """A field that is computed from others.

    To add one, write one file and name it in the package. Like a model or a norm it keeps each
    constructor argument as an attribute of the same name, so that a card can tell how it is made.
    """

    margin: int = 0
    """Cells on each side of a cell that it depends on."""

    channels: int = 1
    """Numbers per cell."""

    persistent: float | None = None
    """What it is if nothing changes in time, where that is a number: 0 of an increment."""

    needs_values: bool = True
    """Whether it depends on the values of the fields that it needs, or on their grid alone."""

    needs_steps: bool = False
    """Whether it needs to know the cell size."""

    @property
    @abstractmethod
    def needs(self) -> tuple[str, ...]:
        """Names of the fields that it is computed from."""

    @abstractmethod
    def compute(self, values: Mapping[str, Array], box: Box) -> Array:
        """Compute it on a window.

        What lies within `margin` of an edge of the window is thrown away afterwards, except at an
        edge of the grid.

        Args:
            values: Of the fields that it needs, each (channel, *space), float64.
            box: Where they lie.

        Returns:
            Shape (channels, *space).
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.needs)})"
