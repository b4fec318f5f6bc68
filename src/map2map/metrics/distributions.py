"""Whether the values are distributed as they should be, wherever they are."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Values, pair, score
from map2map.physics.spacing import Spacing

__all__ = ["distribution_scores"]

PERCENTILES = (0.1, 1.0, 5.0, 16.0, 50.0, 84.0, 95.0, 99.0, 99.9)


def distribution_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Wasserstein distance of the values' distributions, and percentiles of the error.

    The distance is how far values must be moved on average to turn one histogram into the other.
    With as many values on both sides, that is the mean difference of the sorted values. (It equals
    `scipy.stats.wasserstein_distance`, which takes several times the time and memory.)

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L], which does not matter here.
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    distances, errors = [], []
    for p, t in both.channels():
        difference = np.sort(p)
        difference -= np.sort(t)
        distances.append(float(np.abs(difference, out=difference).mean(dtype=np.float64)))
        errors.append(p - t)
    # the sign of a component's error turns with the axes; the length of a vector's does not
    error = np.linalg.norm(errors, axis=0) if both.vector else np.concatenate(errors)
    found = xr.Dataset(
        {
            "wasserstein": score(
                np.mean(distances),
                "field",
                "1-Wasserstein distance of the distributions of values, mean over channels",
                0,
            ),
            "error_percentile": score(
                np.percentile(error, PERCENTILES, overwrite_input=True),
                "field",
                "percentiles of the error of values; of vectors, of the length of the error",
                0,
                ("percentile",),
            ),
        }
    )
    return found.assign_coords(percentile=("percentile", list(PERCENTILES), {"units": "%"}))
