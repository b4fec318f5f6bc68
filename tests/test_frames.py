"""Fields of later and earlier frames, and frames by their dates, against whole arrays."""

import numpy as np
import pytest
import xarray as xr

from map2map.baselines import same_arrays
from map2map.derived import Increment
from map2map.errors import FieldError, RecipeError, SourceError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.runs import Files, Runs
from map2map.windows import Window

NDIM = 2
DOMAIN = Domain(NDIM, periodic=False, frames=1)


def weather(start="2019-12-30", hours=6, frames=12, shape=(4, 5), levels=3, seed=0, drop=()):
    rng = np.random.default_rng(seed)
    times = np.datetime64(start, "ns") + np.arange(frames) * np.timedelta64(hours, "h")
    kept = [k for k in range(frames) if k not in drop]
    size = (frames, levels, *shape)
    data = xr.Dataset(
        {
            "t": (("time", "level", "latitude", "longitude"), rng.normal(size=size)),
            "p": (("time", "latitude", "longitude"), rng.normal(size=(frames, *shape))),
            "mask": (("latitude", "longitude"), rng.integers(0, 2, shape) * 1.0),
        },
        {
            "time": times,
            "latitude": np.linspace(-60, 60, shape[0]),
            "longitude": np.arange(shape[1]) * 72.0,
        },
    ).isel(time=kept)
    return data.astype(np.float32)


def whole(found, name, k):
    source, variable = found.source(name, k)
    shape = source.stored(variable).shape
    out = np.empty((source.stored(variable).channels, *shape), np.float32)
    source.read(variable, Window.whole(shape), out)
    return out


def opened(place, later="6h", only=None, domain=DOMAIN, **more):
    path = str(place)
    patterns = {
        "t": Files(path, only=only),
        "p": path,
        "mask": path,
        "t_next": Files(path, "t", later=later),
    } | more
    return Runs([Field("t"), Field("p"), Field("mask")], [Field("t_next")], patterns, domain)


@pytest.fixture(params=["zarr2", "zarr3", "nc"])
def store(request, tmp_path):
    data = weather()
    if request.param == "nc":
        data.to_netcdf(tmp_path / "w.nc")
        return data, tmp_path / "w.nc"
    data.to_zarr(tmp_path / "w.zarr", zarr_format=int(request.param[-1]), consolidated=False)
    return data, tmp_path / "w.zarr"


@pytest.mark.parametrize(("later", "steps"), [("6h", 1), ("24h", 4), ("1 day", 4), (3, 3)])
def test_a_later_field_is_the_frame_so_much_later_and_runs_without_it_are_left_out(
    store, later, steps
):
    data, path = store
    found = opened(path, later)
    assert [run.frame for run in found] == list(range(12 - steps))
    for k in (0, 5, len(found) - 1):
        np.testing.assert_array_equal(whole(found, "t", k), data.t[k])
        np.testing.assert_array_equal(whole(found, "p", k)[0], data.p[k])
        np.testing.assert_array_equal(whole(found, "mask", k)[0], data.mask)
        np.testing.assert_array_equal(whole(found, "t_next", k), data.t[k + steps])


@pytest.mark.parametrize(("later", "steps"), [("-6h", 1), (" -1 day", 4), (-3, 3)])
def test_an_earlier_field_is_the_frame_so_much_earlier_and_runs_without_it_are_left_out(
    store, later, steps
):
    data, path = store
    patterns = {"t": str(path), "t_before": Files(str(path), "t", later=later)}
    patterns |= {"t_next": Files(str(path), "t", later="6h")}
    found = Runs([Field("t"), Field("t_before")], [Field("t_next")], patterns, DOMAIN)
    # the first frames have nothing before them, the last one nothing behind it
    assert [run.frame for run in found] == list(range(steps, 11))
    for k, run in enumerate(found):
        np.testing.assert_array_equal(whole(found, "t", k), data.t[run.frame])
        np.testing.assert_array_equal(whole(found, "t_before", k), data.t[run.frame - steps])
        np.testing.assert_array_equal(whole(found, "t_next", k), data.t[run.frame + 1])


def test_earlier_frames_are_found_by_their_times_and_are_of_the_dates_asked_for(tmp_path):
    # no frame of 2019-12-31T06, number 5
    data = weather(drop=(5,))
    data.to_netcdf(tmp_path / "w.nc")
    path = str(tmp_path / "w.nc")
    patterns = {"t": Files(path, only={"time": "2019-12-31:2020-01-01"})}
    patterns |= {"before": Files(path, "t", later="-12h")}
    found = Runs([Field("t"), Field("before")], [], patterns, DOMAIN)
    read = [(run.frame, run.later["before"]) for run in found]
    times, half_a_day = data.time.values, np.timedelta64(12, "h")
    first = np.datetime64("2019-12-31")
    expected = [
        (k, list(times).index(t - half_a_day))
        for k, t in enumerate(times)
        if t - half_a_day in times and t - half_a_day >= first
    ]
    assert read == expected
    assert len(read) == 5


def test_of_several_frames_of_an_array_the_present_one_persists(store):
    _, path = store
    files = {"t": str(path)}
    steps = {"before": "-6h", "long_before": "-12h", "next": "6h"}
    files |= {name: Files(str(path), "t", later=later) for name, later in steps.items()}
    for inputs in (["long_before", "t", "before"], ["before", "long_before"]):
        some = {name: files[name] for name in (*inputs, "next")}
        found = Runs([Field(name) for name in inputs], [Field("next")], some, DOMAIN)
        assert same_arrays(found) == {"next": "t" if "t" in inputs else "before"}


def test_an_increment_is_learnt_from_frames_and_masked_where_there_is_land(store):
    data, path = store
    derived = {"change": Increment("p_next", "p", mask="mask")}
    patterns = {"p": str(path), "mask": str(path), "p_next": Files(str(path), "p", later="12h")}
    found = Runs([Field("p")], [Field("change")], patterns, DOMAIN, derived=derived)
    assert len(found) == 10
    for k in (0, 9):
        p = data.p.values.astype(np.float64)
        expected = np.where(data["mask"] > 0.5, p[k + 2] - p[k], np.nan)
        np.testing.assert_allclose(whole(found, "change", k)[0], expected, rtol=1e-6)


def test_several_files_without_frames_that_are_so_much_later_are_refused(tmp_path):
    for k in range(2):
        weather().to_netcdf(tmp_path / f"w_{k}.nc")
    with pytest.raises(SourceError, match=r"none of 2 .* has frames \(t_next 12\) and"):
        opened(tmp_path / "w_*.nc", 12)


def test_steps_across_a_gap_are_left_out(tmp_path):
    # no frame of 2019-12-31T06
    data = weather(drop=(5,))
    data.to_netcdf(tmp_path / "w.nc")
    found = opened(tmp_path / "w.nc", "12h")
    times = data.time.values
    starts = [k for k, t in enumerate(times) if t + np.timedelta64(12, "h") in times]
    assert [run.frame for run in found] == starts
    for k, run in enumerate(found):
        later = data.t.sel(time=times[run.frame] + np.timedelta64(12, "h"))
        np.testing.assert_array_equal(whole(found, "t_next", k), later)


def test_dates_choose_frames_and_no_pair_leaves_them(store):
    data, path = store
    found = opened(path, "6h", {"time": "2019-12-30T06:2019-12-31"})
    assert [run.frame for run in found] == list(range(1, 7))  # up to 12-31T12, with T18 later
    # years, as numbers; every second of those that have a later one
    for dates in (2020, [2020], ["2020"]):
        every = Domain(NDIM, periodic=False, frames=2)
        found = opened(path, "6h", {"time": dates}, every)
        assert [run.frame for run in found] == [8, 10]
        np.testing.assert_array_equal(whole(found, "t_next", 1), data.t[11])


def test_two_splits_share_no_frame(store):
    _, path = store
    read = []
    for year in (2019, 2020):
        found = opened(path, "6h", {"time": year})
        read.append({n for run in found for n in (run.frame, *run.later.values())})
    assert read == [set(range(8)), set(range(8, 12))]


def test_several_fields_may_be_of_several_steps(store):
    data, path = store
    fields = [Field("soon"), Field("late")]
    files = {"p": str(path), "soon": Files(str(path), "t", later="6h")}
    files |= {"late": Files(str(path), "p", later="18h")}
    found = Runs([Field("p")], fields, files, DOMAIN)
    assert len(found) == 9
    np.testing.assert_array_equal(whole(found, "soon", 8), data.t[9])
    np.testing.assert_array_equal(whole(found, "late", 8)[0], data.p[11])


def test_of_files_that_are_years_those_are_taken_that_have_the_dates(tmp_path):
    for year in (2018, 2019, 2020):
        weather(f"{year}-06-01", frames=3, seed=year).to_netcdf(tmp_path / f"{year}.nc")
    found = opened(tmp_path / "*.nc", "6h", {"time": [2018, 2020]})
    assert [(run.path.stem, run.frame) for run in found] == [
        ("2018", 0), ("2018", 1), ("2020", 0), ("2020", 1),
    ]  # fmt: skip
    with pytest.raises(SourceError, match=r"none of 3 files.* has frames of .*2021"):
        opened(tmp_path / "*.nc", "6h", {"time": 2021})


def test_placeholders_and_dates_are_told_apart(tmp_path):
    for seed in (1, 2):
        weather(seed=seed).to_netcdf(tmp_path / f"run{seed}.nc")
    path = str(tmp_path / "run{seed}.nc")
    only = {"seed": [2], "time": 2020}
    patterns = {"t": Files(path, only=only), "t_next": Files(path, "t", {"seed": [2]}, later=1)}
    found = Runs([Field("t")], [Field("t_next")], patterns, DOMAIN)
    assert [(run.path.stem, run.frame) for run in found] == [("run2", k) for k in (8, 9, 10)]


@pytest.mark.parametrize(
    ("later", "only", "error", "message"),
    [
        ("7h", None, RecipeError, r"step of 7h .*every 6:00:00; use a multiple .*6:00:00"),
        ("90 days", None, RecipeError, "no frame has another one 90 days later: there are 12"),
        (0, None, RecipeError, "`later` is 0 frames, but must be 1 or more"),
        (-12, None, RecipeError, "no frame of .* is left: 12 of 12"),
        ("-7h", None, RecipeError, r"step of 7h .*every 6:00:00"),
        ("- 6h ago", None, RecipeError, "'6h ago' is no duration|is no duration"),
        (12, None, RecipeError, "no frame of .* is left: 12 of 12"),
        ("6h", {"time": 2021}, RecipeError, "no frames in 2021: .* from 2019-12-30T00"),
        ("6h", {"tim": 2020}, RecipeError, "names 'tim', .* axis of frames .* is 'time'"),
        ("24h", {"time": "2019-12-30"}, RecipeError, r"no frame of .* is left: 4 of 12"),
        ("6h", {"time": "last year"}, RecipeError, "'last year' is no date"),
    ],
)
def test_what_cannot_be_is_refused(store, later, only, error, message):
    with pytest.raises(error, match=message):
        opened(store[1], later, only)


def test_what_has_no_times_is_refused(tmp_path):
    plain = weather().drop_vars("time")
    plain.to_netcdf(tmp_path / "plain.nc")
    with pytest.raises(
        FieldError, match=r"axis of frames 'time' of .* has no coordinates.*later: 1"
    ):
        opened(tmp_path / "plain.nc", "6h")
    assert len(opened(tmp_path / "plain.nc", 1)) == 11
    days = weather()
    days["time"] = ("time", np.arange(12.0))
    days.to_netcdf(tmp_path / "days.nc")
    with pytest.raises(FieldError, match="without units"):
        opened(tmp_path / "days.nc", "6h")
    with pytest.raises(FieldError, match=r"set data.domain.frames: 1"):
        opened(tmp_path / "plain.nc", 1, domain=Domain(NDIM, periodic=False))
    with pytest.raises(FieldError, match=r"mask_next of .* has no axis of frames"):
        Runs(
            [Field("t")],
            [Field("mask_next")],
            {"t": str(tmp_path / "plain.nc"),
             "mask_next": Files(str(tmp_path / "plain.nc"), "mask", later=1)},
            DOMAIN,
        )  # fmt: skip
