"""FactorizedFNO: a Fourier neural operator whose convolutions are along axes (Tran et al. 2023)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from map2map.models.conv import CONV
from map2map.models.operators import Operator, Positions, check_positive
from map2map.models.spectral import SpectralConv, along, turns_along

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
        super().__init__(
            in_chan,
            out_chan,
            ndim=ndim,
            width=width,
            modes=modes,
            depth=depth,
            padding=padding,
            positions=positions,
        )
        check_positive(expansion=expansion)
        self.expansion, self.shared = expansion, shared
        self.spectral = nn.ModuleList(
            nn.ModuleList(SpectralConv(width, width, (m,)) for m in self.each)
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
        each = enumerate(self.each, start=2)
        turns = [turns_along(x, axis, modes, self.padding) for axis, modes in each]
        for i, feed in enumerate(self.feed):
            convs: Any = self.spectral[0 if self.shared else i]
            parts = [along(convs[axis], x, axis, turn) for axis, turn in enumerate(turns)]
            x = x + feed(sum(parts[1:], start=parts[0]))
        return x

    def _leave_out(self, known: Sequence[int]) -> None:
        for convs in self.spectral:
            for conv, few in zip(list[Any](convs.children()), known, strict=True):
                conv.leave_out([few])
