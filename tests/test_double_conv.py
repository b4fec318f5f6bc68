"""DoubleConvUNet: the network described, its sizes, and tiles of frames of any size."""

import runpy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from map2map.emulator import Card, Emulator, check_footprint
from map2map.engine import Engine, Running
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.exports import formats
from map2map.exports.writing import find, write
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.foreign_weights import in_order
from map2map.grids import Domain, Grid
from map2map.models import DoubleConvUNet
from map2map.models.double_conv import DoubleConv, Grow
from map2map.models.halved import HalvedConv3d
from map2map.tiling import Tiling, take

THEIRS = runpy.run_path(str(Path(__file__).with_name("ai4sim_networks.py")))
UNet, settled, count = THEIRS["TheirUNet"], THEIRS["settled"], THEIRS["count"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("chans", "ndim", "width", "levels", "parameters"),
    [
        ((1, 1), 3, 32, 3, 1_357_505),
        ((1, 1), 3, 32, 1, 29_601),
        ((1, 1), 3, 32, 2, 295_425),
        ((1, 1), 3, 32, 4, 5_603_393),
        ((1, 1), 3, 16, 3, 340_337),
        ((1, 1), 3, 64, 3, 5_422_433),
        ((1, 1), 3, 4, 2, 4_925),
        ((47, 6), 1, 32, 3, 169_040),
        ((47, 6), 1, 32, 1, 8_496),
        ((47, 6), 1, 32, 2, 40_848),
        ((47, 6), 1, 32, 4, 679_376),
        ((47, 6), 1, 64, 3, 661_520),
        ((47, 6), 1, 4, 2, 1_424),
    ],
)
def test_it_has_as_many_parameters_as_described(chans, ndim, width, levels, parameters):
    options = {"ndim": ndim, "width": width, "levels": levels}
    assert count(DoubleConvUNet(*chans, **options, head=False)) == parameters


def test_interpolating_needs_fewer_parameters_as_described():
    assert count(DoubleConvUNet(1, 1, upsample="linear", head=False)) == 1_285_825
    assert count(DoubleConvUNet(47, 6, ndim=1, upsample="linear", head=False)) == 158_800


@pytest.mark.parametrize(
    ("ndim", "size", "levels"),
    [
        (1, (37,), 4),
        (1, (8,), 4),
        (2, (13, 22), 3),
        (2, (5, 4), 1),
        (3, (9, 6, 7), 2),
        (3, (4, 5, 6), 3),
    ],
)
def test_it_is_the_network_described_at_any_size(ndim, size, levels):
    theirs = settled(UNet(2, 3, ndim, levels=levels, root=4))
    nn.init.constant_(theirs.final[4].bias, 0.5)  # or the last ReLU may pass nothing
    ours = DoubleConvUNet(2, 3, ndim=ndim, width=4, levels=levels, head=False).double()
    ours.load_state_dict(in_order(theirs.state_dict(), ours))
    x = torch.randn(2, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for mode in (False, True):  # in training, normalization is by the batch
        y = ours.train(mode)(x)
        torch.testing.assert_close(y, theirs.train(mode)(x), rtol=1e-10, atol=1e-10)
        assert y.shape == (2, 3, *size)
        assert y.count_nonzero() > y.numel() / 10


def test_without_a_head_nothing_is_negative_and_with_one_it_can_be():
    x = torch.randn(4, 1, 12, 12)
    for residual in (False, True):
        options = {"ndim": 2, "width": 4, "levels": 2, "residual": residual}
        assert DoubleConvUNet(1, 3, head=False, **options)(x).min() == 0
        with_head = DoubleConvUNet(1, 3, **options)
        assert with_head(x).min() < 0 < with_head(x).max()
        # the last pair keeps the width, so that no output is a ReLU's
        assert with_head.last.layers[-1].weight.shape == (4,)
        assert with_head.output.weight.shape == (3, 4, 1, 1)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_linear_upsampling_is_interpolation_between_middles_of_cells(ndim):
    grow = Grow(4, ndim).double()
    x = torch.randn(1, 4, *(3, 4, 5)[:ndim], dtype=torch.float64)
    mixed = torch.einsum("oc,bc...->bo...", grow.conv.weight.flatten(1), x)
    expected = (mixed + grow.conv.bias.reshape(1, 2, *[1] * ndim)).detach().numpy()
    for axis in range(2, ndim + 2):
        n = expected.shape[axis]
        at, wanted = np.arange(n) + 0.5, (np.arange(2 * n) + 0.5) / 2
        expected = np.apply_along_axis(lambda v, a=at, w=wanted: np.interp(w, a, v), axis, expected)
    np.testing.assert_allclose(grow(x).detach(), expected, rtol=1e-12)


def test_a_residual_adds_the_input_in_front_of_the_last_relu():
    pair = DoubleConv(2, 3, 2, residual=True)
    assert count(pair) == count(DoubleConv(2, 3, 2, residual=False)) + 6
    nn.init.zeros_(pair.layers[-1].weight)
    nn.init.constant_(pair.layers[-1].bias, 0.25)
    x = torch.randn(1, 2, 5, 5)
    added = torch.einsum("oc,bchw->bohw", pair.skip.weight[..., 0, 0], x)
    torch.testing.assert_close(pair(x), torch.relu(added + 0.25))


@pytest.mark.parametrize("upsample", ["transposed", "linear"])
@pytest.mark.parametrize(
    ("size", "tile", "levels"),
    [((61,), (4,), 3), ((61,), (12,), 3), ((62,), (24,), 4), ((41, 30), (8, 12), 2)],
)
def test_tiles_of_a_frame_of_any_size_are_the_frame(size, tile, levels, upsample):
    """Where the network pads, and 61 is no multiple of 4; the reference is one call."""
    torch.manual_seed(0)
    ndim = len(size)
    options = {"ndim": ndim, "width": 4, "levels": levels, "upsample": upsample}
    model = settled(DoubleConvUNet(2, 3, **options))
    field = np.random.default_rng(0).normal(size=(2, *size))
    with torch.no_grad():
        whole = model(torch.from_numpy(field)[None])[0].numpy()
    engine = Engine(model, model.footprint, ndim, Running("fp64"))
    tiling = Tiling(Grid(size, periodic=False, pad="model"), model.footprint, tile)
    assert len(tiling) > 2
    stitched = np.full_like(whole, np.nan)
    for i in range(len(tiling)):
        piece = tiling[i]
        x = np.empty((2, *piece.read.shape))
        take(field, piece.read, tiling.grid, x)
        stitched[(slice(None), *piece.target.slices)] = engine(piece, x)
    np.testing.assert_allclose(stitched, whole, rtol=1e-9, atol=1e-9)


def emulator(ndim=2, **options):
    torch.manual_seed(0)
    model = DoubleConvUNet(1, 1, ndim=ndim, width=4, levels=2, **options)
    fields = [FieldSet((Field(name, "1", "scalar", 1),)) for name in ("c", "s")]
    return Emulator(*fields, {}, model, Domain(ndim, periodic=False, pad="model")).eval()


def test_an_emulator_is_applied_to_frames_of_any_size_as_the_network_is():
    made = emulator()
    for size in ((11, 17), (2, 3), (12, 16)):
        c = torch.randn(size)
        expected = made.model(c[None, None])[0, 0]
        torch.testing.assert_close(made.apply({"c": c})["s"].squeeze(), expected)


@pytest.mark.parametrize("to", [k for k, module in formats().items() if hasattr(module, "run")])
def test_it_is_exported_for_one_size_that_is_no_multiple(tmp_path, to):
    made = emulator()
    write(made, tmp_path / "file", to, {"size": (9, 11)})
    fields = {"c": torch.randn(1, 1, 9, 11)}
    found = find(to).run(tmp_path / "file", fields)["s"]
    torch.testing.assert_close(found, made(fields["c"]), rtol=1e-4, atol=1e-5)


def test_cards_tell_that_sizes_may_be_ragged_and_older_ones_do_not(tmp_path):
    made = emulator()
    made.save(tmp_path / "e.safetensors")
    assert Card.read(tmp_path / "e.safetensors").footprint["ragged"] is True
    again = Emulator.load(tmp_path / "e.safetensors")
    assert asdict(again.footprint) == asdict(made.footprint)
    plain = Footprint(2, 2, cut=0)
    told = {key: value for key, value in asdict(plain).items() if key != "ragged"}
    check_footprint("e", told, plain)
    with pytest.raises(ArtefactError, match="tells the footprint"):
        check_footprint("e", told, Footprint(2, 2, cut=0, ragged=True))


def test_a_footprint_takes_sizes_that_are_no_multiples_only_if_it_says_so():
    plain, ragged = (Footprint(10, 4, cut=0, ragged=either) for either in (False, True))
    assert [n for n in range(1, 10) if plain.accepts(n)] == [4, 8]
    assert [n for n in range(1, 10) if ragged.accepts(n)] == [4, 5, 6, 7, 8, 9]
    assert ragged.output_size(7) == 7
    # halos are what they were, so that tiles end on multiples
    assert ragged.halo_for((5,)) == plain.halo_for((5,))
    with pytest.raises(GeometryError, match=r"cannot take 3 cells .* sizes are 4 and all above"):
        ragged.check_input((1, 1, 3), ndim=1, who="Net")


@pytest.mark.parametrize("planes", [4, 5, 9, 12])
def test_a_convolution_in_halves_is_the_convolution_and_has_its_gradients(planes):
    torch.manual_seed(0)
    conv = HalvedConv3d(16, 3)
    assert type(conv)._pays(conv, torch.zeros(1, 16, planes, 5, 6))
    double = HalvedConv3d(16, 3).double()
    double.load_state_dict(conv.state_dict())
    x = torch.randn(1, 16, planes, 5, 6, requires_grad=True)
    x64 = x.detach().double().requires_grad_()
    assert not double._pays(x64)
    weights = torch.randn(1, 3, planes, 5, 6)
    y, expected = conv(x), double(x64)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for found, wanted in ((x, x64), (conv.weight, double.weight), (conv.bias, double.bias)):
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


def test_precision_is_that_of_the_weights():
    x = torch.randn(1, 1, 8, 8, 9, dtype=torch.float64)
    model = settled(DoubleConvUNet(1, 2, width=4, levels=2))
    assert model(x).dtype == torch.float64
    y = model(x)
    single = model.float()(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), y, rtol=1e-4, atol=1e-4)


def test_batches_that_cannot_be_normalized_are_refused():
    model = DoubleConvUNet(1, 1, ndim=1, width=2)
    with pytest.raises(GeometryError, match="got a training batch of one image"):
        model(torch.zeros(1, 1, 7))
    assert model(torch.zeros(1, 1, 8)).shape == (1, 1, 8)
    assert model.eval()(torch.zeros(1, 1, 7)).shape == (1, 1, 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": 0}, "`levels` is 0, but must be at least 1"),
        ({"width": 0}, "`width` is 0, but must be at least 1"),
        ({"ndim": 4}, "`ndim` is 4"),
        ({"upsample": "bilinear"}, "`upsample` is 'bilinear', but must be transposed or linear"),
    ],
)
def test_arguments_out_of_range_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        DoubleConvUNet(1, 1, **options)
