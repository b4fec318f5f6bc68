"""Training of networks that learn otherwise than by their output being compared."""

from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from map2map.cli import main
from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.losses import EnergyScore, PowerSpectrum, WeightedMSE, WeightedSum
from map2map.models import ConvNet, FlowMatching
from map2map.noise import Noise
from map2map.norms import Standardize
from map2map.preparation import Options
from map2map.task import Task
from map2map.train import Output, make_trainer, train

NETWORK = {"network": "ConvNet", "options": {"width": 4, "depth": 2}, "steps": 2}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for run in range(3):
        x = rng.normal(3, 2, size=(1, 12, 12)).astype(np.float32)
        np.save(f"x_{run}.npy", x)
        np.save(f"y_{run}.npy", x + rng.normal(size=x.shape).astype(np.float32))


def make(crops=None, reading=None, loss=None, optimizer=torch.optim.AdamW, **options):
    torch.manual_seed(3)
    norms = {"x": Standardize(), "y": Standardize()}
    task = Task(
        [Field("x")], [Field("y")], partial(FlowMatching, **NETWORK), norms=norms,
        loss=loss, optimizer=optimizer, options=Options(**options),
    )  # fmt: skip
    data = FieldData(
        {"x": "x_[01].npy", "y": "y_[01].npy"},
        {"x": "x_2.npy", "y": "y_2.npy"},
        crops=crops or Crops(size=[6, 4]),
        augment=Augment(symmetries="all", shift=3),
        reading=reading or Reading(batch_size=2),
        seed=7,
    )
    return task, data


class Stop(BaseException):
    pass


class Watch(pl.Callback):
    def __init__(self, stop=None):
        self.stop, self.shapes, self.losses = stop, set(), []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.shapes |= {tuple(side.shape[1:]) for side in batch.settle()}
        self.losses.append(outputs["loss"].item())
        if len(self.losses) == self.stop:
            raise Stop


def fit(folder, watch, task_and_data=None):
    task, data = task_and_data or make()
    output = Output(Path(folder), every=1, figures=0)
    trainer = make_trainer(
        output, progress=False, max_epochs=2, accelerator="cpu", logger=False, callbacks=[watch]
    )
    try:
        return train(task, data, trainer, output), task
    except Stop:
        return None


def test_crops_of_input_and_target_have_the_halo_of_one_evaluation():
    watch = Watch()
    emulator, task = fit("out", watch)
    # two convolutions see two cells
    assert watch.shapes == {(1, 10, 8)}
    assert emulator.footprint.margin == 2 * 2 * 2
    assert not task.examples
    assert {*task.history} == {"train", "val"}
    assert len(task.history["val"]) == 2


def test_a_run_broken_off_and_resumed_equals_an_unbroken_one():
    whole = Watch()
    emulator, task = fit("whole", whole)
    for stop in (2, 6, 9):
        first, rest = Watch(stop), Watch()
        assert fit(f"broken_{stop}", first) is None
        resumed, again = fit(f"broken_{stop}", rest)
        assert first.losses[: len(whole.losses) - len(rest.losses)] + rest.losses == whole.losses
        assert again.history == task.history
        for a, b in zip(resumed.state_dict().values(), emulator.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_crops_without_a_halo_are_learnt_where_the_network_reaches():
    watch = Watch()
    task, data = make(Crops(size=8, halo=0))
    fit("out", watch, (task, data))
    assert watch.shapes == {(1, 8, 8)}
    assert np.isfinite(watch.losses).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compile": True}, "model.options.compile"),
        ({"measures": {"mae": nn.L1Loss()}}, "model.options.measures"),
        ({"loss": nn.L1Loss()}, "the loss L1Loss is not least at the mean"),
        ({"loss": EnergyScore()}, "the loss EnergyScore compares several draws"),
        ({"loss": WeightedSum({"a": PowerSpectrum()})}, "the loss PowerSpectrum compares physical"),
        ({"reading": Reading(mask=True)}, "data.reading.mask leaves out cells of the target"),
    ],
)
def test_what_has_no_meaning_is_refused(options, said):
    with pytest.raises(RecipeError, match=said):
        fit("out", Watch(), make(**options))


def test_a_sum_of_squares_is_learnt_by_without_terms_that_are_told():
    sum_of_both = WeightedSum({"a": nn.MSELoss(), "b": WeightedMSE({"y": 2.0})}, {"a": 0.5})
    # weights stay what they are, so that all steps compare
    still = partial(torch.optim.SGD, lr=0.0)
    found = fit("sum", Watch(), make(loss=sum_of_both, optimizer=still))[1].history
    plain = fit("plain", Watch(), make(optimizer=still))[1].history
    assert {*found} == {"train", "val"}
    for side, losses in plain.items():
        assert found[side] == pytest.approx([2.5 * loss for loss in losses], rel=1e-5)


def test_a_recipe_trains_and_its_emulator_makes_ensembles(here):
    recipe = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False},
        "model": {
            "inputs": [{"name": "x"}],
            "targets": [{"name": "y"}],
            "model": {"class_path": "FlowMatching", "init_args": NETWORK},
            "loss": {"class_path": "torch.nn.MSELoss"},
        },
        "data": {"train": {"x": "x_[01].npy", "y": "y_[01].npy"}, "crops": {"size": 6}},
        "output": {"folder": "out"},
    }
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", "recipe.yaml"]) == 0
    emulator = Emulator.load("out/emulator.safetensors")
    assert emulator.model.options == NETWORK["options"]
    command = ["apply", "out/emulator.safetensors", "x=x_2.npy", "-o", "y.npy", "--members", "3"]
    assert main([*command, "--tile", "6"]) == 0
    members = np.load("y.npy")
    assert members.shape == (3, 12, 12)
    assert members.std(axis=0).mean() > 0.05


def test_a_network_of_code_of_ones_own_is_named_by_its_path(here):
    recipe = f"""
trainer: {{max_epochs: 1, accelerator: cpu, logger: false}}
model:
  inputs: [{{name: x}}]
  targets: [{{name: y}}]
  model:
    class_path: FlowMatching
    init_args: {{network: {ConvNet.__module__}.ConvNet, options: {{width: 4, depth: 1}}, steps: 1}}
data:
  train: {{x: x_0.npy, y: y_0.npy}}
output: {{folder: out}}
"""
    Path("recipe.yaml").write_text(recipe)
    assert main(["train", "recipe.yaml"]) == 0
    assert Emulator.load("out/emulator.safetensors").model.network is ConvNet


class Drawn(nn.Module):
    """A weight times the input, noise, and some of it dropped; keeps what it gave."""

    footprint = Footprint(0)

    def __init__(self, in_chan, out_chan, *, ndim):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.weight, self.noise, self.drop = nn.Parameter(torch.ones(1)), Noise(), nn.Dropout(0.3)
        self.kept = {True: [], False: []}

    def forward(self, x):
        drawn = self.drop(1 + self.noise(x))
        self.kept[self.training].append(drawn.detach().clone())
        return self.weight * x + drawn


def drawn_in_training(folder, rate=0.1, validate=True, stop=None):
    model = Drawn(1, 1, ndim=2)
    task = Task(
        [Field("x")], [Field("y")], lambda *_, ndim: model,
        optimizer=lambda p: torch.optim.SGD(p, rate),
    )  # fmt: skip
    val = {"x": "x_2.npy", "y": "y_2.npy"}
    data = FieldData(
        {"x": "x_[01].npy", "y": "y_[01].npy"},
        val if validate else None,
        crops=Crops(size=6),
        reading=Reading(batch_size=2, threads=0),
        seed=7,
    )
    assert fit(folder, Watch(stop), (task, data)) or stop
    return task, model.kept


def test_validation_draws_the_same_in_every_epoch_and_training_goes_on_as_if_there_were_none():
    task, kept = drawn_in_training("val", rate=0.0)
    first, second = task.history["val"]
    assert first == second
    assert len(kept[False]) == 4
    assert torch.equal(torch.cat(kept[False][:2]), torch.cat(kept[False][2:]))
    assert not torch.equal(kept[False][0], kept[False][1])
    _, alone = drawn_in_training("alone", rate=0.0, validate=False)
    assert all(map(torch.equal, kept[True], alone[True]))
    # each step draws anew
    assert len({float(each.sum()) for each in kept[True]}) == len(kept[True]) == 8


def test_processes_draw_other_numbers_and_one_that_broke_off_those_of_its_steps(monkeypatch):
    _, kept = drawn_in_training("whole")
    _, start = drawn_in_training("broken", stop=3)
    torch.manual_seed(99)
    _, rest = drawn_in_training("broken")
    # the state was saved before the last of them
    assert torch.equal(start[True][-1], rest[True][0])
    both = start[True][:-1] + rest[True]
    assert len(both) == len(kept[True])
    assert all(map(torch.equal, both, kept[True]))
    monkeypatch.setattr(Task, "global_rank", 1)
    _, other = drawn_in_training("rank")
    assert not any(map(torch.equal, other[True], kept[True]))
    assert not any(map(torch.equal, other[False], kept[False]))
