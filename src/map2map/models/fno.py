"""FNO: the Fourier neural operator (Li et al. 2021)."""

from torch import Tensor, nn
from torch.nn.functional import gelu

from map2map.models.conv import CONV
from map2map.models.spectral import Operator, Positions, SpectralConv, modes_of, turns_of

__all__ = ["FNO"]


class FNO(Operator):
    """Layers of a spectral convolution beside one of width 1, with GELU between them.

    It sees the whole domain and takes fields of any size. Its weights act on the coefficients of
    Fourier modes, so that it can be trained on a coarse grid and applied to a finer one of the same
    domain.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers.
        padding: What is added to a domain that is not periodic: a share of it, or cells.
        positions: Whether it is told where cells are, ``cells`` or ``nodes``; then it knows where
            edges are, and no longer moves with its input.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 32,
        modes: int | list[int] = 12,
        depth: int = 4,
        padding: float = 0.0,
        positions: Positions = "none",
    ) -> None:
        each = modes_of(modes, ndim)
        super().__init__(
            in_chan,
            out_chan,
            ndim,
            width=width,
            depth=depth,
            padding=padding,
            positions=positions,
        )
        self.modes = modes
        self.spectral = nn.ModuleList(SpectralConv(width, width, each) for _ in range(depth))
        self.local = nn.ModuleList(CONV[ndim](width, width, 1) for _ in range(depth))

    def layers(self, x: Tensor) -> Tensor:
        """The layers."""
        turns = turns_of(x, modes_of(self.modes, self.ndim), self.padding)
        for i, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True)):
            x = spectral(x, turns) + local(x)
            if i + 1 < self.depth:
                x = gelu(x)
        return x
