"""FactorizedFNO: a Fourier neural operator whose convolutions are along axes (Tran et al. 2023)."""

from typing import Any

from torch import Tensor, nn

from map2map.models.conv import CONV
from map2map.models.spectral import (
    Operator,
    Positions,
    SpectralConv,
    along,
    check_positive,
    modes_of,
    turns_along,
)

__all__ = ["FactorizedFNO"]


class FactorizedFNO(Operator):
    """Layers of spectral convolutions along each axis and a feed-forward network, added up.

    Each layer adds to its input what a feed-forward network of width 1 makes of the sum of the
    convolutions along the axes. These have far fewer weights than an `FNO`'s, the more so in 3-D,
    and deep networks of them train well.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers.
        expansion: Channels inside feed-forward networks over ``width``.
        shared: Whether all layers have the same convolutions.
        padding: What is added to a domain that is not periodic: a share of it, or cells.
        positions: Whether it is told where cells are, ``cells`` or ``nodes``.

    Raises:
        RecipeError: If an argument is out of range.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 2,
        width: int = 32,
        modes: int | list[int] = 12,
        depth: int = 4,
        expansion: int = 2,
        shared: bool = False,
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
        check_positive(expansion=expansion)
        self.modes, self.expansion, self.shared = modes, expansion, shared
        self.spectral = nn.ModuleList(
            nn.ModuleList(SpectralConv(width, width, (m,)) for m in each)
            for _ in range(1 if shared else depth)
        )
        self.feed = nn.ModuleList(
            nn.Sequential(
                CONV[ndim](width, expansion * width, 1),
                nn.GELU(),
                CONV[ndim](expansion * width, width, 1),
            )
            for _ in range(depth)
        )

    def layers(self, x: Tensor) -> Tensor:
        """The layers."""
        each = enumerate(modes_of(self.modes, self.ndim), start=2)
        turns = [turns_along(x, axis, modes, self.padding) for axis, modes in each]
        for i, feed in enumerate(self.feed):
            convs: Any = self.spectral[0 if self.shared else i]
            parts = [along(convs[axis], x, axis, turn) for axis, turn in enumerate(turns)]
            x = x + feed(sum(parts[1:], start=parts[0]))
        return x
