"""Axes of arrays: channels that come last, some of them, cells left out at the beginning."""

import h5py
import netCDF4
import numpy as np
import pytest
import zarr

from map2map.crops import Crops
from map2map.errors import FieldError, GeometryError, M2MError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset

RNG = np.random.default_rng(2)


def in_npy(path, values):
    np.save(path, values)


def in_hdf5(path, values):
    with h5py.File(path, "w") as file:
        file["x"] = values


def in_netcdf(path, values):
    with netCDF4.Dataset(path, "w") as file:
        names = [file.createDimension(f"d{k}", n).name for k, n in enumerate(values.shape)]
        file.createVariable("x", "f4", names)[:] = values


def in_zarr(path, values):
    zarr.open_group(path, mode="w").create_array("x", data=values)


WAYS = [(in_npy, "x.npy"), (in_hdf5, "a.h5"), (in_netcdf, "a.nc"), (in_zarr, "a.zarr")]


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize(("write", "name"), WAYS)
def test_windows_are_those_of_the_array_with_its_axes_moved(
    tmp_path, write, name, frames, last, skip
):
    values = RNG.normal(size=(*(3,) * frames, 6, 7, 2, 4)[: 4 + frames]).astype("f4")
    stored = values if last else np.moveaxis(values, (frames, frames + 1), (-2, -1))
    write(tmp_path / name, np.ascontiguousarray(stored))
    # (frame, channel, *cells), the cells without the first ones
    plain = np.moveaxis(values, (frames, frames + 1), (-2, -1))
    plain = plain.reshape(*(3,) * frames or (1,), 8, 6, 7)[..., skip:, skip:]
    domain = Domain(2, frames=frames, channels_last=last, skip=skip)
    one = [Field("x", kind="scalar")]
    runs = Runs(one, one, {"x": str(tmp_path / name)}, domain)
    dataset = SampleDataset(runs, Crops(2, halo=1, stop=3, step=2), domain=domain)
    for _ in range(2):  # the second time from where they were found
        for i in range(len(dataset)):
            sample = dataset.read(i)
            rows, columns = (
                np.arange(a, b) for a, b in zip(sample.crop.start, sample.crop.stop, strict=True)
            )
            np.testing.assert_array_equal(sample.target, plain[sample.run][:, rows][:, :, columns])
            rows, columns = (
                np.arange(axis[0] - 1, axis[-1] + 2) % n
                for axis, n in zip((rows, columns), plain.shape[-2:], strict=True)
            )
            np.testing.assert_array_equal(sample.input, plain[sample.run][:, rows][:, :, columns])


def test_some_channels_are_a_field(tmp_path):
    values = RNG.normal(size=(9, 5)).astype("f4")
    in_hdf5(tmp_path / "a.h5", values)
    fields = [Field("u", kind="scalar")], [Field("v", kind="scalar")]
    path = str(tmp_path / "a.h5")
    runs = Runs(*fields, {"u": Files(path, "x[0:4]"), "v": Files(path, "x[7:9]")}, Domain(1))
    dataset = SampleDataset(runs, Crops(halo=0))
    for _ in range(2):
        sample = dataset.read(0)
        np.testing.assert_array_equal(sample.input, values[:4])
        np.testing.assert_array_equal(sample.target, values[7:])
    for wrong in ("x[3:3]", "x[4:10]", "x[:, 2]"):
        with pytest.raises(FieldError, match="it has 9"):
            Runs(fields[0], [], {"u": Files(path, wrong)}, Domain(1))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("write", "name"), WAYS)
def test_some_channels_are_taken_on_two_axes(tmp_path, write, name, last):
    values = RNG.normal(size=(4, 6, 5)).astype("f4")
    write(tmp_path / name, values if not last else np.ascontiguousarray(np.moveaxis(values, 2, 0)))
    domain = Domain(1, channels_last=last)
    one = [Field("u", kind="scalar")]
    for variable, expected in {
        "x[1:, 3:6]": values[1:, 3:6],
        "x[:, 2]": values[:, 2:3],
        "x[0,1:2]": values[:1, 1:2],
        "x[1:3, :]": values[1:3],
    }.items():
        runs = Runs(one, one, {"u": Files(str(tmp_path / name), variable)}, domain)
        sample = SampleDataset(runs, Crops(3, halo=0, start=1), domain=domain).read(0)
        np.testing.assert_array_equal(sample.input, expected.reshape(-1, 5)[:, 1:4])
    for wrong in ("x[4:8]", "x[0:5, 1]", "x[2:2, 1]", "x[:, :, 1]"):
        with pytest.raises(FieldError, match=r"it has 24, \[0:4, 0:6\]"):
            Runs(one, [], {"u": Files(str(tmp_path / name), wrong)}, domain)


def test_fields_too_small_to_leave_cells_out_are_refused(tmp_path):
    in_npy(tmp_path / "x.npy", np.zeros((1, 2, 2), "f4"))
    with pytest.raises(M2MError, match="too few to leave out the first 2"):
        Runs([Field("x")], [], {"x": str(tmp_path / "x.npy")}, Domain(2, skip=2))
    with pytest.raises(GeometryError, match="give ndim"):
        Domain(channels_last=True)
    with pytest.raises(GeometryError, match="left out"):
        Domain(skip=-1)
