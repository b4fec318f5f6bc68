"""A 3-D convolution that is fast for a batch of one small crop, too.

Like conv.py, vocabulary that models may import. On a CPU, PyTorch computes a 3-D convolution of
float32 with oneDNN, but that of a batch of one sample below a size with matrix products of copies,
which takes two to four times as long, forward and backward. Two halves of the sample are a batch
of two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit._trace import is_tracing

__all__ = ["HalvedConv3d"]

SMALL = 1 << 19
"""Numbers in the input of a convolution, from which on PyTorch does without help (2.13)."""

FEWEST = 16
"""Channels below which both ways take as long."""


class HalvedConv3d(nn.Conv3d):
    """A convolution of width 3, padded with zeros, in two halves along the first axis if it pays.

    The output is that of a plain convolution, but for round-off.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (batch, channel, *space); the space stays as it is."""
        return self.in_halves(input) if self._pays(input) else super().forward(input)

    def _pays(self, x: Tensor) -> bool:
        """Whether two halves are computed faster."""
        # a graph is for batches of any number
        if torch.compiler.is_compiling() or is_tracing():  # type: ignore[no-untyped-call]
            return False
        return (
            x.shape[0] == 1
            and x.shape[1] >= FEWEST
            and x.shape[2] >= 4
            and x.numel() < SMALL
            and x.dtype == self.weight.dtype == torch.float32
            and x.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
        )

    def in_halves(self, x: Tensor) -> Tensor:
        """Convolve (1, channel, *space) as a batch of two, which share a plane of an odd number."""
        planes = x.shape[2]
        half = -(-planes // 2)
        wide = F.pad(x, (0, 0, 0, 0, 1, 1))
        halves = torch.cat([wide[:, :, : half + 2], wide[:, :, planes - half :]])
        low, high = F.conv3d(halves, self.weight, self.bias, padding=(0, 1, 1)).split(1)  # type: ignore[no-untyped-call]
        return torch.cat([low, high[:, :, 2 * half - planes :]], dim=2)
