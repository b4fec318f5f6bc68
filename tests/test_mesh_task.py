"""Training on meshes: scores, checkpoints that need nothing else, predictions in files."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml

from map2map.errors import ArtefactError, FieldError, GeometryError, RecipeError, SaveError
from map2map.fields import Field
from map2map.mesh_data import MeshData
from map2map.mesh_predictions import predict_mesh
from map2map.mesh_task import MeshTask
from map2map.meshes import add_fields, read_mesh
from map2map.models import ConvNet, GridGCN, GridGIN, GridGraphUNet
from map2map.norms import Scale, Standardize
from map2map.splits import Split

MADE = runpy.run_path(str(Path(__file__).with_name("made_meshes.py")))
made_mesh, write_zones = MADE["made_mesh"], MADE["write_zones"]

pytest.importorskip("torch_geometric", reason="needs the extra `graph`")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")


def gin(in_chan, out_chan, *, ndim):
    return GridGIN(in_chan, out_chan, ndim=ndim, width=4, depth=2, dropout=0.0)


def task(**options):
    given = {
        "inputs": [Field("a")], "targets": [Field("b", "1/m")], "network": gin,
        "norms": {"a": Standardize(), "b": Scale()}, "baselines": {"b": "near_b"},
    }  # fmt: skip
    return MeshTask(**(given | options))


def trainer(**options):
    quiet = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "max_epochs": 2,
    }  # fmt: skip
    return pl.Trainer(**(quiet | options))


def zones(folder, **options):
    given = {
        "train": f"{folder}/R_{{shot}}_zone_*.h5", "predict": f"{folder}/R_002_*.h5",
        "split": Split([0.34, 0.33, 0.33], by="name", together=["shot"]), "batch_size": 2,
    }  # fmt: skip
    return MeshData(**(given | options))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained network: its task, the folder of its data, and its checkpoint."""
    folder = tmp_path_factory.mktemp("zones")
    write_zones(folder)
    torch.manual_seed(0)
    learnt = task()
    made = trainer()
    made.fit(learnt, zones(folder))
    path = tmp_path_factory.mktemp("state") / "last.ckpt"
    made.save_checkpoint(path)
    return learnt, folder, path


def by_hand(learnt, mesh):
    """torch_geometric's network on normalized values, with norms from the training split."""
    a, b = (
        np.concatenate([made_mesh(zone, 12 + 3 * zone).values[name] for zone in (0, 1)])
        for name in ("a", "b")
    )
    x = torch.from_numpy(((mesh.values["a"] - a.mean()) / a.std()).astype("f4"))[:, None]
    with torch.no_grad():
        y = learnt.emulator.model.model(x, torch.from_numpy(mesh.edges))[:, 0]
    return y.numpy() * np.sqrt((b**2).mean())


def test_a_checkpoint_is_applied_without_the_training_data(run):
    learnt, _, path = run
    again = MeshTask.load_from_checkpoint(path)
    mesh = made_mesh(99, 40)
    found = predict_mesh(again.emulator, mesh)
    np.testing.assert_allclose(found["b"], by_hand(learnt, mesh), rtol=1e-4, atol=1e-3)
    assert again.emulator.targets["b"].units == "1/m"


def test_a_checkpoint_holds_no_edges(run):
    _, _, path = run
    state = torch.load(path, weights_only=True)
    tensors = list(state["state_dict"].values())
    assert all(value.is_floating_point() for value in tensors)
    assert "hyper_parameters" not in state
    assert path.stat().st_size < 30_000


def test_scores_are_of_all_nodes_together_in_physical_units(run, tmp_path, monkeypatch):
    learnt, folder, path = run
    monkeypatch.chdir(tmp_path)
    names = [Path(f"R_002_zone_{zone}.h5") for zone in (0, 1)]
    meshes = [read_mesh(folder / name) for name in names]
    truth = np.concatenate([mesh.values["b"] for mesh in meshes])
    found = np.concatenate([by_hand(learnt, mesh) for mesh in meshes])
    other = np.concatenate([mesh.values["near_b"] for mesh in meshes])
    for size in (1, 2):
        (scores,) = trainer().test(task(), zones(folder, batch_size=size), path, verbose=False)
        for name, values in (("b", found), ("b_by_near_b", other)):
            error = ((values - truth) ** 2).sum()
            r2 = 1 - error / ((truth - truth.mean()) ** 2).sum()
            assert scores[f"r2/test/{name}"] == pytest.approx(r2, rel=1e-4)
            relative = np.sqrt(error / (truth**2).sum())
            assert scores[f"relative_l2/test/{name}"] == pytest.approx(relative, rel=1e-4)
            rmse = np.sqrt(error / len(truth))
            assert scores[f"rmse/test/{name}"] == pytest.approx(rmse, rel=1e-4)
    assert not list(tmp_path.iterdir()), "without a logger nothing is written"


def test_predictions_are_in_copies_of_the_files_whole_or_in_parts(run, tmp_path):
    learnt, folder, path = run
    before = {name: name.read_bytes() for name in folder.iterdir()}
    for most in (None, 5):
        out = tmp_path / str(most)
        # nothing but the checkpoint tells the network
        told = MeshTask(predictions=out, most_nodes=most)
        trainer().predict(told, zones(folder, train=None, split=None), ckpt_path=path)
        assert sorted(file.name for file in out.iterdir()) == ["R_002_zone_0.h5", "R_002_zone_1.h5"]
        for file in out.iterdir():
            mesh, source = read_mesh(file), read_mesh(folder / file.name)
            expected = by_hand(learnt, source)
            np.testing.assert_allclose(
                mesh.values.pop("b_predicted"), expected, rtol=1e-4, atol=1e-3
            )
            assert mesh.values.keys() == source.values.keys()
            for name, values in source.values.items():
                np.testing.assert_array_equal(mesh.values[name], values)
            np.testing.assert_array_equal(mesh.edges, source.edges)
    assert before == {name: name.read_bytes() for name in folder.iterdir()}


def test_predictions_replace_nothing_unless_told_and_never_their_source(run, tmp_path):
    _, folder, path = run
    data = zones(folder, train=None, split=None)
    (tmp_path / "R_002_zone_1.h5").write_text("mine")
    with pytest.raises(SaveError, match=r"holds R_002_zone_1.h5 already"):
        trainer().predict(MeshTask(predictions=tmp_path), data, ckpt_path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["R_002_zone_1.h5"]
    trainer().predict(MeshTask(predictions=tmp_path, overwrite=True), data, ckpt_path=path)
    assert "b_predicted" in read_mesh(tmp_path / "R_002_zone_1.h5").values
    with pytest.raises(SaveError, match="would replace what it is made from"):
        trainer().predict(MeshTask(predictions=folder, overwrite=True), data, ckpt_path=path)
    other = tmp_path / "sub"
    write_zones(other, snapshots=1)
    (other / "R_000_zone_0.h5").rename(other / "R_002_zone_0.h5")
    twice = zones(folder, train=None, split=None, predict=[f"{folder}/R_002*", f"{other}/R_002*"])
    with pytest.raises(RecipeError, match=r"several files are called R_002_zone_0.h5"):
        trainer().predict(MeshTask(predictions=tmp_path / "new"), twice, ckpt_path=path)


def test_what_cannot_be_predicted_is_named_with_its_file(run, tmp_path):
    _, _, path = run
    (source, *_) = write_zones(tmp_path, snapshots=1, zones=1)
    with h5py.File(source, "a") as file:
        file["Base/zone_0/FlowSolution/a/ data"][3] = np.nan
    data = MeshData(predict=str(source))
    with pytest.raises(FieldError, match=r"zone_0.h5, zone 'zone_0': .* at 1 of 12 nodes"):
        trainer().predict(MeshTask(predictions=tmp_path / "out"), data, ckpt_path=path)
    assert not (tmp_path / "out").exists()
    emulator = MeshTask.load_from_checkpoint(path).emulator
    mesh = made_mesh(0)
    del mesh.values["a"]
    with pytest.raises(FieldError, match="takes 'a', which the mesh does not have; there are b, "):
        predict_mesh(emulator, mesh)


def test_fields_are_added_to_a_copy_or_not_at_all(tmp_path):
    (source, *_) = write_zones(tmp_path)
    with pytest.raises(FieldError, match=r"'p' has shape \(3,\), but zone 'zone_0' .* 12 nodes"):
        add_fields(source, tmp_path / "new.h5", {"zone_0": {"p": np.zeros(3)}})
    assert not (tmp_path / "new.h5").exists()
    add_fields(source, tmp_path / "new.h5", {"zone_0": {"a": np.arange(12.0)}})
    with h5py.File(tmp_path / "new.h5") as file:
        assert file["Base/zone_0/FlowSolution/a/ data"][...].tolist() == list(range(12))


def test_a_graph_unet_is_not_cut_into_parts(tmp_path):
    def unet(in_chan, out_chan, *, ndim):
        return GridGraphUNet(in_chan, out_chan, ndim=ndim, width=4, depth=1)

    emulator = task(network=unet, norms={}).emulator
    mesh = made_mesh(0)
    assert predict_mesh(emulator, mesh, most_nodes=14)["b"].shape == (14,)
    with pytest.raises(GeometryError, match="GridGraphUNet cannot be tiled exactly"):
        predict_mesh(emulator, mesh, most_nodes=13)
    with pytest.raises(RecipeError, match="1 node or more, not 0"):
        predict_mesh(emulator, mesh, most_nodes=0)


def test_what_does_not_belong_together_is_refused(run):
    _, folder, path = run

    def gcn(in_chan, out_chan, *, ndim):
        return GridGCN(in_chan, out_chan, ndim=ndim, width=4, depth=2)

    with pytest.raises(ArtefactError, match=r"trained with model .*GridGIN.* asked for .*GridGCN"):
        trainer().test(task(network=gcn), zones(folder), path)
    with pytest.raises(ArtefactError, match=r"trained with inputs .*'near_b'"):
        trainer().test(task(inputs=[Field("near_b")], norms={}), zones(folder), path)
    with pytest.raises(RecipeError, match="has learnt nothing yet"):
        trainer().test(task(), zones(folder))
    with pytest.raises(RecipeError, match="inputs, targets and network belong together"):
        MeshTask(inputs=[Field("a")])
    with pytest.raises(RecipeError, match="no network is given"):
        trainer().fit(MeshTask(), zones(folder))
    with pytest.raises(RecipeError, match="baselines are given of c, but the targets are b"):
        task(baselines={"c": "a"})
    with pytest.raises(ArtefactError, match="ConvNet works on grids only"):
        task(network=lambda i, o, *, ndim: ConvNet(i, o, ndim=ndim), norms={})
    with pytest.raises(RecipeError, match="not from NoneType"):
        trainer().fit(task())
    other = path.parent / "other.ckpt"
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, other)
    with pytest.raises(ArtefactError, match="no card of an emulator"):
        MeshTask.load_from_checkpoint(other)


def test_training_goes_on_from_a_checkpoint(run):
    learnt, folder, path = run
    more = task()
    made = trainer(max_epochs=3)
    made.fit(more, zones(folder), ckpt_path=path)
    assert (made.current_epoch, made.global_step) == (3, 3)
    weights = [
        n.emulator.model.state_dict()["model.convs.0.nn.lins.0.weight"] for n in (learnt, more)
    ]
    assert 0 < (weights[0] - weights[1]).abs().max() < 0.1


def test_the_command_line_trains_scores_and_predicts(tmp_path):
    write_zones(tmp_path / "data")
    config = {
        "seed_everything": 0,
        "trainer": {
            "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False,
            "callbacks": [{
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"dirpath": "net", "filename": "best", "monitor": "loss/val"},
            }],
        },
        "model": {
            "class_path": "map2map.mesh_task.MeshTask",
            "init_args": {
                "inputs": [{"name": "a"}], "targets": [{"name": "b"}],
                "network": {"class_path": "map2map.models.GridGIN", "init_args": {"width": 4}},
                "norms": {"b": {"class_path": "map2map.norms.Scale"}},
            },
        },
        "data": {
            "class_path": "map2map.mesh_data.MeshData",
            "init_args": {
                "train": "data/R_{shot}_zone_*.h5", "predict": "data/R_002*.h5",
                "split": {"ratios": [0.34, 0.33, 0.33], "together": ["shot"]},
            },
        },
        "optimizer": {"class_path": "map2map.optimizers.AdamP", "init_args": {"lr": 0.01}},
    }  # fmt: skip
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(config))
    for command in (["fit"], ["test", "--ckpt_path", "net/best.ckpt"],
                    ["predict", "--ckpt_path", "net/best.ckpt"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "map2map.cli", command[0], "-c", "mesh.yaml", *command[1:]],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (scores,) = tmp_path.glob("lightning_logs/*/test_scores.json")
    assert set(json.loads(scores.read_text())) == {
        f"{s}/test/b" for s in ("r2", "rmse", "relative_l2")
    }
    assert len(list((tmp_path / "predictions").iterdir())) == 2
