"""User code comes from where the user points, and its errors are told as its own."""

import json

import pytest

from map2map.errors import RecipeError, UserCodeError
from map2map.usercode import guarded, load_from_folder, load_from_packages


def test_a_callback_file_is_used_whatever_it_is_called(tmp_path):
    """map2map used the standard library's module instead of a callback file json.py."""
    (tmp_path / "json.py").write_text("def mine(): return 42\n")
    assert load_from_folder("json.mine", tmp_path)() == 42
    assert not hasattr(json, "mine")


def test_a_missing_file_or_name_is_told_with_its_neighbors(tmp_path):
    (tmp_path / "norms.py").write_text("def dis(x): pass\n")
    with pytest.raises(RecipeError, match="did you mean 'norms'"):
        load_from_folder("norm.dis", tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'dis'"):
        load_from_folder("norms.diss", tmp_path)
    with pytest.raises(RecipeError, match="does not exist"):
        load_from_folder("norms.dis", tmp_path / "nowhere")
    with pytest.raises(RecipeError, match="names no file"):
        load_from_folder("dis", tmp_path)


def test_a_file_that_raises_is_told_each_time(tmp_path):
    """map2map told it once, and was misleading from then on."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(UserCodeError, match="ZeroDivisionError"):
            load_from_folder("broken.f", tmp_path)


def test_a_function_that_raises_is_named():
    with pytest.raises(UserCodeError, match="norm mine raised KeyError"):
        guarded({}.__getitem__, "norm mine")("a")


def test_public_names_of_packages_and_only_those():
    assert load_from_packages("UNet", ["map2map.models"]).__name__ == "UNet"
    assert load_from_packages("functional.mse_loss", ["torch.nn"]).__name__ == "mse_loss"
    assert load_from_packages("nothing", ["torch.nn", "map2map.models"]) is None


def test_nothing_outside_the_folder_is_reached(tmp_path):
    (tmp_path / "evil.py").write_text("def f(): pass\n")
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in ("..evil.f", f"{tmp_path}/evil.f", "../evil.f"):
        with pytest.raises(RecipeError, match="names no file"):
            load_from_folder(name, inside)
