"""Cell sizes: given for all axes at once or one by one, or told by coordinates."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from map2map.errors import GeometryError

__all__ = ["Spacing", "cell_sizes", "step_of"]

Spacing = float | Sequence[float]
"""Cell size: one for all axes, or one per axis."""


def cell_sizes(spacing: Spacing, ndim: int) -> tuple[float, ...]:
    """One positive cell size per axis.

    >>> cell_sizes(0.5, ndim=2)
    (0.5, 0.5)

    Raises:
        GeometryError: If there are another number of sizes, or some are not positive.
    """
    sizes = np.asarray(spacing, dtype=float)
    if sizes.ndim == 0:
        sizes = np.full(ndim, sizes)
    if sizes.shape != (ndim,) or not np.all(sizes > 0):
        raise GeometryError(f"`spacing` needs 1 or {ndim} positive values, not {spacing}")
    return tuple(sizes.tolist())


def step_of(coordinates: ArrayLike | None) -> float | None:
    """The step from one coordinate to the next, negative if they descend.

    >>> step_of([30.0, 20.0, 10.0])
    -10.0

    Args:
        coordinates: Of the cells of an axis, if it has any.

    Returns:
        NaN if they are not even to a thousandth; None if there are none, fewer than two, or they
        are no numbers.
    """
    values = np.asarray(coordinates)
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "fiu":
        return None
    steps = np.diff(values.astype(np.float64))
    mean = float(steps.mean())
    even = mean != 0 and np.allclose(steps, mean, rtol=1e-3, atol=0)
    return mean if even else math.nan
