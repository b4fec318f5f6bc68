"""GridGAT: graph attention on a grid, after AI4sim's GAT."""

from torch import Tensor

from map2map.errors import RecipeError
from map2map.models.graph_nets import GraphNetwork, check_jump, torch_geometric_nn

__all__ = ["GridGAT"]


class GridGAT(GraphNetwork):
    """``depth`` layers of attention to neighbors, and a linear layer behind them.

    A layer is a mean over a cell and its neighbors, whose weights depend on the features of both.
    Veličković et al. (2018), torch_geometric's ``GAT``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside, of all heads together.
        depth: Number of layers.
        heads: Means per layer, each with weights of its own.
        dropout: Share of the values behind each activation, and of the weights of neighbors, that
            training sets to zero.
        jk: What the linear layer gets: the features of the "last" layer; those of all side by side,
            "cat"; their "max"; or their mean with weights from an "lstm".

    Raises:
        RecipeError: If an argument is out of range, or torch_geometric is missing.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        width: int = 32,
        depth: int = 4,
        heads: int = 8,
        dropout: float = 0.5,
        jk: str = "last",
    ) -> None:
        super().__init__(in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout)
        check_jump(jk)
        if heads < 1 or width % heads:
            raise RecipeError(
                f"`width` is {width} and `heads` is {heads}, but the heads share the channels: "
                f"`width` must be a multiple of `heads`"
            )
        self.heads, self.jk = heads, jk
        self.model = torch_geometric_nn().GAT(
            in_chan,
            width,
            depth,
            out_chan,
            dropout=dropout,
            act="silu",
            jk=jk,
            heads=heads,
            add_self_loops=False,
        )

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:  # noqa: ARG002
        """Run the network, see `GraphNetwork.compute`."""
        y: Tensor = self.model(x, edges)
        return y
