"""Whether a vector field has the right sources and whirls."""

from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from map2map.metrics.base import Pair, Values, pair, score
from map2map.physics.operators import derivative
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["vector_scores"]


def vector_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Errors of divergence and curl of a vector field, relative to the truth's of both together.

    Both are relative to the root of the summed squares of the truth's divergence and curl, so that
    the error of a curl that should be zero is defined, and in a periodic box the two add in squares
    to the relative error of all derivatives. Derivatives are central differences of second order,
    in cells whose neighbors count; NaN for what is no vector.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L].
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    divergence = curl = np.nan
    kept = inner(both)
    if both.vector and len(both.space) > 1 and (kept is None or kept.any()):
        error = sources_and_whirls(both.prediction - both.truth, both, kept)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.sqrt(sum(sources_and_whirls(both.truth, both, kept)))
            divergence, curl = np.sqrt(error) / scale
    return xr.Dataset(
        {
            "divergence_error": score(
                divergence, "1", "norm of the divergence's error / norm of true div and curl", 0
            ),
            "curl_error": score(
                curl, "1", "norm of the curl's error / norm of true div and curl", 0
            ),
        }
    )


def inner(both: Pair) -> NDArray[np.bool_] | None:
    """Cells that count and whose neighbors do; None if all."""
    if both.whole:
        return None
    counts = np.ones(both.space, bool) if both.counts is None else both.counts
    kept = counts.copy()
    for axis, wraps in enumerate(both.periodic):
        kept &= np.roll(counts, 1, axis) & np.roll(counts, -1, axis)
        if not wraps:
            edges = np.moveaxis(kept, axis, 0)
            edges[0] = edges[-1] = False
    return kept


def sources_and_whirls(
    values: Array, both: Pair, kept: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """Summed squares of divergence and curl [(u/L)^2]."""
    if both.counts is not None:
        values = np.where(both.counts, values, 0)
    vector, ndim = torch.from_numpy(np.ascontiguousarray(values)), len(values)

    def slope(component: int, axis: int) -> torch.Tensor:
        return derivative(vector[component], axis - ndim, both.sizes[axis], "central")

    def squares(x: torch.Tensor) -> float:
        some = x if kept is None else x[torch.from_numpy(kept)]
        return float(some.square().sum(dtype=torch.float64))

    whirls = sum(squares(slope(j, i) - slope(i, j)) for i, j in combinations(range(ndim), 2))
    return squares(reduce(torch.add, (slope(i, i) for i in range(ndim)))), whirls
