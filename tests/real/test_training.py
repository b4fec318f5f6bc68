"""The main job and map2map's command line on N-body runs that others have made."""

import json
import time

import numpy as np
import pytest

from map2map.cli import main
from map2map.emulator import Emulator


@pytest.fixture
def nbody(real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return real_data / "nbody"


def gain(output, linear, truth):
    return float((linear - truth).var() / (output - truth).var())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_displacement_emulator_beats_zeldovich_at_least_sixfold(nbody, tmp_path):
    """Held-out residual variance, after at most five minutes of training on two cores."""
    start = time.perf_counter()
    arguments = [
        f"--data.train.linear={nbody}/za_0[0-3].npy",
        f"--data.train.displacement={nbody}/pm_0[0-3].npy",
        f"--data.val.linear={nbody}/za_04.npy",
        f"--data.val.displacement={nbody}/pm_04.npy",
        "--output.figures=0",
    ]
    assert main(["train", "cosmology_displacement", *arguments]) == 0
    print(f"trained in {time.perf_counter() - start:.0f} s")
    linear, truth = (np.load(nbody / f"{name}_05.npy") for name in ("za", "pm"))
    output = Emulator.load(tmp_path / "emulator.safetensors")({"linear": linear})["displacement"]
    found = gain(output, linear, truth)
    print(f"residual variance {found:.2f} times smaller than Zel'dovich's")
    assert found >= 6


def test_map2maps_command_lines_run_and_write_what_is_documented(nbody, tmp_path, capsys):
    """A state that has learnt nothing yet is no worse than its skip connection: the input."""
    common = [
        "--in-norms", "cosmology.dis", "--tgt-norms", "cosmology.dis", "--model", "UNet",
        "--crop", "16", "--batch-size", "1", "--loader-workers", "2",
    ]  # fmt: skip
    train = [
        "map2map", "train",
        "--train-in-patterns", f"{nbody}/za_0[0-3].npy",
        "--train-tgt-patterns", f"{nbody}/pm_0[0-3].npy",
        "--val-in-patterns", f"{nbody}/za_04.npy", "--val-tgt-patterns", f"{nbody}/pm_04.npy",
        *common, "--in-pad", "20", "--crop-step", "64", "--augment", "--aug-shift", "64",
        "--div-data", "--lr", "1e-4", "--reduce-lr-on-plateau", "--epochs", "2",
    ]  # fmt: skip
    assert main(train) == 0
    assert (tmp_path / "state_2.pt").exists()
    assert (tmp_path / "checkpoint.pt").readlink().name == "state_2.pt"
    test = [
        "map2map", "test",
        "--test-in-patterns", f"{nbody}/za_05.npy", "--test-tgt-patterns", f"{nbody}/pm_05.npy",
        *common, "--crop", "64", "--in-pad", "auto",
    ]  # fmt: skip
    assert main(test) == 0
    output, linear, truth = (
        np.load(path) for path in ("pm_05_out.npy", nbody / "za_05.npy", nbody / "pm_05.npy")
    )
    assert output.shape == truth.shape
    report = json.loads((tmp_path / "metrics.json").read_text())
    r2 = (
        1
        - ((output - truth) ** 2).sum()
        / ((truth - truth.mean(axis=(1, 2, 3), keepdims=True)) ** 2).sum()
    )
    assert report["fields"]["target_0"]["r2"] == pytest.approx(r2, rel=1e-4)
    assert f"r2 {r2:.4g}"[:6] in capsys.readouterr().out
    assert gain(output, linear, truth) > 0.5
