"""Networks of columns: what channels mean, the networks described, and that columns are alone."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.foreign_weights import in_order
from map2map.grids import Domain
from map2map.models import ColumnAttention, ColumnCNN, ColumnMLP, ColumnUNet, Profile
from map2map.models.columns import common_levels, from_rows, profiles_of, stack, to_rows, unstack

THEIRS = runpy.run_path(str(Path(__file__).with_name("ai4sim_networks.py")))
settled, count = THEIRS["settled"], THEIRS["count"]
DRAG = [Profile(63), Profile(63), Profile(63), Profile(1), Profile(1)]
RADIATION = [
    Profile(138, 2, level_first=True),
    Profile(136, 1, above=1, below=1),
    Profile(137, 27, above=1, level_first=True),
    Profile(1, 17),
]
CHANNELS = 2 * 138 + 136 + 27 * 137 + 17


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_networks_have_as_many_parameters_as_described():
    assert count(ColumnMLP(191, 126)) == 213_118
    assert count(ColumnMLP(191, 126, width=128)) == 73_854
    assert count(ColumnMLP(191, 126, width=10)) == 3_526
    assert count(ColumnCNN(191, 126, inputs=DRAG)) == 77_248
    options = {"inputs": RADIATION, "outputs": [Profile(138, 4), Profile(137, 2, above=1)]}
    chans = CHANNELS, 4 * 138 + 2 * 137
    assert count(ColumnUNet(*chans, **options, head=False)) == 169_040
    assert count(ColumnUNet(*chans, **options, head=False, upsample="linear")) == 158_800
    for (width, levels), parameters in {
        (32, 1): 8_496, (32, 2): 40_848, (32, 4): 679_376, (64, 3): 661_520, (4, 2): 1_424
    }.items():  # fmt: skip
        sizes = {"width": width, "levels": levels}
        assert count(ColumnUNet(*chans, **options, **sizes, head=False)) == parameters
    fluxes = [Profile(138, 2), Profile(138, 2)]
    network = ColumnAttention(CHANNELS, 4 * 138, inputs=RADIATION, outputs=fluxes)
    assert count(network) == 1_065_360


def test_channels_are_profiles_as_they_say():
    """Channel by channel, against where each belongs."""
    profiles = [
        Profile(3, 2, above=1),
        Profile(1, 2),
        Profile(2, 2, above=1, below=1, level_first=True),
    ]
    assert common_levels(profiles) == 4
    rows = torch.arange(1.0, 13)[None]
    assert stack(rows, profiles, 4)[0].tolist() == [
        [0, 1, 2, 3],
        [0, 4, 5, 6],
        [7, 7, 7, 7],
        [8, 8, 8, 8],
        [0, 9, 11, 0],
        [0, 10, 12, 0],
    ]
    kept = [profiles[0], profiles[2]]
    y = torch.arange(16.0).reshape(1, 4, 4)
    assert unstack(y, kept)[0].tolist() == [1, 2, 3, 5, 6, 7, 9, 13, 10, 14]
    x = torch.randn(5, 10)
    assert torch.equal(unstack(stack(x, kept, 4), kept), x)


def test_rows_are_the_cells_of_a_grid():
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    rows = to_rows(x)
    assert rows.shape == (8, 3)
    assert rows[5].tolist() == x[1, :, 0, 1].tolist()
    assert torch.equal(from_rows(rows, x), x)


def small(kind, ndim):
    """Of 7 and 8 levels and a scalar; two features of 6 levels come out."""
    inputs = [Profile(7, above=1), Profile(8, level_first=True), Profile(1)]
    outputs = [Profile(6, 2, above=1, below=1, level_first=True)]
    options = {"width": 4, "heads": 2, "levels": 3, "inputs": inputs, "outputs": outputs}
    known = kind.__init__.__annotations__
    torch.manual_seed(0)
    return kind(16, 12, ndim=ndim, **{k: v for k, v in options.items() if k in known})


@pytest.mark.parametrize("kind", [ColumnMLP, ColumnCNN, ColumnUNet, ColumnAttention])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_column_is_computed_from_itself_alone(kind, ndim):
    model = settled(small(kind, ndim))
    assert model.footprint.margin == 0
    x = torch.randn(2, 16, *(3, 4, 2)[:ndim], dtype=torch.float64)
    y = model(x)
    assert y.shape == (2, 12, *x.shape[2:])
    one = model(x[(slice(1, 2), slice(None), *[slice(1, 2)] * ndim)])
    torch.testing.assert_close(one.flatten(), y[(1, slice(None), *[1] * ndim)])
    assert y.std(dim=(0, *range(2, ndim + 2))).min() > 1e-6
    with pytest.raises(GeometryError, match=f"{kind.__name__} takes"):
        model(x[..., 0])


def test_the_mlp_is_the_network_described():
    theirs = settled(THEIRS["MLP"](11, 8, 5))
    ours = ColumnMLP(11, 5, width=8).double()
    ours.load_state_dict(in_order(theirs.state_dict(), ours))
    x = torch.randn(7, 11, dtype=torch.float64)
    torch.testing.assert_close(ours(x.T[None])[0].T, theirs(x))


@pytest.mark.parametrize(("features", "kernel", "pool"), [(16, 1, 2), (8, 3, 2), (3, 4, 3)])
def test_the_cnn_is_the_network_described_for_any_features_kernel_and_pool(features, kernel, pool):
    theirs = settled(THEIRS["CNN"](features, kernel, pool))
    ours = ColumnCNN(191, 126, inputs=DRAG, width=features, kernel_size=kernel, pool=pool).double()
    ours.load_state_dict(in_order(theirs.state_dict(), ours))
    x = torch.randn(7, 191, dtype=torch.float64)
    torch.testing.assert_close(ours(x.T[None])[0].T, theirs(x))


def test_the_unet_is_the_network_described_on_138_levels():
    """Of (column, level, 47), whose padded rows are zeros."""
    theirs = settled(THEIRS["TheirUNet"](47, 6, 1, root=4))
    nn.init.constant_(theirs.final[4].bias, 0.5)
    outputs = [*[Profile(138)] * 4, *[Profile(137, above=1)] * 2]
    ours = ColumnUNet(
        CHANNELS, 4 * 138 + 2 * 137, inputs=RADIATION, outputs=outputs, width=4, head=False
    ).double()
    ours.load_state_dict(in_order(theirs.state_dict(), ours))
    x = torch.randn(3, 138, 47, dtype=torch.float64)
    x[:, [0, -1], 2] = 0
    x[:, 0, 3:30] = 0
    x[:, :, 30:] = x[:, :1, 30:]
    parts = [x[:, :, :2], x[:, 1:-1, 2], x[:, 1:, 3:30], x[:, 0, 30:]]
    rows = torch.cat([part.flatten(1) for part in parts], dim=1)
    y = ours.eval()(rows.T[None])[0].T
    expected = theirs(x.swapaxes(1, 2))
    torch.testing.assert_close(y[:, : 4 * 138], expected[:, :4].flatten(1))
    torch.testing.assert_close(y[:, 4 * 138 :], expected[:, 4:, 1:].flatten(1))


@pytest.mark.parametrize(("hidden", "heads", "kernel"), [(16, 8, 5), (12, 2, 3)])
def test_the_attention_network_is_the_network_described(hidden, heads, kernel):
    theirs = settled(THEIRS["AttentionCNN"](hidden, heads, kernel))
    options = {"width": hidden, "heads": heads, "kernel_size": kernel}
    ours = ColumnAttention(
        47 * 20, 80, inputs=[Profile(20, 47)], outputs=[Profile(20, 2)] * 2, **options
    ).double()
    ours.load_state_dict(in_order(theirs.state_dict(), ours))
    x = torch.randn(3, 47, 20, dtype=torch.float64)
    y = ours(x.flatten(1).T[None])[0].T.reshape(3, 2, 2, 20)
    for band, expected in enumerate(theirs(x)):
        torch.testing.assert_close(y[:, band], expected.swapaxes(1, 2))


def test_attentions_weights_start_as_glorots_and_biases_at_zero():
    model = small(ColumnAttention, 1)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            inside = layer.weight[0, 0].numel()
            most = (6 / inside / sum(layer.weight.shape[:2])) ** 0.5
            assert 0.5 * most < layer.weight.abs().max() <= most
            assert layer.bias.count_nonzero() == 0


@pytest.mark.parametrize("kind", [ColumnCNN, ColumnUNet, ColumnAttention])
def test_an_emulator_keeps_its_profiles(tmp_path, kind):
    model = small(kind, 2)
    sides = [FieldSet((Field(k, "1", "scalar", n),)) for k, n in (("x", 16), ("y", 12))]
    made = Emulator(*sides, {}, model, Domain(2, periodic=False)).eval()
    made.save(tmp_path / "e.safetensors")
    again = Emulator.load(tmp_path / "e.safetensors")
    assert again.model.inputs == model.inputs
    assert again.model_spec == made.model_spec
    first = Card.read(tmp_path / "e.safetensors").model["init_args"]["inputs"][0]
    assert first == {"levels": 7, "features": 1, "above": 1, "below": 0, "level_first": False}
    x = {"x": torch.randn(16, 5, 4)}
    y = made.apply(x)["y"]
    assert y.shape == (12, 5, 4)
    assert torch.equal(again.apply(x)["y"], y)


def test_profiles_are_told_in_a_recipe_by_their_arguments():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ColumnUNet, "model")
    text = "[{levels: 7, above: 1}, {levels: 1, features: 3}]"
    argv = ["--model.in_chan=10", "--model.out_chan=8", f"--model.inputs={text}"]
    model = parser.instantiate(parser.parse_args(argv)).model
    assert model.inputs == [Profile(7, above=1), Profile(1, 3)]
    assert model.outputs == [Profile(8)]


WRONG = {
    "sum": (
        lambda: ColumnUNet(10, 8, inputs=[Profile(7), Profile(1, 2)]),
        r"`inputs` are 7 x 1 \+ 1 x 2 \(levels x features\) = 9 channels, but the fields have 10",
    ),
    "outputs": (lambda: ColumnUNet(8, 9, outputs=[Profile(8)]), "`outputs` are 8 x 1"),
    "none": (lambda: ColumnCNN(9, 9, inputs=[]), "`inputs` are nothing"),
    "heights": (
        lambda: ColumnUNet(15, 8, inputs=[Profile(7), Profile(8)]),
        r"profiles cover \[7, 8\] levels.* are 0 \+ 7 \+ 0, 0 \+ 8 \+ 0",
    ),
    "scalar": (
        lambda: ColumnUNet(8, 1, outputs=[Profile(1)]),
        "covers 1 of the 8 levels .* give its `above` and `below`, 7 in sum",
    ),
    "key": (
        lambda: profiles_of([{"levels": 3, "feature": 1}], 3, "inputs"),
        "a profile of `inputs` has no 'feature'; did you mean 'features'",
    ),
    "no levels": (lambda: profiles_of([{"features": 1}], 3, "inputs"), "has no `levels`"),
    "no level": (lambda: Profile(0), "`levels` and `features` must be at least 1"),
    "above": (lambda: Profile(3, above=-1), "`above` and `below` at least 0"),
    "pools": (
        lambda: ColumnCNN(9, 3, kernel_size=3, pool=2),
        "columns of 9 levels are too few .* `kernel_size` 3 and a `pool` of 2, .* at least 10",
    ),
    "sizes": (lambda: ColumnUNet(7, 7, levels=4), "7 levels are too few for 4 sizes .* least 8"),
    "heads": (lambda: ColumnAttention(8, 8, width=12), "`width` is 12, which 8 `heads`"),
    "kernel": (lambda: ColumnAttention(8, 8, kernel_size=4), "`kernel_size` is 4, but must be odd"),
    "dilations": (lambda: ColumnAttention(8, 8, dilations=()), "`dilations` is 0"),
    "depth": (lambda: ColumnMLP(8, 8, depth=0), "`depth` is 0, but must be at least 1"),
    "ndim": (lambda: ColumnMLP(8, 8, ndim=4), "`ndim` is 4"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_what_is_allowed(case):
    make, words = WRONG[case]
    with pytest.raises(RecipeError, match=words):
        make()


@pytest.mark.parametrize(("kernel", "pool"), [(3, 2), (2, 3), (1, 1), (5, 4)])
def test_the_levels_that_the_cnn_says_it_needs_are_the_least(kernel, pool):
    fits = [n for n in range(1, 60) if fits_cnn(n, kernel, pool)]
    assert fits == list(range(fits[0], 60))
    if fits[0] > 1:
        with pytest.raises(RecipeError, match=f"at least {fits[0]};"):
            ColumnCNN(fits[0] - 1, 1, kernel_size=kernel, pool=pool)


def fits_cnn(levels, kernel, pool):
    """Whether the layers take it, tried."""
    layers = nn.Sequential(*[nn.Conv1d(1, 1, kernel), nn.MaxPool1d(pool)] * 2)
    try:
        layers(torch.zeros(1, 1, levels))
    except RuntimeError:
        return False
    ColumnCNN(levels, 1, kernel_size=kernel, pool=pool)
    return True


def test_a_unet_refuses_a_batch_that_cannot_be_normalized():
    model = ColumnUNet(7, 7, levels=3, width=2)
    with pytest.raises(GeometryError, match="ColumnUNet got a training batch of one image"):
        model(torch.zeros(1, 7, 1))
    assert model(torch.zeros(1, 7, 2)).shape == (1, 7, 2)


def test_weights_that_do_not_match_in_order_are_refused_by_name():
    theirs = THEIRS["MLP"](11, 8, 5).state_dict()
    with pytest.raises(ArtefactError, match=r"there are 4 layers of the kind linear \(net.0, net"):
        in_order(theirs, ColumnMLP(11, 5, width=8, depth=2))
    with pytest.raises(
        ArtefactError, match=r"net.0 has \{'weight': \(8, 11\).*as the layer layers"
    ):
        in_order(theirs, ColumnMLP(12, 5, width=8))
    spoilt = {name: value for name, value in theirs.items() if name != "net.2.bias"}
    with pytest.raises(ArtefactError, match=r"net.2 has .* it would have .*'bias': \(8,\)"):
        in_order(spoilt, ColumnMLP(11, 5, width=8))
    convs = {"a.weight": torch.zeros(1, 1, 3), "b.running_mean": torch.zeros(1)}
    with pytest.raises(ArtefactError, match="0 layers of the kind linear"):
        in_order(convs, ColumnMLP(11, 5))


def test_numbers_are_as_precise_as_the_weights():
    for kind in (ColumnMLP, ColumnCNN, ColumnUNet, ColumnAttention):
        model = settled(small(kind, 1))
        x = torch.randn(1, 16, 4, dtype=torch.float64)
        y = model(x)
        assert y.dtype == torch.float64
        single = model.float()(x.float())
        np.testing.assert_allclose(single.detach(), y.detach(), rtol=1e-3, atol=1e-4)
