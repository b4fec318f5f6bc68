"""Random numbers that belong to the cells of a field, so that tiles draw those of the whole.

A network that draws random numbers gives other ones for every window it is applied to, and tiles
would not fit together. Here a number is a function of a seed, of the layer that draws it and of the
cell's position in the whole field: whoever computes this cell, in whatever tile, gets the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.grids import Grid
from map2map.typing import Shape

__all__ = ["Noise", "Place", "drawing", "draws_noise", "normal_numbers", "placed", "seed_of"]


@dataclass(frozen=True)
class Place:
    """Where a window lies in a field.

    Args:
        start: Its first input cell per axis; it may lie beyond the field.
        shape: Input cells of the whole field.
        periodic: Whether each axis is; cells beyond the edges are then those of the other side.
        seed: Another one gives other random numbers.
    """

    start: Shape
    shape: Shape
    periodic: tuple[bool, ...]
    seed: int = 0

    @classmethod
    def within(cls, grid: Grid, start: Shape, seed: int = 0) -> "Place":
        """The place of a window that starts at a cell of a grid."""
        return cls(start, grid.shape, tuple(beyond == "periodic" for beyond in grid.beyond), seed)


class Noise(nn.Module):
    """Standard normal numbers for the cells of a layer.

    Without a place (in training) PyTorch's generator draws them, which a task seeds (`drawing`).
    With one (`placed`) they are functions of seed, stream, channel and the cell's position.

    Args:
        scale: Cells of the layer per input cell and axis.
        cut: Cells of the layer's grid that were cut off on the low side before it.
        stream: Tells layers apart; two of the same draw the same numbers.
        channels: Numbers per cell.

    Raises:
        RecipeError: If scale or channels are not positive.
    """

    place: Place | None = None

    def __init__(self, scale: int = 1, cut: int = 0, stream: int = 0, channels: int = 1) -> None:
        super().__init__()
        if scale < 1 or channels < 1:
            raise RecipeError(f"noise has a `scale` ({scale}) and `channels` ({channels}) above 0")
        self.scale, self.cut, self.stream, self.channels = scale, cut, stream, channels

    def forward(self, x: Tensor) -> Tensor:
        """Numbers for the cells of ``x``, of its type and on its device.

        Args:
            x: Shape (batch, any, *space).

        Returns:
            Shape (batch, channels, *space); with a place, the same for all of the batch.
        """
        shape = (len(x), self.channels, *x.shape[2:])
        if self.place is None:
            return torch.randn(shape, dtype=x.dtype, device=x.device)
        cells = [self._cells(axis, n, self.place, x.device) for axis, n in enumerate(x.shape[2:])]
        numbers = normal_numbers(cells, self.channels, seed=self.place.seed, stream=self.stream)
        return numbers.to(x.dtype).expand(shape)

    def _cells(self, axis: int, n: int, place: Place, device: torch.device) -> Tensor:
        """Positions in the whole field of the layer's cells along an axis."""
        cells = torch.arange(n, device=device) + (self.scale * place.start[axis] + self.cut)
        return cells % (self.scale * place.shape[axis]) if place.periodic[axis] else cells


def draws_noise(module: nn.Module) -> bool:
    """Whether a module has any `Noise`."""
    return any(isinstance(part, Noise) for part in module.modules())


@contextmanager
def placed(module: nn.Module, place: Place | None) -> Iterator[None]:
    """Let every `Noise` of a module know where the window lies that it is applied to."""
    layers = [part for part in module.modules() if isinstance(part, Noise)]
    before = [layer.place for layer in layers]
    for layer in layers:
        layer.place = place
    try:
        yield
    finally:
        for layer, former in zip(layers, before, strict=True):
            layer.place = former


def seed_of(module: nn.Module, seed: int) -> dict[str, int]:
    """What a file says of a seed: nothing if a network draws no random numbers."""
    return {"seed": seed} if draws_noise(module) else {}


@contextmanager
def drawing(device: torch.device, *key: int | str) -> Iterator[None]:
    """Let PyTorch's generators draw what belongs to a key; the caller's go on as if nothing was.

    So what is drawn in a step, by noise, dropout or a way of training, is a function of which step
    of which process it is: another in each, the same however often training was broken off, and in
    validation the same every time.

    Args:
        device: Where numbers are drawn, beside the CPU.
        key: Another one gives other numbers.
    """
    word = blake2b(" ".join(map(str, key)).encode(), digest_size=7).digest()
    seed, there = int.from_bytes(word, "big"), device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if there else []):
        torch.default_generator.manual_seed(seed)
        if there:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def normal_numbers(
    cells: Sequence[Tensor], channels: int = 1, *, seed: int = 0, stream: int = 0
) -> Tensor:
    """A standard normal number for each cell, which depends on nothing but its position.

    Positions are hashed by SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, fig. 17), axis after axis;
    the upper 52 bits are a uniform number, and the quantile function makes it normal.

    Args:
        cells: Positions along each axis, whole numbers, each of shape (n,).
        channels: Independent numbers per cell.
        seed: Of all.
        stream: Independent numbers for other purposes.

    Returns:
        Shape (channels, *(n of each axis)), in double precision.
    """
    device = cells[0].device
    state = mixed(torch.tensor(seed, device=device))
    state = mixed(state ^ mixed(torch.tensor(stream, device=device) + 1))
    for positions in (torch.arange(channels, device=device), *cells):
        state = mixed(state[..., None] + signed(GOLDEN) * (positions + 1))
    return normal(state)


def normal(words: Tensor) -> Tensor:
    """Normal numbers of 64-bit words, by the quantile function; finite, whatever the word."""
    # of 53 bits the largest and a half would round to 1
    uniform = (shifted(words, 12).double() + 0.5) * 2.0**-52
    return sqrt(2) * torch.erfinv(2 * uniform - 1)


GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio, made odd."""


def mixed(x: Tensor) -> Tensor:
    """SplitMix64's finalizer, on 64-bit whole numbers whose products overflow as they shall."""
    x = x + signed(GOLDEN)
    x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
    return x ^ shifted(x, 31)


def shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def signed(word: int) -> int:
    """A 64-bit word as the signed number of the same bits."""
    return word - (1 << 64) if word >= 1 << 63 else word
