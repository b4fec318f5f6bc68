"""The blocks and models against layers written out by hand, and map2map's published counts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import measure
from map2map.models import ConvBlock, ConvNet, ResBlock, UNet, VNet
from map2map.models.conv import (
    Resampler,
    narrow_by,
    narrow_cast,
    narrow_like,
    resample,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.uniform_(-0.5, 0.5)
    for key, buffer in module.named_buffers():
        if "running" in key:
            buffer.uniform_(0.5, 1.5)
    return module.double().eval()


# --- blocks -------------------------------------------------------------------------------------


def test_a_word_is_a_sequence_of_layers():
    block = randomize(ConvBlock(2, 5, seq="ACBACUDB", ndim=2))
    w = block.state_dict()
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)

    def norm(y, i):
        mean, var = w[f"convs.{i}.running_mean"], w[f"convs.{i}.running_var"]
        return F.batch_norm(y, mean, var, w[f"convs.{i}.weight"], w[f"convs.{i}.bias"])

    y = F.leaky_relu(x, 0.01)
    y = norm(F.conv2d(y, w["convs.1.weight"], w["convs.1.bias"]), 2)
    y = F.leaky_relu(y, 0.01)
    y = F.conv2d(y, w["convs.4.weight"], w["convs.4.bias"])
    y = F.conv_transpose2d(y, w["convs.5.weight"], w["convs.5.bias"], stride=2)
    y = norm(F.conv2d(y, w["convs.6.weight"], w["convs.6.bias"], stride=2), 7)
    torch.testing.assert_close(block(x), y)


@pytest.mark.parametrize(
    ("args", "channels"),
    [
        ((2, 5), [(2, 5), (5, 5), (5, 5)]),
        ((5, 2), [(5, 5), (5, 5), (5, 2)]),
        ((4,), [(4, 4), (4, 4), (4, 4)]),
        ((2, 5, 7), [(2, 7), (7, 7), (7, 5)]),
        ((2, None, 7), [(2, 7), (7, 7), (7, 2)]),
    ],
)
def test_channels_change_at_the_first_and_the_last_convolution(args, channels):
    block = ConvBlock(*args, seq="CACAC", ndim=1)
    assert [(c.in_channels, c.out_channels) for c in block.convs[::2]] == channels


def test_a_single_convolution_takes_and_gives():
    (conv,) = ConvBlock(2, 5, 7, kernel_size=5, stride=3, seq="C", ndim=3).convs
    assert (conv.in_channels, conv.out_channels) == (2, 5)
    assert (conv.kernel_size, conv.stride) == ((5,) * 3, (3,) * 3)


@pytest.mark.parametrize("seq", ["ACBA", "AB", "BA", "CA"])
@pytest.mark.parametrize("kind", [ConvBlock, ResBlock])
def test_a_block_leaves_its_input_alone(kind, seq):
    x = torch.randn(1, 2, 8)
    kept = x.clone()
    kind(2, seq=seq, ndim=1)(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: ConvBlock(2, seq="CXA"), "unknown letter 'X' in `seq` 'CXA'.*C, U, D, B, A"),
        (lambda: ResBlock(2, seq="CUA"), "unknown letter 'U'.*a ResBlock knows C, B, A"),
        (lambda: ConvBlock(2, seq=""), "`seq` of a ConvBlock is empty"),
        (lambda: ConvBlock(2, 3, seq="BA"), "cannot turn 2 channels into 3"),
        (lambda: ConvBlock(2, ndim=4), "1, 2 or 3 axes"),
        (lambda: ResBlock(2, stride=2), "`stride` of a ResBlock"),
        (lambda: UNet(3, 1, bypass=True), "3 and 1 channels"),
        (lambda: VNet(3, 1, bypass=True), "3 and 1 channels"),
        (lambda: UNet(3, 1, depth=0), "at least 1"),
        (lambda: ConvNet(3, 1, width=0), "at least 1"),
        (lambda: ConvNet(3, 1, kernel_size=4), "must be odd"),
    ],
)
def test_what_cannot_be_built_is_refused(block, message):
    with pytest.raises(RecipeError, match=message):
        block()


@pytest.mark.parametrize(
    ("seq", "last_act", "before", "after"),
    [
        ("CACA", None, "CAC", True),
        ("CACA", True, "CAC", True),
        ("CACA", False, "CACA", False),
        ("CAC", None, "CAC", False),
    ],
)
@pytest.mark.parametrize("out_chan", [None, 3, 4])
def test_a_residual_block_adds_its_narrowed_input(seq, last_act, before, after, out_chan):
    block = randomize(ResBlock(3, out_chan, seq=seq, ndim=1, last_act=last_act))
    w = block.state_dict()
    x = torch.randn(2, 3, 9, dtype=torch.float64)
    y = x
    for i, letter in enumerate(before):
        if letter == "C":
            y = F.conv1d(y, w[f"convs.{i}.weight"], w[f"convs.{i}.bias"])
        else:
            y = F.leaky_relu(y, 0.01)
    skip = x if out_chan is None else F.conv1d(x, w["skip.weight"], w["skip.bias"])
    y = y + skip[..., 2:-2]
    y = F.leaky_relu(y, 0.01) if after else y
    torch.testing.assert_close(block(x), y)
    assert ("skip.weight" in w) == (out_chan is not None)


def test_an_activation_that_is_not_there_cannot_be_last():
    with pytest.warns(RuntimeWarning, match="no effect on 'CAC'"):
        block = ResBlock(2, seq="CAC", ndim=1, last_act=True)
    assert isinstance(block.act, nn.Identity)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("seq", ["CBA", "CACBA"])
def test_a_residual_block_narrows_its_input_to_the_middle(seq, kernel_size):
    block = ResBlock(2, kernel_size=kernel_size, seq=seq, ndim=2).eval()
    x = torch.randn(1, 2, 11, 9)
    y = block.convs(x)
    torch.testing.assert_close(block(x), block.act(narrow_like(x, y) + y))


# --- narrowing ----------------------------------------------------------------------------------


def test_narrowing_by_nothing_returns_everything():
    x = torch.arange(7.0).reshape(1, 1, 7)
    assert torch.equal(narrow_by(x, 0), x)
    assert narrow_by(x, 2).flatten().tolist() == [2, 3, 4]
    with pytest.raises(GeometryError, match="cannot cut the 7 cells of axis 0 to -1"):
        narrow_by(x, 4)


def test_an_odd_surplus_is_lost_on_the_high_side():
    x, small = torch.arange(7.0).reshape(1, 1, 7), torch.zeros(1, 5, 4)
    assert narrow_like(x, small).flatten().tolist() == [1, 2, 3, 4]
    with pytest.raises(GeometryError, match="4 cells of axis 0 to 7"):
        narrow_like(small, x)
    with pytest.raises(GeometryError, match="unequal dimensions"):
        narrow_like(x, torch.zeros(1, 1, 2, 2))


def test_all_are_narrowed_to_the_smallest_on_each_axis():
    x, y = narrow_cast(
        torch.arange(24.0).reshape(1, 1, 4, 6), torch.arange(10.0).reshape(1, 1, 5, 2)
    )
    assert x[0, 0].tolist() == [[2, 3], [8, 9], [14, 15], [20, 21]]
    assert y[0, 0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_resampling_a_ramp_gives_the_ramp_at_the_centers_of_smaller_cells(ndim):
    centers = torch.arange(6, dtype=torch.float64) + 0.5
    x = centers.expand(1, 1, *[6] * ndim)
    fine = (torch.arange(24, dtype=torch.float64) + 0.5) / 4
    expected = fine[2:-2].expand(1, 1, *[20] * ndim)
    torch.testing.assert_close(resample(x, 4), expected)
    torch.testing.assert_close(Resampler(ndim, 4)(x), expected)
    assert resample(x, 2, narrow=False).shape[-1] == 12
    assert resample(x, 2).shape[-1] == 10
    assert resample(x, 0.5).shape[-1] == 3


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("factor", [3, 5, 6, 12])
@pytest.mark.parametrize("cells", [1, 4])
def test_resampling_by_any_whole_factor_is_that_of_pytorch_on_small_arrays(ndim, factor, cells):
    x = torch.randn(2, 3, *[cells] * ndim, generator=torch.manual_seed(0), dtype=torch.float64)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[ndim]
    expected = F.interpolate(x, scale_factor=factor, mode=mode, align_corners=False)
    torch.testing.assert_close(resample(x, factor, narrow=False), expected, rtol=0, atol=1e-13)
    if cells > 1:
        cut = (..., *[slice(factor // 2, -(factor // 2))] * ndim)
        torch.testing.assert_close(resample(x, factor), expected[cut], rtol=0, atol=1e-13)


@pytest.mark.parametrize("factor", [2, 3, 6, 8])
def test_resampling_does_not_depend_on_where_in_an_array_cells_lie(factor):
    x = torch.randn(1, 1, 30_000, generator=torch.manual_seed(0))
    part = resample(x[..., -10:], factor)
    assert torch.equal(resample(x, factor)[..., -part.shape[-1] :], part)


# --- models -------------------------------------------------------------------------------------

COUNTS = {
    UNet: {(3, 3): 1_808_003, (3, 1): 1_801_089, (1, 1): 1_797_633, (6, 3): 1_813_187},
    VNet: {(3, 3): 1_825_222, (3, 1): 1_818_050, (1, 1): 1_814_466, (6, 3): 1_830_598},
}


@pytest.mark.parametrize("channels", [(3, 3), (3, 1), (1, 1), (6, 3)])
@pytest.mark.parametrize("kind", [UNet, VNet])
def test_models_have_as_many_parameters_as_in_map2map(kind, channels):
    model = kind(*channels)
    assert count(model) == COUNTS[kind][channels]
    assert sum(b.numel() for b in model.buffers()) == 1547


BLOCKS = {  # positions in map2map's words: C, U, D and B have parameters
    "conv_l0": ("C0 C2 B3", True), "down_l0": ("D0 B1", False),
    "conv_l1": ("C0 B1 C3 B4", True), "down_l1": ("D0 B1", False),
    "conv_c": ("C0 B1 C3 B4", True),
    "up_r1": ("U0 B1", False), "conv_r1": ("C0 B1 C3 B4", True),
    "up_r0": ("U0 B1", False), "conv_r0": ("C0 C2", True),
}  # fmt: skip


@pytest.mark.parametrize("kind", [UNet, VNet])
def test_states_have_the_names_of_map2map(kind):
    expected = set()
    for block, (layers, residual) in BLOCKS.items():
        for layer in layers.split():
            kinds = ["weight", "bias"]
            if layer[0] == "B":
                kinds += ["running_mean", "running_var", "num_batches_tracked"]
            expected |= {f"{block}.convs.{layer[1]}.{name}" for name in kinds}
        if residual and kind is VNet:
            expected |= {f"{block}.skip.weight", f"{block}.skip.bias"}
    model = kind(3, 3, width=2)
    assert set(model.state_dict()) == expected
    assert [name for name, _ in model.named_children()] == list(BLOCKS)


def test_deeper_models_continue_the_names():
    names = " ".join(dict(UNet(1, 1, ndim=1, width=2, depth=3).named_children()))
    assert names == (
        "conv_l0 down_l0 conv_l1 down_l1 conv_l2 down_l2 conv_c "
        "up_r2 conv_r2 up_r1 conv_r1 up_r0 conv_r0"
    )


@pytest.mark.parametrize("bypass", [None, True, False])
@pytest.mark.parametrize("kind", [UNet, VNet])
def test_a_model_is_its_blocks_with_crops_of_4_and_16_and_the_input_cut_by_20(kind, bypass):
    model = randomize(kind(2, 2, ndim=2, width=3, bypass=bypass))
    m = dict(model.named_children())
    x = torch.randn(1, 2, 48, 44, dtype=torch.float64)
    left0 = m["conv_l0"](x)
    left1 = m["conv_l1"](m["down_l0"](left0))
    y = m["up_r1"](m["conv_c"](m["down_l1"](left1)))
    y = m["conv_r1"](torch.cat([left1[..., 4:-4, 4:-4], y], dim=1))
    y = m["up_r0"](y)
    y = m["conv_r0"](torch.cat([left0[..., 16:-16, 16:-16], y], dim=1))
    if bypass is not False:
        y = y + x[..., 20:-20, 20:-20]
    torch.testing.assert_close(model(x), y)
    assert y.shape[2:] == (8, 4)


@pytest.mark.parametrize("kind", [UNet, VNet])
def test_unequal_channels_are_not_bypassed(kind):
    model = randomize(kind(1, 2, ndim=1, width=2))
    assert not model.adds_input


@pytest.mark.parametrize("kind", [UNet, VNet])
def test_without_batch_norm_there_are_no_buffers(kind):
    assert not list(kind(2, 2, ndim=1, width=2, batch_norm=False).buffers())


@pytest.mark.parametrize(("depth", "margin"), [(1, 8), (2, 20), (3, 44), (4, 92)])
def test_the_margin_of_any_depth_is_as_measured(depth, margin):
    model = VNet(1, 2, ndim=1, width=2, depth=depth)
    assert model.footprint.margin == margin
    assert measure(model, 1, 1) == model.footprint


def test_sizes_that_do_not_fit_are_named_with_those_that_do():
    model = UNet(1, 1, ndim=2, width=2)
    with pytest.raises(GeometryError, match=r"UNet cannot take 46 cells.*44, 48, ….*44 or 48"):
        model(torch.zeros(1, 1, 46, 44))
    with pytest.raises(GeometryError, match=r"UNet cannot take 40 cells.*the nearest is 44"):
        model(torch.zeros(1, 1, 44, 40))


def test_a_conv_net_is_a_stack_of_convolutions():
    model = randomize(ConvNet(2, 1, ndim=1, width=3, depth=2, kernel_size=5))
    w = model.state_dict()
    x = torch.randn(1, 2, 12, dtype=torch.float64)
    y = F.leaky_relu(F.conv1d(x, w["convs.0.weight"], w["convs.0.bias"]), 0.01)
    torch.testing.assert_close(model(x), F.conv1d(y, w["convs.2.weight"], w["convs.2.bias"]))
