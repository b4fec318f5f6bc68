"""The commands of ``m2m``: what they print is what is in the files."""

import json
import subprocess
import sys
import time

import h5py
import netCDF4
import numpy as np
import pytest
import torch
import yaml
import zarr

import map2map
from map2map.cli import main
from map2map.commands.recipes import shipped
from map2map.emulator import Card, Emulator


@pytest.fixture
def pairs(tmp_path):
    """Two runs of a pair of fields, and a recipe for them."""
    rng = np.random.default_rng(0)
    for name in "ab":
        for k in range(2):
            values = rng.normal(size=(1, 8, 8)).astype(np.float32)
            np.save(tmp_path / f"{name}_{k}.npy", values)
    recipe = {
        "trainer": {"max_epochs": 1},
        "model": {
            "inputs": [{"name": "a", "units": "m"}],
            "targets": [{"name": "b", "units": "m/s"}],
            "norms": {"a": {"class_path": "map2map.norms.Standardize"}},
            "model": {"class_path": "ConvNet", "init_args": {"width": 2, "depth": 1}},
        },
        "data": {
            "train": {"a": "a_*.npy", "b": "b_*.npy"},
            "crops": {"size": 4},
            "reading": {"batch_size": 2, "threads": 0},
        },
        "output": {"figures": 0},
    }
    recipe["model"]["model"]["class_path"] = "map2map.models.ConvNet"
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


# --- help --------------------------------------------------------------------------------------


def test_help_needs_neither_torch_nor_lightning():
    code = (
        "import sys\nfrom map2map.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leave: assert leave.code == 0\n"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib', 'jsonargparse'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # half a second where nothing else runs; several times that is still not torch's import
    assert time.perf_counter() - start < 3
    for command in ("train", "inspect", "simulate", "recipes", "map2map"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--help"], ["--data.crops", "--trainer.max_epochs", "--output.folder"]),
        (["inspect", "--help"], ["NetCDF", "--ndim"]),
        (["recipes", "--help"], ["m2m recipes cosmology_displacement"]),
        (["simulate", "nbody", "--help"], ["Number of runs", "default: 6"]),
        (["map2map", "--help"], ["{train,test}"]),
        (["map2map", "train", "--help"], ["--train-in-patterns", "default: 128"]),
        (["map2map", "test", "--help"], ["--num-threads"]),
    ],
)
def test_every_command_explains_itself(m2m, argv, words):
    status, out, err = m2m(*argv)
    assert (status, err) == (0, "")
    assert all(word in " ".join(out.split()) for word in words)


def test_the_version_is_told(m2m):
    assert m2m("--version")[:2] == (0, f"map2map {map2map.__version__}\n")


# --- recipes -----------------------------------------------------------------------------------


def test_recipes_are_listed_with_a_line_each_and_printed(m2m):
    status, out, _ = m2m("recipes")
    assert status == 0
    name, _, summary = out.splitlines()[0].partition(" ")
    assert (name, summary.strip()[:10]) == ("cosmology_displacement"[: len(name)], "Non-linear")
    status, text, _ = m2m("recipes", name)
    assert status == 0
    assert yaml.safe_load(text)["model"]["inputs"][0]["units"] == "Mpc/h"


def test_a_printed_recipe_with_other_files_trains(m2m, tmp_path):
    assert m2m("simulate", "nbody", "--out=data", "--runs=2", "--size=16", "--steps=2")[0] == 0
    (tmp_path / "mine.yaml").write_text(m2m("recipes", "cosmology_displacement")[1])
    overrides = [
        "--data.train.linear=data/za_00.npy",
        "--data.train.displacement=data/pm_00.npy",
        "--data.val.linear=data/za_01.npy",
        "--data.val.displacement=data/pm_01.npy",
        "--data.crops.size=16",
        "--model.model.init_args.width=2",
        "--trainer.max_epochs=1",
        "--trainer.precision=32",
        "--output.figures=0",
    ]
    assert m2m("train", "mine.yaml", *overrides)[0] == 0
    card = Card.read(tmp_path / "emulator.safetensors")
    assert card.model["init_args"]["width"] == 2
    assert [field["name"] for field in card.targets] == ["displacement"]


# --- train -------------------------------------------------------------------------------------


def test_overrides_win_over_the_recipe(pairs, m2m):
    argv = ["--model.model.init_args.width=3", "--data.reading.batch_size=4", "--output.folder=o"]
    assert m2m("train", "r.yaml", "--trainer.max_epochs=2", *argv)[0] == 0
    card = Card.read(pairs / "o" / "emulator.safetensors")
    assert card.model["init_args"]["width"] == 3
    recipe = card.training["recipe"]
    assert recipe["data"]["reading"]["batch_size"] == 4
    assert (pairs / "o" / "state_2.pt").exists()
    assert not list(pairs.glob("*.pt"))
    # 2 runs of 4 crops in batches of 4, twice
    assert (card.training["epochs"], card.training["optimizer_steps"]) == (2, 4)


def test_print_config_is_a_recipe_that_trains_alike(pairs, m2m):
    status, text, _ = m2m("train", "r.yaml", "--model.model.init_args.width=3", "--print_config")
    assert status == 0
    assert not (pairs / "state_1.pt").exists()
    (pairs / "full.yaml").write_text(text)
    assert m2m("train", "full.yaml", "--output.folder=full")[0] == 0
    assert m2m("train", "r.yaml", "--model.model.init_args.width=3")[0] == 0
    one, two = (
        torch.load(pairs / folder / "state_1.pt", weights_only=True)["model"]
        for folder in (".", "full")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_emulator_gives_what_its_weights_and_norms_say(pairs, m2m):
    assert m2m("train", "r.yaml", "--data.crops.halo=auto")[0] == 0
    weights = torch.load(pairs / "state_1.pt", weights_only=True)["model"]
    values = np.concatenate([np.load(pairs / f"a_{k}.npy").ravel() for k in range(2)])
    x = np.load(pairs / "a_0.npy")
    encoded = torch.from_numpy(np.pad((x - values.mean()) / values.std(), 1, mode="wrap")[1:2])
    expected = torch.nn.functional.conv2d(
        encoded[None], weights["convs.0.weight"], weights["convs.0.bias"]
    )
    found = Emulator.load(pairs / "emulator.safetensors")({"a": x})["b"]
    np.testing.assert_allclose(found, expected[0], rtol=1e-4, atol=1e-5)


# --- inspect -----------------------------------------------------------------------------------

VALUES = np.random.default_rng(1).normal(3, 2, (2, 6, 5, 4)).astype(np.float32)
VALUES[1, 2, 3, :2] = np.nan


def write_npy(folder):
    np.save(folder / "v.npy", VALUES)
    return folder / "v.npy"


def write_hdf5(folder):
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_dataset("v", data=VALUES).attrs["units"] = "km/s"
    return folder / "v.h5"


def write_netcdf(folder):
    with netCDF4.Dataset(folder / "v.nc", "w") as file:
        for name, n in zip("czyx", VALUES.shape, strict=True):
            file.createDimension(name, n)
        variable = file.createVariable("v", "f4", tuple("czyx"))
        variable.units = "km/s"
        variable[:] = VALUES
    return folder / "v.nc"


def write_zarr(folder):
    group = zarr.open_group(folder / "v.zarr", mode="w")
    array = group.create_array("v", shape=VALUES.shape, dtype="f4", chunks=(1, 3, 3, 3))
    array[...] = VALUES
    array.attrs["units"] = "km/s"
    return folder / "v.zarr"


@pytest.mark.parametrize("write", [write_npy, write_hdf5, write_netcdf, write_zarr])
def test_inspect_tells_what_numpy_finds(tmp_path, m2m, write):
    path = write(tmp_path)
    status, out, _ = m2m("inspect", path, "--ndim=3", "--json")
    assert status == 0
    row = json.loads(out)["v"]
    assert (row["channels"], row["shape"], row["dtype"]) == (2, [6, 5, 4], "float32")
    assert row["units"] == (None if path.suffix == ".npy" else "km/s")
    assert row["NaN/Inf"] == 2
    exact = VALUES.astype(float)
    for name, function in {"min": np.nanmin, "max": np.nanmax, "mean": np.nanmean}.items():
        assert row[name] == pytest.approx(function(exact), rel=1e-9)
    assert row["std"] == pytest.approx(np.nanstd(exact), rel=1e-9)


def test_a_table_cuts_nothing_off(tmp_path, m2m, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    np.save(tmp_path / "a_field_with_a_long_name.npy", 1e6 + np.arange(64.0).reshape(1, 8, 8))
    status, out, _ = m2m("inspect", "a_field_with_a_long_name.npy")
    assert status == 0
    assert "…" not in out
    words = out.split()
    assert "a_field_with_a_long_name" in words
    assert words[-4:] == ["1e+06", "1e+06", "18.473", "0"] or "18.473" in words


def test_the_deviation_about_a_large_mean_is_exact(tmp_path, m2m):
    """The mean of squares minus the square of the mean would give nothing here."""
    values = 1e9 + np.random.default_rng(0).normal(size=(1, 16, 16))
    np.save(tmp_path / "x.npy", values)
    row = json.loads(m2m("inspect", "x.npy", "--json")[1])["x"]
    assert row["std"] == pytest.approx(values.std(), rel=1e-6)
    assert row["mean"] == pytest.approx(values.mean(), rel=1e-15)


def test_fields_without_a_finite_value(tmp_path, m2m):
    np.save(tmp_path / "x.npy", np.full((1, 4, 4), np.nan))
    row = json.loads(m2m("inspect", "x.npy", "--json")[1])["x"]
    assert (row["min"], row["max"], row["mean"], row["std"]) == (None,) * 4
    assert row["NaN/Inf"] == 16
    assert m2m("inspect", "x.npy")[0] == 0


def test_inspect_of_a_recipe_a_state_and_an_emulator(pairs, m2m):
    status, out, _ = m2m("inspect", "r.yaml")
    assert status == 0
    assert yaml.safe_load(out)["data"]["crops"]["size"] == 4
    assert "# train: 2 runs: a_0, a_1" in out
    status, out, _ = m2m("inspect", "cosmology_displacement")
    assert status == 0
    assert "# splits are not known: no file matches" in out
    assert m2m("train", "r.yaml")[0] == 0
    status, out, _ = m2m("inspect", "checkpoint.pt")
    state = json.loads(out)
    # 2 channels of 3 x 3 weights and a bias? no: one convolution, 1 to 1 channel
    assert (status, state["epoch"], state["parameters"]) == (0, 1, 9 + 1)
    assert state["weights"] == {"convs.0.weight": [1, 1, 3, 3], "convs.0.bias": [1]}
    assert len(state["history"]["train"]) == 1
    status, out, _ = m2m("inspect", "emulator.safetensors")
    card = json.loads(out)
    assert status == 0
    assert [(f["name"], f["units"]) for f in card["inputs"] + card["targets"]] == [
        ("a", "m"),
        ("b", "m/s"),
    ]
    values = np.concatenate([np.load(pairs / f"a_{k}.npy").ravel() for k in range(2)])
    arguments = card["norms"]["a"]["init_args"]
    assert arguments["mean"] == pytest.approx([values.mean()], rel=1e-5)
    assert arguments["std"] == pytest.approx([values.std()], rel=1e-5)


# --- simulate ----------------------------------------------------------------------------------


def test_simulators_are_listed_and_run(tmp_path, m2m):
    status, out, _ = m2m("simulate")
    assert status == 0
    assert "nbody" in out
    argv = ["--out=data", "--runs=1", "--size=8", "--box=16", "--steps=2", "--seed=3"]
    assert m2m("simulate", "nbody", *argv)[0] == 0
    for name in ("za", "lpt", "pm"):
        values = np.load(tmp_path / "data" / f"{name}_03.npy")
        assert (values.shape, values.dtype) == ((3, 8, 8, 8), np.float32)
        # displacements of a periodic box have no mean
        assert np.abs(values.mean(axis=(1, 2, 3))).max() < 1e-3 * np.abs(values).max()
    assert json.loads((tmp_path / "data" / "simulation.json").read_text())
    status, _, err = m2m("simulate", "nbody", *argv)
    assert status == 2
    assert "overwrite" in err


def test_inspect_measures_the_footprint_of_any_network(tmp_path, m2m, capsys):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from map2map.footprints import Footprint\n"
        "class Dilated(torch.nn.Conv2d):\n"
        "    def __init__(self, a, b):\n"
        "        super().__init__(a, b, 3, dilation=4)\n"
        "class Mean(torch.nn.Module):\n"
        "    def __init__(self, a, b):\n"
        "        super().__init__()\n"
        "        self.norm = torch.nn.InstanceNorm2d(a)\n"
        "    def forward(self, x):\n"
        "        return self.norm(x)\n"
        "class Here(torch.nn.Conv2d):\n"
        "    def __init__(self, a, b):\n"
        "        super().__init__(a, b, 1)\n"
        "        self.footprint = Footprint(0, sizes=(4, 5))\n"
        "class Odd(torch.nn.Module):\n"
        "    def __init__(self, a, b, c, d):\n"
        "        super().__init__()\n"
    )
    at = ["--callback-at", str(tmp_path), "--ndim", "2", "--channels", "2", "3"]
    status, out, _ = m2m("inspect", "map2map_callback.mine.Dilated", *at)
    assert status == 0
    found = json.loads(out)
    assert found["stated"] is None
    assert (found["measured"]["margin"], found["measured"]["multiple"]) == (4, 1)
    assert found["parameters"] == 2 * 3 * 9 + 3
    out = m2m("inspect", "map2map_callback.mine.Mean", *at)[1]
    assert "InstanceNorm2d ('norm')" in json.loads(out)["measured"]["whole"]
    out = m2m("inspect", "map2map_callback.mine.Here", *at)[1]
    assert json.loads(out)["stated"]["sizes"] == [4, 5]
    assert json.loads(out)["measured"] is None
    assert "cannot be made" in m2m("inspect", "map2map_callback.mine.Odd", *at)[2]
    assert "no network of that name" in m2m("inspect", "map2map.models.UNt")[2]
    out = m2m("inspect", "map2map.models.VNet", "--ndim", "1")[1]
    assert json.loads(out)["stated"]["margin"] == json.loads(out)["measured"]["margin"] == 20


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_recipe_without_its_data_says_where_they_come_from(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", name]) == 2
    said = capsys.readouterr().err
    assert "m2m simulate" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
