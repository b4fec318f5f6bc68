"""The simulator against linear theory, an exact solution and conservation laws."""

import json

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError, RecipeError, SaveError
from map2map.models import FourierUpsampling
from map2map.physics.cosmology import (
    growth_factor,
    growth_factor_second,
    growth_rate,
    growth_rate_second,
    hubble,
)
from map2map.physics.lagrangian import displacement_to_density
from map2map.physics.perturbations import gaussian_field, second_order, zeldovich
from map2map.physics.spectra import mode_counts, power_spectrum, transfer
from map2map.synthetic import nbody
from map2map.synthetic.nbody import Cosmology, acceleration, evolve, simulate

COSMOLOGY = Cosmology()


def plane_wave(amplitude, n=64, spacing=2.0):
    """Displacement [Mpc/h] along the first axis, with amplitude in units of shell crossing."""
    k = 2 * np.pi / (n * spacing)
    x = torch.arange(n, dtype=torch.float64) * spacing
    displacement = torch.zeros(3, n, 4, 4, dtype=torch.float64)
    displacement[0] = (amplitude / k * torch.sin(k * x))[:, None, None]
    return displacement


def linear(size=32, box=64.0, seed=0):
    return zeldovich(gaussian_field(size, box, seed, COSMOLOGY.power), box / size)


def test_the_field_has_the_power_it_is_asked_for():
    size, box = 64, 256.0
    ratios = []
    for seed in range(3):
        field = gaussian_field(size, box, seed, COSMOLOGY.power)
        k, power = power_spectrum(field, box / size)
        ratios.append(power / COSMOLOGY.power(k))
    _, modes = mode_counts((size,) * 3, box / size)
    deviation = (np.mean(ratios, axis=0) - 1) * np.sqrt(3 * modes / 2)
    # the first bins are wide against the turnover of the power; the last lacks its Nyquist modes
    assert np.abs(deviation[2:-1]).max() < 4
    np.testing.assert_allclose(np.mean(ratios, axis=0)[10:-1], 1, atol=0.04)


def test_the_field_is_the_same_in_finer_grids_of_the_same_box():
    coarse, fine = (torch.fft.fftn(gaussian_field(n, 50.0, 3, COSMOLOGY.power)) for n in (9, 16))
    for index in [(1, 0, 0), (0, -1, 2), (3, 2, -4), (-4, 4, 4)]:
        torch.testing.assert_close(coarse[index] / 9**3, fine[index] / 16**3)


def test_the_first_order_displacement_converges_on_overdensities():
    field = gaussian_field(15, 60.0, 0, COSMOLOGY.power)
    psi = zeldovich(field, 4.0)
    k = 2 * np.pi * np.fft.fftfreq(15, 4.0)
    wave = np.stack(np.meshgrid(k, k, k, indexing="ij"))
    modes = np.fft.fftn(psi.numpy(), axes=(1, 2, 3))
    np.testing.assert_allclose(-np.fft.ifftn((1j * wave * modes).sum(0)).real, field, atol=1e-10)
    np.testing.assert_allclose(np.cross(wave, modes, axis=0), 0, atol=1e-8)


def test_a_plane_wave_has_no_second_order():
    assert float(second_order(plane_wave(0.5), 2.0).abs().max()) < 1e-12


def test_the_second_order_of_two_crossed_waves():
    n, spacing = 16, 2.0
    k = 2 * np.pi / (n * spacing)
    x = torch.arange(n, dtype=torch.float64) * spacing
    x, y = x[:, None, None], x[None, :, None]
    psi = torch.zeros(3, n, n, n, dtype=torch.float64)
    psi[0], psi[1] = 3.0 * torch.sin(k * x), 2.0 * torch.sin(k * y)
    expected = torch.zeros_like(psi)
    # sum psi_i,i psi_j,j = 6 k^2 cos kx cos ky, whose inverse Laplacian is that over -2 k^2
    expected[0] = 3 * k * torch.sin(k * x) * torch.cos(k * y)
    expected[1] = 3 * k * torch.cos(k * x) * torch.sin(k * y)
    torch.testing.assert_close(second_order(psi, spacing), expected)


def test_a_plane_wave_approaches_the_exact_solution_before_shells_cross():
    # where shells have not crossed, the Zel'dovich displacement of a plane wave is exact
    errors = []
    for n in (32, 64):
        psi = plane_wave(0.7, n, 128.0 / n)
        final, velocity = evolve(psi, 128.0 / n)
        # [km/s]: a H f D psi at a = 1
        flow = 100 * float(growth_rate(0, COSMOLOGY.Om)) * psi
        errors.append([float((x - y).std() / y.std()) for x, y in ((final, psi), (velocity, flow))])
    assert max(errors[1]) < 0.01
    assert max(errors[1]) < 0.4 * max(errors[0])


@pytest.mark.parametrize("steps", [1, 7])
def test_with_linear_forces_growth_is_exact_however_few_the_steps(steps, monkeypatch):
    # -grad laplacian^-1 of minus the divergence of a displacement is that displacement
    monkeypatch.setattr(nbody, "acceleration", lambda x, spacing: x)
    psi, z = plane_wave(1e-3), 0.5
    final, velocity = evolve(psi, 2.0, stop=1 / (1 + z), steps=steps)
    D, f, H = (float(of(z, COSMOLOGY.Om)) for of in (growth_factor, growth_rate, hubble))
    torch.testing.assert_close(final, D * psi)
    torch.testing.assert_close(velocity, H * f * D / (1 + z) * psi)


def test_evolution_starts_from_the_second_order_and_its_velocity():
    psi, start = linear(12, 24.0), 0.1
    z, Om = 1 / start - 1, COSMOLOGY.Om
    displacement, velocity = evolve(psi, 2.0, start=start, stop=start * (1 + 1e-9), steps=1)
    first = float(growth_factor(z, Om)) * psi
    second = float(growth_factor_second(z, Om)) * second_order(psi, 2.0)
    torch.testing.assert_close(displacement, first + second)
    # [km/s]: a dx/dt, where dx/dt = H dx/dlna
    slope = float(growth_rate(z, Om)) * first + float(growth_rate_second(z, Om)) * second
    torch.testing.assert_close(velocity, start * float(hubble(z, Om)) * slope)


def test_early_power_is_linear_within_two_percent_at_low_wavenumbers():
    size, box, stop = 64, 1024.0, 0.05
    field = gaussian_field(size, box, 0, COSMOLOGY.power)
    displacement, _ = evolve(
        zeldovich(field, box / size), box / size, start=0.02, stop=stop, steps=5
    )
    density = displacement_to_density(displacement[None], box / size, scale=2)[0, 0]
    _, power = power_spectrum(density, box / size / 2)
    _, expected = power_spectrum(field, box / size)
    growth = float(growth_factor(1 / stop - 1, COSMOLOGY.Om))
    low = np.arange(len(expected)) < 4
    np.testing.assert_allclose(power[: len(low)][low], growth**2 * expected[low], rtol=0.02)
    psi = growth * zeldovich(field, box / size)
    ratio = transfer(displacement, psi, box / size, ndim=3)[1][low] ** 2
    np.testing.assert_allclose(ratio, 1, atol=0.02)


def test_momentum_is_conserved_and_no_particle_pulls_at_itself():
    psi = linear().to(torch.float64)
    force = acceleration(psi, 2.0)
    assert float(force.mean((1, 2, 3)).abs().max()) < 1e-13 * float(force.abs().max())
    final, velocity = evolve(psi, 2.0, steps=5)
    assert float(final.std()) > 1
    for moved in (final, velocity):
        assert float(moved.mean((1, 2, 3)).abs().max()) < 1e-12 * float(moved.abs().max())


def test_forces_move_with_the_box():
    psi = linear(16, 32.0)
    shifted = psi + torch.tensor([2.0, -6.0, 32.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    torch.testing.assert_close(acceleration(shifted, 2.0), acceleration(psi, 2.0))
    # the same displacement of all particles, given to others
    rolled = acceleration(psi.roll((1, 5), (1, 3)), 2.0)
    torch.testing.assert_close(rolled, acceleration(psi, 2.0).roll((1, 5), (1, 3)))


def test_time_steps_converge():
    psi = linear()
    rms = float(evolve(psi, 2.0, steps=40)[0].std())
    differences = [
        float((evolve(psi, 2.0, steps=steps)[0] - evolve(psi, 2.0, steps=40)[0]).std()) / rms
        for steps in (5, 20)
    ]
    assert differences[1] < min(0.02, differences[0] / 2)


def test_second_order_is_closer_to_the_simulation_than_first_order():
    def smooth(k):
        return COSMOLOGY.power(k) * np.exp(-((k / 0.15) ** 2))

    psi = zeldovich(gaussian_field(32, 128.0, 0, smooth), 4.0)
    final, _ = evolve(psi, 4.0)
    second = psi + float(growth_factor_second(0, COSMOLOGY.Om)) * second_order(psi, 4.0)
    assert float((final - second).std()) < 0.7 * float((final - psi).std())


def test_files_are_float32_displacements_that_the_seed_decides(tmp_path):
    files = simulate(tmp_path / "one", runs=2, size=8, box=16.0, steps=2, seed=4)
    names = ["za_04", "lpt_04", "pm_04", "za_05", "lpt_05", "pm_05"]
    assert [file.stem for file in files] == names
    simulate(tmp_path / "two", runs=1, size=8, box=16.0, steps=2, seed=5)
    for name in names[3:]:
        one, two = (np.load(tmp_path / part / f"{name}.npy") for part in ("one", "two"))
        assert one.dtype == np.float32
        assert one.shape == (3, 8, 8, 8)
        np.testing.assert_array_equal(one, two)
    za, lpt, pm = (np.load(file).astype(float) for file in files[:3])
    psi = linear(8, 16.0, seed=4)
    second = float(growth_factor_second(0, COSMOLOGY.Om)) * second_order(psi, 2.0)
    np.testing.assert_allclose(za, psi, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(lpt, psi + second, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pm, evolve(psi, 2.0, steps=2)[0], rtol=1e-5, atol=1e-5)
    assert not np.allclose(za, np.load(files[3]))
    record = json.loads((tmp_path / "one" / "simulation.json").read_text())
    assert record["seeds"] == [4, 5]
    assert record["parameters"]["size"] == 8
    assert record["parameters"]["Om"] == COSMOLOGY.Om


def test_existing_files_are_replaced_only_if_told(tmp_path):
    (first, *_) = simulate(tmp_path, runs=1, size=4, box=8.0, steps=1)
    before = first.read_bytes()
    with pytest.raises(SaveError, match=r"za_00.npy, .*lpt_00.npy, .*pm_00.npy would be replaced"):
        simulate(tmp_path, runs=2, size=4, box=16.0, steps=1)
    with pytest.raises(SaveError, match="holds simulations with"):
        simulate(tmp_path, runs=1, size=4, box=16.0, steps=1, seed=1)
    assert first.read_bytes() == before
    simulate(tmp_path, runs=1, size=4, box=8.0, steps=1, seed=7)
    assert json.loads((tmp_path / "simulation.json").read_text())["seeds"] == [0, 7]
    reader = tmp_path / "reader"
    reader.hardlink_to(first)
    simulate(tmp_path, runs=1, size=4, box=16.0, steps=1, overwrite=True)
    assert first.read_bytes() != before
    # whoever has the old file open keeps it whole
    assert reader.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    (first, *_) = simulate(tmp_path, runs=1, size=4, box=8.0, steps=1)
    before = first.read_bytes()

    def full(file, values):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nbody.np, "save", full)
    with pytest.raises(SaveError, match=r"cannot write .*za_00.npy: No space left"):
        simulate(tmp_path, runs=1, size=4, box=8.0, steps=1, overwrite=True)
    assert first.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_record_that_is_not_ours_is_an_error(tmp_path):
    (tmp_path / "simulation.json").write_text("[]")
    with pytest.raises(SaveError, match="cannot add simulations"):
        simulate(tmp_path, runs=1, size=4, box=8.0, steps=1)


@pytest.mark.parametrize(
    "wrong", [{"runs": 0}, {"size": 3}, {"box": 0.0}, {"seed": -1}, {"steps": 0}]
)
def test_parameters_that_are_not_allowed_are_refused_before_anything_is_written(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(RecipeError, match=name if name != "steps" else "at least 1 step"):
        simulate(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_impossible_universes_times_and_shapes_are_refused():
    with pytest.raises(RecipeError, match="0 < Ob < Om <= 1"):
        Cosmology(Om=0.03)
    with pytest.raises(RecipeError, match="must be positive"):
        Cosmology(sigma8=0)
    with pytest.raises(RecipeError, match="time goes from"):
        evolve(plane_wave(0.1), 2.0, start=1.0)
    with pytest.raises(GeometryError, match=r"shape \(3, n, n, n\), not \(2, 4, 4\)"):
        evolve(torch.zeros(2, 4, 4), 2.0)


def test_runs_at_several_redshifts_and_densities_are_told_in_names(tmp_path):
    files = simulate(
        tmp_path, runs=1, size=8, box=400, steps=4, redshifts=[0, 1.5], densities=[0.2, 0.4]
    )
    assert {path.name for path in files} == {
        f"{name}_00_Om{om}_z{z}.npy"
        for name in ("za", "lpt", "pm")
        for om in (0.2, 0.4)
        for z in (0, 1.5)
    }
    for om in (0.2, 0.4):
        first, later = (np.load(tmp_path / f"za_00_Om{om}_z{z}.npy") for z in (0, 1.5))
        np.testing.assert_array_equal(first, later)
        # in a large box displacements grow as linear theory has it, but for the mesh's softening
        for name, rtol in (("lpt", 0.02), ("pm", 0.25)):
            found = np.load(tmp_path / f"{name}_00_Om{om}_z1.5.npy")
            growth = (found * first).sum() / (first**2).sum()
            np.testing.assert_allclose(growth, growth_factor(1.5, om), rtol=rtol)
    with pytest.raises(RecipeError, match="from 0 to below 9"):
        simulate(tmp_path / "other", redshifts=[9.5])


def test_without_redshifts_and_densities_names_and_record_are_as_ever(tmp_path):
    simulate(tmp_path, runs=1, size=8, box=16, steps=1)
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == [
        "lpt_00.npy", "pm_00.npy", "za_00.npy",
    ]  # fmt: skip
    record = json.loads((tmp_path / "simulation.json").read_text())
    assert "redshifts" not in record["parameters"]
    assert record["files"]["pm"] == "non-linear displacement at z = 0 [Mpc/h]"


def test_a_finer_simulation_has_the_modes_of_the_other_at_the_centers_of_its_cells():
    size, box, finer = 8, 32.0, 4
    spacing = box / size
    coarse = zeldovich(gaussian_field(size, box, 3, COSMOLOGY.power), spacing)
    fine = nbody.finer_linear(size, box, 3, finer, COSMOLOGY)
    assert fine.shape == (3, *(finer * size,) * 3)
    # without the waves that the fewer particles do not have: the other, continued without any
    modes = torch.fft.fftn(fine, dim=(1, 2, 3))
    k = torch.fft.fftfreq(finer * size, 1 / (finer * size))
    few = k.abs() < size / 2
    modes = modes * few * few[:, None] * few[:, None, None]
    expected = FourierUpsampling(3, 3, ndim=3, scale_factor=finer)(coarse[None])[0]
    found = torch.fft.ifftn(modes, dim=(1, 2, 3)).real
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert float((fine - found).std()) > 0.01, "and it has more of its own"


def test_a_finer_simulation_is_beside_the_others_which_stay_as_they_are(tmp_path):
    settings = {"runs": 1, "size": 6, "box": 24.0, "steps": 2, "seed": 5}
    plain = simulate(tmp_path / "plain", **settings)
    pairs = simulate(tmp_path / "pairs", **settings, finer=2)
    assert [path.name for path in pairs] == [*(p.name for p in plain), "fine_05.npy"]
    for one, other in zip(plain, pairs, strict=False):
        np.testing.assert_array_equal(np.load(one), np.load(other))
    linear = nbody.finer_linear(6, 24.0, 5, 2, COSMOLOGY)
    expected, _ = evolve(linear, 2.0, COSMOLOGY, steps=2)
    np.testing.assert_allclose(np.load(pairs[-1]), expected.numpy(), rtol=1e-5, atol=1e-5)
    record = json.loads((tmp_path / "pairs" / "simulation.json").read_text())
    assert record["parameters"]["finer"] == 2
    assert "fine" in record["files"]
    assert "finer" not in json.loads((tmp_path / "plain/simulation.json").read_text())["parameters"]
    with pytest.raises(SaveError, match="holds simulations with"):
        simulate(tmp_path / "pairs", runs=1, size=6, box=24.0, steps=2, seed=6, finer=3)
    with pytest.raises(RecipeError, match=r"finer >= 1.*finer 0"):
        simulate(tmp_path / "none", finer=0)
