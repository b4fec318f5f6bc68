"""2Dto2D-DLE's command line: what it means, what it writes, and what it refuses."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from map2map.cli import main
from map2map.derived import Gradient
from map2map.dialects.dle.cases import Case, cases_of, resample
from map2map.dialects.dle.mappings import PREDEFINED, mapping
from map2map.dialects.dle.options import check, parser
from map2map.dialects.dle.results import as_text
from map2map.dialects.dle.translation import result_name
from map2map.emulator import Emulator
from map2map.errors import ArtefactError, FieldError, RecipeError
from map2map.imports.dle import read
from map2map.report.scores import read_scores

SHAPES = {"a": (18, 21), "b": (20, 17)}
SMALL = ["--nb_layers", "2", "--nb_out_filter", "4", "--patch_size", "8", "--batch_size", "4",
         "--epochs", "2", "--verbose", "0"]  # fmt: skip


def glacier(shape, frames=2, seed=0, **more):
    """Ice on a slope; its velocity is a formula of thickness and slope."""
    rng = np.random.default_rng(seed)
    y, x = (100.0 * np.arange(n) for n in shape)
    bed = 2000 - 0.2 * x + 0.1 * y[:, None]
    r = np.hypot(y[:, None] - y.mean(), x - x.mean())
    thk = np.stack([np.clip(150 + 20 * t - 0.2 * r, 0, None) for t in range(frames)])
    thk += rng.uniform(0, 1, thk.shape) * (thk > 0)
    usurf = bed + thk
    slope = np.gradient(usurf, 100.0, axis=(1, 2))
    dims = ("time", "y", "x")
    fields = {"thk": thk, "usurf": usurf, "vbar": -thk * slope[0], "ubar": -thk * slope[1], **more}
    coords = {"time": np.arange(frames) * 10.0, "y": y, "x": x}
    return xr.Dataset({n: (dims, v.astype(np.float32)) for n, v in fields.items()}, coords)


def put(data, path):
    """Replace a file that may be open."""
    data.to_netcdf(path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Data in both forms: NetCDF in ``ice_100``, npy in ``flat_100``."""
    monkeypatch.chdir(tmp_path)
    for split, names in (("train", "ab"), ("test", "b")):
        for name in names:
            data = glacier(SHAPES[name], seed=ord(name))
            for form in ("ice_100", "flat_100"):
                (tmp_path / form / split / name).mkdir(parents=True)
            data.to_netcdf(tmp_path / "ice_100" / split / name / "ex.nc")
            for key in data.variables:
                np.save(tmp_path / "flat_100" / split / name / f"{key}.npy", data[key])
        (tmp_path / "ice_100" / split / ".ipynb_checkpoints").mkdir()
    return tmp_path


def options(*argv):
    return parser().parse_args(list(argv))


def recipe_of(capsys, *argv):
    capsys.readouterr()
    assert main(["dle", *argv, "--print-recipe"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_every_option_of_the_original_has_its_default():
    found = vars(options())
    expected = {
        "dataset": "pism_isoth_2000", "maptype": "f2", "train": True, "predict": True,
        "network": "cnn", "conv_ker_size": 3, "nb_layers": 16, "nb_blocks": 4,
        "nb_out_filter": 32, "activation": "lrelu", "dropout_rate": 0, "learning_rate": 1e-4,
        "clipnorm": 0.5, "regularization": 0, "batch_size": 64, "loss": "mae", "resample_data": 1,
        "include_test_in_train": False, "save_model_each": 10000, "data_augmentation": True,
        "data_stepping": 1, "epochs": 100, "seed": 123, "thrice": 1, "patch_size": 32, "verbose": 1,
        "usegpu": True,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert len(found) == 29 + 1  # and print-recipe
    assert options("--usegpu").usegpu is True
    assert options("--train", "False", "--usegpu", "0").train is False
    with pytest.raises(SystemExit):
        options("--train", "perhaps")


@pytest.mark.parametrize(
    ("option", "values"),
    {
        "conv_ker_size": ["0", "4", "-3"], "nb_layers": ["0"], "nb_out_filter": ["0"],
        "nb_blocks": ["0", "-1", "17"], "dropout_rate": ["1", "1.5", "-0.1", "nan"],
        "learning_rate": ["0", "-1", "nan", "inf"], "clipnorm": ["-1", "nan"],
        "regularization": ["-1", "nan"], "batch_size": ["0", "-1"], "epochs": ["0"],
        "seed": ["-1", "4294967296"], "save_model_each": ["0", "-1"],
        "resample_data": ["1.5", "0", "-1", "nan", "inf"], "data_stepping": ["0", "-1"],
        "thrice": ["nan", "inf"], "patch_size": ["0"],
    }.items(),
)  # fmt: skip
def test_values_that_are_not_allowed_are_refused_by_the_name_of_the_option(
    here, capsys, option, values
):
    argv = ["--dataset", "ice_100", "--network", "unet"][: 4 if option == "nb_blocks" else 2]
    for value in values:
        expected = rf"--{option} is {value}(\.0)?; it can be "
        with pytest.raises(RecipeError, match=expected):
            check(options(*argv, f"--{option}={value}"))
    assert main(["dle", *argv, f"--{option}={value}", "--print-recipe"]) == 2
    assert main(["dle", *argv, f"--{option}={value}"]) == 2
    assert not (here / "results").exists()


def test_values_at_the_ends_of_what_is_allowed_pass():
    check(options())
    check(options("--network", "unet"))
    ends = ["--conv_ker_size", "--nb_layers", "--nb_out_filter", "--batch_size", "--epochs",
            "--save_model_each", "--data_stepping"]  # fmt: skip
    more = ["--dropout_rate=0", "--clipnorm=0", "--seed=0", "--thrice=-1", "--patch_size=-1"]
    for factor in ("0.5", "2"):
        check(options(*(f"{name}=1" for name in ends), *more, f"--resample_data={factor}"))
    for levels in ("1", "16"):
        check(options("--network", "unet", "--nb_blocks", levels))


def test_options_that_a_network_does_not_take_are_refused():
    unet = {"conv_ker_size": "5", "nb_layers": "5", "activation": "relu", "dropout_rate": ".1",
            "regularization": "1e-3"}  # fmt: skip
    for name, value in unet.items():
        with pytest.raises(RecipeError, match=f"the unet does not take --{name}; leave it out, or"):
            check(options("--network", "unet", f"--{name}", value))
        check(options(f"--{name}", value))
    with pytest.raises(RecipeError, match=r"the cnn does not take --nb_blocks; .*--network unet"):
        check(options("--nb_blocks", "7"))
    # as typed by who types every option
    check(options("--network", "unet", "--conv_ker_size", "3", "--nb_layers", "16"))


def test_mappings_are_those_of_the_specification(tmp_path):
    ice = ["thk", "slopsurfx", "slopsurfy"]
    assert list(mapping("f2").inputs) == ice
    assert list(mapping("f15").inputs) == [*ice, "arrhenius", "slidingco"]
    assert list(mapping("f14").targets) == [
        "uvelbase", "vvelbase", "ubar", "vbar", "uvelsurf", "vvelsurf",
    ]  # fmt: skip
    assert set(PREDEFINED) == {"f2", "f10", "f11", "f12", "f13", "f14", "f15"}
    mapping("f2").write(tmp_path)
    assert len((tmp_path / "fieldin.dat").read_bytes()) == 57
    assert len((tmp_path / "fieldout.dat").read_bytes()) == 36
    own = mapping(str(tmp_path))
    assert (own.inputs, own.targets) == (mapping("f2").inputs, mapping("f2").targets)
    (tmp_path / "fieldout.dat").write_text("thk 500.0 \nubar 1000 more\n")
    # of a field in both files, the second wins
    assert mapping(str(tmp_path)).inputs["thk"] == 500
    (tmp_path / "fieldout.dat").write_text("ubar 1000\nvbar\n")
    with pytest.raises(ArtefactError, match=r"fieldout.dat, line 2"):
        mapping(str(tmp_path))
    (tmp_path / "fieldout.dat").write_text("ubar 0\n")
    with pytest.raises(ArtefactError, match="cannot divide by the scale 0"):
        mapping(str(tmp_path))
    with pytest.raises(RecipeError, match=r"no mapping that is known; did you mean 'f2'.*\?$"):
        mapping("f22")


def test_results_are_called_as_the_original_calls_them():
    assert result_name(options("--dataset", "cfsflow_100")) == (
        "cfsflow_100+MAPTY-f2+NETWO-cnn+CONVS-3+DEPTH-16+NBFIL-32+EPOCH-100+RSAMP-1.0+TESTI-0"
    )
    changed = options("--dataset", "cfsflow_100", "--resample_data", "2", "--network", "unet")
    assert result_name(changed).startswith("cfsflow_200+MAPTY-f2+NETWO-unet+CONVS-3+DEPTH-4")
    with pytest.raises(RecipeError, match="must end in _RESOLUTION"):
        result_name(options("--dataset", "ice", "--resample_data", "2"))


def test_what_is_refused_after_resampling_leaves_nothing_and_removes_nothing(here, capsys):
    argv = ["dle", "--dataset", "ice_100", "--resample_data", "2", "--maptype", "f2"]
    assert main([*argv, "--patch_size", "16"]) == 2
    assert "the patch (--patch_size) is (16, 16), but" in capsys.readouterr().err
    assert not (here / "results").exists()
    # nor is a folder touched whose training can go on
    former = here / "results" / result_name(options(*argv[1:]))
    former.mkdir(parents=True)
    (former / "model.h5").touch()
    assert main([*argv, "--patch_size", "16"]) == 2
    assert [path.name for path in (here / "results").iterdir()] == [former.name]
    (former / "model.h5").unlink()
    (former / "dle-run-parameters.txt").write_text(as_text(options(*argv[1:], "--patch_size=16")))
    (former / "checkpoint.pt").touch()
    assert main([*argv, "--patch_size", "16"]) == 2
    assert (former / "checkpoint.pt").is_file()
    capsys.readouterr()
    assert main([*argv, "--patch_size", "16", "--print-recipe"]) == 0
    assert capsys.readouterr().out.startswith("# of the cases as they are; --resample_data")


def test_options_become_a_recipe(here, capsys):
    made = recipe_of(capsys, "--dataset", "ice_100", "--learning_rate", "1e-3",
                     "--patch_size", "-1", "--data_stepping", "2", "--usegpu", "False",
                     "--loss", "logcosh")  # fmt: skip
    assert made["model"]["optimizer"]["init_args"] == {"lr": 1e-3, "clip_norm": 0.5, "l2": 0.0}
    assert made["model"]["loss"]["class_path"] == "map2map.losses.LogCosh"
    assert made["data"]["crops"] == {
        "size": 16, "halo": 0, "where": {"field": "thk", "above": 1.0},
    }  # fmt: skip
    assert made["data"]["domain"]["frames"] == 2
    assert made["data"]["augment"]["symmetries"] == "all"
    assert made["trainer"]["accelerator"] == "cpu"
    assert made["data"]["train"]["usurf"]["pattern"] == [
        "ice_100/train/a/ex.nc", "ice_100/train/b/ex.nc",
    ]  # fmt: skip
    assert "slopsurfx" not in made["data"]["train"]
    vector = [entry.get("component") for entry in made["model"]["targets"]]
    assert vector == [{"vector": "velbar", "axis": 1}, {"vector": "velbar", "axis": 0}]
    both = recipe_of(
        capsys, "--dataset", "ice_100", "--include_test_in_train", "True", "--patch_size", "8"
    )
    assert len(both["data"]["train"]["thk"]["pattern"]) == 3
    unet = recipe_of(
        capsys, "--dataset", "ice_100", "--network", "unet", "--nb_blocks", "3", "--patch_size", "8"
    )
    assert unet["model"]["model"]["init_args"] == {"width": 32, "levels": 3}


@pytest.mark.parametrize("dataset", ["ice_100", "flat_100"])
def test_it_trains_predicts_and_writes_what_is_documented(here, dataset, caplog):
    argv = ["dle", "--dataset", dataset, *SMALL, "--save_model_each", "1"]
    assert main(argv) == 0
    (folder,) = (here / "results").iterdir()
    assert folder.name.startswith(f"{dataset}+MAPTY-f2+NETWO-cnn")
    names = {path.name for path in folder.iterdir()}
    assert {
        "dle-run-parameters.txt", "model-info.txt", "train-history.csv", "Learning-curve.pdf",
        "fieldin.dat", "fieldout.dat", "model.h5", "model.best.h5", "model.00001.h5",
        "model.00002.h5", "scores.nc", "b", "emulator.safetensors",
    } <= names  # fmt: skip
    lines = (folder / "train-history.csv").read_text().splitlines()
    assert lines[0] == "epoch loss mae mse val_loss val_mae val_mse"
    rows = [[float(word) for word in line.split()] for line in lines[1:]]
    assert [row[0] for row in rows] == [0, 1]
    for row in rows:
        assert row[1] == pytest.approx(row[2])  # the loss is the mae
        assert 0 < row[3] < row[2] < 1
    text = (folder / "dle-run-parameters.txt").read_text()
    assert re.search(r"^ {20}batch_size : 4$", text, re.MULTILINE)
    assert {path.name for path in (folder / "b").iterdir()} == {
        "predictions.nc", "predict-b_0000.png", "predict-b_0001.png",
        "predict-diff-b_0000.png", "predict-diff-b_0001.png",
    }  # fmt: skip
    # the last model, the emulator, the predictions and the scores are of one network
    emulator = Emulator.load(folder / "emulator.safetensors")
    again = read(folder)
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(again(x), emulator(x))
    data = glacier(SHAPES["b"], seed=ord("b"))
    slopes = [np.gradient(data.usurf.values.astype(np.float64), 100.0, axis=a) for a in (2, 1)]
    x = np.stack([data.thk.values / 2000, slopes[0] / 1.5, slopes[1] / 1.5], 1)
    with torch.no_grad():
        expected = 1000 * emulator.model(torch.from_numpy(x).float()).numpy()
    with xr.open_dataset(folder / "b" / "predictions.nc") as made:
        for channel, name in enumerate(("ubar", "vbar")):
            np.testing.assert_allclose(made[name], expected[:, channel], rtol=1e-3, atol=1e-4)
    truth = np.stack([data.ubar, data.vbar], 1)
    ice = (data.thk > 1).values[:, None].repeat(2, 1)
    rmse = [np.sqrt(((expected - truth)[t][ice[t]] ** 2).mean()) for t in range(2)]
    scores = read_scores(folder / "scores.nc").data.rmse.sel({"method": "emulator"})
    np.testing.assert_allclose(scores.sel(field="velbar"), rmse, rtol=1e-3)


def test_no_results_are_ever_removed_and_a_training_that_broke_off_goes_on(here, caplog):
    argv = ["dle", "--dataset", "ice_100", *SMALL, "--predict", "False"]
    assert main(argv) == 0
    (first,) = (here / "results").iterdir()
    before = (first / "model.h5").read_bytes()
    assert main([*argv, "--learning_rate", "1e-2"]) == 0
    second = here / "results" / f"{first.name}+RUN-2"
    assert (second / "model.h5").is_file()
    assert (first / "model.h5").read_bytes() == before
    # the same options, whose training did not come to its end
    (second / "model.h5").unlink()
    (second / "dle-run-parameters.txt").write_text(
        (second / "dle-run-parameters.txt").read_text().replace("verbose : 0", "verbose : 1")
    )
    with caplog.at_level("INFO", "map2map"):
        assert main([*argv, "--learning_rate", "1e-2", "--verbose", "1"]) == 0
    assert "going on with" in caplog.text
    assert len(list((here / "results").iterdir())) == 2
    # the newest is predicted, and nothing is trained
    weights = (second / "model.h5").read_bytes()
    assert main(["dle", "--dataset", "ice_100", *SMALL, "--train", "False"]) == 0
    assert (second / "b" / "predictions.nc").is_file()
    assert (second / "model.h5").read_bytes() == weights


def test_the_unet_trains_on_frames_of_any_size(here):
    argv = ["--dataset", "ice_100", *SMALL[2:], "--network", "unet", "--nb_blocks", "3"]
    assert main(["dle", *argv]) == 0
    (folder,) = (here / "results").iterdir()
    emulator = Emulator.load(folder / "emulator.safetensors")
    data = glacier(SHAPES["b"], seed=ord("b"))
    slopes = [np.gradient(data.usurf.values.astype(np.float64), 100.0, axis=a) for a in (2, 1)]
    x = np.stack([data.thk.values / 2000, slopes[0] / 1.5, slopes[1] / 1.5], 1)
    # 20 x 17 cells are filled up with zeros to multiples of 4 at the end of the axes
    x = np.pad(x, [(0, 0), (0, 0), (0, 0), (0, 3)])
    with torch.no_grad():
        expected = 1000 * emulator.model(torch.from_numpy(x).float()).numpy()[..., :17]
    with xr.open_dataset(folder / "b" / "predictions.nc") as made:
        np.testing.assert_allclose(made.ubar, expected[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dataset", ["ice_100", "flat_100"])
def test_cells_that_are_not_square_are_flipped_but_not_turned(here, capsys, caplog, dataset):
    argv = ["--dataset", dataset, "--patch_size", "8"]
    assert recipe_of(capsys, *argv)["data"]["augment"]["symmetries"] == "all"
    for split, name in (("train", "a"), ("train", "b"), ("test", "b")):
        folder = here / dataset / split / name
        if dataset == "ice_100":
            data = glacier(SHAPES[name])
            put(data.assign_coords(y=-2 * data.y), folder / "ex.nc")
        else:
            np.save(folder / "y.npy", -2 * np.load(folder / "y.npy"))
    assert "not turned by quarters" not in caplog.text
    caplog.set_level("INFO", "map2map")
    assert recipe_of(capsys, *argv)["data"]["augment"]["symmetries"] == "flips"
    assert "cells are not square: 200 along y, 100 along x" in caplog.text
    none = recipe_of(capsys, *argv, "--data_augmentation", "False")
    assert none["data"]["augment"]["symmetries"] == "none"


def test_a_field_can_be_input_and_target_with_the_scale_of_the_target(here, capsys, caplog):
    (here / "m_both").mkdir()
    (here / "m_both" / "fieldin.dat").write_text("thk 2000\nubar 1000\n")
    (here / "m_both" / "fieldout.dat").write_text("ubar 500\n")
    argv = ["--dataset", "ice_100", "--maptype", "m_both", *SMALL, "--verbose", "1"]
    made = recipe_of(capsys, *argv)
    assert made["model"]["norms"]["ubar"]["init_args"] == {"typical": 500.0}
    # its sign would change with a flip, and its direction with a turn, but of the input alone
    assert made["data"]["augment"]["symmetries"] == "none"
    assert "patches are not turned: ubar is one component of a vector" in caplog.text
    assert main(["dle", *argv]) == 0
    (folder,) = (here / "results").iterdir()
    emulator, again = Emulator.load(folder / "emulator.safetensors"), read(folder)
    x = 100 * torch.randn(1, 2, 9, 9)
    with torch.no_grad():
        expected = 500 * emulator.model(x / torch.tensor([2000.0, 500.0])[:, None, None])
        torch.testing.assert_close(emulator(x), expected)
        torch.testing.assert_close(again(x), expected)
    again.save(here / "again.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(Emulator.load(here / "again.safetensors")(x), expected)


def test_where_an_input_is_nan_nothing_is_predicted_drawn_or_scored(here, caplog):
    for split, name in (("train", "a"), ("test", "b")):
        data = glacier(SHAPES[name], seed=ord(name))
        data.usurf[0, 9, 9] = np.nan
        put(data, here / "ice_100" / split / name / "ex.nc")
    argv = ["dle", "--dataset", "ice_100", *SMALL, "--epochs", "1", "--verbose", "1"]
    assert main(argv) == 0
    (folder,) = (here / "results").iterdir()
    with xr.open_dataset(folder / "b" / "predictions.nc") as made:
        # slopes beside the cell are NaN too, and two layers see two cells
        seen = np.isnan(made.ubar.values)
    assert seen[0, 6:13, 9].all()
    assert seen[0, 9, 6:13].all()
    assert (seen[0].sum(), seen[1].sum()) == (7 * 7 - 4, 0)
    assert "is not finite in" in caplog.text
    scores = read_scores(folder / "scores.nc").data
    assert np.isfinite(scores.rmse.sel({"method": "emulator"})).all()
    assert (scores.not_finite.sel({"method": "emulator"}).values[0] > 0).all()
    # a frame of which nothing is known costs its scores, nothing else
    data.usurf[1] = np.nan
    put(data, here / "ice_100" / "test" / "b" / "ex.nc")
    (folder / "b" / "predict-b_0001.png").unlink()
    (folder / "scores.nc").unlink()
    assert main([*argv, "--train", "False"]) == 0
    again = read_scores(folder / "scores.nc").data.rmse.sel({"method": "emulator"})
    assert np.isnan(again.values[1]).all()
    np.testing.assert_array_equal(
        again.values[0], scores.rmse.sel({"method": "emulator"}).values[0]
    )
    assert (folder / "b" / "predict-b_0001.png").is_file()
    # if there is none of which anything is known, there are fields and figures
    data.usurf[:] = np.nan
    put(data, here / "ice_100" / "test" / "b" / "ex.nc")
    (folder / "b" / "predict-b_0001.png").unlink()
    (folder / "scores.nc").unlink()
    assert main([*argv, "--train", "False"]) == 0
    assert "scores.nc is not written: no cell of" in caplog.text
    assert (folder / "b" / "predict-b_0001.png").is_file()
    assert not (folder / "scores.nc").exists()


def test_it_runs_as_documented_by_python_too(here):
    code = "from map2map.dialects.dle import dle; dle().run()"
    argv = ["--dataset", "ice_100", *SMALL, "--usegpu", "False", "--predict", "False"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", code, "--dataset", "none"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "dle: error: there is no folder none/test" in done.stderr


def test_blocks_are_means_and_splines_go_through_what_is_there(tmp_path):
    data = glacier((9, 8), frames=1)
    data.thk[0, 0, 0] = np.nan
    data.to_netcdf(tmp_path / "ex.nc")
    case = Case("c", {"": tmp_path / "ex.nc"})
    coarse = resample(case, ["thk", "slopsurfx"], 2, tmp_path / "coarse")
    with xr.open_dataset(coarse.path("thk")) as made:
        blocks = data.thk.values[0, :8].reshape(4, 2, 4, 2)
        np.testing.assert_allclose(made.thk[0], np.nanmean(blocks, axis=(1, 3)), rtol=1e-6)
        slope = np.gradient(data.usurf.values[0].astype(np.float64), 100.0, axis=1)
        expected = slope[:8].reshape(4, 2, 4, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(made.slopsurfx[0], expected, rtol=1e-4)
        np.testing.assert_array_equal(made.x, [50, 250, 450, 650])
    fine = resample(case, ["usurf"], 0.5, tmp_path / "fine")
    with xr.open_dataset(fine.path("usurf")) as made:
        assert made.usurf.shape == (1, 17, 15)
        np.testing.assert_allclose(made.usurf[0, ::2, ::2], data.usurf[0], rtol=1e-6)


def test_resampled_cases_are_trained_on(here):
    argv = ["--dataset", "ice_100", *SMALL, "--patch_size", "4", "--resample_data", "2"]
    assert main(["dle", *argv]) == 0
    (folder,) = (here / "results").iterdir()
    assert folder.name.startswith("ice_200+")
    with xr.open_dataset(folder / "b" / "predictions.nc") as made:
        assert made.ubar.shape == (2, 10, 8)


@pytest.fixture
def told(here, capsys):
    """What a command line is refused with, of which nothing is left; --print-recipe likewise."""

    def error(*argv):
        capsys.readouterr()
        assert main(["dle", "--dataset", "ice_100", *argv]) == 2
        assert not (here / "results").exists()
        told = capsys.readouterr().err
        assert main(["dle", "--dataset", "ice_100", *argv, "--print-recipe"]) == 2
        assert capsys.readouterr() == ("", told)
        return told

    return error


def test_what_a_user_can_mend_is_told(here, told):
    (here / "with_x").mkdir()
    (here / "with_x" / "fieldin.dat").write_text("thk 2000\nX 1000\n")
    (here / "with_x" / "fieldout.dat").write_text("ubar 500\n")
    assert "the unet does not take --dropout_rate" in told(
        "--network", "unet", "--dropout_rate", ".1"
    )
    assert "no multiple of 8" in told("--network", "unet", "--patch_size", "12")
    assert "(--patch_size -1) are no multiple of 32" in told(
        "--network", "unet", "--nb_blocks", "6", "--patch_size", "-1"
    )
    words = told("--patch_size", "8", "--thrice", "1e6")
    assert "no patch of (8, 8) cells" in words
    assert "lower --thrice" in words
    assert "crop" not in words
    words = told("--patch_size", "19")
    assert "the patch (--patch_size) is (19, 19)" in words
    assert "crop" not in words
    assert "there is no folder" in told("--data_dir", "nowhere")
    words = told("--resample_data", "19")
    assert "--resample_data 19 makes a cell of 19 x 19, but case 'a' has 18 x 21" in words
    assert "X cannot be resampled" in told("--maptype", "with_x", "--resample_data", "2")


def test_results_that_are_not_there_are_told(here, capsys):
    assert main(["dle", "--dataset", "ice_100", "--train", "False"]) == 2
    assert "takes results that are there" in capsys.readouterr().err


def test_fields_and_coordinates_that_are_missing_are_told(here, told):
    data = glacier(SHAPES["a"]).drop_vars("usurf")
    put(data, here / "ice_100" / "train" / "a" / "ex.nc")
    assert "no field 'usurf'" in told("--patch_size", "8")
    data = glacier(SHAPES["a"]).rename(ubar="u_bar")
    put(data, here / "ice_100" / "train" / "a" / "ex.nc")
    assert "no field 'ubar'" in told("--patch_size", "8")
    data = glacier(SHAPES["a"]).drop_vars(["x", "y"])
    put(data, here / "ice_100" / "train" / "a" / "ex.nc")
    words = told("--patch_size", "8")
    assert "case 'a' has no coordinates x and y, which slopsurf" in words
    assert "add them to ice_100/train/a/ex.nc" in words
    for path in (here / "ice_100" / "train").iterdir():
        for file in path.iterdir():
            file.unlink()
    assert "no case in" in told()
    with pytest.raises(FieldError, match=r"has no usurf.npy"):
        Case("c", {"thk": here / "thk.npy"}).path("usurf")


def test_axes_in_another_order_are_refused(here, told, capsys):
    data = glacier(SHAPES["a"]).transpose("time", "x", "y")
    put(data, here / "ice_100" / "train" / "a" / "ex.nc")
    words = told("--patch_size", "8")
    assert "field 'thk' of ice_100/train/a/ex.nc has the axes x, y" in words
    assert "to be y, x, rows first; transpose it" in words
    assert "has the axes x, y" in told("--patch_size", "4", "--resample_data", "2")
    put(glacier(SHAPES["a"]).rename(x="lon"), here / "ice_100" / "train" / "a" / "ex.nc")
    assert "has the axes y, lon" in told("--patch_size", "4", "--resample_data", "2")
    (here / "flat_100" / "train" / "a" / "x.npy").unlink()
    words = told("--patch_size", "8", "--dataset", "flat_100")
    assert "put x.npy and y.npy beside its fields" in words
    (here / "flat_100" / "train" / "a" / "ubar.npy").unlink()
    for factor in ("1", "2"):
        words = told("--patch_size=4", "--dataset=flat_100", f"--resample_data={factor}")
        assert "case 'a' has no ubar.npy" in words
    data = glacier(SHAPES["a"])
    data.thk[0, 3, 3] = np.nan
    put(data, here / "ice_100" / "train" / "a" / "ex.nc")
    assert main(["dle", "--dataset", "ice_100", "--resample_data", "0.5"]) == 2
    assert "field 'thk' is NaN or infinite in 1 cells" in capsys.readouterr().err
    assert not (here / "results").exists()


def test_cases_are_folders_with_one_netcdf_file_or_arrays(here):
    assert [case.name for case in cases_of(here / "ice_100" / "train")] == ["a", "b"]
    (here / "ice_100" / "test" / "b" / "ex.nc").rename(here / "ice_100" / "test" / "b" / "other.nc")
    (case,) = cases_of(here / "ice_100" / "test")
    assert case.path("thk").name == "other.nc"
    (here / "ice_100" / "test" / "b" / "more.nc").touch()
    with pytest.raises(RecipeError, match="has 2 NetCDF files"):
        cases_of(here / "ice_100" / "test")
    (case,) = cases_of(here / "flat_100" / "test")
    assert case.spacing() == [100.0, 100.0]
    # slopes of npy files are computed, unless they are there
    from map2map.dialects.dle.translation import computed

    assert isinstance(computed(mapping("f2"), [case])["slopsurfx"], Gradient)
    given = Case("c", {**case.files, "slopsurfx": case.files["thk"]})
    assert set(computed(mapping("f2"), [given])) == {"slopsurfy"}
