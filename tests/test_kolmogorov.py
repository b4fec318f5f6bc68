"""Kolmogorov flow: modes that decay, budgets, the steady flow, and what is written."""

import json

import numpy as np
import pytest
import xarray as xr

from map2map.cli import main
from map2map.errors import RecipeError
from map2map.physics.kolmogorov import KolmogorovFlow
from map2map.synthetic.kolmogorov_flow import Setting, coarse, first

STILL = KolmogorovFlow(24, viscosity=0.03, drag=0.2, force=0.0)


def grid(flow):
    along = np.arange(flow.size) * flow.box / flow.size
    return np.meshgrid(along, along, indexing="ij")


@pytest.mark.parametrize("waves", [(2, 2), (1, 3)])
def test_a_wave_of_taylor_and_green_decays_by_viscosity_and_drag(waves):
    x, y = grid(STILL)
    wave = np.cos(waves[0] * x) * np.cos(waves[1] * y)
    found = STILL.advance(wave, 2.0, 0.1)
    rate = 0.03 * (waves[0] ** 2 + waves[1] ** 2) + 0.2
    np.testing.assert_allclose(found, wave * np.exp(-2 * rate), atol=1e-12)


def test_the_velocity_has_this_vorticity_and_no_divergence():
    flow = KolmogorovFlow(16, box=3.0)
    x, y = (2 * np.pi / 3.0 * a for a in grid(flow))
    w = np.sin(2 * x) * np.cos(y) + 0.3 * np.cos(3 * y)
    u, v = flow.velocity(w)
    k = 2 * np.pi / 3.0
    # psi = w / k^2 of each wave, u = dpsi/dy, v = -dpsi/dx
    np.testing.assert_allclose(
        u, -np.sin(2 * x) * np.sin(y) / (5 * k) - 0.3 * np.sin(3 * y) / (3 * k), atol=1e-12
    )
    np.testing.assert_allclose(v, -2 * np.cos(2 * x) * np.cos(y) / (5 * k), atol=1e-12)


def enstrophy(vorticity):
    """Mean of w^2 / 2 over the square."""
    return (vorticity**2).mean(axis=(-2, -1)) / 2


def test_without_force_and_friction_energy_and_enstrophy_are_kept():
    flow = KolmogorovFlow(32, viscosity=0.0, drag=0.0, force=0.0)
    start = flow.advance(first(flow, np.random.default_rng(0)), 0.0, 0.1)
    errors = []
    for step in (0.02, 0.01):
        end = flow.advance(start, 0.4, step)
        assert np.abs(end - start).max() > 0.5
        errors.append(abs(flow.energy(end) / flow.energy(start) - 1))
        assert abs(enstrophy(end) / enstrophy(start) - 1) < 1e-5
    # of fourth order at least
    assert errors[1] < errors[0] / 12 or errors[1] < 1e-12


def test_energy_changes_by_what_the_force_does_less_friction():
    flow = KolmogorovFlow(48, viscosity=0.01, drag=0.3, force=1.5, waves=3)
    now = flow.advance(first(flow, np.random.default_rng(1)), 1.0, 0.01)
    h = 1e-3
    later = flow.advance(now, h, h)
    middle = flow.advance(now, h / 2, h / 2)
    change = (flow.energy(later) - flow.energy(now)) / h
    _, y = grid(flow)
    work = (flow.velocity(middle)[0] * 1.5 * np.sin(3 * y)).mean()
    lost = 2 * 0.01 * enstrophy(middle) + 2 * 0.3 * flow.energy(middle)
    np.testing.assert_allclose(change, work - lost, rtol=1e-5)


def test_the_laminar_flow_is_steady_and_weak_flows_end_in_it():
    flow = KolmogorovFlow(16, viscosity=0.5, drag=0.5, force=1.0, waves=2)
    steady = flow.laminar()
    np.testing.assert_allclose(flow.advance(steady, 1.0, 0.01), steady, atol=1e-8)
    start = 0.1 * first(flow, np.random.default_rng(0))
    np.testing.assert_allclose(flow.advance(start, 30.0, 0.05), steady, atol=1e-5)
    _, y = grid(flow)
    u, _ = flow.velocity(steady)
    np.testing.assert_allclose(u, np.sin(2 * y) / (0.5 * 4 + 0.5), atol=1e-12)


def test_products_of_waves_do_not_fall_upon_others():
    """The tendency of two waves near the limit, against that of a grid twice as fine."""
    few, many = KolmogorovFlow(24, force=0.0), KolmogorovFlow(48, force=0.0)
    fields = []
    for flow in (few, many):
        x, y = grid(flow)
        fields.append(np.cos(7 * x) * np.cos(2 * y) + np.sin(6 * x + 3 * y))
    found, expected = (
        flow.advance(w, 1e-4, 1e-4) - flow.advance(w, 0.0, 1.0)
        for flow, w in zip((few, many), fields, strict=True)
    )
    modes = np.fft.fft2(expected)
    wave = np.fft.fftfreq(48, 1 / 48)
    # what the coarse grid does not have
    modes[np.abs(wave) >= 8] = 0
    modes[:, np.abs(wave) >= 8] = 0
    np.testing.assert_allclose(found, np.fft.ifft2(modes).real[::2, ::2], atol=1e-9)


def test_several_flows_at_once_are_each_by_itself():
    flow = KolmogorovFlow(16)
    both = np.stack([first(flow, np.random.default_rng(k)) for k in range(2)])
    found = flow.advance(both, 0.3, 0.05)
    for one, alone in zip(found, both, strict=True):
        np.testing.assert_allclose(one, flow.advance(alone, 0.3, 0.05), atol=1e-12)


def test_coarse_cells_have_the_waves_that_they_can_tell():
    x, y = np.meshgrid(*[np.arange(16) * 2 * np.pi / 16] * 2, indexing="ij")
    slow, fast = np.cos(3 * x) * np.sin(y), np.cos(5 * x) + np.cos(4 * y)
    np.testing.assert_allclose(coarse(slow + fast, 2), slow[::2, ::2], atol=1e-12)


def test_it_writes_flows_that_depend_on_the_seed_alone(tmp_path, capsys):
    small = ["--frames=3", "--setting.size=16", "--setting.spin_up=0.2", "--setting.step=0.1"]
    argv = ["simulate", "kolmogorov_flow", *small]
    assert main([*argv, "--runs=2", "--out", str(tmp_path / "a")]) == 0
    assert main([*argv, "--runs=1", "--out", str(tmp_path / "b")]) == 0
    one = xr.load_dataset(tmp_path / "a/flow_00.nc")
    assert one.vorticity.shape == (3, 8, 8)
    np.testing.assert_allclose(one.time, [0, 0.2, 0.4])
    xr.testing.assert_allclose(one, xr.load_dataset(tmp_path / "b/flow_00.nc"))
    other = xr.load_dataset(tmp_path / "a/flow_01.nc")
    assert not np.allclose(one.vorticity, other.vorticity)
    assert json.loads((tmp_path / "a/simulation.json").read_text())["setting"]["size"] == 16
    flow = Setting(size=16, step=0.1).flow
    expected = flow.advance(first(flow, np.random.default_rng([0, 0])), 0.2, 0.1)
    expected = coarse(flow.advance(expected, 0.4, 0.1), 2)
    np.testing.assert_allclose(one.vorticity[2], expected, atol=1e-5)
    assert main([*argv, "--out", str(tmp_path / "a")]) == 2
    assert "would be replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    "make",
    [
        lambda: KolmogorovFlow(15),
        lambda: KolmogorovFlow(drag=-1),
        lambda: KolmogorovFlow(12, waves=5),
        lambda: Setting(size=20, coarsen=4),
        lambda: Setting(interval=0),
        lambda: KolmogorovFlow(16).advance(np.zeros((16, 16)), 1, 0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(RecipeError):
        make()


def test_steps_that_are_too_long_are_told():
    flow = KolmogorovFlow(32)
    start = 100 * first(flow, np.random.default_rng(0))
    with np.errstate(all="ignore"), pytest.raises(RecipeError, match="shorter"):
        flow.advance(start, 50, 0.5)
