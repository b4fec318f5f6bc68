"""The AI4sim collection's YAML files: what they mean, on files of its layouts."""

import copy
import inspect
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from lightning.pytorch import Trainer

from map2map.cli import main
from map2map.commands.train import make
from map2map.dialects.ai4sim import command_of, overridden, sections_of
from map2map.dialects.ai4sim.cases import recipe
from map2map.dialects.ai4sim.trainers import on_this_machine
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.imports.ai4sim import read

RNG = np.random.default_rng(0)
TRAINER = {"max_epochs": 1, "accelerator": "cpu"}


def config(model, data, of_model=None, of_data=None, **more):
    return {
        "seed_everything": 3,
        "trainer": dict(TRAINER),
        "model": {"class_path": f"models.{model}", "init_args": {"lr": 1e-3, **(of_model or {})}},
        "data": {
            "class_path": f"data.{data}",
            "init_args": {"data_path": "data", **(of_data or {})},
        },
        **more,
    }


def flames(names, sets, shape):
    for k, name in enumerate(names):
        path = Path("data/raw") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for scale, key in zip((1, 300), sets, strict=True):
                file[key] = scale * RNG.random(shape) + k


def columns():
    sides = {"train": ["a.h5", "b.h5"], "val": ["c.h5"], "test": ["d.h5"]}
    Path("data/raw").mkdir(parents=True)
    for name in (name for names in sides.values() for name in names):
        with h5py.File(f"data/raw/{name}", "w") as file:
            file["x"] = RNG.normal(size=(191, 20)).astype("f4")
            file["y"] = RNG.normal(size=(126, 20)).astype("f4")
    Path("data/filenames-split.yaml").write_text(yaml.safe_dump(sides))


def stack():
    for name, features in (("x", 47), ("y", 6)):
        folder = Path("data/processed") / name
        folder.mkdir(parents=True)
        for shard in range(10):
            np.save(folder / f"{shard}.npy", RNG.normal(size=(4, 138, features)).astype("f4"))


FLAMES = ["flame_b.h5", "flame_a.h5", "flame_c.h5"]
SMALL = {"splitting_ratios": [0.4, 0.4, 0.2]}
CASES = {
    "unet3d": (
        lambda: flames(FLAMES, ("filt_8", "filt_grad_8"), (9, 9, 9)),
        config("LitUnet3D", "CnfCombustionDataModule", {"n_levels": 2, "n_features_root": 2},
               SMALL | {"subblock_shape": [4, 4, 4]}),
    ),
    "gin": (
        lambda: (flames(FLAMES, ("c_filt", "c_grad_filt"), (5, 4, 3)),
                 Path("data/filenames.yaml").write_text(yaml.safe_dump(FLAMES))),
        config("LitGIN", "R2DataModule", {"hidden_channels": 4, "num_layers": 2}, SMALL),
    ),
    "cnn": (
        columns,
        config("LitCNN", "NOGWDDataModule", {"init_feat": 2},
               {"batch_size": 7, "shard_len": 2355840}),
    ),
    "mlp": (columns, config("LitMLP", "NOGWDDataModule", {"hidden_channels": 4})),
    "unet1d": (
        stack,
        config("LitUnet1D", "LitThreeDCorrectionDataModule",
               {"n_levels": 2, "n_features_root": 2},
               {"data_path": "data/processed", "batch_size": 3}),
    ),
}  # fmt: skip


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(given, name="c.yaml"):
        Path(name).write_text(yaml.safe_dump(given))
        return name

    return write


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_trained_and_tested(write, case):
    if case == "gin":
        pytest.importorskip("torch_geometric")
    make, given = CASES[case]
    make()
    assert main(["ai4sim", "--config", write(given)]) == 0
    emulator = Emulator.load("logs/emulator.safetensors")
    scores = xr.load_dataset("logs/test_scores.nc")
    assert np.isfinite(scores.rmse.sel({"method": "emulator"})).all()
    assert scores.sizes["run"] == 1
    recipe = emulator.training_record["recipe"]
    assert recipe["seed_everything"] == 3
    assert recipe["model"]["optimizer"]["class_path"].endswith("AdamP")


def predicted(case, emulator, run):
    """Truth and prediction by field, with statistics of our own."""

    def net(x):
        with torch.no_grad():
            return emulator.model(torch.as_tensor(x, dtype=torch.float32)[None])[0].double().numpy()

    if case in ("unet3d", "gin"):
        keys = ("filt_8", "filt_grad_8") if case == "unet3d" else ("c_filt", "c_grad_filt")
        with h5py.File(f"data/raw/{run}.h5", locking=False) as file:
            c, truth = (file[key][:] for key in keys)
        if case == "unet3d":
            c, truth = c[1:, 1:, 1:], truth[1:, 1:, 1:]
        return {"sigma": (truth[None], net(c[None]) * (342.553 if case == "unet3d" else 3295.4))}
    if case == "unet1d":
        x, y = (
            np.concatenate([np.load(f"data/processed/{a}/{k}.npy") for k in range(8)]) for a in "xy"
        )
        mean, std = x.mean(0, "f8"), x.std(0, dtype="f8")
        x, y = (np.load(f"data/processed/{array}/9.npy").astype("f8") for array in "xy")
        normal = (x - mean) / std
        parts = (normal[:, :, :2], normal[:, 1:-1, 2], normal[:, 1:, 3:30], normal[:, 0, 30:])
        z = net(np.concatenate([part.reshape(len(x), -1) for part in parts], axis=1).T)
        names = ("flux_dn_sw", "flux_up_sw", "flux_dn_lw", "flux_up_lw", "hr_sw", "hr_lw")
        truths = [y[:, 1 if k > 3 else 0 :, k].T for k in range(6)]
        ends = np.cumsum([len(one) for one in truths])[:-1]
        return dict(zip(names, zip(truths, np.split(z, ends), strict=True), strict=True))
    of = []
    for name in "abd":
        with h5py.File(f"data/raw/{name}.h5", locking=False) as file:
            of.append([file[key][:].astype("f8") for key in "xy"])
    x, y = (np.concatenate([rows[k] for rows in of[:2]], axis=1) for k in range(2))
    z = net((of[2][0] - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))
    parts = {"du": slice(63), "dv": slice(63, 126)}
    return {name: (of[2][1][part], z[part] * y.std(1).max()) for name, part in parts.items()}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_each_output_in_physical_units(write, case):
    if case == "gin":
        pytest.importorskip("torch_geometric")
    make, given = CASES[case]
    make()
    assert main(["ai4sim", "--config", write(given)]) == 0
    scores = xr.load_dataset("logs/test_scores.nc").sel({"method": "emulator"})
    expected = predicted(case, Emulator.load("logs/emulator.safetensors"), scores.run.item())
    assert list(scores.field.values) == list(expected)
    units = {"sigma": "1/m", "hr_sw": "K d-1", "hr_lw": "K d-1", "du": "m s-1", "dv": "m s-1"}
    for name, (truth, found) in expected.items():
        score = scores.sel(field=name)
        assert score.units.item() == units.get(name, "W m-2")
        error, spread = (
            found - truth,
            truth - truth.mean(axis=tuple(range(1, truth.ndim)), keepdims=True),
        )
        rmse = np.sqrt(np.square(error).mean())
        r2 = 1 - np.square(error).sum() / np.square(spread).sum()
        np.testing.assert_allclose(score.rmse.item(), rmse, rtol=1e-4)
        np.testing.assert_allclose(score.r2.item(), r2, rtol=1e-4)
        np.testing.assert_allclose(score.bias.item(), error.mean(), atol=1e-4 * rmse)


THEIRS = runpy.run_path(str(Path(__file__).with_name("ai4sim_networks.py")))
NETWORKS = {
    "cnn": (lambda: THEIRS["CNN"](), 77_248),
    "mlp": (lambda: THEIRS["MLP"](), 213_118),
    "unet1d": (lambda: THEIRS["Radiation"](torch.zeros(138, 47), torch.ones(138, 47)), 169_040),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_weights_of_the_collection_fit_the_networks_of_named_fields(write, case, tmp_path):
    files, given = CASES[case]
    files()
    given = copy.deepcopy(given)
    given["model"]["init_args"] = {"lr": 1e-3}
    told = recipe(given)
    if case == "unet1d":  # ours has a linear head, which the collection's has not
        told["model"]["model"]["init_args"]["head"] = False
    cli = make(told, "m2m ai4sim")
    runs = cli.datamodule.open(cli.model.inputs, cli.model.targets)
    ours = cli.model.build(runs, cli.datamodule.domain)
    theirs, count = NETWORKS[case]
    torch.save(theirs().state_dict(), tmp_path / "model.pth")
    imported = read(tmp_path / "model.pth").model
    assert sum(p.numel() for p in imported.parameters()) == count
    ours.model.load_state_dict(imported.state_dict())
    x = torch.randn(1, ours.inputs.channels, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.model.eval()(x), imported(x))


def test_an_imported_emulator_is_scored_on_files_that_are_listed(write, capsys, tmp_path):
    columns()
    torch.save(THEIRS["MLP"]().state_dict(), tmp_path / "model.pth")
    read(tmp_path / "model.pth").save(Path("e.safetensors"))
    words = ["test", "--ckpt_path", "e.safetensors"]
    assert main(["ai4sim", "-c", write(CASES["mlp"][1]), *words]) == 2
    assert "m2m evaluate e.safetensors x=FILES y=FILES" in capsys.readouterr().err
    assert main(["evaluate", "e.safetensors", "x=data/raw/d.h5", "y=data/raw/d.h5"]) == 0


def made(write, capsys, given, *more):
    assert main(["ai4sim", "-c", write(given), "--print-recipe", *more]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_crops_are_drawn_anew_without_the_copied_plane_and_targets_are_divided(write, capsys):
    make, given = CASES["unet3d"]
    make()
    recipe = made(write, capsys, given)
    data = recipe["data"]
    assert data["domain"]["skip"] == 1
    assert data["crops"] == {"size": [4, 4, 4], "halo": 0, "step": [2, 2, 2], "stop": [3, 3, 3]}
    assert data["augment"]["shift"] == [3, 3, 3]
    assert recipe["model"]["norms"]["sigma"]["init_args"] == {"scale": 342.553}
    assert recipe["model"]["model"]["init_args"]["head"] is False
    # in the order of names, not of the folder
    assert data["train"]["c"]["pattern"] == [f"data/raw/{name}" for name in sorted(FLAMES)]


def test_crops_of_a_flame_are_anywhere_in_the_box_and_never_wrap(write):
    make_files, given = CASES["unet3d"]
    make_files()
    cli = make(recipe(given), "m2m ai4sim")
    data = cli.datamodule
    data.open(cli.model.inputs, cli.model.targets)
    data.resolve(Footprint(0))
    dataset, drawn = data.dataset("train"), []
    for epoch in range(100):
        for index in range(len(dataset)):
            sample = dataset.read(index, epoch)
            drawn.append(sample.crop.start)
            with h5py.File(dataset.runs.groups[sample.run].paths["c"], locking=False) as file:
                box = file["filt_8"][1:, 1:, 1:].astype("f4")
            assert max(sample.crop.stop) <= 8
            np.testing.assert_array_equal(sample.input[0], box[sample.crop.slices])
    for axis in np.transpose(drawn):
        # five places; the two parts have the middle one in common
        share = np.bincount(axis, minlength=5) / len(axis)
        np.testing.assert_allclose(share, [1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6], atol=0.06)


@pytest.mark.parametrize(
    ("block", "said"), [([4, 9, 4], "null for whole fields"), ([4, 4], "3 whole numbers"),
                        (4, "3 whole numbers"), ([4, 4, 0.5], "3 whole numbers")],
)  # fmt: skip
def test_blocks_that_do_not_fit_are_refused(write, capsys, block, said):
    make_files, given = CASES["unet3d"]
    make_files()
    given = copy.deepcopy(given)
    given["data"]["init_args"]["subblock_shape"] = block
    assert main(["ai4sim", "-c", write(given)]) == 2
    assert said in capsys.readouterr().err


def test_listed_files_are_those_that_are_read(write, capsys):
    make, given = CASES["gin"]
    make()
    Path("data/filenames.yaml").write_text(yaml.safe_dump(FLAMES[:2]))
    recipe = made(write, capsys, given)
    assert recipe["data"]["train"]["c"]["pattern"] == [f"data/raw/{n}" for n in FLAMES[:2]]
    assert recipe["model"]["norms"]["sigma"]["init_args"] == {"scale": 3295.4}


def test_rows_are_batched_as_asked_for_and_split_as_listed(write, capsys):
    make, given = CASES["cnn"]
    make()
    recipe = made(write, capsys, given)
    assert recipe["data"]["reading"]["cells"] == 7
    assert recipe["data"]["crops"]["size"] == 20
    assert recipe["data"]["test"]["dv"] == {"pattern": ["data/raw/d.h5"], "variable": "y[63:126]"}
    arguments = recipe["model"]["model"]["init_args"]
    assert (arguments["width"], arguments["kernel_size"], arguments["pool"]) == (2, 1, 2)


def test_shards_and_files_of_other_numbers_of_columns_are_read(write, capsys):
    stack()
    for name, features in (("x", 47), ("y", 6)):
        # between 1 and 2 as a text, and in training
        values = RNG.normal(size=(3, 138, features)).astype("f4")
        np.save(f"data/processed/{name}/10.npy", values)
    told = made(write, capsys, CASES["unet1d"][1])
    assert told["data"]["crops"]["size"] == 2
    assert told["data"]["reading"] == {"batch_size": 96, "cells": 3}
    assert main(["ai4sim", "-c", "c.yaml", "fit"]) == 0


def test_rows_of_files_may_differ(write, capsys):
    columns()
    with h5py.File("data/raw/b.h5", "w") as file:
        file["x"] = RNG.normal(size=(191, 10)).astype("f4")
        file["y"] = RNG.normal(size=(126, 10)).astype("f4")
    assert made(write, capsys, CASES["mlp"][1])["data"]["crops"]["size"] == 10
    assert main(["ai4sim", "-c", "c.yaml", "fit"]) == 0


def test_keys_are_overridden_and_variables_filled_in(write, capsys, monkeypatch):
    make, given = CASES["mlp"]
    make()
    Path("data").rename("elsewhere")
    given = copy.deepcopy(given)
    given["data"]["init_args"]["data_path"] = "${oc.env:DATADIR,./data}"
    given["trainer"]["logger"] = {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "${oc.env:LOGDIR,./logs}"},
    }
    given["trainer"]["callbacks"] = [
        {"class_path": "lightning.pytorch.callbacks.EarlyStopping",
         "init_args": {"monitor": "val_loss"}}
    ]  # fmt: skip
    monkeypatch.setenv("DATADIR", "elsewhere")
    monkeypatch.setenv("LOGDIR", "my_logs")
    words = ["--trainer.max_epochs=7", "--model.init_args.hidden_channels", "5"]
    recipe = made(write, capsys, given, *words)
    assert recipe["output"]["folder"] == "my_logs"
    # it logs where the collection would
    assert recipe["trainer"]["logger"]["init_args"]["save_dir"] == "my_logs"
    assert recipe["data"]["train"]["u"]["pattern"][0] == "elsewhere/raw/a.h5"
    assert recipe["trainer"]["max_epochs"] == 7
    assert recipe["trainer"]["callbacks"][0]["init_args"]["monitor"] == "loss/val"
    assert recipe["model"]["model"]["init_args"]["width"] == 5


def test_new_keys_can_be_given_behind_the_file():
    assert overridden({}, ["--trainer.max_epochs", "2"]) == {"trainer": {"max_epochs": 2}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"class_path": "data.R2DataModule", "init_args": {}}}, "does not go with"),
        ({"model": {"class_path": "models.LitMPL"}}, "did you mean 'LitMLP'"),
        ({"model": {"class_path": "transformer_module.PanguModel"}},
         "transformer_module.PanguModule"),
        ({"model": {"class_path": "models.LitMLP", "init_args": {"hiden_channels": 3}}},
         "did you mean 'hidden_channels'"),
        ({"model": {}}, "model.class_path is missing"),
        ({"data": {"class_path": "data.LitCombustionDataModule"}}, "data.R2DataModule or"),
        ({"optimizer": {}}, "model.optimizer"),
        ({"lr_scheduler": {"class_path": "x"}}, "model.schedule"),
        ({"model": {"class_path": "models.LitMLP", "init_args": {"graph_topology": None}}},
         "no argument graph_topology"),
        ({"modle": {}}, "did you mean 'model'"),
        ({"model": {"class_path": "models.LitMLP", "init_args": {"in_channels": 5}}},
         "model.init_args.in_channels is 5"),
        ({"model": {"class_path": "models.LitCNN", "init_args": {"out_channels": 63}}}, "have 126"),
        ({"model": {"class_path": "models.LitMLP", "init_args": {"data_path": "other"}}},
         "model.init_args.data_path is other"),
        ({"model": {"class_path": "models.LitMLP", "init_args": {"hidden_channels": 2.5}}},
         "must be a whole number"),
        ({"model": {"class_path": "models.LitMLP", "args": {}}}, "model.init_args"),
        ({"trainer": {"enable_checkpointing": False}}, "trainer.enable_checkpointing"),
        ({"trainer": {"fast_dev_run": True}}, "--trainer.limit_train_batches 1"),
        ({"trainer": {"limit_test_batches": 2}}, "trainer.limit_test_batches"),
        ({"trainer": {"barebones": True}}, "trainer.barebones"),
        ({"trainer": {"max_epoch": 1}}, "trainer.max_epoch"),
        ({"trainer": 3}, "`trainer` is 3"),
        ({"seed_everything": "no"}, "`seed_everything` is 'no'"),
        ({"data": {"class_path": "data.NOGWDDataModule", "init_args": {"data_path": "nowhere"}}},
         "m2m simulate gravity_waves"),
        ({"data": {"class_path": "data.NOGWDDataModule",
                   "init_args": {"data_path": "data", "splitting_file": "no.yaml"}}},
         "splitting_file"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_in_one_message(write, capsys, change, said):
    columns()
    assert main(["ai4sim", "-c", write(CASES["mlp"][1] | change)]) == 2
    assert said in capsys.readouterr().err
    assert not Path("logs").exists()


def test_missing_files_and_data_sets_are_refused(write, capsys):
    columns()
    given = CASES["mlp"][1]
    Path("data/raw/b.h5").unlink()
    assert main(["ai4sim", "-c", write(given)]) == 2
    assert "b.h5" in capsys.readouterr().err
    with h5py.File("data/raw/b.h5", "w") as file:
        file["z"] = np.zeros((191, 20))
    assert main(["ai4sim", "-c", write(given)]) == 2
    assert "'x'" in capsys.readouterr().err
    for words in (["stray"], ["--trainer.max_epochs"]):
        assert main(["ai4sim", "-c", "c.yaml", *words]) == 2
        assert "--KEY VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": []}, "`test` in data/filenames-split.yaml is empty"),
        ({"val": None}, "`val` in data/filenames-split.yaml is empty"),
        ({"val": "c.h5"}, "`val` in data/filenames-split.yaml is 'c.h5'"),
        ({"train": ["a.h5", "e.h5"]}, "`train` in data/filenames-split.yaml names files"),
        ({"test": ["d.h5", "b.h5"]}, "names b.h5 both in `train` and in `test`"),
        ({"test": ...}, "has no `test`, but train, val; it must have"),
        ({"test": ..., "val": ...}, "has no `val` and no `test`, but train; it must have"),
    ],
)
def test_a_split_that_does_not_tell_all_sides_is_refused_by_its_key(write, capsys, change, said):
    columns()
    listed = Path("data/filenames-split.yaml")
    sides = yaml.safe_load(listed.read_text()) | change
    sides = {side: names for side, names in sides.items() if names is not ...}
    listed.write_text(yaml.safe_dump(sides))
    assert main(["ai4sim", "-c", write(CASES["mlp"][1])]) == 2
    err = capsys.readouterr().err
    assert said in err
    # what this file has no place for
    assert "overlap" not in err


def test_a_split_that_is_no_mapping_is_refused(write, capsys):
    columns()
    Path("data/filenames-split.yaml").write_text("[a.h5, b.h5]")
    assert main(["ai4sim", "-c", write(CASES["mlp"][1])]) == 2
    assert "must have the keys train, val and test" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["gin", "mlp"])
def test_a_file_as_lightning_saves_it_means_the_same(write, capsys, case, caplog):
    if case == "gin":
        pytest.importorskip("torch_geometric")
    make_files, given = CASES[case]
    make_files()
    plain = made(write, capsys, given)
    saved = copy.deepcopy(given)
    defaults = inspect.signature(Trainer).parameters
    saved["trainer"] = {key: entry.default for key, entry in defaults.items()} | saved["trainer"]
    saved |= {"optimizer": None, "lr_scheduler": None, "ckpt_path": None, "weights_only": None}
    linked = {"gin": "graph_topology", "mlp": "data_path"}[case]
    saved["model"]["init_args"][linked] = None
    with caplog.at_level("INFO"):
        found = made(write, capsys, saved)
    assert (found["model"], found["data"]) == (plain["model"], plain["data"])
    assert "optimizer is not needed" in caplog.text
    assert ("graph_topology is not needed: edges are made" in caplog.text) == (case == "gin")
    # fit, too, takes what is not given as null
    assert main(["ai4sim", "-c", "c.yaml", "fit", "--verbose", "true"]) == 0


def test_commands_train_and_score_by_themselves(write, capsys):
    columns()
    start = ["ai4sim", "-c", write(CASES["mlp"][1])]
    assert main([*start, "test"]) == 2
    assert "nothing to test: no logs/emulator.safetensors" in capsys.readouterr().err
    assert main([*start, "fit"]) == 0
    assert not list(Path("logs").glob("*scores*"))
    assert main([*start, "validate"]) == 0
    assert main([*start, "test"]) == 0
    validated, tested = (xr.load_dataset(f"logs/{s}_scores.nc") for s in ("validate", "test"))
    assert "c.h5" in str(validated.attrs["data"])
    assert "d.h5" in str(tested.attrs["data"])
    assert main([*start, "test", "--ckpt_path", "data/filenames-split.yaml"]) == 2
    assert "m2m import --from ai4sim" in capsys.readouterr().err
    assert main([*start, "predict"]) == 2
    assert "m2m apply" in capsys.readouterr().err
    assert main([*start, "-c", "c.yaml"]) == 2
    assert "twice" in capsys.readouterr().err


def test_a_command_is_told_from_the_value_of_a_key():
    assert command_of(["--trainer.logger", "fit", "test"]) == ("test", ["--trainer.logger", "fit"])
    assert command_of(["--trainer.max_epochs=5", "fit"]) == ("fit", ["--trainer.max_epochs=5"])
    with pytest.raises(RecipeError, match="two commands"):
        command_of(["fit", "test"])


def test_sections_of_a_file_are_for_their_commands():
    both = {"fit": {"a": 1}, "test": {"a": 2}}
    assert sections_of(both, None) == both
    assert sections_of(both, "test") == {"test": {"a": 2}}
    # that of another command is not written to, nor is the file
    assert sections_of(both, "fit", ["--test.a=3", "--fit.a=4"]) == {"fit": {"a": 4}}
    assert both == {"fit": {"a": 1}, "test": {"a": 2}}
    assert sections_of({"fit": {"a": 1}}, None) == {"fit": {"a": 1}, "test": {"a": 1}}
    assert sections_of({"test": {"a": 1}}, None) == {"test": {"a": 1}}
    assert sections_of({"a": 1}, None) == {"fit": {"a": 1}, "test": {"a": 1}}
    assert sections_of(both, "validate") == {"validate": {"a": 1}}
    with pytest.raises(RecipeError, match="no section `fit`, but test"):
        sections_of({"test": {"a": 1}}, "fit")
    with pytest.raises(RecipeError, match="model beside them"):
        sections_of({"test": {"a": 1}, "model": {}}, "test")


def test_arguments_of_classes_can_be_given_shortly():
    given = {"model": {"class_path": "models.LitMLP", "init_args": None}}
    words = ["--model.lr", "0.1", "--data", "data.R2DataModule", "--model.init_args.depth=2"]
    assert overridden(given, words) == {
        "model": {"class_path": "models.LitMLP", "init_args": {"lr": 0.1, "depth": 2}},
        "data": {"class_path": "data.R2DataModule"},
    }
    with pytest.raises(RecipeError, match="`callbacks` has no keys"):
        overridden({"trainer": {"callbacks": [{}]}}, ["--trainer.callbacks.patience=3"])


def test_devices_that_a_machine_lacks_are_refused_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(RecipeError, match=r"is 'gpu', .* but cpu; say --trainer\.accelerator cpu"):
        on_this_machine({"accelerator": "gpu"})
    # a CPU has no numbers
    for accelerator in ("cpu", "auto", None):
        assert on_this_machine({"accelerator": accelerator, "devices": [0, 1]})["devices"] == 1
    assert on_this_machine({"accelerator": "cpu", "devices": 3})["devices"] == 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for devices in ([2], [0, 1], 4):
        with pytest.raises(RecipeError, match="SLURM_GPUS_ON_NODE"):
            on_this_machine({"accelerator": "gpu", "devices": devices})
    for devices in ([0], 1, -1, "auto"):
        given = {"accelerator": "gpu", "devices": devices}
        assert on_this_machine(given) == given


def test_other_loggers_one_callback_and_steps_between_scalars_are_kept(write, capsys):
    columns()
    given = copy.deepcopy(CASES["mlp"][1])
    given["trainer"] |= {
        "logger": [{"class_path": "lightning.pytorch.loggers.CSVLogger",
                    "init_args": {"save_dir": "csv"}}],
        "callbacks": {"class_path": "lightning.pytorch.callbacks.EarlyStopping",
                      "init_args": {"monitor": "val_loss_epoch", "patience": 31}},
        "log_every_n_steps": 2,
    }  # fmt: skip
    recipe = made(write, capsys, given)
    assert recipe["output"] == {"folder": "csv", "keep": 2, "log_interval": 2}
    assert recipe["trainer"]["callbacks"][0]["init_args"]["monitor"] == "loss/val"
    assert main(["ai4sim", "-c", "c.yaml", "fit"]) == 0
    assert list(Path("csv/lightning_logs").rglob("metrics.csv"))


def test_only_the_first_of_several_processes_goes_on_to_the_test(write, monkeypatch):
    columns()
    monkeypatch.setattr("map2map.dialects.ai4sim.first_process", lambda: False)
    assert main(["ai4sim", "-c", write(CASES["mlp"][1])]) == 0
    assert not list(Path("logs").glob("*scores*"))


def test_what_was_trained_is_scored_on_its_own_splits_and_settings_of_others_are_refused(
    write, capsys
):
    make, given = CASES["unet3d"]
    make()
    file = write(given)
    assert main(["ai4sim", "-c", file, "fit"]) == 0
    assert main(["ai4sim", "-c", file, "test"]) == 0
    for more in (["--data.splitting_ratios", "[0.34, 0.33, 0.33]"],
                 ["--trainer.limit_test_batches", "1"]):  # fmt: skip
        capsys.readouterr()
        assert main(["ai4sim", "-c", file, "test", *more]) == 2
        said = capsys.readouterr().err
        assert more[0].rpartition(".")[2] in said or "other files or splits" in said


@pytest.mark.parametrize(
    ("case", "side", "change", "said"),
    [
        ("unet3d", "data", {"splitting_ratios": 0.8}, "must be three numbers"),
        ("mlp", "data", {"splitting_file": None}, "must be a file's name"),
        ("unet3d", "model", [1, 2], "keys with values"),
    ],
)
def test_values_of_other_kinds_are_refused(write, capsys, case, side, change, said):
    make, given = CASES[case]
    make()
    given = copy.deepcopy(given)
    if isinstance(change, list):
        given[side]["init_args"] = change
    else:
        given[side].setdefault("init_args", {}).update(change)
    assert main(["ai4sim", "-c", write(given)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
