"""The modes of real fields of up to three axes, in blocks and sorted into radial bins.

The last step of a transform, along the first axis, is left to `Rows`, so that all that follows is
done while the modes are in the processor's cache. Modes beyond the bins are left out.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from math import pi, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import GeometryError
from map2map.typing import Array, Shape

__all__ = ["Bins", "Modes", "Rows", "Scratch", "half_transform", "tally", "threads"]

Modes = NDArray[np.complexfloating[Any]]


def half_transform(values: Array, double: bool) -> Modes:
    """The transform along all axes but the first of three."""
    if double or values.dtype != np.float32:
        values = values.astype(np.float64, copy=False)
    half: Modes = fft.rfftn(values, axes=(1, 2), workers=threads())
    return half


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
