"""Adversarial training: a critic learns to tell outputs from targets, the network to deceive it.

A step, in the order of map2map: the network runs; noise is added to its output and to the target,
and the input put beside both if the critic is conditional; the critic steps, on the output cut off
from the network, on the target, and on penalties of its slope; then the network steps, on what the
critic says now.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from map2map.adversary import Adversary, Penalties, trainable
from map2map.assemble import output_space
from map2map.critics import (
    check_scores,
    drawn,
    gradient_norms,
    make_critic,
    normalize_spectrally,
    random_numbers,
)
from map2map.errors import FieldError, RecipeError
from map2map.losses import Wasserstein
from map2map.preparation import ModelFactory
from map2map.schedules import OptimizerFactory, Schedule
from map2map.training import Step, Training, check_known

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from map2map.batches import Batch
    from map2map.task import Task

__all__ = ["Adversarial"]

log = logging.getLogger(__name__)


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
        self.penalties = Penalties(
            r1_interval, r1_weight, gradient_penalty_interval, gradient_penalty
        )
        self.critic_steps = critic_steps
        self.weights = supervised_weight, adversarial_weight
        self.batches = 0
        # of the last batch, for loggers
        self._last: dict[str, Tensor] = {}

    # --- before training -------------------------------------------------------------------

    def begin(self, task: "Task", data: Any) -> None:
        """Make the discriminator, and try it on the shape of the outputs.

        Raises:
            FieldError: If targets are no fields on a grid.
            RecipeError: If they are not known everywhere, or the discriminator or its loss does not
                suit them.
            GeometryError: If it does not take the crops.
        """
        emulator, dataset = task.built, data.dataset("train")
        if emulator.targets.of_run:
            raise FieldError(
                f"a discriminator judges fields, but {', '.join(emulator.targets.names)} are "
                f"numbers for the whole of a sample; train without `training`"
            )
        check_known(data, "a discriminator (model.training) judges all of them")
        seen = [emulator.targets]
        if self.conditional:
            seen = [emulator.inputs, emulator.targets, emulator.styles]
        channels = sum(fields.channels for fields in seen)
        names = [name for fields in seen for name in fields.names]
        critic = make_critic(self.make_model, names, channels, emulator.ndim)
        space = output_space(emulator, dataset, aligned=data.aligned)
        for size in data.batch_sizes("train"):
            check_scores(critic, (size, channels, *space), self.loss, names)
        if self.spectral_norm:
            normalize_spectrally(critic)
        self.adversary = Adversary(critic, self.loss, self.penalties, self.real_label)
        self.seed = data.seed or 0

    def load(self, state: Mapping[str, Any], path: Path, *, strict: bool) -> None:
        """Take up a discriminator; its optimizer, once there is one.

        Raises:
            ArtefactError: If it is another.
        """
        self.forgets_best = "adv_model" not in state
        if not self.forgets_best:
            self.adversary.load(state, path, strict=strict)
            self.batches = int((state.get("adversarial") or {}).get("batches", 0))

    def start(self, task: "Task") -> None:
        """Go to the device, alike in all processes, and make the optimizer.

        Raises:
            RecipeError: If the trainer cannot do with two networks.
            ArtefactError: If the state is of another optimizer.
        """
        trainer = task.trainer
        if trainer.is_global_zero and 0 < (trainer.max_epochs or 0) <= self.first_epoch:
            log.warning(
                "the discriminator begins in epoch %d (counted from 0), but training ends after %d",
                self.first_epoch,
                trainer.max_epochs,
            )
        make_optimizer = self.make_optimizer or task.make_optimizer
        schedule = self.schedule or task.schedule
        self.adversary.start(task, make_optimizer, schedule, lambda: self._steps(trainer))

    def _steps(self, trainer: "pl.Trainer") -> float:
        """Batches of the training in which the discriminator takes part."""
        every = trainer.estimated_stepping_batches
        return max(1, every - self.first_epoch * trainer.num_training_batches)

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
        trainer = task.trainer
        number = trainer.global_step + 1
        draws = random_numbers(self.seed, task.global_rank, number, output.device)
        fake, real, deviation = output, target, self.deviation(self.batches)
        if deviation:
            fake = fake + deviation * drawn(torch.randn, fake, draws)
            real = real + deviation * drawn(torch.randn, real, draws)
        fake, real = (self._seen(task, x, side, batch) for side in (fake, real))
        adversary = self.adversary
        parts = adversary.teach(trainer, fake.detach(), real.detach(), number, draws)
        if withheld:
            # all gradients are zero, and still there, as several processes expect
            objective = 0.0 * torch.stack([p.sum() for p in trainable(task.built.model)]).sum()
        else:
            adversary.learns(False)
            parts["adv/G"] = adversarial = adversary.judged(fake, 1.0)
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

    def validate(self, task: "Task", batch: "Batch") -> Step:
        """What the discriminator says of a validation batch: without noise, real labels are 1."""
        loss, x, output, target = task.step(batch)
        if not self.takes_part(task):
            return Step(loss, x, output, target)
        adversary = self.adversary
        adversary.critic.eval()
        scores = [adversary.scores(self._seen(task, x, side, batch)) for side in (output, target)]
        fake, real = adversary.loss_of(scores[0], 0.0), adversary.loss_of(scores[1], 1.0)
        parts = {
            "adv/D/total": fake + real,
            "adv/D/fake": fake,
            "adv/D/real": real,
            "adv/G": adversary.loss_of(scores[0], 1.0),
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
        norms = gradient_norms(self.adversary.critic)
        if norms is not None:
            told |= {"grad/adv/first": norms[0], "grad/adv/last": norms[1]}
        deviation = self.deviation(self.batches)
        if deviation:
            told["instance_noise"] = deviation
        return told | {"lr/adv": self.adversary.rate}

    def _told_every(self, interval: int) -> int:
        """Batches between penalties that are told: a multiple of those between penalties."""
        every = self.penalties.r1_interval or self.penalties.slope_interval
        return interval if interval <= every else interval // every * every

    def end_epoch(self, task: "Task") -> None:
        """Step the scheduler."""
        if self.takes_part(task):
            validates = bool(task.trainer.limit_val_batches)
            self.adversary.end_epoch(task.epoch_losses, validates=validates)

    def state(self) -> dict[str, Any]:
        """The discriminator, its optimizer and scheduler, and how far the noise has sunk."""
        state = self.adversary.state()
        state["adversarial"]["batches"] = self.batches
        return state
