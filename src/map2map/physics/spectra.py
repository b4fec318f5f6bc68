"""Isotropic spectra of periodic fields, on 1 to 3 axes.

All share the bins: ``(b - 1) kf < |k| <= b kf`` for b = 1, 2, … with the fundamental wavenumber
kf = 2 pi / L of the longest side L, as many as end at or below the smallest Nyquist wavenumber.
Every mode of the full transform counts once, so both halves of the real transform are weighed in.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Union

import numpy as np

from map2map.errors import GeometryError
from map2map.physics.modes import Bins, Modes, Rows, Scratch, half_transform, tally, threads
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
    k, modes = tally(tuple(shape), cell_sizes(spacing, len(shape)))
    return k.copy(), modes.copy()


def spectra(
    pairs: Sequence[tuple[Values, Values]],
    spacing: Spacing,
    ndim: int | None,
    *,
    double: bool = True,
) -> tuple[Array, list[Array]]:
    """Mean wavenumber, and the cross spectrum of each pair of fields, summed over components.

    The last step of the transform and all that follows is done a few planes at a time, in the
    processor's cache, by several threads.

    Args:
        pairs: Fields, shape (*space) or (*components, *space); each is transformed once.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, see `power_spectrum`.
        double: Transform in double precision. If not, in that of the fields, which for single
            precision takes half the time and memory and adds an error like the values' own
            rounding; the sums are in double precision all the same.
    """
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
    bins = Bins.of(space, sizes)
    k, modes = tally(space, sizes)
    totals = np.zeros((len(pairs), len(k)))
    desks: SimpleQueue[Scratch] = SimpleQueue()
    for _ in range(threads()):
        desks.put(Scratch())
    components = {key: field.reshape(-1, *bins.shape) for key, field in fields.items()}
    with ThreadPoolExecutor(threads()) as pool:
        for number in range(next(iter(components.values())).shape[0]):
            # one component at a time, so that the transforms of few are in memory
            halves = {
                key: half_transform(values[number], double) for key, values in components.items()
            }
            keys = [(id(x), id(y)) for x, y in pairs]
            products = partial(binned_products, bins, halves, keys, desks)
            # the sums are in the same order, however many threads there are
            for part in pool.map(products, bins.groups()):
                totals += part
    scale = float(np.prod(sizes)) / float(np.prod(space))
    return k, list(totals * scale / modes)


def binned_products(
    bins: Bins,
    halves: Mapping[int, Modes],
    pairs: Sequence[tuple[int, int]],
    desks: "SimpleQueue[Scratch]",
    group: list[Rows],
) -> Array:
    """Sums over the modes of some rows of the products of pairs, shape (pair, bin).

    Args:
        bins: Of the grid.
        halves: By number, `half_transform` of fields; its rows are transformed in place.
        pairs: Numbers of the fields that are multiplied.
        desks: Of which to use one.
        group: The rows.
    """
    sums, scratch = np.zeros((len(pairs), bins.count)), desks.get()
    try:
        for rows in group:
            index = bins.index(rows, scratch)
            # each is used several times, and products of single numbers may be too small for one
            modes = {
                key: rows.transformed(half, f"{key}:", scratch) for key, half in halves.items()
            }
            for number, (first, second) in enumerate(pairs):
                total = rows.product(modes[first], modes[second], scratch)
                sums[number] += bins.sum(index, bins.folded(total, scratch))
    finally:
        desks.put(scratch)
    return sums


def as_numpy(values: Values) -> Array:
    """The values on the host, without their gradient."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().cpu().numpy()
    return array
