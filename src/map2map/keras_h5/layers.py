"""What is read from Keras's files and written to them: the steps of a network, one by one."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Kind", "Layer", "Network", "Weights"]

Kind = Literal["input", "conv", "double", "activation", "pool", "join"]
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Layer:
    """One step of a network on fields of two axes; equal if it computes the same but for weights.

    Args:
        kind: The input; a convolution that pads; a transposed convolution of step 2, which doubles
            the cells; an activation; the maximum of 2 x 2 cells; or channels put behind each other.
        inputs: Numbers of the layers that it takes.
        chan: Channels of its output.
        width: Of the kernel of a convolution.
        slope: What an activation multiplies negative values by.
        name: What it is called in the file.
        weights: Kernel (width, width, in, out), or of a transposed convolution (width, width, out,
            in), and bias (out).
    """

    kind: Kind
    inputs: tuple[int, ...]
    chan: int
    width: int = 1
    slope: float = 1.0
    name: str = field(default="", compare=False)
    weights: Weights | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Network:
    """The layers of a network, each behind those that it takes; the last one is the output.

    Args:
        layers: As they are computed; what acts in training only is left out.
        dropout: The largest rate of its dropout layers.
        version: Of the Keras that wrote it, or whose form it has.
        writer: Who wrote it, if not Keras.
    """

    layers: tuple[Layer, ...]
    dropout: float = 0.0
    version: str = ""
    writer: str = ""
