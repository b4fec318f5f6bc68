"""A sea between coasts: its eddies, the weather above it, and how far the wind has blown over it.

Both fluids are sums of plane waves that drift, so that they are known in every point and at any
time: the air in geostrophic balance but for friction at the surface, the water in balance with the
slope of its surface (e.g. Vallis 2017, ch. 2).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from map2map.typing import Array

__all__ = ["Basin", "Waves", "beside_smooth", "fetch", "peak_wave_speed"]

GRAVITY = 9.81
ROTATION = 7.2921e-5
"""Of the Earth [rad/s]."""
DEGREE = 6.371e6 * np.pi / 180
"""Length of a degree of latitude [m]."""

SEA_SHARE = 0.62
"""How much of a basin is sea."""


@dataclass(frozen=True, eq=False)
class Basin:
    """A grid of latitudes and longitudes with coasts.

    Args:
        lat: Of the centers of cells, evenly from south to north [degrees].
        lon: Likewise from west to east [degrees].
        sea: Where there is sea, shape (lat, lon).
    """

    lat: Array
    lon: Array
    sea: NDArray[np.bool_]

    @classmethod
    def draw(cls, lat: Array, lon: Array, rng: np.random.Generator) -> "Basin":
        """A basin with a ragged coast all around, and islands where chance will have them."""
        basin = cls(lat, lon, np.ones((len(lat), len(lon)), bool))
        rows, columns = np.linspace(-1, 1, len(lat))[:, None], np.linspace(-1, 1, len(lon))
        ragged = Waves.draw(40, (60e3, 400e3), 1.0, rng, tilt=1.0)(*basin.xy)
        depth = 1 - np.abs(rows) ** 3 - np.abs(columns) ** 3 + 0.35 * ragged
        return cls(lat, lon, depth > np.quantile(depth, 1 - SEA_SHARE))

    @cached_property
    def xy(self) -> tuple[Array, Array]:
        """Where cells are, in the plane that touches the middle [m], shape (lat, lon) each."""
        y, x = (self.lat - self.lat.mean()) * DEGREE, (self.lon - self.lon.mean()) * DEGREE
        x = x * np.cos(np.radians(self.lat.mean()))
        return np.broadcast_to(x, (len(y), len(x))), np.broadcast_to(y[:, None], (len(y), len(x)))

    @property
    def sizes(self) -> tuple[float, float]:
        """Of a cell to the north and to the east, in that plane [m]."""
        x, y = self.xy
        return float(y[1, 0] - y[0, 0]), float(x[0, 1] - x[0, 0])

    @property
    def coriolis(self) -> float:
        """Coriolis parameter f in the middle [rad/s]."""
        return float(2 * ROTATION * np.sin(np.radians(self.lat.mean())))

    @cached_property
    def openness(self) -> Array:
        """0 at coasts, 1 far from them: eddies do not reach through."""
        away = distance_transform_edt(self.sea, sampling=self.sizes)
        open_: Array = 1 - np.exp(-((away / 40e3) ** 2))
        return open_

    def currents(self, height: Array) -> tuple[Array, Array]:
        """Geostrophic currents to the east and the north [m/s]: f u = -g dh/dy, f v = g dh/dx.

        Args:
            height: Of the sea's surface [m], shape (lat, lon).
        """
        to_north, to_east = (np.asarray(d) for d in np.gradient(height, *self.sizes))
        return -GRAVITY / self.coriolis * to_north, GRAVITY / self.coriolis * to_east


@dataclass(frozen=True, eq=False)
class Waves:
    """A sum of plane waves, sum_m a_m cos(k_m x + l_m y - w_m t + p_m).

    Args:
        amplitudes: a, shape (wave,).
        numbers: k and l [rad/m], shape (2, wave).
        frequencies: w [rad/s], shape (wave,).
        phases: p [rad], shape (wave,).
    """

    amplitudes: Array
    numbers: Array
    frequencies: Array
    phases: Array

    @classmethod
    def draw(
        cls,
        count: int,
        lengths: tuple[float, float],
        deviation: float,
        rng: np.random.Generator,
        *,
        drift: tuple[float, float] = (0.0, 0.0),
        tilt: float = 4 / 3,
    ) -> "Waves":
        """Draw waves.

        Args:
            count: How many.
            lengths: The shortest and the longest wave [m]; even in the logarithm.
            deviation: Of the sum, over all phases.
            rng: What draws.
            drift: Velocity of the whole to the east and the north [m/s]; each wave deviates from
                it by a fifth of its size.
            tilt: Amplitudes grow as the length to this power; 4/3 gives velocities a spectrum of
                k^-5/3.
        """
        length = np.exp(rng.uniform(float(np.log(lengths[0])), float(np.log(lengths[1])), count))
        angle = rng.uniform(0, 2 * np.pi, count)
        numbers = 2 * np.pi / length * np.stack([np.cos(angle), np.sin(angle)])
        amplitudes = length**tilt * rng.rayleigh(size=count)
        amplitudes *= deviation / np.sqrt((amplitudes**2).sum() / 2)
        speed = np.hypot(*drift)
        own = np.hypot(*numbers) * speed * 0.2 * rng.normal(size=count)
        frequencies = np.asarray(drift) @ numbers + own
        return cls(amplitudes, numbers, frequencies, rng.uniform(0, 2 * np.pi, count))

    def __call__(self, x: Array, y: Array, time: float = 0.0) -> Array:
        """Their sum in points [m] at a time [s]."""
        cosine, _ = self._waves(x, y, time)
        total: Array = cosine @ self.amplitudes
        return total

    def slopes(self, x: Array, y: Array, time: float = 0.0) -> tuple[Array, Array]:
        """Derivatives to the east and the north [1/m]."""
        _, sine = self._waves(x, y, time)
        to_east, to_north = (-sine @ (self.amplitudes * number) for number in self.numbers)
        return to_east, to_north

    def _waves(self, x: Array, y: Array, time: float) -> tuple[Array, Array]:
        k, l = self.numbers  # noqa: E741
        phase = x[..., None] * k + y[..., None] * l + (self.phases - self.frequencies * time)
        return np.cos(phase), np.sin(phase)


def beside_smooth(values: Array, sea: NDArray[np.bool_], cells: float) -> Array:
    """What is left of a field of the sea without its smooth part; 0 on land.

    Args:
        values: Shape (lat, lon); those on land do not matter.
        sea: Where there is sea.
        cells: Deviation of the Gaussian that smooths, over the sea alone.
    """
    weight = gaussian_filter(sea.astype(float), cells)
    total = gaussian_filter(np.where(sea, values, 0.0), cells)
    rest: Array = np.where(sea, values - total / np.where(sea, weight, 1), 0.0)
    return rest


def fetch(basin: Basin, u: Array, v: Array) -> Array:
    """How far upwind the coast is [m], or the edge of the grid; half a cell at least.

    Args:
        basin: The sea.
        u: Wind to the east, shape (lat, lon).
        v: Wind to the north.

    Returns:
        Shape (lat, lon), NaN on land, to the length of a step, which is a cell.
    """
    dy, dx = basin.sizes
    step, speed = min(dy, dx), np.maximum(np.hypot(u, v), 1e-9)
    rows, columns = np.nonzero(basin.sea)
    up, left = (-(w / speed)[basin.sea] * step / size for w, size in ((v, dy), (u, dx)))
    # beyond the grid there is no sea
    wide = np.pad(basin.sea, 1)
    lengths = np.full(len(rows), 0.5)
    going = np.ones(len(rows), bool)
    for n in range(1, sum(basin.sea.shape)):
        i = np.clip(np.rint(rows + n * up).astype(int) + 1, 0, wide.shape[0] - 1)
        j = np.clip(np.rint(columns + n * left).astype(int) + 1, 0, wide.shape[1] - 1)
        going &= wide[i, j]
        if not going.any():
            break
        lengths += going
    found = np.full(basin.sea.shape, np.nan)
    found[basin.sea] = lengths * step
    return found


def peak_wave_speed(wind: Array, length: Array) -> Array:
    """Phase speed of the waves that carry most energy [m/s], of wind and fetch.

    Their frequency is 3.5 (g / U) (g X / U^2)^-0.33 (Hasselmann et al. 1973), and they do not grow
    beyond c = 1.2 U.

    Args:
        wind: Speed U at 10 m [m/s].
        length: Fetch X [m].
    """
    speed = np.maximum(wind, 0.1)
    grown = (GRAVITY * length / speed**2) ** 0.33 / (2 * np.pi * 3.5)
    limited: Array = speed * np.minimum(grown, 1.2)
    return limited
