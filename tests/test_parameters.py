"""Scores of parameters, against scikit-learn, scipy and what samples are drawn from."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from sklearn import metrics as reference

from map2map.errors import FieldError, GeometryError
from map2map.metrics.parameters import parameter_scores

NAMES = ["Om", "s8"]


def made(n=300, groups=20):
    """Outputs, truths in other units and of either sign, groups of unequal sizes in no order."""
    rng = np.random.default_rng(0)
    group = rng.integers(groups, size=n) * 3 + 4
    truth = rng.normal(size=(groups, 2)) * [1, 50] + [0, 800]
    truth = truth[(group - 4) // 3]
    error = rng.normal(size=(groups, 2))[(group - 4) // 3] + rng.normal(size=(n, 2))
    return truth + error * [0.3, 20] + [0.1, -5], truth, group


def grouped(values, group):
    return np.array([values[group == name].mean(axis=0) for name in sorted(set(group.tolist()))])


@pytest.mark.parametrize("per", ["sample", "group"])
def test_errors_are_those_of_other_libraries(per):
    output, truth, group = made()
    found = parameter_scores(output, truth, group, names=NAMES).sel(per=per)
    if per == "group":
        output, truth = grouped(output, group), grouped(truth, group)
    raw = {"multioutput": "raw_values"}
    np.testing.assert_allclose(found.mae, reference.mean_absolute_error(truth, output, **raw))
    np.testing.assert_allclose(found.rmse, reference.root_mean_squared_error(truth, output, **raw))
    np.testing.assert_allclose(found.r2, reference.r2_score(truth, output, **raw))
    np.testing.assert_allclose(
        found.relative_error, reference.mean_absolute_percentage_error(truth, output, **raw)
    )
    for k in range(2):
        assert float(found.bias[k]) == pytest.approx(output[:, k].mean() - truth[:, k].mean())
        assert float(found.pearson[k]) == pytest.approx(
            stats.pearsonr(output[:, k], truth[:, k])[0]
        )


def test_the_table_of_groups_is_of_mean_outputs():
    output, truth, group = made()
    found = parameter_scores(output, truth, group, names=NAMES, std=np.abs(output) + 1)
    assert found.group.values.tolist() == sorted(set(group.tolist()))
    assert found.group_output.dims == ("group", "parameter")
    np.testing.assert_allclose(found.group_output, grouped(output, group))
    np.testing.assert_allclose(found.group_truth, grouped(truth, group))
    np.testing.assert_allclose(found.group_std, grouped(np.abs(output) + 1, group))
    spread = [output[group == name].std(axis=0) for name in found.group.values]
    np.testing.assert_allclose(found.group_spread, spread)
    assert found.group_samples.values.tolist() == [(group == g).sum() for g in found.group.values]


def test_truths_of_zero_have_no_relative_error():
    truth = np.array([[0.0, 0.0], [2.0, 0.0], [-4.0, 0.0]])
    found = parameter_scores(truth + 1, truth, names=NAMES).sel(per="sample")
    np.testing.assert_allclose(found.relative_error, [(1 / 2 + 1 / 4) / 2, np.nan])


def test_a_truth_that_never_changes_leaves_r2_and_correlation_undefined():
    """Even if its mean is not exactly itself."""
    truth = np.full((7, 2), 0.1)
    output = truth + np.arange(14.0).reshape(7, 2)
    found = parameter_scores(output, truth, names=NAMES)
    assert np.isnan(found.r2).all()
    assert np.isnan(found.pearson).all()
    assert np.isnan(parameter_scores(truth, output, names=NAMES).pearson).all()
    assert (parameter_scores(truth, output, names=NAMES).r2 < 0).all()


@pytest.mark.parametrize("whole", [False, True])
def test_the_skill_is_that_beyond_a_baseline(whole):
    output, truth, group = made()
    mean = truth.mean(axis=0)
    baseline = np.tile(mean, (len(truth), 1)) if whole else mean
    found = parameter_scores(output, truth, group, names=NAMES, baseline=baseline)
    # the mean of these very truths explains nothing, so that skill is r2
    sample = found.sel(per="sample")
    np.testing.assert_allclose(sample.skill, sample.r2)
    np.testing.assert_allclose(sample.baseline_rmse, truth.std(axis=0))
    np.testing.assert_allclose(sample.baseline_bias, 0, atol=1e-9)
    np.testing.assert_allclose(sample.baseline_mae, np.abs(truth - mean).mean(axis=0))
    expected = 1 - ((grouped(output, group) - grouped(truth, group)) ** 2).mean(axis=0) / (
        (grouped(truth, group) - mean) ** 2
    ).mean(axis=0)
    np.testing.assert_allclose(found.skill.sel(per="group"), expected)
    same = parameter_scores(output, truth, names=NAMES, baseline=truth)
    assert np.isnan(same.skill).all()


def test_right_deviations_cover_what_they_say():
    rng = np.random.default_rng(0)
    std = rng.gamma(2.0, size=(20_000, 2)) + 0.1
    output = rng.normal(size=std.shape)
    truth = output + std * rng.normal(size=std.shape)
    found = parameter_scores(output, truth, names=NAMES, std=std).sel(per="sample")
    np.testing.assert_allclose(found.coverage_68, 0.68, atol=0.01)
    np.testing.assert_allclose(found.coverage_95, 0.95, atol=0.005)
    np.testing.assert_allclose(found.z_mean, 0, atol=0.02)
    np.testing.assert_allclose(found.z_std, 1, atol=0.02)
    density = stats.norm(output, std).logpdf(truth)
    np.testing.assert_allclose(found.gaussian_nll, -density.mean(axis=0))
    bold = parameter_scores(output, truth - 4 * std, names=NAMES, std=2 * std).sel(per="sample")
    np.testing.assert_allclose(bold.z_mean, -2, atol=0.02)
    np.testing.assert_allclose(bold.z_std, 0.5, atol=0.01)


def test_deviations_of_groups_are_right_if_all_errors_of_a_group_are_one():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4000), 3)
    truth = rng.normal(size=(12_000, 2))[group]
    error = rng.normal(size=(12_000, 2))
    found = parameter_scores(
        truth + error[group], truth, group, names=NAMES, std=np.ones_like(truth)
    )
    np.testing.assert_allclose(found.z_std.sel(per="group"), 1, atol=0.03)
    found = parameter_scores(truth + error, truth, group, names=NAMES, std=np.ones_like(truth))
    np.testing.assert_allclose(found.z_std.sel(per="group"), 3**-0.5, atol=0.03)


def test_scores_survive_netcdf_say_what_they_are_and_are_perfect_for_the_truth(tmp_path):
    output, truth, group = made()
    found = parameter_scores(
        truth, truth, group, names=NAMES, std=np.ones(2), baseline=truth.mean(axis=0)
    )
    for name, value in found.data_vars.items():
        assert {"units", "long_name"} <= set(value.attrs), name
        if "perfect" in value.attrs:
            np.testing.assert_allclose(value, value.attrs["perfect"], atol=1e-12)
    worse = parameter_scores(output, truth, group, names=NAMES, baseline=truth.mean(axis=0))
    for name, value in worse.data_vars.items():
        if "perfect" in value.attrs:
            assert (np.abs(value - value.attrs["perfect"]) > 1e-3).all(), name
    found.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        xr.testing.assert_equal(again.load(), found)


@pytest.mark.parametrize(
    ("error", "words", "changed"),
    [
        (FieldError, "a group has one truth", {"groups": np.array([1, 1, 2])}),
        (FieldError, "'s8' is 0 for sample 2", {"std": np.array([[1, 1], [1, 1], [1, 0]])}),
        (
            FieldError,
            "1 of 3 samples are not finite",
            {"outputs": np.array([[np.inf, 0]] + 2 * [[0, 0]])},
        ),
        (GeometryError, r"both must be \(sample, 2\)", {"outputs": np.zeros((3, 1))}),
        (GeometryError, "baseline have shape", {"baseline": np.zeros((2, 2))}),
    ],
)
def test_what_cannot_be_scored_is_refused(error, words, changed):
    about = {"outputs": np.zeros((3, 2)), "truth": np.arange(6.0).reshape(3, 2)} | changed
    with pytest.raises(error, match=words):
        parameter_scores(
            about["outputs"],
            about["truth"],
            about.get("groups"),
            names=NAMES,
            std=about.get("std"),
            baseline=about.get("baseline"),
        )
