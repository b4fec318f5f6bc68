"""Training: how a batch becomes a loss, where that is more than comparing output with target.

A `Task` does the ordinary: normalize, run the network, compare. A way of training replaces this
step, adds losses that epochs tell, and keeps a state of its own, which the states of the training
hold, so that a run that was broken off goes on bit for bit. A task knows no more of it than this.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint

if TYPE_CHECKING:
    from map2map.batches import Batch
    from map2map.task import Task

__all__ = ["ByItself", "Ordinary", "Step", "Training"]


@dataclass(frozen=True)
class Step:
    """What became of a batch.

    Args:
        loss: Of output and target, a scalar: what epochs tell, and the best epoch is chosen by.
        input: Normalized, (batch, channel, *space).
        output: Likewise, cut to the cells that it has in common with the target; None if there is
            none, because the network learns in another way.
        target: Likewise.
        objective: What the optimizer of the network lowers, if that is not the loss.
        parts: Further losses, by name, of which epochs tell the mean over samples.
        terms: Those of a loss of several, by name; empty: what the loss has ``told`` last.
    """

    loss: Tensor
    input: Tensor
    output: Tensor | None
    target: Tensor
    objective: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    terms: Mapping[str, Tensor | float] = field(default_factory=dict)


class Training(ABC):
    """A way of training; what a subclass does not say is as in an ordinary one.

    Attributes:
        groups: Names in front of those of parts that belong into one diagram, such as "adv/D" of
            "adv/D/fake" and "adv/D/real".
        forgets_best: Whether the best epoch so far was of a training of another kind, so that it no
            longer counts; `load` finds out.
        teaches_itself: Whether the network learns without its output being compared; it gets the
            targets of all cells that it reads of the inputs.
    """

    groups: ClassVar[tuple[str, ...]] = ()
    forgets_best: bool = False
    teaches_itself: ClassVar[bool] = False

    def footprint(self, own: Footprint) -> Footprint:
        """What halos are computed for, if a step needs to read more than the network's own.

        Args:
            own: The network's.
        """
        return own

    def begin(self, task: "Task", data: Any) -> None:
        """Get ready, once the emulator is made and crops are known; writes nothing.

        Args:
            task: What is trained.
            data: The `map2map.data.FieldData`.

        Raises:
            M2MError: If this way of training does not suit them.
        """

    def load(self, state: Mapping[str, Any], path: Path, *, strict: bool) -> None:
        """Take up what `state` has put into a state; called after `begin`, before `start`.

        Args:
            state: All of it, perhaps of a training of another kind, or of map2map's.
            path: Its file, for messages.
            strict: Whether all weights have to be there.

        Raises:
            ArtefactError: If it is of something else.
        """

    def start(self, task: "Task") -> None:
        """Go to the task's device, and make optimizers; just before the first step."""

    @abstractmethod
    def step(self, task: "Task", batch: "Batch") -> Step:
        """A training step up to the objective, of which the trainer takes the gradient.

        ``Step(*task.step(batch))`` is the ordinary one.
        """

    def withholds_step(self, task: "Task") -> bool:
        """Whether the coming step leaves the network as it is; asked just before it is done."""
        return False

    def validate(self, task: "Task", batch: "Batch") -> Step:
        """The same of a validation batch, without gradients."""
        return Step(*task.step(batch))

    def scalars(self, task: "Task", interval: int) -> dict[str, float | dict[str, float]]:
        """What loggers are told after an optimizer step, by tag; called by all processes.

        Args:
            task: What is trained; the step is ``task.trainer.global_step``.
            interval: Optimizer steps between scalars.
        """
        return {}

    def end_epoch(self, task: "Task") -> None:
        """Step schedulers; the epoch's losses are in ``task.epoch_losses``."""

    def state(self) -> dict[str, Any]:
        """What resuming needs, tensors and numbers, to stand in the state beside the task's."""
        return {}


class Ordinary(Training):
    """The loss compares output and target."""

    def step(self, task: "Task", batch: "Batch") -> Step:
        """A step."""
        return Step(*task.step(batch))


class ByItself(Training):
    """The network has a method ``learn(x, y, compare)`` that tells the loss.

    One that takes styles is given them, normalized, as a fourth argument.

    It takes normalized inputs and targets of the same cells and what compares two tensors, and may
    state a ``learning_footprint``, if that differs from what it sees when it is applied.

    Args:
        model: The network.
    """

    teaches_itself: ClassVar[bool] = True

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def footprint(self, own: Footprint) -> Footprint:
        """That of learning."""
        found = getattr(self.model, "learning_footprint", own)
        assert isinstance(found, Footprint)
        return found

    def begin(self, task: "Task", data: Any) -> None:
        """Refuse targets that are not known everywhere.

        Raises:
            RecipeError: If they are not.
        """
        if data.reading.mask:
            raise RecipeError(
                f"data.reading.mask leaves out cells of the target, but "
                f"{type(self.model).__name__} learns from all of them; mend the data"
            )

    def step(self, task: "Task", batch: "Batch") -> Step:
        """A step without output."""
        x, y = task.normalized(batch)
        learn: Any = self.model.learn
        compare = lambda a, b: task.compared(task.loss, a, b, batch)  # noqa: E731
        loss = learn(x, y, compare, *task.style_arguments(x.dtype))
        return Step(loss, x, None, y)

    def validate(self, task: "Task", batch: "Batch") -> Step:
        """Likewise."""
        return self.step(task, batch)
