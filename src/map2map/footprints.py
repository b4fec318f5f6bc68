"""Footprint: which input cells an output cell depends on. Stated by a model, or measured.

Training and applying both ask it for the halo to read around a crop, so what was trained is what
is applied. In one dimension, for a crop of n cells that starts at a multiple of `multiple`:

```
        low                n               high
   ├───────────┼───────────────────────┼───────────┤   input that is read: `halo_for`
       ├───────┼───────────────────────┼───────┤       output: `cut` cells fewer per side
               ├───────────────────────┤               what is kept of it: `kept`
```
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from torch import nn

from map2map.errors import GeometryError
from map2map.probes import Prober, same_random_numbers
from map2map.typing import Shape
from map2map.windows import Halo, round_up

__all__ = ["Footprint", "footprint_of", "measure"]

MOST_CELLS = 1 << 20
"""Of an input that is computed only to name the layer that spreads every cell."""

MANY = 32
"""Outputs on an axis that are looked at to tell whether far cells change one."""


@dataclass(frozen=True)
class Footprint:
    """Which input cells an output cell depends on, alike on every axis.

    Args:
        margin: Cells that have to be read on each side of a block of outputs that starts and ends
            at multiples of ``multiple``, for the block to be what it is in an infinite field.
        multiple: Shifts of the input by a multiple of this shift the output; tiles start there.
        scale: Output cells per input cell.
        cut: Output cells that are missing on each side, compared with the input. If not given,
            those of the margin: valid convolutions. Zero: a model that pads.
        remainder: What input sizes leave when divided by ``multiple``.
        minimum: The smallest input size; if not given, the smallest that leaves an output.
        whole: Not None if an output cell depends on the whole domain; then names the cause, and
            the model must not be tiled. ``margin`` is what is cut off.
        ring: Not None if nothing but valid convolutions mixes cells, and cuts follow their outputs:
            then a periodic axis that is computed at once can be closed into a ring, by convolutions
            that continue at the other end, instead of reading a halo. The number is the first of
            the cells that are pooled together if an output block starts at 0.
        reduces: Whether the output is numbers for the whole input, without axes, (batch, channel).
            Nothing can be tiled then, or is read around a crop: the cause in ``whole`` is this if
            no other is given.
        sizes: Not None if there is one input only that the model takes, so many cells per axis:
            then its weights know positions, which is the cause in ``whole`` if no other is given.
        ragged: Whether sizes that are no multiples are taken, too, and what the model makes up for
            the last, smaller block is on its high side alone: then a field that ends there, where
            the model pads, is read to its end and no further.

    >>> unet = Footprint(margin=20, multiple=4)
    >>> unet.halo_for((32, 30))
    Halo(low=(20, 20), high=(20, 22))
    >>> unet.kept((32, 30))
    (slice(0, 32, None), slice(0, 30, None))
    """

    margin: int
    multiple: int = 1
    scale: int = 1
    cut: int = -1
    remainder: int = 0
    minimum: int = -1
    whole: str | None = None
    ring: int | None = field(default=None, compare=False)
    reduces: bool = False
    sizes: Shape | None = None
    ragged: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.margin < 0 or self.multiple < 1 or self.scale < 1:
            raise GeometryError(
                f"{self}: `margin` must be 0 or more, `multiple` and `scale` 1 or more"
            )
        if self.cut < 0:
            object.__setattr__(self, "cut", self.margin * self.scale)
        if self.cut > self.margin * self.scale:
            raise GeometryError(f"{self}: `cut` cannot be more than `margin` times `scale`")
        if self.reduces and (self.margin or self.ring is not None):
            raise GeometryError(
                f"{self}: an output without axes has neither a `margin` nor a `ring`"
            )
        if self.reduces and self.whole is None:
            object.__setattr__(self, "whole", "its output is numbers for all of the input")
        if self.sizes is not None:
            self._check_sizes()
        if not 0 <= self.remainder < self.multiple:
            raise GeometryError(f"{self}: `remainder` must be from 0 to {self.multiple - 1}")
        minimum = self.fitting(2 * self.cut // self.scale + 1)  # leaves an output
        object.__setattr__(self, "minimum", minimum)

    def _check_sizes(self) -> None:
        sizes = tuple(self.sizes or ())
        if self.margin or self.multiple > 1 or not sizes or min(sizes) < 1:
            raise GeometryError(
                f"{self}: a model that takes inputs of one shape has no `margin` nor `multiple`, "
                f"and `sizes` are 1 or more"
            )
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "minimum", min(sizes))
        if self.whole is None:
            object.__setattr__(self, "whole", "its weights know positions")

    @property
    def is_valid(self) -> bool:
        """Whether the model cuts off every output for which it would have to make up inputs."""
        return ceil(self.cut / self.scale) == self.margin

    @property
    def low(self) -> int:
        """Input cells to read below a crop, the same for every crop.

        A model that pads accepts only multiples, and the phase of its levels is that of a whole
        field, read from cell 0; so it needs the margin rounded up. (A halo of the bare margin
        moves the phase: the result is wrong by as much as the field itself.)
        """
        return self.margin if self.is_valid else round_up(self.margin, self.multiple)

    def input_size(self, crop: int) -> int:
        """Input cells to read for ``crop`` input cells of output: the halo and what rounds it up.

        Of a model that reduces or takes one shape, the crop itself: other cells would be seen as
        those of the crop.

        Raises:
            GeometryError: If the crop is empty.
        """
        if crop < 1:
            raise GeometryError(f"a crop needs at least one cell, not {crop}")
        if self.reduces or self.sizes is not None:
            return crop
        filled = crop if self.is_valid else round_up(crop, self.multiple)
        return self.fitting(self.low + filled + self.margin)

    def halo_for(self, crop: Shape) -> Halo:
        """The halo to read around a crop (input cells); larger on the high side if it must be.

        Raises:
            GeometryError: If the crop is empty.
        """
        high = tuple(self.input_size(n) - self.low - n for n in crop)
        return Halo((self.low,) * len(crop), high)

    def kept(self, crop: Shape) -> tuple[slice, ...]:
        """The cells of the output that are the crop, if its halo is `halo_for`."""
        start = self.scale * self.low - self.cut
        return tuple(slice(start, start + self.scale * n) for n in crop)

    def output_size(self, size: int) -> int:
        """Output cells for so many input cells.

        Raises:
            GeometryError: If the model does not take this size, or its output has no cells.
        """
        self.require_field("the model")
        if not self.accepts(size):
            raise GeometryError(
                f"the model does not take {size} cells, a crop with its halo: "
                f"{self.sizes_near(size)}; change the crop or the halo (`auto` computes it)"
            )
        return self.scale * size - 2 * self.cut

    def accepts(self, size: int) -> bool:
        """Whether the model takes so many input cells, on some axis."""
        if self.sizes is not None:
            return size in self.sizes
        return size >= self.minimum and (self.ragged or size % self.multiple == self.remainder)

    def sizes_near(self, size: int) -> str:
        """The allowed sizes, and the nearest, for a message."""
        if self.sizes is not None:
            return f"it takes {' x '.join(map(str, self.sizes))} cells only"
        if self.ragged:
            return f"sizes are {self.minimum} and all above"
        above = self.fitting(max(size, self.minimum))
        below = above - self.multiple
        near = f"{below} or {above}" if below >= self.minimum else f"{above}"
        first = self.minimum
        return f"sizes are {first}, {first + self.multiple}, …; the nearest is {near}"

    def check_input(self, shape: Sequence[int], *, ndim: int, who: str) -> None:
        """Refuse an input of another rank or size.

        Args:
            shape: (batch, channel, *space).
            ndim: Number of axes of space.
            who: The model, for the message.

        Raises:
            GeometryError: If the model does not take this shape.
        """
        if len(shape) != ndim + 2:
            raise GeometryError(
                f"{who} takes (batch, channel, and {ndim} axes of space), not a tensor of shape "
                f"{tuple(shape)}"
            )
        if self.sizes is not None:
            self.check_sizes(shape[2:], who)
            return
        for axis, size in enumerate(shape[2:]):
            if not self.accepts(size):
                raise GeometryError(
                    f"{who} cannot take {size} cells (axis {axis} of {tuple(shape[2:])}): "
                    f"{self.sizes_near(size)}; it cuts off {self.cut} cells per side, so read a "
                    f"halo of {self.low} around a crop"
                )

    def check_sizes(self, space: Sequence[int], who: str) -> None:
        """Refuse another shape, if the model takes one only.

        Raises:
            GeometryError: If it is another.
        """
        if self.sizes is not None and tuple(space) != self.sizes:
            raise GeometryError(
                f"{who} cannot take {' x '.join(map(str, space))} cells, because its weights are "
                f"those of one grid: {self.sizes_near(0)}; make one for the grid of the data and "
                f"train it, or bring the data to this grid"
            )

    def require_local(self, who: str) -> None:
        """Refuse to tile a model that sees the whole domain.

        Raises:
            GeometryError: If it does; names the cause.
        """
        if self.whole is not None:
            raise GeometryError(
                f"{who} cannot be tiled exactly, because every output cell depends on the whole "
                f"domain: {self.whole}; apply it to the whole domain at once, or replace that layer"
            )

    def require_field(self, who: str) -> None:
        """Refuse a model that reduces where a field is to come out.

        Raises:
            GeometryError: If it does.
        """
        if self.reduces:
            raise GeometryError(
                f"{who} gives numbers for the whole input, not a field on a grid, so there is "
                f"nothing to put together from tiles; give it whole inputs in batches"
            )

    def fitting(self, size: int) -> int:
        """The smallest allowed input size that is not below ``size``."""
        size = max(size, self.minimum, 1)
        return size + (self.remainder - size) % self.multiple


def footprint_of(module: nn.Module, in_chan: int, ndim: int) -> Footprint:
    """The footprint that a module states, or else the one measured; the caller may keep it."""
    stated = getattr(module, "footprint", None)
    return stated if isinstance(stated, Footprint) else measure(module, in_chan, ndim)


def measure(module: nn.Module, in_chan: int, ndim: int, *, max_reach: int = 0) -> Footprint:
    """The footprint of any module, found by running a copy with random weights on the CPU.

    A NaN is put into the input, to see which outputs it reaches, and the input is shifted, to see
    by how much it must be for the output to shift along.

    Args:
        module: Takes (batch, in_chan, *space); not changed.
        in_chan: Channels of its input.
        ndim: Axes of its input.
        max_reach: A cell that reaches further is taken to reach the whole domain. If not given,
            1000 cells in 1-D, 200 in 2-D and 100 in 3-D.

    Raises:
        GeometryError: If the module takes no input, or its output is no multiple of it.
    """
    with same_random_numbers():
        prober = Prober(module, in_chan, ndim)
        rule = prober.sizes()
        if rule is None:
            size = prober.maximum
            cause = None if size**ndim > MOST_CELLS else prober.culprit(size)[0]
            spreads = f"{cause or prober.name} spreads every cell"
            return Footprint(0, minimum=prober.minimum, whole=spreads, reduces=prober.reduces)
        multiple, remainder, minimum, scale, cut = rule
        bare = Footprint(ceil(cut / scale), multiple, scale, cut, remainder, minimum)
        reach, whole = _reach(prober, bare, max_reach or {1: 1000, 2: 200}.get(ndim, 100))
        if whole is None:
            return _local(prober, bare, reach)
        return replace(bare, whole=whole)


def _reach(prober: Prober, bare: Footprint, max_reach: int) -> tuple[int, str | None]:
    """How many input cells away from the middle one outputs depend on it, or why on all."""
    # long where the other axes allow it, so that a wide dilation does not step over the edges
    spare = min(512, 2**16 // bare.minimum ** (prober.ndim - 1))
    size = bare.fitting(bare.minimum + max(8, 2 * bare.multiple, spare))
    if prober.is_random(size):
        return 0, "it draws random numbers, which differ from tile to tile"
    suspect = ""
    while True:
        middle, reach, reached = size // 2, 0, [True]
        for axis in range(prober.ndim):
            reached = prober.reached(size, axis, middle)
            if reached[0] or reached[-1]:
                break
            cells = [input_cell(bare, j) - middle for j, hit in enumerate(reached) if hit]
            reach = max([reach, *map(abs, cells)])
        else:
            return reach, None
        culprit, is_conv = prober.culprit(size)
        # a layer that spreads a cell over a field, and over a larger one, has no reach
        if all(reached) and culprit == suspect and not is_conv:
            return 0, f"{culprit} spreads every cell"
        if suspect and size - bare.minimum > 2 * max_reach:
            return 0, f"a cell reaches more than {size // 2} others on each side"
        suspect = culprit
        size = bare.fitting(2 * size - bare.minimum)


def input_cell(footprint: Footprint, output: int) -> int:
    """The input cell that an output cell lies in."""
    return (footprint.cut + output) // footprint.scale


def _local(prober: Prober, bare: Footprint, reach: int) -> Footprint:
    """The footprint of a model whose reach in cells is known."""
    step, scale = bare.multiple, bare.scale
    for shift in range(step, max(2 * reach + 1, step) + 1, step):
        edge = reach + shift  # outputs nearer to an edge may depend on what lies beyond it
        size = bare.fitting(bare.minimum + 2 * edge + shift + 8)
        drop = max(0, scale * edge - bare.cut)
        if not prober.moves_with(shift, size, drop, scale):
            continue
        found = replace(bare, multiple=shift)
        if drop and not prober.moves_with(shift, size, 0, scale):
            margin = max(bare.margin, _margin(prober, bare, shift, edge))
            found = _hiding_edges(prober, replace(found, margin=margin), size, edge)
        elif scale > 1 and _margin(prober, bare, shift, edge, found.low) > found.margin:
            # nothing is made up, but blocks that start there see further on one side
            found = replace(found, margin=max(bare.margin, _margin(prober, bare, shift, edge)))
        if not _ignores_others(prober, found):
            return replace(bare, whole="values far away change it, as where cells are ranked")
        return found
    return replace(bare, whole="no shift of the input shifts its output, so it knows positions")


def _hiding_edges(prober: Prober, found: Footprint, size: int, edge: int) -> Footprint:
    """The footprint, its margin wide enough to hide where the input ends.

    That may be seen from further away than values are: a graph network's weights know how many
    neighbors a cell has, which are fewer at an edge.
    """
    step, scale = found.multiple, found.scale
    for margin in range(found.margin, edge):
        drop = max(0, scale * round_up(margin, step) - found.cut)
        if prober.moves_with(step, size, drop, scale):
            return replace(found, margin=margin)
    return replace(found, margin=max(found.margin, edge))


def _ignores_others(prober: Prober, found: Footprint) -> bool:
    """Whether blocks of outputs are the same when all inputs that they do not see are others."""
    step, scale, margin = found.multiple, found.scale, found.margin
    cells = round_up(MANY, step)
    # twice as many others as are seen
    size = found.fitting(found.minimum + 3 * (cells + 2 * margin + step))
    first = round_up((size - cells) // 2, step) + found.low % step
    seen = slice(max(0, first - margin), first + cells + margin)
    block = slice(scale * first - found.cut, scale * (first + cells) - found.cut)
    return prober.stays(size, seen, block)


def _margin(prober: Prober, bare: Footprint, multiple: int, edge: int, start: int = 0) -> int:
    """How far beyond blocks of ``multiple`` cells from ``start`` they see, over every cell."""
    size = bare.fitting(bare.minimum + 2 * (edge + multiple) + 8)
    first = round_up(size // 2, multiple)
    margin = 0
    for axis in range(prober.ndim):
        for cell in range(first, first + multiple):
            reached = [j for j, hit in enumerate(prober.reached(size, axis, cell)) if hit]
            if reached:
                low, high = (
                    start + (input_cell(bare, j) - start) // multiple * multiple
                    for j in (reached[0], reached[-1])
                )
                margin = max(margin, high - cell, cell - (low + multiple - 1))
    return margin
