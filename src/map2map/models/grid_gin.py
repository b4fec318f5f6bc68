"""GridGIN: sums over neighbors on a grid, after AI4sim's GIN."""

from torch import Tensor

from map2map.models.graph_nets import GraphNetwork, torch_geometric_nn

__all__ = ["GridGIN"]


class GridGIN(GraphNetwork):
    """``depth`` layers, each two linear layers that act on the sum of a cell and its neighbors.

    The last layer gives the output. Xu et al. (2019), torch_geometric's ``GIN``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of layers.
        dropout: Share of the values behind each layer but the last that training sets to zero.

    Raises:
        RecipeError: If an argument is out of range, or torch_geometric is missing.
    """

    loops = False

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 32,
        depth: int = 4,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout)
        self.model = torch_geometric_nn().GIN(
            in_chan, width, depth, out_chan, dropout=dropout, act="silu"
        )

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:  # noqa: ARG002
        """Run the network, see `GraphNetwork.compute`."""
        y: Tensor = self.model(x, edges)
        return y
