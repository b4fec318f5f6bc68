"""Land cells, from the files of two models through preparation and training to scores."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from map2map.common_grid import CommonGrid, Counts, Part
from map2map.comparing import compared
from map2map.crops import Crops
from map2map.data import FieldData, Reading
from map2map.errors import FieldError
from map2map.evaluate import Options, evaluate
from map2map.fields import Field
from map2map.grids import Domain
from map2map.models import PaddedUNet
from map2map.norms import Standardize
from map2map.prepared_stores import prepare
from map2map.runs import Runs
from map2map.task import Task
from map2map.train import Output, make_trainer, train

DOMAIN = Domain(ndim=2, periodic=False, pad="model", frames=1)
INPUTS, TARGETS = ("wind", "sst", "mask"), ("flux",)


def axes(n, spacing):
    return {
        "time": np.datetime64("2001-01-01", "ns") + np.timedelta64(6, "h") * np.arange(4),
        "lat": ("lat", 40 + spacing * (np.arange(n) + 0.5), {"units": "degrees_north"}),
        "lon": ("lon", 5 + spacing * (np.arange(n) + 0.5), {"units": "degrees_east"}),
    }


def write(folder: Path, on_land: float = 0.0, at_sea: float = 0.0) -> None:
    """Air on 4 x 4 cells and a sea on 8 x 8; numbers on land, or at sea, may be changed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    cells = ("time", "lat", "lon")
    sea = np.ones((8, 8), bool)
    sea[:4, :4] = sea[7] = False
    land = 1 - sea.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    wind = rng.normal(0, 5, (4, 4, 4)) + np.where(land < 0.6, at_sea, on_land)
    sst = rng.normal(288, 1, (4, 8, 8))
    flux = np.repeat(np.repeat(wind, 2, axis=1), 2, axis=2) * (sst - 287)
    xr.Dataset({"wind": (cells, wind), "land": (cells[1:], land)}, axes(4, 1.0)).to_netcdf(
        folder / "air.nc"
    )
    # a model writes anything where it has no sea, and says so by its mask
    sea_alone = {"sst": np.where(sea, sst, 1e3 * on_land), "flux": np.where(sea, flux, -on_land)}
    xr.Dataset(
        {name: (cells, values) for name, values in sea_alone.items()}
        | {"mask": (cells[1:], sea.astype(float))},
        axes(8, 0.5),
    ).to_netcdf(folder / "sea.nc")


def prepared(folder: Path) -> Path:
    wet = Counts("mask", above=0.5)
    parts = {
        "air": Part(str(folder / "air.nc"), ["wind"], Counts("land", below=0.6), fill="nearest"),
        "sea": Part(str(folder / "sea.nc"), ["sst", "mask"], wet, fill="nearest"),
        "targets": Part(str(folder / "sea.nc"), ["flux"], wet),
    }
    return prepare(CommonGrid(str(folder / "common.zarr"), "sea", parts, times=3))[0]


def network(in_chan, out_chan, *, ndim=2):
    return PaddedUNet(in_chan, out_chan, ndim=ndim, width=4, levels=2)


def trained(store: Path, out: Path, mask: bool = True):
    torch.manual_seed(0)
    task = Task(
        [Field(name) for name in INPUTS],
        [Field(name) for name in TARGETS],
        network,
        norms={name: Standardize() for name in (*INPUTS, *TARGETS)},
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )
    files = {name: str(store) for name in (*INPUTS, *TARGETS)}
    data = FieldData(
        files, None, Crops(halo=0), domain=DOMAIN, reading=Reading(batch_size=2, mask=mask), seed=1
    )
    made = Output(out, figures=0)
    trainer = make_trainer(made, progress=False, max_epochs=3, accelerator="cpu", logger=False)
    return train(task, data, trainer, made), task.history


def test_what_stands_on_land_has_no_part_in_anything(tmp_path):
    found = {}
    for name, change in {
        "as it is": {},
        "other land": {"on_land": 77.0},
        "other sea": {"at_sea": 1.0},
    }.items():
        write(tmp_path / name, **change)
        found[name] = trained(prepared(tmp_path / name), tmp_path / f"run {name}")
    first, history = found["as it is"]
    again, same_history = found["other land"]
    assert history == same_history
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert found["other sea"][1] != history


def test_the_norm_of_a_target_is_that_of_the_sea(tmp_path):
    write(tmp_path / "a", on_land=50.0)
    store = prepared(tmp_path / "a")
    emulator, _ = trained(store, tmp_path / "run")
    flux = xr.open_zarr(store, consolidated=False).flux.to_numpy()
    norm = emulator.norm("flux")
    np.testing.assert_allclose(norm.mean, np.nanmean(flux), rtol=1e-5)
    np.testing.assert_allclose(norm.std, np.nanstd(flux), rtol=1e-5)
    assert np.isnan(flux).mean() == pytest.approx(24 / 64)


def test_scores_are_those_of_the_sea(tmp_path):
    write(tmp_path / "a")
    store = prepared(tmp_path / "a")
    emulator, _ = trained(store, tmp_path / "run")
    emulator.eval()
    fields = [[Field(name) for name in side] for side in (INPUTS, TARGETS)]
    runs = Runs(*fields, {name: str(store) for name in (*INPUTS, *TARGETS)}, DOMAIN)
    scores = evaluate(emulator, runs, {}, Options(metrics=["pointwise"], bootstrap=2))
    data = xr.open_zarr(store, consolidated=False).load()
    assert len(runs) == 4
    for frame in range(4):
        inputs = {
            name: data[name].to_numpy()[frame][None]
            if name != "mask"
            else data[name].to_numpy()[None]
            for name in INPUTS
        }
        output = np.asarray(emulator(inputs)["flux"])[0]
        assert np.isfinite(output).all()
        truth = data.flux.to_numpy()[frame]
        wet = np.isfinite(truth)
        expected = np.sqrt(np.mean((output - truth)[wet] ** 2))
        found = scores.rmse.isel(run=frame).sel(method="emulator").squeeze()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(scores.masked, 24 / 64)


def test_land_in_a_target_is_refused_unless_it_is_masked(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(FieldError, match="mask"):
        trained(prepared(tmp_path / "a"), tmp_path / "run", mask=False)


def test_the_gradient_of_a_masked_batch_is_that_of_its_sea():
    """Whatever the network puts out on land moves no weight."""
    torch.manual_seed(0)
    layer, x, y = nn.Conv2d(2, 1, 3, padding=1), torch.randn(3, 2, 6, 6), torch.randn(3, 1, 6, 6)
    y[:, :, :2] = torch.nan
    valid = torch.isfinite(y)

    runs = SimpleNamespace(domain=Domain(2), scale_factor=1, shape=(6, 6))
    masked = SimpleNamespace(dataset=SimpleNamespace(allow_nonfinite=True, runs=runs))
    for loss in (nn.L1Loss(), nn.MSELoss(), nn.SmoothL1Loss(beta=0.3)):
        found = torch.autograd.grad(compared(loss, layer(x), y, masked, None), layer.weight)[0]
        expected = torch.autograd.grad(loss(layer(x)[valid], y[valid]), layer.weight)[0]
        torch.testing.assert_close(found, expected)
