import h5py
import numpy as np
import pytest

from map2map.commands.arguments import as_learnt, fields_at
from map2map.errors import RecipeError
from map2map.runs import Files


def test_a_single_path_holds_all_fields():
    assert fields_at(["run_*.nc"], ["u", "v"]) == {"u": Files("run_*.nc"), "v": Files("run_*.nc")}


def test_fields_are_named_with_their_variable():
    assert fields_at(["v=b.h5::/x/v", "u=a.npy"], ["u", "v"]) == {
        "u": Files("a.npy"),
        "v": Files("b.h5", "/x/v"),
    }


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["u=a.npy"], "v are missing"),
        (["u=a.npy", "u=b.npy", "v=c.npy"], "'u' is given twice"),
        (["u=a.npy", "w=b.npy"], "not NAME=PATH of a field that is needed"),
        (["a.npy", "b.npy"], "the fields are u, v"),
        (["u=a.nc", "a.nc", "v=7"], r"^'a.nc' is superfluous: u, v have their places already"),
        (["a.nc::u"], "names one variable"),
    ],
)
def test_what_is_missing_unknown_or_given_twice_is_refused(places, message):
    with pytest.raises(RecipeError, match=message):
        fields_at(places, ["u", "v"])


def test_a_mistyped_style_is_told_as_one():
    with pytest.raises(RecipeError, match=r"nor NAME=NUMBER of a style \(nu, z\); did .* 'nu'"):
        fields_at(["u=a.npy", "nuu=1.5"], ["u"], styles=["nu", "z"])


def test_names_in_files_are_those_of_the_training_where_files_know_no_others(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((6, 4))
        file["v"] = np.zeros((1, 4))
    learnt = {
        "u": Files("old.h5", "/x[0:3]"),
        "v": Files("old.h5", "x[3:6]"),
        "w": Files("o.h5", "y"),
    }
    given = dict.fromkeys(learnt, Files(str(path)))
    found = as_learnt(given, learnt)
    assert found["u"].variable == "/x[0:3]"
    # its own name, and one that is nowhere
    assert found["v"] == found["w"] == Files(str(path))
    said = {"u": Files(str(path), "v")}
    assert as_learnt(said, learnt) == said
    missing = {"u": Files(str(tmp_path / "none.h5"))}
    assert as_learnt(missing, learnt) == missing
