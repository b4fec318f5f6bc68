"""Synthetic turbulence: random velocities of a given spectrum, without divergence, that change.

References: H75: Hinze 1975, Turbulence, 2nd edition, sections 3-5 (the spectrum of von Karman);
P65: Pao 1965, Phys. Fluids 8, 1063 (its end); F92: Fung, Hunt, Malik & Perkins 1992, J. Fluid Mech.
236, 281 (how eddies change).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import gamma, pi

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from map2map.errors import RecipeError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array, Shape

__all__ = ["KarmanPao", "Turbulence"]

UNSTEADINESS = 0.5
"""Of an eddy, its frequency over that of turning around (F92)."""

CONSTANT = 1.5
"""Of Kolmogorov's spectrum, in the dissipation of P65."""


@dataclass(frozen=True)
class KarmanPao:
    """Energy spectrum E(k) of isotropic turbulence, the integral of which is 3/2 rms^2.

    It is von Karman's (H75), with k^4 at large scales and k^(-5/3) at small ones, times the end
    exp(-3/2 C (k eta)^(4/3)) of P65, C = 1.5; the latter takes little of the energy, which
    is made up for in `Turbulence`.

    Args:
        rms: Deviation u' of each component of the velocity [L/T].
        integral: Longitudinal integral length [L], of the spectrum without its end.
        kolmogorov: Kolmogorov's length eta [L]; 0 for a spectrum without end.
    """

    rms: float
    integral: float
    kolmogorov: float = 0.0

    def __post_init__(self) -> None:
        if not (
            0 <= self.rms < np.inf
            and 0 < self.integral < np.inf
            and 0 <= self.kolmogorov < self.integral
        ):
            raise RecipeError(
                f"turbulence needs rms >= 0 and integral > kolmogorov >= 0, not rms {self.rms}, "
                f"integral {self.integral}, kolmogorov {self.kolmogorov}"
            )

    @classmethod
    def of_viscosity(cls, rms: float, integral: float, viscosity: float) -> "KarmanPao":
        """The spectrum whose small end follows from eta = L Re^(-3/4), Re = u' L / nu.

        Args:
            rms: Deviation u' of each component of the velocity [L/T].
            integral: Integral length [L].
            viscosity: Kinematic viscosity nu [L^2/T].
        """
        reynolds = rms * integral / viscosity
        # where eddies of the integral length are dissipated, there are no others
        return cls(rms, integral, integral / max(reynolds, 1.01) ** 0.75)

    def energy(self, k: Array) -> Array:
        """Energy per wavenumber [L^3/T^2] at wavenumbers [rad/L]."""
        # the integrals of x^4 (1 + x^2)^(-17/6) and of x^3 (1 + x^2)^(-17/6) over x > 0
        whole = gamma(5 / 2) * gamma(1 / 3) / gamma(17 / 6) / 2
        length = gamma(2) * gamma(5 / 6) / gamma(17 / 6) / 2
        # L = pi / (2 u'^2) * integral of E / k
        peak = 3 * pi / 4 * length / whole / self.integral
        x = k / peak
        karman = 1.5 * self.rms**2 / whole / peak * x**4 * (1 + x**2) ** (-17 / 6)
        found: Array = karman * np.exp(-1.5 * CONSTANT * (k * self.kolmogorov) ** (4 / 3))
        return found


class Turbulence:
    """A Gaussian random velocity in a periodic box, without divergence, and stationary.

    Each mode is a cos(w t) + b sin(w t), with a and b drawn from the same spectrum, and turns
    with the frequency w = 0.5 sqrt(k^3 E(k)) of F92; so the spectrum is the same at all times, and
    small eddies change first. Modes of the alternating sign along an axis are left empty. Energy
    beyond the box's smallest and the grid's largest wavenumber is given to the others, so that
    the expected variance is rms^2 of each component.

    Args:
        spectrum: Energy by wavenumber.
        shape: Cells per axis, three.
        spacing: Cell size [L]; one per axis, or one for all.
        rng: Draws the modes.
    """

    def __init__(
        self, spectrum: KarmanPao, shape: Shape, spacing: Spacing, rng: np.random.Generator
    ) -> None:
        self.shape = tuple(shape)
        sizes = cell_sizes(spacing, len(self.shape))
        self.waves = waves(self.shape, sizes)
        squared = np.asarray(reduce(np.add, (wave**2 for wave in self.waves)))
        squared[0, 0, 0] = 1
        k = np.sqrt(squared)
        energy = spectrum.energy(k)
        energy[0, 0, 0] = 0
        for axis, n in enumerate(self.shape):
            if n % 2 == 0:
                np.moveaxis(energy, axis, 0)[n // 2] = 0
        self.frequency = (UNSTEADINESS * np.sqrt(k**3 * energy)).astype(np.float32)
        power = energy / squared
        # of a projected mode of white noise, a third of whose variance is lost
        total = np.sum(power * twice(self.shape)) * 2 / 3 / np.prod(self.shape)
        amplitude = spectrum.rms * np.sqrt(power / total) if total > 0 else np.zeros_like(power)
        self.cosine, self.sine = (self._drawn(amplitude, squared, rng) for _ in range(2))

    def _drawn(
        self, amplitude: Array, squared: Array, rng: np.random.Generator
    ) -> NDArray[np.complex64]:
        """Modes of the three components."""
        noise = rng.standard_normal((3, *self.shape), np.float32)
        modes = fft.rfftn(noise, axes=(1, 2, 3)) * amplitude.astype(np.float32)
        along = reduce(np.add, (wave * mode for wave, mode in zip(self.waves, modes, strict=True)))
        for wave, mode in zip(self.waves, modes, strict=True):
            mode -= wave * along / squared
        drawn: NDArray[np.complex64] = modes.astype(np.complex64)
        return drawn

    def velocity(self, time: float = 0.0, shift: Sequence[float] = ()) -> NDArray[np.float32]:
        """The velocity at a time.

        Args:
            time: Since the start [T].
            shift: How far a mean flow has carried the turbulence along each axis [L].

        Returns:
            Shape (3, *space) [L/T].
        """
        phase = self.frequency * np.float32(time)
        modes = self.cosine * np.cos(phase) + self.sine * np.sin(phase)
        for wave, length in zip(self.waves, shift, strict=False):
            modes *= np.exp(-1j * wave * length).astype(np.complex64)
        found: NDArray[np.float32] = fft.irfftn(modes, s=self.shape, axes=(1, 2, 3))
        return found


def waves(shape: Shape, sizes: Sequence[float]) -> list[Array]:
    """Wavenumbers [rad/L] of `scipy.fft.rfftn` along each axis, shaped to broadcast."""
    last = len(shape) - 1
    found: list[Array] = []
    for axis, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        k = 2 * pi * (np.fft.rfftfreq(n, size) if axis == last else np.fft.fftfreq(n, size))
        found.append(k.reshape(-1, *(1,) * (last - axis)))
    return found


def twice(shape: Shape) -> NDArray[np.float64]:
    """How often each mode of a real transform counts, along the last axis."""
    counts = np.full(shape[-1] // 2 + 1, 2.0)
    counts[0] = 1
    if shape[-1] % 2 == 0:
        counts[-1] = 1
    return counts
