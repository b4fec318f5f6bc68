"""Rollouts of emulators that are known exactly: shifts along the globe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from map2map import rollout as module
from map2map.arrays import Settings
from map2map.cli import main
from map2map.derived import Combination, Coordinate
from map2map.emulator import Emulator
from map2map.engine import Running
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.feeds import check_kept, feed_of
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.lead_scores import later_truths, lead_scores
from map2map.models import FlowMatching
from map2map.noise import Noise
from map2map.physics.spectra import power_spectrum
from map2map.report import leads as leads_page
from map2map.rollout import inputs_of, rollout, write_rollout
from map2map.runs import Files, Runs
from map2map.sources import Axis, ZarrSource
from map2map.told import Told

ROWS, CELLS, STEPS, FRAMES = 4, 12, 5, 9
DOMAIN = Domain(2, periodic=True, frames=1)
FEED = {"t_next": "t"}
SPEC = {
    "class_path": "torch.nn.Conv2d",
    "init_args": {"in_channels": 3, "out_channels": 2, "kernel_size": 3},
}
LATITUDES = np.array([-60.0, -20.0, 20.0, 60.0])
AMPLITUDES = np.array([1.0, 2.0, 3.0, 0.5])


def shift(add=0.0, forced=0.0, domain=DOMAIN):
    """Moves both channels of t one cell on, adds a number, and a share of a mask."""
    model = nn.Conv2d(3, 2, 3)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 0, 1, 0] = model.weight[1, 1, 1, 0] = 1
        model.weight[:, 2, 1, 1] = forced
        model.bias.fill_(add)
    inputs = FieldSet((Field("t", "K", "scalar", 2), Field("mask", "1", "scalar", 1)))
    targets = FieldSet((Field("t_next", "K", "scalar", 2),))
    return Emulator(inputs, targets, {}, model, domain, SPEC).eval()


def waves():
    """Waves that move one cell per frame, in two channels: (time, level, latitude, longitude)."""
    k, x = np.arange(FRAMES)[:, None, None], np.arange(CELLS)
    wave = AMPLITUDES[:, None] * np.sin(2 * np.pi * (x - k) / CELLS)
    return np.stack([wave, 10 * wave], axis=1).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    times = np.datetime64("2020-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(6, "h")
    xr.Dataset(
        {
            "t": (("time", "level", "latitude", "longitude"), waves(), {"units": "K"}),
            "mask": (("latitude", "longitude"), np.ones((ROWS, CELLS), np.float32)),
        },
        {"time": times, "latitude": LATITUDES, "longitude": np.arange(CELLS) * 30.0},
    ).to_zarr("w.zarr", zarr_format=2, consolidated=True)
    emulator = shift(add=0.25)
    emulator.training_record = {
        "recipe": {
            "data": {
                "train": {
                    "t": {"pattern": "w.zarr", "only": {"time": "2020-01-01:2020-01-02"}},
                    "mask": "w.zarr",
                    "t_next": {"pattern": "w.zarr", "variable": "t", "later": "6h"},
                }
            }
        },
        "files": {"train": [{"t_next": {"path": "w.zarr"}}]},
    }
    emulator.save("e.safetensors")
    return emulator


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_steps_follow_one_another_and_what_is_not_fed_is_kept(kind):
    rng = np.random.default_rng(0)
    t = rng.normal(size=(2, ROWS, CELLS)).astype(np.float32)
    mask = rng.normal(size=(ROWS, CELLS)).astype(np.float32)
    fields = {"t": kind(t), "mask": kind(mask)}
    found = list(rollout(shift(add=0.5, forced=2.0), fields, STEPS, FEED))
    expected = t
    for k in range(STEPS):
        expected = np.roll(expected, 1, axis=-1) + 2 * mask + 0.5
        assert isinstance(found[k]["t_next"], type(fields["t"]))
        np.testing.assert_allclose(found[k]["t_next"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fields["t"], t)  # what was given is as it was


def test_it_is_written_with_the_times_that_it_is_valid_at(here, tmp_path):
    emulator = shift(forced=0.0)
    runs = Runs(list(emulator.inputs), [], dict.fromkeys(("t", "mask"), "w.zarr"), DOMAIN)
    for name in ("out.zarr", "out.nc"):
        write_rollout(emulator, runs, STEPS, FEED, tmp_path / name, step="6h")
        how = {"consolidated": False} if name.endswith("zarr") else {}
        with xr.open_dataset(name, **({"engine": "zarr"} | how if how else {})) as made:
            np.testing.assert_allclose(made.t_next, waves()[1 : STEPS + 1], atol=1e-5)
            expected = np.datetime64("2020-01-01") + np.arange(1, 6) * np.timedelta64(6, "h")
            np.testing.assert_array_equal(made.time, expected)
            assert made.t_next.attrs["units"] == "K"
            np.testing.assert_array_equal(made.latitude, LATITUDES)


def break_at(monkeypatch, step):
    """Let the step break off as if somebody had stopped it; tells how many steps were begun."""
    count, overlapping = [], module.overlapping

    def breaks(*args):
        count.append(1)
        if len(count) == step:
            raise KeyboardInterrupt
        return overlapping(*args)

    monkeypatch.setattr(module, "overlapping", breaks)
    return count


def test_it_is_written_whole_or_not_at_all(here, tmp_path, monkeypatch):
    emulator = shift()
    runs = Runs(list(emulator.inputs), [], dict.fromkeys(("t", "mask"), "w.zarr"), DOMAIN)
    before = sorted(tmp_path.iterdir())
    break_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        write_rollout(emulator, runs, STEPS, FEED, tmp_path / "out.zarr")
    assert sorted(tmp_path.iterdir()) == before


def remembering_of_a_channel(tmp_path):
    """An emulator of the frame before, too: its runs, and what feeds what."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 1, 3)
    inputs = FieldSet(tuple(Field(name, "K", "scalar", 1) for name in ("t", "before", "mask")))
    targets = FieldSet((Field("t_next", "K", "scalar", 1),))
    spec = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 3, "out_channels": 1,
            "kernel_size": 3}}  # fmt: skip
    emulator = Emulator(inputs, targets, {}, model, DOMAIN, spec).eval()
    patterns = {
        "t": Files("one.zarr", "t"),
        "before": Files("one.zarr", "t", later=-1),
        "mask": Files("w.zarr"),
    }
    one_channel()
    runs = Runs(list(inputs), [], patterns, DOMAIN)
    return emulator, runs, {"t_next": "t", "t": "before"}


@pytest.mark.parametrize("name", ["out.zarr", "out.nc"])
@pytest.mark.parametrize("broken", [2, 4, 5])
def test_a_rollout_that_broke_off_goes_on_behind_the_finished_steps(
    here, tmp_path, monkeypatch, broken, name
):
    emulator, runs, feed = remembering_of_a_channel(tmp_path)
    settings = Settings(tile=(2, 12))
    write_rollout(emulator, runs, STEPS, feed, tmp_path / "whole.nc", settings=settings)
    files = {path.name for path in tmp_path.iterdir()}
    out = tmp_path / name
    with monkeypatch.context() as patch:
        break_at(patch, broken)
        with pytest.raises(KeyboardInterrupt):
            write_rollout(emulator, runs, STEPS, feed, out, settings=settings)
    assert not out.exists()
    with pytest.raises(SaveError, match=f"broke off with {broken - 1} of 5 steps .*--resume"):
        write_rollout(emulator, runs, STEPS, feed, out)
    with pytest.raises(SaveError, match="steps 5, not 4"):
        write_rollout(emulator, runs, STEPS - 1, feed, out, resume=True)
    steps = break_at(monkeypatch, 99)
    write_rollout(emulator, runs, STEPS, feed, out, resume=True)
    assert len(steps) == STEPS - broken + 1
    how = {"engine": "zarr", "consolidated": False} if name.endswith("zarr") else {}
    with xr.open_dataset(name, **how) as made, xr.open_dataset("whole.nc") as whole:
        np.testing.assert_array_equal(made.t_next, whole.t_next)
    assert {path.name for path in tmp_path.iterdir()} == files | {name}


def test_another_emulator_does_not_go_on_with_a_rollout(here, tmp_path, monkeypatch):
    emulator = shift()
    runs = Runs(list(emulator.inputs), [], dict.fromkeys(("t", "mask"), "w.zarr"), DOMAIN)
    with monkeypatch.context() as patch:
        break_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            write_rollout(emulator, runs, STEPS, FEED, tmp_path / "out.zarr")
    with pytest.raises(SaveError, match="had emulator"):
        write_rollout(shift(1.0), runs, STEPS, FEED, tmp_path / "out.zarr", resume=True)
    write_rollout(shift(1.0), runs, STEPS, FEED, tmp_path / "out.zarr", overwrite=True)
    with xr.open_zarr("out.zarr", consolidated=False) as made:
        np.testing.assert_allclose(made.t_next[0], waves()[1] + 1, atol=1e-5)


def test_the_command_goes_on_with_a_rollout_that_broke_off(here, capsys, monkeypatch):
    argv = ["rollout", "e.safetensors", "w.zarr", "--steps", "3", "-o"]
    assert main([*argv, "whole.nc"]) == 0
    with monkeypatch.context() as patch:
        break_at(patch, 3)
        assert main([*argv, "out.zarr"]) == 130
    assert main([*argv, "out.zarr"]) == 2
    assert "broke off with 2 of 3 steps finished" in capsys.readouterr().err
    assert main([*argv, "out.zarr", "--resume", "--only", "time=2020-01-02"]) == 2
    assert "the run that broke off had start" in capsys.readouterr().err
    steps = break_at(monkeypatch, 99)
    assert main([*argv, "out.zarr", "--resume"]) == 0
    assert len(steps) == 1
    with xr.open_zarr("out.zarr", consolidated=False) as made, xr.open_dataset("whole.nc") as whole:
        np.testing.assert_array_equal(made.t_next, whole.t_next)
    assert main([*argv[:-1], "--resume", "--truth"]) == 2
    assert "give -o" in capsys.readouterr().err


def weighted(values):
    w = np.cos(np.deg2rad(LATITUDES))
    return (w * values).sum() / w.sum()


def test_scores_by_lead_are_those_in_closed_form(here):
    add, leads = 0.25, np.arange(1, STEPS + 1)
    patterns = {"t": Files("w.zarr"), "mask": Files("w.zarr")}
    runs = later_truths(here, patterns, FEED, STEPS, "6h")
    assert len(runs) == FRAMES - STEPS
    usual = {"t_next": np.zeros((2, ROWS, CELLS))}
    scores = lead_scores(here, runs, FEED, STEPS, usual)
    assert list(scores.channel.values) == ["t_next[0]", "t_next[1]"]
    for channel, factor in enumerate((1, 10)):
        found = scores.isel(channel=channel)
        power = weighted(AMPLITUDES**2) * factor**2 / 2
        of = {m: found.sel({"method": m}) for m in ("emulator", "persistence", "climatology")}
        np.testing.assert_allclose(of["emulator"].rmse, leads * add, rtol=1e-4)
        np.testing.assert_allclose(of["emulator"].bias, leads * add, rtol=1e-4)
        acc = np.sqrt(power / (power + (leads * add) ** 2))
        np.testing.assert_allclose(of["emulator"].acc, acc, rtol=1e-5)
        angle = 2 * np.pi * leads / CELLS
        expected = np.sqrt(4 * power) * np.sin(angle / 2)
        np.testing.assert_allclose(of["persistence"].rmse, expected, rtol=1e-5)
        np.testing.assert_allclose(of["persistence"].acc, np.cos(angle), atol=1e-5)
        np.testing.assert_allclose(of["climatology"].rmse, np.sqrt(power), rtol=1e-5)
        assert of["climatology"].acc.isnull().all()


def test_the_command_takes_feed_step_and_climatology_from_the_card(here, capsys):
    assert feed_of(here, {"t": Files("w"), "t_next": Files("w", "t", later=1)}) == FEED
    start = ["--only", "time=2020-01-01T06:2020-01-03", "--steps", "3"]
    assert main(["rollout", "e.safetensors", "w.zarr", *start, "-o", "f.nc", "--truth"]) == 0
    assert "RMSE, persistence" in capsys.readouterr().out
    with xr.open_dataset("f.nc") as made:
        expected = waves()[2:5] + 0.25 * np.arange(1, 4)[:, None, None, None]
        np.testing.assert_allclose(made.t_next, expected, atol=1e-5)
        assert made.time[0] == np.datetime64("2020-01-01T12")
    with xr.open_dataset("rollout.nc") as scores:
        assert scores.attrs["starts"] == FRAMES - 1 - 3
        found = scores.rmse.sel({"method": "emulator"}).isel(channel=0)
        np.testing.assert_allclose(found, [0.25, 0.5, 0.75], rtol=1e-4)
        # of the frames that targets had in training, 1 to 7
        error = np.square(waves()[1:8].mean(axis=0) - waves()[2:7, None]).mean((0, -1))[0]
        assert error.shape == (2, ROWS)
        first = scores.rmse.sel({"method": "climatology", "lead": 1}).isel(channel=0)
        starts, truth = waves()[1:8, 0].mean(axis=0), waves()[2:7, 0]
        mse = np.mean([weighted(np.square(starts - one).mean(-1)) for one in truth])
        assert float(first) == pytest.approx(np.sqrt(mse), rel=1e-5)


def test_evaluate_takes_later_targets_from_the_card_and_names_what_persists(here):
    assert main(["evaluate", "e.safetensors", "w.zarr", "--metrics", "pointwise"]) == 0
    explicit = ["t=w.zarr", "mask=w.zarr", "t_next=w.zarr::t@+6h", "-o", "two.nc"]
    assert main(["evaluate", "e.safetensors", *explicit, "--metrics", "pointwise"]) == 0
    for name in ("scores.nc", "two.nc"):
        with xr.open_dataset(name) as scores:
            assert scores.sizes["run"] == FRAMES - 1
            found = scores.rmse.sel({"field": "t_next"})
            np.testing.assert_allclose(found.sel({"method": "emulator"}), 0.25, rtol=1e-4)
            change = np.sqrt(np.square(np.diff(waves(), axis=0)).mean((1, 2, 3)))
            np.testing.assert_allclose(found.sel({"method": "persistence"}), change, rtol=1e-4)


def remembering():
    """What t was before is added to it, of two frames of one channel: 2 t - t before, say."""
    model = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        model.weight[0, :, 0, 0] = torch.tensor([2.0, -0.5])
    inputs = FieldSet((Field("t", "K", "scalar", 1), Field("before", "K", "scalar", 1)))
    targets = FieldSet((Field("t_next", "K", "scalar", 1),))
    spec = {
        "class_path": "torch.nn.Conv2d",
        "init_args": {"in_channels": 2, "out_channels": 1, "kernel_size": 1, "bias": False},
    }
    return Emulator(inputs, targets, {}, model, DOMAIN, spec).eval()


def learnt_with(later):
    return {
        "t": Files("w.zarr"),
        "before": Files("w.zarr", "t", later=later),
        "t_next": Files("w.zarr", "t", later="6h"),
    }


def test_an_earlier_input_becomes_what_the_present_one_was():
    emulator = remembering()
    feed = feed_of(emulator, learnt_with("-6h"))
    assert feed == {"t_next": "t", "t": "before"}
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(2, 1, ROWS, CELLS)).astype(np.float32)
    for made in rollout(emulator, {"t": now, "before": before}, 4, feed):
        before, now = now, 2 * now - 0.5 * before
        np.testing.assert_allclose(made["t_next"], now, rtol=1e-5, atol=1e-5)


def test_an_earlier_input_that_is_no_whole_step_away_is_refused():
    for later in ("-12h", "-3h", -1):
        with pytest.raises(FieldError, match=r"'before' is .* no input is what it becomes"):
            feed_of(remembering(), learnt_with(later))


def test_rollouts_with_earlier_inputs_are_scored_and_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    times = np.datetime64("2020-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(size=(FRAMES, ROWS, CELLS)).astype(np.float32)
    coords = {"time": times, "latitude": LATITUDES, "longitude": np.arange(CELLS) * 30.0}
    xr.Dataset({"t": (("time", "latitude", "longitude"), values)}, coords).to_netcdf("w.nc")
    emulator = remembering()
    train = {"t": "w.nc", "before": {"pattern": "w.nc", "variable": "t", "later": "-6h"}}
    train |= {"t_next": {"pattern": "w.nc", "variable": "t", "later": "6h"}}
    emulator.training_record = {"recipe": {"data": {"train": train}}}
    emulator.save("e.safetensors")
    assert main(["rollout", "e.safetensors", "w.nc", "--steps", "2", "--truth", "-o", "f.nc"]) == 0
    with xr.open_dataset("f.nc") as made:
        first = 2 * values[1] - 0.5 * values[0]
        np.testing.assert_allclose(made.t_next[0], first, rtol=1e-5, atol=1e-5)
        second = 2 * first - 0.5 * values[1]
        np.testing.assert_allclose(made.t_next[1], second, rtol=1e-5, atol=1e-5)
        assert made.time[0] == np.datetime64("2020-01-01T12")
    with xr.open_dataset("rollout.nc") as scores:
        assert scores.attrs["starts"] == FRAMES - 1 - 2
    # applied to a file, outputs have the times of the frames that have one before them
    assert main(["apply", "e.safetensors", "w.nc", "-o", "a.nc"]) == 0
    with xr.open_dataset("a.nc") as made:
        np.testing.assert_array_equal(made.time, times[1:])
        expected = 2 * values[1:] - 0.5 * values[:-1]
        np.testing.assert_allclose(made.t_next, expected, rtol=1e-5, atol=1e-5)


def by_area(prediction, truth, usual):
    """RMSE, bias and anomaly correlation of one frame (level, row, cell), in double precision."""
    p, t, u = (np.asarray(x, np.float64) for x in (prediction, truth, usual))
    w = np.cos(np.deg2rad(LATITUDES))[:, None] * np.ones(CELLS)
    mean = [[(w * x).sum() / w.sum() for x in (*(p - t) ** 2,)], [*((w * (p - t)).sum((1, 2)))]]
    sums = [(w * x).sum((1, 2)) for x in ((p - u) * (t - u), (p - u) ** 2, (t - u) ** 2)]
    acc = np.mean(sums[0] / np.sqrt(sums[1] * sums[2]))
    return np.mean(mean[0]) ** 0.5, np.mean(mean[1]) / w.sum(), acc


def test_evaluate_weighs_by_area_where_files_have_latitudes(here):
    start = ["evaluate", "e.safetensors", "w.zarr"]
    assert main([*start, "--metrics", "latitude"]) == 0
    # of the frames that the target had in training
    usual = waves()[1:8].astype(np.float64).mean(axis=0)
    with xr.open_dataset("scores.nc") as scores:
        for method, add in (("emulator", 0.25), ("persistence", None)):
            found = scores.sel({"method": method, "field": "t_next"})
            for k in range(FRAMES - 1):
                made = waves()[k] if add is None else waves()[k + 1] + add
                rmse, bias, acc = by_area(made, waves()[k + 1], usual)
                np.testing.assert_allclose(found.latitude_rmse[k], rmse, rtol=1e-4)
                np.testing.assert_allclose(found.latitude_bias[k], bias, atol=1e-5)
                np.testing.assert_allclose(found.acc[k], acc, rtol=1e-5)
        assert scores.level_acc.sizes["level"] == 2
        # means over cells that are all alike are none by area
        assert abs(found.rmse[0] / found.latitude_rmse[0] - 1) > 0.05
    assert main(["report", "scores.nc"]) == 0
    page = Path("report.html").read_text()
    assert "anomaly correlation" in page
    assert "RMSE by area" in page


def test_a_climatology_may_come_from_files(here):
    months = np.random.default_rng(1).normal(size=(3, 2, ROWS, CELLS))
    usual, dims = months.mean(axis=0), ("month", "level", "latitude", "longitude")
    coords = {"latitude": LATITUDES, "longitude": np.arange(CELLS) * 30.0}
    xr.Dataset({"t": (dims, months)}, coords).to_netcdf("usual.nc")
    start = ["evaluate", "e.safetensors", "w.zarr", "--metrics", "latitude", "--no-training-mean"]
    assert main([*start, "--climatology-files", "t_next=usual.nc::t"]) == 0
    with xr.open_dataset("scores.nc") as scores:
        found = scores.acc.sel({"method": "persistence", "field": "t_next"})
        expected = [by_area(waves()[k], waves()[k + 1], usual)[2] for k in range(FRAMES - 1)]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    xr.Dataset({"t": (dims, months[..., 1:])}).to_netcdf("other.nc")
    assert main([*start, "--climatology-files", "other.nc::t", "--overwrite"]) == 2


def test_scores_by_area_are_refused_without_latitudes_and_left_out_unasked(here, capsys):
    with xr.open_zarr("w.zarr") as data:
        data.rename(latitude="y").to_zarr("flat.zarr", zarr_format=2, consolidated=True)
    start = ["evaluate", "e.safetensors", "flat.zarr", "--no-training-mean"]
    assert main([*start, "--metrics", "latitude"]) == 2
    assert "needs an axis of latitudes" in capsys.readouterr().err
    assert main([*start, "--metrics", "pointwise", "conservation"]) == 0
    with xr.open_dataset("scores.nc") as scores:
        assert not [name for name in scores if "latitude" in name or "acc" in name]


@pytest.mark.parametrize(
    ("feed", "error", "message"),
    [
        ({}, FieldError, "outputs feed nothing"),
        ({"t_next": "mask"}, FieldError, r"'t_next' \[K\] of 2 channels cannot feed 'mask'"),
        ({"next": "t"}, FieldError, "has no 'next'.*t_next"),
        ({"t_next": "temp"}, FieldError, "has no 'temp'"),
    ],
)
def test_what_cannot_feed_is_refused(feed, error, message):
    fields = {"t": np.zeros((2, ROWS, CELLS)), "mask": np.zeros((ROWS, CELLS))}
    with pytest.raises(error, match=message):
        next(rollout(shift(), fields, 1, feed))


def test_outputs_that_are_smaller_and_no_steps_are_refused():
    fields = {"t": np.zeros((2, ROWS, CELLS)), "mask": np.zeros((ROWS, CELLS))}
    with pytest.raises(RecipeError, match="1 step or more, not 0"):
        next(rollout(shift(), fields, 0, FEED))
    small = shift(domain=Domain(2, periodic=False, frames=1))
    with pytest.raises(GeometryError, match="output is as large"):
        list(rollout(small, fields, 2, FEED))


def test_the_command_refuses_what_it_cannot_do(here, capsys):
    zarr = ["rollout", "e.safetensors", "w.zarr", "--steps", "2"]
    ZarrSource("w.zarr")
    for more, message in (
        ([], "give -o to write a rollout, or --truth"),
        (["-o", "w.zarr"], "exists already"),
        (["-o", "x.nc", "--feed", "t"], "is not OUTPUT=INPUT"),
        (["--truth", "--only", "time=2021"], "no frames in 2021"),
        (
            ["--truth", "--steps", "20"],
            "no frame has the truth of 20 steps of 6h behind it, 5d in all: there are 9 frames",
        ),
        (["--truth", "--steps", "20"], "take fewer (--steps)"),
        (["-o", "x.nc", "--every", "2"], "--every is of the starts that --truth scores"),
        (["--truth", "--tile", "4"], "--tile is of the tiles of -o"),
        (["--truth", "--memory", "1GiB"], "--memory is of the tiles of -o"),
        (["--truth", "--every", "0"], "--every is 1 or more, not 0"),
        (["-o", "x.nc", "--feed", "t_nex=t"], "has no 't_nex'; did you mean 't_next'?"),
        (["-o", "x.nc", "--feed", "t_next=tt"], "has no 'tt'; did you mean 't'?"),
        (["-o", "x.nc", "--feed", "mask=mask"], "mask"),
    ):
        assert main([*zarr, *more]) == 2
        assert message in capsys.readouterr().err


def one_channel():
    """The first channel of t in a store of its own, without an axis of channels."""
    with xr.open_zarr("w.zarr") as data:
        one = data[["t"]].isel(level=0).load()
    one.t.encoding.clear()
    one.to_zarr("one.zarr", zarr_format=2, consolidated=True)


@pytest.mark.parametrize("tile", [(4, 3), (2, 12), (1, 5)])
def test_tiles_that_are_read_back_from_disk_do_not_show(here, tmp_path, tile):
    """Of an emulator that remembers, looks around, and has a mask that stays."""
    emulator, runs, feed = remembering_of_a_channel(tmp_path)
    model = emulator.model
    settings = Settings(tile=tile)
    write_rollout(emulator, runs, STEPS, feed, tmp_path / "r.zarr", settings=settings)
    t, before = (torch.from_numpy(waves()[k, :1])[None] for k in (1, 0))
    mask, expected = torch.ones(1, 1, ROWS, CELLS), []
    with torch.no_grad():
        for _ in range(STEPS):
            x = torch.nn.functional.pad(torch.cat([t, before, mask], 1), [1] * 4, mode="circular")
            t, before = model(x), t
            expected.append(t[0, 0].numpy())
    with xr.open_zarr("r.zarr", consolidated=False) as made:
        np.testing.assert_allclose(made.t_next, expected, rtol=1e-5, atol=1e-5)
    # nothing is left of what lay on disk in between
    assert not list(tmp_path.glob(".*"))


def two_steps():
    """Moves a wave by one cell, and by two."""
    model = nn.Conv2d(1, 2, 5, bias=False)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 0, 2, 1] = model.weight[1, 0, 2, 0] = 1
    spec = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 1, "out_channels": 2,
            "kernel_size": 5, "bias": False}}  # fmt: skip
    inputs = FieldSet((Field("t", "K", "scalar", 1),))
    targets = FieldSet(tuple(Field(name, "K", "scalar", 1) for name in ("t_6", "t_12")))
    emulator = Emulator(inputs, targets, {}, model, DOMAIN, spec).eval()
    emulator.training_record = {
        "recipe": {
            "data": {
                "train": {
                    "t": {"pattern": "one.zarr", "variable": "t"},
                    "t_6": {"pattern": "one.zarr", "variable": "t", "later": "6h"},
                    "t_12": {"pattern": "one.zarr", "variable": "t", "later": "12h"},
                }
            }
        },
        "files": {"train": [{"t_6": {"path": "one.zarr"}, "t_12": {"path": "one.zarr"}}]},
    }
    return emulator


def test_several_outputs_of_a_step_are_times_one_after_another(here, capsys):
    one_channel()
    two_steps().save("two.safetensors")
    argv = ["rollout", "two.safetensors", "t=one.zarr", "--steps", "3", "--tile", "4", "6"]
    assert main([*argv, "-o", "f.nc", "--truth"]) == 0
    assert "step 6 of 6, each 6h" in capsys.readouterr().out
    with xr.open_dataset("f.nc") as made:
        np.testing.assert_allclose(made.t, waves()[1:7, 0], atol=1e-5)
        hours = (made.time.values - np.datetime64("2020-01-01", "ns")) / np.timedelta64(1, "h")
        np.testing.assert_array_equal(hours, 6 * np.arange(1, 7))
    with xr.open_dataset("rollout.nc") as scores:
        assert list(scores.lead.values) == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(scores.rmse.sel({"method": "emulator"}), 0, atol=1e-5)
        power = weighted(AMPLITUDES**2) / 2
        expected = np.sqrt(4 * power) * np.sin(np.pi * np.arange(1, 7) / CELLS)
        found = scores.rmse.sel({"method": "persistence"}).isel(channel=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_outputs_that_are_not_evenly_spaced_or_feed_nothing_are_refused(here, capsys):
    one_channel()
    emulator = two_steps()
    train = emulator.training_record["recipe"]["data"]["train"]
    train["t_12"]["later"] = "18h"
    emulator.save("odd.safetensors")
    argv = ["rollout", "odd.safetensors", "t=one.zarr", "--steps", "2", "-o", "f.nc"]
    assert main(argv) == 2
    assert "evenly spaced" in capsys.readouterr().err
    for target in ("t_6", "t_12"):
        train[target] |= {"variable": "mask"}
    emulator.save("none.safetensors")
    assert main(["rollout", "none.safetensors", *argv[2:]]) == 2
    assert "nothing is fed back" in capsys.readouterr().err


def growing(factor):
    """Multiplies a field of one channel."""
    model = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(factor)
    inputs = FieldSet((Field("t", "K", "scalar", 1),))
    targets = FieldSet((Field("t_next", "K", "scalar", 1),))
    spec = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 1, "out_channels": 1,
            "kernel_size": 1, "bias": False}}  # fmt: skip
    return Emulator(inputs, targets, {}, model, DOMAIN, spec).eval()


def test_drift_power_and_blow_up_are_told_by_lead(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = 3 + np.random.default_rng(0).normal(size=(7, 1, 8, 6)).astype(np.float32)
    np.save("t.npy", frames)
    emulator = growing(1.5)
    runs = later_truths(emulator, {"t": Files("t.npy")}, FEED, 4, 1)
    assert len(runs) == 3
    scores = lead_scores(emulator, runs, FEED, 4).isel(channel=0)
    for k in range(1, 5):
        at = scores.sel(lead=k)
        starts, truths = frames[:3].astype(float), frames[k : k + 3].astype(float)
        made = starts * 1.5**k
        np.testing.assert_allclose(at.rmse[0], np.sqrt(((made - truths) ** 2).mean()), rtol=1e-5)
        for of, values in (("emulator", made), ("truth", truths)):
            np.testing.assert_allclose(at["mean"].sel(of=of), values.mean(), rtol=1e-5)
            np.testing.assert_allclose(at["rms"].sel(of=of), np.sqrt((values**2).mean()), rtol=1e-5)
            # of white noise in cells of size 1
            mine = [power_spectrum(one[0], 1.0)[1] for one in values]
            np.testing.assert_allclose(at["power"].sel(of=of), np.mean(mine, axis=0), rtol=1e-5)
    assert scores.units.item() == emulator.targets["t_next"].units
    assert scores.power.attrs["units"] == "field^2 L^2"
    # 1.5^3 > 3: all have blown up after three steps
    np.testing.assert_array_equal(scores.lasting, [1, 1, 0, 0])


def test_what_is_not_finite_ends_a_rollout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("t.npy", np.ones((7, 1, 8, 6), np.float32))
    emulator = growing(1e20)
    with pytest.raises(FieldError, match="'t_next' is NaN or infinite after step 2 of 4"):
        list(rollout(emulator, {"t": np.ones((1, 8, 6))}, 4, FEED))
    runs = later_truths(emulator, {"t": Files("t.npy")}, FEED, 4, 1)
    with pytest.raises(FieldError, match="after step 2 of 4: the rollout blew up"):
        write_rollout(emulator, runs, 4, FEED, tmp_path / "out.nc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.npy"]
    with np.errstate(all="ignore"):
        scores = lead_scores(emulator, runs, FEED, 4).isel(channel=0)
    assert np.isnan(scores.rmse.sel({"method": "emulator"})[2:]).all()
    assert np.isfinite(scores.rmse.sel({"method": "persistence"})).all()
    np.testing.assert_array_equal(scores.lasting, 0)


def test_the_report_of_rollouts_tells_errors_energy_and_when_they_blow_up(m2m, tmp_path):
    frames = 3 + np.random.default_rng(0).normal(size=(9, 1, 8, 6)).astype(np.float32)
    np.save("t.npy", frames)
    growing(1.5).save("e.safetensors")
    argv = ["rollout", "e.safetensors", "t=t.npy", "--feed", "t_next=t", "--step", "1"]
    status, _, err = m2m(*argv, "--steps", "4", "--truth", "s.nc")
    assert status == 0, err
    status, _, err = m2m("report", "s.nc", "--pdf", "pdf")
    assert status == 0, err
    page = (tmp_path / "report.html").read_text()
    assert "5 of 5 rollouts blow up" in page
    assert "the first after 3 steps" in page
    assert page.count("<svg") == 3
    ratio = np.sqrt((frames[:5] ** 2).mean() / (frames[4:9] ** 2).mean()) * 1.5**4
    assert f"{ratio:.2f} times the truth" in page
    assert "the rollout gains energy" in page
    assert sorted(p.name for p in (tmp_path / "pdf").iterdir()) == [
        "lead-energy.pdf", "lead-power.pdf", "lead-rmse.pdf"
    ]  # fmt: skip
    status, _, err = m2m("report", "s.nc", "--figures", "pdf", "--overwrite")
    assert status == 2
    assert "of rollouts" in err


def scored(errors, tmp_path):
    """The page of errors of the emulator, persistence and climatology: (method, lead, channel)."""
    errors = np.array(errors, float)
    _, leads, channels = errors.shape
    level = np.ones((2, leads, channels))
    data = xr.Dataset(
        {
            "rmse": (("method", "lead", "channel"), errors),
            "mean": (("of", "lead", "channel"), level),
            "rms": (("of", "lead", "channel"), level * [[[0.5]], [[1.0]]]),
            "lasting": (("lead", "channel"), np.ones((leads, channels))),
        },
        {
            "method": ["emulator", "persistence", "climatology"],
            "of": ["emulator", "truth"],
            "lead": np.arange(1, leads + 1),
            "channel": list("abc"[:channels]),
        },
        {"starts": 12, "step": "6h"},
    )
    made = leads_page.content(leads_page.lead_scores(tmp_path / "s.nc", data))
    return made, leads_page.headline(made.scores), leads_page.warnings(made.scores)


def test_the_report_tells_how_long_which_method_is_beaten(tmp_path):
    own = [1, 3, 5, 7, 9, 9, 9, 9]
    made, headline, warnings = scored([[[n] for n in own], [[8]] * 8, [[4]] * 8], tmp_path)
    assert "is 12.5 % of persistence's" in headline[0]
    assert "below persistence's for 4 steps and below climatology's for 2 steps." in headline[0]
    assert "loses energy" in warnings[0]
    assert [int(made.scores.leads[k]) for k in made.shown] == [1, 2, 5, 8]
    made, *_ = scored([[[1, 1]] * 12] * 3, tmp_path)
    assert [int(made.scores.leads[k]) for k in made.shown] == [1, 3, 6, 12]
    _, headline, _ = scored([[[2]] * 8, [[1]] * 8, [[4]] * 8], tmp_path)
    assert "so that doing nothing is better" in headline[0]
    _, headline, _ = scored([[[1]] * 8, [[2]] * 8, [[0.5]] * 8], tmp_path)
    assert "below persistence's for all 8 and not below climatology's." in headline[0]


def test_an_input_that_changes_in_time_but_is_not_fed_is_refused(here, capsys):
    """It would be kept as it was at the start, silently."""
    data = xr.open_zarr("w.zarr").load()
    data["mask"] = (xr.ones_like(data.t.isel(level=0)) * data.mask).drop_vars(
        "level", errors="ignore"
    )
    for name in data.variables:
        data[name].encoding.clear()
    data.to_zarr("moving.zarr", zarr_format=2, consolidated=True)
    for more in (["-o", "f.nc"], ["--truth"]):
        assert main(["rollout", "e.safetensors", "moving.zarr", "--steps", "2", *more]) == 2
        assert "'mask' changes in time" in capsys.readouterr().err


class Drawing(nn.Module):
    """Adds normal numbers, and times a style if it has one."""

    def __init__(self, style_chan=0, deviation=1.0):
        super().__init__()
        self.style_chan, self.deviation, self.noise = style_chan, deviation, Noise()
        self.footprint = Footprint(0)

    def forward(self, x, style=None):
        grown = x if style is None else x * style[:, 0].reshape(-1, 1, 1, 1)
        return grown + self.deviation * self.noise(x) if self.deviation else grown


class Styled(nn.Module):
    """Multiplies by its style, and draws nothing."""

    def __init__(self):
        super().__init__()
        self.footprint = Footprint(0)

    def forward(self, x, style):
        return x * style[:, 0].reshape(-1, 1, 1, 1)


def of_model(model, *, styles=(), inputs=("t",), derived=None):
    fields = FieldSet(tuple(Field(name, "K", "scalar", 1) for name in inputs))
    targets = FieldSet((Field("t_next", "K", "scalar", 1),))
    told = FieldSet(tuple(Field(n, kind="parameter").resolved(1, 2) for n in styles))
    spec = {"class_path": "tests.Any", "init_args": {}}
    made = Emulator(fields, targets, {}, model, DOMAIN, spec, derived, told).eval()
    made.style_range = {name: [0.0, 1.0] for name in styles}
    return made


def some_frames(count=4, shape=(8, 6)):
    frames = np.random.default_rng(3).normal(size=(count, 1, *shape)).astype(np.float32)
    np.save("t.npy", frames)
    return frames


def runs_of(emulator, **more):
    return Runs(
        list(emulator.inputs), [], {"t": Files("t.npy")} | more, DOMAIN,
        derived=emulator.derived, styles=list(emulator.styles),
    )  # fmt: skip


def test_a_styled_emulator_is_rolled_out_to_files_as_in_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    frames, emulator = some_frames(), of_model(Styled(), styles=("a",))
    write_rollout(emulator, runs_of(emulator, a=1.5), 3, FEED, tmp_path / "r.nc")
    assert "a = 1.5 is outside the training's 0 to 1" in caplog.text
    with xr.open_dataset("r.nc") as made:
        for k in range(3):
            np.testing.assert_allclose(made.t_next[k], frames[0, 0] * 1.5 ** (k + 1), rtol=1e-6)
        assert made.t_next.attrs["style_a"] == "1.5"
        assert "seed" not in made.t_next.attrs


def test_every_step_and_start_draws_its_own_numbers_in_any_tiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames, emulator = some_frames(), of_model(Drawing())
    settings, tiled = Settings(Running(seed=5)), Settings(Running(seed=5), tile=(3, 4))

    def drawn(start=0, of=settings):
        steps = rollout(emulator, {"t": frames[0]}, 3, FEED, of, start)
        return np.diff([frames[0], *(found["t_next"] for found in steps)], axis=0).ravel()

    numbers = np.concatenate([drawn(), drawn(1), drawn(of=Settings(Running(seed=6)))])
    # as good as no two of independent normal numbers are alike
    assert len(np.unique(np.round(numbers, 4))) > 0.95 * numbers.size
    np.testing.assert_array_equal(drawn(), drawn())
    write_rollout(emulator, runs_of(emulator), 3, FEED, tmp_path / "r.nc", settings=tiled)
    with xr.open_dataset("r.nc") as made:
        expected = [f["t_next"][0] for f in rollout(emulator, {"t": frames[0]}, 3, FEED, settings)]
        np.testing.assert_array_equal(made.t_next, expected)
        assert made.t_next.attrs["seed"] == 5
    # a rollout begins as one application does
    np.testing.assert_array_equal(
        expected[0], emulator.apply({"t": frames[0]}, settings=settings)["t_next"][0]
    )


def test_scores_are_of_rollouts_with_their_own_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames, emulator = some_frames(5), of_model(Drawing())
    runs = later_truths(emulator, {"t": Files("t.npy")}, FEED, 2, 1)
    settings = Settings(Running(seed=2))
    scores = lead_scores(emulator, runs, FEED, 2, settings=settings).isel(channel=0)
    assert scores.attrs["seed"] == 2
    squares = np.zeros(2)
    for start in range(3):
        made = rollout(emulator, {"t": frames[start]}, 2, FEED, settings, start)
        for k, found in enumerate(made):
            squares[k] += ((found["t_next"] - frames[start + k + 1]) ** 2).mean() / 3
    np.testing.assert_allclose(scores.rmse.sel({"method": "emulator"}), squares**0.5, rtol=1e-5)


def test_a_seed_is_given_on_the_command_line(here, tmp_path, capsys):
    torch.manual_seed(0)
    one_channel()
    network = {"network": "ConvNet", "options": {"width": 2, "depth": 1}, "steps": 1}
    spec = {"class_path": "map2map.models.FlowMatching",
            "init_args": {"in_chan": 1, "out_chan": 1, "ndim": 2, **network}}  # fmt: skip
    emulator = of_model(FlowMatching(1, 1, ndim=2, **network))
    emulator.model_spec = spec
    emulator.save("draws.safetensors")
    argv = ["rollout", "draws.safetensors", "t=one.zarr", "--feed", "t_next=t", "--step", "6h"]
    assert main([*argv, "--steps", "2", "-o", "r.nc", "--seed", "4", "--truth"]) == 0
    with xr.open_dataset("r.nc") as made, xr.open_zarr("one.zarr") as data:
        start = {"t": data.t.values[0][None]}
        found = rollout(emulator, start, 2, FEED, Settings(Running(seed=4)))
        expected = [one["t_next"][0] for one in found]
        np.testing.assert_allclose(made.t_next, expected, rtol=1e-5, atol=1e-5)
    with xr.open_dataset("rollout.nc") as scores:
        assert scores.attrs["seed"] == 4
    assert main(["rollout", "e.safetensors", "w.zarr", "--steps", "2", "--seed", "1", "-o", "x.nc"])
    assert "draws no random numbers" in capsys.readouterr().err


def test_the_settings_of_an_emulator_are_those_of_its_rollouts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some_frames()
    emulator = of_model(Drawing())
    emulator.settings = Settings(Running(seed=9))
    write_rollout(emulator, runs_of(emulator), 2, FEED, tmp_path / "own.nc")
    write_rollout(
        emulator, runs_of(emulator), 2, FEED, tmp_path / "given.nc", settings=emulator.settings
    )
    with xr.open_dataset("own.nc") as own, xr.open_dataset("given.nc") as given:
        assert own.t_next.attrs["seed"] == 9
        np.testing.assert_array_equal(own.t_next, given.t_next)


def test_an_input_that_is_computed_from_what_is_fed_is_refused(tmp_path, monkeypatch):
    """It would be kept as it was at the start, silently."""
    monkeypatch.chdir(tmp_path)
    frames = some_frames()
    model = nn.Conv2d(3, 1, 1)
    derived = {
        "half": Combination(["t"], [0.5]),
        "quarter": Combination(["half"], [0.5]),
        "row": Coordinate("t", 0),
    }
    emulator = of_model(model, inputs=("t", "quarter", "row"), derived=derived)
    emulator.domain = replace(DOMAIN, spacing=1.0)
    runs = Runs(
        list(emulator.inputs), [], {"t": Files("t.npy")}, emulator.domain, derived=derived
    )  # fmt: skip
    message = "'quarter' is computed from 'half'|'quarter' is computed from 't'"
    for act in (
        lambda: check_kept(runs, {"t": Files("t.npy")}, FEED),
        lambda: write_rollout(emulator, runs, 2, FEED, tmp_path / "r.nc"),
        lambda: list(rollout(emulator, inputs_of(emulator, runs, 0), 2, FEED)),
    ):
        with pytest.raises(FieldError, match=message):
            act()
    # what is left out is computed anew
    found = list(rollout(emulator, {"t": frames[0]}, 2, FEED))
    t = frames[0]
    for made in found:
        rows = np.broadcast_to(np.arange(8.0)[:, None], (8, 6))
        x = torch.tensor(np.stack([t[0], t[0] / 4, rows]), dtype=torch.float32)
        t = model(x[None])[0].detach().numpy()
        np.testing.assert_allclose(made["t_next"], t, rtol=1e-5, atol=1e-5)


def test_an_input_that_is_computed_from_what_changes_unknown_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("u.npy", some_frames())
    derived = {"half": Combination(["u"], [0.5])}
    inputs = [Field(name, "K", "scalar", 1) for name in ("t", "half")]
    patterns = {"t": Files("t.npy"), "u": Files("u.npy")}
    runs = Runs(inputs, [], patterns, DOMAIN, derived=derived)
    with pytest.raises(FieldError, match=r"'u' changes in time \('half' is computed from it\)"):
        check_kept(runs, patterns, FEED)


def test_a_style_that_is_another_in_each_frame_is_refused(here, capsys):
    one_channel()
    emulator = of_model(Styled(), styles=("a",))
    patterns = {"t": Files("one.zarr", "t"), "a": Told(coordinate=True)}
    runs = Runs(list(emulator.inputs), [], patterns, DOMAIN, styles=list(emulator.styles))
    with pytest.raises(FieldError, match="style 'a' is told by the coordinate of a frame"):
        check_kept(runs, patterns, FEED)
    check_kept(runs, patterns | {"a": 1.0}, FEED)


def test_another_seed_or_style_does_not_go_on_with_a_rollout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    some_frames()
    emulator = of_model(Drawing(), styles=("a",))
    with monkeypatch.context() as patch:
        break_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            write_rollout(emulator, runs_of(emulator, a=0.5), 3, FEED, tmp_path / "r.nc")
    for style, seed, message in ((0.5, 1, "had seed"), (0.75, 0, "had styles")):
        with pytest.raises(SaveError, match=message):
            write_rollout(
                emulator, runs_of(emulator, a=style), 3, FEED, tmp_path / "r.nc",
                settings=Settings(Running(seed=seed)), resume=True,
            )  # fmt: skip
    write_rollout(emulator, runs_of(emulator, a=0.5), 3, FEED, tmp_path / "r.nc", resume=True)
    write_rollout(emulator, runs_of(emulator, a=0.5), 3, FEED, tmp_path / "whole.nc")
    with xr.open_dataset("r.nc") as made, xr.open_dataset("whole.nc") as whole:
        np.testing.assert_array_equal(made.t_next, whole.t_next)


def of_shift_of_files(**later):
    """`shift` as if it had learnt from w.zarr, with or without `later`."""
    emulator = shift(add=0.25)
    train = {"t": "w.zarr", "mask": "w.zarr"}
    train["t_next"] = {"pattern": "w.zarr", "variable": "t", **later}
    emulator.training_record = {"recipe": {"data": {"train": train}}}
    emulator.save("n.safetensors")


def test_a_feed_is_checked_before_the_step_is_looked_for(here, capsys):
    of_shift_of_files()
    argv = ["rollout", "n.safetensors", "w.zarr", "--steps", "2", "-o", "x.nc"]
    for feed, message in (
        ("foo=t", "has no 'foo'"),
        ("t_next=tt", "has no 'tt'; did you mean 't'?"),
        ("t_next=t", "how much later t_next are than what they feed is not known"),
    ):
        assert main([*argv, "--feed", feed]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert "None" not in err
    assert main([*argv, "--feed", "t_next=t", "--step", "6h"]) == 0


def test_counted_steps_of_even_frames_have_their_times(here, tmp_path, capsys):
    of_shift_of_files(later=1)
    argv = ["--only", "time=2020-01-01T12", "--steps", "4"]
    assert main(["rollout", "n.safetensors", "w.zarr", *argv, "-o", "x.nc"]) == 0
    with xr.open_dataset("x.nc") as made:
        expected = np.datetime64("2020-01-01T12") + np.arange(1, 5) * np.timedelta64(6, "h")
        np.testing.assert_array_equal(made.time, expected)
    some_frames(5)
    for values, expected in (
        (0.5 + 0.2 * np.arange(5), [0.9, 1.1, 1.3]),
        (np.arange(0, 50, 10), [20, 30, 40]),
        (np.array([0, 1000, 2000, 3001, 4001]), None),
        (np.array([0.0, 1.0, 2.0, 4.0, 5.0]), None),
    ):
        found = module.valid_times(Axis("time", values), 1, 1, 3)
        assert found.name == ("step" if expected is None else "time")
        np.testing.assert_allclose(found.values, [1, 2, 3] if expected is None else expected)
        assert expected is None or found.values.dtype.kind == values.dtype.kind
    assert module.valid_times(Axis("time", np.arange(4)), 0, 2, 2).values.tolist() == [2, 4]


def test_dates_are_those_of_starts_and_truths_lie_beyond_them(here, capsys):
    scored = []
    for only in (["--only", "time=2020-01-01T06:2020-01-01T18"], []):
        argv = ["w.zarr", *only, "--steps", "4", "--truth", "s.nc", "--overwrite"]
        assert main(["rollout", "e.safetensors", *argv]) == 0
        with xr.open_dataset("s.nc") as made:
            scored.append((made.attrs["starts"], made.rmse.sel(method="persistence").load()))
    assert [starts for starts, _ in scored] == [3, FRAMES - 4]
    patterns = {
        "t": Files("w.zarr", only={"time": "2020-01-01T06:2020-01-01T18"}),
        "mask": Files("w.zarr"),
    }
    assert [run.frame for run in later_truths(here, patterns, FEED, 4, "6h")] == [1, 2, 3]
    within = later_truths(here, patterns, FEED, 2, "6h", within=True)
    assert [run.frame for run in within] == [1]


def test_an_earlier_input_may_lie_before_the_dates_of_the_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    emulator = remembering()
    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(6, "h")
    values = np.random.default_rng(0).normal(size=(6, 6, 5)).astype(np.float32)
    xr.Dataset({"t": (("time", "a", "b"), values)}, {"time": times}).to_netcdf("t.nc")
    only = {"time": "2020-01-01T12"}
    patterns = {
        "t": Files("t.nc", "t", only),
        "before": Files("t.nc", "t", only, later="-6h"),
    }
    runs = later_truths(emulator, patterns, FEED, 2, "6h")
    assert [(run.frame, run.later["before"]) for run in runs] == [(2, 1)]


def test_a_step_that_is_not_the_trainings_is_told(here, caplog):
    argv = ["rollout", "e.safetensors", "w.zarr", "--steps", "2", "--truth", "--overwrite"]
    assert main([*argv, "--step", "360min"]) == 0
    assert "trained to give" not in caplog.text
    assert main([*argv, "--step", "12h"]) == 0
    assert "said to be 12h, but the emulator was trained to give what is 6h later" in caplog.text


def test_styles_outside_the_range_are_told_once_and_kept_in_scores_and_report(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    frames, emulator = some_frames(6), of_model(Styled(), styles=("a",))
    told = "a = 1.5 is outside the training's 0 to 1"
    runs = later_truths(emulator, {"t": Files("t.npy"), "a": 1.5}, FEED, 3, 1)
    scores = lead_scores(emulator, runs, FEED, 3)
    assert caplog.text.count(told) == 1
    assert scores.attrs["styles_outside"].startswith(f"{told} (t.npy, frame 0, ")
    assert scores.attrs["style_a"] == "1.5"
    page = leads_page.content(
        leads_page.lead_scores(tmp_path / "s.nc", scores.assign_attrs(step=1))
    )
    assert any(told in text for text in leads_page.warnings(page.scores))
    caplog.clear()
    list(rollout(emulator, {"t": frames[0], "a": 1.5}, 3, FEED))
    assert caplog.text.count(told) == 1
    inside = later_truths(emulator, {"t": Files("t.npy"), "a": 1 / 3}, FEED, 3, 1)
    attrs = lead_scores(emulator, inside, FEED, 3).attrs
    assert "styles_outside" not in attrs
    assert float(attrs["style_a"]) == 1 / 3


def test_a_rollout_that_was_beyond_once_has_not_lasted_although_it_comes_back(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    sizes = np.array([1.0, 1.0, 0.1, 1.0, 1.0])  # of the truth; the emulator stays at 1
    np.save("t.npy", (sizes[:, None, None, None] * np.ones((5, 1, 8, 6))).astype(np.float32))
    emulator = growing(1.0)
    runs = later_truths(emulator, {"t": Files("t.npy")}, FEED, 4, 1)
    assert len(runs) == 1
    np.testing.assert_array_equal(lead_scores(emulator, runs, FEED, 4).lasting[:, 0], [1, 0, 0, 0])


def test_scores_of_rollouts_have_names_and_units(here, tmp_path):
    runs = later_truths(here, {"t": Files("w.zarr"), "mask": Files("w.zarr")}, FEED, 2, "6h")
    scores = lead_scores(here, runs, FEED, 2, {"t_next": np.zeros((2, ROWS, CELLS))})
    for name, units in (("power", "field^2 L^2"), ("lasting", "1"), ("rms", "field")):
        assert scores[name].attrs["units"] == units
        assert scores[name].attrs["long_name"]
    assert "weighted by cos(latitude)" in scores.acc.attrs["long_name"]
    np.save("t.npy", np.random.default_rng(0).normal(size=(4, 1, 8, 6)).astype(np.float32))
    runs = later_truths(growing(1.0), {"t": Files("t.npy")}, FEED, 2, 1)
    scores = lead_scores(growing(1.0), runs, FEED, 2, {"t_next": np.zeros((1, 8, 6))})
    names = [scores[name].attrs["long_name"] for name in ("acc", "rmse", "mae", "bias", "rms")]
    assert not any("weighted" in name for name in names)


@pytest.mark.parametrize("more", [["-o", "x.nc"], ["--truth"]])
def test_nan_in_the_input_of_a_rollout_advises_nothing_that_it_cannot_do(
    tmp_path, monkeypatch, capsys, more
):
    monkeypatch.chdir(tmp_path)
    frames = some_frames(5)
    frames[0, 0, 2, 3] = np.nan
    np.save("t.npy", frames)
    growing(1.0).save("e.safetensors")
    argv = ["rollout", "e.safetensors", "t=t.npy", "--feed", "t_next=t", "--step", "1"]
    assert main([*argv, "--steps", "2", *more]) == 2
    err = capsys.readouterr().err
    assert "in field 't' at cell (2, 3)" in err
    assert "--allow-nan" not in err
    assert "mend the data, or start elsewhere (--only)" in err


def test_other_tiles_do_not_go_on_with_a_rollout(here, tmp_path, monkeypatch, capsys):
    break_at(monkeypatch, 3)
    argv = ["rollout", "e.safetensors", "w.zarr", "--steps", "5", "-o", "x.nc"]
    assert main([*argv, "--tile", "4"]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--resume", "--tile", "2"]) == 2
    assert "had tile [4, 4], not [2, 2]" in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0


def test_the_one_array_of_a_file_may_be_called_anything_in_truths_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(size=(5, 6, 5)).astype(np.float32)
    xr.Dataset({"temp": (("time", "a", "b"), values)}).to_netcdf("t.nc")
    emulator = growing(1.0)
    runs = later_truths(emulator, {"t": Files("t.nc")}, FEED, 2, 1)
    scores = lead_scores(emulator, runs, FEED, 2).isel(channel=0)
    expected = [np.sqrt(((values[:3] - values[k : k + 3]) ** 2).mean()) for k in (1, 2)]
    np.testing.assert_allclose(scores.rmse.sel({"method": "emulator"}), expected, rtol=1e-5)
