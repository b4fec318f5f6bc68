"""The uncertainty of means, against scipy and against what it promises."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from map2map.scores import Table, bootstrap, with_summary


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).gamma(1.0, size=(12, 3))
    low, high = bootstrap(values, 20_000, np.random.default_rng(1))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", axis=0
    ).confidence_interval
    np.testing.assert_allclose(low, expected.low, rtol=0.02)
    np.testing.assert_allclose(high, expected.high, rtol=0.02)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    values = np.random.default_rng(0).normal(size=(40, 2000))
    low, high = bootstrap(values, 400, np.random.default_rng(1))
    # with 40 runs the bootstrap is a little too narrow
    assert 0.91 < ((low < 0) & (high > 0)).mean() < 0.97


def test_runs_without_a_score_do_not_count():
    values = np.random.default_rng(0).normal(size=(6, 2, 3))
    values[:, 0, 0] = np.nan
    values[1:, 0, 1] = np.nan
    values[4:, 1, 2] = np.nan
    low, high = bootstrap(values, 500, np.random.default_rng(1))
    assert np.isnan(low[0, :2]).all()
    assert np.isnan(high[0, :2]).all()
    some = values[:4, 1, 2]
    assert some.min() <= low[1, 2] < some.mean() < high[1, 2] <= some.max()
    assert np.isfinite(low).sum() == 4


def test_scores_of_other_units_keep_both():
    table = Table(["emulator", "identity"], ["a", "b"], ["s", "v"])
    attrs = {"units": "field^3 L^6", "long_name": "of a scalar"}
    table.add("emulator", 0, "s", xr.Dataset({"b": ("k", [1.0, 2.0], attrs)}, {"k": [0.5, 1.5]}))
    attrs = {"units": "field^3 L^3", "long_name": "of a vector"}
    table.add("identity", 1, "v", xr.Dataset({"b": ("k", [3.0, 4.0], attrs)}))
    table.add("identity", 1, "v", xr.Dataset({"b_truth": ("k", [5.0, 6.0], attrs)}))
    found = table.dataset()
    assert found.b.dims == ("method", "run", "field", "k")
    assert found.b.attrs["units"] == "field^3 L^6 or field^3 L^3"
    assert found.b.sel({"method": "emulator"})[0, 0].values.tolist() == [1, 2]
    assert found.b.sel({"method": "identity"})[1, 1].values.tolist() == [3, 4]
    assert np.isnan(found.b).sum() == 12
    assert found.b_truth.dims == ("run", "field", "k")
    assert found.k.values.tolist() == [0.5, 1.5]


def test_the_summary_is_of_scalars_and_of_the_curves_that_are_ratios():
    rng = np.random.default_rng(0)
    dims = ("method", "run", "field")
    attrs = {"units": "1", "long_name": "x"}
    scores = xr.Dataset(
        {
            "r2": (dims, rng.normal(size=(1, 5, 1)), attrs),
            "transfer": ((*dims, "k"), rng.normal(size=(1, 5, 1, 3)), attrs),
            "power": ((*dims, "k"), rng.normal(size=(1, 5, 1, 3)), attrs),
            "masked": (("run", "field"), rng.normal(size=(5, 1)), attrs),
        }
    )
    found = with_summary(scores, 100, 0)
    new = set(found.data_vars) - set(scores.data_vars)
    assert new == {f"{a}_{b}" for a in ("r2", "transfer") for b in ("mean", "low", "high")}
    assert found.transfer_mean.dims == ("method", "field", "k")
    np.testing.assert_allclose(found.transfer_mean, scores.transfer.mean("run"))
    assert found.r2_low.attrs["long_name"].startswith("x; lower end of the 95 %")
    nothing = with_summary(scores.where(False), 100, 0)
    assert np.isnan(nothing.r2_mean).all()
    assert pytest.approx(float(found.r2_mean[0, 0])) == float(scores.r2.mean())
