"""Applying to files: any format, tiles that do not show, broken runs that go on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import nn

from map2map import jobs, workers
from map2map.apply import apply_files, check
from map2map.arrays import Settings
from map2map.cli import main
from map2map.derived import Gradient
from map2map.emulator import Emulator
from map2map.engine import Running
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain, Grid
from map2map.jobs import Job, jobs_of
from map2map.models import ConvNet, UNet
from map2map.norms import Standardize
from map2map.runs import Files
from map2map.sources import Axis, Stored, ZarrSource, format_for, open_source
from map2map.windows import Window
from map2map.work import Work

SHAPE = (22, 30)


def emulator_in(path, domain=None, model=None, footprint=None):
    torch.manual_seed(0)
    inputs = FieldSet((Field("v", "km/s", "vector", 2), Field("rho", "kg/m3", "scalar", 1)))
    targets = FieldSet((Field("w", "m/s", "vector", 2), Field("p", "Pa", "scalar", 1)))
    norms = {"v": Standardize([1.0, -1.0], [2.0, 3.0]), "p": Standardize([100.0], [7.0])}
    model = model or UNet(3, 3, ndim=2, width=4, depth=1, batch_norm=False)
    made = Emulator(inputs, targets, norms, model, domain or Domain(2, spacing=0.5)).eval()
    made.save(path)
    return made


def by_hand(emulator, fields, mode="wrap", shape=SHAPE):
    """The whole field in float64: norms and edges written out."""
    v = (fields["v"] - np.array([1, -1])[:, None, None]) / np.array([2, 3])[:, None, None]
    x = np.concatenate([v, fields["rho"][None]]).astype(np.float64)
    f = emulator.footprint
    size = [next(m for m in range(n + 2 * 32, 999) if f.accepts(m)) for n in shape]
    around = [(32, m - 32 - n) for m, n in zip(size, shape, strict=True)]
    with torch.no_grad():
        x = torch.from_numpy(np.pad(x, [(0, 0), *around], mode=mode))
        y = emulator.model.double()(x[None])[0].numpy()
    emulator.model.float()
    y = y[(slice(None), *(slice(32 - f.cut, 32 - f.cut + n) for n in shape))]
    return {"w": y[:2], "p": y[2:] * 7 + 100}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fields():
    rng = np.random.default_rng(0)
    return {
        "v": rng.normal(size=(2, *SHAPE)).astype(np.float32),
        "rho": rng.uniform(0, 4, size=SHAPE).astype(np.float32),
    }


def write(path, fields, units=None, spacing=0.5, origin=3.0, attrs=None):
    """One file of all fields, with coordinates."""
    axes = tuple(
        Axis(name, origin + spacing * np.arange(n), "km")
        for name, n in zip("yx", SHAPE, strict=True)
    )
    units = units or {"v": "km/s", "rho": "kg m-3"}
    stored = [
        Stored("v", SHAPE, 2, "float32", units["v"], axes, attrs or {}),
        Stored("rho", SHAPE, 1, "float32", units["rho"], axes, attrs or {}),
    ]
    with format_for(path).create(path, stored) as sink:
        for name, values in fields.items():
            values = values if values.ndim == 3 else values[None]
            sink.write(name, Window.whole(SHAPE), values)


def read(path, name, shape=SHAPE, channels=1):
    source = open_source(path, ndim=2)
    out = np.empty((channels, *shape))
    source.read(name, Window.whole(shape), out, Grid(shape))
    return out


@pytest.mark.parametrize("suffix", [".nc", ".h5", ".zarr"])
@pytest.mark.parametrize("tile", [None, (8, 12), (2, 30)])
def test_every_format_gets_what_the_whole_field_gives(here, fields, suffix, tile):
    emulator = emulator_in(here / "e.safetensors")
    write(here / f"in{suffix}", fields)
    out = here / f"out{suffix}"
    places = {name: Files(str(here / f"in{suffix}")) for name in fields}
    report = apply_files(Job(here / "e.safetensors", places, out, settings=Settings(tile=tile)))
    expected = by_hand(emulator, fields)
    for name, channels in (("w", 2), ("p", 1)):
        found = read(out, name, channels=channels)
        rms = np.sqrt((expected[name] ** 2).mean())
        assert np.abs(found - expected[name]).max() < 1e-5 * rms
    stored = open_source(out, ndim=2).stored("w")
    assert stored.units == "m/s"
    assert stored.attrs["grid_beyond_edges"] == "periodic, periodic"
    assert [axis.name for axis in stored.axes] == ["y", "x"]
    np.testing.assert_allclose(stored.axes[1].values, 3.0 + 0.5 * np.arange(30))
    assert report.cells == 22 * 30
    assert not list(here.glob(".*")), "nothing is left behind"


def test_the_bytes_do_not_depend_on_the_memory(here, fields):
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    outputs = []
    for memory in ("1GiB", "400KiB", "200KiB"):
        command = ["apply", "e.safetensors", "in.nc", "-o", f"{memory}.nc", "--memory", memory]
        assert main(command) == 0
        outputs.append(read(here / f"{memory}.nc", "w", channels=2))
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=1e-6, atol=1e-6)


def test_npy_files_of_each_field_are_applied_to_by_name(here, fields):
    emulator = emulator_in(here / "e.safetensors")
    np.save("velocity.npy", fields["v"])
    np.save("density.npy", fields["rho"])
    command = ["apply", "e.safetensors", "v=velocity.npy", "rho=density.npy", "-o", "out"]
    assert main([*command, "--tile", "8"]) == 0
    expected = by_hand(emulator, fields)
    np.testing.assert_allclose(np.load("out/w.npy"), expected["w"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.load("out/p.npy"), expected["p"], rtol=1e-4)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_beyond_an_edge_lies_what_was_asked_for(here, fields, mode):
    emulator = emulator_in(here / "e.safetensors", Domain(2, periodic=False))
    write(here / "in.nc", fields)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc", "--pad", mode]) == 0
    expected = by_hand(emulator, fields, mode)
    np.testing.assert_allclose(read("out.nc", "p"), expected["p"], rtol=1e-4)
    assert open_source("out.nc").stored("p").attrs["grid_beyond_edges"] == f"{mode}, {mode}"


def test_the_valid_interior_has_its_coordinates(here, fields):
    emulator = emulator_in(here / "e.safetensors", Domain(2, [True, False]))
    write(here / "in.nc", fields)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc", "--tile", "4"]) == 0
    margin = emulator.footprint.margin
    inner = 30 - 2 * margin
    x = slice(margin, margin + inner)
    expected = by_hand(emulator, fields)["p"][:, :, x]
    np.testing.assert_allclose(read("out.nc", "p", (22, inner)), expected, rtol=1e-4)
    stored = open_source("out.nc", ndim=2).stored("p")
    np.testing.assert_allclose(stored.axes[1].values, (3.0 + 0.5 * np.arange(30))[x])
    assert stored.attrs["grid_beyond_edges"] == "periodic, interior"


class Twice(nn.Module):
    """Repeats cells and smooths them: a scale factor of two."""

    def __init__(self):
        super().__init__()
        self.footprint = Footprint(margin=1, scale=2, cut=2)

    def forward(self, x):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return nn.functional.avg_pool2d(x, 5, stride=1)


def test_a_scale_factor_makes_more_cells_with_coordinates_between(here, fields, monkeypatch):
    # the class stands in for a user's module, which a card may import when trusted
    spec = {"class_path": "torch.nn.Identity", "init_args": {}}
    made = Emulator(
        FieldSet((Field("rho", "kg/m3", "scalar", 1),)),
        FieldSet((Field("fine", "kg/m3", "scalar", 1),)),
        {}, Twice(), Domain(2), spec,
    ).eval()  # fmt: skip
    monkeypatch.setattr(jobs, "load_once", lambda *_: made)
    write(here / "in.nc", fields)
    job = Job(
        here / "e", {"rho": Files("in.nc")}, here / "out.zarr", settings=Settings(tile=(6, 8))
    )
    (here / "e").touch()
    apply_files(job)
    x = fields["rho"].repeat(2, 0).repeat(2, 1).astype(np.float64)
    expected = sum(
        np.roll(x, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3)
    ) / 25  # fmt: skip
    np.testing.assert_allclose(read("out.zarr", "fine", (44, 60))[0], expected, rtol=1e-5)
    x = open_source("out.zarr").stored("fine").axes[1].values
    np.testing.assert_allclose(x, 3.0 + 0.5 * ((np.arange(60) + 0.5) / 2 - 0.5))


def test_a_model_that_sees_everything_is_applied_whole_or_refused(here, fields, monkeypatch):
    emulator = emulator_in(here / "e.safetensors")
    emulator.footprint = Footprint(0, cut=0, whole="InstanceNorm2d ('norm')")
    emulator.model = nn.Sequential(nn.InstanceNorm2d(3), nn.Identity())
    monkeypatch.setattr(jobs, "load_once", lambda *_: emulator)
    write(here / "in.nc", fields)
    job = Job(here / "e.safetensors", {name: Files("in.nc") for name in fields}, here / "out.nc")
    apply_files(job)
    v = fields["v"][0].astype(float)
    expected = (v - v.mean()) / v.std()
    np.testing.assert_allclose(read("out.nc", "w", channels=2)[0], expected, rtol=1e-3, atol=1e-3)
    small = Job(job.emulator, job.inputs, here / "b.nc", settings=Settings(tile=8))
    with pytest.raises(GeometryError, match="InstanceNorm2d"):
        apply_files(small)


def test_several_runs_need_a_name_for_each(here, fields):
    emulator_in(here / "e.safetensors")
    for k in range(3):
        write(here / f"run_{k}.nc", fields)
    with pytest.raises(RecipeError, match=r"3 runs match.*put \{run\} into its name"):
        jobs_of(
            Job(here / "e.safetensors", dict.fromkeys(fields, Files("run_*.nc")), here / "o.nc")
        )
    assert main(["apply", "e.safetensors", "run_*.nc", "-o", "out/{run}_w.nc"]) == 0
    assert sorted(p.name for p in (here / "out").iterdir()) == [f"run_{k}_w.nc" for k in range(3)]


def test_the_check_finds_what_is_off_and_what_is_not(here, fields, capsys):
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    command = ["apply", "e.safetensors", "in.nc", "-o", "out.zarr", "--tile", "8", "--check", "4"]
    assert main(command) == 0
    assert "check of w: at most" in capsys.readouterr().out
    job = Job(here / "e.safetensors", dict.fromkeys(fields, Files("in.nc")), here / "out.zarr")
    error, rms = check(job, 6)["w"]
    assert error < 1e-5 * rms
    import zarr

    group = zarr.open_group(here / "out.zarr", mode="r+")
    group["w"][:] = group["w"][:] + 0.5
    assert check(job, 6)["w"][0] == pytest.approx(0.5, rel=1e-3)


# --- broken runs ---------------------------------------------------------------------------------


SLOW = """
import sys, time
from map2map.engine import Engine
plain = Engine.__call__
def slow(self, *arguments):
    time.sleep(0.15)
    return plain(self, *arguments)
Engine.__call__ = slow
from map2map.cli import main
from map2map.derived import Gradient
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("out", ["out.zarr", "out.nc", "out"])
def test_a_killed_run_goes_on_and_gives_the_same(here, fields, out, capsys):
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    command = ["apply", "e.safetensors", "in.nc", "-o", out, "--tile", "4"]
    process = subprocess.Popen([sys.executable, "-c", SLOW, *command], stderr=subprocess.PIPE)
    stage = here / f".{out}.part"
    deadline = time.monotonic() + 60
    while sum(file.read_text().count("\n") for file in stage.glob("done.*")) < 5:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = sum(file.read_text().count("\n") for file in stage.glob("done.*"))
    assert not (here / out).exists(), "it looks whole"
    assert main(command) == 2
    assert f"broke off with {finished} of 48 tiles finished" in capsys.readouterr().err
    # a broken line at the end is not a finished tile
    journal = next(stage.glob("done.*"))
    journal.write_text(journal.read_text() + "4")
    computed = []
    with pytest.MonkeyPatch.context() as patch:
        work = Work.read
        patch.setattr(Work, "read", lambda s, t: computed.append(t.index) or work(s, t))
        assert main([*command, "--resume", "--memory", "1GiB"][:-2]) == 0
    assert len(computed) == 48 - finished
    assert not stage.exists()
    assert main(["apply", "e.safetensors", "in.nc", "-o", "whole.nc", "--tile", "4"]) == 0
    for name, channels in (("w", 2), ("p", 1)):
        np.testing.assert_array_equal(
            read(out, name, channels=channels), read("whole.nc", name, channels=channels)
        )


def leave_broken(here, fields, monkeypatch, error=KeyboardInterrupt):
    """A run that broke off after five tiles."""
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    job = Job(
        here / "e.safetensors", dict.fromkeys(fields, Files("in.nc")), here / "out.zarr",
        settings=Settings(tile=4),
    )  # fmt: skip
    with monkeypatch.context() as patch:
        read_tile = Work.read

        def failing(self, tile):
            if tile.index == 6:
                raise error
            return read_tile(self, tile)

        patch.setattr(Work, "read", failing)
        with pytest.raises(error):
            apply_files(job)
    return job


def test_going_on_uses_the_tiles_of_before_whatever_the_memory(here, fields, monkeypatch):
    job = leave_broken(here, fields, monkeypatch)
    report = apply_files(Job(job.emulator, job.inputs, job.output), resume=True)
    assert report.tile == (4, 4)
    assert 0 < report.tiles < 48


def test_going_on_with_something_else_is_refused(here, fields, monkeypatch):
    job = leave_broken(here, fields, monkeypatch)
    other = Settings(Running("bf16"), tile=4)
    with pytest.raises(SaveError, match="had precision 'fp32', not 'bf16'"):
        apply_files(Job(job.emulator, job.inputs, job.output, settings=other), resume=True)
    write(here / "in2.nc", fields)
    inputs = dict.fromkeys(fields, Files("in2.nc"))
    with pytest.raises(SaveError, match="had inputs"):
        apply_files(Job(job.emulator, inputs, job.output), resume=True)
    with pytest.raises(SaveError, match=r"--resume\) or start anew"):
        apply_files(job)
    apply_files(Job(job.emulator, inputs, job.output, overwrite=True))
    assert job.output.exists()


def test_a_run_that_breaks_before_any_tile_leaves_nothing(here, fields):
    emulator_in(here / "e.safetensors")
    fields["rho"][3, 4] = np.nan
    write(here / "in.nc", fields)
    job = Job(here / "e.safetensors", dict.fromkeys(fields, Files("in.nc")), here / "out.nc")
    with pytest.raises(FieldError, match=r"first in field 'rho' at cell \(3, 4\)"):
        apply_files(job)
    assert sorted(p.name for p in here.iterdir()) == ["e.safetensors", "in.nc"]
    allowed = Settings(allow_nonfinite=True)
    apply_files(Job(job.emulator, job.inputs, job.output, settings=allowed))
    seen = np.isnan(read("out.nc", "p"))[0]
    assert seen[3, 4]
    assert 0 < seen.sum() < seen.size


def test_a_full_disk_keeps_what_is_finished(here, fields, monkeypatch):
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    job = Job(
        here / "e.safetensors", dict.fromkeys(fields, Files("in.nc")), here / "out.zarr",
        settings=Settings(tile=4),
    )  # fmt: skip
    sink = type(ZarrSource.create(here / "x.zarr", [Stored("a", (4,))]))
    with monkeypatch.context() as patch:
        put, count = sink._put, []

        def full(self, stored, index, values):
            count.append(1)
            if len(count) > 9:
                raise OSError(28, "No space left on device")
            put(self, stored, index, values)

        patch.setattr(sink, "_put", full)
        with pytest.raises(SaveError, match="No space left"):
            apply_files(job)
    assert not job.output.exists()
    assert apply_files(job, resume=True).tiles == 48 - 4


# --- several processes ---------------------------------------------------------------------------


def test_processes_of_torchrun_share_the_tiles(here, fields):
    emulator = emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        "-m", "map2map.cli", "apply", "e.safetensors", "in.nc", "-o", "out.nc", "--tile", "4",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(read("out.nc", "p"), by_hand(emulator, fields)["p"], rtol=1e-4)
    assert "out.nc: 660 cells" in done.stdout, "each tile once, by one of them"


@pytest.mark.filterwarnings("default")
def test_workers_of_dask_share_the_tiles(here, fields):
    from distributed import LocalCluster

    emulator = emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    job = Job(
        here / "e.safetensors", dict.fromkeys(fields, Files("in.nc")), here / "out.zarr",
        settings=Settings(tile=4),
    )  # fmt: skip
    with LocalCluster(2, processes=False, dashboard_address=None, threads_per_worker=1) as cluster:
        report = apply_files(job, scheduler=cluster.scheduler_address)
    assert report.tiles == 48
    np.testing.assert_allclose(read("out.zarr", "p"), by_hand(emulator, fields)["p"], rtol=1e-4)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["in.nc", "-o", "out.xyz"], "in which format to write"),
        (["in.nc", "-o", "in.nc"], "exists already"),
        (["v=in.nc", "-o", "out.nc"], "rho are missing"),
        (["v=in.nc", "rho=none.nc", "-o", "out.nc"], "no file matches"),
        (["v=in.nc::rho", "rho=in.nc", "-o", "out.nc"], "2 channels, but its files have 1"),
        (["in.nc", "-o", "out.nc", "--memory", "lots"], "is no size of memory"),
        (["in.nc", "-o", "out.nc", "--memory", "1KiB"], "smallest tile reads"),
        (["in.nc", "-o", "out.nc", "--tile", "5"], "multiples of 2; the nearest is 6"),
        (["in.nc", "-o", "out.nc", "--tile", "4", "4", "4"], "`tile` has 3 values"),
        (["in.nc", "-o", "out.nc", "--periodic", "no"], "has learnt on"),
        (["in.nc", "-o", "out.nc", "--pad", "edge"], "not periodic, and all are"),
        (["in.nc", "-o", "out.nc", "--periodic", "no", "no", "no"], "takes 1 or 2 values"),
        (["in.nc", "-o", "out.npy"], "is one file, but 2 fields"),
        (["in.nc", "-o", "out.nc", "--check", "0"], "at least 1 window"),
        (["in.nc", "-o", "out.nc", "--dask", "tcp://127.0.0.1:9"], "no dask scheduler answers"),
    ],
)
def test_what_does_not_fit_is_refused_with_status_2(
    here, fields, options, message, capsys, monkeypatch
):
    monkeypatch.setattr(workers, "PATIENCE", "1s")
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields)
    before = (here / "in.nc").read_bytes()
    assert main(["apply", "e.safetensors", *options]) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in here.iterdir()) == ["e.safetensors", "in.nc"]
    assert (here / "in.nc").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": {"v": "m/s", "rho": "kg m-3"}}, "'v' is in units of 'm/s', but the emulator"),
        ({"spacing": 0.25}, "cells are 0.25 wide on axis 0, but the emulator has learnt on 0.5"),
        ({"attrs": {"grid_beyond_edges": "interior, periodic"}}, "periodic: (False, True), but"),
    ],
)  # fmt: skip
def test_files_of_other_units_or_grids_are_refused(here, fields, change, message, capsys):
    emulator_in(here / "e.safetensors")
    write(here / "in.nc", fields, **change)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc"]) == 2
    assert message in capsys.readouterr().err
    if "units" not in change:
        command = ["apply", "e.safetensors", "in.nc", "-o", "out.nc", "--other-grid"]
        assert main(command) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "is truncated"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b'"format', b'"f0rmat')[:]), "has format"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"width", b"depth", 1)), "e.safetensors"),
        (lambda p: p.write_bytes(b"PK not an emulator at all"), "is not an emulator"),
        (lambda p: p.unlink(), "there is no emulator"),
    ],
)
def test_a_damaged_emulator_is_refused(here, fields, damage, message, capsys):
    emulator_in(here / "e.safetensors")
    damage(here / "e.safetensors")
    write(here / "in.nc", fields)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (here / "out.nc").exists()


def test_an_emulator_whose_card_lacks_a_norm_is_refused(here, fields, capsys):
    """It would give normalized values for physical ones."""
    made = emulator_in(here / "e.safetensors")
    card = dataclasses.asdict(made.card())
    del card["norms"]["p"]
    metadata = {"map2map": json.dumps(card)}
    save_file({k: v.contiguous() for k, v in made.state_dict().items()}, here / "e.safetensors",
              metadata=metadata)  # fmt: skip
    write(here / "in.nc", fields)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc"]) == 2
    assert "norms of v, rho, w, but its fields are v, rho, w, p" in capsys.readouterr().err


def test_a_variable_of_another_name_is_taken_only_if_named(here, fields, capsys):
    emulator_in(here / "e.safetensors")
    for name in fields:
        stored = Stored(f"my_{name}", SHAPE, 2 if name == "v" else 1)
        with format_for("x.nc").create(here / f"{name}.nc", [stored]) as sink:
            sink.write(stored.name, Window.whole(SHAPE), fields[name].reshape(-1, *SHAPE))
    command = ["apply", "e.safetensors", "-o", "out.nc", "v=v.nc"]
    assert main([*command, "rho=rho.nc"]) == 2
    assert "has no field 'v', only 'my_v'" in capsys.readouterr().err
    assert main([*command[:-1], "v=v.nc::my_v", "rho=rho.nc::my_rho"]) == 0


def test_coordinates_that_are_not_even_are_refused(here, fields, monkeypatch, capsys):
    emulator_in(here / "e.safetensors")
    monkeypatch.setattr(np, "arange", lambda n: np.linspace(0, 1, n) ** 2)
    write(here / "in.nc", fields)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert main(["apply", "e.safetensors", "in.nc", "-o", "out.nc"]) == 2
    assert "cells are of unequal widths on axis 0" in capsys.readouterr().err


def test_outputs_that_are_there_are_found_before_anything_is_computed(here, fields, capsys):
    emulator_in(here / "e.safetensors")
    for k in range(2):
        write(here / f"run_{k}.nc", fields)
    command = ["apply", "e.safetensors", "run_*.nc", "-o", "w_{run}.nc"]
    (here / "w_run_1.nc").write_text("mine")
    assert main(command) == 2
    assert "w_run_1.nc exists already" in capsys.readouterr().err
    assert not (here / "w_run_0.nc").exists()
    # of several runs, those that are finished are kept
    assert main([*command, "--resume"]) == 0
    assert (here / "w_run_0.nc").exists()
    assert (here / "w_run_1.nc").read_text() == "mine"
    alone = ["apply", "e.safetensors", "run_1.nc", "-o", "w_run_1.nc", "--resume"]
    assert main(alone) == 2
    assert "no broken run to go on with" in capsys.readouterr().err


def test_what_is_written_to_zarr_opens_in_xarray(here, fields):
    emulator_in(here / "e.safetensors")
    np.save("v.npy", fields["v"])
    np.save("rho.npy", fields["rho"])
    assert main(["apply", "e.safetensors", "v=v.npy", "rho=rho.npy", "-o", "out.zarr"]) == 0
    opened = xr.open_zarr("out.zarr", consolidated=False)
    assert opened.w.dims == ("channel_w", "y", "x")
    assert opened.p.dims == ("channel_p", "y", "x")


def test_an_interrupted_command_says_how_to_go_on(here, fields, monkeypatch, capsys):
    leave_broken(here, fields, monkeypatch)
    monkeypatch.setattr(Work, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    command = ["apply", "e.safetensors", "in.nc", "-o", "out.zarr", "--resume"]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.fixture
def ice(here):
    """An emulator of frames with slopes that it computes, and two files of unequal shape."""
    torch.manual_seed(0)
    inputs = FieldSet(tuple(Field(n, "1", "scalar", 1) for n in ("h", "sx", "A")))
    targets = FieldSet((Field("u", "m/yr", "scalar", 1),))
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
    spec = {"class_path": "test_apply.Small", "init_args": {}}
    domain = Domain(2, periodic=False, pad="model", frames=1, same_shape=False)
    made = Emulator(inputs, targets, {}, model, domain, spec, {"sx": Gradient("s", 1)}).eval()
    files = {}
    for name, shape in (("a", (3, 20, 13)), ("b", (2, 9, 30))):
        rng = np.random.default_rng(len(name))
        h, s = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
        dims = ("time", "y", "x")
        coords = {d: 2.0 * np.arange(n) for d, n in zip(dims, shape, strict=True)}
        files[name] = xr.Dataset({"h": (dims, h), "s": (dims, s)}, coords)
        files[name].to_netcdf(f"{name}.nc")
    return made, files


def frames_by_hand(made, data, value):
    slope = np.gradient(data.s.values.astype(np.float64), 2.0, axis=2)
    x = np.stack([data.h.values, slope, np.full(slope.shape, value)], 1)
    with torch.no_grad():
        y = made.model.double()(torch.from_numpy(x)).numpy()[:, 0]
    made.model.float()
    return y


@pytest.mark.parametrize("suffix", ["nc", "zarr", "h5", "npy"])
def test_every_frame_of_every_file_is_applied_with_fields_that_are_computed(
    ice, suffix, monkeypatch
):
    made, files = ice
    monkeypatch.setattr(jobs, "emulator_at", lambda *_: made)
    job = Job(
        Path("e.safetensors"),
        {"h": Files("?.nc"), "s": Files("?.nc"), "A": 3.0},
        Path(f"{{run}}.{suffix}" if suffix != "nc" else "out_{run}.nc"),
        settings=Settings(tile=8),
    )
    Path("e.safetensors").touch()
    for each in jobs_of(job):
        report = apply_files(each)
        data = files[Path(str(each.inputs["h"].pattern)).stem]
        assert report.cells == data.h.size
        expected = frames_by_hand(made, data, 3.0)
        if suffix == "npy":
            np.testing.assert_allclose(np.load(each.output), expected, atol=1e-5)
        elif suffix == "h5":
            with h5py.File(each.output) as opened:
                np.testing.assert_allclose(opened["u"][:], expected, atol=1e-5)
                assert [opened["u"].dims[i].label for i in range(3)] == ["time", "y", "x"]
        else:
            engine = "zarr" if suffix == "zarr" else "netcdf4"
            kwargs = {"consolidated": False} if suffix == "zarr" else {}
            with xr.open_dataset(each.output, engine=engine, **kwargs) as opened:
                assert opened.u.dims == ("time", "y", "x")
                np.testing.assert_allclose(opened.u, expected, atol=1e-5)
                for axis in opened.u.dims:
                    np.testing.assert_array_equal(opened[axis], data[axis])
        assert check(each, 3)["u"][0] < 1e-5


def test_in_memory_and_from_xarray_frames_are_the_same(ice):
    made, files = ice
    data = files["a"]
    expected = frames_by_hand(made, data, 3.0)
    whole = data.assign(A=xr.full_like(data.h, 3.0))
    np.testing.assert_allclose(made(whole).u, expected, atol=1e-5)
    domain = dataclasses.replace(made.domain, spacing=2.0)
    one = {"h": data.h.values[1], "s": data.s.values[1], "A": np.full((20, 13), 3.0)}
    found = made.apply(one, domain=domain)["u"][0]
    np.testing.assert_allclose(found, expected[1], atol=1e-5)
    # a slope that is given is not computed
    given = {"h": one["h"], "A": one["A"], "sx": np.gradient(one["s"], 2.0, axis=1)}
    np.testing.assert_allclose(made.apply(given)["u"][0], expected[1], atol=1e-5)
    with pytest.raises(FieldError, match="missing: s"):
        made.apply({"h": one["h"], "A": one["A"]})
    with pytest.raises(FieldError, match="no variable 's', which the emulator takes"):
        made(whole.drop_vars("s"))


def test_a_frame_that_broke_off_goes_on(ice, monkeypatch):
    made, files = ice
    monkeypatch.setattr(jobs, "emulator_at", lambda *_: made)
    Path("e.safetensors").touch()
    inputs = {"h": Files("a.nc"), "s": Files("a.nc"), "A": 3.0}
    job = Job(Path("e.safetensors"), inputs, Path("out.zarr"), settings=Settings(tile=8))
    work = Work(job)
    stage = work.stage()
    stage.begin(resume=False)
    work.run(stage, range(5, 11))
    with pytest.raises(SaveError, match="had values"):
        apply_files(dataclasses.replace(job, inputs=inputs | {"A": 4.0}), resume=True)
    report = apply_files(job, resume=True)
    assert report.tiles == len(work) - 6
    with xr.open_dataset("out.zarr", engine="zarr", consolidated=False) as opened:
        np.testing.assert_allclose(opened.u, frames_by_hand(made, files["a"], 3.0), atol=1e-5)


@pytest.mark.parametrize("suffix", ["nc", "zarr", "h5"])
def test_a_field_that_is_called_like_an_axis_can_be_read_again(here, suffix):
    torch.manual_seed(0)
    one = [FieldSet((Field(name, "1", "scalar", 1),)) for name in "xy"]
    made = Emulator(*one, {}, ConvNet(1, 1, ndim=2, width=2, depth=1), Domain(2)).eval()
    made.save("e.safetensors")
    x = np.random.default_rng(0).normal(size=(1, 9, 8)).astype(np.float32)
    np.save("in.npy", x)
    assert main(["apply", "e.safetensors", "x=in.npy", "-o", f"out.{suffix}"]) == 0
    expected = made({"x": x})["y"]
    source = open_source(f"out.{suffix}", ndim=2)
    found = np.empty((1, 9, 8), np.float32)
    source.read("y", Window.whole((9, 8)), found)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if suffix != "h5":
        engine, more = ("zarr", {"consolidated": False}) if suffix == "zarr" else ("netcdf4", {})
        with xr.open_dataset(f"out.{suffix}", engine=engine, **more) as opened:
            assert list(opened.data_vars) == ["y"]
            assert opened.y.dims[-2:] == ("y_axis", "x")


def test_an_input_is_not_replaced_and_a_flat_field_is_refused(here, fields):
    emulator_in("e.safetensors")
    np.save("v.npy", fields["v"])
    np.save("rho.npy", fields["rho"][None])
    given = {"v": Files("v.npy"), "rho": Files("rho.npy")}
    job = Job(Path("e.safetensors"), given, Path("v.npy"), overwrite=True)
    with pytest.raises(RecipeError, match=r"v.npy is an input, and would be replaced"):
        apply_files(job)
    np.save("v.npy", fields["v"][:, :1])
    np.save("rho.npy", fields["rho"][None, :1])
    with pytest.raises(GeometryError, match=r"has \(1, 30\) cells, .* it takes fields on 2 axes"):
        apply_files(dataclasses.replace(job, output=Path("out.npy")))


def test_nan_is_told_with_its_frame(ice, monkeypatch):
    made, files = ice
    monkeypatch.setattr(jobs, "emulator_at", lambda *_: made)
    Path("e.safetensors").touch()
    files["a"].h[2, 5, 6] = np.nan
    files["a"].to_netcdf("c.nc")
    inputs = {"h": Files("c.nc"), "s": Files("c.nc"), "A": 3.0}
    with pytest.raises(
        FieldError, match=r"holds 1 NaN .* of c.nc, frame 2, .*'h' at cell \(5, 6\)"
    ):
        apply_files(Job(Path("e.safetensors"), inputs, Path("out.zarr")))
