"""An engine gives the same numbers however it is set up, and knows what memory it takes."""

import numpy as np
import pytest
import torch
from torch import nn

from map2map.emulator import Emulator
from map2map.engine import Engine, NonFiniteError, Running, Tally, fold_batch_norms
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain, Grid
from map2map.models import ConvNet, UNet
from map2map.norms import Standardize
from map2map.tiling import Tiling


def make(model, ndim=2):
    one = FieldSet((Field("a", "K", "scalar", 2),)), FieldSet((Field("b", "m", "scalar", 3),))
    norms = {"a": Standardize([1.0, 2.0], [3.0, 4.0]), "b": Standardize([0.0] * 3, [5.0] * 3)}
    return Emulator(*one, norms, model, Domain(ndim=ndim)).eval()


def trained(model):
    """As if it had been trained: statistics of batches that matter."""
    torch.manual_seed(1)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5) if "var" in name else buffer.normal_()
    return model.eval()


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return make(trained(UNet(2, 3, ndim=2, width=8, depth=2)))


def one_tile(emulator, n=16):
    tiling = Tiling(Grid((n, n)), emulator.footprint)
    values = np.random.default_rng(0).normal(size=(2, *tiling[0].read.shape)).astype(np.float32)
    return tiling[0], values


def reference(emulator, tile, values):
    """The module itself, in float64."""
    with torch.no_grad():
        y = emulator.double()(torch.from_numpy(values).double()[None])[0].numpy()
    emulator.float()
    return y[(slice(None), *tile.kept)]


@pytest.mark.parametrize(
    ("running", "tolerance"),
    [
        (Running(), 1e-5),
        (Running(channels_last=False), 1e-5),
        (Running(channels_last=True), 1e-5),
        (Running(fold_batch_norm=True), 1e-5),
        (Running("fp64"), 1e-12),
        (Running("bf16"), 3e-2),
    ],
    ids=str,
)
def test_however_it_runs_it_gives_the_modules_numbers(unet, running, tolerance):
    tile, values = one_tile(unet)
    expected = reference(unet, tile, values)
    found = Engine(unet, unet.footprint, 2, running)(tile, values.copy())
    rms = np.sqrt((expected**2).mean())
    assert np.abs(found - expected).max() < tolerance * rms
    if running.precision == "bf16":
        # it really ran in less precision
        assert np.abs(found - expected).max() > 1e-5 * rms


@pytest.mark.parametrize("periodic", [True, False])
def test_winograds_algorithm_gives_the_same_numbers_in_other_sums(periodic):
    torch.manual_seed(0)
    emulator = make(trained(UNet(2, 3, ndim=3, width=16, depth=1)), 3)
    tiling = Tiling(Grid((16,) * 3, periodic=periodic, pad="edge"), emulator.footprint, rings=True)
    tile = tiling[0]
    values = np.random.default_rng(0).normal(size=(2, *tile.read.shape)).astype(np.float32)
    found = [
        Engine(emulator, emulator.footprint, 3, running)(tile, values.copy())
        for running in (Running("fp64"), Running(), Running(winograd=True))
    ]
    rms = np.sqrt((found[0] ** 2).mean())
    off = [np.abs(each - found[0]).max() / rms for each in found[1:]]
    assert off[0] < 3e-6
    assert off[1] < 1e-5
    assert not np.array_equal(found[1], found[2])


def test_winograds_algorithm_is_refused_where_it_would_do_nothing(unet, caplog):
    with pytest.raises(RecipeError, match="is for fp32, not bf16"):
        Running("bf16", winograd=True)
    with pytest.raises(RecipeError, match="for 3 axes, channels-last, on a CPU, not for 2 axes"):
        Engine(unet, unet.footprint, 2, Running(winograd=True))
    net = ConvNet(2, 3, ndim=3, width=4, depth=1)
    Engine(net, net.footprint, 3, Running(winograd=True)).module_for(())
    assert "no convolution is wide enough for Winograd's algorithm" in caplog.text


def test_what_is_compiled_gives_the_same_numbers(unet):
    tile, values = one_tile(unet)
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        compiled = torch.compile
        patch.setattr(
            torch, "compile", lambda m, **k: seen.append(m) or compiled(m, backend="eager")
        )
        engine = Engine(unet, unet.footprint, 2, Running(compile=True))
        found = engine(tile, values.copy())
    assert len(seen) == 1
    np.testing.assert_allclose(found, reference(unet, tile, values), rtol=1e-4, atol=1e-4)


def test_folding_removes_every_batch_norm_after_a_convolution_and_changes_nothing():
    torch.manual_seed(0)
    model = trained(nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 3, 2, stride=2), nn.BatchNorm2d(3),
    ))  # fmt: skip
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        before = model(x)
        assert fold_batch_norms(model) == 2
        after = model(x)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model) == 1
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_the_emulator_itself_is_left_alone(unet):
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    tile, values = one_tile(unet)
    Engine(unet, unet.footprint, 2, Running("fp64", fold_batch_norm=True))(tile, values)
    for name, value in unet.state_dict().items():
        assert value.dtype == before[name].dtype
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_output_is_its_own_memory(unet):
    """A view would keep all that the halo gave alive."""
    tile, values = one_tile(unet)
    output = Engine(unet, unet.footprint, 2)(tile, values)
    assert output.flags.c_contiguous
    assert output.base is None or output.base.nbytes == output.nbytes


def test_tensors_are_counted_while_they_live():
    tally = Tally()
    with tally:
        a = torch.ones(100)
        b = a + 1
        assert tally.live == 800
        view = b[:10]
        del b
        assert tally.live == 800, "the view keeps it"
        del view
        assert tally.live == 400
        a.mul_(2)
    assert tally.peak == 800
    assert tally.largest_tensor == 100


def test_memory_is_told_without_computing_and_is_what_computing_takes():
    torch.manual_seed(0)
    emulator = make(ConvNet(2, 3, ndim=2, width=16, depth=2))
    engine = Engine(emulator, emulator.footprint, 2, Running(channels_last=False))
    told, largest = engine.needs(2, (200, 200))
    tally = Tally()
    with torch.no_grad(), tally:
        x = torch.zeros(1, 2, 200, 200)
        y = emulator(x)
    # what it takes, and once more the call that touches most
    assert tally.peak <= told <= 2.5 * tally.peak
    assert largest == tally.largest_tensor == 16 * 198 * 198
    assert y.shape[-1] == 196


def test_the_memory_of_rings_is_told_without_computing_too(unet, monkeypatch):
    engine = Engine(unet, unet.footprint, 2, Running("bf16"))
    told = {}
    real = engine._forward

    def fake_only(run, x):
        told[type(x).__name__] = True
        return real(run, x)

    monkeypatch.setattr(engine, "_forward", fake_only)
    assert engine.needs(2, (64, 64), (0, 1))[0] > engine.needs(2, (64, 64))[0] > 0
    assert told == {"FakeTensor": True}


def test_a_module_that_looks_at_values_is_measured_by_running_it():
    class Looks(nn.Module):
        footprint = Footprint(1)

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return self.conv(x) * (2 if float(x.sum()) > 1e9 else 1)

    module = Looks()
    engine = Engine(module, module.footprint, 2)
    assert engine.needs(2, (10, 10))[0] > 4 * (2 * 100 + 3 * 64)


def test_tiles_that_fit_the_memory_take_no_more():
    emulator = make(ConvNet(2, 3, ndim=2, width=16, depth=2))
    engine = Engine(emulator, emulator.footprint, 2)
    for memory in (10**6, 10**7):
        side = int(engine.most_cells(2, 3, memory) ** 0.5)
        assert engine.needs(2, (side, side))[0] <= memory
        assert engine.needs(2, (4 * side, 4 * side))[0] > memory


def test_nan_is_refused_with_its_place_or_spoils_only_what_sees_it():
    emulator = make(ConvNet(2, 3, ndim=2, width=4, depth=2))
    tile, values = one_tile(emulator)
    expected = reference(emulator, tile, values)
    spoilt = values.copy()
    spoilt[1, 7, 9] = np.inf
    with pytest.raises(NonFiniteError) as caught:
        Engine(emulator, emulator.footprint, 2)(tile, spoilt.copy())
    assert (caught.value.channel, caught.value.cell, caught.value.count) == (1, (5, 7), 1)
    engine = Engine(emulator, emulator.footprint, 2, allow_nonfinite=True)
    found = engine(tile, spoilt.copy())
    seen = np.zeros((16, 16), bool)
    seen[3:8, 5:10] = True
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(seen, found.shape))
    np.testing.assert_allclose(found[:, ~seen], expected[:, ~seen], rtol=1e-4, atol=1e-4)


def test_large_values_are_not_taken_for_infinite():
    emulator = make(ConvNet(2, 3, ndim=2, width=4, depth=2))
    tile, values = one_tile(emulator)
    assert np.isfinite(Engine(emulator, emulator.footprint, 2)(tile, values * 1e25)).all()


def test_a_footprint_that_does_not_tell_the_output_is_refused():
    emulator = make(ConvNet(2, 3, ndim=2, width=4, depth=2))
    tile, values = one_tile(emulator)
    with pytest.raises(GeometryError, match="its footprint does not tell"):
        Engine(emulator, emulator.footprint, 2)(tile, values[:, :-3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean 'bf16'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_unknown_ways_of_running_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Running(**options)


def test_channels_last_is_refused_where_there_is_none():
    torch.manual_seed(0)
    emulator = make(ConvNet(2, 3, ndim=1, width=4, depth=2), ndim=1)
    with pytest.raises(RecipeError, match="2 and 3 axes, not 1"):
        Engine(emulator, emulator.footprint, 1, Running(channels_last=True))


def test_nan_in_the_halo_is_not_counted_again():
    torch.manual_seed(0)
    emulator = make(ConvNet(2, 3, ndim=2, width=4, depth=2))
    tile = Tiling(Grid((8, 8)), emulator.footprint)[0]
    field = np.zeros((2, 8, 8), np.float32)
    field[1, 0, 0] = np.nan
    values = np.pad(field, [(0, 0), (2, 2), (2, 2)], mode="wrap")
    assert np.isnan(values).sum() == 4
    with pytest.raises(NonFiniteError) as caught:
        Engine(emulator, emulator.footprint, 2)(tile, values)
    assert caught.value.count == 1
