"""Losses that torch.nn does not have. To add one, write one file and name it here.

A loss compares an output with a target, both normalized, of shape (batch, channel, *space). Before
the first step a training tells those that have such methods

- ``take_fields(targets)``: which channels are whose;
- ``take_emulator(emulator)``: the norms, the cell size and what is periodic;

and before each comparison

- ``take_styles(style)``: physical styles of the samples, shape (batch, style), None without any;
- ``take_shape(shape)``: how many cells a whole field of the targets has, None if that varies.

One with ``members`` is given so many outputs of a network that draws random numbers, one after
another along the batch. What a loss keeps in ``told``, numbers by name, is told after every epoch
as a measure. One with ``of_mean = True`` is least, over all that a target can be, at its mean, as
squared errors are; flow matching needs such. How targets that are not known everywhere are
compared, `map2map.masked_losses` tells.
"""

from map2map.losses.derivatives import Derivatives
from map2map.losses.dice import Dice
from map2map.losses.energy_score import EnergyScore
from map2map.losses.gaussian_nll import GaussianNLL
from map2map.losses.lagrangian_eulerian import LagrangianEulerian
from map2map.losses.log_cosh import LogCosh
from map2map.losses.log_density import LogDensity
from map2map.losses.moments import MomentLoss
from map2map.losses.power_spectrum import PowerSpectrum
from map2map.losses.relative_l2 import RelativeL2
from map2map.losses.wasserstein import Wasserstein
from map2map.losses.weighted_l1 import WeightedL1
from map2map.losses.weighted_mse import WeightedMSE
from map2map.losses.weighted_sum import WeightedSum

__all__ = [
    "Derivatives",
    "Dice",
    "EnergyScore",
    "GaussianNLL",
    "LagrangianEulerian",
    "LogCosh",
    "LogDensity",
    "MomentLoss",
    "PowerSpectrum",
    "RelativeL2",
    "Wasserstein",
    "WeightedL1",
    "WeightedMSE",
    "WeightedSum",
]
