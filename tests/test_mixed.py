"""Cells as samples: every cell once per epoch, with its own target, in an order that is resumed."""

import numpy as np
import pytest
import torch

from map2map.batches import Batch
from map2map.crops import Augment, Crops
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.mixed import CellBatches
from map2map.order import Order, Share
from map2map.runs import Runs
from map2map.samples import SampleDataset

CELLS = 24
"""Of each of three runs."""


@pytest.fixture
def dataset(tmp_path):
    """Inputs that number the cells, targets that are a function of them."""
    return make(tmp_path)


def make(folder, augment=None, **crops):
    for run in range(3):
        number = np.arange(run * CELLS, (run + 1) * CELLS, dtype="f4")
        np.save(folder / f"x_{run}.npy", np.stack([number, 2 * number]))
        np.save(folder / f"y_{run}.npy", -number[None])
    runs = Runs(
        [Field("x", kind="scalar")],
        [Field("y")],
        {"x": str(folder / "x_*.npy"), "y": str(folder / "y_*.npy")},
        Domain(1),
    )
    return SampleDataset(runs, Crops(**({"size": 6, "halo": 0} | crops)), augment)


def loader(dataset, crops=5, cells=7, vary=True, share=None, threads=1):
    order = Order(shuffle=vary, seed=3)
    return CellBatches(dataset, order, crops, cells, share, vary=vary, threads=threads)


def numbers(batches):
    """Which cells the batches hold."""
    found = []
    for batch in batches:
        x, y = batch.settle()
        assert x.shape == (len(batch), 2, 1)
        assert y.shape == (len(batch), 1, 1)
        np.testing.assert_array_equal(x[:, 1], 2 * x[:, 0])
        np.testing.assert_array_equal(y[:, 0], -x[:, 0])
        found.append(x[:, 0, 0].int().tolist())
    return found


def flat(batches):
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("vary", [False, True])
def test_every_cell_is_seen_once_per_epoch(dataset, vary, threads):
    batches = loader(dataset, vary=vary, threads=threads)
    epochs = [numbers(batches) for _ in range(3)]
    for epoch in epochs:
        # 12 crops of 6 cells, 5 crops at a time
        assert [len(batch) for batch in epoch] == [7, 7, 7, 7, 2] * 2 + [7, 5]
        assert len(epoch) == len(batches)
        assert sorted(n for batch in epoch for n in batch) == list(range(3 * CELLS))
    assert (epochs[0] == epochs[1]) is not vary
    assert batches.samples == 3 * CELLS
    if not vary:
        assert flat(epochs[0]) == list(range(3 * CELLS))


def test_cells_are_mixed_among_the_crops_that_are_read_together(dataset):
    (first, *_) = numbers(loader(dataset))
    assert len({n // 6 for n in first}) > 2
    assert sorted(first) != first


@pytest.mark.parametrize("seen", range(13))
def test_an_epoch_is_resumed_at_any_batch(dataset, seen):
    whole = loader(dataset)
    epochs = [numbers(whole) for _ in range(3)]
    broken = loader(dataset)
    iterator = iter(broken)
    for _ in range(seen):
        next(iterator)
    resumed = loader(dataset)
    resumed.load_state_dict(broken.state_dict())
    assert len(epochs[0]) == 12
    rest = numbers(resumed)
    assert rest == (epochs[0][seen:] or epochs[1])
    assert numbers(resumed) == epochs[1 if seen < 12 else 2]


def test_an_epoch_that_is_left_early_is_followed_by_the_next(dataset):
    whole, left = loader(dataset), loader(dataset)
    second = [numbers(whole), numbers(whole)][1]
    next(iter(left))
    assert numbers(left) == second


def test_processes_share_the_cells(dataset):
    shares = [numbers(loader(dataset, share=Share(rank, 2))) for rank in range(2)]
    assert sorted(n for share in shares for batch in share for n in batch) == list(range(3 * CELLS))
    assert len(shares[0]) == len(shares[1])


@pytest.mark.parametrize("crops", [1, 5])
def test_more_processes_than_crops_share_the_cells_of_each(tmp_path, crops):
    dataset = make(tmp_path, size=CELLS)
    parts = [
        loader(dataset, crops=crops, vary=False, share=Share(rank, 5), threads=0)
        for rank in range(5)
    ]
    shares = [numbers(part) for part in parts]
    for part, share in zip(parts, shares, strict=True):
        assert len(part) == len(share) > 0
        assert part.samples == sum(len(batch) for batch in share)
        # again, as after every epoch of training
        assert numbers(part) == share
    assert sorted(n for share in shares for batch in share for n in batch) == list(range(3 * CELLS))
    sizes = [part.samples for part in parts]
    assert max(sizes) - min(sizes) <= 3


def test_more_processes_than_crops_train_on_as_many_cells_each(tmp_path):
    dataset = make(tmp_path, size=CELLS)
    shares = [flat(numbers(loader(dataset, share=Share(rank, 5)))) for rank in range(5)]
    assert {len(share) for share in shares} == {CELLS}
    assert {n for share in shares for n in share} == set(range(3 * CELLS))


def test_processes_that_would_have_no_cell_are_refused_on_all_of_them(tmp_path):
    dataset = make(tmp_path, size=1, stop=1)
    for rank in range(4):
        with pytest.raises(RecipeError, match=r"3 crops of 1 cells .* to 4 processes.*devices"):
            loader(dataset, vary=False, share=Share(rank, 4))


def test_batches_can_be_moved(dataset):
    batch = next(iter(loader(dataset))).to("cpu")
    assert isinstance(batch, Batch)
    assert batch.settle()[0].dtype == torch.float32
    assert batch.noise() == (None, None)
    assert batch.factors() is None


@pytest.mark.parametrize(
    ("crops", "augment", "error", "match"),
    [
        ({"halo": 1}, None, GeometryError, "inputs"),
        ({"target_halo": 1}, None, GeometryError, "targets"),
        ({}, Augment("flips"), RecipeError, "symmetries"),
        ({}, Augment("all"), RecipeError, "symmetries"),
    ],
)
def test_what_cells_do_not_have_is_refused(tmp_path, crops, augment, error, match):
    dataset = make(tmp_path, augment, **crops)
    with pytest.raises(error, match=match):
        loader(dataset)
    with pytest.raises(RecipeError, match="at least 1 cell"):
        loader(make(tmp_path), cells=0)
