"""The laws of every model: they are the definition of a model."""

import inspect
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import map2map.models
from map2map.engine import Engine, Running
from map2map.errors import GeometryError
from map2map.footprints import Footprint, measure
from map2map.grids import Grid
from map2map.models import Profile
from map2map.models.graph_nets import GraphNetwork
from map2map.specs import describe
from map2map.tiling import Tiling, reached, take

ONE_GRID = {
    "Pangu": {"shape": (7, 12), "levels": 3, "surface": 1, "patch": (2, 2, 2), "width": 12,
              "window": (2, 2, 4), "depths": (1, 2, 1, 2)},
}  # fmt: skip
"""Models whose weights belong to one grid, and what makes a small one of 9 to 7 channels."""

OF_RADIATION = ("ColumnFluxes",)
"""Models whose channels have meanings of their own; see test_column_fluxes.py."""

JUDGES = ("PatchGAN42", "SRDiscriminator")
"""Discriminators that are no models of emulators, for they give fewer scores than cells; see
test_critics.py and test_sr_models.py."""

DRAWING = ("FlowMatching",)
"""Models that draw random numbers; see test_flow_matching.py."""

OF_OTHERS = ("NeuralOperator",)
"""Models that need a package that is not ours; see test_neural_operator.py."""

ELSEWHERE = (*ONE_GRID, *OF_RADIATION, *JUDGES, *DRAWING, *OF_OTHERS)
NAMES = [n for n in map2map.models.__all__ if n not in ELSEWHERE]
REDUCING = [n for n in NAMES if "Numbers that come out" in getattr(map2map.models, n).__doc__]
GRAPHS = [n for n in NAMES if issubclass(getattr(map2map.models, n), GraphNetwork)]
EVERY = [(name, ndim) for name in NAMES if name not in REDUCING for ndim in (1, 2, 3)]
REDUCING_HEADS = [(n, head) for n in REDUCING for head in ("flatten", "pool") if n != "ResNet"]
REDUCING_HEADS += [("ResNet", "its own")]


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny, and threads that wait for each other slow them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(name, ndim, in_chan=2, out_chan=3, **wanted):
    """A small instance, with statistics of batches as if it had been trained."""
    torch.manual_seed(0)
    kind = getattr(map2map.models, name)
    known = inspect.signature(kind).parameters
    wanted["width"] = 4
    # in 3-D, four sizes of cells would need a hundred cells on every axis to see all of the margin
    if name in REDUCING or ndim == 3:
        wanted["levels"] = 2
    # channels as the lowest of 8 levels, which are enough for any U-Net
    if name == "StyledVNet":
        wanted["depth"] = 1 if ndim == 3 else 2
    wanted["inputs"], wanted["outputs"] = ([Profile(n, above=8 - n)] for n in (in_chan, out_chan))
    wanted["heads"] = 2
    # both halves of a spectrum, and sizes that have not all of it
    wanted["modes"] = 3
    # the smallest that fit
    wanted["size"] = 16 if "levels" in known else 64
    if name == "SRGenerator":
        # what is drawn at random is in test_sr_models.py
        wanted |= {"chan_base": 8, "chan_min": 4, "scale_factor": 2, "noise": False}
    if name in GRAPHS or name == "ColumnGAT":
        pytest.importorskip("torch_geometric", reason="needs the extra `graph`")
        wanted |= {"heads": 2, "dropout": 0.0}
    options = {key: value for key, value in wanted.items() if key in known}
    model = kind(in_chan, out_chan, ndim=ndim, **options)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


def noise(ndim, size, in_chan=2, dtype=torch.float32, batch=1):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(batch, in_chan, *[size] * ndim))).to(dtype)


@pytest.mark.parametrize(("name", "ndim"), EVERY)
class TestEveryModelOnEveryGrid:
    def test_it_sees_exactly_its_footprint(self, name, ndim):
        model = small(name, ndim)
        assert isinstance(model.footprint, Footprint)
        measured = measure(model, 2, ndim)
        if model.footprint.whole is not None:
            # the causes may be told in other words
            assert measured.whole is not None
            measured = replace(measured, whole=model.footprint.whole)
        assert measured == model.footprint

    def test_tiles_give_what_the_whole_periodic_field_gives(self, name, ndim):
        model = small(name, ndim).double().eval()
        f = model.footprint
        if f.whole is not None:
            pytest.skip(f"{name} is not tiled: {f.whole}")
        n, scale = {1: 40, 2: 24, 3: 8}[ndim] // f.multiple * f.multiple, f.scale
        field = noise(ndim, n, dtype=torch.float64)[0].numpy()
        # the reference does not go through halos: as many copies as are needed, one model call
        # the phase of the levels is that of a field that begins so many cells before the first
        low = -(-f.margin // f.multiple) * f.multiple + f.low % f.multiple
        high = next(h for h in range(f.margin, 9999) if f.accepts(low + n + h))
        wrapped = np.pad(field, [(0, 0), *[(low, high)] * ndim], mode="wrap")
        with torch.no_grad():
            whole = model(torch.from_numpy(wrapped)[None])[0]
        first = slice(low * scale - f.cut, (low + n) * scale - f.cut)
        whole = whole[(slice(None), *[first] * ndim)]

        for tile in {1: (4, 12, 16), 2: (12, 16), 3: (4,)}[ndim]:
            tile = -(-tile // f.multiple) * f.multiple
            stitched = torch.full_like(whole, torch.nan)
            for start in product(range(0, n, tile), repeat=ndim):
                crop = tuple(min(tile, n - a) for a in start)
                halo = f.halo_for(crop)
                cells = [
                    np.arange(a - lo, a + c + hi) % n
                    for a, c, lo, hi in zip(start, crop, halo.low, halo.high, strict=True)
                ]
                read = torch.from_numpy(field[np.ix_(range(2), *cells)])[None]
                box = tuple(
                    slice(scale * a, scale * (a + c)) for a, c in zip(start, crop, strict=True)
                )
                with torch.no_grad():
                    stitched[(slice(None), *box)] = model(read)[(0, slice(None), *f.kept(crop))]
            torch.testing.assert_close(stitched, whole, rtol=1e-10, atol=1e-10)

    def test_rings_give_what_the_whole_periodic_field_gives(self, name, ndim):
        """If its footprint says that axes can be closed into rings."""
        model = small(name, ndim).double().eval()
        f = model.footprint
        if f.ring is None:
            pytest.skip(f"{name} does not say that it can be closed into rings")
        n = f.fitting(f.minimum + (f.multiple if ndim < 3 else 0))
        n += -n % f.multiple
        shape = (n, n + f.multiple, n)[:ndim]
        field = np.random.default_rng(0).normal(size=(2, *shape))
        around = [(f.low, next(h for h in range(f.margin, 999) if f.accepts(f.low + m + h)))
                  for m in shape]  # fmt: skip
        with torch.no_grad():
            wide = np.pad(field, [(0, 0), *around], mode="wrap")
            whole = model(torch.from_numpy(wide)[None])[0]
            whole = whole[(slice(None), *f.kept(shape))].numpy()
        engine = Engine(model, f, ndim, Running("fp64"), allow_nonfinite=True)
        sizes = [shape, (f.multiple, *shape[1:]), (*shape[:-1], 2 * f.multiple)]
        for size in sizes[: 1 if ndim == 1 else 3]:
            tiling = Tiling(Grid(shape), f, size, rings=True)
            assert tiling.rings == tuple(i for i, m in enumerate(size) if m == shape[i])
            out = np.full(whole.shape, np.nan)
            # a few tiles are enough in 3-D
            for i in range(min(len(tiling), 3)):
                tile = tiling[i]
                x = np.empty((2, *tile.read.shape))
                take(field, tile.read, tiling.grid, x)
                out[(slice(None), *tile.target.slices)] = engine(tile, x)
            done = np.isfinite(out)
            assert done.any()
            np.testing.assert_allclose(out[done], whole[done], rtol=1e-9, atol=1e-9)

    def test_a_nan_on_a_ring_reaches_around_it(self, name, ndim):
        model = small(name, ndim).eval()
        f = model.footprint
        if f.ring is None:
            pytest.skip(f"{name} does not say that it can be closed into rings")
        n = f.fitting(max(f.minimum, 2 * f.margin + 3 * f.multiple))
        shape = (n + -n % f.multiple, *(f.multiple,) * (ndim - 1))
        marked = np.zeros(shape, bool)
        marked[(1,) * ndim if f.multiple > 1 else (1, *(0,) * (ndim - 1))] = True
        found = []
        for rings in (True, False):
            tiling = Tiling(Grid(shape), f, rings=rings)
            read = np.empty((1, *tiling[0].read.shape))
            take(marked[None].astype(float), tiling[0].read, tiling.grid, read)
            found.append(reached(read[0] > 0, tiling[0], f))
        assert tiling.rings == ()
        np.testing.assert_array_equal(*found)
        assert found[0][-1].any(), "around the edge"
        assert not found[0].all()

    def test_it_moves_with_its_input(self, name, ndim):
        model = small(name, ndim).double().eval()
        f = model.footprint
        if f.cut == 0 or f.whole is not None:
            pytest.skip(f"{name} makes up values at the edges, or knows them")
        size, step = f.minimum + 2 * f.multiple, f.multiple
        x = noise(ndim, size + step, dtype=torch.float64)
        with torch.no_grad():
            for axis in range(2, ndim + 2):
                here, there = model(cube(x, axis, 0, size)), model(cube(x, axis, step, size))
                moved = there.narrow(axis, 0, there.shape[axis] - f.scale * step)
                still = here.narrow(axis, f.scale * step, moved.shape[axis])
                torch.testing.assert_close(moved, still, rtol=1e-10, atol=1e-10)

    def test_one_step_lowers_the_loss(self, name, ndim):
        model = small(name, ndim)
        x = noise(ndim, model.footprint.fitting(model.footprint.minimum + 1), batch=2)
        target = torch.randn_like(model(x))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = torch.nn.functional.mse_loss(model(x), target)
        before.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        assert torch.nn.functional.mse_loss(model(x), target) < before

    def test_it_refuses_sizes_and_ranks_that_do_not_fit(self, name, ndim):
        model = small(name, ndim)
        f = model.footprint
        for size in (f.minimum - 1, f.minimum + 1):
            if size > 0 and not f.accepts(size):
                with pytest.raises(GeometryError, match=f"{name} cannot take {size} cells"):
                    model(noise(ndim, size))
        with pytest.raises(GeometryError, match=f"{name} takes"):
            model(torch.zeros(2, *[f.minimum] * ndim))

    def test_bf16_and_channels_last_change_little(self, name, ndim):
        model = small(name, ndim).eval()
        # a model that pads takes a single cell, which would see zeros almost only
        x = noise(ndim, model.footprint.fitting(max(model.footprint.minimum, 9)))
        with torch.no_grad():
            expected = model(x)
            layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim)
            if layout:
                model, x = model.to(memory_format=layout), x.to(memory_format=layout)
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = model(x).float()
        assert (low - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("name", "head"), REDUCING_HEADS)
class TestEveryModelThatReduces:
    def test_its_footprint_says_so_as_measured(self, name, head, ndim):
        model = small(name, ndim, head=head)
        stated, measured = model.footprint, measure(model, 2, ndim)
        assert stated.reduces
        assert stated.whole is not None
        assert measured.whole is not None
        assert replace(measured, whole=stated.whole) == stated

    def test_it_is_not_tiled(self, name, head, ndim):
        f = small(name, ndim, head=head).footprint
        for grid in (Grid((f.minimum,) * ndim), Grid((2 * f.minimum,) * ndim)):
            with pytest.raises(GeometryError, match="numbers for the whole input, not a field"):
                Tiling(grid, f)
        with pytest.raises(GeometryError, match="Net cannot be tiled exactly"):
            f.require_local("Net")
        assert f.halo_for((7,) * ndim).low == f.halo_for((7,) * ndim).high == (0,) * ndim

    def test_it_gives_numbers_of_every_image(self, name, head, ndim):
        model = small(name, ndim, head=head)
        x = noise(ndim, model.footprint.minimum, batch=4)
        for layer in model.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.momentum = 1.0
        model.train()(x)  # new networks damp what they get, unless statistics fit it
        y = model.eval()(x)
        assert y.shape == (4, 3)
        assert not torch.allclose(y[0], y[1], rtol=1e-3)
        # every cell counts
        for cell in (0, -1):
            moved = x.clone()
            moved[(slice(None), slice(None), *[cell] * ndim)] += 9
            assert (model(moved) - y).abs().max() > 1e-6

    def test_one_step_lowers_the_loss(self, name, head, ndim):
        model = small(name, ndim, head=head)
        x = noise(ndim, model.footprint.minimum, batch=4)
        target = torch.randn_like(model(x))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = torch.nn.functional.mse_loss(model(x), target)
        before.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
        optimizer.step()
        assert torch.nn.functional.mse_loss(model(x), target) < before

    def test_it_refuses_sizes_ranks_and_batches_that_do_not_fit(self, name, head, ndim):
        model = small(name, ndim, head=head).eval()
        least = model.footprint.minimum
        odd = [
            n for n in (least - 1, least + 1, 2 * least) if n < least or model_has_one_size(model)
        ]
        for n in odd:
            with pytest.raises(GeometryError, match=f"{name} cannot take {n} cells.*{least}"):
                model(noise(ndim, least).repeat_interleave(2, -1)[..., :n])
        with pytest.raises(GeometryError, match=f"{name} takes"):
            model(torch.zeros(2, *[least] * ndim))
        with pytest.raises(GeometryError, match=f"{name} got a training batch of one image"):
            model.train()(noise(ndim, least))

    def test_bf16_and_channels_last_change_little(self, name, head, ndim):
        model = small(name, ndim, head=head).eval()
        x = noise(ndim, model.footprint.minimum, batch=4)
        with torch.no_grad():
            expected = model(x)
            layout = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim)
            if layout:
                model, x = model.to(memory_format=layout), x.to(memory_format=layout)
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = model(x).float()
        assert (low - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


@pytest.mark.parametrize(("name", "head"), REDUCING_HEADS)
def test_models_that_reduce_can_fit_negative_and_positive_targets(name, head):
    model = small(name, 1, head=head)
    x = noise(1, model.footprint.minimum, batch=6)
    target = torch.tensor([[-2.0, 2, 2], [2, -2, -2]]).repeat(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        loss = torch.nn.functional.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.8


def model_has_one_size(model):
    return getattr(model, "head", "pool") == "flatten"


def cube(x, axis, start, size):
    """``size`` cells on every axis, from ``start`` on one and from 0 on the others."""
    for other in range(2, x.ndim):
        x = x.narrow(other, start if other == axis else 0, size)
    return x


def small_of_one_grid(name, **options):
    torch.manual_seed(0)
    return getattr(map2map.models, name)(9, 7, **(ONE_GRID[name] | options))


def fields_of(model, batch=1, dtype=torch.float32):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(batch, model.in_chan, *model.shape))).to(dtype)


@pytest.mark.parametrize("name", ONE_GRID)
class TestEveryModelOfOneGrid:
    def test_its_arguments_are_its_attributes(self, name):
        model = small_of_one_grid(name)
        parameters = inspect.signature(type(model)).parameters
        assert list(parameters)[:2] == ["in_chan", "out_chan"]
        assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[2:])
        card = json.loads(json.dumps(describe(model)["init_args"]))
        assert {k: card[k] for k in ("in_chan", "out_chan", "ndim")} == {
            "in_chan": 9, "out_chan": 7, "ndim": 2
        }  # fmt: skip
        changed = {k: list(v) if isinstance(v, tuple) else v for k, v in ONE_GRID[name].items()}
        assert {k: card[k] for k in changed} == changed
        again = type(model)(**card).eval()
        again.load_state_dict(model.state_dict())
        x = fields_of(model)
        assert torch.equal(again(x), model.eval()(x))

    def test_it_sees_the_whole_and_says_so(self, name):
        model = small_of_one_grid(name).double().eval()
        f = model.footprint
        assert f.whole is not None
        assert f.sizes == model.shape
        x = fields_of(model, dtype=torch.float64)
        moved = x.clone()
        moved[..., 3, 5] += 1
        with torch.no_grad():
            change = (model(moved) - model(x)).abs().amax(dim=(0, 1))
        assert (change > 0).all()

    def test_it_is_applied_at_once_and_to_no_other_grid(self, name):
        f = small_of_one_grid(name).footprint
        grid = Grid(f.sizes, periodic=(False, True))
        assert len(Tiling(grid, f)) == 1
        assert Tiling(grid, f)[0].read.shape == f.sizes
        with pytest.raises(GeometryError, match="cannot be tiled exactly"):
            Tiling(grid, f, (f.sizes[0], f.sizes[1] // 2))
        for shape in (f.sizes[::-1], (f.sizes[0] + 1, f.sizes[1])):
            with pytest.raises(GeometryError, match=r"weights are those of one grid.*7 x 12"):
                Tiling(Grid(shape), f)
            with pytest.raises(GeometryError, match=f"{name} cannot take .* 7 x 12 cells only"):
                small_of_one_grid(name)(torch.zeros(1, 9, *shape))

    def test_the_memory_that_it_takes_is_that_of_its_grid(self, name):
        model = small_of_one_grid(name).eval()
        engine = Engine(model, model.footprint, 2, Running())
        cells = int(np.prod(model.shape))
        assert engine.most_cells(9, 7, 1 << 30) > cells
        assert engine.most_cells(9, 7, 1 << 12) < cells
        # so little that not even a cell fits is not as much as there is
        assert engine.most_cells(9, 7, 1) == 1

    def test_one_step_lowers_the_loss(self, name):
        model = small_of_one_grid(name)
        x = fields_of(model, batch=2)
        model.eval()
        target = torch.randn_like(model(x))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        before = torch.nn.functional.mse_loss(model(x), target)
        before.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        assert torch.nn.functional.mse_loss(model(x), target) < before

    def test_it_can_fit_a_negative_target(self, name):
        model = small_of_one_grid(name)
        x = fields_of(model, batch=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(40):
            y = model(x)
            loss = torch.nn.functional.mse_loss(y, torch.full_like(y, -2.0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.8

    def test_bf16_and_channels_last_change_little(self, name):
        model = small_of_one_grid(name).eval()
        x = fields_of(model)
        with torch.no_grad():
            expected = model(x)
            model, x = (each.to(memory_format=torch.channels_last) for each in (model, x))
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = model(x).float()
        assert (low - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()

    def test_a_batch_is_what_its_members_are(self, name):
        model = small_of_one_grid(name).double().eval()
        x = fields_of(model, batch=3, dtype=torch.float64)
        kept = x.clone()
        one_by_one = torch.cat([model(sample[None]) for sample in x])
        torch.testing.assert_close(model(x), one_by_one, rtol=1e-10, atol=1e-10)
        assert torch.equal(x, kept)


@pytest.mark.parametrize("name", NAMES)
class TestEveryModel:
    def test_its_arguments_are_its_attributes(self, name):
        model = small(name, 2)
        parameters = inspect.signature(type(model)).parameters
        assert list(parameters)[:2] == ["in_chan", "out_chan"]
        assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[2:])
        assert "ndim" in parameters
        card = {key: getattr(model, key) for key in parameters}
        assert (card["in_chan"], card["out_chan"], card["ndim"]) == (2, 3, 2)
        defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
        asked = {"ndim", "width", "inputs", "outputs", "heads", "modes"}
        asked |= (
            {"chan_base", "chan_min", "scale_factor", "noise"} if name == "SRGenerator" else set()
        )
        asked |= {"levels", "size"} if name in REDUCING else set()
        asked |= {"dropout"} if name in GRAPHS else set()
        asked |= {"depth"} if name == "StyledVNet" else set()
        assert {k: card[k] for k in defaults if k not in asked} == {
            k: v for k, v in defaults.items() if k not in asked
        }
        again = type(model)(**card)
        again.load_state_dict(model.state_dict())

    def test_weights_survive_saving(self, name, tmp_path):
        model = small(name, 1).eval()
        save_file(model.state_dict(), tmp_path / "weights.safetensors")
        torch.manual_seed(1)
        other = small(name, 1).eval()
        for parameter in other.parameters():
            torch.nn.init.zeros_(parameter)
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        x = noise(1, model.footprint.minimum)
        assert torch.equal(model(x), other(x))
        assert model(x).abs().max() > 0

    @pytest.mark.parametrize("channels", [(2, 3), (2, 2)])
    def test_it_can_fit_a_negative_target(self, name, channels):
        if name in REDUCING:
            pytest.skip("fits negative and positive targets above")
        model = small(name, 1, *channels)
        x = noise(1, model.footprint.fitting(model.footprint.minimum + 20), batch=4)
        target = torch.full_like(model(x), -2.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(60):
            loss = torch.nn.functional.mse_loss(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.8

    def test_applying_changes_neither_the_input_nor_the_state(self, name):
        model = small(name, 1, 2, 2).eval()
        x = noise(1, model.footprint.minimum)
        kept, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
        model(x)
        assert torch.equal(x, kept)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    def test_a_batch_is_what_its_members_are(self, name):
        model = small(name, 1).double().eval()
        x = noise(1, model.footprint.minimum, dtype=torch.float64, batch=3)
        one_by_one = torch.cat([model(sample[None]) for sample in x])
        torch.testing.assert_close(model(x), one_by_one, rtol=1e-10, atol=1e-10)
