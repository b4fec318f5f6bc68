"""StyledVNet: the V-Net of the published emulators of structure, with a style and without norms."""

import torch
from torch import Tensor

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import ConvBlock, ResBlock, narrow_like
from map2map.models.levels import adds_input
from map2map.models.styled import Modulation, Styled, check_style, make_styled

__all__ = ["StyledVNet"]


class StyledVNet(Styled):
    """Residual blocks, two of them at full resolution, whose convolutions a style acts on.

    No value is made up: the output is smaller than the input by 6·2^depth cells per side. With the
    defaults, 3 channels in and out and a style of 1 or 2 numbers it has the 3,352,210 or 3,354,776
    parameters of the published emulators of N-body displacements, under the names of their blocks:
    ``conv_l00``, ``conv_l01``, ``down_l0``, ``conv_l1``, …, ``conv_c``, ``up_r2``, ``conv_r2``, …,
    ``conv_r00``, ``conv_r01``; in these ``convs.I`` and ``skip``; in these ``weight``, ``bias``,
    ``style_weight``, ``style_bias``. Of a transposed convolution the input channels of ``weight``
    come first, as in PyTorch.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of times that the cells are doubled in size.
        bypass: Whether the input is added to the output, so that the network learns a correction;
            if not given: wherever there are as many channels.
        style_chan: Numbers of the style of a sample; 0: none, an ordinary V-Net.
        modulation: How it acts on convolutions: on their "weights", or on what comes out of them
            ("film"), see `map2map.models.styled.StyledConv`.

    Raises:
        RecipeError: If ``bypass`` is asked for with unequal channels, or an argument is not
            positive.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 64,
        depth: int = 3,
        bypass: bool | None = None,
        style_chan: int = 0,
        modulation: Modulation = "weights",
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise RecipeError(f"`width` ({width}) and `depth` ({depth}) must be at least 1")
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth, self.bypass = width, depth, bypass
        self.style_chan, self.modulation = style_chan, modulation
        self.adds_input = adds_input(bypass, (in_chan, out_chan))
        cells = 2**depth
        self.footprint = Footprint(margin=6 * cells, multiple=cells, ring=0)

        def add(name: str, kind: type[ConvBlock], seq: str, chans: tuple[int, int]) -> None:
            self.add_module(name, kind(*chans, seq=seq, ndim=ndim))

        add("conv_l00", ResBlock, "CACA", (in_chan, width))
        add("conv_l01", ResBlock, "CACA", (width, width))
        for level in range(depth):
            if level:
                add(f"conv_l{level}", ResBlock, "CACA", (width, width))
            add(f"down_l{level}", ConvBlock, "DA", (width, width))
        add("conv_c", ResBlock, "CACA", (width, width))
        for level in reversed(range(depth)):
            add(f"up_r{level}", ConvBlock, "UA", (width, width))
            if level:
                add(f"conv_r{level}", ResBlock, "CACA", (2 * width, width))
        add("conv_r00", ResBlock, "CACA", (2 * width, width))
        add("conv_r01", ResBlock, "CAC", (width, out_chan))
        make_styled(self, style_chan, modulation)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *smaller space).

        Args:
            x: The input.
            style: (batch, style_chan), if it takes one.

        Raises:
            GeometryError: If the sizes do not fit the levels, or there is no style.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        check_style(self, style, self.style_chan)
        blocks = dict(self.named_children())
        y, skips = x, []
        for level in range(self.depth):
            for name in ("conv_l00", "conv_l01") if level == 0 else (f"conv_l{level}",):
                y = blocks[name](y, style)
            skips.append(y)
            y = blocks[f"down_l{level}"](y, style)
        y = blocks["conv_c"](y, style)
        for level in reversed(range(self.depth)):
            y = blocks[f"up_r{level}"](y, style)
            # what the smaller V below has cut off: 4, 16 and 40 cells of the level
            cut = 6 * 2 ** (self.depth - level) - 8
            y = torch.cat([narrow_like(skips.pop(), y, (cut, cut)), y], dim=1)
            for name in ("conv_r00", "conv_r01") if level == 0 else (f"conv_r{level}",):
                y = blocks[name](y, style)
        if not self.adds_input:
            return y
        z: Tensor = y + narrow_like(x, y, (self.footprint.margin,) * 2)
        return z
