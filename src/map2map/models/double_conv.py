"""A U-Net of pairs of convolutions with batch normalization: what its two models share.

Like conv.py, vocabulary that models may import. The network is that of AI4SIM's flames and
radiation columns. Cells are pooled in pairs from the low side; what an odd number leaves over is
not pooled, and zeros stand for it when the levels are put together again. So any size fits, from
one cell of the last level on, and zeros are made up at edges alone.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit._trace import is_tracing

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import BATCH_NORM, CONV, LINEAR_MODE, TRANSPOSED, check_ndim
from map2map.models.halved import HalvedConv3d
from map2map.models.reducing import check_batch

__all__ = ["UPSAMPLE", "DoubleConv", "u_blocks", "u_footprint", "u_forward"]

UPSAMPLE = "transposed", "linear"


class DoubleConv(nn.Module):
    """Twice a convolution of width 3 that pads, batch normalization and ReLU; never negative.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        ndim: Number of axes.
        residual: Whether the input, brought to the channels of the output by a convolution of width
            1 without bias, is added in front of the last ReLU.
    """

    def __init__(self, before: int, after: int, ndim: int, *, residual: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            wide_conv(before, after, ndim),
            BATCH_NORM[ndim](after),
            nn.ReLU(inplace=True),
            wide_conv(after, after, ndim),
            BATCH_NORM[ndim](after),
        )
        self.skip = CONV[ndim](before, after, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, before, *space) to (batch, after, *space)."""
        y: Tensor = self.layers(x)
        return F.relu(y, inplace=True) if self.skip is None else F.relu(y + self.skip(x))


def wide_conv(before: int, after: int, ndim: int) -> nn.Module:
    """A convolution of width 3 that keeps the number of cells."""
    return HalvedConv3d(before, after) if ndim == 3 else CONV[ndim](before, after, 3, padding=1)


class Grow(nn.Module):
    """Cells half as wide by linear interpolation, and half the channels.

    Interpolation and a convolution of width 1 can be exchanged; this order has less to compute.

    Args:
        chan: Channels of the input.
        ndim: Number of axes.
    """

    def __init__(self, chan: int, ndim: int) -> None:
        super().__init__()
        self.conv, self.mode = CONV[ndim](chan, chan // 2, 1), LINEAR_MODE[ndim]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, chan, *space) to (batch, chan / 2, *twice)."""
        # sizes rather than a factor, which graphs for all sizes would take through floating point
        twice = [2 * n for n in x.shape[2:]]
        return F.interpolate(self.conv(x), twice, mode=self.mode, align_corners=False)


def u_blocks(
    chans: tuple[int, int],
    *,
    ndim: int,
    width: int,
    levels: int,
    upsample: str,
    head: bool,
    residual: bool,
) -> Iterator[tuple[str, nn.Module]]:
    """Names and blocks in the order in which they act.

    Args:
        chans: Channels of the input and of the output.
        ndim: Number of axes.
        width: Channels of the first level; every level has twice as many.
        levels: Number of sizes of cells.
        upsample: "transposed" or "linear".
        head: Whether the last pair of convolutions keeps the width, and one of width 1 follows.
        residual: Of the `DoubleConv`.

    Raises:
        RecipeError: If an argument is out of range.
    """
    check_ndim(ndim)
    for name, value in (("width", width), ("levels", levels)):
        if value < 1:
            raise RecipeError(f"`{name}` is {value}, but must be at least 1")
    if upsample not in UPSAMPLE:
        raise RecipeError(f"`upsample` is {upsample!r}, but must be {' or '.join(UPSAMPLE)}")

    def pair(before: int, after: int) -> DoubleConv:
        return DoubleConv(before, after, ndim, residual=residual)

    def grow(chan: int) -> nn.Module:
        if upsample == "linear":
            return Grow(chan, ndim)
        return TRANSPOSED[ndim](chan, chan // 2, 2, stride=2)

    widths = [width * 2**level for level in range(levels)]
    yield (
        "down",
        nn.ModuleList(
            pair(before, after) for before, after in zip([chans[0], *widths], widths, strict=False)
        ),
    )
    yield "grow", nn.ModuleList(grow(chan) for chan in reversed(widths[1:]))
    yield "up", nn.ModuleList(pair(chan, chan // 2) for chan in reversed(widths[1:]))
    yield "last", pair(width, width if head else chans[1])
    yield "output", CONV[ndim](width, chans[1], 1) if head else nn.Identity()


def u_forward(model: nn.Module, x: Tensor) -> Tensor:
    """Run the blocks that lie under their names in ``model`` on (batch, channel, *space).

    Raises:
        GeometryError: If the batch is too small to train on.
    """
    blocks = dict(model.named_children())
    downs, grows, ups = (list(blocks[key].children()) for key in ("down", "grow", "up"))
    step = 2 ** len(grows)
    if model.training:
        check_batch(model, x.shape[0], prod(n // step for n in x.shape[2:]))
    skips: list[Tensor] = []
    for down in downs:
        x = down(halved(x) if skips else x)
        skips.append(x)
    skips.pop()
    for grow, up in zip(grows, ups, strict=True):
        skip = skips.pop()
        x = up(torch.cat([skip, filled(grow(x), skip.shape[2:])], dim=1))
    y: Tensor = blocks["output"](blocks["last"](x))
    return y


def halved(x: Tensor) -> Tensor:
    """The maxima of 2^ndim cells each; the last of an odd number is left out."""
    if x.ndim == 3:
        # pooling on one axis is traced for one size only
        return F.max_pool2d(x[..., None], (2, 1))[..., 0]
    return F.max_pool2d(x, 2) if x.ndim == 4 else F.max_pool3d(x, 2)


def filled(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Put zeros around (batch, channel, *space) up to these sizes, an odd one on the high side."""
    missing = [n - m for n, m in zip(sizes, x.shape[2:], strict=True)]
    # a graph that is traced for all sizes must not look at the numbers
    if not is_tracing() and not any(missing):  # type: ignore[no-untyped-call]
        return x
    # the last axis comes first
    return F.pad(x, [cells for n in reversed(missing) for cells in (n // 2, n - n // 2)])


def u_footprint(levels: int, upsample: str) -> Footprint:
    """What a block of outputs depends on, followed back through the levels."""
    cells = 2 ** (levels - 1)
    # the last pair of convolutions
    low, high = seen(levels, -2, cells + 1, wide=int(upsample == "linear"))
    return Footprint(margin=max(-low, high - cells + 1), multiple=cells, cut=0, ragged=True)


def seen(levels: int, low: int, high: int, wide: int) -> tuple[int, int]:
    """The first and last cell of a level's input that its cells from low to high depend on.

    Args:
        levels: Sizes of cells from this one on.
        low: First cell of the level's output.
        high: Last cell.
        wide: 1 if a cell depends on two of the next level, those nearest to it; 0 if on its own.
    """
    low, high = low - 2, high + 2
    if levels == 1:
        return low, high
    # even cells lie in the lower half of those of the next level, odd ones in the upper half
    first, last = seen(levels - 1, (low - wide) // 2, (high + wide) // 2, wide)
    # the pooled cells, and those beside which the way up is put
    return min(2 * first, low) - 2, max(2 * last + 1, high) + 2
