"""Scores of labels, against scikit-learn and by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from sklearn import calibration
from sklearn import metrics as reference

from map2map.errors import FieldError, GeometryError
from map2map.metrics import curves
from map2map.metrics.labels import label_scores, wilson

CLASSES = {2: ["newton", "gr"], 3: ["a", "b", "c"]}


def made(number, n=600, groups=30):
    """Logits that know something, labels, groups of unequal sizes in no order."""
    rng = np.random.default_rng(number)
    group = rng.integers(groups, size=n) * 7 - 50
    label = (group + 50) // 7 % number
    logits = rng.normal(size=(n, 1 if number == 2 else number))
    if number == 2:
        logits[:, 0] += label - 0.4
    else:
        logits[np.arange(n), label] += 0.7
    logits += rng.normal(size=(groups, logits.shape[1]))[(group + 50) // 7]
    # some are alike; none is 0, of which nobody could say which class it is
    return logits.round(2) + 0.003, label, group


def grouped(logits, label, group):
    """Mean logits and labels of groups, one after another."""
    names = sorted(set(group.tolist()))
    rows = [np.flatnonzero(group == name) for name in names]
    return np.array([logits[r].mean(axis=0) for r in rows]), np.array([label[r[0]] for r in rows])


def probabilities(logits):
    z = torch.from_numpy(logits)
    if logits.shape[1] == 1:
        z = torch.cat([torch.zeros_like(z), z], dim=1)
    return z.softmax(dim=1).numpy()


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("per", ["image", "group"])
class TestAgainstScikitLearn:
    @pytest.fixture
    def both(self, number, per):
        logits, label, group = made(number)
        found = label_scores(logits, label, group, classes=CLASSES[number]).sel(per=per)
        if per == "group":
            logits, label = grouped(logits, label, group)
        return found, probabilities(logits), label

    def test_counts_and_shares(self, both, number):
        found, p, label = both
        guess = p.argmax(axis=1)
        confusion = reference.confusion_matrix(label, guess)
        assert (confusion != confusion.T).any()
        np.testing.assert_array_equal(found.confusion.transpose("truth", "predicted"), confusion)
        assert float(found.accuracy) == reference.accuracy_score(label, guess)
        precision, recall, f1, _ = reference.precision_recall_fscore_support(label, guess)
        np.testing.assert_allclose(found.precision, precision)
        np.testing.assert_allclose(found.recall, recall)
        np.testing.assert_allclose(found.f1, f1)
        for k in range(number):
            false = ((guess == k) & (label != k)).sum() / (label != k).sum()
            assert float(found.fpr[k]) == pytest.approx(false)

    def test_probabilities(self, both):
        found, p, label = both
        assert float(found.cross_entropy) == pytest.approx(reference.log_loss(label, p))
        scores = p[:, 1] if p.shape[1] == 2 else p
        assert float(found.brier) == pytest.approx(reference.brier_score_loss(label, scores))

    def test_roc_is_its_corners(self, both, number):
        found, p, label = both
        for k in range(number):
            everything = reference.roc_curve(label == k, p[:, k], drop_intermediate=False)
            area = reference.roc_auc_score(label == k, p[:, k])
            assert 0.5 < area < 1
            assert float(found.auc[k]) == pytest.approx(area, abs=1e-12)
            fpr, tpr, threshold = (
                x[k].dropna("threshold").values
                for x in (found.roc_fpr, found.roc_tpr, found.roc_threshold)
            )
            with np.errstate(over="ignore"):
                mine = np.array([fpr, tpr, 1 / (1 + np.exp(-threshold))])
            # sklearn's threshold of nothing is infinite, not a probability
            everything[2][0] = 1
            apart = np.abs(mine[:, :, None] - np.array(everything)[:, None]).max(axis=0)
            assert (apart.min(axis=1) < 1e-12).all()
            assert np.trapezoid(tpr, fpr) == pytest.approx(area, abs=1e-12)
            if len(label) > 100:
                assert len(fpr) < len(everything[0])

    def test_reliability(self, both, number):
        found, p, label = both
        for k in range(number):
            observed, stated = calibration.calibration_curve(label == k, p[:, k], n_bins=10)
            count = found.reliability_count[k].values
            some = count > 0
            np.testing.assert_allclose(found.reliability_observed[k].values[some], observed)
            np.testing.assert_allclose(found.reliability_predicted[k].values[some], stated)
            assert np.isnan(found.reliability_observed[k].values[~some]).all()
            assert count.sum() == len(label)
            expected = (count[some] / len(label) * np.abs(observed - stated)).sum()
            assert float(found.calibration_error[k]) == pytest.approx(expected)


@pytest.mark.parametrize("number", [2, 3])
def test_the_table_of_groups_is_of_mean_logits(number):
    logits, label, group = made(number)
    found = label_scores(logits, label, group, classes=CLASSES[number])
    means, truth = grouped(logits, label, group)
    assert found.group.values.tolist() == sorted(set(group.tolist()))
    p = probabilities(means)
    np.testing.assert_allclose(found.group_probability, p)
    np.testing.assert_allclose(found.group_log_odds, np.log(p / (1 - p)))
    if number == 2:
        np.testing.assert_allclose(found.group_log_odds.sel({"class": "gr"}), means[:, 0])
        assert found.attrs["positive"] == "gr"
    np.testing.assert_array_equal(found.group_truth, truth)
    np.testing.assert_array_equal(found.group_predicted, p.argmax(axis=1))
    own = probabilities(logits).argmax(axis=1) == label
    for name, images, share in zip(
        found.group.values, found.group_images.values, found.group_right.values, strict=True
    ):
        assert images == (group == name).sum()
        assert share == pytest.approx(own[group == name].mean())


def test_the_interval_is_that_of_groups_and_scipys():
    logits, label, group = made(2)
    found = label_scores(logits, label, group, classes=CLASSES[2])
    cases = found.sizes["group"]
    right = int((found.group_predicted == found.group_truth).sum())
    expected = stats.binomtest(right, cases).proportion_ci(0.95, method="wilson")
    assert float(found.accuracy_low.sel(per="group")) == pytest.approx(expected.low)
    assert float(found.accuracy_high.sel(per="group")) == pytest.approx(expected.high)
    assert np.isnan(found.accuracy_low.sel(per="image"))
    alone = label_scores(logits, label, classes=CLASSES[2])
    image, own = alone.sel(per="image"), alone.sel(per="group")
    assert float(image.accuracy_low) == float(own.accuracy_low) < float(image.accuracy)


@pytest.mark.parametrize(("right", "cases"), [(0, 5), (5, 5), (1, 3), (300, 301)])
def test_wilsons_interval_is_scipys(right, cases):
    expected = stats.binomtest(right, cases).proportion_ci(0.95, method="wilson")
    assert wilson(right, cases) == pytest.approx((expected.low, expected.high))
    assert np.isnan(wilson(0, 0)).all()


def test_what_a_single_class_leaves_undefined_is_nan():
    """Not 0, as with a small number added to every denominator."""
    found = label_scores([[1.0], [2.0], [0.5]], [1, 1, 1], classes=CLASSES[2]).sel(per="image")
    assert np.isnan(found.auc).all()
    assert found.accuracy == 1
    assert found.precision[1] == found.recall[1] == found.f1[1] == 1
    # no image is of Newton, and none was said to be
    assert np.isnan([found.precision[0], found.recall[0], found.f1[0], found.fpr[1]]).all()
    assert found.fpr[0] == 0
    assert "0/0" in found.auc.attrs["comment"]


def test_images_of_one_logit_are_told_apart_by_chance_and_zero_says_the_second():
    found = label_scores(np.zeros((4, 1)), [0, 1, 0, 1], classes=CLASSES[2])
    assert (found.auc == 0.5).all()
    assert found.group_predicted.values.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(found.cross_entropy, math.log(2))


@pytest.mark.parametrize("number", [2, 3])
def test_certain_logits_neither_overflow_nor_tie(number):
    """Their probabilities are 1 within rounding, but in order."""
    rows = np.array([60.0, 50.0, -900.0, -800.0])
    logits = rows[:, None] if number == 2 else np.stack([0 * rows, rows, 0 * rows - 1e3], axis=1)
    found = label_scores(logits, [1, 0, 1, 0], classes=CLASSES[number]).sel(per="image")
    # of the 4 pairs of a true and a false one, 2 are in order
    assert float(found.auc[1]) == 0.5
    assert float(found.cross_entropy) == pytest.approx((0 + 50 + 900 + 0) / 4)


def test_long_curves_are_thinned_but_their_area_is_of_all(monkeypatch):
    logits, label, group = made(2)
    whole = label_scores(logits, label, group, classes=CLASSES[2])
    monkeypatch.setattr(curves, "POINTS", 20)
    thin = label_scores(logits, label, group, classes=CLASSES[2])
    assert thin.sizes["threshold"] == 20 < whole.sizes["threshold"]
    np.testing.assert_array_equal(thin.auc, whole.auc)
    ends = thin.roc_tpr.sel(per="image")[1].values, thin.roc_fpr.sel(per="image")[1].values
    assert [x[i] for x in ends for i in (0, -1)] == [0, 1, 0, 1]
    points = set(zip(whole.roc_fpr.values[0, 1], whole.roc_tpr.values[0, 1], strict=True))
    assert set(zip(ends[1], ends[0], strict=True)) <= points


def test_scores_survive_netcdf_and_say_what_they_are(tmp_path):
    logits, label, group = made(3)
    found = label_scores(torch.from_numpy(logits), torch.from_numpy(label), group, classes="abc")
    for name, value in found.data_vars.items():
        assert {"units", "long_name"} <= set(value.attrs), name
    found.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        xr.testing.assert_equal(again.load(), found)
        assert again.group_truth.attrs["flag_meanings"] == "a b c"


def test_a_perfect_prediction_gets_the_perfect_scores():
    label = np.arange(12) % 3
    found = label_scores(1e3 * np.eye(3)[label], label, label + 5, classes="abc")
    told = [value for value in found.data_vars.values() if "perfect" in value.attrs]
    assert len(told) > 8
    for value in told:
        np.testing.assert_allclose(value, value.attrs["perfect"], atol=1e-12)
    worse = label_scores(1e3 * np.eye(3)[label - 1], label, label + 5, classes="abc")
    for name, value in worse.data_vars.items():
        if "perfect" in value.attrs:
            assert (np.abs(value - value.attrs["perfect"]) > 0.1).any(), name


@pytest.mark.parametrize(
    ("error", "words", "changed"),
    [
        (FieldError, "hard labels", {"labels": np.array([0.1, 0.9])}),
        (FieldError, "image 1 has label 2", {"labels": np.array([0, 2])}),
        (FieldError, "a group has one truth", {"groups": np.array([4, 4])}),
        (FieldError, "first of sample 1", {"logits": np.array([[0.0], [np.nan]])}),
        (FieldError, "there are no logits", {"logits": np.zeros((0, 1)), "labels": np.array([])}),
        (FieldError, "whole numbers, not float", {"groups": np.array([4.0, 5.0])}),
        (FieldError, "different names", {"classes": ["gr", "gr"]}),
        (GeometryError, "logit of the second", {"logits": np.zeros((2, 2))}),
        (GeometryError, r"need \(2, 3\)", {"classes": ["a", "b", "c"]}),
        (GeometryError, "shape \\(sample, channel\\)", {"logits": np.zeros(2)}),
        (GeometryError, "class of each", {"labels": np.array([0])}),
        (GeometryError, "one whole number for each", {"groups": np.array([0])}),
    ],
)
def test_what_cannot_be_scored_is_refused(error, words, changed):
    about = {"logits": np.zeros((2, 1)), "labels": np.array([0, 1]), "groups": None}
    about |= {"classes": CLASSES[2]} | changed
    with pytest.raises(error, match=words), warnings.catch_warnings():
        label_scores(about["logits"], about["labels"], about["groups"], classes=about["classes"])
