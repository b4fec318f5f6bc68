"""Labels and parameters of runs: as numbers, from wherever they are told."""

import numpy as np
import pytest

from map2map.errors import FieldError, RecipeError, SourceError
from map2map.fields import Field
from map2map.told import Known, Told, numbers

TWO = Field("gravity", kind="label", classes=("newton", "gr"))
THREE = Field("gravity", kind="label", classes=("newton", "gr", "mond"))
MASS = Field("mass", kind="parameter")


def runs(*placeholders, coordinate=None, attributes=None):
    """A run for each, in a file of its own."""
    return [
        Known(f"run {i}", i, len(placeholders), told, lambda: coordinate, lambda: attributes or {})
        for i, told in enumerate(placeholders)
    ]


def test_two_classes_are_one_number_and_more_are_one_each():
    known = runs({"gravity": "gr"}, {"gravity": "newton"}, {"gravity": "gr"})
    np.testing.assert_array_equal(numbers(TWO, None, known), [[1], [0], [1]])
    known = runs({"gravity": "mond"}, {"gravity": "newton"}, {"gravity": "gr"})
    found = numbers(THREE, None, known)
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert found.dtype == np.float32


def test_a_label_is_told_by_another_placeholder_or_is_the_same_everywhere():
    known = runs({"g": "gr"}, {"g": "newton"})
    np.testing.assert_array_equal(numbers(TWO, Told(placeholder="g"), known), [[1], [0]])
    np.testing.assert_array_equal(numbers(TWO, "gr", known), [[1], [1]])
    np.testing.assert_array_equal(numbers(MASS, 0.25, known), [[0.25], [0.25]])


def test_a_class_that_is_none_of_the_classes_is_refused_by_run_and_name():
    with pytest.raises(
        FieldError, match=r"run 1 has the gravity 'mond', which is none .*newton, gr"
    ):
        numbers(TWO, None, runs({"gravity": "gr"}, {"gravity": "mond"}))
    with pytest.raises(FieldError, match="did you mean 'gr'"):
        numbers(TWO, "GR", runs({}))


def test_a_class_beside_the_classes_can_be_left_out_by_its_placeholder():
    words = r"'mond', which is none of its classes, newton, gr; leave such runs out with "
    how = r"--only {0}=newton,gr, or in a recipe with `only: \{{{0}: \[newton, gr\]\}}`"
    with pytest.raises(FieldError, match=words + how.format("gravity")):
        numbers(TWO, None, runs({"gravity": "mond"}))
    with pytest.raises(FieldError, match=words + how.format("g")):
        numbers(TWO, Told(placeholder="g"), runs({"g": "mond"}))
    with pytest.raises(
        FieldError, match=r"did you mean 'gr'\? Else leave .*--only gravity=newton,gr"
    ):
        numbers(TWO, None, runs({"gravity": "gr2"}))
    # runs are not chosen by attributes
    with pytest.raises(FieldError, match=r"none of its classes, newton, gr; there are gr, newton$"):
        numbers(TWO, Told(attribute="g"), runs({}, attributes={"g": "mond"}))


def test_what_nothing_tells_is_refused_with_the_placeholders_there_are():
    with pytest.raises(FieldError, match="placeholders are grav, seed; name one like it"):
        numbers(TWO, None, runs({"grav": "gr", "seed": "1"}))
    with pytest.raises(FieldError, match=r"no placeholder 'gravty'.*did you mean 'gravity'"):
        numbers(TWO, Told(placeholder="gravty"), runs({"gravity": "gr"}))
    with pytest.raises(FieldError, match="run 0 has no coordinate of a frame"):
        numbers(MASS, Told(coordinate=True), runs({}))


@pytest.mark.parametrize(
    "value", ["0.5", 0.5, np.float32(0.5), np.array([0.5]), b"0.5", np.bytes_(b"0.5"), " 0.5 "]
)
def test_attributes_of_any_type_are_numbers(value):
    told = Told(attribute="m")
    np.testing.assert_array_equal(numbers(MASS, told, runs({}, attributes={"m": value})), [[0.5]])


@pytest.mark.parametrize("value", ["1", 1, 1.0, np.int64(1), np.array([1.0]), b"1"])
def test_attributes_of_any_type_are_classes(value):
    label = Field("kind", kind="label", classes=("0", "1"))
    told = Told(attribute="k")
    np.testing.assert_array_equal(numbers(label, told, runs({}, attributes={"k": value})), [[1]])


def test_days_become_years_by_scale_and_offset():
    told = Told(coordinate=True, scale=1 / 365.25, offset=1979)
    found = numbers(MASS, told, runs({}, coordinate=365.25 * 3))
    np.testing.assert_allclose(found, [[1982.0]])


@pytest.mark.parametrize("value", ["gr", "nan", "inf", ""])
def test_a_parameter_that_is_no_number_is_refused(value):
    with pytest.raises(FieldError, match="no finite number; mend it, or is 'mass' a label"):
        numbers(MASS, None, runs({"mass": value}))


def test_it_is_told_in_exactly_one_way():
    for wrong in ({}, {"placeholder": "a", "table": "t.csv"}, {"coordinate": False}):
        with pytest.raises(RecipeError, match="exactly one"):
            Told(**wrong)


# --- tables


def write(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    return str(path)


def test_rows_of_a_table_are_found_by_the_columns_that_are_placeholders(tmp_path):
    table = write(tmp_path, "mass,seed,h\n3,7,0.7\n1,8,0.8\n2,0009,0.9\n")
    known = runs({"seed": "0009"}, {"seed": "0007"}, {"seed": "8"})
    np.testing.assert_array_equal(numbers(MASS, Told(table=table), known), [[2], [3], [1]])
    found = numbers(MASS, Told(table=table, column="h", scale=100), known)
    np.testing.assert_allclose(found, [[90], [70], [80]])


def test_two_key_columns_both_count(tmp_path):
    table = write(tmp_path, "seed,gravity,mass\n1,gr,10\n1,newton,11\n2,gr,20\n2,newton,21\n")
    known = runs({"seed": "02", "gravity": "newton"}, {"seed": "1", "gravity": "gr"})
    np.testing.assert_array_equal(numbers(MASS, Told(table=table), known), [[21], [10]])


def test_without_key_columns_rows_are_files_in_their_order(tmp_path):
    table = write(tmp_path, "mass\n5\n6\n")
    known = runs({"seed": "1"}, {"seed": "0"})
    np.testing.assert_array_equal(numbers(MASS, Told(table=table), known), [[5], [6]])
    frames = [*known, known[1]]  # a second frame of the second file
    np.testing.assert_array_equal(numbers(MASS, Told(table=table), frames), [[5], [6], [6]])
    with pytest.raises(SourceError, match="2 rows for 3 files, and no column named like"):
        numbers(MASS, Told(table=table), runs({}, {}, {}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed,mass\n1,5\n", r"no row with seed 2, for run 1"),
        ("seed,mass\n1,5\n2,6\n001,7\n", "several rows with equal seed"),
        ("seed,mas\n1,5\n2,6\n", "no column 'mass'; did you mean 'mas'"),
        ("", "no column 'mass'"),
        ("\n", "no column 'mass'"),
    ],
)
def test_a_table_that_does_not_tell_is_refused(tmp_path, text, says):
    with pytest.raises(SourceError, match=says):
        numbers(MASS, Told(table=write(tmp_path, text)), runs({"seed": "1"}, {"seed": "2"}))


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffseed,mass\n1,5\n2,6\n",
        "seed, mass\r\n1, 5\r\n2, 6\r\n",
        "seed,mass\n1,5,stray\n2,6\n",
    ],
)
def test_tables_as_other_programs_write_them_are_read(tmp_path, text):
    known = runs({"seed": "1"}, {"seed": "2"})
    np.testing.assert_array_equal(
        numbers(MASS, Told(table=write(tmp_path, text)), known), [[5], [6]]
    )


def test_a_row_that_is_too_short_is_no_traceback(tmp_path):
    table = write(tmp_path, "seed,mass\n1\n2,6\n")
    with pytest.raises(FieldError, match="no finite number"):
        numbers(MASS, Told(table=table), runs({"seed": "1"}, {"seed": "2"}))


def test_a_table_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"seed,mass\n1,\xff\n")
    for path in (tmp_path / "t.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(SourceError, match="cannot read the table"):
            numbers(MASS, Told(table=str(path)), runs({}))


@pytest.mark.parametrize("name", ["table.npy", "table.csv"])
def test_files_of_which_no_frame_is_a_run_have_their_rows_too(name, tmp_path):
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, [1.0, 2.0, 3.0])
    else:
        path.write_text("mass\n1\n2\n3\n")
    first, _, last = runs({}, {}, {})
    found = numbers(MASS, Told(table=str(path)), [first, last, last])
    np.testing.assert_array_equal(found, [[1], [3], [3]])
    with pytest.raises(SourceError, match="for 2 files"):
        numbers(MASS, Told(table=str(path)), runs({}, {}))


def test_a_table_that_tells_no_number_is_named(tmp_path):
    (tmp_path / "table.csv").write_text("mass\n1\nnan\n")
    with pytest.raises(FieldError, match=r"run 1 \(by the table .*table\.csv\) has the mass 'nan'"):
        numbers(MASS, Told(table=str(tmp_path / "table.csv")), runs({}, {}))
