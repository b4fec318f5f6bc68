"""Laws of the order: nothing lost, nothing twice, little read twice, and always the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from map2map.errors import RecipeError
from map2map.order import Order, Share

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sizes, st.booleans(), st.booleans(), st.floats(0, 20), st.integers(1, 7))
def test_the_shares_of_all_processes_are_every_sample_once(size, shuffle, local, distance, world):
    order = Order(shuffle=shuffle, local=local, distance=distance, seed=3)
    shares = [order.samples(2, *size, Share(r, world), even=False) for r in range(world)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(size[0] * size[1]))


@given(sizes, st.booleans(), st.integers(1, 7))
def test_even_shares_are_as_long_and_lose_nothing(size, local, world):
    shares = [Order(local=local).samples(0, *size, Share(r, world)) for r in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert set(np.concatenate(shares).tolist()) == set(range(size[0] * size[1]))


def test_it_is_a_function_of_seed_and_epoch():
    def samples(seed, epoch):
        return Order(seed=seed).samples(epoch, 10, 10).tolist()

    assert samples(1, 2) == samples(1, 2)
    assert samples(1, 2) != samples(1, 3)
    assert samples(1, 2) != samples(2, 2)


def test_up_to_distance_one_crops_are_shuffled_within_their_file():
    files = Order(local=True, distance=1).samples(0, 6, 50) // 50
    assert (np.diff(files) != 0).sum() <= 6 + 1  # the last file may wrap to the beginning
    crops = Order(local=True, distance=0).samples(0, 6, 50) % 50
    assert crops.tolist() == list(range(50)) * 6
    assert Order(local=True, distance=1).samples(0, 6, 50)[:50].tolist() != sorted(
        Order(local=True, distance=1).samples(0, 6, 50)[:50]
    )


def test_a_crop_is_displaced_forward_by_up_to_the_distance():
    """Against the definition: place of file i's crops lies in [i, i + distance] files."""
    files, crops, distance = 40, 25, 3.0
    listed = np.random.default_rng([7, 0]).permutation(files)
    rank_of_file = np.argsort(listed)
    order = Order(local=True, distance=distance, seed=7).everything(0, files, crops)
    place = np.arange(files * crops) / crops
    moved = (place - rank_of_file[order // crops]) % files
    # places are ranks of keys, so they fluctuate by a file or so around the keys
    assert np.mean((moved < distance + 1.5) | (moved > files - 1.5)) == 1.0
    assert 1.0 < np.median(moved[moved < files / 2]) < 2.2


def test_with_local_order_a_process_reads_its_share_of_the_files():
    world, files, crops = 4, 32, 20
    order = Order(local=True, distance=1)
    for rank in range(world):
        mine = order.samples(5, files, crops, Share(rank, world)) // crops
        assert len(set(mine.tolist())) <= files // world + 2


def test_impossible_shares_and_distances_are_refused():
    with pytest.raises(RecipeError, match="rank 2"):
        Share(2, 2)
    with pytest.raises(RecipeError, match="distance"):
        Order(distance=-1)
