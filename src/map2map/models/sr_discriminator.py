"""SRDiscriminator: tells generated finer fields from true ones, as map2map's srsgan.D."""

from torch import Tensor, nn

from map2map.errors import GeometryError
from map2map.models.conv import CONV, Resampler, adds_narrowed, check_axes, check_ndim
from map2map.models.doubling import SLOPE, Channels, doublings

__all__ = ["SRDiscriminator"]


class SRDiscriminator(nn.Module):
    """Residual blocks that each halve the resolution, down to a map of scores.

    For the generator of the same ``scale_factor``: it has as many blocks, with the channels of the
    other's in reverse. No value is made up: n cells become (n - 4) // 2 in each, and each score
    sees a part of the field.

    It loads the states of map2map's, whose weights are called ``block0.0.*``, in block i
    ``blocks.i.{conv.0.*, conv.2.*, skip.*}``, and ``block9.{0.*, 2.*}``.

    Args:
        in_chan: Channels of the field, and of what it is conditioned on.
        out_chan: Scores.
        ndim: Number of axes.
        scale_factor: Of the generator, a power of two.
        chan_base: Channels of the coarsest features; each finer level has half of them,
        chan_min: but not fewer than this
        chan_max: and not more than this.

    Raises:
        RecipeError: If the factor is no power of two, or numbers of channels contradict each other.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int = 1,
        *,
        ndim: int = 3,
        scale_factor: int = 16,
        chan_base: int = 512,
        chan_min: int = 64,
        chan_max: int = 512,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor = scale_factor
        self.chan_base, self.chan_min, self.chan_max = chan_base, chan_min, chan_max
        chan, blocks = Channels(chan_base, chan_min, chan_max), doublings(scale_factor, "PatchGAN")
        conv = CONV[ndim]
        self.block0 = nn.Sequential(conv(in_chan, chan(blocks), 1), nn.LeakyReLU(SLOPE, True))
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(chan(level + 1), chan(level), ndim)
            for level in reversed(range(blocks))
        )
        self.block9 = nn.Sequential(
            conv(chan(0), chan(-1), 1), nn.LeakyReLU(SLOPE, True), conv(chan(-1), out_chan, 1)
        )

    def scores(self, size: int) -> int:
        """Scores along an axis of so many cells."""
        for _ in self.blocks:
            size = (size - 4) // 2
        return max(size, 0)

    @property
    def minimum(self) -> int:
        """Fewest cells of an axis."""
        size = 1
        for _ in self.blocks:
            size = 2 * size + 4
        return size

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to scores, (batch, out_chan, *coarser space).

        Raises:
            GeometryError: If there are too few cells, other channels or axes.
        """
        check_axes(x, self.in_chan, self.ndim, "SRDiscriminator")
        if min(x.shape[2:]) < self.minimum:
            raise GeometryError(
                f"SRDiscriminator cannot take {tuple(x.shape[2:])} cells: {len(self.blocks)} "
                f"blocks, each of which leaves (n - 4) // 2 of n, need {self.minimum} or more per "
                f"axis; enlarge the crop"
            )
        y: Tensor = self.block0(x)
        for block in self.blocks:
            y = block(y)
        scores: Tensor = self.block9(y)
        return scores


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a shortcut; then cells twice as wide.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        ndim: Number of axes.
    """

    def __init__(self, before: int, after: int, ndim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            CONV[ndim](before, before, 3),
            nn.LeakyReLU(SLOPE, True),
            CONV[ndim](before, after, 3),
            nn.LeakyReLU(SLOPE, True),
        )
        self.skip = CONV[ndim](before, after, 1)
        self.downsample = Resampler(ndim, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, before, *space) to (batch, after, *half of it)."""
        y: Tensor = self.downsample(adds_narrowed(self.conv(x), self.skip(x), 2))
        return y
