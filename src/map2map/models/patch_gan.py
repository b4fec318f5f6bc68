"""PatchGAN: discriminators whose scores are of patches, after map2map's (Isola et al. 2017)."""

from torch import Tensor, nn

from map2map.errors import GeometryError
from map2map.footprints import Footprint
from map2map.models.activations import SLOPE
from map2map.models.conv import BATCH_NORM, CONV, ConvBlock, check_axes, check_ndim

__all__ = ["PatchGAN", "PatchGAN42"]

PATCH, STRIDES = 22, 3
"""Cells that a score of PatchGAN42 sees on an axis, and how often it halves them."""


class PatchGAN(nn.Module):
    """Four valid convolutions of width 3: a score for every patch of 9 cells.

    There are 8 cells fewer per axis than in the input. The network is map2map's, whose states it
    loads.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output; 1 for a discriminator.
        ndim: Number of axes.
    """

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 3) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.convs = nn.Sequential(
            ConvBlock(in_chan, 32, seq="CA", ndim=ndim),
            ConvBlock(32, 64, seq="CBA", ndim=ndim),
            ConvBlock(64, 128, seq="CBA", ndim=ndim),
            ConvBlock(128, out_chan, seq="C", ndim=ndim),
        )
        self.footprint = Footprint(margin=4, ring=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space less 8 cells per axis).

        Raises:
            GeometryError: If there are too few cells.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        y: Tensor = self.convs(x)
        return y


class PatchGAN42(nn.Module):
    """Three convolutions of width 4 and step 2, one of width 1: a score for patches of 22 cells.

    Patches are 8 cells apart, so there are fewer scores than cells, which makes it a discriminator
    and no model of an emulator: n cells become ``(n - 4) // 2 + 1``, three times. The network is
    map2map's, whose states it loads.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output; 1 for a discriminator.
        ndim: Number of axes.
    """

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 3) -> None:
        super().__init__()
        check_ndim(ndim)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        conv, norm = CONV[ndim], BATCH_NORM[ndim]
        self.convs = nn.Sequential(
            conv(in_chan, 64, 4, stride=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            conv(64, 128, 4, stride=2),
            norm(128),
            nn.LeakyReLU(SLOPE, inplace=True),
            conv(128, 256, 4, stride=2),
            norm(256),
            nn.LeakyReLU(SLOPE, inplace=True),
            conv(256, out_chan, 1),
        )

    def scores(self, size: int) -> int:
        """Scores along an axis of so many cells."""
        for _ in range(STRIDES):
            size = (size - 4) // 2 + 1
        return max(size, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *patches).

        Raises:
            GeometryError: If there are too few cells, other channels or axes.
        """
        check_axes(x, self.in_chan, self.ndim, "PatchGAN42")
        if min(map(self.scores, x.shape[2:])) < 1:
            raise GeometryError(
                f"PatchGAN42 cannot take {tuple(x.shape[2:])} cells: its patches are of {PATCH} "
                f"cells per axis"
            )
        y: Tensor = self.convs(x)
        return y
