"""What a training was stands beside what it leaves behind, and is never replaced by another."""

import json
import os
import platform
import subprocess
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from map2map.emulator import Card
from map2map.provenance import Provenance

RECIPE = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "model": {
        "inputs": [{"name": "a", "units": "m"}],
        "targets": [{"name": "b", "units": "m/s"}],
        "norms": {"a": "Standardize"},
        "model": {"class_path": "ConvNet", "init_args": {"width": 2, "depth": 1}},
    },
    "data": {"train": {"a": "../a_*.npy", "b": "../b_*.npy"}, "augment": {"symmetries": "all"}},
    "output": {"figures": 0},
}


@pytest.fixture
def folder(tmp_path, m2m, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("a_0", "a_1", "b_0", "b_1"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(1, 8, 8)).astype(np.float32))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path / "run"


def read(path):
    return yaml.safe_load(path.read_text())


def test_the_recipe_that_is_left_trains_the_same(folder, m2m):
    changed = ["--model.model.init_args.width=3", "--seed_everything=5", "--output.folder=one"]
    # an argument that is nothing, which is not its default
    logger = "{class_path: CSVLogger, init_args: {save_dir: logs, name: null}}"
    changed.append(f"--trainer.logger={logger}")
    assert m2m("train", "../mine.yaml", *changed)[0] == 0
    left = read(folder / "one/recipe.yaml")
    assert left["model"]["model"]["init_args"]["width"] == 3
    assert left["output"]["resume"] == "auto"  # what was not said
    assert left["trainer"]["logger"]["init_args"]["name"] is None
    card = Card.read(folder / "one/emulator.safetensors").training["recipe"]
    assert left["model"]["model"] == card["model"]["model"]
    assert m2m("train", "one/recipe.yaml", "--output.folder=two")[0] == 0
    states = [
        torch.load(folder / name / "state_1.pt", weights_only=True)["model"]
        for name in ("one", "two")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert read(folder / "two/recipe.yaml") == left | {"output": left["output"] | {"folder": "two"}}


def test_the_environment_says_where_when_and_how_often_it_ran(folder, m2m, monkeypatch):
    before = datetime.now().astimezone().replace(microsecond=0)
    monkeypatch.setattr("sys.argv", ["m2m", "train", "../mine.yaml"])
    assert m2m("train", "../mine.yaml")[0] == 0
    found = json.loads((folder / "environment.json").read_text())
    (start,) = found["starts"]
    assert found["format"] == 1
    assert start["versions"]["torch"] == torch.__version__
    assert start["versions"]["numpy"] == np.__version__
    assert start["versions"]["python"] == platform.python_version()
    assert start["platform"] == platform.platform()
    assert start["command"] == ["m2m", "train", "../mine.yaml"]
    assert start["folder"] == str(folder)
    assert start["device"].startswith("cpu")
    assert (start["recipe"], start["ended"], start["epochs"]) == ("recipe.yaml", "finished", [0, 1])
    first, last = (datetime.fromisoformat(start[key]) for key in ("start", "end"))
    assert before <= first <= last <= datetime.now().astimezone()
    # nothing to do is no start; to train longer is one, and another recipe
    assert m2m("train", "../mine.yaml")[0] == 0
    former = (folder / "recipe.yaml").read_text()
    assert m2m("train", "../mine.yaml", "--trainer.max_epochs=3")[0] == 0
    starts = json.loads((folder / "environment.json").read_text())["starts"]
    assert [(s["recipe"], s["epochs"]) for s in starts] == [
        ("recipe.yaml", [0, 1]),
        ("recipe_1.yaml", [1, 3]),
    ]
    assert (folder / "recipe.yaml").read_text() == former
    assert read(folder / "recipe_1.yaml")["trainer"]["max_epochs"] == 3


def test_files_of_something_else_stay_as_they_are(folder, m2m):
    (folder / "recipe.yaml").write_text("an apple: 1\n")
    (folder / "environment.json").write_text('{"starts": "mine"}')
    assert m2m("train", "../mine.yaml")[0] == 0
    assert (folder / "recipe.yaml").read_text() == "an apple: 1\n"
    assert (folder / "environment.json").read_text() == '{"starts": "mine"}'
    (start,) = json.loads((folder / "environment_1.json").read_text())["starts"]
    assert start["recipe"] == "recipe_1.yaml"


CODE = """
import lightning.pytorch as pl
class Stop(pl.Callback):
    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == 3:
            raise ValueError("no more")
"""


def test_how_a_training_ended_is_told_and_a_refused_one_leaves_nothing(folder, m2m):
    (folder / "code").mkdir()
    (folder / "code/stop.py").write_text(CODE)
    stop = "--trainer.callbacks=[{class_path: map2map_callback.stop.Stop}]"
    status, _, _ = m2m("train", "../mine.yaml", "--callback_at=code", stop,
                       "--trainer.max_epochs=4", "--output.folder=o")  # fmt: skip
    assert status == 2
    (start,) = json.loads((folder / "o/environment.json").read_text())["starts"]
    assert (start["ended"], start["epochs"]) == ("ValueError: no more", [0, 1])
    assert m2m("train", "../mine.yaml", "--data.train.a=none.npy", "--output.folder=p")[0] == 2
    assert not list(folder.glob("p/*"))


def test_only_the_first_process_writes_and_outside_of_git_there_is_no_commit(tmp_path, monkeypatch):
    second = Provenance(tmp_path, {"a": 1})
    second.on_train_start(SimpleNamespace(is_global_zero=False), None)
    second.on_train_end(SimpleNamespace(current_epoch=1), None)
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    trainer = SimpleNamespace(
        is_global_zero=True, current_epoch=0, world_size=2, precision="32-true",
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip

    def start_of():
        Provenance(tmp_path, {"a": 1}).on_train_start(trainer, None)
        return json.loads((tmp_path / "environment.json").read_text())["starts"][-1]

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "commit" not in start_of()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    said = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    start = start_of()
    assert said.stdout.startswith(start["commit"])
    assert (start["end"], start["processes"]) == (None, 2)
    # neither without a git
    monkeypatch.setenv("PATH", os.devnull)
    assert "commit" not in start_of()
