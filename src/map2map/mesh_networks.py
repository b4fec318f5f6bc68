"""Graph networks on meshes: at once, or in parts with a halo of as many edges as they see."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError
from map2map.meshes import Mesh
from map2map.models.graph_nets import GraphNetwork
from map2map.typing import Array

__all__ = ["apply_to_mesh", "bisected", "within"]


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


def bisected(positions: Array, parts: int) -> Iterator[NDArray[np.bool_]]:
    """Parts of as many nodes each, or one less, cut across their longest side again and again.

    Args:
        positions: Of the nodes, shape (nodes, axes).
        parts: How many.

    Yields:
        Which nodes are in a part, shape (nodes,).

    Raises:
        GeometryError: If there are less nodes than parts.
    """
    if not 1 <= parts <= len(positions):
        raise GeometryError(
            f"{len(positions)} nodes were to be cut into {parts} parts; use 1 to {len(positions)}"
        )
    waiting = [(np.arange(len(positions)), parts)]
    while waiting:
        nodes, count = waiting.pop()
        if count == 1:
            inside = np.zeros(len(positions), bool)
            inside[nodes] = True
            yield inside
            continue
        axis = int(np.ptp(positions[nodes], axis=0).argmax())
        nodes = nodes[np.argsort(positions[nodes, axis], kind="stable")]
        half = count // 2
        middle = len(nodes) * half // count
        waiting += [(nodes[middle:], count - half), (nodes[:middle], half)]


def within(edges: NDArray[np.int64], inside: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Nodes from which others are reached in a number of steps.

    Args:
        edges: Sources and targets, shape (2, edges).
        inside: The nodes to be reached, shape (nodes,).
        steps: How many edges may lie between.

    Returns:
        Those nodes and all that reach them, shape (nodes,).
    """
    for _ in range(steps):
        wider = inside.copy()
        wider[edges[0, inside[edges[1]]]] = True
        inside = wider
    return inside
