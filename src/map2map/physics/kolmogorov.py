"""Kolmogorov flow: two-dimensional turbulence that a shear force drives, pseudo-spectral.

The velocity obeys du/dt + u . grad u = -grad p + nu lap u - mu u + chi sin(k y) e_x, div u = 0 on a
periodic square of side L, k = 2 pi m / L; it is solved for the vorticity w = dv/dx - du/dy:

    dw/dt = -u . grad w + nu lap w - mu w - chi k cos(k y)

x is the first axis of arrays, y the second. Products are formed on the grid without the modes
beyond two thirds of the largest wavenumber (Orszag 1971), so that no product of two modes falls
upon a third; viscosity and drag are integrated exactly, the rest by the Runge-Kutta scheme of
fourth order (integrating factor).
"""

from dataclasses import dataclass
from functools import cached_property
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import RecipeError
from map2map.typing import Array

__all__ = ["KolmogorovFlow"]

Modes = NDArray[np.complex128]


@dataclass(frozen=True)
class KolmogorovFlow:
    """The flow on a grid.

    Args:
        size: Cells per axis; even.
        box: Side of the square L [length].
        viscosity: nu [length^2/time].
        drag: mu [1/time].
        force: chi, the largest acceleration [length/time^2].
        waves: m, of the force along y.
    """

    size: int = 64
    box: float = 2 * pi
    viscosity: float = 2e-3
    drag: float = 0.1
    force: float = 1.0
    waves: int = 4

    def __post_init__(self) -> None:
        if self.size < 6 or self.size % 2:
            raise RecipeError(f"the flow needs an even size of 6 or more cells, not {self.size}")
        if not (self.box > 0 and self.viscosity >= 0 and self.drag >= 0):
            raise RecipeError(
                f"the flow needs box > 0, viscosity >= 0 and drag >= 0, not {self.box}, "
                f"{self.viscosity}, {self.drag}"
            )
        if not 1 <= self.waves <= self.size // 3:
            raise RecipeError(
                f"on {self.size} cells the force has 1 to {self.size // 3} waves, not {self.waves}"
            )

    @cached_property
    def _k(self) -> tuple[Array, Array]:
        """Wavenumbers along x and y, that broadcast to the modes [1/length]."""
        unit = 2 * pi / self.box
        along = fft.fftfreq(self.size, 1 / self.size) * unit
        half = fft.rfftfreq(self.size, 1 / self.size) * unit
        return along[:, None], half[None, :]

    @cached_property
    def _squares(self) -> Array:
        kx, ky = self._k
        return np.asarray(kx**2 + ky**2)

    @cached_property
    def _inverse(self) -> Array:
        """1 / k^2, of the mean 0."""
        squares = self._squares.copy()
        squares[0, 0] = 1
        inverse = 1 / squares
        inverse[0, 0] = 0
        return inverse

    @cached_property
    def _kept(self) -> NDArray[np.bool_]:
        """Modes up to two thirds of the largest wavenumber."""
        limit = 2 * pi / self.box * self.size / 3
        kx, ky = self._k
        return np.asarray((np.abs(kx) < limit) & (np.abs(ky) < limit))

    @cached_property
    def _force(self) -> Modes:
        k = 2 * pi * self.waves / self.box
        y = np.arange(self.size) * self.box / self.size
        field = np.broadcast_to(-self.force * k * np.cos(k * y), (self.size, self.size))
        return np.asarray(fft.rfft2(field))

    def _grid(self, modes: Modes) -> Array:
        return np.asarray(fft.irfft2(modes, s=(self.size, self.size)))

    def velocity(self, vorticity: Array) -> Array:
        """Velocity of a vorticity.

        Args:
            vorticity: Shape (..., x, y) [1/time].

        Returns:
            Shape (2, ..., x, y) [length/time].
        """
        return self._velocity(np.asarray(fft.rfft2(vorticity)))

    def _velocity(self, modes: Modes) -> Array:
        kx, ky = self._k
        stream = modes * self._inverse  # w = -lap psi
        return np.stack([self._grid(1j * ky * stream), self._grid(-1j * kx * stream)])

    def _tendency(self, modes: Modes) -> Modes:
        """Of advection and force, without what is beyond two thirds."""
        kx, ky = self._k
        u, v = self._velocity(modes)
        flux = u * self._grid(1j * kx * modes) + v * self._grid(1j * ky * modes)
        found = (self._force - fft.rfft2(flux)) * self._kept
        # without a mean vorticity, which a periodic flow has not
        found[..., 0, 0] = 0
        return np.asarray(found)

    def advance(self, vorticity: Array, time: float, step: float) -> Array:
        """The vorticity after a time, by equal steps.

        Args:
            vorticity: Shape (..., x, y) [1/time]; several flows at once.
            time: How long [time].
            step: The longest step [time].

        Raises:
            RecipeError: If steps are not positive, or so long that the flow blows up.
        """
        if not (step > 0 and time >= 0):
            raise RecipeError(f"a flow advances by steps > 0 over a time >= 0, not {step}, {time}")
        count = max(1, int(np.ceil(time / step * (1 - 1e-9))))
        h = time / count
        modes: Modes = np.asarray(fft.rfft2(vorticity)) * self._kept
        half = np.exp(-(self.viscosity * self._squares + self.drag) * h / 2)
        whole = half * half
        for _ in range(count):
            a = self._tendency(modes)
            b = self._tendency(half * (modes + h / 2 * a))
            c = self._tendency(half * modes + h / 2 * b)
            d = self._tendency(whole * modes + h * half * c)
            modes = whole * modes + h / 6 * (whole * a + 2 * half * (b + c) + d)
        found = self._grid(modes)
        if not np.isfinite(found).all():
            raise RecipeError(f"the flow blew up with steps of {h:g}; take shorter ones")
        return found

    def energy(self, vorticity: Array) -> Array:
        """Mean of u^2 / 2 over the square, shape (...)."""
        return np.asarray((self.velocity(vorticity) ** 2).sum(0).mean(axis=(-2, -1)) / 2)

    def laminar(self) -> Array:
        """The vorticity that is steady, and for weak forces stable: of a velocity along x alone."""
        k = 2 * pi * self.waves / self.box
        y = np.arange(self.size) * self.box / self.size
        amplitude = -self.force * k / (self.viscosity * k**2 + self.drag)
        return np.array(np.broadcast_to(amplitude * np.cos(k * y), (self.size, self.size)))
