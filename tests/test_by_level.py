"""Scores level by level: against a loop over levels, and closed forms."""

import numpy as np
import pytest
import xarray as xr

from map2map.metrics import level_scores, pointwise_scores
from map2map.scores import Table

RNG = np.random.default_rng(11)


def test_a_level_is_scored_as_a_field_of_its_own():
    truth = RNG.normal(size=(5, 30)) * np.arange(1, 6)[:, None]
    prediction = truth + RNG.normal(size=truth.shape)
    mask = RNG.random(30) > 0.3
    found = level_scores(prediction, truth, mask=mask)
    for k in range(5):
        alone = pointwise_scores(prediction[[k]], truth[[k]], mask=mask)
        for name in ("bias", "mae", "rmse", "r2"):
            assert found[f"level_{name}"].values[k] == pytest.approx(float(alone[name]))
        error = (prediction - truth)[k, mask]
        expected = [np.quantile(error, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        np.testing.assert_allclose(found.level_bands.sel(level=k), expected)


def test_a_level_that_does_not_vary_has_no_r2():
    truth = np.stack([np.zeros(8), np.arange(8.0)])
    found = level_scores(truth + 1, truth)
    assert np.isnan(found.level_r2[0])
    assert found.level_r2[1] == pytest.approx(1 - 1 / 5.25)
    np.testing.assert_allclose(found.level_bias, 1)


@pytest.mark.parametrize(("channels", "vector"), [(1, False), (2, True)])
def test_single_channels_and_vectors_have_no_levels(channels, vector):
    values = RNG.normal(size=(channels, 4, 4))
    assert not level_scores(values, values, vector=vector).data_vars


def test_fields_of_few_and_of_many_levels_share_a_table():
    table = Table(["emulator"], ["a"], ["few", "many"])
    for name, levels in (("few", 2), ("many", 4)):
        value = xr.Dataset({"s": xr.Variable("level", np.arange(levels) + 1.0, {"units": "1"})})
        table.add("emulator", 0, name, value)
        table.add("emulator", 0, name, value)
    found = table.dataset().s
    np.testing.assert_array_equal(found.sel(field="few")[0, 0], [1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(found.sel(field="many")[0, 0], [1, 2, 3, 4])
