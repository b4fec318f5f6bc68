"""Norms: invertible maps of one field. To add one, write one file and name it here."""

from map2map.norms.affine import Affine, Identity, Scale, Standardize
from map2map.norms.base import Moments, Norm
from map2map.norms.chain import Chain
from map2map.norms.cosmology import Displacement, Velocity
from map2map.norms.function import FunctionNorm
from map2map.norms.torch import Exp, Expm1, Log, Log1p

__all__ = [
    "Affine",
    "Chain",
    "Displacement",
    "Exp",
    "Expm1",
    "FunctionNorm",
    "Identity",
    "Log",
    "Log1p",
    "Moments",
    "Norm",
    "Scale",
    "Standardize",
    "Velocity",
]
