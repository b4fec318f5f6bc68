"""Adversarial training equals loops written out in plain PyTorch, step by step, and resumes."""

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
from torch import nn
from torch.nn import functional as F

from map2map.adversarial import Adversarial
from map2map.crops import Augment, Crops
from map2map.data import FieldData, Reading
from map2map.errors import ArtefactError, FieldError, GeometryError, M2MError, RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.losses import Wasserstein
from map2map.models import ConvNet, PatchGAN, Racoon
from map2map.preparation import Options
from map2map.schedules import Schedule
from map2map.task import Task
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


class Batches(pl.Callback):
    """Keeps the batches of every epoch, normalized and turned: what a loop by hand begins with."""

    def __init__(self):
        self.pairs, self.start, self.critic = [], None, None

    def on_train_start(self, trainer, task):
        copied = lambda m: {k: v.clone() for k, v in m.state_dict().items()}  # noqa: E731
        self.start, self.critic = copied(task.built.model), copied(task.way.critic)

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.pairs.append(batch.settle())


def noise(batch, *shapes, draw=torch.randn):
    """Random numbers as the training documents that it draws them: keyed by seed, rank, batch."""
    from hashlib import blake2b

    key = blake2b(f"5 0 {batch}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
    return [draw(shape, generator=generator) for shape in shapes]


def by_hand(seen, model, critic, make_optimizers, **how):
    """Plain PyTorch; nothing of map2map's."""
    conditional, real_label = how.get("conditional", False), how.get("real_label", 1.0)
    std, batches = how.get("instance_noise", 0.0), how.get("instance_noise_batches", 1e4)
    compare = how.get("loss", nn.BCEWithLogitsLoss())
    supervised, adversarial = how.get("weights", (1.0, 0.01))
    optimizer, critics = make_optimizers(model), make_optimizers(critic)
    model.train(), critic.train()
    told = []
    for number, (x, y) in enumerate(seen, start=1):
        output = model(x)
        loss = ((output - y) ** 2).mean()
        if number <= how.get("before", 0):
            optimizer.zero_grad(), loss.backward(), optimizer.step()
            told.append({"lowered": loss.item()})
            continue
        fake, real = output, y
        level = max(0.0, std - (number - how.get("before", 0)) * std / batches)
        if level > 0:
            first, second = noise(number, fake.shape, real.shape)
            fake, real = fake + level * first, real + level * second
        if conditional:
            beside = how["beside"](x)
            fake, real = torch.cat([beside, fake], 1), torch.cat([beside, real], 1)
        critics.zero_grad()
        scores = critic(fake.detach())
        loss_fake = compare(scores, torch.zeros_like(scores))
        loss_fake.backward()
        scores = critic(real)
        loss_real = compare(scores, torch.full_like(scores, real_label))
        loss_real.backward()
        entry = {}
        if how.get("r1_interval") and number % how["r1_interval"] == 0:
            point = real.detach().clone().requires_grad_()
            score = critic(point).mean(dim=(1, 2, 3)).sum()
            slope = torch.autograd.grad(score, point, create_graph=True)[0]
            reg = 0.5 * 10 * (slope**2).sum(dim=(1, 2, 3)).mean()
            (reg * how["r1_interval"]).backward()
            entry["reg"] = reg.item()
        if how.get("gradient_penalty"):
            (share,) = noise(number, (len(x),), draw=torch.rand)
            share = share[:, None, None, None]
            point = (share * fake.detach() + (1 - share) * real.detach()).requires_grad_()
            score = critic(point).mean(dim=(1, 2, 3)).sum()
            slope = torch.autograd.grad(score, point, create_graph=True)[0]
            length = (slope**2).sum(dim=(1, 2, 3)).sqrt()
            reg = how["gradient_penalty"] * ((length - 1) ** 2).mean()
            reg.backward()
            entry["reg"] = reg.item()
        critics.step()
        entry |= {"adv/D/total": (loss_fake + loss_real).item()}
        entry |= {"adv/D/fake": loss_fake.item(), "adv/D/real": loss_real.item()}
        if number % how.get("critic_steps", 1) == 0:
            scores = critic(fake)
            loss_adv = compare(scores, torch.ones_like(scores))
            total = supervised * loss + adversarial * loss_adv
            optimizer.zero_grad(), total.backward(), optimizer.step()
            entry |= {"adv/G": loss_adv.item(), "lowered": total.item()}
        told.append(entry)
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


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("name", list(WAYS))
def test_the_training_is_that_of_a_loop_by_hand_step_by_step(name, optimizer):
    how, log, seen = dict(WAYS[name]), {}, Batches()
    norm = "R1" not in name and "penalty" not in str(how)
    judge = lambda i, o, ndim: Judge(i, o, norm=norm)  # noqa: E731
    way = Adversarial(judge, **how)
    emulator, task = fit(way, log, made=make(way, optimizer=optimizer), callbacks=[seen])

    model, critic = (
        ConvNet(1, 1, ndim=2, width=3, depth=1),
        Judge(1 + ("conditional" in how), 1, norm=norm),
    )
    if how.get("spectral_norm"):
        for layer in (critic.net[0], critic.net[4]):
            nn.utils.spectral_norm(layer)
    model.load_state_dict(seen.start)
    critic.load_state_dict(seen.critic)
    weights = how.pop("supervised_weight", 1.0), how.pop("adversarial_weight", 0.01)
    told = by_hand(
        seen.pairs, model, critic, lambda net: optimizer(net.parameters()),
        weights=weights, before=STEPS * how.pop("start", 0), beside=lambda x: x[:, :, 1:-1, 1:-1], **how,
    )  # fmt: skip
    assert len(told) == len(log) == 2 * STEPS
    for mine, theirs in zip(log.values(), told, strict=True):
        for key, value in theirs.items():
            assert mine[key] == pytest.approx(value, rel=2e-4, abs=1e-6), (key, mine, theirs)
    for mine, theirs in ((emulator.model, model), (task.way.critic, critic)):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[key], value, rtol=2e-3, atol=1e-5)
