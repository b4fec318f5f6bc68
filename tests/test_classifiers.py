"""Models that reduce: those of the gravity classifiers, layer by layer, and the sizes they take.

Numbers of parameters, tensors and buffers, and names are those of the original networks.
"""

import json
from dataclasses import asdict

import numpy as np
import pytest
import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.models import ConvNet, Paco, Penguin, Racoon, ResNet
from map2map.report.tables import _footprint


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays are tiny, and threads that wait for each other slow them down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def unlike(model):
    """Random numbers everywhere, so that no two layers and no two channels are alike."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            scale = max(1, tensor[0].numel()) ** -0.5 if tensor.ndim > 1 else 1.0
            tensor.uniform_(0.5, 1.5) if tensor.ndim == 1 else tensor.normal_(0, scale)
    return model.double()


# --- the original networks ----------------------------------------------------------------------

WIDTHS = 1, 6, 16, 32
COUNTS = {
    (Racoon, 1): (749, 25_609, 180_929, 722_305),
    (Penguin, 1): (4_315, 151_945, 1_077_505, 4_306_433),
    (Paco, 1): (236_461, 8_462_641, 60_134_401, 240_484_353),
    (Racoon, 2): (765, 25_705, 181_185, 722_817),
    (Penguin, 2): (4_331, 152_041, 1_077_761, 4_306_945),
    (Paco, 2): (236_479, 8_462_749, 60_134_689, 240_484_929),
}
BUFFERS = {
    Racoon: lambda p: 26 * p + 3,
    Penguin: lambda p: 84 * p + 8,
    Paco: lambda p: 1012 * p + 19,
}
BATCH_NORM = "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
DENSE = "weight", "bias"


def names(**layers):
    return {f"{layer}.{name}" for layer, of in layers.items() for name in of}


def blocks(count):
    convs = {f"conv2d{i}.0": ("weight",) for i in range(1, count + 1)}
    return convs | {f"conv2d{i}.1": BATCH_NORM for i in range(1, count + 1)}


PACO = ["01", "02", "03", "11", "12", "13", "21", "22", "23", "31", "32", "33", "41", "42", "43",
        "51", "52", "53", "61"]  # fmt: skip
TENSORS = {
    Racoon: (22, names(**blocks(3), **{"fc1.1": DENSE, "output.0": DENSE})),
    Penguin: (52, names(**blocks(6), **{"fc1.1": DENSE, "fc1.2": BATCH_NORM, "fc2.0": DENSE,
                                        "fc2.1": BATCH_NORM, "output.0": DENSE})),
    Paco: (137, names(**{f"C{i}": DENSE for i in PACO}, **{f"B{i}": BATCH_NORM for i in PACO},
                      FC1=DENSE, FC2=DENSE)),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "channels"), COUNTS)
@pytest.mark.parametrize("number", range(4))
def test_there_are_as_many_parameters_and_buffers_as_in_the_original(kind, channels, number):
    width = WIDTHS[number]
    with torch.device("meta"):
        model = kind(channels, 1, width=width)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[kind, channels][number]
    assert sum(b.numel() for b in model.buffers()) == BUFFERS[kind](width)


@pytest.mark.parametrize("kind", TENSORS)
def test_states_have_the_names_of_the_original(kind):
    with torch.device("meta"):
        state = kind(1, 1).state_dict()
    count, expected = TENSORS[kind]
    assert len(state) == count
    assert set(state) == expected


def layers_of(model):
    """Weights in their order, to put into a network that is built another way."""
    return [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d))]


def copied(model, twin, *, without=()):
    """``twin`` with the weights of ``model``, whose modules are taken in their order."""
    for mine, its in ((layers_of(model), layers_of(twin)), (norms_of(model), norms_of(twin))):
        mine = [m for m in mine if m not in without]
        for a, b in zip(mine, its, strict=True):
            b.load_state_dict(a.state_dict())
    return twin.double()


def racoon(c, p, act, dropout):
    def block(a, b):
        return [nn.Conv2d(a, b, 4, 4, bias=False), nn.BatchNorm2d(b), act()]

    return nn.Sequential(
        *block(c, p), *block(p, 4 * p), *block(4 * p, 8 * p), nn.Flatten(),
        nn.Linear(128 * p, p), act(), nn.Dropout(dropout), nn.Linear(p, 1),
    )  # fmt: skip


def penguin(c, p, act, dropout):
    layers, before = [], c
    for after in (p, 2 * p, 4 * p, 6 * p, 8 * p, 10 * p):
        conv = nn.Conv2d(before, after, 4, 2, 1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), act()]
        before = after
    return nn.Sequential(
        *layers, nn.Flatten(),
        nn.Linear(160 * p, 10 * p), nn.BatchNorm1d(10 * p), act(), nn.Dropout(dropout),
        nn.Linear(10 * p, p), nn.BatchNorm1d(p), act(), nn.Dropout(dropout), nn.Linear(p, 1),
    )  # fmt: skip


class Wrap(nn.Module):
    """One cell more on every side: that of the other end."""

    def forward(self, x):
        x = torch.cat([x[..., -1:, :], x, x[..., :1, :]], -2)
        return torch.cat([x[..., -1:], x, x[..., :1]], -1)


def paco(c, h, act, dropout):
    layers, before = [], c
    for after in (2 * h, 4 * h, 8 * h, 16 * h, 32 * h, 64 * h):
        layers += [Wrap(), nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), act()]
        layers += [Wrap(), nn.Conv2d(after, after, 3), nn.BatchNorm2d(after), act()]
        layers += [nn.Conv2d(after, after, 2, 2), nn.BatchNorm2d(after), act()]
        before = after
    del layers[2]
    return nn.Sequential(
        *layers, nn.Conv2d(64 * h, 128 * h, 4), nn.BatchNorm2d(128 * h), act(), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(128 * h, 64 * h), act(), nn.Dropout(dropout),
        nn.Linear(64 * h, 1),
    )  # fmt: skip


TWINS = {Racoon: racoon, Penguin: penguin, Paco: paco}


@pytest.mark.parametrize("slope", [0.2, 0.0])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", TWINS)
def test_a_network_is_its_layers_one_after_the_other(kind, training, slope):
    options = {} if slope else {"slope": 0.0}
    model = unlike(kind(2, 1, width=1, dropout=0.5, **options)).train(training)
    act = (lambda: nn.LeakyReLU(0.2)) if slope else nn.ReLU
    unused = [model.B01] if kind is Paco else []
    twin = copied(model, TWINS[kind](2, 1, act, 0.5), without=unused).train(training)
    x = torch.randn(3, 2, 256, 256, dtype=torch.float64)
    with torch.no_grad():
        # the same dropout, if it is at the same places
        torch.manual_seed(1)
        found = model(x)
        torch.manual_seed(1)
        expected = twin(x)
    assert found.shape == (3, 1)
    assert found.std() > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


TORCHS = {
    "leaky_relu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "elu": nn.ELU(),
    "selu": nn.SELU(), "celu": nn.CELU(), "silu": nn.SiLU(), "gelu": nn.GELU(), "mish": nn.Mish(),
    "softplus": nn.Softplus(), "softsign": nn.Softsign(), "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(), "logsigmoid": nn.LogSigmoid(), "hardswish": nn.Hardswish(),
    "hardtanh": nn.Hardtanh(), "hardsigmoid": nn.Hardsigmoid(), "softshrink": nn.Softshrink(),
    "hardshrink": nn.Hardshrink(), "tanhshrink": nn.Tanhshrink(),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHS)
@pytest.mark.parametrize("kind", TWINS)
def test_any_activation_is_torchs_and_changes_no_weights(kind, name, tmp_path):
    small = {} if kind is not Paco else {"levels": 2, "size": 16}
    small = small or {"size": 64}
    model = unlike(kind(1, 1, width=1, activation=name, **small)).eval()
    before = kind(1, 1, width=1, **small)
    assert list(model.state_dict()) == list(before.state_dict())
    shapes = [p.shape for p in model.parameters()]
    assert shapes == [p.shape for p in before.parameters()]
    # everywhere where the default has one, in place of it
    twin = kind(1, 1, width=1, **small).double().eval()
    twin.load_state_dict(model.state_dict())
    for parent in list(twin.modules()):
        for child, module in parent.named_children():
            if isinstance(module, nn.LeakyReLU):
                setattr(parent, child, TORCHS[name])
    x = torch.randn(2, 1, *[small["size"]] * 2, dtype=torch.float64)
    torch.testing.assert_close(model(x), twin(x))
    if name != "leaky_relu":
        assert not torch.allclose(model(x), before.double().eval()(x))
    model(x).sum().backward()  # not in place where the gradient needs what was before


def test_an_activation_is_in_the_card(tmp_path):
    model = unlike(Racoon(1, 1, ndim=1, width=2, size=64, activation="gelu")).float()
    path = tmp_path / "e.safetensors"
    made(model).save(path)
    loaded = Emulator.load(path).model
    assert loaded.activation == "gelu"
    x = torch.randn(2, 1, 64)
    torch.testing.assert_close(loaded.eval()(x), model.eval()(x))


def test_a_relu_is_not_the_default():
    assert Racoon(1, 1).slope == Penguin(1, 1).slope == 0.2


def test_weights_of_racoon_and_penguin_start_as_those_of_torch():
    for kind in (Racoon, Penguin):
        torch.manual_seed(3)
        state = kind(1, 1, width=2).state_dict()
        torch.manual_seed(3)
        twin = TWINS[kind](1, 2, nn.ReLU, 0.0).state_dict()
        for mine, its in zip(state.values(), twin.values(), strict=True):
            assert torch.equal(mine, its)


def test_weights_of_paco_start_normal_with_he_s_variance():
    model = Paco(1, 1, width=2)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight, fan_in = module.weight.detach(), module.weight[0].numel()
            z = weight.flatten() / (2 / fan_in) ** 0.5
            few = z.numel() ** -0.5
            assert abs(z.mean()) < 5 * few, name
            assert abs(z.std() - 1) < 5 * few, name
            if z.numel() > 1000:
                # 4.55 % beyond two deviations; none of a uniform distribution
                assert 0.02 < (z.abs() > 2).double().mean() < 0.07, name
            # biases as torch's: uniform up to 1 / sqrt(fan_in)
            assert module.bias.abs().max() <= fan_in**-0.5, name
            assert module.bias.abs().max() > 0, name
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


def test_the_unused_normalization_of_paco_changes_nothing_and_waits_for_no_gradient():
    model = unlike(Paco(1, 1, width=1, size=16, levels=2)).eval()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    before = model(x)
    for tensor in model.B01.state_dict().values():
        tensor.fill_(7)
    assert torch.equal(model(x), before)
    model(x).sum().backward()
    waiting = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []


# --- shifts -------------------------------------------------------------------------------------


def rolled(x, cells):
    return x.roll([cells] * (x.ndim - 2), list(range(2, x.ndim)))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_paco_continues_at_the_other_end_up_to_its_last_convolution(ndim):
    """Features move around the edges with the input, and what sums over them does not see it."""
    model = unlike(Paco(1, 1, ndim=ndim, width=1, size=16, levels=2)).eval()
    x = torch.randn(1, 1, *[16] * ndim, dtype=torch.float64)
    features = []
    model.C21.register_forward_hook(lambda _, args, output: features.append(args[0]))
    with torch.no_grad():
        here, there, between = (model(rolled(x, cells)) for cells in (0, 4, 2))
        torch.testing.assert_close(features[1], rolled(features[0], 1), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(features[2], features[0], rtol=1e-2)
        # the last convolution has one weight per cell, so it sees where they are
        assert (there - here).abs() > 1e-6
        model.C21.weight.copy_(model.C21.weight.mean(list(range(2, ndim + 2)), keepdim=True))
        here, there, between = (model(rolled(x, cells)) for cells in (0, 4, 2))
    torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9)
    assert (between - here).abs() > 1e-6


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_periodic_res_net_does_not_see_shifts_by_its_largest_cells(ndim, norm):
    options = {"ndim": ndim, "width": 4, "levels": 3, "norm": norm}
    x = torch.randn(1, 2, *[12] * ndim, dtype=torch.float64)
    model = unlike(ResNet(2, 3, **options)).eval()
    assert_same = {"rtol": 1e-8, "atol": 1e-8}
    with torch.no_grad():
        torch.testing.assert_close(model(rolled(x, 4)), model(x), **assert_same)
        assert (model(rolled(x, 1)) - model(x)).abs().max() > 1e-6
        model = unlike(ResNet(2, 3, periodic=False, **options)).eval()
        assert (model(rolled(x, 4)) - model(x)).abs().max() > 1e-6


def test_a_res_net_is_its_layers_one_after_the_other():
    model = unlike(ResNet(2, 3, width=2, levels=2, periodic=False)).eval()
    w = model.state_dict()
    x = torch.randn(2, 2, 7, 5, dtype=torch.float64)

    def conv(x, name, **options):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    def act(x, name):
        stats = [w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.leaky_relu(F.batch_norm(x, *stats), 0.2)

    with torch.no_grad():
        y = conv(x, "first", padding=1)
        z = conv(act(y, "blocks.0.start.0"), "blocks.0.convs.0", padding=1)
        y = y + conv(act(z, "blocks.0.convs.1"), "blocks.0.convs.3", padding=1)
        z = conv(act(y, "blocks.1.start.0"), "blocks.1.convs.0", padding=1, stride=2)
        z = conv(act(z, "blocks.1.convs.1"), "blocks.1.convs.3", padding=1)
        # means of what is there: the last of an odd number of cells is alone
        half = F.avg_pool2d(F.pad(y, (0, 1, 0, 1)), 2)
        half /= F.avg_pool2d(F.pad(torch.ones_like(y), (0, 1, 0, 1)), 2)
        y = z + conv(half, "blocks.1.skip.1")
        means = act(y, "last.0").mean((2, 3))
        expected = means @ w["last.5.weight"].T + w["last.5.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_a_res_net_begins_with_blocks_that_are_their_skips():
    model = ResNet(1, 1, width=4, levels=1, depth=3)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(model.blocks(x), x)


def test_a_res_net_with_groups_does_without_batches():
    model = ResNet(1, 1, width=4, levels=3, norm="group")
    assert not list(model.buffers())
    assert model.train()(torch.randn(1, 1, 4, 4)).shape == (1, 1)


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "size", "cells", "channels"),
    [
        (Racoon, 64, 1, 8),
        (Racoon, 192, 3, 8),
        (Racoon, 256, 4, 8),
        (Penguin, 128, 2, 10),
        (Penguin, 256, 4, 10),
        (Paco, 256, 1, 128),
        (Paco, 320, 2, 128),
    ],
)
def test_the_first_linear_layer_fits_the_size(kind, size, cells, channels, ndim):
    """On a device without values, as large inputs in 3-D take long."""
    with torch.device("meta"):
        model = kind(1, 2, ndim=ndim, width=1, size=size).eval()
        first = model.FC1 if kind is Paco else model.fc1[1]
        assert first.in_features == channels * cells**ndim
        assert model(torch.zeros(3, 1, *[size] * ndim)).shape == (3, 2)


@pytest.mark.parametrize(
    ("kind", "sizes"), [(Racoon, (64, 256, 300)), (Penguin, (64, 256, 300)), (Paco, (256, 300))]
)
@pytest.mark.parametrize("ndim", [1, 2])
def test_pooling_takes_any_size_with_the_weights_of_256(kind, sizes, ndim):
    flat = unlike(kind(1, 1, ndim=ndim, width=1)).eval()
    pooled = kind(1, 1, ndim=ndim, width=1, head="pool").double().eval()
    pooled.load_state_dict(flat.state_dict())
    x = torch.randn(1, 1, *[256] * ndim, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(pooled(x), flat(x))
        for size in sizes:
            y = pooled(torch.randn(2, 1, *[size] * ndim, dtype=torch.float64))
            assert y.shape == (2, 1)
            assert y.isfinite().all()


def test_what_is_pooled_is_the_mean_of_features():
    model = unlike(Racoon(1, 1, width=1, head="pool", ndim=1)).eval()
    with torch.no_grad():
        x = torch.randn(1, 1, 512, dtype=torch.float64)
        features = model.conv2d3(model.conv2d2(model.conv2d1(x)))
        means = features.reshape(1, 8, 4, 2).mean(-1)
        torch.testing.assert_close(model(x), model.output(model.fc1(means)))


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (Racoon(1, 1, ndim=1, width=1), 128,
         r"Racoon cannot take 128 cells \(axis 0 of \(128,\)\).*`size` 256 only.*64, 128, … "
         r"\(multiples of 64\).*`head: pool`.*any from 64 on"),
        (Penguin(1, 1, ndim=1, width=1, size=128), 256, "Penguin cannot take 256.*`size` 128 only"),
        (Paco(1, 1, ndim=1, width=1), 128, "`size` 256 only.*256, 320, ….*any from 256 on"),
        (Paco(1, 1, ndim=1, width=1, levels=1, head="pool"), 7, "takes any number from 8 on"),
        (ResNet(1, 1, ndim=1, width=1, levels=3), 3, "ResNet cannot take 3 cells.*sizes are 4, 5"),
    ],
)  # fmt: skip
def test_an_input_of_another_size_is_refused_with_the_sizes_and_the_remedy(model, size, message):
    with pytest.raises(GeometryError, match=message):
        model.eval()(torch.zeros(2, 1, size))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Racoon, {"size": 100}, r"`size` is 100.*Racoon.*64, 128, ….*`head: pool`"),
        (Penguin, {"size": 0}, "`size` is 0.*64, 128"),
        (Paco, {"size": 192}, "`size` is 192.*256, 320"),
        (Paco, {"levels": 0}, "`levels` is 0"),
        (Racoon, {"head": "mean"}, "`head` is 'mean', but must be 'flatten' or 'pool'"),
        (Racoon, {"width": 0}, "`width` is 0"),
        (Racoon, {"slope": 2.0}, "`slope` is 2.0"),
        (Penguin, {"activation": "gelo"}, "`activation` is 'gelo'.*did you mean 'gelu'"),
        (Paco, {"activation": "zzzzzz"}, "`activation` is 'zzzzzz'.*there are .*elu.*tanhshrink"),
        (
            Paco,
            {"activation": "elu", "slope": 0.1},
            "`slope` is 0.1, but is of .*'leaky_relu' only",
        ),
        (Penguin, {"dropout": 1.0}, "`dropout` is 1.0"),
        (ResNet, {"dropout": -0.1}, "`dropout` is -0.1"),
        (Racoon, {"ndim": 4}, "`ndim` is 4"),
        (ResNet, {"norm": "layer"}, "`norm` is 'layer', but must be 'batch' or 'group'"),
        (ResNet, {"depth": 0}, "`depth` is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, options, message):
    with pytest.raises(RecipeError, match=message):
        kind(1, 1, **options)


def test_a_training_batch_of_one_image_is_refused_where_it_has_no_spread():
    penguin, racoon = Penguin(1, 1, ndim=1, width=1), Racoon(1, 1, ndim=1, width=1)
    with pytest.raises(GeometryError, match=r"Penguin got a training batch of one.*`batch_size`"):
        penguin(torch.randn(1, 1, 256))
    assert penguin.eval()(torch.randn(1, 1, 256)).shape == (1, 1)
    # four cells of features are enough here
    assert racoon(torch.randn(1, 1, 256)).shape == (1, 1)
    # of 127 cells the strides leave one, of 128 two
    pooled = Racoon(1, 1, ndim=1, width=1, head="pool")
    with pytest.raises(GeometryError, match="training batch of one"):
        pooled(torch.randn(1, 1, 127))
    assert pooled(torch.randn(1, 1, 128)).shape == (1, 1)


# --- footprints and emulators -------------------------------------------------------------------


def test_a_footprint_that_reduces_names_the_cause_and_has_no_margin():
    f = Footprint(0, minimum=5, reduces=True)
    assert f.whole == "its output is numbers for all of the input"
    assert Footprint(0, whole="its pooling", reduces=True).whole == "its pooling"
    assert f != Footprint(0, minimum=5, whole=f.whole)
    assert (f.input_size(9), f.halo_for((9,)).high) == (9, (0,))
    assert f.input_size(3) == 3, "nothing is read around it, and the network refuses it"
    with pytest.raises(GeometryError, match="numbers for the whole input"):
        f.output_size(9)
    for bad in ({"margin": 1}, {"margin": 0, "ring": 0}):
        with pytest.raises(GeometryError, match="neither a `margin` nor a `ring`"):
            Footprint(reduces=True, **bad)


def made(model):
    fields = FieldSet((Field("phi", "", "scalar", 1),)), FieldSet((Field("w", "", "scalar", 1),))
    return Emulator(*fields, {}, model, Domain(ndim=1)).eval()


def test_a_card_says_whether_the_network_reduces(tmp_path):
    emulator = made(Racoon(1, 1, ndim=1, width=2, size=64))
    emulator.save(tmp_path / "e.safetensors")
    card, again = Card.read(tmp_path / "e.safetensors"), Emulator.load(tmp_path / "e.safetensors")
    assert card.footprint["reduces"] is True
    assert again.footprint == emulator.footprint
    assert again.footprint.reduces
    x = torch.randn(3, 1, 64)
    assert torch.equal(again(x), emulator(x))
    with pytest.raises(GeometryError, match="numbers for the whole input, not a field"):
        again({"phi": np.zeros(64)})
    assert _footprint(card.footprint) == "the whole input, of which it gives numbers"


def retold(path, change):
    with safetensors.safe_open(path, "pt") as opened:
        card = json.loads(opened.metadata()["map2map"])
    change(card["footprint"])
    save_file(load_file(path), path, metadata={"map2map": json.dumps(card)})


def test_a_card_from_before_is_read_and_one_that_does_not_tell_is_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    field = made(ConvNet(1, 1, ndim=1, width=2, depth=1))
    field.save(path)
    retold(path, lambda footprint: footprint.pop("reduces"))
    assert "reduces" not in Card.read(path).footprint
    assert asdict(Emulator.load(path).footprint) == asdict(field.footprint)
    retold(path, lambda footprint: footprint.update(reduces=True))
    with pytest.raises(ArtefactError, match="tells the footprint"):
        Emulator.load(path)
    made(Racoon(1, 1, ndim=1, width=2, size=64)).save(path)
    retold(path, lambda footprint: footprint.pop("reduces"))
    with pytest.raises(ArtefactError, match="tells the footprint"):
        Emulator.load(path)
