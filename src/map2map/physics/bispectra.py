"""Equilateral bispectra of periodic fields, on 2 and 3 axes.

The estimator multiplies the field, filtered to a bin, with itself twice in every cell: what remains
of the sum are the triangles of modes that close (Scoccimarro 2000, ApJ 544, 597, section 4). Every
bin is put on a grid of its own, just so fine that three of its modes do not add up to an alias.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, pi, prod

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import FieldError, GeometryError
from map2map.physics.modes import Modes, threads
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.physics.spectra import Values, as_numpy
from map2map.typing import Array, Shape

__all__ = ["bispectrum", "triangle_counts", "width_for"]


def bispectrum(
    field: Values,
    spacing: Spacing,
    ndim: int | None = None,
    width: int = 1,
    *,
    divergence: bool = False,
    double: bool = True,
) -> tuple[Array, Array]:
    """Isotropic bispectrum B(k, k, k) of a periodic field.

    Normalized so that white noise of third moment m has bispectrum m spacing^(2 ndim) at every
    wavenumber, whatever the grid.

    Args:
        field: Values [u], shape (*space); or (*components, *space), over which it is summed.
        spacing: Cell size [L]; one per axis, or one for all.
        ndim: Number of space axes, see `map2map.physics.spectra.power_spectrum`.
        width: Width of a bin, in fundamental modes.
        divergence: Take the bispectrum of the divergence [u/L] of a vector field.
        double: Transform in double precision; if not, in that of the field.

    Returns:
        Mean wavenumber [rad/L] and mean of the product of three modes [u^3 L^(2 ndim)] over the
        triangles whose three sides are in the bin, up to two thirds of the smallest Nyquist
        wavenumber; NaN where there is no triangle.
    """
    values = as_numpy(field)
    if ndim is None:
        ndim = values.ndim if np.ndim(spacing) == 0 else np.size(spacing)
    if not 2 <= ndim <= min(3, values.ndim):
        raise GeometryError(
            f"bispectra are for 2 or 3 space axes, not {ndim} of a field of shape {values.shape}; "
            f"give `ndim` if the first axes are components"
        )
    space, sizes = values.shape[values.ndim - ndim :], cell_sizes(spacing, ndim)
    k, triangles = triangle_counts(space, sizes, width)
    total = np.zeros(len(k))
    components = values.reshape(-1, *space)
    transforms: Iterator[Modes] = (
        fft.rfftn(x.astype(np.float64, copy=False) if double else x, workers=threads())
        for x in components
    )
    if divergence:
        transforms = iter([divergence_modes(transforms, space, sizes)])
    for modes in transforms:
        total += [shell.triangles(modes) for shell in shells(space, sizes, width)]
    scale = prod(sizes) ** 2 / prod(space)
    found = np.full(len(k), np.nan)
    return k, np.divide(total * scale, triangles, out=found, where=triangles > 0)


def divergence_modes(components: Iterable[Modes], space: Shape, sizes: tuple[float, ...]) -> Modes:
    """The modes of the divergence, from those of a vector's components."""
    total = None
    for axis, modes in enumerate(components):
        frequencies = fft.rfftfreq if axis == len(space) - 1 else fft.fftfreq
        k = frequencies(space[axis], sizes[axis] / (2 * pi))
        factor = 1j * k.reshape(-1, *(1,) * (len(space) - 1 - axis))
        modes *= factor.astype(modes.dtype)
        total = modes if total is None else np.add(total, modes, out=total)
    if total is None or axis + 1 != len(space):
        raise FieldError("a divergence is of one component per axis")
    return total


def triangle_counts(space: Sequence[int], spacing: Spacing, width: int = 1) -> tuple[Array, Array]:
    """Mean wavenumber [rad/L] and number of triangles in each bin of `bispectrum`.

    Every order of the sides counts.

    Args:
        space: Cells per axis.
        spacing: Cell size [L]; one per axis, or one for all.
        width: Width of a bin, in fundamental modes.
    """
    shape = tuple(space)
    k, triangles = counted(shape, cell_sizes(spacing, len(shape)), width)
    return k.copy(), triangles.copy()


@lru_cache(maxsize=16)
def counted(space: Shape, sizes: tuple[float, ...], width: int) -> tuple[Array, Array]:
    """What `triangle_counts` gives, in the order of the bins."""
    every = shells(space, sizes, width)
    # the transform finds whole numbers up to rounding
    triangles = np.rint([shell.triangles(None) for shell in every])
    return np.asarray([shell.mean() for shell in every]), triangles


def shells(space: Shape, sizes: tuple[float, ...], width: int) -> "list[Shell]":
    """The bins: those of the spectra, ``width`` of them at a time.

    Raises:
        GeometryError: If there is none.
    """
    fundamental = 2 * pi / max(n * size for n, size in zip(space, sizes, strict=True))
    count = int(2 / 3 * pi / max(sizes) / fundamental / width * (1 + 1e-9))
    if count < 1 or width < 1:
        raise GeometryError(
            f"a grid of shape {space} has no whole bin of {width} modes below two thirds of its "
            f"Nyquist wavenumber"
        )
    missing = 3 - len(space)
    shape, cells = (1,) * missing + space, (1.0,) * missing + sizes
    step = width * fundamental
    return [Shell(shape, cells, number * step, (number + 1) * step) for number in range(count)]


@dataclass(frozen=True)
class Shell:
    """The modes of a bin.

    Args:
        space: Cells per axis, three; those that are missing come first and have one cell.
        sizes: Cell sizes of the axes [L].
        low: Wavenumber above which the bin starts [rad/L].
        high: Wavenumber at which it ends [rad/L].
    """

    space: Shape
    sizes: tuple[float, ...]
    low: float
    high: float

    @property
    def tops(self) -> tuple[int, ...]:
        """The highest mode of each axis that is in the bin."""
        # rounding must not lose a mode on the edge
        return tuple(
            0 if n == 1 else int(self.high * n * size / (2 * pi) * (1 + 1e-9))
            for n, size in zip(self.space, self.sizes, strict=True)
        )

    @property
    def grid(self) -> Shape:
        """The smallest good grid on which three modes do not add up to an alias."""
        return tuple(fft.next_fast_len(3 * top + 1, real=True) for top in self.tops)

    def planes(self) -> "Iterator[tuple[int, Array, NDArray[np.bool_]]]":
        """One plane of modes after another: number, wavenumbers squared, which are in the bin.

        Numbers and rows are those up to the highest mode: 0, 1, …, then the negative ones.
        """
        order = [[*range(top + 1), *range(-top, 0)] for top in self.tops[:2]]
        order.append(list(range(self.tops[2] + 1)))
        x, y, z = (
            (2 * pi * np.array(modes) / (n * size)) ** 2
            for modes, n, size in zip(order, self.space, self.sizes, strict=True)
        )
        across = y[:, None] + z
        # rounding must not push a mode over the edge on which it lies
        low, high = ((edge * (1 + 1e-9)) ** 2 for edge in (self.low, self.high))
        for number, square in zip(order[0], x, strict=True):
            total = across + square
            yield number, total, (total > low) & (total <= high) & (total > 0)

    def mean(self) -> float:
        """Mean wavenumber [rad/L] of all modes, those of the other half included."""
        total = count = 0.0
        for _, squares, inside in self.planes():
            weights = inside * np.where(np.arange(inside.shape[1]) > 0, 2.0, 1.0)
            total += float((np.sqrt(squares) * weights).sum())
            count += float(weights.sum())
        return total / count

    def triangles(self, modes: Modes | None) -> float:
        """Sum over the triangles of the product of their modes; None: of ones."""
        grid = self.grid
        dtype = np.complex128 if modes is None else modes.dtype
        filtered = np.zeros((*grid[:2], grid[2] // 2 + 1), dtype)
        _, rows, columns = self.tops
        whole = None if modes is None else modes.reshape(*self.space[:2], -1)
        for number, _, inside in self.planes():
            for part in (slice(0, rows + 1), slice(-rows, None)) if rows else (slice(0, 1),):
                into = filtered[number, part, : columns + 1]
                if whole is None:
                    into[...] = inside[part]
                else:
                    np.multiply(whole[number, part, : columns + 1], inside[part], out=into)
        return cubed(filtered, grid)


def cubed(modes: Modes, grid: Shape) -> float:
    """Mean over the cells of the cube of the field of these modes."""
    values = fft.irfftn(modes, grid, norm="forward", workers=threads(), overwrite_x=True)
    total = 0.0
    for plane in values:
        # in the processor's cache, and in double precision
        flat = plane.astype(np.float64).ravel()
        total += float(np.dot(flat * flat, flat))
    return total / prod(grid)


def width_for(space: Shape, sizes: tuple[float, ...], most: int) -> int:
    """The width of bins, in fundamental modes, of which there are about ``most``."""
    return max(1, ceil(len(shells(space, sizes, 1)) / most))
