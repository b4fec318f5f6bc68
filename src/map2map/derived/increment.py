"""What a field changes by from one time to a later one."""

from collections.abc import Mapping

import numpy as np

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError
from map2map.typing import Array

__all__ = ["Increment"]


class Increment(Derived):
    """A later field minus an earlier one [u], as a coupled model or an assimilation adds it.

    Both are frames of one variable: ``later: 6h`` of its files makes a later one, ``later: -6h`` an
    earlier one. Where either is NaN, so is the increment. Differences are taken in double
    precision, of what files hold.

    Args:
        later: The later field.
        earlier: The earlier one.
        mask: A field of one channel that exceeds 0.5 where there is an increment; elsewhere it is
            NaN, and as a target not learnt (``reading.mask``). For files whose land is filled.
        channels: Of the fields.
    """

    persistent = 0.0

    def __init__(
        self, later: str, earlier: str, mask: str | None = None, channels: int = 1
    ) -> None:
        self.later, self.earlier, self.mask, self.channels = later, earlier, mask, channels

    @property
    def needs(self) -> tuple[str, ...]:
        """Both fields, and the mask."""
        return tuple(dict.fromkeys((self.later, self.earlier, *([self.mask] if self.mask else []))))

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The difference, shape (channels, *space)."""
        later, earlier = values[self.later], values[self.earlier]
        if {len(later), len(earlier)} != {self.channels}:
            raise FieldError(
                f"an increment of {self.channels} channels is asked for, but {self.later!r} has "
                f"{len(later)} and {self.earlier!r} {len(earlier)}; give `channels`"
            )
        change: Array = later - earlier
        if self.mask is None:
            return change
        if len(values[self.mask]) != 1:
            raise FieldError(f"the mask {self.mask!r} has {len(values[self.mask])} channels, not 1")
        return np.where(values[self.mask] > 0.5, change, np.nan)
