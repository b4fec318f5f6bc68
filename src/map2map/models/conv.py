"""Blocks of valid convolutions, spelled as words such as "CBACBA", and how to narrow a field.

The vocabulary that the models share: they import this file, but never each other. Nothing here
pads: a convolution of width 3 cuts one cell off every side, so that no value is ever made up.
The names of parameters are map2map's, so that its states load.
"""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit._trace import is_tracing

from map2map.errors import GeometryError, RecipeError
from map2map.models.styled import through

__all__ = [
    "ConvBlock",
    "ResBlock",
    "Resampler",
    "narrow_by",
    "narrow_cast",
    "narrow_like",
    "resample",
]

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}
BLOCK_SLOPE = 0.01
"""What leaky ReLUs of blocks multiply negative values by; PyTorch's own."""


def check_axes(x: Tensor, in_chan: int, ndim: int, who: str) -> None:
    """Refuse another number of channels or axes than a network takes.

    Raises:
        GeometryError: If there is one.
    """
    if x.ndim != ndim + 2 or x.shape[1] != in_chan:
        raise GeometryError(
            f"{who} takes (batch, {in_chan} channels, {ndim} axes of space), not a tensor of shape "
            f"{tuple(x.shape)}"
        )


def check_ndim(ndim: int) -> None:
    """Refuse what there are no convolutions for.

    Raises:
        RecipeError: If there are not 1, 2 or 3 axes.
    """
    if ndim not in CONV:
        raise RecipeError(f"`ndim` is {ndim!r}, but there are convolutions on 1, 2 or 3 axes only")


class ConvBlock(nn.Module):
    """A sequence of layers, one per letter.

    - C: convolution of width `kernel_size` and step `stride`, without padding
    - U: transposed convolution that doubles the cells
    - D: convolution of width 2 that halves the cells
    - B: batch normalization
    - A: activation, a leaky ReLU of slope 0.01

    The first of C, U and D takes `in_chan` channels, the last one gives `out_chan`, and between
    them there are `mid_chan`. The parameters of the i-th letter are called ``convs.<i>.*``.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output; as many as in the input if not given.
        mid_chan: Channels in between; the larger of the other two if not given.
        kernel_size: Width of C.
        stride: Step of C.
        seq: The letters.
        ndim: Number of axes.

    Raises:
        RecipeError: For an unknown letter, or channels that cannot change for want of a C, U or D.
    """

    letters = "CUDBA"

    def __init__(
        self,
        in_chan: int,
        out_chan: int | None = None,
        mid_chan: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        seq: str = "CBA",
        ndim: int = 3,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        check_letters(seq, self.letters, type(self).__name__)
        self.in_chan = in_chan
        self.out_chan = in_chan if out_chan is None else out_chan
        self.mid_chan = max(self.in_chan, self.out_chan) if mid_chan is None else mid_chan
        self.kernel_size, self.stride, self.seq, self.ndim = kernel_size, stride, seq, ndim
        self.convs = nn.Sequential(*self._layers(seq))

    def _layers(self, seq: str) -> list[nn.Module]:
        """One layer per letter."""
        convs = sum(letter in "CUD" for letter in seq)
        if convs == 0 and self.in_chan != self.out_chan:
            raise RecipeError(
                f"{seq!r} cannot turn {self.in_chan} channels into {self.out_chan}: "
                f"it has no convolution (C, U or D)"
            )
        inner = [self.mid_chan] * (convs - 1)
        chan, outs = self.in_chan, iter([*inner, self.out_chan])
        layers: list[nn.Module] = []
        for position, letter in enumerate(seq):
            if letter == "B":
                layers.append(BATCH_NORM[self.ndim](chan))
            elif letter == "A":
                # in place, but never on the block's own input, which others may still need
                layers.append(nn.LeakyReLU(BLOCK_SLOPE, inplace=position > 0))
            else:
                out = next(outs)
                layers.append(self._conv(letter, chan, out))
                chan = out
        return layers

    def _conv(self, letter: str, chan: int, out: int) -> nn.Module:
        if letter == "U":
            return TRANSPOSED[self.ndim](chan, out, 2, stride=2)
        if letter == "D":
            return CONV[self.ndim](chan, out, 2, stride=2)
        return CONV[self.ndim](chan, out, self.kernel_size, stride=self.stride)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Apply the layers to (batch, in_chan, *space); the space shrinks.

        Args:
            x: The input.
            style: (batch, style_chan), where a style acts on the convolutions.
        """
        for layer in self.convs:
            x = through(layer, x, style)
        return x


class ResBlock(ConvBlock):
    """A `ConvBlock` without U and D, to whose output its narrowed input is added.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output. If given, the input passes a convolution of width 1
            (``skip.*``) before it is added, even if the channels are as many.
        mid_chan: Channels in between; the larger of the other two if not given.
        kernel_size: Width of C.
        stride: Step of C; only 1.
        seq: The letters.
        ndim: Number of axes.
        last_act: Whether an A at the end acts on the sum rather than before it; if not given, it
            does.
    """

    letters = "CBA"

    def __init__(
        self,
        in_chan: int,
        out_chan: int | None = None,
        mid_chan: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        seq: str = "CBACBA",
        ndim: int = 3,
        *,
        last_act: bool | None = None,
    ) -> None:
        ends_in_act = seq.endswith("A")
        if last_act and not ends_in_act:
            warnings.warn(
                f"last_act has no effect on {seq!r}, which does not end in A",
                RuntimeWarning,
                stacklevel=2,
            )
        if stride != 1:
            raise RecipeError(f"`stride` of a ResBlock is {stride}, but its skip can only have 1")
        acts_on_sum = ends_in_act and last_act is not False
        super().__init__(
            in_chan, out_chan, mid_chan, kernel_size, stride, seq[:-1] if acts_on_sum else seq, ndim
        )
        self.seq, self.last_act = seq, last_act
        self.skip = nn.Identity() if out_chan is None else CONV[ndim](in_chan, self.out_chan, 1)
        self.act = nn.LeakyReLU(BLOCK_SLOPE, inplace=True) if acts_on_sum else nn.Identity()

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Apply the layers to (batch, in_chan, *space); the space shrinks."""
        y = super().forward(x, style)
        surplus = self.seq.count("C") * (self.kernel_size - 1)
        # narrowed before the skip, which is of width 1, so that it has less to compute
        narrowed = narrow_like(x, y, (surplus // 2, surplus - surplus // 2))
        result: Tensor = self.act(through(self.skip, narrowed, style) + y)
        return result


def check_letters(seq: str, allowed: str, block: str) -> None:
    """Refuse an unknown letter by name.

    Raises:
        RecipeError: If a letter is not allowed, or there is none.
    """
    if not seq:
        raise RecipeError(f"`seq` of a {block} is empty; spell it with {', '.join(allowed)}")
    for letter in seq:
        if letter not in allowed:
            raise RecipeError(
                f"unknown letter {letter!r} in `seq` {seq!r}; a {block} knows {', '.join(allowed)}"
            )


def narrow_by(x: Tensor, cells: int) -> Tensor:
    """Cut ``cells`` off every side of (batch, channel, *space); a view.

    Raises:
        GeometryError: If nothing would be left.
    """
    return cut_off(x, cells, cells)


def narrow_like(x: Tensor, like: Tensor, cut: tuple[int, int] | None = None) -> Tensor:
    """Cut x to the space of ``like``; an odd surplus is lost on the high side; a view.

    Args:
        x: (batch, channel, *space).
        like: (batch, channel, *smaller space).
        cut: Cells to cut off the low and high sides of every axis, if no axis is a ring; a graph
            that is made of the model has them instead of the sizes, and so holds for all sizes.

    Raises:
        GeometryError: If ``like`` is larger.
    """
    if cut is not None and (torch.compiler.is_exporting() or is_tracing()):  # type: ignore[no-untyped-call]
        return cut_off(x, *cut)
    return narrow_to(x, like.shape[2:])


def narrow_cast(*tensors: Tensor) -> list[Tensor]:
    """Cut all of (batch, channel, *space) to the smallest size on each axis; views."""
    sizes = [min(axis) for axis in zip(*(x.shape[2:] for x in tensors), strict=True)]
    return [narrow_to(x, sizes) for x in tensors]


def cut_off(x: Tensor, low: int, high: int) -> Tensor:
    """Cut so many cells off both sides of every axis of (batch, channel, *space); a view.

    The numbers are known before the sizes are, so that a graph made of this holds for all sizes.

    Raises:
        GeometryError: If nothing would be left.
    """
    for axis, n in enumerate(x.shape[2:]):
        if n <= low + high:
            raise GeometryError(
                f"cannot cut the {n} cells of axis {axis} to {n - low - high}; "
                f"from 1 to {n} are possible"
            )
    if low == high == 0:
        return x
    # -0 would leave nothing
    return x[(..., *[slice(low, -high or None)] * (x.ndim - 2))]


def adds_narrowed(y: Tensor, x: Tensor, cut: int) -> Tensor:
    """The sum of (batch, channel, *space) and x, which has ``cut`` cells more on every side."""
    return y + narrow_like(x, y, (cut, cut))


def narrow_to(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Cut (batch, channel, *space) to its middle cells, so many on every axis; a view."""
    if len(sizes) != x.ndim - 2:
        raise GeometryError(f"cannot cut {tuple(x.shape)} to {tuple(sizes)}: unequal dimensions")
    for axis, (n, size) in enumerate(zip(x.shape[2:], sizes, strict=True)):
        if size < 1 or size > n:
            raise GeometryError(
                f"cannot cut the {n} cells of axis {axis} to {size}; from 1 to {n} are possible"
            )
        if size < n:
            x = x.narrow(axis + 2, (n - size) // 2, size)
    return x


def resample(x: Tensor, scale_factor: float, *, narrow: bool = True) -> Tensor:
    """Interpolate linearly to ``scale_factor`` times as many cells, which share their box.

    Args:
        x: (batch, channel, *space).
        scale_factor: Cells of the output per cell of the input.
        narrow: Whether cells for which a value beyond the edge is made up are cut off, if the
            factor is above 1.
    """
    check_ndim(x.ndim - 2)
    factor = int(scale_factor)
    if factor == scale_factor and factor & (factor - 1):
        # positions in float32 would be less exact the farther they are from the array's start
        y = x
        for axis in range(2, x.ndim):
            y = divided(y, factor, axis)
    else:
        y = F.interpolate(
            x, scale_factor=scale_factor, mode=LINEAR_MODE[x.ndim - 2], align_corners=False
        )
    return narrow_by(y, max(round(scale_factor) // 2, 1)) if narrow and scale_factor > 1 else y


def divided(x: Tensor, factor: int, axis: int) -> Tensor:
    """Interpolate linearly to so many cells for each, along one axis.

    Each of them is a fixed combination of two neighbors, wherever in the array they are.
    """
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    below = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    above = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), last], axis)
    parts = []
    for k in range(factor):
        # from the center of the cell, in units of the cell
        place = (k + 0.5) / factor - 0.5
        other = below if place < 0 else above
        parts.append((1 - abs(place)) * x + abs(place) * other)
    return torch.stack(parts, axis + 1).flatten(axis, axis + 1)


class Resampler(nn.Module):
    """`resample` as a layer.

    Args:
        ndim: Number of axes.
        scale_factor: Cells of the output per cell of the input.
        narrow: Whether cells for which a value beyond the edge is made up are cut off.
    """

    def __init__(self, ndim: int, scale_factor: float, *, narrow: bool = True) -> None:
        super().__init__()
        check_ndim(ndim)
        self.ndim, self.scale_factor, self.narrow = ndim, scale_factor, narrow

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate (batch, channel, *space)."""
        return resample(x, self.scale_factor, narrow=self.narrow)
