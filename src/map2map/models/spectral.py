"""Spectral convolutions: the lowest Fourier modes of a field, mixed between channels, and back.

Vocabulary that the operator models share, like conv.py. A discrete Fourier transform of which only
a few modes are wanted is a product with a thin matrix of cosines and sines, made from the shape
within the graph; so there are no complex tensors, and one exported graph holds for all sizes. Where
as many modes are wanted as there are, it is still exact, only slower than an FFT.

Coefficients are means over the domain ("forward" normalization), so a field has the same ones on
every grid that resolves it, and weights trained on one grid are right on another.
"""

from collections.abc import Sequence
from math import ceil, pi, prod

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.models.conv import check_ndim

__all__ = ["SpectralConv", "along", "modes_of", "modes_on", "turns_along", "turns_of"]


class SpectralConv(nn.Module):
    """A convolution with the whole periodic domain, by the lowest modes of its kernel.

    Modes are k = 0, …, ``modes`` - 1 on the last axis and -(``modes`` - 1), …, ``modes`` - 1 on all
    others, which is both halves of the spectrum of a real field. Modes that a grid of n cells does
    not have, |k| >= n / 2, are zero on it, the Nyquist mode too, whose phase a grid does not tell.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        modes: How many are kept on each axis, the mean among them.
    """

    def __init__(self, in_chan: int, out_chan: int, modes: Sequence[int]) -> None:
        super().__init__()
        check_ndim(len(modes))
        self.in_chan, self.out_chan, self.modes = in_chan, out_chan, tuple(modes)
        kept = prod(2 * m - 1 for m in self.modes[:-1]) * self.modes[-1]
        # real parts of all modes, then imaginary ones, so that casts, files and exports see real
        # numbers; of three axes, because others could be taken for those of a convolution
        self.weight = nn.Parameter(torch.empty(2 * kept, in_chan, out_chan))
        nn.init.normal_(self.weight, std=(in_chan + out_chan) ** -0.5)

    @torch.no_grad()
    def leave_out(self, known: Sequence[int]) -> None:
        """Let modes do nothing that are beyond so many on each axis."""
        keep = torch.ones(1, dtype=torch.bool, device=self.weight.device)
        last = len(self.modes) - 1
        for axis, (modes, few) in enumerate(zip(self.modes, known, strict=True)):
            k = torch.arange(0 if axis == last else 1 - modes, modes, device=keep.device)
            keep = (keep[:, None] & (k.abs() < few)).flatten()
        self.weight.mul_(keep.repeat(2)[:, None, None])

    def forward(self, x: Tensor, turns: list[Tensor]) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Args:
            x: The field.
            turns: The matrices of its axes, `turns_of`.
        """
        z = x.to(turns[-1].dtype)
        if not torch.is_autocast_enabled(x.device.type):
            return self._convolved(z, turns).to(x.dtype)
        # half precision would not tell apart the phases of neighboring cells
        with torch.autocast(x.device.type, enabled=False):
            return self._convolved(z, turns).to(x.dtype)

    def _convolved(self, x: Tensor, turns: list[Tensor]) -> Tensor:
        """The pair of real and imaginary parts stands in front of the modes that are found already.

        So every step is one product of matrices, and nothing has to be moved between them.
        """
        *others, last = turns
        z = torch.unflatten(x @ last.mT, -1, (2, -1))
        for axis in reversed(range(len(others))):
            # (…, cells, 2, modes) to (…, 2 modes of this axis, modes of those behind)
            z = others[axis] @ z.flatten(2 + axis, 3 + axis)
            z = torch.unflatten(z, -2, (2, -1)).flatten(-2)
        z = self._mixed(z)
        for axis, turn in enumerate(others):
            z = torch.unflatten(z, -1, (2 * self.modes[axis] - 1, -1)).flatten(-3, -2)
            z = torch.unflatten(turn.mT @ z, 2 + axis, (-1, 2))
        return z.flatten(-2) @ last

    def _mixed(self, z: Tensor) -> Tensor:
        """Every mode's own matrix of complex numbers, applied to channels of (…, chan, 2, mode)."""
        re, im = self._weights(z.dtype)
        matrix = torch.cat([torch.cat([re, im], dim=-1), torch.cat([-im, re], dim=-1)], dim=-2)
        # (mode, batch, 2 chan), so that it is one batched product
        mixed = z.permute(3, 0, 2, 1).flatten(2) @ matrix
        return torch.unflatten(mixed, -1, (2, -1)).permute(1, 3, 2, 0)

    def _weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts, (mode, in_chan, out_chan)."""
        re, im = self.weight.to(dtype).chunk(2)
        return re, im


def waves(k: Tensor, x: Tensor, axis: int, padding: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of modes on the cells of an axis, (mode, cell); zero if the grid has none.

    They are over the root of the number of cells: a matrix of them and its transpose together make
    means and then sums of them.

    Args:
        k: Cycles per domain with its padding, whole numbers.
        x: The field, from which sizes are.
        axis: Of the field.
        padding: What is added to the domain: a share of it, or cells.
    """
    j = torch.arange(x.shape[axis], device=x.device).to(k.dtype)
    # a tensor, because a graph for all sizes holds no numbers of cells
    cells = j[-1:] + 1
    cells = cells + padding if padding >= 1 else cells * (1 + padding)
    # whole turns are taken off first, so that phases are as exact on large grids as on small ones
    steps = k[:, None] * j
    phase = (steps - (steps / cells).floor() * cells) * (2 * pi / cells)
    size = (2 * k.abs()[:, None] < cells) / cells.sqrt()
    return phase.cos() * size, phase.sin() * size


def turns_along(x: Tensor, axis: int, modes: int, padding: float = 0.0) -> Tensor:
    """The matrix (2 mode, cell) from real values to coefficients of modes from 0 on.

    Modes below the mean are those above it, conjugate, so these count twice.
    """
    k = torch.arange(modes, device=x.device).to(torch.promote_types(x.dtype, torch.float32))
    cos, sin = waves(k, x, axis, padding)
    twice = 1 + k.clamp(max=1)[:, None]
    return torch.cat([cos, -sin]) * torch.cat([twice, twice]).sqrt()


def turns_of(x: Tensor, modes: Sequence[int], padding: float = 0.0) -> list[Tensor]:
    """The matrices of a spectral convolution of all axes of (batch, channel, *space).

    They are made anew from the sizes, which costs little beside the products: of the last axis as
    `turns_along`, of the others (2 mode, cell 2), from complex values to modes of both signs.
    """
    found = []
    for axis, m in enumerate(modes[:-1], start=2):
        k = torch.arange(1 - m, m, device=x.device).to(torch.promote_types(x.dtype, torch.float32))
        cos, sin = waves(k, x, axis, padding)
        pairs = [torch.cat([cos, -sin]), torch.cat([sin, cos])]
        found.append(torch.stack(pairs, dim=-1).flatten(1))
    return [*found, turns_along(x, x.ndim - 1, modes[-1], padding)]


def along(conv: SpectralConv, x: Tensor, axis: int, turn: Tensor) -> Tensor:
    """A convolution of one axis, applied along an axis of (batch, channel, *space).

    Args:
        conv: Of one axis.
        x: The field.
        axis: Of space.
        turn: The matrix of the axis, `turns_along`.
    """
    lines = x.movedim(1, -1).movedim(axis + 1, -1)  # (batch, *others, channel, cell)
    y = torch.unflatten(conv(lines.flatten(0, -3), [turn]), 0, lines.shape[:-2])
    return y.movedim(-1, axis + 1).movedim(-1, 1)


def modes_on(cells: int, padding: float = 0.0) -> int:
    """How many modes an axis of so many cells has, the mean among them; see `waves`.

    >>> modes_on(16), modes_on(17), modes_on(16, padding=0.25), modes_on(16, padding=2)
    (8, 9, 10, 9)
    """
    return ceil((cells + padding if padding >= 1 else cells * (1 + padding)) / 2)


def modes_of(modes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Modes of every axis, from one number for all or one for each.

    Raises:
        RecipeError: If there are others, or none is kept.
    """
    check_ndim(ndim)
    each = (modes,) * ndim if isinstance(modes, int) else tuple(modes)
    if len(each) != ndim or min(each) < 1:
        raise RecipeError(
            f"`modes` is {modes!r}, but must be one number for all axes or one for each of the "
            f"{ndim}, all of them at least 1 (the mean)"
        )
    return each
