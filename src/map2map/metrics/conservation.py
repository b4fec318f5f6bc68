"""Whether what should be conserved is: the mean and the integral."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Values, pair, score
from map2map.physics.spacing import Spacing

__all__ = ["conservation_scores"]


def conservation_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Error of the mean, and error of the integral relative to the integral of absolute values.

    Of several channels, both are the length of the vector of the channels' errors.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L], which cancels.
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    means = [
        [x.mean(dtype=np.float64) for x in (p, t)] + [np.abs(t).mean(dtype=np.float64)]
        for p, t in both.channels()
    ]
    predicted, true, absolute = np.transpose(means)
    error = float(np.linalg.norm(predicted - true))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.float64(error) / np.linalg.norm(absolute)
    return xr.Dataset(
        {
            "mean_error": score(
                error, "field", "absolute error of the mean over cells; of channels, its length", 0
            ),
            "integral_error": score(
                relative, "1", "|integral of prediction - truth| / integral of |truth|", 0
            ),
        }
    )
