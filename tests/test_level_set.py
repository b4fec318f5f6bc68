"""Fronts against planes, spheres, a front that is carried around, and Huygens' principle."""

import numpy as np
import pytest

from map2map.physics.level_set import (
    advance,
    burnt_fraction,
    largest_step,
    redistance,
    refined,
)


def places(shape):
    return np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")


def sphere(shape, radius, shift=(0, 0, 0)):
    middle = [(n - 1) / 2 + s for n, s in zip(shape, shift, strict=True)]
    squares = sum((x - m) ** 2 for x, m in zip(places(shape), middle, strict=True))
    return radius - np.sqrt(squares)


def moved(level, velocity, speed, markstein, time):
    step = min(largest_step(velocity, speed, markstein), time)
    count = int(np.ceil(time / step))
    for k in range(count):  # as a simulation does
        level = advance(level, velocity, speed, markstein, time / count)
        if k % 4 == 3:
            level = redistance(level, 3)
    return level


def radius(level):
    """Of a sphere of this volume."""
    return (3 / (4 * np.pi) * np.clip(level + 0.5, 0, 1).sum()) ** (1 / 3)


def still(shape):
    return np.zeros((3, *shape))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_plane_front_burns_at_its_speed_and_stays_plane(dtype):
    shape = (20, 3, 4)
    x = places(shape)[0].astype(dtype)
    found = moved(x - dtype(12.3), still(shape).astype(dtype), 2.0, 0.5, 3.0)
    assert found.dtype == dtype
    # G > 0 is burnt, so the front moves to smaller x
    np.testing.assert_allclose(found, x - (12.3 - 6.0), atol=1e-5)
    wind = still(shape).astype(dtype)
    wind[0] = 2.0
    np.testing.assert_allclose(moved(x - dtype(12.3), wind, 2.0, 0.5, 3.0), x - 12.3, atol=1e-4)


@pytest.mark.parametrize("markstein", [0.0, 1.0])
def test_a_sphere_of_burnt_gas_grows_by_the_speed_less_its_curvature(markstein):
    shape = (40, 40, 40)
    found = moved(sphere(shape, 8.0), still(shape), 1.0, markstein, 6.0)
    expected, step = 8.0, 0.001
    for _ in range(6000):
        expected += step * (1 - markstein * 2 / expected)
    assert radius(found) == pytest.approx(expected, abs=0.1)
    assert abs(expected - 14) < 0.1 or markstein


def test_a_sphere_of_fresh_gas_burns_away():
    shape = (30, 30, 30)
    found = moved(-sphere(shape, 9.0), still(shape), 1.0, 0.0, 4.0)
    assert radius(-found) == pytest.approx(5.0, abs=0.1)
    assert (moved(found, still(shape), 1.0, 0.0, 6.0) > 0).all()


def test_a_front_is_carried_by_the_flow_across_periodic_edges_and_hardly_shrinks():
    shape = (30, 24, 24)
    wind = still(shape)
    wind[1], wind[2] = 1.0, -0.5
    found = moved(sphere(shape, 7.0), wind, 0.0, 0.0, 24.0)
    expected = np.roll(sphere(shape, 7.0), -12, axis=2)
    near = np.abs(expected) < 2
    np.testing.assert_allclose(found[near], expected[near], atol=0.3)
    # over a path of 27 cells
    assert radius(found) == pytest.approx(7.0, abs=0.2)


def test_a_wave_burns_into_cusps_as_huygens_says():
    shape = (40, 32, 2)
    x, y, _ = places(shape)
    wave = 22 - 3 * np.cos(2 * np.pi * y[0, :, 0] / 32)
    level = redistance(x - wave[None, :, None], 60)
    found = moved(level, still(shape), 1.0, 0.0, 8.0)
    # where a front of points of fire, each burnt to a circle, has come to
    fine = np.linspace(-32, 64, 9601)
    front = 22 - 3 * np.cos(2 * np.pi * fine / 32)
    for j in range(0, 32, 4):
        apart = np.abs(fine - j)
        reach = (front - np.sqrt(np.maximum(64 - apart**2, 0)))[apart <= 8].min()
        crossing = np.interp(0, found[:, j, 0], x[:, j, 0])
        assert crossing == pytest.approx(reach, abs=0.15)


def test_the_burnt_volume_grows_by_the_speed_times_the_surface():
    shape = (30, 24, 24)
    x, y, z = places(shape)
    wave = 14 + 2 * np.sin(2 * np.pi * y / 24) * np.sin(2 * np.pi * z / 24)
    level = redistance(x - wave, 60)
    # the surface of a height, by its own slopes
    a = 2 * 2 * np.pi / 24
    fine = np.arange(240) / 240 * 2 * np.pi
    sy, cy = np.sin(fine)[:, None], np.cos(fine)[:, None]
    area = np.sqrt(1 + a**2 * ((cy * np.sin(fine)) ** 2 + (sy * np.cos(fine)) ** 2)).mean()
    grown = burnt_fraction(moved(level, still(shape), 1.0, 0.0, 0.2)) - burnt_fraction(level)
    assert grown * 30 / 0.2 == pytest.approx(area, rel=0.02)
    assert area > 1.05


def test_relaxed_it_is_the_distance_and_the_front_is_where_it_was():
    shape = (32, 28, 28)
    exact = sphere(shape, 9.0, (0.3, -0.2, 0.1))
    skewed = exact * (1.5 + 0.5 * np.cos(places(shape)[1] / 3)) + 0.05 * exact**2 * np.sign(exact)
    found = redistance(skewed, 40)
    near = np.abs(exact) < 5
    np.testing.assert_allclose(found[near], exact[near], atol=0.2)
    assert np.abs(found - exact)[near].mean() < 0.05
    assert ((found > 0) == (exact > 0)).all()
    # again and again: nothing wanders off
    for _ in range(10):
        found = redistance(found, 3)
    assert radius(found) == pytest.approx(9.0, abs=0.05)


@pytest.mark.parametrize("slope", [0.3, 4.0])
def test_relaxed_a_plane_of_any_slope_is_a_distance(slope):
    x = places((20, 3, 4))[0]
    np.testing.assert_allclose(redistance(slope * (x - 8.3), 80), x - 8.3, atol=1e-6)


def test_on_finer_cells_a_plane_is_the_same_plane_and_a_wave_the_same_wave():
    shape = (12, 16, 10)
    x, y, z = places(shape)

    def level(x, y, z):
        return x - 5.2 + np.sin(2 * np.pi * y / 16) + 0.5 * np.cos(2 * np.pi * z / 10)

    found = refined(level(x, y, z).astype(np.float32), 2)
    fine = np.meshgrid(*((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in shape), indexing="ij")
    np.testing.assert_allclose(found, level(*fine), atol=5e-3)
    plane = refined(x - 5.2, 2)
    np.testing.assert_allclose(plane, fine[0] - 5.2, atol=1e-12)


def test_the_burnt_share_of_a_plane_is_exact_wherever_it_lies():
    x = places((10, 2, 2))[0]
    for place in (3.0, 4.25, 6.9):
        # cells reach from x - 1/2 to x + 1/2
        assert burnt_fraction(x - place) == pytest.approx((9.5 - place) / 10)
