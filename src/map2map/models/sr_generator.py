"""SRGenerator: a generator of finer fields after StyleGAN2, as map2map's srsgan.G."""

import torch
from torch import Tensor, nn

from map2map.footprints import Footprint
from map2map.models.conv import CONV, Resampler, adds_narrowed, check_ndim
from map2map.models.doubling import SLOPE, Channels, doublings
from map2map.models.styled import Modulation, Styled, check_style, make_styled, through
from map2map.noise import Noise

__all__ = ["SRGenerator"]


class SRGenerator(Styled):
    """Blocks that each double the resolution, draw random numbers and add to an output.

    The output starts as the input. Each block interpolates it linearly and adds what it makes of
    its features, without any value being made up: n cells become 2n - 6. Features get random
    numbers twice per block, before they are interpolated and between two convolutions, times a
    learnt deviation for each channel that is 0 at first. When it is applied, the numbers are those
    of a seed, the same for any tiles.

    It loads the states of map2map's generator, whose weights are called
    ``block0.0.*`` and, in block i, ``blocks.i.conv.{0.std, 2.*, 4.std, 5.*}`` and
    ``blocks.i.proj.0.*``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output. If they are others, the input passes a convolution of
            width 1 (``skip.*``) before it becomes the first output.
        ndim: Number of axes.
        scale_factor: Output cells per input cell and axis, a power of two.
        chan_base: Channels of the features of the input; each block has half of those before it,
        chan_min: but not fewer than this
        chan_max: and not more than this.
        cat_noise: Whether random numbers are one more channel of a convolution's input, instead of
            being added.
        noise: Whether there are any.
        style_chan: Numbers of the style of a sample, which acts on all convolutions; 0: none.
        modulation: How it acts: on their "weights", as in the published emulators, or on what comes
            out of them ("film"), see `map2map.models.styled.StyledConv`.

    Raises:
        RecipeError: If the factor is no power of two, or numbers of channels contradict each other.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        scale_factor: int = 16,
        chan_base: int = 512,
        chan_min: int = 64,
        chan_max: int = 512,
        cat_noise: bool = False,
        noise: bool = True,
        style_chan: int = 0,
        modulation: Modulation = "weights",
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor, self.cat_noise, self.noise = scale_factor, cat_noise, noise
        self.chan_base, self.chan_min, self.chan_max = chan_base, chan_min, chan_max
        self.style_chan, self.modulation = style_chan, modulation
        chan, blocks = (
            Channels(chan_base, chan_min, chan_max),
            doublings(scale_factor, "UpsampledUNet"),
        )
        self.skip = nn.Identity() if in_chan == out_chan else CONV[ndim](in_chan, out_chan, 1)
        self.block0 = nn.Sequential(CONV[ndim](in_chan, chan(0), 1), nn.LeakyReLU(SLOPE, True))
        self.blocks, cut = nn.ModuleList(), 0
        for level in range(blocks):
            chans = chan(level), chan(level + 1), out_chan
            kind = None if not noise else "cat" if cat_noise else "add"
            self.blocks.append(GeneratorBlock(chans, ndim, level, cut, kind))
            cut = 2 * cut + 3
        self.footprint = generator_footprint(blocks, cut)
        make_styled(self, style_chan, modulation)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *finer space).

        Args:
            x: The input.
            style: (batch, style_chan), if it takes one.

        Raises:
            GeometryError: If there are too few cells, or there is no style.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        check_style(self, style, self.style_chan)
        y = through(self.skip, x, style)
        x = through(self.block0, x, style)
        for block in self.blocks:
            x, y = block(x, y, style)
        return y


class GeneratorBlock(nn.Module):
    """Doubles the resolution of features and of the output.

    Args:
        chans: Channels of the features before and after, and of the output.
        ndim: Number of axes.
        level: How often the resolution was doubled before.
        cut: Cells that were cut off each side before.
        kind: How random numbers come in: "add", "cat" or None.
    """

    def __init__(
        self, chans: tuple[int, int, int], ndim: int, level: int, cut: int, kind: str | None
    ) -> None:
        super().__init__()
        before, after, out = chans
        # interpolating cuts one cell off, and so does a convolution
        first = Noise(2**level, cut, 2 * level)
        second = Noise(2 ** (level + 1), 2 * cut + 2, 2 * level + 1)
        more = int(kind == "cat")
        self.upsample = Resampler(ndim, 2)
        self.conv = nn.Sequential(
            with_noise(kind, first, before),
            self.upsample,
            CONV[ndim](before + more, after, 3),
            nn.LeakyReLU(SLOPE, True),
            with_noise(kind, second, after),
            CONV[ndim](after + more, after, 3),
            nn.LeakyReLU(SLOPE, True),
        )
        self.proj = nn.Sequential(CONV[ndim](after, out, 1), nn.LeakyReLU(SLOPE, True))

    def forward(self, x: Tensor, y: Tensor, style: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, channel, *space) and output of twice the resolution."""
        x = through(self.conv, x, style)
        return x, adds_narrowed(through(self.proj, x, style), self.upsample(y), 2)


def with_noise(kind: str | None, noise: Noise, chan: int) -> nn.Module:
    """The layer that lets random numbers in."""
    if kind is None:
        return nn.Identity()
    return CatNoise(noise) if kind == "cat" else AddNoise(noise, chan)


class AddNoise(nn.Module):
    """Adds random numbers, one per cell, times a learnt deviation per channel.

    Args:
        noise: Draws them.
        chan: Channels.
    """

    def __init__(self, noise: Noise, chan: int) -> None:
        super().__init__()
        self.noise, self.std = noise, nn.Parameter(torch.zeros(chan))

    def forward(self, x: Tensor) -> Tensor:
        """Add to (batch, chan, *space)."""
        drawn: Tensor = self.noise(x)
        return x + self.std.reshape(-1, *(1,) * (x.ndim - 2)) * drawn


class CatNoise(nn.Module):
    """Random numbers, one per cell, as one more channel.

    Args:
        noise: Draws them.
    """

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, *space) to (batch, channel + 1, *space)."""
        return torch.cat([x, self.noise(x)], dim=1)


def generator_footprint(blocks: int, cut: int) -> Footprint:
    """What the outputs of a cell see, followed back through the blocks."""
    first, last = 0, 2**blocks - 1
    for _ in range(blocks):
        # two convolutions; then the two cells between whose centers one lies
        first, last = (first - 3) // 2, (last + 3) // 2
    return Footprint(max(-first, last), scale=2**blocks, cut=cut)
