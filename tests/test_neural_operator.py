"""A network of the user's neuraloperator as one of ours: here a small package made like it."""

import re
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml

from map2map.emulator import Emulator
from map2map.engine import Engine, Running
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import NeuralOperator

PACKAGE = '''
    import torch
    from torch import nn

    class FNO(nn.Module):
        """Complex weights, and a record among the weights of a state, as in neuraloperator."""

        def __init__(self, n_modes, in_channels, out_channels, hidden_channels, n_layers=1):
            super().__init__()
            if len(n_modes) != 2:
                raise ValueError("n_modes must have two numbers")
            self.n_modes = n_modes
            self.init_kwargs = {"n_modes": n_modes, "hidden_channels": hidden_channels}
            self.lifting = nn.Conv2d(in_channels, hidden_channels, 1)
            shape = hidden_channels, hidden_channels, *n_modes
            self.weight = nn.Parameter(torch.randn(shape, dtype=torch.cfloat) * 0.3)
            self.projection = nn.Conv2d(hidden_channels, out_channels, 1)

        def state_dict(self, destination=None, prefix="", keep_vars=False):
            state = super().state_dict(
                destination=destination, prefix=prefix, keep_vars=keep_vars
            )
            state["_metadata"] = self.init_kwargs
            return state

        def forward(self, x):
            x = self.lifting(x)
            z, (m, n) = torch.fft.rfft2(x), self.n_modes
            y = torch.zeros_like(z)
            y[..., :m, :n] = torch.einsum("bixy,ioxy->boxy", z[..., :m, :n], self.weight)
            return self.projection(x + torch.fft.irfft2(y, x.shape[2:]))

    class Half(FNO):
        def forward(self, x):
            return super().forward(x)[..., ::2]

    def function(): ...
'''
PATH = "fakeoperators.fno.FNO"
OPTIONS = {"n_modes": [3, 2], "hidden_channels": 4}


@pytest.fixture
def package(tmp_path_factory, monkeypatch):
    """An install that this test alone has."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "fakeoperators").mkdir()
    (folder / "fakeoperators" / "__init__.py").write_text("")
    (folder / "fakeoperators" / "fno.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.syspath_prepend(folder)
    import fakeoperators.fno

    yield fakeoperators.fno
    for name in ("fakeoperators.fno", "fakeoperators"):
        sys.modules.pop(name, None)


def made(package, **options):
    torch.manual_seed(0)
    return NeuralOperator(2, 3, ndim=2, network=package.FNO, options=OPTIONS | options)


def emulator_of(model):
    fields = [
        FieldSet((Field(name, "1", "scalar", n),)) for name, n in (("a", 2), ("b", model.out_chan))
    ]
    return Emulator(*fields, {}, model, Domain(ndim=2)).eval()


def test_it_gives_what_the_network_gives(package):
    model, x = made(package), torch.randn(2, 2, 8, 9)
    assert torch.equal(model(x), model.made(x))
    assert model(x).shape == (2, 3, 8, 9)
    assert "FNO is taken to see all of it" in model.footprint.whole
    one = NeuralOperator(2, 3, ndim=2, network=package.FNO, options=OPTIONS | {"n_modes": 3})
    assert one.made.n_modes == (3, 3)
    assert made(package).made.n_modes == (3, 2)


def test_complex_weights_survive_casts_formats_and_half_precision(package):
    model, x = made(package).eval(), torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(model(x), expected)
        for running in (Running(), Running("bf16"), Running("fp64"), Running(channels_last=True)):
            engine = Engine(model, model.footprint, 2, running)
            weight = engine.module.made.weight
            assert weight.is_complex()
            torch.testing.assert_close(weight, model.made.weight, check_dtype=False)
            assert (weight.dtype == torch.complex128) == (running.precision == "fp64")
        assert isinstance(model.to(torch.bfloat16).made.weight, torch.nn.Parameter)
        assert model.made.weight.dtype == torch.complex64


def test_a_step_trains_the_complex_weights_too(package):
    model, x = made(package), torch.randn(2, 2, 8, 8)
    model.float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = model(x).square().mean()
    before.backward()
    assert model.made.weight.grad.abs().max() > 0
    optimizer.step()
    assert model(x).square().mean() < before


def test_an_emulator_of_it_is_loaded_only_by_those_who_trust_it(package, tmp_path):
    emulator = emulator_of(made(package))
    path = tmp_path / "e.safetensors"
    emulator.save(path)
    assert emulator.card().model["init_args"]["network"] == {"import_path": PATH}
    for name in ("fakeoperators.fno", "fakeoperators"):
        sys.modules.pop(name)
    with pytest.raises(ArtefactError, match=rf"refusing to import '{PATH}'"):
        Emulator.load(path)
    assert "fakeoperators" not in sys.modules
    again = Emulator.load(path, trust=(PATH,))
    x = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), emulator(x))
    changed = again.card()
    changed.model["init_args"]["network"] = PATH
    with pytest.raises(RecipeError, match="must be a class of networks"):
        Emulator.of_card(changed, path)


def test_where_it_is_not_installed_it_is_refused(package, tmp_path, monkeypatch):
    emulator = emulator_of(made(package))
    emulator.save(tmp_path / "e.safetensors")
    for name in ("fakeoperators.fno", "fakeoperators"):
        sys.modules.pop(name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site" not in p or "packages" in p])
    with pytest.raises(ArtefactError, match=f"{re.escape(PATH)}' cannot be imported"):
        Emulator.load(tmp_path / "e.safetensors", trust=(PATH,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_modes": [3]}, "`n_modes` is .3., for 1 axes, but the fields have 2"),
        ({"in_channels": 2}, "`options` has in_channels, which the fields fill in"),
        ({"layers": 2}, "FNO cannot be made with .*layers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(package, options, words):
    with pytest.raises(RecipeError, match=words):
        made(package, **options)


def test_what_is_no_network_of_fields_is_refused(package):
    for wrong in ("fakeoperators.fno.FNO", package.function, int):
        with pytest.raises(RecipeError, match="must be a class of networks"):
            NeuralOperator(1, 1, network=wrong)
    half = NeuralOperator(1, 1, network=package.Half, options=OPTIONS)
    with pytest.raises(GeometryError, match=r"Half returned \(1, 1, 8, 4\) for an input of"):
        half(torch.zeros(1, 1, 8, 8))
    with pytest.raises(GeometryError, match="NeuralOperator takes"):
        half(torch.zeros(1, 1, 8))


RECIPE = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
    "model": {
        "inputs": [{"name": "a", "kind": "scalar"}],
        "targets": [{"name": "b", "kind": "scalar"}],
        "model": {
            "class_path": "NeuralOperator", "init_args": {"network": PATH, "options": OPTIONS}
        },
    },
    "data": {
        "train": {"a": "a_*.npy", "b": "b_*.npy"},
        "domain": {"ndim": 2, "periodic": False},
    },
    "output": {"figures": 0},
}  # fmt: skip


def test_the_command_line_trains_and_applies_it(package, tmp_path, m2m):
    rng = np.random.default_rng(0)
    for i in range(2):
        for name in "ab":
            np.save(tmp_path / f"{name}_{i}.npy", rng.normal(size=(1, 8, 8)).astype(np.float32))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    assert m2m("train", "r.yaml")[0] == 0
    apply = ("apply", "emulator.safetensors", "a=a_0.npy", "-o", "out.npy")
    status, _, err = m2m(*apply)
    assert status == 2
    assert f"refusing to import '{PATH}'" in err
    assert m2m(*apply, "--trust", PATH)[0] == 0
    emulator = Emulator.load(tmp_path / "emulator.safetensors", trust=(PATH,))
    with torch.no_grad():
        expected = emulator(torch.from_numpy(np.load(tmp_path / "a_0.npy"))[None])[0]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-5, atol=1e-6)
    status, _, err = m2m("train", "r.yaml", "--model.model.init_args.network=neuralop.models.FNO")
    assert status == 2
    assert "there is no module 'neuralop' to import here; install the package" in err
