"""Planes of cubes as runs: against slices of whole arrays in memory."""

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

from map2map.batches import Batch
from map2map.crops import Augment, Crops
from map2map.derived import Gradient
from map2map.errors import FieldError, GeometryError, M2MError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.kept import whole_bytes
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset
from map2map.told import Told

PHI = Field("phi", channels=1)
GRAVITY = Field("gravity", kind="label", classes=("newton", "gr"))
BOTH = "{gravity}_seed{seed}"


def cubes(path, shapes, dtype=np.float32, seed=0):
    """An HDF5 file with an array for each name."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    with h5py.File(path, "w") as opened:
        for name, values in arrays.items():
            opened[name] = values
    return arrays


@pytest.fixture
def four(tmp_path):
    """Two seeds of two gravities, and their file."""
    names = [f"{g}_seed{s:04d}" for g in ("gr", "newton") for s in (0, 1)]
    path = tmp_path / "z1.h5"
    return cubes(path, dict.fromkeys(names, (6, 6, 6))), {"phi": Files(str(path), BOTH)}


def planes(array, axes, step):
    return [array.take(i, axis=a) for a in axes for i in range(0, array.shape[a], step)]


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("axes", [[0], [1], [2], [0, 1, 2], [2, 0]])
def test_planes_are_slices_of_the_cube(four, axes, step, in_memory):
    arrays, patterns = four
    domain = Domain(ndim=2, planes=axes, plane_step=step)
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    dataset = SampleDataset(runs, Crops(halo=0), domain=domain, in_memory=in_memory)
    expected = [plane for name in sorted(arrays) for plane in planes(arrays[name], axes, step)]
    assert len(dataset) == len(expected)
    for k, plane in enumerate(expected):
        np.testing.assert_array_equal(dataset.read(k).input[0], plane)


def test_planes_of_a_cube_are_a_group_and_have_its_label(four):
    arrays, patterns = four
    domain = Domain(ndim=2, planes=[0, 2], plane_step=3)
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    dataset = SampleDataset(runs, Crops(halo=0), domain=domain)
    names = sorted(arrays)
    assert [run.group for run in runs] == [k for k in range(4) for _ in range(4)]
    assert [run.plane for run in runs][:4] == [(0, 0), (0, 3), (2, 0), (2, 3)]
    assert [str(run).rpartition(":")[2] for run in runs.groups] == names
    for k, run in enumerate(runs):
        assert dataset.read(k).target.tolist() == [names[run.group].startswith("gr")]
    assert str(runs.runs[5]).endswith("gr_seed0001, plane 3 of axis 0")


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
def test_crops_and_halos_of_planes_wrap_within_the_plane(four, in_memory):
    arrays, patterns = four
    domain = Domain(ndim=2, planes=[1], plane_step=5)
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    dataset = SampleDataset(runs, Crops(size=3, halo=2), domain=domain, in_memory=in_memory)
    name = sorted(arrays)[1]
    plane = arrays[name].take(5, axis=1)
    expected = plane.take(range(1, 8), axis=0, mode="wrap").take(range(-2, 5), 1, mode="wrap")
    # run 3 is plane 5 of the second cube, its third crop begins at cell (3, 0)
    np.testing.assert_array_equal(dataset.read(3 * 4 + 2).input[0], expected)


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
@pytest.mark.parametrize("pad", ["zero", "edge", "reflect"])
def test_beyond_an_edge_of_a_plane_the_pad_is_that_of_its_axes(four, pad, in_memory):
    arrays, patterns = four
    domain = Domain(ndim=2, planes=[1], plane_step=5, periodic=[True, False], pad=pad)
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    dataset = SampleDataset(runs, Crops(halo=2), domain=domain, in_memory=in_memory)
    plane = arrays[sorted(arrays)[0]].take(5, axis=1)
    how = {"zero": "constant", "edge": "edge", "reflect": "reflect"}[pad]
    expected = np.pad(np.pad(plane, ((2, 2), (0, 0)), mode="wrap"), ((0, 0), (2, 2)), mode=how)
    np.testing.assert_array_equal(dataset.read(1).input[0], expected)


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
def test_planes_of_unequal_sides_need_a_crop_and_no_same_shape(tmp_path, in_memory):
    arrays = cubes(tmp_path / "a.h5", {"gr_0": (4, 5, 7), "newton_0": (6, 4, 5)})
    patterns = {"phi": Files(str(tmp_path / "a.h5"), "{gravity}_{seed}")}
    with pytest.raises(GeometryError, match="same_shape"):
        Runs([PHI], [GRAVITY], patterns, Domain(ndim=2, planes=[0, 1, 2]))
    domain = Domain(ndim=2, planes=[0, 1, 2], plane_step=2, same_shape=False)
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    dataset = SampleDataset(runs, Crops(size=4, halo=0), domain=domain, in_memory=in_memory)
    expected = [
        plane[i : i + 4, j : j + 4]
        for name in sorted(arrays)
        for plane in planes(arrays[name], (0, 1, 2), 2)
        for i in range(0, plane.shape[0] - 3, 4)
        for j in range(0, plane.shape[1] - 3, 4)
    ]
    sizes = [plane.shape for name in sorted(arrays) for plane in planes(arrays[name], (0, 1, 2), 2)]
    assert [runs.shape_of(k) for k in range(len(runs))] == sizes
    assert len(dataset) == sum(-(-n // 4) * -(-m // 4) for n, m in sizes)
    found = [dataset.read(k).input[0] for k in range(len(dataset))]
    for wanted in expected:
        assert any(np.array_equal(wanted, one) for one in found)


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
def test_planes_of_frames_belong_to_their_frame(tmp_path, in_memory):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 4, 5, 6))
    times = np.array([0.0, 365.25, 730.5])
    data = xr.Dataset({"phi": (("time", "x", "y", "z"), values)}, {"time": ("time", times)})
    data.phi.encoding = {"dtype": "int16", "scale_factor": 2e-4, "_FillValue": -32768}
    data.to_netcdf(tmp_path / "a.nc")
    year = Field("year", kind="parameter", units="a")
    patterns = {
        "phi": str(tmp_path / "a.nc"),
        "year": Told(coordinate=True, scale=1 / 365.25, offset=1979),
    }
    domain = Domain(ndim=2, planes=[2, 0], plane_step=2, frames=2, same_shape=False)
    runs = Runs([PHI], [year], patterns, domain)
    dataset = SampleDataset(runs, Crops(size=4, halo=0), domain=domain, in_memory=in_memory)
    scaled = np.round(values / 2e-4) * 2e-4
    assert [run.frame for run in runs.groups] == [0, 2]
    assert [run.part("phi") for run in runs.groups] == [{"frame": 0}, {"frame": 2}]
    np.testing.assert_allclose(runs.numbers, [[1979], [1981]])
    index = 0
    for k, run in enumerate(runs):
        axis, number = run.plane
        assert (run.frame, run.group) == ((0, 0) if k < 5 else (2, 1))
        plane = scaled[run.frame].take(number, axis=axis)
        assert runs.shape_of(k) == plane.shape
        sample = dataset.read(index)
        np.testing.assert_allclose(sample.input[0], plane[:4, :4], atol=1e-6)
        np.testing.assert_allclose(sample.target, [1979 + run.frame])
        index += dataset.layouts[k].count


def test_double_precision_is_rounded_as_numpy_does(tmp_path):
    arrays = cubes(tmp_path / "a.h5", {"gr_seed0": (4, 4, 4)}, np.float64)
    domain = Domain(ndim=2, planes=[1])
    runs = Runs([PHI], [GRAVITY], {"phi": Files(str(tmp_path / "a.h5"), BOTH)}, domain)
    for in_memory in (0, "1GiB"):
        dataset = SampleDataset(runs, Crops(halo=0), domain=domain, in_memory=in_memory)
        expected = arrays["gr_seed0"].take(3, axis=1).astype(np.float32)
        np.testing.assert_array_equal(dataset.read(3).input[0], expected)


@pytest.mark.parametrize("in_memory", [0, "1GiB"])
def test_what_is_derived_is_derived_on_the_plane_with_and_without_memory(tmp_path, in_memory):
    u = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32)
    np.save(tmp_path / "u_gr.npy", u[None])
    domain = Domain(ndim=2, planes=[0, 1, 2], plane_step=2, periodic=False, pad="edge", spacing=0.5)
    runs = Runs(
        [Field("slope"), Field("u")],
        [GRAVITY],
        {"u": str(tmp_path / "u_{gravity}.npy")},
        domain,
        derived={"slope": Gradient("u", axis=1)},
    )
    dataset = SampleDataset(runs, Crops(halo=0), domain=domain, in_memory=in_memory)
    for k, plane in enumerate(planes(u, (0, 1, 2), 2)):
        # along the second axis of the plane, which is the last of the cube, or the one before
        expected = np.stack([np.gradient(plane, 0.5, axis=1), plane])
        np.testing.assert_allclose(dataset.read(k).input, expected, rtol=1e-5, atol=1e-6)


def test_directions_of_planes_are_those_of_their_own_axes(tmp_path):
    rng = np.random.default_rng(0)
    coords = {"x": np.arange(4.0), "y": -np.arange(4.0), "z": np.arange(4.0)}
    data = xr.Dataset({"phi": (("x", "y", "z"), rng.normal(size=(4, 4, 4)))}, coords)
    data.to_netcdf(tmp_path / "gr.nc")
    domain = Domain(ndim=2, planes=[0, 1, 2], plane_step=4)
    runs = Runs([PHI], [GRAVITY], {"phi": str(tmp_path / "{gravity}.nc")}, domain)
    assert [runs.directions(k) for k in range(3)] == [(-1, 1), (1, 1), (1, -1)]


def test_whole_bytes_are_those_of_the_cubes_once(four):
    _, patterns = four
    runs = Runs([PHI], [GRAVITY], patterns, Domain(ndim=2, planes=[0, 1, 2]))
    assert whole_bytes(runs) == 4 * 6**3 * 4


def test_symmetries_turn_planes_in_a_batch_as_each_alone(four):
    """Samples that are drawn alike are turned together."""
    _, patterns = four
    domain = Domain(ndim=2, planes=[0, 1, 2])
    runs = Runs([PHI], [GRAVITY], patterns, domain)
    augment = Augment(symmetries="all", shift=6)
    dataset = SampleDataset(runs, Crops(halo=[1, 1, 1, 1]), augment, domain)
    batch = Batch(dataset, range(0, 72, 2))
    for i in range(len(batch)):
        batch.fill(i, epoch=3)
    x, y = batch.settle()
    drawn = {draw.symmetry for draw in batch.draws}
    assert 1 < len(drawn) < len(batch)
    for i, index in enumerate(batch.indices):
        one = Batch(dataset, [index])
        one.fill(0, epoch=3)
        alone, label = one.settle()
        assert np.array_equal(x[i], alone[0])
        assert np.array_equal(y[i], label[0])
    assert y.shape == (36, 1)


def test_attributes_of_arrays_and_of_netcdf_variables_tell(tmp_path):
    mass = Field("mass", kind="parameter")
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        for k in range(2):
            opened[f"c{k}"] = np.zeros((4, 4), np.float32)
            opened[f"c{k}"].attrs["m"] = 0.5 + k
            opened[f"c{k}"].attrs["g"] = ("gr", "newton")[k]
    told = {"mass": Told(attribute="m", scale=2), "gravity": Told(attribute="g")}
    patterns = {"phi": Files(str(tmp_path / "a.h5"), "c*")} | told
    runs = Runs([PHI], [GRAVITY, mass], patterns, Domain(ndim=2))
    np.testing.assert_array_equal(runs.numbers, [[1, 1], [0, 3]])
    for k in range(2):
        attrs = {"m": np.float32(0.5 + k), "g": ("gr", "newton")[k]}
        xr.Dataset({"phi": (("x", "y"), np.zeros((4, 4)), attrs)}).to_netcdf(tmp_path / f"{k}.nc")
    runs = Runs([PHI], [GRAVITY, mass], {"phi": str(tmp_path / "*.nc")} | told, Domain(ndim=2))
    np.testing.assert_array_equal(runs.numbers, [[1, 1], [0, 3]])


def in_hdf5(path, arrays, groups):
    with h5py.File(path, "w") as opened:
        for name, attrs in arrays.items():
            opened[name] = np.zeros((4, 4), np.float32)
            opened[name].attrs.update(attrs)
        for name, attrs in groups.items():
            opened[name].attrs.update(attrs)


def in_netcdf(path, arrays, groups):
    with netCDF4.Dataset(path, "w") as opened:
        for axis in "yx":
            opened.createDimension(axis, 4)
        for name, attrs in arrays.items():
            opened.createVariable(name, "f4", ("y", "x"))[:] = 0
            opened[name].setncatts(attrs)
        for name, attrs in groups.items():
            (opened if name == "/" else opened[name]).setncatts(attrs)


def in_zarr(path, arrays, groups):
    opened = zarr.open_group(path, mode="w")
    for name in groups:
        if name != "/":
            opened.require_group(name.strip("/"))
    for name, attrs in arrays.items():
        array = opened.create_array(name, shape=(4, 4), dtype="f4")
        array[:] = 0
        array.attrs.update(attrs)
    for name, attrs in groups.items():
        (opened if name == "/" else opened[name.strip("/")]).attrs.update(attrs)


@pytest.mark.parametrize(
    ("write", "ending"), [(in_hdf5, "h5"), (in_netcdf, "nc"), (in_zarr, "zarr")]
)
def test_attributes_of_groups_tell_what_those_of_the_array_do_not(tmp_path, write, ending):
    arrays = {"a/b/phi": {"m": 1.0}, "a/c/phi": {}, "d/phi": {}}
    groups = {"/": {"m": 4.0, "g": "gr"}, "/a": {"m": 3.0}, "/a/b": {"m": 2.0, "g": "newton"}}
    groups |= {"/a/c": {}, "/d": {}}
    path = tmp_path / f"x.{ending}"
    write(path, arrays, groups)
    mass, told = Field("mass", kind="parameter"), Told(attribute="m", scale=2)
    patterns = {"phi": Files(str(path), "**phi"), "mass": told, "gravity": Told(attribute="g")}
    runs = Runs([PHI], [GRAVITY, mass], patterns, Domain(ndim=2))
    # the array's own, else that of the innermost group that has it, else the file's
    np.testing.assert_array_equal(runs.numbers, [[0, 2], [1, 6], [1, 8]])
    with pytest.raises(FieldError, match=r"no attribute 'n'.*there are g, m"):
        Runs([PHI], [GRAVITY, mass], patterns | {"mass": Told(attribute="n")}, Domain(ndim=2))


# --- refusals


def test_cubes_of_unequal_shape_are_refused_by_name(tmp_path):
    cubes(tmp_path / "a.h5", {"gr_seed0": (4, 4, 4), "newton_seed0": (4, 4, 6)})
    runs = {"phi": Files(str(tmp_path / "a.h5"), BOTH)}
    domain = Domain(ndim=2, planes=[0])
    with pytest.raises(GeometryError, match=r"shape \(4, 6\), but \(4, 4\) is expected"):
        Runs([PHI], [GRAVITY], runs, domain)


def test_a_broken_file_is_refused_without_a_traceback(tmp_path):
    path = tmp_path / "a.h5"
    cubes(path, {"gr_seed0": (16, 16, 16), "newton_seed0": (16, 16, 16)})
    domain = Domain(ndim=2, planes=[2], plane_step=8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for in_memory in (0, "1GiB"):
        with pytest.raises(M2MError, match=r"a\.h5"):  # noqa: PT012
            runs = Runs([PHI], [GRAVITY], {"phi": Files(str(path), BOTH)}, domain)
            data = SampleDataset(runs, Crops(halo=0), domain=domain, in_memory=in_memory)
            for k in range(len(data)):
                data.read(k)


def test_labels_are_no_inputs_and_have_no_files(four):
    _, patterns = four
    domain = Domain(ndim=2, planes=[0])
    with pytest.raises(FieldError, match="can be learnt, but is no input"):
        Runs([PHI, GRAVITY], [], patterns, domain)
    with pytest.raises(FieldError, match="no files of its own"):
        Runs([PHI], [GRAVITY], patterns | {"gravity": Files("*.npy")}, domain)
    with pytest.raises(FieldError, match="has values in cells"):
        Runs([PHI], [GRAVITY], {"phi": Told(placeholder="seed")}, domain)


def test_a_class_that_a_pattern_finds_but_is_not_declared_is_refused(four):
    _, patterns = four
    label = Field("gravity", kind="label", classes=("newton", "mond"))
    with pytest.raises(FieldError, match="'gr', which is none of its classes, newton, mond"):
        Runs([PHI], [label], patterns, Domain(ndim=2, planes=[0]))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"planes": [0]}, "give ndim"),
        ({"ndim": 2, "planes": [3]}, r"different ones of \[0, 1, 2\]"),
        ({"ndim": 2, "planes": [0, 0]}, "different ones"),
        ({"ndim": 2, "planes": []}, "different ones"),
        ({"ndim": 2, "planes": [0], "plane_step": 0}, "use 1 for all"),
    ],
)
def test_planes_that_cannot_be_are_refused(how, says):
    with pytest.raises(GeometryError, match=says):
        Domain(**how)


def test_a_step_beyond_the_last_plane_is_refused(tmp_path):
    cubes(tmp_path / "a.h5", {"gr_seed0": (6, 4, 5)})
    patterns = {"phi": Files(str(tmp_path / "a.h5"), BOTH)}
    says = r"every 5-th plane is .*gr_seed0 has 4 across axis 1; data.domain.plane_step is at most"
    with pytest.raises(GeometryError, match=says):
        Runs([PHI], [GRAVITY], patterns, Domain(ndim=2, planes=[1], plane_step=5))
    # a whole axis at once is the first plane, as is all of an axis that has one
    for axis, step in ((0, 6), (1, 4), (2, 5)):
        runs = Runs([PHI], [GRAVITY], patterns, Domain(ndim=2, planes=[axis], plane_step=step))
        assert [run.plane for run in runs] == [(axis, 0)]
    cubes(tmp_path / "flat.h5", {"gr_seed0": (1, 4, 4)})
    patterns = {"phi": Files(str(tmp_path / "flat.h5"), BOTH)}
    runs = Runs([PHI], [GRAVITY], patterns, Domain(ndim=2, planes=[0], plane_step=2))
    assert [run.plane for run in runs] == [(0, 0)]


def test_planes_of_a_field_without_another_axis_are_refused(tmp_path):
    np.save(tmp_path / "gr.npy", np.zeros((4, 4), np.float32))
    with pytest.raises(M2MError, match=r"gr\.npy"):
        Runs([PHI], [GRAVITY], {"phi": str(tmp_path / "{gravity}.npy")}, Domain(ndim=2, planes=[0]))
