"""Columns of air: levels that never cross, an even cover of the globe, balanced weather."""

import numpy as np
import pytest

from map2map.errors import RecipeError
from map2map.physics.air_columns import (
    HybridLevels,
    Weather,
    log_height,
    mean_temperature,
    mean_wind,
    season_of,
    spiral,
    surface_noise,
    thickness,
)


def test_levels_follow_the_ground_below_and_are_flat_above_and_never_cross():
    levels = HybridLevels(63, top=1.0)
    half = levels.half(np.array([101325.0, 54000.0, 107000.0]))
    np.testing.assert_allclose(half[:, -1], [101325.0, 54000.0, 107000.0])
    np.testing.assert_allclose(half[0], levels.reference)
    np.testing.assert_allclose(half[:, 0], 1.0, rtol=1e-4)
    assert (np.diff(half, axis=1) > 0).all()


@pytest.mark.parametrize(
    "wrong", [{"levels": 1}, {"top": 0.0}, {"bottom": 2e5}, {"bottom": 0.5}, {"stretch": 0.0}]
)
def test_impossible_levels_are_refused(wrong):
    with pytest.raises(RecipeError, match="columns need levels >= 2"):
        HybridLevels(**({"levels": 10} | wrong))


def test_isothermal_air_is_as_thick_as_the_barometric_formula_says():
    half = np.geomspace(1e3, 1e5, 401)[None]
    total = thickness(np.full((1, 400), 250.0), half).sum()
    np.testing.assert_allclose(total, 287.06 * 250 / 9.80665 * np.log(100), rtol=1e-4)
    # and finite where the highest half level has no pressure
    assert np.isfinite(thickness(np.full((1, 1), 250.0), np.array([[0.0, 2.0]]))).all()


def test_a_spiral_covers_the_globe_evenly_and_its_neighbors_are_near():
    latitude, longitude = spiral(5000)
    x = np.cos(latitude) * np.cos(longitude)
    y = np.cos(latitude) * np.sin(longitude)
    z = np.sin(latitude)
    # of points spread evenly on a sphere, means vanish and mean squares are a third
    for part in (x, y, z):
        assert abs(part.mean()) < 2e-3
        np.testing.assert_allclose(np.square(part).mean(), 1 / 3, rtol=2e-3)
    step = np.sqrt(np.diff(x) ** 2 + np.diff(y) ** 2 + np.diff(z) ** 2)
    assert step.max() < 0.07
    assert z[0] > 0.999 > -0.999 > z[-1]


def test_the_climate_has_jets_tropopause_and_stratopause_where_they_are_observed():
    z = np.arange(0.0, 80.5, 0.5)
    latitude = np.deg2rad(np.arange(-89.0, 90.0, 2.0))
    height = np.broadcast_to(1e3 * z, (90, 161))
    january = season_of(15)
    t = mean_temperature(latitude, height, january)
    u = mean_wind(latitude, height, january, 0.0)
    lower = np.where(z < 25, t, np.inf)
    equator, pole = 45, 88
    assert 15 < z[lower[equator].argmin()] < 19
    assert 7 < z[lower[pole].argmin()] < 14
    middle = np.where((z > 30) & (z < 65), t, 0)
    assert (np.abs(z[middle.argmax(axis=1)] - 50) < 4).all()
    # westerlies in the winter's mesosphere, easterlies in the summer's
    at_60 = u[:, z == 60][:, 0]
    assert at_60[np.rad2deg(latitude) > 0].max() > 50
    assert at_60[np.rad2deg(latitude) < 0].min() < -40
    assert (t > 150).all()
    assert (t < 320).all()
    # the other hemisphere in the other season
    july = mean_temperature(latitude, height, -january)
    np.testing.assert_allclose(july, t[::-1], rtol=1e-12)


def test_weather_is_hydrostatic_and_geostrophic():
    one = {
        "zonal": np.array([5.0]),
        "meridional": np.array([3.0]),
        "vertical": np.array([2e-4]),
        "phase": np.array([0.3]),
        "speed": np.array([4.0]),
        "growth": np.array([1e12]),
    }
    latitude, longitude = np.array([0.8]), np.array([1.1])
    z = np.array([5e3, 9e3])
    u, v, t = Weather(**one).at(latitude, longitude, z)

    def psi(lat, lon, height):
        amplitude = 4.0 / np.hypot(5, 3) * 6.371e6
        return amplitude * np.cos(5 * lon + 3 * lat + 0.3 + 2e-4 * height)

    step, fade = 1e-6, np.cos(0.8)
    north = (psi(0.8 + step, 1.1, z) - psi(0.8 - step, 1.1, z)) / (2 * step * 6.371e6)
    east = (psi(0.8, 1.1 + step, z) - psi(0.8, 1.1 - step, z)) / (2 * step * 6.371e6 * fade)
    up = (psi(0.8, 1.1, z + 1) - psi(0.8, 1.1, z - 1)) / 2
    coriolis = 2 * 7.292e-5 * np.sin(0.8)
    np.testing.assert_allclose(u[0], -(fade**2) * north, rtol=1e-6)
    np.testing.assert_allclose(v[0], fade**2 * east, rtol=1e-6)
    np.testing.assert_allclose(t[0], fade**2 * coriolis * 7000 / 287.06 * up, rtol=1e-6)


def test_noise_on_the_globe_has_deviation_one_and_is_the_same_for_some_of_the_columns():
    latitude, longitude = spiral(400)
    draws = [
        surface_noise(latitude, longitude, np.random.default_rng(seed))[150:250]
        for seed in range(300)
    ]
    np.testing.assert_allclose(np.std(draws), 1, atol=0.12)
    assert abs(np.mean(draws)) < 0.05
    part = surface_noise(latitude[7:20], longitude[7:20], np.random.default_rng(0))
    whole = surface_noise(latitude, longitude, np.random.default_rng(0))
    np.testing.assert_allclose(part, whole[7:20], rtol=1e-12)


def test_log_height_is_zero_at_the_ground_and_rises_by_seven_kilometers_per_e():
    np.testing.assert_allclose(log_height(101325 / np.exp([0.0, 1.0, 2.0])), [0, 7e3, 14e3])
