"""Variables of the environment in recipes."""

import numpy as np
import pytest
import yaml

from map2map.commands.train import make
from map2map.errors import RecipeError
from map2map.variables import expand

SET = {"ROOT": "/big disk", "N": "4", "LIST": "[0, 1]", "EMPTY": "", "ODD": "a${N}b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${ROOT}/a.npy", "/big disk/a.npy"),
        ("${ROOT:-./data}/a", "/big disk/a"),
        ("${GONE:-./data}/a", "./data/a"),
        ("${GONE:-}/a", "/a"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY}", ""),
        ("${oc.env:ROOT}/${oc.env:N,7}", "/big disk/4"),
        ("${oc.env:GONE,./data}/a", "./data/a"),
        ("${oc.env:GONE, ./my data}", "./my data"),
        ("${GONE:-${ALSO:-${N}}}", "4"),
        ("${oc.decode:${oc.env:LIST}}", [0, 1]),
        ("${oc.decode:${oc.env:GONE,3}}", 3),
        ("a${oc.decode:${N}}", "a4"),
        ("$${N} is ${N}", "${N} is 4"),
        ("${ODD}", "a${N}b"),
        ("{seed} $5 $N", "{seed} $5 $N"),
        (3, 3),
        (None, None),
    ],
)
def test_variables_are_filled_in_as_a_shell_and_omegaconf_write_them(text, expected):
    assert expand(text, environment=SET) == expected
    assert expand({"a": [text]}, environment=SET) == {"a": [expected]}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("${GONE}/x", r"data\.train\[1\]: the environment has no variable GONE; .*\$\{GONE:-"),
        ("${oc.env:GONE}", "no variable GONE"),
        ("${trainer.max_epochs}", r"\$\{trainer.max_epochs\} is no variable; write"),
        ("${ROOT", "without its }"),
        ("${oc.decode:[1}", "not YAML"),
    ],
)
def test_what_has_no_value_is_refused_with_the_key_where_it_stands(text, match):
    with pytest.raises(RecipeError, match=match):
        expand({"data": {"train": ["a", text]}}, environment=SET)


RECIPE = """
seed_everything: 1
trainer: {max_epochs: "${EPOCHS:-3}", accelerator: cpu}
model:
  inputs: [{name: x}]
  targets: [{name: y}]
  model: {class_path: ConvNet, init_args: {width: "${oc.decode:${oc.env:WIDTH,2}}", depth: 1}}
data:
  train: {x: "${DATADIR}/x_*.npy", y: "${oc.env:DATADIR}/y_*.npy"}
output: {folder: "${LOGDIR:-logs}/run", figures: 0}
"""


def test_a_recipe_finds_data_and_logs_by_variables(tmp_path, m2m, monkeypatch):
    (tmp_path / "far").mkdir()
    values = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    for name in ("x_0", "y_0"):
        np.save(tmp_path / "far" / f"{name}.npy", values)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    monkeypatch.delenv("DATADIR", raising=False)
    status, _, err = m2m("train", "mine.yaml")
    assert status == 2
    assert "data.train.x: the environment has no variable DATADIR" in err
    monkeypatch.setenv("DATADIR", "far")
    monkeypatch.setenv("EPOCHS", "1")
    assert m2m("train", "mine.yaml")[0] == 0
    assert (tmp_path / "logs/run/state_1.pt").exists()
    assert not (tmp_path / "logs/run/state_2.pt").exists()
    # on the command line, too, and what is recorded has no variables
    status, out, _ = m2m("train", "mine.yaml", "--output.folder=${LOGDIR:-b}/c", "--print_config")
    assert status == 0
    shown = yaml.safe_load(out)
    assert shown["output"]["folder"] == "b/c"
    assert shown["data"]["train"]["x"] == "far/x_*.npy"
    assert shown["model"]["model"]["init_args"]["width"] == 2
    status, _, err = m2m("train", "mine.yaml", "--output.folder", "${NOWHERE}/c")
    assert (status, "output.folder: the environment has no variable NOWHERE" in err) == (2, True)


def test_a_recipe_given_as_a_dictionary_has_variables_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATADIR", "far")
    made = make(yaml.safe_load(RECIPE), "test")
    assert str(made.output.folder) == "logs/run"
    assert made.trainer.max_epochs == 3
