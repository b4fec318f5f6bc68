"""Graph networks on meshes: at once, or in parts with a halo of as many edges as they see."""

import numpy as np
import torch

from map2map.errors import FieldError
from map2map.meshes import Mesh, bisected, within
from map2map.models.graph_nets import GraphNetwork
from map2map.typing import Array

__all__ = ["apply_to_mesh"]


def apply_to_mesh(network: GraphNetwork, mesh: Mesh, values: Array, *, parts: int = 1) -> Array:
    """Run a network on the nodes of a mesh; its parts do not show in the result.

    Args:
        network: As it was trained, on grids or meshes; it is run in eval mode.
        mesh: Whose edges join nodes.
        values: What the network takes, normalized as in training, shape (in_chan, nodes).
        parts: How many parts are computed one after another, which saves memory.

    Returns:
        What it gives, shape (out_chan, nodes).

    Raises:
        FieldError: If the values have another shape.
        GeometryError: If there are less nodes than parts, or the network sees the whole mesh and
            shall run on parts.
    """
    if values.shape != (network.in_chan, mesh.nodes):
        raise FieldError(
            f"{type(network).__name__} takes {network.in_chan} values at each of the {mesh.nodes} "
            f"nodes, shape {(network.in_chan, mesh.nodes)}, not {values.shape}"
        )
    if parts > 1:
        network.footprint.require_local(type(network).__name__)
    weight = next(network.parameters())
    output: Array = torch.empty(network.out_chan, mesh.nodes, dtype=weight.dtype).numpy()
    was_training = network.training
    network.eval()
    try:
        for inside in bisected(mesh.positions, parts):
            read = within(mesh.edges, inside, network.footprint.margin) if parts > 1 else inside
            number = np.cumsum(read) - 1
            kept = read[mesh.edges[0]] & read[mesh.edges[1]]
            edges = torch.from_numpy(number[mesh.edges[:, kept]]).to(weight.device)
            x = torch.from_numpy(values[:, read].T.copy()).to(weight.device, weight.dtype)
            with torch.no_grad():
                y = network.on_graph(x, edges).cpu().numpy()
            output[:, inside] = y[number[inside]].T
    finally:
        network.train(was_training)
    return output
