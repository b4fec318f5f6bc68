"""What users get wrong is told in one message, with exit status 2, and nothing is lost."""

import copy
import errno
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from map2map.checkpoints import AtomicCheckpointIO, load_weights, read_state
from map2map.commands.recipes import find
from map2map.commands.train import make, train_recipe
from map2map.crops import Crops
from map2map.emulator import Card, Emulator
from map2map.errors import (
    ArtefactError,
    FieldError,
    GeometryError,
    M2MError,
    RecipeError,
    SaveError,
    SourceError,
    UserCodeError,
)
from map2map.fields import Field
from map2map.files import replacing
from map2map.models import ConvNet
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset
from map2map.told import Told

RECIPE = {
    "seed_everything": 1,
    "trainer": {"max_epochs": 1},
    "model": {
        "inputs": [{"name": "a"}],
        "targets": [{"name": "b"}],
        "norms": {"a": {"class_path": "map2map.norms.Identity"}},
        "model": {"class_path": "map2map.models.ConvNet", "init_args": {"width": 2, "depth": 1}},
        "loss": {"class_path": "torch.nn.MSELoss"},
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    },
    "data": {
        "train": {"a": "a_*.npy", "b": "b_*.npy"},
        "crops": {"size": 4, "halo": 1},
        "reading": {"batch_size": 2, "threads": 0},
    },
    "output": {"figures": 0},
}


def edited(**changes: object) -> dict:
    """The recipe with entries replaced: ``data__crops__size=3``."""
    recipe = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *way, last = path.split("__")
        inner = recipe
        for key in way:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return recipe


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two runs of two fields, and some of a user's own code."""
    rng = np.random.default_rng(0)
    for name in "ab":
        for k in range(2):
            values = rng.normal(size=(1, 8, 8)).astype(np.float32)
            np.save(tmp_path / f"{name}_{k}.npy", values)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


MINE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_chan, out_chan, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(in_chan, out_chan, 3)

    def forward(self, x):
        if self.training:
            raise KeyError("boom")
        return self.conv(x)


class Init(nn.Module):
    def __init__(self, in_chan, out_chan, **kwargs):
        raise KeyError("boom")


class Loss(nn.Module):
    def forward(self, a, b):
        raise KeyError("boom")


class LossInit(nn.Module):
    def __init__(self):
        raise KeyError("boom")


class Adam(torch.optim.Adam):
    def step(self, *args, **kwargs):
        raise KeyError("boom")


def norm(x, undo=False, **kwargs):
    raise KeyError("boom")
"""


def open_runs(**scale: int) -> Runs:
    patterns = {"a": "a_*.npy", "b": "b_*.npy"}
    return Runs([Field("a")], [Field("b")], patterns, **scale)


def change(path: Path, index: tuple, value: float) -> None:
    values = np.load(path)
    values[index] = value
    np.save(path, values)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


# --- the files ---------------------------------------------------------------------------------

BAD_FILES = {
    "no file": (
        lambda f: [(f / f"a_{k}.npy").unlink() for k in range(2)],
        SourceError,
        r"no file matches 'a_\*.npy' for field 'a'.*relative to",
    ),
    "unequal counts": (
        lambda f: (f / "a_1.npy").unlink(),
        SourceError,
        "unequal numbers of files: 1 for a, 2 for b; without a partner in 'a': b_1.npy; every",
    ),
    "misaligned names": (
        lambda f: (f / "a_1.npy").rename(f / "a_2.npy"),
        SourceError,
        "do not correspond.*number 1 of 'a' is a_2.npy.* 'b' it is b_1.npy",
    ),
    "shapes between files": (
        lambda f: np.save(f / "a_1.npy", np.zeros((1, 8, 6))),
        GeometryError,
        r"'a' in a_1.npy has shape \(8, 6\), but \(8, 8\) is expected from a_0.npy",
    ),
    "shapes between fields": (
        lambda f: [np.save(f / f"b_{k}.npy", np.zeros((1, 6, 8))) for k in range(2)],
        GeometryError,
        r"'b' in b_0.npy has shape \(6, 8\), but \(8, 8\) is expected",
    ),
    "channels between files": (
        lambda f: np.save(f / "b_1.npy", np.zeros((3, 8, 8))),
        FieldError,
        "'b' in b_1.npy has 3 channels, but 1 in b_0.npy",
    ),
    "truncated": (
        lambda f: truncate(f / "a_1.npy"),
        SourceError,
        "a_1.npy is truncated: .*384 bytes .*there are 375; copy or make it again",
    ),
    "empty file": (
        lambda f: (f / "a_1.npy").write_bytes(b""),
        SourceError,
        "a_1.npy is not an array",
    ),
    "objects": (
        lambda f: np.save(f / "a_1.npy", np.array([{}, 1], object), allow_pickle=True),
        SourceError,
        "a_1.npy holds Python objects, which are never unpickled",
    ),
    "complex": (
        lambda f: np.save(f / "a_1.npy", np.zeros((1, 8, 8), complex)),
        SourceError,
        "complex128; a field has real numbers",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_told(folder, case):
    spoil, error, message = BAD_FILES[case]
    spoil(folder)
    with pytest.raises(error, match=message):
        open_runs()


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_leave_with_status_2(folder, m2m, case):
    BAD_FILES[case][0](folder)
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    check_refusal(*m2m("train", "r.yaml"), BAD_FILES[case][2])


def check_refusal(status: int, out: str, err: str, message: str) -> None:
    """Exit status 2, and one line on stderr."""
    assert status == 2
    assert re.search(message, err), err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    if not err.startswith("usage:"):
        assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["a", "b"])
def test_values_that_are_not_finite_are_located_and_counted(folder, name, value):
    change(folder / f"{name}_1.npy", (0, 5, slice(2, 4)), value)
    dataset = SampleDataset(open_runs(), Crops(size=4, halo=0))
    bad = []
    for index in range(len(dataset)):
        try:
            dataset.read(index)
        except FieldError as error:
            bad.append((index, str(error)))
    # run 1, crop (4, 0): number 4 + 2
    ((index, message),) = bad
    assert index == 6
    assert f"'{name}' in {name}_1.npy holds 2 NaN or infinite" in message
    assert "first at channel 0, cell [5, 2]" in message
    assert "mask" in message


def test_where_they_are_is_told_around_periodic_edges(folder):
    change(folder / "a_0.npy", (0, 7, 7), np.nan)
    with pytest.raises(FieldError, match=r"cell \[7, 7\]"):
        SampleDataset(open_runs(), Crops(size=4, halo=1)).read(0)


def test_values_that_are_not_finite_leave_with_status_2(folder, m2m):
    change(folder / "a_0.npy", (0, 2, 3), np.nan)
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    check_refusal(*m2m("train", "r.yaml"), r"'a' in a_0.npy holds 1 NaN.*cell \[2, 3\].*mask: true")


def test_a_field_that_does_not_vary_is_named_and_no_log_of_it_is_left(folder, m2m):
    for k in range(2):
        np.save(folder / f"b_{k}.npy", np.ones((1, 8, 8), np.float32))
    (folder / "runs").mkdir()
    (folder / "runs" / "events.out.tfevents.mine").write_text("a log of before")
    norms = {"b": {"class_path": "map2map.norms.Standardize"}}
    (folder / "r.yaml").write_text(yaml.safe_dump(edited(model__norms=norms)))
    check_refusal(*m2m("train", "r.yaml"), "norm of field 'b': cannot divide by std")
    assert [path.name for path in (folder / "runs").rglob("*")] == ["events.out.tfevents.mine"]


def test_all_of_a_few_files_are_looked_at_before_training(folder, m2m):
    """Also those of the test, and each is named."""
    for k, names in enumerate((("a", "b"), ("a", "b"), ("a", "c"))):
        with h5py.File(folder / f"f_{k}.h5", "w") as file:
            for name in names:
                file[name] = np.ones((2, 8, 8), np.float32)
    split = {"a": "f_[01].h5", "b": "f_[01].h5"}
    recipe = edited(data__train=split, data__test={"a": "f_[12].h5", "b": "f_[12].h5"})
    recipe["data"] |= {"domain": {"ndim": 2}, "overlap": True}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    check_refusal(*m2m("train", "r.yaml"), "no field 'b' in f_2.h5")
    part = {"pattern": "f_[01].h5", "variable": "a[1:3]"}
    recipe = edited(data__train={"a": part, "b": "f_[01].h5"}, data__domain={"ndim": 2})
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    check_refusal(*m2m("train", "r.yaml"), r"f_0.h5: the channels \[1:3\] of 'a' were asked for")


def weights_after(folder: Path, recipe: dict) -> dict[str, torch.Tensor]:
    assert train_recipe(recipe | {"output": {"figures": 0, "resume": "never"}}) == 0
    return torch.load(folder / "state_1.pt", weights_only=True)["model"]


def test_masked_cells_do_not_move_the_weights(folder):
    """Trained with NaN targets, the gradient is that of the mean over the others."""
    change(folder / "b_0.npy", (0, slice(0, 4), slice(0, 2)), np.nan)
    (folder / "a_1.npy").unlink()
    (folder / "b_1.npy").unlink()
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    one = {"model__optimizer": sgd, "data__reading__mask": True, "data__crops__size": 8}
    found = weights_after(folder, edited(**one))
    start = weights_after(
        folder, edited(**one | {"model__optimizer": sgd | {"init_args": {"lr": 1e-30}}})
    )
    conv = torch.nn.Conv2d(1, 1, 3)
    conv.load_state_dict({k.removeprefix("convs.0."): v for k, v in start.items()})
    x, y = (torch.from_numpy(np.load(folder / f"{name}_0.npy"))[None] for name in "ab")
    valid = ~y.isnan()
    assert int(valid.sum()) == 56
    output = conv(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular"))
    (output[valid] - y[valid]).square().mean().backward()
    expected = conv.weight - 0.1 * conv.weight.grad
    torch.testing.assert_close(found["convs.0.weight"], expected.detach(), rtol=1e-5, atol=1e-6)


# --- the recipe --------------------------------------------------------------------------------


def of(name: str, **arguments: object) -> dict:
    """A class with arguments, as a recipe has it."""
    return {"class_path": name, "init_args": arguments}


def adversarial(**arguments: object) -> dict:
    """Adversarial training."""
    return {"model__training": of("map2map.adversarial.Adversarial", **arguments)}


BAD_RECIPES = {
    "crop": ({"data__crops__size": 9}, GeometryError, r"crop is \(9, 9\).*fields are \(8, 8\)"),
    "crop axes": ({"data__crops__size": [4, 4, 4]}, GeometryError, "`crop` has 3 values"),
    "halo": (
        {"data__crops__halo": [1, 2, 3]},
        GeometryError,
        r"halo on 2 axes has 1 value \(all sides\), 2 .* or 4 .*, not 3: \[1, 2, 3\]",
    ),
    "halo that leaves nothing": ({"data__crops__halo": -2}, GeometryError, "holds no cell"),
    "step 0": ({"data__crops__step": 0}, GeometryError, "a step of 0 never ends"),
    "no crop": ({"data__crops__start": 8}, GeometryError, "no crop starts between"),
    "scale 0": ({"data__crops__scale_factor": 0}, M2MError, "scale factor is 0; .* at least 1"),
    "output larger": (
        {"data__crops__halo": 2},
        GeometryError,
        r"output has \(6, 6\) cells, more than the target's \(4, 4\).*cuts off 1 .*halo: auto",
    ),
    "crop too small": (
        {"model__model__init_args__depth": 9, "data__crops__halo": 1},
        GeometryError,
        "6 cells",
    ),
    "crops of a network that sees all": (
        {
            "model__model": {"class_path": "FNO", "init_args": {"modes": 2}},
            "data__crops__size": 4,
        },
        GeometryError,
        "crops have 4 x 4 cells of fields of 8 x 8, but .* FNO depends on the whole domain .*; "
        "leave data.crops.size out",
    ),
    "model": (
        {"model__model": {"class_path": "map2map.models.UNt"}},
        RecipeError,
        "no 'UNt' in map2map.models; did you mean 'UNet'",
    ),
    "model argument": (
        {"model__model__init_args__widht": 3},
        RecipeError,
        "no key 'widht'; did you mean 'width'",
    ),
    "model value": ({"model__model__init_args__depth": 0}, RecipeError, r"`depth` \(0\) must be"),
    "norm": (
        {"model__norms": {"a": {"class_path": "map2map.norms.Standardise"}}},
        RecipeError,
        "no 'Standardise' in map2map.norms; did you mean 'Standardize'",
    ),
    "norm of no field": (
        {"model__norms": {"c": {"class_path": "map2map.norms.Identity"}}},
        FieldError,
        "a norm is given for 'c'; there are a, b",
    ),
    "loss": (
        {"model__loss": {"class_path": "torch.nn.MSLoss"}},
        RecipeError,
        "no 'MSLoss' in torch.nn; did you mean 'MSELoss'",
    ),
    "module": ({"model__model": {"class_path": "nowhere.Net"}}, RecipeError, "'nowhere'"),
    "field without files": (
        {"model__inputs": [{"name": "c"}]},
        FieldError,
        "missing: c; not a field: a",
    ),
    "channels": (
        {"model__inputs": [{"name": "a", "channels": 3}]},
        FieldError,
        "declared with 3 channels, but its files have 1",
    ),
    "key at the top": ({"modle": {}}, RecipeError, "no key modle; did you mean 'model'"),
    "empty key": ({"data__trian": {}}, RecipeError, "no key data.trian; did you mean 'train'"),
    "key": ({"data__crops__siez": 4}, RecipeError, "data.crops: .* 'siez'; did you mean 'size'"),
    "trainer key": ({"trainer__max_epoch": 1}, RecipeError, "max_epoch; .*'max_epochs'"),
    "key of a network": (
        {"model__model": {"class_path": "FNO", "init_args": {"zzzzzz": 3}}},
        RecipeError,
        "model.model: .* 'zzzzzz'; there are depth, modes, padding, positions, width$",
    ),
    "key of a network inside": (
        adversarial(discriminator=of("PatchGAN", wdith=4)),
        RecipeError,
        "'discriminator.init_args.wdith'; there are none",
    ),
    "key of another network inside": (
        adversarial(discriminator=of("SRDiscriminator", scael_factor=4)),
        RecipeError,
        "'discriminator.init_args.scael_factor'; did you mean 'scale_factor'",
    ),
    "key of an optimizer inside": (
        adversarial(discriminator=of("PatchGAN"), optimizer=of("torch.optim.Adam", betta=4)),
        RecipeError,
        "model.training.optimizer: .* 'betta'; did you mean 'betas'",
    ),
    "loss by a name alone": (
        {"model__loss": {"class_path": "RelativL2"}},
        RecipeError,
        "model.loss: there is no class 'RelativL2'; did you mean 'RelativeL2'.*import path, such",
    ),
    "two places": (
        {"data__train__nu": {"table": "t.csv", "placeholder": "k"}},
        RecipeError,
        "data.train.nu is told by exactly one of placeholder, .* placeholder and table are given",
    ),
    "no place": (
        {"data__train__nu": {"scale": 2.0, "column": "k"}},
        RecipeError,
        "data.train.nu is told by exactly one of .* none is given",
    ),
    "key of a place": (
        {"data__train__nu": {"tabel": "t.csv"}},
        RecipeError,
        "no key data.train.nu.tabel; did you mean 'table'",
    ),
    "numbers as a place": (
        {"data__train__nu": [1, 2]},
        RecipeError,
        r"data.train.nu is \[1, 2\], but a list is one of patterns",
    ),
    "styles": (
        {
            "model__styles": [{"name": "nu", "kind": "parameter"}],
            "data__train__nu": 1.0,
            "model__model": {"class_path": "FNO", "init_args": {"modes": 2}},
        },
        RecipeError,
        r"styles \(nu\), but the network takes none; those that do are FlowMatching, .*UNet, .*V",
    ),
    "optimizer key": (
        {"model__optimizer__init_args__betta": 1},
        RecipeError,
        "no key 'betta'; did you mean 'betas'",
    ),
    "text for number": (
        {"data__crops__size": "big"},
        RecipeError,
        "data.crops.size: expected a whole number.*, not 'big'",
    ),
    "list for number": (
        {"data__reading__batch_size": [1]},
        RecipeError,
        "data.reading.batch_size: expected a whole number",
    ),
    "text for flag": (
        {"data__reading__mask": "maybe"},
        RecipeError,
        "mask: expected true or false",
    ),
    "choice": (
        {"data__augment__symmetries": "al"},
        RecipeError,
        "symmetries: expected one of .*'flips'.*, not 'al'",
    ),
    "negative noise": ({"data__augment__add": -1.0}, M2MError, "`add` is a deviation, -1.0"),
    "negative epochs": ({"trainer__max_epochs": -5}, RecipeError, "max_epochs"),
    "batch of 0": ({"data__reading__batch_size": 0}, RecipeError, "at least 1 sample"),
    "no such state": ({"output__resume": "state_9.pt"}, ArtefactError, "no state state_9.pt"),
    "learning rate": (
        {"model__optimizer__init_args__lr": -1.0},
        RecipeError,
        "learning rate: -1",
    ),
    "missing targets": ({"model__targets": None}, RecipeError, "model.targets"),
    "no callback folder": ({"callback_at": "nowhere"}, RecipeError, "'?nowhere'? does not exist"),
    "callback syntax": (
        {"callback_at": ".", "model__model": {"class_path": "map2map_callback.broken.f"}},
        M2MError,
        "broken.py",
    ),
}
for name, what in {
    "model that raises": {"model__model": {"class_path": "map2map_callback.mine.Net"}},
    "model not made": {"model__model": {"class_path": "map2map_callback.mine.Init"}},
    "loss that raises": {"model__loss": {"class_path": "map2map_callback.mine.Loss"}},
    "loss not made": {"model__loss": {"class_path": "map2map_callback.mine.LossInit"}},
    "optimizer that raises": {
        "model__optimizer": {"class_path": "map2map_callback.mine.Adam", "init_args": {"lr": 0.1}}
    },
}.items():
    BAD_RECIPES[name] = (
        {"callback_at": "."} | what,
        UserCodeError,
        r"mine.py, line \d+, \w+.(__init__|forward|step) raised KeyError: 'boom'",
    )


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_bad_recipes_are_told(folder, case):
    changes, error, message = BAD_RECIPES[case]
    with pytest.raises(error, match=message):
        train_recipe(edited(**changes))


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_bad_recipes_leave_with_status_2(folder, m2m, case):
    changes, _, message = BAD_RECIPES[case]
    (folder / "r.yaml").write_text(yaml.safe_dump(edited(**changes)))
    check_refusal(*m2m("train", "r.yaml"), message)
    assert not list(folder.glob("state_*"))


def test_losses_are_named_without_a_path_too(folder):
    measures = {"l2": {"class_path": "RelativeL2"}}
    (folder / "r.yaml").write_text(
        yaml.safe_dump(edited(model__loss=of("LogCosh"), model__options={"measures": measures}))
    )
    # in a process of its own, where nothing else has imported them
    code = (
        "from map2map.commands.train import make; made = make(['--config', 'r.yaml'], 'm2m').model;"
        "print(type(made.loss).__name__, type(made.measures['l2']).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LogCosh", "RelativeL2"]


def test_a_place_on_the_command_line_takes_the_place_of_that_in_the_recipe(folder):
    (folder / "r.yaml").write_text(
        yaml.safe_dump(edited(data__train__nu={"table": "t.csv", "column": "c", "scale": 2.0}))
    )
    for value, expected in (
        ("{placeholder: k}", Told(placeholder="k")),
        ("{table: u.csv}", Told(table="u.csv")),
        ("{pattern: 'x_*.npy', variable: x}", Files("x_*.npy", "x")),
    ):
        made = make(["--config", "r.yaml", "--data.train.nu", value], "m2m")
        assert made.datamodule.patterns["train"]["nu"] == expected
    for value, words in (
        ("{tabel: u.csv}", "no key data.train.nu.tabel; did you mean 'table'"),
        ("{patern: 'x_*.npy'}", "no key data.train.nu.patern; did you mean 'pattern'"),
        ("{placeholder: k, table: u.csv}", "placeholder and table are given"),
    ):
        with pytest.raises(RecipeError, match=words):
            make(["--config", "r.yaml", "--data.train.nu", value], "m2m")
    made = make(["--config", "r.yaml", "--data.train.nu={placeholder: k}"], "m2m")
    assert made.datamodule.patterns["train"]["nu"] == Told(placeholder="k")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: }", "r.yaml is not YAML: .*line 2"),
        (b"\xff\xfe\x00", "r.yaml is not YAML"),
        (b"- a\n- b\n", "r.yaml is a list, not a recipe"),
        (b"", "r.yaml is empty, not a recipe"),
        (b"just text", "r.yaml is a str, not a recipe"),
    ],
)
def test_a_file_that_is_no_recipe(folder, m2m, content, message):
    (folder / "r.yaml").write_bytes(content)
    check_refusal(*m2m("train", "r.yaml"), message)
    check_refusal(*m2m("inspect", "r.yaml"), message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "none.yaml"], "there is no recipe none.yaml"),
        (["train", "cosmology_displacment"], "did you mean 'cosmology_displacement'"),
        (["train"], "which recipe"),
        (["train", "r.yaml", "--data.crops.siez=3"], "'siez'; did you mean 'size'"),
        (["train", "r.yaml", "--trainer.max_epochs=many"], "max_epochs: expected a whole number"),
        (["train", "r.yaml", "surplus"], "unrecognized arguments: surplus"),
        (["trian"], "no command 'trian'; did you mean 'train'"),
        ([], "which command"),
        (["recipes", "cosmology"], "did you mean|there are cosmology_displacement"),
        (["inspect"], "required: file"),
        (["inspect", "c_0.npy"], "no file"),
        (["inspect", "none.yaml"], "there is no recipe none.yaml"),
        (["inspect", "mine.py"], "cannot tell the format of mine.py"),
        (["simulate", "nbdy"], "did you mean 'nbody'"),
        (["simulate", "nbody", "--out=o", "--runs=0"], "runs >= 1"),
        (["simulate", "nbody", "--out=o", "--siez=8"], "siez"),
        (["map2map", "train", "--lr=1"], "required: "),
    ],
)
def test_bad_command_lines_leave_with_status_2(folder, m2m, argv, message):
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    check_refusal(*m2m(*argv), message)


def test_a_recipe_is_found_by_name_or_path(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'cosmology_displacement'"):
        find("cosmology_displacment")
    with pytest.raises(RecipeError, match="there is no recipe"):
        find(str(tmp_path / "a.yaml"))


MAP2MAP = ["--in-pad=1", "--crop=4", "--batch-size=2", "--lr=0.1", "--epochs=1"]
MAP2MAP += ["--train-in-patterns=a_*.npy", "--train-tgt-patterns=b_*.npy", "--callback-at=."]
MAP2MAP += ['--misc-kwargs={"depth": 1}']


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=UNt"], "no model 'UNt'"),
        (["--model=mine.Nett"], "mine.py has no 'Nett'; did you mean 'Net'"),
        (["--model=main.Net"], "no callback file .*main.py.*did you mean 'mine'"),
        (["--model=broken.Net"], "broken.py raised SyntaxError"),
        (["--model=mine.Net"], "mine.py, line 13, Net.forward raised KeyError: 'boom'"),
        (["--model=ConvNet", "--criterion=mine.Loss"], "Loss.forward raised KeyError: 'boom'"),
        (["--model=ConvNet", "--criterion=Conv2d"], "model.loss: .* required: in_channels"),
        (["--model=ConvNet", "--in-norms=mine.norm"], "norm mine.norm raised KeyError: 'boom'"),
        (["--model=ConvNet", "--in-norms=mine.nrm"], "did you mean 'norm'"),
        (["--model=ConvNet", "--crop-step=0"], "step of 0"),
        (["--model=ConvNet", "--scale-factor=0"], "scale factor is 0"),
        (["--model=ConvNet", '--misc-kwargs={"wdth": 3}'], "nothing takes 'wdth'.*'width'"),
        (["--model=ConvNet", "--in-pad=1,2,3"], "halo on 2 axes"),
        (["--model=ConvNet", "--optimizer-args=[1]"], "invalid JSON object value"),
    ],
)
def test_bad_map2map_command_lines_leave_with_status_2(folder, m2m, options, message):
    check_refusal(*m2m("map2map", "train", *MAP2MAP, *options), message)


# --- artefacts ---------------------------------------------------------------------------------


class Payload:
    """A pickle that makes a file where it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture
def pickles(folder):
    """Pickles under names of artefacts, as torch and as pickle write them."""
    torch.save({"model": Payload(), "epoch": 1}, folder / "zipped.pt")
    with (folder / "plain.pt").open("wb") as file:
        pickle.dump({"model": Payload()}, file)
    (folder / "emulator.safetensors").write_bytes((folder / "plain.pt").read_bytes())
    return folder


@pytest.mark.parametrize("name", ["zipped.pt", "plain.pt"])
def test_a_pickle_is_no_state_and_is_not_run(pickles, m2m, name):
    with pytest.raises(ArtefactError, match=f"{name} is not a state"):
        read_state(pickles / name)
    (pickles / "r.yaml").write_text(yaml.safe_dump(edited(output__resume=name)))
    check_refusal(*m2m("train", "r.yaml"), f"{name} is not a state")
    check_refusal(*m2m("inspect", name), f"{name} is not a state")
    assert not (pickles / "executed").exists()


def test_the_payload_would_have_run(pickles):
    with (pickles / "plain.pt").open("rb") as file:
        pickle.load(file)
    assert (pickles / "executed").exists()


def test_a_refused_pickle_comes_without_advice_to_load_it_all_the_same(pickles):
    with pytest.raises(ArtefactError) as refusal:
        read_state(pickles / "plain.pt")
    assert "weights_only" not in str(refusal.value)


def test_a_pickle_is_no_emulator_and_is_not_run(pickles, m2m):
    with pytest.raises(ArtefactError, match="is not an emulator"):
        Emulator.load(pickles / "emulator.safetensors")
    with pytest.raises(ArtefactError, match="is not an emulator"):
        Card.read(pickles / "emulator.safetensors")
    check_refusal(*m2m("inspect", "emulator.safetensors"), "is not an emulator")
    assert not (pickles / "executed").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_a_file_without_weights_is_no_state(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ArtefactError, match="it has no 'model'"):
        read_state(tmp_path / "x.pt")


def test_a_state_of_another_model_is_refused(folder, m2m):
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    assert m2m("train", "r.yaml")[0] == 0
    kept = (folder / "state_1.pt").read_bytes()
    more = ["--trainer.max_epochs=2"]
    argv = ["train", "r.yaml", *more, "--model.model.init_args.depth=2", "--data.crops.halo=2"]
    check_refusal(*m2m(*argv), "are not those of this ConvNet: .*convs.2")
    argv = ["train", "r.yaml", *more, "--model.model.init_args.kernel_size=5"]
    check_refusal(*m2m(*argv, "--data.crops.halo=2"), r"convs.0.weight \(1, 1, 3, 3\) instead of")
    assert (folder / "state_1.pt").read_bytes() == kept
    state = read_state(folder / "state_1.pt")
    model = ConvNet(1, 1, ndim=2, width=1, depth=2)
    with pytest.raises(ArtefactError, match=r"missing: convs\.2"):
        load_weights(model, state["model"], folder / "state_1.pt", strict=True)
    truncate(folder / "state_1.pt")
    check_refusal(*m2m("train", "r.yaml", *more), "is not a state of map2map, or is truncated")


def test_a_full_disk_keeps_the_previous_state(folder, m2m, monkeypatch):
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    assert m2m("train", "r.yaml")[0] == 0
    save = torch.save

    def fill_the_disk(state, path, *args, **kwargs):
        save(state, path)
        os.truncate(path, 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    refused = m2m("train", "r.yaml", "--trainer.max_epochs=2")
    check_refusal(*refused, "cannot write state_2.pt: .*No space left.*make room")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert {path.name for path in folder.glob("*.pt")} == {"state_1.pt", "checkpoint.pt", "best.pt"}
    assert not list(folder.glob(".*part"))
    assert read_state(folder / "checkpoint.pt")["epoch"] == 1
    assert m2m("train", "r.yaml", "--trainer.max_epochs=2")[0] == 0
    assert read_state(folder / "checkpoint.pt")["epoch"] == 2


def test_a_write_that_fails_keeps_the_file_of_that_name(tmp_path, monkeypatch):
    path = tmp_path / "state_1.pt"
    AtomicCheckpointIO().save_checkpoint({"model": {}, "epoch": 1}, path)

    def fail(*args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 768 vs 662")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(SaveError, match=r"state_1.pt.*the file that was there is unchanged"):
        AtomicCheckpointIO().save_checkpoint({"model": {}, "epoch": 2}, path)
    monkeypatch.undo()
    assert read_state(path)["epoch"] == 1


def test_a_real_limit_on_the_size_of_files(tmp_path):
    """The kernel refuses the write in the middle, as a full disk does."""
    code = """
import resource, signal, torch
from pathlib import Path
from map2map.checkpoints import AtomicCheckpointIO, read_state
from map2map.errors import SaveError
io, path = AtomicCheckpointIO(), Path("state_1.pt")
io.save_checkpoint({"model": {"w": torch.zeros(10)}, "epoch": 1}, path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    io.save_checkpoint({"model": {"w": torch.zeros(10000)}, "epoch": 2}, path)
except SaveError as error:
    print(error)
assert read_state(path)["epoch"] == 1
assert [p.name for p in Path().iterdir()] == ["state_1.pt"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write state_1.pt" in done.stdout
    assert "the file that was there is unchanged" in done.stdout


def test_the_process_itself_exits_with_status_2(folder):
    argv = [sys.executable, "-m", "map2map.cli", "train", "none.yaml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "m2m train: error: there is no recipe none.yaml\n"


def test_make_refuses_before_anything_is_written(folder):
    with pytest.raises(RecipeError, match="modle"):
        make(edited(modle=1), "m2m train")
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("error", [SourceError("a file is truncated"), UserCodeError("write")])
def test_what_fails_while_a_file_is_open_is_not_blamed_on_the_disk(tmp_path, error):
    def write():
        with replacing(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error), match=str(error)):
        write()
    assert not list(tmp_path.iterdir())
