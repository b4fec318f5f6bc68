"""YAML that says a thing twice is refused; all else is what YAML says."""

import pytest
import yaml

from map2map.commands.recipes import read, shipped
from map2map.errors import RecipeError
from map2map.spaces import read_space
from map2map.yaml_files import load_yaml

TEXTS = [
    "a: 1\nb: [1, {a: 2}, x]\n",
    "",
    "- 1\n- {a: 1}\n- {a: 1}\n",
    # an override of what is merged is meant, however deep it stands
    "b: &b {x: 0, y: 2}\np: {q: &a {<<: *b, x: 1}}\nc: {<<: *a}\nd: *a\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_other_yaml_is_what_it_was(text):
    assert load_yaml(text, "x") == yaml.safe_load(text)


def test_recipes_that_come_along_are_what_they_were():
    for path in shipped().values():
        assert read(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 1\n", r"f.yaml: the key a stands twice in one mapping \(lines 1 and 3\)"),
        ("a:\n- {architecture: X, architecture: Y}\n", r"the key architecture .*\(line 2\)"),
        ("a:\n  b:\n    c: 1\n    'c': 2\n", r"the key c .*\(lines 3 and 4\)"),
    ],
)
@pytest.mark.parametrize("reader", [read, read_space])
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path, text, said, reader):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said):
        reader(path)


def test_what_is_no_yaml_is_told_with_its_place():
    with pytest.raises(RecipeError, match=r"f.yaml is not YAML: .*line 2"):
        load_yaml("a: 1\nb: [", "f.yaml")
