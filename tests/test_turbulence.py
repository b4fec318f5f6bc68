"""Synthetic turbulence against its spectrum, moments and the equation of continuity."""

import numpy as np
import pytest
from scipy.integrate import quad

from map2map.errors import RecipeError
from map2map.physics.turbulence import KarmanPao, Turbulence

SHAPE, CELL = (24, 20, 16), (0.1, 0.12, 0.15)


def modes(velocity):
    """Fourier coefficients of each component, and their wavenumber vectors."""
    n = velocity.shape[1:]
    k = np.meshgrid(
        *(2 * np.pi * np.fft.fftfreq(m, h) for m, h in zip(n, CELL, strict=True)), indexing="ij"
    )
    return np.fft.fftn(velocity.astype(float), axes=(1, 2, 3)) / np.prod(n), np.array(k)


def test_the_spectrum_holds_the_energy_and_has_the_integral_length():
    spectrum = KarmanPao(rms=1.7, integral=0.4)
    energy = quad(lambda k: float(spectrum.energy(np.array(k))), 0, np.inf, limit=500)[0]
    assert energy == pytest.approx(1.5 * 1.7**2, rel=1e-4)
    over_k = quad(lambda k: float(spectrum.energy(np.array(k)) / k), 1e-9, np.inf, limit=500)[0]
    assert np.pi / (2 * 1.7**2) * over_k == pytest.approx(0.4, rel=1e-4)


def test_the_spectrum_rises_with_k4_and_falls_with_k_to_the_minus_5_3_and_then_faster():
    def slope(spectrum, k):
        e = spectrum.energy(np.array([k, 1.01 * k]))
        return np.log(e[1] / e[0]) / np.log(1.01)

    endless = KarmanPao(1.0, 1.0)
    assert slope(endless, 1e-3) == pytest.approx(4, abs=0.01)
    assert slope(endless, 1e4) == pytest.approx(-5 / 3, abs=0.01)
    ended = KarmanPao(1.0, 1.0, kolmogorov=0.01)
    # the logarithmic slope of exp(-9/4 (k eta)^(4/3)) is -3 (k eta)^(4/3)
    assert slope(ended, 100.0) == pytest.approx(-5 / 3 - 3, abs=0.05)


def test_the_smallest_eddies_follow_from_the_viscosity():
    # Re = 2 * 0.5 / 0.001 = 1000
    assert KarmanPao.of_viscosity(2.0, 0.5, 1e-3).kolmogorov == pytest.approx(0.5 / 1000**0.75)


def test_velocities_have_no_divergence_and_no_mean():
    turbulence = Turbulence(KarmanPao(1.0, 0.5), SHAPE, CELL, np.random.default_rng(0))
    for time in (0.0, 0.7):
        u, k = modes(turbulence.velocity(time, (0.3,)))
        along = np.abs((k * u).sum(axis=0))
        assert (
            along.max()
            < 1e-5 * np.sqrt((np.abs(k) ** 2).sum(axis=0) * (np.abs(u) ** 2).sum(0)).max()
        )
        assert np.abs(u[:, 0, 0, 0]).max() < 1e-7


def test_the_variance_is_as_told_at_all_times_and_the_spectrum_that_of_the_formula():
    spectrum = KarmanPao(rms=3.0, integral=0.35, kolmogorov=0.02)
    squares, power = [], 0.0
    for seed in range(12):
        turbulence = Turbulence(spectrum, SHAPE, CELL, np.random.default_rng(seed))
        for time in (0.0, 5.0):
            velocity = turbulence.velocity(time)
            squares.append((velocity**2).mean(axis=(1, 2, 3)))
            u, k = modes(velocity)
            power = power + (np.abs(u) ** 2).sum(axis=0) / 24
    for half in (squares[::2], squares[1::2]):
        assert np.mean(half) == pytest.approx(9.0, rel=0.06)
    np.testing.assert_allclose(np.mean(squares, axis=0), 9.0, rtol=0.12)
    # E(k) is 4 pi k^2 times the density of energy in wavenumbers, so 1/2 |u|^2 ~ E / k^2
    size = np.sqrt((k**2).sum(axis=0))
    shells = [(size > a) & (size < b) for a, b in ((1, 4), (4, 8), (8, 12), (12, 18))]
    found = np.array([power[shell].sum() for shell in shells])
    formula = np.array([(spectrum.energy(size[s]) / size[s] ** 2).sum() for s in shells])
    np.testing.assert_allclose(found / found.sum(), formula / formula.sum(), rtol=0.1)


def test_small_eddies_change_and_a_mean_flow_carries_all():
    turbulence = Turbulence(KarmanPao(1.0, 0.5), SHAPE, CELL, np.random.default_rng(1))
    still = turbulence.velocity()
    np.testing.assert_array_equal(still, turbulence.velocity(0.0, (0.0,)))
    carried = turbulence.velocity(0.0, (3 * CELL[0],))
    np.testing.assert_allclose(carried, np.roll(still, 3, axis=1), atol=1e-5)

    def likeness(time):
        a, k = modes(still)
        b, _ = modes(turbulence.velocity(time))
        size = np.sqrt((k**2).sum(axis=0))
        for shell in ((size > 0) & (size < 8), size > 15):
            yield (a * b.conj()).real[:, shell].sum() / (np.abs(a) ** 2)[:, shell].sum()

    large, small = likeness(0.5)
    assert 0.5 < large < 1
    assert small < large - 0.1
    assert max(likeness(0.01)) > 0.99


def test_the_same_seed_gives_the_same_and_another_does_not():
    def made(seed):
        return Turbulence(KarmanPao(1.0, 0.5), SHAPE, CELL, np.random.default_rng(seed)).velocity()

    np.testing.assert_array_equal(made(3), made(3))
    assert np.abs(made(3) - made(4)).max() > 0.1
    calm = Turbulence(KarmanPao(0.0, 0.5), SHAPE, CELL, np.random.default_rng(0))
    assert not calm.velocity(1.0).any()


@pytest.mark.parametrize("values", [(-1, 1), (1, 0), (1, 1, 1), (1, 1, -0.1), (np.nan, 1)])
def test_turbulence_that_cannot_be_is_refused(values):
    with pytest.raises(RecipeError, match="turbulence needs rms >= 0 and integral > kolmogorov"):
        KarmanPao(*values)
