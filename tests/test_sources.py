"""What is special about each format of file."""

import pickle
import subprocess
import sys
import warnings

import h5py
import netCDF4
import numpy as np
import pytest
import scipy.io
import xarray as xr
import zarr

from map2map.errors import FieldError, GeometryError, SaveError, SourceError
from map2map.grids import Grid
from map2map.sources import (
    Axis,
    Hdf5Source,
    NetcdfSource,
    NpySource,
    Stored,
    ZarrSource,
    npy,
    open_source,
)
from map2map.sources.classic import classic_size
from map2map.sources.pools import LIBRARIES, Pool
from map2map.windows import Window


def whole(run, name, dtype="float64"):
    stored = run.stored(name)
    out = np.full((stored.channels, *stored.shape), -1, dtype)
    run.read(name, Window.whole(stored.shape), out)
    return out


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


class TestNpy:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", ">i2", "u1", "?", "i8", "longdouble"])
    def test_any_byte_order_real_dtype_and_memory_order(self, tmp_path, values, dtype, order):
        stored = np.asarray(5 + values, dtype=dtype, order=order)
        np.save(tmp_path / "a.npy", stored)
        run = NpySource(tmp_path / "a.npy")
        np.testing.assert_array_equal(whole(run, "a"), stored.astype("f8"))
        out = np.empty((3, 3, 3))
        run.read("a", Window((-1, 3), (2, 6)), out)
        expected = np.take(np.take(stored, [-1, 0, 1], 1), [3, 4, 0], 2)
        np.testing.assert_array_equal(out, expected)

    def test_a_scalar_field_needs_no_channel_axis(self, tmp_path, values):
        np.save(tmp_path / "a.npy", values)
        np.save(tmp_path / "line.npy", values[0, 0])
        run = NpySource(tmp_path, ndim=3)
        assert (run.stored("a").channels, run.stored("a").shape) == (1, (3, 4, 5))
        np.testing.assert_array_equal(whole(run, "a")[0], values)
        line = NpySource(tmp_path / "line.npy")
        assert (line.stored("line").channels, line.stored("line").shape) == (1, (5,))
        np.testing.assert_array_equal(whole(line, "line")[0], values[0, 0])

    def test_a_folder_is_a_run_of_its_files(self, tmp_path, values):
        fields = [Stored("v", (4, 5), 3), Stored("rho", (4, 5), dtype=">f8")]
        with NpySource.create(tmp_path / "run", fields) as sink:
            sink.write("v", Window.whole((4, 5)), values)
            sink.write("rho", Window((1, 0), (2, 5)), values[:1, :1])
        run = open_source(tmp_path / "run")
        assert isinstance(run, NpySource)
        assert set(run.fields) == {"v", "rho"}
        np.testing.assert_array_equal(np.load(tmp_path / "run" / "v.npy"), values)
        rho = np.load(tmp_path / "run" / "rho.npy")
        assert rho.dtype == ">f8"
        assert rho.shape == (1, 4, 5)
        np.testing.assert_array_equal(rho[0, 1], values[0, 0])
        assert not rho[0, [0, 2, 3]].any()
        with NpySource.create(tmp_path / "run", fields[:1], overwrite=True) as sink:
            pass
        assert [file.name for file in tmp_path.rglob("*")] == ["run", "v.npy"]
        with pytest.raises(SaveError, match="one file, but 2 fields"):
            NpySource.create(tmp_path / "a.npy", fields).__enter__()
        with pytest.raises(SaveError, match="cannot be the name of a file"):
            NpySource.create(tmp_path / "b", [Stored("../v", (4,))]).__enter__()
        assert [file.name for file in tmp_path.iterdir()] == ["run"]

    def test_a_crop_of_a_file_larger_than_memory_and_disk(self, tmp_path):
        path = tmp_path / "huge.npy"
        np.save(path, np.zeros((1, 1)))
        shape = (1, 2048, 2048, 4096)
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            offset = file.tell()
            file.truncate(offset + 4 * 2**34)
            file.seek(-4, 2)
            file.write(np.float32(7).tobytes())
        out = np.empty((1, 2, 2, 2), "f4")
        NpySource(path).read("huge", Window((-1, -1, -1), (1, 1, 1)), out)
        assert out.ravel().tolist() == [7, *[0] * 7]

    def test_room_on_the_disk_is_taken_before_it_is_mapped(self, tmp_path):
        with NpySource.create(tmp_path / "a.npy", [Stored("a", (512, 512))]):
            (part,) = tmp_path.iterdir()
            assert 512 * part.stat().st_blocks >= 4 * 512 * 512

    def test_a_truncated_file_is_refused_with_both_sizes(self, tmp_path, values):
        path = tmp_path / "a.npy"
        np.save(path, values)
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(SourceError, match=rf"truncated.*{size} bytes.*there are {size - 7}"):
            NpySource(path).stored("a")
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(SourceError, match=r"not an array of numbers saved by numpy"):
            NpySource(path).stored("a")

    def test_objects_are_never_unpickled(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return pytest.fail, ("unpickled",)

        path = tmp_path / "a.npy"
        np.save(path, np.array([Bomb(), Bomb()]), allow_pickle=True)
        with pytest.raises(SourceError, match="objects, which are never unpickled"):
            NpySource(path).stored("a")
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(SourceError, match=r"begins with b'\\x80.*never unpickled"):
            NpySource(path).stored("a")

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (np.zeros((2, 3), "c8"), r"dtype complex64; a field has real numbers"),
            (np.zeros((2, 3), [("x", "f4")]), r"a field has real numbers"),
            (np.zeros((2, 3), "U3"), r"a field has real numbers"),
            (np.zeros((2, 3), "M8[s]"), r"a field has real numbers"),
            (np.zeros(()), r"has 0 axes"),
            (np.zeros((2, 0)), r"holds no cell"),
        ],
    )
    def test_what_is_not_a_field_is_refused(self, tmp_path, bad, message):
        np.save(tmp_path / "a.npy", bad)
        np.save(tmp_path / "good.npy", np.zeros((2, 3)))
        with pytest.raises(SourceError, match=message):
            NpySource(tmp_path / "a.npy").stored("a")
        run = NpySource(tmp_path)
        assert list(run.fields) == ["good"]
        with pytest.raises(SourceError, match=message):
            run.stored("a")

    def test_a_file_that_changes_its_shape_is_noticed(self, tmp_path, values):
        path = tmp_path / "a.npy"
        np.save(path, values)
        run = NpySource(path)
        assert run.fields
        np.save(path, values[:, :2])
        with pytest.raises(SourceError, match=r"now has shape \(3, 2, 5\)"):
            whole(run, "a")
        path.unlink()
        with pytest.raises(SourceError, match=r"cannot read field 'a'.*was removed"):
            whole(run, "a")

    def test_many_files_keep_few_maps_open(self, tmp_path, monkeypatch):
        monkeypatch.setattr(npy.MAPS, "_size", 64)
        for i in range(100):
            np.save(tmp_path / f"f{i}.npy", np.full((1, 4), i))
        run = NpySource(tmp_path)
        assert [whole(run, f"f{i}")[0, 0] for i in range(100)] == list(range(100))
        with open("/proc/self/maps") as maps:  # noqa: PTH123 - read at once, it changes
            assert 0 < sum(str(tmp_path) in line for line in maps) <= 64


class TestNetcdf:
    @pytest.mark.parametrize("version", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"])
    def test_packed_and_missing_values_are_decoded(self, tmp_path, version):
        path = tmp_path / "a.nc"
        packed = np.array([[1, 2, -99], [4, -98, 6]], "i2")
        with netCDF4.Dataset(path, "w", format=version) as file:
            file.createDimension("y", 2)
            file.createDimension("x", 3)
            item = file.createVariable("t", "i2", ("y", "x"), fill_value=-99)
            item.set_auto_maskandscale(False)
            item.setncatts({"scale_factor": 0.5, "add_offset": 10.0, "units": "K"})
            item.missing_value = np.int16(-98)
            item[:] = packed
        run = open_source(path)
        expected = [[10.5, 11, np.nan], [12, np.nan, 13]]
        np.testing.assert_array_equal(whole(run, "t")[0], expected)
        assert run.stored("t").dtype == "float64"
        assert run.stored("t").units == "K"
        out = np.empty((1, 4, 4), "f4")
        run.read("t", Window((-1, -1), (3, 3)), out, Grid((2, 3), periodic=False, pad="edge"))
        np.testing.assert_array_equal(out[0], np.pad(expected, [(1, 1), (1, 0)], "edge"))

    @pytest.mark.parametrize("records", [1, 2, 3])
    def test_records_of_one_odd_variable_are_not_padded(self, tmp_path, records):
        path = tmp_path / "a.nc"
        with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
            file.createDimension("t", None)
            file.createDimension("x", 3)
            file.createVariable("a", "i1", ("t", "x"))[:] = np.ones((records, 3))
        with path.open("rb") as file:
            file.seek(3)
            assert path.stat().st_size - 4 < classic_size(file) <= path.stat().st_size
        assert (whole(NetcdfSource(path), "a") == 1).all()

    def test_a_fill_value_that_packed_integers_cannot_have_is_ignored(self, tmp_path):
        path = tmp_path / "a.nc"
        with np.errstate(invalid="ignore"), scipy.io.netcdf_file(path, "w") as file:
            file.createDimension("x", 2)
            item = file.createVariable("t", "i2", ("x",))
            item[:] = [3, 4]
            item.scale_factor = 0.5
            item._FillValue = np.float64(np.nan)
        assert whole(NetcdfSource(path), "t").tolist() == [[1.5, 2.0]]

    @pytest.mark.parametrize("source", [NetcdfSource, ZarrSource, Hdf5Source])
    def test_units_and_coordinates_are_kept(self, tmp_path, values, source):
        axes = (
            Axis("lat", np.linspace(-60, 60, 4), "degrees_north"),
            Axis("lon", np.arange(5.0), "degrees_east"),
        )
        about = {"units": "m s-1", "axes": axes, "attrs": {"long_name": "wind"}}
        fields = [Stored("g/wind", (4, 5), 3, **about), Stored("rho", (4, 5), units="kg")]
        path = tmp_path / f"a{source.suffixes[0]}"
        with source.create(path, fields) as sink:
            sink.write("g/wind", Window.whole((4, 5)), values)
        run = open_source(path)
        assert set(run.fields) == {"g/wind", "rho"}
        assert run.stored("rho").units == "kg"
        wind = run.stored("g/wind")
        assert (wind.units, wind.channels, wind.axes) == ("m s-1", 3, axes)
        assert wind.attrs == {"long_name": "wind"}
        for axis, written in zip(wind.axes, axes, strict=True):
            np.testing.assert_array_equal(axis.values, written.values)
        np.testing.assert_array_equal(whole(run, "g/wind"), values)

    @pytest.mark.parametrize(
        ("dimensions", "attrs", "spatial"),
        [
            (("time", "lat", "lon"), {}, 2),
            (("month", "level", "latitude", "longitude"), {}, 2),
            (("z", "y", "x"), {}, 3),
            (("time", "north", "east"), {"axis": "X"}, 2),
            (("p", "q", "r"), {}, 2),
            (("channel", "p", "x"), {}, 2),
            (("time",), {}, 1),
            (("x", "time"), {}, 1),
        ],
    )
    def test_which_axes_are_spatial(self, tmp_path, dimensions, attrs, spatial):
        path = tmp_path / "a.nc"
        with netCDF4.Dataset(path, "w") as file:
            for name in dimensions:
                file.createDimension(name, 2)
                file.createVariable(name, "f4", (name,)).setncatts(
                    attrs if name in {"north", "east"} else {}
                )
            file.createVariable("t", "f4", dimensions)[:] = 0
        assert len(NetcdfSource(path).stored("t").shape) == spatial
        assert list(NetcdfSource(path).fields) == ["t"]
        steps = NetcdfSource(path, ndim=len(dimensions))
        assert steps.stored("t").channels == 1

    @pytest.mark.parametrize("records", [False, True])
    @pytest.mark.parametrize(
        "version",
        ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"],
    )
    def test_a_truncated_file_is_refused_rather_than_read_as_zeros(
        self, tmp_path, version, records
    ):
        path = tmp_path / "a.nc"
        with netCDF4.Dataset(path, "w", format=version) as file:
            file.title = "odd"
            file.createDimension("t", None if records else 3)
            file.createDimension("x", 5)
            file.createVariable("a", "i2", ("t", "x"))[:] = np.ones((3, 5))
            item = file.createVariable("b", "f8", ("t", "x"))
            item.note = np.arange(3, dtype="i2")
            item[:] = np.ones((3, 5))
        assert (whole(NetcdfSource(path), "b") == 1).all()
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(SourceError, match="truncated"):
            NetcdfSource(path).stored("b")
        path.write_bytes(content[:16])
        with pytest.raises(SourceError, match="truncated"):
            NetcdfSource(path).stored("b")

    def test_what_it_cannot_hold_is_refused(self, tmp_path):
        path = tmp_path / "a.nc"
        with pytest.raises(SaveError, match=r"cannot hold field 'a' of dtype float16.*float32"):
            NetcdfSource.create(path, [Stored("a", (3,), dtype="float16")]).__enter__()
        fields = [Stored(name, (n,), axes=(Axis("x"),)) for name, n in (("a", 3), ("b", 4))]
        with pytest.raises(SaveError, match="axis 'x' of field 'b' has 4 cells, but 3"):
            NetcdfSource.create(path, fields).__enter__()
        assert not list(tmp_path.iterdir())

    def test_fields_of_different_channels_share_a_file(self, tmp_path, values):
        path = tmp_path / "a.nc"
        fields = [Stored(f"v{n}", (4, 5), n) for n in (1, 2, 3)]
        with NetcdfSource.create(path, fields) as sink:
            for n in (1, 2, 3):
                sink.write(f"v{n}", Window.whole((4, 5)), values[:n])
        run = NetcdfSource(path)
        for n in (1, 2, 3):
            np.testing.assert_array_equal(whole(run, f"v{n}"), values[:n])

    def test_text_is_no_field(self, tmp_path):
        path = tmp_path / "a.nc"
        with netCDF4.Dataset(path, "w") as file:
            file.createDimension("x", 2)
            file.createVariable("name", str, ("x",))
            file.createVariable("letter", "S1", ("x",))
        for name in ("name", "letter"):
            with pytest.raises(SourceError, match="a field has real numbers"):
                NetcdfSource(path).stored(name)


class TestHdf5:
    def test_a_data_set_at_any_path(self, tmp_path, values):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["deep/er/v"] = values
            file["deep/er/v"].attrs["units"] = "km/s"
            file["link"] = h5py.SoftLink("/deep/er/v")
            file["packed"] = values.astype(">i2")
            file["c"] = values.astype("c8")
            file["name"] = "text"
            file["none"] = h5py.Empty("f4")
        run = open_source(path)
        assert set(run.fields) == {"deep/er/v", "packed"}
        assert run.stored("deep/er/v").units == "km/s"
        for name in ("deep/er/v", "/deep/er/v", "link"):
            np.testing.assert_array_equal(whole(run, name), values)
        np.testing.assert_array_equal(whole(run, "packed"), values.astype("i2"))
        with pytest.raises(SourceError, match="dtype complex64; a field has real"):
            run.stored("c")
        with pytest.raises(SourceError, match="is empty"):
            run.stored("none")
        with pytest.raises(FieldError, match="did you mean 'deep/er/v'"):
            run.stored("deep/v")

    def test_chunks_and_compression(self, tmp_path, values):
        path = tmp_path / "a.h5"
        fields = [Stored("v", (4, 5), 3)]
        options = {"chunks": (2, 9), "compression": "gzip"}
        with Hdf5Source.create(path, fields, **options) as sink:
            sink.write("v", Window.whole((4, 5)), values)
        with h5py.File(path) as file:
            assert file["v"].chunks == (3, 2, 5)
            assert file["v"].compression == "gzip"
        np.testing.assert_array_equal(whole(open_source(path), "v"), values)

    @pytest.mark.parametrize("damage", ["cut", "scribble", "foreign", "empty"])
    @pytest.mark.parametrize("source", [Hdf5Source, NetcdfSource])
    def test_a_damaged_file_is_one_clear_message(self, tmp_path, source, damage):
        path = tmp_path / f"a{source.suffixes[0]}"
        with source.create(path, [Stored("v", (64,), 3)]) as sink:
            sink.write("v", Window.whole((64,)), np.ones((3, 64), "f4"))
        content = path.read_bytes()
        bad = {
            "cut": content[: len(content) // 2],
            "scribble": content[:64] + b"\xff" * (len(content) - 64),
            "foreign": b"not a data file" * 100,
            "empty": b"",
        }
        path.write_bytes(bad[damage])
        with pytest.raises(SourceError, match=r"cannot read .*truncated, damaged.*again") as caught:
            whole(source(path), "v")
        assert "\n" not in str(caught.value)

    def test_damaged_values_are_one_clear_message(self, tmp_path):
        path = tmp_path / "a.h5"
        noise = np.random.default_rng(0).random((1, 4096))
        with Hdf5Source.create(path, [Stored("v", (4096,))], compression="gzip") as sink:
            sink.write("v", Window.whole((4096,)), noise)
        content = path.read_bytes()
        path.write_bytes(content[:-9000] + b"\0" * 6000 + content[-3000:])
        with pytest.raises(SourceError, match=r"cannot read field 'v'.*window.*damaged"):
            whole(Hdf5Source(path), "v")

    def test_few_files_stay_open(self, tmp_path):
        for i in range(40):
            with h5py.File(tmp_path / f"{i}.h5", "w") as file:
                file["v"] = np.full((1, 3), i)
        runs = [Hdf5Source(tmp_path / f"{i}.h5") for i in range(40)]
        for _ in range(2):
            assert [whole(run, "v")[0, 0] for run in runs] == list(range(40))
        assert len(LIBRARIES._open) <= 32

    def test_a_forked_process_reads_on(self, tmp_path):
        for name in ("a.h5", "a.nc"):
            source = Hdf5Source if name == "a.h5" else NetcdfSource
            with source.create(tmp_path / name, [Stored("v", (64,))]) as sink:
                sink.write("v", Window.whole((64,)), np.arange(64.0)[None])
        code = """
import os, sys
import numpy as np
from map2map.sources import open_source
from map2map.windows import Window
runs = [open_source(path) for path in sys.argv[1:]]
def ok():
    out = np.empty((1, 64))
    for run in runs:
        run.read("v", Window((1,), (65,)), out)
        assert out[0].tolist() == [*range(1, 64), 0], out
ok()
child = os.fork()
ok()
if child:
    assert os.waitpid(child, 0)[1] == 0
    ok()
"""
        paths = [str(tmp_path / name) for name in ("a.h5", "a.nc")]
        done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestZarr:
    @pytest.mark.parametrize("shards", [None, (4, 4)])
    def test_sharded_or_not(self, tmp_path, values, shards):
        path = tmp_path / "a.zarr"
        fields = [Stored("v", (4, 5), 3)]
        with ZarrSource.create(path, fields, chunks=(2, 2), shards=shards) as sink:
            sink.write("v", Window((0, 0), (3, 5)), values[:, :3])
            sink.write("v", Window((3, 0), (4, 5)), values[:, 3:])
        assert zarr.open(path)["v"].shards == (None if shards is None else (3, 4, 4))
        np.testing.assert_array_equal(whole(open_source(path), "v"), values)

    def test_what_it_cannot_hold_is_refused(self, tmp_path):
        path = tmp_path / "a.zarr"
        fields = [Stored(str(n), (n,), axes=(Axis("x", np.arange(n)),)) for n in (3, 4)]
        with pytest.raises(SaveError, match=r"axis 'x' of field '4' has 4 cells, but \(3,\)"):
            Hdf5Source.create(tmp_path / "a.h5", fields).__enter__()
        with pytest.raises(SaveError, match=r"cannot make .*change .*options \(chunks, shards"):
            ZarrSource.create(path, [Stored("v", (8,))], chunks=(3,), shards=(4,)).__enter__()
        fields = [Stored(str(n), (n,), axes=(Axis("x"),)) for n in (3, 4)]
        with pytest.raises(SaveError, match=r"axis 'x' of field '4' has 4 cells, but 3"):
            ZarrSource.create(path, fields).__enter__()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("version", [2, 3])
    def test_an_array_or_groups_in_both_formats(self, tmp_path, values, version):
        zarr.create_array(tmp_path / "one.zarr", data=values, zarr_format=version)
        group = zarr.open_group(tmp_path / "many", mode="w", zarr_format=version)
        group.create_array("g/v", data=values.astype(">f8"))
        group.create_array("c", data=values.astype("c8"))
        one, many = open_source(tmp_path / "one.zarr"), open_source(tmp_path / "many")
        np.testing.assert_array_equal(whole(one, "one"), values)
        assert list(many.fields) == ["g/v"]
        np.testing.assert_array_equal(whole(many, "g/v"), values)
        with pytest.raises(SourceError, match="dtype complex64; a field has real"):
            many.stored("c")

    @pytest.mark.parametrize("version", [2, 3])
    def test_what_xarray_packed_is_decoded(self, tmp_path, version):
        xarray = pytest.importorskip("xarray")
        expected = np.array([[1.5, np.nan, 2.0], [0.5, 1.0, 0.0]])
        data = xarray.Dataset(
            {"t": (("y", "x"), expected, {"units": "K"}), "s": (("y", "x"), expected)},
            coords={"x": [1.0, 2.0, 4.0]},
        )
        packing = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -9}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # xarray's, about consolidated metadata
            data.to_zarr(tmp_path / "a.zarr", zarr_format=version, encoding={"t": packing})
        run = ZarrSource(tmp_path / "a.zarr", ndim=2)
        for name in ("t", "s"):
            np.testing.assert_array_equal(whole(run, name)[0], expected)
        assert run.stored("t").units == "K"
        assert run.stored("t").axes[1] == Axis("x")
        np.testing.assert_array_equal(run.stored("t").axes[1].values, [1, 2, 4])

    def test_a_damaged_store_is_one_clear_message(self, tmp_path, values):
        path = tmp_path / "a.zarr"
        with ZarrSource.create(path, [Stored("v", (4, 5), 3)]) as sink:
            sink.write("v", Window.whole((4, 5)), values)
        chunk = next(file for file in (path / "v" / "c").rglob("*") if file.is_file())
        chunk.write_bytes(chunk.read_bytes()[:20])
        with pytest.raises(SourceError, match=r"cannot read field 'v'.*damaged"):
            whole(ZarrSource(path), "v")
        (path / "zarr.json").write_text("{")
        with pytest.raises(SourceError, match=r"cannot read .*damaged"):
            ZarrSource(path).stored("v")


def test_the_format_is_told_by_the_suffix(tmp_path):
    path = tmp_path / "a.dat"
    path.touch()
    with pytest.raises(SourceError, match=r"suffix '.dat'; known are .*\.h5.*\.nc.*\.npy.*\.zarr"):
        open_source(path)
    with pytest.raises(SourceError, match=r"format of the folder .*neither .npy files nor Zarr"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match="nor its folder"):
        open_source(tmp_path / "no" / "where.npy")
    np.save(tmp_path / "A.NPY.npy", np.zeros((1, 2)))
    (tmp_path / "A.NPY.npy").rename(tmp_path / "A.NPY")
    assert isinstance(open_source(tmp_path / "A.NPY"), NpySource)


def test_what_contradicts_itself_is_not_stored():
    with pytest.raises(GeometryError, match="at least one cell"):
        Stored("v", (3, 0))
    with pytest.raises(GeometryError, match="3 channels"):
        Stored("v", (3,), 3, leading=(2,))
    with pytest.raises(GeometryError, match="1 named axes but 2"):
        Stored("v", (3, 3), axes=(Axis("x"),))


def test_a_pool_closes_what_was_not_used_for_longest(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.touch()
    closed = []
    pool = Pool(2, close=closed.append)
    a, b, c = files
    for file in (a, b, a, c, a):
        assert pool.get(file, str) == str(file)
    assert closed == [str(b)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("<f4", {}),
        (">f8", {}),
        ("<i2", {}),
        ("<f4", {"chunks": (2, 3, 4)}),
        ("<f4", {"compression": "gzip"}),
    ],
)
@pytest.mark.parametrize("before", [0, 512])
def test_hdf5_arrays_are_read_alike_mapped_or_not(tmp_path, kind, options, before):
    values = (100 * np.random.default_rng(0).normal(size=(5, 6, 7))).astype(kind)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=before) as file:
        file.create_dataset("group/first", data=values, **options)
        file.create_dataset("group/second", data=-values, **options)
    source = open_source(path, ndim=3)
    out = np.empty((1, 3, 6, 2), np.float32)
    window = Window((4, 0, 6), (7, 6, 8))
    for name, sign in (("group/first", 1), ("group/second", -1)):
        source.read(name, window, out)
        expected = values.take([4, 5, 6], 0, mode="wrap").take([6, 7], 2, mode="wrap")
        np.testing.assert_array_equal(out[0], sign * expected.astype(np.float32))
    # written anew, it is mapped anew
    source.release()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["group/first"] = values + 1
    (tmp_path / "b.h5").replace(path)
    open_source(path, ndim=3).read("group/first", window, out)
    expected = values.take([4, 5, 6], 0, mode="wrap").take([6, 7], 2, mode="wrap")
    np.testing.assert_array_equal(out[0], (expected + 1).astype(np.float32))


def test_an_hdf5_array_that_was_never_written_holds_its_fill_value(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4, 4), "f4", fillvalue=3)
    out = np.zeros((1, 4, 4), np.float32)
    open_source(path, ndim=2).read("x", Window.whole((4, 4)), out)
    assert (out == 3).all()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_a_range_of_channels_on_several_axes_is_that_of_the_flattened_ones(
    suffix, channels_last, tmp_path
):
    values = np.arange(3 * 4 * 5 * 6, dtype=np.float32).reshape(3, 4, 5, 6)
    stored = np.moveaxis(values, 3, 0) if channels_last else values
    path = tmp_path / f"field{suffix}"
    if suffix == ".npy":
        np.save(path, stored)
        name = open_source(path, ndim=1, channels_last=channels_last).stored("field").name
    else:
        dims = ("cell", "a", "b", "c") if channels_last else ("a", "b", "c", "cell")
        xr.Dataset({"field": (dims, stored)}).to_zarr(path, zarr_format=3, consolidated=False)
        name = "field"
    source = open_source(path, ndim=1, channels_last=channels_last)
    flat = values.reshape(60, 6)
    for first, stop in ((0, 60), (20, 60), (25, 35), (41, 44), (59, 60)):
        out = np.empty((stop - first, 4), np.float32)
        source.read(f"{name}[{first}:{stop}]", Window((1,), (5,)), out)
        np.testing.assert_array_equal(out, flat[first:stop, 1:5])
    for first, stop in ((15, 25), (21, 29), (40, 61), (7, 7)):
        with pytest.raises(FieldError, match=rf"\[{first}:{stop}\] .* multiples of 20,"):
            source.stored(f"{name}[{first}:{stop}]")
