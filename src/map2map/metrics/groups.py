"""Samples that belong together: the images of one cube, the crops of one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError
from map2map.metrics.base import as_array

__all__ = ["Groups", "counts", "finite"]

FEW = 1e-6
"""Relative difference up to which numbers are the same, but for their rounding."""


@dataclass(frozen=True)
class Groups:
    """Which sample belongs to which group.

    Args:
        names: Of the groups, sorted, shape (group,).
        index: Into the names, shape (sample,).
    """

    names: NDArray[np.int64]
    index: NDArray[np.intp]

    @classmethod
    def of(cls, groups: Any, samples: int) -> "Groups":
        """From a whole number per sample; None if each sample stands alone.

        Raises:
            FieldError: If they are no whole numbers.
            GeometryError: If they are not as many as the samples.
        """
        numbers = np.arange(samples) if groups is None else as_array(groups)
        if numbers.shape != (samples,):
            raise GeometryError(
                f"the groups have shape {numbers.shape}, but there are {samples} samples; give one "
                f"whole number for each"
            )
        if numbers.dtype.kind not in "iu":
            raise FieldError(f"groups are whole numbers, not {numbers.dtype}")
        names, index = np.unique(numbers, return_inverse=True)
        return cls(names.astype(np.int64), index)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Samples of each group, shape (group,)."""
        return np.bincount(self.index, minlength=len(self.names)).astype(np.int64)

    @property
    def alone(self) -> bool:
        """Whether each sample is a group of its own."""
        return len(self.names) == len(self.index)

    def mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of numbers (sample, channel): those of each group, (group, channel)."""
        columns = [np.bincount(self.index, x, len(self.names)) for x in values.T]
        return np.stack(columns, axis=-1) / self.counts[:, None]

    def shared(self, values: NDArray[Any], what: str) -> NDArray[Any]:
        """Of numbers (sample, channel) that are the same throughout a group: (group, channel).

        Raises:
            FieldError: If they are not, naming a group.
        """
        first = np.zeros(len(self.names), np.intp)
        # from behind, so that the first sample of a group is what stays
        first[self.index[::-1]] = np.arange(len(self.index))[::-1]
        mine = values[first]
        far = np.abs(values - mine[self.index]) > FEW * np.abs(mine[self.index])
        if far.any():
            sample = int(np.flatnonzero(far.any(axis=1))[0])
            group = self.index[sample]
            raise FieldError(
                f"samples {int(first[group])} and {sample} are both of group "
                f"{int(self.names[group])}, but their {what} are {mine[group].tolist()} and "
                f"{values[sample].tolist()}; a group has one truth"
            )
        return mine


def finite(values: Any, what: str) -> NDArray[np.float64]:
    """Numbers of shape (sample, channel) in double precision.

    Raises:
        FieldError: If there are none, or some are not finite.
        GeometryError: If they are of another shape.
    """
    numbers = as_array(values).astype(np.float64)
    if numbers.ndim != 2:
        raise GeometryError(f"{what} have shape (sample, channel), not {numbers.shape}")
    if numbers.size == 0:
        raise FieldError(f"there are no {what}: their shape is {numbers.shape}")
    bad = (~np.isfinite(numbers)).any(axis=1)
    if bad.any():
        raise FieldError(
            f"{what} of {int(bad.sum())} of {len(numbers)} samples are not finite, first of sample "
            f"{int(bad.argmax())}: {numbers[bad.argmax()].tolist()}; look at its input and at the "
            f"loss of the training"
        )
    return numbers


def counts(value: NDArray[np.integer[Any]], long_name: str, dims: Sequence[str]) -> xr.Variable:
    """Whole numbers of cases."""
    attrs = {"units": "1", "long_name": long_name}
    return xr.Variable(tuple(dims), value.astype(np.int64), attrs)
