"""Two streams, clouds with and without sides, optics: against limits that are known exactly."""

import numpy as np
import pytest
from scipy.sparse import csc_array
from scipy.sparse.linalg import spsolve

from map2map.physics.cloudy_sky import Sky
from map2map.physics.column_optics import Contents, planck, solar_layers, thermal_layers
from map2map.physics.heating_rates import KELVIN_PER_DAY, heating_rates
from map2map.physics.radiation import (
    STEFAN_BOLTZMANN,
    Clouds,
    solar_fluxes,
    thermal_fluxes,
)
from map2map.physics.two_stream import Layer, delta_scaled, emission, layer

LEVELS, COLUMNS = 12, 5
RNG = np.random.default_rng(0)
MU = np.array([0.05, 0.2, 0.5, 0.8, 1.0])
SUN = np.array([[600.0], [300.0]]) * MU
FRACTION = np.clip(RNG.uniform(-0.7, 1.2, (LEVELS, COLUMNS)), 0, 1)
FRACTION[3, 0], FRACTION[4, 0] = 1.0, 1.0


def clouds(size=np.inf, fraction=FRACTION):
    rng = np.random.default_rng(1)
    return Clouds(
        fraction,
        rng.uniform(0, 1, (LEVELS - 1, COLUMNS)),
        rng.uniform(200, 900, (LEVELS, COLUMNS)),
        size,
    )


def layers(albedo=None, same=False):
    """Layers whose cloudy region is optically thick, unless both are the ``same``."""
    rng = np.random.default_rng(2)
    depth = rng.uniform(0.01, 0.3, (LEVELS, 2, 2, COLUMNS))
    depth[:, 1] *= 1 if same else 20
    if same:
        depth[:, 1] = depth[:, 0]
    albedo = rng.uniform(0.5, 1, (2, COLUMNS)) if albedo is None else albedo
    return [layer(d, albedo, np.full(d.shape, 0.7), MU) for d in depth]


GROUND = (np.array([[0.1], [0.4]]) * np.ones(COLUMNS), np.array([[0.2], [0.3]]) * np.ones(COLUMNS))


def test_a_layer_that_absorbs_nothing_loses_nothing():
    depth = np.array([1e-6, 0.01, 0.3, 2.0, 30.0, 500.0])[:, None]
    one = layer(depth, np.array(1.0), np.array(0.8), MU)
    np.testing.assert_allclose(one.reflected + one.transmitted, 1, rtol=1e-8)
    np.testing.assert_allclose(one.beam_up + one.beam_down + one.beam, 1, rtol=1e-7)
    # a conservative layer reflects g tau / (1 + g tau), with g = 3/4 (1 - asymmetry)
    gain = 0.75 * 0.2 * np.broadcast_to(depth, one.reflected.shape)
    np.testing.assert_allclose(one.reflected, gain / (1 + gain), rtol=1e-7)


def test_two_streams_solve_their_differential_equations():
    # by finite differences of the equations themselves; unknowns are up and down, level by level
    depth, albedo, asymmetry, mu, n = 1.7, 0.83, 0.6, 0.37, 4000
    g1 = 2 - albedo * (1.25 + 0.75 * asymmetry)
    g2 = 0.75 * albedo * (1 - asymmetry)
    g3 = (2 - 3 * mu * asymmetry) / 4
    step = depth / n
    # scattered by each layer, of a beam of flux 1 through the horizontal
    scattered = albedo / mu * np.exp(-step * (np.arange(n) + 0.5) / mu) * step
    entries, right = [], np.zeros(2 * n + 2)
    for i in range(n):
        for end, sign in ((i, -1), (i + 1, 1)):
            up, down = 2 * end, 2 * end + 1
            # d up / dt = g1 up - g2 down - g3 s, d down / dt = g2 up - g1 down + (1 - g3) s
            entries += [(2 * i, up, sign - step / 2 * g1), (2 * i, down, step / 2 * g2)]
            entries += [(2 * i + 1, down, sign + step / 2 * g1), (2 * i + 1, up, -step / 2 * g2)]
        right[2 * i], right[2 * i + 1] = -g3 * scattered[i], (1 - g3) * scattered[i]
    # nothing diffuse comes from below or above
    entries += [(2 * n, 2 * n, 1.0), (2 * n + 1, 1, 1.0)]
    rows, cols, values = zip(*entries, strict=True)
    solved = spsolve(csc_array((values, (rows, cols)), shape=(2 * n + 2, 2 * n + 2)), right)
    one = layer(*map(np.array, (depth, albedo, asymmetry, mu)))
    np.testing.assert_allclose(one.beam_up, solved[0], rtol=1e-5)
    np.testing.assert_allclose(one.beam_down, solved[2 * n + 1], rtol=1e-5)


def test_the_removable_pole_is_removed():
    # of isotropic scattering, where k mu = 1
    albedo = 0.9
    k = np.sqrt((2 - 1.25 * albedo) ** 2 - (0.75 * albedo) ** 2)
    mu = np.array([1 / k * (1 + d) for d in (-1e-3, 0.0, 1e-3)])
    one = layer(np.array(0.8), np.array(albedo), np.array(0.0), mu)
    np.testing.assert_allclose(one.beam_up[1], one.beam_up[[0, 2]].mean(), rtol=1e-4)
    np.testing.assert_allclose(one.beam_down[1], one.beam_down[[0, 2]].mean(), rtol=1e-4)


def test_forward_scattering_is_no_scattering():
    depth, albedo, asymmetry = delta_scaled(np.array(5.0), np.array(1.0), np.array(1 - 1e-12))
    np.testing.assert_allclose(depth, 0, atol=1e-10)
    depth, albedo, asymmetry = delta_scaled(np.array(3.0), np.array(0.9), np.array(0.0))
    np.testing.assert_allclose([depth, albedo, asymmetry], [3.0, 0.9, 0.0])
    # absorption and what is scattered away from the beam's axis are kept
    depth, albedo, asymmetry = delta_scaled(np.array(3.0), np.array(0.9), np.array(0.8))
    np.testing.assert_allclose(depth * (1 - albedo), 3.0 * 0.1)
    np.testing.assert_allclose(depth * albedo * (1 - asymmetry), 3.0 * 0.9 * 0.2)


@pytest.mark.parametrize("size", [np.inf, 500.0])
def test_without_absorption_the_net_flux_is_the_same_at_all_heights(size):
    made = solar_fluxes(layers(albedo=np.array(1.0)), clouds(size), MU, SUN, GROUND)
    net = made.down - made.up
    np.testing.assert_allclose(net, np.broadcast_to(net[0], net.shape), rtol=1e-6)
    assert (net > 0).all()
    # above ground that reflects everything, all returns
    white = (np.ones((2, COLUMNS)), np.ones((2, COLUMNS)))
    made = solar_fluxes(layers(albedo=np.array(1.0)), clouds(size), MU, SUN, white)
    np.testing.assert_allclose(made.up[0], SUN.sum(axis=0), rtol=1e-5)


def test_without_scattering_the_beam_falls_as_beer_and_lambert_say():
    made = layers(albedo=np.array(0.0), same=True)
    black = (np.zeros((2, COLUMNS)), np.zeros((2, COLUMNS)))
    rng = np.random.default_rng(2)
    depth = rng.uniform(0.01, 0.3, (LEVELS, 2, 2, COLUMNS))[:, 0]
    passed = np.exp(-np.cumsum(depth, axis=0) / MU)
    expected = np.concatenate([SUN[None], SUN * passed]).sum(axis=1)
    for size in (np.inf, 300.0):
        found = solar_fluxes(made, clouds(size), MU, SUN, black)
        np.testing.assert_allclose(found.down, expected, rtol=1e-10)
        np.testing.assert_allclose(found.up, 0, atol=1e-10)


def test_adding_layers_is_the_sum_of_all_reflections():
    # one layer above ground: R + T a T / (1 - a R)
    one = Layer(*(np.full((2, 1, 1), value) for value in (0.3, 0.6, 0.2, 0.25, 0.5)))
    clear = Clouds(np.zeros((1, 1)), np.zeros((0, 1)), np.ones((1, 1)))
    ground = (np.full((1, 1), 0.4), np.full((1, 1), 0.7))
    made = solar_fluxes([one], clear, np.ones(1), np.full((1, 1), 100.0), ground)
    upward = 0.0
    down, from_beam = 25.0, 0.7 * 50.0
    total_down, wave = 0.0, down
    ups = from_beam
    for _ in range(200):
        total_down += wave
        rising = 0.4 * wave + ups
        upward += rising
        wave, ups = 0.3 * rising, 0.0
    np.testing.assert_allclose(made.down[:, 0], [100.0, 50.0 + total_down])
    np.testing.assert_allclose(made.up[:, 0], [20.0 + 0.6 * upward, upward])


def test_a_black_column_of_one_temperature_radiates_as_a_black_body():
    black = np.full(COLUMNS, STEFAN_BOLTZMANN * 271.0**4)
    share = np.array([[0.25], [0.75]])
    for size in (np.inf, 700.0):
        made = [emission(np.full((2, 2, COLUMNS), 40.0), share * black, share * black)] * LEVELS
        found = thermal_fluxes(made, clouds(size), share * black, np.full((2, COLUMNS), 0.6))
        np.testing.assert_allclose(found.up[:-1], np.broadcast_to(black, (LEVELS, COLUMNS)))
        np.testing.assert_allclose(found.down[1:], np.broadcast_to(black, (LEVELS, COLUMNS)))
        np.testing.assert_array_equal(found.down[0], 0)
        # and ground that is not black sends up what it reflects
        np.testing.assert_allclose(found.up[-1], black)


def test_emission_has_the_limits_of_thin_and_thick_layers():
    thick = emission(np.array(1e4), np.array(200.0), np.array(300.0))
    np.testing.assert_allclose([thick.transmitted, thick.up, thick.down], [0, 200, 300], atol=0.02)
    thin = emission(np.array(1e-9), np.array(200.0), np.array(300.0))
    np.testing.assert_allclose([thin.up, thin.down], 1.66e-9 * 250, rtol=1e-6)
    # by quadrature of B exp(-t)
    t = np.linspace(0, 1.66 * 0.8, 20001)
    source = 200 + 100 * t / t[-1]
    middle = (t[1:] + t[:-1]) / 2
    weight = np.diff(t)
    one = emission(np.array(0.8), np.array(200.0), np.array(300.0))
    mean = (source[1:] + source[:-1]) / 2
    np.testing.assert_allclose(one.up, (mean * np.exp(-middle) * weight).sum(), rtol=1e-8)
    np.testing.assert_allclose(one.down, (mean * np.exp(middle - t[-1]) * weight).sum(), rtol=1e-8)


def test_sides_of_clouds_that_are_like_the_air_around_them_do_nothing():
    made = layers(same=True)
    sides, none = (solar_fluxes(made, clouds(size), MU, SUN, GROUND) for size in (300.0, np.inf))
    np.testing.assert_allclose(sides.down, none.down, rtol=1e-10)
    np.testing.assert_allclose(sides.up, none.up, rtol=1e-10)
    # otherwise they do
    made = layers()
    sides, none = (solar_fluxes(made, clouds(size), MU, SUN, GROUND) for size in (300.0, np.inf))
    assert np.abs(sides.down - none.down).max() > 1


def test_where_there_are_no_clouds_or_nothing_else_sides_do_nothing_at_all():
    for fraction in (np.zeros((LEVELS, COLUMNS)), np.ones((LEVELS, COLUMNS))):
        both = [
            solar_fluxes(layers(), clouds(size, fraction), MU, SUN, GROUND)
            for size in (300.0, np.inf)
        ]
        np.testing.assert_array_equal(both[0].down, both[1].down)
        np.testing.assert_array_equal(both[0].up, both[1].up)


def test_a_low_sun_shines_on_the_sides_of_clouds_and_a_high_one_through_their_gaps():
    fraction = np.zeros((LEVELS, COLUMNS))
    fraction[8:10] = 0.3
    black = (np.zeros((2, COLUMNS)), np.zeros((2, COLUMNS)))
    depth = np.zeros((LEVELS, 2, 2, COLUMNS))
    depth[8:10, 1] = 10.0
    made = [layer(d, np.full(d.shape, 0.999), np.full(d.shape, 0.5), MU) for d in depth]
    sides, none = (
        solar_fluxes(made, clouds(size, fraction), MU, SUN, black) for size in (500.0, np.inf)
    )
    reflected = ((sides.up - none.up)[0] / SUN.sum(axis=0)).tolist()
    assert reflected[0] > 0.05
    assert reflected[-1] < -0.001
    assert reflected[1:] == sorted(reflected[1:], reverse=True)
    # clouds that are half as large have twice the edges, and more of the effect
    more = solar_fluxes(made, clouds(250.0, fraction), MU, SUN, black)
    assert (np.abs(more.up - none.up)[0] > np.abs(sides.up - none.up)[0]).all()


def test_direct_light_enters_the_sides_of_a_cloud_as_geometry_says():
    # a black cloud of two layers: below its top, it takes what comes through its sides
    fraction, height, size, mu = 0.3, 1e-3, 400.0, 0.6
    zero = np.zeros((2, 1, 1))
    one = layer(np.array([0.0, 1e6])[:, None, None], zero, zero, np.array([mu]))
    both = np.full((2, 1), fraction)
    sky = Clouds(both, np.ones((1, 1)), np.full((2, 1), height), size)
    black = np.zeros((1, 1))
    made = solar_fluxes([one, one], sky, np.array([mu]), np.ones((1, 1)), (black, black))
    edges = 4 * fraction * (1 - fraction) / size
    through = edges * np.tan(np.arccos(mu)) / np.pi * height
    np.testing.assert_allclose(made.down[1, 0], 1 - fraction, rtol=1e-12)
    np.testing.assert_allclose(made.down[1, 0] - made.down[2, 0], through, rtol=1e-4)


def test_sides_of_clouds_emit():
    fraction = np.zeros((LEVELS, COLUMNS))
    fraction[6:9] = 0.4
    depth = np.zeros((LEVELS, 2, 1, COLUMNS))
    depth[6:9, 1] = 30.0
    black = np.full((1, COLUMNS), 300.0)
    made = [emission(d, black, black) for d in depth]
    sides, none = (
        thermal_fluxes(made, clouds(size, fraction), 0 * black, 0 * black + 1)
        for size in (400.0, np.inf)
    )
    assert (sides.down[-1] > none.down[-1] + 1).all()
    assert (sides.up[0] > none.up[0] + 1).all()
    np.testing.assert_allclose(none.down[9], 300 * 0.4 + (none.down[9] - 120), rtol=1e-12)


def test_overlap_is_from_random_to_maximum():
    fraction = np.array([[0.5], [0.3]])
    both = {}
    for parameter in (0.0, 1.0):
        sky = Clouds(fraction, np.full((1, 1), parameter), np.ones((2, 1)))
        down, up = sky.passing(0)
        for matrix, source, target in ((down, 0.5, 0.3), (up, 0.3, 0.5)):
            matrix = matrix[:, :, 0, 0]
            np.testing.assert_allclose(matrix.sum(axis=0), 1)
            # what is even remains even
            np.testing.assert_allclose(matrix @ [1 - source, source], [1 - target, target])
        both[parameter] = down[1, 1, 0, 0] * 0.5
    np.testing.assert_allclose([both[0.0], both[1.0]], [0.15, 0.3])


def test_heating_rates_are_the_divergence_of_the_net_flux():
    np.testing.assert_allclose(KELVIN_PER_DAY, 843.9188844621514, rtol=1e-15)
    pressure = np.array([[0.0, 100.0, 300.0]])
    rate = heating_rates(np.array([[50.0, 49.0, 52.0]]), pressure)
    np.testing.assert_allclose(rate, [[KELVIN_PER_DAY / 100, -3 * KELVIN_PER_DAY / 200]])
    # 1 W m-2 absorbed in a layer warms its mass times the heat capacity in a day by as much
    np.testing.assert_allclose(rate[0, 0], 86400 * 1.0 / (100.0 / 9.80665 * 1004))


def contents(liquid=0.0, fraction=0.0):
    half = np.linspace(100.0, 1e5, LEVELS + 1)[:, None] * np.ones(2)
    zero = np.zeros((LEVELS, 2))
    names = ("q", "o3", "co2", "n2o", "ch4", "o2", "cfc11", "cfc12", "hcfc22", "ccl4")
    return Contents(
        half,
        dict.fromkeys(names, zero),
        np.zeros((12, LEVELS, 2)),
        zero + fraction,
        zero + liquid,
        zero,
        zero + 1e-5,
        zero + 5e-5,
    )


def test_air_without_gases_only_scatters_a_little_and_emits_nothing():
    made = list(solar_layers(contents(), np.array([0.5, 1.0])))
    for one in made:
        np.testing.assert_allclose(one.beam_up + one.beam_down + one.beam, 1, rtol=1e-7)
    beam = np.prod([one.beam for one in made], axis=0)
    # delta-scaling does not change Rayleigh's scattering: optical depth 0.15 in the first band
    np.testing.assert_allclose(beam[0, 0], np.exp(-0.15 * 99900 / 101325 / np.array([0.5, 1])))
    for one in thermal_layers(contents(), np.full((LEVELS + 1, 2), 260.0)):
        np.testing.assert_array_equal([one.up, one.down, one.transmitted - 1], 0)
    np.testing.assert_allclose(planck(np.array([300.0])).sum(), 5.670374419e-8 * 300**4)


def test_the_optical_depth_of_a_cloud_is_that_of_its_drops():
    depth = contents(liquid=1e-4, fraction=0.5).cloud_depths()
    water = 1e-4 / 0.5 * (99900 / LEVELS) / 9.80665
    np.testing.assert_allclose(depth["liquid"], 1.5 * water / (1000 * 1e-5))
    np.testing.assert_array_equal(depth["ice"], 0)
    # water outside of clouds is not seen, nor divided by zero
    np.testing.assert_array_equal(contents(liquid=1e-4).cloud_depths()["liquid"], 0)


def test_the_planet_is_about_as_bright_and_warm_as_the_earth():
    latitude = np.arcsin(1 - (2 * np.arange(200) + 1) / 200)
    longitude = np.linspace(0, 2 * np.pi, 200, endpoint=False) * 7 % (2 * np.pi)
    sky = Sky.draw(latitude, longitude, 0.0, 12.0, [5])
    solar, thermal = sky.fluxes(np.inf)
    day = sky.mu > 0
    incoming = (sky.sun * sky.mu)[day].sum()
    assert 0.2 < solar.up[0, day].sum() / incoming < 0.42
    net = solar.down - solar.up
    assert 0.15 < (net[0] - net[-1])[day].sum() / incoming < 0.32
    assert (solar.down[:, ~day] == 0).all()
    assert 210 < thermal.up[0].mean() < 265
    assert 250 < thermal.down[-1].mean() < 370
