"""Metrics: what an output is worth, in physical units. To add one, write one file."""

from map2map.metrics.pointwise import Pointwise

__all__ = ["Pointwise"]
