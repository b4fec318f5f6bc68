"""Scores of ensembles against double loops, formulas of the normal distribution, and chance."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm

from map2map.errors import FieldError, GeometryError
from map2map.metrics.ensembles import EnsembleScores, ensemble_scores, slabs_of


def drawn(members, shape, seed=0, spread=1.0):
    """Members and a truth around a mean that differs from cell to cell."""
    rng = np.random.default_rng(seed)
    middle = 3 * rng.normal(size=shape)
    return middle + spread * rng.normal(size=(members, *shape)), middle + rng.normal(size=shape)


def naive(members, truth):
    """CRPS, fair and plain, cell by cell and pair by pair."""
    size, fair, plain = len(members), [], []
    for cell in np.ndindex(truth.shape):
        x, y = members[(slice(None), *cell)], truth[cell]
        distance = sum(abs(one - y) for one in x) / size
        pairs = sum(abs(one - other) for one in x for other in x)
        fair.append(distance - pairs / (2 * size * (size - 1)))
        plain.append(distance - pairs / (2 * size**2))
    return np.mean(fair), np.mean(plain)


@pytest.mark.parametrize("members", [2, 3, 7])
def test_crps_is_that_of_a_double_loop(members):
    x, y = drawn(members, (2, 4, 3))
    found = ensemble_scores(list(x), y)
    np.testing.assert_allclose([found.crps, found.crps_plain], naive(x, y), rtol=1e-12)


def test_crps_of_a_normal_ensemble_is_the_formula():
    """Of N(m, s^2) and a truth y: s (w (2 Phi(w) - 1) + 2 phi(w) - 1 / sqrt(pi)), w = (y - m)/s."""
    rng = np.random.default_rng(0)
    y, s = np.array([[-1.0, 0.3, 2.0]]), 0.7
    members = 0.5 + s * rng.normal(size=(20000, 1, 3))
    w = (y - 0.5) / s
    exact = (s * (w * (2 * norm.cdf(w) - 1) + 2 * norm.pdf(w) - np.pi**-0.5)).mean()
    assert float(ensemble_scores(list(members), y).crps) == pytest.approx(exact, rel=0.01)


def test_fair_crps_does_not_depend_on_the_number_of_members_and_plain_does():
    fair, plain = [], []
    for size in (2, 20):
        x, y = drawn(size, (1, 200000), seed=size)
        found = ensemble_scores(list(x), y)
        fair.append(float(found.crps))
        plain.append(float(found.crps_plain))
    # the truth is like a member: 1 / sqrt(pi)
    np.testing.assert_allclose(fair, np.pi**-0.5, rtol=0.01)
    assert plain[0] > 1.3 * plain[1]


def test_members_like_the_truth_have_a_flat_histogram_and_as_much_spread_as_skill():
    x, y = drawn(4, (1, 200000))
    found = ensemble_scores(list(x), y)
    np.testing.assert_allclose(found.rank_histogram, 1 / 5, rtol=0.02)
    assert float(found.rank_error) < 0.02
    assert float(found.spread_skill) == pytest.approx(1, rel=0.01)
    # the rmse of the mean of four: 1 + 1/4
    assert float(found.spread) == pytest.approx(np.sqrt(1.25), rel=0.01)


def test_members_that_scatter_too_little_have_a_u_and_too_little_spread():
    x, y = drawn(4, (1, 50000), spread=0.5)
    found = ensemble_scores(list(x), y)
    ranks = found.rank_histogram.values
    assert min(ranks[0], ranks[-1]) > 2 * ranks[2]
    expected = np.sqrt(1.25) * 0.5 / np.sqrt(1 + 0.25 / 4)
    assert float(found.spread_skill) == pytest.approx(expected, rel=0.02)
    assert float(found.rank_error) > 0.3


def test_ranks_count_the_members_below_and_share_ties():
    truth = np.array([[0.0, 5.0, 2.0, 1.0]])
    members = [np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[2.0, 2.0, 3.0, 1.0]])]
    found = ensemble_scores(members, truth).rank_histogram
    # below both, above both, between, equal to both
    np.testing.assert_allclose(found, [(1 + 1 / 3) / 4, (1 + 1 / 3) / 4, (1 + 1 / 3) / 4])
    # rain: all is zero in most cells
    zero = np.zeros((1, 100))
    found = ensemble_scores([zero, zero, zero], zero)
    np.testing.assert_allclose(found.rank_histogram, 1 / 4)
    assert float(found.crps) == 0


def test_numbers_do_not_depend_on_the_windows_they_come_in():
    x, y = drawn(5, (3, 8, 7))
    y[:, 2, 3] = np.nan
    x[1, 0, 4, 4] = np.inf
    whole, parts, other = (EnsembleScores(5, vector=True) for _ in range(3))
    whole.add(list(x), y)
    for i in range(0, 8, 3):
        side = parts if i < 6 else other
        side.add(list(x[:, :, i : i + 3]), y[:, i : i + 3])
    parts.merge(other)
    xr.testing.assert_allclose(parts.result(), whole.result(), rtol=1e-12)
    np.testing.assert_allclose(parts.by_spread(), whole.by_spread(), rtol=1e-12)
    assert whole.count == 3 * (56 - 2)


def test_energy_score_is_crps_of_lengths():
    x, y = drawn(4, (2, 5, 6))
    found = ensemble_scores(list(x), y, vector=True)
    near = np.mean([np.linalg.norm(m - y, axis=0) for m in x])
    apart = sum(np.linalg.norm(a - b, axis=0).mean() for a in x for b in x) / (4 * 3)
    assert float(found.energy_score) == pytest.approx(near - apart / 2, rel=1e-12)
    assert "energy_score" not in ensemble_scores(list(x), y)
    # of turned vectors the same, as components' scores are not
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = ensemble_scores(
        list(np.einsum("ij,mjyx->miyx", turn, x)), np.einsum("ij,jyx->iyx", turn, y), vector=True
    )
    assert float(turned.energy_score) == pytest.approx(float(found.energy_score), rel=1e-12)
    assert abs(float(turned.crps) - float(found.crps)) > 1e-4


def test_where_members_scatter_more_their_mean_is_further_off():
    rng = np.random.default_rng(0)
    scale = np.repeat(2.0 ** np.arange(-2, 3), 20000)[None]
    x, y = scale * rng.normal(size=(40, 1, 100000)), scale * rng.normal(size=(1, 100000))
    scores = EnsembleScores(40)
    scores.add(list(x), y)
    spread, skill, share = scores.by_spread()
    assert share.sum() == pytest.approx(1)
    most = share > 0.02
    assert most.sum() > 4
    # the rmse of the mean of a bin is that of its spread, within its width
    np.testing.assert_allclose(spread[most], skill[most], rtol=0.2)


def test_masked_cells_do_not_count_and_other_kinds_of_arrays_give_the_same():
    x, y = drawn(3, (1, 6, 5))
    mask = np.random.default_rng(1).random((6, 5)) < 0.8
    expected = ensemble_scores(list(x[:, :, mask]), y[:, mask])
    xr.testing.assert_allclose(ensemble_scores(list(x), y, mask=mask), expected)
    spoilt = [np.where(mask, x[0], np.nan), *np.where(mask, x[1:], 1e9)]
    xr.testing.assert_allclose(ensemble_scores(spoilt, y, mask=mask), expected)
    tensors = [torch.from_numpy(m) for m in x]
    xr.testing.assert_allclose(ensemble_scores(tensors, torch.from_numpy(y), mask=mask), expected)


def test_few_numbers_are_taken_at_a_time(monkeypatch):
    monkeypatch.setattr("map2map.metrics.ensembles.SLAB", 40)
    x, y = drawn(3, (1, 9, 5))
    parts = list(slabs_of(list(x), y, None))
    assert [part.shape for _, part in parts] == [(1, 10)] * 4 + [(1, 5)]
    np.testing.assert_array_equal(np.concatenate([p for _, p in parts], 1)[0], y.ravel())


def test_what_does_not_fit_is_refused():
    x, y = drawn(3, (1, 6, 5))
    with pytest.raises(FieldError, match="from 2 members on, not 1"):
        ensemble_scores(list(x[:1]), y)
    with pytest.raises(GeometryError, match="the prediction has shape"):
        ensemble_scores([x[0], x[1][:, 1:]], y)
    with pytest.raises(GeometryError, match="3 members of the truth's shape"):
        EnsembleScores(3).add(list(x[:2]), y)
    left, right = x[0].copy(), x[1].copy()
    left[..., :3], right[..., 2:] = np.nan, np.nan
    with pytest.raises(FieldError, match="no cell counts"):
        ensemble_scores([left, right], y)
    assert np.isnan(EnsembleScores(3).result().crps)
