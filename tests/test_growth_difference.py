"""The growth difference against universes whose growth is known, and tables made by hand."""

import re

import numpy as np
import pytest

from map2map.derived import Box, GrowthDifference
from map2map.errors import FieldError, RecipeError, SourceError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.runs import Runs
from map2map.specs import build, describe

BOX = Box((1.0, 1.0))


def compute(derived, *fields):
    return derived.compute(dict(zip(derived.needs, fields, strict=True)), BOX)


def table(path, z, growth, columns=19):
    """A background table as CLASS writes it: from early to late, comments first."""
    numbers = np.full((len(z), columns), 7.0)
    numbers[:, 0], numbers[:, -2] = z, growth
    np.savetxt(path, numbers[np.argsort(z)[::-1]], header="1:z 2:proper time [Gyr] ...")
    return str(path)


def test_linear_potentials_of_two_redshifts_leave_nothing():
    # of Bouchet et al.'s age, from an integration of D'' + ...: D(1) of a flat universe, Om = 0.31
    growth = 0.6084071313540005
    today = np.random.default_rng(0).normal(size=(1, 3, 4))
    derived = GrowthDifference("now", "then", (0.0, 1.0), Om=0.31)
    assert derived.needs == ("now", "then")
    left = compute(derived, today, today * growth * 2)
    np.testing.assert_allclose(left, 0, atol=1e-12)


def test_potentials_of_an_einstein_de_sitter_universe_do_not_grow():
    first, second = np.random.default_rng(0).normal(size=(2, 1, 3, 4))
    derived = GrowthDifference("a", "b", (10.0, 1.0), Om=1.0)
    np.testing.assert_allclose(compute(derived, first, second), first - second, rtol=1e-12)


def test_growth_is_read_from_a_table_and_interpolated_by_cubics(tmp_path):
    z = np.linspace(0, 12, 25)

    def growth(z):
        return 1 - 0.1 * z + 0.004 * z**2 - 1e-5 * z**3

    path = table(tmp_path / "background.dat", z, growth(z))
    first, second = np.random.default_rng(0).normal(size=(2, 1, 3, 4))
    derived = GrowthDifference("a", "b", (10.1, 1.3), table=path)
    expected = first / (11.1 * growth(10.1)) - second / (2.3 * growth(1.3))
    np.testing.assert_allclose(compute(derived, first, second), expected, rtol=1e-12)


def test_the_numbers_of_a_table_are_kept_and_the_file_is_not_needed_again(tmp_path):
    path = tmp_path / "background.dat"
    derived = GrowthDifference("a", "b", (2, 1), table=table(path, np.arange(5.0), np.ones(5)))
    path.unlink()
    card = describe(derived)
    assert card["init_args"]["table"] is None
    np.testing.assert_allclose(card["init_args"]["growth"], [3, 2])
    again = build(card, base=GrowthDifference)
    ones = np.ones((1, 2, 2))
    np.testing.assert_allclose(compute(again, ones, ones), 1 / 3 - 1 / 2)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"columns": 20}, "found 5 rows of 20 columns, but allowed are 4 or more rows of 19"),
        ({"z": [0.0, 1.0, 2.0]}, "found 3 rows of 19 columns"),
        ({"z": [0.0, 1.0, 1.0, 2.0]}, "redshifts must differ"),
        ({"z": [0.0, 1.0, 2.0, np.inf]}, "numbers must be finite"),
    ],
)
def test_other_tables_are_refused(tmp_path, made, says):
    z = np.asarray(made.get("z", np.arange(5.0)))
    path = table(tmp_path / "b.dat", z, np.ones(len(z)), made.get("columns", 19))
    with pytest.raises(SourceError, match=says):
        GrowthDifference("a", "b", (1, 2), table=path)


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(SourceError, match="there is no such file"):
        GrowthDifference("a", "b", (1, 2), table=str(tmp_path / "none.dat"))
    (tmp_path / "text.dat").write_text("z and D\n")
    with pytest.raises(SourceError, match="cannot be read as numbers"):
        GrowthDifference("a", "b", (1, 2), table=str(tmp_path / "text.dat"))
    (tmp_path / "empty.dat").write_text("# 1:z\n")
    with pytest.raises(SourceError, match="found 0 rows"):
        GrowthDifference("a", "b", (1, 2), table=str(tmp_path / "empty.dat"))


def test_a_redshift_outside_the_table_is_refused(tmp_path):
    path = table(tmp_path / "b.dat", np.arange(6.0), np.ones(6))
    with pytest.raises(RecipeError, match=r"at redshift 10, but it has redshifts 0 to 5; choose"):
        GrowthDifference("a", "b", (10, 1), table=path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "but none of them is given"),
        ({"Om": 0.3, "growth": (1, 2)}, "but Om and growth of them is given"),
        ({"growth": (1, -2)}, r"two positive numbers, not \[1.0, -2.0\]"),
        ({"growth": (1, 2, 3)}, "two positive numbers"),
        ({"Om": 2.0}, "lies between 0 and 1"),
        ({"Om": 0.3, "z": (1, -0.5)}, "two redshifts of 0 or more"),
        ({"Om": 0.3, "z": (1, 2, 3)}, "two redshifts of 0 or more"),
    ],
)
def test_growth_of_no_or_two_origins_and_impossible_numbers_are_refused(arguments, says):
    with pytest.raises(RecipeError, match=says):
        GrowthDifference("a", "b", **{"z": (10, 1)} | arguments)


def test_a_wrong_name_of_a_potential_is_refused_with_those_that_are_needed(tmp_path):
    files = {}
    for name in ("p10", "p1"):
        files[name] = str(tmp_path / f"{name}.npy")
        np.save(files[name], np.zeros((4, 4)))
    diff = GrowthDifference("p11", "p1", z=(10, 1), Om=0.3)
    said = (
        "the fields are p11, p1, to compute others, but files are given for p10, p1; missing: p11; "
        "not a field: p10"
    )
    with pytest.raises(FieldError, match=re.escape(said)):
        Runs([Field("diff")], [], files, Domain(ndim=2), derived={"diff": diff})
    files["rho"] = files["p1"]
    with pytest.raises(FieldError, match=re.escape("rho (and p11, p1, to compute others), but")):
        Runs([Field("diff"), Field("rho")], [], files, Domain(ndim=2), derived={"diff": diff})


def test_other_channels_than_asked_for_are_refused():
    derived = GrowthDifference("a", "b", (2, 1), Om=0.3)
    with pytest.raises(FieldError, match="have 1 and 2 channels, but a growth difference of 1"):
        compute(derived, np.ones((1, 2, 2)), np.ones((2, 2, 2)))
