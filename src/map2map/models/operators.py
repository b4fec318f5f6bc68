"""Operator: what networks of spectral convolutions share.

Their weights belong to modes, so those of modes that the grid of the training does not have get no
gradient. On a finer grid they would do what chance has made of them; `Operator.learn_on` lets them
do nothing instead.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from map2map.errors import RecipeError, near_names
from map2map.footprints import Footprint
from map2map.models.conv import CONV
from map2map.models.spectral import SpectralConv, modes_of, modes_on, turns_of

__all__ = ["BoxOperator", "Operator", "Positions", "check_positive"]

Positions = Literal["none", "cells", "nodes"]
"""What a network is told of where a cell is: nothing, its middle, or its lower edge."""


class Operator(nn.Module):
    """What networks of spectral convolutions share: what they are told, first and last layers.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers, which a model makes by itself.
        padding: What spectral convolutions add to the domain on the high side of every axis, if it
            is not periodic: a share of it below 1, or a whole number of cells. There they see
            zeros, and what they give there is cut off, so that opposite edges are no neighbors.
        positions: Whether a network is told where cells are, as shares of the domain: their
            middles (``cells``), or their lower edges (``nodes``), for values on corners.

    Raises:
        RecipeError: If an argument is out of range.

    Attributes:
        each: The modes of every axis.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int,
        width: int,
        modes: int | list[int],
        depth: int,
        padding: float,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.modes, self.each = modes, modes_of(modes, ndim)
        check_operator(padding, positions)
        check_positive(width=width, depth=depth)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.width, self.depth = width, depth
        self.padding, self.positions = padding, positions
        told = 0 if positions == "none" else ndim
        self.lift = CONV[ndim](in_chan + told, width, 1)
        self.project = nn.Sequential(
            CONV[ndim](width, 2 * width, 1), nn.GELU(), CONV[ndim](2 * width, out_chan, 1)
        )
        who = type(self).__name__
        self.footprint = Footprint(0, whole=f"the Fourier modes of {who} span it")

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        y: Tensor = self.project(self.layers(self.lift(self._placed(x))))
        return y

    def layers(self, x: Tensor) -> Tensor:
        """What a model is made of, from and to (batch, width, *space)."""
        raise NotImplementedError

    def learn_on(self, space: Sequence[int]) -> tuple[int, ...]:
        """Let modes do nothing that a grid does not have, before it is learnt on.

        Args:
            space: Cells per axis of the largest grid of the training.

        Returns:
            How many modes can be learnt on each axis.
        """
        known = [modes_on(n, self.padding) for n in space]
        self._leave_out(known)
        return tuple(min(pair) for pair in zip(self.each, known, strict=True))

    def _leave_out(self, known: Sequence[int]) -> None:
        """Of all spectral convolutions, the modes beyond so many on each axis."""
        raise NotImplementedError

    def _placed(self, x: Tensor) -> Tensor:
        """The input with coordinates from 0 to 1 as further channels."""
        if self.positions == "none":
            return x
        shift = 0.5 if self.positions == "cells" else 0.0
        blank, channels = torch.zeros_like(x[:, :1]), [x]
        for axis in range(2, x.ndim):
            j = torch.arange(x.shape[axis], device=x.device).to(x.dtype)
            shape = [-1 if i == axis else 1 for i in range(x.ndim)]
            channels.append(blank + ((j + shift) / (j[-1:] + 1)).reshape(shape))
        return torch.cat(channels, dim=1)


class BoxOperator(Operator):
    """Layers of a spectral convolution of all axes beside one of width 1, GELU between them.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        width: Channels of the layers.
        modes: Modes that are kept on every axis, or on each.
        depth: Number of layers.
        padding: What is added to a domain that is not periodic: a share of it, or cells.
        positions: Whether it is told where cells are, ``cells`` or ``nodes``.

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
        many = range(depth)
        self.spectral = nn.ModuleList(SpectralConv(width, width, self.each) for _ in many)
        self.local = nn.ModuleList(CONV[ndim](width, width, 1) for _ in many)

    def layers(self, x: Tensor) -> Tensor:
        """The layers."""
        turns = turns_of(x, self.each, self.padding)
        for i in range(self.depth):
            x = self.layer(i, x, turns)
            if i + 1 < self.depth:
                x = gelu(x)
        return x

    def layer(self, i: int, x: Tensor, turns: list[Tensor]) -> Tensor:
        """One of them, before GELU; ``turns`` are the matrices of its axes."""
        spectral: Any = self.spectral[i]
        y: Tensor = spectral(x, turns) + self.local[i](x)
        return y

    def _leave_out(self, known: Sequence[int]) -> None:
        for conv in list[Any](self.spectral):
            conv.leave_out(known)


def check_positive(**positive: int) -> None:
    """Refuse arguments below 1.

    Raises:
        RecipeError: If there is one.
    """
    for name, value in positive.items():
        if value < 1:
            raise RecipeError(f"`{name}` is {value}, but must be at least 1")


def check_operator(padding: float, positions: str) -> None:
    """Refuse what is no padding and no kind of positions.

    Raises:
        RecipeError: If one is out of range.
    """
    if not isfinite(padding) or padding < 0 or (padding > 1 and padding != int(padding)):
        raise RecipeError(
            f"`padding` is {padding}, but must be a share of the domain from 0 to below 1, or a "
            f"whole number of cells"
        )
    if positions not in get_args(Positions):
        raise RecipeError(
            f"unknown positions {positions!r}{near_names(positions, get_args(Positions))}"
        )
