"""PaddedUNet: a U-Net of convolutions that pad, after 2Dto2D-DLE's."""

import torch
from torch import Tensor, nn

from map2map.footprints import Footprint
from map2map.models.padded import activated, check_padded, doubled, doubling_conv, padded_conv

__all__ = ["PaddedUNet"]

MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class PaddedUNet(nn.Module):
    """Two convolutions per level, down to cells 2^(levels - 1) times as wide, and up again.

    Channels double from level to level. The output has as many cells as the input, a multiple of
    2^(levels - 1): zeros are made up beyond the edges, in front of every convolution. With the
    defaults it is 2Dto2D-DLE's U-Net and loads its weights; `UNet` makes nothing up.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the first level.
        levels: Number of sizes of cells.
        slope: What activations multiply negative values by; 0 is a ReLU.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 32,
        levels: int = 4,
        slope: float = 0.3,
    ) -> None:
        super().__init__()
        check_padded(ndim, slope, width=width, levels=levels)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.levels, self.slope = width, levels, slope

        chans = [width * 2**level for level in range(levels)]
        self.pool = MAX_POOL[ndim](2)
        self.down = nn.ModuleList(
            Down(before, after, ndim, slope)
            for before, after in zip([in_chan, *chans], chans, strict=False)
        )
        self.up = nn.ModuleList(Up(chan, ndim, slope) for chan in reversed(chans[:-1]))
        self.last = padded_conv(width, out_chan, 1, ndim)
        self.footprint = padded_unet_footprint(levels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If the sizes are no multiples.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        skips: list[Tensor] = []
        for down in self.down:
            x = down(self.pool(x) if skips else x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        y: Tensor = self.last(x)
        return y


class Down(nn.Module):
    """Two convolutions with activations.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        ndim: Number of axes.
        slope: Of the activations.
    """

    def __init__(self, before: int, after: int, ndim: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.first = padded_conv(before, after, 3, ndim)
        self.second = padded_conv(after, after, 3, ndim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, before, *space) to (batch, after, *space)."""
        return activated(self.second(activated(self.first(x), self.slope)), self.slope)


class Up(nn.Module):
    """Cells half as wide, one convolution, the way down put beside it, and two more.

    Args:
        chan: Channels of the output and of what is put beside; the input has twice as many.
        ndim: Number of axes.
        slope: Of the activations.
    """

    def __init__(self, chan: int, ndim: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.grow = doubling_conv(2 * chan, chan, ndim)
        self.before = padded_conv(chan, chan, 3, ndim)
        self.first = padded_conv(2 * chan, chan, 3, ndim)
        self.second = padded_conv(chan, chan, 3, ndim)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (batch, 2 chan, *space) and (batch, chan, *twice) to (batch, chan, *twice)."""
        x = activated(doubled(self.grow, x), self.slope, inplace=False)
        x = torch.cat([activated(self.before(x), self.slope), skip], dim=1)
        return activated(self.second(activated(self.first(x), self.slope)), self.slope)


def padded_unet_footprint(levels: int) -> Footprint:
    """What a block of outputs depends on, followed back through the levels."""
    cells = 2 ** (levels - 1)
    low, high = seen(levels, 0, cells - 1)
    return Footprint(margin=max(-low, high - cells + 1), multiple=cells, cut=0)


def seen(levels: int, low: int, high: int) -> tuple[int, int]:
    """The first and last cell of a level's input that its cells from low to high depend on.

    Args:
        levels: Sizes of cells from this one on.
        low: First cell of the level's output.
        high: Last cell.
    """
    # two convolutions on the way down, and on all levels but the last two on the way up
    if levels == 1:
        return low - 2, high + 2
    # one more before them, and doubling: cell 2 i depends on i and i - 1, cell 2 i + 1 on i
    first, last = seen(levels - 1, (low - 3 - 1) // 2, (high + 3) // 2)
    # the pooled cells, and those beside which the way up is put
    return min(2 * first, low - 2) - 2, max(2 * last + 1, high + 2) + 2
