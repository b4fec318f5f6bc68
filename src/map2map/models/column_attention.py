"""ColumnAttention: convolutions and attention along a column, after AI4SIM's for radiation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.models.columns import (
    POINT,
    Profile,
    check_columns,
    common_levels,
    from_rows,
    profiles_of,
    stack,
    to_rows,
    unstack,
)
from map2map.models.padded import started

__all__ = ["ColumnAttention"]


class ColumnAttention(nn.Module):
    """Convolutions of growing dilation, attention, more convolutions, attention; a head each.

    All acts along the levels of a column, with SiLU behind convolutions, zeros beyond the ends, and
    the input of each attention added to its output; every cell of the grid is by itself. Weights
    start as Glorot's, biases at zero. With 47 inputs on 138 levels and two outputs of two features
    it is the network of AI4SIM's model collection, and loads its weights; there a head gives a
    flux down less up, and down plus up.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        inputs: What the channels of the input are, in their order; if not given, one profile.
        outputs: Likewise of the output. Each gets a head of its own, which mixes its features.
        width: Channels inside.
        heads: Of each attention; they divide the width.
        kernel_size: Width of the convolutions in levels; odd.
        dilations: Of the convolutions before the first attention, one number each.
        depth: Convolutions between the two.

    Raises:
        RecipeError: If an argument is out of range, or profiles do not fit together.
    """

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 1,
        inputs: list[Profile] | None = None,
        outputs: list[Profile] | None = None,
        width: int = 128,
        heads: int = 8,
        kernel_size: int = 5,
        dilations: tuple[int, ...] = (1, 2, 4, 8),
        depth: int = 8,
    ) -> None:
        super().__init__()
        dilations = tuple(dilations)
        least = min(dilations, default=0)
        check_columns(ndim, width=width, heads=heads, dilations=least, depth=depth)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise RecipeError(f"`kernel_size` is {kernel_size}, but must be odd and at least 1")
        if width % heads:
            raise RecipeError(
                f"`width` is {width}, which {heads} `heads` of attention do not divide"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.inputs = profiles_of(inputs, in_chan, "inputs")
        self.outputs = profiles_of(outputs, out_chan, "outputs")
        self.width, self.heads, self.kernel_size = width, heads, kernel_size
        self.dilations, self.depth = dilations, depth
        self.profile_levels = common_levels(self.inputs, self.outputs)

        features = sum(profile.features for profile in self.inputs)
        self.layers = nn.Sequential()
        for chan, dilation in zip([features, *[width] * len(dilations)], dilations, strict=False):
            self.layers.extend([level_conv(chan, width, kernel_size, dilation), nn.SiLU()])
        self.layers.append(Attention(width, heads))
        for _ in range(depth):
            self.layers.extend([level_conv(width, width, kernel_size), nn.SiLU()])
        self.layers.append(Attention(width, heads))
        self.last = nn.ModuleList(Head(width, profile.features) for profile in self.outputs)
        self.footprint = POINT

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        y: Tensor = self.layers(stack(to_rows(x), self.inputs, self.profile_levels))
        rows = [
            unstack(head(y), [profile])
            for head, profile in zip(self.last, self.outputs, strict=True)
        ]
        return from_rows(torch.cat(rows, dim=1), x)


class Attention(nn.Module):
    """Every level of a column looks at all levels of it; the input is added.

    Args:
        width: Channels.
        heads: That the channels are shared among.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            started(nn.Linear(width, width)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (column, width, level) to the same shape."""
        y = x.mT
        q, k, v = (
            layer(y).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(q, k, v)
        added: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return x + added.mT


class Head(nn.Module):
    """A convolution of width 1 and a linear layer over the features of each level.

    Args:
        width: Channels of the input.
        features: Of the output.
    """

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.conv = started(nn.Conv1d(width, features, 1))
        self.mix = started(nn.Linear(features, features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (column, width, level) to (column, features, level)."""
        y: Tensor = self.mix(self.conv(x).mT)
        return y.mT


def level_conv(before: int, after: int, kernel_size: int, dilation: int = 1) -> nn.Module:
    """A convolution along the levels that keeps their number."""
    around = dilation * (kernel_size // 2)
    return started(nn.Conv1d(before, after, kernel_size, padding=around, dilation=dilation))
