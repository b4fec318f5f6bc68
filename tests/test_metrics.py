"""Scores against numpy."""

import numpy as np
import pytest

from map2map.metrics import Pointwise


def pair(offset=0.0):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, 6, 5)) * np.array([1, 2, 3])[:, None, None] + offset
    return truth + rng.normal(size=truth.shape), truth


@pytest.mark.parametrize("parts", [1, 2, 6])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_scores_are_numpys_however_the_field_is_cut(parts, offset):
    prediction, truth = pair(offset)
    scores = Pointwise()
    for p, t in zip(np.split(prediction, parts, 1), np.split(truth, parts, 1), strict=True):
        scores.add(p, t)
    found, error = scores.result(), prediction - truth
    mean = truth.mean(axis=(1, 2), keepdims=True)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["bias"] == pytest.approx(error.mean())
    assert found["max_error"] == pytest.approx(np.abs(error).max())
    relative = np.linalg.norm(error) / np.linalg.norm(truth)
    assert found["relative_error"] == pytest.approx(relative, rel=1e-9)
    r2 = 1 - (error**2).sum() / ((truth - mean) ** 2).sum()
    assert found["r2"] == pytest.approx(r2, rel=1e-6)


def test_a_perfect_prediction_gets_perfect_scores():
    _, truth = pair()
    scores = Pointwise()
    scores.add(truth, truth)
    assert scores.result()["r2"] == 1
    assert scores.result()["rmse"] == scores.result()["max_error"] == 0


def test_cells_that_are_not_finite_are_left_out():
    prediction, truth = pair()
    holed = truth.copy()
    holed[0, 2, 3] = np.nan
    scores, kept = Pointwise(), Pointwise()
    scores.add(prediction, holed)
    keep = np.ones((6, 5), bool)
    keep[2, 3] = False
    kept.add(prediction[:, keep], truth[:, keep])
    assert scores.result() == pytest.approx(kept.result())


def test_without_cells_scores_are_not_defined():
    assert np.isnan(list(Pointwise().result().values())).all()
