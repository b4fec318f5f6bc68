"""Patterns: placeholders tell files and arrays apart, and ranges are whole or refused."""

from pathlib import Path

import numpy as np
import pytest

from map2map.errors import RecipeError, SourceError
from map2map.fields import Field
from map2map.patterns import Files, Found, plain
from map2map.runs import Runs

GRAVITIES = "gr", "newton"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of four seeds and two gravities, each holding its seed, and 10 more for gr."""
    monkeypatch.chdir(tmp_path)
    for seed in range(4):
        for k, gravity in enumerate(GRAVITIES):
            path = tmp_path / f"seed{seed:04d}" / f"{gravity}_phi.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.full((1, 4), seed + 10 * k, np.float32))
    return tmp_path


def found(files, arrays=()):
    return files.found("phi", lambda _: arrays)


def told(entries, *keys):
    return [tuple(entry.told[key] for key in keys) for entry in entries]


def test_placeholders_tell_what_they_stand_for_in_the_order_of_the_text(folder):
    entries = found(Files("seed{seed}/{gravity}_phi.npy"))
    assert told(entries, "seed", "gravity") == [
        (f"{seed:04d}", gravity) for seed in range(4) for gravity in GRAVITIES
    ]
    for entry in entries:
        k = GRAVITIES.index(entry.told["gravity"])
        assert np.load(entry.path).max() == int(entry.told["seed"]) + 10 * k


@pytest.mark.parametrize("front", ["./", "seed0000/../", ".//"])
def test_placeholders_are_told_however_the_folder_is_written(folder, front):
    entries = found(Files(front + "seed{seed}/{gravity}_phi.npy"))
    assert len(entries) == 8
    assert {entry.told["gravity"] for entry in entries} == set(GRAVITIES)


def test_a_placeholder_stands_for_one_text_wherever_it_occurs(folder):
    for a, b in ((1, 1), (1, 2), (2, 2)):
        (folder / f"r{a}").mkdir(exist_ok=True)
        np.save(folder / f"r{a}" / f"phi_{b}.npy", np.zeros((1, 4)))
    entries = found(Files("r{run}/phi_{run}.npy"))
    assert [str(entry) for entry in entries] == ["r1/phi_1.npy", "r2/phi_2.npy"]
    (folder / "q1").mkdir()
    np.save(folder / "q1" / "phi_2.npy", np.zeros((1, 4)))
    with pytest.raises(SourceError, match="one text, wherever it occurs"):
        found(Files("q{run}/phi_{run}.npy"))


def test_the_placeholder_of_a_path_stands_for_the_same_in_the_names_of_arrays(folder):
    arrays = [f"{g}_seed{s:04d}" for g in GRAVITIES for s in range(4)]
    entries = found(Files("seed{seed}/gr_phi.npy", "{gravity}_seed{seed}"), arrays)
    assert told(entries, "seed", "gravity") == [
        (f"{s:04d}", g) for s in range(4) for g in GRAVITIES
    ]
    assert [e.variable for e in entries] == [
        f"{g}_seed{s:04d}" for s in range(4) for g in GRAVITIES
    ]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("phi_[0-1]", ["phi_0", "phi_1"]),
        ("phi_[!0-1]", ["phi_2"]),
        ("phi_?", ["phi_0", "phi_1", "phi_2"]),
        ("*_0", ["phi_0", "psi_0"]),
        ("a/*", ["a/phi"]),
        ("{k}_1*", ["phi_1", "phi_10"]),
        ("a.b", ["a.b"]),
    ],
)
def test_wildcards_of_array_names_are_those_of_paths(folder, variable, expected):
    arrays = ["phi_0", "phi_1", "phi_2", "phi_10", "psi_0", "a/phi", "a/b/phi", "a.b", "acb"]
    path = "seed0000/gr_phi.npy"
    if variable == "a.b":
        assert found(Files(path, variable), arrays) == [Found(Path(path), "a.b")]
        return
    assert [entry.variable for entry in found(Files(path, variable), arrays)] == expected


def test_a_variable_that_no_array_is_called_is_refused_with_how_many_there_are(folder):
    with pytest.raises(SourceError, match=r"none of 2 arrays .*'x_\{seed\}'.*m2m inspect"):
        found(Files("seed0000/gr_phi.npy", "x_{seed}"), ["a", "b"])


def test_a_range_takes_its_numbers_in_their_order_and_leaves_the_last_out(folder):
    entries = found(Files("seed{seed}/{gravity}_phi.npy", only={"seed": "1:3"}))
    assert told(entries, "seed", "gravity") == [
        (seed, gravity) for seed in ("0001", "0002") for gravity in GRAVITIES
    ]


def test_numbers_of_a_range_count_as_numbers_not_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(12):
        np.save(f"phi_{i}.npy", np.zeros((1, 4)))
    entries = found(Files("phi_{seed}.npy", only={"seed": "2:12"}))
    assert told(entries, "seed") == [(str(i),) for i in range(2, 12)]


def test_a_range_keeps_all_that_other_wildcards_tell_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"phi_{seed}_z{z}.npy" for seed in range(3) for z in range(2)]
    for name in names:
        np.save(name, np.zeros((1, 4)))
    entries = found(Files("phi_{seed}_z*.npy", only={"seed": "0:2"}))
    assert [str(entry) for entry in entries] == names[:4]


def test_a_range_says_how_many_are_asked_for_and_how_many_there_are(folder):
    with pytest.raises(SourceError, match=r"100 values of seed .* 0 to 99.* has 4 of them; miss"):
        found(Files("seed{seed}/gr_phi.npy", only={"seed": "0:100"}))
    (folder / "seed0002" / "gr_phi.npy").unlink()
    with pytest.raises(SourceError, match=r"4 values .* has 3 of them; missing: 2$"):
        found(Files("seed{seed}/gr_phi.npy", only={"seed": "0:4"}))


def test_one_class_of_one_seed_that_is_missing_is_named(folder):
    (folder / "seed0002" / "newton_phi.npy").unlink()
    with pytest.raises(SourceError, match=r"'phi' with newton has 3 of them; missing: 2$"):
        found(Files("seed{seed}/{gravity}_phi.npy", only={"seed": "0:4"}))


@pytest.mark.parametrize("listed", [["1", "3"], ["0001", "0003"], [1, 3]])
def test_a_list_takes_what_it_names_with_or_without_zeros_in_front(folder, listed):
    only = {"seed": listed, "gravity": ["gr"]}
    entries = found(Files("seed{seed}/{gravity}_phi.npy", only=only))
    assert told(entries, "seed", "gravity") == [("0001", "gr"), ("0003", "gr")]


def test_a_list_with_a_text_that_is_not_there_is_refused(folder):
    with pytest.raises(SourceError, match="no files with gravity mond; there are gr, newton"):
        found(Files("seed{seed}/{gravity}_phi.npy", only={"gravity": ["gr", "mond"]}))


@pytest.mark.parametrize(
    ("only", "error", "says"),
    [
        ({"sed": "0:2"}, RecipeError, "placeholders are gravity, seed"),
        ({"seed": "2:2"}, RecipeError, "as in '0:100'"),
        ({"seed": "0-2"}, RecipeError, "as in '0:100'"),
        ({"gravity": "0:2"}, SourceError, "no whole number"),
        # what YAML makes of 1:30
        ({"seed": 90}, RecipeError, r'takes seed 90, .* seed: "1:30"; of one .* seed: \[90\]$'),
    ],
)
def test_an_only_that_cannot_be_is_refused(folder, only, error, says):
    with pytest.raises(error, match=says):
        found(Files("seed{seed}/{gravity}_phi.npy", only=only))


def test_only_needs_its_placeholder_in_all_patterns(folder):
    files = Files(["seed{seed}/gr_phi.npy", "seed0000/newton_phi.npy"], only={"seed": "0:2"})
    with pytest.raises(RecipeError, match=r"no placeholder tells of seed0000/newton_phi\.npy"):
        found(files)


def test_fields_are_paired_by_what_their_placeholders_stand_for(folder):
    # as text, the second sorts by gravity first
    for seed in range(4):
        for k, gravity in enumerate(GRAVITIES):
            np.save(f"{gravity}-{seed:04d}.npy", np.full((1, 4), seed + 10 * k, np.float32))
    fields = {"phi": "seed{seed}/{gravity}_phi.npy", "psi": "{gravity}-{seed}.npy"}
    runs = Runs([Field("phi"), Field("psi")], [], fields)
    for run in runs:
        assert np.load(run.paths["phi"]).max() == np.load(run.paths["psi"]).max()
    assert len(runs) == 8


def test_fields_whose_placeholders_tell_of_other_runs_are_refused(folder):
    for seed in range(1, 5):
        np.save(f"psi_{seed:04d}.npy", np.zeros((1, 4), np.float32))
    fields = {"phi": "seed{seed}/gr_phi.npy", "psi": "psi_{seed}.npy"}
    with pytest.raises(
        SourceError, match=r"seed0000/gr_phi\.npy of field 'phi' has seed 0000, but"
    ):
        Runs([Field("phi"), Field("psi")], [], fields)


def test_a_number_is_the_same_with_zeros_in_front():
    assert [plain(text) for text in ("0007", " 7", "gr", "-7", "0.70", "²")] == [
        "7", "7", "gr", "-7", "0.70", "²"
    ]  # fmt: skip
