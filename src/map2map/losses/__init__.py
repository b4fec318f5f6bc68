"""Losses that torch.nn does not have. To add one, write one file and name it here.

A loss compares an output with a target, both normalized, of shape (batch, channel, *space). One
that has ``take_fields(targets)`` is told before the first step which channels are whose. How
targets that are not known everywhere are compared, `map2map.masked_losses` tells.
"""

from map2map.losses.dice import Dice
from map2map.losses.gaussian_nll import GaussianNLL
from map2map.losses.log_cosh import LogCosh
from map2map.losses.moments import MomentLoss
from map2map.losses.wasserstein import Wasserstein
from map2map.losses.weighted_l1 import WeightedL1
from map2map.losses.weighted_mse import WeightedMSE

__all__ = [
    "Dice",
    "GaussianNLL",
    "LogCosh",
    "MomentLoss",
    "Wasserstein",
    "WeightedL1",
    "WeightedMSE",
]
