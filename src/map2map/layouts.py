"""Chunks and shards for reading crops anywhere: how large, what a crop costs, in which order.

On a periodic axis of ``n`` cells in chunks of ``c``, of which there are ``ceil(n / c)``, a window
of ``w`` cells touches one chunk, and one more for every edge of a chunk inside it. Every edge is
inside for ``w - 1`` of the ``n`` places where the window may begin. So on average it touches

    1 + ceil(n / c) (w - 1) / n    chunks,

which is ``(w + c - 1) / c`` where ``c`` divides ``n``. Places on different axes are independent, so
the mean number of chunks of a window is the product over the axes, and the *read amplification*,
the cells that are read per cell that is used, is that times the cells of a chunk over those of the
window: ``prod((w + c - 1) / w)`` where chunks divide the grid. Small chunks read little in excess,
but in many pieces, each of which has a price of its own; `lay_out` weighs one against the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np

from map2map.errors import GeometryError
from map2map.typing import Array, Shape
from map2map.windows import Window

__all__ = ["OVERHEAD", "Layout", "amplification", "boxes", "chunk_reads", "lay_out", "tiles"]

OVERHEAD = 256 << 10
"""What finding, reading and decoding one chunk costs, in bytes that could be read meanwhile.

Measured with zarr-python 3.1 on files in the page cache: 0.25 ms per chunk, as much as 500 KiB;
half of that, because bytes cost more where they come from a disk.
"""

SHAPES = 1 << 20
"""Most shapes of a chunk that are compared."""


@dataclass(frozen=True)
class Layout:
    """How a field is cut up.

    Args:
        shape: Cells per axis of the field.
        chunk: Of what is read at once.
        shard: Of what is in one file; a multiple of the chunk, possibly beyond the field's edge.
    """

    shape: Shape
    chunk: Shape
    shard: Shape

    @property
    def files(self) -> int:
        """How many files hold the field."""
        return prod(ceil(n / s) for n, s in zip(self.shape, self.shard, strict=True))


def chunk_reads(shape: Shape, chunk: Shape, window: Shape) -> float:
    """Mean number of chunks that a window touches, wherever it begins on a periodic grid.

    A chunk that a wrapping window touches at both its ends is read twice and counts twice.

    >>> chunk_reads((64,), (16,), (17,))
    2.0
    """
    return float(
        prod(1 + ceil(n / c) * (w - 1) / n for n, c, w in zip(shape, chunk, window, strict=True))
    )


def amplification(shape: Shape, chunk: Shape, window: Shape) -> float:
    """Mean cells of all chunks that a window touches, per cell of the window.

    >>> amplification((64,), (16,), (32,)) == (32 + 16 - 1) / 32
    True
    """
    return chunk_reads(shape, chunk, window) * prod(chunk) / prod(window)


def lay_out(
    shape: Shape, window: Shape, cell_bytes: int, *, overhead: int = OVERHEAD, shard_bytes: int
) -> Layout:
    """The chunks for which a window costs least, and shards of them.

    The cost of a window is `chunk_reads` times the bytes of a chunk and the ``overhead``. Among the
    shapes whose cost is within 5 % of the least, that is taken which stores the fewest cells beyond
    the edges of the field.

    Args:
        shape: Cells per axis.
        window: Cells per axis of what is read: a crop with its halo.
        cell_bytes: Of all channels of a cell.
        overhead: What a chunk costs besides its bytes, in bytes.
        shard_bytes: Of a file, at most, before compression.

    Raises:
        GeometryError: If not even one cell fits into a shard.
    """
    if cell_bytes > shard_bytes:
        raise GeometryError(
            f"a shard of {shard_bytes} bytes cannot hold one cell of {cell_bytes} bytes; "
            f"allow larger shards"
        )
    ndim = len(shape)
    most = max(2, int(SHAPES ** (1 / ndim)))
    axes = [sizes(n, most) for n in shape]
    reads, cells, stored = np.ones(()), np.ones(()), np.ones(())
    for axis, (n, w, c) in enumerate(zip(shape, window, axes, strict=True)):
        along = [1] * ndim
        along[axis] = -1
        count = np.ceil(n / c)
        reads = reads * (1 + count * (w - 1) / n).reshape(along)
        cells = cells * c.reshape(along)
        stored = stored * (count * c / n).reshape(along)
    cost = reads * (cells * cell_bytes + overhead)
    cost = np.where(cells * cell_bytes <= shard_bytes, cost / cost.min(), np.inf)
    least = cost.min()
    # the excess decides; the cost does where that is the same
    choice = np.where(cost <= 1.05 * least, stored + 1e-6 * cost, np.inf)
    best = np.unravel_index(int(np.argmin(choice)), choice.shape)
    chunk = tuple(int(c[i]) for c, i in zip(axes, best, strict=True))
    return Layout(tuple(shape), chunk, shard_of(shape, chunk, shard_bytes // cell_bytes))


def sizes(n: int, most: int) -> Array:
    """The sizes that cut ``n`` cells into 1, 2, 3, … parts as equal as can be, thinned out."""
    found = np.unique(np.ceil(n / np.arange(1, n + 1)))
    keep = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))
    return np.asarray(found[keep])


def shard_of(shape: Shape, chunk: Shape, cells: int) -> Shape:
    """Whole chunks in a shard of at most ``cells``: as large as can be, and about cubic."""
    counts = [ceil(n / c) for n, c in zip(shape, chunk, strict=True)]
    inside = [1] * len(shape)
    axes = {axis for axis, count in enumerate(counts) if count > 1}
    while axes:
        axis = min(axes, key=lambda a: (inside[a] * chunk[a], -a))
        # the next number of chunks with fewer shards; numbers between would only make them unequal
        files = ceil(counts[axis] / inside[axis])
        larger = list(inside)
        larger[axis] = ceil(counts[axis] / (files - 1)) if files > 1 else inside[axis]
        if files > 1 and prod(m * c for m, c in zip(larger, chunk, strict=True)) <= cells:
            inside = larger
        else:
            axes.remove(axis)
    return tuple(m * c for m, c in zip(inside, chunk, strict=True))


def tiles(area: Window, step: Shape) -> Iterator[Window]:
    """Windows of at most ``step`` cells per axis that cover an area once, the last axis fastest."""
    axes = [range(a, b, s) for a, b, s in zip(area.start, area.stop, step, strict=True)]
    for start in product(*axes):
        stop = (min(a + s, b) for a, s, b in zip(start, step, area.stop, strict=True))
        yield Window(start, tuple(stop))


def boxes(layout: Layout, cells: int) -> Iterator[Window]:
    """Windows of whole shards that cover a field once: as much as is to be read at once.

    They are one shard thick along the first axis, and as long as can be along the last ones, which
    is how most files are stored.

    Args:
        layout: Of the field.
        cells: Most cells of a window, unless one shard has more.
    """
    step = list(layout.shard)
    for axis in reversed(range(1, len(step))):
        extent = prod(min(s, n) for s, n in zip(step, layout.shape, strict=True))
        count = max(1, min(cells // extent, ceil(layout.shape[axis] / layout.shard[axis])))
        step[axis] = count * layout.shard[axis]
        if step[axis] < layout.shape[axis]:
            break
    return tiles(Window.whole(layout.shape), tuple(step))
