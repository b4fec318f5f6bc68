"""Attention within windows of a layered globe: what Pangu is built of.

Like conv.py, vocabulary that models may import. Tokens lie on a grid of (level, latitude,
longitude), shape (batch, level, latitude, longitude, channel). Each attends to those of its window,
and in every second block windows are shifted by half of their size, so that what one window knows
reaches the next. After Bi et al. 2023 (Nature 619, 533; arXiv:2211.02556), sections "Methods" and
"Earth-specific positional bias"; windows and shifts after Liu et al. 2021 (arXiv:2103.14030).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from map2map.models.patches import Pads, centered, pad_to, unpad
from map2map.typing import Shape

__all__ = ["EarthLayer", "Windows", "bias_index"]

APART = -100.0
"""Added to the attention between tokens that are no neighbors: a weight of exp(-100)."""


@dataclass(frozen=True)
class Windows:
    """How a grid of tokens is cut into windows.

    A grid that is no multiple of them gets zeros around it, which are tokens like others.

    Args:
        tokens: Levels, latitudes and longitudes.
        size: Of a window, likewise.
        open_ends: Whether the last longitude has no neighbor in the first (a limited area).

    >>> windows = Windows((8, 181, 360), (2, 6, 12))
    >>> windows.counts, windows.rows
    ((4, 31, 30), 124)
    """

    tokens: Shape
    size: Shape
    open_ends: bool = False

    @property
    def pads(self) -> Pads:
        """Zeros around the tokens."""
        return centered(self.tokens, self.size)

    @property
    def padded(self) -> Shape:
        """Tokens with the zeros around them."""
        return tuple(n + sum(pad) for n, pad in zip(self.tokens, self.pads, strict=True))

    @property
    def counts(self) -> Shape:
        """Windows per axis."""
        return tuple(n // m for n, m in zip(self.padded, self.size, strict=True))

    @property
    def rows(self) -> int:
        """Windows of all levels and latitudes; those of a row differ in longitude only."""
        return self.counts[0] * self.counts[1]

    @property
    def volume(self) -> int:
        """Tokens of a window."""
        return prod(self.size)

    @property
    def shift(self) -> Shape:
        """By how many tokens every second block moves its windows."""
        return tuple(n // 2 for n in self.size)

    def cut(self, x: Tensor, *, shifted: bool) -> Tensor:
        """Bring (batch, *tokens, channel) to (batch, longitudes, rows, volume, channel)."""
        x = pad_to(x, (*self.pads, (0, 0)))
        if shifted:
            x = x.roll([-n for n in self.shift], (1, 2, 3))
        (nz, ny, nx), (z, y, w) = self.counts, self.size
        x = x.reshape(-1, nz, z, ny, y, nx, w, x.shape[-1])
        return x.permute(0, 5, 1, 3, 2, 4, 6, 7).reshape(
            -1, nx, self.rows, self.volume, x.shape[-1]
        )

    def join(self, x: Tensor, *, shifted: bool) -> Tensor:
        """Undo `cut`."""
        (nz, ny, nx), (z, y, w) = self.counts, self.size
        x = x.reshape(-1, nx, nz, ny, z, y, w, x.shape[-1])
        x = x.permute(0, 2, 4, 3, 5, 1, 6, 7).reshape(-1, *self.padded, x.shape[-1])
        if shifted:
            x = x.roll(self.shift, (1, 2, 3))
        return unpad(x, self.pads, 1)

    def apart(self) -> Tensor:
        """Which tokens of a shifted window only a roll has brought together.

        Top and surface, and the poles, are no neighbors of each other; the first and last longitude
        are, but for open ends.

        Returns:
            Shape (kind, rows, volume, volume). Without open ends, windows of all longitudes are
            of one kind; with them, the last is of a second.
        """
        sides = []
        for axis, (n, shift) in enumerate(zip(self.padded, self.shift, strict=True)):
            around = torch.arange(n) >= n - shift
            sides.append(around if axis < 2 or self.open_ends else torch.zeros_like(around))
        z, y, x = torch.meshgrid(*sides, indexing="ij")
        side = (4 * z + 2 * y + x)[None, ..., None]
        plain = Windows(self.padded, self.size)
        regions = plain.cut(side, shifted=False)[0, ..., 0]
        # the first longitudes are like all others but the last
        kinds = regions[[0, -1]] if self.open_ends and len(regions) > 1 else regions[-1:]
        return kinds[..., :, None] != kinds[..., None, :]


def bias_index(size: Shape) -> Tensor:
    """Which entry of the table of biases a pair of tokens of a window has.

    In level and latitude the entry is that of both places, as the atmosphere is another one at
    other heights and latitudes; in longitude that of their difference, as it is the same around the
    globe.

    Args:
        size: Levels, latitudes and longitudes of a window.

    Returns:
        Shape (volume, volume), of the token that looks and the one that it looks at: all of the
        (2 longitudes - 1) latitudes² levels² entries.
    """
    levels, latitudes, longitudes = size
    places = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    z, y, x = (place.flatten() for place in places)
    around = 2 * longitudes - 1
    index = (z[:, None] + levels * z) * latitudes**2 + y[:, None] + latitudes * y
    return index * around + x[:, None] - x + longitudes - 1


class EarthAttention(nn.Module):
    """Attention within windows, with a bias for each pair of places in a window of each row.

    Args:
        windows: Of the tokens.
        width: Channels.
        heads: Number of attentions side by side, each of width / heads channels.
    """

    def __init__(self, windows: Windows, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        levels, latitudes, longitudes = windows.size
        entries = (2 * longitudes - 1) * (latitudes * levels) ** 2
        self.bias = nn.Parameter(torch.empty(entries, windows.rows, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, index: Tensor, apart: Tensor | None) -> Tensor:
        """Map (batch, longitudes, rows, volume, channel) to the same.

        Args:
            x: Tokens by window.
            index: Of the bias, from `bias_index`.
            apart: Tokens that do not attend to each other, from `Windows.apart`.
        """
        batch, longitudes, rows, volume, width = x.shape
        qkv = torch.unflatten(self.qkv(x), -1, (3, self.heads, -1)).permute(4, 0, 1, 2, 5, 3, 6)
        bias = F.embedding(index, self.bias.flatten(1))
        bias = torch.unflatten(bias, -1, (rows, self.heads)).permute(2, 3, 0, 1)
        # a bias is that of all longitudes, so rows count as heads, and longitudes as members
        whole, biases = [longitudes], [bias]
        if apart is not None:
            biases = list(bias + APART * apart[:, :, None])
            whole = [longitudes - 1, 1] if len(biases) == 2 else whole
        parts = []
        for part, added in zip(torch.split(qkv, whole, dim=2), biases, strict=True):
            q, k, v = part.flatten(1, 2).flatten(2, 3)
            y = F.scaled_dot_product_attention(q, k, v, added.flatten(0, 1)[None].to(q.dtype))
            parts.append(y.reshape(batch, -1, rows, self.heads, volume, width // self.heads))
        y = torch.cat(parts, dim=1).transpose(3, 4).flatten(-2)
        z: Tensor = self.out(y)
        return z


class EarthBlock(nn.Module):
    """Attention and two linear layers, each normalized and then added to its input.

    Args:
        windows: Of the tokens.
        width: Channels.
        heads: Of the attention.
        shifted: Whether the windows are moved by half of their size.
        drop: Share of the samples for which training leaves out what is added.
    """

    def __init__(
        self, windows: Windows, width: int, heads: int, *, shifted: bool, drop: float
    ) -> None:
        super().__init__()
        self.windows, self.shifted, self.drop = windows, shifted, drop
        self.attention = EarthAttention(windows, width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, index: Tensor, apart: Tensor) -> Tensor:
        """Map (batch, *tokens, channel) to the same; arguments as of `EarthAttention`."""
        y = self.windows.cut(x, shifted=self.shifted)
        y = self.attention(y, index, apart if self.shifted else None)
        y = self.windows.join(y, shifted=self.shifted)
        x = x + self._dropped(self.norm1(y))
        return x + self._dropped(self.norm2(self.mlp(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        """Zero for some samples, and more for the others, so that the mean is the same."""
        if not (self.training and self.drop):
            return x
        kept = torch.rand(len(x), device=x.device) >= self.drop
        return x * (kept / (1 - self.drop)).to(x.dtype).reshape(-1, 1, 1, 1, 1)


class EarthLayer(nn.Module):
    """Blocks on one grid of tokens, every second one shifted.

    Args:
        windows: Of the tokens.
        width: Channels.
        heads: Of the attention.
        drops: Of each block, the share that `EarthBlock` drops; as many as there are blocks.
        checkpointing: Whether training computes blocks anew for their gradients, instead of keeping
            what they compute.
    """

    index: Tensor
    apart: Tensor

    def __init__(
        self,
        windows: Windows,
        width: int,
        heads: int,
        drops: Sequence[float],
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.blocks = nn.ModuleList(
            EarthBlock(windows, width, heads, shifted=i % 2 == 1, drop=drop)
            for i, drop in enumerate(drops)
        )
        # they follow the device, and are computed rather than saved
        self.register_buffer("index", bias_index(windows.size), persistent=False)
        self.register_buffer("apart", windows.apart(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, *tokens, channel) to the same."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, self.index, self.apart, use_reentrant=False)
            else:
                x = block(x, self.index, self.apart)
        return x
