"""Upsampling without weights: what networks for super-resolution are compared with.

Coarse and fine cells share their boxes: of the ``scale_factor`` finer cells in one, the centers lie
around its own.
"""

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import check_ndim, resample

__all__ = ["FourierUpsampling", "LinearUpsampling"]


class LinearUpsampling(nn.Module):
    """Linear interpolation between the centers of cells: bilinear in 2-D, trilinear in 3-D.

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
        check_arguments(self, (in_chan, out_chan), scale_factor)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor = scale_factor
        self.footprint = Footprint(1, scale=scale_factor, cut=max(scale_factor // 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, in_chan, *finer space).

        Raises:
            GeometryError: If there are too few cells.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        return resample(x, self.scale_factor)


class FourierUpsampling(nn.Module):
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

    def __init__(
        self, in_chan: int, out_chan: int, *, ndim: int = 3, scale_factor: int = 2
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        check_arguments(self, (in_chan, out_chan), scale_factor)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.scale_factor = scale_factor
        self.footprint = Footprint(
            0, scale=scale_factor, whole="FourierUpsampling continues its spectrum"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, in_chan, *finer space).

        Raises:
            GeometryError: If there are other axes.
        """
        if x.ndim != self.ndim + 2:
            raise GeometryError(
                f"FourierUpsampling takes (batch, channel, and {self.ndim} axes of space), not a "
                f"tensor of shape {tuple(x.shape)}"
            )
        y = x
        for axis in range(2, self.ndim + 2):
            matrix = periodic_sinc(y.shape[axis], self.scale_factor, y)
            y = torch.matmul(y.movedim(axis, -1), matrix.T).movedim(-1, axis)
        return y


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


def check_arguments(model: nn.Module, chans: tuple[int, int], factor: int) -> None:
    """Refuse what cannot be interpolated.

    Raises:
        RecipeError: If channels differ, or the factor is not above 1.
    """
    if chans[0] != chans[1] or factor < 2:
        raise RecipeError(
            f"{type(model).__name__} gives the channels that it takes on a finer grid: `in_chan` "
            f"({chans[0]}) and `out_chan` ({chans[1]}) must be equal, and `scale_factor` "
            f"({factor}) at least 2"
        )
