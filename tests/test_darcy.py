"""Flow through porous media: analytic solutions, convergence, conservation, and its files."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.fft import dctn

from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.physics.darcy import darcy_pressure
from map2map.synthetic.darcy import MODES, Setting, medium, pressure_of, simulate


def series(x, y, permeability, terms=199):
    """-a laplacian p = 1 on the unit square, p = 0 on its edges: a double sine series."""
    odd = np.arange(1, terms, 2)
    weights = 16 / (np.pi**4 * np.outer(odd, odd) * (odd[:, None] ** 2 + odd**2))
    along_y, along_x = (np.sin(np.pi * np.outer(place, odd)) for place in (y, x))
    return along_y @ weights @ along_x.T / permeability


def error_of(cells):
    middles = (np.arange(cells) + 0.5) / cells
    found = darcy_pressure(np.full((cells, cells), 3.0), 1 / cells)
    expected = series(middles, middles, 3.0)
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


def test_in_a_uniform_square_it_is_the_series_to_second_order():
    coarse, fine = error_of(16), error_of(32)
    assert fine < 3e-3
    assert 1.9 < np.log2(coarse / fine) < 2.1


def test_in_a_uniform_interval_it_is_a_parabola():
    """Half a cell at the edges makes it exact but for a constant, spacing^2 / 8a."""
    cells, permeability = 10, 2.0
    x = (np.arange(cells) + 0.5) * 0.3
    found = darcy_pressure(np.full(cells, permeability), 0.3)
    expected = x * (3.0 - x) / (2 * permeability)
    np.testing.assert_allclose(found, expected + 0.3**2 / (8 * permeability), rtol=1e-12)


def test_layers_conduct_one_behind_the_other():
    """Without a source but for one cell's: flux times the sum of resistances is its pressure."""
    a = np.array([1.0, 5.0, 0.5, 2.0, 8.0])
    source = np.zeros(5)
    source[3] = 7.0
    p = darcy_pressure(a, 0.2, source)
    half = 0.1 / a
    left = half[3] + 0.2 / a[0] + 0.2 / a[1] + 0.2 / a[2]
    right = half[3] + 0.2 / a[4]
    assert p[3] == pytest.approx(7.0 * 0.2 / (1 / left + 1 / right), rel=1e-12)
    assert p[1] == pytest.approx(p[3] * (0.2 / a[0] + half[1]) / left, rel=1e-12)
    # a long slab of these layers has the same pressure in its middle, whichever axis they cross
    slab, slab_source = (np.repeat(each[:, None], 201, axis=1) for each in (a, source))
    found = darcy_pressure(slab, (0.2, 50.0), slab_source)
    np.testing.assert_allclose(found[:, 100], p, rtol=1e-9)
    turned = darcy_pressure(slab.T, (50.0, 0.2), slab_source.T)
    np.testing.assert_allclose(turned[100], p, rtol=1e-9)


def fluxes_of(pressure, permeability, spacing):
    """Through the faces of cells along each axis, half a cell of each side after the other."""
    found = []
    for axis, size in enumerate(np.broadcast_to(spacing, pressure.ndim)):
        p, a = (np.moveaxis(each, axis, 0) for each in (pressure, permeability))
        between = 2 * a[:-1] * a[1:] / (a[:-1] + a[1:]) * (p[:-1] - p[1:]) / size
        ends = -2 * a[:1] * p[:1] / size, 2 * a[-1:] * p[-1:] / size
        found.append(np.moveaxis(np.concatenate([ends[0], between, ends[1]]), 0, axis))
    return found


@pytest.mark.parametrize("shape", [(9,), (6, 7), (4, 3, 5)])
def test_what_flows_out_of_every_cell_is_its_source(shape):
    rng = np.random.default_rng(0)
    a = np.exp(rng.normal(scale=2, size=shape))
    source = rng.normal(size=shape)
    sizes = (0.5, 2.0, 0.3)[: len(shape)]
    fluxes = fluxes_of(darcy_pressure(a, sizes, source), a, sizes)
    net = sum(np.diff(f, axis=i) / sizes[i] for i, f in enumerate(fluxes))
    assert [f.shape[i] for i, f in enumerate(fluxes)] == [n + 1 for n in shape]
    np.testing.assert_allclose(net, source, atol=1e-9)


def test_water_flows_down_the_pressure_and_out_of_the_box():
    a = np.where(np.random.default_rng(1).random((8, 8)) < 0.5, 3.0, 12.0)
    p = darcy_pressure(a, 1 / 8)
    assert (p > 0).all()
    out_y, out_x = fluxes_of(p, a, 1 / 8)
    assert (out_y[0] < 0).all()
    assert (out_y[-1] > 0).all()
    total = (out_y[-1] - out_y[0] + out_x[:, -1] - out_x[:, 0]).sum() / 8
    assert total == pytest.approx(1.0, rel=1e-9)
    # the same box, turned and mirrored
    np.testing.assert_allclose(darcy_pressure(a.T, 1 / 8), p.T, rtol=1e-9)
    np.testing.assert_allclose(darcy_pressure(a[::-1], 1 / 8), p[::-1], rtol=1e-9)
    # twice as permeable, half the pressure
    np.testing.assert_allclose(darcy_pressure(2 * a, 1 / 8), p / 2, rtol=1e-9)


def test_what_no_medium_can_be_is_refused():
    for wrong in (0.0, -1.0, np.nan):
        a = np.ones((3, 3))
        a[1, 1] = wrong
        with pytest.raises(FieldError, match="permeability must be positive"):
            darcy_pressure(a, 1.0)
    with pytest.raises(FieldError, match="source of a flow must be finite"):
        darcy_pressure(np.ones(3), 1.0, np.array([0, np.nan, 1]))
    with pytest.raises(GeometryError, match="`spacing` needs 1 or 2 positive values"):
        darcy_pressure(np.ones((3, 3)), (1.0, 2.0, 3.0))


def test_permeability_is_where_a_random_field_of_the_given_covariance_is_positive():
    setting = Setting()
    fine = [medium(65, setting, np.random.default_rng([i])) for i in range(200)]
    assert set(np.unique(fine)) == {3.0, 12.0}
    share = np.mean(np.array(fine) == 12)
    assert 0.45 < share < 0.55
    # of the sign of a Gaussian field, the lowest modes have most of the variance
    power = np.mean([dctn(a - 7.5, norm="ortho") ** 2 for a in fine], axis=0)
    share = {k: power[k] / power.sum() for k in ((0, 1), (1, 0), (0, 2), (8, 8))}
    expected = [1 / (np.pi**2 * (i * i + j * j) + 9) ** 2 for i, j in share]
    assert share[0, 1] == pytest.approx(share[1, 0], rel=0.3)
    found = list(share.values())
    # sigma -> sign damps the largest modes and makes up small ones, so only orders are compared
    assert 0.4 < (found[2] / found[0]) / (expected[2] / expected[0]) < 2.5
    assert found[3] < 0.01 * found[0]


def test_a_sample_is_the_same_field_on_every_grid():
    setting = Setting()
    finest = medium(3 * 16 * 5, setting, np.random.default_rng(4))
    for size in (16, 48, 80):
        found = medium(size, setting, np.random.default_rng(4))
        step = len(finest) // size
        expected = finest[step // 2 :: step, step // 2 :: step]
        assert (found != expected).mean() < 2e-3 if step % 2 else 0.05
    assert MODES == 64


def test_the_pressure_has_converged_and_is_that_of_the_cells(tmp_path):
    a = medium(16, Setting(), np.random.default_rng(0))
    once, written, finest = (pressure_of(a, n) for n in (1, 4, 12))
    np.testing.assert_array_equal(once, darcy_pressure(a, 1 / 16))
    errors = [np.linalg.norm(p - finest) / np.linalg.norm(finest) for p in (once, written)]
    assert errors[1] < 0.01
    assert errors[1] < errors[0] / 3


def test_files_hold_what_they_promise(tmp_path):
    sizes = {"train": 6, "val": 6, "test": 6, "test_fine": 12}
    setting = Setting(size=6, fine_size=12, refine=2)
    files = simulate(tmp_path / "a", train=3, val=1, test=2, setting=setting, seed=5)
    assert [path.name for path in files] == [f"{name}.nc" for name in sizes]
    data = {path.stem: xr.load_dataset(path) for path in files}
    for name, size in sizes.items():
        found = data[name]
        assert found.permeability.dims == found.pressure.dims == ("sample", "y", "x")
        assert found.permeability.dtype == found.pressure.dtype == np.float32
        np.testing.assert_allclose(found.x, (np.arange(size) + 0.5) / size)
        np.testing.assert_allclose(found.y, found.x)
        for a, p in zip(found.permeability.values, found.pressure.values, strict=True):
            np.testing.assert_allclose(p, pressure_of(a, 2), rtol=1e-6)
    # the same fields, twice as fine
    coarse, fine = (data[name].pressure.values for name in ("test", "test_fine"))
    means = fine.reshape(2, 6, 2, 6, 2).mean(axis=(2, 4))
    assert np.abs(means - coarse).max() < 0.3 * coarse.max()
    assert np.corrcoef(means.ravel(), coarse.ravel())[0, 1] > 0.95
    # a sample depends on its number, not on how many there are
    simulate(tmp_path / "b", train=1, val=0, test=0, setting=setting, seed=5)
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["train.nc"]
    one = xr.load_dataset(tmp_path / "b" / "train.nc")
    xr.testing.assert_equal(one.pressure[0], data["train"].pressure[0])
    assert not np.array_equal(data["train"].pressure[0], data["train"].pressure[1])
    assert not np.array_equal(data["train"].permeability[0], data["test"].permeability[0])


def test_nothing_is_replaced_unasked_and_nonsense_is_refused(tmp_path):
    setting = Setting(size=4, fine_size=0, refine=1)
    simulate(tmp_path, train=1, val=0, test=1, setting=setting)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.nc", "train.nc"]
    with pytest.raises(SaveError, match=r"test\.nc would be replaced"):
        simulate(tmp_path, train=0, val=0, test=1, setting=setting)
    simulate(tmp_path, train=0, val=0, test=1, setting=setting, overwrite=True)
    with pytest.raises(RecipeError, match="simulate needs train, val, test and seed >= 0"):
        simulate(tmp_path, train=-1)
    with pytest.raises(RecipeError, match="a sample at least"):
        simulate(tmp_path, train=0, val=0, test=0)
    for wrong in ({"size": 1}, {"fine_size": 1}, {"refine": 0}):
        with pytest.raises(RecipeError, match="a medium needs size"):
            Setting(**wrong)
    for wrong in ({"permeabilities": (0.0, 1.0)}, {"inverse_length": -1.0}):
        with pytest.raises(RecipeError, match="must be positive"):
            Setting(**wrong)


def test_what_has_learnt_on_coarse_cells_takes_finer_ones_if_asked_to(tmp_path, m2m):
    size = "--setting={size: 6, fine_size: 12, refine: 1}"
    assert m2m("simulate", "darcy", "--out=data", "--train=4", "--val=1", "--test=2", size)[0] == 0
    small = ["--model.model.init_args.width=2", f"--data.domain.spacing={1 / 6}"]
    quick = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--output.figures=0"]
    assert m2m("train", "darcy", *small, *quick)[0] == 0
    fine = "permeability=data/test_fine.nc"
    apply = ("apply", "emulator.safetensors", fine, "-o", "fine.nc")
    evaluate = ("evaluate", "emulator.safetensors", fine, "pressure=data/test_fine.nc",
                "--no-training-mean", "--bootstrap=10")  # fmt: skip
    for command in (apply, evaluate):
        status, _, err = m2m(*command)
        assert status == 2
        assert "cells are 0.0833333 wide on axis 0, but the emulator has learnt on 0.16" in err
        assert "--other-grid" in err
        assert m2m(*command, "--other-grid")[0] == 0
    emulator = Emulator.load(tmp_path / "emulator.safetensors")
    truth, made = (xr.load_dataset(tmp_path / name) for name in ("data/test_fine.nc", "fine.nc"))
    with torch.no_grad():
        x = torch.from_numpy(truth.permeability.values)[:, None]
        expected = emulator(x)[:, 0].numpy()
    np.testing.assert_allclose(made.pressure, expected, rtol=1e-4, atol=1e-8)
    with xr.open_dataset(tmp_path / "scores.nc") as scores:
        found = scores.sel({"method": "emulator", "field": "pressure"})
        assert list(scores.attrs["spacing"]) == pytest.approx([1 / 12] * 2)
        error = np.sqrt(((expected - truth.pressure.values) ** 2).sum())
        error /= np.sqrt((truth.pressure.values.astype(float) ** 2).sum())
        assert float(found.relative_l2_all) == pytest.approx(error, rel=1e-4)
