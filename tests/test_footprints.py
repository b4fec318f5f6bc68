"""Footprints: their arithmetic, and that they are measured right on networks made by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from map2map.errors import GeometryError
from map2map.footprints import Footprint, footprint_of, measure
from map2map.models.conv import ConvBlock, Resampler
from map2map.windows import Halo


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny, and threads that wait for each other slow them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class SameUNet(nn.Module):
    """Convolutions that pad, pooling, nearest upsampling, dead-able ReLUs."""

    def __init__(self, ndim=1, width=3, levels=2, chan=4):
        super().__init__()
        self.levels, conv = levels, CONV[ndim]
        pad = {"padding": width // 2}
        self.down = nn.ModuleList(
            conv(chan if i else 2, chan, width, **pad) for i in range(levels + 1)
        )
        self.up = nn.ModuleList(conv(2 * chan, chan, width, **pad) for _ in range(levels))
        self.pool, self.grow = POOL[ndim](2), nn.Upsample(scale_factor=2)

    def forward(self, x):
        skips = []
        for conv in self.down[:-1]:
            skips.append(F.relu(conv(x)))
            x = self.pool(skips[-1])
        x = F.relu(self.down[-1](x))
        for conv in self.up:
            x = F.relu(conv(torch.cat([self.grow(x), skips.pop()], 1)))
        return x


def same_unet_margin(width, levels):
    """Cells that a block of 2^levels outputs sees beyond itself, counted layer by layer."""
    half = width // 2
    low, high = 0, 2**levels - 1  # cells that are needed, first of the output
    for _ in range(levels):  # a convolution on the way up, and the larger cells it stands on
        low, high = (low - half) // 2, (high + half) // 2
    low, high = low - half, high + half
    for _ in range(levels):  # the smaller cells that were pooled, and a convolution
        low, high = 2 * low - half, 2 * high + 1 + half
    return max(-low, high - (2**levels - 1))


class Classic(nn.Module):
    """Ronneberger's U-Net: pairs of valid convolutions, pooling; 572 cells give 388."""

    def __init__(self, depth=4):
        super().__init__()
        self.left = nn.ModuleList(ConvBlock(2, seq="CACA", ndim=1) for _ in range(depth + 1))
        self.right = nn.ModuleList(ConvBlock(4, 2, seq="CACA", ndim=1) for _ in range(depth))
        self.up = nn.ModuleList(nn.ConvTranspose1d(2, 2, 2, stride=2) for _ in range(depth))

    def forward(self, x):
        skips = []
        for block in self.left[:-1]:
            skips.append(block(x))
            if skips[-1].shape[-1] % 2:
                raise ValueError("odd")
            x = F.max_pool1d(skips[-1], 2)
        x = self.left[-1](x)
        for up, block in zip(self.up, self.right, strict=True):
            x, skip = up(x), skips.pop()
            surplus = skip.shape[-1] - x.shape[-1]
            x = block(torch.cat([skip[..., surplus // 2 : skip.shape[-1] - surplus // 2], x], 1))
        return x


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        y = x.transpose(1, 2)
        return self.attend(y, y, y, need_weights=False)[0].transpose(1, 2)


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(x)


# --- arithmetic ---------------------------------------------------------------------------------

footprints = st.builds(
    lambda cut, padded, multiple, scale, remainder: Footprint(
        margin=-(-cut // scale) + padded,
        multiple=multiple,
        scale=scale,
        cut=cut,
        remainder=remainder % multiple,
    ),
    cut=st.integers(0, 40),
    padded=st.integers(0, 30),
    multiple=st.sampled_from([1, 2, 3, 4, 8, 16]),
    scale=st.sampled_from([1, 2, 8]),
    remainder=st.integers(0, 15),
)


@given(footprint=footprints, crop=st.integers(1, 70))
def test_the_input_of_a_crop_fits_and_its_output_holds_the_crop(footprint, crop):
    halo, kept = footprint.halo_for((crop,)), footprint.kept((crop,))[0]
    size = halo.low[0] + crop + halo.high[0]
    assert 0 <= kept.start < kept.stop <= footprint.output_size(size)
    # cell `start` of the output lies `cut` cells into the input, and the crop `low` cells
    assert footprint.cut + kept.start == footprint.scale * halo.low[0]
    assert kept.stop - kept.start == footprint.scale * crop
    assert min(halo.low[0], halo.high[0]) >= footprint.margin


@given(footprint=footprints, crop=st.integers(1, 70))
def test_the_input_of_a_crop_is_never_larger_than_one_multiple_too_much(footprint, crop):
    spare = footprint.input_size(crop) - crop - 2 * footprint.margin
    rounded = 1 if footprint.is_valid else 3  # the start, the end and the size
    assert spare < rounded * footprint.multiple


def test_the_halo_of_a_u_net_that_cuts_is_its_margin_if_the_crop_fits():
    unet = Footprint(margin=20, multiple=4)
    assert unet.halo_for((32, 48, 4)) == Halo((20,) * 3, (20,) * 3)
    assert unet.halo_for((30,)) == Halo((20,), (22,))
    assert [unet.output_size(n) for n in (44, 72, 104)] == [4, 32, 64]


def test_the_halo_of_a_u_net_that_pads_is_rounded_up_to_the_multiple():
    padded = Footprint(margin=22, multiple=4, cut=0)
    assert padded.halo_for((16,)) == Halo((24,), (24,))
    assert padded.halo_for((14,)) == Halo((24,), (26,))
    assert padded.kept((14,)) == (slice(24, 38),)


def test_the_smallest_size_is_one_that_fits_and_leaves_an_output():
    assert Footprint(margin=22, multiple=8, cut=0, minimum=4).minimum == 8
    assert Footprint(margin=44, multiple=8, remainder=4).minimum == 92
    assert Footprint(margin=3, scale=8, cut=21).minimum == 6


def test_super_resolution_keeps_the_cells_that_belong_to_the_crop():
    eightfold = Footprint(margin=3, scale=8, cut=21)  # srsgan: n + 2·3 cells give 8 n + 6
    assert eightfold.input_size(10) == 16
    assert eightfold.output_size(16) == 86
    assert eightfold.kept((10,)) == (slice(3, 83),)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"margin": -1}, "`margin` must be 0 or more"),
        ({"margin": 1, "multiple": 0}, "`multiple` and `scale` 1 or more"),
        ({"margin": 1, "cut": 2}, "`cut` cannot be more"),
        ({"margin": 1, "multiple": 2, "remainder": 2}, "`remainder` must be from 0 to 1"),
    ],
)
def test_a_footprint_that_makes_no_sense_is_refused(bad, message):
    with pytest.raises(GeometryError, match=message):
        Footprint(**bad)


def test_messages_name_the_sizes_that_fit():
    unet = Footprint(margin=20, multiple=4)
    with pytest.raises(GeometryError, match=r"46 cells.*44, 48, ….*44 or 48"):
        unet.output_size(46)
    with pytest.raises(GeometryError, match=r"the nearest is 44"):
        unet.output_size(20)
    with pytest.raises(GeometryError, match=r"Net cannot take 45 cells \(axis 1 of \(44, 45\)\)"):
        unet.check_input((1, 3, 44, 45), ndim=2, who="Net")
    with pytest.raises(GeometryError, match="2 axes of space"):
        unet.check_input((1, 3, 44), ndim=2, who="Net")
    with pytest.raises(GeometryError, match="at least one cell"):
        unet.halo_for((0,))


def test_a_model_that_sees_the_whole_domain_is_not_tiled():
    Footprint(3).require_local("Net")
    with pytest.raises(GeometryError, match=r"Net cannot be tiled.*GroupNorm"):
        Footprint(0, whole="GroupNorm spreads every cell").require_local("Net")


# --- measured -----------------------------------------------------------------------------------

conv2 = nn.Conv2d
LOCAL = {
    "identity": (nn.Identity(), 2, Footprint(0)),
    "valid": (conv2(2, 2, 5), 2, Footprint(2)),
    "same": (conv2(2, 2, 5, padding=2), 2, Footprint(2, cut=0)),
    "unequal axes": (conv2(2, 2, (1, 5), padding=(0, 2)), 2, Footprint(2, cut=0)),
    "dilated": (conv2(2, 2, 3, padding=40, dilation=40), 2, Footprint(40, cut=0)),
    "half padded": (conv2(2, 2, 7, padding=1), 2, Footprint(3, cut=2)),
    "causal": (nn.Sequential(nn.ConstantPad1d((2, 0), 0), nn.Conv1d(2, 2, 3)), 1,
               Footprint(2, cut=0)),
    "frozen norm": (nn.Sequential(conv2(2, 3, 3), nn.BatchNorm2d(3)), 2, Footprint(1)),
    "hides NaN": (Function(lambda x: F.pad(torch.nan_to_num(x), (1, 0))[..., :-1]), 1,
                  Footprint(1, cut=0)),
    "blocks": (nn.Sequential(nn.AvgPool3d(2), nn.Upsample(scale_factor=2)), 3,
               Footprint(0, multiple=2)),
    "pixel shuffle": (nn.Sequential(conv2(2, 8, 3, padding=1), nn.PixelShuffle(2)), 2,
                      Footprint(1, scale=2, cut=0)),
    "super-resolution": (nn.Sequential(Resampler(3, 2), nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 3)), 3,
                         Footprint(2, scale=2, cut=3, minimum=4)),
    "classic": (Classic(), 1, Footprint(92, multiple=16, remainder=12)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCAL)
def test_a_known_footprint_is_measured(name):
    module, ndim, expected = LOCAL[name]
    assert measure(module, 2, ndim) == expected


@pytest.mark.parametrize(("ndim", "width", "levels"), [(1, 5, 2), (1, 3, 3), (1, 3, 1), (2, 3, 2)])
def test_a_padded_u_net_is_measured_as_counted_by_hand(ndim, width, levels):
    found = measure(SameUNet(ndim, width, levels), 2, ndim)
    margin = same_unet_margin(width, levels)
    assert found == Footprint(margin, multiple=2**levels, cut=0)


def test_a_padded_u_net_tiles_exactly_with_the_measured_halo_and_not_with_less():
    torch.manual_seed(0)
    model = SameUNet(1, 5, 2, chan=8).double().eval()
    footprint = measure(model, 2, 1)
    field = np.random.default_rng(0).normal(size=(1, 2, 160))
    whole = model(torch.from_numpy(field)).detach()[..., 48:64]
    halo = footprint.halo_for((16,))

    def tile(low, high):
        return model(torch.from_numpy(field[..., 48 - low : 64 + high])).detach()[
            ..., low : low + 16
        ]

    assert (halo.low, halo.high) == ((24,), (24,))
    torch.testing.assert_close(tile(24, 24), whole)
    torch.testing.assert_close(tile(28, 28), whole)
    assert (tile(25, 27) - whole).abs().max() > 0.1 * whole.std(), "another phase of the pooling"
    assert (tile(16, 16) - whole).abs().max() > 1e-6 * whole.std(), "too small a halo"


WHOLE = {
    "group norm": (nn.Sequential(conv2(2, 4, 3, padding=1), nn.GroupNorm(2, 4), conv2(4, 2, 3)), 2,
                   r"GroupNorm \('1'\)"),
    "instance norm": (nn.Sequential(nn.Conv3d(2, 2, 3), nn.InstanceNorm3d(2)), 3,
                      r"InstanceNorm3d \('1'\)"),
    "batch statistics": (nn.BatchNorm2d(2, track_running_stats=False), 2, "BatchNorm2d"),
    "global pooling": (SqueezeExcite(), 2, r"AdaptiveAvgPool2d \('gate.0'\)"),
    "attention": (Attention(), 1, r"MultiheadAttention \('attend'\)"),
    "spectral": (Function(lambda x: torch.fft.irfft(torch.fft.rfft(x).real * 2, n=x.shape[-1])), 1,
                 "Function"),
    "one number": (nn.Sequential(conv2(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2,
                   r"AdaptiveAvgPool2d \('1'\)"),
    "one size": (nn.Sequential(nn.Conv1d(2, 2, 3), nn.Flatten(), nn.Linear(12, 3)), 1,
                 r"Linear \('2'\)"),
    "positions": (Function(lambda x: x * torch.arange(x.shape[-1])), 1, "positions"),
    "noise": (Function(lambda x: x + torch.randn_like(x)), 1, "random"),
    "far": (nn.Conv1d(2, 2, 3001, padding=1500), 1, "reaches more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_what_sees_the_whole_domain_is_found_and_named(name):
    module, ndim, cause = WHOLE[name]
    footprint = measure(module, 2, ndim)
    with pytest.raises(GeometryError, match=cause):
        footprint.require_local(name)


def test_whole_domain_models_say_what_they_cut_off():
    found = measure(nn.Sequential(nn.Conv2d(2, 2, 5), nn.InstanceNorm2d(2)), 2, 2)
    assert (found.margin, found.cut, found.output_size(9)) == (2, 2, 5)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(3, 2, 3), "takes no 2-D input of 2 channels.*to have 3 channels"),
        (nn.Conv2d(2, 2, 2), "less a cut that is the same on both sides"),
        (nn.Conv2d(2, 2, 2, stride=2), "no footprint describes Conv2d"),
    ],
)
def test_what_no_footprint_describes_is_refused(module, message):
    with pytest.raises(GeometryError, match=message):
        measure(module, 2, 2)


def test_measuring_works_where_values_matter_and_changes_nothing():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3, padding=1)

        def forward(self, x):
            if not np.isfinite(x.sum().item()):
                raise ValueError("not finite")
            return self.conv(x)

    module = Looks()
    nn.init.zeros_(module.conv.weight)
    before, draw = module.conv.weight.clone(), torch.get_rng_state()
    assert measure(module, 2, 1) == Footprint(1, cut=0)
    assert module.training
    assert torch.equal(module.conv.weight, before)
    assert torch.equal(torch.get_rng_state(), draw)


class Mean(nn.Module):
    """Weighted means of neighbors, by how many neighbors these have: fewer at the edges."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(2, 3, 1)

    def forward(self, x):
        kernel = torch.ones(1, 1, 3, 3)
        count = F.conv2d(torch.ones_like(x[:, :1]), kernel, padding=1)
        return F.conv2d(self.mix(x).sum(1, keepdim=True) / count, kernel, padding=1)


def test_an_edge_that_is_seen_from_further_away_than_values_are_is_hidden():
    assert measure(Mean(), 2, 2) == Footprint(2, cut=0)


class Ranked(nn.Module):
    """Leaves out what is below the middle value, which a single NaN hardly moves."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        middle = y.sort(dim=-1).values[..., y.shape[-1] // 2, None]
        return torch.where(y < middle, 0, y)


def test_a_model_that_ranks_cells_sees_the_whole_domain():
    found = measure(Ranked(), 2, 1)
    assert found.whole is not None
    with pytest.raises(GeometryError, match="whole domain"):
        found.require_local("Ranked")


def test_a_stated_footprint_goes_before_a_measured_one():
    module = nn.Conv1d(2, 2, 3)
    assert footprint_of(module, 2, 1) == Footprint(1)
    module.footprint = Footprint(7)
    assert footprint_of(module, 2, 1) == Footprint(7)


def test_a_model_of_one_grid_takes_that_one_and_is_not_tiled():
    f = Footprint(0, sizes=(24, 48))
    assert (f.minimum, f.whole) == (24, "its weights know positions")
    assert [f.accepts(n) for n in (24, 48, 36, 96)] == [True, True, False, False]
    assert f.sizes_near(36) == "it takes 24 x 48 cells only"
    assert f.halo_for((24, 48)) == Halo((0, 0), (0, 0))
    f.check_input((5, 1, 24, 48), ndim=2, who="Net")
    with pytest.raises(GeometryError, match=r"Net cannot take 48 x 24 cells.*24 x 48 cells only"):
        f.check_input((5, 1, 48, 24), ndim=2, who="Net")
    with pytest.raises(GeometryError, match="Net takes"):
        f.check_input((1, 24, 48), ndim=2, who="Net")
    with pytest.raises(GeometryError, match="Net cannot be tiled exactly"):
        f.require_local("Net")


@pytest.mark.parametrize("bad", [{"margin": 1, "sizes": (3, 4)}, {"sizes": ()}, {"sizes": (0, 3)},
                                 {"multiple": 2, "sizes": (4, 4)}])  # fmt: skip
def test_a_footprint_of_one_grid_that_contradicts_itself_is_refused(bad):
    with pytest.raises(GeometryError, match="inputs of one shape"):
        Footprint(**({"margin": 0} | bad))
