"""ColumnGAT: graph attention along the levels of a column, after AI4SIM's for radiation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.grid_graphs import EDGES, union
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
from map2map.models.graph_nets import check_jump, torch_geometric_nn
from map2map.models.reducing import check_dropout

__all__ = ["ColumnGAT"]


class ColumnGAT(nn.Module):
    """``depth`` layers of attention to the levels above and below, and a linear layer behind them.

    A column is a chain: levels are nodes, each joined to its neighbors in both directions and to
    itself. Profiles with one level less than the others lie between the levels, and are attributes
    of the edges: of 138 interfaces those of the 137 layers. Attention sees them (torch_geometric's
    ``GAT`` with ``edge_dim``; Veličković et al. 2018), for an edge from a level to itself as the
    mean of those of the layers around it. Scalars are the same on all levels; every cell of the
    grid is by itself. A level sees ``depth`` levels up and down.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        inputs: What the channels of the input are, in their order; if not given, one profile.
        outputs: Likewise of the output, none of which is between levels.
        width: Channels inside, of all heads together.
        depth: Number of layers.
        heads: Means per layer, each with weights of its own.
        dropout: Share of the values behind each activation, and of the weights of neighbors, that
            training sets to zero.
        jk: What the linear layer gets: the features of the "last" layer; those of all side by side,
            "cat"; their "max"; or their mean with weights from an "lstm".

    Raises:
        RecipeError: If an argument is out of range, profiles do not fit together, or
            torch_geometric is missing.
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
        depth: int = 4,
        heads: int = 8,
        dropout: float = 0.0,
        jk: str = "last",
    ) -> None:
        super().__init__()
        check_columns(ndim, width=width, depth=depth, heads=heads)
        check_dropout(dropout)
        check_jump(jk)
        if width % heads:
            raise RecipeError(
                f"`width` is {width} and `heads` is {heads}, but the heads share the channels: "
                f"`width` must be a multiple of `heads`"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.inputs = profiles_of(inputs, in_chan, "inputs")
        self.outputs = profiles_of(outputs, out_chan, "outputs")
        self.width, self.depth, self.heads, self.dropout, self.jk = width, depth, heads, dropout, jk
        self.on_edges = between_levels(self.inputs, self.outputs)
        nodes = [p for p, edge in zip(self.inputs, self.on_edges, strict=True) if not edge]
        self.profile_levels = common_levels(nodes, self.outputs)
        layers = sum(p.features for p, e in zip(self.inputs, self.on_edges, strict=True) if e)
        self.model = torch_geometric_nn().GAT(
            sum(profile.features for profile in nodes),
            width,
            depth,
            sum(profile.features for profile in self.outputs),
            dropout=dropout,
            act="silu",
            jk=jk,
            heads=heads,
            edge_dim=layers or None,
            add_self_loops=False,
        )
        self.footprint = POINT

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        rows, levels = to_rows(x), self.profile_levels
        sides: tuple[list[Tensor], list[Tensor]] = [], []
        split = torch.split(rows, [p.channels for p in self.inputs], dim=1)
        for part, profile, edge in zip(split, self.inputs, self.on_edges, strict=True):
            sides[edge].append(stack(part, [profile], levels - edge))
        # (column, feature, level) as (column and level, feature)
        nodes = torch.cat(sides[0], dim=1).mT.flatten(0, 1)
        chain = EDGES.get((levels,), (False,), x.device, loops=True)
        edges = union(chain, levels, len(rows))
        attributes = self._attributes(torch.cat(sides[1], dim=1), chain) if sides[1] else None
        y: Tensor = self.model(nodes, edges, edge_attr=attributes)
        columns = y.reshape(len(rows), levels, -1).mT
        return from_rows(unstack(columns, self.outputs), x)

    @staticmethod
    def _attributes(layers: Tensor, chain: Tensor) -> Tensor:
        """Those of layers, (column, feature, level - 1), as (column and edge, feature)."""
        source, target = chain
        # beyond the ends there is no layer, so the mean is of the one that there is
        above, below = layers[..., :1], layers[..., -1:]
        around = torch.cat([above, layers], dim=2) + torch.cat([layers, below], dim=2)
        found = torch.where(
            source == target,
            around[..., target] / 2,
            layers[..., torch.minimum(source, target).clamp(max=layers.shape[2] - 1)],
        )
        return found.mT.flatten(0, 1)


def between_levels(inputs: Sequence[Profile], outputs: Sequence[Profile]) -> list[bool]:
    """Which inputs have one level less than there are.

    Raises:
        RecipeError: If all inputs have.
    """
    levels = max(profile.height for profile in (*inputs, *outputs))
    found = [levels > 2 and profile.height == levels - 1 for profile in inputs]
    if all(found):
        raise RecipeError(
            f"all `inputs` have {levels - 1} levels, one less than the {levels} of the outputs, so "
            f"they lie between the levels, and nothing on them; fill some up with `above` or "
            f"`below`"
        )
    return found
