"""Growth against integrals of its equation, the transfer function against other codes."""

import numpy as np
import pytest
from scipy.integrate import quad

from map2map.errors import RecipeError
from map2map.physics.cosmology import (
    expansion,
    growth_factor,
    growth_factor_second,
    growth_rate,
    growth_rate_second,
    hubble,
    linear_power,
    transfer_function,
)

K = np.array([1e-3, 1e-2, 0.05, 0.1, 0.2, 1.0, 10.0])


def growth_integral(a, Om):
    """Heath 1977: D ∝ E(a) times the integral of da / (a E)^3."""
    integral, _ = quad(
        lambda x: (x * np.sqrt(Om / x**3 + 1 - Om)) ** -3, 0, a, epsabs=0, epsrel=1e-12
    )
    return np.sqrt(Om / a**3 + 1 - Om) * integral


def test_values_that_map2map_has():
    z = [0.5, 1, 2, 127]
    expected = [0.7703215732299059, 0.6084071313540005, 0.4185452632215598, 0.00995332641338654]
    np.testing.assert_allclose(growth_factor(z, 0.31), expected, rtol=1e-13)
    rates = [0.522370170742865, 0.874293222808704]
    np.testing.assert_allclose(growth_rate([0, 1], 0.31), rates, rtol=1e-13)
    np.testing.assert_allclose(hubble(1, 0.31), 178.04493814764854, rtol=1e-14)


@pytest.mark.parametrize("Om", [0.1, 0.31, 0.9])
@pytest.mark.parametrize("z", [0.0, 0.7, 5.0, 60.0])
def test_growth_factor_is_the_integral_of_the_growth_equation(z, Om):
    expected = growth_integral(1 / (1 + z), Om) / growth_integral(1.0, Om)
    np.testing.assert_allclose(growth_factor(z, Om), expected, rtol=1e-9)


@pytest.mark.parametrize("first", [True, False])
def test_rates_are_logarithmic_derivatives_of_factors(first):
    factor, rate = (
        (growth_factor, growth_rate) if first else (growth_factor_second, growth_rate_second)
    )
    z, step = np.array([0.0, 1.0, 9.0]), 1e-4
    later, earlier = ((1 + z) * np.exp(-sign * step) - 1 for sign in (1, -1))
    slope = np.log(factor(later, 0.31) / factor(earlier, 0.31)) / (2 * step)
    np.testing.assert_allclose(rate(z, 0.31), slope, rtol=1e-6)


@pytest.mark.parametrize("Om", [0.2, 0.31, 0.8])
@pytest.mark.parametrize("z", [0.0, 1.5, 9.0])
def test_second_order_growth_solves_its_equation_by_variation_of_parameters(z, Om):
    # homogeneous solutions are D and E; their Wronskian with respect to ln a is D (E' - f E)
    def integrand(log_a, growing):
        a = np.exp(log_a)
        E2 = Om / a**3 + 1 - Om  # noqa: N806
        D = growth_integral(a, Om) / growth_integral(1.0, Om)
        matter = Om / a**3 / E2
        f = float(growth_rate(1 / a - 1, Om))
        wronskian = D * np.sqrt(E2) * (-1.5 * matter - f)
        return (np.sqrt(E2) if growing else D) * -1.5 * matter * D**2 / wronskian

    a = 1 / (1 + z)
    growing, decaying = (
        quad(integrand, np.log(1e-12), np.log(a), (growing,), epsabs=0, epsrel=1e-9)[0]
        for growing in (True, False)
    )
    D = growth_integral(a, Om) / growth_integral(1.0, Om)
    expected = -D * growing + float(expansion(a, Om)) * decaying
    np.testing.assert_allclose(growth_factor_second(z, Om), expected, rtol=1e-7)


def test_without_dark_energy_growth_is_a_power_of_the_scale_factor():
    z = np.array([0.0, 1.0, 3.0, 1e5])
    a = 1 / (1 + z)
    np.testing.assert_allclose(growth_factor(z, 1.0), a, rtol=1e-12)
    np.testing.assert_allclose(growth_factor_second(z, 1.0), -3 / 7 * a**2, rtol=1e-7)
    np.testing.assert_allclose(growth_rate_second(z, 1.0), 2, rtol=1e-7)
    np.testing.assert_allclose(hubble(z, 1.0), 100 * a**-1.5, rtol=1e-12)


def test_second_order_growth_is_close_to_the_fit_of_bouchet():
    z = np.array([0.0, 0.5, 2.0])
    matter = 0.31 * (1 + z) ** 3 / expansion(1 / (1 + z), 0.31) ** 2
    fit = -3 / 7 * growth_factor(z, 0.31) ** 2 * matter ** (-1 / 143)
    np.testing.assert_allclose(growth_factor_second(z, 0.31), fit, rtol=2e-3)


def test_transfer_function_is_that_of_colossus():
    # colossus 1.3: modelEisenstein98(k, Om0=0.31, Ob0=0.049, h=0.677, Tcmb0=2.7255)
    expected = [
        0.9922494545938194,
        0.780201268621697,
        0.27126489998224307,
        0.1312260573996073,
        0.05511985584566752,
        0.004693011336227425,
        8.993664916076632e-05,
    ]
    np.testing.assert_allclose(transfer_function(K, 0.31, 0.049, 0.677), expected, rtol=1e-12)


def test_linear_power_is_within_four_percent_of_a_boltzmann_code():
    # camb 1.6, massless neutrinos, scaled to the same sigma8
    expected = [3948.3446, 22855.561, 12815.021, 5691.7865, 2039.9301, 70.649737, 0.23355215]
    power = linear_power(K, 0.31, 0.049, 0.677, 0.967, 0.83)
    np.testing.assert_allclose(power, expected, rtol=0.04)


def test_linear_power_has_the_asked_deviation_in_spheres_and_none_at_the_mean():
    def integrand(log_k):
        k, x = np.exp(log_k), 8 * np.exp(log_k)
        window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
        power = linear_power(k, 0.25, 0.04, 0.7, 1.0, 0.9)
        return k**3 * power * window**2 / (2 * np.pi**2)

    variance, _ = quad(integrand, np.log(1e-4), np.log(20), limit=300, epsrel=1e-5)
    np.testing.assert_allclose(np.sqrt(variance), 0.9, rtol=1e-4)
    assert linear_power(0.0, 0.31, 0.049, 0.677, 0.967, 0.83) == 0


@pytest.mark.parametrize("Om", [0.0, -0.3, 1.2])
def test_a_matter_density_that_is_not_flat_is_refused(Om):
    with pytest.raises(RecipeError, match="matter density Om of a flat universe"):
        growth_factor(0, Om)


def test_other_impossible_parameters_are_refused():
    with pytest.raises(RecipeError, match="redshift is above -1"):
        growth_factor(-1, 0.3)
    with pytest.raises(RecipeError, match="baryon density"):
        transfer_function(0.1, 0.3, 0.4, 0.7)
