"""DoubleConvUNet: the U-Net of AI4SIM's flames, on 1, 2 or 3 axes."""

from torch import Tensor, nn

from map2map.models.double_conv import u_blocks, u_footprint, u_forward

__all__ = ["DoubleConvUNet"]


class DoubleConvUNet(nn.Module):
    """Pairs of convolutions with batch normalization, down to wide cells, and up again.

    Channels double from level to level, cells are pooled by their maximum. The output has as many
    cells as the input, which can be any number from 2^(levels - 1) on: zeros are made up beyond the
    edges, in front of every convolution and for a cell that pooling left over. When it is applied,
    batch normalization is a fixed factor and shift, so tiles are exact that start at multiples of
    2^(levels - 1). With ``head: false`` it is the network of AI4SIM's model collection, and loads
    its weights.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the first level.
        levels: Number of sizes of cells.
        upsample: "transposed": convolutions of width and step 2; "linear": linear interpolation
            along every axis and a convolution of width 1, which has fewer weights.
        head: True: the last pair of convolutions keeps ``width`` channels, and a convolution of
            width 1 makes the outputs of them, which can be any numbers. False: the last pair gives
            the outputs; behind their ReLU they cannot be negative.
        residual: Whether the input of a pair is added in front of its last ReLU.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 32,
        levels: int = 3,
        upsample: str = "transposed",
        head: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.levels, self.upsample = width, levels, upsample
        blocks = u_blocks(
            (in_chan, out_chan),
            ndim=ndim,
            width=width,
            levels=levels,
            upsample=upsample,
            head=head,
            residual=residual,
        )
        for name, block in blocks:
            self.add_module(name, block)
        self.head, self.residual = head, residual
        self.footprint = u_footprint(levels, upsample)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes or too few cells, or too few to train on.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        return u_forward(self, x)
