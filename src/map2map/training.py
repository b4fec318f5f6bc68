"""Training: how a batch becomes a loss, where that is more than comparing output with target.

A `Task` does the ordinary: normalize, run the network, compare. A way of training replaces this
step, adds losses that epochs tell, and keeps a state of its own, which the states of the training
hold, so that a run that was broken off goes on bit for bit. A task knows no more of it than this.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.footprints import Footprint
from map2map.masked_losses import leaves_out

if TYPE_CHECKING:
    from map2map.batches import Batch
    from map2map.task import Task

__all__ = ["ByItself", "Ordinary", "Step", "Training", "check_known", "check_losses"]


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

    def check_loss(self, loss: nn.Module) -> None:
        """Refuse a loss, or a term of a sum, that this way cannot give what it asks for.

        Args:
            loss: What it asks for: so many draws with ``members``, the emulator with
                ``take_emulator``; see `map2map.losses`.

        Raises:
            RecipeError: If so.
        """

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

    def network_steps(self, task: "Task", batches: float) -> float:
        """In how many of the first so many batches of the training the network is not left so."""
        return batches

    def validate(self, task: "Task", batch: "Batch") -> Step:
        """The same of a validation batch, without gradients."""
        return Step(*task.step(batch))

    def scalars(self, task: "Task", interval: int) -> dict[str, float | dict[str, float]]:
        """What loggers are told after an optimizer step, by tag; called by all processes.

        Args:
            task: What is trained; the number of the batch is ``task.trainer.global_step``.
            interval: Batches between scalars.
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

    def check_loss(self, loss: nn.Module) -> None:
        """Refuse losses of draws and of physical values, and others than the network learns by.

        Raises:
            RecipeError: If it is one.
        """
        name, model = type(loss).__name__, type(self.model).__name__
        if getattr(loss, "members", 1) > 1:
            what = "compares several draws of a network, which it does not make as it learns"
        elif hasattr(loss, "take_emulator"):
            what = "compares physical values, but what it learns by are none"
        elif getattr(self.model, "learns_means", False) and not is_of_mean(loss):
            what = (
                "is not least at the mean of what can be, which it has to learn (a class of one's "
                "own that is so says `of_mean = True`)"
            )
        else:
            return
        raise RecipeError(
            f"{model} learns in its own way, and the loss {name} {what}; use torch.nn.MSELoss, or "
            f"WeightedMSE"
        )

    def begin(self, task: "Task", data: Any) -> None:
        """Refuse targets that are not known everywhere.

        Raises:
            RecipeError: If they are not.
        """
        check_known(data, f"{type(self.model).__name__} learns from all of them")

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


def check_known(data: Any, why: str) -> None:
    """Refuse targets that are not known everywhere.

    Args:
        data: A `map2map.data.FieldData`.
        why: Who needs all of them, for the message.

    Raises:
        RecipeError: If they are not.
    """
    if data.reading.mask:
        raise RecipeError(
            f"data.reading.mask leaves out cells of the target, but {why}; mend the data, or train "
            f"otherwise"
        )


def check_losses(
    way: Training, loss: nn.Module, measures: Mapping[str, nn.Module], *, mask: bool
) -> None:
    """Refuse losses that ask for what the way of training, or the data, do not give.

    Args:
        way: Of training.
        loss: What is learnt by.
        measures: What is told beside it, by name, of one output of each sample.
        mask: Whether targets need not be known everywhere.

    Raises:
        RecipeError: If one is among them.
    """
    for name, measure in measures.items():
        if getattr(measure, "members", 1) > 1:
            raise RecipeError(
                f"the measure {name!r}, a {type(measure).__name__}, compares several draws of a "
                f"network, but measures are of one; leave it out of model.options.measures"
            )
    parts = [*parts_of(loss)]
    for part in parts:
        way.check_loss(part)
    for part in [*parts, *(part for measure in measures.values() for part in parts_of(measure))]:
        if mask and not leaves_out(part):
            raise RecipeError(
                f"data.reading.mask leaves out cells of the target, but the loss "
                f"{type(part).__name__} does not say how they are left out; give its class "
                f"`is_mean = True` if it is a mean over all numbers that is zero where output and "
                f"target agree, or `takes_counts = True` and a third argument of forward: True "
                f"for the numbers that count"
            )


def parts_of(loss: nn.Module) -> Iterator[nn.Module]:
    """A loss, or the terms of a sum."""
    terms = getattr(loss, "terms", None)
    if not isinstance(terms, nn.ModuleList):
        yield loss
        return
    for term in terms:
        yield from parts_of(term)


def is_of_mean(loss: nn.Module) -> bool:
    """Whether a loss is least, over all that a target can be, at its mean."""
    return isinstance(loss, nn.MSELoss) or bool(getattr(loss, "of_mean", False))
