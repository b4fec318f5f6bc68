"""Adversarial training equals loops written out in plain PyTorch, step by step, and resumes."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F

from map2map.adversarial import Adversarial
from map2map.assemble import fit_together, output_space
from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.errors import ArtefactError, FieldError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.losses import Wasserstein
from map2map.models import ConvNet, PatchGAN, Racoon
from map2map.order import Order, Share
from map2map.preparation import Options
from map2map.schedules import Schedule, WarmupCosine
from map2map.task import Task
from map2map.told import Told
from map2map.train import Output, make_trainer, train

STEPS = 4  # per epoch: 2 runs of 4 crops in batches of 2


class Judge(nn.Module):
    """A small critic; with batch norm, unless told not to."""

    def __init__(self, in_chan, out_chan, *, ndim=2, norm=True, dropout=0.0):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_chan, 4, 3),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Conv2d(4, out_chan, 3),
        )

    def forward(self, x):
        return self.net(x)


class Twice(nn.Module):
    """A network that doubles the cells, and whose statistics of batches change as it trains."""

    footprint = Footprint(margin=1, scale=2, cut=2)

    def __init__(self, in_chan, out_chan, *, ndim=2):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.conv = nn.Conv2d(in_chan, 4 * out_chan, 3)

    def forward(self, x):
        return F.pixel_shuffle(self.conv(x), 2)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(3):
        x = rng.normal(size=(1, 12, 12)).astype(np.float32)
        np.save(f"x_{i}.npy", x)
        np.save(f"y_{i}.npy", x + np.roll(x, 1, 1))
        np.save(f"z_{i}.npy", np.repeat(np.repeat(x, 2, 1), 2, 2) + rng.normal(size=(1, 24, 24)))
    torch.manual_seed(0)


class Recorder(pl.Callback):
    """Keeps what was lowered and what the critic said, batch by batch; may break off."""

    def __init__(self, log, stop=None):
        self.kept, self.stop = log, stop

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        parts = {name: float(value) for name, value in getattr(task.way, "_last", {}).items()}
        key = trainer.current_epoch, batch_idx
        self.kept[key] = {"lowered": outputs["loss"].item(), **parts}
        self.stop = None if self.stop is None else self.stop - 1
        if self.stop == 0:
            raise Broken


class Broken(BaseException):
    pass


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.02)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.03, betas=(0.0, 0.9))


def conv_net(i, o, ndim):
    return ConvNet(i, o, ndim=ndim, width=3, depth=1)


def make(way, target="y", model=conv_net, optimizer=sgd, schedule=None, crops=6, **options):
    task = Task(
        [Field("x")], [Field(target)], model,
        optimizer=optimizer, schedule=schedule, training=way, options=Options(**options),
    )  # fmt: skip
    data = FieldData(
        {"x": "x_[01].npy", target: f"{target}_[01].npy"},
        {"x": "x_2.npy", target: f"{target}_2.npy"},
        crops=Crops(size=crops, scale_factor=2 if target == "z" else 1),
        augment=Augment(symmetries="all"),
        reading=Reading(batch_size=2, threads=0),
        seed=5,
    )
    return task, data


def fit(way, log=None, stop=None, epochs=2, output=None, made=None, **trainer):
    output = output or Output(Path(), figures=0)
    task, data = made or make(way)
    callbacks = [Recorder({} if log is None else log, stop), *trainer.pop("callbacks", [])]
    defaults = {"accelerator": "cpu", "logger": False, "max_epochs": epochs}
    trained = make_trainer(output, progress=False, callbacks=callbacks, **(defaults | trainer))
    try:
        return train(task, data, trained, output), task
    except Broken:
        return None, task


@pytest.mark.parametrize("target_halo", [0, 1, 4])
def test_a_critic_is_tried_on_the_cells_that_output_and_target_share(target_halo):
    """With a halo that somebody chose, an output may be larger than its target."""
    task, data = make(Adversarial(conv_net), target="z", model=Twice)
    data.crops = replace(data.crops, halo=3, target_halo=target_halo)
    task.prepare(data)
    batch = next(iter(data.in_order("train")))
    x, y = batch.settle()
    output = task.built.model(task.built.encode_input(x))
    dataset = batch.dataset
    output, _ = fit_together(output, y, dataset, task.built, aligned=data.aligned)
    assert output_space(task.built, dataset, aligned=data.aligned) == output.shape[2:]


class Batches(pl.Callback):
    """Keeps the batches of every epoch, normalized and turned: what a loop by hand begins with."""

    def __init__(self):
        self.pairs, self.start, self.critic = [], None, None

    def on_train_start(self, trainer, task):
        copied = lambda m: {k: v.clone() for k, v in m.state_dict().items()}  # noqa: E731
        self.start, self.critic = copied(task.built.model), copied(task.way.adversary.critic)

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.pairs.append(batch.settle())


def noise(batch, *shapes, draw=torch.randn):
    """Random numbers as the training documents that it draws them: keyed by seed, rank, batch."""
    from hashlib import blake2b

    key = blake2b(f"5 0 {batch}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
    return [draw(shape, generator=generator) for shape in shapes]


def slopes(critic, point):
    """Gradients of the mean score, by autograd alone."""
    score = critic(point).mean(dim=(1, 2, 3)).sum()
    return torch.autograd.grad(score, point, create_graph=True)[0].square().sum(dim=(1, 2, 3))


def penalty_by_hand(critic, fake, real, number, how):
    if how.get("r1_interval") and number % how["r1_interval"] == 0:
        reg = 0.5 * 10 * slopes(critic, real.detach().clone().requires_grad_()).mean()
        return reg, how["r1_interval"]
    if how.get("gradient_penalty"):
        (share,) = noise(number, (len(real),), draw=torch.rand)
        share = share[:, None, None, None]
        point = (share * fake.detach() + (1 - share) * real.detach()).requires_grad_()
        return how["gradient_penalty"] * ((slopes(critic, point).sqrt() - 1) ** 2).mean(), 1
    return None, 1


def critic_step_by_hand(critic, critics, fake, real, number, how):
    compare = how.get("loss", nn.BCEWithLogitsLoss())
    critics.zero_grad()
    scores = critic(fake.detach())
    loss_fake = compare(scores, torch.zeros_like(scores))
    loss_fake.backward()
    scores = critic(real)
    loss_real = compare(scores, torch.full_like(scores, how.get("real_label", 1.0)))
    loss_real.backward()
    reg, times = penalty_by_hand(critic, fake, real, number, how)
    if reg is not None:
        (times * reg).backward()
    critics.step()
    told = {"adv/D/total": (loss_fake + loss_real).item(), "adv/D/fake": loss_fake.item()}
    return told | {"adv/D/real": loss_real.item()} | ({} if reg is None else {"reg": reg.item()})


def by_hand(seen, model, critic, make_optimizers, how):
    """Plain PyTorch; nothing of map2map's."""
    std, batches = how.get("instance_noise", 0.0), how.get("instance_noise_batches", 1e4)
    compare, before = how.get("loss", nn.BCEWithLogitsLoss()), STEPS * how.get("start", 0)
    supervised, weight = how.get("supervised_weight", 1.0), how.get("adversarial_weight", 0.01)
    optimizer, critics = make_optimizers(model), make_optimizers(critic)
    model.train(), critic.train()
    told = []
    for number, (x, y, *style) in enumerate(seen, start=how.get("first", 1)):
        output = model(x, *style)
        total, entry = ((output - y) ** 2).mean(), {}
        if number > before:
            fake, real = output, y
            level = max(0.0, std - (number - before) * std / batches)
            if level > 0:
                first, second = noise(number, fake.shape, real.shape)
                fake, real = fake + level * first, real + level * second
            if "beside" in how:
                beside = how["beside"](x)
                same = [s[..., None, None].repeat(1, 1, *y.shape[2:]) for s in style]
                fake, real = (torch.cat([beside, side, *same], 1) for side in (fake, real))
            entry = critic_step_by_hand(critic, critics, fake, real, number, how)
            if number % how.get("critic_steps", 1):
                told.append(entry)
                continue
            scores = critic(fake)
            loss_adv = compare(scores, torch.ones_like(scores))
            total = supervised * total + weight * loss_adv
            entry["adv/G"] = loss_adv.item()
        optimizer.zero_grad(), total.backward(), optimizer.step()
        told.append(entry | {"lowered": total.item()})
    return told


WAYS = {
    "plain": {},
    "only what the critic says": {"supervised_weight": 0.0, "adversarial_weight": 1.0},
    "conditional, smoothed, with noise": {
        "conditional": True, "real_label": 0.9, "instance_noise": 0.5, "instance_noise_batches": 5,
    },
    "R1": {"r1_interval": 3},
    "Wasserstein": {"loss": Wasserstein(), "gradient_penalty": 10.0},
    "three critic steps": {"loss": Wasserstein(), "gradient_penalty": 10.0, "critic_steps": 3},
    "spectral norm": {"spectral_norm": True, "r1_interval": 2},
    "from the second epoch": {"start": 1, "instance_noise": 0.3, "instance_noise_batches": 20},
}  # fmt: skip


def compare_with_loop(how, optimizer, target="y", network=conv_net, beside=None):
    """Train; and again by hand, from the same weights on the same batches."""
    log, seen = {}, Batches()
    # scores of a sample depend on other samples, where batches are normalized
    norm = "r1_interval" not in how and "gradient_penalty" not in how
    way = Adversarial(lambda i, o, ndim: Judge(i, o, norm=norm), **how)
    made = make(way, target, network, optimizer)
    emulator, task = fit(way, log, made=made, callbacks=[seen])
    model, critic = network(1, 1, ndim=2), Judge(1 + ("conditional" in how), 1, norm=norm)
    if how.get("spectral_norm"):
        for layer in (critic.net[0], critic.net[4]):
            nn.utils.spectral_norm(layer)
    model.load_state_dict(seen.start)
    critic.load_state_dict(seen.critic)
    more = {"beside": beside} if "conditional" in how else {}
    told = by_hand(seen.pairs, model, critic, lambda m: optimizer(m.parameters()), {**how, **more})
    assert len(told) == len(log) == 2 * STEPS
    for mine, theirs in zip(log.values(), told, strict=True):
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value, rel=2e-4, abs=1e-6), (key, mine, theirs)
    for mine, theirs in ((emulator.model, model), (task.way.adversary.critic, critic)):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=2e-3, atol=1e-5)
    return told


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("name", list(WAYS))
def test_the_training_is_that_of_a_loop_by_hand_step_by_step(name, optimizer):
    told = compare_with_loop(WAYS[name], optimizer, beside=lambda x: x[:, :, 1:-1, 1:-1])
    penalized = {"r1_interval", "gradient_penalty"} & {*WAYS[name]}
    assert any("reg" in entry for entry in told) == bool(penalized)


def test_a_schedule_that_knows_its_length_spans_the_epochs_with_a_discriminator():
    cosine = Schedule(lambda o: WarmupCosine(o, warmup=0.25, final=0.1), interval="step")
    way = Adversarial(lambda i, o, ndim: Judge(i, o), schedule=cosine, start=1)
    fit(way, epochs=3)
    assert way.adversary.scheduler.total_steps == 2 * STEPS
    assert way.adversary.rate == pytest.approx(0.1 * 0.02)


@pytest.mark.parametrize("how", ["norm", "value"])
def test_gradients_of_the_discriminator_are_clipped_as_those_of_the_network(how):
    _, task = fit(Adversarial(Judge), gradient_clip_val=1e-6, gradient_clip_algorithm=how)
    grads = torch.cat([p.grad.flatten() for p in task.way.adversary.learnt])
    size = float(grads.norm() if how == "norm" else grads.abs().max())
    assert size == pytest.approx(1e-6, rel=1e-3)


class OfWhole(nn.Module):
    """One score of a sample, which batch normalization takes only beside others."""

    def __init__(self, in_chan, out_chan, *, ndim=2):
        super().__init__()
        pool = nn.AdaptiveAvgPool2d(1)
        self.net = nn.Sequential(nn.Conv2d(in_chan, 4, 3), pool, nn.BatchNorm2d(4))
        self.last = nn.Linear(4, out_chan)

    def forward(self, x):
        return self.last(self.net(x).flatten(1))


def test_a_critic_is_tried_on_the_last_batch_too():
    task, data = make(Adversarial(OfWhole))
    task.prepare(data)
    task, data = make(Adversarial(OfWhole))
    data.reading = Reading(batch_size=7, threads=0)
    with pytest.raises(GeometryError, match="does not take batches of 1 x 1 channels x 6 x 6"):
        task.prepare(data)


def test_inputs_beside_finer_outputs_are_interpolated_to_their_cells():
    def beside(x):
        fine = F.interpolate(x, size=[2 * n for n in x.shape[2:]], mode="bilinear")
        return fine[:, :, 2:-2, 2:-2]

    how = {"conditional": True, "supervised_weight": 0.0, "adversarial_weight": 1.0}
    compare_with_loop(how, sgd, "z", lambda i, o, ndim: Twice(i, o, ndim=ndim), beside)


class Leaning(nn.Module):
    """A convolution whose outputs are shifted by the style."""

    footprint = Footprint(1)

    def __init__(self, in_chan, out_chan, *, ndim=2, style_chan=0):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.style_chan = style_chan
        self.conv, self.shift = nn.Conv2d(in_chan, out_chan, 3), nn.Linear(style_chan, out_chan)

    def forward(self, x, style):
        return self.conv(x) + self.shift(style)[..., None, None]


class Styled(Batches):
    """Keeps the styles, too, of runs 0 and 1: standardized, they are -1 and 1."""

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        low, high = 0.25, 0.75
        self.pairs.append((*batch.settle(), (batch.styles() - (low + high) / 2) / 0.25))


@pytest.mark.parametrize("conditional", [True, False])
def test_a_conditional_critic_sees_the_style_of_each_sample_in_every_cell(conditional):
    how = {"conditional": conditional, "adversarial_weight": 1.0, "instance_noise": 0.2}
    log, seen = {}, Styled()
    task = Task(
        [Field("x")], [Field("y")], lambda i, o, **k: Leaning(i, o, **k), optimizer=sgd,
        training=Adversarial(lambda i, o, ndim: Judge(i, o), **how),
        styles=[Field("s", kind="parameter")],
    )  # fmt: skip
    np.save("s.npy", np.array([0.25, 0.75]))
    np.save("s_2.npy", np.array([0.5]))
    data = FieldData(
        {"x": "x_[01].npy", "y": "y_[01].npy", "s": Told(table="s.npy")},
        {"x": "x_2.npy", "y": "y_2.npy", "s": Told(table="s_2.npy")},
        crops=Crops(size=6), reading=Reading(batch_size=2, threads=0), seed=5,
    )  # fmt: skip
    emulator, task = fit(None, log, made=(task, data), callbacks=[seen])
    model, critic = Leaning(1, 1, style_chan=1), Judge(3 if conditional else 1, 1)
    model.load_state_dict(seen.start)
    critic.load_state_dict(seen.critic)
    how["instance_noise_batches"] = 1e4
    beside = {"beside": lambda x: x[:, :, 1:-1, 1:-1]} if conditional else {}
    told = by_hand(seen.pairs, model, critic, lambda m: sgd(m.parameters()), {**how, **beside})
    assert {float(s) for _, _, style in seen.pairs for s in style} == {-1.0, 1.0}
    for mine, theirs in zip(log.values(), told, strict=True):
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value, rel=2e-4, abs=1e-6), (key, mine, theirs)
    for key, value in critic.state_dict().items():
        torch.testing.assert_close(
            task.way.adversary.critic.state_dict()[key], value, rtol=2e-3, atol=1e-5
        )
    for key, value in model.state_dict().items():
        torch.testing.assert_close(emulator.model.state_dict()[key], value, rtol=2e-3, atol=1e-5)
    assert np.isfinite(task.history["adv/D/total/val"]).all()


@pytest.mark.parametrize(("precision", "within"), [("bf16-mixed", 0.03), ("64-true", 1e-4)])
def test_other_precisions_give_the_same_losses_by_rounding(precision, within):
    """From those in single precision: half is rounded more, double less."""
    logs = []
    for each in ("32-true", precision):
        torch.manual_seed(0)
        logs.append({})
        # steps that change scores by more than rounding does, and are not chaotic
        steep = lambda p: torch.optim.SGD(p, lr=0.3)  # noqa: E731
        judge = lambda i, o, ndim: Judge(i, o, norm=False)  # noqa: E731
        way = Adversarial(judge, optimizer=steep, conditional=True, r1_interval=4)
        output = Output(Path(each), figures=0)
        fit(way, logs[-1], epochs=1, output=output, precision=each)
    for plain, other in zip(logs[0].values(), logs[1].values(), strict=True):
        for name in ("adv/D/real", "adv/D/fake", "adv/G"):
            assert other[name] == pytest.approx(plain[name], rel=within), (name, plain, other)


RICH = {
    "conditional": True, "instance_noise": 0.3, "instance_noise_batches": 20, "real_label": 0.9,
    "spectral_norm": True, "r1_interval": 2, "critic_steps": 2, "start": 1,
}  # fmt: skip


def rich(**more):
    """Everything that has a state: two optimizers and schedules, draws, noise, averages."""
    torch.manual_seed(0)
    cycle = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=99)  # noqa: E731
    plateau = lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1)  # noqa: E731
    judge = lambda i, o, ndim: Judge(i, o, dropout=0.2)  # noqa: E731
    way = Adversarial(judge, optimizer=adam, schedule=Schedule(plateau), **RICH, **more)
    task, data = make(way, optimizer=adam, schedule=Schedule(cycle, interval="step"), ema=0.9)
    return {"way": way, "made": (task, data)}


def in_folder(name, function):
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    for path in Path().glob("*.npy"):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    former = Path.cwd()
    os.chdir(folder)
    try:
        return function()
    finally:
        os.chdir(former)


def states_agree(a, b):
    """Of all that training goes on with."""
    a, b = (torch.load(path, weights_only=True) for path in (a, b))
    keys = ("model", "ema", "adv_model", "adv_optimizer", "adv_scheduler", "adversarial", "history",
            "optimizer_states", "scheduler")  # fmt: skip
    for key in keys:
        assert same(a[key], b[key]), key
    return a


def same(a, b):
    """Bit for bit; NaN is NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b or (a != a and b != b)


def test_a_run_broken_off_anywhere_and_resumed_equals_an_unbroken_one():
    log: dict = {}
    output = Output(Path(), every=1, figures=0)
    in_folder("whole", lambda: fit(log=log, epochs=4, output=output, **rich()))
    assert len(log) == 4 * STEPS
    # in the epoch without a critic, within one with it, at the end of one and in the next
    for stop in (3, 6, 8, 9, 15):
        mine: dict = {}
        run = lambda **how: fit(log=mine, epochs=4, output=output, **how, **rich())  # noqa: B023, E731
        assert in_folder(f"stop_{stop}", lambda: run(stop=stop))[0] is None  # noqa: B023
        in_folder(f"stop_{stop}", run)
        assert {k: v["lowered"] for k, v in mine.items()} == {
            k: v["lowered"] for k, v in log.items()
        }
        state = states_agree(f"stop_{stop}/state_4.pt", "whole/state_4.pt")
        assert state["adversarial"] == {"optimizer_class": "Adam", "batches": 3 * STEPS}
        assert len(state["history"]["adv/D/real/val"]) == 4
        assert state["adv_optimizer"]["param_groups"][0]["lr"] < 0.03


SCRIPT = """
    import importlib.util, os, signal, sys
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("the_tests", {file!r})
    tests = importlib.util.module_from_spec(spec); sys.modules["the_tests"] = tests
    spec.loader.exec_module(tests)

    class Log(dict):
        def __setitem__(self, key, value):
            if key == (2, 1) and sys.argv[1] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)

    tests.torch.manual_seed(0)
    tests.fit(log=Log(), epochs=4, output=tests.Output(Path(), every=1, figures=0), **tests.rich())
"""


def test_a_run_killed_within_an_epoch_goes_on_as_if_nothing_had_happened():
    script = Path("script.py").resolve()
    script.write_text(textwrap.dedent(SCRIPT).format(file=__file__))
    run = lambda how: subprocess.run(  # noqa: E731
        [sys.executable, str(script), how], capture_output=True, text=True, check=False
    )
    assert in_folder("killed", lambda: run("kill")).returncode == -signal.SIGKILL
    assert not Path("killed/state_3.pt").exists()
    done = in_folder("killed", lambda: run("go on"))
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    output = Output(Path(), every=1, figures=0)
    in_folder("whole", lambda: fit(epochs=4, output=output, **rich()))
    states_agree("killed/state_4.pt", "whole/state_4.pt")


def test_a_state_without_a_critic_is_taken_up_and_its_best_epoch_forgotten():
    task, data = make(None)
    fit(None, made=(task, data), epochs=1)
    state = torch.load("state_1.pt", weights_only=True)
    state["min_loss"] = 0.0  # which no epoch reaches
    torch.save(state, "state_1.pt")
    seen = Batches()
    way = Adversarial(Judge)
    fit(way, epochs=2, callbacks=[seen])
    for name, value in state["model"].items():
        assert torch.equal(seen.start[name], value)
    assert Path("best.pt").readlink() == Path("state_2.pt")
    # and back: a critic that nobody asks for is left alone
    fit(None, made=make(None), epochs=3)
    assert "adv_model" not in torch.load("state_3.pt", weights_only=True)


def test_validation_asks_the_critic_without_noise_and_with_real_labels_of_one():
    way = Adversarial(Judge, instance_noise=5.0, real_label=0.7, conditional=True)
    emulator, task = fit(way, epochs=1)
    critic, told = way.adversary.critic.eval(), {}
    x, y = (torch.from_numpy(np.load(f"{n}_2.npy")) for n in "xy")
    wide = F.pad(x[None], [1] * 4, mode="circular")[0]
    crops = [(wide[:, i : i + 8, j : j + 8], y[:, i : i + 6, j : j + 6])
             for i in (0, 6) for j in (0, 6)]  # fmt: skip
    with torch.no_grad():
        for inputs, targets in crops:
            inputs, targets = inputs[None], targets[None]
            beside = inputs[:, :, 1:-1, 1:-1]
            fake = critic(torch.cat([beside, emulator.model(inputs)], 1))
            real = critic(torch.cat([beside, targets], 1))
            each = {"fake": F.softplus(fake), "real": F.softplus(-real), "G": F.softplus(-fake)}
            for name, values in each.items():
                told[name] = told.get(name, 0) + float(values.mean()) / 4
    history = task.history
    assert history["adv/D/fake/val"] == [pytest.approx(told["fake"], rel=1e-4)]
    assert history["adv/D/real/val"] == [pytest.approx(told["real"], rel=1e-4)]
    assert history["adv/G/val"] == [pytest.approx(told["G"], rel=1e-4)]
    assert history["adv/D/total/val"] == [pytest.approx(told["fake"] + told["real"], rel=1e-4)]
    # the best epoch, and what schedules watch, is of the comparison alone
    assert torch.load("state_1.pt", weights_only=True)["min_loss"] == history["val"][0]


TAGS = {
    "loss/batch/train", "loss/batch/train/adv/G", "loss/batch/train/adv/reg", "grad/first",
    "grad/last", "grad/adv/first", "grad/adv/last", "instance_noise", "loss/epoch/train",
    "loss/epoch/val", "loss/epoch/train/adv/G", "loss/epoch/val/adv/G",
}  # fmt: skip
GROUPS = {"loss/batch/train/adv/D", "loss/epoch/train/adv/D", "loss/epoch/val/adv/D"}


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def steps(found, tag):
    return [event.step for event in found.Scalars(tag)]


def test_tensorboard_has_map2maps_tags_at_map2maps_steps(caplog):
    caplog.set_level("INFO")
    how = {"start": 1, "r1_interval": 2, "instance_noise": 0.5, "instance_noise_batches": 7}
    output = Output(Path(), log_interval=3, figures=1)
    network = lambda i, o, ndim: Twice(i, o, ndim=ndim)  # noqa: E731
    # small figures are drawn in a second
    _, task = fit(
        None, made=make(Adversarial(Judge, **how), "z", network), output=output, epochs=3,
        logger=True,
    )  # fmt: skip
    (run,) = Path("runs").iterdir()
    found = events(run)
    assert set(found.Tags()["scalars"]) >= TAGS
    figures = {f"fig/{split}{kind}" for split in ("train", "val") for kind in ("", "/power/lag")}
    assert set(found.Tags()["images"]) == figures
    assert steps(found, "loss/batch/train") == [3, 6, 9, 12]
    assert steps(found, "loss/batch/train/adv/G") == [6, 9, 12]
    # every 3 // 2 * 2 steps, at which penalties are taken
    assert steps(found, "loss/batch/train/adv/reg") == [6, 8, 10, 12]
    assert steps(found, "loss/epoch/val/adv/G") == [2, 3]
    noise_told = {e.step: e.value for e in found.Scalars("instance_noise")}
    # the noise begins with the critic, and is gone after 7 batches of it
    assert noise_told == pytest.approx({6: 0.5 * (1 - 2 / 7), 9: 0.5 * (1 - 5 / 7)})
    for group in GROUPS:
        each = {name: events(run / f"{group.replace('/', '_')}_{name}")
                for name in ("total", "fake", "real")}  # fmt: skip
        values = {name: [e.value for e in of.Scalars(group)] for name, of in each.items()}
        np.testing.assert_allclose(
            values["total"], np.add(values["fake"], values["real"]), rtol=1e-6
        )
    history = task.history["adv/G/val"]
    assert np.isnan(history[0])
    told = [e.value for e in found.Scalars("loss/epoch/val/adv/G")]
    np.testing.assert_allclose(told, history[1:], rtol=1e-6)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("epoch ")]
    assert "adv" not in lines[0]
    assert "; adv/D/fake train" in lines[1]
    assert f"; adv/G train {task.history['adv/G/train'][2]:.6g}, val" in lines[2]


def test_where_only_the_critic_learns_nothing_is_told_counted_or_scheduled_of_the_network():
    halves = Schedule(lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), interval="step")
    way = Adversarial(lambda i, o, ndim: Judge(i, o), critic_steps=3, start=1, schedule=Schedule())
    output = Output(Path(), figures=0, log_interval=2)
    made = make(way, optimizer=sgd, schedule=halves)
    emulator, task = fit(None, made=made, epochs=3, output=output, logger=None)
    # 4 batches before the critic; of the next 8, every third of all learns
    learns = [1, 2, 3, 4, 6, 9, 12]
    assert STEPS == 4
    assert emulator.training_record["optimizer_steps"] == len(learns)
    assert task.trainer.optimizers[0].param_groups[0]["lr"] == 0.02 * 0.5 ** len(learns)
    found = events(next(Path("runs").iterdir()))
    assert steps(found, "loss/batch/train") == [2, 4, 6, 8, 10, 12]
    assert steps(found, "loss/batch/train/adv/G") == [6, 12]
    assert steps(found, "grad/all") == [2, 4, 6, 12]


def test_figures_show_inputs_on_the_cells_of_a_finer_output():
    _, task = fit(None, made=make(None, "z", lambda i, o, ndim: Twice(i, o, ndim=ndim)), epochs=1)
    x, output, target = task.examples["val"]
    assert x.shape == output.shape == target.shape == (1, 12, 12)
    # the last crop but one of the validation run, which batches of two end with first
    field = torch.from_numpy(np.load("x_2.npy"))[None]
    fine = F.interpolate(F.pad(field, [1] * 4, mode="circular"), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(x, fine[0, :, 2:-2, 2:-2][:, 12:, :12])


def test_the_emulator_has_the_average_that_was_validated_and_states_have_both():
    made = make(Adversarial(Judge), ema=0.8)
    emulator, task = fit(None, made=made, epochs=2)
    state = torch.load("state_2.pt", weights_only=True)
    name = "convs.0.weight"
    assert not torch.equal(state["model"][name], state["ema"]["weights"][name])
    assert torch.equal(emulator.model.state_dict()[name], state["ema"]["weights"][name])
    assert state["ema"]["updates"] == 2 * STEPS
    x, y = (torch.from_numpy(np.load(f"{n}_2.npy"))[None] for n in "xy")
    with torch.no_grad():
        whole = emulator.model(F.pad(x, [1] * 4, mode="circular"))
    assert task.history["val"][1] == pytest.approx(float(F.mse_loss(whole, y)), rel=1e-5)
    # the best epoch's average, too
    best = Path("best.pt").readlink()
    expected = torch.load(best, weights_only=True)["ema"]["weights"][name]
    output = Output(Path(), figures=0, weights="best")
    Path("emulator.safetensors").unlink()
    again, _ = fit(None, made=make(Adversarial(Judge), ema=0.8), epochs=2, output=output)
    assert torch.equal(again.model.state_dict()[name], expected)


def numbers(i, o, ndim):
    return Racoon(i, o, ndim=ndim, size=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "`start` is -1; it must be at least 0"),
        ({"critic_steps": 0}, "`critic_steps` is 0; it must be at least 1"),
        ({"instance_noise": float("nan")}, "`instance_noise` is nan"),
        ({"adversarial_weight": 0.0}, "`adversarial_weight` is 0.0; it must be above 0"),
        ({"real_label": 0.0}, "`real_label` is 0.0"),
        ({"real_label": 1.5}, "`real_label` is 1.5; what is real is called 1 at most"),
        ({"r1_interval": -1}, "`r1_interval` is -1"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(RecipeError, match=message):
        Adversarial(Judge, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches is of one network"),
        ({"callbacks": [pl.callbacks.GradientAccumulationScheduler({1: 2})]}, "accumulate_grad_b"),
        ({"precision": "16-mixed"}, "precision '16-mixed' is of one network"),
    ],
)
def test_trainers_that_cannot_do_with_two_networks_are_refused(options, message):
    if "precision" in options:
        # what a CPU has no scaler for
        class Half(pl.plugins.MixedPrecision):
            def __init__(self):
                super().__init__("bf16-mixed", "cpu")
                self.precision = "16-mixed"

        options = {"plugins": [Half()]}
    with pytest.raises(RecipeError, match=message):
        fit(Adversarial(Judge), **options)
    assert not list(Path().glob("*.pt"))


def test_what_no_critic_can_judge_is_refused():
    task, data = make(Adversarial(Judge))
    data.reading = Reading(batch_size=2, mask=True)
    with pytest.raises(RecipeError, match=r"but a discriminator .* judges all of them"):
        fit(None, made=(task, data))
    with pytest.raises(GeometryError, match="PatchGAN does not take batches of 2 x 1 channels x 6"):
        fit(Adversarial(lambda i, o, ndim: PatchGAN(i, o, ndim=ndim)))
    with pytest.raises(RecipeError, match="LBFGS tries each step several times"):
        fit(Adversarial(Judge, optimizer=torch.optim.LBFGS))
    with pytest.raises(RecipeError, match="optimizer of the discriminator or its schedule cannot"):
        fit(Adversarial(Judge, optimizer=lambda p: torch.optim.SGD(p, lr=-1.0)))


def test_labels_have_no_critic():
    np.save("image_a.npy", np.zeros((1, 64, 64), np.float32))
    np.save("image_b.npy", np.ones((1, 64, 64), np.float32))
    task = Task([Field("x")], [Field("kind", kind="label", classes=("a", "b"))], numbers,
                training=Adversarial(Judge))  # fmt: skip
    data = FieldData({"x": "image_{kind}.npy", "kind": Told(placeholder="kind")})
    with pytest.raises(FieldError, match="judges fields, but kind are numbers for the whole"):
        fit(None, made=(task, data))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"conditional": True}, "not those of this Judge: other shape: net.0.weight"),
        ({"spectral_norm": True}, "not those of this Judge: missing: net.0.weight_orig"),
        ({"optimizer": adam}, "with the optimizer SGD of the discriminator, not Adam"),
    ],
)
def test_a_state_is_not_resumed_with_another_critic(other, message):
    fit(Adversarial(Judge), epochs=1)
    with pytest.raises(ArtefactError, match=message):
        fit(Adversarial(Judge, **other), epochs=2)
    assert not Path("state_2.pt").exists()


JUDGE = """
    import os
    from lightning.pytorch import Callback
    from torch import nn

    class Judge(nn.Sequential):
        def __init__(self, in_chan, out_chan, *, ndim):
            super().__init__(nn.Conv2d(in_chan, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, out_chan, 3))

    class Normal(nn.Sequential):
        def __init__(self, in_chan, out_chan, *, ndim):
            super().__init__(nn.Conv2d(in_chan, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, out_chan, 3))

    class Stop(Callback):
        def on_train_batch_start(self, trainer, module, batch, idx):
            if trainer.global_step == 3:
                os._exit(9)
"""


def processes(how, options=None):
    """What trains in two processes, of which a `Stop` ends both; gives the state that is left."""
    Path("mine").mkdir()
    Path("mine/judge.py").write_text(textwrap.dedent(JUDGE))
    judge = {"class_path": f"map2map_callback.judge.{'Normal' if options else 'Judge'}"}
    recipe = {
        "seed_everything": 5,
        "callback_at": "mine",
        "model": {
            "inputs": [{"name": "x"}], "targets": [{"name": "y"}],
            "model": {"class_path": "ConvNet", "init_args": {"width": 3, "depth": 1}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}},
            "options": options or {},
            "training": {"class_path": "map2map.adversarial.Adversarial",
                         "init_args": {"model": judge, **how}},
        },
        "data": {"train": {"x": "x_[01].npy", "y": "y_[01].npy"}, "crops": {"size": 6},
                 "val": {"x": "x_2.npy", "y": "y_2.npy"},
                 "reading": {"batch_size": 1, "threads": 0}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False, "devices": 2,
                    "strategy": "ddp"},
        "output": {"figures": 0, "every": 1},
    }  # fmt: skip

    def run(folder, broken=False, **trainer):
        mine = {**recipe, "trainer": recipe["trainer"] | trainer}
        mine["output"] = recipe["output"] | {"folder": folder}
        Path(f"{folder}.yaml").write_text(yaml.safe_dump(mine))
        Path("go.py").write_text(
            "import sys; from map2map.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        done = subprocess.run(
            [sys.executable, "go.py", "train", f"{folder}.yaml"], capture_output=True, text=True,
            check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert bool(done.returncode) == broken, done.stderr
        return torch.load(Path(folder) / "checkpoint.pt", weights_only=True)

    return run


def test_two_processes_take_the_mean_of_the_gradients_of_both_networks():
    """Against a loop by hand over the samples that the order gives to each process."""
    how = {"conditional": True, "r1_interval": 1, "adversarial_weight": 0.5, "critic_steps": 2}
    run = processes(how)
    start, state = run("start", max_steps=1), run("two", max_steps=8)
    assert state["global_step"] == 8
    assert state["history"]["adv/G/train"]

    model = ConvNet(1, 1, ndim=2, width=3, depth=1)
    critic = nn.Sequential(nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    model.load_state_dict(start["model"])
    critic.load_state_dict(start["adv_model"])
    seen = []
    for epoch in range(2):
        shares = [Order(seed=5).samples(epoch, 2, 4, Share(rank, 2)) for rank in range(2)]
        for both in zip(*shares, strict=True):
            x, y = [], []
            for sample in both:
                run_number, crop = divmod(int(sample), 4)
                i, j = 6 * (crop // 2), 6 * (crop % 2)
                wide = np.pad(np.load(f"x_{run_number}.npy"), ((0, 0), (1, 1), (1, 1)), mode="wrap")
                x.append(wide[:, i : i + 8, j : j + 8])
                y.append(np.load(f"y_{run_number}.npy")[:, i : i + 6, j : j + 6])
            seen.append([torch.from_numpy(np.stack(side)) for side in (x, y)])
    # the critic has made the first step already
    how |= {"beside": lambda x: x[:, :, 1:-1, 1:-1], "first": 2}
    by_hand(seen[1:], model, critic, lambda m: sgd(m.parameters()), how)
    for mine, theirs in ((state["model"], model), (state["adv_model"], critic)):
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-5)


def test_two_processes_broken_off_within_an_epoch_go_on_bit_for_bit():
    """Though each has sums of losses, noise and statistics of batches of its own."""
    how = {"instance_noise": 0.3, "spectral_norm": True, "conditional": True}
    run = processes(how, {"ema": 0.9})
    stop = {"class_path": "map2map_callback.judge.Stop"}
    run("whole")
    assert not Path("broken").exists()
    run("broken", broken=True, callbacks=[stop])
    assert Path("broken/state_partial.pt").exists()
    run("broken")
    state = states_agree("broken/state_2.pt", "whole/state_2.pt")
    assert state["global_step"] == 8
    assert len(state["sums"]) == 2


def test_labels_that_a_wasserstein_loss_does_not_smooth_are_told(caplog):
    Adversarial(Judge, loss=Wasserstein(), real_label=0.9)
    assert "real fields weigh 0.8 times as much" in caplog.text
