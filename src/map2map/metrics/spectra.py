"""Whether the field has the right power at every scale, and in the right places."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Values, pair, score
from map2map.physics import spectra
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["spectral_scores"]


def spectral_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Power spectra, transfer function, correlation coefficient and error power.

    NaN if the field is not periodic or cells are masked: a Fourier transform needs them all.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L].
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    ndim = len(both.space)
    k, _ = spectra.mode_counts(both.space, both.sizes)
    predicted, true, cross = np.full((3, len(k)), np.nan)
    if both.whole:
        p, t = without_rounding(both.prediction), both.truth
        _, (predicted, true, cross) = spectra.spectra(
            [(p, p), (t, t), (p, t)], both.sizes, ndim, double=False
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(predicted / true)
        correlation = cross / np.sqrt(predicted * true)
        # from the square, which rounding of the root does not touch
        error = 1 - cross / predicted * (cross / true)
    units, dims = f"field^2 L^{ndim}", ("k",)
    found = xr.Dataset(
        {
            "power_truth": score(true, units, "power spectrum of the truth", None, dims),
            "power": score(predicted, units, "power spectrum", None, dims),
            "transfer": score(ratio, "1", "T(k) = sqrt(power / power of the truth)", 1, dims),
            "correlation": score(correlation, "1", "r(k), correlation with the truth", 1, dims),
            "error_power": score(
                error, "1", "1 - r(k)^2, power that the truth cannot explain", 0, dims
            ),
        }
    )
    return found.assign_coords(k=("k", k, {"units": "rad/L", "long_name": "mean wavenumber"}))


def without_rounding(values: Array) -> Array:
    """The values; zero where a channel is constant, whose transform would be rounding errors."""
    rows = values.reshape(len(values), -1)
    # few fields are constant; most are told by their first cells
    if not (rows[:, :2] == rows[:, :1]).all(axis=1).any():
        return values
    constant = (rows == rows[:, :1]).all(axis=1)
    return np.where(constant.reshape(-1, *(1,) * (values.ndim - 1)), 0, values).astype(values.dtype)
