import dask
import numpy as np
import pytest
import xarray as xr

from map2map.errors import GeometryError
from map2map.regridding import Axes, Regridder, cell_bounds

ATTRS = {"lat": {"units": "degrees_north"}, "lon": {"units": "degrees_east"}}


def grid(lat, lon, names=("lat", "lon")):
    return xr.Dataset(
        coords={
            names[0]: (names[0], np.asarray(lat, float), ATTRS["lat"]),
            names[1]: (names[1], np.asarray(lon, float), ATTRS["lon"]),
        }
    )


def field(on, times=2, seed=0, dtype=np.float64):
    shape = (times, *on.sizes.values())
    values = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return xr.DataArray(values, dims=("time", *on.sizes), coords=on.coords, name="f")


def edges(centers):
    middle = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def by_loops(values, source, target, least):
    """Mean over overlaps on the sphere, cell by cell, NaN left out."""
    (slat, slon), (tlat, tlon) = (
        [edges(axis.to_numpy()) for axis in on.coords.values()] for on in (source, target)
    )
    out = np.full((len(tlat) - 1, len(tlon) - 1), np.nan)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = known = 0.0
            for k in range(values.shape[0]):
                south, north = max(slat[k], tlat[i]), min(slat[k + 1], tlat[i + 1])
                if north <= south:
                    continue
                for m in range(values.shape[1]):
                    west, east = max(slon[m], tlon[j]), min(slon[m + 1], tlon[j + 1])
                    if east <= west or np.isnan(values[k, m]):
                        continue
                    # integral of cos(lat) over the overlap
                    area = np.radians(east - west) * (
                        np.sin(np.radians(north)) - np.sin(np.radians(south))
                    )
                    total, known = total + area * values[k, m], known + area
            cell = np.radians(tlon[j + 1] - tlon[j]) * (
                np.sin(np.radians(tlat[i + 1])) - np.sin(np.radians(tlat[i]))
            )
            if known >= max(least, 1e-6) * cell * (1 - 1e-9):
                out[i, j] = total / known
    return out


COARSE = grid(np.arange(40.5, 52, 3), np.arange(-3.5, 12, 4))
FINE = grid(np.arange(39.35, 51.9, 0.7), np.arange(-5.2, 9.8, 0.6))


@pytest.mark.parametrize("least", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("source", "target"), [(COARSE, FINE), (FINE, COARSE)])
def test_cells_get_the_mean_over_what_they_overlap_on_the_sphere(source, target, least):
    values = field(source)
    holes = values.where(field(source, seed=1)[0] > -0.5)
    found = Regridder(Axes.of(source), Axes.of(target), least)(holes)
    for n in range(2):
        expected = by_loops(holes[n].to_numpy(), source, target, least)
        np.testing.assert_allclose(found[n], expected, rtol=1e-12, atol=1e-13)
    assert np.isnan(found).any() == (least == 1.0 or source is COARSE)


def globe(lat, lon):
    return grid(
        -90 + 180 / lat * (np.arange(lat) + 0.5), 360 / lon * (np.arange(lon) + 0.5) - 360 / lon
    )


@pytest.mark.parametrize(("lat", "lon"), [(7, 11), (45, 90), (18, 36)])
def test_the_integral_over_the_globe_is_conserved_to_rounding(lat, lon):
    source, target = globe(18, 36), globe(lat, lon)
    # called by other longitudes: 0 to 360 here, -180 to 180 there
    target = target.assign_coords(lon=("lon", target.lon.to_numpy() - 180, ATTRS["lon"]))
    regridder = Regridder(Axes.of(source), Axes.of(target), 1.0)
    values = field(source) + 3
    found = regridder(values)
    assert not np.isnan(found).any()
    before = (values * regridder.source.area).sum(("lat", "lon"))
    after = (found * regridder.target.area).sum(("lat", "lon"))
    np.testing.assert_allclose(after, before, rtol=1e-13)
    np.testing.assert_allclose(regridder.target.area.sum(), 4 * np.pi)


def test_the_integral_over_the_valid_part_is_conserved_with_holes():
    source, target = globe(18, 36), globe(10, 24)
    values = field(source) + 3
    sea = field(source, seed=2)[0] > 0
    regridder = Regridder(Axes.of(source), Axes.of(target), 0.0)
    found = regridder(values, counts=sea).fillna(0.0)
    share = regridder.valid_share(sea)
    before = (values.where(sea, 0.0) * regridder.source.area).sum(("lat", "lon"))
    after = (found * share * regridder.target.area).sum(("lat", "lon"))
    np.testing.assert_allclose(after, before, rtol=1e-12)


def test_values_on_land_have_no_part_in_what_is_written():
    sea = field(FINE, seed=2)[0] > 0
    values = field(FINE)
    wild = values.where(sea, 1e30)
    regridder = Regridder(Axes.of(FINE), Axes.of(COARSE))
    np.testing.assert_array_equal(regridder(wild, counts=sea), regridder(values, counts=sea))
    np.testing.assert_array_equal(
        regridder(values.where(sea)), regridder(wild, counts=sea.astype(float))
    )


def test_a_constant_stays_and_a_cell_outside_has_nothing():
    source, target = (
        grid(np.arange(40.5, 50), np.arange(0.5, 10)),
        grid(np.arange(38.25, 55, 1.5), np.arange(-3.25, 14, 1.5)),
    )
    found = Regridder(Axes.of(source), Axes.of(target), 0.5)(field(source) * 0 + 7)
    np.testing.assert_allclose(found.where(found.notnull(), 7.0), 7.0)
    outside = (target.lat < 39.9) | (target.lat > 50.1) | (target.lon < -0.1) | (target.lon > 10.1)
    assert found.where(outside, drop=False).isnull().all()
    assert found[0].notnull().sum() > 30


def test_the_outermost_cells_are_as_good_as_others():
    coarse, fine = grid([40.5, 43.5], [0.5, 3.5]), grid(np.arange(39.5, 45), np.arange(-0.5, 5))
    values = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("lat", "lon"), coords=coarse.coords)
    found = Regridder(Axes.of(coarse), Axes.of(fine), 1.0)(values)
    np.testing.assert_allclose(found, np.kron(values, np.ones((3, 3))))


def test_axes_from_north_to_south_and_by_other_names_are_the_same_grid():
    turned = grid(FINE.lat.to_numpy()[::-1], FINE.lon.to_numpy(), ("nav_lat", "nav_lon"))
    values = field(COARSE)
    upright = Regridder(Axes.of(COARSE), Axes.of(FINE))(values)
    found = Regridder(Axes.of(COARSE), Axes.of(turned))(values)
    assert found.dims == ("time", "nav_lat", "nav_lon")
    np.testing.assert_array_equal(found.to_numpy()[:, ::-1], upright.to_numpy())
    back = Regridder(Axes.of(turned), Axes.of(FINE))(found)
    np.testing.assert_allclose(back.to_numpy(), upright.to_numpy(), rtol=1e-14)


def test_bounds_in_the_file_win_over_midpoints():
    lat = xr.DataArray([1.0, 4.0], dims="lat", attrs={"bounds": "lat_bnds", **ATTRS["lat"]})
    file = xr.Dataset({"lat_bnds": (("lat", "bnds"), [[0.0, 2.0], [2.0, 6.0]])}, {"lat": lat})
    np.testing.assert_array_equal(cell_bounds(file.lat, file), [[0, 2], [2, 6]])
    np.testing.assert_array_equal(cell_bounds(file.lat), [[-0.5, 2.5], [2.5, 5.5]])
    gap = file.assign(lat_bnds=(("lat", "bnds"), [[0.0, 2.0], [3.0, 6.0]]))
    with pytest.raises(GeometryError, match="side by side"):
        cell_bounds(gap.lat, gap)


def test_lazy_fields_stay_lazy_and_only_the_times_asked_for_are_read():
    read = []

    def block(n):
        read.append(n)
        return np.full((1, *COARSE.sizes.values()), float(n))

    shape = (1, *COARSE.sizes.values())
    blocks = [dask.array.from_delayed(dask.delayed(block)(n), shape, np.float64) for n in range(50)]
    lazy = xr.DataArray(
        dask.array.concatenate(blocks), dims=("time", "lat", "lon"), coords=COARSE.coords, name="f"
    )
    found = Regridder(Axes.of(COARSE), Axes.of(FINE), 0.0)(lazy)
    assert found.chunks[0] == (1,) * 50
    assert read == []
    some = found.isel(time=slice(7, 9)).compute(scheduler="synchronous")
    assert sorted(read) == [7, 8]
    np.testing.assert_allclose(some.isel(lat=5, lon=9), [7, 8])


def test_single_precision_is_kept_and_does_not_cost_the_integral():
    source, target = globe(18, 36), globe(45, 90)
    values = field(source, dtype=np.float32) + np.float32(3)
    regridder = Regridder(Axes.of(source), Axes.of(target))
    found = regridder(values)
    assert found.dtype == np.float32
    before = (values.astype(float) * regridder.source.area).sum()
    after = (found.astype(float) * regridder.target.area).sum()
    np.testing.assert_allclose(after, before, rtol=1e-7)


def test_what_is_no_rectilinear_grid_is_refused():
    with pytest.raises(GeometryError, match="one axis of latitudes"):
        Axes.of(xr.Dataset(coords={"y": [1.0, 2.0], "x": [1.0, 2.0]}))
    with pytest.raises(GeometryError, match="in order"):
        Axes.of(grid([1, 3, 2], [1, 2, 3]))
    with pytest.raises(GeometryError, match="one cell"):
        Axes.of(grid([1], [1, 2]))
    regridder = Regridder(Axes.of(COARSE), Axes.of(FINE))
    with pytest.raises(GeometryError, match="'f' has"):
        regridder(field(FINE))
    with pytest.raises(GeometryError, match="what counts of 'f'"):
        regridder(field(COARSE), counts=field(FINE)[0])
    with pytest.raises(GeometryError, match="share"):
        Regridder(Axes.of(COARSE), Axes.of(FINE), 1.5)
