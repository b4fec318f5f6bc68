"""Upsampling without weights: what networks for super-resolution are compared with.

Coarse and fine cells share their boxes: of the ``scale_factor`` finer cells in one, the centers lie
around its own.
"""

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import check_ndim, resample

__all__ = ["FourierUpsampling", "LinearUpsampling"]


class Upsampling(nn.Module):
    """What both share.

    Args:
        in_chan: Channels of the input.
        out_chan: As many.
        ndim: Number of axes.
        scale_factor: Output cells per input cell and axis.

    Raises:
        RecipeError: If channels differ, or the factor is not above 1.
    """

    def __init__(
        self, in_chan: int, out_chan: int, *, ndim: int = 3, scale_factor: int = 2
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        if in_chan != out_chan or scale_factor < 2:
            raise RecipeError(
                f"{type(self).__name__} gives the channels that it takes on a finer grid: "
                f"`in_chan` ({in_chan}) and `out_chan` ({out_chan}) must be equal, and "
                f"`scale_factor` ({scale_factor}) at least 2"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor = scale_factor

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, in_chan, *finer space).

        Raises:
            GeometryError: If there are too few cells, or other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        return self.finer(x)

    @property
    def footprint(self) -> Footprint:
        """What it sees."""
        raise NotImplementedError

    def finer(self, x: Tensor) -> Tensor:
        """The input on the finer grid."""
        raise NotImplementedError


class LinearUpsampling(Upsampling):
    """Linear interpolation between the centers of cells: bilinear in 2-D, trilinear in 3-D.

    Args:
        in_chan: Channels of the input.
        out_chan: As many.
        ndim: Number of axes.
        scale_factor: Output cells per input cell and axis.

    Raises:
        RecipeError: If channels differ, or the factor is not above 1.
    """

    @property
    def footprint(self) -> Footprint:
        """It sees the neighbors of a cell."""
        return Footprint(1, scale=self.scale_factor, cut=max(self.scale_factor // 2, 1))

    def finer(self, x: Tensor) -> Tensor:
        """Interpolated."""
        return resample(x, self.scale_factor)


class FourierUpsampling(Upsampling):
    """The one field without waves beyond the input's Nyquist that agrees with it.

    It continues the spectrum with zeros, and so sees the whole of a periodic domain. A wave at
    Nyquist, whose phase the input does not tell, is taken to have its crests at the cells.

    Along each axis that is a matrix product with the periodic sinc, a sum of cosines.

    Args:
        in_chan: Channels of the input.
        out_chan: As many.
        ndim: Number of axes.
        scale_factor: Output cells per input cell and axis.

    Raises:
        RecipeError: If channels differ, or the factor is not above 1.
    """

    @property
    def footprint(self) -> Footprint:
        """It sees all cells."""
        cause = "FourierUpsampling continues its spectrum"
        return Footprint(0, scale=self.scale_factor, whole=cause)

    def finer(self, x: Tensor) -> Tensor:
        """Continued."""
        for axis in range(2, self.ndim + 2):
            matrix = periodic_sinc(x.shape[axis], self.scale_factor, x)
            x = torch.matmul(x.movedim(axis, -1), matrix.T).movedim(-1, axis)
        return x


def periodic_sinc(size: int, factor: int, like: Tensor) -> Tensor:
    """What each of ``size`` cells gives to each of ``factor`` times as many.

    Args:
        size: Cells.
        factor: Finer cells per cell.
        like: Of the type and device that are wanted.

    Returns:
        Shape (factor * size, size).
    """
    cells = torch.arange(size, dtype=torch.float64, device=like.device)
    places = torch.arange(factor * size, dtype=torch.float64, device=like.device)
    places = (places + 0.5) / factor - 0.5
    waves = torch.arange(1, (size + 1) // 2, dtype=torch.float64, device=like.device)
    # cos(a - b) = cos a cos b + sin a sin b, so that nothing is of three axes
    a, b = (2 * torch.pi / size * waves * x[:, None] for x in (places, cells))
    total = 1 + 2 * (a.cos() @ b.cos().T + a.sin() @ b.sin().T)
    if size % 2 == 0:
        total = total + torch.cos(torch.pi * (places[:, None] - cells))
    return (total / size).to(like.dtype)
