"""PaddedConvNet: a plain stack of convolutions that pad, after 2Dto2D-DLE's CNN."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.padded import activated, check_padded, keep_size, padded_conv

__all__ = ["PaddedConvNet"]

WEAK = 0.1
"""The last weights at the start, as a share of Glorot's."""


class PaddedConvNet(nn.Module):
    """``depth`` convolutions with leaky ReLUs behind them, and one of width 1.

    The output has as many cells as the input: zeros are made up beyond the edges, in front of every
    convolution, so the outermost ``depth`` cells (for a width of 3) know where the edge is. With
    the defaults it is 2Dto2D-DLE's network and loads its weights; `ConvNet` makes nothing up. It
    starts from other weights than there: a signal keeps its size on the way, and comes out small.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of convolutions before the last one.
        kernel_size: Their width in cells; odd.
        slope: What activations multiply negative values by; 0 is a ReLU.
        dropout: Share of the values behind each activation that training sets to zero.

    Raises:
        RecipeError: If an argument is out of range, or the kernel has no middle cell.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 32,
        depth: int = 16,
        kernel_size: int = 3,
        slope: float = 0.01,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_padded(ndim, slope, width=width, depth=depth, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise RecipeError(
                f"`kernel_size` is {kernel_size}, but must be odd, so that an output cell lies in "
                f"the middle of what it sees"
            )
        if not 0 <= dropout < 1:
            raise RecipeError(f"`dropout` is {dropout}, but must be at least 0 and below 1")
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth, self.kernel_size = width, depth, kernel_size
        self.slope, self.dropout = slope, dropout
        self.convs = nn.ModuleList(
            padded_conv(width if i else in_chan, width, kernel_size, ndim) for i in range(depth)
        )
        self.last = padded_conv(width, out_chan, 1, ndim)
        for conv in self.convs:
            keep_size(conv, slope)
        with torch.no_grad():
            # a start near zero: large outputs would first be unlearnt, and the layers with them
            self.last.weight.mul_(WEAK)  # type: ignore[operator]
        self.footprint = Footprint(margin=depth * (kernel_size // 2), cut=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        for conv in self.convs:
            x = activated(conv(x), self.slope)
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        y: Tensor = self.last(x)
        return y
