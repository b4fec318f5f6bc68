"""GridGraphUNet: a U-Net whose levels are the most important cells, after AI4sim's GraphUNet."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.graph_nets import GraphNetwork, torch_geometric_nn

__all__ = ["GridGraphUNet"]


class GridGraphUNet(GraphNetwork):
    """Graph convolutions on fewer and fewer cells, and on more and more again.

    Each level keeps the share of the cells whose learnt score is highest, and joins those that were
    two steps apart. Whether a cell is kept depends on all the others: so this is applied to whole
    fields only, and never in tiles. Gao and Ji (2019), torch_geometric's ``GraphUNet``, with sums
    where levels meet. It is computed in single precision also where half is asked for, which
    products of sparse matrices do not know.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels inside.
        depth: How often cells are dropped.
        ratio: Share of the cells that are kept each time.
        periodic: Whether the last cell of an axis has the first as its neighbor; one value per
            axis, or one for all. No halo can tell it, as whole fields are read without one.

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
        ratio: float = 0.5,
        periodic: bool | list[bool] = False,
    ) -> None:
        super().__init__(in_chan, out_chan, ndim=ndim, width=width, depth=depth)
        if not 0 < ratio < 1:
            raise RecipeError(f"`ratio` is {ratio}, but must be above 0 and below 1")
        wraps = tuple(periodic) if isinstance(periodic, Sequence) else (periodic,) * ndim
        if len(wraps) != ndim:
            raise RecipeError(
                f"`periodic` of {ndim} axes needs 1 or {ndim} values, not {len(wraps)}: {periodic}"
            )
        self.ratio, self.periodic, self.wraps = ratio, periodic, wraps
        self.model = torch_geometric_nn().GraphUNet(
            in_chan, width, out_chan, depth, pool_ratios=ratio, act="silu"
        )
        self.footprint = Footprint(
            margin=0,
            minimum=3 if any(wraps) else 1,
            whole="its pooling compares each cell with all others",
        )

    def compute(self, x: Tensor, edges: Tensor, *, graphs: int | Tensor) -> Tensor:
        """Run the network, see `GraphNetwork.compute`."""
        graph = graphs
        if not isinstance(graph, Tensor):
            # as many nodes each
            graph = torch.arange(graph, device=x.device).repeat_interleave(len(x) // graph)
        with warnings.catch_warnings(), torch.autocast(x.device.type, enabled=False):
            # sparse matrices of rows are in beta state, and their invariants unchecked
            warnings.filterwarnings("ignore", "Sparse ", UserWarning)
            x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            y: Tensor = self.model(x, edges, graph)
        return y
