"""However a convolution is computed, its numbers are those of the convolution."""

import numpy as np
import pytest
import torch
from torch import nn

from map2map import convolutions
from map2map.convolutions import SlabConv, ThinConv, Winograd, arrange
from map2map.errors import GeometryError
from map2map.footprints import Footprint

LAST = torch.channels_last_3d


def conv_and_input(out, shape, kernel=3, bias=True):
    torch.manual_seed(0)
    conv = nn.Conv3d(16, out, kernel, bias=bias).to(memory_format=LAST)
    return conv, torch.randn(1, 16, *shape).contiguous(memory_format=LAST)


def reference(conv, x, rings=()):
    """In float64, of what numpy has wrapped."""
    reach = [k // 2 if axis in rings else 0 for axis, k in enumerate(conv.kernel_size)]
    pads = [(0, 0), (0, 0), *((w, w) for w in reach)]
    wide = torch.from_numpy(np.pad(x.double().numpy(), pads, mode="wrap"))
    bias = None if conv.bias is None else conv.bias.double()
    with torch.no_grad():
        return nn.functional.conv3d(wide, conv.weight.double(), bias)


def assert_equal(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape
    error = (found.double() - expected).abs().max() / expected.square().mean().sqrt()
    assert error < tolerance


@pytest.mark.parametrize("rings", [(), (0,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("planes", [3, 6, 7, 13])
@pytest.mark.parametrize("slab", [1, 1 << 14, 1 << 30])
@pytest.mark.parametrize(("compute", "out"), [(None, 5), (ThinConv, 5), (Winograd, 16)])
@torch.no_grad()
def test_slabs_give_the_whole_convolution(rings, planes, slab, compute, out, monkeypatch):
    monkeypatch.setattr(convolutions, "SLAB_BYTES", slab)
    conv, x = conv_and_input(out, (planes, 5, 4))
    found = SlabConv(conv, rings, LAST, compute(conv) if compute else None)(x)
    assert_equal(found, reference(conv, x, rings), 1e-4 if compute is Winograd else 1e-5)


@pytest.mark.parametrize("format", [torch.contiguous_format, LAST], ids=str)
@torch.no_grad()
def test_slabs_of_wide_kernels_in_both_memory_formats(format, monkeypatch):
    monkeypatch.setattr(convolutions, "SLAB_BYTES", 1)
    conv, x = conv_and_input(4, (9, 6, 5), kernel=(5, 3, 1), bias=False)
    found = SlabConv(conv, (0, 1), format)(x.contiguous(memory_format=format))
    assert_equal(found, reference(conv, x, (0, 1)))


@torch.no_grad()
def test_few_outputs_may_have_kernels_of_any_width():
    conv, x = conv_and_input(2, (6, 5, 4), kernel=(4, 2, 1), bias=False)
    assert_equal(ThinConv(conv)(x), reference(conv, x))
    double = ThinConv(conv.double())(x.double())
    assert_equal(double, reference(conv, x), 1e-13)


@torch.no_grad()
def test_sums_of_few_outputs_are_not_rounded_on_the_way():
    conv, x = conv_and_input(1, (12, 6, 6))
    exact = reference(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        plain, thin = conv(x), ThinConv(conv)(x)
    assert thin.dtype == torch.bfloat16
    errors = [(y.double() - exact).square().mean().sqrt() for y in (plain, thin)]
    assert errors[1] < 1.5 * errors[0]


@torch.no_grad()
def test_nothing_is_left_of_a_field_smaller_than_the_kernel():
    conv, x = conv_and_input(5, (2, 5, 5))
    with pytest.raises(GeometryError, match=r"nothing is left of \(2, 5, 5\) cells"):
        SlabConv(conv, (), LAST)(x)


def arranged(*layers, rings=(), cpu=True, winograd=True, memory_format=LAST):
    net = arrange(nn.Sequential(*layers), rings, memory_format, cpu=cpu, winograd=winograd)
    return [type(getattr(layer, "compute", layer)) for layer in net]


def test_convolutions_are_computed_in_the_way_that_is_made_for_them():
    layers = nn.Conv3d(16, 32, 3), nn.Conv3d(32, 3, 3), nn.Conv3d(3, 32, 3), nn.Conv3d(32, 32, 2, 2)
    plain = [nn.Conv3d] * 4
    assert arranged(*layers) == [Winograd, ThinConv, nn.Conv3d, nn.Conv3d]
    assert arranged(*layers, winograd=False) == [nn.Conv3d, ThinConv, nn.Conv3d, nn.Conv3d]
    assert arranged(*layers, cpu=False) == plain
    assert arranged(*layers, memory_format=torch.contiguous_format) == plain
    others = (
        nn.Conv3d(16, 16, 3, padding=1), nn.Conv3d(16, 16, 3, dilation=2),
        nn.Conv3d(16, 16, 3, groups=2), nn.Conv3d(16, 16, 5), nn.Conv2d(16, 2, 3),
    )  # fmt: skip
    assert arranged(*others) == [type(layer) for layer in others]


def test_only_convolutions_that_move_cell_by_cell_are_closed_into_rings():
    model = nn.Sequential(nn.Conv3d(1, 1, 3), nn.Conv3d(1, 1, 2, stride=2))
    model.footprint = Footprint(2)
    net = arrange(model, (0,), LAST, cpu=True, winograd=False)
    assert [type(layer) for layer in net] == [SlabConv, nn.Conv3d]
    assert net.footprint == Footprint(0)
    for conv in nn.Conv3d(1, 1, 3, padding=1), nn.Conv3d(1, 1, 3, stride=2):
        with pytest.raises(GeometryError, match=r"the convolution \.0 cannot be closed"):
            arrange(nn.Sequential(conv), (0,), LAST, cpu=True, winograd=False)
