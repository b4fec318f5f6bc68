"""ColumnCNN: convolutions along the levels of a column, after AI4SIM's for gravity-wave drag."""

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
)

__all__ = ["ColumnCNN"]


class ColumnCNN(nn.Module):
    """Two convolutions along the levels, each with ReLU and pooling, and two linear layers.

    Profiles are the channels of the convolutions, scalars are repeated on all levels; nothing is
    made up at the ends, and what pooling leaves over at the bottom is not seen. Every cell of the
    grid is by itself. With three profiles of 63 levels, two scalars and 126 outputs it is the
    network of AI4SIM's model collection, and loads its weights.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output, whatever they are.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        inputs: What the channels of the input are, in their order; if not given, one profile.
        width: Channels of the first convolution; the second has twice as many.
        kernel_size: Their width in levels.
        pool: Levels that are pooled together behind each.

    Raises:
        RecipeError: If an argument is out of range, profiles do not fit together, or too few levels
            are left for a convolution or for pooling.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 1,
        inputs: list[Profile] | None = None,
        width: int = 16,
        kernel_size: int = 1,
        pool: int = 2,
    ) -> None:
        super().__init__()
        check_columns(ndim, width=width, kernel_size=kernel_size, pool=pool)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.inputs = profiles_of(inputs, in_chan, "inputs")
        self.width, self.kernel_size, self.pool = width, kernel_size, pool
        self.profile_levels = common_levels(self.inputs)
        features = sum(profile.features for profile in self.inputs)
        self.layers = nn.Sequential(
            nn.Conv1d(features, width, kernel_size),
            nn.ReLU(),
            nn.MaxPool1d(pool),
            nn.Conv1d(width, 2 * width, kernel_size),
            nn.ReLU(),
            nn.MaxPool1d(pool),
            nn.Flatten(),
            nn.Linear(2 * width * self._levels_left(), out_chan),
            nn.Linear(out_chan, out_chan),
        )
        self.footprint = POINT

    def _levels_left(self) -> int:
        """Levels behind the second pooling.

        Raises:
            RecipeError: If there are none.
        """
        kernel, pool = self.kernel_size, self.pool
        left = ((self.profile_levels - kernel + 1) // pool - kernel + 1) // pool
        if left < 1:
            # followed back from one level
            least = (pool + kernel - 1) * pool + kernel - 1
            raise RecipeError(
                f"columns of {self.profile_levels} levels are too few for twice a convolution of "
                f"`kernel_size` {kernel} and a `pool` of {pool}, which need at least {least}; "
                f"make them smaller"
            )
        return left

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        return from_rows(self.layers(stack(to_rows(x), self.inputs, self.profile_levels)), x)
