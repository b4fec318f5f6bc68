"""An adversary: a critic that learns to tell outputs from targets, by an optimizer of its own.

It is no part of the task's module: its optimizer steps here, and between processes its gradients
are averaged here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import LBFGS

from map2map.checkpoints import load_weights
from map2map.critics import drawn, gradient_penalty, r1_penalty
from map2map.errors import ArtefactError, RecipeError
from map2map.schedules import OptimizerFactory, Schedule, check_class
from map2map.together import average_gradients, share_first

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from map2map.task import Task

__all__ = ["Adversary", "Penalties", "trainable"]

WHOSE = " of the discriminator"
PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed")


@dataclass(frozen=True)
class Penalties:
    """Of the slopes of a critic; see `map2map.critics`.

    Args:
        r1_interval: Every so many batches, that where fields are real, so many times; 0: never.
        r1_weight: Its weight.
        slope_interval: Every so many batches, that of slopes other than 1, so many times.
        slope_weight: Its weight; 0: never.
    """

    r1_interval: int = 0
    r1_weight: float = 10.0
    slope_interval: int = 1
    slope_weight: float = 0.0


class Adversary:
    """A discriminator in training.

    Args:
        critic: Its network.
        loss: Compares its scores with 1 (real) and 0 (not).
        penalties: Of its slopes.
        real_label: What real fields are called when it learns.
    """

    def __init__(
        self, critic: nn.Module, loss: nn.Module, penalties: Penalties, real_label: float
    ) -> None:
        self.critic, self.loss = critic, loss
        self.penalties, self.real_label = penalties, real_label
        self._state: tuple[Mapping[str, Any], Path] | None = None

    def load(self, state: Mapping[str, Any], path: Path, *, strict: bool) -> None:
        """Take up weights; the optimizer's state, once there is one.

        Raises:
            ArtefactError: If they are of another.
        """
        load_weights(self.critic, state["adv_model"], path, strict=strict)
        own = ("adv_optimizer", "adv_scheduler", "adversarial")
        self._state = {key: state.get(key) for key in own}, path

    def start(
        self,
        task: "Task",
        make_optimizer: OptimizerFactory,
        schedule: Schedule,
        steps: Callable[[], float],
    ) -> None:
        """Go to the device, alike in all processes, and make the optimizer.

        Args:
            task: What is trained.
            make_optimizer: Makes it.
            schedule: How its rate changes.
            steps: Tells how many it does.

        Raises:
            RecipeError: If they cannot be made, or the trainer cannot do with two networks.
            ArtefactError: If the state is of another optimizer.
        """
        trainer = task.trainer
        check_trainer(trainer)
        dtype: Any = task.dtype
        self.critic.to(task.device, dtype)
        self.loss.to(task.device)
        sync = getattr(trainer.strategy, "_layer_sync", None)
        if sync is not None:
            self.critic = sync.apply(self.critic)
        share_first([*self.critic.parameters(), *self.critic.buffers()])
        self.learnt = trainable(self.critic)
        self.schedule = schedule
        self.optimizer, self.scheduler = schedule.with_optimizer(
            make_optimizer, self.learnt, steps, WHOSE
        )
        if any(isinstance(o, LBFGS) for o in (self.optimizer, *trainer.optimizers)):
            raise RecipeError("LBFGS tries each step several times, in which a discriminator moves")
        self._restore()

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _restore(self) -> None:
        """The state of the optimizer and the scheduler."""
        if self._state is None:
            return
        (state, path), self._state = self._state, None
        mine = state["adversarial"] or {}
        check_class(self.optimizer, mine.get("optimizer_class"), path, WHOSE)
        if state["adv_optimizer"] is not None:
            try:
                self.optimizer.load_state_dict(state["adv_optimizer"])
            except ValueError as error:
                raise ArtefactError(
                    f"the optimizer state of the discriminator in {path} is of another: {error}"
                ) from error
        if self.scheduler is not None and state["adv_scheduler"] is not None:
            self.scheduler.load_state_dict(state["adv_scheduler"])

    def judged(self, field: Tensor, label: float) -> Tensor:
        """The loss of the scores of a field, given what it is called."""
        return self.loss_of(self.scores(field), label)

    def scores(self, field: Tensor) -> Tensor:
        """What the discriminator says, in single precision at least."""
        scores: Tensor = self.critic(field.to(self.learnt[0].dtype))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def loss_of(self, scores: Tensor, label: float) -> Tensor:
        """The loss of scores."""
        loss: Tensor = self.loss(scores, torch.full_like(scores, label))
        return loss

    def teach(
        self, trainer: "pl.Trainer", fake: Tensor, real: Tensor, number: int, draws: torch.Generator
    ) -> dict[str, Tensor]:
        """A step of the discriminator; its losses.

        Args:
            trainer: Whose clipping counts here, too.
            fake: What it sees of outputs, cut off from the network.
            real: What it sees of targets.
            number: Of the batch in the training, from 1.
            draws: Random numbers of this batch.
        """
        self.learns(True)
        self.critic.train()
        self.optimizer.zero_grad()
        losses = {}
        for name, field, label in (("fake", fake, 0.0), ("real", real, self.real_label)):
            losses[name] = self.judged(field, label)
            with no_autocast(field):
                torch.autograd.backward(losses[name])
        with no_autocast(fake):
            reg = self._penalize(fake, real, number, draws)
            average_gradients(self.learnt)
        clip_as(trainer, self.learnt)
        self.optimizer.step()
        self.schedule.after_step(self.scheduler)
        # as those of the network, which are the first process's, too
        share_first(list(self.critic.buffers()))
        parts = {"adv/D/total": losses["fake"] + losses["real"]}
        parts |= {f"adv/D/{name}": loss for name, loss in losses.items()}
        return parts if reg is None else parts | {"reg": reg}

    def _penalize(
        self, fake: Tensor, real: Tensor, number: int, draws: torch.Generator
    ) -> Tensor | None:
        """Add the gradients of the penalties that are due; the penalties."""
        due, penalties = [], self.penalties
        if penalties.r1_interval and number % penalties.r1_interval == 0:
            due.append((r1_penalty(self.scores, real, penalties.r1_weight), penalties.r1_interval))
        if penalties.slope_weight and number % penalties.slope_interval == 0:
            share = drawn(torch.rand, fake[:, :1].flatten(start_dim=1)[:, 0], draws)
            penalty = gradient_penalty(self.scores, fake, real, share, penalties.slope_weight)
            due.append((penalty, penalties.slope_interval))
        for penalty, times in due:
            torch.autograd.backward(times * penalty)
        return torch.stack([penalty for penalty, _ in due]).sum() if due else None

    def learns(self, learns: bool) -> None:
        """Whether gradients of the discriminator's weights are taken."""
        for parameter in self.learnt:
            parameter.requires_grad_(learns)

    def end_epoch(self, losses: Mapping[str, float], *, validates: bool) -> None:
        """Step a schedule of epochs; see `map2map.schedules.Schedule.after_epoch`."""
        self.schedule.after_epoch(self.scheduler, losses, validates=validates)

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {
            "adv_model": self.critic.state_dict(),
            "adv_optimizer": self.optimizer.state_dict(),
            "adv_scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "adversarial": {"optimizer_class": type(self.optimizer).__name__},
        }


def check_trainer(trainer: "pl.Trainer") -> None:
    """Refuse what a trainer cannot do with two networks.

    Raises:
        RecipeError: If it is asked for.
    """
    gathers = any(
        isinstance(callback, GradientAccumulationScheduler)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    )
    if trainer.accumulate_grad_batches != 1 or gathers:
        raise RecipeError(
            "trainer.accumulate_grad_batches is of one network, but the discriminator would step "
            "after every batch; take larger batches, or several processes"
        )
    if str(trainer.precision) not in PRECISIONS:
        raise RecipeError(
            f"trainer.precision {trainer.precision!r} is of one network (it scales losses, or "
            f"changes layers), not of a discriminator; take one of {', '.join(PRECISIONS)}"
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise RecipeError(
            f"the strategy {type(trainer.strategy).__name__} does not know the discriminator; "
            f"take a single device, or ddp"
        )


@contextmanager
def no_autocast(like: Tensor) -> Iterator[None]:
    """Gradients, and what they are taken of again, in full precision."""
    with torch.autocast(like.device.type, enabled=False):
        yield


def clip_as(trainer: "pl.Trainer", parameters: list[nn.Parameter]) -> None:
    """Clip gradients as the trainer clips those of the network."""
    most = trainer.gradient_clip_val
    if most:
        by_value = trainer.gradient_clip_algorithm == "value"
        clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
        clip(parameters, float(most))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The weights that gradients are taken of."""
    return [p for p in model.parameters() if p.requires_grad]
