"""Scores level by level, of fields whose channels are levels or other entries of a profile."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Values, pair, score
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["level_scores"]

BANDS = (5, 25, 50, 75, 95)
"""Percentiles of the error."""


def level_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Bias, MAE, RMSE, R² and percentiles of the error of every channel; nothing for a single one.

    R² of a level is 1 - sum (p - t)² / sum (t - mean t)² over its cells, NaN where the truth does
    not vary. Scores lie along ``level``, from the first channel to the last; the components of a
    vector are no levels.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L], which does not matter here.
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    if both.vector or len(both.truth) < 2:
        return xr.Dataset()
    found = [of_level(p, t) for p, t in both.channels()]
    bias, mae, rmse, r2 = (np.array([one[i] for one in found]) for i in range(4))
    bands = np.stack([one[4:] for one in found], axis=1)
    level = ["level"]
    return xr.Dataset(
        {
            "level_bias": score(bias, "field", "mean error, per level", 0, level),
            "level_mae": score(mae, "field", "mean absolute error, per level", 0, level),
            "level_rmse": score(rmse, "field", "root mean squared error, per level", 0, level),
            "level_r2": score(r2, "1", "coefficient of determination, per level", 1, level),
            "level_bands": score(
                bands, "field", "percentiles of the error, per level", 0, ["band", "level"]
            ),
        },
        {"band": ("band", list(BANDS), {"units": "%"})},
    )


def of_level(prediction: Array, truth: Array) -> tuple[float, ...]:
    """Bias, MAE, RMSE, R² and percentiles of the error of one channel, both of shape (cell,)."""
    error = prediction.astype(np.float64) - truth
    squared = float(np.square(error).mean())
    variance = float(np.var(truth, dtype=np.float64))
    r2 = 1 - squared / variance if variance else np.nan
    bias, mae = float(error.mean()), float(np.abs(error).mean())
    bands = np.percentile(error, BANDS, overwrite_input=True)
    return bias, mae, float(np.sqrt(squared)), r2, *bands.tolist()
