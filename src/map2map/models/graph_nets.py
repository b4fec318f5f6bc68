"""What the models share whose cells are the nodes of a graph: torch_geometric's networks on grids.

Like conv.py, vocabulary that models may import. The networks are torch_geometric's own and keep the
names of its weights, below ``model.``. What follows from the graph alone, edges from nodes to
themselves and the weights of edges, is made once here instead of in every layer.
"""

import warnings
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint
from map2map.grid_graphs import EDGES, union
from map2map.models.conv import check_ndim
from map2map.models.reducing import check_dropout

__all__ = [
    "JUMPS",
    "GraphNetwork",
    "check_jump",
    "symmetric_weights",
    "torch_geometric_nn",
    "torch_geometric_part",
]

JUMPS = "last", "cat", "max", "lstm"
"""How the features of all layers may be put together."""


def torch_geometric_nn() -> ModuleType:
    """The module of torch_geometric's networks, imported when one is made.

    Raises:
        RecipeError: If it is not installed.
    """
    return torch_geometric_part("nn")


def torch_geometric_part(name: str) -> ModuleType:
    """A module of torch_geometric's, imported when it is needed.

    Raises:
        RecipeError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # it calls interfaces of PyTorch that are deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            return import_module(f"torch_geometric.{name}")
    except ImportError as error:
        raise RecipeError(
            f"graph networks need torch_geometric, which cannot be imported ({error}); install "
            f"with: pip install 'map2map[graph]'"
        ) from error


def check_jump(jk: str) -> None:
    """Refuse a way of putting layers together that is none.

    Raises:
        RecipeError: If it is unknown.
    """
    if jk not in JUMPS:
        raise RecipeError(f"`jk` is {jk!r}, but must be one of {', '.join(map(repr, JUMPS))}")


def symmetric_weights(edges: Tensor, nodes: int, dtype: torch.dtype) -> Tensor:
    """The weight of each edge, 1 / sqrt(d_source d_target), d the edges that end at a node.

    Kipf and Welling (2017), below equation 2; edges from each node to itself are to be among them.

    Args:
        edges: Shape (2, edges).
        nodes: How many there are.
        dtype: Of the weights.
    """
    source, target = edges
    one = torch.ones(target.shape, dtype=dtype, device=edges.device)
    degree = torch.zeros(nodes, dtype=dtype, device=edges.device).index_add(0, target, one)
    root = degree.rsqrt()
    return root[source] * root[target]


class GraphNetwork(nn.Module):
    """A network of torch_geometric's on the graph of a grid, or on any graph.

    Each cell is joined to its neighbors along the axes. At the edges of what it is given neighbors
    are missing, which is how a tile at the edge of a field, or a mesh, ends; elsewhere a halo hides
    it.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: Number of layers.
        dropout: Share of the values behind each activation that training sets to zero.

    Attributes:
        loops: Whether the network is given edges from nodes to themselves.
        wraps: Which axes are periodic inside the network.

    Raises:
        RecipeError: If an argument is out of range, or torch_geometric is missing.
    """

    loops = True

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int,
        width: int,
        depth: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        check_dropout(dropout)
        sizes = {"in_chan": in_chan, "out_chan": out_chan, "width": width, "depth": depth}
        for name, value in sizes.items():
            if value < 1:
                raise RecipeError(f"`{name}` is {value}, but must be at least 1")
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth, self.dropout = width, depth, dropout
        self.wraps = (False,) * ndim
        self.footprint = Footprint(margin=depth, cut=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes or channels.
        """
        who = type(self).__name__
        self.footprint.check_input(x.shape, ndim=self.ndim, who=who)
        graphs, chan, *space = x.shape
        if chan != self.in_chan:
            raise GeometryError(f"{who} takes {self.in_chan} channels, not {chan}")
        nodes = x[0, 0].numel()
        edges = EDGES.get(tuple(space), self.wraps, x.device, loops=self.loops)
        y = self.compute(
            x.movedim(1, -1).reshape(-1, chan), union(edges, nodes, graphs), graphs=graphs
        )
        return y.reshape(graphs, *space, self.out_chan).movedim(-1, 1)

    def on_graph(self, x: Tensor, edges: Tensor, graph: Tensor | None = None) -> Tensor:
        """The same on any graph, or on several side by side.

        Args:
            x: Values at nodes, shape (nodes, in_chan).
            edges: Sources and targets, int64, shape (2, edges).
            graph: Of several graphs, which a node is of, ascending, int64, shape (nodes,).

        Returns:
            Shape (nodes, out_chan).

        Raises:
            GeometryError: If the shapes do not fit.
        """
        if x.ndim != 2 or x.shape[1] != self.in_chan or edges.ndim != 2 or len(edges) != 2:
            raise GeometryError(
                f"{type(self).__name__} takes values at nodes (nodes, {self.in_chan}) and edges "
                f"(2, edges), not {tuple(x.shape)} and {tuple(edges.shape)}"
            )
        if self.loops:
            here = torch.arange(len(x), device=edges.device)
            others = edges[:, edges[0] != edges[1]]
            edges = torch.cat([others, here.expand(2, -1)], dim=1)
        return self.compute(x, edges, graphs=1 if graph is None else graph)

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:
        """Run the network.

        Args:
            x: Values at nodes, graph by graph, shape (nodes, in_chan).
            edges: Of all graphs, with those from nodes to themselves if it shall have them.
            graphs: How many there are, of as many nodes each; or which one each node is of.

        Returns:
            Shape (nodes, out_chan).
        """
        raise NotImplementedError
