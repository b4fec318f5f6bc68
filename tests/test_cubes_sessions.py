"""The gravity classifiers' sessions: what they leave and go on from; the original's checkpoints."""

import re
import runpy
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn

from map2map.checkpoints import States, read_state
from map2map.dialects.cubes.sessions import convert, nothing_left
from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, SourceError
from map2map.models import Paco
from map2map.moment_files import write_moments

MADE = runpy.run_path(str(Path(__file__).with_name("made_cubes.py")))
one_thread, material, here = (MADE[name] for name in ("one_thread", "material", "here"))
written, cube, write_root = (MADE[name] for name in ("written", "cube", "write_root"))
NAME, QUICK = MADE["NAME"], MADE["QUICK"]


# --- sessions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(material, tmp_path_factory):
    """A folder after the first session: three epochs."""
    from map2map.cli import main

    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("data_z1.h5").symlink_to(material)
        written()
        assert main(["cubes", "temp.yaml", *map(str, QUICK)]) == 0
    return folder


def test_a_run_that_fails_before_its_first_state_leaves_nothing(here, m2m):
    with h5py.File("nan.h5", "w") as file:
        for seed in range(5):
            for gravity in ("gr", "newton"):
                values = cube(seed, gravity, 64)
                # training begins: the first cube tells that all are standardized
                values[:, :, 33:40] = np.nan if seed == 1 else 1
                file[f"{gravity}_seed{seed:04d}"] = values
    Path("logs/other").mkdir(parents=True)
    written(datafile="nan.h5")
    before = sorted(Path().rglob("*"))
    status, _, err = m2m("cubes", "temp", "--stride=4")
    assert status == 2
    assert "NaN or infinite values" in err
    assert re.search(r"in nan.h5::(gr|newton)_seed0001, plane \d+ of axis \d holds", err)
    assert err.strip().endswith("mend the data")
    assert sorted(Path().rglob("*")) == before


def test_cubes_of_other_sizes_are_named_with_a_remedy_that_there_is(here, m2m):
    with h5py.File("sizes.h5", "w") as file:
        for seed in range(5):
            for gravity in ("gr", "newton"):
                size = 128 if (seed, gravity) == (1, "newton") else 64
                file[f"{gravity}_seed{seed:04d}"] = cube(seed, gravity, size)
    written(datafile="sizes.h5")
    status, _, err = m2m("cubes", "temp", "--stride=32")
    assert status == 2
    assert "sizes.h5::newton_seed0001, plane 0 of axis 0 has shape (128, 128), but (64, 64)" in err
    assert "expected from sizes.h5::gr_seed0000, plane 0 of axis 0" in err
    assert "make those of other shapes anew, or leave them out" in err
    assert "same_shape" not in err


def test_only_what_was_made_is_removed_and_only_before_a_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, logs = Path("models/a"), Path("logs/of/a")

    def attempt(error=None):
        with nothing_left(model / "checkpoint.pt", model, logs):
            model.mkdir(parents=True, exist_ok=True)
            logs.mkdir(parents=True, exist_ok=True)
            (model / "settings.yaml").touch()
            if error is not None:
                raise error

    for error in (OSError("disk"), SourceError("data")):
        with pytest.raises(type(error)):
            attempt(error)
        assert not list(Path().iterdir())
    Path("models/b").mkdir(parents=True)
    with pytest.raises(OSError, match="disk"):
        attempt(OSError("disk"))
    assert list(Path().rglob("*")) == [Path("models"), Path("models/b")]
    attempt()
    shutil.rmtree("logs")
    with pytest.raises(OSError, match="disk"):
        attempt(OSError("disk"))
    # what was there before stays
    assert (model / "settings.yaml").exists()
    assert not Path("logs").exists()
    (model / "checkpoint.pt").touch()
    with pytest.raises(OSError, match="disk"):
        attempt(OSError("disk"))
    assert logs.exists()


@pytest.fixture
def again(first, tmp_path, monkeypatch, m2m):
    """A copy of it; what runs the same command with other values."""
    folder = tmp_path / "again"
    shutil.copytree(first, folder, symlinks=True)
    monkeypatch.chdir(folder)

    def run(*argv, **changes):
        written(**changes)
        return m2m("cubes", "temp", *QUICK, *argv)

    return run


def scalars(lr="0.001"):
    events = EventAccumulator(f"logs/{NAME}_lr{lr}")
    events.Reload()
    return events


def test_a_session_leaves_states_emulators_scores_and_a_log(first, monkeypatch):
    monkeypatch.chdir(first)
    folder = Path("models") / NAME
    assert {"checkpoint.pt", "best.pt", "state_3.pt", "settings.yaml", "scores.nc"} <= {
        path.name for path in folder.iterdir()
    }
    events = scalars()
    found = {tag: [e.step for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    names = "loss", "accuracy", "precision", "recall", "F1_score", "TPR", "FPR"
    # tests are every second epoch, and the last; there is nothing else but the loggers' own
    assert {tag: steps for tag, steps in found.items() if tag != "hp_metric"} == {
        **{f"{name}/train": [1, 2, 3] for name in names},
        **{f"{name}/test": [2, 3] for name in names},
    }
    assert [image.step for image in events.Images("confusion/test")] == [2, 3]
    assert events.Tags()["graph"]
    assert "_hparams_/experiment" in events.summary_metadata


def test_scores_that_are_logged_are_those_of_the_card(first, monkeypatch):
    monkeypatch.chdir(first)
    card = Card.read(Path("models") / NAME / "last.safetensors")
    tested = [event.value for event in scalars().Scalars("loss/test")]
    assert card.scores["loss"]["val"] == [None, *map(pytest.approx, tested)]
    assert len(card.scores["loss"]["train"]) == 3


def test_the_emulator_is_that_of_the_best_tested_epoch(first, monkeypatch):
    monkeypatch.chdir(first)
    folder = Path("models") / NAME
    losses = {event.step: event.value for event in scalars().Scalars("loss/test")}
    best = min(losses, key=losses.get)
    for name, state, epoch in (
        ("emulator", "best.pt", best), ("last", "checkpoint.pt", 3),
    ):  # fmt: skip
        emulator = Emulator.load(folder / f"{name}.safetensors")
        kept = read_state(folder / state)
        assert kept["epoch"] == epoch
        for key, value in emulator.model.state_dict().items():
            torch.testing.assert_close(value, kept["model"][key], rtol=0, atol=0)


def test_the_last_line_scores_slices_and_cubes(again):
    status, out, _ = again(epochs=1)
    assert status == 0
    assert "Test seeds, network of epoch" in out
    assert "per image" in out
    assert "per run" in out
    assert "group" not in out
    assert "gravity: 24 samples of 4 runs" in out


def test_a_block_for_every_epoch_as_before(again):
    _, out, _ = again(epochs=1)
    lines = out.splitlines()
    block = lines[lines.index("Epoch 4") + 1 :][:20]
    events = scalars()
    loss = events.Scalars("loss/train")[-1].value
    share = events.Scalars("accuracy/train")[-1].value
    assert block[:4] == [
        "---Train---", "Epoch: 4", f"Loss: {loss:.5f}",
        f"Accuracy: {share:.4f} = {100 * share:.2f} %",
    ]  # fmt: skip
    names = [line.partition(":")[0] for line in block]
    told = ["Epoch", "Loss", "Accuracy", "Precision", "Recall", "F1 score", "TPR", "FPR", "Time"]
    assert names == ["---Train---", *told, "---Test---", *told]


def test_the_same_command_trains_as_many_epochs_more_with_the_rate_that_is_asked_for(again, caplog):
    caplog.set_level("INFO")
    before = read_state(Path("models") / NAME / "checkpoint.pt")["model"]
    status, _, _ = again(epochs=2, lr=1e-9)
    assert status == 0
    state = read_state(Path("models") / NAME / "checkpoint.pt")
    assert state["epoch"] == 5
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-9
    # with a rate of nearly nothing, the weights have stayed
    for name, value in before.items():
        if "weight" in name:
            torch.testing.assert_close(value, state["model"][name], rtol=0, atol=1e-6)
    assert [event.step for event in scalars("1e-09").Scalars("loss/train")] == [4, 5]
    assert f"going on with {NAME} after epoch 3" in caplog.text
    assert "lr is 1e-09, and was 0.001" in caplog.text


def test_the_card_of_the_best_network_tells_the_session_that_its_weights_are_of(again):
    def card(name):
        return Card.read(Path("models") / NAME / f"{name}.safetensors")

    def rates(name):
        return card(name).training["recipe"]["model"]["optimizer"]["init_args"]["lr"]

    losses = {e.step: e.value for e in scalars().Scalars("loss/test")}
    best = min(losses, key=losses.get)
    before = card("emulator").training
    steps = read_state(Path("models") / NAME / "best.pt")["global_step"]
    assert (before["epochs"], before["optimizer_steps"]) == (best, steps)
    assert before["best_of_epochs"] == 3
    # no weights survive such a rate, so that the best ones stay those of the first session
    assert again("--weight-decay=0.5", "--seed=7", epochs=2, lr=10.0)[0] == 0
    after = card("emulator").training
    assert after == before | {"best_of_epochs": 5}
    assert (rates("emulator"), rates("last")) == (0.001, 10.0)
    assert card("last").training["epochs"] == 5
    assert card("last").training["optimizer_steps"] > steps
    assert card("last").training["seed"] == 7
    # and those of the second session, where they are better
    state = Path("models") / NAME / "checkpoint.pt"
    kept = torch.load(state, weights_only=True)
    torch.save(kept | {"min_loss": 1e9}, state.resolve())
    assert again("--weight-decay=0.25", "--seed=7", epochs=1, lr=1e-9)[0] == 0
    assert rates("emulator") == 1e-9
    assert card("emulator").training["seed"] == 7
    assert card("emulator").training["epochs"] == 6
    assert "best_of" not in str(card("last").training)


def test_the_report_tells_the_epoch_of_the_best_network_and_its_rate(again, m2m):
    again("--weight-decay=0.5", epochs=2, lr=10.0)
    path = Path("models") / NAME / "emulator.safetensors"
    place = "potential=data_z1.h5::{gravity}_seed{seed}"
    assert m2m("evaluate", path, place, "--only", "seed=3", "-o", "s.nc")[0] == 0
    assert m2m("report", "s.nc")[0] == 0
    page = Path("report.html").read_text()
    epochs = Card.read(path).training["epochs"]
    assert f"{epochs} epochs (the best of 5)" in page
    assert "Adam, learning rate 0.001" in page


def test_the_scores_of_a_session_are_those_of_m2m_evaluate_and_make_a_report(again, m2m):
    assert again(epochs=1)[0] == 0
    folder = Path("models") / NAME
    place = "potential=data_z1.h5::{gravity}_seed{seed}"
    argv = ("evaluate", folder / "emulator.safetensors", place, "--only", "seed=3:5", "-o", "s.nc")
    assert m2m(*argv)[0] == 0
    with xr.open_dataset("s.nc") as expected, xr.open_dataset(folder / "scores.nc") as found:
        assert found.attrs == expected.attrs
        assert found.method.values.tolist() == ["emulator", "mean_line"]
        xr.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    status, _, err = m2m("report", folder / "scores.nc")
    assert status == 0, err
    assert "Of 4 runs (24 images)" in (folder / "report.html").read_text()


def test_the_network_is_drawn_once_and_not_in_every_session(again):
    assert again(epochs=1)[0] == 0
    (logs,) = Path("logs").iterdir()
    files = sorted(logs.glob("events.*"))
    graphs = [
        event
        for path in files
        for event in EventFileLoader(str(path)).Load()
        if event.WhichOneof("what") == "graph_def"
    ]
    assert (len(files) > 1, len(graphs)) == (True, 1)
    # at another rate, the log is another one
    assert again(epochs=1, lr=0.5)[0] == 0
    assert scalars("0.5").Tags()["graph"]


def test_a_session_that_broke_off_is_ended(again, caplog):
    caplog.set_level("INFO")
    path = Path("models") / NAME / "settings.yaml"
    kept = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(kept | {"session": {"begin": 1, "until": 5}}))
    assert again(epochs=4)[0] == 0
    assert read_state(Path("models") / NAME / "checkpoint.pt")["epoch"] == 5
    assert "that began after epoch 1 broke off; it goes on after epoch 3" in caplog.text


@pytest.mark.parametrize(
    ("argv", "changes", "match"),
    [
        ((), {"test_seeds": 1}, "was trained with test_seeds 2, not 1"),
        (("--stride=64",), {}, "was trained with stride 32, not 64"),
        (("--activation=gelu",), {}, "was trained with activation leaky_relu, not gelu"),
        (("--head=pool",), {}, "was trained with head flatten, not pool"),
        (("--stats=s.npy",), {}, r"was trained with stats None, not \[2.0, 4.0\]"),
    ],
)
def test_settings_that_change_what_scores_are_of_are_refused(again, argv, changes, match):
    write_moments(Path("s.npy"), 2.0, 4.0)
    before = {path: path.stat().st_mtime_ns for path in Path("models").rglob("*")}
    status, _, err = again(*argv, **changes)
    assert status == 2
    assert re.search(match, err)
    assert "or another model_params.name" in err
    assert {path: path.stat().st_mtime_ns for path in Path("models").rglob("*")} == before


def test_settings_from_before_the_head_could_be_chosen_are_gone_on_with(again):
    record = Path("models") / NAME / "settings.yaml"
    kept = yaml.safe_load(record.read_text())
    del kept["activation"], kept["head"]
    record.write_text(yaml.safe_dump(kept))
    assert again(epochs=1)[0] == 0
    assert yaml.safe_load(record.read_text())["head"] == "flatten"


def test_activation_and_head_reach_the_network_and_its_card(here, m2m):
    small = h5py.File("data_z2.h5", "w")
    with small:
        for seed in range(3):
            for gravity in ("gr", "newton"):
                small[f"{gravity}_seed{seed:04d}"] = cube(seed, gravity, 20)
    written(
        datafile="data_z2.h5", architecture="PACO", epochs=1, train_seeds=2, test_seeds=1,
        layer_param=1,
    )  # fmt: skip
    argv = ("cubes", "temp", "--stride=8", "--head=pool", "--activation=tanh")
    assert m2m(*argv)[0] == 0
    (path,) = Path("models").glob("*/last.safetensors")
    model = Emulator.load(path).model
    assert (model.head, model.activation, model.levels) == ("pool", "tanh", 2)
    assert m2m(*argv)[0] == 0  # and it goes on


def test_the_card_tells_what_newton_was_multiplied_by_and_who_applies_it_is_warned(
    here, m2m, caplog
):
    for factor, said in ((1.0, None), (0.25, {"newton": 0.25})):
        written(newton_augmentation=factor, epochs=1, train_seeds=2, test_seeds=1)
        assert m2m("cubes", "temp", "--stride=64")[0] == 0
        path = Path("models") / NAME.replace("na1.0_ts3", f"na{factor}_ts2") / "last.safetensors"
        assert Card.read(path).training.get("class_factors") == said
        place = "potential=data_z1.h5::{gravity}_seed{seed}"
        for command, output in (("evaluate", "s.nc"), ("apply", "t.nc"), ("saliency", "m.nc")):
            caplog.clear()
            assert m2m(command, path, place, "--only", "seed=3", "-o", f"{factor}{output}")[0] == 0
            words = "that were multiplied: those of newton by 0.25 (class_factors in its card)"
            assert (words in caplog.text) == (said is not None), command


def test_other_data_of_the_same_name_are_refused(again, first):
    Path("data_z1.h5").unlink()
    write_root("data_z1.h5", range(6))
    status, _, err = again()
    assert status == 2
    assert "was trained with data" in err


def test_other_changes_are_told_and_hold(again, caplog):
    caplog.set_level("INFO")
    assert again("--weight-decay=0.5", "--smoothing=0.2", "--batch-size=9", epochs=1)[0] == 0
    for line in ("weight_decay is 0.5, and was 1e-11", "smoothing is 0.2, and was 0.0",
                 "batch_size is 9, and was"):  # fmt: skip
        assert line in caplog.text
    state = read_state(Path("models") / NAME / "checkpoint.pt")
    assert state["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 0.5


def test_an_epoch_that_is_not_tested_is_never_the_best(tmp_path, monkeypatch):
    states = States(tmp_path)
    monkeypatch.setattr(states, "_save", lambda *_: None)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda asked, **_: asked)
    trainer = SimpleNamespace(
        is_global_zero=True,
        strategy=strategy,
        train_dataloader=None,
        max_epochs=9,
        limit_val_batches=1.0,
    )
    best = []
    epochs = [{"train": 0.1}, {"train": 0.1, "val": 0.9}, {"train": 0.0}, {"train": 0, "val": 1.0}]
    for epoch, losses in enumerate(epochs):
        trainer.current_epoch = epoch
        states.on_train_epoch_end(trainer, SimpleNamespace(epoch_losses=losses))
        link = tmp_path / "best.pt"
        best.append(link.readlink().name if link.is_symlink() else None)
    assert best == [None, "state_2.pt", "state_2.pt", "state_2.pt"]


# --- the original's checkpoints ------------------------------------------------------------------


class Original(nn.Module):
    """The original by its table, for slices of 64."""

    def __init__(self, p=2, chan=1):
        super().__init__()
        widths = [chan, p, 4 * p, 8 * p]
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            conv = nn.Conv2d(before, after, 4, 4, bias=False)
            block = nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
            self.add_module(f"conv2d{i}", block)
        self.fc1 = nn.Sequential(nn.Flatten(), nn.Linear(8 * p, p), nn.LeakyReLU(0.2))
        self.output = nn.Sequential(nn.Linear(p, 1))

    def forward(self, x):
        return self.output(self.fc1(self.conv2d3(self.conv2d2(self.conv2d1(x)))))


class Penguin(nn.Module):
    """Likewise."""

    def __init__(self, p=2, chan=1):
        super().__init__()
        widths = [chan, p, 2 * p, 4 * p, 6 * p, 8 * p, 10 * p]
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            conv = nn.Conv2d(before, after, 4, 2, 1, bias=False)
            block = nn.Sequential(conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.2))
            self.add_module(f"conv2d{i}", block)
        for name, before, after in (("fc1", 10 * p, 10 * p), ("fc2", 10 * p, p)):
            front = [nn.Flatten()] if name == "fc1" else []
            dense = [nn.Linear(before, after), nn.BatchNorm1d(after), nn.LeakyReLU(0.2)]
            self.add_module(name, nn.Sequential(*front, *dense))
        self.output = nn.Sequential(nn.Linear(p, 1))

    def forward(self, x):
        for i in range(1, 7):
            x = getattr(self, f"conv2d{i}")(x)
        return self.output(self.fc2(self.fc1(x)))


class PacoAllAtOnce(nn.Module):
    """Likewise, with all convolutions before all normalizations; four groups for slices of 64."""

    def __init__(self, h=1, chan=1, groups=4):
        super().__init__()
        act, before, norms = nn.LeakyReLU(0.2), chan, {}
        self.layers = []
        for g in range(groups):
            w = 2 ** (g + 1) * h
            for i, n in enumerate((before, w), start=1):
                ring = nn.Conv2d(n, w, 3, padding=1, padding_mode="circular")
                self.add_module(f"C{g}{i}", ring)
            self.add_module(f"C{g}3", nn.Conv2d(w, w, 2, 2))
            norms |= {f"{g}{i}": w for i in (1, 2, 3)}
            before = w
        self.add_module(f"C{groups}1", nn.Conv2d(before, 2 * before, 4))
        norms[f"{groups}1"] = 2 * before
        for name, w in norms.items():
            self.add_module(f"B{name}", nn.BatchNorm2d(w))
        self.FC1, self.FC2 = nn.Linear(2 * before, before), nn.Linear(before, 1)
        self.names, self.act = list(norms), act

    def forward(self, x):
        for name in self.names:
            x = getattr(self, f"C{name}")(x)
            x = self.act(x if name == "01" else getattr(self, f"B{name}")(x))
        return self.FC2(self.act(self.FC1(x.flatten(1))))


ORIGINALS = {"Racoon": Original, "Penguin": Penguin, "Paco": PacoAllAtOnce}


def checkpoint(model, path, steps=3, epoch=7, lr=0.5):
    """Train a little, and save as the original does; gives the optimizer."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr, (0.5, 0.999), weight_decay=1e-11)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 64, 64)).square().mean().backward()
        optimizer.step()
    entries = {
        "epoch": epoch, "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(), "train_loss": 0.6, "test_loss": 0.7,
        "best_loss": 1e10, "model_save_path": "models/x.pt", "model_information_written": True,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(entries, path)
    return optimizer


@pytest.mark.parametrize("place", ["models", "cnn_storage/models"])
def test_an_original_checkpoint_is_gone_on_from(m2m, here, place, caplog):
    caplog.set_level("INFO")
    model = Original()
    checkpoint(model, Path(place) / f"{NAME}.pt")
    written(epochs=2, lr=1e-9)
    assert m2m("cubes", "temp", *QUICK)[0] == 0
    state = read_state(Path("models") / NAME / "checkpoint.pt")
    assert state["epoch"] == 9
    (optimizer,) = state["optimizer_states"]
    # three steps before, and those of two epochs
    assert float(optimizer["state"][0]["step"]) == 3 + 2 * -(-36 // 3)
    assert optimizer["param_groups"][0]["lr"] == 1e-9
    for name, value in model.state_dict().items():
        if "weight" in name:
            torch.testing.assert_close(value, state["model"][name], rtol=0, atol=1e-6)
    assert [event.step for event in scalars("1e-09").Scalars("loss/train")] == [8, 9]
    assert f"going on with the original's {place}/{NAME}.pt after epoch 7" in caplog.text


def test_an_original_checkpoint_is_not_gone_on_from_with_another_activation(m2m, here):
    checkpoint(Original(), Path("models") / f"{NAME}.pt")
    written()
    status, _, err = m2m("cubes", "temp", *QUICK, "--activation=gelu")
    assert status == 2
    assert "the original's, was trained with activation leaky_relu, not gelu" in err


def test_the_optimizers_state_goes_to_the_weights_it_is_of_whatever_their_order(tmp_path):
    theirs, ours = PacoAllAtOnce(), Paco(1, 1, width=1, size=64, levels=4)
    before = checkpoint(theirs, tmp_path / "x.pt")
    state = read_state(convert(tmp_path / "x.pt", tmp_path / "new", ours))
    ours.load_state_dict(state["model"])
    optimizer = torch.optim.Adam(ours.parameters())
    optimizer.load_state_dict(state["optimizer"])
    # the next step of both is the same
    x = torch.randn(4, 1, 64, 64)
    for model, stepped in ((theirs.train(), before), (ours.train(), optimizer)):
        stepped.zero_grad()
        model(x).square().mean().backward()
        stepped.step()
    assert state["epoch"] == 7
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_an_optimizer_state_of_other_weights_is_refused(tmp_path):
    from map2map.models import Racoon as Ours

    checkpoint(Original(), tmp_path / "x.pt")
    entries = torch.load(tmp_path / "x.pt", weights_only=True)
    entries["optimizer_state_dict"]["state"][0]["exp_avg"] = torch.zeros(3)
    torch.save(entries, tmp_path / "x.pt")
    with pytest.raises(ArtefactError, match=r"exp_avg of conv2d1.0.weight .* has shape \(3,\)"):
        convert(tmp_path / "x.pt", tmp_path / "new", Ours(1, 1, width=2, size=64))


# --- import --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("chan", [1, 2])
def test_imported_networks_give_what_they_gave(m2m, tmp_path, kind, chan):
    torch.manual_seed(1)
    model = ORIGINALS[kind](3, chan)
    path = tmp_path / "run_data_z1_X_lp3_do0.25_na1.0_ts3.pt"
    torch.save({"epoch": 4, "model_state_dict": model.state_dict()}, path)
    write_moments(tmp_path / "s.npy", 2.0, 4.0)
    argv = ("--set", "units=c^2", "--set", "stats=s.npy", "--set", "field=phi")
    status, out, _ = m2m("import", "--from", "cubes", path, *argv)
    assert status == 0
    assert "sees      the whole of a sample; it has 64 x 64 cells" in out
    emulator = Emulator.load(tmp_path / "emulator.safetensors")
    assert type(emulator.model).__name__ == kind
    assert emulator.model.dropout == 0.25
    assert emulator.inputs["phi"].units == "c^2"
    assert emulator.targets["gravity"].classes == ("newton", "gr")
    assert emulator.training_record["epochs"] == 4
    x = torch.randn(3, chan, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(emulator(4 * x + 2), model.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run_data_z1_X_lp3_do0.25_na1.0_ts3.pt", None),
        ("run_data_z1_X_lp3_do0.25_na0.5_ts3.pt", {"newton": 0.5}),
        ("run_data_z1_X_lp3_do0.0_na1e-05_ts3.pt", {"newton": 1e-5}),
        ("weights.pt", None),
    ],
)
def test_imported_networks_tell_the_factor_that_is_in_their_name(m2m, name, said):
    checkpoint(Original(), Path(name), steps=0)
    assert m2m("import", "--from", "cubes", name)[0] == 0
    emulator = Emulator.load("emulator.safetensors")
    assert emulator.training_record.get("class_factors") == said


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("--set", "drpout=1"), "--from cubes takes no setting 'drpout'; did you mean 'dropout'"),
        (("--set", "dropout"), "--set 'dropout' is not KEY=VALUE"),
        (("--set", "dropout=x"), "dropout is 'x', but must be a number"),
        (("--set", "dropout=1"), "`dropout` is 1.0"),
    ],
)
def test_settings_of_an_import_are_checked(m2m, tmp_path, argv, match):
    checkpoint(Original(), tmp_path / "x.pt", steps=0)
    status, _, err = m2m("import", "--from", "cubes", "x.pt", *argv)
    assert status == 2
    assert match in err
    assert not (tmp_path / "emulator.safetensors").exists()


def test_weights_of_something_else_are_not_imported(m2m, tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), "other.pt")
    Path("text.pt").write_text("weights")
    less = Original().state_dict()
    del less["conv2d2.1.bias"]
    torch.save(less, "less.pt")
    for name, match in (
        ("other.pt", "are those of no RACOON, PENGUIN or PACO; they are called weight, bias"),
        ("text.pt", "text.pt is no checkpoint, or is truncated"),
        ("less.pt", "look like Racoon's, but are not"),
        ("absent.pt", "there is no checkpoint absent.pt"),
    ):
        status, _, err = m2m("import", "--from", "cubes", name)
        assert status == 2
        assert match in err
