"""VNet: a U-Net of residual blocks, after map2map's."""

from torch import Tensor

from map2map.models.conv import ResBlock, narrow_like
from map2map.models.levels import adds_input, v_blocks, v_footprint, v_forward
from map2map.models.styled import Modulation, Styled, check_style, make_styled

__all__ = ["VNet"]


class VNet(Styled):
    """A residual block per level, down to cells 2^depth times as wide, and up again.

    No value is made up: the output is smaller than the input by 6·2^depth - 4 cells per side (20
    for the default depth). With the defaults it is map2map's V-Net and loads its states.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of times that the cells are doubled in size.
        bypass: Whether the input is added to the output, so that the network learns a correction;
            if not given: wherever there are as many channels.
        batch_norm: Whether to normalize with the statistics of batches; they are frozen when the
            model is applied.
        style_chan: Numbers of the style of a sample, which acts on all convolutions; 0: none.
        modulation: How it acts: on their "weights", as in the published emulators, or on what comes
            out of them ("film"), see `map2map.models.styled.StyledConv`.

    Raises:
        RecipeError: If ``bypass`` is asked for with unequal channels, or an argument is not
            positive.
    """

    def __init__(  # noqa: PLR0913 - the keys of a recipe
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 64,
        depth: int = 2,
        bypass: bool | None = None,
        batch_norm: bool = True,
        style_chan: int = 0,
        modulation: Modulation = "weights",
    ) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth, self.bypass, self.batch_norm = width, depth, bypass, batch_norm
        self.style_chan, self.modulation = style_chan, modulation
        chans = in_chan, out_chan
        self.adds_input = adds_input(bypass, chans)
        self.footprint = v_footprint(depth)
        for name, block in v_blocks(
            ResBlock, chans, ndim=ndim, width=width, depth=depth, batch_norm=batch_norm
        ):
            self.add_module(name, block)
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
        y = v_forward(self, x, self.depth, style)
        return y + narrow_like(x, y, (self.footprint.margin,) * 2) if self.adds_input else y
