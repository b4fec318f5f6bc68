"""Cell sizes, given for all axes at once or one by one."""

from collections.abc import Sequence

import numpy as np

from map2map.errors import GeometryError

__all__ = ["Spacing", "cell_sizes"]

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
