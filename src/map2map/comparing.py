"""Comparing outputs with targets: the loss of a batch, and what losses are told for it."""

from collections.abc import Sequence

from torch import Tensor, nn

from map2map.batches import Batch
from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field
from map2map.masked_losses import masked_loss
from map2map.runs import Runs

__all__ = ["check_reduced", "compared", "default_loss", "tell_losses"]


def compared(
    compare: nn.Module, output: Tensor, y: Tensor, batch: Batch, style: Tensor | None
) -> Tensor:
    """What a loss says of output and target, where the target is known.

    Args:
        compare: The loss.
        output: Normalized, shape (batch, channel, *space).
        y: Normalized targets, as the loss takes them.
        batch: Which they are of.
        style: Physical styles of its samples, shape (batch, style_chan); None without any.

    Raises:
        RecipeError: If it does not compare tensors.
    """
    runs = batch.dataset.runs
    same = runs.domain.same_shape
    whole = tuple(runs.scale_factor * n for n in runs.shape) if same else None
    for hook, what in (("take_styles", style), ("take_shape", whole)):
        take = getattr(compare, hook, None)
        if take is not None:
            take(what)
    try:
        masked = batch.dataset.allow_nonfinite
        loss: Tensor = masked_loss(compare, output, y) if masked else compare(output, y)
    except TypeError as error:
        raise RecipeError(
            f"the loss {type(compare).__name__} does not compare an output with a target: {error}"
        ) from error
    return loss


def tell_losses(losses: Sequence[nn.Module], emulator: Emulator, runs: Runs) -> None:
    """Tell losses what they want to know of fields and grids; see `map2map.losses`."""
    for compare in losses:
        for hook, what in (("take_fields", runs.targets), ("take_emulator", emulator)):
            take = getattr(compare, hook, None)
            if take is not None:
                take(what)


def default_loss(targets: list[Field]) -> nn.Module:
    """The loss of a task that names none.

    Raises:
        RecipeError: If labels of two classes and others are learnt together.
    """
    kinds = {len(field.classes or ()) for field in targets}
    if kinds == {0}:
        return nn.MSELoss()
    if kinds == {2}:
        return nn.BCEWithLogitsLoss()
    if len(targets) == 1:
        return nn.CrossEntropyLoss()
    raise RecipeError(
        f"{', '.join(field.name for field in targets)} have no common loss: name one that compares "
        f"tensors of shape (batch, channel), or learn one of them"
    )


def check_reduced(output: Tensor, y: Tensor, emulator: Emulator) -> None:
    """Refuse a network that does not give numbers for the whole.

    Raises:
        GeometryError: If its output has another shape than the labels and parameters.
    """
    if output.shape != (len(y), emulator.outputs * y.shape[1]):
        raise GeometryError(
            f"{', '.join(emulator.targets.names)} are {y.shape[1]} numbers for each sample, but "
            f"the network {type(emulator.model).__name__} gives shape {tuple(output.shape[1:])}; "
            f"use one that reduces its input to numbers, as Racoon and ResNet do"
        )
