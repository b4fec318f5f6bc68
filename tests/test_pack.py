"""Packing: the same values in another order, whole or not at all, read as was promised."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from errno import ENOSPC
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore

from map2map import pack as pack_module
from map2map import packed as packed_module
from map2map.commands.pack import named_files
from map2map.crops import Augment, Crops
from map2map.errors import FieldError, RecipeError, SaveError, SourceError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.layouts import amplification, chunk_reads
from map2map.pack import Settings, pack, plan, run_names
from map2map.packed import cast, pack_run
from map2map.patterns import Found
from map2map.records import record_of
from map2map.runs import Files, Runs
from map2map.samples import SampleDataset
from map2map.sources import Axis, Stored, ZarrSource, open_source
from map2map.sources.zarr import ZarrSink
from map2map.windows import Window
from map2map.workers import on_threads

MEMORY = 1 << 30


def packed(patterns, folder, settings, **options):
    """Plan and pack."""
    todo = plan(patterns, folder, settings)
    pack(todo, memory=MEMORY, **options)
    return todo


def contents(folder):
    """All files of packed runs, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def pairs(tmp_path):
    """Three runs of a vector and a scalar field, as npy."""
    rng = np.random.default_rng(0)
    values = {}
    for k in range(3):
        for name, channels in {"a": 2, "b": 1}.items():
            values[name, k] = rng.normal(size=(channels, 12, 10)).astype(np.float32)
            np.save(tmp_path / f"{name}_{k}.npy", values[name, k])
    patterns = {name: str(tmp_path / f"{name}_*.npy") for name in "ab"}
    return tmp_path, patterns, values


# --- what is packed ------------------------------------------------------------------------------


def test_samples_of_packed_runs_are_those_of_the_files(pairs):
    folder, patterns, _ = pairs
    settings = Settings(4, 2, targets=("b",), shard_bytes=1 << 9)
    packed(patterns, folder / "out", settings)
    inputs, targets = [Field("a")], [Field("b")]
    ours, theirs = (
        SampleDataset(
            Runs(inputs, targets, where), Crops(4, halo=2), Augment("all", shift=12), seed=1
        )
        for where in (dict.fromkeys("ab", f"{folder}/out/*.zarr"), patterns)
    )
    assert len(ours) == len(theirs) == 3 * 9
    for index in range(len(ours)):
        for epoch in (None, 0, 5):
            first, second = ours.read(index, epoch), theirs.read(index, epoch)
            np.testing.assert_array_equal(first.input, second.input)
            np.testing.assert_array_equal(first.target, second.target)


def test_every_dtype_is_kept_or_changed_as_asked(tmp_path):
    rng = np.random.default_rng(0)
    for dtype in ("<f4", ">f8", "f2", "i2", "u1", "i8", "?"):
        values = (100 * rng.random((1, 6, 5))).astype(dtype)
        np.save(tmp_path / "x.npy", values)
        for asked in (None, "float32", "float16"):
            out = tmp_path / f"{np.dtype(dtype).name}_{asked}"
            (job,) = packed({"x": str(tmp_path / "x.npy")}, out, Settings(3, dtype=asked)).jobs
            found = zarr.open(job.path, mode="r")["x"]
            assert found.dtype == np.dtype(asked or dtype).newbyteorder("=")
            np.testing.assert_array_equal(found[:], values.astype(found.dtype))


@pytest.mark.parametrize("compression", ["zstd", "blosc", "none"])
def test_compression_is_as_asked_and_changes_no_bit(tmp_path, compression):
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(1, 20, 30)
    values[0, :3, :3] = [[0.0, -0.0, np.nan], [np.inf, -np.inf, 1e-40], [1, 2, 3]]
    np.save(tmp_path / "x.npy", values)
    settings = Settings(8, 2, compression=compression)
    (job,) = packed({"x": str(tmp_path / "x.npy")}, tmp_path / "out", settings).jobs
    array = zarr.open(job.path, mode="r")["x"]
    kinds = {"zstd": ["ZstdCodec"], "blosc": ["BloscCodec"], "none": []}
    assert [type(codec).__name__ for codec in array.compressors] == kinds[compression]
    assert array[:].tobytes() == values.tobytes()


def test_units_axes_coordinates_and_attributes_are_kept(tmp_path):
    with netCDF4.Dataset(tmp_path / "r_1.nc", "w") as file:
        for name, size in {"time": 2, "lat": 6, "lon": 8}.items():
            file.createDimension(name, size)
        for name, units in {"lat": "degrees_north", "lon": "degrees_east"}.items():
            file.createVariable(name, "f4", (name,))[:] = np.arange(file.dimensions[name].size) * 2
            file[name].units = units
        t = file.createVariable("t", "i2", ("time", "lat", "lon"), fill_value=-999)
        t.setncatts({"units": "K", "scale_factor": 0.5, "add_offset": 270.0, "valid_min": -900})
        t.setncatts({"long_name": "temperature", "level": np.float32(2.5)})
        t[:] = 270 + 0.5 * np.arange(96).reshape(2, 6, 8)
        t[0, 0, 0] = np.ma.masked
    (job,) = packed({"t": str(tmp_path / "r_*.nc")}, tmp_path / "out", Settings(4, 1)).jobs
    stored = open_source(job.path).stored("t")
    original = open_source(tmp_path / "r_1.nc").stored("t")
    assert (stored.units, stored.shape, stored.channels) == ("K", (6, 8), 2)
    assert stored.dtype == original.dtype
    assert (stored.attrs["long_name"], stored.attrs["level"]) == ("temperature", 2.5)
    assert [axis.name for axis in stored.axes] == ["lat", "lon"]
    assert [axis.units for axis in stored.axes] == ["degrees_north", "degrees_east"]
    for axis, other in zip(stored.axes, original.axes, strict=True):
        np.testing.assert_array_equal(axis.values, other.values)
    out = np.empty((2, 6, 8))
    open_source(job.path).read("t", Window.whole((6, 8)), out)
    expected = 270 + 0.5 * np.arange(96.0).reshape(2, 6, 8)
    expected[0, 0, 0] = np.nan
    np.testing.assert_array_equal(out, expected)


def test_attributes_that_one_format_ignores_are_not_acted_on_in_another(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.full((1, 4, 4), -999.0, np.float32)
        file["x"].attrs.update({"scale_factor": 3.0, "_FillValue": -999.0, "note": "kept"})
        # so is what the whole file says, which labels and parameters may be told by
        file.attrs.update({"note": "hidden", "seed": 7, "add_offset": 1.0})
    (job,) = packed({"x": str(tmp_path / "x.h5")}, tmp_path / "out", Settings(2)).jobs
    out = np.empty((1, 4, 4), np.float32)
    open_source(job.path).read("x", Window.whole((4, 4)), out)
    assert (out == -999).all()
    assert open_source(job.path).stored("x").attrs == {"note": "kept", "seed": 7}


def test_axes_of_one_name_with_other_coordinates_are_told_apart(tmp_path):
    cells = np.arange(4.0)
    for name, shift in {"rho": 0.0, "same": 0.0, "u": 0.5}.items():
        axes = (Axis("y", cells), Axis("x", cells + shift, "m"))
        stored = Stored(name, (4, 4), axes=axes)
        with ZarrSource.create(tmp_path / f"{name}.zarr", [stored]) as sink:
            sink.write(name, Window.whole((4, 4)), np.ones((1, 4, 4), np.float32))
    patterns = {name: str(tmp_path / f"{name}.zarr") for name in ("rho", "same", "u")}
    (job,) = packed(patterns, tmp_path / "out", Settings(2)).jobs
    source = open_source(job.path)
    names = {name: [a.name for a in source.stored(name).axes] for name in patterns}
    assert names == {"rho": ["y", "x"], "same": ["y", "x"], "u": ["y", "x_u"]}
    np.testing.assert_array_equal(source.stored("u").axes[1].values, cells + 0.5)
    assert source.stored("u").axes[1].units == "m"


def test_targets_may_have_more_cells_per_axis(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in {"coarse": 8, "fine": 16}.items():
        np.save(tmp_path / f"{name}.npy", rng.random((1, n, n), np.float32))
    patterns = {name: str(tmp_path / f"{name}.npy") for name in ("coarse", "fine")}
    settings = Settings(4, (1, 2), targets=("fine",), scale_factor=2)
    todo = packed(patterns, tmp_path / "out", settings)
    assert todo.windows == {"coarse": (6, 8), "fine": (8, 8)}
    for name in patterns:
        found = zarr.open(todo.jobs[0].path, mode="r")[name][:]
        np.testing.assert_array_equal(found, np.load(tmp_path / f"{name}.npy"))


@pytest.mark.parametrize(
    ("pattern", "paths", "names"),
    [
        ("d/za_*.npy", ["d/za_1.npy", "d/za_10.npy"], ["run_1", "run_10"]),
        ("d/*/za.npy", ["d/one/za.npy", "d/two/za.npy"], ["one", "two"]),
        ("d/s*/r?.npy", ["d/s1/r1.npy", "d/s1/r2.npy"], ["run_1_1", "run_1_2"]),
        ("d/alone.npy", ["d/alone.npy"], ["alone"]),
        # "b" before "run_1", though its file came after
        ("d/*.npy", ["d/1.npy", "d/b.npy"], ["0_run_1", "1_b"]),
        (["a/x.npy", "b/x.npy"], ["a/x.npy", "b/x.npy"], ["0_x", "1_x"]),
    ],
)
def test_runs_are_named_by_what_wildcards_stand_for_and_sorted_like_their_files(
    pattern, paths, names
):
    files = pattern if isinstance(pattern, Files) else Files(pattern)
    found = run_names([Found(Path(path), wild=files.wild(Path(path))) for path in paths])
    assert found == names
    assert sorted(f"{name}.zarr" for name in found) == [f"{name}.zarr" for name in found]


# --- how it is laid out --------------------------------------------------------------------------


def test_windows_touch_the_chunks_that_the_plan_says(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 12, 10), np.float32))
    settings = Settings(3, 1, compression="none", shard_bytes=1 << 9, overhead=100)
    todo = packed({"x": str(tmp_path / "x.npy")}, tmp_path / "out", settings)
    layout = todo.layouts["x"]
    assert 1 < layout.files < 12 * 10 // np.prod(layout.chunk)
    index = 16 * np.prod(layout.shard) // np.prod(layout.chunk) + 4
    touched, get = [], LocalStore.get

    def counted(store, key, prototype, byte_range=None):
        if isinstance(byte_range, RangeByteRequest):
            touched.append(byte_range.end - byte_range.start)
        elif byte_range is None and "/c/" in key:  # all chunks of a file, in one request
            touched.append((store.root / key).stat().st_size - index)
        return get(store, key, prototype, byte_range)

    monkeypatch.setattr(LocalStore, "get", counted)
    source, out = open_source(todo.jobs[0].path), np.empty((2, 5, 5), np.float32)
    for y in range(12):
        for x in range(10):
            source.read("x", Window((y, x), (y + 5, x + 5)), out)
    # without compression, the bytes of chunks are those of their cells
    reads = chunk_reads((12, 10), layout.chunk, (5, 5))
    assert sum(touched) / 120 == pytest.approx(reads * todo.chunk_bytes("x"))
    measured = sum(touched) / 120 / out.nbytes
    assert measured == pytest.approx(amplification((12, 10), layout.chunk, (5, 5)))


def test_every_shard_is_written_once(pairs, monkeypatch):
    folder, patterns, _ = pairs
    keys, put = [], LocalStore.set

    async def counted(store, key, value):
        keys.append(f"{store.root}/{key}")
        await put(store, key, value)

    monkeypatch.setattr(LocalStore, "set", counted)
    todo = packed(patterns, folder / "out", Settings(4, 1, shard_bytes=1 << 7))
    shards = [key for key in keys if "/c/" in key]
    files = sum(layout.files for layout in todo.layouts.values())
    assert files > 6
    assert len(shards) == len(set(shards)) == 3 * files


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is not told")
def test_a_file_larger_than_the_memory_is_packed_in_it(tmp_path):
    """Peak memory of a process, less that of packing something tiny."""
    rng = np.random.default_rng(0)
    shape, limit = (3, 64, 512, 512), 64 << 20
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, shape)
    for k in range(3):
        big[k] = rng.random(shape[1:], np.float32)
    del big
    np.save(tmp_path / "tiny.npy", rng.random((3, 32, 32, 32), np.float32))
    code = f"""
        import re
        from pathlib import Path
        from map2map.pack import Settings, pack, plan

        def peak(name):
            settings = Settings(32, 8, shard_bytes={1 << 20}, compression="none")
            todo = plan({{"x": name}}, Path(name).with_suffix(""), settings)
            pack(todo, memory={limit})
            # what getrusage tells is at least what the parent has
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])

        print(-peak("tiny.npy") + peak("big.npy"))
        """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    grown = int(done.stdout) * 1024
    # what the C library keeps for its threads comes on top, and varies
    assert grown < 2 * limit < (tmp_path / "big.npy").stat().st_size / 1.5
    found = zarr.open(tmp_path / "big" / "big.zarr", mode="r")["x"]
    expected = np.load(tmp_path / "big.npy", mmap_mode="r")
    for k in range(0, 64, 32):
        np.testing.assert_array_equal(found[:, k : k + 32], expected[:, k : k + 32])


def test_memory_that_holds_no_shard_is_refused_and_more_is_shared(pairs, monkeypatch):
    folder, patterns, _ = pairs
    todo = plan(patterns, folder / "out", Settings(4))
    with pytest.raises(RecipeError, match=r"packing needs 49 MiB of memory, but 1 MiB"):
        pack(todo, memory=1 << 20)
    assert not (folder / "out").exists()
    seen = []
    monkeypatch.setattr(pack_module, "on_threads", lambda *a: seen.append((a[1][0].memory, a[2])))
    for memory in (120 << 20, 60 << 20):
        pack(todo, memory=memory, threads=8)
    assert seen == [(60 << 20, 2), (60 << 20, 1)]


# --- broken and taken up again -------------------------------------------------------------------


KILLED = """
    import os, signal, sys
    from map2map.cli import main
    from map2map.sources.zarr import ZarrSink
    put, left = ZarrSink._put, [int(sys.argv[1])]

    def counted(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        put(*arguments)

    ZarrSink._put = counted
    main(sys.argv[2:])
    """


def test_a_killed_pack_goes_on_where_it_stopped(pairs, m2m):
    folder, patterns, _ = pairs
    words = [f"{name}={pattern}" for name, pattern in patterns.items()]
    options = ["--crop=4", "--halo=1", "--shard=256", "--threads=1"]
    assert m2m("pack", *words, *options, "-o", "unbroken")[0] == 0
    each = sum(
        layout.files
        for layout in plan(patterns, folder, Settings(4, 1, shard_bytes=256)).layouts.values()
    )
    argv = [str(each + each // 2), "pack", *words, *options, "-o", "out"]
    run = [sys.executable, "-c", textwrap.dedent(KILLED), *argv]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    # one is complete, one is not and does not look like a run
    assert [path.name for path in (folder / "out").glob("*.zarr")] == ["run_0.zarr"]
    assert len(list((folder / "out").glob(".*.part"))) == 1
    kept = (folder / "out" / "run_0.zarr" / "zarr.json").stat()
    status, out, err = m2m("pack", *words, *options, "-o", "out")
    assert status == 0, err
    assert "packed 2 runs into out, 1 were there" in out
    assert contents(folder / "out") == contents(folder / "unbroken")
    again = (folder / "out" / "run_0.zarr" / "zarr.json").stat()
    assert (kept.st_mtime_ns, kept.st_ino) == (again.st_mtime_ns, again.st_ino)


def test_a_run_that_was_packed_otherwise_is_refused_unless_it_may_be_replaced(pairs):
    folder, patterns, values = pairs
    out = folder / "out"
    packed(patterns, out, Settings(4, 1))
    assert plan(patterns, out, Settings(4, 1)).jobs == ()
    with pytest.raises(
        SaveError,
        match=r"run_0\.zarr exists and was packed otherwise: crop is "
        r"\[4\], and \[5\] is asked for; halo is \[1\], and \[2\]",
    ):
        plan(patterns, out, Settings(5, 2))
    with pytest.raises(SaveError, match=r"dtype is None, and float16 is asked for"):
        plan(patterns, out, Settings(4, 1, dtype="float16"))
    with pytest.raises(SaveError, match="compression is zstd, and none"):
        plan(patterns, out, Settings(4, 1, compression="none"))
    todo = plan(patterns, out, Settings(4, 1, compression="none"), overwrite=True)
    assert len(todo.jobs) == 3
    pack(todo, memory=MEMORY)
    assert record_of(out / "run_2.zarr")["settings"]["compression"] == "none"
    np.testing.assert_array_equal(zarr.open(out / "run_2.zarr", mode="r")["a"][:], values["a", 2])
    assert sorted(path.name for path in out.iterdir()) == [f"run_{k}.zarr" for k in range(3)]


def test_a_file_that_changed_is_packed_again_only_when_asked(pairs):
    folder, patterns, values = pairs
    packed(patterns, folder / "out", Settings(4))
    np.save(folder / "b_1.npy", -values["b", 1])
    with pytest.raises(SaveError, match=r"run_1\.zarr exists .*b_1\.npy has changed since"):
        plan(patterns, folder / "out", Settings(4))
    todo = plan(patterns, folder / "out", Settings(4), overwrite=True)
    assert [job.path.name for job in todo.jobs] == ["run_1.zarr"]
    pack(todo, memory=MEMORY)
    found = zarr.open(folder / "out" / "run_1.zarr", mode="r")["b"][:]
    np.testing.assert_array_equal(found, -values["b", 1])


def test_runs_can_be_added(pairs):
    folder, patterns, values = pairs
    packed(patterns, folder / "out", Settings(4))
    for name in "ab":
        np.save(folder / f"{name}_7.npy", values[name, 0])
    todo = packed(patterns, folder / "out", Settings(4))
    assert [job.path.name for job in todo.jobs] == ["run_7.zarr"]
    assert len(todo.complete) == 3


def test_a_file_that_changes_while_it_is_packed_is_refused(pairs, monkeypatch):
    folder, patterns, _ = pairs
    put = ZarrSink._put

    def meddling(sink, stored, index, values):
        os.utime(folder / "a_0.npy", ns=(0, 0))
        put(sink, stored, index, values)

    monkeypatch.setattr(ZarrSink, "_put", meddling)
    with pytest.raises(SourceError, match=r"changed while it was packed .*a_0\.npy.*pack it again"):
        packed(patterns, folder / "out", Settings(4), threads=1)
    assert not list((folder / "out").iterdir())


# --- workers --------------------------------------------------------------------------------------


def test_dask_packs_the_same(pairs):
    distributed = pytest.importorskip("distributed")
    folder, patterns, _ = pairs
    settings = Settings(4, 1, shard_bytes=1 << 8)
    packed(patterns, folder / "threads", settings)
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False}
    finished = []
    with distributed.LocalCluster(dashboard_address=":0", **options) as cluster:
        packed(
            patterns,
            folder / "dask",
            settings,
            dask=cluster.scheduler_address,
            done=finished.append,
        )
    assert contents(folder / "dask") == contents(folder / "threads")
    assert sorted(run.path.name for run in finished) == [f"run_{k}.zarr" for k in range(3)]
    assert {run.read for run in finished} == {3 * 120 * 4}


def test_dask_workers_of_this_machine_are_started(pairs, m2m, monkeypatch):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster
    # threads instead of processes, which the command would start
    options = {"processes": False, "n_workers": 1}
    monkeypatch.setattr(distributed, "LocalCluster", lambda **more: cluster(**more, **options))
    folder, _, _ = pairs
    words = ["a=a_*.npy", "b=b_*.npy", "--crop=4", "-o"]
    status, out, err = m2m("pack", *words, "out", "--dask=local")
    assert (status, "packed 3 runs" in out) == (0, True), err
    assert m2m("pack", *words, "plain")[0] == 0
    assert contents(folder / "out") == contents(folder / "plain")


def test_an_error_on_a_worker_of_dask_is_told_by_name(pairs, monkeypatch):
    distributed = pytest.importorskip("distributed")
    folder, patterns, _ = pairs
    todo = plan(patterns, folder / "out", Settings(4))
    (folder / "a_1.npy").write_bytes(b"junk")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as cluster:
        with pytest.raises(SourceError, match=r"a_1\.npy is not an array.*of 3 runs are packed"):
            pack(todo, memory=MEMORY, dask=cluster.scheduler_address)

        def broken(job):
            raise ZeroDivisionError("of another kind")

        monkeypatch.setattr(pack_module, "pack_run", broken)
        with pytest.raises(SaveError, match="dask gave up: of another kind"):
            pack(todo, memory=MEMORY, dask=cluster.scheduler_address)


@pytest.mark.parametrize("address", ["nowhere://host:1", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_refused(pairs, address, monkeypatch):
    distributed = pytest.importorskip("distributed")
    client, hurry = distributed.Client, {"timeout": "1s"}
    monkeypatch.setattr(distributed, "Client", lambda at, **more: client(at, **more | hurry))
    folder, patterns, _ = pairs
    with pytest.raises(RecipeError, match=f"no dask scheduler answers at '{address}'"):
        packed(patterns, folder / "out", Settings(4), dask=address)
    assert sys.modules["dask"].config.get("scheduler", None) is None, "left behind"


def test_dask_is_imported_only_when_asked_for(pairs):
    folder, patterns, _ = pairs
    words = [f"{name}={pattern}" for name, pattern in patterns.items()]
    code = (
        "import sys\nfrom map2map.cli import main\n"
        f"assert main(['pack', *{words}, '-o', 'out', '--crop', '4']) == 0\n"
        "heavy = {'distributed', 'torch', 'matplotlib', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_error_stops_the_other_threads():
    started, results = [], []

    def job(number, stop):
        started.append(number)
        if number == 1:
            raise SaveError("number one")
        assert stop.wait(60)
        return number

    with pytest.raises(SaveError, match="number one"):
        on_threads(job, range(9), 2, results.append)
    assert set(started) <= {0, 1, 2}
    assert results == []


def test_a_run_that_is_stopped_leaves_nothing(pairs):
    from threading import Event

    folder, patterns, _ = pairs
    job = plan(patterns, folder / "out", Settings(4)).jobs[0]
    stop = Event()
    stop.set()
    with pytest.raises(SaveError, match="was stopped"):
        pack_run(job, stop=stop)
    assert list((folder / "out").iterdir()) == []


def test_two_processes_do_not_pack_into_one_folder(pairs):
    pytest.importorskip("fcntl")
    folder, patterns, _ = pairs
    todo = plan(patterns, folder / "out", Settings(4))
    refusal = pytest.raises(SaveError, match="another process is packing into")
    with pack_module.locked(folder / "out"), refusal:
        pack(todo, memory=MEMORY)
    pack(todo, memory=MEMORY)


# --- bad input ------------------------------------------------------------------------------------


def refused(m2m, *words):
    status, _, err = m2m("pack", *words)
    assert status == 2
    return err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop=0"], "crop has at least one cell"),
        (["--crop=13"], "the crop is (13, 13), but the fields are (12, 10)"),
        (["--crop", "2", "2", "2"], "`crop` has 3 values"),
        (["--crop=4", "--halo=-1"], "the halo (-1,) is out of range"),
        (["--crop=4", "--halo=11"], "the halo (11,) is out of range: on an axis of 10 cells"),
        (["--crop=4", "--halo", "1", "1", "1"], "a halo on 2 axes has 1 value"),
        (["--crop=4", "--compression=gzip"], "unknown compression 'gzip'; use one of zstd"),
        (["--crop=4", "--dtype=int8"], "invalid choice: 'int8'"),
        (["--crop=4", "--memory=lots"], "'lots' is no size of memory"),
        (["--crop=4", "--memory=1MiB"], "allow more, or smaller shards"),
        (["--crop=4", "--shard=4"], "cannot hold one cell of 8 bytes"),
        (["--crop=4", "--target=c"], "the targets are c, but the fields a, b"),
        (["--crop=4", "--target", "a", "b"], "name some of them, not all"),
        (["--crop=4", "--scale-factor=0"], "the scale factor is 0"),
        (["--crop=4", "--threads=0"], "--threads is 0"),
        ([], "--crop"),
    ],
)
def test_options_out_of_range_are_refused(pairs, m2m, options, message):
    folder, _, _ = pairs
    words = [f"{name}={name}_*.npy" for name in "ab"]
    assert message in refused(m2m, *words, "-o", "out", *options)
    assert not (folder / "out").exists()


def test_files_that_do_not_fit_are_refused(pairs, m2m):
    folder, _, _ = pairs
    options = ["--crop=4", "-o", "out"]
    assert "no file matches 'c_*.npy' for field 'b'" in refused(
        m2m, "a=a_*.npy", "b=c_*.npy", *options
    )
    assert "unequal numbers of files: 3 for a, 1 for b" in refused(
        m2m, "a=a_*.npy", "b=b_0.npy", *options
    )
    assert "'a_0.npy' is not NAME=PATH" in refused(m2m, "a_0.npy", "a_1.npy", *options)
    np.save(folder / "b_1.npy", np.ones((1, 12, 12), np.float32))
    err = refused(m2m, "a=a_*.npy", "b=b_*.npy", *options)
    assert "b_1.npy has shape (12, 12), but (12, 10) is expected" in err
    assert not (folder / "out").exists()


def test_a_truncated_file_is_named_before_anything_is_written(pairs, m2m):
    folder, _, _ = pairs
    data = (folder / "b_2.npy").read_bytes()
    (folder / "b_2.npy").write_bytes(data[:-7])
    assert "b_2.npy is truncated" in refused(m2m, "a=a_*.npy", "b=b_*.npy", "--crop=4", "-o=out")
    assert not (folder / "out").exists()


def test_damage_found_on_the_way_is_named_and_what_is_finished_stays(tmp_path, m2m):
    rng = np.random.default_rng(0)
    for k in range(3):
        with h5py.File(tmp_path / f"x_{k}.h5", "w") as file:
            values = rng.random((1, 32, 32))
            item = file.create_dataset("x", data=values, chunks=(1, 8, 32), compression="gzip")
            offset = item.id.get_chunk_info(2).byte_offset
    # the header is as it was, so that only reading this chunk fails
    with (tmp_path / "x_2.h5").open("r+b") as file:
        file.seek(offset)
        file.write(bytes(64))
    options = ["x=x_*.h5", "--crop=8", "-o", "out", "--shard=2KiB", "--threads=1"]
    err = refused(m2m, *options)
    assert "x_2.h5" in err
    assert "2 of 3 runs are packed and stay in" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "run_0.zarr",
        "run_1.zarr",
    ]
    with h5py.File(tmp_path / "mended.h5", "w") as file:
        file["x"] = rng.random((1, 32, 32))
    (tmp_path / "mended.h5").replace(tmp_path / "x_2.h5")
    assert "packed 1 runs into out, 2 were there" in m2m("pack", *options)[1]


def test_a_full_disk_is_told_and_what_is_finished_stays(pairs, m2m, monkeypatch):
    folder, _, _ = pairs
    put, left = LocalStore.set, [9]

    async def full(store, key, value):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(ENOSPC, "No space left on device")
        await put(store, key, value)

    monkeypatch.setattr(LocalStore, "set", full)
    options = ["a=a_*.npy", "b=b_*.npy", "--crop=4", "-o=out", "--threads=1"]
    err = refused(m2m, *options)
    assert "run_1.zarr: [Errno 28] No space left on device" in err
    assert "check free space" in err
    assert "1 of 3 runs are packed" in err
    assert [path.name for path in (folder / "out").iterdir()] == ["run_0.zarr"]
    left[0] = 1000
    assert m2m("pack", *options)[0] == 0


def test_what_is_in_the_way_is_refused_by_name(pairs, m2m):
    folder, _, _ = pairs
    words = ["a=a_*.npy", "b=b_*.npy", "--crop=4"]
    assert "a_0.npy is a file" in refused(m2m, *words, "-o", "a_0.npy")
    (folder / "out" / "run_1.zarr").mkdir(parents=True)
    assert "run_1.zarr was not made by pack" in refused(m2m, *words, "-o", "out", "--overwrite")
    shutil.move(folder / "out" / "run_1.zarr", folder / "out" / "other.zarr")
    err = refused(m2m, *words, "-o", "out")
    assert "other.zarr is in the way" in err
    assert "was not made by pack" in err
    shutil.rmtree(folder / "out")
    assert m2m("pack", *words, "-o", "out")[0] == 0
    # another set of runs, packed otherwise, into the same folder
    err = refused(m2m, "a=a_0.npy", "--crop=4", "-o", "out")
    assert "run_0.zarr is in the way" in err
    assert "chunk is" in err
    again = ["a=out/*.zarr", "--crop=3", "-o", "out", "--overwrite"]
    assert "would be packed into itself" in refused(m2m, *again)


def test_numbers_that_a_dtype_cannot_hold_are_refused(tmp_path):
    big = np.array([[[1.0, 7e4]]])
    with pytest.raises(FieldError, match="has values beyond 65504, the largest of float16"):
        cast(big, np.dtype("f2"), "field 'x'")
    whole = np.array([[[1.0, np.nan]]])
    with pytest.raises(FieldError, match="has missing values or numbers beyond 2"):
        cast(whole, np.dtype("i2"), "field 'x'")
    np.save(tmp_path / "x.npy", np.full((1, 4, 4), 2**53 + 1))
    with pytest.raises(FieldError, match=r"field 'x' of .*x\.npy is of int64"):
        packed({"x": str(tmp_path / "x.npy")}, tmp_path / "out", Settings(2))


def test_infinities_are_no_overflow():
    values = np.array([np.inf, -np.inf, np.nan, 1.0])
    np.testing.assert_array_equal(cast(values, np.dtype("f2"), ""), values)


def test_a_record_of_another_format_is_refused(pairs):
    folder, patterns, _ = pairs
    packed(patterns, folder / "out", Settings(4))
    path = folder / "out" / "run_0.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(SaveError, match="its format is 2, and 1 is known"):
        plan(patterns, folder / "out", Settings(4))


# --- the command ----------------------------------------------------------------------------------


def test_one_path_with_several_fields_needs_no_names(tmp_path, m2m):
    for k in range(2):
        with h5py.File(tmp_path / f"r{k}.h5", "w") as file:
            file["u"], file["v"] = np.ones((1, 6, 6)), np.zeros((1, 6, 6))
    assert m2m("pack", "r*.h5", "--crop=3", "-o=out")[0] == 0
    assert set(open_source(tmp_path / "out" / "run_1.zarr").fields) == {"u", "v"}
    assert named_files(["r*.h5::/u"]) == {"u": Files("r*.h5", "/u")}
    np.save(tmp_path / "x_0.npy", np.ones((1, 6, 6)))
    with pytest.raises(RecipeError, match=r"have no name for their field; give NAME='x_\*\.npy'"):
        named_files(["x_*.npy"])


def test_the_plan_is_printed_and_nothing_done(pairs, m2m):
    folder, _, _ = pairs
    words = ["a=a_*.npy", "b=b_*.npy", "--target=b", "--crop=4", "--halo=1", "-o=out"]
    status, out, _ = m2m("pack", *words, "--plan")
    assert (status, (folder / "out").exists()) == (0, False)
    layouts = plan(
        {name: str(folder / f"{name}_*.npy") for name in "ab"},
        folder / "out",
        Settings(4, 1, targets=("b",)),
    ).layouts
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for name, window in {"a": 6, "b": 4}.items():
        chunk = layouts[name].chunk
        reads = chunk_reads((12, 10), chunk, (window, window))
        assert lines[name].split()[-1] == f"{reads * np.prod(chunk) / window**2:.2f}"
    assert "3 runs of 1.41 KiB to pack, 0 are packed already" in " ".join(out.split())


def test_an_interrupt_leaves_what_is_finished(pairs, m2m, monkeypatch):
    folder, _, _ = pairs
    run, seen = packed_module.pack_run, []

    def interrupted(job, **options):
        seen.append(job)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return run(job, **options)

    monkeypatch.setattr(pack_module, "pack_run", interrupted)
    words = ["a=a_*.npy", "b=b_*.npy", "--crop=4", "-o=out", "--threads=1"]
    assert m2m("pack", *words)[0] == 130
    names = {path.name for path in (folder / "out").iterdir()}
    assert "run_0.zarr" in names
    assert json.loads((folder / "out/run_0.zarr/zarr.json").read_text())["attributes"]


def test_arrays_of_one_file_are_packed_by_their_names_and_found_again(tmp_path):
    rng = np.random.default_rng(0)
    cubes = {
        f"{g}_seed{s:04d}": rng.normal(size=(4, 5, 6)) for s in (0, 1) for g in ("gr", "newton")
    }
    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name, values in cubes.items():
            file[name] = values
    files = Files(str(tmp_path / "all.h5"), "{gravity}_seed{seed}")
    pack(plan({"phi": files}, tmp_path / "out", Settings([4, 5, 1]), ndim=3), memory=MEMORY)
    label = Field("gravity", kind="label", classes=("newton", "gr"))
    again = Files(str(tmp_path / "out" / "{gravity}_seed{seed}.zarr"))
    runs = Runs([Field("phi", channels=1)], [label], {"phi": again}, Domain(3))
    assert len(runs) == 4
    for run, number in zip(runs, runs.numbers, strict=True):
        source, variable = runs.source("phi", run)
        out = np.empty((1, 4, 5, 6), np.float32)
        source.read(variable, Window.whole((4, 5, 6)), out)
        name = f"{run.told['gravity']}_seed{run.told['seed']}"
        np.testing.assert_array_equal(out[0], cubes[name].astype(np.float32))
        assert number == [float(run.told["gravity"] == "gr")]
