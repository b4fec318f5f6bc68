"""Displacements and velocities of cosmological structure, in units of their linear growth.

Linear theory makes both proportional to the growth factor D(z), so that after these norms fields of
all redshifts look alike. Redshift and matter density are numbers, or names of styles that tell them
for every sample.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from map2map.errors import FieldError
from map2map.norms.base import Norm
from map2map.physics.cosmology import growth_factor, growth_rate, hubble
from map2map.physics.growth import linear_growth

__all__ = ["Displacement", "Velocity"]


class _Growth(Norm):
    """Division by a number that depends on redshift and matter density."""

    z: float | str
    Om: float | str
    std: float

    def __init__(self, z: float | str = 0.0, Om: float | str = 0.31, std: float = 6.0) -> None:
        super().__init__()
        self.z, self.Om, self.std = z, Om, std
        self.factor = self._number()

    @property
    def needs(self) -> tuple[str, ...]:
        """The styles that tell redshift and matter density."""
        return tuple(name for name in (self.z, self.Om) if isinstance(name, str))

    def _number(self) -> float | None:
        """What is divided by, if it is known."""
        if isinstance(self.z, str) or isinstance(self.Om, str):
            return None
        return self.std * self.typical(self.z, self.Om)

    @staticmethod
    def typical(z: float, Om: float) -> float:
        """How large fields are, in units of those today."""
        raise NotImplementedError

    @staticmethod
    def typical_of(z: Tensor, Om: Tensor) -> Tensor:
        """The same for samples."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the factor."""
        return x / self._known()

    def inverse(self, y: Tensor) -> Tensor:
        """Multiply by the factor."""
        return y * self._known()

    def _known(self) -> float:
        if self.factor is None:
            raise FieldError(
                f"the norm {type(self).__name__} depends on the styles {', '.join(self.needs)}, "
                f"which are not known here; give it numbers instead of their names"
            )
        return self.factor

    def forward_at(self, x: Tensor, styles: Mapping[str, Tensor]) -> Tensor:
        """Divide each sample by its factor."""
        return x / self._factors(x, styles)

    def inverse_at(self, y: Tensor, styles: Mapping[str, Tensor]) -> Tensor:
        """Multiply each sample by its factor."""
        return y * self._factors(y, styles)

    def _factors(self, x: Tensor, styles: Mapping[str, Tensor]) -> Tensor:
        like = next(iter(styles.values()))
        z, Om = (
            styles[value] if isinstance(value, str) else torch.full_like(like, value)
            for value in (self.z, self.Om)
        )
        factors = self.std * self.typical_of(z, Om)
        return factors.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))

    def settled(self, styles: Mapping[str, float]) -> Norm:
        """The same with numbers."""
        z, Om = (styles[value] if isinstance(value, str) else value for value in (self.z, self.Om))
        return type(self)(z, Om, self.std)


class Displacement(_Growth):
    """Division by ``std * D(z)``.

    Args:
        z: Redshift; or the name of the style that tells it.
        Om: Matter density of the flat universe, in units of the critical density; or likewise.
        std: Typical displacement today [Mpc/h].
    """

    def __init__(self, z: float | str = 0.0, Om: float | str = 0.31, std: float = 6.0) -> None:
        super().__init__(z, Om, std)

    @staticmethod
    def typical(z: float, Om: float) -> float:
        """D."""
        return float(growth_factor(z, Om))

    @staticmethod
    def typical_of(z: Tensor, Om: Tensor) -> Tensor:
        """D of samples."""
        return linear_growth(z, Om)[0]


class Velocity(_Growth):
    """Division by ``std * D(z) * H(z) * f(z) / (1 + z)``, the linear velocity [km/s].

    Args:
        z: Redshift; or the name of the style that tells it.
        Om: Matter density of the flat universe, in units of the critical density; or likewise.
        std: Typical displacement today [Mpc/h].
    """

    def __init__(self, z: float | str = 0.0, Om: float | str = 0.31, std: float = 6.0) -> None:
        super().__init__(z, Om, std)

    @staticmethod
    def typical(z: float, Om: float) -> float:
        """D H f / (1 + z)."""
        return float(growth_factor(z, Om) * hubble(z, Om) * growth_rate(z, Om)) / (1 + z)

    @staticmethod
    def typical_of(z: Tensor, Om: Tensor) -> Tensor:
        """D H f / (1 + z) of samples."""
        growth, rate, expansion = linear_growth(z, Om)
        return growth * rate * expansion / (1 + z)
