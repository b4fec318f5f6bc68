"""The shapes we speak. Imports no torch, so that the command line stays quick."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Shape"]

Shape = tuple[int, ...]
"""Cells per axis, or the index of a cell on every axis."""

Array = NDArray[np.floating[Any]]
"""An array of real numbers, of any precision."""
