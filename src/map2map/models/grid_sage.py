"""GridSAGE: means over neighbors beside the cell itself, on grids and meshes."""

from torch import Tensor

from map2map.footprints import Footprint
from map2map.models.graph_nets import GraphNetwork, check_jump, torch_geometric_nn

__all__ = ["GridSAGE"]


class GridSAGE(GraphNetwork):
    """``depth`` layers, each one matrix for a cell and one for the mean of its neighbors.

    How many neighbors there are does not change the size of what comes out, so that it learns
    quickly where that differs from node to node, as on meshes. Hamilton et al. (2017),
    torch_geometric's ``GraphSAGE``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of layers.
        dropout: Share of the values behind each activation that training sets to zero.
        jk: What a linear layer behind them gets: the features of the "last" layer; those of all
            side by side, "cat"; their "max"; or their mean with weights from an "lstm".

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
        jk: str = "last",
    ) -> None:
        super().__init__(in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout)
        check_jump(jk)
        self.jk = jk
        self.model = torch_geometric_nn().GraphSAGE(
            in_chan, width, depth, out_chan, dropout=dropout, act="silu", jk=jk
        )
        self.footprint = Footprint(margin=depth, cut=0)

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:  # noqa: ARG002
        """Run the network, see `GraphNetwork.compute`."""
        y: Tensor = self.model(x, edges)
        return y
