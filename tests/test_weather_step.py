"""The recipe of the weather, in miniature: trained, scored and rolled out from the command line."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from map2map.cli import main
from map2map.emulator import Emulator
from map2map.synthetic.vortex_weather import Setting, simulate

SMALL = Setting(latitudes=8, longitudes=24, levels=[300, 850], truncation=11, spin_up=0.0)
PANGU = {
    "shape": [8, 24], "levels": 2, "window": [2, 2, 6], "width": 12, "heads": [1, 1, 1, 1],
    "depths": [1, 1, 1, 1], "patch": [2, 2, 2],
}  # fmt: skip
LATER = ["geopotential", "specific_humidity", "temperature", "u_component_of_wind",
         "v_component_of_wind", "10m_u_component_of_wind", "10m_v_component_of_wind",
         "2m_temperature", "mean_sea_level_pressure"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data and the emulator of an epoch."""
    folder = tmp_path_factory.mktemp("step")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        simulate(folder / "data", days=6, setting=SMALL)
        recipe = yaml.safe_load((files("map2map.recipes") / "weather_step.yaml").read_text())
        recipe["model"]["model"]["init_args"] |= PANGU
        dates = {"train": "01:2019-01-03", "val": "04", "test": "05:2019-01-06"}
        for split, days in dates.items():
            recipe["data"][split]["geopotential"]["only"] = {"time": f"2019-01-{days}"}
            for name in LATER:
                recipe["data"][split][f"{name}_next"]["later"] = "12h"
        Path("small.yaml").write_text(yaml.safe_dump(recipe))
        assert main(["train", "small.yaml", "--trainer.max_epochs=1"]) == 0
    return folder


def test_its_training_takes_norms_from_files_and_frames_by_dates(trained):
    emulator = Emulator.load(trained / "emulator.safetensors")
    with xr.open_dataset(trained / "data" / "mean.nc") as mean:
        for name in ("temperature", "temperature_next"):
            np.testing.assert_allclose(emulator.norm(name).mean, mean.temperature)
    train = emulator.training_record["recipe"]["data"]["train"]
    assert train["temperature_next"]["later"] == "12h"
    # once for a file, not once for every frame
    assert [len(runs) for runs in emulator.training_record["files"].values()] == [1, 1, 1]


def test_it_is_scored_and_rolled_out(trained, monkeypatch):
    monkeypatch.chdir(trained)
    start = ["emulator.safetensors", "data/weather.zarr", "--only", "time=2019-01-04:2019-01-05"]
    assert main(["evaluate", *start, "--metrics", "pointwise", "--climatology"]) == 0
    with xr.open_dataset("scores.nc") as scores:
        assert scores.sizes["run"] == 6
        assert {"persistence", "training mean", "climatology"} < set(scores.method.values)
        with xr.open_zarr("data/weather.zarr") as data:
            t = data["2m_temperature"].isel(time=slice(12, 20)).values
        found = scores.rmse.sel({"field": "2m_temperature_next", "method": "persistence"})
        expected = np.sqrt(np.square(t[2:] - t[:-2]).mean((1, 2)))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    split = ["emulator.safetensors", "--split", "test", "--metrics", "latitude", "-o", "test.nc"]
    assert main(["evaluate", *split]) == 0
    with xr.open_dataset("test.nc") as scores:
        assert scores.sizes["run"] == 6
    assert main(["rollout", *start, "--steps", "2", "--truth", "-o", "f.zarr"]) == 0
    with xr.open_dataset("rollout.nc") as scores:
        # from all frames of these days, whose later ones may be of other days
        assert scores.attrs["starts"] == 8
        found = scores.rmse.sel({"method": "persistence", "channel": "2m_temperature_next"})
        with xr.open_zarr("data/weather.zarr") as data:
            w = np.cos(np.deg2rad(data.latitude.values))[:, None]
            t = data["2m_temperature"].isel(time=slice(12, 24)).values
        for lead, step in enumerate((2, 4)):
            squared = np.square(t[step : step + 8] - t[:8]) * w / w.mean()
            np.testing.assert_allclose(found[lead], np.sqrt(squared.mean()), rtol=1e-5)
    with xr.open_zarr("f.zarr", consolidated=False) as made:
        expected = np.datetime64("2019-01-04T12") + np.arange(2) * np.timedelta64(12, "h")
        np.testing.assert_array_equal(made.time, expected)


def test_what_is_applied_says_how_much_later_it_is_valid(trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert main(["apply", "emulator.safetensors", "data/weather.zarr", "-o", "a.nc"]) == 0
    with xr.open_dataset("a.nc", decode_timedelta=False) as made:
        assert made.sizes["time"] == 24
        assert made.temperature_next.attrs["later"] == "12h"
