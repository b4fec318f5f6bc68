"""Training of labels and parameters: what is learnt, counted, smoothed, blanked and resumed."""

import json
from pathlib import Path
from typing import ClassVar

import h5py
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import nn

from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.emulator import Card
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.mean_line import MeanLine, means
from map2map.models import ConvNet, Penguin
from map2map.norms import Standardize
from map2map.patterns import Files
from map2map.preparation import Options
from map2map.task import Task, default_loss, smoothed
from map2map.told import Told
from map2map.train import Output, make_trainer, train

PHI = Field("phi", channels=1)
GRAVITY = Field("gravity", kind="label", classes=("newton", "gr"))
WHICH = Field("which", kind="label", classes=("a", "b", "c"))
MASS = Field("mass", kind="parameter", units="eV")
DOMAIN = Domain(ndim=2, planes=[0, 1])


class Means(nn.Module):
    """A line through the means and squares of the whole; it keeps what it is given."""

    seen: ClassVar = []

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim, self.dropout = in_chan, out_chan, ndim, dropout
        self.line = nn.Linear(2 * in_chan, out_chan)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        if x.device.type == "cpu" and len(x) > 1:  # which leaves out what measures the footprint
            Means.seen.append((self.training, x.detach().clone()))
        flat = x.flatten(2)
        return self.line(self.drop(torch.cat([flat.mean(2), flat.square().mean(2)], dim=1)))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Cubes of two gravities and four seeds: those of gr lie higher by one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    cubes = {
        f"{gravity}_seed{seed}": rng.normal(k, 0.5, (4, 4, 4)).astype(np.float32)
        for seed in range(4)
        for k, gravity in enumerate(("newton", "gr"))
    }
    with h5py.File("z1.h5", "w") as opened:
        for name, values in cubes.items():
            opened[name] = values
    return cubes


def files(only):
    return {"phi": Files("z1.h5", "{gravity}_seed{seed}", only={"seed": only})}


def fit(targets, training=None, validation=None, **options):
    """Train; the emulator and the history of all measures."""
    Means.seen = []
    rate = options.pop("rate", 0.05)
    torch.manual_seed(options.pop("seed", 3))
    task = Task(
        [PHI],
        targets,
        options.pop("model", Means),
        norms=options.pop("norms", {"phi": Standardize()}),
        loss=options.pop("loss", None),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=rate),
        options=Options(measures=options.pop("measures", None)),
    )
    output = Output(every=options.pop("every", 0), figures=0, resume=options.pop("resume", "never"))
    trainer = make_trainer(
        output, progress=False, accelerator="cpu", logger=False,
        max_epochs=options.pop("epochs", 1), callbacks=options.pop("callbacks", []),
    )  # fmt: skip
    data = FieldData(
        training or files("0:3"),
        validation or files("3:4"),
        crops=options.pop("crops", Crops(halo=0)),
        augment=options.pop("augment", None),
        domain=options.pop("domain", DOMAIN),
        reading=Reading(
            batch_size=options.pop("batch_size", 4),
            class_factors=options.pop("factors", None),
            mask=options.pop("mask", False),
        ),
        seed=7,
        overlap=options.pop("overlap", False),
    )
    assert not options
    return train(task, data, trainer, output), task.history


# --- what is learnt


def test_runs_that_are_in_both_splits_are_told(caplog):
    for seeds, said in (("2:4", ""), ("1:3", "2 of 4 runs of the validation split")):
        caplog.clear()
        data = FieldData(files("0:2"), files(seeds), domain=DOMAIN, overlap=True)
        data.open([PHI], [GRAVITY])
        assert said in caplog.text
        assert bool(caplog.text) == bool(said)


def test_two_classes_are_learnt_and_counted():
    emulator, history = fit([GRAVITY], epochs=15)
    assert history["accuracy/train"][-1] == history["accuracy/val"][-1] == 1
    assert history["val"][-1] < 0.5 * history["val"][0]
    for k in (0, 1):
        logit = float(emulator(torch.full((1, 1, 4, 4), float(k)))[0, 0].detach())
        assert (logit > 0) == (k == 1)


def test_a_line_per_epoch_tells_the_accuracy_of_each_label(caplog):
    caplog.set_level("INFO", "map2map")
    _, history = fit([GRAVITY], rate=0.0)
    (line,) = (text for text in caplog.messages if text.startswith("epoch 1 of 1"))
    train, val = (history[f"accuracy/{split}"][-1] for split in ("train", "val"))
    assert f"; accuracy train {train:.6g}, val {val:.6g}; lr" in line

    caplog.clear()
    with open("odd.csv", "w") as opened:  # noqa: PTH123
        opened.write("seed,odd,mass\n" + "".join(f"{i},{i % 2},{i}\n" for i in range(4)))
    told = {"odd": Told(table="odd.csv"), "mass": Told(table="odd.csv")}
    odd = Field("odd", kind="label", classes=("0", "1"))
    places = files("0:3") | told, files("3:4") | told
    _, history = fit([GRAVITY, odd, MASS], *places, rate=0.0, loss=nn.MSELoss())
    (line,) = (text for text in caplog.messages if text.startswith("epoch 1 of 1"))
    rates = [history[f"{name}_accuracy/{s}"][-1] for name in ("gravity", "odd") for s in
             ("train", "val")]  # fmt: skip
    assert "; accuracy of gravity train {:.6g}, val {:.6g}".format(*rates[:2]) in line
    assert "; accuracy of odd train {:.6g}, val {:.6g}; lr".format(*rates[2:]) in line
    assert rates[:2] != rates[2:]


def whole(count, names, offset=0):
    """Fields of their own files, each with its number; the means of each."""
    rng = np.random.default_rng(offset)
    found = []
    for i in range(count):
        values = rng.normal(rng.normal(3, 2), 0.3, (1, 8, 8)).astype(np.float32)
        np.save(names.format(i), values)
        found.append(values.mean())
    return np.array(found)


def test_parameters_are_learnt_with_the_norm_of_their_numbers():
    mean = whole(16, "t_{}.npy", 1), whole(6, "v_{}.npy", 2)
    places = []
    for front, values in zip("tv", mean, strict=True):
        with open(f"{front}.csv", "w") as opened:  # noqa: PTH123
            opened.write("seed,mass\n" + "".join(f"{i},{2 * m}\n" for i, m in enumerate(values)))
        places.append({"phi": f"{front}_{{seed}}.npy", "mass": Told(table=f"{front}.csv", scale=5)})
    norms = {"phi": Standardize(), "mass": Standardize()}
    emulator, history = fit(
        [MASS], *places, norms=norms, domain=Domain(ndim=2), epochs=25, rate=0.3
    )
    fitted = emulator.norm("mass")
    np.testing.assert_allclose(fitted.mean, [10 * mean[0].mean()], rtol=1e-5)
    np.testing.assert_allclose(fitted.std, [10 * mean[0].std()], rtol=0.05)
    assert history["rmse/val"][0] > 5
    assert history["rmse/val"][-1] < 0.5
    x = torch.full((1, 1, 8, 8), 4.0)
    assert float(emulator(x)[0, 0].detach()) == pytest.approx(40, abs=3)


def three(only):
    return {"phi": Files("abc.h5", "{which}_{seed}", only={"seed": only})}


@pytest.fixture
def abc():
    rng = np.random.default_rng(0)
    with h5py.File("abc.h5", "w") as opened:
        for k, name in enumerate("abc"):
            for seed in range(3):
                opened[f"{name}_{seed}"] = rng.normal(2 * k, 0.3, (4, 4, 4)).astype(np.float32)


@pytest.mark.usefixtures("abc")
def test_three_classes_are_learnt_by_cross_entropy():
    emulator, history = fit([WHICH], three("0:2"), three("2:3"), epochs=20, rate=0.2)
    assert history["accuracy/val"][-1] == 1
    logits = emulator(torch.tensor([0.0, 2.0, 4.0])[:, None, None, None].expand(3, 1, 4, 4))
    assert logits.argmax(1).tolist() == [0, 1, 2]
    assert np.shape(emulator.training_record["mean_line"]) == (2, 3)


def test_the_default_loss_is_that_of_the_kind():
    three_of_two = Field("w", kind="label", classes=("a", "b"))
    assert isinstance(default_loss([GRAVITY, three_of_two]), nn.BCEWithLogitsLoss)
    assert isinstance(default_loss([WHICH]), nn.CrossEntropyLoss)
    assert isinstance(default_loss([MASS]), nn.MSELoss)
    for mixed in ([GRAVITY, MASS], [WHICH, GRAVITY], [WHICH, MASS]):
        with pytest.raises(RecipeError, match="no common loss"):
            default_loss(mixed)


def narrow(*args, **more):
    return ConvNet(*args, width=1, depth=1, **more)


@pytest.mark.parametrize("halo", [0, "auto"])
def test_a_network_that_gives_fields_is_refused(halo):
    with pytest.raises(GeometryError, match="network ConvNet gives fields; use one that"):
        fit([GRAVITY], model=narrow, crops=Crops(halo=halo))


def test_a_norm_of_a_label_is_refused():
    with pytest.raises(FieldError, match=r"'gravity' is a label; .* takes no norm"):
        fit([GRAVITY], norms={"gravity": Standardize()})


# --- smoothing


def test_smoothing_shares_out_what_the_true_class_leaves():
    two = smoothed(torch.tensor([[0.0], [1.0]]), 0.1)
    torch.testing.assert_close(two, torch.tensor([[0.1], [0.9]]))
    found = smoothed(torch.eye(3), 0.3)
    torch.testing.assert_close(found, torch.full((3, 3), 0.15) + 0.55 * torch.eye(3))
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_smoothing_changes_the_training_loss_and_no_score():
    measures = {"entropy": nn.BCEWithLogitsLoss(), "mae": nn.L1Loss()}
    _, hard = fit([GRAVITY], rate=0.0, measures=measures)
    smoothing = Augment(label_smoothing=0.2)
    _, soft = fit([GRAVITY], rate=0.0, augment=smoothing, measures=measures)
    assert hard["val"] == soft["val"]
    assert {"accuracy/train", "entropy/train", "mae/train", "mae/val"} <= set(hard)
    for name in hard:
        if "/" in name:
            assert hard[name] == soft[name], name
    # smoothing to 0.2 is linear in the target: the loss is 0.8 of the true one and 0.2 of the other
    emulator, _ = fit([GRAVITY], rate=0.0)
    inputs = torch.cat([x for training, x in Means.seen if training])
    logits, labels = emulator.model(inputs).detach(), labels_in_order()
    other = nn.functional.binary_cross_entropy_with_logits(logits, 1 - labels)
    assert soft["train"][0] == pytest.approx(0.8 * hard["train"][0] + 0.2 * float(other), rel=1e-4)


def labels_in_order():
    """Of the samples of the first epoch."""
    reading = Reading(batch_size=4)
    data = FieldData(files("0:3"), domain=DOMAIN, reading=reading, seed=7, crops=Crops(halo=0))
    data.open([PHI], [GRAVITY])
    data.resolve(Footprint(margin=0, reduces=True))
    return torch.cat([batch.settle()[1] for batch in data.train_dataloader()])


@pytest.mark.parametrize("share", [0.5, -0.1, 1.0])
def test_smoothing_to_one_half_or_more_is_refused(share):
    with pytest.raises(RecipeError, match="at least 0 and below"):
        Augment(label_smoothing=share)


def test_smoothing_without_labels_is_refused():
    told = {"mass": Told(placeholder="seed")}
    with pytest.raises(RecipeError, match="is for labels, but the targets are mass"):
        fit([MASS], files("0:3") | told, files("3:4") | told, augment=Augment(label_smoothing=0.1))


# --- blanked classes


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_factors_of_classes_multiply_normalized_inputs_in_training_and_validation(smoothing):
    norms = {"phi": Standardize([-10.0], [2.0])}
    augment = Augment(label_smoothing=smoothing)
    fit([GRAVITY], norms=norms, augment=augment, factors={"newton": 0.0, "gr": 3.0})
    for training in (True, False):
        found = torch.cat([x for mode, x in Means.seen if mode is training])
        mean = found.mean((1, 2, 3))
        blank = (found == 0).all(dim=(1, 2, 3))
        assert int(blank.sum()) == len(found) // 2 == (24 if training else 8)
        # gr is 1 high: (1 + 10) / 2 * 3
        assert (mean[~blank] - 16.5).abs().max() < 1.5


def test_factors_of_unknown_classes_are_refused():
    with pytest.raises(RecipeError, match=r"names mond, but the classes .* are newton, gr"):
        fit([GRAVITY], factors={"mond": 0.0})


# --- the mean line


@pytest.mark.parametrize(
    ("augment", "factors"),
    [
        (None, None),
        (Augment(symmetries="all", shift=4, label_smoothing=0.2, add=0.5, mul=0.3), None),
        (None, {"gr": 0.0}),
    ],
)
def test_the_line_in_the_card_is_that_of_the_training_samples_as_they_are(augment, factors, here):
    fit([GRAVITY], epochs=2, augment=augment, factors=factors)
    card = Card.read("emulator.safetensors")
    names = [name for name in here if not name.endswith("3")]
    cubes = {name: here[name] for name in names}
    planes = [
        (cubes[n].take(i, axis=a), n.startswith("gr"))
        for n in names
        for a in (0, 1)
        for i in range(4)
    ]
    every = np.concatenate([c.ravel() for c in cubes.values()]).astype(float)
    x = torch.from_numpy(np.stack([(p - every.mean()) / every.std() for p, _ in planes]))[:, None]
    line = MeanLine(FieldSet((GRAVITY.resolved(1, 2),)), 1)
    line.add(x, torch.tensor([[float(gr)] for _, gr in planes]))
    # the norm that was fitted divides by another count of cells
    found = means(x) @ np.array(card.training["mean_line"])
    np.testing.assert_allclose(found, means(x) @ np.array(line.weights()), rtol=0.02, atol=0.02)


# --- resuming


def test_the_line_leaves_out_cells_that_are_masked_and_planes_without_others(here):
    here["gr_seed1"][2] = np.nan
    with h5py.File("z1.h5", "r+") as opened:
        opened["gr_seed1"][2] = np.nan
    told = {"mass": Told(placeholder="seed")}
    emulator, _ = fit([MASS], files("0:3") | told, files("3:4") | told, mask=True)
    found = np.array(emulator.training_record["mean_line"])
    planes = [
        (np.nanmean(values.take(i, axis)), int(name[-1]))
        for name, values in here.items()
        if int(name[-1]) < 3
        for axis in (0, 1)
        for i in range(4)
        if np.isfinite(values.take(i, axis)).any()
    ]
    assert len(planes) == 6 * 2 * 4 - 1
    mean, seed = np.array(planes).T
    x = emulator.encode_input(torch.from_numpy(mean.astype(np.float32))[:, None, None, None])
    phi = np.stack([np.ones(len(mean)), x.numpy().ravel()], axis=1)
    expected = np.linalg.lstsq(phi, seed, rcond=None)[0]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_an_emulator_is_written_and_told_without_a_line_where_no_plane_has_a_finite_cell(caplog):
    with h5py.File("z1.h5", "r+") as opened:
        for seed in range(3):
            for gravity in ("newton", "gr"):
                opened[f"{gravity}_seed{seed}"][...] = np.nan
    fit([GRAVITY], mask=True, norms={})
    assert Card.read("emulator.safetensors").training["mean_line"] is None
    assert "no mean line is kept" in caplog.text


class Broken(BaseException):
    pass


class Stop(pl.Callback):
    """Breaks off after so many batches, as a killed process does."""

    def __init__(self, after):
        self.after = after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after -= 1
        if self.after == 0:
            raise Broken


def resumable(epochs, **more):
    return fit(
        [GRAVITY],
        epochs=epochs,
        batch_size=5,
        every=1,
        resume="auto",
        model=lambda *a, **k: Means(*a, dropout=0.3, **k),
        augment=Augment(symmetries="all", label_smoothing=0.1, add=0.2),
        **more,
    )


@pytest.mark.parametrize("batches", [2, 5, 12])
def test_what_was_broken_off_goes_on_to_the_same_weights_scores_and_line(
    tmp_path, monkeypatch, batches
):
    expected, history = resumable(2)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "z1.h5").symlink_to(tmp_path / "z1.h5")
    monkeypatch.chdir(tmp_path / "again")
    with pytest.raises(Broken):
        resumable(2, callbacks=[Stop(batches)])
    found, again = resumable(2, seed=99)
    assert again == history
    assert found.training_record["mean_line"] == expected.training_record["mean_line"]
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name]), name


def test_two_epochs_and_two_more_are_four(tmp_path, monkeypatch):
    expected, history = resumable(4)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "z1.h5").symlink_to(tmp_path / "z1.h5")
    monkeypatch.chdir(tmp_path / "again")
    resumable(2)
    found, again = resumable(4, seed=99)
    assert again == history
    assert len(again["accuracy/val"]) == 4
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name]), name


# --- a last batch of one sample


def images(count):
    for i in range(count):
        kind = "gr" if i % 2 else "newton"
        np.save(f"{kind}_{i}.npy", np.random.default_rng(i).normal(size=(64, 64)).astype("f4"))
    return {"phi": "{gravity}_*.npy"}


def penguin(*args, **more):
    return Penguin(*args, width=1, size=64, **more)


def test_a_last_batch_of_one_image_joins_the_one_before_it():
    patterns = images(5)
    one = {"model": penguin, "domain": Domain(ndim=2), "overlap": True}
    _, history = fit([GRAVITY], patterns, patterns, batch_size=2, epochs=2, **one)
    assert len(history["train"]) == 2
    with pytest.raises(GeometryError, match="training batch of one image"):
        fit([GRAVITY], patterns, patterns, batch_size=1, epochs=3, **one)


# --- a recipe


def test_a_recipe_of_labels_trains_and_its_emulator_is_scored(m2m, tmp_path):
    with h5py.File("cubes.h5", "w") as opened:
        for seed in range(3):
            for k, gravity in enumerate(("newton", "gr")):
                values = np.random.default_rng(seed).normal(k, 0.5, (8, 8, 8))
                opened[f"{gravity}_seed{seed}"] = values.astype(np.float32)
    (tmp_path / "kinds.csv").write_text("g,kind\nnewton,n\ngr,g\n")
    place = {"pattern": "cubes.h5", "variable": "{g}_seed{seed}"}
    recipe = {
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "model": {
            "inputs": [{"name": "phi", "channels": 1}],
            "targets": [{"name": "kind", "kind": "label", "classes": ["n", "g"]}],
            "model": {"class_path": "ResNet", "init_args": {"width": 2, "levels": 2}},
        },
        "data": {
            "train": {"phi": place | {"only": {"seed": "0:2"}}, "kind": {"table": "kinds.csv"}},
            "val": {"phi": place | {"only": {"seed": [2]}}, "kind": {"table": "kinds.csv"}},
            "domain": {"ndim": 2, "planes": [0], "plane_step": 2},
            "augment": {"label_smoothing": 0.05},
            "reading": {"batch_size": 4, "class_factors": {"n": 1.0}},
        },
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    status, _, err = m2m("train", "r.yaml")
    assert status == 0, err
    card = Card.read("emulator.safetensors")
    assert [entry["classes"] for entry in card.targets] == [["n", "g"]]
    assert card.grid["planes"] == [0]
    files = card.training["files"]
    assert {split: [run["phi"]["array"] for run in runs] for split, runs in files.items()} == {
        "train": ["gr_seed0", "newton_seed0", "gr_seed1", "newton_seed1"],
        "val": ["gr_seed2", "newton_seed2"],
    }
    assert {run["phi"]["path"] for run in (*files["train"], *files["val"])} == {"cubes.h5"}
    # the table is that of the recipe, which the card tells
    data = "phi=cubes.h5::{g}_seed{seed}"
    status, out, err = m2m("evaluate", "emulator.safetensors", data, "--only", "seed=2")
    assert status == 0, err
    assert "8 samples of 2 runs" in out
    with xr.open_dataset("scores.nc") as scores:
        assert scores.g.values.tolist() == ["gr", "newton"]
        told = json.loads(scores.attrs["data"])["phi"]
        assert [entry["array"] for entry in told] == ["gr_seed2", "newton_seed2"]


def test_a_rate_that_is_no_number_is_refused_without_names_of_networks(m2m):
    Path("r.yaml").write_text(
        """
        model:
          inputs: [{name: phi, channels: 1}]
          targets: [{name: gravity, kind: label, classes: [newton, gr]}]
          model: {class_path: ResNet, init_args: {width: 2, levels: 2}}
          optimizer: {class_path: torch.optim.Adam, init_args: {lr: abc}}
        data:
          train: {phi: {pattern: z1.h5, variable: "{gravity}_seed{seed}"}}
        """
    )
    status, _, err = m2m("train", "r.yaml")
    assert status == 2
    assert err.strip().endswith("model.optimizer.lr: expected a number, not 'abc'")


@pytest.mark.parametrize("said", ["1:3", "0:2"])
def test_a_range_without_quotation_marks_is_refused_where_yaml_makes_it_a_number(m2m, said):
    place = '{pattern: z1.h5, variable: "{gravity}_seed{seed}", only: {seed: ' + said + "}}"
    recipe = f"""
        trainer: {{max_epochs: 1, accelerator: cpu, logger: false}}
        model:
          inputs: [{{name: phi, channels: 1}}]
          targets: [{{name: gravity, kind: label, classes: [newton, gr]}}]
          model: {{class_path: ResNet, init_args: {{width: 2, levels: 1}}}}
        data:
          train: {{phi: {place}}}
          domain: {{ndim: 2, planes: [0]}}
    """
    with open("r.yaml", "w") as opened:  # noqa: PTH123
        opened.write(recipe)
    status, _, err = m2m("train", "r.yaml")
    if said == "0:2":  # which YAML takes for a text
        assert status == 0, err
        return
    assert status == 2
    assert 'quote it: seed: "1:3"' in err
    assert err.count("\n") == 1
