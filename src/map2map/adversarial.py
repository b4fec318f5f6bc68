"""Adversarial training: a critic learns to tell outputs from targets, the network to deceive it.

A step, in the order of map2map: the network runs; noise is added to its output and to the target,
and the input put beside both if the critic is conditional; the critic steps, on the output cut off
from the network, on the target, and on penalties of its slope; then the network steps, on what the
critic says now. The critic is no part of the task's module: its optimizer steps here, and between
processes its gradients are averaged here.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from map2map.assemble import output_space
from map2map.checkpoints import load_weights
from map2map.critics import (
    check_scores,
    drawn,
    gradient_norms,
    gradient_penalty,
    make_critic,
    normalize_spectrally,
    r1_penalty,
    random_numbers,
)
from map2map.errors import ArtefactError, FieldError, RecipeError
from map2map.losses import Wasserstein
from map2map.preparation import ModelFactory
from map2map.schedules import OptimizerFactory, Schedule, Scheduler
from map2map.together import average_gradients, share_first
from map2map.training import Step, Training

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from map2map.batches import Batch
    from map2map.task import Task

__all__ = ["Adversarial"]

log = logging.getLogger(__name__)

PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed")


class Adversarial(Training):
    """Against a discriminator.

    Args:
        model: The discriminator's class and its arguments; it is made for one output channel and
            those of the targets, or of inputs, targets and styles.
        loss: Compares its scores with 1 (real) and 0 (not), such as `Wasserstein`; by default
            BCEWithLogitsLoss.
        optimizer: Its optimizer's class and arguments; by default those of the network.
        schedule: How its learning rate changes; by default as the network's. One that knows how
            long training takes is told the steps in which the discriminator takes part.
        conditional: Whether it sees the inputs, too, on the cells of the output, and behind the
            targets the normalized styles, each as a channel that is the same in all cells.
        start: The first epoch, counted from 0, in which it takes part.
        real_label: What real fields are called when it learns; below 1, labels are smoothed.
        instance_noise: Deviation of noise on all that it sees in training, at first.
        instance_noise_batches: After so many batches, it has sunk linearly to 0.
        spectral_norm: Whether its weights are divided by their largest singular value.
        r1_interval: Every so many batches, its slope where fields are real is penalized, so many
            times as much; 0: never.
        r1_weight: Of that penalty, see `r1_penalty`.
        gradient_penalty: Weight of the penalty of slopes other than 1, which `Wasserstein` needs
            (10, as a rule); 0: none.
        gradient_penalty_interval: It is taken every so many batches, so many times as much.
        critic_steps: Batches on which it learns for each one on which the network does.
        supervised_weight: Of the loss in what the network lowers; 0: it is only told.
        adversarial_weight: Of what the discriminator says.

    Raises:
        RecipeError: If a number is out of its range.
    """

    groups: ClassVar[tuple[str, ...]] = ("adv/D",)

    def __init__(  # noqa: PLR0913 - the keys of a recipe
        self,
        model: ModelFactory,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        conditional: bool = False,
        start: int = 0,
        real_label: float = 1.0,
        instance_noise: float = 0.0,
        instance_noise_batches: float = 1e4,
        spectral_norm: bool = False,
        r1_interval: int = 0,
        r1_weight: float = 10.0,
        gradient_penalty: float = 0.0,
        gradient_penalty_interval: int = 1,
        critic_steps: int = 1,
        supervised_weight: float = 1.0,
        adversarial_weight: float = 0.01,
    ) -> None:
        least = {
            "start": start, "instance_noise": instance_noise, "r1_interval": r1_interval,
            "r1_weight": r1_weight, "gradient_penalty": gradient_penalty,
            "supervised_weight": supervised_weight,
        }  # fmt: skip
        ones = {
            "gradient_penalty_interval": gradient_penalty_interval,
            "critic_steps": critic_steps,
        }
        for low, values in ((0, least), (1, ones)):
            for name, value in values.items():
                if not low <= value < math.inf:
                    raise RecipeError(f"`{name}` is {value}; it must be at least {low}")
        above = {"adversarial_weight": adversarial_weight, "real_label": real_label}
        above |= {"instance_noise_batches": instance_noise_batches}
        for name, value in above.items():
            if not 0 < value < math.inf:
                raise RecipeError(f"`{name}` is {value}; it must be above 0")
        if real_label > 1:
            raise RecipeError(f"`real_label` is {real_label}; what is real is called 1 at most")
        self.make_model, self.loss = model, loss or nn.BCEWithLogitsLoss()
        if isinstance(self.loss, Wasserstein) and real_label != 1:
            log.warning(
                "`real_label` %g with the loss Wasserstein smooths nothing: real fields weigh %g "
                "times as much as others",
                real_label,
                2 * real_label - 1,
            )
        self.make_optimizer, self.schedule = optimizer, schedule
        self.conditional, self.first_epoch, self.real_label = conditional, start, real_label
        self.noise, self.noise_batches = instance_noise, instance_noise_batches
        self.spectral_norm = spectral_norm
        self.r1_interval, self.r1_weight = r1_interval, r1_weight
        self.slope_weight, self.slope_interval = gradient_penalty, gradient_penalty_interval
        self.critic_steps = critic_steps
        self.weights = supervised_weight, adversarial_weight
        self.batches = 0
        self._state: tuple[Mapping[str, Any], Path] | None = None
        # of the last batch, for loggers
        self._last: dict[str, Tensor] = {}

    # --- before training -------------------------------------------------------------------

    def begin(self, task: "Task", data: Any) -> None:
        """Make the discriminator, and try it on the shape of the outputs.

        Raises:
            FieldError: If targets are no fields on a grid, or are not known everywhere.
            RecipeError: If the discriminator or its loss does not suit them.
            GeometryError: If it does not take the crops.
        """
        emulator, dataset = task.built, data.dataset("train")
        if emulator.targets.of_run:
            raise FieldError(
                f"a discriminator judges fields, but {', '.join(emulator.targets.names)} are "
                f"numbers for the whole of a sample; train without `training`"
            )
        if data.reading.mask:
            raise FieldError(
                "a discriminator sees all cells, so targets must be known everywhere; train "
                "without `data.reading.mask`, or without `training`"
            )
        seen = [emulator.targets]
        if self.conditional:
            seen = [emulator.inputs, emulator.targets, emulator.styles]
        channels = sum(fields.channels for fields in seen)
        names = [name for fields in seen for name in fields.names]
        self.critic = make_critic(self.make_model, names, channels, emulator.ndim)
        space = output_space(emulator, dataset, aligned=data.aligned)
        for size in data.batch_sizes("train"):
            check_scores(self.critic, (size, channels, *space), self.loss, names)
        if self.spectral_norm:
            normalize_spectrally(self.critic)
        self.seed = data.seed or 0

    def load(self, state: Mapping[str, Any], path: Path, *, strict: bool) -> None:
        """Take up a discriminator; its optimizer, once there is one.

        Raises:
            ArtefactError: If it is another.
        """
        self.forgets_best = "adv_model" not in state
        if not self.forgets_best:
            load_weights(self.critic, state["adv_model"], path, strict=strict)
            own = ("adv_optimizer", "adv_scheduler", "adversarial")
            self._state = {key: state.get(key) for key in own}, path

    def start(self, task: "Task") -> None:
        """Go to the device, alike in all processes, and make the optimizer.

        Raises:
            RecipeError: If the trainer cannot do with two networks.
            ArtefactError: If the state is of another optimizer.
        """
        trainer = task.trainer
        check_trainer(trainer)
        if trainer.is_global_zero and 0 < (trainer.max_epochs or 0) <= self.first_epoch:
            log.warning(
                "the discriminator begins in epoch %d (counted from 0), but training ends after %d",
                self.first_epoch,
                trainer.max_epochs,
            )
        dtype: Any = task.dtype
        self.critic.to(task.device, dtype)
        self.loss.to(task.device)
        sync = getattr(trainer.strategy, "_layer_sync", None)
        if sync is not None:
            self.critic = sync.apply(self.critic)
        share_first([*self.critic.parameters(), *self.critic.buffers()])
        self.learnt = trainable(self.critic)
        schedule = self._schedule = self.schedule or task.schedule
        try:
            self.optimizer: Optimizer = (self.make_optimizer or task.make_optimizer)(self.learnt)
            self.scheduler: Scheduler | None = schedule.make(
                self.optimizer, lambda: self._steps(trainer)
            )
        except (ValueError, TypeError) as error:
            raise RecipeError(
                f"the discriminator's optimizer or its schedule cannot be made: {error}"
            ) from error
        if any(isinstance(o, LBFGS) for o in (self.optimizer, *trainer.optimizers)):
            raise RecipeError("LBFGS tries each step several times, in which a discriminator moves")
        self._restore()

    def _steps(self, trainer: "pl.Trainer") -> float:
        """Batches of the training in which the discriminator takes part."""
        every = trainer.estimated_stepping_batches
        return max(1, every - self.first_epoch * trainer.num_training_batches)

    def _restore(self) -> None:
        """The state of the optimizer and the scheduler."""
        if self._state is None:
            return
        (state, path), self._state = self._state, None
        mine = state["adversarial"] or {}
        before, now = mine.get("optimizer_class"), type(self.optimizer).__name__
        if before not in (None, now):
            raise ArtefactError(
                f"{path} was trained with the optimizer {before} of the discriminator, not {now}; "
                f"go on with the same, or start anew with output.resume: never"
            )
        if state["adv_optimizer"] is not None:
            try:
                self.optimizer.load_state_dict(state["adv_optimizer"])
            except ValueError as error:
                raise ArtefactError(
                    f"the optimizer state of the discriminator in {path} is of another: {error}"
                ) from error
        if self.scheduler is not None and state["adv_scheduler"] is not None:
            self.scheduler.load_state_dict(state["adv_scheduler"])
        self.batches = int(mine.get("batches", 0))

    # --- steps -----------------------------------------------------------------------------

    def takes_part(self, task: "Task") -> bool:
        """Whether the discriminator takes part in this epoch."""
        return task.current_epoch >= self.first_epoch

    def withholds_step(self, task: "Task") -> bool:
        """Whether only the discriminator learns from the coming batch."""
        return self.takes_part(task) and (task.trainer.global_step + 1) % self.critic_steps != 0

    def network_steps(self, task: "Task", batches: float) -> float:
        """All of the epochs before the discriminator, and one of so many after."""
        alone = min(batches, self.first_epoch * task.trainer.num_training_batches)
        if not math.isfinite(batches) or not math.isfinite(alone):
            return batches
        return alone + batches // self.critic_steps - alone // self.critic_steps

    def deviation(self, batch: int) -> float:
        """Of the instance noise in a batch, numbered from 1 among those with a discriminator."""
        return max(0.0, self.noise * (1 - batch / self.noise_batches))

    def step(self, task: "Task", batch: "Batch") -> Step:
        """The discriminator's step, and what the network's lowers."""
        if not self.takes_part(task):
            return Step(*task.step(batch))
        withheld = self.withholds_step(task)
        with torch.set_grad_enabled(not withheld):
            loss, x, output, target = task.step(batch)
        self.batches += 1
        number = task.trainer.global_step + 1
        draws = random_numbers(self.seed, task.global_rank, number, output.device)
        fake, real, deviation = output, target, self.deviation(self.batches)
        if deviation:
            fake = fake + deviation * drawn(torch.randn, fake, draws)
            real = real + deviation * drawn(torch.randn, real, draws)
        fake, real = (self._seen(task, x, side, batch) for side in (fake, real))
        parts = self._teach(task, fake.detach(), real.detach(), number, draws)
        if withheld:
            # all gradients are zero, and still there, as several processes expect
            objective = 0.0 * torch.stack([p.sum() for p in trainable(task.built.model)]).sum()
        else:
            self._learns(False)
            parts["adv/G"] = adversarial = self.judged(fake, 1.0)
            supervised, weight = self.weights
            objective = weight * adversarial
            if supervised:
                objective = objective + supervised * loss
        parts = {name: value.detach() for name, value in parts.items()}
        # penalties are told less often than they are due
        self._last = {key: last for key, last in self._last.items() if key == "reg"} | parts
        parts.pop("reg", None)
        return Step(loss.detach(), x, output, target, objective, parts)

    def _seen(self, task: "Task", x: Tensor, field: Tensor, batch: "Batch") -> Tensor:
        """What the discriminator sees of a field."""
        if not self.conditional:
            return field
        beside = task.beside_output(x.detach(), field, batch).to(field.dtype)
        ones, space = (1,) * (field.ndim - 2), field.shape[2:]
        styles = [
            style.reshape(*style.shape, *ones).expand(-1, -1, *space)
            for style in task.style_arguments(field.dtype)
        ]
        return torch.cat([beside, field, *styles], dim=1)

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

    def _teach(
        self, task: "Task", fake: Tensor, real: Tensor, number: int, draws: torch.Generator
    ) -> dict[str, Tensor]:
        """A step of the discriminator; its losses.

        Args:
            task: What is trained.
            fake: What it sees of outputs, cut off from the network.
            real: What it sees of targets.
            number: Of the batch in the training, from 1.
            draws: Random numbers of this batch.
        """
        self._learns(True)
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
        clip_as(task.trainer, self.learnt)
        self.optimizer.step()
        self._schedule.after_step(self.scheduler)
        # as those of the network, which are the first process's, too
        share_first(list(self.critic.buffers()))
        parts = {"adv/D/total": losses["fake"] + losses["real"]}
        parts |= {f"adv/D/{name}": loss for name, loss in losses.items()}
        return parts if reg is None else parts | {"reg": reg}

    def _penalize(
        self, fake: Tensor, real: Tensor, number: int, draws: torch.Generator
    ) -> Tensor | None:
        """Add the gradients of the penalties that are due; the penalties."""
        due = []
        if self.r1_interval and number % self.r1_interval == 0:
            due.append((r1_penalty(self.scores, real, self.r1_weight), self.r1_interval))
        if self.slope_weight and number % self.slope_interval == 0:
            share = drawn(torch.rand, fake[:, :1].flatten(start_dim=1)[:, 0], draws)
            penalty = gradient_penalty(self.scores, fake, real, share, self.slope_weight)
            due.append((penalty, self.slope_interval))
        for penalty, times in due:
            torch.autograd.backward(times * penalty)
        return torch.stack([penalty for penalty, _ in due]).sum() if due else None

    def _learns(self, learns: bool) -> None:
        """Whether gradients of the discriminator's weights are taken."""
        for parameter in self.learnt:
            parameter.requires_grad_(learns)

    def validate(self, task: "Task", batch: "Batch") -> Step:
        """What the discriminator says of a validation batch: without noise, real labels are 1."""
        loss, x, output, target = task.step(batch)
        if not self.takes_part(task):
            return Step(loss, x, output, target)
        self.critic.eval()
        scores = [self.scores(self._seen(task, x, side, batch)) for side in (output, target)]
        fake, real = self.loss_of(scores[0], 0.0), self.loss_of(scores[1], 1.0)
        parts = {
            "adv/D/total": fake + real,
            "adv/D/fake": fake,
            "adv/D/real": real,
            "adv/G": self.loss_of(scores[0], 1.0),
        }
        return Step(loss, x, output, target, parts=parts)

    # --- telling and saving ----------------------------------------------------------------

    def scalars(self, task: "Task", interval: int) -> dict[str, float | dict[str, float]]:
        """Losses, gradients, noise and rate, as the first process has them; penalties when due."""
        last, step = self._last, task.trainer.global_step
        told: dict[str, float | dict[str, float]] = {}
        reg = last.pop("reg", None)
        if reg is not None and step % self._told_every(interval) == 0:
            told["loss/batch/train/adv/reg"] = float(reg)
        if step % interval or "adv/D/total" not in last or not self.takes_part(task):
            return told
        names = ("total", "fake", "real")
        told["loss/batch/train/adv/D"] = {name: float(last[f"adv/D/{name}"]) for name in names}
        if "adv/G" in last:
            told["loss/batch/train/adv/G"] = float(last["adv/G"])
        norms = gradient_norms(self.critic)
        if norms is not None:
            told |= {"grad/adv/first": norms[0], "grad/adv/last": norms[1]}
        deviation = self.deviation(self.batches)
        if deviation:
            told["instance_noise"] = deviation
        return told | {"lr/adv": float(self.optimizer.param_groups[0]["lr"])}

    def _told_every(self, interval: int) -> int:
        """Batches between penalties that are told: a multiple of those between penalties."""
        every = self.r1_interval or self.slope_interval
        return interval if interval <= every else interval // every * every

    def end_epoch(self, task: "Task") -> None:
        """Step the scheduler."""
        if self.takes_part(task):
            validates = bool(task.trainer.limit_val_batches)
            self._schedule.after_epoch(self.scheduler, task.epoch_losses, validates=validates)

    def state(self) -> dict[str, Any]:
        """The discriminator, its optimizer and scheduler, and how far the noise has sunk."""
        return {
            "adv_model": self.critic.state_dict(),
            "adv_optimizer": self.optimizer.state_dict(),
            "adv_scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "adversarial": {
                "optimizer_class": type(self.optimizer).__name__,
                "batches": self.batches,
            },
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
