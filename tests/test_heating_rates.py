"""Heating rates against an analytic profile, and the energy that a column keeps."""

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError
from map2map.physics.heating_rates import (
    KELVIN_PER_DAY,
    HeatingRates,
    down_and_up,
    heating_rates,
)

RNG = np.random.default_rng(0)


def half_levels(count):
    """Pressures [Pa] from 1 Pa down, not evenly."""
    return 1.0 + 1e5 * np.linspace(0, 1, count) ** 2


def test_the_constant_is_that_of_the_data():
    np.testing.assert_allclose(KELVIN_PER_DAY, 843.9188844621514, rtol=1e-15)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_an_absorber_in_equal_parts_warms_as_the_law_of_beer_tells(kind):
    """A beam F exp(-tau p / p_s) is the net flux; its derivative is known in closed form."""
    beam, tau, surface = 340.0, 3.0, 101_325.0
    errors = []
    for count in (101, 201):
        p = np.linspace(0, surface, count)[None]
        net = beam * np.exp(-tau * p / surface)
        middle = (p[:, 1:] + p[:, :-1]) / 2
        per_second = 9.80665 / 1004 * beam * tau / surface * np.exp(-tau * middle / surface)
        x = (net, p) if kind == "numpy" else (torch.from_numpy(net), torch.from_numpy(p))
        found = np.asarray(heating_rates(*x))
        assert type(heating_rates(*x)) is type(x[0])
        assert (found > 0).all(), "what absorbs is warmed"
        errors.append(np.abs(found / (86400 * per_second) - 1).max())
    assert errors[0] < 1e-4
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.01), "of second order"


def test_a_net_flux_linear_in_pressure_warms_all_layers_alike():
    p = half_levels(20)[None]
    found = heating_rates(200 - 1.5e-3 * p, p)
    np.testing.assert_allclose(found, 843.9188844621514 * 1.5e-3, rtol=1e-10)
    assert found.shape == (1, 19)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_column_warms_by_what_goes_in_and_not_out(axis):
    """Sum of c_p / g dp dT/dt is the net flux at the top less that at the surface."""
    p = np.broadcast_to(half_levels(7)[:, None, None], (7, 4, 3))
    net = RNG.normal(size=(7, 4, 3)) * 100
    p, net = np.moveaxis(p, 0, axis), np.moveaxis(net, 0, axis)
    rates = heating_rates(net, p, axis)
    kept = (rates / 86400 * 1004 / 9.80665 * np.diff(p, axis=axis)).sum(axis=axis)
    np.testing.assert_allclose(kept, net.take(0, axis) - net.take(-1, axis), rtol=1e-9)


def test_the_layer_is_the_function_of_channels_and_has_gradients():
    net = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    p = torch.linspace(1, 1e3, 5, dtype=torch.float64).reshape(1, 5, 1, 1)
    found = HeatingRates()(net, p)
    assert found.shape == (2, 4, 3, 4)
    by_hand = -843.9188844621514 * (net[:, 3] - net[:, 2]) / (p[:, 3] - p[:, 2])
    torch.testing.assert_close(found[:, 2], by_hand)
    found[:, 1].sum().backward()
    slope = 843.9188844621514 / 249.75
    expected = torch.tensor([0, slope, -slope, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(net.grad[1, :, 2, 3], expected)


def test_the_layer_is_part_of_a_graph():
    p = torch.linspace(1, 1e3, 5)[None]
    program = torch.export.export(HeatingRates(), (torch.zeros(1, 5), p), strict=False)
    net = torch.randn(1, 5)
    torch.testing.assert_close(program.module()(net, p), heating_rates(net, p))


def test_down_and_up_are_undone_by_difference_and_sum():
    down, up = RNG.uniform(0, 400, size=(2, 6))
    found = down_and_up(down - up, down + up)
    np.testing.assert_allclose(found, (down, up), rtol=1e-12)


@pytest.mark.parametrize("made", [np.array, torch.tensor])
def test_equal_neighbours_are_refused_with_the_level(made):
    p = made([[1.0, 2, 3, 4], [1.0, 2, 2, 4]])
    with pytest.raises(GeometryError, match=r"1 layers .* half levels 1 and 2, the first such"):
        heating_rates(p * 0, p)
    # pressures may well ascend with the levels' numbers, or descend
    heating_rates(p[:1] * 0, p[:1].flip(1) if made is torch.tensor else p[:1, ::-1])


def test_half_levels_that_do_not_fit_are_refused():
    with pytest.raises(GeometryError, match="given at 4 half levels, and pressures at 3"):
        heating_rates(np.zeros((1, 4)), np.ones((1, 3)))
    with pytest.raises(GeometryError, match="the same number of them, at least 2"):
        heating_rates(np.zeros((1, 1)), np.ones((1, 1)))
