"""Tiles cover once, start on multiples, and give what the whole field gives."""

import threading
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from map2map.errors import GeometryError
from map2map.footprints import Footprint, footprint_of
from map2map.grids import Grid
from map2map.models import ConvNet, UNet
from map2map.tiling import Tile, Tiling, best_size, overlapping, reached, take
from map2map.windows import Window, round_up


class Upsampled(nn.Module):
    """Two valid convolutions after repeating each cell: twice as many cells out as in."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.convs = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Conv2d(3, 3, 3))
        self.footprint = Footprint(margin=1, scale=2, cut=2)

    def forward(self, x):
        return self.convs(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Same(nn.Module):
    """Convolutions that pad with zeros, and one level of pooling."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.low, self.last = (
            nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(8, 3, 3, padding=1),
        )  # fmt: skip
        self.footprint = Footprint(margin=6, multiple=2, cut=0)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        low = torch.tanh(self.low(nn.functional.avg_pool2d(x, 2)))
        up = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.last(torch.cat([x, up], 1))


def models():
    torch.manual_seed(0)
    return {
        "convnet": ConvNet(2, 3, ndim=2, width=4, depth=3),
        "unet": UNet(2, 3, ndim=2, width=4, depth=2),
        "upsampled": Upsampled(),
        "same": Same(),
    }


def tiled(model, field, grid, size):
    """What the tiles give, in float64; NaN where nothing is written."""
    tiling = Tiling(grid, model.footprint, size)
    out = np.full((3, *tiling.shape), np.nan)
    for i in range(len(tiling)):
        tile = tiling[i]
        x = np.empty((len(field), *tile.read.shape))
        take(field, tile.read, tiling.grid, x)
        with torch.no_grad():
            y = model(torch.from_numpy(x)[None])[0].numpy()
        where = tuple(slice(a, b) for a, b in zip(tile.target.start, tile.target.stop, strict=True))
        assert np.isnan(out[(slice(None), *where)]).all(), "written twice"
        out[(slice(None), *where)] = y[(slice(None), *tile.kept)]
    return out


def far_whole(model, field, mode, shape, scale):
    """One call on the field with so much around it that no edge is seen, from numpy's pad."""
    low, accepts = 48, model.footprint.accepts
    sizes = [next(size for size in range(n + 104, n + 113) if accepts(size)) for n in shape]
    around = [(low, size - low - n) for size, n in zip(sizes, shape, strict=True)]
    x = np.pad(field, [(0, 0), *around], mode=mode)
    with torch.no_grad():
        y = model(torch.from_numpy(x)[None])[0].numpy()
    cut = model.footprint.cut
    first = scale * low - cut
    return y[(slice(None), *(slice(first, first + scale * n) for n in shape))]


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize(
    ("mode", "grid"),
    [
        ("wrap", {"periodic": True}),
        ("reflect", {"periodic": False, "pad": "reflect"}),
        ("edge", {"periodic": False, "pad": "edge"}),
        ("constant", {"periodic": False, "pad": "zero"}),
    ],
)
def test_tiles_give_what_the_whole_field_gives(name, mode, grid):
    model = models()[name].double().eval()
    shape, scale = (34, 50), model.footprint.scale
    field = np.random.default_rng(0).normal(size=(2, *shape))
    whole = far_whole(model, field, mode, shape, scale)
    for size in ((34, 50), (8, 12), (20, 4), (12, 50)):
        found = tiled(model, field, Grid(shape, **grid), size)
        np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", models())
def test_where_nothing_is_made_up_the_valid_interior_is_left(name):
    """What a change of all that lies beyond the edges does not change, and all of it."""
    model = models()[name].double().eval()
    f, shape = model.footprint, (45, 51)
    field = np.random.default_rng(0).normal(size=(2, *shape))
    wholes = [far_whole(model, field, mode, shape, f.scale) for mode in ("wrap", "reflect", "edge")]
    low = -(-f.margin // f.multiple) * f.multiple if f.cut == 0 else f.margin
    if (low * f.scale) % f.multiple:
        pytest.skip("the reference has another phase")
    blocks = [(n - f.margin - low) // f.multiple for n in shape]
    inner = tuple(slice(f.scale * low, f.scale * (low + f.multiple * b)) for b in blocks)
    for size in (None, (8, 12)):
        found = tiled(model, field, Grid(shape, periodic=False), size)
        for whole in wholes:
            np.testing.assert_allclose(found, whole[(slice(None), *inner)], rtol=1e-9, atol=1e-9)
    if f.multiple == 1:
        # one cell more on any side would see beyond
        wider = tuple(slice(s.start - 1, s.stop + 1) for s in inner)
        differ = np.abs(wholes[0] - wholes[1])[(slice(None), *wider)].max(axis=0)
        assert differ[0].max() > 1e-6
        assert differ[:, -1].max() > 1e-6


def test_rings_are_closed_only_where_nothing_is_left_over():
    footprint = Footprint(margin=20, multiple=4, ring=2)
    for shape, periodic, size, rings in [
        ((48, 64), True, None, (0, 1)),
        ((48, 64), True, (16, 64), (1,)),
        ((48, 66), True, None, (0,)),  # 66 cells do not pool by 4
        ((40, 64), True, None, (1,)),  # 40 cells are fewer than the model takes
        ((48, 64), (False, True), None, (1,)),
    ]:
        tiling = Tiling(Grid(shape, periodic=periodic, pad="edge"), footprint, size, rings=True)
        assert tiling.rings == rings
        assert not Tiling(Grid(shape, periodic=periodic, pad="edge"), footprint, size).rings
        for axis in rings:
            assert tiling[0].read.shape[axis] == tiling.largest_read[axis] == shape[axis]
    other = Footprint(margin=20, multiple=4)
    assert not Tiling(Grid((48, 64)), other, rings=True).rings
    # a ring reads less, so it is chosen where it fits
    assert best_size(Grid((64, 64)), footprint, 64 * 64, rings=True) == (64, 64)
    assert best_size(Grid((64, 64)), footprint, 64 * 64) != (64, 64)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    multiple=st.sampled_from([1, 2, 4]),
    most=st.integers(30, 40_000),
)
def test_the_best_tiles_fit_start_on_multiples_and_cover_once(shape, multiple, most):
    footprint, grid = Footprint(margin=2, multiple=multiple), Grid(tuple(shape))
    smallest = np.prod([footprint.input_size(min(multiple, n)) for n in shape])
    if smallest > most:
        with pytest.raises(GeometryError, match="smallest tile reads"):
            best_size(grid, footprint, most)
        return
    tiling = Tiling(grid, footprint, best_size(grid, footprint, most))
    covered = np.zeros(shape, int)
    for i in range(len(tiling)):
        tile = tiling[i]
        assert np.prod(tile.read.shape) <= most
        assert all(a % multiple == 0 for a in tile.cells.start)
        covered[
            tuple(slice(a, b) for a, b in zip(tile.target.start, tile.target.stop, strict=True))
        ] += 1
    assert (covered == 1).all()
    assert np.prod(tiling.largest_read) <= most


def test_the_best_tiles_read_no_more_than_any_others():
    footprint, grid, most = Footprint(margin=3, multiple=2), Grid((20, 26)), 400

    def cost(size):
        tiling = Tiling(grid, footprint, size)
        reads = [np.prod(tiling[i].read.shape) for i in range(len(tiling))]
        return sum(reads) if max(reads) <= most else np.inf

    every = [cost((a, b)) for a, b in product(range(2, 21, 2), range(2, 27, 2))]
    assert cost(best_size(grid, footprint, most)) == min(every)


@pytest.mark.parametrize("name", models())
def test_a_mark_reaches_the_outputs_that_a_nan_reaches(name):
    """What the footprint tells is all that a NaN spoils, and of exact footprints no more."""
    model = models()[name].double().eval()
    tiling = Tiling(Grid((24, 28)), model.footprint, (12, 16))
    rng = np.random.default_rng(0)
    for i in range(len(tiling)):
        tile = tiling[i]
        # one or a few in a corner, so that some outputs are out of reach
        corner = tuple(slice(0, n // 3) for n in tile.read.shape)
        marked = np.zeros(tile.read.shape, bool)
        marked[corner] = rng.random(marked[corner].shape) < 0.01
        marked[tuple(rng.integers(0, 6, 2))] = True
        x = rng.normal(size=(2, *tile.read.shape))
        x[1, marked] = np.nan
        with torch.no_grad():
            y = model(torch.from_numpy(x)[None])[0].numpy()
        spoilt = np.isnan(y[(slice(None), *tile.kept)]).any(axis=0)
        told = reached(marked, tile, model.footprint)
        assert told.shape == tile.target.shape
        assert (told | ~spoilt).all()
        if name == "convnet":
            np.testing.assert_array_equal(told, spoilt)
        assert name == "unet" or not told.all()
    assert told.any()


def test_a_model_that_sees_everything_is_not_tiled():
    everywhere = Footprint(margin=0, cut=0, whole="mean over space")
    with pytest.raises(GeometryError, match="mean over space"):
        Tiling(Grid((8, 8)), everywhere, (4, 8))
    assert best_size(Grid((8, 8)), everywhere) == (8, 8)
    with pytest.raises(GeometryError, match="needs all 8 x 8 cells at once"):
        best_size(Grid((8, 8)), everywhere, 10)
    with pytest.raises(GeometryError, match="nothing can be added to 9 cells"):
        Tiling(Grid((9, 8)), Footprint(0, 2, cut=0, whole="mean over space"))


def test_tiles_off_the_multiples_and_fields_below_the_footprint_are_refused():
    footprint = Footprint(margin=4, multiple=4)
    with pytest.raises(GeometryError, match="multiples of 4; the nearest is 8"):
        Tiling(Grid((20,)), footprint, (6,))
    with pytest.raises(GeometryError, match="at least 12 cells, or say what to make up"):
        Tiling(Grid((8,), periodic=False), footprint)
    with pytest.raises(IndexError):
        Tiling(Grid((20,)), footprint)[1]


def test_the_next_tile_is_read_and_the_last_written_while_one_is_computed():
    """Each stage waits for another to have begun, which only helps if they overlap."""
    begun = {(what, i): threading.Event() for what in ("read", "write") for i in range(4)}
    window = Window((0,), (1,))
    tiles = [Tile(i, window, window, (), window) for i in range(4)]
    order = []

    def read(tile):
        begun["read", tile.index].set()
        return tile.index

    def compute(tile, value):
        assert value == tile.index
        if tile.index < 3:
            assert begun["read", tile.index + 1].wait(10)
        if tile.index > 0:
            assert begun["write", tile.index - 1].wait(10)
        order.append(tile.index)
        return value * 10

    def write(tile, value):
        begun["write", tile.index].set()
        order.append(value)

    overlapping(tiles, read, compute, write)
    assert sorted(order) == [0, 0, 1, 2, 3, 10, 20, 30]


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_what_goes_wrong_in_a_thread_reaches_the_caller(stage):
    window = Window((0,), (1,))

    def step(name):
        def run(*_):
            if name == stage:
                raise OSError(f"{name} failed")

        return run

    tiles = [Tile(i, window, window, (), window) for i in range(3)]
    with pytest.raises(OSError, match=f"{stage} failed"):
        overlapping(tiles, step("read"), step("compute"), step("write"))


class Pads(nn.Module):
    """Pads by itself; pools ``2**depth`` cells together."""

    def __init__(self, ndim, depth=0):
        super().__init__()
        torch.manual_seed(0)
        conv, pool = getattr(nn, f"Conv{ndim}d"), getattr(nn, f"AvgPool{ndim}d")
        around = [conv(1, 3, 3, padding=1), nn.Tanh(), conv(3, 1, 5, padding=2)]
        levels = [pool(2), conv(1, 1, 3, padding=1), nn.Upsample(scale_factor=2)] * bool(depth)
        self.layers = nn.Sequential(*around, *levels)

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    ("shape", "depth"), [((21,), 0), ((19, 30), 0), ((19, 30), 1), ((9, 8, 10), 1)]
)
def test_a_network_that_pads_by_itself_gets_the_edges_of_the_field(shape, depth):
    ndim = len(shape)
    model = Pads(ndim, depth).double()
    footprint = footprint_of(model, 1, ndim)
    assert footprint.cut == 0
    grid = Grid(shape, periodic=False, pad="model")
    field = np.random.default_rng(0).normal(size=(1, *shape))
    # the whole field, filled up with zeros at its end to sizes that the network takes
    fill = [(0, 0)] + [(0, -n % footprint.multiple) for n in shape]
    with torch.no_grad():
        whole = model(torch.from_numpy(np.pad(field, fill))[None])[0].numpy()
    whole = whole[(slice(None), *(slice(0, n) for n in shape))]
    step = footprint.multiple
    for size in (
        shape,
        (4 * step,) * ndim,
        tuple(round_up(3 + axis, step) for axis in range(ndim)),
    ):
        size = tuple(min(n, m) for n, m in zip(size, shape, strict=True))
        tiling = Tiling(grid, footprint, size)
        assert tiling.shape == shape
        found = np.full((1, *shape), np.nan)
        for tile in (tiling[i] for i in range(len(tiling))):
            read = np.empty((1, *tile.read.shape))
            take(field, tile.read, tiling.grid, read)
            with torch.no_grad():
                made = model(torch.from_numpy(read)[None])[0].numpy()
            found[(slice(None), *tile.target.slices)] = made[(slice(None), *tile.kept)]
        np.testing.assert_allclose(found, whole, atol=1e-12)


def test_the_pad_is_left_to_a_network_only_if_it_pads():
    with pytest.raises(GeometryError, match="this one pads nothing: it cuts off 3 cells"):
        Tiling(Grid((9, 9), periodic=False, pad="model"), Footprint(3))
    # on periodic axes it does not matter
    Tiling(Grid((9, 9), periodic=True, pad="model"), Footprint(3))
