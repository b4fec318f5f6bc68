"""The mean line against least squares and scikit-learn's linear discriminant."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from map2map.fields import Field, FieldSet
from map2map.mean_line import MeanLine, means

TWO = Field("g", kind="label", classes=("a", "b")).resolved(1, 2)
THREE = Field("k", kind="label", classes=("a", "b", "c")).resolved(3, 2)
MASS = Field("m", kind="parameter").resolved(1, 2)
HUBBLE = Field("h", kind="parameter").resolved(1, 2)


def filled(targets, x, y, batch=7):
    line = MeanLine(FieldSet(targets), x.shape[1])
    for start in range(0, len(x), batch):
        line.add(x[start : start + batch], y[start : start + batch])
    return line


def fields(seed, labels, shift, channels=2):
    """Fields whose means depend on their class."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(labels), channels, 4, 4)) + 3
    x += np.asarray(shift)[labels][:, :channels, None, None]
    return torch.from_numpy(x.astype(np.float32))


def test_means_are_of_all_cells_of_a_channel():
    x = fields(0, np.zeros(5, int), [[0, 0]])
    expected = x.double().numpy().reshape(5, 2, 16).mean(axis=2)
    np.testing.assert_allclose(means(x), np.concatenate([np.ones((5, 1)), expected], axis=1))


def test_parameters_are_least_squares():
    x = fields(1, np.zeros(40, int), [[0, 0]])
    rng = np.random.default_rng(2)
    y = means(x) @ rng.normal(size=(3, 2)) + rng.normal(size=(40, 2))
    weights = filled((MASS, HUBBLE), x, torch.from_numpy(y)).weights()
    expected = np.linalg.lstsq(means(x), y, rcond=None)[0]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(MeanLine.predict(weights, x), means(x) @ expected, rtol=1e-6)


def discriminant(x, labels):
    # by least squares: the covariance of all samples about the means of their classes
    return LinearDiscriminantAnalysis(solver="lsqr").fit(means(x)[:, 1:], labels)


def test_two_classes_have_the_log_odds_of_the_linear_discriminant():
    labels = np.repeat([0, 1], [30, 12])
    x = fields(3, labels, [[0, 0], [0.3, -0.2]])
    weights = filled((TWO,), x, torch.from_numpy(labels[:, None])).weights()
    expected = discriminant(x, labels)
    assert np.array(weights).shape == (3, 1)
    np.testing.assert_allclose(
        MeanLine.predict(weights, x)[:, 0],
        expected.decision_function(means(x)[:, 1:]),
        rtol=1e-6,
        atol=1e-8,
    )


def test_three_classes_have_the_probabilities_of_the_linear_discriminant():
    labels = np.repeat([0, 1, 2], [20, 10, 15])
    x = fields(4, labels, [[0, 0], [0.3, -0.2], [-0.4, 0.1]])
    y = torch.eye(3)[labels]
    odds = MeanLine.predict(filled((THREE,), x, y).weights(), x)
    found = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    expected = discriminant(x, labels).predict_proba(means(x)[:, 1:])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_batches_and_symmetries_do_not_change_it():
    labels = np.arange(20) % 2
    x = fields(5, labels, [[0, 0], [0.3, 0.3]])
    y = torch.from_numpy(labels[:, None])
    expected = filled((TWO,), x, y, batch=20).weights()
    moved = torch.roll(x.flip(2).transpose(2, 3), 2, dims=3)
    np.testing.assert_allclose(filled((TWO,), x, y, batch=3).weights(), expected, rtol=1e-6)
    np.testing.assert_allclose(filled((TWO,), moved, y).weights(), expected, rtol=1e-5)


def test_its_state_goes_on_exactly():
    labels = np.arange(20) % 2
    x, y = fields(6, labels, [[0, 0], [1, 1]]), torch.from_numpy(labels[:, None])
    first = filled((TWO,), x[:14], y[:14])
    second = MeanLine(FieldSet((TWO,)), 2)
    second.load(first.state())
    second.add(x[14:], y[14:])
    assert second.weights() == filled((TWO,), x, y).weights()


def test_without_samples_there_is_no_line():
    assert MeanLine(FieldSet((TWO,)), 1).weights() is None


def test_a_class_without_samples_is_never_the_likeliest():
    labels = np.arange(20) % 2
    x = fields(7, labels, [[0, 0], [1, 1]])
    odds = MeanLine.predict(filled((THREE,), x, torch.eye(3)[labels]).weights(), x)
    assert np.isfinite(odds).all()
    assert set(odds.argmax(axis=1)) == {0, 1}


@pytest.mark.parametrize("targets", [(TWO,), (MASS,)])
def test_inputs_of_equal_means_tell_nothing(targets):
    x = torch.ones(10, 1, 4, 4)
    y = torch.tensor([0.0, 1, 1, 0, 1, 1, 0, 1, 1, 1])[:, None]
    found = MeanLine.predict(filled(targets, x, y).weights(), x)
    expected = np.log(7 / 3) if targets == (TWO,) else 0.7
    np.testing.assert_allclose(found, np.full((10, 1), expected), atol=1e-6)


@pytest.mark.parametrize("targets", [(TWO,), (MASS,)])
def test_cells_that_are_not_finite_are_left_out_and_samples_without_finite_ones(targets):
    labels = np.arange(40) % 2
    x = fields(8, labels, [[0, 0], [0.3, -0.2]])
    y = torch.from_numpy(labels[:, None])
    holed, expected = x.clone(), x.double().numpy().copy()
    holed[3, 0, 1, 2], holed[5, 1, :, :3], holed[7, 0] = np.nan, np.inf, np.nan
    expected[3, 0, 1, 2], expected[5, 1, :, :3] = np.nan, np.nan
    kept = np.arange(40) != 7
    mean = np.nanmean(expected.reshape(40, 2, 16), axis=2)[kept]
    found = MeanLine.predict(filled(targets, holed, y).weights(), x)[:, 0]
    if targets == (TWO,):
        line = LinearDiscriminantAnalysis(solver="lsqr").fit(mean, labels[kept])
        truth = line.decision_function(means(x)[:, 1:])
    else:
        phi = np.concatenate([np.ones((39, 1)), mean], axis=1)
        truth = means(x) @ np.linalg.lstsq(phi, labels[kept].astype(float), rcond=None)[0]
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-8)


def test_where_no_sample_has_finite_means_there_is_no_line():
    x = torch.full((4, 2, 4, 4), 1.0)
    x[:, 1] = np.nan
    assert filled((TWO,), x, torch.tensor([0.0, 1, 0, 1])[:, None]).weights() is None


def test_sums_of_an_older_state_that_are_not_finite_make_no_line():
    line = MeanLine(FieldSet((TWO,)), 1)
    line.load({"squares": torch.full((2, 2), np.nan), "products": torch.full((2, 1), np.nan)})
    assert line.weights() is None
