"""Emulators on meshes: physical values at nodes in and out, and files with both."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import torch

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, FieldError, M2MError, RecipeError, near_names
from map2map.mesh_networks import apply_to_mesh
from map2map.meshes import Mesh, add_fields, check_finite, read_mesh
from map2map.models.graph_nets import GraphNetwork
from map2map.typing import Array

__all__ = ["graph_network_of", "predict_file", "predict_mesh"]

PREDICTED = "{}_predicted"
"""What a prediction is called, beside the truth that may be there."""


def graph_network_of(emulator: Emulator) -> GraphNetwork:
    """The network of an emulator, which must be one of graphs.

    Raises:
        ArtefactError: If it is none.
    """
    model = emulator.model
    if not isinstance(model, GraphNetwork):
        raise ArtefactError(
            f"{type(model).__name__} works on grids only; meshes need a network of graphs: "
            f"GridGCN, GridGAT, GridGIN, GridSAGE or GridGraphUNet"
        )
    return model


def predict_mesh(
    emulator: Emulator, mesh: Mesh, *, most_nodes: int | None = None
) -> dict[str, Array]:
    """Apply an emulator to a mesh; the parts that it is cut into do not show.

    Args:
        emulator: Trained on meshes or grids, with a network of graphs.
        mesh: With all inputs at its nodes, in physical units.
        most_nodes: A larger mesh is cut into parts of at most so many nodes, of which each is
            computed with as many more around it as its result depends on; default: at once.

    Returns:
        The targets by name, in physical units, shape (nodes,).

    Raises:
        ArtefactError: If the network is none of graphs.
        RecipeError: If ``most_nodes`` is less than 1.
        FieldError: If an input is missing or not finite.
        GeometryError: If the network sees the whole mesh and shall run on parts.
    """
    network = graph_network_of(emulator)
    if most_nodes is not None and most_nodes < 1:
        raise RecipeError(f"a part has 1 node or more, not {most_nodes}")
    for name in emulator.inputs.names:
        if name not in mesh.values:
            raise FieldError(
                f"the emulator takes {name!r}, which the mesh does not have"
                f"{near_names(name, mesh.values)}"
            )
    check_finite(mesh, "the mesh")
    device = next(network.parameters()).device
    inputs = np.stack([mesh.values[name] for name in emulator.inputs.names])
    with torch.no_grad():
        seen = emulator.encode_input(torch.from_numpy(inputs)[None].to(device, torch.float32))
    parts = 1 if most_nodes is None else ceil(mesh.nodes / most_nodes)
    found = apply_to_mesh(network, mesh, seen[0].cpu().numpy(), parts=parts)
    with torch.no_grad():
        physical = emulator.decode_target(torch.from_numpy(found)[None].to(device))[0]
    return dict(zip(emulator.targets.names, physical.cpu().numpy(), strict=True))


def predict_file(
    emulator: Emulator,
    path: Path,
    out: Path,
    zones: Sequence[str],
    *,
    most_nodes: int | None = None,
) -> None:
    """Write a copy of a file of meshes with predictions in it, called ``TARGET_predicted``.

    Args:
        emulator: As `predict_mesh` takes it.
        path: The file.
        out: The copy; it is there when all of it is.
        zones: Those that are predicted.
        most_nodes: See `predict_mesh`.

    Raises:
        M2MError: If the file, its meshes or the emulator do not fit.
        SaveError: If it cannot be written.
    """
    predictions = {}
    for zone in zones:
        mesh = read_mesh(path, zone, emulator.inputs.names)
        try:
            found = predict_mesh(emulator, mesh, most_nodes=most_nodes)
        except M2MError as error:
            raise type(error)(f"{path}, zone {zone!r}: {error}") from error
        predictions[zone] = {PREDICTED.format(name): values for name, values in found.items()}
    add_fields(path, out, predictions)
