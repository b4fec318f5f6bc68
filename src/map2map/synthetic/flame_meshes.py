"""Meshes of tetrahedra for simulated flames: the fields of a grid at nodes that lie anywhere.

A node is the centre of a cell of the large-eddy grid, moved at random, but on the faces of the box
only along them; tetrahedra are Delaunay's. They are cut into zones along the flow, so that the
flame stands in all of them; nodes between two zones are in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial import Delaunay

from map2map.errors import GeometryError
from map2map.meshes import Mesh, bisected, write_mesh
from map2map.typing import Array, Shape

__all__ = ["Part", "flame_mesh", "write_zones"]

JITTER = 0.3
"""How far a node is moved along each axis, at most [cells of the large-eddy grid]."""

FLAT = 1e-9
"""Volume below which a tetrahedron is none [cells]; of four nodes on a face of the box, it is 0."""


@dataclass(frozen=True, eq=False)
class Part:
    """A zone of a mesh.

    Args:
        positions: Of its nodes [m], shape (nodes, 3).
        tetrahedra: Their nodes, counted from 0, shape (tetrahedra, 4).
    """

    positions: Array
    tetrahedra: NDArray[np.int64]


def flame_mesh(
    shape: Shape, every: int, spacing: float, zones: int, rng: np.random.Generator
) -> list[Part]:
    """A mesh through the box of a flame, in zones.

    Args:
        shape: Cells of the direct simulation, along x, y, z.
        every: So many of them are a cell of the large-eddy grid, on each axis.
        spacing: Size of the former [m].
        zones: How many parts.
        rng: Moves the nodes.

    Raises:
        GeometryError: If there are less tetrahedra than zones.
    """
    cells = [n // every for n in shape]
    axes = np.meshgrid(*(np.arange(n) + 0.5 for n in cells), indexing="ij")
    positions = np.stack([axis.ravel() for axis in axes], axis=1)
    moves = rng.uniform(-JITTER, JITTER, positions.shape)
    # so that the box stays a box
    moves[(positions == 0.5) | (positions == np.array(cells) - 0.5)] = 0
    positions += moves
    tetrahedra = Delaunay(positions).simplices.astype(np.int64)
    corners = positions[tetrahedra]
    volumes = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    tetrahedra = tetrahedra[volumes > FLAT]
    if len(tetrahedra) < zones:
        raise GeometryError(
            f"a mesh of {len(tetrahedra)} tetrahedra cannot be cut into {zones} zones; take fewer, "
            f"or a larger `size`"
        )
    centres = positions[tetrahedra].mean(axis=1)
    parts = []
    for inside in bisected(centres[:, 1:], zones):
        nodes, numbered = np.unique(tetrahedra[inside], return_inverse=True)
        parts.append(Part(positions[nodes] * (every * spacing), numbered.reshape(-1, 4)))
    return parts


def write_zones(
    paths: Sequence[Path], parts: Sequence[Part], fields: Mapping[str, Array], spacing: float
) -> None:
    """Write fields at the nodes of zones, each zone in a file of its own.

    Args:
        paths: Of the files, whose zones are called as the end of their names.
        parts: The zones.
        fields: By name, on the grid of the direct simulation; between its cells by cubic splines.
        spacing: Cell size of that [m].

    Raises:
        SaveError: If they cannot be written.
    """
    splines = {name: spline_filter(whole, mode="nearest") for name, whole in fields.items()}
    for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
        places = part.positions.T / spacing - 0.5
        values = {
            name: map_coordinates(spline, places, mode="nearest", prefilter=False)
            for name, spline in splines.items()
        }
        write_mesh(path, Mesh(part.positions, part.tetrahedra, values), f"zone_{number + 1:04d}")
