"""Simulated glaciers are consistent and repeatable; the client moves ice as an ice-flow model."""

import importlib.util
import json
from pathlib import Path

import matplotlib.image
import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from map2map.emulator import Emulator
from map2map.errors import RecipeError, SaveError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import ConvNet
from map2map.norms import Scale
from map2map.physics.ice import shallow_ice
from map2map.physics.ice_membrane import membrane_flow
from map2map.synthetic.ice_flow import UNITS, Setting, mountains, simulate

SMALL = Setting(sizes=(20, 28), years=30.0, frames=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("glaciers")
    files = simulate(out, train=2, test=1, setting=SMALL, seed=3)
    assert [str(path.relative_to(out)) for path in files] == [
        "train/case_03/ex.nc", "train/case_04/ex.nc", "test/case_03/ex.nc"
    ]  # fmt: skip
    return out


def every(folder):
    return [xr.load_dataset(path) for path in sorted(folder.glob("*/*/ex.nc"))]


def test_files_hold_what_they_promise(folder):
    cases = every(folder)
    assert len({case.thk.shape for case in cases}) > 1
    for case in cases:
        assert set(case.data_vars) == set(UNITS)
        assert {name: case[name].attrs["units"] for name in UNITS} == UNITS
        assert case.thk.dims == ("time", "y", "x")
        assert case.thk.dtype == np.float32
        assert 20 <= min(case.thk.shape[1:]) <= max(case.thk.shape[1:]) <= 28
        np.testing.assert_allclose(case.time, [10, 20, 30])
        np.testing.assert_allclose(np.diff(case.x), 100)
        np.testing.assert_allclose(np.diff(case.y), 100)
        assert [case[axis].attrs["units"] for axis in ("time", "y", "x")] == ["yr", "m", "m"]


def test_geometry_and_coefficients_are_consistent(folder):
    for case in every(folder):
        np.testing.assert_array_equal(case.usurf, case.topg + case.thk)
        np.testing.assert_array_equal(case.strflowctrl, case.arrhenius + case.slidingco)
        assert 50 <= float(case.arrhenius.min()) == float(case.arrhenius.max()) <= 100
        assert 0 <= float(case.slidingco.min()) == float(case.slidingco.max()) <= 15
        assert (case.topg == case.topg[0]).all()


def test_there_is_ice_that_moves_and_ground_without_where_nothing_does(folder):
    for case in every(folder):
        ice = case.thk.values > 0
        assert 0.05 < ice.mean() < 0.95
        assert case.thk.values.min() == 0
        for name in UNITS:
            if "m/yr" in UNITS[name]:
                assert not case[name].values[~ice].any()
                assert np.isfinite(case[name]).all()
        speed = {m: np.hypot(case[f"u{m}"], case[f"v{m}"]).values
                 for m in ("velbase", "bar", "velsurf")}  # fmt: skip
        assert 1 < speed["bar"].max() < 1000
        assert (speed["velbase"] <= speed["bar"])[ice].all()
        assert (speed["bar"] <= speed["velsurf"])[ice].all()


def test_velocities_are_those_of_the_geometry_beside_them(folder):
    case = every(folder)[0].isel(time=1)
    fields = [case[name].values.astype(float) for name in ("thk", "usurf")]
    flow = membrane_flow(
        *fields, 100.0, arrhenius=float(case.arrhenius[0, 0]), slidingco=float(case.slidingco[0, 0])
    )
    for name, values in flow.named().items():
        np.testing.assert_allclose(case[name], values, atol=0.02, err_msg=name)


def test_shallow_ice_velocities_may_be_asked_for(tmp_path, folder):
    setting = Setting(sizes=(20, 28), years=30.0, frames=3, physics="shallow_ice")
    (path,) = simulate(tmp_path, train=1, test=0, setting=setting, seed=3)
    case, other = xr.load_dataset(path), xr.load_dataset(folder / "train" / "case_03" / "ex.nc")
    np.testing.assert_array_equal(case.thk, other.thk)
    frame = case.isel(time=2)
    flow = shallow_ice(
        frame.thk.values.astype(float), frame.usurf.values.astype(float), 100.0,
        arrhenius=frame.arrhenius.values, slidingco=frame.slidingco.values,
    )  # fmt: skip
    for name, values in flow.named().items():
        # the surface is rounded to float32 in the file, and the velocity goes as its slope cubed
        np.testing.assert_allclose(frame[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.abs(case.ubar - other.ubar).max() > 1


def test_a_seed_gives_the_same_whatever_else_is_made_and_splits_differ(tmp_path, folder):
    (path,) = simulate(tmp_path, train=1, test=0, setting=SMALL, seed=4)
    one, two = (xr.load_dataset(p) for p in (path, folder / "train" / "case_04" / "ex.nc"))
    for name in (*UNITS, "time", "x", "y"):
        assert one[name].values.tobytes() == two[name].values.tobytes(), name
    beds = [case.topg.values[0] for case in every(folder)]
    for i, bed in enumerate(beds):
        for other in beds[:i]:
            assert bed.shape != other.shape or not np.allclose(bed, other)


def test_what_is_there_is_not_replaced_unless_told_and_settings_are_not_mixed(tmp_path):
    tiny = Setting(sizes=(8, 9), years=2.0, frames=1)
    (path,) = simulate(tmp_path, train=1, test=0, setting=tiny)
    before = path.read_bytes()
    with pytest.raises(SaveError, match=r"train/case_00/ex.nc would be replaced; choose"):
        simulate(tmp_path, train=2, test=0, setting=tiny)
    other = Setting(sizes=(8, 9), years=3.0, frames=1)
    with pytest.raises(SaveError, match="holds simulations with"):
        simulate(tmp_path, train=1, test=0, setting=other, seed=1)
    assert path.read_bytes() == before
    simulate(tmp_path, train=1, test=1, setting=tiny, seed=1)
    simulate(tmp_path, train=1, test=0, setting=other, overwrite=True)
    assert path.read_bytes() != before
    assert json.loads((tmp_path / "simulation.json").read_text())["parameters"]["years"] == 3
    (tmp_path / "simulation.json").write_text("[]")
    with pytest.raises(SaveError, match="cannot add"):
        simulate(tmp_path, train=1, test=0, setting=tiny, seed=9)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"sizes": (4, 9)}, "at least 8 cells"),
        ({"sizes": (30, 20)}, "must ascend"),
        ({"years": 0.0}, "`years`"),
        ({"frames": 0}, "`frames`"),
        ({"arrhenius": (0.0, 10.0)}, "`arrhenius`"),
        ({"slidingco": (3.0, 1.0)}, "`slidingco`"),
        ({"physics": "membrain"}, "did you mean 'membrane'"),
    ],
)
def test_settings_that_are_not_allowed_are_refused(wrong, match):
    with pytest.raises(RecipeError, match=match):
        Setting(**wrong)


def test_counts_that_are_not_allowed_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="at least one case"):
        simulate(tmp_path / "new", train=0, test=0)
    assert not (tmp_path / "new").exists()


def test_mountains_are_smooth_and_high_in_the_middle():
    bed = mountains((80, 60), 100.0, np.random.default_rng(0))
    slope = np.hypot(*np.gradient(bed, 100.0))
    assert bed[30:50, 20:40].mean() > bed[:5].mean() + 500
    assert 0.1 < np.median(slope) < slope.max() < 2
    # what is left of waves shorter than 4 cells
    modes = np.abs(np.fft.rfft2(bed * np.outer(np.hanning(80), np.hanning(60)))) ** 2
    assert modes[:, 20:].sum() < 1e-3 * modes[1:, 1:].sum()


def test_it_is_a_command(m2m):
    argv = ["--out=o", "--train=1", "--test=0", "--setting.sizes=[8,9]", "--setting.years=2",
            "--setting.frames=1"]  # fmt: skip
    assert m2m("simulate", "ice_flow", *argv)[0] == 0
    status, _, err = m2m("simulate", "ice_flow", *argv)
    assert status == 2
    assert "train/case_00/ex.nc would be replaced" in " ".join(err.split())


# --- the client --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    path = Path(__file__).parents[1] / "examples" / "ice_flow_client.py"
    spec = importlib.util.spec_from_file_location("ice_flow_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_emulator(path, inputs, outputs=("ubar", "vbar")):
    torch.manual_seed(0)
    sets = [FieldSet(tuple(Field(n, "1", "scalar", 1) for n in s)) for s in (inputs, outputs)]
    norms = {"thk": Scale(2000.0), "ubar": Scale(100.0), "vbar": Scale(100.0)}
    norms = {name: norm for name, norm in norms.items() if name in (*inputs, *outputs)}
    model = ConvNet(len(inputs), len(outputs), ndim=2, width=4, depth=2)
    emulator = Emulator(*sets, norms, model, Domain(ndim=2, periodic=False, pad="zero")).eval()
    emulator.save(path)
    return emulator


def write_geology(path, *, flip=False, without=(), uneven=False):
    y, x = 100.0 * np.arange(14), 100.0 * np.arange(12)
    y[3] += 30 * uneven
    thickness = np.zeros((14, 12))
    thickness[4:10, 3:9] = 80.0
    surface = 3000 - 0.2 * y[:, None] - 0.05 * x + thickness
    with netCDF4.Dataset(path, "w") as file:
        for name, values in (("y", y[::-1] if flip else y), ("x", x)):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
        for name, values in (("thk", thickness), ("usurf", surface)):
            if name not in without:
                file.createVariable(name, "f8", ("y", "x"))[:] = values[::-1] if flip else values


INPUTS = ["thk", "usurf", "slopsurfx", "slopsurfy", "arrhenius", "slidingco", "strflowctrl"]


@pytest.mark.parametrize("inputs", [INPUTS, ["slopsurfy", "thk", "slopsurfx"]])
def test_an_emulator_moves_the_ice_of_a_file(client, tmp_path, capsys, inputs):
    emulator = make_emulator(tmp_path / "e.safetensors", inputs)
    write_geology(tmp_path / "g.nc")
    argv = [tmp_path / "e.safetensors", "--geology", tmp_path / "g.nc", "--years", "2",
            "--slidingco", "7", "--out", tmp_path / "f.png"]  # fmt: skip
    assert client.main(list(map(str, argv))) == 0
    assert "volume 0.029 to" in capsys.readouterr().out
    assert matplotlib.image.imread(tmp_path / "f.png").std() > 0.05
    # the first velocities, with inputs written out
    glacier = client.read(tmp_path / "g.nc", None, 7.0)
    surface = glacier.bed + glacier.thickness
    by_hand = {
        "thk": glacier.thickness,
        "usurf": surface,
        "slopsurfx": np.gradient(surface, 100.0, axis=1),
        "slopsurfy": np.gradient(surface, 100.0, axis=0),
        "arrhenius": np.full((14, 12), 78.0),
        "slidingco": np.full((14, 12), 7.0),
        "strflowctrl": np.full((14, 12), 85.0),
    }
    out = emulator({name: by_hand[name] for name in inputs})
    (first, *_) = client.run(glacier, client.emulated(emulator), client.Climate(3e3), 1e-9, 1e9)
    expected = np.where(glacier.thickness > 0, np.hypot(out["ubar"][0], out["vbar"][0]), 0)
    np.testing.assert_allclose(first.speed, expected, rtol=1e-5)
    assert first.speed.max() > 0


def test_no_ice_is_faster_than_the_cap_and_without_balance_ice_is_kept(client, tmp_path):
    write_geology(tmp_path / "g.nc")
    glacier = client.read(tmp_path / "g.nc", 100.0, 20.0)
    still = client.Climate(0.0, gradient=0.0)
    steps = client.run(glacier, client.closed, still, 2.0, 15.0)
    assert steps[0].speed.max() == pytest.approx(15)
    assert max(step.speed.max() for step in steps) <= 15 * (1 + 1e-12)
    assert steps[-1].time == 2.0
    np.testing.assert_allclose(steps[-1].thickness.sum(), glacier.thickness.sum(), rtol=1e-12)
    assert np.abs(steps[-1].thickness - glacier.thickness).max() > 5


def test_rows_from_north_to_south_are_read_as_those_from_south_to_north(client, tmp_path):
    write_geology(tmp_path / "up.nc")
    write_geology(tmp_path / "down.nc", flip=True)
    up, down = (client.read(tmp_path / name, None, None) for name in ("up.nc", "down.nc"))
    np.testing.assert_array_equal(up.bed, down.bed)
    assert up.spacing == down.spacing == (100.0, 100.0)


@pytest.mark.parametrize("how", ["--shallow-ice", "--membrane"])
def test_it_runs_without_an_emulator(client, tmp_path, how):
    write_geology(tmp_path / "g.nc")
    argv = [how, f"--geology={tmp_path}/g.nc", "--years=1", f"--out={tmp_path}/f.png"]
    assert client.main(argv) == 0
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_help_and_bad_input(client, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        client.main(["--help"])
    assert "--geology" in capsys.readouterr().out
    for argv in ([], ["e.safetensors", "--membrane"], ["--membrane", "--years=-1"],
                 ["--membrane", "--speed-cap=0"], ["--membrane", "--slidingco=-1"]):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            client.main(argv)
    capsys.readouterr()
    write_geology(tmp_path / "none.nc", without=["thk"])
    write_geology(tmp_path / "uneven.nc", uneven=True)
    make_emulator(tmp_path / "e.safetensors", ["thk", "icemask"])
    wrong = [
        ([f"{tmp_path}/no.safetensors"], "there is no emulator"),
        ([f"{tmp_path}/e.safetensors"], "inputs among thk"),
        (["--membrane", f"--geology={tmp_path}/no.nc"], "cannot read"),
        (["--membrane", f"--geology={tmp_path}/none.nc"], "x, y, thk, and usurf or topg are"),
        (["--membrane", f"--geology={tmp_path}/uneven.nc"], "even steps"),
    ]
    for argv, message in wrong:
        assert client.main([*argv, f"--out={tmp_path}/f.png"]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "f.png").exists()
