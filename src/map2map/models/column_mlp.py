"""ColumnMLP: linear layers over all that a column holds, after AI4SIM's for gravity-wave drag."""

from itertools import pairwise

from torch import Tensor, nn

from map2map.models.columns import POINT, check_columns, from_rows, to_rows

__all__ = ["ColumnMLP"]


class ColumnMLP(nn.Module):
    """``depth`` linear layers with SiLU behind them, and one more; every cell by itself.

    Levels and scalars of a column are its channels, and every one may depend on every other. With
    the defaults it is the network of AI4SIM's model collection, and loads its weights.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        width: Numbers between the layers.
        depth: Layers before the last one.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(
        self, in_chan: int, out_chan: int, *, ndim: int = 1, width: int = 256, depth: int = 3
    ) -> None:
        super().__init__()
        check_columns(ndim, width=width, depth=depth)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth = width, depth
        self.layers = nn.Sequential()
        for before, after in pairwise([in_chan, *[width] * depth]):
            self.layers.extend([nn.Linear(before, after), nn.SiLU()])
        self.layers.append(nn.Linear(width, out_chan))
        self.footprint = POINT

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        return from_rows(self.layers(to_rows(x)), x)
