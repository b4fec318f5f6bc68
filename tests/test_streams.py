"""What is counted run by run is what is counted when all is known, with the final bins."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from map2map.streams import BinMoments, Bins, Percentiles, gathered, grouped

NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False)
RUNS = st.lists(st.lists(NUMBERS, min_size=1, max_size=8), min_size=1, max_size=6)


@settings(deadline=None, derandomize=True)
@given(runs=RUNS, most=st.integers(2, 40))
def test_bins_that_widened_hold_what_the_final_ones_would_have_held(runs, most):
    bins, counts = Bins(most), np.zeros(0, int)
    for run in runs:
        places = bins.cover(min(run), max(run))
        counts = gathered(counts, places, bins.count, 0)
        counts += np.bincount(bins.numbers(np.array(run)), minlength=bins.count)
    every = np.concatenate(runs)
    edges = bins.edges
    assert len(counts) == bins.count <= most
    assert edges[0] <= every.min() <= every.max() < edges[-1]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(low <= x < high for x in every)


def test_at_least_half_of_the_bins_are_used_and_they_begin_and_end_with_the_data():
    rng = np.random.default_rng(0)
    for _ in range(50):
        low, high = np.sort(rng.normal(size=2) * 10 ** rng.uniform(-9, 9))
        bins = Bins(64)
        bins.cover(low, high)
        assert 32 <= bins.count <= 64
        assert bins.edges[1] > low
        assert bins.edges[-2] <= high


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-300, 1e30])
def test_a_constant_has_a_bin_and_what_comes_later_is_told_from_it(value):
    bins = Bins(64)
    bins.cover(value, value)
    assert bins.count == 1
    (place,) = bins.cover(value - 1, value + 1 + abs(value))
    assert bins.edges[place] <= value <= bins.edges[place + 1]
    assert bins.count > 16


def test_groups_are_of_equal_width_and_hold_all():
    bins = Bins(64)
    bins.cover(-0.3, 1.1)
    starts, edges = bins.groups(10)
    assert len(starts) <= 10
    np.testing.assert_allclose(np.diff(edges), edges[1] - edges[0])
    assert edges[0] == bins.edges[0]
    assert edges[-1] >= bins.edges[-1]
    counts = np.arange(bins.count)
    expected = [sum(counts[a:b]) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert grouped(counts, starts).tolist() == expected


def test_moments_by_bin_are_those_of_the_values_in_it():
    rng = np.random.default_rng(0)
    moments, by, values = BinMoments(2, 256), [], []
    for run in range(4):
        x = rng.normal(size=200) * 3**run
        y = np.stack([x**2, 1e6 + rng.normal(size=200)])
        moments.cover(x.min(), x.max())
        for part in (slice(0, 90), slice(90, None)):
            moments.add(x[part], list(y[:, part]))
        by.append(x)
        values.append(y)
    x, y = np.concatenate(by), np.concatenate(values, axis=1)
    edges, count, mean, deviation = moments.groups(12)
    assert count.sum() == 800
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (low <= x) & (x < high)
        assert count[i] == inside.sum()
        if inside.any():
            np.testing.assert_allclose(mean[:, i], y[:, inside].mean(axis=1))
            # of numbers near a million: a difference of squares would give noise
            np.testing.assert_allclose(deviation[:, i], y[:, inside].std(axis=1), rtol=1e-6)
        else:
            assert np.isnan(mean[:, i]).all()


def test_percentiles_are_numpys_to_a_few_percent_whatever_the_range():
    rng = np.random.default_rng(0)
    scale, shift = np.array([[1e-12], [1.0], [1e9], [1e-3]]), np.array([[0], [0], [0], [273.0]])
    runs = [rng.standard_t(2, size=(4, 3000)) * scale + shift for _ in range(3)]
    found = Percentiles(4)
    for run in runs:
        found.add(run)
    wanted = (5, 25, 50, 75, 95)
    exact = np.percentile(np.concatenate(runs, axis=1), wanted, axis=1)
    off = np.abs(found.values(wanted) - exact) / np.maximum(np.abs(exact), scale[:, 0])
    assert off.max() < 0.03
    # within a bucket they are interpolated
    assert off.mean() < 0.005


def test_percentiles_of_few_or_equal_values():
    found = Percentiles(3)
    assert np.isnan(found.values([50])).all()
    found.add(np.array([[0.0] * 4, [7.3] * 4, [-1e39, 1, 2, 1e39]]))
    found.add(np.zeros((3, 0)))
    np.testing.assert_array_equal(found.values([0, 50, 100])[:, :2], [[0, 7.3]] * 3)
    assert found.values([50])[0, 2] == pytest.approx(1.5, abs=0.55)
    assert np.isfinite(found.values([0, 100])).all()
