"""``m2m import --from ai4sim``: an emulator gives what the network gave, in physical units."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError
from map2map.imports.ai4sim import read
from map2map.models import ColumnAttention, ColumnCNN, ColumnMLP, ColumnUNet, DoubleConvUNet

THEIRS = runpy.run_path(str(Path(__file__).with_name("ai4sim_networks.py")))
settled = THEIRS["settled"]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lightning(network, path, **more):
    """As Lightning saves it, under a name of the module's, with state of an optimizer."""
    weights = {f"net.{name}": value for name, value in network.state_dict().items()}
    for buffer in ("x_mean", "x_std"):
        if f"net.{buffer}" in weights:
            weights[buffer] = weights.pop(f"net.{buffer}")
    first = next(iter(weights.values()))
    state = {"state": {0: {"exp_avg": torch.zeros_like(first)}}, "param_groups": [{"lr": 1e-4}]}
    whole = {"state_dict": weights, "epoch": 10, "global_step": 70, "optimizer_states": [state]}
    torch.save(whole | {"hyper_parameters": {"lr": 1e-4}} | more, path)
    return path


def run(emulator, *parts):
    """The emulator on rows (row, channel), with outputs as rows, in float64."""
    x = torch.cat([part.flatten(1).double() for part in parts], dim=1)
    with torch.no_grad():
        return emulator.double()(x.T[None])[0].T


def flame(path, levels=2, root=4):
    network = settled(THEIRS["TheirUNet"](1, 1, 3, levels=levels, root=root))
    nn.init.constant_(network.final[4].bias, 0.5)
    return lightning(network, path), network


@pytest.mark.parametrize(("given", "normalizer"), [({}, 342.553), ({"normalizer": "2"}, 2.0)])
def test_a_flame_comes_in_inverse_metres_of_any_size(tmp_path, given, normalizer):
    path, network = flame(tmp_path / "e.ckpt")
    emulator = read(path, given)
    assert isinstance(emulator.model, DoubleConvUNet)
    assert [f.units for f in (*emulator.inputs, *emulator.targets)] == ["1", "1/m"]
    c = torch.rand(1, 7, 6, 9, dtype=torch.float64)
    found = emulator.apply({"filt_8": c[0]})["filt_grad_8"].squeeze()
    expected = normalizer * network(c[None])[0, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4 * normalizer)
    assert emulator.training_record["epochs"] == 10
    assert emulator.training_record["imported"]["from"] == "ai4sim"


def test_the_command_imports_a_network_of_the_default_size(m2m, tmp_path):
    path, _ = flame(tmp_path / "epoch=10-step=70.ckpt", levels=3, root=32)
    status, out, err = m2m("import", "--from", "ai4sim", path)
    assert (status, err) == (0, "")
    assert "DoubleConvUNet of 1357505 parameters" in out
    assert "gives     filt_grad_8 [1/m] (typical [342.553])" in out
    assert Emulator.load(tmp_path / "emulator.safetensors").model.head is False


def test_radiation_comes_as_fluxes_and_heating_rates_of_arrays_as_in_the_files(tmp_path):
    torch.manual_seed(0)
    hl, inter = torch.rand(3, 138, 2), torch.rand(3, 136, 1)
    col, sca = torch.rand(3, 137, 27), torch.rand(3, 17)
    col[..., 5] = 0.25  # as oxygen, which does not vary
    x = torch.zeros(3, 138, 47, dtype=torch.float64)
    x[:, :, :2], x[:, 1:-1, 2:3], x[:, 1:, 3:30], x[:, :, 30:] = hl, inter, col, sca[:, None]
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    assert (std == 0).sum() == 29 + 137
    network = settled(THEIRS["Radiation"](mean, std))
    nn.init.constant_(network.net.final[4].bias, 0.5)
    expected = network(x)
    emulator = read(lightning(network, tmp_path / "e.ckpt"))
    assert isinstance(emulator.model, ColumnUNet)
    assert sum(p.numel() for p in emulator.model.parameters()) == 169_040
    y = run(emulator, hl, inter, col, sca).double()
    names = ("flux_dn_sw", "flux_up_sw", "flux_dn_lw", "flux_up_lw", "hr_sw", "hr_lw")
    assert emulator.targets.names == names
    assert [f.units for f in emulator.targets] == ["W m-2"] * 4 + ["K d-1"] * 2
    for i, (name, channels) in enumerate(emulator.targets.slices.items()):
        wanted = expected[:, name.startswith("hr") :, i]
        # weights were rounded to float32
        torch.testing.assert_close(y[:, channels], wanted, rtol=1e-4, atol=1e-4, msg=name)
        assert wanted.std() > 0.01


def test_drag_is_normalized_with_the_statistics_beside_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    stats = {
        "x_mean": torch.randn(191, generator=generator) * 10,
        "x_std": torch.rand(191, generator=generator) + 0.5,
        "y_std": torch.rand(126, generator=generator) * 3,
    }
    torch.save(stats, tmp_path / "stats.pt")
    x = stats["x_mean"] + stats["x_std"] * torch.randn(5, 191, dtype=torch.float64)
    cnn = THEIRS["CNN"]
    networks = [THEIRS["MLP"](), THEIRS["MLP"](hidden=10), cnn(), cnn(8, 3, 2), cnn(4, 2, 3)]
    for network in networks:
        network = settled(network)
        path = lightning(network, tmp_path / "e.ckpt")
        emulator = read(path, {"stats": str(tmp_path / "stats.pt")})
        assert isinstance(emulator.model, ColumnMLP | ColumnCNN)
        z = (x - stats["x_mean"]) / stats["x_std"]
        expected = network(z) * float(stats["y_std"].max())
        torch.testing.assert_close(run(emulator, x), expected, rtol=1e-4, atol=1e-4)
        # without, x and y are as they are
        plain = read(path)
        torch.testing.assert_close(run(plain, z), network(z), rtol=1e-4, atol=1e-4)


def test_attention_comes_as_fluxes_down_and_up(tmp_path):
    network = settled(THEIRS["AttentionCNN"]())
    emulator = read(lightning(network, tmp_path / "e.ckpt"), {"levels": "20"})
    assert isinstance(emulator.model, ColumnAttention)
    assert sum(p.numel() for p in emulator.model.parameters()) == 1_065_360
    assert emulator.inputs.names == ("sca_inputs", "col_inputs", "hl_inputs", "inter_inputs")
    generator = torch.Generator().manual_seed(0)
    sca, col, hl, inter = (
        torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        for shape in ((17,), (19, 27), (20, 2), (18, 1))
    )
    x = torch.zeros(2, 20, 47, dtype=torch.float64)
    x[:, :, :17], x[:, 1:, 17:44], x[:, :, 44:46], x[:, 1:-1, 46:] = sca[:, None], col, hl, inter
    y = run(emulator, sca, col, hl, inter)
    assert emulator.targets.names == ("flux_dn_lw", "flux_up_lw", "flux_dn_sw", "flux_up_sw")
    for band, both in zip(("lw", "sw"), network(x.swapaxes(1, 2)), strict=True):
        down, up = (y[:, emulator.targets.slices[f"flux_{way}_{band}"]] for way in ("dn", "up"))
        torch.testing.assert_close(down - up, both[..., 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(down + up, both[..., 1], rtol=1e-4, atol=1e-4)


def test_columns_can_stand_on_a_grid(tmp_path):
    network = settled(THEIRS["MLP"]())
    emulator = read(lightning(network, tmp_path / "e.ckpt"), {"ndim": "2"})
    x = torch.randn(191, 3, 4)
    y = emulator.apply({"x": x})["y"]
    wanted = network(x[:, 1, 2].double())
    torch.testing.assert_close(y[:, 1, 2].double(), wanted, rtol=1e-4, atol=1e-4)


def test_weights_alone_are_a_checkpoint_too(tmp_path):
    network = settled(THEIRS["MLP"]())
    torch.save(network.state_dict(), tmp_path / "model.pth")
    assert "epochs" not in read(tmp_path / "model.pth").training_record


def weights(**tensors):
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in tensors.items()}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (weights(), "no linear layer and no convolution"),
        (weights(bias=(3,)), "no linear layer and no convolution"),
        (weights(a__weight=(4, 3, 3), a__bias=(4,)), "no linear layer and no convolution"),
        (
            weights(a__weight=(4, 9, 3), b__running_mean=(4,), b__weight=(4,)),
            "takes 9 and gives 4 profiles, but those of radiation are 47 and 6",
        ),
        (
            weights(a__weight=(4, 1, 3, 3, 3), b__running_mean=(4,), b__weight=(4,)),
            r"there are 1 layers of the kind convolution 3 x 3 x 3 \(a\), but a DoubleConvUNet of",
        ),
        (
            weights(a__weight=(4, 5, 1), b__weight=(8, 4, 1), c__weight=(9, 7), d__weight=(9, 9)),
            "no pooling leaves 7 numbers of 63 levels and 8 channels",
        ),
        (
            weights(a__weight=(4, 5, 1), b__weight=(8, 4), c__weight=(9, 7), d__weight=(9, 9)),
            "no convolutions that are wider than 1",
        ),
    ],
)
def test_other_weights_are_refused_with_what_is_missing(tmp_path, made, words):
    torch.save({"state_dict": made}, tmp_path / "e.ckpt")
    with pytest.raises(ArtefactError, match=f"{tmp_path}/e.ckpt are of none .*{words}"):
        read(tmp_path / "e.ckpt")


class Code:
    """Something that loading would have to import."""


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match="there is no checkpoint"):
        read(tmp_path / "e.ckpt")
    (tmp_path / "e.ckpt").write_text("nothing")
    with pytest.raises(ArtefactError, match=r"e.ckpt is no checkpoint, or is truncated"):
        read(tmp_path / "e.ckpt")
    torch.save({"hyper_parameters": 1}, tmp_path / "e.ckpt")
    with pytest.raises(ArtefactError, match=r"has no state_dict, but \['hyper_parameters'\]"):
        read(tmp_path / "e.ckpt")
    torch.save({"state_dict": {}, "config": Code()}, tmp_path / "e.ckpt")
    with pytest.raises(ArtefactError, match="could run code; where you trust it, keep its weights"):
        read(tmp_path / "e.ckpt")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"level": "3"}, "there is no setting 'level'; did you mean 'levels'"),
        ({"ndim": "two"}, "ndim is 'two', but must be a whole number"),
        ({"ndim": "7"}, "`ndim` is 7"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, given, words):
    path = lightning(THEIRS["MLP"](), tmp_path / "e.ckpt")
    with pytest.raises(RecipeError, match=words):
        read(path, given)


def test_a_normalizer_is_a_number(tmp_path):
    with pytest.raises(RecipeError, match="normalizer is 'x', but must be a number that is not 0"):
        read(flame(tmp_path / "e.ckpt")[0], {"normalizer": "x"})


def test_statistics_of_other_networks_are_refused(tmp_path):
    path = lightning(THEIRS["MLP"](), tmp_path / "e.ckpt")
    torch.save({"x_mean": torch.zeros(190)}, tmp_path / "stats.pt")
    with pytest.raises(RecipeError, match=r"needs x_mean of 191 numbers, but has \{'x_mean'"):
        read(path, {"stats": str(tmp_path / "stats.pt")})
