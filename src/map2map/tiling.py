"""Tiling: outputs of any size from tiles that a model can take, equal to the whole field's.

What makes it exact: a tile starts at a multiple of the footprint's, reads the halo that its outputs
can see, and keeps none of the outputs that saw less.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from map2map.errors import GeometryError
from map2map.footprints import Footprint
from map2map.grids import Grid
from map2map.noise import Place
from map2map.typing import Array, Shape
from map2map.windows import Halo, Window, pieces, round_up

__all__ = ["Tile", "Tiling", "best_size", "overlapping", "reached", "take"]

T = TypeVar("T")
MOST_CELLS = 1 << 40
"""Stands for no limit."""


@dataclass(frozen=True)
class Tile:
    """Outputs that are computed at once.

    Args:
        index: Its number.
        cells: The input cells whose outputs it makes.
        read: The input cells it needs for that; they may lie beyond the grid.
        kept: What to keep of the model's output.
        target: Where that belongs in the output's array.
        rings: Axes that are closed into a ring: no halo is read there, and what is read starts at
            the footprint's ``ring``.
        grid: Of the whole input, if it matters where in it the tile lies.
    """

    index: int
    cells: Window
    read: Window
    kept: tuple[slice, ...]
    target: Window
    rings: tuple[int, ...] = ()
    grid: Grid | None = None

    def place(self, seed: int = 0) -> Place | None:
        """Where what it reads lies in the whole field, for a network that draws random numbers."""
        return None if self.grid is None else Place.within(self.grid, self.read.start, seed)


class Tiling:
    """Tiles that cover once all outputs there are.

    On an axis that is not periodic, where nothing may be made up, these are the outputs that see no
    cell beyond the edges: the valid interior.

    Args:
        grid: Of the input.
        footprint: Of the model.
        size: Input cells per tile and axis; default: one tile. It changes memory, not the result.
        rings: Whether periodic axes that a tile covers are closed into rings, where the footprint
            allows it.

    Attributes:
        rings: The axes that are.
        domain: Input cells that get an output.
        grid: What lies beyond the edges of the input when tiles are read.
        shape: Output cells per axis.

    Raises:
        GeometryError: If the model cannot be tiled or gives no field, no output is left, or tiles
            do not start on multiples.
    """

    def __init__(
        self,
        grid: Grid,
        footprint: Footprint,
        size: Shape | None = None,
        *,
        rings: bool = False,
    ) -> None:
        footprint.require_field("the model")
        self.footprint = footprint
        self.domain = valid_domain(grid, footprint)
        self.size = self.domain.shape if size is None else tuple(size)
        # what lies beyond the valid interior fills up a size, and is not seen by what is kept
        self.grid = replace(grid, pad="edge") if grid.pad == "refuse" else grid
        step = footprint.multiple
        for axis, (n, whole) in enumerate(zip(self.size, self.domain.shape, strict=True)):
            if n < 1 or (n < whole and n % step):
                raise GeometryError(
                    f"tiles have {n} cells on axis {axis}, but this model is tiled exactly in "
                    f"multiples of {step}; the nearest is {round_up(max(n, 1), step)}"
                )
        if "model" in grid.beyond and footprint.cut:
            raise GeometryError(
                f"the grid leaves the pad to the model (pad: model), but this one pads nothing: it "
                f"cuts off {footprint.cut} cells on each side; declare another pad"
            )
        self.starts = tuple(
            range(a, b, n)
            for a, b, n in zip(self.domain.start, self.domain.stop, self.size, strict=True)
        )
        if len(self) > 1:
            footprint.require_local("the model")
        elif footprint.whole is not None:
            self._check_whole()
        scale = footprint.scale
        self.shape = tuple(scale * n for n in self.domain.shape)
        possible = possible_rings(grid, footprint) if rings else ()
        self.rings = tuple(axis for axis in possible if self.size[axis] >= grid.shape[axis])

    def _check_whole(self) -> None:
        """A model that sees everything would see what fills up a size."""
        self.footprint.check_sizes(self.domain.shape, "the model")
        for n in self.domain.shape:
            size = n + 2 * self.footprint.margin
            if not self.footprint.accepts(size):
                raise GeometryError(
                    f"the model sees the whole domain ({self.footprint.whole}), so nothing can be "
                    f"added to {size} cells, which it does not take: "
                    f"{self.footprint.sizes_near(size)}"
                )

    def __len__(self) -> int:
        return prod(len(starts) for starts in self.starts)

    def __getitem__(self, index: int) -> Tile:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        where = np.unravel_index(index, [len(starts) for starts in self.starts])
        start = tuple(starts[int(i)] for starts, i in zip(self.starts, where, strict=True))
        ends = zip(start, self.size, self.domain.stop, strict=True)
        return self.tile(Window(start, tuple(min(a + n, b) for a, n, b in ends)), index)

    def tile(self, cells: Window, index: int = 0) -> Tile:
        """The tile for any window inside the domain that starts on multiples."""
        target = Window(
            tuple(a - b for a, b in zip(cells.start, self.domain.start, strict=True)),
            tuple(a - b for a, b in zip(cells.stop, self.domain.start, strict=True)),
        ).scaled(self.footprint.scale)
        halo, kept = self.footprint.halo_for(cells.shape), self.footprint.kept(cells.shape)
        if "model" in self.grid.beyond:
            halo, kept = self._at_edges(cells, halo, kept)
        if self.rings:
            offset = self.footprint.ring or 0
            ring = [axis in self.rings for axis in range(len(cells.shape))]
            low = tuple(-offset if r else n for r, n in zip(ring, halo.low, strict=True))
            high = tuple(offset if r else n for r, n in zip(ring, halo.high, strict=True))
            halo = Halo(low, high)
            sizes = target.shape
            kept = tuple(slice(0, n) if r else k for r, n, k in zip(ring, sizes, kept, strict=True))
        return Tile(index, cells, cells.grow(halo), kept, target, self.rings, self.grid)

    def _at_edges(
        self, cells: Window, halo: Halo, kept: tuple[slice, ...]
    ) -> tuple[Halo, tuple[slice, ...]]:
        """What is read and kept where the model itself pads: a read ends where the field does."""
        low, high, parts = list(halo.low), list(halo.high), list(kept)
        for axis, beyond in enumerate(self.grid.beyond):
            if beyond == "model":
                low[axis] = min(low[axis], cells.start[axis])
                n = self.grid.shape[axis]
                filled = round_up(n, self.footprint.multiple)
                end = n if self.footprint.accepts(n) else filled
                high[axis] = min(high[axis], end - cells.stop[axis])
                start, scale = low[axis], self.footprint.scale
                parts[axis] = slice(scale * start, scale * (start + cells.shape[axis]))
        return Halo(tuple(low), tuple(high)), tuple(parts)

    @property
    def largest_read(self) -> Shape:
        """Input cells per axis of the largest tile with its halo."""
        sizes = zip(self.size, self.domain.shape, strict=True)
        return tuple(
            min(n, m) if axis in self.rings else self.footprint.input_size(min(n, m))
            for axis, (n, m) in enumerate(sizes)
        )


def possible_rings(grid: Grid, footprint: Footprint) -> tuple[int, ...]:
    """The axes that can be closed into rings: periodic, and pooled without remainder."""
    if footprint.ring is None or footprint.scale != 1:
        return ()
    return tuple(
        axis
        for axis, (n, beyond) in enumerate(zip(grid.shape, grid.beyond, strict=True))
        if beyond == "periodic" and n % footprint.multiple == 0 and n >= footprint.minimum
    )


def valid_domain(grid: Grid, footprint: Footprint) -> Window:
    """The cells of a grid whose outputs see nothing that may not be made up.

    Raises:
        GeometryError: If there is none.
    """
    start, stop, step = [], [], footprint.multiple
    for axis, (n, beyond) in enumerate(zip(grid.shape, grid.beyond, strict=True)):
        low, high = (footprint.low, footprint.margin) if beyond == "refuse" else (0, 0)
        # the cells of a block see as far as the block does
        end = low + (n - high - low) // step * step if beyond == "refuse" else n
        if end <= low:
            raise GeometryError(
                f"axis {axis} has {n} cells and is not periodic, but outputs see "
                f"{footprint.margin} cells on each side: no output sees the field alone; use a "
                f"field of at least {low + step + high} cells, or say what to make up beyond the "
                f"edges (pad: reflect, edge or zero)"
            )
        start.append(low)
        stop.append(end)
    return Window(tuple(start), tuple(stop))


def best_size(
    grid: Grid, footprint: Footprint, most_cells: int | None = None, *, rings: bool = False
) -> Shape:
    """The size of tiles that reads the fewest cells in all, where a tile may read so many.

    Args:
        grid: Of the input.
        footprint: Of the model.
        most_cells: Input cells that a tile with its halo may have; default: any number.
        rings: Whether axes may be closed into rings, which read no halo.

    Raises:
        GeometryError: If even the smallest tile has more, or the model cannot be tiled.
    """
    domain = valid_domain(grid, footprint).shape
    most = MOST_CELLS if most_cells is None else most_cells
    step = footprint.multiple
    closed = possible_rings(grid, footprint) if rings else ()
    reads, totals, sizes = [], [], []
    for axis, n in enumerate(domain):
        counts = range(1, ceil(n / step) + 1)
        size = sorted({min(round_up(ceil(n / count), step), n) for count in counts})
        if footprint.whole is not None:
            size = [n]
        sizes.append(size)
        read = [n if s == n and axis in closed else footprint.input_size(s) for s in size]
        reads.append(np.array(read, float))
        rest = np.array([footprint.input_size(n % s) if n % s else 0 for s in size])
        totals.append(np.array([n // s for s in size]) * reads[-1] + rest)
    cells, total = outer(reads), outer(totals)
    if cells.min() > most:
        smallest = " x ".join(str(int(each.min())) for each in reads)
        if footprint.whole is not None:
            footprint.require_local(f"the model, which needs all {smallest} cells at once,")
        raise GeometryError(
            f"the smallest tile reads {smallest} cells with its halo, but the memory allowed is "
            f"enough for {most} cells; allow {cells.min() / max(most, 1):.1f} times as much"
        )
    # of equal costs, the one that reads the longest rows
    best = np.flatnonzero(total.ravel() == total[cells <= most].min())
    best = best[cells.ravel()[best] <= most][-1:]
    where = np.unravel_index(int(best[0]), total.shape)
    return tuple(size[int(i)] for size, i in zip(sizes, where, strict=True))


def outer(vectors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Products of one number of each vector, shape (len(first), len(second), …)."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = product[..., None] * vector
    return product


def take(values: Array, window: Window, grid: Grid, out: Array) -> None:
    """Copy a window of an array in memory, whatever lies beyond its edges.

    Args:
        values: Shape (channel, *space).
        window: Cells to copy; it may reach beyond the grid.
        grid: What lies beyond the edges.
        out: Where they go, shape (channel, *window.shape).
    """
    for piece in pieces(window, grid):
        there = out[(slice(None), *piece.target)]
        if piece.is_zero:
            there[...] = 0
        else:
            mirrored = tuple(1 + axis for axis in piece.reverse)
            there[...] = np.flip(values[(slice(None), *piece.source)], mirrored)


def reached(marked: NDArray[np.bool_], tile: Tile, footprint: Footprint) -> NDArray[np.bool_]:
    """Which outputs of a tile see a marked input, as far as the footprint tells.

    Args:
        marked: Input cells, shape of the window that the tile reads.
        tile: The tile.
        footprint: Of the model.

    Returns:
        Output cells, shape of the tile's target.
    """
    if footprint.whole is not None:
        return np.full(tile.target.shape, bool(marked.any()))
    step, margin = footprint.multiple, footprint.margin
    for axis in tile.rings:
        # what the halo would have held
        n = marked.shape[axis]
        cells = np.arange(-footprint.low, n + margin + step) - (footprint.ring or 0)
        marked = marked.take(cells % n, axis)
    for axis, n in enumerate(tile.cells.shape):
        # cells marked so far along the axis; a block of outputs sees those between two positions
        counts = np.cumsum(marked, axis=axis, dtype=np.int64)
        counts = np.concatenate([np.zeros_like(counts.take([0], axis)), counts], axis)
        low_side = (
            footprint.low if axis in tile.rings else tile.cells.start[axis] - tile.read.start[axis]
        )
        blocks = low_side + step * np.arange(ceil(n / step))
        last = marked.shape[axis]
        low, high = (
            counts.take(np.clip(edge, 0, last), axis)
            for edge in (blocks - margin, blocks + step + margin)
        )
        marked = (high > low).repeat(step * footprint.scale, axis)
        marked = marked.take(np.arange(n * footprint.scale), axis)
    return marked


def overlapping(
    tiles: Iterable[Tile],
    read: Callable[[Tile], T],
    compute: Callable[[Tile, T], Any],
    write: Callable[[Tile, Any], None],
) -> None:
    """Read the next tile and write the last one while one is computed.

    Args:
        tiles: In the order of their computation.
        read: Called in a thread of its own.
        compute: Called in the caller's thread.
        write: Called in a thread of its own, for one tile after another.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        written: Future[None] | None = None
        waiting: tuple[Tile, Future[T]] | None = None

        def finish(tile: Tile, values: Future[T]) -> Future[None]:
            output = compute(tile, values.result())
            if written is not None:
                written.result()
            return writer.submit(write, tile, output)

        for tile in tiles:
            ahead = reader.submit(read, tile)
            if waiting is not None:
                written = finish(*waiting)
            waiting = tile, ahead
        if waiting is not None:
            finish(*waiting).result()
