"""Null tests of classifiers: fields whose class is not in their power spectrum, or nowhere else.

A network that tells two classes of fields may have learned no more than their power spectra. Two
versions of the same fields tell:

- `match_spectra` gives the fields of a pair one spectrum, the mean of both, and leaves the phases:
  what can still be told is not in the spectrum;
- `replace_phases` leaves each field its spectrum, and gives it the phases of noise: what can still
  be told is in the spectrum.

A shell holds the modes with ``(b - 1) kf < |k| <= b kf``, with kf the fundamental wavenumber of the
longest side, like the bins of `map2map.physics.spectra`; but here shells go on to the last corner
of the transform, so that no mode is left out.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import GeometryError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array, Shape

__all__ = ["match_spectra", "replace_phases", "shell_power", "with_power"]


def match_spectra(first: Array, second: Array, spacing: Spacing = 1.0) -> tuple[Array, Array]:
    """Two fields with one power spectrum, the mean of theirs in every shell.

    Phases and means are kept. Where one of them has no power in a shell but rounding errors, so
    that there are no phases to keep, the shell is emptied in both.

    Args:
        first: Values [u], real, shape (*space), periodic.
        second: Values [u], of the same shape.
        spacing: Cell size; one per axis, or one for all. Only ratios matter.

    Returns:
        Values [u], float64.

    Raises:
        GeometryError: If the shapes differ.
    """
    if first.shape != second.shape:
        raise GeometryError(
            f"fields of a pair have one shape, not {first.shape} and {second.shape}"
        )
    one, two = (shell_power(field, spacing) for field in (first, second))
    both = (one > rounding(first)) & (two > rounding(second))
    target = np.where(both, (one + two) / 2, 0)
    return with_power(first, target, spacing), with_power(second, target, spacing)


def replace_phases(field: Array, seed: int, spacing: Spacing = 1.0) -> Array:
    """A Gaussian field of the same mean, with the same power in every shell and nothing else.

    Args:
        field: Values [u], real, shape (*space), periodic.
        seed: Of the noise. Two fields of one seed have the same phases.
        spacing: Cell size; one per axis, or one for all. Only ratios matter.

    Returns:
        Values [u], float64.
    """
    # a key of its own, so that it is not the noise of which simulators make fields of this seed
    noise = np.random.default_rng([seed, 1]).standard_normal(field.shape)
    made: Array = with_power(noise, shell_power(field, spacing), spacing)
    made += field.mean(dtype=np.float64) - made.mean()
    return made


def with_power(field: Array, target: Array, spacing: Spacing = 1.0) -> Array:
    """A field whose modes are scaled, each shell by one number, so that it has a given spectrum.

    Phases and mean are kept; a shell without power stays so.

    Args:
        field: Values [u], real, shape (*space), periodic.
        target: Wanted `shell_power` [u^2].
        spacing: Cell size; one per axis, or one for all. Only ratios matter.

    Returns:
        Values [u], float64.
    """
    shells, weights = shells_of(field.shape, cell_sizes(spacing, field.ndim))
    modes = fft.rfftn(field.astype(np.float64, copy=False))
    power = sum_shells(shells, weights, modes)
    if target.shape != power.shape:
        raise GeometryError(
            f"a field of shape {field.shape} has {len(power)} shells, not {target.shape}"
        )
    factor = np.sqrt(np.divide(target, power, out=np.zeros_like(power), where=power > 0))
    # the mean is no shell
    modes *= np.concatenate([[1.0], factor])[shells]
    scaled: Array = fft.irfftn(modes, field.shape)
    return scaled


def shell_power(field: Array, spacing: Spacing = 1.0) -> Array:
    """What each shell of modes contributes to the variance of a field [u^2]; all sum up to it.

    Args:
        field: Values [u], real, shape (*space), periodic.
        spacing: Cell size; one per axis, or one for all. Only ratios matter.
    """
    shells, weights = shells_of(field.shape, cell_sizes(spacing, field.ndim))
    return sum_shells(shells, weights, fft.rfftn(field.astype(np.float64, copy=False)))


def rounding(field: Array) -> float:
    """More power than errors of the transform have in any shell [u^2]."""
    return float((16 * np.finfo(np.float64).eps) ** 2 * np.mean(np.square(field, dtype=np.float64)))


def sum_shells(
    shells: NDArray[np.int32], weights: Array, modes: NDArray[np.complexfloating]
) -> Array:
    """The sum of |mode|^2 / cells^2 in every shell but that of the mean."""
    power = (modes.real**2 + modes.imag**2) * weights
    cells = weights.sum() * (modes.size // weights.size)
    summed = np.bincount(shells.ravel(), power.ravel())[1:] / cells**2
    return np.asarray(summed, np.float64)


@lru_cache(maxsize=2)
def shells_of(space: Shape, sizes: tuple[float, ...]) -> tuple[NDArray[np.int32], Array]:
    """Of each mode of the real transform its shell, 0 for the mean, and how often it counts.

    Shells in which there is no mode are left out, which happens on narrow grids.

    Args:
        space: Cells per axis.
        sizes: Cell sizes.

    Returns:
        Shape of the modes; shape of their last axis.
    """
    sides = [n * size for n, size in zip(space, sizes, strict=True)]
    squared = np.zeros(())
    for axis, (n, side) in enumerate(zip(space, sides, strict=True)):
        order = np.arange(n // 2 + 1) if axis == len(space) - 1 else fft.fftfreq(n, 1 / n)
        squared = squared[..., None] + (order * (max(sides) / side)) ** 2
    # rounding must not push a mode over the edge on which it lies
    shells = np.ceil(np.sqrt(squared) * (1 - 1e-9)).astype(np.int32)
    shells = np.unique(shells, return_inverse=True)[1].astype(np.int32)
    weights = np.full(space[-1] // 2 + 1, 2.0)
    weights[0] = 1
    if space[-1] % 2 == 0:
        weights[-1] = 1
    return shells.reshape(squared.shape), weights
