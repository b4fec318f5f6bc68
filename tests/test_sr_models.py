"""Networks for super-resolution against layers written out by hand, and map2map's counts."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from map2map.engine import Engine, Running
from map2map.errors import GeometryError, RecipeError
from map2map.footprints import measure
from map2map.grids import Grid
from map2map.models import (
    FourierUpsampling,
    LinearUpsampling,
    SRDiscriminator,
    SRGenerator,
    UpsampledUNet,
)
from map2map.noise import Noise, Place, normal_numbers, placed
from map2map.tiling import Tiling, take

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SMALL = {"chan_base": 8, "chan_min": 2, "chan_max": 8}
PLAIN = {"noise": False, **SMALL}


def count(module):
    return sum(p.numel() for p in module.parameters())


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5)
    return module.double().eval()


def cut(x, cells):
    return x[(..., *[slice(cells, -cells)] * (x.ndim - 2))]


def double(x):
    """Linear interpolation at the centers of halved cells, without those beyond the first."""
    y = F.interpolate(x, scale_factor=2, mode=LINEAR[x.ndim - 2], align_corners=False)
    return cut(y, 1)


# --- the generator and the discriminator ---------------------------------------------------------


@pytest.mark.parametrize(
    ("chan", "arguments", "expected"),
    [
        (3, {"scale_factor": 2}, 5_312_515),
        (3, {"scale_factor": 4}, 6_640_646),
        (3, {"scale_factor": 8}, 6_972_937),
        (3, {"scale_factor": 16}, 7_194_572),
        (3, {}, 7_194_572),
        (3, {"scale_factor": 8, "cat_noise": True}, 6_995_785),
        (6, {"scale_factor": 8}, 6_975_826),
    ],
)
def test_the_generator_has_as_many_weights_as_map2maps(chan, arguments, expected):
    with torch.device("meta"):
        assert count(SRGenerator(chan, chan, **arguments)) == expected


@pytest.mark.parametrize(
    ("chan", "factor", "expected"),
    [
        (3, 2, 5_704_961),
        (3, 4, 7_064_961),
        (3, 8, 7_404_993),
        (3, 16, 7_630_465),
        (6, 8, 7_405_185),
        (12, 8, 7_405_569),
    ],
)
def test_the_discriminator_has_as_many_weights_as_map2maps(chan, factor, expected):
    with torch.device("meta"):
        assert count(SRDiscriminator(chan, scale_factor=factor)) == expected


@pytest.mark.parametrize(("factor", "lost"), [(2, 6), (4, 18), (8, 42), (16, 90)])
def test_a_generator_cuts_off_what_its_convolutions_would_make_up(factor, lost):
    model = SRGenerator(1, 1, ndim=1, scale_factor=factor, **SMALL)
    for n in (9, 12):
        assert model(torch.zeros(1, 1, n)).shape[-1] == factor * n - lost
        assert model.footprint.output_size(n) == factor * n - lost
    # with a halo of 3, as map2map's users have it, 8 n + 6 for 8
    assert model.footprint.output_size(10 + 2 * 3) == factor * 16 - lost


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["add", "cat"])
def test_the_generator_is_its_layers(ndim, kind):
    """Under the names that a state of map2map's has."""
    model = randomize(
        SRGenerator(2, 2, ndim=ndim, scale_factor=4, cat_noise=kind == "cat", **SMALL)
    )
    w = model.state_dict()
    x = torch.randn(2, 2, *[8, 7, 6][:ndim], dtype=torch.float64)
    start, shape, seed = (3,) * ndim, (20,) * ndim, 5

    def conv(x, key):
        return CONV[ndim](x, w[f"{key}.weight"], w[f"{key}.bias"])

    def noisy(x, key, scale, below, stream):
        cells = [torch.arange(n) + scale * 3 + below for n in x.shape[2:]]
        cells = [c % (scale * 20) for c in cells]
        drawn = normal_numbers(cells, seed=seed, stream=stream)[None]
        if kind == "cat":
            return torch.cat([x, drawn.expand(2, 1, *x.shape[2:])], 1)
        return x + w[f"{key}.std"].reshape(-1, *(1,) * ndim) * drawn

    y, h = x, F.leaky_relu(conv(x, "block0.0"), 0.2)
    below = 0
    for i in range(2):
        h = double(noisy(h, f"blocks.{i}.conv.0", 2**i, below, 2 * i))
        h = F.leaky_relu(conv(h, f"blocks.{i}.conv.2"), 0.2)
        # doubling cuts one of the finer cells off, and so does the convolution
        below = 2 * below + 2
        h = noisy(h, f"blocks.{i}.conv.4", 2 ** (i + 1), below, 2 * i + 1)
        h = F.leaky_relu(conv(h, f"blocks.{i}.conv.5"), 0.2)
        below += 1
        y = cut(double(y), 2) + F.leaky_relu(conv(h, f"blocks.{i}.proj.0"), 0.2)
    with placed(model, Place(start, shape, (True,) * ndim, seed)):
        torch.testing.assert_close(model(x), y)
    assert below == model.footprint.cut


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_discriminator_is_its_layers(ndim):
    model = randomize(SRDiscriminator(3, ndim=ndim, scale_factor=4, **SMALL))
    w = model.state_dict()

    def conv(x, key):
        return CONV[ndim](x, w[f"{key}.weight"], w[f"{key}.bias"])

    x = torch.randn(2, 3, *[21, 17, 18][:ndim], dtype=torch.float64)
    y = F.leaky_relu(conv(x, "block0.0"), 0.2)
    for i in range(2):
        h = F.leaky_relu(conv(y, f"blocks.{i}.conv.0"), 0.2)
        h = F.leaky_relu(conv(h, f"blocks.{i}.conv.2"), 0.2)
        y = h + cut(conv(y, f"blocks.{i}.skip"), 2)
        y = F.interpolate(y, scale_factor=0.5, mode=LINEAR[ndim], align_corners=False)
    y = conv(F.leaky_relu(conv(y, "block9.0"), 0.2), "block9.2")
    torch.testing.assert_close(model(x), y)
    sizes = [21, 17, 18][:ndim]
    assert list(y.shape[2:]) == [model.scores(n) for n in sizes]
    # channels fall and rise again
    assert [w[f"blocks.{i}.skip.weight"].shape[:2] for i in range(2)] == [(4, 2), (8, 4)]


def test_the_discriminator_says_how_many_cells_and_channels_it_needs():
    model = SRDiscriminator(2, ndim=2, scale_factor=4, **SMALL)
    assert model.minimum == 16
    assert model(torch.zeros(1, 2, 16, 16)).shape == (1, 1, 1, 1)
    with pytest.raises(GeometryError, match=r"cannot take \(16, 15\) cells.*need 16"):
        model(torch.zeros(1, 2, 16, 15))
    with pytest.raises(GeometryError, match="2 channels, 2 axes"):
        model(torch.zeros(1, 3, 16, 16))


def test_outputs_of_other_channels_start_from_a_projection():
    model = randomize(SRGenerator(2, 1, ndim=2, scale_factor=2, **PLAIN))
    assert model(torch.zeros(1, 2, 6, 6, dtype=torch.float64)).shape == (1, 1, 6, 6)
    for parameter in model.blocks.parameters():
        parameter.data.zero_()
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    skip = F.conv2d(x, model.skip.weight, model.skip.bias)
    torch.testing.assert_close(model(x), cut(double(skip), 2))
    assert "skip.weight" not in SRGenerator(2, 2, scale_factor=2, **SMALL).state_dict()


@pytest.mark.parametrize("factor", [0, 1, 3, 12])
def test_a_factor_that_is_no_power_of_two_is_refused(factor):
    for kind in (SRGenerator, SRDiscriminator):
        with pytest.raises(RecipeError, match=rf"`scale_factor` is {factor}.*power of two"):
            kind(3, 3, scale_factor=factor)


def test_channels_that_contradict_each_other_are_refused():
    with pytest.raises(RecipeError, match=r"`chan_max` .8. at least `chan_min`"):
        SRGenerator(3, 3, scale_factor=2, chan_min=16, chan_max=8)


# --- what is seen --------------------------------------------------------------------------------

SEEN = [
    *[(SRGenerator, n, {"scale_factor": f, **PLAIN}) for n, f in [(1, 2), (1, 8), (1, 16), (2, 4)]],
    *[
        (UpsampledUNet, 1, {"scale_factor": f, "upsampling": up, "convs": c, "depth": d})
        for f, up, c, d in [
            (2, "subpixel", 1, 1), (2, "subpixel", 2, 2), (2, "linear", 2, 2), (3, "linear", 2, 1),
            (4, "subpixel", 2, 2), (6, "linear", 2, 1), (8, "subpixel", 1, 1),
        ]
    ],
    (UpsampledUNet, 2, {"scale_factor": 3, "upsampling": "linear"}),
    *[(LinearUpsampling, 1, {"scale_factor": f}) for f in (2, 3, 4, 8)],
    (LinearUpsampling, 2, {"scale_factor": 2}),
]  # fmt: skip


def made(kind, ndim, options):
    torch.manual_seed(0)
    return kind(2, 2, ndim=ndim, **({"width": 4} if kind is UpsampledUNet else {}), **options)


@pytest.mark.parametrize(("kind", "ndim", "options"), SEEN)
def test_footprints_are_those_measured(kind, ndim, options):
    model = made(kind, ndim, options)
    assert measure(model, 2, ndim) == model.footprint


@pytest.mark.parametrize(
    ("kind", "ndim", "options", "noise"),
    [(*case, noise) for case in SEEN for noise in (False, case[0] is not LinearUpsampling)],
)
def test_tiles_give_the_whole_field_also_where_numbers_are_drawn(kind, ndim, options, noise):
    if noise:
        options = {k: v for k, v in options.items() if k != "noise"}
        options |= {"noise_chan": 2} if kind is UpsampledUNet else {}
    model = made(kind, ndim, options).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("std"):
            parameter.data.uniform_(0.5, 1.5)
    f, n = model.footprint, {1: 24, 2: 16}[ndim]
    field = np.random.default_rng(0).normal(size=(2, *(n,) * ndim))
    # the reference is one call for a field that is several copies of itself
    low = f.low
    around = next(h for h in range(f.margin, 999) if f.accepts(low + n + h))
    wide = torch.from_numpy(np.pad(field, [(0, 0), *[(low, around)] * ndim], mode="wrap"))[None]
    with torch.no_grad(), placed(model, Place((-low,) * ndim, (n,) * ndim, (True,) * ndim, 3)):
        whole = model(wide)[0]
    kept = slice(f.scale * low - f.cut, f.scale * (low + n) - f.cut)
    whole = whole[(slice(None), *[kept] * ndim)].numpy()
    engine = Engine(model, f, ndim, Running("fp64", channels_last=False, seed=3))
    for size in (f.multiple, 2 * f.multiple, 12):
        size = size // f.multiple * f.multiple
        tiling = Tiling(Grid((n,) * ndim), f, (size,) * ndim)
        out = np.full(whole.shape, np.nan)
        for tile in (tiling[i] for i in range(len(tiling))):
            x = np.empty((2, *tile.read.shape))
            take(field, tile.read, tiling.grid, x)
            out[(slice(None), *tile.target.slices)] = engine(tile, x)
        np.testing.assert_allclose(out, whole, rtol=1e-10, atol=1e-10)
    if noise:
        again = Engine(model, f, ndim, Running("fp64", channels_last=False, seed=4))
        assert np.abs(again(tile, x) - out[(slice(None), *tile.target.slices)]).max() > 1e-3


# --- the upsampled U-Net -------------------------------------------------------------------------


def test_it_draws_other_numbers_each_time_in_training_on_every_grid():
    torch.manual_seed(0)
    model = UpsampledUNet(2, 2, ndim=1, scale_factor=4, width=4, noise_chan=1)
    layers = [part for part in model.modules() if isinstance(part, Noise)]
    # 8 cells cut by the U-Net; 2 of each stage's, and all before it
    assert [(n.scale, n.cut, n.stream) for n in layers] == [(1, 0, 0), (2, 16, 1), (4, 36, 2)]
    x = torch.zeros(1, 2, model.footprint.fitting(40))
    assert not torch.allclose(model(x), model(x))
    plain = UpsampledUNet(2, 2, ndim=1, scale_factor=4, width=4)
    assert torch.equal(plain(x), plain(x))


def test_it_adds_the_interpolated_input():
    model = UpsampledUNet(2, 2, ndim=2, scale_factor=2, width=4).double()
    model.last.weight.data.zero_()
    model.last.bias.data.zero_()
    x = torch.randn(1, 2, 26, 24, dtype=torch.float64)
    torch.testing.assert_close(model(x), cut(double(x), model.footprint.cut - 1))
    other = UpsampledUNet(2, 2, ndim=2, scale_factor=2, width=4, bypass=False).double()
    other.last.weight.data.zero_()
    other.last.bias.data.fill_(3)
    assert (other(x) == 3).all()


def test_what_it_cannot_be_is_refused():
    with pytest.raises(RecipeError, match="unknown `upsampling` 'nearest'"):
        UpsampledUNet(1, 1, upsampling="nearest")
    with pytest.raises(RecipeError, match=r"`scale_factor` .1. must be at least 2"):
        UpsampledUNet(1, 1, scale_factor=1)
    with pytest.raises(RecipeError, match="`bypass` adds"):
        UpsampledUNet(1, 2, bypass=True)


# --- interpolation -------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_linear_fields_are_interpolated_exactly(ndim, factor):
    """At the centers of cells that share the boxes of the coarser ones."""
    slopes = [0.5, -1.0, 2.0][:ndim]

    def field(places):
        return sum(s * p for s, p in zip(slopes, np.meshgrid(*places, indexing="ij"), strict=True))

    model, n = LinearUpsampling(1, 1, ndim=ndim, scale_factor=factor), 5
    x = torch.from_numpy(field([np.arange(n) + 0.5] * ndim))[None, None]
    fine = (np.arange(factor * n) + 0.5) / factor
    fine = fine[model.footprint.cut : -model.footprint.cut]
    assert min(fine) >= 0.5
    np.testing.assert_allclose(model(x)[0, 0], field([fine] * ndim), atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("n", [6, 7])
def test_waves_up_to_nyquist_are_continued_exactly(n, factor):
    model = FourierUpsampling(1, 1, ndim=2, scale_factor=factor)
    coarse, fine = np.arange(n), (np.arange(factor * n) + 0.5) / factor - 0.5

    for k in product(range((n + 1) // 2), range((n + 1) // 2)):

        def wave(places, k=k):
            phase = 2 * np.pi / n * np.add.outer(k[0] * places, k[1] * places)
            return np.cos(phase + 0.7)

        y = model(torch.from_numpy(wave(coarse))[None, None])[0, 0]
        np.testing.assert_allclose(y, wave(fine), atol=1e-12)


def test_a_spectrum_is_continued_with_zeros():
    """As zeros behind the modes of a discrete transform, times the phase of the finer centers."""
    rng, n, factor = np.random.default_rng(0), 8, 4
    x = rng.normal(size=n)
    modes = np.fft.rfft(x)
    modes[-1] = 0
    k = np.arange(n // 2 + 1)
    shifted = np.zeros(factor * n // 2 + 1, complex)
    shifted[: n // 2 + 1] = modes * np.exp(2j * np.pi / n * k * (0.5 / factor - 0.5))
    expected = np.fft.irfft(shifted, factor * n) * factor
    model = FourierUpsampling(1, 1, ndim=1, scale_factor=factor)
    without = x - (x * (-1) ** np.arange(n)).mean() * (-1) ** np.arange(n)
    np.testing.assert_allclose(model(torch.from_numpy(without)[None, None])[0, 0], expected)
    # the wave at Nyquist has its crests at the cells
    crests = model(torch.from_numpy((-1.0) ** np.arange(n))[None, None])[0, 0]
    places = (np.arange(factor * n) + 0.5) / factor - 0.5
    np.testing.assert_allclose(crests, np.cos(np.pi * places), atol=1e-12)


@pytest.mark.parametrize("kind", [LinearUpsampling, FourierUpsampling])
def test_interpolation_has_no_weights_and_keeps_channels(kind):
    assert not list(kind(2, 2).parameters())
    assert not kind(2, 2).state_dict()
    with pytest.raises(RecipeError, match=r"`in_chan` .2. and `out_chan` .3. must be equal"):
        kind(2, 3)
    with pytest.raises(RecipeError, match=r"`scale_factor` .1. at least 2"):
        kind(2, 2, scale_factor=1)


def test_the_whole_domain_is_needed_to_continue_a_spectrum():
    model = FourierUpsampling(1, 1, ndim=1, scale_factor=2)
    measured = measure(model, 1, 1)
    assert measured.whole is not None
    assert (measured.scale, measured.cut) == (2, 0)
    with pytest.raises(GeometryError, match="continues its spectrum"):
        Tiling(Grid((8,)), model.footprint, (4,))
    assert isinstance(model, nn.Module)
