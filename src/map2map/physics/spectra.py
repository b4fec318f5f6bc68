"""Isotropic spectra of periodic fields, on 1 to 3 axes.

All share the bins: ``(b - 1) kf < |k| <= b kf`` for b = 1, 2, … with the fundamental wavenumber
kf = 2 pi / L of the longest side L, as many as end at or below the smallest Nyquist wavenumber.
Every mode of the full transform counts once, so both halves of the real transform are weighed in.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from math import pi, prod, sqrt
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import GeometryError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array, Shape

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["cross_correlation", "cross_spectrum", "mode_counts", "power_spectrum", "transfer"]

Values = Union[Array, "Tensor"]
Modes = NDArray[np.complexfloating[Any]]


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


def half_transform(values: Array, double: bool) -> Modes:
    """The transform along all axes but the first of three."""
    if double or values.dtype != np.float32:
        values = values.astype(np.float64, copy=False)
    half: Modes = fft.rfftn(values, axes=(1, 2), workers=threads())
    return half


def binned_products(
    bins: "Bins",
    halves: Mapping[int, Modes],
    pairs: Sequence[tuple[int, int]],
    desks: "SimpleQueue[Scratch]",
    group: "list[Rows]",
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


class Scratch:
    """Arrays that are used again, because new ones cost more than what is done with them."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: Shape, dtype: type = np.float64) -> NDArray[Any]:
        """An array of this shape, with any values."""
        size = prod(shape)
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = np.empty(size, dtype)
        return self._flat[name][:size].reshape(shape)


@dataclass(frozen=True)
class Rows:
    """Rows of modes along the second axis, without what is beyond the bins.

    Mirror images have the same wavenumber, so they are added up before they are sorted into bins,
    which takes longer.

    Args:
        start: The first row.
        stop: The row behind the last.
        mirrored: Whether there are mirror images of the rows.
        wide: Modes that are needed along the first axis; and their mirror images.
        deep: Modes that are needed along the last axis.
    """

    start: int
    stop: int
    mirrored: bool
    wide: int
    deep: int

    def transformed(self, half: Modes, name: str, scratch: Scratch) -> list[Array]:
        """The modes, then their mirror images, real and imaginary parts side by side, in double.

        Args:
            half: Of a field, `half_transform`; the rows are transformed in place.
            name: Of the field.
            scratch: Where to put the result.
        """
        n = half.shape
        parts = [slice(self.start, self.stop)]
        if self.mirrored:
            parts.append(slice(n[1] - self.start, n[1] - self.stop, -1))
        found: list[Array] = []
        for part in parts:
            modes = fft.fft(half[:, part, : self.deep], axis=0, overwrite_x=True)
            values = modes.view(modes.real.dtype)
            back = min(self.wide - 1, (n[0] - 1) // 2)
            for some in (values[: self.wide], values[: n[0] - back - 1 : -1]):
                found.append(scratch.array(f"{name}{len(found)}", some.shape))
                np.copyto(found[-1], some)
        return found

    def product(self, first: list[Array], second: list[Array], scratch: Scratch) -> Array:
        """The products of real and of imaginary parts, summed over mirror images.

        Args:
            first: From `transformed`.
            second: From `transformed`.
            scratch: Where to put the result.
        """
        total = scratch.array("total", first[0].shape)
        np.multiply(first[0], second[0], out=total)
        for x, y in zip(first[1:], second[1:], strict=True):
            product = scratch.array("product", x.shape)
            np.multiply(x, y, out=product)
            # mirror images along the first axis lack the mean and, maybe, the Nyquist
            into = total if len(product) == self.wide else total[1 : 1 + len(product)]
            into += product
        return total


@dataclass(frozen=True)
class Bins:
    """Which modes of a transform lie in which bin.

    Args:
        shape: Cells per axis, three; those that are missing come first and have one cell.
        sizes: Cell sizes of the axes [L].
        fundamental: Width of a bin [rad/L].
        count: Number of bins.
    """

    shape: Shape
    sizes: tuple[float, ...]
    fundamental: float
    count: int

    @classmethod
    def of(cls, space: Shape, sizes: tuple[float, ...]) -> "Bins":
        """The bins of a grid of one to three axes."""
        fundamental = 2 * np.pi / max(n * size for n, size in zip(space, sizes, strict=True))
        # rounding must not push the Nyquist wavenumber over the edge on which it lies
        count = int(np.pi / max(sizes) / fundamental * (1 + 1e-9))
        if count < 1:
            raise GeometryError(f"a grid of shape {space} has no whole bin below its Nyquist")
        missing = 3 - len(space)
        return cls((1,) * missing + space, (1.0,) * missing + sizes, fundamental, count)

    def rows(self) -> list[Rows]:
        """All rows of the second axis that are needed, in parts that fit a processor's cache."""
        n = self.shape[1]
        step = max(1, BLOCK // (2 * self.shape[0] * (self.shape[2] // 2 + 1)))
        alone = [0, n // 2] if n % 2 == 0 else [0]
        paired = range(1, (n + 1) // 2)
        spans = [(row, row + 1, False) for row in dict.fromkeys(alone)]
        spans += [(row, min(row + step, paired.stop), True) for row in paired[::step]]
        found = []
        for start, stop, mirrored in spans:
            # on the smallest wavenumber of the rows, rounded so that no mode is lost
            left = (self.fundamental * self.count * (1 + 1e-6)) ** 2 - (start * self.step(1)) ** 2
            if left >= 0:
                wide, deep = (
                    min(int(sqrt(left) / self.step(axis)), self.shape[axis] // 2) + 1
                    for axis in (0, 2)
                )
                found.append(Rows(start, stop, mirrored, wide, deep))
        return found

    def groups(self) -> list[list[Rows]]:
        """The rows, shared out to threads."""
        rows = self.rows()
        return [rows[start::GROUPS] for start in range(min(GROUPS, len(rows)))]

    def step(self, axis: int) -> float:
        """Difference of wavenumbers of neighbors on an axis [rad/L]."""
        return 2 * pi / (self.shape[axis] * self.sizes[axis])

    def wavenumbers(self, rows: Rows, scratch: Scratch) -> Array:
        """Wavenumbers [rad/L] of the modes of some rows, folded."""
        spans = (0, rows.wide), (rows.start, rows.stop), (0, rows.deep)
        x, y, z = ((np.arange(*span) * self.step(axis)) ** 2 for axis, span in enumerate(spans))
        k = scratch.array("k", (len(x), len(y), len(z)))
        np.add(x[:, None, None] + y[:, None], z, out=k)
        return np.asarray(np.sqrt(k, out=k))

    def index(self, rows: Rows, scratch: Scratch) -> NDArray[np.intp]:
        """The bins of the modes of some rows; 0 is the mean of the field, the last is beyond."""
        scaled = self.wavenumbers(rows, scratch)
        # rounding must not push a mode over the edge on which it lies
        scaled *= (1 - 1e-9) / self.fundamental
        np.ceil(scaled, out=scaled)
        np.minimum(scaled, self.count + 1, out=scaled)
        index = scratch.array("index", scaled.shape, np.intp)
        np.copyto(index, scaled, casting="unsafe")
        return index.reshape(-1)

    def folded(self, products: Array, scratch: Scratch) -> Array:
        """Add up real and imaginary parts, and count what the real transform leaves out.

        Args:
            products: Of the modes' real and imaginary parts, side by side on the last axis.
            scratch: Where to put the result.
        """
        folded = scratch.array("folded", (*products.shape[:-1], products.shape[-1] // 2))
        return self.both_halves(np.add(products[..., ::2], products[..., 1::2], out=folded))

    def both_halves(self, values: Array) -> Array:
        """Count the modes that the real transform leaves out as their mirror image is there."""
        values[..., 1 : (self.shape[2] + 1) // 2] *= 2
        return values

    def sum(self, index: NDArray[np.intp], values: Array) -> Array:
        """The sum of the values in each bin."""
        return np.asarray(np.bincount(index, values.ravel(), self.count + 2)[1:-1], np.float64)


BLOCK = 1 << 18
"""Modes of a field that are binned at a time."""

GROUPS = 32
"""Shares of the rows, each with arrays of its own."""


@lru_cache(maxsize=16)
def tally(space: Shape, sizes: tuple[float, ...]) -> tuple[Array, Array]:
    """Mean wavenumber of the modes in each bin, and their number."""
    bins = Bins.of(space, sizes)
    sums, modes = np.zeros((2, bins.count))
    scratch = Scratch()
    for rows in bins.rows():
        index = bins.index(rows, scratch)
        k = bins.wavenumbers(rows, scratch)
        # a folded mode stands for as many as it has mirror images
        weights = np.full(k.shape, 2.0 if rows.mirrored else 1.0)
        weights[1 : (bins.shape[0] + 1) // 2] *= 2
        weights = bins.both_halves(weights)
        modes += bins.sum(index, weights)
        sums += bins.sum(index, weights * k)
    return sums / modes, modes


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def as_numpy(values: Values) -> Array:
    """The values on the host, without their gradient."""
    if isinstance(values, np.ndarray):
        return values
    array: Array = values.detach().cpu().numpy()
    return array
