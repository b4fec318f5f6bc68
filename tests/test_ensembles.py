"""Ensembles: m2m apply --members, of any format, by any number of processes."""

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from map2map.apply import apply_files, check
from map2map.arrays import Settings
from map2map.cli import main
from map2map.emulator import Emulator
from map2map.engine import Running
from map2map.errors import FieldError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.jobs import Job, jobs_of
from map2map.models import ConvNet, FlowMatching
from map2map.norms import Standardize
from map2map.runs import Files
from map2map.sources import Axis, Stored, format_for
from map2map.windows import Window
from map2map.work import Work

SHAPE = (10, 14)


def save_emulator(path, *, draws=True, channels=1, frames=0):
    torch.manual_seed(0)
    network = {"network": "ConvNet", "options": {"width": 4, "depth": 2}, "steps": 2}
    model = (
        FlowMatching(1, channels, ndim=2, solver="euler", **network)
        if draws
        else ConvNet(1, channels, ndim=2, width=4, depth=2)
    )
    norms = {"y": Standardize([3.0] * channels, [2.0] * channels)}
    fields = (FieldSet((Field(n, "m", "scalar", c),)) for n, c in (("x", 1), ("y", channels)))
    made = Emulator(*fields, norms, model, Domain(2, frames=frames)).eval()
    made.save(path)
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def x(here):
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    np.save("x.npy", x)
    return x


def read(path):
    if path.endswith(".h5"):
        with h5py.File(path) as file:
            return xr.DataArray(file["y"][...])
    options = {"engine": "zarr", "consolidated": False} if path.endswith(".zarr") else {}
    with xr.open_dataset(path, **options) as data:
        return data["y"].load()


def seeded(emulator, x, seed):
    """One member in memory, in one tile."""
    return emulator.apply({"x": x}, settings=Settings(Running(seed=seed)))["y"]


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".h5"])
@pytest.mark.parametrize("channels", [1, 2])
def test_members_are_an_axis_of_the_file(here, x, suffix, channels):
    emulator = save_emulator("e.safetensors", channels=channels)
    command = ["apply", "e.safetensors", "x.npy", "-o", f"y{suffix}", "--members", "3"]
    assert main([*command, "--seed", "7", "--tile", "4", "5"]) == 0
    y = read(f"y{suffix}")
    assert y.shape == (3, *((channels,) if channels > 1 else ()), *SHAPE)
    if suffix != ".h5":
        assert y.dims[0] == "member"
        assert y.attrs["seed"] == 7
        np.testing.assert_array_equal(y["member"], [0, 1, 2])
    for member in range(3):
        expected = seeded(emulator, x, 7 + member)
        found = y.values[member].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(y.values[0] - y.values[1]).mean() > 0.1


def test_members_have_files_of_their_own_where_the_name_says_so(here, x):
    emulator = save_emulator("e.safetensors")
    assert main(["apply", "e.safetensors", "x.npy", "-o", "y_{member}.npy", "--members", "3"]) == 0
    assert sorted(path.name for path in here.glob("y_*")) == ["y_0.npy", "y_1.npy", "y_2.npy"]
    for member in range(3):
        found = np.load(f"y_{member}.npy")
        np.testing.assert_array_equal(found, seeded(emulator, x, member))
    # the third by itself
    assert main(["apply", "e.safetensors", "x.npy", "-o", "third.npy", "--seed", "2"]) == 0
    np.testing.assert_array_equal(np.load("third.npy"), np.load("y_2.npy"))
    assert main(["apply", "e.safetensors", "x.npy", "-o", "all.npy", "--members", "3"]) == 0
    np.testing.assert_array_equal(np.load("all.npy")[2].reshape(1, *SHAPE), np.load("y_2.npy"))


def test_runs_and_members_make_a_file_each(here, x):
    save_emulator("e.safetensors")
    np.save("x2.npy", x + 1)
    out = "out/{run}_{member}.nc"
    assert main(["apply", "e.safetensors", "x=x*.npy", "-o", out, "--members", "2"]) == 0
    names = ["x2_0.nc", "x2_1.nc", "x_0.nc", "x_1.nc"]
    assert sorted(path.name for path in (here / "out").iterdir()) == names


def test_frames_have_their_members_in_files_of_their_own(here, x):
    emulator = save_emulator("e.safetensors", frames=1)
    frames = np.stack([x, 2 * x])
    stored = Stored("x", SHAPE, units="m", frames=2, frame_axis=Axis("time", np.arange(2.0)))
    with format_for(here / "x.nc").create(here / "x.nc", [stored]) as sink:
        for i, frame in enumerate(frames):
            sink.write("x", Window.whole(SHAPE), frame[None], i)
    command = ["apply", "e.safetensors", "x.nc", "--members", "2", "-o"]
    assert main([*command, "y.nc"]) == 2
    assert main([*command, "y{member}.nc", "--tile", "5"]) == 0
    with xr.open_dataset("y1.nc") as data:
        assert data["y"].dims[0] == "time"
        for i, frame in enumerate(frames):
            expected = seeded(emulator, frame, 1)[0]
            np.testing.assert_allclose(data["y"][i], expected, rtol=1e-5, atol=1e-5)


def test_an_ensemble_that_broke_off_goes_on_to_the_same_numbers(here, x, monkeypatch):
    save_emulator("e.safetensors")
    job = Job(
        here / "e.safetensors", {"x": Files("x.npy")}, here / "y.zarr",
        settings=Settings(Running(seed=3), tile=5), members=3,
    )  # fmt: skip
    apply_files(job)
    expected = read("y.zarr").values
    broken = here / "z.zarr"
    calls = []

    def compute(self, tile, values):
        calls.append(tile.index)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return plain(self, tile, values)

    plain = Work.compute
    monkeypatch.setattr(Work, "compute", compute)
    job = replace(job, output=broken)
    with pytest.raises(KeyboardInterrupt):
        apply_files(job)
    calls[:] = [None] * 10
    other = replace(job, settings=Settings(Running(seed=4), tile=5))
    with pytest.raises(Exception, match="the run that broke off had seed 3, not 4"):
        apply_files(other, resume=True)
    apply_files(job, resume=True)
    assert len(calls) - 10 < 18, "not all of 3 x 6 tiles"
    np.testing.assert_array_equal(read("z.zarr").values, expected)


def test_workers_draw_what_one_process_draws(here, x):
    save_emulator("e.safetensors")
    command = ["apply", "e.safetensors", "x.npy", "--members", "2", "--seed", "1", "--tile", "5"]
    assert main([*command, "-o", "one.zarr"]) == 0
    assert main([*command, "-o", "dask.zarr", "--dask", "local"]) == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [sys.executable, *torchrun, "-m", "map2map.cli", *command, "-o", "torchrun.zarr"],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    one = read("one.zarr").values
    for other in ("dask", "torchrun"):
        np.testing.assert_array_equal(read(f"{other}.zarr").values, one)


def test_windows_computed_again_are_those_of_the_same_seed(here, x):
    save_emulator("e.safetensors")
    job = Job(
        here / "e.safetensors", {"x": Files("x.npy")}, here / "y.nc",
        settings=Settings(Running(seed=3)), members=2,
    )  # fmt: skip
    apply_files(job)
    error, rms = check(job, 8)["y"]
    assert error < 1e-4 * rms
    other = replace(job, settings=Settings(Running(seed=9)))
    assert check(other, 8)["y"][0] > 0.1 * rms


def test_what_cannot_be_an_ensemble_is_refused(here, x, capsys):
    save_emulator("e.safetensors")
    save_emulator("plain.safetensors", draws=False)
    for command, said in (
        (["plain.safetensors", "-o", "y.nc", "--members", "2"], "draws no random numbers"),
        (["plain.safetensors", "-o", "y{member}.nc", "--members", "2"], "its network is a ConvNet"),
        (["plain.safetensors", "-o", "y.nc", "--seed", "2"], "draws no random numbers"),
        (["e.safetensors", "-o", "y.nc", "--members", "0"], "at least 1 member, not 0"),
        (["e.safetensors", "-o", "y{member}.nc"], "say how many (--members 10"),
        (["e.safetensors", "-o", "y.nc", "--seed", "-1"], "the seed is -1"),
    ):
        emulator, *rest = command
        assert main(["apply", emulator, "x.npy", *rest]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not list(here.glob("y*"))


def test_the_plan_of_an_emulator_that_draws_nothing_is_as_it_was(here, x):
    save_emulator("plain.safetensors", draws=False)
    job = Job(here / "plain.safetensors", {"x": Files("x.npy")}, here / "y.nc")
    assert "seed" not in Work(job)._plan()
    assert not any("seed" in stored.attrs for stored in Work(job)._outputs())


def test_a_dataset_gets_an_axis_of_members(here, x):
    emulator = save_emulator("e.safetensors")
    data = xr.Dataset({"x": (("lat", "lon"), x, {"units": "m"})})
    made = emulator.ensemble(data, 2, settings=Settings(Running(seed=1)))
    assert made["y"].dims == ("member", "lat", "lon")
    for member in range(2):
        expected = seeded(emulator, x, 1 + member)[0]
        np.testing.assert_allclose(made["y"][member], expected, rtol=1e-5, atol=1e-5)
    tensors = emulator.ensemble({"x": torch.from_numpy(x)}, 2)["y"]
    assert isinstance(tensors, torch.Tensor)
    assert tensors.shape == (2, 1, *SHAPE)
    with pytest.raises(FieldError, match="missing: x"):
        emulator.ensemble({}, 2)


def test_every_member_has_a_job(here, x):
    save_emulator("e.safetensors")
    job = Job(here / "e.safetensors", {"x": Files("x.npy")}, here / "y{member}.nc", members=2)
    assert [(j.output.name, j.settings.running.seed, j.members) for j in jobs_of(job)] == [
        ("y0.nc", 0, None),
        ("y1.nc", 1, None),
    ]
