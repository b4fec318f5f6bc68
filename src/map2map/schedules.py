"""Learning-rate schedules that know how long training takes; others are in torch.optim."""

from math import cos, pi

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from map2map.errors import RecipeError

__all__ = ["WarmupCosine"]


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
