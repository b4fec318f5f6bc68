"""Noise: numbers that belong to cells."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from map2map.errors import RecipeError
from map2map.grids import Grid
from map2map.noise import (
    Noise,
    Place,
    drawing,
    draws_noise,
    mixed,
    normal,
    normal_numbers,
    placed,
)

MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    """The reference: Python's whole numbers, cut to 64 bits."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def whole(shape: tuple[int, ...], **options: int) -> torch.Tensor:
    return normal_numbers([torch.arange(n) for n in shape], **options)


@pytest.mark.parametrize("x", [0, 1, -1, 12345678901234567, -(2**63)])
def test_the_hash_is_that_of_whole_numbers_of_64_bits(x):
    assert int(mixed(torch.tensor(x))) & MASK == splitmix(x & MASK)


def test_first_number_of_splitmix64_with_seed_zero_is_the_published_one():
    assert int(mixed(torch.tensor(0))) & MASK == 0xE220A8397B1DCDAF


def test_the_smallest_and_the_largest_words_are_finite_numbers_far_out_and_alike():
    low, high = normal(torch.tensor([0, -1]))
    assert low == -high
    assert float(high) == pytest.approx(stats.norm.isf(2.0**-53), rel=1e-12)


def test_numbers_are_standard_normal():
    numbers = whole((64, 64, 32)).numpy().ravel()
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert np.isfinite(numbers).all()


def test_neighbors_channels_seeds_and_streams_are_independent():
    first = whole((256, 256))[0]
    others = {
        "rows": first.roll(1, 0),
        "columns": first.roll(1, 1),
        "transposed": first.T,
        "channel": whole((256, 256), channels=2)[1],
        "seed": whole((256, 256), seed=1)[0],
        "stream": whole((256, 256), stream=1)[0],
        "seed against stream": whole((256, 256), seed=1, stream=0)[0],
    }
    for name, other in others.items():
        correlation = np.corrcoef(first.numpy().ravel(), other.numpy().ravel())[0, 1]
        assert abs(correlation) < 4 / 256, name
    power = torch.fft.fft2(first).abs().square() / first.numel()
    # exponentially distributed: mean 1, and no wave stands out
    assert power.flatten()[1:].mean() == pytest.approx(1, abs=0.02)
    assert power.max() < 25


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("scale", "cut"), [(1, 0), (1, 3), (2, 5)])
def test_a_window_has_the_numbers_of_the_whole_field(ndim, scale, cut):
    noise = Noise(scale, cut, stream=7, channels=2)
    shape = (12, 10, 8)[:ndim]
    field = whole(tuple(scale * n for n in shape), channels=2, stream=7, seed=3)
    start = (-2, 4, 5)[:ndim]
    x = torch.zeros(1, 4, *(9,) * ndim, dtype=torch.float64)
    with placed(noise, Place(start, shape, (True,) * ndim, seed=3)):
        found = noise(x)[0]
    for axis in range(ndim):
        # naively: every cell for itself
        wanted = [(scale * start[axis] + cut + i) % (scale * shape[axis]) for i in range(9)]
        field = field.index_select(1 + axis, torch.tensor(wanted))
    torch.testing.assert_close(found, field, rtol=0, atol=0)


def test_a_place_within_a_grid_tells_what_the_grid_knows():
    grid = Grid((4, 6, 5), periodic=(True, False, True), pad="edge")
    expected = Place((-2, 0, 3), (4, 6, 5), (True, False, True), 9)
    assert Place.within(grid, (-2, 0, 3), 9) == expected
    assert Place.within(grid, (-2, 0, 3)) == replace(expected, seed=0)


def test_beyond_an_edge_that_is_not_periodic_numbers_are_new():
    noise, x = Noise(), torch.zeros(1, 1, 12)
    with placed(noise, Place((-4,), (4,), (False,))):
        numbers = noise(x).ravel()
    assert len(numbers.unique()) == 12


def test_without_a_place_pytorch_draws():
    noise, x = Noise(channels=3), torch.zeros(2, 1, 5)
    torch.manual_seed(0)
    expected = torch.randn(2, 3, 5)
    torch.manual_seed(0)
    torch.testing.assert_close(noise(x), expected, rtol=0, atol=0)


def test_numbers_of_a_key_are_its_own_and_those_of_the_caller_go_on():
    noise, x = Noise(), torch.zeros(1, 1, 50)

    def drawn(*key):
        with drawing(torch.device("cpu"), *key):
            return noise(x), torch.rand(50)

    torch.manual_seed(0)
    expected = torch.randn(5)
    torch.manual_seed(0)
    first = drawn(0, "train", 0, 1, 2)
    assert torch.equal(torch.randn(5), expected)
    assert all(map(torch.equal, first, drawn(0, "train", 0, 1, 2)))
    keys = [
        (1, "train", 0, 1, 2),
        (0, "val", 0, 1, 2),
        (0, "train", 1, 1, 2),
        (0, "train", 0, 2, 1),
    ]
    for key in keys:
        for one, other in zip(first, drawn(*key), strict=True):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.5


def test_places_hold_within_the_context_only_and_for_all_layers():
    net = nn.Sequential(nn.Identity(), nn.Sequential(Noise(), Noise(stream=1)))
    place = Place((0,), (4,), (True,))
    layers = [part for part in net.modules() if isinstance(part, Noise)]

    def broken() -> None:
        with placed(net, place):
            assert [layer.place for layer in layers] == [place] * 2
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert [layer.place for layer in layers] == [None] * 2
    assert draws_noise(net)
    assert not draws_noise(nn.Identity())


def test_numbers_keep_the_type_of_the_field():
    noise = Noise()
    with placed(noise, Place((0,), (4,), (True,))):
        assert noise(torch.zeros(1, 1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_nonsense_is_refused():
    with pytest.raises(RecipeError, match="scale"):
        Noise(scale=0)
