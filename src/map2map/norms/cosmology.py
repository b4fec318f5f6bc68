"""Displacements and velocities of cosmological structure, in units of their linear growth.

Linear theory makes both proportional to the growth factor D(z), so that after these norms fields of
all redshifts look alike.
"""

from torch import Tensor

from map2map.norms.base import Norm
from map2map.physics.cosmology import growth_factor, growth_rate, hubble

__all__ = ["Displacement", "Velocity"]


class _Growth(Norm):
    """Division by a number that depends on redshift and matter density."""

    factor: float

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the factor."""
        return x / self.factor

    def inverse(self, y: Tensor) -> Tensor:
        """Multiply by the factor."""
        return y * self.factor


class Displacement(_Growth):
    """Division by ``std * D(z)``.

    Args:
        z: Redshift.
        Om: Matter density of the flat universe, in units of the critical density.
        std: Typical displacement today [Mpc/h].
    """

    def __init__(self, z: float = 0.0, Om: float = 0.31, std: float = 6.0) -> None:
        super().__init__()
        self.z, self.Om, self.std = z, Om, std
        self.factor = std * float(growth_factor(z, Om))


class Velocity(_Growth):
    """Division by ``std * D(z) * H(z) * f(z) / (1 + z)``, the linear velocity [km/s].

    Args:
        z: Redshift.
        Om: Matter density of the flat universe, in units of the critical density.
        std: Typical displacement today [Mpc/h].
    """

    def __init__(self, z: float = 0.0, Om: float = 0.31, std: float = 6.0) -> None:
        super().__init__()
        self.z, self.Om, self.std = z, Om, std
        growth = float(growth_factor(z, Om) * hubble(z, Om) * growth_rate(z, Om))
        self.factor = std * growth / (1 + z)
