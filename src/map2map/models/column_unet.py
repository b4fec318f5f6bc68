"""ColumnUNet: a U-Net along the levels of a column, after AI4SIM's for radiation."""

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.models.columns import (
    POINT,
    Profile,
    check_columns,
    common_levels,
    from_rows,
    profiles_of,
    stack,
    to_rows,
    unstack,
)
from map2map.models.double_conv import u_blocks, u_forward

__all__ = ["ColumnUNet"]


class ColumnUNet(nn.Module):
    """The network of `DoubleConvUNet` along the levels of each column; every cell by itself.

    Profiles are its channels, scalars are repeated on all levels. With 47 inputs and 6 outputs on
    138 levels, and ``head: false``, it is the network of AI4SIM's model collection, and loads its
    weights.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        inputs: What the channels of the input are, in their order; if not given, one profile.
        outputs: Likewise of the output.
        width: Channels of the U-Net's first level.
        levels: Number of sizes of cells of the U-Net, along the column.
        upsample: "transposed" or "linear", as of `DoubleConvUNet`.
        head: Whether a convolution of width 1 follows the last ReLU, so that outputs can be
            negative; without it they cannot.
        residual: Whether the input of a pair of convolutions is added in front of its last ReLU.

    Raises:
        RecipeError: If an argument is out of range, profiles do not fit together, or there are too
            few levels.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 1,
        inputs: list[Profile] | None = None,
        outputs: list[Profile] | None = None,
        width: int = 32,
        levels: int = 3,
        upsample: str = "transposed",
        head: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_columns(ndim)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.inputs = profiles_of(inputs, in_chan, "inputs")
        self.outputs = profiles_of(outputs, out_chan, "outputs")
        self.width, self.levels, self.upsample = width, levels, upsample
        self.profile_levels = common_levels(self.inputs, self.outputs)
        chans = [sum(p.features for p in side) for side in (self.inputs, self.outputs)]
        blocks = u_blocks(
            (chans[0], chans[1]),
            ndim=1,
            width=width,
            levels=levels,
            upsample=upsample,
            head=head,
            residual=residual,
        )
        for name, block in blocks:
            self.add_module(name, block)
        self.head, self.residual = head, residual
        if self.profile_levels < 2 ** (levels - 1):
            raise RecipeError(
                f"columns of {self.profile_levels} levels are too few for {levels} sizes of cells, "
                f"which need at least {2 ** (levels - 1)}; set fewer `levels`"
            )
        self.footprint = POINT

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes, or too few columns to train on.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        y = u_forward(self, stack(to_rows(x), self.inputs, self.profile_levels))
        return from_rows(unstack(y, self.outputs), x)
