import json

import numpy as np
import pytest
import xarray as xr
from jsonargparse import ArgumentParser

from map2map import prepared_stores
from map2map.common_grid import CommonGrid, Counts, Part, fill_nearest
from map2map.errors import FieldError, RecipeError, SaveError, SourceError
from map2map.prepared_stores import prepare
from map2map.regridding import Axes, Regridder
from map2map.sources import open_source
from map2map.windows import Window

HOURS = 5


def axes(n, spacing, times):
    lat, lon = 40 + spacing * (np.arange(n) + 0.5), 5 + spacing * (np.arange(n) + 0.5)
    return {
        "time": np.datetime64("2001-01-01", "ns") + np.timedelta64(6, "h") * np.asarray(times),
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }


def write(folder, run, times=range(HOURS), air_times=range(HOURS)):
    """An ocean of 6 x 6 cells with land in a corner, and air above it of 3 x 3."""
    rng = np.random.default_rng(run)
    cells = ("time", "lat", "lon")
    sea = np.ones((6, 6))
    sea[:3, :2] = 0
    sst = np.where(sea > 0, rng.normal(288, 1, (len(times), 6, 6)), np.nan)
    xr.Dataset(
        {"sst": (cells, sst, {"units": "K"}), "mask": (cells[1:], sea)}, axes(6, 0.5, times)
    ).to_netcdf(folder / f"ocean_{run}.nc")
    land = sea.reshape(3, 2, 3, 2).mean(axis=(1, 3)) < 0.6
    wind = rng.normal(0, 5, (len(air_times), 3, 3))
    xr.Dataset(
        {"u": (cells, wind, {"units": "m s-1"}), "land": (cells[1:], land.astype(float))},
        axes(3, 1.0, air_times),
    ).to_netcdf(folder / f"air_{run}.nc")


def declared(folder, **changes):
    parts = {
        "air": Part(
            str(folder / "air_*.nc"), {"wind": "u"}, Counts("land", below=0.5), fill="nearest"
        ),
        "ocean": Part(str(folder / "ocean_*.nc"), ["sst", "mask"]),
    }
    given = {"out": str(folder / "out" / "{run}.zarr"), "like": "ocean", "times": 2}
    return CommonGrid(**given | {"parts": parts} | changes)


@pytest.fixture
def folder(tmp_path):
    for run in range(2):
        write(tmp_path, run)
    return tmp_path


def test_all_fields_lie_on_one_grid_over_time(folder):
    stores = prepare(declared(folder))
    assert [store.name for store in stores] == ["0.zarr", "1.zarr"]
    for run, store in enumerate(stores):
        ocean = xr.open_dataset(folder / f"ocean_{run}.nc")
        air = xr.open_dataset(folder / f"air_{run}.nc")
        found = xr.open_zarr(store, consolidated=False)
        np.testing.assert_array_equal(found.time, ocean.time)
        np.testing.assert_array_equal(found.sst, ocean.sst.astype(np.float32))
        np.testing.assert_array_equal(found["mask"], ocean["mask"])
        expected = Regridder(Axes.of(air), Axes.of(ocean))(air.u.astype(np.float32), air.land < 0.5)
        known = expected.notnull().to_numpy()
        assert known.any()
        assert not known.all()
        np.testing.assert_array_equal(found.wind.to_numpy()[known], expected.to_numpy()[known])
        assert found.wind.notnull().all()
        assert found.wind.dtype == np.float32
        assert found.wind.attrs["units"] == "m s-1"


def test_what_was_prepared_reads_as_frames_with_masks_that_stay(folder):
    source = open_source(prepare(declared(folder))[0], ndim=2, framed=True)
    assert source.stored("wind").frames == HOURS
    assert source.stored("mask").frames is None
    assert source.stored("sst").units == "K"
    values = np.empty((1, 6, 6))
    source.read("sst", Window.whole((6, 6)), values, None, 3)
    expected = xr.open_dataset(folder / "ocean_0.nc").sst[3]
    np.testing.assert_array_equal(values[0], expected.astype(np.float32))
    assert np.isnan(values[0, :3, :2]).all()


def test_cells_without_values_get_those_of_the_nearest():
    values = np.full((2, 4, 5), np.nan)
    values[0, 0, 0], values[0, 3, 4] = 1.0, 2.0
    found = fill_nearest(values)
    rows, columns = np.indices((4, 5))
    nearer_first = rows**2 + columns**2 < (rows - 3) ** 2 + (columns - 4) ** 2
    equal = rows**2 + columns**2 == (rows - 3) ** 2 + (columns - 4) ** 2
    expected = np.where(nearer_first, 1.0, 2.0)
    np.testing.assert_array_equal(found[0][~equal], expected[~equal])
    assert np.isnan(found[1]).all()


def test_times_are_those_of_the_grid_taken_from_files_that_have_more(folder):
    for run in range(2):
        (folder / f"air_{run}.nc").unlink()
        (folder / f"ocean_{run}.nc").unlink()
        write(folder, run, times=[2, 4, 6], air_times=range(1, 9))
    found = xr.open_zarr(prepare(declared(folder))[0], consolidated=False)
    wind = xr.open_dataset(folder / "air_0.nc").u
    np.testing.assert_array_equal(found.wind[:, 5, 5], wind[[1, 3, 5], 2, 2].astype(np.float32))


def test_times_that_are_missing_are_told(folder):
    (folder / "air_1.nc").unlink()
    (folder / "ocean_1.nc").unlink()
    write(folder, 1, air_times=range(3))
    with pytest.raises(SourceError, match=r"'air' lacks 2 of 5 times, the first 2001-01-01T18"):
        prepare(declared(folder))


def test_what_was_written_before_an_interruption_is_not_made_again(folder, monkeypatch):
    regridded = []
    regrid = Regridder._regrid

    def counting(self, values):
        regridded.append(len(values) if values.ndim == 3 else 0)
        if sum(regridded) > 3:
            raise KeyboardInterrupt
        return regrid(self, values)

    monkeypatch.setattr(Regridder, "_regrid", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(declared(folder))
    # two of five times, a chunk, are there, but not under their name
    assert not (folder / "out" / "0.zarr").exists()
    progress = json.loads((folder / "out" / ".0.zarr.part.json").read_text())
    assert progress == {"times": 2}
    done = []

    def noting(self, values):
        done.append(len(values))
        return regrid(self, values)

    monkeypatch.setattr(Regridder, "_regrid", noting)
    stores = prepare(declared(folder))
    assert done == [2, 1, 2, 2, 1]
    again = folder / "again"
    monkeypatch.undo()
    fresh = prepare(declared(folder, out=str(again / "{run}.zarr")))
    for one, other in zip(stores, fresh, strict=True):
        xr.testing.assert_identical(
            xr.open_zarr(one, consolidated=False).drop_attrs(),
            xr.open_zarr(other, consolidated=False).drop_attrs(),
        )
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["0.zarr", "1.zarr"]


def test_half_of_something_else_is_not_taken_up(folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepared_stores, "replacing", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(declared(folder))
    monkeypatch.undo()
    (folder / "out" / ".0.zarr.part.json").write_text('{"times": 4}')
    parts = declared(folder).parts
    other = declared(folder, parts=parts | {"air": Part(parts["air"].files, ["land"])})
    found = xr.open_zarr(prepare(other)[0], consolidated=False)
    assert set(found) == {"land", "sst", "mask"}
    np.testing.assert_array_equal(
        found.sst, xr.open_dataset(folder / "ocean_0.nc").sst.astype("f4")
    )


def test_progress_of_something_else_is_not_taken_for_that_of_what_begins(folder, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    (folder / "out").mkdir()
    (folder / "out" / ".0.zarr.part.json").write_text('{"times": 4}')
    monkeypatch.setattr(prepared_stores, "replacing", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(declared(folder))
    monkeypatch.undo()
    found = xr.open_zarr(prepare(declared(folder))[0], consolidated=False)
    expected = xr.open_dataset(folder / "ocean_0.nc").sst.astype("f4")
    np.testing.assert_array_equal(found.sst, expected)


def test_files_that_break_off_are_told(folder, monkeypatch):
    def broken(*_):
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(Regridder, "_regrid", broken)
    with pytest.raises(SourceError, match=r"0\.zarr is made of: NetCDF: HDF error; .* damaged"):
        prepare(declared(folder))


def test_what_is_complete_stays_unless_it_was_made_of_something_else(folder):
    store = prepare(declared(folder))[0]
    before = (store / "zarr.json").stat().st_mtime_ns
    prepare(declared(folder))
    assert (store / "zarr.json").stat().st_mtime_ns == before
    other = declared(folder, times=3)
    with pytest.raises(SaveError, match="another way"):
        prepare(other)
    prepare(other, overwrite=True)
    assert (store / "zarr.json").stat().st_mtime_ns != before
    dear = folder / "dear0"
    dear.mkdir()
    with pytest.raises(SaveError, match="not prepared"):
        prepare(declared(folder, out=str(folder / "dear{run}")), overwrite=True)
    assert dear.is_dir()


def test_what_does_not_fit_together_is_refused(folder):
    with pytest.raises(RecipeError, match="did you mean 'ocean'"):
        declared(folder, like="ocaen")
    with pytest.raises(RecipeError, match="needs a limit"):
        Counts("mask")
    parts = declared(folder).parts
    with pytest.raises(RecipeError, match="two parts write sst"):
        declared(folder, parts=parts | {"more": Part("x", ["sst"])})
    with pytest.raises(RecipeError, match=r"for another run; write \{run\}"):
        prepare(declared(folder, out=str(folder / "one.zarr")))
    with pytest.raises(FieldError, match="did you mean 'sst'"):
        prepare(declared(folder, parts=parts | {"ocean": Part(parts["ocean"].files, ["sts"])}))
    (folder / "air_1.nc").unlink()
    with pytest.raises(SourceError, match="'air' has no files of the runs 1"):
        prepare(declared(folder))


def test_a_file_without_wildcards_serves_all_runs(folder):
    parts = declared(folder).parts
    mask = Part(str(folder / "ocean_1.nc"), {"coast": "mask"}, fill=0.0)
    ocean = Part(parts["ocean"].files, ["sst"])
    stores = prepare(declared(folder, parts={"ocean": ocean, "static": mask}))
    assert len(stores) == 2
    for store in stores:
        found = xr.open_zarr(store, consolidated=False)
        assert found.coast.shape == (6, 6)
        assert (found.coast == 0).sum() == 6


def test_placeholders_of_the_files_name_the_stores(folder):
    parts = declared(folder).parts
    named = {
        name: Part(part.files.replace("*", "{number}"), part.variables)
        for name, part in parts.items()
    }
    stores = prepare(declared(folder, parts=named, out=str(folder / "{number}" / "all.zarr")))
    assert [store.parent.name for store in stores] == ["0", "1"]
    with pytest.raises(RecipeError, match="names that no part has"):
        prepare(declared(folder, parts=named, out=str(folder / "{seed}.zarr")))


def test_a_declaration_is_read_from_yaml(folder):
    text = f"""
    common:
      out: {folder}/made/{{run}}.zarr
      like: ocean
      parts:
        ocean: {{files: "{folder}/ocean_*.nc", variables: [sst, mask], fill: 280.0}}
        air:
          files: "{folder}/air_*.nc"
          variables: {{wind: u}}
          counts: {{variable: land, below: 0.5}}
          fill: nearest
    """
    parser = ArgumentParser()
    parser.add_argument("--common", type=CommonGrid)
    found = parser.instantiate(parser.parse_string(text)).common
    assert found.parts["air"] == declared(folder).parts["air"]
    assert xr.open_zarr(prepare(found)[1], consolidated=False).sst.min() == 280
