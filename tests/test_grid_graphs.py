"""The graph of a grid, against loops over its cells."""

import tracemalloc
from itertools import product

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from map2map.errors import GeometryError
from map2map.grid_graphs import EdgeCache, count_edges, grid_edges, union

CPU = torch.device("cpu")


def by_loops(shape, wraps, *, loops=False):
    """Every pair of cells that are one apart on one axis."""
    pairs = set()
    for cell in np.ndindex(*shape):
        here = int(np.ravel_multi_index(cell, shape))
        if loops:
            pairs.add((here, here))
        for axis, step in product(range(len(shape)), (-1, 1)):
            other = list(cell)
            other[axis] += step
            if wraps[axis]:
                other[axis] %= shape[axis]
            if 0 <= other[axis] < shape[axis]:
                pairs.add((int(np.ravel_multi_index(other, shape)), here))
    return pairs


SHAPES = [(1,), (7,), (1, 1, 1), (3, 4), (5, 1, 3), (4, 5, 6), (3, 3, 3)]


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_edges_join_neighbors_along_the_axes_in_both_directions(shape, loops):
    for wraps in product([False, True], repeat=len(shape)):
        if any(n < 3 and wrap for n, wrap in zip(shape, wraps, strict=True)):
            continue
        edges = grid_edges(shape, wraps, loops=loops)
        assert edges.dtype == np.int64
        expected = by_loops(shape, wraps, loops=loops)
        assert set(map(tuple, edges.T.tolist())) == expected
        # none twice
        assert edges.shape[1] == len(expected) == count_edges(shape, wraps, loops=loops)
        assert (np.diff(edges[1]) >= 0).all(), "ordered by target"


def test_a_cube_has_as_many_edges_as_published():
    assert grid_edges((20, 20, 20)).shape == (2, 45_600)
    assert grid_edges((4, 5, 6)).shape == (2, 572)
    x, y, z = 29, 241, 699
    pairs = (x - 1) * y * z + x * (y - 1) * z + x * y * (z - 1)
    assert count_edges((x, y, z)) == 2 * pairs
    assert count_edges((9, 9, 9), periodic=True, loops=True) == 7 * 9**3


def test_a_large_grid_takes_little_memory():
    tracemalloc.start()
    edges = grid_edges((60, 60, 60))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert edges.shape[1] == count_edges((60, 60, 60))
    assert peak < 100e6


@pytest.mark.parametrize(
    ("shape", "periodic", "message"),
    [
        ((), False, "at least one cell"),
        ((3, 0), False, "at least one cell"),
        ((3, 4), [True], "needs 1 or 2 values, not 1"),
        ((3, 2), [False, True], r"axis 1 of \(3, 2\) is periodic, but of 2 cells"),
        ((1,), True, "axis 0"),
    ],
)
def test_what_is_no_graph_of_a_grid_is_refused(shape, periodic, message):
    for make in (grid_edges, count_edges):
        with pytest.raises(GeometryError, match=message):
            make(shape, periodic)


def test_copies_of_a_graph_are_side_by_side_and_not_joined():
    edges = torch.from_numpy(grid_edges((2, 3)))
    three = union(edges, 6, 3)
    assert torch.equal(three, torch.cat([edges, edges + 6, edges + 12], dim=1))
    assert union(edges, 6, 1) is edges


def test_edges_are_kept_for_the_next_time():
    cache = EdgeCache()
    first = cache.get((3, 4), (False, True), CPU)
    assert cache.get((3, 4), (False, True), CPU) is first
    assert len(cache) == 1
    others = [
        cache.get((4, 3), (False, True), CPU),
        cache.get((3, 4), (False, False), CPU),
        cache.get((3, 4), (False, True), CPU, loops=True),
    ]
    assert len(cache) == 4
    assert len({tuple(map(tuple, kept.tolist())) for kept in [first, *others]}) == 4


def test_the_edges_not_used_longest_go_first():
    size = {n: grid_edges((n,)).nbytes for n in (5, 6, 7)}
    cache = EdgeCache(size[5] + size[7])
    five = cache.get((5,), (False,), CPU)
    cache.get((6,), (False,), CPU)
    assert cache.get((5,), (False,), CPU) is five
    cache.get((7,), (False,), CPU)
    assert len(cache) == 2
    assert cache.get((5,), (False,), CPU) is five
    # what is too large for it is made, and not kept
    assert cache.get((50,), (False,), CPU).shape == (2, 98)
    assert len(cache) == 2


def test_edges_made_in_inference_mode_can_be_trained_with():
    cache = EdgeCache()
    with torch.inference_mode():
        cache.get((4,), (False,), CPU)
    edges = cache.get((4,), (False,), CPU)
    assert not edges.is_inference()
    x = torch.randn(4, requires_grad=True)
    x[edges[0]].square().sum().backward()
    assert x.grad is not None


def test_edges_that_are_not_there_are_not_kept():
    cache = EdgeCache()
    assert cache.get((999, 999, 999), (False,) * 3, torch.device("meta")).shape[1] == count_edges(
        (999,) * 3
    )
    assert len(cache) == 0
    with FakeTensorMode(allow_non_fake_inputs=True):
        cache.get((3, 3), (False,) * 2, CPU)
    edges = cache.get((3, 3), (False,) * 2, CPU)
    assert type(edges) is torch.Tensor
    assert edges.tolist() == grid_edges((3, 3)).tolist()
