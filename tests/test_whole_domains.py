"""Networks that see the whole domain: what they learn on, and which grids they are applied to."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.commands.train import train_recipe
from map2map.emulator import Card, Emulator

RECIPE = {
    "seed_everything": 1,
    "trainer": {"max_epochs": 1},
    "model": {
        "inputs": [{"name": "a"}],
        "targets": [{"name": "b"}],
        "model": {"class_path": "FNO", "init_args": {"width": 3, "modes": [7, 4], "depth": 2}},
        "loss": {"class_path": "torch.nn.MSELoss"},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    },
    "data": {
        "train": {"a": "a_*.nc", "b": "b_*.nc"},
        "domain": {"ndim": 2, "spacing": 0.125},
        "reading": {"batch_size": 2, "threads": 0},
    },
    "output": {"figures": 0},
}


def dataset(name, shape, step):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    coords = {axis: np.arange(n) * step for axis, n in zip("yx", shape, strict=True)}
    return xr.Dataset({name: (("y", "x"), values)}, coords)


@pytest.fixture
def trained(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for k in range(2):
        for name in "ab":
            dataset(name, (8, 10), 0.125).to_netcdf(f"{name}_{k}.nc")
    train_recipe(RECIPE)
    return caplog.text


def test_modes_that_the_training_lacks_are_told_and_do_nothing_on_finer_grids(trained):
    assert "FNO keeps [7, 4] modes, but the fields of the training, 8 x 10 cells, have 4" in trained
    assert trained.strip().endswith("`modes: 4`")
    emulator = Emulator.load("emulator.safetensors")
    weight = emulator.model.spectral[1].weight.reshape(2, 13, 4, 3, 3)
    beyond = torch.arange(-6, 7).abs() >= 4
    assert not weight[:, beyond].any()
    assert weight[:, ~beyond].flatten(2).any(-1).all()


def test_a_larger_domain_is_refused_and_a_finer_grid_is_asked_for(trained, m2m):
    assert Card.read("emulator.safetensors").cells == [8, 10]
    dataset("a", (16, 10), 0.125).to_netcdf("large.nc")
    dataset("a", (16, 20), 0.0625).to_netcdf("fine.nc")
    for file, words in (
        ("large", "domain has 16 x 10 cells, but the emulator, .*Fourier.* on 8 x 10 of the same"),
        ("fine", "cells are 0.0625 wide on axis 0"),
    ):
        command = ["apply", "emulator.safetensors", f"a={file}.nc", "-o", f"{file}_b.nc"]
        status, _, err = m2m(*command)
        assert status == 2
        assert "--other-grid" in err
        with xr.open_dataset(f"{file}.nc") as data, pytest.raises(ValueError, match=words):
            Emulator.load("emulator.safetensors").apply(data)
        assert m2m(*command, "--other-grid")[0] == 0
    assert m2m("apply", "emulator.safetensors", "a=a_0.nc", "-o", "same.nc")[0] == 0
    evaluate = ["evaluate", "emulator.safetensors", "a=large.nc", "b=large_b.nc", "-o", "s.nc"]
    status, _, err = m2m(*evaluate)
    assert status == 2
    assert "16 x 10 cells" in err
    assert m2m(*evaluate, "--other-grid")[0] == 0


def test_cards_from_before_there_were_cells_are_read(trained):
    card = Emulator.load("emulator.safetensors").card()
    entries = {key: value for key, value in card.entries().items() if key != "cells"}
    old = Emulator.of_card(Card.parse(json.dumps(entries), "old"), "old")
    assert old.cells is None
    assert old.apply(dataset("a", (16, 10), 0.125)).b.shape == (16, 10)
