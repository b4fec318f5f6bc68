"""Shallow water on a sphere against what is known in closed form."""

import numpy as np
import pytest
from scipy.special import sph_harm_y

from map2map.errors import RecipeError
from map2map.physics.harmonics import Harmonics
from map2map.physics.shallow_water import OMEGA, RADIUS, ShallowWater, State, solid_rotation

H = Harmonics(15, RADIUS)
DAY = 86400.0


def zeros(tracers=0, truncation=15):
    n = truncation + 1
    return State(*(np.zeros((n, n), complex) for _ in range(3)), np.zeros((tracers, n, n), complex))


def smooth(seed, size=16, largest=6, mean=0.0):
    """Coefficients of a random field without small scales."""
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    m, n = np.mgrid[:size, :size]
    c[(m > n) | (n > largest) | (n == 0)] = 0
    c[0] = c[0].real
    c[0, 0] = mean * np.sqrt(2)
    return c


def lively(seed=0, phi=5e4, truncation=15, share=1.0):
    size = truncation + 1
    return State(
        1e-5 * share * smooth(seed, size),
        2e-6 * share * smooth(seed + 1, size),
        500 * share * smooth(seed + 2, size, mean=phi / 500 / share),
        np.zeros((0, size, size), complex),
    )


def test_coefficients_are_those_of_spherical_harmonics():
    c = smooth(0)
    latitude, n = np.array([-90.0, -30.0, 10.0, 71.0]), 32
    longitude = 2 * np.pi * np.arange(n) / n
    polar = np.deg2rad(90 - latitude)[:, None]
    expected = np.zeros((4, n))
    for m in range(16):
        for k in range(m, 16):
            # scipy's are of norm 1 on the sphere and have Condon's and Shortley's sign
            y = sph_harm_y(k, m, polar, longitude) * np.sqrt(2 * np.pi) * (-1) ** m
            expected += (1 + (m > 0)) * (c[m, k] * y).real
    np.testing.assert_allclose(H.field(c, latitude, n), expected, atol=1e-12)
    np.testing.assert_allclose(H.spectrum(H.field(c)), c, atol=1e-12)


def test_wind_and_its_divergence_and_curl_undo_each_other():
    vorticity, divergence = smooth(1), smooth(2)
    u, v = H.wind(vorticity, divergence)
    scale = np.abs(vorticity).max()
    np.testing.assert_allclose(H.divergence(u, v), divergence, atol=1e-11 * scale)
    np.testing.assert_allclose(H.divergence(v, -u), vorticity, atol=1e-11 * scale)


def test_wind_is_the_gradient_of_its_potential():
    # chi = sin(latitude): the wind blows north with cos(latitude) / a, whatever is around
    mu = H.mu[:, None] * np.ones(H.shape[1])
    u, v = H.wind(0 * smooth(0), H.laplacian * H.spectrum(mu))
    np.testing.assert_allclose(u, 0, atol=1e-15)
    np.testing.assert_allclose(v, (1 - mu**2) / RADIUS, rtol=1e-10)


@pytest.mark.parametrize("tilt", [0.0, 0.05, np.pi / 2])
def test_a_balanced_solid_rotation_stays_as_it_is(tilt):
    """Williamson et al. 1992, case 2, with the numbers that are given there, for 5 days."""
    water = ShallowWater(H, tilt=tilt)
    speed = 2 * np.pi * RADIUS / (12 * DAY)
    start = state = solid_rotation(water, speed, 2.94e4)
    for _ in range(240):
        state = water.step(state, 1800)
    for name in ("vorticity", "phi"):
        first, last = (H.field(getattr(s, name)) for s in (start, state))
        assert np.abs(last - first).max() < 1e-9 * np.abs(first).max()
    assert np.abs(H.field(state.divergence)).max() < 1e-10 * 2 * OMEGA
    # without rotation of the sphere it is no balance
    still = water.change(solid_rotation(ShallowWater(H, omega=0.0, tilt=tilt), speed, 2.94e4))
    assert np.abs(H.field(still.divergence)).max() * DAY > 1e-6


def test_a_geostrophic_flow_stays_balanced_and_an_unbalanced_one_sheds_waves():
    water = ShallowWater(H)
    h, f = H, water.coriolis
    # a zonal flow, which has no other waves
    psi = 1e5 * smooth(5)
    psi[1:] = 0
    vorticity = h.laplacian * psi
    # the linear balance: Laplacian of phi is div (f grad psi)
    u, v = h.wind(vorticity, 0 * vorticity)
    phi = h.inverse_laplacian * h.divergence(f * v, -f * u)
    phi[0, 0] = 1e5 * np.sqrt(2)
    none = np.zeros((0, 16, 16), complex)
    balanced = State(vorticity, 0 * psi, phi, none)
    bare = phi.copy()
    bare[1:] = bare[:, 1:] = 0
    most = []
    for state in (balanced, State(vorticity, 0 * psi, bare, none)):
        largest = 0.0
        for _ in range(48):
            state = water.step(state, 900)
            largest = max(largest, np.abs(h.field(state.divergence)).max())
        most.append(largest / np.abs(h.field(vorticity)).max())
    assert most[0] < 1e-2 * most[1]


def test_a_gravity_wave_has_the_frequency_of_the_sphere():
    # without rotation, omega^2 = n (n + 1) phi / a^2
    water, n, phi = ShallowWater(H, omega=0.0), 4, 3e4
    state = zeros()
    state.phi[0, 0], state.phi[2, n] = phi * np.sqrt(2), 1e-3
    omega = np.sqrt(n * (n + 1) * phi) / RADIUS
    steps = 50
    for _ in range(steps):
        state = water.step(state, 2 * np.pi / omega / 3 / steps)
    assert state.phi[2, n] == pytest.approx(1e-3 * np.cos(2 * np.pi / 3), rel=1e-5)


def test_mass_is_kept_exactly_and_energy_to_the_order_of_the_step():
    ground = 300 * smooth(9)
    water, start = ShallowWater(H, ground=ground), lively(share=0.2)
    lost = []
    for seconds in (2400.0, 1200.0, 300.0):
        state = start
        for _ in range(int(DAY / 2 / seconds)):
            state = water.step(state, seconds)
        assert water.mass(state) == pytest.approx(water.mass(start), rel=1e-13)
        lost.append(water.energy(state) / water.energy(start) - 1)
    # what truncation changes; and the share of steps, 2^4 times less if they are halved
    assert abs(lost[2]) < 1e-6
    assert abs(lost[1] - lost[2]) < abs(lost[0] - lost[2]) / 14
    assert abs(lost[0] - lost[2]) > 1e-8
    # the energy is none that would be kept anyhow
    assert abs(water.energy(lively(phi=5.001e4, share=0.2)) / water.energy(start) - 1) > 1e-5


def test_energy_does_not_change_in_the_equations():
    # its change is the derivative along the change of the state, by central differences
    water, start = ShallowWater(H, ground=300 * smooth(9)), lively()
    rate = water.change(start)
    ahead, behind = (water.energy(start.plus(rate, sign * 10.0)) for sign in (1, -1))
    still = State(0 * start.vorticity, 0 * start.divergence, start.phi, start.tracers)
    kinetic = water.energy(start) - water.energy(still)
    assert abs(ahead - behind) / 20 * DAY < 1e-3 * kinetic


def test_a_tracer_turns_with_a_solid_rotation_at_its_share_of_the_wind():
    water = ShallowWater(H, speeds=np.array([1.0, 0.5]))
    speed = 2 * np.pi * RADIUS / (12 * DAY)
    state = solid_rotation(water, speed, 5e4)
    state.tracers[:] = smooth(3, largest=5)
    start = state.tracers.copy()
    for _ in range(96):
        state = water.step(state, 1800)  # two days: a sixth of a turn
    m = np.arange(16)[:, None]
    for k, share in enumerate((1.0, 0.5)):
        expected = start[k] * np.exp(-1j * m * share * 2 * np.pi / 6)
        np.testing.assert_allclose(state.tracers[k], expected, atol=1e-4 * np.abs(start).max())


def test_what_is_the_same_everywhere_stays_so_in_any_wind():
    water, state = ShallowWater(H, speeds=np.array([0.7])), lively()
    state = State(state.vorticity, state.divergence, state.phi, zeros(1).tracers)
    state.tracers[0, 0, 0] = 3.0
    rate = water.change(state).tracers
    assert np.abs(rate).max() < 1e-12 * 3.0 / 3600


def test_hyperdiffusion_keeps_means_and_large_scales_and_damps_the_smallest_in_its_time():
    water = ShallowWater(H, omega=0.0, damping=3600.0)
    state = zeros()
    state.phi[0, 0], state.phi[3, 4], state.phi[3, 15] = 1, 1, 1
    damped = water._damped(state, 3600.0).phi
    assert damped[0, 0] == 1
    assert damped[3, 15] == pytest.approx(np.exp(-1))
    assert damped[3, 4] > 0.999


def test_steps_that_are_too_long_are_refused():
    water, state = ShallowWater(H), lively()
    with pytest.raises(RecipeError, match="take shorter ones"), np.errstate(all="ignore"):
        follow(water, state, 200, 20000)


def follow(water, state, steps, seconds):
    for _ in range(steps):
        state = water.step(state, seconds)
    return state
