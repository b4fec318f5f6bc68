"""Losses that torch.nn does not have. To add one, write one file and name it here."""

from map2map.losses.gaussian_nll import GaussianNLL
from map2map.losses.log_cosh import LogCosh
from map2map.losses.moments import MomentLoss

__all__ = ["GaussianNLL", "LogCosh", "MomentLoss"]
