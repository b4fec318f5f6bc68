"""UpsampledUNet: a U-Net on the grid of the input, then stages that refine it."""

from math import ceil, floor
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError, near_names
from map2map.footprints import Footprint
from map2map.models.conv import (
    BLOCK_SLOPE,
    CONV,
    TRANSPOSED,
    ConvBlock,
    Resampler,
    adds_narrowed,
    check_ndim,
)
from map2map.models.levels import adds_input, v_blocks, v_footprint, v_forward
from map2map.models.styled import Modulation, Styled, check_style, make_styled, through
from map2map.noise import Noise

__all__ = ["UpsampledUNet"]

Upsampling = Literal["subpixel", "linear"]

FEWEST = 8
"""Channels that stages keep at least, unless the U-Net has fewer."""


class UpsampledUNet(Styled):
    """A U-Net of valid convolutions, which sees far at little cost, then finer and finer cells.

    The prime factors of ``scale_factor`` are the stages, the largest first: of each, cells are
    divided, and valid convolutions of width 3 follow. A stage has half the channels of the one
    before it. No value is made up: the output is smaller than ``scale_factor`` times the input.

    With ``noise_chan`` it is a generator: random numbers are given beside the input, and beside
    what each stage has divided. It then draws another field each time; from a seed, and the same
    for any tiles, when it is applied. A loss that compares one draw with the truth teaches it to
    ignore them; `map2map.losses.EnergyScore` does not.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        scale_factor: Output cells per input cell and axis; any number from 2.
        width: Channels of the U-Net.
        depth: Number of times that the U-Net doubles its cells in size.
        upsampling: How cells are divided: "subpixel", by weights of their own for each of the finer
            cells (a transposed convolution whose step is its width), or "linear", by interpolation.
        convs: Convolutions after each.
        noise_chan: Random numbers per cell, on each grid.
        bypass: Whether the linearly interpolated input is added to the output, so that the network
            learns a correction; if not given: wherever there are as many channels.
        batch_norm: Whether the U-Net normalizes with the statistics of batches.
        style_chan: Numbers of the style of a sample, which acts on all convolutions; 0: none.
        modulation: How it acts: on their "weights", as in the published emulators, or on what comes
            out of them ("film"), see `map2map.models.styled.StyledConv`.

    Raises:
        RecipeError: If ``bypass`` is asked for with unequal channels, or an argument is too small.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        scale_factor: int = 2,
        width: int = 32,
        depth: int = 1,
        upsampling: Upsampling = "subpixel",
        convs: int = 2,
        noise_chan: int = 0,
        bypass: bool | None = None,
        batch_norm: bool = False,
        style_chan: int = 0,
        modulation: Modulation = "weights",
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        if upsampling not in get_args(Upsampling):
            raise RecipeError(
                f"unknown `upsampling` {upsampling!r}{near_names(upsampling, get_args(Upsampling))}"
            )
        if scale_factor < 2 or convs < 1 or noise_chan < 0:
            raise RecipeError(
                f"`scale_factor` ({scale_factor}) must be at least 2, `convs` ({convs}) at least "
                f"1, and `noise_chan` ({noise_chan}) at least 0"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor, self.width, self.depth = scale_factor, width, depth
        self.upsampling, self.convs, self.noise_chan = upsampling, convs, noise_chan
        self.bypass, self.batch_norm = bypass, batch_norm
        self.style_chan, self.modulation = style_chan, modulation
        self.adds_input = adds_input(bypass, (in_chan, out_chan))
        self.noise = Noise(channels=noise_chan) if noise_chan else None
        self.unet = nn.ModuleDict(
            dict(
                v_blocks(
                    ConvBlock,
                    (in_chan + noise_chan, width),
                    ndim=ndim,
                    width=width,
                    depth=depth,
                    batch_norm=batch_norm,
                )
            )
        )
        self.stages = nn.ModuleList()
        scale, cut, chan = 1, v_footprint(depth).cut, width
        for factor in primes(scale_factor):
            scale, cut = scale * factor, cut * factor
            if upsampling == "linear":
                cut += drops(factor)
            out = max(chan // 2, min(chan, FEWEST))
            noise = Noise(scale, cut, len(self.stages) + 1, noise_chan) if noise_chan else None
            stage = Stage(ndim, factor, (chan, out), upsampling, convs, noise)
            self.stages.append(stage)
            cut, chan = cut + convs, out
        self.last = CONV[ndim](chan, out_chan, 1)
        self.interpolate = Resampler(ndim, scale_factor)
        self.footprint = upsampled_footprint(scale_factor, depth, convs, upsampling, cut)
        make_styled(self, style_chan, modulation)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *finer space).

        Args:
            x: The input.
            style: (batch, style_chan), if it takes one.

        Raises:
            GeometryError: If the sizes do not fit the levels, or there is no style.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        check_style(self, style, self.style_chan)
        y = x if self.noise is None else torch.cat([x, self.noise(x)], dim=1)
        y = nn.functional.leaky_relu(v_forward(self.unet, y, self.depth, style), BLOCK_SLOPE)
        for stage in self.stages:
            y = stage(y, style)
        y = through(self.last, y, style)
        if not self.adds_input:
            return y
        cut = self.footprint.cut - drops(self.scale_factor)
        return adds_narrowed(y, self.interpolate(x), cut)


class Stage(nn.Module):
    """Divide cells, then convolve the finer ones.

    Args:
        ndim: Number of axes.
        factor: Finer cells per cell and axis.
        chans: Channels before and after.
        upsampling: How cells are divided.
        convs: Number of convolutions.
        noise: Random numbers that are given beside what was divided, if any.
    """

    def __init__(
        self,
        ndim: int,
        factor: int,
        chans: tuple[int, int],
        upsampling: Upsampling,
        convs: int,
        noise: Noise | None,
    ) -> None:
        super().__init__()
        chan, out = chans
        self.up: nn.Module
        if upsampling == "subpixel":
            self.up = TRANSPOSED[ndim](chan, out, factor, stride=factor)
        else:
            self.up = nn.Sequential(CONV[ndim](chan, out, 1), Resampler(ndim, factor))
        self.act, self.noise = nn.LeakyReLU(BLOCK_SLOPE), noise
        more = 0 if noise is None else noise.channels
        self.block = ConvBlock(out + more, out, out, seq="CA" * convs, ndim=ndim)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map (batch, chan, *space) to (batch, out, *finer space)."""
        y: Tensor = self.act(through(self.up, x, style))
        if self.noise is not None:
            y = torch.cat([y, self.noise(y)], dim=1)
        out: Tensor = self.block(y, style)
        return out


def upsampled_footprint(
    factor: int, depth: int, convs: int, upsampling: Upsampling, cut: int
) -> Footprint:
    """What a block of outputs sees, followed back through the layers.

    Args:
        factor: Output cells per input cell.
        depth: Of the U-Net.
        convs: After each stage.
        upsampling: Of the stages.
        cut: Outputs that are missing on each side.
    """
    low = v_footprint(depth)
    first, last = 0, factor * low.multiple - 1
    for step in reversed(primes(factor)):
        first, last = first - convs, last + convs
        if upsampling == "linear":
            # a cell's center lies between those of two coarser cells
            first = floor((first + 0.5) / step - 0.5)
            last = floor((last + 0.5) / step - 0.5) + 1
        else:
            first, last = first // step, last // step
    least = ceil(cut / factor)
    for margin in (least, None):
        # where a block of the U-Net's outputs starts, if so many cells are read below
        start = 0 if margin is None else (low.margin - margin) % low.multiple
        below, above = (
            start + low.multiple * ((cell - start) // low.multiple) for cell in (first, last)
        )
        reach = max(low.margin - below, above + low.margin)
        if margin is None or reach <= margin:
            break
    return Footprint(reach, low.multiple, factor, cut, low.remainder)


def drops(factor: int) -> int:
    """Cells per side that `Resampler` cuts off."""
    return max(factor // 2, 1)


def primes(factor: int) -> list[int]:
    """The prime factors of a number from 2, the largest first.

    >>> primes(12)
    [3, 2, 2]
    """
    found, divisor = [], 2
    while factor > 1:
        if factor % divisor:
            divisor += 1
        else:
            found.append(divisor)
            factor //= divisor
    return found[::-1]
