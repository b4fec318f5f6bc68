import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from map2map import prepared_stores
from map2map.cli import main
from map2map.commands.prepare import declared_by
from map2map.commands.recipes import find, read
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError, SourceError
from map2map.prepared_columns import ColumnStacks, Group, Stack
from map2map.prepared_stores import prepare
from map2map.sources import open_source
from map2map.windows import Window

SHAPES = {
    "hl_inputs": (138, 2),
    "inter_inputs": (136, 1),
    "col_inputs": (137, 27),
    "sca_inputs": (17,),
    "pressure_hl": (138, 1),
}
OUTPUTS = {
    "flux_dn_sw": 138,
    "flux_up_sw": 138,
    "flux_dn_lw": 138,
    "flux_up_lw": 138,
    "hr_sw": 137,
    "hr_lw": 137,
}


def write(folder, run, columns=7):
    """A pair of raw files of random numbers."""
    rng = np.random.default_rng(run)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, shapes in (
        ("rad4NN_inputs", SHAPES),
        ("3dcorrection_outputs", {name: (n,) for name, n in OUTPUTS.items()}),
    ):
        found = {}
        for name, shape in shapes.items():
            axes = ["column", *(f"{name}_{i}" for i in range(len(shape)))]
            found[name] = (axes, rng.normal(size=(columns, *shape)).astype(np.float32))
        xr.Dataset(found).to_netcdf(folder / f"{prefix}_20200101{run:02}_0c0.nc")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in range(2):
        write(tmp_path / "data" / "raw", run)
    return tmp_path


def declared(columns=3):
    """What the recipe declares."""
    section = read(find("radiation_3d"))["prepare"]
    return declared_by(section | {"columns": columns})


def written_out(folder, run):
    """x and y as the data set's own preparation lays them out, number by number."""
    raw = folder / "data" / "raw"
    name = f"20200101{run:02}_0c0.nc"
    given = xr.load_dataset(raw / f"rad4NN_inputs_{name}")
    wanted = xr.load_dataset(raw / f"3dcorrection_outputs_{name}")
    columns = given.sizes["column"]
    x, y = np.zeros((columns, 138, 47), np.float32), np.zeros((columns, 138, 6), np.float32)
    for c in range(columns):
        for level in range(138):
            for feature in range(2):
                x[c, level, feature] = given.hl_inputs.values[c, level, feature]
            if 1 <= level <= 136:
                x[c, level, 2] = given.inter_inputs.values[c, level - 1, 0]
            for feature in range(27):
                if level >= 1:
                    x[c, level, 3 + feature] = given.col_inputs.values[c, level - 1, feature]
            for feature in range(17):
                x[c, level, 30 + feature] = given.sca_inputs.values[c, feature]
            for i, (output, levels) in enumerate(OUTPUTS.items()):
                missing = 138 - levels
                if level >= missing:
                    y[c, level, i] = wanted[output].values[c, level - missing]
    return x, y


def test_the_recipe_writes_the_47_by_138_layout_bit_for_bit(folder):
    stores = prepare(declared())
    assert [store.name for store in stores] == ["2020010100_0c0.zarr", "2020010101_0c0.zarr"]
    for run, store in enumerate(stores):
        x, y = written_out(folder, run)
        found = xr.open_zarr(store, consolidated=False)
        assert found.x.dtype == found.y.dtype == np.float32
        assert found.x.values.tobytes() == x.tobytes()
        # the outputs one after another, so that each is a range of channels
        assert found.y.values.tobytes() == np.ascontiguousarray(y.transpose(0, 2, 1)).tobytes()
        assert found.x.chunks[0] == (3, 3, 1)
        assert (
            found.x.attrs["features"] == "hl_inputs*2, inter_inputs*1, col_inputs*27, sca_inputs*17"
        )


def test_only_some_columns_are_in_memory_at_once(folder, monkeypatch):
    sizes, load = [], xr.Dataset.load

    def noting(self, **kwargs):
        sizes.append(dict(self.sizes).get("column"))
        assert all(v.chunks is not None for v in self.data_vars.values()), "read before its time"
        return load(self, **kwargs)

    monkeypatch.setattr(prepared_stores.xr.Dataset, "load", noting)
    prepare(declared())
    assert sizes == [3, 3, 1] * 2


def test_what_was_written_before_an_interruption_is_not_made_again(folder, monkeypatch):
    starts, read_slab = [], prepared_stores.read

    def stopping(fields, store):
        starts.append(fields.sizes["column"])
        if len(starts) == 2:
            raise KeyboardInterrupt
        return read_slab(fields, store)

    monkeypatch.setattr(prepared_stores, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(declared())
    part = folder / "data" / "processed" / ".2020010100_0c0.zarr.part"
    assert json.loads(part.with_name(f"{part.name}.json").read_text()) == {"columns": 3}
    assert not (folder / "data" / "processed" / "2020010100_0c0.zarr").exists()
    starts.clear()
    starts += [0, 0]
    stores = prepare(declared())
    assert starts[2:] == [3, 1, 3, 3, 1]
    for run, store in enumerate(stores):
        x, _ = written_out(folder, run)
        np.testing.assert_array_equal(xr.open_zarr(store, consolidated=False).x, x)


def test_what_is_complete_is_left_and_what_is_stale_is_refused(folder, monkeypatch):
    stores = prepare(declared())
    monkeypatch.setattr(prepared_stores, "write", None)  # calling it would fail
    assert prepare(declared()) == stores
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    write(folder / "data" / "raw", 0, columns=5)
    with pytest.raises(SaveError, match=r"2020010100_0c0\.zarr was prepared of other files"):
        prepare(declared())
    prepare(declared(), overwrite=True)
    x, _ = written_out(folder, 0)
    np.testing.assert_array_equal(xr.open_zarr(stores[0], consolidated=False).x, x)
    with pytest.raises(SaveError, match="another way"):
        prepare(declared(columns=2))


def test_stores_are_told_apart_by_what_is_in_files_not_by_when_they_were_written(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder)
    (store, *_), (source, *_) = prepare(declared()), declared().runs().values()
    raw = sorted(source.values())[0]
    # in another place, at another time, all is the same
    copied = tmp_path / "elsewhere"
    shutil.copytree(folder, copied, copy_function=shutil.copy)
    monkeypatch.chdir(copied)
    assert prepare(declared())[0] == store
    for path in (folder / store, copied / store):
        prepared_stores.check_current(path)
    # of the same size and time, with another content
    before, content = raw.stat(), bytearray(raw.read_bytes())
    content[-1] ^= 1
    raw.write_bytes(content)
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SaveError, match="was prepared of other files"):
        prepare(declared())
    raw.touch()
    with pytest.raises(SourceError, match=rf"{raw.name}, which has changed since"):
        prepared_stores.check_current(store)
    # those that are elsewhere are not asked for
    raw.unlink()
    prepared_stores.check_current(store)


def test_the_command_prepares_and_training_reads_the_store(folder, capsys):
    write(folder / "data" / "raw", 2)
    assert main(["prepare", "radiation_3d"]) == 0
    assert "3 runs: stacks x, y, pressure_hl" in capsys.readouterr().out
    fields = {
        "x": {"pattern": "data/processed/*.zarr", "variable": "x"},
        "flux_dn_sw": {"pattern": "data/processed/*.zarr", "variable": "y[0:138]"},
        "hr_lw": {"pattern": "data/processed/*.zarr", "variable": "y[691:828]"},
    }
    targets = ["flux_dn_sw", "hr_lw"]
    recipe = {
        "trainer": {"max_epochs": 1, "logger": False, "accelerator": "cpu"},
        "model": {
            "inputs": [{"name": "x", "kind": "scalar"}],
            "targets": [{"name": name, "kind": "scalar"} for name in targets],
            "model": {
                "class_path": "map2map.models.ColumnUNet",
                "init_args": {
                    "width": 2,
                    "levels": 2,
                    "inputs": [{"levels": 138, "features": 47, "level_first": True}],
                    "outputs": [{"levels": 138}, {"levels": 137, "above": 1}],
                },
            },
        },
        "data": {
            "train": fields,
            "domain": {"ndim": 1, "periodic": False, "channels_last": True},
            "crops": {"size": 7},
            "reading": {"batch_size": 1, "cells": 4, "threads": 0},
        },
    }
    (folder / "small.yaml").write_text(json.dumps(recipe))
    assert main(["train", "small.yaml"]) == 0
    # what was prepared of other data does not train
    os.utime(raw := next(iter(declared().runs().values()))["x"])
    assert main(["train", "small.yaml", "--output.folder", "again"]) == 0
    with raw.open("ab") as file:
        file.write(b"more")
    assert main(["train", "small.yaml", "--output.folder", "third"]) == 2
    assert "has changed since; make it again: m2m prepare" in capsys.readouterr().err
    found = Emulator.load("emulator.safetensors")
    x, y = written_out(folder, 0)
    # the levels of one output after another, as channels
    assert found.targets.slices == {"flux_dn_sw": slice(0, 138), "hr_lw": slice(138, 275)}
    made = found({"x": np.ascontiguousarray(x.reshape(7, -1).T)})
    assert made["hr_lw"].shape == (137, 7)
    source = open_source(Path("data/processed/2020010100_0c0.zarr"), ndim=1, channels_last=True)
    for name, wanted in (("y[0:138]", y[:, :, 0]), ("y[691:828]", y[:, 1:, 5])):
        values = np.empty((wanted.shape[1], 7), np.float32)
        source.read(name, Window.whole((7,)), values)
        np.testing.assert_array_equal(values, wanted.T)


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (Group("hl_inpust"), FieldError, r"'hl_inpust' for the stack 'x'.*hl_inputs"),
        (Group("col_inputs"), GeometryError, r"numbers of levels.*col_inputs .* covers 137 levels"),
        (Group("sca_inputs"), GeometryError, r"numbers of levels.*sca_inputs .* covers 17 levels"),
        (
            Group("hl_inputs", repeated=True),
            GeometryError,
            r"not \(column\) or \(column, feature\)",
        ),
    ],
)
def test_groups_that_do_not_fit_are_named(folder, group, error, message):
    stack = Stack("data/raw/rad4NN_inputs_*.nc", [Group("pressure_hl"), group])
    with pytest.raises(error, match=message):
        prepare(ColumnStacks("out/{run}.zarr", {"x": stack}))


def test_stacks_of_a_run_have_the_same_columns(folder):
    write(folder / "other", 0, columns=5)
    stacks = {
        "x": Stack("data/raw/rad4NN_inputs_2020010100*.nc", [Group("hl_inputs")]),
        "y": Stack("other/3dcorrection_outputs_2020010100*.nc", [Group("flux_dn_sw")]),
    }
    with pytest.raises(GeometryError, match=r"numbers of columns: 7 in data/raw.*5 in other"):
        prepare(ColumnStacks("out/{run}.zarr", stacks))


def test_declarations_without_sense_are_refused(folder):
    with pytest.raises(RecipeError, match="needs a group with levels"):
        Stack("a.nc", [Group("sca_inputs", repeated=True)])
    with pytest.raises(RecipeError, match="is `repeated` is on all levels"):
        Group("sca_inputs", above=1, repeated=True)
    with pytest.raises(RecipeError, match="at least one of both"):
        ColumnStacks("out/{run}.zarr", {}, columns=4)
    with pytest.raises(SourceError, match="no file matches"):
        prepare(ColumnStacks("out/{run}.zarr", {"x": Stack("none/*.nc", [Group("x")])}))
    with pytest.raises(RecipeError, match=r"prepare: .*colums"):
        declared_by({"out": "a", "stacks": {}, "colums": 3})


def test_a_folder_that_was_not_prepared_is_the_users(folder):
    store = next(iter(declared().runs()))
    store.mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(SaveError, match=r"not prepared.*remove it yourself"):
            prepare(declared(), overwrite=overwrite)
