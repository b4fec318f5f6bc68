"""The simulated weather: its layout, its balance, and that it is weather."""

import json

import numpy as np
import pytest
import xarray as xr

from map2map.cli import main
from map2map.errors import RecipeError, SaveError
from map2map.sources import open_source
from map2map.synthetic.vortex_weather import (
    GAS,
    SHEAR,
    Setting,
    saturation,
    simulate,
    speed,
    standard_geopotential,
    standard_temperature,
)

SMALL = Setting(latitudes=12, longitudes=24, levels=[300, 850], truncation=11, spin_up=1.0)


def opened(folder, **more):
    how = {"consolidated": True, "chunks": None} | more
    return xr.open_zarr(folder / "weather.zarr", **how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("weather")
    simulate(out, days=3, start="2019-12-30", setting=SMALL)
    return out


def test_the_layout_is_that_of_weatherbench(folder):
    with opened(folder) as data:
        assert data.sizes == {"time": 12, "level": 2, "latitude": 12, "longitude": 24}
        upper = {"geopotential", "specific_humidity", "temperature",
                 "u_component_of_wind", "v_component_of_wind"}  # fmt: skip
        surface = {"10m_u_component_of_wind", "10m_v_component_of_wind", "2m_temperature",
                   "mean_sea_level_pressure"}  # fmt: skip
        static = {"geopotential_at_surface", "land_sea_mask", "soil_type"}
        assert set(data.data_vars) == upper | surface | static
        for names, dims in (
            (upper, ("time", "level", "latitude", "longitude")),
            (surface, ("time", "latitude", "longitude")),
            (static, ("latitude", "longitude")),
        ):
            for name in names:
                assert data[name].dims == dims
                assert data[name].dtype == np.float32
                assert np.isfinite(data[name]).all()
                assert data[name].attrs["units"]
        assert data.time[0] == np.datetime64("2019-12-30")
        assert (np.diff(data.time) == np.timedelta64(6, "h")).all()
        np.testing.assert_allclose(data.latitude, np.arange(-82.5, 90, 15))
        np.testing.assert_array_equal(data.longitude, np.arange(24) * 15)
        assert json.loads(data.attrs["parameters"])["truncation"] == 11


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_formats_hold_the_same_and_are_read_by_windows(tmp_path, folder, zarr_format):
    simulate(tmp_path, days=3, start="2019-12-30", setting=SMALL, zarr_format=zarr_format)
    name = ".zmetadata" if zarr_format == 2 else "zarr.json"
    text = (tmp_path / "weather.zarr" / name).read_text()
    assert "consolidated" in text
    # what was drawn is the same for the same seed, whatever is written
    with opened(tmp_path) as made, opened(folder) as other:
        xr.testing.assert_equal(made.load(), other.load())
        source = open_source(tmp_path / "weather.zarr", ndim=2, framed=True)
        stored = source.stored("temperature")
        assert (stored.frames, stored.channels, stored.units) == (12, 2, "K")
        assert stored.frame_axis is not None
        assert stored.frame_axis.units == "hours since 1900-01-01"
        assert source.stored("soil_type").frames is None


def test_the_files_of_statistics_are_moments_of_the_first_frames_per_level(folder):
    with (
        opened(folder) as data,
        xr.open_dataset(folder / "mean.nc") as mean,
        xr.open_dataset(folder / "std.nc") as std,
    ):
        known = data.isel(time=slice(0, 9))
        for name in data.data_vars:
            per_level = data[name].ndim == 4
            assert mean[name].dims == std[name].dims == (("level",) if per_level else ())
            axes = (0, 2, 3) if per_level else None
            values = known[name].values.astype(np.float64)
            np.testing.assert_allclose(mean[name], values.mean(axis=axes), rtol=1e-6)
            np.testing.assert_allclose(std[name], values.std(axis=axes), rtol=1e-6)


def test_a_level_is_an_equivalent_barotropic_one(folder):
    with opened(folder) as data:
        ratio = speed(np.array(300.0)) / speed(np.array(850.0))
        for name in ("u_component_of_wind", "v_component_of_wind"):
            np.testing.assert_allclose(
                data[name].sel(level=300), ratio * data[name].sel(level=850), rtol=1e-3, atol=1e-3
            )
        # geopotential anomalies, likewise
        p = np.array([300.0, 850.0])
        found = data.geopotential.values - standard_geopotential(p)[:, None, None]
        high, low = found[:, 0], found[:, 1]
        np.testing.assert_allclose(high, ratio * low, rtol=2e-3, atol=1)


def test_the_standard_atmosphere_and_its_anomalies_are_hydrostatic():
    # dPhi / dln p = - R T, by central differences
    for p in (300.0, 500.0, 850.0):
        step = 1e-4
        ends = np.array([p * np.exp(-step), p * np.exp(step)])
        slope = np.diff(standard_geopotential(ends))[0] / (2 * step)
        assert slope == pytest.approx(-GAS * standard_temperature(np.array(p)), rel=1e-6)
        # A phi' with the temperature SHEAR phi' / R
        assert np.diff(speed(ends))[0] / (2 * step) == pytest.approx(-SHEAR)
    assert standard_geopotential(np.array(500.0)) / 9.80665 == pytest.approx(5574, abs=2)  # ICAO
    assert saturation(np.array(293.15), np.array(1000.0)) == pytest.approx(0.01454, rel=2e-3)


def test_it_is_weather(tmp_path):
    """Winds blow from the west on both sides, in balance, and change from day to day."""
    setting = Setting(spin_up=10.0)
    simulate(tmp_path, days=3, setting=setting, seed=3)
    with opened(tmp_path) as data:
        u = data.u_component_of_wind.sel(level=500)
        zonal = u.mean(["time", "longitude"])
        assert (zonal.sel(latitude=[-41.25, 41.25]) > 10).all()
        # geostrophic: f u = - dPhi / dy, away from equator and poles
        phi = data.geopotential.sel(level=500)
        y = np.deg2rad(data.latitude) * 6.37122e6
        slope = phi.assign_coords(latitude=y).differentiate("latitude").values
        f = 2 * 7.292e-5 * np.sin(np.deg2rad(data.latitude))
        balanced = (-slope / f.values[None, :, None])[:, 3:8].ravel()
        assert np.corrcoef(balanced, u.values[:, 3:8].ravel())[0, 1] > 0.9
        eddies = u - u.mean("longitude")
        assert float(eddies.std()) > 3
        day = float(np.sqrt(((u[4:].values - u[:-4].values) ** 2).mean()))
        six = float(np.sqrt((u.diff("time").values ** 2).mean()))
        assert six < day
        assert day > 1
        assert 0.2 < float(data.land_sea_mask.mean()) < 0.6
        assert set(np.unique(data.soil_type)) <= set(range(8))
        assert (data.soil_type.where(data.land_sea_mask < 0.5, 0) == 0).all()
        assert float(data.specific_humidity.min()) > 0


def test_the_day_is_warm_on_land_and_what_was_drawn_differs_by_seed(tmp_path, folder):
    simulate(tmp_path, days=3, start="2019-12-30", setting=SMALL, seed=1)
    with opened(tmp_path) as other, opened(folder) as data:
        assert float(abs(data.temperature - other.temperature).max()) > 1
        # over land at noon of longitude 0, against midnight, twelve hours before
        t = data["2m_temperature"].isel(latitude=6) - data.temperature.isel(latitude=6, level=1)
        warmer = (t.isel(time=2) - t.isel(time=0)).values
        hours = 12 - 14 + np.arange(24)  # local, behind 14 h
        expected = (
            data.land_sea_mask.isel(latitude=6)
            * 6
            * np.cos(np.deg2rad(7.5))
            * (np.cos(np.pi * hours / 12) - np.cos(np.pi * (hours - 12) / 12))
        )
        np.testing.assert_allclose(warmer, expected, atol=1e-3)


def test_what_is_there_is_not_replaced(folder, tmp_path):
    before = (folder / "mean.nc").read_bytes()
    with pytest.raises(SaveError, match=r"weather.zarr, .*would be replaced"):
        simulate(folder, days=1, setting=SMALL)
    assert (folder / "mean.nc").read_bytes() == before
    simulate(tmp_path, days=1, setting=SMALL)
    simulate(tmp_path, days=2, setting=SMALL, overwrite=True)
    with opened(tmp_path) as data:
        assert data.sizes["time"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latitudes": 2}, "latitudes >= 4"),
        ({"truncation": 24}, "truncation < longitudes / 2"),
        ({"levels": [850, 500]}, "`levels` ascend"),
        ({"levels": []}, "`levels` ascend"),
        ({"statistics": 0.0}, "`statistics` a share"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        Setting(**change)


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "data"
    size = ["--setting.latitudes=8", "--setting.longitudes=24", "--setting.truncation=11"]
    more = ["--setting.levels=[500]", "--setting.spin_up=0", "--days=1", "--zarr_format=3"]
    assert main(["simulate", "vortex_weather", "--out", str(out), *size, *more]) == 0
    with opened(out) as data:
        assert dict(data.sizes) == {"time": 4, "level": 1, "latitude": 8, "longitude": 24}
    assert main(["simulate", "vortex_weather", "--out", str(out), "--days=0"]) == 2
    assert "days >= 1" in capsys.readouterr().err
    assert main(["simulate", "vortex_weather", "--out", str(out), "--start=soon"]) == 2
