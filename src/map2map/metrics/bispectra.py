"""Whether the field has the right shapes, to which power spectra are blind."""

from typing import Any

import numpy as np
import xarray as xr

from map2map.metrics.base import Pair, Values, pair, score
from map2map.physics.bispectra import bispectrum, triangle_counts, width_for
from map2map.physics.spacing import Spacing
from map2map.typing import Array

__all__ = ["bispectrum_scores"]

SMALLEST = 3
"""Cells of an axis below which there is no triangle."""

BINS = 16
"""About how many bins there are; each costs two transforms of the size that it needs."""


def bispectrum_scores(
    prediction: Values, truth: Values, spacing: Spacing | None = None, **about: Any
) -> xr.Dataset:
    """Equilateral bispectra on 2 or 3 axes; of a vector, that of its divergence.

    NaN if the field is not periodic or cells are masked: a Fourier transform needs them all. Empty
    on one axis, where no three equal waves close.

    Args:
        prediction: Values [u]; see `map2map.metrics.base.pair` for all arguments.
        truth: Values [u].
        spacing: Cell size [L].
        about: ``periodic``, ``vector`` and ``mask``.
    """
    both = pair(prediction, truth, spacing, **about)
    ndim = len(both.space)
    if ndim == 1 or min(both.space) < SMALLEST:
        return xr.Dataset()
    width = width_for(both.space, both.sizes, BINS)
    k, _ = triangle_counts(both.space, both.sizes, width)
    length = 2 * ndim - (3 if both.vector else 0)
    units = "field^3" + (f" L^{length}" if length else "")
    what = "bispectrum B(k, k, k)" + (" of the divergence" if both.vector else "")
    found = xr.Dataset(
        {
            "bispectrum_truth": score(
                of(both.truth, both, width, len(k)), units, f"{what} of the truth", None, ("kb",)
            ),
            "bispectrum": score(
                of(both.prediction, both, width, len(k)), units, what, None, ("kb",)
            ),
        }
    )
    return found.assign_coords(kb=("kb", k, {"units": "rad/L", "long_name": "mean wavenumber"}))


def of(values: Array, both: Pair, width: int, count: int) -> Array:
    """The bispectrum of a field, or of its divergence."""
    if not both.whole:
        return np.full(count, np.nan)
    ndim = len(both.space)
    return bispectrum(values, both.sizes, ndim, width, divergence=both.vector, double=False)[1]
