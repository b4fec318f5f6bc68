"""The graph of a regular grid: cells are nodes, and neighbors along the axes are joined.

Edges follow from the shape alone. So they are made when they are needed, and kept beside the
networks, never inside: no parameter, buffer, card or checkpoint holds them.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from map2map.errors import GeometryError
from map2map.typing import Shape

__all__ = ["EDGES", "EdgeCache", "count_edges", "grid_edges", "union"]

KEPT = 1 << 29
"""Bytes of edges that are kept for the next time."""


def grid_edges(
    shape: Shape, periodic: Sequence[bool] | bool = False, *, loops: bool = False
) -> NDArray[np.int64]:
    """The edges of a grid, 2 per axis and cell but at edges that are not periodic.

    A cell's node is its index in C order. Every edge is there in both directions.

    Args:
        shape: Cells per axis.
        periodic: Whether the last cell of an axis has the first as its neighbor; one value per
            axis, or one for all.
        loops: Whether each node also has an edge to itself.

    Returns:
        Sources and targets, shape (2, edges), ordered by target, then as they lie around it.

    Raises:
        GeometryError: If there is no cell, or a periodic axis has fewer than 3 cells, whose
            neighbors on both sides are one cell.

    >>> grid_edges((3,)).tolist()
    [[1, 0, 2, 1], [0, 1, 1, 2]]
    """
    shape, wraps = checked(shape, periodic)
    cells = np.arange(prod(shape)).reshape(shape)
    below = [(axis, -1) for axis in range(len(shape))]
    above = [(axis, 1) for axis in reversed(range(len(shape)))]
    around = [*below, *([(0, 0)] if loops else []), *above]
    sources = np.empty((*shape, len(around)), np.int64)
    exists = np.ones(sources.shape, bool)
    for k, (axis, step) in enumerate(around):
        sources[..., k] = np.roll(cells, -step, axis)
        if step and not wraps[axis]:
            np.moveaxis(exists[..., k], axis, 0)[0 if step < 0 else -1] = False
    edges = np.empty((2, int(exists.sum())), np.int64)
    edges[0] = sources[exists]
    edges[1] = np.broadcast_to(cells[..., None], exists.shape)[exists]
    return edges


def count_edges(
    shape: Shape, periodic: Sequence[bool] | bool = False, *, loops: bool = False
) -> int:
    """How many `grid_edges` there are, without making them.

    >>> count_edges((20, 20, 20)), count_edges((4, 5, 6))
    (45600, 572)
    """
    shape, wraps = checked(shape, periodic)
    nodes = prod(shape)
    pairs = sum(
        nodes if wrap else nodes // n * (n - 1) for n, wrap in zip(shape, wraps, strict=True)
    )
    return 2 * pairs + (nodes if loops else 0)


def checked(shape: Shape, periodic: Sequence[bool] | bool) -> tuple[Shape, tuple[bool, ...]]:
    """Shape and one value per axis, if there is such a graph."""
    shape = tuple(int(n) for n in shape)
    wraps = (periodic,) * len(shape) if isinstance(periodic, bool) else tuple(periodic)
    if not shape or min(shape) < 1:
        raise GeometryError(f"a grid needs at least one cell on every axis, not {shape}")
    if len(wraps) != len(shape):
        raise GeometryError(
            f"`periodic` of a {len(shape)}-D grid needs 1 or {len(shape)} values, not "
            f"{len(wraps)}: {wraps}"
        )
    for axis, (n, wrap) in enumerate(zip(shape, wraps, strict=True)):
        if wrap and n < 3:
            raise GeometryError(
                f"axis {axis} of {shape} is periodic, but of {n} cells each has the same neighbor "
                f"on both sides, or itself; give 3 cells or more, or an axis that is not periodic"
            )
    return shape, wraps


class EdgeCache:
    """The edges of the grids that were last asked for, as tensors.

    Args:
        most: Bytes that are kept in all; those of the grid that was not used longest go first.
    """

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self._kept: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(
        self, shape: Shape, periodic: tuple[bool, ...], device: torch.device, *, loops: bool = False
    ) -> Tensor:
        """The edges of a grid, int64 of shape (2, edges); not to be changed.

        Args:
            shape: Cells per axis.
            periodic: One value per axis.
            device: Where they shall be; on "meta" they are not made.
            loops: Whether each node also has an edge to itself.

        Raises:
            GeometryError: If there is no such graph.
        """
        if device.type == "meta":
            count = count_edges(shape, periodic, loops=loops)
            return torch.empty((2, count), dtype=torch.int64, device=device)
        key = (tuple(shape), periodic, str(device), loops)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # what is made in inference mode could not be used in training
        with torch.inference_mode(mode=False):
            edges = torch.from_numpy(grid_edges(shape, periodic, loops=loops)).to(device)
        # within a FakeTensorMode, what was moved to a device is none
        if type(edges) is Tensor and edges.nbytes <= self.most:
            with self._lock:
                self._kept[key] = edges
                while sum(kept.nbytes for kept in self._kept.values()) > self.most:
                    self._kept.popitem(last=False)
        return edges


EDGES = EdgeCache()
"""Those of this process."""


def union(edges: Tensor, nodes: int, graphs: int) -> Tensor:
    """The edges of as many copies of a graph, side by side; its nodes are numbered on.

    Args:
        edges: Shape (2, edges).
        nodes: Of one graph.
        graphs: How many.

    Returns:
        Shape (2, graphs * edges), graph by graph.
    """
    if graphs == 1:
        return edges
    first = nodes * torch.arange(graphs, device=edges.device)
    return (edges[:, None] + first[:, None]).reshape(2, -1)
