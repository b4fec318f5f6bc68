"""Chunks and shards: what windows touch is counted one by one, and compared with the formulas."""

from itertools import product
from math import ceil, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from map2map.errors import GeometryError
from map2map.layouts import (
    SHAPES,
    Layout,
    amplification,
    boxes,
    chunk_reads,
    lay_out,
    sizes,
    tiles,
)
from map2map.windows import Window

axes = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 40)).map(
    lambda a: (a[0], min(a[1], a[0]), a[2])
)


def touched(n, chunk, window):
    """Chunks that windows at every place of a periodic axis touch, cell by cell, on average."""
    count = 0
    for start in range(n):
        cells = range(start, start + window)
        count += len({(cell // n, cell % n // chunk) for cell in cells})
    return count / n


@given(axis=axes)
def test_mean_chunk_reads_are_those_counted_at_every_place(axis):
    n, chunk, window = axis
    assert chunk_reads((n,), (chunk,), (window,)) == pytest.approx(touched(n, chunk, window))


@given(axis=st.lists(axes, min_size=2, max_size=3))
def test_axes_multiply(axis):
    shape, chunk, window = zip(*axis, strict=True)
    expected = prod(touched(*one) for one in axis)
    assert chunk_reads(shape, chunk, window) == pytest.approx(expected)
    cells = expected * prod(chunk)
    assert amplification(shape, chunk, window) == pytest.approx(cells / prod(window))


def test_the_amplification_is_that_of_the_textbook_where_chunks_divide_the_grid():
    expected = ((104 + 32 - 1) / 104) ** 3
    assert amplification((256,) * 3, (32,) * 3, (104,) * 3) == pytest.approx(expected)


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=2).map(tuple),
    window=st.integers(1, 12),
    overhead=st.sampled_from([0, 100, 10_000]),
    shard=st.sampled_from([64, 800, 10_000]),
)
def test_no_shape_of_a_chunk_costs_much_less(shape, window, overhead, shard):
    def cost(chunk):
        reads = prod(touched(n, c, window) for n, c in zip(shape, chunk, strict=True))
        return reads * (prod(chunk) * 8 + overhead)

    layout = lay_out(shape, (window,) * len(shape), 8, overhead=overhead, shard_bytes=shard)
    equal_parts = [{ceil(n / k) for k in range(1, n + 1)} for n in shape]
    least = min(cost(c) for c in product(*equal_parts) if prod(c) * 8 <= shard)
    assert cost(layout.chunk) <= 1.05 * least * (1 + 1e-9)
    assert prod(layout.shard) * 8 <= shard
    assert all(s % c == 0 for s, c in zip(layout.shard, layout.chunk, strict=True))


def test_a_dearer_chunk_makes_chunks_larger():
    chunks = [
        lay_out((256,) * 3, (64,) * 3, 4, overhead=overhead, shard_bytes=1 << 30).chunk
        for overhead in (0, 1 << 14, 1 << 18, 1 << 24)
    ]
    cells = [prod(chunk) for chunk in chunks]
    assert cells == sorted(cells)
    assert cells[0] == 1
    assert cells[-1] > 30**3


def test_files_are_few():
    layout = lay_out((1024,) * 3, (104,) * 3, 12, shard_bytes=64 << 20)
    # 12 GiB in files of at most 64 MiB, and no more than twice as many as there must be
    assert 192 <= layout.files <= 384


def test_a_field_that_fits_into_a_shard_is_one_file():
    layout = lay_out((100, 90), (30, 30), 4, shard_bytes=1 << 20)
    assert layout.files == 1


def test_a_grid_with_many_divisors_on_many_axes_is_laid_out_in_little_memory():
    assert len(sizes(5040, int(SHAPES**0.25))) ** 4 <= SHAPES
    assert sizes(5040, 8)[[0, -1]].tolist() == [1, 5040]


def test_a_cell_larger_than_a_shard_is_refused():
    with pytest.raises(GeometryError, match="a shard of 8 bytes cannot hold one cell of 12"):
        lay_out((4, 4), (2, 2), 12, shard_bytes=8)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    shard=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    cells=st.integers(1, 400),
)
def test_boxes_cover_a_field_once_in_whole_shards(shape, shard, cells):
    layout = Layout(shape, (1, 1, 1), shard)
    count, files = np.zeros(shape, int), []
    for box in boxes(layout, cells):
        parts = list(tiles(box, shard))
        files += parts
        assert prod(box.shape) <= max(cells, prod(shard))
        for part in parts:
            count[tuple(slice(a, b) for a, b in zip(part.start, part.stop, strict=True))] += 1
    assert (count == 1).all()
    # the parts are exactly the shards: as many, and each begins where one does
    assert len(files) == layout.files
    assert all(a % s == 0 for part in files for a, s in zip(part.start, shard, strict=True))


def test_boxes_are_long_on_the_last_axes():
    layout = Layout((8, 8, 8), (2, 2, 2), (4, 4, 4))
    assert [box.shape for box in boxes(layout, 4 * 8 * 8)] == [(4, 8, 8)] * 2
    assert [box.shape for box in boxes(layout, 4 * 4 * 8)] == [(4, 4, 8)] * 4
    assert len(list(boxes(layout, 1))) == 8
    assert list(tiles(Window((2,), (7,)), (2,))) == [
        Window((2,), (4,)),
        Window((4,), (6,)),
        Window((6,), (7,)),
    ]
