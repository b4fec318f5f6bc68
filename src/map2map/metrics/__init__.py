"""Metrics: what an output is worth, in physical units. To add one, write one file.

A metric is a function ``(prediction, truth, spacing, *, periodic, vector, mask) -> xr.Dataset`` of
fields of shape (channel, *space), as arrays, tensors or DataArrays. Its variables say what they are
(``long_name``), in which units (``units``; "field" stands for those of the field, "L" for that of
length, "1" for none) and what they are for a perfect prediction (``perfect``). Further arguments
are ``latitude`` and ``climatology``, where they are known. `metrics.base.pair` explains and checks
all of them. `Pointwise` adds up scores window by window instead.

What a whole run is, is no field: `metrics.labels.label_scores` and
`metrics.parameters.parameter_scores` take numbers per sample, and say what they are worth per
sample and per group of samples. `metrics.ensembles.EnsembleScores` takes the members of an ensemble
instead of a prediction. Scores weighted by area over many samples of forecasts are
`metrics.latitudes.LatitudeScores`.
"""

from map2map.metrics.bispectra import bispectrum_scores
from map2map.metrics.by_level import level_scores
from map2map.metrics.conservation import conservation_scores
from map2map.metrics.distributions import distribution_scores
from map2map.metrics.latitudes import latitude_scores
from map2map.metrics.pointwise import Pointwise, pointwise_scores
from map2map.metrics.profiles import profile_scores
from map2map.metrics.spectra import spectral_scores
from map2map.metrics.vectors import vector_scores

__all__ = [
    "Pointwise",
    "bispectrum_scores",
    "conservation_scores",
    "distribution_scores",
    "latitude_scores",
    "level_scores",
    "pointwise_scores",
    "profile_scores",
    "spectral_scores",
    "vector_scores",
]
