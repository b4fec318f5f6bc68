"""How learning rates change: when a scheduler steps, and one that knows how long training takes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from map2map.errors import ArtefactError, FieldError, RecipeError

__all__ = ["OptimizerFactory", "Schedule", "Scheduler", "WarmupCosine", "check_class"]

Scheduler = LRScheduler | ReduceLROnPlateau
OptimizerFactory = Callable[[Any], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes.

    Args:
        scheduler: A scheduler of torch.optim.lr_scheduler.
        interval: Whether it steps after every epoch or every optimizer step.
        monitor: The loss that ReduceLROnPlateau watches; by default that of the validation split
            if there is one, else of the training split.
    """

    scheduler: SchedulerFactory | None = None
    interval: Literal["epoch", "step"] = "epoch"
    monitor: Literal["train", "val"] | None = None

    def make(self, optimizer: Optimizer, steps: Callable[[], float]) -> Scheduler | None:
        """The scheduler of an optimizer, if there is one.

        Args:
            optimizer: The optimizer.
            steps: Tells how many steps the training takes.

        Raises:
            RecipeError: If it has to be known how many those are, and they have no end, or are not
                those that the scheduler takes.
        """
        if self.scheduler is None:
            return None
        made = self.scheduler(optimizer)
        if isinstance(made, WarmupCosine) and made.total_steps is None:
            if self.interval != "step":
                raise RecipeError(
                    "WarmupCosine changes the rate from step to step: say `interval: step` beside "
                    "the scheduler, or give it total_steps, counted in epochs"
                )
            asked = steps()
            if not isfinite(asked):
                raise RecipeError(
                    "WarmupCosine spreads the rates over the training, but nothing says how many "
                    "steps that takes; give trainer.max_epochs, trainer.max_steps, or total_steps "
                    "of the scheduler"
                )
            made.spread(int(asked))
        return made

    def with_optimizer(
        self,
        make: OptimizerFactory,
        weights: Iterable[nn.Parameter],
        steps: Callable[[], float],
        of: str = "",
    ) -> tuple[Optimizer, Scheduler | None]:
        """An optimizer, and its scheduler.

        Args:
            make: Makes the optimizer.
            weights: What it changes.
            steps: Tells how many steps it takes.
            of: Whose it is, for messages.

        Raises:
            RecipeError: If they cannot be made.
        """
        try:
            optimizer = make(weights)
            return optimizer, self.make(optimizer, steps)
        except (ValueError, TypeError) as error:
            raise RecipeError(
                f"the optimizer{of} or its schedule cannot be made: {error}"
            ) from error

    def after_step(self, scheduler: Scheduler | None) -> None:
        """Step what steps along with the optimizer."""
        if self.interval == "step" and isinstance(scheduler, LRScheduler):
            scheduler.step()

    def after_epoch(
        self, scheduler: Scheduler | None, losses: Mapping[str, float], *, validates: bool
    ) -> None:
        """Step what steps from epoch to epoch.

        Args:
            scheduler: What `make` has made.
            losses: Of the epoch, by split; not every epoch need be validated.
            validates: Whether there is validation at all.

        Raises:
            FieldError: If a loss is to be watched that there is not.
        """
        if isinstance(scheduler, ReduceLROnPlateau):
            watched = self.monitor or ("val" if validates else "train")
            if watched == "val" and not validates:
                raise FieldError("the schedule monitors 'val', but there is no validation split")
            if watched in losses:
                scheduler.step(losses[watched])
        elif scheduler is not None and self.interval == "epoch":
            scheduler.step()


def check_class(optimizer: Optimizer, known: str | None, path: Path, of: str = "") -> None:
    """Refuse to go on with an optimizer of another class.

    Args:
        optimizer: The one there is.
        known: The class of that in a state; None if it is not told.
        path: Of the state.
        of: Whose it is, for messages.

    Raises:
        ArtefactError: If it is another.
    """
    now = type(optimizer).__name__
    if known not in (None, now):
        raise ArtefactError(
            f"{path} was trained with the optimizer {known}{of}, not {now}; go on with the same, "
            f"or start anew with output.resume: never"
        )


class WarmupCosine(LRScheduler):
    """Linear warm-up to the optimizer's rate, then half a cosine down to ``final`` times it.

    Use it with ``interval: step``. How many steps there are is filled in by the trainer.

    Args:
        optimizer: The optimizer.
        warmup: Share of all steps that the warm-up takes.
        final: The last rate, as a share of the optimizer's.
        total_steps: Steps in all; if not given, those of the training.
        last_epoch: Steps done before; for PyTorch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 0.05,
        final: float = 0.0,
        total_steps: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup < 1:
            raise RecipeError(f"the warm-up takes a share of the steps below 1, not {warmup}")
        self.warmup, self.final, self.total_steps = warmup, final, total_steps
        super().__init__(optimizer, last_epoch)

    def spread(self, total_steps: int) -> None:
        """Take so many steps in all, from the first one on."""
        self.total_steps = total_steps
        # PyTorch has set the rate of the first step when the schedule was made
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state, with the steps of this training: it may be longer than that was."""
        total_steps = self.total_steps
        super().load_state_dict(state_dict)
        if total_steps is not None:
            self.spread(total_steps)

    def share(self, step: int) -> float:
        """The rate after so many steps, as a share of the optimizer's."""
        total = self.total_steps or 1
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        done = min(1.0, (step - rising) / max(1.0, total - rising))
        return self.final + (1 - self.final) * (1 + cos(pi * done)) / 2

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the optimizer's groups."""
        return [rate * self.share(self.last_epoch) for rate in self.base_lrs]
