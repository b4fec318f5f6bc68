"""ResNet: residual blocks and the mean over all cells; the baseline that reduces."""

from itertools import pairwise
from math import gcd, prod

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.activations import leaky
from map2map.models.conv import BATCH_NORM, CONV
from map2map.models.padded import check_padded
from map2map.models.reducing import AVERAGE, check_batch, check_dropout

__all__ = ["ResNet"]

MEAN_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS = "batch", "group"
MOST_GROUPS = 8


class ResNet(nn.Module):
    """Levels of residual blocks, each of cells twice as wide, and the mean over all cells.

    Normalization and activation come before the convolutions, so that nothing but them is between
    the input and the output of a block, which begins as its skip alone. It takes any size with at
    least a cell of the last level. If it is periodic, it is invariant to shifts of the input by
    multiples of 2^(levels - 1), around the edges, where these divide the size.

    Args:
        in_chan: Channels of the input.
        out_chan: Numbers that come out.
        ndim: Number of axes.
        width: Channels of the first level; every level has twice as many.
        levels: Number of sizes of cells.
        depth: Blocks per level.
        dropout: Share of the means over all cells that training sets to zero.
        slope: What activations multiply negative values by; 0 is a ReLU.
        norm: "batch": with the statistics of batches, frozen when the model is applied. "group": of
            each image by itself, which takes most of its own amplitude out of it.
        periodic: Whether convolutions continue at the other end, or with zeros that are made up.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 16,
        levels: int = 5,
        depth: int = 1,
        dropout: float = 0.0,
        slope: float = 0.2,
        norm: str = "batch",
        periodic: bool = True,
    ) -> None:
        super().__init__()
        positive = {"width": width, "levels": levels, "depth": depth}
        check_padded(ndim, slope, in_chan=in_chan, out_chan=out_chan, **positive)
        check_dropout(dropout)
        if norm not in NORMS:
            raise RecipeError(f"`norm` is {norm!r}, but must be {' or '.join(map(repr, NORMS))}")
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.levels, self.depth = width, levels, depth
        self.dropout, self.slope, self.norm, self.periodic = dropout, slope, norm, periodic

        chans = [width, *(width * 2**level for level in range(levels))]
        self.first = ring_conv(in_chan, width, ndim, periodic=periodic)
        self.blocks = nn.Sequential()
        for level, (before, after) in enumerate(pairwise(chans)):
            for i in range(depth):
                block = Block(
                    after if i else before,
                    after,
                    ndim,
                    slope,
                    norm,
                    halve=level > 0 and i == 0,
                    periodic=periodic,
                )
                self.blocks.append(block)
        self.last = nn.Sequential(
            normalization(norm, chans[-1], ndim),
            leaky(slope),
            AVERAGE[ndim](1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(chans[-1], out_chan),
        )
        self.footprint = Footprint(margin=0, minimum=2 ** (levels - 1), reduces=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan).

        Raises:
            GeometryError: If there are too few cells, or too few images in a training batch.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        if self.norm == "batch":
            step = 2 ** (self.levels - 1)
            check_batch(self, x.shape[0], prod(-(-n // step) for n in x.shape[2:]))
        y: Tensor = self.last(self.blocks(self.first(x)))
        return y


class Block(nn.Module):
    """Two convolutions, to whose output the input is added.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        ndim: Number of axes.
        slope: Of the activations.
        norm: "batch" or "group".
        halve: Whether the cells of the output are twice as wide.
        periodic: Whether convolutions continue at the other end.
    """

    def __init__(
        self,
        before: int,
        after: int,
        ndim: int,
        slope: float,
        norm: str,
        *,
        halve: bool,
        periodic: bool,
    ) -> None:
        super().__init__()
        self.start = nn.Sequential(normalization(norm, before, ndim), leaky(slope))
        self.convs = nn.Sequential(
            ring_conv(before, after, ndim, stride=2 if halve else 1, periodic=periodic),
            normalization(norm, after, ndim),
            leaky(slope),
            ring_conv(after, after, ndim, periodic=periodic),
        )
        nn.init.zeros_(self.convs[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.convs[-1].bias)  # type: ignore[arg-type]
        self.skip = nn.Sequential()
        if halve:
            # an odd last cell is its own mean, as the convolution has one for it, too
            self.skip.append(MEAN_POOL[ndim](2, ceil_mode=True))
        if before != after:
            self.skip.append(CONV[ndim](before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, before, *space) to (batch, after, *space), or half of it, rounded up."""
        y: Tensor = self.skip(x) + self.convs(self.start(x))
        return y


def ring_conv(
    in_chan: int, out_chan: int, ndim: int, *, stride: int = 1, periodic: bool
) -> nn.Module:
    """A convolution of width 3 that keeps the number of cells, or halves it, rounded up."""
    return CONV[ndim](
        in_chan,
        out_chan,
        3,
        stride=stride,
        padding=1,
        padding_mode="circular" if periodic else "zeros",
    )


def normalization(norm: str, chan: int, ndim: int) -> nn.Module:
    """A layer that normalizes over batches, or over groups of the channels of an image."""
    if norm == "batch":
        return BATCH_NORM[ndim](chan)
    return nn.GroupNorm(gcd(chan, MOST_GROUPS), chan)
