"""Losses that torch.nn does not have. To add one, write one file and name it here."""

from map2map.losses.log_cosh import LogCosh

__all__ = ["LogCosh"]
