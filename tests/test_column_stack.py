"""Columns as one array of levels and features: against loops, lazily, in shards."""

import json

import dask.array
import numpy as np
import pytest

from map2map.column_stack import (
    INPUTS,
    OUTPUTS,
    StackWriter,
    assemble_inputs,
    assemble_outputs,
    shard_sizes,
    write_statistics,
)
from map2map.errors import FieldError, GeometryError, RecipeError

COLUMNS = 7


@pytest.fixture
def groups():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=(COLUMNS, *shape)).astype("f4")
        for name, shape in (INPUTS | OUTPUTS).items()
    }


def looped(groups):
    """The layout, number by number."""
    x = np.zeros((COLUMNS, 138, 47), "f4")
    y = np.zeros((COLUMNS, 138, 6), "f4")
    fluxes = ["flux_dn_sw", "flux_up_sw", "flux_dn_lw", "flux_up_lw"]
    for i in range(COLUMNS):
        for k in range(138):
            for f in range(2):
                x[i, k, f] = groups["hl_inputs"][i, k, f]
            if 1 <= k <= 136:
                x[i, k, 2] = groups["inter_inputs"][i, k - 1, 0]
            for f in range(27 if k else 0):
                x[i, k, 3 + f] = groups["col_inputs"][i, k - 1, f]
            for f in range(17):
                x[i, k, 30 + f] = groups["sca_inputs"][i, f]
            for f, name in enumerate(fluxes):
                y[i, k, f] = groups[name][i, k]
            if k:
                y[i, k, 4] = groups["hr_sw"][i, k - 1]
                y[i, k, 5] = groups["hr_lw"][i, k - 1]
    return x, y


def test_every_number_is_where_a_loop_puts_it(groups):
    x, y = looped(groups)
    for found, expected in ((assemble_inputs(groups), x), (assemble_outputs(groups), y)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    # a number of every channel is somewhere, and padding is where nothing is
    assert int((x == 0).sum()) == COLUMNS * (2 + 27)
    assert int((y == 0).sum()) == COLUMNS * 2


def test_arrays_of_dask_stay_lazy_and_in_chunks(groups):
    lazy = {name: dask.array.from_array(a, chunks=(3, *a.shape[1:])) for name, a in groups.items()}
    x, y = looped(groups)
    for found, expected in ((assemble_inputs(lazy), x), (assemble_outputs(lazy), y)):
        assert isinstance(found, dask.array.Array)
        assert found.chunks[0] == (3, 3, 1)
        np.testing.assert_array_equal(found.compute(scheduler="sync"), expected)
        np.testing.assert_array_equal(found.blocks[2].compute(scheduler="sync"), expected[6:])


def test_missing_and_misshapen_groups_are_refused(groups):
    wrong = {name: values for name, values in groups.items() if name != "hl_inputs"}
    with pytest.raises(FieldError, match=r"no array 'hl_inputs' .* did you mean"):
        assemble_inputs(wrong)
    with pytest.raises(GeometryError, match=r"'hr_sw' has shape \(7, 60\), not \('column', 137\)"):
        assemble_outputs(groups | {"hr_sw": groups["hr_sw"][:, :60]})
    with pytest.raises(GeometryError, match=r"different numbers of columns: .*'sca_inputs': 6"):
        assemble_inputs(groups | {"sca_inputs": groups["sca_inputs"][:6]})


def test_what_remains_is_one_shard_more():
    assert shard_sizes(12, 4) == [3, 3, 3, 3]
    assert shard_sizes(13, 4) == [3, 3, 3, 3, 1]
    assert shard_sizes(5, 1) == [5]
    for shards in (0, 6):
        with pytest.raises(RecipeError, match=f"5 columns cannot be {shards} shards"):
            shard_sizes(5, shards)


@pytest.mark.parametrize("blocks", [[7], [1, 6], [2, 2, 3], [4, 3]])
def test_a_stack_is_read_back_whatever_the_blocks_were(groups, tmp_path, blocks):
    x = assemble_inputs(groups)
    writer = StackWriter(tmp_path / "x", [3, 3, 1])
    start = 0
    for size in blocks:
        writer.add(x[start : start + size])
        start += size
    writer.close()
    assert [path.name for path in writer.files] == ["0.npy", "1.npy", "2.npy"]
    np.testing.assert_array_equal(np.concatenate([np.load(p) for p in writer.files]), x)
    info = json.loads((tmp_path / "x" / "info.json").read_text())
    assert info == {"chunks": [[3, 3, 1], [138], [47]], "dtype": "<f4", "axis": 0}


@pytest.mark.parametrize("columns", [0, 2, 5, 7])
def test_a_stack_of_other_than_the_announced_columns_is_refused(groups, tmp_path, columns):
    writer = StackWriter(tmp_path / "x", [3, 3])
    if columns:
        writer.add(assemble_inputs(groups)[:columns])
    with pytest.raises(GeometryError, match=r"should have shards of \[3, 3\] columns"):
        writer.close()
    assert not (tmp_path / "x" / "info.json").exists()


def test_statistics_are_those_of_the_population(groups, tmp_path):
    arrays = {"x": assemble_inputs(groups) + 1e3, "y": assemble_outputs(groups)}
    files = {}
    for name, values in arrays.items():
        writer = StackWriter(tmp_path / name, [4, 3])
        writer.add(values)
        writer.close()
        files[name] = writer.files
    write_statistics(tmp_path / "stats.npz", files["x"], files["y"])
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as stats:
        assert set(stats) == {f"{n}_{s}" for n in "xy" for s in ("mean", "std", "nb")}
        for name, values in arrays.items():
            exact = values.astype(float)
            assert stats[f"{name}_nb"] == 7
            np.testing.assert_allclose(stats[f"{name}_mean"], exact.mean(0), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(stats[f"{name}_std"], exact.std(0), rtol=1e-6, atol=1e-7)
        assert (stats["x_std"] == 0).sum() == 29
