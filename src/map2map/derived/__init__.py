"""Derived fields: computed from other fields. To add one, write one file and name it here."""

from map2map.derived.base import Box, Derived
from map2map.derived.bulk_flux import BulkFlux
from map2map.derived.charlette import Charlette
from map2map.derived.combination import Combination
from map2map.derived.coordinate import Coordinate
from map2map.derived.gradient import Gradient
from map2map.derived.gradient_norm import GradientNorm
from map2map.derived.growth_difference import GrowthDifference
from map2map.derived.increment import Increment
from map2map.derived.magnitude import Magnitude
from map2map.derived.mixed_layer_warming import MixedLayerWarming

__all__ = [
    "Box",
    "BulkFlux",
    "Charlette",
    "Combination",
    "Coordinate",
    "Derived",
    "Gradient",
    "GradientNorm",
    "GrowthDifference",
    "Increment",
    "Magnitude",
    "MixedLayerWarming",
]
