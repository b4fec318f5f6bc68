"""The AI4sim collection's YAML files: what they mean, on files of its layouts."""

import copy
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import yaml

from map2map.cli import main
from map2map.dialects.ai4sim import command_of, overridden, sections_of
from map2map.dialects.ai4sim.trainers import on_this_machine
from map2map.emulator import Emulator
from map2map.errors import RecipeError

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


def made(write, capsys, given, *more):
    assert main(["ai4sim", "-c", write(given), "--print-recipe", *more]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_crops_are_drawn_anew_without_the_copied_plane_and_targets_are_divided(write, capsys):
    make, given = CASES["unet3d"]
    make()
    recipe = made(write, capsys, given)
    data = recipe["data"]
    assert data["domain"]["skip"] == 1
    assert data["crops"] == {"size": [4, 4, 4], "halo": 0}
    assert data["augment"]["shift"] == [4, 4, 4]
    assert recipe["model"]["norms"]["sigma"]["init_args"] == {"scale": 342.553}
    assert recipe["model"]["model"]["init_args"]["head"] is False
    # in the order of names, not of the folder
    assert data["train"]["c"]["pattern"] == [f"data/raw/{name}" for name in sorted(FLAMES)]


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
    assert recipe["data"]["test"]["y"]["pattern"] == ["data/raw/d.h5"]
    arguments = recipe["model"]["model"]["init_args"]
    assert (arguments["width"], arguments["kernel_size"], arguments["pool"]) == (2, 1, 2)


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
    assert recipe["data"]["train"]["x"]["pattern"][0] == "elsewhere/raw/a.h5"
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
    with pytest.raises(RecipeError, match=r"--trainer\.accelerator cpu"):
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
