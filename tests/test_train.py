"""Training: resuming is bit-exact wherever it was broken off, and leaves what is documented."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, FieldError, GeometryError, RecipeError, SaveError
from map2map.fields import Field
from map2map.models import FNO, ConvNet, UNet
from map2map.norms import Log, Scale, Standardize
from map2map.order import Order, Share
from map2map.preparation import Options, draw_weights
from map2map.schedules import WarmupCosine
from map2map.task import Schedule, Task
from map2map.train import Output, make_trainer, train

STEPS = 6  # optimizer steps per epoch: 2 runs x 6 crops in batches of 2


class Noisy(nn.Module):
    """A network whose result depends on the state of the random number generator."""

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 2) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.net = nn.Sequential(
            nn.Conv2d(in_chan, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), nn.Conv2d(4, out_chan, 1)
        )

    def forward(self, x):
        return self.net(x)


def write_data(folder, names=("x", "y"), runs=3, shape=(8, 12)):
    rng = np.random.default_rng(0)
    for i in range(runs):
        values = rng.normal(3, 2, size=(1, *shape)).astype(np.float32)
        np.save(folder / f"{names[0]}_{i}.npy", values)
        smooth = values + np.roll(values, 1, 1) + np.roll(values, -1, 2)
        np.save(folder / f"{names[1]}_{i}.npy", smooth)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)


class Recorder(pl.Callback):
    """Keeps every loss and learning rate, and may break off after so many batches."""

    def __init__(self, log, stop=None):
        self.losses, self.stop, self.seen = log, stop, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        loss = outputs["loss"].item()
        self.losses[trainer.current_epoch, batch_idx] = loss, rate
        self.seen += 1
        if self.seen == self.stop:
            # a BaseException leaves as a killed process does: nobody saves anything
            raise Broken


class Broken(BaseException):
    pass


def make(schedule=None, **options):
    torch.manual_seed(3)
    task = Task(
        [Field("x")],
        [Field("y")],
        Noisy,
        norms={"x": Standardize(), "y": Standardize()},
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        schedule=schedule,
        options=Options(**options),
    )
    data = FieldData(
        {"x": "x_[01].npy", "y": "y_[01].npy"},
        {"x": "x_2.npy", "y": "y_2.npy"},
        crops=Crops(size=[4, 4]),
        augment=Augment(symmetries="all", shift=3, add=0.1),
        reading=Reading(batch_size=2),
        seed=7,
    )
    return task, data


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)


def one_cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=3 * STEPS)


def comes_next(path):
    return torch.load(path, weights_only=True)["FieldData"]


SCHEDULES = {
    "none": None,
    "plateau": Schedule(plateau),
    "one cycle": Schedule(one_cycle, interval="step"),
    "cosine": Schedule(lambda o: WarmupCosine(o, warmup=0.3), interval="step"),
}


def fit(log, stop=None, every=0, schedule=None, epochs=3, **trainer):
    output = Output(Path(), every=every, figures=0)
    task, data = make(schedule)
    made = make_trainer(
        output, progress=False, max_epochs=epochs, accelerator="cpu", logger=False,
        callbacks=[Recorder(log, stop)], **trainer,
    )  # fmt: skip
    try:
        emulator = train(task, data, made, output)
    except Broken:
        return None
    return emulator, task.history


def in_folder(name, function, **arguments):
    """Run in a folder of its own that sees the data."""
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    for path in Path().glob("*.npy"):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    former = Path.cwd()
    os.chdir(folder)
    try:
        return function(**arguments)
    finally:
        os.chdir(former)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_run_broken_off_anywhere_and_resumed_equals_an_unbroken_one(name):
    """Losses, learning rates, weights, norms and history, bit for bit, at every batch."""
    schedule, log = SCHEDULES[name], {}
    emulator, history = in_folder("whole", fit, log=log, schedule=schedule)
    assert len(log) == 3 * STEPS
    assert len({rate for _, rate in log.values()}) > (name != "none")
    # within an epoch, at its last batch and at the first of the next; between and at saves
    for stop, every in zip((1, 5, 6, 7, 10, 12, 13, 18), (1, 4, 0, 0, 4, 1, 1, 4), strict=True):
        mine: dict = {}
        folder = f"broken_{stop}"
        assert in_folder(folder, fit, log=mine, stop=stop, every=every, schedule=schedule) is None
        resumed, mine_history = in_folder(folder, fit, log=mine, every=every, schedule=schedule)
        assert mine == log, (stop, every)
        assert mine_history == history
        assert same_weights(resumed.state_dict(), emulator.state_dict())


def test_a_cosine_is_spread_over_the_epochs_that_there_are_when_it_is_resumed():
    first, rest = {}, {}
    fit(first, schedule=SCHEDULES["cosine"], epochs=1)
    fit(rest, schedule=SCHEDULES["cosine"], epochs=3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    expected = WarmupCosine(optimizer, warmup=0.3, total_steps=3 * STEPS)
    # those of the step to come
    rates = [0.02 * expected.share(step + 1) for step in range(STEPS, 3 * STEPS)]
    assert [rate for _, rate in rest.values()] == pytest.approx(rates)


def test_what_is_measured_only_later_is_told_from_then_on():
    fit({}, epochs=1)
    task, data = make(measures={"mae": nn.L1Loss()})
    trainer = make_trainer(Output(), progress=False, max_epochs=2, accelerator="cpu", logger=False)
    train(task, data, trainer, Output(figures=0))
    assert len(task.history["train"]) == 2
    assert np.isnan(task.history["mae/train"][0])
    assert 0 < task.history["mae/train"][1] < 10
    # and no longer, once it is not asked for
    _, history = fit({}, epochs=3)
    assert len(history["mae/train"]) == 2
    assert len(history["train"]) == 3


def test_gradients_that_are_accumulated_resume_at_optimizer_steps():
    log, mine = {}, {}
    options = {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5}
    emulator, _ = in_folder("whole", fit, log=log, **options)
    assert in_folder("broken", fit, log=mine, stop=5, every=1, **options) is None
    assert comes_next("broken/checkpoint.pt") == {"epoch": 0, "sample": 8}
    resumed, _ = in_folder("broken", fit, log=mine, every=1, **options)
    assert mine == log
    assert same_weights(resumed.state_dict(), emulator.state_dict())


SCRIPT = """
    import os, signal, sys, torch
    sys.path.insert(0, {tests!r})
    import lightning.pytorch as pl
    from pathlib import Path
    import importlib.util
    spec = importlib.util.spec_from_file_location("the_tests", {file!r})
    tests = importlib.util.module_from_spec(spec); sys.modules["the_tests"] = tests
    spec.loader.exec_module(tests)
    number, where = int(sys.argv[1]), int(sys.argv[2])

    class Log(dict):
        def __setitem__(self, key, value):
            with open("losses.txt", "a") as file:
                file.write(f"{{key[0]}} {{key[1]}} {{value[0].hex()}}\\n")
                file.flush()
            if key == (where // tests.STEPS, where % tests.STEPS) and number:
                os.kill(os.getpid(), number)

    tests.fit(Log(), every=2)
    print("done")
"""


def run_script(folder, number, where):
    script = Path("script.py").resolve()
    script.write_text(
        textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), file=__file__)
    )
    command = [sys.executable, str(script), str(int(number)), str(where)]
    return in_folder(
        folder, lambda: subprocess.run(command, capture_output=True, text=True, check=False)
    )


def losses(folder):
    lines = [line.split() for line in (Path(folder) / "losses.txt").read_text().splitlines()]
    return {(epoch, batch): loss for epoch, batch, loss in lines}


def test_killed_by_sigkill_or_asked_by_sigterm_a_run_goes_on_as_if_nothing_had_happened():
    assert run_script("whole", 0, 0).returncode == 0
    assert run_script("killed", signal.SIGKILL, 9).returncode == -signal.SIGKILL
    assert run_script("killed", 0, 0).returncode == 0
    asked = run_script("asked", signal.SIGTERM, 9)
    assert "Interrupted" in asked.stderr
    # saved where it was asked to stop, not at the last multiple of two
    assert comes_next("asked/checkpoint.pt") == {"epoch": 1, "sample": 8}
    assert run_script("asked", 0, 0).returncode == 0
    for folder in ("killed", "asked"):
        assert losses(folder) == losses("whole")
        states = [
            torch.load(f"{name}/state_3.pt", weights_only=True)["model"]
            for name in (folder, "whole")
        ]
        assert same_weights(*states)


def test_a_run_leaves_states_links_and_an_emulator():
    _, history = fit({}, every=2)
    states = sorted(path.name for path in Path().glob("*.pt"))
    assert states == ["best.pt", "checkpoint.pt", "state_1.pt", "state_2.pt", "state_3.pt"]
    assert Path("checkpoint.pt").readlink() == Path("state_3.pt")
    best = 1 + int(np.argmin(history["val"]))
    assert Path("best.pt").readlink() == Path(f"state_{best}.pt")
    assert len(history["train"]) == len(history["val"]) == 3


def test_an_epoch_that_is_not_validated_has_no_validation_loss_and_is_not_waited_for():
    log = {}
    # every loss is a plateau, as none is below 0
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau
    never = Schedule(lambda optimizer: scheduler(optimizer, patience=0, threshold=1))
    _, history = fit(log, schedule=never, epochs=6, check_val_every_n_epoch=2)
    assert np.isfinite(history["val"]).tolist() == [False, True] * 3
    assert np.isfinite(history["train"]).all()
    card = Card.read("emulator.safetensors")
    assert card.scores["loss"]["val"] == [None if np.isnan(v) else v for v in history["val"]]
    # the rate falls after every validation, and after nothing else
    rates = [log[epoch, 0][1] for epoch in range(6)]
    np.testing.assert_allclose(rates, [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002])
    best = 1 + int(np.nanargmin(history["val"]))
    assert Path("best.pt").readlink() == Path(f"state_{best}.pt")


def test_only_the_latest_states_are_kept_if_asked_and_the_best():
    output = Output(Path(), keep=1, figures=0)
    task, data = make()
    trainer = make_trainer(output, progress=False, max_epochs=4, accelerator="cpu", logger=False)
    train(task, data, trainer, output)
    kept = {path.name for path in Path().glob("state_*.pt")}
    assert kept == {"state_4.pt", Path("best.pt").readlink().name}


def test_epoch_losses_are_means_over_samples_also_with_a_short_last_batch():
    log: dict = {}
    output = Output(Path(), figures=0)
    task, data = make()
    data.reading = Reading(batch_size=5)
    trainer = make_trainer(
        output, progress=False, max_epochs=1, accelerator="cpu", logger=False,
        callbacks=[Recorder(log)],
    )  # fmt: skip
    train(task, data, trainer, output)
    each = [loss for loss, _ in log.values()]
    assert task.history["train"][0] == pytest.approx((5 * each[0] + 5 * each[1] + 2 * each[2]) / 12)


def test_the_training_is_the_textbooks():
    """Losses of a small run equal a loop written out by hand, without any of the machinery."""
    log: dict = {}
    output = Output(Path(), figures=0)
    torch.manual_seed(1)
    task = Task(
        [Field("x")],
        [Field("y")],
        lambda i, o, ndim: ConvNet(i, o, ndim=ndim, width=3, depth=1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.003),
    )
    data = FieldData({"x": "x_0.npy", "y": "y_0.npy"}, crops=Crops(size=[8, 12]))
    trainer = make_trainer(
        output, progress=False, max_epochs=5, accelerator="cpu", logger=False,
        callbacks=[Recorder(log)],
    )  # fmt: skip
    train(task, data, trainer, output)

    torch.manual_seed(1)
    model = ConvNet(1, 1, ndim=2, width=3, depth=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    x, y = (torch.from_numpy(np.load(f"{n}_0.npy"))[None] for n in "xy")
    expected = []
    for _ in range(5):
        wrapped = nn.functional.pad(x, [1] * 4, mode="circular")
        loss = ((model(wrapped) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    np.testing.assert_allclose([loss for loss, _ in log.values()], expected, rtol=1e-5)


def test_norms_are_fitted_on_the_training_split_only():
    emulator, _ = fit({}, epochs=1)
    values = np.stack([np.load(f"x_{i}.npy") for i in (0, 1)])
    np.testing.assert_allclose(emulator.norm("x").mean, values.mean(), rtol=1e-5)
    np.testing.assert_allclose(emulator.norm("x").std, values.std(), rtol=1e-5)


def test_the_emulator_says_what_it_was_trained_on():
    fit({}, epochs=1)
    # the test's own network must be named, or it is refused
    with pytest.raises(ArtefactError, match="refusing to import"):
        Emulator.load("emulator.safetensors")
    card = Card.read("emulator.safetensors")
    assert [run["x"]["path"] for run in card.training["files"]["train"]] == ["x_0.npy", "x_1.npy"]
    assert [run["y"]["path"] for run in card.training["files"]["val"]] == ["y_2.npy"]
    assert card.training["seed"] == 7
    assert card.versions["torch"] == torch.__version__.partition("+")[0] or card.versions["torch"]
    assert len(card.scores["loss"]["train"]) == 1
    json.dumps(card.training)


def test_a_state_of_another_model_is_refused_by_name():
    fit({}, epochs=1)
    task, data = make()
    task.make_model = lambda i, o, ndim: ConvNet(i, o, ndim=ndim, width=3)
    output = Output(Path(), figures=0)
    trainer = make_trainer(output, progress=False, max_epochs=2, accelerator="cpu", logger=False)
    with pytest.raises(ArtefactError, match="not those of this ConvNet: missing"):
        train(task, data, trainer, output)


def test_a_full_disk_while_saving_leaves_the_former_state(monkeypatch):
    fit({}, epochs=1)
    real = torch.save

    def full(checkpoint, path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SaveError, match=r"cannot write .*state_2.pt.*No space left"):
        fit({}, epochs=2)
    monkeypatch.setattr(torch, "save", real)
    assert not list(Path().glob("*.part"))
    assert Path("checkpoint.pt").readlink() == Path("state_1.pt")
    fit({}, epochs=2)
    assert Path("checkpoint.pt").readlink() == Path("state_2.pt")


def test_a_model_whose_output_exceeds_the_target_is_refused():
    task, data = make()
    data.crops = Crops(size=[4, 4], halo=3)
    output = Output(Path(), figures=0)
    trainer = make_trainer(output, progress=False, max_epochs=1, accelerator="cpu", logger=False)
    with pytest.raises(GeometryError, match=r"output has \(8, 8\) cells, more than the target's"):
        train(task, data, trainer, output)


def test_a_norm_that_cannot_take_the_values_is_refused_by_name():
    np.save("x_0.npy", np.load("x_0.npy") - 10)
    task, data = make()
    task.norms = {"x": Log()}
    output = Output(Path(), figures=0)
    trainer = make_trainer(output, progress=False, max_epochs=1, accelerator="cpu", logger=False)
    with pytest.raises(FieldError, match=r"the norm Log of field 'x' makes .* NaN"):
        train(task, data, trainer, output)
    assert not list(Path().glob("*.pt"))


def test_a_loss_that_is_not_a_number_is_not_saved():
    task, data = make()
    task.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e30)
    output = Output(Path(), figures=0, every=1)
    trainer = make_trainer(output, progress=False, max_epochs=3, accelerator="cpu", logger=False)
    with pytest.raises(FieldError, match="loss is NaN or infinite"):
        train(task, data, trainer, output)
    for path in Path().glob("*.pt"):
        assert np.isfinite(torch.load(path, weights_only=True)["sums"][0]["sums"]["train"][0])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda task: task.norms.update(x=Scale()), "trained with norms"),
        (lambda task: setattr(task, "loss", nn.L1Loss()), "trained with loss MSELoss, not L1Loss"),
        (lambda task: setattr(task, "inputs", [Field("x", units="km")]), "trained with inputs"),
        (lambda task: setattr(task, "make_optimizer", torch.optim.SGD), "with the optimizer Adam"),
    ],
)
def test_a_state_is_not_resumed_with_another_recipe(change, match):
    fit({}, epochs=1)
    before = Path("emulator.safetensors").read_bytes()
    task, data = make()
    change(task)
    output = Output(Path(), figures=0)
    trainer = make_trainer(output, progress=False, max_epochs=2, accelerator="cpu", logger=False)
    with pytest.raises(ArtefactError, match=match):
        train(task, data, trainer, output)
    assert Path("emulator.safetensors").read_bytes() == before


def test_without_a_step_no_emulator_is_written_but_a_lost_one_is():
    fit({}, epochs=0)
    assert not list(Path().glob("*.pt*"))
    assert not Path("emulator.safetensors").exists()
    fit({}, epochs=1)
    before = Path("emulator.safetensors").read_bytes()
    fit({}, epochs=1)
    assert Path("emulator.safetensors").read_bytes() == before
    Path("emulator.safetensors").unlink()
    fit({}, epochs=1)
    assert Path("emulator.safetensors").exists()


def test_impossible_outputs_are_refused():
    for name, value in (("keep", 0), ("every", -1), ("log_interval", 0), ("figures", -1)):
        with pytest.raises(RecipeError, match=name):
            Output(**{name: value})
    Path("file").write_text("")
    task, data = make()
    output = Output(Path("file/folder"))
    trainer = make_trainer(Output(), progress=False, max_epochs=1, accelerator="cpu", logger=False)
    with pytest.raises(SaveError, match="cannot make the folder"):
        train(task, data, trainer, output)


def test_masked_cells_do_not_teach_anything():
    """Training on holed data equals training where the holes hold any other values."""
    histories = []
    for fill in (np.nan, np.inf):
        values = np.load("y_0.npy")
        values[0, 2, 3] = values[0, 5, 7] = fill
        np.save("y_0.npy", values)
        torch.manual_seed(1)
        task, data = make()
        data.reading = Reading(batch_size=2, mask=True)
        output = Output(Path(), figures=0, resume="never")
        trainer = make_trainer(
            output, progress=False, max_epochs=2, accelerator="cpu", logger=False
        )
        train(task, data, trainer, output)
        histories.append(task.history)
    assert histories[0] == histories[1]
    assert np.isfinite(histories[0]["train"]).all()


def test_weights_are_drawn_with_the_deviation_asked_for():
    task, data = make(init_weight_std=0.01)
    runs = data.open(task.inputs, task.targets)
    model = task.build(runs, data.domain).model
    weights = torch.cat([m.weight.flatten() for m in model.net if isinstance(m, nn.Conv2d)])
    assert 0.005 < weights.std().item() < 0.015
    assert abs(model.net[1].weight.mean().item() - 1) < 0.05
    assert (model.net[1].bias == 0).all()


def test_weights_of_layers_of_our_own_are_drawn_around_zero():
    for model in (UNet(1, 1, ndim=2, width=8, depth=1, style_chan=2), FNO(1, 1, ndim=2, modes=3)):
        draw_weights(model, 0.01)
        weights = [p for name, p in model.named_parameters() if name.endswith(".weight")]
        several = torch.cat([w.flatten() for w in weights if w.ndim > 1])
        assert abs(several.mean().item()) < 1e-3
        assert several.std().item() == pytest.approx(0.01, rel=0.1)


RECIPE = {
    "model": {
        "inputs": [{"name": "x"}],
        "targets": [{"name": "y"}],
        "model": {"class_path": "map2map.models.ConvNet", "init_args": {"width": 3, "depth": 1}},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.003}},
    },
    "data": {
        "train": {"x": "x_[01].npy", "y": "y_[01].npy"},
        "crops": {"size": 4},
        "reading": {"batch_size": 2, "threads": 0},
    },
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
    "output": {"figures": 0},
}


def command_line(folder, rate, val=None, **trainer):
    """Train in a process of its own; the state it leaves."""
    recipe = json.loads(json.dumps(RECIPE))
    recipe["output"]["folder"] = folder
    recipe["trainer"] |= trainer
    recipe["data"] |= {"val": val} if val else {}
    recipe["model"]["optimizer"]["init_args"]["lr"] = rate
    Path(f"{folder}.yaml").write_text(yaml.safe_dump(recipe))
    command = "import sys; from map2map.cli import main; sys.exit(main(sys.argv[1:]))"
    Path("train.py").write_text(command)
    done = subprocess.run(
        [sys.executable, "train.py", "train", f"{folder}.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return torch.load(Path(folder) / "state_1.pt", weights_only=True)


def test_two_processes_take_the_mean_of_the_gradients_of_their_own_samples():
    """Against a loop by hand over the samples that the order gives to each process."""
    start = command_line("start", 0.0)["model"]
    state = command_line("two", 0.003, devices=2, strategy="ddp")
    assert state["global_step"] == 3
    assert len(state["rngs"]) == 2

    model = ConvNet(1, 1, ndim=2, width=3, depth=1)
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
    shares = [Order(seed=42).samples(0, 2, 6, Share(rank, 2)).reshape(3, 2) for rank in range(2)]
    for both in zip(*shares, strict=True):
        x, y = [], []
        for sample in np.concatenate(both):
            run, crop = divmod(int(sample), 6)
            i, j = 4 * (crop // 3), 4 * (crop % 3)
            whole = np.pad(np.load(f"x_{run}.npy"), ((0, 0), (1, 1), (1, 1)), mode="wrap")
            x.append(whole[:, i : i + 6, j : j + 6])
            y.append(np.load(f"y_{run}.npy")[:, i : i + 4, j : j + 4])
        output = model(torch.from_numpy(np.stack(x)))
        loss = ((output - torch.from_numpy(np.stack(y))) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, start[name])


@pytest.mark.parametrize("trainer", [{}, {"devices": 2, "strategy": "ddp"}])
def test_r2_is_that_of_the_whole_validation_split_for_any_number_of_processes(trainer):
    """Not the mean of those of batches; and callbacks may monitor it."""
    # the second run varies less, so that batches differ
    np.save("x_4.npy", np.load("x_1.npy") * 0.3)
    np.save("y_4.npy", np.load("y_1.npy") * 0.3)
    val = {"x": "x_[24].npy", "y": "y_[24].npy"}
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {"monitor": "val_r2", "mode": "max", "patience": 0,
                          "check_on_train_epoch_end": False, "check_finite": True}}  # fmt: skip
    state = command_line("one", 0.0, val, callbacks=[stop], **trainer)
    model = ConvNet(1, 1, ndim=2, width=3, depth=1)
    model.load_state_dict(state["model"])
    made, truth = [], []
    for run in (2, 4):
        whole = np.pad(np.load(f"x_{run}.npy"), ((0, 0), (1, 1), (1, 1)), mode="wrap")
        with torch.no_grad():
            made.append(model(torch.from_numpy(whole)[None])[0].double().numpy())
        truth.append(np.load(f"y_{run}.npy").astype(np.float64))
    y, t = np.stack(made), np.stack(truth)
    expected = 1 - ((y - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()
    each = [1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum() for a, b in zip(y, t)]  # noqa: B905
    assert abs(np.mean(each) - expected) > 0.1
    assert state["history"]["r2/val"] == pytest.approx([expected], rel=1e-4)
    relative = np.sqrt(((y - t) ** 2).sum() / (t**2).sum())
    assert state["history"]["relative_l2/val"] == pytest.approx([relative], rel=1e-4)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_devices_that_a_machine_lacks_are_refused_by_what_it_has(m2m, monkeypatch, accelerator):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE))
    status, _, err = m2m("train", "r.yaml", "--trainer.accelerator", accelerator)
    assert status == 2
    assert f"trainer.accelerator is {accelerator!r}" in err
    assert "but cpu; say --trainer.accelerator cpu" in err


def test_training_begins_with_an_emulator_of_the_users_own_class(m2m):
    """Nothing of its card is imported: the weights alone are read."""
    Path("own").mkdir()
    Path("own/mynets.py").write_text(
        "from map2map.models import ConvNet\n\n\nclass Mine(ConvNet):\n    pass\n"
    )
    recipe = json.loads(json.dumps(RECIPE))
    recipe["model"]["model"]["class_path"] = "map2map_callback.mynets.Mine"
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    line = ["train", "mine.yaml", "--callback_at=own"]
    assert m2m(*line, "--output.folder=a")[0] == 0
    still = "--model.optimizer.init_args.lr=0.0"
    more = ["--output.resume=a/emulator.safetensors", "--output.folder=b", still]
    status, _, err = m2m(*line, *more)
    assert status == 0, err
    a, b = (torch.load(f"{folder}/state_1.pt", weights_only=True)["model"] for folder in "ab")
    assert same_weights(a, b)


def test_losses_in_double_precision_are_as_a_loop_in_double_precision_has_them():
    val = {"x": "x_2.npy", "y": "y_2.npy"}
    state = command_line("double", 0.0, val, precision="64-true")
    model = ConvNet(1, 1, ndim=2, width=3, depth=1).double()
    model.load_state_dict(state["model"])
    x, y = (torch.from_numpy(np.load(path)).double() for path in val.values())
    output = model(nn.functional.pad(x[None], [1] * 4, mode="circular"))[0]
    by_hand = ((output - y) ** 2).mean().item()
    assert state["history"]["val"] == [pytest.approx(by_hand, rel=1e-13)]
