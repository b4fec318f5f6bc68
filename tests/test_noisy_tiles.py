"""Networks that draw random numbers: tiles, processes and runs that broke off draw the same."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from map2map.engine import Engine, Running
from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.grids import Grid
from map2map.noise import Noise, normal_numbers
from map2map.tiling import Tiling, take

compiled = torch.compile
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Noisy(nn.Module):
    """A convolution of the input and noise, and one of cells ``scale`` times as fine and theirs."""

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int, scale: int = 1) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim, self.scale = in_chan, out_chan, ndim, scale
        self.first = CONV[ndim](in_chan + 1, 3, 3)
        self.second = CONV[ndim](3 + 2, out_chan, 3)
        self.coarse, self.fine = Noise(), Noise(scale, cut=scale, stream=1, channels=2)
        self.footprint = Footprint(2, scale=scale, cut=scale + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(torch.cat([x, self.coarse(x)], 1)).tanh()
        for axis in range(2, x.ndim):
            y = y.repeat_interleave(self.scale, axis)
        return self.second(torch.cat([y, self.fine(y)], 1))


def network(ndim, scale=1):
    torch.manual_seed(0)
    return Noisy(2, 1, ndim=ndim, scale=scale).double()


def by_hand(model, field, pad, seed):
    """The whole field without any tile: numbers of all cells are drawn at once, then put around."""
    ndim, shape, scale, margin = model.ndim, field.shape[1:], model.scale, 2
    mode = {"wrap": "wrap", "edge": "edge"}[pad]
    x = torch.from_numpy(np.pad(field, [(0, 0), *[(margin, margin)] * ndim], mode=mode))[None]

    def numbers(scale, around, channels, stream):
        cells = [torch.arange(-around, scale * n + around) for n in shape]
        if pad == "wrap":
            cells = [c % (scale * n) for c, n in zip(cells, shape, strict=True)]
        return normal_numbers(cells, channels, seed=seed, stream=stream)[None]

    y = model.first(torch.cat([x, numbers(1, margin, 1, 0)], 1)).tanh()
    for axis in range(2, x.ndim):
        y = y.repeat_interleave(scale, axis)
    y = model.second(torch.cat([y, numbers(scale, scale, 2, 1)], 1))
    cut = scale - 1
    return y[0][(slice(None), *[slice(cut, y.shape[-1 - i] - cut) for i in range(ndim)][::-1])]


def tiled(model, field, grid, size, seed, **running):
    engine = Engine(model, model.footprint, model.ndim, Running("fp64", seed=seed, **running))
    tiling = Tiling(grid, model.footprint, size, rings=engine.running.rings)
    out = np.full((1, *tiling.shape), np.nan)
    for i in range(len(tiling)):
        tile = tiling[i]
        x = np.empty((len(field), *tile.read.shape))
        take(field, tile.read, tiling.grid, x)
        out[(slice(None), *tile.target.slices)] = engine(tile, x)
    return out


@pytest.mark.parametrize("pad", ["wrap", "edge"])
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_tiles_draw_what_the_whole_field_draws(ndim, scale, pad):
    model = network(ndim, scale)
    shape = (11, 8, 7)[:ndim]
    field = np.random.default_rng(0).normal(size=(2, *shape))
    grid = Grid(shape) if pad == "wrap" else Grid(shape, periodic=False, pad="edge")
    with torch.no_grad():
        expected = by_hand(model, field, pad, seed=5).numpy()
    for size in (None, *product((3, 8), repeat=ndim)):
        size = None if size is None else tuple(min(n, m) for n, m in zip(size, shape, strict=True))
        found = tiled(model, field, grid, size, 5)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    other = tiled(model, field, grid, None, 6)
    assert np.abs(other - expected).min() > 0
    assert np.corrcoef(other.ravel(), expected.ravel())[0, 1] < 0.95


def test_the_interior_of_a_field_without_edges_made_up_is_that_of_its_tiles():
    model = network(2)
    field = np.random.default_rng(0).normal(size=(2, 12, 14))
    grid = Grid((12, 14), periodic=False)
    whole = tiled(model, field, grid, None, 1)
    assert whole.shape == (1, 8, 10)
    np.testing.assert_allclose(tiled(model, field, grid, (3, 4), 1), whole, rtol=1e-12, atol=1e-12)
    # a cell has the number of its position in the field, not in what is read
    inside = by_hand(model, field, "edge", 1)[:, 2:-2, 2:-2].detach().numpy()
    np.testing.assert_allclose(whole, inside, rtol=1e-12, atol=1e-12)


def test_compiled_networks_draw_the_same_and_are_compiled_once(monkeypatch):
    model = network(1)
    field = np.random.default_rng(0).normal(size=(2, 12))
    expected = tiled(model, field, Grid((12,)), (3,), 1)
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda m, **_: compiled(m, backend=backend))
    found = tiled(model, field, Grid((12,)), (3,), 1, compile=True)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert len(made) <= 3, "one for each part between the numbers that are drawn"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(RecipeError, match=r"the seed is .*; give a number from 0"):
        Running(seed=seed)


def test_the_memory_of_numbers_that_are_drawn_is_counted():
    module = Noise(channels=4)
    module.footprint = Footprint(0)
    peak, _ = Engine(module, module.footprint, 2).needs(1, (64, 64))
    # hashes of 64 bits, and what they are made of
    assert peak > 2 * 8 * 4 * 64**2
