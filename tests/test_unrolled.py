"""Training over several steps, against loops that are written out."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.derived import Combination
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.losses import WeightedSum
from map2map.models import UNet
from map2map.norms import Standardize
from map2map.runs import Files
from map2map.task import Task
from map2map.told import Told
from map2map.unrolled import Unrolled

FRAMES, SPACE = 7, (8, 6)
LOWER = {"u": 0.3, "u_next": 0.3}


class Valid(nn.Module):
    """Two valid convolutions."""

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 2) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.first, self.second = nn.Conv2d(in_chan, 3, 3), nn.Conv2d(3, out_chan, 3)
        self.footprint = Footprint(margin=2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("u.npy", rng.normal(1, 2, (FRAMES, 1, *SPACE)).astype(np.float32))
    np.save("mask.npy", rng.normal(size=SPACE).astype(np.float32))


def norms():
    return {"u": Standardize(1.0, 2.0), "u_next": Standardize(0.5, 4.0)}


def made(training, *, model=Valid, inputs=("u", "mask"), targets=None, batch=2, loss=None, **how):
    """A task and its data, ready for steps."""
    later = targets or {"u_next": 1}
    files = {"u": Files("u.npy"), "mask": "mask.npy", "u_before": Files("u.npy", later=-1)}
    patterns = {name: files[name] for name in inputs}
    patterns |= {name: Files("u.npy", later=k) for name, k in later.items()}
    if "u_before" in inputs:
        how["norms"] = how.pop("norms", norms())
    task = Task(
        [Field(name) for name in inputs],
        [Field(name) for name in later],
        model,
        how.pop("norms", norms()),
        loss=loss,
        training=training,
    )
    torch.manual_seed(0)
    domain = how.pop("domain", Domain(2, periodic=True, frames=1))
    reading = how.pop("reading", Reading(batch_size=batch, threads=0))
    data = FieldData(patterns, domain=domain, reading=reading, **how)
    task.prepare(data)
    return task, data


def around(values, cells=2):
    return F.pad(values, [cells] * 4, mode="circular")


def frames():
    return torch.from_numpy(np.load("u.npy"))


def by_hand(task, starts, steps, *, detach=False, weights=None, crop=None):
    """The loss of whole periodic fields, written out step by step."""
    u, mask = frames(), torch.from_numpy(np.load("mask.npy"))[None, None]
    weights, losses = weights or [1.0] * steps, []
    state = u[starts]
    for k in range(steps):
        x = torch.cat([(state - 1) / 2, mask.expand_as(state)], dim=1)
        output = task.emulator.model(around(x))
        truth = (u[[s + k + 1 for s in starts]] - 0.5) / 4
        kept = (slice(None), slice(None), *(crop or (slice(None),) * 2))
        losses.append(((output - truth)[kept] ** 2).mean())
        state = output * 4 + 0.5
        state = state.detach() if detach else state
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def gradients(task, loss):
    task.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in task.emulator.model.parameters()]


def first(data):
    return next(iter(data.in_order("train")))


@pytest.mark.parametrize("pushforward", [False, True])
@pytest.mark.parametrize("weights", [None, [0.0, 1.0, 3.0], [2.0, 0.0, 0.0]])
def test_the_loss_of_whole_fields_and_its_gradient_are_those_of_a_loop(pushforward, weights):
    task, data = made(Unrolled(3, pushforward=pushforward, weights=weights))
    assert len(data.dataset("train")) == FRAMES - 3
    # a halo for one step is enough
    assert data.dataset("train").halo.low == (2, 2)
    done = task.way.step(task, first(data))
    expected = by_hand(task, [0, 1], 3, detach=pushforward, weights=weights)
    torch.testing.assert_close(done.loss, expected)
    for one, other in zip(gradients(task, done.loss), gradients(task, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert set(done.parts) == {"step_1", "step_2", "step_3"}


def test_pushforward_changes_the_gradient_but_not_the_loss():
    task, data = made(Unrolled(2, weights=[0, 1]))
    batch = first(data)
    flows = task.way.step(task, batch).loss
    task.way.pushforward = True
    stopped = task.way.step(task, batch).loss
    assert flows == stopped
    one, other = gradients(task, flows), gradients(task, stopped)
    assert (one[0] - other[0]).abs().max() > 1e-3 * one[0].abs().max()


@pytest.mark.parametrize("size", [4, (8, 3)])
def test_crops_read_a_halo_for_all_steps_and_are_those_of_the_whole(size):
    task, data = made(Unrolled(3), crops=Crops(size=size), batch=1)
    assert data.dataset("train").halo.low == (6, 6)
    crop = data.dataset("train").size
    done = task.way.step(task, first(data))
    expected = by_hand(task, [0], 3, crop=[slice(0, n) for n in crop])
    torch.testing.assert_close(done.loss, expected)
    assert done.output.shape[2:] == done.target.shape[2:] == crop


def test_a_network_that_pools_keeps_its_phase_in_every_step():
    def model(*channels, ndim):
        return UNet(*channels, ndim=ndim, width=2, depth=1, batch_norm=False)

    rng = np.random.default_rng(1)
    np.save("u.npy", rng.normal(1, 2, (4, 1, 64, 64)).astype(np.float32))
    np.save("mask.npy", rng.normal(size=(64, 64)).astype(np.float32))
    task, data = made(Unrolled(2), model=model, crops=Crops(size=12, start=8), batch=1)
    done = task.way.step(task, first(data))
    u, mask = frames(), torch.from_numpy(np.load("mask.npy"))[None, None]
    network, footprint = task.emulator.model, task.emulator.footprint
    state, losses = u[:1], []
    for k in range(2):
        x = torch.cat([(state - 1) / 2, mask], dim=1)
        halo = footprint.halo_for((64, 64))
        sides = [n for pair in zip(halo.low, halo.high, strict=True) for n in pair]
        sides = sides[2:] + sides[:2]
        output = network(F.pad(x, sides, mode="circular"))[..., :64, :64]
        truth = (u[k + 1 : k + 2] - 0.5) / 4
        losses.append(((output - truth)[..., 8:20, 8:20] ** 2).mean())
        state = output * 4 + 0.5
    torch.testing.assert_close(done.loss, sum(losses) / 2, rtol=1e-4, atol=0)


def test_earlier_frames_move_on_and_several_outputs_lead_to_the_next_step():
    inputs, targets = ("u", "u_before"), {"u_1": 1, "u_2": 2}
    task, data = made(Unrolled(2), inputs=inputs, targets=targets, norms={}, batch=1)
    assert task.way._feed == {"u_2": "u", "u_1": "u_before"}
    done = task.way.step(task, first(data))
    u, losses = frames(), []
    # the first sample's present is frame 1
    now, before = u[1:2], u[0:1]
    for k in range(2):
        output = task.emulator.model(around(torch.cat([now, before], dim=1)))
        truth = torch.cat([u[2 + 2 * k][None], u[3 + 2 * k][None]], dim=1)
        losses.append(((output - truth) ** 2).mean())
        now, before = output[:, 1:], output[:, :1]
    torch.testing.assert_close(done.loss, sum(losses) / 2)


def test_an_input_that_was_the_present_becomes_the_earlier_one():
    task, data = made(Unrolled(2), inputs=("u", "u_before"), norms={}, batch=1)
    assert task.way._feed == {"u_next": "u", "u": "u_before"}
    done = task.way.step(task, first(data))
    u, model = frames(), task.emulator.model
    output = model(around(torch.cat([u[1:2], u[0:1]], dim=1)))
    second = model(around(torch.cat([output, u[1:2]], dim=1)))
    expected = (((output - u[2]) ** 2).mean() + ((second - u[3]) ** 2).mean()) / 2
    torch.testing.assert_close(done.loss, expected)


def test_noise_is_added_to_what_is_fed_in_training_alone():
    task, data = made(Unrolled(1, noise=0.7))
    batch = first(data)
    plain = task.way.validate(task, batch)
    task.way.noise = 0.0
    assert task.way.step(task, batch).loss == plain.loss
    task.way.noise = 0.7
    torch.manual_seed(3)
    noisy = task.way.step(task, batch)
    torch.manual_seed(3)
    added = around(0.7 * torch.randn(2, 1, *SPACE))
    torch.testing.assert_close(noisy.input[:, :1], plain.input[:, :1] + added)
    torch.testing.assert_close(noisy.input[:, 1:], plain.input[:, 1:])
    assert (noisy.target == plain.target).all()


def test_noise_of_crops_is_drawn_for_their_halo_too():
    task, data = made(Unrolled(1, noise=0.7), crops=Crops(size=4), batch=1)
    batch = first(data)
    plain = task.way.validate(task, batch)
    torch.manual_seed(3)
    noisy = task.way.step(task, batch)
    torch.manual_seed(3)
    added = 0.7 * torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(noisy.input[:, :1], plain.input[:, :1] + added)


def test_terms_of_a_sum_are_weighted_over_the_steps_as_the_loss_is():
    loss = WeightedSum({"square": nn.MSELoss(), "size": nn.L1Loss()}, {"size": 3.0})
    task, data = made(Unrolled(2, weights=[1, 2]), loss=loss)
    done = task.way.step(task, first(data))
    last = float(loss.told["square"])
    torch.testing.assert_close(done.terms["square"] + 3 * done.terms["size"], done.loss.detach())
    expected = by_hand(task, [0, 1], 2, weights=[1, 2])
    torch.testing.assert_close(done.terms["square"], expected.detach())
    assert float(done.terms["square"]) != last
    task._count("val", done, first(data))
    assert task.epochs.sums["loss_square/val"] == [float(done.terms["square"].double() * 2), 2]


def test_steps_grow_with_the_epochs_and_validation_takes_all(monkeypatch):
    task, data = made(Unrolled(3, grow=2), crops=Crops(size=4), batch=1)
    batch = first(data)
    whole = [slice(0, 4)] * 2
    for epoch, steps in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (9, 3)):
        monkeypatch.setattr(Task, "current_epoch", epoch)
        done = task.way.step(task, batch)
        assert len(done.parts) == steps
        torch.testing.assert_close(done.loss, by_hand(task, [0], steps, crop=whole))
        assert len(task.way.validate(task, batch).parts) == 3
        # what is drawn of the input lies where output and target do
        x = batch.settle()[0]
        beside = task.beside_output(done.input, done.output, batch)
        torch.testing.assert_close(beside[:, :1], ((x[:, :, 6:-6, 6:-6] - 1) / 2)[:, :1])


@pytest.mark.parametrize("pad", ["reflect", "edge", "zero"])
def test_edges_that_are_made_up_are_made_up_in_every_step(pad):
    task, data = made(Unrolled(2), domain=Domain(2, periodic=False, pad=pad, frames=1), batch=1)
    done = task.way.step(task, first(data))
    u, mask = frames(), np.load("mask.npy")
    mode = {"reflect": "reflect", "edge": "edge", "zero": "constant"}[pad]

    def padded(values):
        return torch.from_numpy(np.pad(values, [(0, 0)] * (values.ndim - 2) + [(2, 2)] * 2, mode))

    state, losses = u[:1], []
    for k in range(2):
        x = torch.cat([(padded(state.detach().numpy()) - 1) / 2, padded(mask)[None, None]], dim=1)
        output = task.emulator.model(x)
        losses.append(((output - (u[k + 1] - 0.5) / 4) ** 2).mean())
        state = output * 4 + 0.5
    torch.testing.assert_close(done.loss, sum(losses) / 2)


REFUSED = {
    "weights": (lambda: Unrolled(2, weights=[1.0]), RecipeError, "one number of 0 or more"),
    "steps": (lambda: Unrolled(0), RecipeError, "1 or more"),
    "noise": (lambda: Unrolled(noise=-1), RecipeError, "0 or more"),
    "grow": (lambda: Unrolled(grow=1, weights=[0, 1]), RecipeError, "nothing would be learnt"),
    "crops of what is made up": (
        lambda: made(
            Unrolled(), domain=Domain(2, periodic=False, pad="zero", frames=1), crops=Crops(size=4)
        ),
        GeometryError,
        "made up anew",
    ),
    "a halo of one's own": (
        lambda: made(Unrolled(), crops=Crops(halo=2)),
        RecipeError,
        "halo: auto",
    ),
    "too few frames": (
        lambda: made(Unrolled(FRAMES)),
        RecipeError,
        "truth of 7 steps of 1 frame .*has 7 frames; take fewer `steps`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    make, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        make()


def test_targets_that_are_not_known_everywhere_are_refused():
    with pytest.raises(RecipeError, match=r"data\.reading\.mask leaves out cells"):
        made(Unrolled(2), reading=Reading(mask=True))


def test_an_output_that_is_no_input_and_an_input_that_changes_unknown_are_refused():
    np.save("force.npy", np.load("u.npy"))
    task = Task([Field("u"), Field("force")], [Field("u_next")], Valid, training=Unrolled())
    patterns = {"u": "u.npy", "force": "force.npy", "u_next": Files("u.npy", later=1)}
    with pytest.raises(FieldError, match="'force' changes in time"):
        task.prepare(FieldData(patterns, domain=Domain(2, frames=1)))
    task = Task([Field("force")], [Field("u_next")], Valid, training=Unrolled())
    del patterns["u"]
    with pytest.raises(FieldError, match="no output of the emulator"):
        task.prepare(FieldData(patterns, domain=Domain(2, frames=1)))


def test_inputs_computed_from_what_is_fed_and_styles_of_frames_are_refused():
    patterns = {"u": "u.npy", "u_next": Files("u.npy", later=1)}
    task = Task([Field("u"), Field("half")], [Field("u_next")], Valid, training=Unrolled())
    derived = {"half": Combination(["u"], [0.5])}
    with pytest.raises(FieldError, match="'half' is computed from 'u'"):
        task.prepare(FieldData(patterns, domain=Domain(2, frames=1), derived=derived))
    times = {"time": np.arange(float(FRAMES))}
    u = xr.Dataset({"u": (("time", "y", "x"), np.load("u.npy")[:, 0])}, times)
    u.to_netcdf("u.nc")
    patterns = {
        "u": "u.nc",
        "u_next": Files("u.nc", variable="u", later=1),
        "a": Told(coordinate=True),
    }
    style = Field("a", kind="parameter")

    def model(in_chan, out_chan, ndim, style_chan):
        return UNet(in_chan, out_chan, ndim=ndim, width=2, depth=1, style_chan=style_chan)

    task = Task([Field("u")], [Field("u_next")], model, training=Unrolled(), styles=[style])
    with pytest.raises(FieldError, match="style 'a' is told by the coordinate"):
        task.prepare(FieldData(patterns, domain=Domain(2, frames=1)))


def test_symmetries_act_on_all_steps_alike():
    """A loss of a network that is symmetric itself does not change."""
    task, data = made(Unrolled(3), augment=Augment(symmetries="flips"), batch=1)
    with torch.no_grad():
        for conv in (task.emulator.model.first, task.emulator.model.second):
            conv.weight += conv.weight.flip(2)
            conv.weight += conv.weight.flip(3)
    batches = data.train_dataloader()
    expected = {k: by_hand(task, [k], 3) for k in range(FRAMES - 3)}
    flipped = set()
    for batch in batches:
        flipped.add(str(batch.draws[0].symmetry))
        done = task.way.step(task, batch)
        torch.testing.assert_close(done.loss, expected[batch.indices[0]])
    assert len(flipped) > 1


class Stop(BaseException):
    """What a program that is ended does not live to see."""


def test_a_run_that_is_broken_off_goes_on_bit_for_bit_and_tells_every_step(
    m2m, tmp_path, monkeypatch
):
    """With noise, which is drawn, and steps that grow; within an epoch, which has 3 batches."""
    u = np.random.default_rng(0).normal(1, 2, (FRAMES, 8, 8)).astype(np.float32)
    np.save("u.npy", u)
    (tmp_path / "recipe.yaml").write_text(
        """
trainer: {accelerator: cpu, logger: false}
model:
  inputs: [{name: u}]
  targets: [{name: u_next}]
  model: {class_path: map2map.models.ConvNet, init_args: {width: 3, depth: 2}}
  training: {class_path: map2map.unrolled.Unrolled, init_args: {steps: 2, noise: 0.1, grow: 1}}
data:
  train: {u: u.npy, u_next: {pattern: u.npy, later: 1}}
  domain: {ndim: 2, frames: 1}
  reading: {batch_size: 2, threads: 0}
"""
    )
    found, plain, calls = {}, Task.training_step, []

    def breaks(self, *batch):
        calls.append(self.global_step)
        if len(calls) == 6:
            raise Stop
        return plain(self, *batch)

    for folder in ("whole", "broken"):
        argv = ["train", "recipe.yaml", "--output.folder", folder, "--output.every", 1]
        argv += ["--trainer.max_epochs", 3]
        if folder == "broken":
            with monkeypatch.context() as patch:
                patch.setattr(Task, "training_step", breaks)
                with pytest.raises(Stop):
                    m2m(*argv)
            state = torch.load("broken/checkpoint.pt", weights_only=True)
            assert (state["epoch"], state["global_step"]) == (1, 5)
        status, _, err = m2m(*argv)
        assert status == 0, err
        emulator = Emulator.load(f"{folder}/emulator.safetensors")
        found[folder] = list(emulator.model.parameters())
    for one, other in zip(found["whole"], found["broken"], strict=True):
        assert torch.equal(one, other)
