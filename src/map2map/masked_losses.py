"""Losses of targets that are not known everywhere: only what is known counts.

To leave numbers out it does not do to compare the output with itself there and to scale the result:
that is right for a mean that is zero where both agree, but not for one that is not zero there, as
cross entropies and likelihoods are, nor for sums, logarithms of sums, or means that weigh some
numbers more. So a loss says how it leaves numbers out:

- one of torch.nn, and any with a ``reduction`` like theirs, is taken number by number;
- one with ``takes_counts = True`` is called with a third argument, True for the numbers that count;
- one with ``is_mean = True`` is a mean over all numbers that is zero where both agree.

Another is refused once numbers are missing.
"""

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError

__all__ = ["counted_loss", "leaves_out", "masked_loss"]


def leaves_out(loss: nn.Module) -> bool:
    """Whether a loss says how it leaves out numbers that are not known."""
    said = getattr(loss, "takes_counts", False) or getattr(loss, "is_mean", False)
    return bool(said) or getattr(loss, "reduction", None) in ("mean", "sum")


def masked_loss(loss: nn.Module, output: Tensor, target: Tensor) -> Tensor:
    """The loss of the numbers of a target that are finite; zero if there are none.

    Args:
        loss: Compares output and target.
        output: Shape (batch, channel, *space), or another that the loss takes.
        target: Shape (batch, channel, *space); NaN or infinite where it is not known.

    Raises:
        RecipeError: If numbers are missing, and the loss does not say how to leave them out.
    """
    return counted_loss(loss, output, target, torch.isfinite(target))


def counted_loss(loss: nn.Module, output: Tensor, target: Tensor, counts: Tensor | None) -> Tensor:
    """The loss of the numbers of a target that count; zero if none do.

    Args:
        loss: Compares output and target.
        output: Shape (batch, channel, *space), or another that the loss takes.
        target: Shape (batch, channel, *space); anything where it does not count.
        counts: True for the numbers of the target that count; default: all.

    Raises:
        RecipeError: If some do not, and the loss does not say how to leave them out.
    """
    about: Any = loss
    found: Tensor
    if counts is None:
        found = loss(output, target)
        return found
    if getattr(loss, "takes_counts", False):
        found = loss(output, torch.where(counts, target, 0.0), counts)
    elif getattr(loss, "is_mean", False):
        mean = loss(output, torch.where(counts, target, output.detach()))
        found = mean * counts.numel() / counts.sum().clamp(min=1)
    elif getattr(loss, "reduction", None) in ("mean", "sum"):
        found = reduced(about, output, torch.where(counts, target, 0.0), counts)
    elif counts.all():
        found = loss(output, target)
    else:
        raise RecipeError(
            f"the target is unknown in {int((~counts).sum())} of {counts.numel()} numbers of a "
            f"batch, and the loss {type(loss).__name__} does not say how they are left out; give "
            f"its class `is_mean = True` if it is a mean over all numbers that is zero where "
            f"output and target agree, or `takes_counts = True` and a third argument of forward: "
            f"True for the numbers that count"
        )
    return found


def reduced(loss: Any, output: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """The sum or mean of a loss of torch.nn over numbers that count.

    Of losses that compare all channels of a cell at once, cells count of which all are known.
    """
    each = copy(loss)
    each.reduction = "none"
    values: Tensor = each(output, target)
    if values.shape != counts.shape and values.shape == counts[:, 0].shape:
        counts = counts.all(dim=1)
    if values.shape != counts.shape:
        raise RecipeError(
            f"the loss {type(loss).__name__} gives numbers of shape {tuple(values.shape)} for a "
            f"target of {tuple(counts.shape)}, so that it is not known which of them count; "
            f"give its class `is_mean = True` if it is a mean over all numbers that is zero where "
            f"output and target agree"
        )
    total = torch.where(counts, values, 0.0).sum()
    return total if loss.reduction == "sum" else total / counts.sum().clamp(min=1)
