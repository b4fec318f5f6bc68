import pytest

from map2map.commands.arguments import fields_at
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
