"""Zones of meshes as batches of graphs: what is in them, how they are split, what is refused."""

import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from map2map.errors import FieldError, GeometryError, RecipeError, SourceError
from map2map.mesh_data import MeshData
from map2map.meshes import write_mesh
from map2map.models import GridGAT, GridGCN, GridGIN, GridGraphUNet, GridSAGE
from map2map.patterns import Files
from map2map.splits import Split

MADE = runpy.run_path(str(Path(__file__).with_name("made_meshes.py")))
made_mesh, write_zones = MADE["made_mesh"], MADE["write_zones"]

pytest.importorskip("torch_geometric", reason="needs the extra `graph`")
NAMES = ("a",), ("b",), ("near_b",)


@pytest.fixture
def folder(tmp_path):
    write_zones(tmp_path)
    return tmp_path


def opened(folder, names=NAMES, **options):
    data = MeshData(**({"train": f"{folder}/R_{{shot}}_zone_{{number}}.h5"} | options))
    data.open(*names)
    return data


def test_a_zone_is_its_values_edges_lengths_and_places(folder):
    item = opened(folder).side("train")[3]
    mesh = made_mesh(11, 16)
    for tensor, name in ((item.x, "a"), (item.y, "b"), (item.z, "near_b")):
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor, mesh.values[name].astype("f4")[:, None])
    np.testing.assert_array_equal(item.edge_index, mesh.edges)
    i, j = mesh.edges
    far = np.sqrt(((mesh.positions[i] - mesh.positions[j]) ** 2).sum(axis=1))
    np.testing.assert_allclose(item.edge_attr[:, 0], far, rtol=1e-6)
    np.testing.assert_array_equal(item.pos, mesh.positions.astype("f4"))


@pytest.mark.parametrize("kind", [GridGCN, GridGAT, GridGIN, GridSAGE, GridGraphUNet])
def test_a_batch_of_two_zones_equals_two_batches_of_one(folder, kind):
    torch.manual_seed(0)
    model = kind(1, 2, width=8, depth=2).eval()
    results = {}
    for size in (1, 2):
        data = opened(folder, test=f"{folder}/R_000*.h5", train=None, batch_size=size)
        batches = list(data.test_dataloader())
        assert len(batches) == 2 // size
        with torch.no_grad():
            found = [model.on_graph(b.x, b.edge_index, b.batch) for b in batches]
        results[size] = torch.cat(found)
    assert len(results[1]) == 12 + 15, "zones of different sizes"
    torch.testing.assert_close(results[2], results[1])


def test_zones_of_one_snapshot_are_kept_together_wherever_the_files_lie(folder, tmp_path_factory):
    how = Split([0.34, 0.33, 0.33], by="random", together=["shot"], seed=3)
    data = opened(folder, split=how)
    of = {side: [zone.told["shot"] for zone in found] for side, found in data.found.items()}
    assert sorted(shot for shots in of.values() for shot in shots) == sorted(
        2 * ["000", "001", "002"]
    )
    assert all(len(shots) == 2 and len(set(shots)) == 1 for shots in of.values())
    other = tmp_path_factory.mktemp("elsewhere")
    write_zones(other)
    again = opened(other, split=how)
    assert of == {
        side: [zone.told["shot"] for zone in found] for side, found in again.found.items()
    }


def test_zones_of_one_file_are_samples_of_their_own(tmp_path):
    for name in ("one", "two", "three"):
        write_mesh(tmp_path / f"{name}.h5", made_mesh(len(name)), name)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        base = file.create_group("Base")
        for name in ("one", "two", "three"):
            with h5py.File(tmp_path / f"{name}.h5") as part:
                part.copy(f"Base/{name}", base)
    data = opened(tmp_path, train=str(tmp_path / "all.h5"), split=Split([0.7, 0.3, 0], by="name"))
    assert [zone.variable for zone in data.found["train"]] == ["one", "three"]
    assert [zone.variable for zone in data.found["val"]] == ["two"]
    assert len(data.side("train")[1].x) == made_mesh(5).nodes
    some = opened(tmp_path, train=Files(str(tmp_path / "all.h5"), "t*"))
    assert [zone.variable for zone in some.found["train"]] == ["three", "two"]
    assert [names for _, names in opened(tmp_path, predict=f"{tmp_path}/a*.h5").predict_dataloader()
            ] == [["one", "three", "two"]]  # fmt: skip


def test_training_draws_another_order_each_epoch_and_reads_once(folder, monkeypatch):
    data = opened(folder)
    torch.manual_seed(0)
    loader = data.train_dataloader()
    orders = [[len(batch.x) for batch in loader] for _ in range(4)]
    assert len(set(map(tuple, orders))) > 1
    assert {tuple(sorted(order)) for order in orders} == {(12, 13, 14, 15, 16, 17)}
    kept = data.side("train")
    assert kept[0] is kept[0]
    fresh = opened(folder, in_memory=0).side("train")
    assert fresh[0] is not fresh[0]
    size = sum(value.nbytes for value in kept[0].to_dict().values())
    one = opened(folder, in_memory=size + 10).side("train")
    assert one[0] is one[0]
    assert one[1] is not one[1]


def test_norms_are_fitted_on_the_values_of_the_training_split(folder):
    data = opened(folder, split=Split([0.67, 0.33, 0], by="name", together=["shot"]))
    names = [(shot, zone) for shot in (0, 1) for zone in (0, 1)]
    meshes = [made_mesh(10 * shot + zone, 12 + 3 * zone + shot) for shot, zone in names]
    for name in ("a", "b"):
        found = torch.cat(list(data.chunks(name)), dim=1)
        expected = np.concatenate([mesh.values[name] for mesh in meshes])
        np.testing.assert_array_equal(found[0], expected.astype("f4"))


def broken(path, change):
    write_mesh(path, made_mesh(0), "Z")
    with h5py.File(path, "a") as file:
        change(file)


def nothing(file):
    del file["Base/Z/FlowSolution/b"]


def not_finite(file):
    file["Base/Z/FlowSolution/b/ data"][4] = np.nan


def nowhere(file):
    file["Base/Z/GridCoordinates/CoordinateY/ data"][0] = np.inf


def no_base(file):
    file.move("Base", "base")


def no_grid(file):
    del file["Base/Z/GridCoordinates"]


def beyond(file):
    file["Base/Z/Tetrahedra/ElementConnectivity/ data"][5] = 99


def shorter(file):
    del file["Base/Z/FlowSolution/a"]
    file["Base/Z/FlowSolution/a/ data"] = np.zeros(3)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (nothing, FieldError, r"no field 'b' in FlowSolution of zone 'Z'; there are a, near_b"),
        (not_finite, FieldError, r"'b' of .*bad.h5:Z is NaN .* at 1 of 14 nodes, .* number 5"),
        (nowhere, GeometryError, "coordinates of .*bad.h5:Z are not finite"),
        (no_base, SourceError, "no 'Base' in '/'.*there is 'base'"),
        (no_grid, SourceError, "bad.h5 has no zones with GridCoordinates"),
        (beyond, GeometryError, "not among the 14 there are"),
        (shorter, FieldError, r"'a' has shape \(3,\), but the mesh has 14 nodes"),
    ],
)
def test_bad_zones_are_refused_by_name(tmp_path, change, kind, message):
    broken(tmp_path / "bad.h5", change)
    with pytest.raises(kind, match=message):
        opened(tmp_path, train=str(tmp_path / "bad.h5")).side("train")[0]


def test_a_zone_that_is_not_there_is_named_with_those_that_are(tmp_path):
    write_mesh(tmp_path / "a.h5", made_mesh(0), "Z")
    data = opened(tmp_path, train=Files(str(tmp_path / "a.h5"), "Y"))
    with pytest.raises(SourceError, match=r"no 'Y' in '/Base'.*there is 'Z'"):
        data.side("train")[0]


def test_splits_that_cannot_be_are_refused(folder):
    with pytest.raises(RecipeError, match="of 3 runs leaves val empty"):
        _ = opened(folder, split=Split([0.8, 0.1, 0.1], by="name", together=["shot"])).found
    with pytest.raises(RecipeError, match=r"one 'shoot' together, .* did you mean 'shot'"):
        _ = opened(folder, split=Split(together=["shoot"])).found
    with pytest.raises(RecipeError, match=r"2 zones of data.val are in data.train, too"):
        _ = opened(folder, val=f"{folder}/R_001*.h5").found
    with pytest.raises(RecipeError, match=r"2 zones of data.val are in data.train, too"):
        # the same files, spelt otherwise
        _ = opened(folder, val=f"{folder}/../{folder.name}/R_001*.h5").found
    with pytest.raises(RecipeError, match=r"split shares out the zones of data.train"):
        opened(folder, split=Split(), test="x.h5")
    with pytest.raises(RecipeError, match="have no times"):
        opened(folder, split=Split(by="time"))
    with pytest.raises(RecipeError, match="a batch has 1 zone or more"):
        opened(folder, batch_size=0)
    with pytest.raises(RecipeError, match=r"no zones of the test split; give data.test"):
        opened(folder).test_dataloader()
    with pytest.raises(RecipeError, match=r"by data.predict"):
        opened(folder).predict_dataloader()
    with pytest.raises(SourceError, match=r"no file matches .* 'data.train'"):
        _ = opened(folder, train=f"{folder}/none_*.h5").found
