"""How much of a field there is along the first axis, such as the surface of a flame."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Pair, Values, pair, score
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["profile_scores"]


def profile_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Integrals over the layers of cells across the first axis, and their error.

    Of a flame surface density on x, y, z it is the total flame surface per length along x. The
    error is the norm of the integrals' errors over that of the true ones, over layers and channels.
    The profile is the mean over channels, and NaN for vectors. Cells that do not count
    add nothing.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L].
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    predicted, true = layers(both.prediction, both), layers(both.truth, both)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(predicted - true) / np.linalg.norm(true)
    across = len(both.space) - 1
    units = "field" + ("" if not across else " L" if across == 1 else f" L^{across}")
    unknown = np.nan if both.vector else 1.0
    return xr.Dataset(
        {
            "profile_error": score(
                error, "1", "norm of the error of integrals over layers / norm of true ones", 0
            ),
            "profile": score(
                unknown * predicted.mean(axis=0),
                units,
                "integral over the layer across the first axis; mean over channels",
                None,
                ("layer",),
            ),
            "profile_truth": score(
                unknown * true.mean(axis=0),
                units,
                "integral of the truth over the layer across the first axis; mean over channels",
                None,
                ("layer",),
            ),
        }
    )


def layers(values: Array, both: Pair) -> Array:
    """Integrals over all axes but the first, shape (channel, layer)."""
    if both.counts is not None:
        values = np.where(both.counts, values, 0)
    sums = values.reshape(*values.shape[:2], -1).sum(axis=2, dtype=np.float64)
    area: Array = sums * np.prod(both.sizes[1:])
    return area
