"""Batches: what the order says, as it is in the files, resumable at any sample."""

import threading

import numpy as np
import pytest
import torch

from map2map.batches import Batches
from map2map.crops import Augment, Crops
from map2map.errors import RecipeError, SourceError
from map2map.fields import Field
from map2map.order import Order, Share
from map2map.runs import Runs
from map2map.samples import SampleDataset


@pytest.fixture
def dataset(tmp_path):
    """Three runs of numbered cells, four crops each."""
    for i in range(3):
        values = np.arange(16.0).reshape(1, 4, 4) + 100 * i
        np.save(tmp_path / f"x_{i}.npy", values)
        np.save(tmp_path / f"y_{i}.npy", -values)
    patterns = {name: str(tmp_path / f"{name}_*.npy") for name in "xy"}
    runs = Runs([Field("x")], [Field("y")], patterns)
    return SampleDataset(runs, Crops(size=2, halo=0), Augment(symmetries="all"))


def visited(batches):
    return [i for batch in batches for i in batch.indices]


def settled(batches):
    return [torch.cat(batch.settle()) for batch in batches]


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 5, 12])
def test_an_epoch_is_the_order_in_batches_whatever_the_number_of_threads(dataset, threads, size):
    order = Order(seed=1)
    batches = Batches(dataset, order, size, vary=True, threads=threads)
    assert len(batches) == -(-12 // size)
    for epoch in range(2):
        assert visited(batches) == order.samples(epoch, 3, 4).tolist()


def test_the_values_do_not_depend_on_the_number_of_threads(dataset):
    each = [settled(Batches(dataset, Order(), 5, vary=True, threads=n)) for n in (0, 1, 3)]
    for other in each[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each[0], other, strict=True))


@pytest.mark.parametrize("start", range(12))
def test_an_epoch_resumes_at_any_sample(dataset, start):
    whole = Batches(dataset, Order(), 1, vary=True)
    list(whole)
    expected = settled(whole)[start:]
    resumed = Batches(dataset, Order(), 1, vary=True)
    resumed.load_state_dict({"epoch": 1, "sample": start})
    assert all(torch.equal(a, b) for a, b in zip(settled(resumed), expected, strict=True))
    # and the epoch after that is whole
    assert visited(resumed) == Order().samples(2, 3, 4).tolist()


def test_it_knows_what_comes_next(dataset):
    batches = Batches(dataset, Order(), 5, vary=True)
    told = [batches.state_dict() for _ in batches]
    assert told == [
        {"epoch": 0, "sample": 5}, {"epoch": 0, "sample": 10}, {"epoch": 1, "sample": 0}
    ]  # fmt: skip


def test_an_epoch_that_was_closed_early_is_followed_by_the_next_one_also_from_its_state(dataset):
    batches = Batches(dataset, Order(), 5, vary=True)
    next(iter(batches))
    batches.close_epoch()
    resumed = Batches(dataset, Order(), 5, vary=True)
    resumed.load_state_dict(batches.state_dict())
    expected = Order().samples(1, 3, 4).tolist()
    assert visited(resumed) == visited(batches) == expected
    batches.close_epoch()
    assert batches.state_dict() == {"epoch": 2, "sample": 0}


def test_an_epoch_that_was_left_early_is_not_taken_up_unasked(dataset):
    batches = Batches(dataset, Order(), 1, vary=True)
    next(iter(batches))
    assert visited(batches) == Order().samples(1, 3, 4).tolist()


def test_processes_share_what_there_is(dataset):
    parts = [visited(Batches(dataset, Order(), 2, Share(r, 5), vary=False)) for r in range(5)]
    assert sorted(i for part in parts for i in part) == list(range(12))
    even = [visited(Batches(dataset, Order(), 2, Share(r, 5), vary=True)) for r in range(5)]
    assert {len(part) for part in even} == {3}


def test_without_variation_samples_are_as_they_are_in_the_files(dataset):
    batch = next(iter(Batches(dataset, Order(shuffle=False), 12)))
    x, y = batch.settle()
    assert x[5].tolist() == [[[102.0, 103.0], [106.0, 107.0]]]
    assert torch.equal(x, -y)


def test_an_error_while_reading_ahead_is_raised_and_leaves_no_threads(dataset):
    dataset.runs.runs[1].paths["x"].unlink()
    before = threading.active_count()
    with pytest.raises(SourceError):
        visited(Batches(dataset, Order(shuffle=False), 3, threads=2))
    assert threading.active_count() == before


def test_leaving_an_epoch_early_leaves_no_threads(dataset):
    before = threading.active_count()
    iterator = iter(Batches(dataset, Order(), 1, threads=3))
    next(iterator)
    iterator.close()
    assert threading.active_count() == before


def test_impossible_batches_are_refused(dataset):
    with pytest.raises(RecipeError, match="at least 1 sample"):
        Batches(dataset, Order(), 0)


def sizes(batches):
    return [len(batch) for batch in batches]


def test_a_last_batch_of_one_sample_joins_the_one_before_it_where_that_is_asked(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(2 * 7, dtype=np.float32).reshape(1, 7, 2))
    path = str(tmp_path / "x.npy")
    dataset = SampleDataset(
        Runs([Field("x")], [Field("y")], {"x": path, "y": path}), Crops(size=[1, 2], halo=0)
    )
    for size, expected in ((3, [3, 4]), (2, [2, 2, 3]), (6, [7]), (4, [4, 3]), (1, [1] * 7)):
        batches = Batches(dataset, Order(shuffle=False), size, threads=0, join_last=True)
        assert len(batches) == len(expected)
        found = list(batches)
        assert sizes(found) == expected
        assert [i for batch in found for i in batch.indices] == list(range(7))
        # a state goes on to the same batches
        for k in range(1, len(expected)):
            again = Batches(dataset, Order(shuffle=False), size, threads=2, join_last=True)
            again.load_state_dict({"epoch": 0, "sample": sum(expected[:k])})
            assert sizes(again) == expected[k:]
    assert sizes(Batches(dataset, Order(shuffle=False), 3, threads=0)) == [3, 3, 1]


def test_fewer_crops_than_processes_are_refused_where_each_counts_once(dataset):
    for rank in range(13):
        with pytest.raises(RecipeError, match=r"12 crops .* to 13 processes.*trainer\.devices"):
            Batches(dataset, Order(shuffle=False), share=Share(rank, 13))
        # training repeats some
        assert len(Batches(dataset, Order(), share=Share(rank, 13), vary=True)) == 1
