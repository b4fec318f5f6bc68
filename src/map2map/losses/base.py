"""What losses share: those of uncertain outputs, and those that weigh fields."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError, near_names
from map2map.fields import FieldSet, field_channels

__all__ = ["LIMIT", "OUTPUTS", "WeightedFields", "mean_and_log_variance"]

OUTPUTS = 2
"""How many numbers such a network gives for each that it learns: the attribute ``outputs``."""

LIMIT = 20.0
"""Log-variances count as within these bounds: deviations from 5e-5 to 2e4, in the units of the
loss, so that neither a variance nor its inverse overflows."""


def mean_and_log_variance(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a network's output, in single precision at least.

    A log-variance beyond `LIMIT` counts as at it, but has the gradient that it has there, so that
    a network that went astray finds its way back.

    Args:
        output: Shape (batch, 2 channel, *space): means, then natural logarithms of variances.
        target: Shape (batch, channel, *space).

    Raises:
        GeometryError: If the output is not of twice the target's channels.
    """
    expected = (target.shape[0], 2 * target.shape[1], *target.shape[2:]) if target.ndim > 1 else ()
    if tuple(output.shape) != expected:
        raise GeometryError(
            f"the output has shape {tuple(output.shape)}, the target {tuple(target.shape)}; this "
            f"loss needs (batch, 2 channel, *space) for a target of (batch, channel, *space), a "
            f"mean and a log-variance for each number; give the network twice the channels"
        )
    if output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    mean, log_variance = output.chunk(2, dim=1)
    within = log_variance.clamp(-LIMIT, LIMIT).detach()
    # adds zero, and passes the gradient on
    return mean, within + (log_variance - log_variance.detach())


class WeightedFields(nn.Module):
    """A loss that is a sum over fields, each with a weight, of the mean of its errors.

    Args:
        weights: Of the fields, by name.
        channels: Of each field, which are then in the order of the tensor. Not needed in a
            training, which tells the loss its fields.
        told: What else there is to say of how the weights were given.

    Raises:
        RecipeError: If a weight is negative, or all are zero, or there are other numbers of
            channels than weights.
    """

    takes_counts: ClassVar[bool] = True

    def __init__(
        self, weights: Mapping[str, float], channels: Sequence[int] | None, told: str = ""
    ) -> None:
        super().__init__()
        self.weights = dict(weights)
        negative = [name for name, weight in self.weights.items() if not weight >= 0]
        if negative or not any(self.weights.values()):
            raise RecipeError(
                f"weights must be 0 or more, and one of them more than 0, but those of "
                f"{', '.join(negative) or 'all fields'} are {told or self.weights}"
            )
        if channels is not None and len(channels) != len(self.weights):
            raise RecipeError(
                f"`channels` has {len(channels)} numbers, but there are weights of "
                f"{len(self.weights)} fields: {', '.join(self.weights)}"
            )
        self.sizes = {} if channels is None else dict(zip(self.weights, channels, strict=True))

    def take_fields(self, targets: FieldSet) -> None:
        """Find the channels of each weight; a training calls it before its first step.

        Raises:
            RecipeError: If a target has no weight, or there is no such target.
        """
        unknown = [name for name in self.weights if name not in targets.names]
        if unknown:
            raise RecipeError(
                f"the loss weighs {unknown[0]!r}, which is no target"
                f"{near_names(unknown[0], targets.names)}"
            )
        missing = [name for name in targets.names if name not in self.weights]
        if missing:
            raise RecipeError(
                f"the loss has no weight for {', '.join(missing)}; give one for every target, 0 "
                f"for what is not to be learnt"
            )
        self.sizes = {field.name: field_channels(field) for field in targets}

    def errors(self, difference: Tensor) -> Tensor:
        """Errors of the same shape."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: Shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all. A field's mean is
                over its own; one without any adds nothing.

        Raises:
            GeometryError: If there are other channels than weights.
            RecipeError: If it was not told which channels are which field's.
        """
        if not self.sizes:
            raise RecipeError(
                f"the loss does not know which channels are those of {', '.join(self.weights)}; "
                f"give it `channels`, or its fields (take_fields)"
            )
        sizes = list(self.sizes.values())
        if output.shape != target.shape or output.shape[1] != sum(sizes):
            raise GeometryError(
                f"the output has shape {tuple(output.shape)}, the target {tuple(target.shape)}, "
                f"but the weights are of {sum(sizes)} channels on axis 1"
            )
        errors = self.errors(output - target)
        # sums in half precision would stop growing
        dtype = torch.promote_types(errors.dtype, torch.float32)
        if counts is None:
            means = [part.mean(dtype=dtype) for part in torch.split(errors, sizes, dim=1)]
        else:
            parts = torch.split(torch.where(counts, errors, 0.0), sizes, dim=1)
            numbers = [known.sum().clamp(min=1) for known in torch.split(counts, sizes, dim=1)]
            means = [part.sum(dtype=dtype) / n for part, n in zip(parts, numbers, strict=True)]
        weights = [self.weights[name] for name in self.sizes]
        loss: Tensor = torch.stack([w * mean for w, mean in zip(weights, means, strict=True)]).sum()
        return loss
