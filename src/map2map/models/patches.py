"""Patches of cells that become tokens, and back; vocabulary that models may import, like conv.py.

A convolution whose step is its width is a linear layer of what each patch holds, and is one here:
its weights have two axes, whatever the axes of space.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from map2map.typing import Shape
from map2map.windows import round_up

__all__ = ["Pads", "PatchEmbed", "PatchRecover", "centered", "pad_to", "unpad"]

Pads = tuple[tuple[int, int], ...]
"""Per axis, how many zeros are made up below and above."""


def centered(shape: Shape, step: Shape) -> Pads:
    """Zeros that bring each axis to a multiple, half of them on each side, the odd one above.

    >>> centered((13, 721, 1440), (2, 4, 4))
    ((0, 1), (1, 2), (0, 0))
    """
    missing = [round_up(n, m) - n for n, m in zip(shape, step, strict=True)]
    return tuple((n // 2, n - n // 2) for n in missing)


def pad_to(x: Tensor, pads: Pads) -> Tensor:
    """The last axes of a tensor with as many zeros more."""
    flat = [n for low_high in reversed(pads) for n in low_high]
    return F.pad(x, flat) if any(flat) else x


def unpad(x: Tensor, pads: Pads, first: int) -> Tensor:
    """Without the cells that `pad_to` has added, on the axes from ``first`` on."""
    for axis, (low, high) in enumerate(pads, start=first):
        x = x.narrow(axis, low, x.shape[axis] - low - high)
    return x


class PatchEmbed(nn.Linear):
    """Tokens from patches: (batch, in_chan, *space) to (batch, *patches, width).

    Args:
        in_chan: Channels of a cell.
        patch: Its cells per axis.
        shape: Cells per axis of the field, which zeros fill up to whole patches.
        width: Channels of a token.
    """

    def __init__(self, in_chan: int, patch: Shape, shape: Shape, width: int) -> None:
        super().__init__(in_chan * prod(patch), width)
        self.patch, self.pads = patch, centered(shape, patch)

    def forward(self, input: Tensor) -> Tensor:
        """Map a field to tokens."""
        x, ndim = pad_to(input, self.pads), len(self.patch)
        split = [
            n for cells, m in zip(x.shape[2:], self.patch, strict=True) for n in (cells // m, m)
        ]
        x = x.reshape(*x.shape[:2], *split)
        # patches first, and then channels and cells, in the order of a convolution's weights
        x = x.permute(0, *range(2, 2 + 2 * ndim, 2), 1, *range(3, 3 + 2 * ndim, 2))
        return super().forward(x.flatten(1 + ndim))


class PatchRecover(nn.Module):
    """Fields from tokens: (batch, *patches, width) to (batch, out_chan, *space).

    Args:
        width: Channels of a token.
        out_chan: Channels of a cell.
        patch: Its cells per axis.
        shape: Cells per axis of the field, without the zeros around it.
    """

    def __init__(self, width: int, out_chan: int, patch: Shape, shape: Shape) -> None:
        super().__init__()
        self.patch, self.pads = patch, centered(shape, patch)
        self.linear = nn.Linear(width, out_chan * prod(patch), bias=False)
        self.bias = nn.Parameter(torch.zeros(out_chan))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens to a field."""
        ndim, counts = len(self.patch), x.shape[1:-1]
        x = self.linear(x).reshape(-1, *counts, len(self.bias), *self.patch)
        pairs = [axis for i in range(ndim) for axis in (1 + i, 2 + ndim + i)]
        x = x.permute(0, 1 + ndim, *pairs)
        space = [n * m for n, m in zip(counts, self.patch, strict=True)]
        x = unpad(x.reshape(*x.shape[:2], *space), self.pads, 2)
        return x + self.bias.reshape(-1, *(1,) * ndim)
