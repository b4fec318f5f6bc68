"""Fields that are computed, constant or frames are read like those in files."""

import numpy as np
import pytest
import xarray as xr

from map2map.batches import Batch
from map2map.crops import Augment, Crops
from map2map.derived import Coordinate, Gradient, Magnitude
from map2map.errors import FieldError, GeometryError
from map2map.fields import Component, Field
from map2map.grids import Domain, Grid
from map2map.readers import derive
from map2map.runs import Files, Runs
from map2map.samples import SampleDataset
from map2map.windows import Window

NDIM = 2


def dataset(frames=3, shape=(6, 5), dx=100.0, dy=-100.0, seed=0):
    """Frames of a surface on a grid whose y descends."""
    rng = np.random.default_rng(seed)
    dims = ("time", "y", "x")
    size = (frames, *shape)
    return xr.Dataset(
        {
            "usurf": (dims, rng.normal(3000, 100, size).astype(np.float32), {"units": "m"}),
            "ubar": (dims, rng.normal(size=size).astype(np.float32), {"units": "m/yr"}),
            "topg": (dims[1:], rng.normal(size=shape).astype(np.float32), {"units": "m"}),
        },
        coords={
            "time": np.arange(frames) * 10.0,
            "y": 7e3 + dy * np.arange(shape[0]),
            "x": 1e3 + dx * np.arange(shape[1]),
        },
    )


SLOPES = {"sx": Gradient("usurf", 1), "sy": Gradient("usurf", 0)}


def runs(inputs, pattern, domain=None, derived=SLOPES, **values):
    names = dict.fromkeys([*inputs, *(["usurf"] if derived else []), "ubar"])
    files = {n: pattern for n in names if n not in derived and n not in values}
    return Runs(
        [Field(name) for name in inputs],
        [Field("ubar")],
        {**files, **values},
        domain or Domain(NDIM, periodic=False, pad="zero", frames=1, same_shape=False),
        derived=derived,
    )


def whole(found, name, run):
    reader, variable = found.source(name, run)
    shape = found.shape_of(run)
    out = np.empty((1, *shape), np.float32)
    reader.read(variable, Window.whole(shape), out, found.domain.grid(shape))
    return out[0]


@pytest.fixture
def files(tmp_path):
    made = {"a": dataset(), "b": dataset(frames=2, shape=(4, 7), seed=1)}
    for name, data in made.items():
        data.to_netcdf(tmp_path / f"{name}.nc")
    return tmp_path, made


def test_every_frame_is_a_run_on_the_grid_of_its_own_file(files):
    folder, made = files
    found = runs(["sx", "sy", "topg", "A"], str(folder / "*.nc"), A=78)
    assert [(run.path.stem, run.frame) for run in found] == [
        ("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1),
    ]  # fmt: skip
    assert [found.shape_of(k) for k in range(5)] == [(6, 5)] * 3 + [(4, 7)] * 2
    for k, run in enumerate(found):
        data = made[run.path.stem]
        np.testing.assert_array_equal(whole(found, "ubar", k), data.ubar[run.frame])
        # a field without frames is the same in all
        np.testing.assert_array_equal(whole(found, "topg", k), data.topg)
        np.testing.assert_array_equal(whole(found, "A", k), 78)
    assert found.inputs["A"].channels == 1


def test_every_other_frame(files):
    folder, _ = files
    domain = Domain(NDIM, periodic=False, frames=2, same_shape=False)
    found = runs(["topg"], str(folder / "*.nc"), domain, derived={})
    assert [run.frame for run in found] == [0, 2, 0]


def test_slopes_are_derivatives_along_coordinates_that_may_descend(files):
    folder, made = files
    found = runs(["sx", "sy"], str(folder / "a.nc"))
    surface = made["a"].usurf.values[1].astype(np.float64)
    # written out: central inside, one-sided at the edges
    expected = np.empty((6, 5))
    expected[:, 1:-1] = (surface[:, 2:] - surface[:, :-2]) / 200
    expected[:, 0] = (surface[:, 1] - surface[:, 0]) / 100
    expected[:, -1] = (surface[:, -1] - surface[:, -2]) / 100
    np.testing.assert_allclose(whole(found, "sx", 1), expected, rtol=1e-5)
    assert whole(found, "sy", 1)[2, 3] == pytest.approx((surface[3, 3] - surface[1, 3]) / -200)


def test_on_a_periodic_axis_the_slope_goes_around():
    grid = Grid((4, 4), (2.0, 2.0), periodic=True)
    x = np.random.default_rng(0).normal(size=(1, 4, 4))
    found = derive({"s": Gradient("x", 1)}, {"x": x}, grid)["s"]
    expected = (np.roll(x, -1, 2) - np.roll(x, 1, 2)) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_given_is_not_computed(files):
    folder, made = files
    data = made["a"].assign(sx=made["a"].ubar)
    data.to_netcdf(folder / "given.nc")
    place = str(folder / "given.nc")
    found = Runs(
        [Field("sx"), Field("sy")],
        [],
        {"sx": Files(place), "usurf": Files(place)},
        Domain(NDIM, periodic=False, frames=1),
        derived=SLOPES,
    )
    np.testing.assert_array_equal(whole(found, "sx", 0), made["a"].ubar[0])
    assert set(found.derived) == {"sy"}


def test_magnitude_and_coordinate():
    grid = Grid((3, 2), (10.0, 20.0), periodic=False, pad="edge")
    u, v = np.random.default_rng(0).normal(size=(2, 1, 3, 2))
    made = derive({"speed": Magnitude(["u", "v"]), "y": Coordinate("u", 0)}, {"u": u, "v": v}, grid)
    np.testing.assert_allclose(made["speed"], np.hypot(u, v), rtol=1e-6)
    np.testing.assert_array_equal(made["y"][0], [[0, 0], [10, 10], [20, 20]])


def test_what_cannot_be_computed_is_refused(files):
    folder, made = files
    grid = Grid((6, 5), periodic=False, pad="edge")
    with pytest.raises(FieldError, match=r"'sx' is computed from usurf, but usurf is missing"):
        derive(SLOPES, {}, grid)
    with pytest.raises(GeometryError, match=r"needs the cell size, but .* has no coordinates"):
        derive(SLOPES, {"usurf": np.zeros((1, 6, 5))}, grid)
    uneven = made["a"].assign_coords(x=[0.0, 1.0, 2.0, 4.0, 5.0])
    uneven.to_netcdf(folder / "uneven.nc")
    with pytest.raises(GeometryError, match=r"even cells, but the coordinates 'x' of .*uneven"):
        whole(runs(["sx"], str(folder / "uneven.nc")), "sx", 0)
    with pytest.raises(GeometryError, match="has axes 0 to 1, so none of 2"):
        derive({"s": Gradient("a", 2)}, {"a": np.zeros((1, 6, 5))}, Grid((6, 5), (1.0, 1.0)))
    with pytest.raises(GeometryError, match="one cell on axis 0, too few"):
        derive({"s": Gradient("a", 0)}, {"a": np.zeros((1, 1, 5))}, Grid((1, 5), (1.0, 1.0), False))
    with pytest.raises(FieldError, match="missing: usurf"):
        Runs([Field("sx")], [], {}, Domain(NDIM), derived=SLOPES)
    with pytest.raises(FieldError, match="no field has files"):
        Runs([Field("A")], [], {"A": 3.0}, Domain(NDIM))


def test_files_without_frames_are_one_and_those_of_unequal_shape_are_refused(files):
    folder, made = files
    made["a"][["topg"]].to_netcdf(folder / "static.nc")
    static = Runs([Field("topg")], [], {"topg": str(folder / "static.nc")}, Domain(2, frames=1))
    assert [run.frame for run in static] == [None]
    with pytest.raises(GeometryError, match=r"in a recipe, data.domain.same_shape: false"):
        runs(["topg"], str(folder / "[ab].nc"), Domain(2, frames=1), derived={})
    with pytest.raises(GeometryError, match="give ndim"):
        Domain(frames=1)


def test_turned_slopes_are_slopes_of_the_turned_surface_even_where_rows_run_south(files):
    folder, _ = files
    slope = [Component("slope", axis) for axis in (1, 0)]
    domain = Domain(NDIM, periodic=False, frames=1)
    found = Runs(
        [Field("sx", component=slope[0]), Field("sy", component=slope[1]), Field("usurf")],
        [Field("ubar")],
        {"usurf": str(folder / "a.nc"), "ubar": str(folder / "a.nc")},
        domain,
        derived=SLOPES,
    )
    assert found.directions(0) == (-1, 1)
    data = SampleDataset(found, Crops(size=5, halo=0), Augment("all"), domain)
    moved = 0
    for epoch in range(20):
        batch = Batch(data, [0])
        batch.fill(0, epoch)
        (sx, sy, surface), _ = (side[0].numpy() for side in batch.settle())
        # y descends by 100, x ascends by 100
        inside = (slice(1, -1),) * 2
        np.testing.assert_allclose(
            sx[inside], np.gradient(surface, 100.0, axis=1)[inside], atol=1e-5
        )
        np.testing.assert_allclose(
            sy[inside], np.gradient(surface, -100.0, axis=0)[inside], atol=1e-5
        )
        moved += not batch.draws[0].symmetry.is_identity
    assert moved > 10
