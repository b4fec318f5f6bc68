"""GridGCN: graph convolutions on a grid, after AI4sim's GCN."""

from torch import Tensor

from map2map.footprints import Footprint
from map2map.models.graph_nets import (
    GraphNetwork,
    check_jump,
    symmetric_weights,
    torch_geometric_nn,
)

__all__ = ["GridGCN"]


class GridGCN(GraphNetwork):
    """``depth`` graph convolutions, and a linear layer behind them.

    A convolution is the mean of a cell and its neighbors, weighted by 1 / sqrt of how many both
    have, and one matrix for all. Kipf and Welling (2017), torch_geometric's ``GCN``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of convolutions.
        dropout: Share of the values behind each activation that training sets to zero.
        jk: What the linear layer gets: the features of the "last" convolution; those of all side by
            side, "cat"; their "max"; or their mean with weights from an "lstm".

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
        dropout: float = 0.5,
        jk: str = "last",
    ) -> None:
        super().__init__(in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout)
        check_jump(jk)
        self.jk = jk
        self.model = torch_geometric_nn().GCN(
            in_chan, width, depth, out_chan, dropout=dropout, act="silu", jk=jk, normalize=False
        )
        # one more than values are seen from: the outermost of them are weighted by the number of
        # their neighbors, which is smaller at the edge of what is read
        self.footprint = Footprint(margin=depth + 1, cut=0)

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:  # noqa: ARG002
        """Run the network, see `GraphNetwork.compute`."""
        weights = symmetric_weights(edges, len(x), x.dtype)
        y: Tensor = self.model(x, edges, edge_weight=weights)
        return y
