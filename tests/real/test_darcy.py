"""Darcy flow as others have made it: permeability to pressure, and on a finer grid than learnt."""

import time

import numpy as np
import pytest
import xarray as xr

from map2map.cli import main


@pytest.fixture
def darcy(real_data, tmp_path, monkeypatch):
    """The arrays as files of their own, which other tools read as well as we do."""
    folder = real_data / "darcy"
    if not folder.is_dir():
        pytest.skip(f"no Darcy flows at {folder}")
    monkeypatch.chdir(tmp_path)
    for name in ("train_16", "test_16", "test_32"):
        with np.load(folder / f"darcy_{name}.npz") as arrays:
            np.save(f"x_{name}.npy", arrays["x"].astype(np.float32))
            np.save(f"y_{name}.npy", arrays["y"].astype(np.float32))
    return tmp_path


def scores_at(size):
    arguments = [f"permeability=x_test_{size}.npy", f"pressure=y_test_{size}.npy"]
    options = ["--bootstrap=10", "--no-training-mean", "-o", f"scores_{size}.nc"]
    assert main(["evaluate", "emulator.safetensors", *arguments, *options]) == 0
    with xr.open_dataset(f"scores_{size}.nc") as scores:
        found = scores.sel({"method": "emulator", "field": "pressure"})
        return {name: float(found[name]) for name in ("relative_l2_all", "r2_all")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_operator_learns_pressures_on_a_coarse_grid_and_takes_a_finer_one(darcy):
    """At most fifteen minutes of training on two cores.

    Values are on corners, of which the last row and column are missing, so that transposing is a
    symmetry of the data and mirroring is not.
    """
    start = time.perf_counter()
    arguments = [
        "--data.train.permeability=x_train_16.npy",
        "--data.train.pressure=y_train_16.npy",
        "--data.val=null",
        "--data.test=null",
        "--data.augment.symmetries=permutations",
        "--model.model.init_args.positions=nodes",
        "--trainer.max_epochs=100",
        "--output.figures=0",
    ]
    assert main(["train", "darcy", *arguments]) == 0
    print(f"trained in {time.perf_counter() - start:.0f} s")
    coarse, fine = scores_at(16), scores_at(32)
    print(f"16 x 16: {coarse}; 32 x 32, not retrained: {fine}")
    assert coarse["relative_l2_all"] <= 0.08
    assert coarse["r2_all"] >= 0.985
    # 10 nearest neighbors on the coarse grid have .849
    assert fine["r2_all"] >= 0.95
