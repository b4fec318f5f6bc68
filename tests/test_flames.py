"""Flames against their equation, integrals over lines and surfaces, and the triangle inequality."""

import numpy as np
import pytest

from map2map.errors import GeometryError, RecipeError
from map2map.physics.flames import flame_profile, gaussian_filter, gradient_norm, wrinkling


def test_the_profile_solves_convection_diffusion_and_a_reaction_behind_its_beginning():
    thickness, beta = 0.4, 5.0
    d = thickness * (beta - 1) / beta
    x = np.linspace(-2, 1, 30001)
    c = flame_profile(x, thickness, beta)
    slope = np.gradient(c, x)
    rate = slope - d * np.gradient(slope, x)
    inner = slice(10, -10)
    ahead, behind = (x < -1e-3)[inner], (x > 1e-3)[inner]
    np.testing.assert_allclose(rate[inner][ahead], 0, atol=1e-4)
    expected = beta * (beta - 1) / d * (1 - c)
    np.testing.assert_allclose(rate[inner][behind], expected[inner][behind], atol=2e-3)


def test_the_profile_rises_from_0_to_1_and_is_steepest_by_its_thickness():
    x = np.linspace(-8, 8, 160001)
    for beta in (2.0, 4.0, 9.0):
        c = flame_profile(x, 0.4, beta)
        assert c[0] < 1e-6
        assert c[-1] > 1 - 1e-6
        assert (np.diff(c) >= 0).all()
        assert np.gradient(c, x).max() == pytest.approx(1 / 0.4, rel=1e-3)
        assert flame_profile(np.array([0.0]), 0.4, beta)[0] == pytest.approx(1 - 1 / beta)
    assert np.isfinite(flame_profile(np.array([-1e6, 1e6]), 0.4)).all()


def test_the_gradient_s_length_is_that_of_a_slope_in_any_direction():
    x, y, z = np.meshgrid(np.arange(5) * 0.5, np.arange(6) * 0.2, np.arange(4) * 2.0, indexing="ij")
    values = 3 * x - 2 * y + 6 * z
    np.testing.assert_allclose(gradient_norm(values, (0.5, 0.2, 2.0)), 7.0)
    assert not gradient_norm(np.ones((3, 1)), 0.1).any()


def test_the_gradient_goes_around_periodic_axes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 6, 4))
    found = gradient_norm(values, (0.5, 0.2, 2.0), (False, True, True))
    wide = np.pad(values, [(0, 0), (1, 1), (1, 1)], mode="wrap")
    slopes = [
        np.gradient(wide, size, axis=axis)[:, 1:-1, 1:-1]
        for axis, size in enumerate((0.5, 0.2, 2.0))
    ]
    np.testing.assert_allclose(found, np.linalg.norm(slopes, axis=0), rtol=1e-12)


def test_along_a_line_across_a_flame_the_surface_density_adds_up_to_1():
    x = (np.arange(200) - 90.3) * 0.05
    c = flame_profile(x, 0.4)[:, None, None] * np.ones((1, 3, 2))
    for periodic in (None, (False, True, True)):
        lines = gradient_norm(c, 0.05, periodic).sum(axis=0) * 0.05
        np.testing.assert_allclose(lines, 1.0, atol=1e-4)
        filtered = gaussian_filter(gradient_norm(c, 0.05, periodic), 0.8, (False, True, True), 0.05)
        np.testing.assert_allclose(filtered.sum(axis=0) * 0.05, 1.0, atol=1e-4)


def test_the_surface_of_a_sphere_of_flame_is_that_of_the_sphere():
    # thin and resolved; the surface of c is that where c is 3/4, but for the thickness squared
    x = (np.arange(60) - 29.5) * 0.5
    r = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    c = flame_profile(8.0 - r, 1.0)
    surface = gradient_norm(c, 0.5).sum() * 0.5**3
    # the mean of r^2 over the profile, by its own integral
    s = np.linspace(-8, 8, 16001)
    weights = np.gradient(flame_profile(s, 1.0), s)
    expected = np.trapezoid(4 * np.pi * (8.0 - s) ** 2 * weights, s)
    assert surface == pytest.approx(expected, rel=0.01)


def test_a_filter_has_the_moments_of_a_box_of_its_width():
    line = np.zeros(101)
    line[50] = 1
    for width, size in ((8.0, 1.0), (3.0, 0.25)):
        x = (np.arange(101) - 50) * size
        kernel = gaussian_filter(line, width, (False,), size)
        assert (kernel >= 0).all()
        assert kernel.sum() == pytest.approx(1)
        assert (kernel * x**2).sum() == pytest.approx(width**2 / 12, rel=0.005)
        inner = np.abs(x) < 0.9 * width
        ratio = np.exp(-6 * x**2 / width**2)
        np.testing.assert_allclose(kernel[inner] / kernel[50], ratio[inner], rtol=1e-9)


def test_a_filter_goes_around_periodic_axes_and_stays_at_the_ends_of_others():
    values = np.zeros((12, 12))
    values[0, 0] = 1
    found = gaussian_filter(values, 4.0, (False, True))
    assert found[0, -1] == pytest.approx(found[0, 1])
    assert found[-1].max() == 0
    ones = np.ones((6, 5))
    np.testing.assert_allclose(gaussian_filter(ones, 8.0, (False, True)), 1)


def test_the_filtered_gradient_is_at_least_the_gradient_of_the_filtered():
    rng = np.random.default_rng(0)
    c = gaussian_filter(rng.normal(size=(16, 18, 14)), 3.0, (True,) * 3)
    periodic, sizes = (True,) * 3, (0.5, 0.7, 0.6)
    surface = gradient_norm(c, sizes, periodic)
    hidden = []
    for width in (4.0, 2.0, 1.0, 0.2, 0.0):
        mean = gaussian_filter(surface, width, periodic, sizes)
        resolved = gradient_norm(gaussian_filter(c, width, periodic, sizes), sizes, periodic)
        assert (mean >= resolved * (1 - 1e-12)).all()
        hidden.append((mean - resolved).mean() / surface.mean())
    # the less, the narrower the filter, and nothing in the end
    assert hidden[0] > 0.2
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[-2] < 1e-6
    assert hidden[-1] == 0


def test_wrinkles_between_cut_off_and_filter_multiply_the_surface():
    assert wrinkling(3.0, 1.0) == 2.0
    assert wrinkling(7.0, 1.0, 1 / 3) == pytest.approx(2.0)
    assert wrinkling(0.0, 0.1) == 1.0
    assert wrinkling(8e-4, 4e-4) == pytest.approx(np.sqrt(3))


def test_what_is_no_flame_filter_or_closure_is_refused():
    with pytest.raises(RecipeError, match="a flame needs thickness > 0 and beta > 1"):
        flame_profile(np.zeros(3), 0.0)
    with pytest.raises(RecipeError, match="a flame needs thickness > 0 and beta > 1"):
        flame_profile(np.zeros(3), 1.0, 1.0)
    with pytest.raises(GeometryError, match="a filter needs a width of 0 or more"):
        gaussian_filter(np.zeros((3, 3)), -1.0, (True, True))
    with pytest.raises(GeometryError, match="one of `periodic` for each of 2 axes"):
        gaussian_filter(np.zeros((3, 3)), 1.0, (True,))
    for values in ((-1, 1), (1, 0), (1, 1, -1), (np.inf, 1)):
        with pytest.raises(RecipeError, match="a closure needs width >= 0, cutoff > 0"):
            wrinkling(*values)
