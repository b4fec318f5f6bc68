"""Meshes of tetrahedra: read from and written to HDF5 in the manner of CGNS, and their edges.

A file holds one or more zones, each a mesh:

```
Base/ZONE/GridCoordinates/CoordinateX/" data"       and Y, Z: of each node [L]
Base/ZONE/Tetrahedra/ElementConnectivity/" data"    4 nodes per tetrahedron, counted from 1
Base/ZONE/FlowSolution/NAME/" data"                 values at nodes, real numbers
```

The name of the innermost data sets begins with a space.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError, SaveError, SourceError, near_names
from map2map.files import replacing
from map2map.typing import Array

__all__ = [
    "Mesh",
    "add_fields",
    "bisected",
    "check_finite",
    "edge_lengths",
    "mesh_edges",
    "read_mesh",
    "within",
    "write_mesh",
    "zones",
]

BASE, DATA = "Base", " data"
COORDINATES = tuple(f"Coordinate{axis}" for axis in "XYZ")
CONNECTIVITY = "Tetrahedra/ElementConnectivity"
PAIRS = tuple(combinations(range(4), 2))
"""The edges of a tetrahedron."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Nodes, tetrahedra, and values at nodes.

    Args:
        positions: Of the nodes [L], shape (nodes, 3).
        tetrahedra: Their nodes, counted from 0, int64, shape (tetrahedra, 4).
        values: By name, shape (nodes,).

    Attributes:
        edges: Both directions of the edges of all tetrahedra, each once: sources and targets,
            int64, shape (2, edges), ordered by target, then by source.
        lengths: Of the edges [L], shape (edges,).

    Raises:
        GeometryError: If shapes do not fit, or a tetrahedron has a node that is not there, or one
            twice.
        FieldError: If a field has other numbers of values than there are nodes.
    """

    positions: Array
    tetrahedra: NDArray[np.int64]
    values: Mapping[str, Array] = field(default_factory=dict)
    edges: NDArray[np.int64] = field(init=False, repr=False)
    lengths: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.positions.ndim != 2 or self.positions.shape[1] != 3:
            raise GeometryError(
                f"a mesh needs positions of shape (nodes, 3), not {self.positions.shape}"
            )
        object.__setattr__(self, "edges", mesh_edges(self.tetrahedra, len(self.positions)))
        object.__setattr__(self, "lengths", edge_lengths(self.positions, self.edges))
        for name, values in self.values.items():
            if values.shape != (len(self.positions),):
                raise FieldError(
                    f"field {name!r} has shape {values.shape}, but the mesh has "
                    f"{len(self.positions)} nodes; only values at nodes are known"
                )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.positions)


def mesh_edges(tetrahedra: NDArray[np.int64], nodes: int) -> NDArray[np.int64]:
    """The edges of tetrahedra in both directions, each once.

    Args:
        tetrahedra: Their nodes, counted from 0, shape (tetrahedra, 4).
        nodes: How many there are.

    Returns:
        Sources and targets, shape (2, edges), ordered by target, then by source.

    Raises:
        GeometryError: If a tetrahedron has a node that is not there, or one twice.
    """
    if tetrahedra.ndim != 2 or tetrahedra.shape[1] != 4:
        raise GeometryError(f"tetrahedra have 4 nodes each, not shape {tetrahedra.shape}")
    outside = ((tetrahedra < 0) | (tetrahedra >= nodes)).any(axis=1)
    if outside.any():
        which = int(outside.argmax())
        raise GeometryError(
            f"{int(outside.sum())} of {len(tetrahedra)} tetrahedra have nodes that are not among "
            f"the {nodes} there are; the first is number {which + 1}, with nodes "
            f"{(tetrahedra[which] + 1).tolist()} counted from 1"
        )
    # the smaller node first, as one number; so an edge that tetrahedra share is found once
    low, high = (
        np.concatenate([choose(tetrahedra[:, i], tetrahedra[:, j]) for i, j in PAIRS])
        for choose in (np.minimum, np.maximum)
    )
    same = low == high
    if same.any():
        which = int(same.argmax()) % len(tetrahedra)
        raise GeometryError(
            f"tetrahedron {which + 1} has a node twice: {(tetrahedra[which] + 1).tolist()}, "
            f"counted from 1; mend the mesh"
        )
    pairs = np.unique(low.astype(np.int64) * nodes + high)
    low, high = np.divmod(pairs, nodes)
    # ordered by target, then by source
    both = np.sort(np.concatenate([low * nodes + high, high * nodes + low]))
    target, source = np.divmod(both, nodes)
    return np.stack([source, target])


def edge_lengths(positions: Array, edges: NDArray[np.int64]) -> Array:
    """The distance [L] between the ends of edges, shape (edges,).

    Args:
        positions: Of the nodes [L], shape (nodes, 3).
        edges: Sources and targets, shape (2, edges).
    """
    lengths: Array = np.linalg.norm(positions[edges[0]] - positions[edges[1]], axis=1)
    return lengths


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


def zones(path: Path | str) -> tuple[str, ...]:
    """Names of the zones of a file that hold a mesh.

    Raises:
        SourceError: If it is missing, damaged, or has no Base.
    """
    with opened(path) as file:
        base = member(file, BASE, Path(path))
        return tuple(
            name
            for name, zone in base.items()
            if isinstance(zone, h5py.Group) and "GridCoordinates" in zone
        )


def read_mesh(
    path: Path | str, zone: str | None = None, fields: Sequence[str] | None = None
) -> Mesh:
    """Read a mesh and values at its nodes.

    Args:
        path: The file.
        zone: Which one; default: the only one there is.
        fields: Names of the values to read; default: all there are.

    Raises:
        SourceError: If the file is missing or damaged, or lacks a group or data set; tells what is
            there.
        GeometryError: If the connectivity does not fit the nodes.
        FieldError: If a field is missing, or has other numbers of values than there are nodes.
    """
    path = Path(path)
    if zone is None:
        there = zones(path)
        if len(there) != 1:
            raise SourceError(
                f"{path} has {len(there) or 'no'} zones with GridCoordinates in {BASE!r}"
                + (f": {', '.join(there)}; name one of them" if there else "")
            )
        zone = there[0]
    with opened(path) as file:
        group = member(file, f"{BASE}/{zone}", path)
        parts = [numbers(group, f"GridCoordinates/{name}", path) for name in COORDINATES]
        if len({part.shape for part in parts}) > 1 or parts[0].ndim != 1:
            shapes = ", ".join(str(part.shape) for part in parts)
            raise GeometryError(
                f"{path}: {', '.join(COORDINATES)} of zone {zone!r} have shapes {shapes}, but must "
                f"have one number per node each"
            )
        connectivity = numbers(group, CONNECTIVITY, path)
        solution = group.get("FlowSolution", {})
        # there may be descriptions beside the fields, in letters
        known = [name for name, item in solution.items() if holds_reals(item)]
        for name in fields or ():
            if name not in known:
                raise FieldError(
                    f"{path} has no field {name!r} in FlowSolution of zone {zone!r}"
                    f"{near_names(name, known)}"
                )
        names = known if fields is None else fields
        values = {name: numbers(solution, name, path) for name in names}
    if connectivity.dtype.kind not in "iu" or connectivity.size % 4:
        raise GeometryError(
            f"{path}: {CONNECTIVITY} of zone {zone!r} holds {connectivity.size} numbers of type "
            f"{connectivity.dtype}, but must hold 4 whole numbers per tetrahedron"
        )
    # counted from 1 in the file
    tetrahedra = connectivity.reshape(-1, 4).astype(np.int64) - 1
    try:
        return Mesh(np.stack(parts, axis=1), tetrahedra, values)
    except (GeometryError, FieldError) as error:
        raise type(error)(f"{path}, zone {zone!r}: {error}") from error


def check_finite(mesh: Mesh, where: str) -> None:
    """Refuse values or positions that are NaN or infinite.

    Raises:
        FieldError: If a field has such values.
        GeometryError: If nodes are nowhere.
    """
    for name, values in mesh.values.items():
        bad = ~np.isfinite(values)
        if bad.any():
            raise FieldError(
                f"field {name!r} of {where} is NaN or infinite at {int(bad.sum())} of {mesh.nodes} "
                f"nodes, the first is number {int(bad.argmax()) + 1}; mend the file, or leave it "
                f"out"
            )
    if not np.isfinite(mesh.positions).all():
        raise GeometryError(f"the coordinates of {where} are not finite; mend the file")


def write_mesh(path: Path | str, mesh: Mesh, zone: str = "Zone") -> None:
    """Write a mesh and its values as the one zone of a file; an existing file is replaced.

    Raises:
        SaveError: If it cannot be written.
    """
    sets: dict[str, NDArray[Any]] = {
        f"GridCoordinates/{name}": mesh.positions[:, axis] for axis, name in enumerate(COORDINATES)
    }
    sets[CONNECTIVITY] = mesh.tetrahedra.ravel() + 1
    sets |= {f"FlowSolution/{name}": values for name, values in mesh.values.items()}
    with replacing(Path(path)) as part, h5py.File(part, "w") as file:
        for name, values in sets.items():
            file[f"{BASE}/{zone}/{name}/{DATA}"] = values


def add_fields(
    source: Path | str, path: Path | str, fields: Mapping[str, Mapping[str, Array]]
) -> None:
    """Write a copy of a file with more fields in it; an existing file is replaced.

    Args:
        source: The file.
        path: The copy, another file; it is as it was until all is written.
        fields: For each zone, by name, values at its nodes, shape (nodes,). One that is there
            already is replaced in the copy.

    Raises:
        SourceError: If the source is missing or damaged, or lacks a zone.
        FieldError: If there are other numbers of values than nodes.
        SaveError: If the copy cannot be written, or is the source itself.
    """
    source, path = Path(source), Path(path)
    if path.resolve() == source.resolve():
        raise SaveError(f"{path} would replace what it is made from; choose another folder")
    with opened(source) as file:
        for zone, named in fields.items():
            nodes = numbers(
                member(file, f"{BASE}/{zone}", source), f"GridCoordinates/{COORDINATES[0]}", source
            ).shape
            for name, values in named.items():
                if values.shape != nodes:
                    raise FieldError(
                        f"{name!r} has shape {values.shape}, but zone {zone!r} of {source} has "
                        f"{nodes[0]} nodes"
                    )
    with replacing(path) as part:
        shutil.copyfile(source, part)
        with h5py.File(part, "r+") as file:
            for zone, named in fields.items():
                solution = file[BASE][zone].require_group("FlowSolution")
                for name, values in named.items():
                    if name in solution:
                        del solution[name]
                    solution[f"{name}/{DATA}"] = values


def opened(path: Path | str) -> Any:
    """The file, open for reading."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {path}") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read as HDF5, or is truncated: {error}") from error


def member(group: Any, name: str, path: Path) -> Any:
    """What a group has at a path of names, or what it has instead.

    Raises:
        SourceError: If it is not there.
    """
    here, walked = group, ""
    for part in name.split("/"):
        if not isinstance(here, h5py.Group) or part not in here:
            there = ", ".join(map(repr, here)) if isinstance(here, h5py.Group) else "a data set"
            raise SourceError(
                f"{path} has no {part!r} in {(here.name or walked)!r}, where a mesh needs "
                f"{name!r}; there is {there or 'nothing'}"
            )
        here, walked = here[part], f"{walked}/{part}"
    return here


def holds_reals(item: Any) -> bool:
    """Whether something in a solution is a field."""
    data = item.get(DATA) if isinstance(item, h5py.Group) else None
    return isinstance(data, h5py.Dataset) and data.dtype.kind == "f"


def numbers(group: Any, name: str, path: Path) -> NDArray[Any]:
    """The array below a name of a group."""
    found = member(group, f"{name}/{DATA}", path)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        raise SourceError(f"{path}: {found.name!r} holds no numbers; make it again")
    values: NDArray[Any] = found[...]
    return values
