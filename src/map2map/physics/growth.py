"""Linear growth in flat ΛCDM as tensors, which can be differentiated by redshift and density."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["linear_growth"]

POINTS = 24
"""Of the quadrature; the error of D is 1e-9 for Om from 0.05 on."""


def linear_growth(z: Tensor, Om: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Growth factor D, 1 at z = 0, growth rate f = dlnD/dlna, and H [km/s/(Mpc/h)].

    D ∝ E ∫_0^a da' / (a' E)^3, with E = H / H(z = 0) (Heath 1977, MNRAS 179, 351), so that
    f = dlnE/dlna + a / (a E)^3 / ∫. With a' = a t^2 the integrand is smooth, and Gauss's rule exact
    to round-off. They agree with `map2map.physics.cosmology`, which takes numbers.

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density, of a shape that fits.
    """
    a = 1 / (1 + z)
    matter = Om / a**3
    e = torch.sqrt(matter + 1 - Om)
    today = integral(torch.ones_like(a), Om)
    so_far = integral(a, Om)
    rate = -1.5 * matter / e**2 + a / (a * e) ** 3 / so_far
    return e * so_far / today, rate, 100 * e


def integral(a: Tensor, Om: Tensor) -> Tensor:
    """The integral of da' / (a' E)^3 from 0 to a."""
    nodes, weights = (torch.tensor(part, dtype=torch.float64).to(a) for part in rule())
    t = nodes.reshape(-1, *(1,) * a.ndim)
    power = a * t**2
    # (a' E)^-3 = a'^1.5 / (Om + (1 - Om) a'^3)^1.5, and da' = 2 a t dt
    values = 2 * a**2.5 * t**4 / (Om + (1 - Om) * power**3) ** 1.5
    total: Tensor = torch.tensordot(weights, values, dims=1)
    return total


@lru_cache(maxsize=1)
def rule() -> tuple[list[float], list[float]]:
    """Nodes and weights from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
