"""What the models that pad share: convolutions that keep the cells, and how they start.

Like conv.py, vocabulary that models may import. Beyond every edge are zeros, in front of every
convolution anew, so what is computed within a margin of an edge depends on values made up. Names in
other libraries: `padding="same"`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.models.conv import CONV, TRANSPOSED, check_ndim, cut_off

__all__ = [
    "activated",
    "check_padded",
    "doubled",
    "doubling_conv",
    "keep_size",
    "padded_conv",
    "started",
]


def padded_conv(in_chan: int, out_chan: int, kernel_size: int, ndim: int) -> nn.Module:
    """A convolution that keeps the number of cells."""
    return started(CONV[ndim](in_chan, out_chan, kernel_size, padding=kernel_size // 2))


def doubling_conv(in_chan: int, out_chan: int, ndim: int) -> nn.Module:
    """A transposed convolution of width 3 and step 2, for `doubled`."""
    return started(TRANSPOSED[ndim](in_chan, out_chan, 3, stride=2))


def doubled(conv: nn.Module, x: Tensor) -> Tensor:
    """Twice the cells on every axis of (batch, channel, *space).

    n cells become 2 n + 1; the last is dropped, so cell 2 i depends on the cells i and i - 1.
    """
    return cut_off(conv(x), 0, 1)


def started(conv: nn.Module) -> nn.Module:
    """The same convolution or linear layer, with Glorot's uniform weights and zero biases."""
    nn.init.xavier_uniform_(conv.weight)  # type: ignore[arg-type]
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def keep_size(conv: nn.Module, slope: float) -> None:
    """Start with He's uniform weights, which keep the size of a signal through its activation.

    Glorot's halve its square in each layer, so that behind 16 of them it is 1/256, and training
    can take some epochs to leave the prediction of zero.

    Args:
        conv: The convolution, not a transposed one.
        slope: Of the activation behind it.
    """
    nn.init.kaiming_uniform_(conv.weight, a=slope)  # type: ignore[arg-type]


def activated(x: Tensor, slope: float, *, inplace: bool = True) -> Tensor:
    """Multiply what is negative by ``slope``; in place, but not a view, whose gradient is slow."""
    return F.leaky_relu(x, slope, inplace) if slope else F.relu(x, inplace)


def check_padded(ndim: int, slope: float, **positive: int) -> None:
    """Refuse arguments of a model that pads.

    Args:
        ndim: Number of axes.
        slope: Of the activation.
        **positive: Arguments that must be at least 1.

    Raises:
        RecipeError: If one is out of range.
    """
    check_ndim(ndim)
    if not 0 <= slope <= 1:
        raise RecipeError(f"`slope` is {slope}, but must be from 0 (ReLU) to 1 (nothing)")
    for name, value in positive.items():
        if value < 1:
            raise RecipeError(f"`{name}` is {value}, but must be at least 1")
