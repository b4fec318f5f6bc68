"""What the tests of the gravity classifiers' command line share: a YAML file, and cubes for it."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

YAML = {
    "model_params": {"architecture": "RACCOON", "layer_param": 2, "dropout": 0, "name": "run"},
    "data_params": {
        "datafile": "data_z1.h5", "train_seeds": 3, "test_seeds": 2, "newton_augmentation": 1,
    },
    "train_params": {"epochs": 3, "lr": "1e-3", "log_dir": "logs"},
}  # fmt: skip

NAME = "run_data_z1_RACCOON_lp2_do0.0_na1.0_ts3"
QUICK = ("--stride", 32)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def written(path=Path("temp.yaml"), **changes) -> Path:
    """A YAML file with some keys changed; None leaves one out."""
    entries = {section: dict(keys) for section, keys in YAML.items()}
    for key, value in changes.items():
        (section,) = (s for s, keys in YAML.items() if key in keys)
        entries[section][key] = value
        if value is None:
            del entries[section][key]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(entries))
    return path


def cube(seed, gravity, size):
    """Standardized noise that differs by seed and class."""
    rng = np.random.default_rng([seed, gravity == "gr"])
    return rng.standard_normal((size, size, size), np.float32)


def write_root(path, seeds=range(5), size=64):
    with h5py.File(path, "w") as file:
        for seed in seeds:
            for gravity in ("gr", "newton"):
                file[f"{gravity}_seed{seed:04d}"] = cube(seed, gravity, size)
    return path


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("cubes") / "data_z1.h5")


@pytest.fixture
def here(tmp_path, monkeypatch, material):
    """An empty folder with the data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_z1.h5").symlink_to(material)
    return tmp_path
