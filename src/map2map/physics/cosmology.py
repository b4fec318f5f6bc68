"""Growth of structure and its linear power spectrum, in flat ΛCDM.

Lengths are comoving, in Mpc/h; wavenumbers in h/Mpc. Radiation and massive neutrinos are left out
of the expansion, as in the simulations that map2map was made for. References:

- SW94: Silveira & Waga 1994, PRD 50, 4890 (growth by hypergeometric functions).
- B95: Bouchet, Colombi, Hivon & Juszkiewicz 1995, A&A 296, 575.
- EH98: Eisenstein & Hu 1998, ApJ 496, 605.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.special import hyp2f1, spherical_jn

from map2map.errors import RecipeError
from map2map.typing import Array

__all__ = [
    "Cosmology",
    "expansion",
    "growth_factor",
    "growth_factor_second",
    "growth_rate",
    "growth_rate_second",
    "hubble",
    "linear_power",
    "transfer_function",
    "velocity_of_slope",
]

T_CMB = 2.7255
"""Temperature of the microwave background [K] (Fixsen 2009)."""


@dataclass(frozen=True)
class Cosmology:
    """A flat ΛCDM universe.

    Args:
        Om: Matter density today, in units of the critical density.
        Ob: The part of it in baryons.
        h: Hubble constant [100 km/s/Mpc].
        ns: Spectral index of the primordial perturbations.
        sigma8: Deviation of the linear overdensity at z = 0 in spheres of 8 Mpc/h.
    """

    Om: float = 0.31
    Ob: float = 0.049
    h: float = 0.677
    ns: float = 0.967
    sigma8: float = 0.83

    def __post_init__(self) -> None:
        if not 0 < self.Ob < self.Om <= 1:
            raise RecipeError(f"densities must obey 0 < Ob < Om <= 1, not {self.Ob}, {self.Om}")
        if not (self.h > 0 and self.sigma8 > 0):
            raise RecipeError(f"h and sigma8 must be positive, not {self.h}, {self.sigma8}")

    def power(self, k: Array) -> Array:
        """Linear power spectrum at z = 0 [(Mpc/h)^3] for wavenumbers [h/Mpc]."""
        return linear_power(k, **asdict(self))


def expansion(a: ArrayLike, Om: float) -> Array:
    """E(a) = H(a) / H(1) = sqrt(Om / a^3 + 1 - Om).

    Args:
        a: Scale factor.
        Om: Matter density today, in units of the critical density.
    """
    return np.sqrt(check_matter(Om) / np.asarray(a, dtype=float) ** 3 + 1 - Om)


def hubble(z: ArrayLike, Om: float) -> Array:
    """H(z) = 100 E [km/s/(Mpc/h)].

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    return np.asarray(100 * expansion(scale_factor(z), Om))


def growth_factor(z: ArrayLike, Om: float) -> Array:
    """Growth factor D of linear perturbations, 1 at z = 0.

    D ∝ a 2F1(1, 1/3; 11/6; -q) with q = a^3 (1 - Om) / Om (SW94): the growing solution of
    D'' + (2 + dlnE/dlna) D' = 3/2 Om(a) D, primes being derivatives with respect to ln a.

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    a, q = scale_factor(z), dark_to_matter(z, Om)
    today = hyp2f1(1, 1 / 3, 11 / 6, -(1 - Om) / Om)
    return np.asarray(a * hyp2f1(1, 1 / 3, 11 / 6, -q) / today)


def growth_rate(z: ArrayLike, Om: float) -> Array:
    """Growth rate f = dlnD/dlna, the logarithmic derivative of `growth_factor`.

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    q = dark_to_matter(z, Om)
    ratio: Array = hyp2f1(2, 4 / 3, 17 / 6, -q) / hyp2f1(1, 1 / 3, 11 / 6, -q)
    return 1 - 6 / 11 * q * ratio


def velocity_of_slope(z: float, Om: float) -> float:
    """Peculiar velocity [km/s] per change of a comoving displacement with redshift [Mpc/h].

    v = a dx/dt = a dψ/dz dz/dt with a (1 + z) = 1 and dz/dt = -(1 + z) H, so v = -H dψ/dz
    (Peebles 1980, "The large-scale structure of the universe", section 14). Of a linear
    displacement D(z) ψ0 it is H D f ψ0 / (1 + z), because dD/dz = -D f / (1 + z).

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    return -float(hubble(z, Om))


def growth_factor_second(z: ArrayLike, Om: float) -> Array:
    """Growth factor D2 of second-order Lagrangian perturbations, negative; about -3/7 D^2.

    The displacement is D psi + D2 grad laplacian^-1 sum_{i<j} (psi_i,i psi_j,j - psi_i,j psi_j,i),
    where psi is the Zel'dovich displacement at z = 0. D2 is integrated numerically from
    D2'' + (2 + dlnE/dlna) D2' = 3/2 Om(a) (D2 - D^2); it starts as -3/7 D^2, the solution for
    Om = 1. It agrees with the fit -3/7 D^2 Om(a)^(-1/143) of B95 to some permille.

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    second: Array = second_order(scale_factor(z), Om)[0]
    return second


def growth_rate_second(z: ArrayLike, Om: float) -> Array:
    """Growth rate f2 = dlnD2/dlna, the logarithmic derivative of `growth_factor_second`.

    Args:
        z: Redshift.
        Om: Matter density today, in units of the critical density.
    """
    second, slope = second_order(scale_factor(z), Om)
    rate: Array = slope / second
    return rate


def second_order(a: Array, Om: float) -> Array:
    """D2 and dD2/dlna at scale factors ``a``, stacked on a new first axis."""
    a = np.asarray(a)
    early = np.minimum(a, EARLIEST)
    # matter dominates before the integration starts, and D2 grows as a^2
    value: Array = second_order_solution(float(Om))(np.log(np.maximum(a, EARLIEST)).ravel())
    return value.reshape(2, *a.shape) * (early / EARLIEST) ** 2


EARLIEST = 1e-4
"""Scale factor at which the integration of D2 starts; its error is of the order of its cube."""


@lru_cache(maxsize=64)
def second_order_solution(Om: float) -> Any:
    """Interpolant ln a -> (D2, dD2/dlna) between ``EARLIEST`` and a = 10."""

    def slope(log_a: float, state: Array) -> list[float]:
        a = np.exp(log_a)
        matter = Om / a**3 / float(expansion(a, Om)) ** 2
        source = 1.5 * matter * (state[0] - float(growth_factor(1 / a - 1, Om)) ** 2)
        return [state[1], source - (2 - 1.5 * matter) * state[1]]

    start = -3 / 7 * float(growth_factor(1 / EARLIEST - 1, Om)) ** 2
    span = (np.log(EARLIEST), np.log(10.0))
    return solve_ivp(
        slope, span, [start, 2 * start], method="DOP853", dense_output=True, rtol=1e-9, atol=1e-16
    ).sol


def linear_power(
    k: ArrayLike,
    Om: float,
    Ob: float,  # noqa: N803
    h: float,
    ns: float,
    sigma8: float,
) -> Array:
    """Linear matter power spectrum at z = 0 [(Mpc/h)^3], 0 at k = 0.

    P = A k^ns T^2, with `transfer_function` T, and A such that the overdensity averaged over
    spheres of 8 Mpc/h has deviation ``sigma8``.

    Args:
        k: Wavenumber [h/Mpc].
        Om: Matter density today, in units of the critical density.
        Ob: The part of it in baryons.
        h: Hubble constant [100 km/s/Mpc].
        ns: Spectral index of the primordial perturbations.
        sigma8: Deviation of the overdensity in spheres of 8 Mpc/h.
    """

    def shape(k: Array) -> Array:
        power: Array = k**ns * transfer_function(k, Om, Ob, h) ** 2
        return power

    k = np.asarray(k, dtype=float)
    log_k = np.linspace(np.log(1e-5), np.log(1e2), 8192)
    x = 8 * np.exp(log_k)
    tophat = 3 * spherical_jn(1, x) / x
    variance = np.exp(3 * log_k) * shape(np.exp(log_k)) * tophat**2 / (2 * np.pi**2)
    power = np.zeros_like(k)
    power[k > 0] = shape(k[k > 0])
    return sigma8**2 / float(np.trapezoid(variance, log_k)) * power


def transfer_function(
    k: ArrayLike,
    Om: float,
    Ob: float,  # noqa: N803
    h: float,
) -> Array:
    """Transfer function of matter with baryonic oscillations, 1 for k to 0 (EH98, eq. 16).

    Args:
        k: Wavenumber [h/Mpc], positive.
        Om: Matter density today, in units of the critical density.
        Ob: The part of it in baryons; more than none.
        h: Hubble constant [100 km/s/Mpc].
    """
    if not 0 < Ob < check_matter(Om):
        raise RecipeError(f"the baryon density Ob must lie between 0 and Om = {Om}, not {Ob}")
    k = np.asarray(k, dtype=float) * h  # here in 1/Mpc, like the lengths below
    matter, baryons, theta = Om * h**2, Ob * h**2, T_CMB / 2.7
    fraction = Ob / Om
    # epochs of equality and drag, ratio of the momentum densities of baryons and photons: eqs 2-5
    z_equality = 2.50e4 * matter * theta**-4
    k_equality = 0.0746 * matter * theta**-2
    b1 = 0.313 * matter**-0.419 * (1 + 0.607 * matter**0.674)
    b2 = 0.238 * matter**0.223
    z_drag = 1291 * matter**0.251 / (1 + 0.659 * matter**0.828) * (1 + b1 * baryons**b2)
    loading = 31.5 * baryons * theta**-4 * 1e3
    r_drag, r_equality = loading / z_drag, loading / z_equality
    # sound horizon, eq. 6, and Silk damping, eq. 7
    sound = (2 / (3 * k_equality)) * np.sqrt(6 / r_equality)
    sound *= np.log(
        (np.sqrt(1 + r_drag) + np.sqrt(r_drag + r_equality)) / (1 + np.sqrt(r_equality))
    )
    k_silk = 1.6 * baryons**0.52 * matter**0.73 * (1 + (10.4 * matter) ** -0.95)
    q = k / (13.41 * k_equality)
    # cold dark matter, eqs 11, 12, 17, 18
    a1 = (46.9 * matter) ** 0.670 * (1 + (32.1 * matter) ** -0.532)
    a2 = (12.0 * matter) ** 0.424 * (1 + (45.0 * matter) ** -0.582)
    alpha_c = a1**-fraction * a2 ** -(fraction**3)
    b1 = 0.944 / (1 + (458 * matter) ** -0.708)
    b2 = (0.395 * matter) ** -0.0266
    beta_c = 1 / (1 + b1 * ((1 - fraction) ** b2 - 1))
    interpolation = 1 / (1 + (k * sound / 5.4) ** 4)
    cold = interpolation * pressureless(q, 1, beta_c)
    cold += (1 - interpolation) * pressureless(q, alpha_c, beta_c)
    # baryons, eqs 14, 15, 21-24
    y = (1 + z_equality) / (1 + z_drag)
    root = np.sqrt(1 + y)
    suppression = y * (-6 * root + (2 + 3 * y) * np.log((root + 1) / (root - 1)))
    alpha_b = 2.07 * k_equality * sound * (1 + r_drag) ** -0.75 * suppression
    node = 8.41 * matter**0.435
    beta_b = 0.5 + fraction + (3 - 2 * fraction) * np.sqrt((17.2 * matter) ** 2 + 1)
    shifted = k * sound / (1 + (node / (k * sound)) ** 3) ** (1 / 3)
    wiggles = pressureless(q, 1, 1) / (1 + (k * sound / 5.2) ** 2)
    wiggles += alpha_b / (1 + (beta_b / (k * sound)) ** 3) * np.exp(-((k / k_silk) ** 1.4))
    return np.asarray(fraction * wiggles * np.sinc(shifted / np.pi) + (1 - fraction) * cold)


def pressureless(q: Array, alpha: float, beta: float) -> Array:
    """T0(k, alpha, beta) of EH98, eqs 19, 20."""
    log = np.log(np.e + 1.8 * beta * q)
    scale = 14.2 / alpha + 386 / (1 + 69.9 * q**1.08)
    transfer: Array = log / (log + scale * q**2)
    return transfer


def scale_factor(z: ArrayLike) -> Array:
    """A = 1 / (1 + z)."""
    z = np.asarray(z, dtype=float)
    if np.any(z <= -1):
        raise RecipeError(f"a redshift is above -1, not {float(np.min(z))}")
    return np.asarray(1 / (1 + z))


def dark_to_matter(z: ArrayLike, Om: float) -> Array:
    """Ratio of dark energy to matter at redshift ``z``."""
    return np.asarray((1 - check_matter(Om)) / Om * scale_factor(z) ** 3)


def check_matter(Om: float) -> float:
    """The matter density, if it is one of a flat universe.

    Raises:
        RecipeError: If it is not.
    """
    if not 0 < Om <= 1:
        raise RecipeError(
            f"the matter density Om of a flat universe lies between 0 and 1, not {Om}"
        )
    return Om
