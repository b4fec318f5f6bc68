"""Spherical harmonics: fields and winds on a sphere as coefficients, and back, on any latitudes.

A real field is ``sum_m sum_n c[m, n] P(m, n; mu) exp(i m longitude)`` with mu = sin(latitude), n up
to the truncation T and |m| <= n; coefficients of m < 0 are conjugates, and are not kept. The P are
Legendre functions whose squares have the integral 1 over mu from -1 to 1. Winds are given by
(u, v) cos(latitude), which has a value at the poles.

Sources: HJ92: Hack & Jakob 1992, NCAR Technical Note TN-343+STR; the recurrence of P is that of
Belousov 1962, *Tables of Normalized Associated Legendre Polynomials*.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.errors import GeometryError, RecipeError
from map2map.typing import Array

__all__ = ["Harmonics", "Spectrum", "legendre"]

Spectrum = NDArray[np.complex128]
"""Coefficients, shape (…, m, n), those of m > n zero."""


def legendre(truncation: int, mu: Array) -> tuple[Array, Array]:
    """Normalized Legendre functions P, and H = (1 - mu^2) dP/dmu.

    Args:
        truncation: Largest n and m.
        mu: Sines of latitudes, shape (latitude,).

    Returns:
        Two arrays of shape (m, latitude, n), zero for m > n.
    """
    size = truncation + 2  # the derivative needs one n more
    p = np.zeros((size, len(mu), size))
    p[0, :, 0] = np.sqrt(0.5)
    for m in range(1, size):
        p[m, :, m] = np.sqrt((2 * m + 1) / (2 * m) * (1 - mu**2)) * p[m - 1, :, m - 1]
    degree, order = np.meshgrid(np.arange(size + 1), np.arange(size))
    e = np.sqrt(np.maximum(degree**2 - order**2, 0) / np.maximum(4.0 * degree**2 - 1, 1))
    for k in range(1, size):
        for j in range(k):
            before = p[j, :, k - 2] * e[j, k - 1] if k > j + 1 else 0
            p[j, :, k] = (mu * p[j, :, k - 1] - before) / e[j, k]
    h = np.zeros_like(p)
    n = np.arange(size)
    h[:, :, 1:-1] = (n[1:-1] + 1) * e[:, None, 1 : size - 1] * p[:, :, :-2]
    h[:, :, :-1] -= n[:-1] * e[:, None, 1:size] * p[:, :, 1:]
    keep = slice(0, truncation + 1)
    below = np.triu(np.ones((truncation + 1, truncation + 1)))[:, None]
    return p[keep, :, keep] * below, h[keep, :, keep] * below


@dataclass(frozen=True)
class Harmonics:
    """Transforms on a sphere, exact for products of two fields of this truncation.

    Args:
        truncation: Largest n.
        radius: Of the sphere [m].
    """

    truncation: int
    radius: float

    def __post_init__(self) -> None:
        if self.truncation < 1 or not self.radius > 0:
            raise RecipeError(
                f"a sphere has truncation >= 1 and radius > 0, not {self.truncation}, {self.radius}"
            )

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Latitudes and longitudes of the grid that products are made on."""
        least = 3 * self.truncation + 1
        longitudes = 4 * -(-least // 4)
        return longitudes // 2, longitudes

    @cached_property
    def _nodes(self) -> tuple[Array, Array]:
        mu, weights = np.polynomial.legendre.leggauss(self.shape[0])
        return mu, weights

    @property
    def mu(self) -> Array:
        """Sines of the latitudes of that grid, ascending; they are Gauss's."""
        return self._nodes[0]

    @property
    def weights(self) -> Array:
        """Areas of these latitudes; their sum is 2."""
        return self._nodes[1]

    @cached_property
    def _tables(self) -> tuple[Array, Array, Array, Array]:
        p, h = legendre(self.truncation, self.mu)
        share = (self.weights / (1 - self.mu**2))[:, None] / self.radius
        m = np.arange(self.truncation + 1)[:, None, None]
        return p, h / self.radius, p * self.weights[:, None], np.stack([m * p * share, h * share])

    @cached_property
    def laplacian(self) -> Array:
        """What the Laplacian multiplies coefficients with [1/m2], shape (n,)."""
        n = np.arange(self.truncation + 1)
        found: Array = -n * (n + 1.0) / self.radius**2
        return found

    @cached_property
    def inverse_laplacian(self) -> Array:
        """Its inverse, 0 for n = 0."""
        return np.divide(
            1, self.laplacian, where=self.laplacian != 0, out=np.zeros(len(self.laplacian))
        )

    def field(
        self, spectrum: Spectrum, latitude: Array | None = None, longitudes: int = 0
    ) -> Array:
        """A field of coefficients, shape (…, latitude, longitude).

        Args:
            spectrum: Shape (…, m, n).
            latitude: Of its rows [degrees]; default: those of our grid.
            longitudes: How many, evenly from 0 on; default: those of our grid.
        """
        table = self._tables[0]
        if latitude is not None:
            table = legendre(self.truncation, np.sin(np.deg2rad(latitude)))[0]
        return on_circles(times(spectrum, np.swapaxes(table, 1, 2)), longitudes or self.shape[1])

    def spectrum(self, field: Array) -> Spectrum:
        """Coefficients of a field on our grid, shape (…, latitude, longitude)."""
        rows = waves(field, self.truncation)
        found: Spectrum = times(rows, self._tables[2])
        return found

    def divergence(self, x: Array, y: Array) -> Spectrum:
        """Coefficients of the divergence of a vector (x, y) [u/m].

        Args:
            x: Eastward component times cos(latitude) [u], shape (…, latitude, longitude).
            y: Northward component likewise. ``divergence(y, -x)`` is the curl.
        """
        east, north = self._tables[3]
        both = waves(np.stack([x, y]), self.truncation)
        found: Spectrum = 1j * times(both[0], east) - times(both[1], north)
        return found

    def wind(
        self,
        vorticity: Spectrum,
        divergence: Spectrum,
        latitude: Array | None = None,
        longitudes: int = 0,
    ) -> tuple[Array, Array]:
        """The wind (u, v) cos(latitude) [m/s] of vorticity and divergence [1/s].

        Args:
            vorticity: Coefficients, shape (…, m, n).
            divergence: Likewise.
            latitude: Of the rows [degrees]; default: those of our grid.
            longitudes: How many, evenly from 0 on.
        """
        psi, chi = (x * self.inverse_laplacian for x in (vorticity, divergence))
        p, h = self._tables[:2]
        if latitude is not None:
            p, h = legendre(self.truncation, np.sin(np.deg2rad(latitude)))
            h = h / self.radius
        im = 1j * np.arange(self.truncation + 1)[:, None] / self.radius
        stacked = np.stack([im * chi, im * psi, psi, chi])
        x, y = (times(c, np.swapaxes(t, 1, 2)) for c, t in ((stacked[:2], p), (stacked[2:], h)))
        n = longitudes or self.shape[1]
        return on_circles(x[0] - y[0], n), on_circles(x[1] + y[1], n)


def waves(field: Array, truncation: int) -> Any:
    """Waves of each row up to a wavenumber, shape (…, m, latitude)."""
    found = np.fft.rfft(field, axis=-1)[..., : truncation + 1] / field.shape[-1]
    return np.swapaxes(found, -1, -2)


def on_circles(rows: Any, longitudes: int) -> Array:
    """Rows of longitudes from their waves, shape (…, m, latitude)."""
    if longitudes < 2 * rows.shape[-2] - 1:
        raise GeometryError(
            f"{longitudes} longitudes cannot show {rows.shape[-2] - 1} waves; take "
            f"{2 * rows.shape[-2] - 1} or more, or a lower truncation"
        )
    found: Array = np.fft.irfft(np.swapaxes(rows, -1, -2) * longitudes, longitudes, axis=-1)
    return found


def times(values: Any, table: Array) -> Any:
    """Sums over the last axis: (…, m, k) with (m, k, l) to (…, m, l)."""
    # real and imaginary parts of all fields at once, for each m
    flat = np.moveaxis(values.reshape(-1, *values.shape[-2:]), 1, 0)
    both = np.matmul(np.concatenate([flat.real, flat.imag], axis=1), table)
    half = flat.shape[1]
    found = np.moveaxis(both[:, :half] + 1j * both[:, half:], 0, 1)
    return found.reshape(*values.shape[:-1], table.shape[-1])
