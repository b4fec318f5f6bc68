"""UFNO: a Fourier neural operator with small U-Nets beside its later layers (Wen et al. 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import CONV
from map2map.models.operators import BoxOperator, Positions, check_positive

__all__ = ["UFNO"]


class UFNO(BoxOperator):
    """An `FNO` whose later layers have a small U-Net beside the spectral convolution.

    The U-Net sees a few cells around each, and so what the modes leave out: edges, fronts, wells.
    It counts cells, not shares of the domain, so that fields on a finer grid than that of the
    training are less like what it has learnt than with an `FNO`. Fields have more than 2^``levels``
    cells on every axis.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers.
        unet_depth: How many of them, the last ones, have a U-Net.
        levels: Of a U-Net: how often its cells become twice as wide.
        padding: What is added to a domain that is not periodic: a share of it, or cells.
        positions: Whether it is told where cells are, ``cells`` or ``nodes``.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 32,
        modes: int | list[int] = 12,
        depth: int = 4,
        unet_depth: int = 2,
        levels: int = 2,
        padding: float = 0.0,
        positions: Positions = "none",
    ) -> None:
        super().__init__(
            in_chan,
            out_chan,
            ndim=ndim,
            width=width,
            modes=modes,
            depth=depth,
            padding=padding,
            positions=positions,
        )
        check_positive(levels=levels)
        if not 0 <= unet_depth <= depth:
            raise RecipeError(
                f"`unet_depth` is {unet_depth}, but must be from 0 to the `depth`, {depth}"
            )
        self.unet_depth, self.levels = unet_depth, levels
        self.unets = nn.ModuleList(Branch(width, levels, ndim) for _ in range(unet_depth))
        if unet_depth:
            # two of the widest cells at least, so that there is something around each
            least = 2**levels + 1
            self.footprint = Footprint(0, minimum=least, whole=self.footprint.whole)

    def layer(self, i: int, x: Tensor, turns: list[Tensor]) -> Tensor:
        """One of the layers, before GELU; ``turns`` are the matrices of its axes."""
        y, unet = super().layer(i, x, turns), i - (self.depth - self.unet_depth)
        return y if unet < 0 else y + self.unets[unet](x)


class Branch(nn.Module):
    """A small U-Net that keeps the cells, of any number, and pads with zeros.

    Args:
        chan: Channels, the same on all levels.
        levels: How often cells become twice as wide.
        ndim: Number of axes.
    """

    def __init__(self, chan: int, levels: int, ndim: int) -> None:
        super().__init__()
        self.ndim = ndim
        self.down = nn.ModuleList(
            CONV[ndim](chan, chan, 3, stride=2, padding=1) for _ in range(levels)
        )
        self.up = nn.ModuleList(CONV[ndim](2 * chan, chan, 3, padding=1) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, chan, *space) to the same shape."""
        skips = []
        for conv in self.down:
            skips.append(x)
            x = F.gelu(conv(x))
        for i, conv in enumerate(self.up):
            beside = skips[-1 - i]
            x = conv(torch.cat([doubled_to(x, beside), beside], dim=1))
            if i + 1 < len(self.up):
                x = F.gelu(x)
        return x


def doubled_to(x: Tensor, like: Tensor) -> Tensor:
    """Every cell of (batch, channel, *space) twice on each axis, the last one left out if odd."""
    for axis in range(2, x.ndim):
        # by their numbers, so that a graph for all sizes knows how many come out
        cells = torch.arange(like.shape[axis], device=x.device)
        x = x.index_select(axis, cells.div(2, rounding_mode="floor"))
    return x
