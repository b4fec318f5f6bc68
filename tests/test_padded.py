"""The models that pad, against 2Dto2D-DLE's published counts and layers written out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint, measure
from map2map.models import PaddedConvNet, PaddedUNet
from map2map.models.padded import doubled, doubling_conv


def count(module):
    return sum(p.numel() for p in module.parameters())


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.4, 0.4)
    return module.double().eval()


@pytest.mark.parametrize(
    ("chans", "cnn", "unet"),
    [
        ((3, 2), 139_682, 2_334_434),
        ((4, 2), 139_970, 2_334_722),
        ((5, 2), 140_258, 2_335_010),
        ((4, 4), 140_036, 2_334_788),
        ((5, 4), 140_324, 2_335_076),
        ((4, 6), 140_102, 2_334_854),
        ((5, 6), 140_390, 2_335_142),
    ],
)
def test_the_defaults_have_as_many_parameters_as_published(chans, cnn, unet):
    assert count(PaddedConvNet(*chans)) == cnn
    assert count(PaddedUNet(*chans)) == unet


def test_other_published_networks_have_as_many_parameters():
    assert count(PaddedConvNet(4, 6, depth=8)) == 66_118
    assert count(PaddedConvNet(24, 1, depth=8, kernel_size=1)) == 8_225


@pytest.mark.parametrize(("kernel_size", "slope"), [(3, 0.01), (5, 0.0)])
def test_the_convnet_is_its_convolutions_one_after_another(kernel_size, slope):
    model = PaddedConvNet(2, 3, width=4, depth=2, kernel_size=kernel_size, slope=slope)
    w = randomize(model).state_dict()
    x = torch.randn(2, 2, 7, 5, dtype=torch.float64)
    y = x
    for i in range(2):
        zeros = F.pad(y, [kernel_size // 2] * 4)
        y = F.conv2d(zeros, w[f"convs.{i}.weight"], w[f"convs.{i}.bias"])
        y = torch.where(y > 0, y, slope * y)
    y = F.conv2d(y, w["last.weight"], w["last.bias"])
    torch.testing.assert_close(model(x), y)


@pytest.mark.parametrize("ndim", [1, 2])
def test_doubling_spreads_a_cell_over_three_and_drops_the_last(ndim):
    """Tensorflow's "same": out[2 i + k] = sum of x[i] w[k], of which there are 2 n."""
    conv = randomize(doubling_conv(2, 3, ndim))
    x = torch.randn(1, 2, *(4, 3)[:ndim], dtype=torch.float64)
    space = x.shape[2:]
    out = np.zeros((3, *(2 * n + 1 for n in space)))
    for cell in np.ndindex(*space):
        for k in itertools.product(range(3), repeat=ndim):
            at = tuple(2 * i + j for i, j in zip(cell, k, strict=True))
            w = conv.weight[(slice(None), slice(None), *k)].detach().numpy()
            out[(slice(None), *at)] += x[(0, slice(None), *cell)].numpy() @ w
    out = out[(slice(None), *(slice(0, 2 * n) for n in space))]
    out += conv.bias.detach().numpy().reshape(3, *[1] * ndim)
    np.testing.assert_allclose(doubled(conv, x)[0].detach(), out, atol=1e-12)


def test_the_unet_puts_the_way_down_behind_the_way_up():
    model = PaddedUNet(2, 3, width=4, levels=2)
    w = randomize(model).state_dict()
    x = torch.randn(2, 2, 6, 4, dtype=torch.float64)

    def conv(y, name):
        y = F.conv2d(y, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)
        return torch.where(y > 0, y, 0.3 * y)

    skip = conv(conv(x, "down.0.first"), "down.0.second")
    y = skip.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(-1, -2))
    y = conv(conv(y, "down.1.first"), "down.1.second")
    y = F.conv_transpose2d(y, w["up.0.grow.weight"], w["up.0.grow.bias"], stride=2)
    y = conv(F.leaky_relu(y[..., :6, :4], 0.3), "up.0.before")
    y = conv(conv(torch.cat([y, skip], 1), "up.0.first"), "up.0.second")
    y = F.conv2d(y, w["last.weight"], w["last.bias"])
    torch.testing.assert_close(model(x), y)


def test_channels_double_from_level_to_level():
    model = PaddedUNet(2, 3, width=4, levels=3)
    assert [down.second.weight.shape[0] for down in model.down] == [4, 8, 16]
    assert [up.grow.weight.shape[:2] for up in model.up] == [(16, 8), (8, 4)]


def glorot(conv):
    inside = conv.weight[0, 0].numel()
    return math.sqrt(6 / (inside * (conv.in_channels + conv.out_channels)))


def he(conv, slope):
    return math.sqrt(6 / ((1 + slope**2) * conv.weight[0].numel()))


def test_the_unets_weights_start_as_glorots_and_biases_at_zero():
    torch.manual_seed(0)
    for conv in PaddedUNet(3, 2, width=8, levels=2).modules():
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            assert 0.8 < float(conv.weight.detach().abs().max()) / glorot(conv) <= 1
            assert conv.bias.count_nonzero() == 0


@pytest.mark.parametrize("slope", [0.01, 0.5])
def test_the_convnets_weights_start_as_hes_but_the_last_and_biases_at_zero(slope):
    torch.manual_seed(0)
    model = PaddedConvNet(3, 2, slope=slope)
    for conv in model.convs:
        assert 0.9 < float(conv.weight.detach().abs().max()) / he(conv, slope) <= 1
        assert conv.bias.count_nonzero() == 0
    assert 0.8 < float(model.last.weight.detach().abs().max()) / (0.1 * glorot(model.last)) <= 1
    assert model.last.bias.count_nonzero() == 0


@torch.no_grad()
def test_a_signal_keeps_its_size_through_the_convnet_and_comes_out_small():
    torch.manual_seed(0)
    model = PaddedConvNet(3, 2)
    x = y = torch.randn(4, 3, 48, 48)
    for conv in model.convs:
        y = F.leaky_relu(conv(y), 0.01)
    # away from the zeros beyond the edges; Glorot's weights would leave 1/256
    inside = y[..., 16:-16, 16:-16]
    assert 0.2 < float(inside.square().mean().sqrt()) < 2
    assert float(model(x).abs().mean()) < 0.2


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = PaddedConvNet(1, 1, width=50, depth=1, kernel_size=1, dropout=0.25)
    nn.init.ones_(model.convs[0].weight)
    nn.init.ones_(model.last.weight)
    x = torch.ones(1, 1, 20, 20)
    assert model.eval()(x).unique().tolist() == [50.0]
    y = model.train()(x).detach()
    assert y.mean() == pytest.approx(50, rel=0.05)
    # what is kept is divided by the share that is kept
    assert (y * 0.75).round().unique().numel() > 5


@pytest.mark.parametrize(("levels", "margin"), [(1, 2), (2, 10), (3, 26), (5, 126)])
def test_the_unets_footprint_is_the_one_measured(levels, margin):
    model = PaddedUNet(1, 1, ndim=1, width=2, levels=levels)
    expected = Footprint(margin=margin, multiple=2 ** (levels - 1), cut=0)
    assert model.footprint == expected == measure(model, 1, 1)


def test_the_convnet_takes_any_size_and_the_unet_multiples():
    assert PaddedConvNet(1, 2, depth=2)(torch.zeros(1, 1, 1, 13)).shape == (1, 2, 1, 13)
    assert PaddedUNet(1, 2, width=2)(torch.zeros(1, 1, 8, 24)).shape == (1, 2, 8, 24)
    with pytest.raises(GeometryError, match=r"cannot take 12 cells .*the nearest is 8 or 16"):
        PaddedUNet(1, 2, width=2)(torch.zeros(1, 1, 8, 12))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (PaddedConvNet, {"kernel_size": 4}, "`kernel_size` is 4, but must be odd"),
        (PaddedConvNet, {"depth": 0}, "`depth` is 0, but must be at least 1"),
        (PaddedConvNet, {"dropout": 1.0}, "`dropout` is 1.0, but must be at least 0 and below 1"),
        (PaddedConvNet, {"slope": -0.1}, "`slope` is -0.1, but must be from 0"),
        (PaddedConvNet, {"ndim": 4}, "`ndim` is 4"),
        (PaddedUNet, {"levels": 0}, "`levels` is 0, but must be at least 1"),
        (PaddedUNet, {"width": 0}, "`width` is 0, but must be at least 1"),
        (PaddedUNet, {"slope": float("nan")}, "`slope` is nan"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, options, words):
    with pytest.raises(RecipeError, match=words):
        kind(1, 1, **options)
