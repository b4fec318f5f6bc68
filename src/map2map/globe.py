"""Where on the globe the cells of runs lie, as far as their files tell."""

import numpy as np
from numpy.typing import NDArray

from map2map.metrics.base import is_latitude
from map2map.runs import Run, Runs

__all__ = ["latitudes"]

LIMIT = 90.0
"""Of latitudes, either way."""


def latitudes(
    runs: Runs, run: int | Run = 0, name: str | None = None
) -> NDArray[np.float64] | None:
    """Of the cells of a run [degrees north]; None if it has no axis of them.

    An axis that is only called so, with numbers beyond the poles, is none.

    Args:
        runs: The runs.
        run: Which of them.
        name: Of a field, whose cells may be finer than those of others; default: the first that
            has files.

    Returns:
        Of a shape that broadcasts to the cells: as long as the axis, and 1 along the others.
    """
    source, variable = runs.source(name or runs.reference, run)
    stored = source.stored(variable)
    for i, axis in enumerate(stored.axes):
        if axis.values is not None and is_latitude(axis.name, axis.units):
            if not (np.abs(axis.values) <= LIMIT).all():
                return None
            shape = [1] * len(stored.axes)
            shape[i] = -1
            return np.asarray(axis.values, np.float64).reshape(shape)
    return None
