"""Splits: sizes as asked for, the same wherever files lie, and nothing on two sides."""

import h5py
import numpy as np
import pytest
import xarray as xr

from map2map.data import FieldData
from map2map.errors import RecipeError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.splits import SIDES, Split, sides
from map2map.windows import Window

ONE = [Field("x")]


def counts(found):
    return [found.count(side) for side in SIDES]


@pytest.mark.parametrize(
    ("ratios", "n", "expected"),
    [
        ([0.7, 0.2, 0.1], 10, [7, 2, 1]),  # refused by a sum in floating point
        ([0.8, 0.1, 0.1], 20, [16, 2, 2]),
        ([0.4, 0.4, 0.2], 3, [1, 1, 1]),
        ([0.8, 0.1, 0.1], 7, [5, 1, 1]),
        ([0.5, 0.5, 0.0], 4, [2, 2, 0]),
        ([1 / 3, 1 / 3, 1 / 3], 9, [3, 3, 3]),
        ([0.3333333, 0.3333333, 0.3333333], 6, [2, 2, 2]),  # add up to a little less than 1
    ],
)
@pytest.mark.parametrize("by", ["random", "name", "time"])
def test_sides_have_the_sizes_of_the_ratios(ratios, n, expected, by):
    names = [f"run{k:03d}" for k in range(n)]
    found = sides(names, Split(ratios, by=by))
    assert counts(found) == expected
    if by != "random":
        assert found == sorted(found, key=SIDES.index)


@pytest.mark.parametrize("by", ["random", "hash", "name"])
def test_the_order_of_names_decides_nothing(by):
    names = [f"run{k:03d}" for k in range(60)]
    split = Split([0.6, 0.2, 0.2], by=by, seed=1)
    expected = dict(zip(names, sides(names, split), strict=True))
    mixed = np.random.default_rng(0).permutation(names).tolist()
    assert dict(zip(mixed, sides(mixed, split), strict=True)) == expected


def test_seeds_draw_other_splits():
    names = [f"run{k:03d}" for k in range(60)]
    for by in ("random", "hash"):
        one, other = (sides(names, Split(by=by, seed=seed)) for seed in (0, 1))
        assert one != other


def test_hashed_runs_stay_where_they_are_when_others_are_added():
    split = Split([0.6, 0.2, 0.2], by="hash")
    few, many = ([f"run{k:03d}" for k in range(n)] for n in (40, 400))
    before, after = (dict(zip(n, sides(n, split), strict=True)) for n in (few, many))
    assert {name: after[name] for name in few} == before
    assert counts(list(after.values())) == pytest.approx([240, 80, 80], abs=30)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"ratios": [0.5, 0.2, 0.2]}, "add up to 0.9"),
        ({"ratios": [0.5, 0.5]}, "three ratios"),
        ({"ratios": [1.2, -0.2, 0.0]}, "three ratios"),
        ({"ratios": [0.0, 0.5, 0.5]}, "some of it trains"),
        ({"by": "time", "together": ["seed"]}, "together"),
    ],
)
def test_impossible_splits_are_refused(arguments, match):
    with pytest.raises(RecipeError, match=match):
        Split(**arguments)


def test_a_side_without_runs_is_refused():
    with pytest.raises(RecipeError, match=r"of 3 runs leaves val empty"):
        sides(["a", "b", "c"], Split([0.8, 0.1, 0.1]))


@pytest.fixture
def pairs(tmp_path):
    """Two gravities of twelve seeds."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for seed in range(12):
            for gravity in ("gr", "newton"):
                file[f"{gravity}_seed{seed}"] = np.full((4, 4), seed, "f4")
    return Files(str(tmp_path / "a.h5"), "{gravity}_seed{seed}")


def test_runs_with_the_same_placeholder_are_on_one_side(pairs):
    label = [Field("gravity", kind="label", classes=("newton", "gr"))]
    runs = Runs(ONE, label, {"x": pairs}, Domain(1, planes=[0, 1], plane_step=2))
    parts = runs.split(Split([0.5, 0.25, 0.25], together=["seed"]))
    seeds = {side: {run.told["seed"] for run in part.groups} for side, part in parts.items()}
    assert [len(seeds[side]) for side in SIDES] == [6, 3, 3]
    assert len(set.union(*seeds.values())) == 12
    for part in parts.values():
        assert len(part) == 4 * len(part.groups)  # two planes across each of two axes
        assert [run.group for run in part.groups] == list(range(len(part.groups)))
        expected = [run.told["gravity"] == "gr" for run in part.groups]
        assert part.numbers[:, 0].tolist() == expected
        for k, run in enumerate(part.runs):
            reader, name = part.source("x", k)
            out = np.empty((1, 4), np.float32)
            reader.read(name, Window((0,), (4,)), out)
            assert out.max() == int(run.told["seed"])
            assert part.groups[run.group].told == run.told
    with pytest.raises(RecipeError, match="did you mean 'seed'"):
        runs.split(Split(together=["sed"]))


def test_the_folder_decides_nothing(tmp_path):
    found = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        for k in range(10):
            np.save(tmp_path / folder / f"x_{k}.npy", np.full(4, k, "f4"))
        runs = Runs(ONE, ONE, {"x": str(tmp_path / folder / "*.npy")}, Domain(1))
        parts = runs.split(Split(seed=5))
        found.append({side: [run.path.name for run in part.runs] for side, part in parts.items()})
    assert found[0] == found[1]


def test_frames_are_split_by_their_time(tmp_path):
    for name, hours in (("late", [30, 36, 42]), ("early", [0, 6, 12, 18, 24])):
        values = np.broadcast_to(np.array(hours, "f4")[:, None], (len(hours), 3))
        data = xr.Dataset({"x": (("time", "lon"), values)}, {"time": hours})
        data.to_netcdf(tmp_path / f"{name}.nc")
    runs = Runs(ONE, ONE, {"x": str(tmp_path / "*.nc")}, Domain(1, frames=1))
    parts = runs.split(Split([0.5, 0.25, 0.25], by="time"))
    found = {side: [part._coordinate(run) for run in part.groups] for side, part in parts.items()}
    assert found == {"train": [0, 6, 12, 18], "val": [24, 30], "test": [36, 42]}


def data_of(tmp_path, **options):
    for k in range(10):
        np.save(tmp_path / f"x_{k}.npy", np.full(4, k, "f4"))
    pattern = {"x": str(tmp_path / "x_*.npy")}
    return FieldData(pattern, domain=Domain(1), **options), pattern


def test_data_are_split_once_for_training_and_test(tmp_path):
    found = []
    for _ in range(2):
        data, _ = data_of(tmp_path, split=Split([0.7, 0.2, 0.1]))
        data.open(ONE, ONE)
        found.append({side: [str(run) for run in runs] for side, runs in data.runs.items()})
    assert found[0] == found[1]
    assert [len(found[0][side]) for side in SIDES] == [7, 2, 1]
    assert len({run for runs in found[0].values() for run in runs}) == 10


def test_a_run_on_two_sides_is_refused_unless_asked_for(tmp_path, caplog):
    pattern = data_of(tmp_path)[1]
    one = {"x": str(tmp_path / "x_3.npy")}
    for sides_given in ({"val": one}, {"test": one}):
        with pytest.raises(RecipeError, match=r"1 of 1 runs of the .* split are in the training"):
            FieldData(pattern, domain=Domain(1), **sides_given).open(ONE, ONE)
    with caplog.at_level("WARNING"):
        FieldData(pattern, one, domain=Domain(1), overlap=True).open(ONE, ONE)
    assert "flatter" in caplog.text
    with pytest.raises(RecipeError, match="leave out one"):
        FieldData(pattern, one, split=Split())
