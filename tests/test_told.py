"""Labels and parameters of runs: as numbers, from wherever they are told."""

import numpy as np
import pytest
import xarray as xr

from map2map.errors import FieldError, RecipeError, SourceError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.told import Known, Told, numbers

TWO = Field("gravity", kind="label", classes=("newton", "gr"))
THREE = Field("gravity", kind="label", classes=("newton", "gr", "mond"))
MASS = Field("mass", kind="parameter")


def runs(*placeholders, coordinate=None, attributes=None, files=None):
    """A run for each, in a file of its own."""
    names = files or [f"file_{i:03}" for i in range(len(placeholders))]
    return [
        Known(f"run {i}", i, names, told, lambda: coordinate, lambda: attributes or {})
        for i, told in enumerate(placeholders)
    ]


def test_two_classes_are_one_number_and_more_are_one_each():
    known = runs({"gravity": "gr"}, {"gravity": "newton"}, {"gravity": "gr"})
    np.testing.assert_array_equal(numbers(TWO, None, known), [[1], [0], [1]])
    known = runs({"gravity": "mond"}, {"gravity": "newton"}, {"gravity": "gr"})
    found = numbers(THREE, None, known)
    np.testing.assert_array_equal(found, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert found.dtype == np.float64


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
    with pytest.raises(SourceError, match=r"2 rows for 3 files .*, and no column named like"):
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
        "seed,mass,,\n1,5,,\n\n2,6,,\n",
        "seed,mass\n1,5,,\n2 ,6 \n",
    ],
)
def test_tables_as_other_programs_write_them_are_read(tmp_path, text):
    known = runs({"seed": "1"}, {"seed": "2"})
    np.testing.assert_array_equal(
        numbers(MASS, Told(table=write(tmp_path, text)), known), [[5], [6]]
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed,mass\n1\n2,6\n", "line 2 of the table .* has 1 cells, 1, for 2 columns, seed,mass"),
        ("seed,mass\n1,5\n\n2,6,7\n", r"line 4 .* 3 cells, 2,6,7, .*\(a decimal comma"),
        ("seed,mass,mass\n1,5,6\n2,6,7\n", "several columns 'mass'; name each"),
        ("seed,mass\n1,5\n2,6\n001,7\n", "lines 2 and 4"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_by_line(tmp_path, text, says):
    with pytest.raises(SourceError, match=says):
        numbers(MASS, Told(table=write(tmp_path, text)), runs({"seed": "1"}, {"seed": "2"}))


def test_a_table_with_keys_may_tell_of_more_runs_than_there_are(tmp_path):
    table = write(tmp_path, "seed,mass\n1,5\n2,6\n3,7\n")
    np.testing.assert_array_equal(numbers(MASS, Told(table=table), runs({"seed": "2"})), [[6]])


UNPADDED = [f"d/a_{i}.npy" for i in (0, 1, 10, 11, 2)]


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_rows_in_the_order_of_files_that_count_without_zeros_are_refused(tmp_path, kind):
    values = np.arange(5.0)
    path = tmp_path / f"t.{kind}"
    np.save(path, values) if kind == "npy" else path.write_text("mass\n0\n1\n2\n3\n4\n")
    told = Told(table=str(path))
    says = r"sorted as text, not by numbers: …, d/a_1.npy, d/a_10.npy, d/a_11.npy, …; .*pad the num"
    with pytest.raises(SourceError, match=says):
        numbers(MASS, told, runs(*[{}] * 5, files=UNPADDED))
    for names in (
        [f"d/a_{i:02}.npy" for i in range(5)],
        ["nu0.005_1", "nu0.05_1", "nu0.25_1", "nu0.5_1", "nu1_0"],
        ["z1e-05", "z1e-4", "z2", "z2b", "z3"],
    ):
        found = numbers(MASS, told, runs(*[{}] * 5, files=names))
        np.testing.assert_array_equal(found[:, 0], values)


def test_a_table_for_each_file_is_found_if_both_count_alike(tmp_path):
    for i in (0, 1, 10, 11, 2):
        np.save(tmp_path / f"s_{i}.npy", [float(i)])
        np.save(tmp_path / f"p_{i:02}.npy", [float(i)])
    found = numbers(MASS, Told(table=str(tmp_path / "s_*.npy")), runs(*[{}] * 5, files=UNPADDED))
    np.testing.assert_array_equal(found[:, 0], [0, 1, 10, 11, 2])
    with pytest.raises(SourceError, match=r"d/a_1\.npy, d/a_10\.npy, d/a_11\.npy"):
        numbers(MASS, Told(table=str(tmp_path / "p_*.npy")), runs(*[{}] * 5, files=UNPADDED))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s_{run}.npy", r"has a placeholder, .*with wildcards .*, as s_\*.npy"),
        (
            "{run}.csv",
            "has a placeholder, .*one CSV file tells of all runs, by a column",
        ),
        ("s_*.csv", "has wildcards, but one CSV file tells of all runs"),
    ],
)
def test_what_names_of_tables_cannot_have_is_refused(name, says):
    with pytest.raises(SourceError, match=says):
        numbers(MASS, Told(table=name), runs({"run": "1"}))


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
    with pytest.raises(
        FieldError, match=r"run 1 \(by the table .*table\.csv, line 3\) has the mass 'nan'"
    ):
        numbers(MASS, Told(table=str(tmp_path / "table.csv")), runs({}, {}))


# --- of runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_rows_are_those_of_all_files_also_where_only_some_are_taken(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for k in range(5):
        np.save(f"x_{k}.npy", np.zeros((1, 4), np.float32))
    values = np.arange(5.0) ** 2
    np.save("t.npy", values)
    (tmp_path / "t.csv").write_text("\n".join(["mass", *map(str, values)]))
    files = Files("x_{run}.npy", only={"run": "1:4"})
    patterns = {"x": files, "mass": Told(table=f"t.{kind}")}
    found = Runs([Field("x")], [MASS], patterns, Domain(1)).numbers
    np.testing.assert_array_equal(found, [[1], [4], [9]])
    np.save("t.npy", values[:3])
    (tmp_path / "t.csv").write_text("mass\n1\n2\n3\n")
    with pytest.raises(SourceError, match=r"5 files \(those that `only` leaves out among them\)"):
        Runs([Field("x")], [MASS], patterns, Domain(1))


def test_the_coordinate_of_a_frame_is_that_of_whichever_input_has_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    xr.Dataset(
        {"u": (("time", "x"), np.zeros((3, 4)))}, {"time": [0.5, 1.0, 2.0], "x": np.arange(4.0)}
    ).to_netcdf("u.nc")
    xr.Dataset({"still": ("x", np.zeros(4))}, {"x": np.arange(4.0)}).to_netcdf("still.nc")
    patterns = {"u": "u.nc", "still": "still.nc", "mass": Told(coordinate=True)}
    for inputs in (["u", "still"], ["still", "u"]):
        runs = Runs([Field(name) for name in inputs], [MASS], patterns, Domain(1, frames=1))
        np.testing.assert_array_equal(runs.numbers, [[0.5], [1], [2]])
