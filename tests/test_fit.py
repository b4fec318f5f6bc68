"""Lightning's command line: any module by its import path, recipes, resolved configurations."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

from map2map.cli import main

CODE = """
    import lightning.pytorch as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset


    class Line(pl.LightningModule):
        def __init__(self, start: float = 0.0):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(start))

        def _loss(self, batch, name):
            x, y = batch
            loss = (self.slope * x - y).square().mean()
            self.log(name, loss)
            return loss

        def training_step(self, batch, index):
            return self._loss(batch, "train_loss")

        def validation_step(self, batch, index):
            self._loss(batch, "val_loss")

        def test_step(self, batch, index):
            print(f"slope {float(self.slope):.3f}")
            self._loss(batch, "test_loss")

        def predict_step(self, batch, index):
            print("predicted", float(self.slope * batch[0][0]))


    class Points(pl.LightningDataModule):
        def __init__(self, slope: float, batch_size: int = 4):
            super().__init__()
            x = torch.linspace(1, 2, 16)
            self.data, self.size = TensorDataset(x, slope * x), batch_size

        def train_dataloader(self):
            return DataLoader(self.data, batch_size=self.size)

        val_dataloader = test_dataloader = predict_dataloader = train_dataloader
"""

CONFIG = {
    "seed_everything": 1,
    "trainer": {"max_epochs": 30, "accelerator": "cpu", "enable_progress_bar": False,
                "log_every_n_steps": 1},
    "model": {"class_path": "map2map_callback.line.Line", "init_args": {"start": 0.5}},
    "data": {"class_path": "map2map_callback.line.Points", "init_args": {"slope": 3.0}},
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.2}},
    "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR",
                     "init_args": {"gamma": 0.98}},
    "callback_at": "code",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module of somebody's and its configuration."""
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    Path("code/line.py").write_text(textwrap.dedent(CODE))
    write(CONFIG)
    return tmp_path


def write(config, name="line.yaml"):
    Path(name).write_text(yaml.safe_dump(config))


def run(*arguments):
    """In a process of its own: Lightning's command line leaves much behind in one."""
    return subprocess.run(
        [sys.executable, "-m", "map2map.cli", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_any_module_is_trained_tested_and_lets_predict(folder):
    done = run("fit", "--config", "line.yaml", "--trainer.max_epochs", "40")
    assert done.returncode == 0, done.stderr
    (log,) = Path("lightning_logs").iterdir()
    resolved = yaml.safe_load((log / "config.yaml").read_text())
    assert resolved["trainer"]["max_epochs"] == 40
    assert resolved["model"]["init_args"] == {"start": 0.5}
    assert resolved["optimizer"]["init_args"]["lr"] == 0.2
    (state,) = (log / "checkpoints").iterdir()
    for command, said in (("test", "slope 3.0"), ("predict", "predicted 3."), ("validate", "")):
        done = run(command, "-c", "line.yaml", "--ckpt_path", str(state))
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"class_path": "map2map_callback.line.Lime"}}, "Lime"),
        ({"model": {"class_path": "nowhere.Line"}}, "PYTHONPATH"),
        ({"trainer": {"max_epoch": 3}}, "max_epoch"),
        ({"data": {"class_path": "map2map_callback.line.Points"}}, "slope"),
        ({"callback_at": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_message(folder, change, said):
    write(CONFIG | change)
    done = run("fit", "--config", "line.yaml")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("lightning_logs").exists()


def test_a_recipe_is_trained_and_scored_on_its_splits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k in range(10):
        x = rng.normal(size=(1, 8)).astype("f4")
        np.save(f"x_{k}.npy", x)
        np.save(f"y_{k}.npy", 2 * x)
    recipe = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "model": {
            "inputs": [{"name": "x"}], "targets": [{"name": "y"}],
            "model": {"class_path": "map2map.models.ConvNet", "init_args": {"kernel_size": 1}},
        },
        "data": {"train": {"x": "x_*.npy", "y": "y_*.npy"}, "domain": {"ndim": 1},
                 "split": {"ratios": [0.7, 0.2, 0.1]}},
        "output": {"folder": "out"},
    }  # fmt: skip
    write(recipe, "recipe.yaml")
    assert main(["fit", "--config", "recipe.yaml", "--trainer.logger", "false"]) == 0
    for command, runs in (("validate", 2), ("test", 1)):
        capsys.readouterr()
        assert main([command, "--config", "recipe.yaml"]) == 0
        assert (tmp_path / "out" / f"{command}_scores.nc").exists()
        assert f"over {runs} run" in capsys.readouterr().out or runs == 1
    assert main(["predict", "--config", "recipe.yaml"]) == 2
    assert "m2m apply" in capsys.readouterr().err
    assert main(["evaluate", "out/emulator.safetensors"]) == 2
    assert "--split test" in capsys.readouterr().err
    assert main(["evaluate", "out/emulator.safetensors", "x=x_0.npy", "--split", "val"]) == 2
    # what the training was told, the test is told
    assert main(["fit", "--config", "recipe.yaml", "--output.folder", "other"]) == 0
    assert (
        main(["test", "-c", "recipe.yaml", "--output.folder", "other", "--metrics", "pointwise"])
        == 0
    )
    assert (tmp_path / "other" / "test_scores.nc").exists()
    capsys.readouterr()
    assert main(["test", "-c", "recipe.yaml", "--trainer.max_epochs=3"]) == 2
    assert "not --trainer.max_epochs" in capsys.readouterr().err


def test_lightnings_form_of_a_recipe_trains_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.arange(8.0, dtype="f4")[None]
    np.save("x.npy", x)
    np.save("y.npy", 2 * x)
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.125}}
    step = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    recipe = {
        "format": 1,
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "model": {
            "inputs": [{"name": "x"}], "targets": [{"name": "y"}],
            "model": {"class_path": "map2map.models.ConvNet", "init_args": {"kernel_size": 1}},
        },
        "data": {"train": {"x": "x.npy", "y": "y.npy"}, "domain": {"ndim": 1}},
        "optimizer": adam, "lr_scheduler": step, "logger": False,
    }  # fmt: skip
    write(recipe, "recipe.yaml")
    assert main(["train", "recipe.yaml", "--output.folder", "a"]) == 0
    left = yaml.safe_load(Path("a/recipe.yaml").read_text())
    assert left["format"] == 1
    assert left["model"]["optimizer"]["class_path"] == adam["class_path"]
    assert left["model"]["optimizer"]["init_args"]["lr"] == 0.125
    assert left["model"]["schedule"]["scheduler"]["class_path"] == step["class_path"]
    assert left["trainer"]["logger"] is False
    changed = ["--optimizer.init_args.lr", "0.25", "--output.folder", "b"]
    assert main(["train", "recipe.yaml", *changed]) == 0
    left = yaml.safe_load(Path("b/recipe.yaml").read_text())
    assert left["model"]["optimizer"]["init_args"]["lr"] == 0.25


def test_variables_of_the_environment_are_filled_in(folder, monkeypatch):
    trainer = CONFIG["trainer"] | {"max_epochs": 1, "default_root_dir": "${LOGS_OF_TEST:-here}"}
    slope = {"slope": "${oc.decode:${SLOPE_OF_TEST}}"}
    write(CONFIG | {"trainer": trainer, "data": CONFIG["data"] | {"init_args": slope}})
    done = run("fit", "--config", "line.yaml")
    assert done.returncode == 2
    assert "SLOPE_OF_TEST" in done.stderr
    monkeypatch.setenv("SLOPE_OF_TEST", "2.5")
    done = run("fit", "--config", "line.yaml")
    assert done.returncode == 0, done.stderr
    (config,) = Path("here").rglob("config.yaml")
    assert yaml.safe_load(config.read_text())["data"]["init_args"]["slope"] == 2.5


def test_weights_that_are_not_there_are_told(folder):
    done = run("validate", "-c", "line.yaml", "--ckpt_path", "nosuch.ckpt")
    assert done.returncode == 2
    assert "there is no checkpoint nosuch.ckpt" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("test", "-c", "line.yaml")
    assert done.returncode == 0
    assert "no --ckpt_path is given" in done.stderr
