"""Power spectra of tensors that gradients flow through; see `map2map.physics.spectra`."""

from collections.abc import Sequence
from functools import lru_cache, reduce
from math import pi, prod

import torch
from jaxtyping import Float
from torch import Tensor

from map2map.errors import GeometryError
from map2map.physics.operators import wavenumbers
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Shape

__all__ = ["binned_power", "hann"]


def binned_power(
    field: Float[Tensor, "batch channel *space"],
    spacing: Spacing = 1.0,
    taper: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "batch channel bin"]:
    """Isotropic power spectrum of each channel, in the bins of `spectra.power_spectrum`.

    Normalized alike: white noise of variance s^2 has power s^2 spacing^ndim at every wavenumber,
    on average also with a taper.

    Args:
        field: Values [u].
        spacing: Cell size [L]; one per axis, or one for all.
        taper: What the deviations from the mean are multiplied by first, which must broadcast with
            the field; the mean is weighted by it. A field that is not periodic needs one, or the
            jump from its end to its beginning has power at all wavenumbers.

    Returns:
        Power [u^2 L^ndim].

    Raises:
        GeometryError: If there are not 1 to 3 axes of space, or no whole bin.
    """
    space = tuple(field.shape[2:])
    if not 1 <= len(space) <= 3:
        raise GeometryError(f"spectra are for 1 to 3 space axes, not {len(space)}")
    sizes, axes = cell_sizes(spacing, len(space)), tuple(range(2, field.ndim))
    index, weights, modes = radial_bins(space, sizes)
    index, weights = index.to(field.device), weights.to(field)
    strength: Tensor | float = float(prod(space))
    if taper is not None:
        taper = taper.to(field).expand_as(field)
        total = taper.sum(axes, keepdim=True).clamp_min(torch.finfo(field.dtype).tiny)
        field = (field - (field * taper).sum(axes, keepdim=True) / total) * taper
        strength = taper.square().sum(axes).clamp_min(torch.finfo(field.dtype).tiny)[..., None]
    transformed = torch.fft.rfftn(field, dim=axes)
    power = transformed.real.square() + transformed.imag.square()
    flat = (power * weights).flatten(2)
    sums = flat.new_zeros(*flat.shape[:2], len(modes) + 2)
    sums = sums.index_add(2, index, flat)[..., 1:-1]
    result: Tensor = sums * (prod(sizes) / modes.to(field)) / strength
    return result


@lru_cache(maxsize=16)
def radial_bins(space: Shape, sizes: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the modes of `torch.fft.rfftn`, the bin and how many they stand for; modes per bin.

    Bin 0 is the mean of the field, the last is beyond the smallest Nyquist wavenumber.
    """
    fundamental = 2 * pi / max(n * size for n, size in zip(space, sizes, strict=True))
    # rounding must not push the Nyquist wavenumber over the edge on which it lies
    count = int(pi / max(sizes) / fundamental * (1 + 1e-9))
    if count < 1:
        raise GeometryError(f"a grid of shape {space} has no whole bin below its Nyquist")
    squares = reduce(torch.add, (k.square() for k in wavenumbers(space, sizes)))
    scaled = squares.sqrt() * ((1 - 1e-9) / fundamental)
    index = scaled.ceil().clamp(max=count + 1).long().flatten()
    last = space[-1]
    weights = torch.full((last // 2 + 1,), 2.0, dtype=torch.float64)
    weights[0] = 1
    if last % 2 == 0:
        weights[-1] = 1
    each = weights.expand(*space[:-1], len(weights)).flatten()
    modes = torch.zeros(count + 2, dtype=torch.float64).index_add(0, index, each)
    return index, weights, modes[1:-1]


def hann(space: Sequence[int], periodic: Sequence[bool]) -> Tensor:
    """A taper that falls to nearly zero at both ends of every axis that is not periodic.

    Hann's window, sin^2 at the centers of cells.

    Returns:
        Shape (*space), in double precision.
    """
    taper = torch.ones(tuple(space), dtype=torch.float64)
    for axis, (n, wraps) in enumerate(zip(space, periodic, strict=True)):
        if not wraps:
            along = torch.sin(pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n).square()
            taper = taper * along.reshape(-1, *(1,) * (len(space) - 1 - axis))
    return taper
