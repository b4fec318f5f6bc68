"""A loss for networks that draw random numbers: several draws, scored as a distribution."""

from dataclasses import dataclass
from functools import lru_cache, reduce
from math import pi
from typing import Any

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.physics.binned_power import hann
from map2map.physics.operators import wavenumbers
from map2map.physics.spacing import cell_sizes
from map2map.typing import Shape

__all__ = ["EnergyScore"]

TINY = 1e-12
"""Beside squares, so that a distance of zero has a gradient."""


class EnergyScore(nn.Module):
    """The energy score of several draws, cell by cell and wave by wave.

    A network that draws random numbers is applied ``members`` times to each input. With x its draws
    and y the target, the score is the mean of |x - y| less half the mean of |x - x'| over pairs of
    draws (Gneiting & Raftery 2007, JASA 102, 359, eq. 21; over pairs of different ones, so that few
    draws are not rewarded for being too narrow). No distribution has a lower one than the truth's,
    so that the draws come to vary as targets of one input do; a loss that compares one draw with
    the target is lowest for their mean, which has lost the power of what the input does not tell.
    Of one channel it is the CRPS.

    Distances are over the channels of a cell; and, times ``spectral``, of a wave of the crop's
    Fourier transform, in units of the rms of the target's waves of that length. So waves count
    alike however small they are, and get the power that they should have.

    Args:
        members: Draws for each input.
        cells: Weight of the score of cells.
        spectral: Weight of the score of waves.
        power: Weight of the mean square of the logarithm of the ratio of the draws' power to the
            target's, over wavenumbers up to that of Nyquist. The score of waves is least where that
            is one, too, but only slowly gets there.
        window: Whether crops are multiplied by a Hann window before they are transformed, as those
            need that are not the whole of a periodic field, or whose halo drew other random numbers
            than their other side.

    Raises:
        RecipeError: If there are fewer than two members, or no weight.
    """

    def __init__(
        self,
        members: int = 2,
        cells: float = 1.0,
        spectral: float = 1.0,
        power: float = 0.0,
        *,
        window: bool = True,
    ) -> None:
        super().__init__()
        if members < 2:
            raise RecipeError(f"an energy score compares at least 2 `members`, not {members}")
        if min(cells, spectral, power) < 0 or not cells + spectral + power > 0:
            raise RecipeError(
                f"the weights `cells` ({cells}), `spectral` ({spectral}) and `power` ({power}) "
                f"must be 0 or more, and one of them more than 0"
            )
        self.members, self.cells, self.spectral = members, cells, spectral
        self.power, self.window = power, window
        self.sizes: tuple[float, ...] | None = None

    def take_emulator(self, emulator: Any) -> None:
        """Hear the cell size, which tells which waves are alike; without it cells are cubes.

        Args:
            emulator: A `map2map.emulator.Emulator`.
        """
        spacing = emulator.domain.spacing
        self.sizes = None if spacing is None else cell_sizes(spacing, emulator.ndim)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Score.

        Args:
            output: First draws of all samples, then second ones, and so on; shape
                (members * batch, channel, *space).
            target: Shape (batch, channel, *space).

        Raises:
            GeometryError: If shapes do not fit, or a wave is asked for of a crop of one cell.
        """
        if output.shape != (self.members * len(target), *target.shape[1:]):
            raise GeometryError(
                f"the output has shape {tuple(output.shape)}, but {self.members} draws for a "
                f"target of {tuple(target.shape)} have the first number {self.members} times as "
                f"large and the others alike"
            )
        # sums in half precision would stop growing
        dtype = torch.promote_types(output.dtype, torch.float32)
        draws = output.to(dtype).reshape(self.members, *target.shape)
        target = target.to(dtype)
        total = draws.new_zeros(())
        if self.cells:
            total = total + self.cells * energy(draws, target).mean()
        if self.spectral or self.power:
            total = total + self._of_waves(draws, target)
        return total

    def _of_waves(self, draws: Tensor, target: Tensor) -> Tensor:
        """The mean score of waves, and that of their power."""
        shape = target.shape[2:]
        if min(shape) < 2:
            raise GeometryError(f"a crop of {tuple(shape)} cells has no waves; use spectral: 0")
        axes = tuple(range(-len(shape), 0))
        window = hann(shape, [not self.window] * len(shape)).to(target)
        modes, wanted = (
            torch.fft.rfftn(deviations(values, window) * window, dim=axes)
            for values in (draws, target)
        )
        waves = waves_of(tuple(shape), self.sizes or (1.0,) * len(shape), target.device)
        power = waves.power(wanted)
        rms = (power.sqrt() + TINY)[waves.number]
        scores = energy(parts(modes / rms, len(shape)), parts(wanted / rms, len(shape)))
        # all but the mean, which is the first
        total = self.spectral * scores.flatten(1)[:, 1:].mean()
        if self.power:
            drawn, there = waves.power(modes.flatten(0, 1)), waves.there
            ratio = (drawn[there] + TINY) / (power[there] + TINY)
            total = total + self.power * ratio.log().square().mean()
        return total


@dataclass(frozen=True)
class Waves:
    """The modes of `torch.fft.rfftn` by their wavenumber, in units of the longest wave's.

    Args:
        number: Of each mode, rounded, shape (*space).
        times: How many modes of the whole transform each stands for, of the same shape.
        modes: So many have each number.
        there: The numbers that there are, but for 0 and those beyond the least Nyquist wavenumber,
            where there are corners only.
    """

    number: Tensor
    times: Tensor
    modes: Tensor
    there: Tensor

    def power(self, modes: Tensor) -> Tensor:
        """The mean power of modes (batch, channel, *space) by number, summed over channels."""
        power = (modes.real.square() + modes.imag.square()).sum(1).mean(0)
        total = power.new_zeros(len(self.modes))
        total = total.index_add(0, self.number.ravel(), (power * self.times.to(power)).ravel())
        return total / self.modes.to(power).clamp(min=1)


@lru_cache(maxsize=16)
def waves_of(space: Shape, sizes: tuple[float, ...], device: torch.device) -> Waves:
    """Those of a crop of so many cells of these sizes; kept, so that no device waits for them."""
    longest = max(n * size for n, size in zip(space, sizes, strict=True))
    squares = reduce(torch.add, (k.square() for k in wavenumbers(space, sizes)))
    number = (squares.sqrt() * longest / (2 * pi)).round().long()
    times = torch.full(number.shape, 2.0, dtype=torch.float64)
    times[..., 0] = 1
    if space[-1] % 2 == 0:
        times[..., -1] = 1
    modes = torch.bincount(number.ravel(), times.ravel())
    there = torch.nonzero(modes[: round(longest / max(sizes)) // 2 + 1]).ravel()[1:]
    return Waves(*(each.to(device) for each in (number, times, modes, there)))


def deviations(values: Tensor, window: Tensor) -> Tensor:
    """Without the mean, weighted by a window, which would make long waves of it."""
    axes = tuple(range(-window.ndim, 0))
    return values - (values * window).sum(axes, keepdim=True) / window.sum()


def energy(draws: Tensor, target: Tensor) -> Tensor:
    """The energy score of vectors.

    Args:
        draws: Shape (members, batch, channel, *space).
        target: Shape (batch, channel, *space).

    Returns:
        Shape (batch, *space).
    """
    members = len(draws)
    score = distance(draws, target[None]).mean(0)
    for shift in range(1, members):
        # all ordered pairs of different ones
        pairs = distance(draws, draws.roll(shift, 0)).sum(0)
        score = score - pairs / (2 * members * (members - 1))
    return score


def distance(x: Tensor, y: Tensor) -> Tensor:
    """Lengths of the differences of vectors (members, batch, channel, *space)."""
    return ((x - y).square().sum(2) + TINY).sqrt()


def parts(modes: Tensor, ndim: int) -> Tensor:
    """Real and imaginary parts of (…, channel, *space) as channels."""
    both = torch.view_as_real(modes).movedim(-1, -1 - ndim)
    return both.flatten(-2 - ndim, -1 - ndim)
