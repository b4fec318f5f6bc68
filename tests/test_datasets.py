"""xarray in, xarray out: names, coordinates, attributes; what does not fit is refused by name."""

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.arrays import Settings, apply_arrays
from map2map.datasets import moved_coordinate
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError
from map2map.fields import Field, FieldSet, same_units
from map2map.footprints import Footprint
from map2map.grids import Domain, Grid
from map2map.models import ConvNet
from map2map.norms import Standardize
from map2map.tiling import Tiling


def make(domain=None):
    torch.manual_seed(0)
    inputs = FieldSet((Field("v", "m/s", "vector", 2), Field("rho", "kg/m3", "scalar", 1)))
    targets = FieldSet((Field("w", "m/s", "vector", 2), Field("p", "Pa", "scalar", 1)))
    model = ConvNet(3, 3, ndim=2, width=4, depth=2)
    norms = {"p": Standardize([10.0], [2.0])}
    return Emulator(inputs, targets, norms, model, domain or Domain(2)).eval()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "v": (("time", "component", "y", "x"), rng.normal(size=(3, 2, 9, 11))),
            "rho": (("time", "y", "x"), rng.normal(size=(3, 9, 11)), {"units": "kg m-3"}),
        },
        coords={
            "time": ("time", np.array([1.0, 2.0, 4.0]), {"units": "days"}),
            "y": ("y", 0.5 * np.arange(9), {"units": "km"}),
            "x": ("x", 5.0 + 0.5 * np.arange(11), {"units": "km"}),
            "component": ["east", "north"],
            "height": (("y", "x"), np.arange(99.0).reshape(9, 11)),
            "case": "storm",
        },
        attrs={"title": "a run"},
    )


def test_a_dataset_gives_a_dataset_with_its_coordinates_and_attributes(data):
    emulator = make()
    out = emulator(data)
    assert out.w.dims == ("time", "component", "y", "x")
    assert out.p.dims == ("time", "y", "x")
    assert (out.w.units, out.p.units) == ("m/s", "Pa")
    assert out.title == "a run"
    assert out.attrs["grid_beyond_edges"] == "periodic, periodic"
    for name in data.coords:
        xr.testing.assert_identical(out.coords[name], data.coords[name])
    for t in range(3):
        alone = emulator({"v": data.v.values[t], "rho": data.rho.values[t]})
        np.testing.assert_allclose(out.w.values[t], alone["w"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out.p.values[t], alone["p"][0], rtol=1e-5)


def test_without_other_axes_or_coordinates_it_works_as_well(data):
    bare = data.isel(time=0).drop_vars(list(data.coords))
    out = make()(bare)
    assert out.p.dims == ("y", "x")
    assert not out.coords
    np.testing.assert_allclose(out.p, make()(data).p[0], rtol=1e-5)


def test_the_valid_interior_keeps_the_coordinates_of_its_cells(data):
    out = make(Domain(2, [False, True]))(data)
    assert out.sizes["y"] == 5
    assert out.y.values.tolist() == data.y.values[2:7].tolist()
    np.testing.assert_array_equal(out.height, data.height[2:7])
    np.testing.assert_allclose(out.p, make()(data).p[:, 2:7], rtol=1e-5)
    # and its attributes tell the next emulator that it is not periodic there
    with pytest.raises(GeometryError, match="learnt on"):
        make()(xr.Dataset({"v": data.v[:, :, 2:7], "rho": data.rho[:, 2:7]}, attrs=out.attrs))


def test_coordinates_of_a_finer_grid_lie_between():
    tiling = Tiling(Grid((4,)), Footprint(1, scale=2, cut=2))
    moved = moved_coordinate(np.array([0.0, 1.0, 2.0, 4.0]), 0, tiling)
    np.testing.assert_allclose(moved, [-0.25, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 4.5])
    assert moved_coordinate(np.array(list("abcd")), 0, tiling) is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d.rename(rho="rh0"), FieldError, "no variable 'rho'.*did you mean 'rh0'"),
        (lambda d: d.drop_vars("v"), FieldError, "no variable 'v'"),
        (lambda d: d.assign(rho=d.rho.assign_attrs(units="g/cm3")), FieldError,
         "'rho' is in units of 'g/cm3', but the emulator takes 'kg/m3'"),
        (lambda d: d.isel(component=[0]), FieldError, "'v' has the axes .*takes 2 channels"),
        (lambda d: d.assign(rho=d.rho.isel(time=0, y=0, drop=True)), FieldError, "'rho' has the"),
        (lambda d: d.assign(rho=d.rho.transpose("time", "x", "y")), GeometryError,
         "let them agree"),
        (lambda d: d.assign(rho=d.rho.isel(time=0, drop=True)), GeometryError, "let them agree"),
        (lambda d: d.assign(rho=d.rho.where(d.x > 6)), FieldError, "first in field 'rho' at cell"),
        (lambda d: d.assign_coords(x=np.arange(11.0)), GeometryError, "1 wide on axis 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(data, change, error, message):
    with pytest.raises(error, match=message):
        make(Domain(2, spacing=0.5))(change(data))


def test_another_spacing_can_be_asked_for(data):
    emulator = make(Domain(2, spacing=[0.5, 0.25]))
    with pytest.raises(GeometryError, match=r"0.5 wide on axis 1, .*learnt on 0.25"):
        emulator(data)
    assert emulator.apply(data, other_grid=True).p.shape == (3, 9, 11)


def test_tensors_give_tensors_and_arrays_give_arrays(data):
    emulator = make()
    values = {"v": data.v.values[0], "rho": data.rho.values[0]}
    arrays = emulator(values)
    tensors = emulator({name: torch.from_numpy(x) for name, x in values.items()})
    for name in ("w", "p"):
        assert isinstance(tensors[name], torch.Tensor)
        np.testing.assert_array_equal(tensors[name].numpy(), arrays[name])


def test_fields_without_names_are_refused(data):
    with pytest.raises(FieldError, match=r"given by name, \{'v': array\}.* not as a ndarray"):
        make()(data.v.values)
    with pytest.raises(FieldError, match="not as a DataArray"):
        make()(data.rho)


def test_tiles_and_memory_do_not_show(data):
    emulator = make()
    values = {"v": data.v.values[0], "rho": data.rho.values[0]}
    whole = apply_arrays(emulator, values)
    for settings in (Settings(tile=2), Settings(tile=(3, 9)), Settings(memory="20KiB")):
        for name, part in emulator.apply(values, settings=settings).items():
            np.testing.assert_allclose(part, whole[name], rtol=1e-5, atol=1e-6)


def test_another_domain_is_used_and_a_contrary_one_refused(data):
    values = {"v": data.v.values[0], "rho": data.rho.values[0]}
    emulator, free = make(), Domain(2, periodic=False, pad="edge")
    with pytest.raises(GeometryError, match="periodic"):
        emulator.apply(values, domain=free)
    found = emulator.apply(values, domain=free, other_grid=True)["p"]
    wide = {name: np.pad(x, [(0, 0)] * (x.ndim - 2) + [(2, 2)] * 2, mode="edge")
            for name, x in values.items()}  # fmt: skip
    np.testing.assert_allclose(found, emulator(wide)["p"][:, 2:-2, 2:-2], rtol=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("m/s", "m s-1", True), ("m s^-1", "m s**-1", True), ("kg/m3", "kg m-3", True),
        ("Mpc/h", "Mpc h-1", True), ("1", "", True), ("m", "m^1", True), ("m*s", "s m", True),
        ("degrees_north", "degrees_north", True), ("(a weird) unit", "(a weird) unit", True),
        ("m", "km", False), ("m/s", "m s", False), ("K", "degC", False), ("m2", "m", False),
        ("1", "m", False), ("m/s/s", "m/s2", True), ("(a weird) unit", "unit", False),
    ],
)  # fmt: skip
def test_units_are_the_same_however_they_are_spelt(first, second, same):
    assert same_units(first, second) is same
    assert same_units(second, first) is same


def test_axes_beside_those_of_the_grid_are_never_taken_for_components(data):
    torch.manual_seed(0)
    inputs, targets = (FieldSet((Field(n, "m", "scalar" if n == "h" else "vector", c),))
                       for n, c in (("h", 1), ("w", 2)))  # fmt: skip
    emulator = Emulator(inputs, targets, {}, ConvNet(1, 2, ndim=2, width=4, depth=1), Domain(2))
    h = data.rho.isel(time=slice(2)).drop_attrs().rename(time="member")
    out = emulator.eval()(xr.Dataset({"h": h.drop_vars("member")}))
    assert out.w.dims == ("member", "w_component", "y", "x")
    alone = emulator({"h": h.values[1]})["w"]
    np.testing.assert_allclose(out.w.isel(member=1), alone, rtol=1e-5)


def test_a_target_that_is_called_like_an_axis_is_refused(data):
    renamed = data.rename(x="p")
    with pytest.raises(FieldError, match="gives 'p', but this is also the name of an axis"):
        make()(renamed)
