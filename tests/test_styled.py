"""Convolutions and networks that a style acts on, against formulas and counts told elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from map2map.engine import Engine, Running
from map2map.errors import GeometryError, RecipeError
from map2map.footprints import measure
from map2map.grids import Grid
from map2map.models import SRGenerator, StyledVNet, UNet, UpsampledUNet, VNet
from map2map.models.styled import StyledConv
from map2map.noise import Noise, Place, placed
from map2map.styles import with_any_style
from map2map.tiling import Tiling, take


def by_hand(conv, x, style):
    """One sample with modulated and demodulated weights, as the published formula has them."""
    scale = conv.style_weight @ style + conv.style_bias
    over_in = (1, -1) if not conv.transposed else (-1, 1)
    weight = conv.weight * scale.reshape(*over_in, *(1,) * (x.ndim - 1))
    out = 1 if conv.transposed else 0
    axes = [i for i in range(weight.ndim) if i != out]
    weight = weight * torch.rsqrt(weight.square().sum(dim=axes, keepdim=True) + 1e-8)
    if conv.transposed:
        return F.conv_transpose2d(x[None], weight, conv.bias, stride=2)[0]
    return F.conv2d(x[None], weight, conv.bias)[0]


@pytest.mark.parametrize("kind", ["valid", "up"])
def test_every_sample_of_a_batch_is_convolved_with_weights_modulated_by_its_own_style(kind):
    torch.manual_seed(0)
    made = nn.Conv2d(2, 5, 3) if kind == "valid" else nn.ConvTranspose2d(2, 5, 2, stride=2)
    conv = StyledConv(made, 3).double()
    x = torch.randn(4, 2, 6, 7, dtype=torch.float64)
    style = torch.randn(4, 3, dtype=torch.float64)
    expected = torch.stack([by_hand(conv, *pair) for pair in zip(x, style, strict=True)])
    torch.testing.assert_close(conv(x, style), expected)
    for one, s, y in zip(x, style, expected, strict=True):
        torch.testing.assert_close(conv.plain(s).double()(one[None])[0], y)


def test_a_modulated_output_has_unit_variance_for_white_input_whatever_the_style():
    torch.manual_seed(0)
    conv = StyledConv(nn.Conv1d(8, 2, 3, bias=False), 1)
    x = torch.randn(2, 8, 20000)
    # modulated weights have unit norm, but inputs are not scaled back; s' alike leaves nothing
    conv.style_weight.data[:] = 0
    for level in (0.1, 10.0):
        conv.style_bias.data[:] = level
        np.testing.assert_allclose(conv(x, torch.zeros(2, 1)).std().item(), 1, rtol=0.02)


def test_film_multiplies_and_shifts_the_outputs():
    torch.manual_seed(0)
    conv = StyledConv(nn.Conv1d(2, 3, 3), 2, "film")
    x, style = torch.randn(2, 2, 9), torch.randn(2, 2)
    plain = F.conv1d(x, conv.weight, conv.bias)
    gain = 1 + style @ conv.style_weight[:3].T
    shift = style @ conv.style_weight[3:].T
    torch.testing.assert_close(conv(x, style), plain * gain[..., None] + shift[..., None])
    torch.testing.assert_close(
        conv.plain(style[1])(x[1:]), (plain * gain[..., None] + shift[..., None])[1:]
    )


def test_the_published_networks_have_their_numbers_of_parameters():
    def count(model):
        return sum(p.numel() for p in model.parameters())

    assert count(VNet(3, 3, style_chan=1)) == 1_828_178
    assert count(StyledVNet(3, 3, style_chan=1)) == 3_352_210
    assert count(StyledVNet(3, 3, style_chan=2)) == 3_354_776


def test_the_published_network_takes_sizes_of_8_from_104_and_cuts_off_96():
    model = StyledVNet(3, 3, style_chan=1, width=2).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 104, 112, 104), torch.zeros(1, 1)).shape[2:] == (8, 16, 8)
    for size in (96, 108):
        with pytest.raises(GeometryError, match="cannot take"):
            model(torch.zeros(1, 3, size, 104, 104), torch.zeros(1, 1))


def test_the_published_network_has_the_names_of_the_published_states():
    names = set(StyledVNet(3, 3, style_chan=1, width=2).state_dict())
    blocks = {name.partition(".")[0] for name in names}
    assert blocks == {
        "conv_l00", "conv_l01", "down_l0", "conv_l1", "down_l1", "conv_l2", "down_l2", "conv_c",
        "up_r2", "conv_r2", "up_r1", "conv_r1", "up_r0", "conv_r00", "conv_r01",
    }  # fmt: skip
    assert {n for n in names if n.startswith("conv_r01")} == {
        f"conv_r01.{layer}.{name}"
        for layer in ("convs.0", "convs.2", "skip")
        for name in ("weight", "bias", "style_weight", "style_bias")
    }


SMALL = {"chan_base": 8, "chan_min": 2, "chan_max": 8}
FINER = [
    (SRGenerator, {"scale_factor": 4, **SMALL}),
    (SRGenerator, {"scale_factor": 2, "cat_noise": True, "modulation": "film", **SMALL}),
    (UpsampledUNet, {"scale_factor": 3, "width": 4, "noise_chan": 1}),
    (UpsampledUNet, {"scale_factor": 4, "width": 4, "upsampling": "linear", "batch_norm": True}),
    (UpsampledUNet, {"width": 4, "noise_chan": 1, "modulation": "film", "bypass": False}),
]
NETWORKS = [
    (UNet, {"depth": 1, "width": 4}),
    (VNet, {"depth": 1, "width": 4}),
    (VNet, {"depth": 2, "width": 4, "modulation": "film"}),
    (StyledVNet, {"depth": 2, "width": 4}),
    (StyledVNet, {"depth": 1, "width": 4, "modulation": "film", "bypass": False}),
    *FINER,
]


@pytest.mark.parametrize(("kind", "options"), NETWORKS)
class TestStyledNetworks:
    def made(self, kind, options):
        torch.manual_seed(0)
        model = kind(2, 2, ndim=1, style_chan=2, **options).double()
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
        for name, parameter in model.named_parameters():
            if name.endswith("std"):  # of noise, 0 at first
                parameter.data.fill_(0.5)
        return model.eval()

    @pytest.fixture(autouse=True)
    def same_numbers(self, monkeypatch):
        """What is drawn at random depends on the place alone."""
        monkeypatch.setattr(Noise, "place", Place((0,), (999,), (True,), 1))

    def inputs(self, model, batch=3):
        size = model.footprint.fitting(model.footprint.minimum + 5)
        x = torch.randn(batch, 2, size, dtype=torch.float64)
        return x, torch.randn(batch, 2, dtype=torch.float64)

    def test_samples_of_a_batch_do_not_see_the_styles_of_others(self, kind, options):
        model = self.made(kind, options)
        x, style = self.inputs(model)
        y = model(x, style)
        for i in range(3):
            torch.testing.assert_close(model(x[i : i + 1], style[i : i + 1])[0], y[i])
        assert not torch.allclose(model(x, style.flip(0)), y, rtol=1e-3), "the style acts"

    def test_settled_it_is_of_ordinary_convolutions_and_gives_the_same(self, kind, options):
        model = self.made(kind, options)
        x, style = self.inputs(model)
        before = model(x, style)
        settled = model.settled(style[1])
        assert not any(isinstance(part, StyledConv) for part in settled.modules())
        torch.testing.assert_close(settled(x)[1], before[1])
        torch.testing.assert_close(model(x, style), before, msg="the model itself is unchanged")

    def test_every_parameter_gets_a_gradient(self, kind, options):
        model = self.made(kind, options).train()
        model(*self.inputs(model)).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_it_is_refused_without_its_style_or_with_another(self, kind, options):
        model = self.made(kind, options)
        x, style = self.inputs(model)
        with pytest.raises(GeometryError, match="a style of 2 numbers, and none was given"):
            model(x)
        with pytest.raises(GeometryError, match=r"takes \(batch, 2\)"):
            model(x, style[:, :1])
        with pytest.raises(GeometryError, match="takes no style"):
            kind(2, 2, ndim=1, **options)(x, style)

    def test_the_style_changes_neither_what_is_seen_nor_the_names_of_the_other_weights(
        self, kind, options
    ):
        styled, plain = self.made(kind, options), kind(2, 2, ndim=1, **options)
        assert styled.footprint == plain.footprint
        found = measure(with_any_style(Bare(styled.float()), 2), 2, 1)
        assert (found.cut, found.scale, found.multiple) == (
            plain.footprint.cut, plain.footprint.scale, plain.footprint.multiple,
        )  # fmt: skip
        assert found.margin <= plain.footprint.margin
        names = set(plain.state_dict())
        assert not any("style" in name for name in names)
        added = set(styled.state_dict()) - names
        assert names < set(styled.state_dict())
        assert {name.rpartition(".")[2] for name in added} == {"style_weight", "style_bias"}


class Bare(nn.Module):
    """A network that does not tell its footprint."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, style):
        return self.model(x, style)


@pytest.mark.parametrize(("kind", "options"), FINER)
@pytest.mark.parametrize("ndim", [1, 2])
def test_tiles_of_a_settled_network_are_those_of_the_whole_field_with_its_style(
    kind, options, ndim
):
    torch.manual_seed(0)
    model = kind(2, 1, ndim=ndim, style_chan=2, **options)
    for name, parameter in model.named_parameters():
        if name.endswith("std"):
            parameter.data.fill_(0.5)
    model = model.double().eval()
    n, f = {1: 24, 2: 12}[ndim], model.footprint
    field = np.random.default_rng(0).normal(size=(2, *[n] * ndim))
    high = next(h for h in range(f.margin, 999) if f.accepts(f.low + n + h))
    wide = np.pad(field, [(0, 0), *[(f.low, high)] * ndim], mode="wrap")
    style = torch.tensor([[0.3, -1.2], [0.5, 0.7]], dtype=torch.float64)
    place = Place((-f.low,) * ndim, (n,) * ndim, (True,) * ndim, 3)
    with placed(model, place), torch.no_grad():
        whole = model(torch.from_numpy(wide).expand(2, *wide.shape), style)[1]
    first = f.scale * f.low - f.cut
    whole = whole[(slice(None), *[slice(first, first + f.scale * n)] * ndim)].numpy()
    engine = Engine(model.settled(style[1]), f, ndim, Running("fp64", seed=3))
    for size in (4, n):
        tiling = Tiling(Grid((n,) * ndim), f, (size,) * ndim, rings=True)
        out = np.full_like(whole, np.nan)
        for i in range(len(tiling)):
            tile = tiling[i]
            x = np.empty((2, *tile.read.shape))
            take(field, tile.read, tiling.grid, x)
            out[(slice(None), *tile.target.slices)] = engine(tile, x)
        np.testing.assert_allclose(out, whole, rtol=1e-9, atol=1e-9)


def test_what_is_no_modulation_or_number_is_refused():
    with pytest.raises(RecipeError, match="'weights' or 'film'"):
        UNet(1, 1, style_chan=1, modulation="add")
    with pytest.raises(RecipeError, match="0 or more"):
        UNet(1, 1, style_chan=-1)
