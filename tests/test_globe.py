"""Latitudes of the cells of runs: told by files, and none where numbers cannot be."""

import numpy as np
import pytest
import xarray as xr

from map2map.fields import Field
from map2map.globe import latitudes
from map2map.grids import Domain
from map2map.runs import Runs


@pytest.mark.parametrize(
    ("name", "units", "values", "known"),
    [
        ("lat", None, np.linspace(-60, 60, 5), True),
        ("y", "degrees_N", np.linspace(0, 90, 5), True),
        ("lat", "m", np.linspace(-60, 60, 5), False),
        # counted cells, which are only called so
        ("lat", None, np.arange(0.0, 250, 50), False),
    ],
)
def test_latitudes_are_told_by_units_or_name_and_lie_between_the_poles(
    tmp_path, name, units, values, known
):
    path = tmp_path / "t.nc"
    coordinate = (name, values, {} if units is None else {"units": units})
    field = xr.DataArray(np.ones((5, 4), np.float32), {name: coordinate}, (name, "x"))
    field.to_dataset(name="t").to_netcdf(path)
    found = latitudes(Runs([Field("t")], [], {"t": str(path)}, Domain(2)))
    if known:
        np.testing.assert_array_equal(found, values[:, None])
    else:
        assert found is None
