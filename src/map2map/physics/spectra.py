"""Isotropic spectra of periodic fields, on 1 to 3 axes.

All share the bins: ``(b - 1) kf < |k| <= b kf`` for b = 1, 2, … with the fundamental wavenumber
kf = 2 pi / L of the longest side L, as many as end at or below the smallest Nyquist wavenumber.
Every mode of the full transform counts once, so both halves of the real transform are weighed in.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import GeometryError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cross_correlation", "cross_spectrum", "mode_counts", "power_spectrum", "transfer"]

Values = Union[Array, "Tensor"]


def power_spectrum(field: Values, spacing: Spacing, ndim: int | None = None) -> tuple[Array, Array]:
    """Isotropic power spectrum of a periodic field.

    Normalized so that white noise of variance s^2 has power s^2 spacing^ndim at every wavenumber,
    whatever the grid (with cells of unequal sides, their volume in place of spacing^ndim).

    Args:
        field: Values [u], shape (*space); or (*components, *space), over which power is summed.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, which are the last; if not given, one per ``spacing``, or all
            axes if that is a single number.

    Returns:
        Mean wavenumber [rad/L] and power [u^2 L^ndim] in bins one fundamental mode wide, up to
        the smallest Nyquist wavenumber.
    """
    return cross_spectrum(field, field, spacing, ndim)


def cross_spectrum(
    first: Values, second: Values, spacing: Spacing, ndim: int | None = None
) -> tuple[Array, Array]:
    """Real part of the isotropic cross spectrum of two periodic fields.

    Args:
        first: Values [u], shape (*space) or (*components, *space).
        second: Values [v], of the same shape.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, see `power_spectrum`.

    Returns:
        Mean wavenumber [rad/L] and cross power [u v L^ndim], in the bins of `power_spectrum`.
    """
    k, (cross,) = spectra([(first, second)], spacing, ndim)
    return k, cross


def cross_correlation(
    first: Values, second: Values, spacing: Spacing, ndim: int | None = None
) -> tuple[Array, Array]:
    """Correlation coefficient r(k) = P_12 / sqrt(P_11 P_22), between -1 and 1.

    Args:
        first: Values, shape (*space) or (*components, *space).
        second: Values, of the same shape.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, see `power_spectrum`.

    Returns:
        Mean wavenumber [rad/L] and coefficient; NaN where a field has no power.
    """
    pairs = [(first, second), (first, first), (second, second)]
    k, (cross, *powers) = spectra(pairs, spacing, ndim)
    with np.errstate(divide="ignore", invalid="ignore"):
        return k, cross / np.sqrt(powers[0] * powers[1])


def transfer(
    output: Values, truth: Values, spacing: Spacing, ndim: int | None = None
) -> tuple[Array, Array]:
    """Transfer function T(k) = sqrt(P_output / P_truth), 1 where the power is right.

    Args:
        output: Values [u], shape (*space) or (*components, *space).
        truth: Values [u], of the same shape.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, see `power_spectrum`.

    Returns:
        Mean wavenumber [rad/L] and ratio; NaN or infinite where the truth has no power.
    """
    k, (above, below) = spectra([(output, output), (truth, truth)], spacing, ndim)
    with np.errstate(divide="ignore", invalid="ignore"):
        return k, np.sqrt(above / below)


def mode_counts(shape: Sequence[int], spacing: Spacing) -> tuple[Array, Array]:
    """Mean wavenumber [rad/L] and number of modes in each bin of `power_spectrum`.

    A mode and its mirror image count as two, but are one independent complex number, so the
    relative deviation of a Gaussian field's power is sqrt(2 / modes).

    Args:
        shape: Cells per axis.
        spacing: Cell size [L]; one per axis, or one for all.
    """
    k, _, modes = bins(tuple(shape), cell_sizes(spacing, len(shape)))
    return k, modes


def spectra(
    pairs: Sequence[tuple[Values, Values]], spacing: Spacing, ndim: int | None
) -> tuple[Array, list[Array]]:
    """Mean wavenumber, and the cross spectrum of each pair of fields, summed over components."""
    originals = {id(field): field for pair in pairs for field in pair}
    fields = {key: as_numpy(field) for key, field in originals.items()}
    shapes = {field.shape for field in fields.values()}
    if len(shapes) > 1:
        raise GeometryError(f"fields of different shapes have no common spectrum: {shapes}")
    full = shapes.pop()
    if ndim is None:
        ndim = len(full) if np.ndim(spacing) == 0 else np.size(spacing)
    if not 1 <= ndim <= min(3, len(full)):
        raise GeometryError(
            f"spectra are for 1 to 3 space axes, not {ndim} of a field of shape {full}; give "
            f"`ndim` if the first axes are components"
        )
    space, sizes = full[len(full) - ndim :], cell_sizes(spacing, ndim)
    k, index, modes = bins(space, sizes)
    totals = [np.zeros(len(k)) for _ in pairs]
    components = {key: field.reshape(-1, *space) for key, field in fields.items()}
    for number in range(next(iter(components.values())).shape[0]):
        # one component at a time, so that the transforms of few are in memory
        transformed = {
            key: fft.rfftn(values[number].astype(np.float64)) for key, values in components.items()
        }
        for total, (first, second) in zip(totals, pairs, strict=True):
            x, y = transformed[id(first)], transformed[id(second)]
            product = both_halves(x.real * y.real + x.imag * y.imag, space[-1])
            total += np.bincount(index, product.ravel(), len(k) + 2)[1:-1]
    scale = float(np.prod(sizes)) / float(np.prod(space))
    return k, [total * scale / modes for total in totals]


def bins(space: tuple[int, ...], sizes: tuple[float, ...]) -> tuple[Array, NDArray[np.intp], Array]:
    """Mean wavenumber, bin of every mode of the real transform, and modes per bin.

    The bins are flat; 0 is the mean of the field, and the last index is beyond the bins.
    """
    fundamental = 2 * np.pi / max(n * size for n, size in zip(space, sizes, strict=True))
    nyquist = np.pi / max(sizes)
    axes = [fft.fftfreq(n, size / (2 * np.pi)) for n, size in zip(space, sizes, strict=True)]
    axes[-1] = axes[-1][: space[-1] // 2 + 1]
    k = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij", sparse=True)))
    # rounding must not push a mode, or the Nyquist wavenumber, over the edge on which it lies
    count = int(nyquist / fundamental * (1 + 1e-9))
    if count < 1:
        raise GeometryError(f"a grid of shape {space} has no whole bin below its Nyquist")
    index = np.ceil(k / fundamental * (1 - 1e-9)).astype(int).clip(max=count + 1).ravel()
    modes = np.bincount(index, both_halves(np.ones_like(k), space[-1]).ravel(), count + 2)[1:-1]
    sums = np.bincount(index, both_halves(k, space[-1]).ravel(), count + 2)[1:-1]
    return np.asarray(sums / modes), index, np.asarray(modes)


def both_halves(values: Array, size: int) -> Array:
    """Count the modes that the real transform leaves out because their mirror image is there.

    Args:
        values: Of the modes, shape (*space, size // 2 + 1).
        size: Cells of the last axis.
    """
    doubled = 2 * values
    doubled[..., 0] = values[..., 0]
    if size % 2 == 0:
        doubled[..., -1] = values[..., -1]
    return doubled


def as_numpy(values: Values) -> Array:
    """The values on the host, without their gradient."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().cpu().numpy()
    return array
