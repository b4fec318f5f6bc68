"""Absolute errors of several fields, of which some count more than others."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError, near_names
from map2map.fields import FieldSet, field_channels

__all__ = ["WeightedL1"]


class WeightedL1(nn.Module):
    """``sum_v w_v L1(v) + share * sum_s w_s L1(s)``, v on levels and s at the surface.

    L1 is the mean absolute error of a field over samples, its channels and cells, in the units of
    the network, so that weights are of errors in deviations where norms standardize. Pangu-Weather
    learns with the share 0.25 (Bi et al. 2023, "Training details").

    Args:
        weights: Of the fields, by name; in a training all targets need one, here or below.
        surface: Of the fields at the surface.
        surface_share: What those are multiplied by.
        channels: Of each field, first of ``weights`` and then of ``surface``, which are then in the
            order of the tensor. Not needed in a training, which tells the loss its fields.

    Raises:
        RecipeError: If a weight is negative, all are zero, or a name occurs twice.
    """

    takes_counts: ClassVar[bool] = True
    per_channel: Tensor | None
    sizes: tuple[int, ...] = ()

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        surface: Mapping[str, float] | None = None,
        surface_share: float = 0.25,
        channels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        low = dict(surface or {})
        twice = sorted({*weights} & {*low})
        if twice:
            raise RecipeError(f"{', '.join(twice)} have two weights, in `weights` and in `surface`")
        self.weights = dict(weights) | {name: surface_share * w for name, w in low.items()}
        negative = [name for name, weight in self.weights.items() if not weight >= 0]
        if negative or not any(self.weights.values()):
            raise RecipeError(
                f"weights must be 0 or more, and one of them more than 0, but those of "
                f"{', '.join(negative) or 'all fields'} are {dict(weights) | low}, with a "
                f"`surface_share` of {surface_share}"
            )
        self.register_buffer("per_channel", None, persistent=False)
        if channels is not None:
            if len(channels) != len(self.weights):
                raise RecipeError(
                    f"`channels` has {len(channels)} numbers, but there are weights of "
                    f"{len(self.weights)} fields: {', '.join(self.weights)}"
                )
            self._spread(dict(zip(self.weights, channels, strict=True)))

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
        self._spread({field.name: field_channels(field) for field in targets})

    def _spread(self, channels: Mapping[str, int]) -> None:
        """The weight of each channel: its share of that of the mean over a field's."""
        each = [self.weights[name] / n for name, n in channels.items() for _ in range(n)]
        self.sizes = tuple(channels.values())
        self.per_channel = torch.tensor(each, dtype=torch.float64)

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
        if self.per_channel is None:
            raise RecipeError(
                f"the loss does not know which channels are those of {', '.join(self.weights)}; "
                f"give it `channels`, or its fields (take_fields)"
            )
        if output.shape != target.shape or output.shape[1] != len(self.per_channel):
            raise GeometryError(
                f"the output has shape {tuple(output.shape)}, the target {tuple(target.shape)}, "
                f"but the weights are of {len(self.per_channel)} channels on axis 1"
            )
        others = [axis for axis in range(output.ndim) if axis != 1]
        # sums in half precision would stop growing
        dtype = torch.promote_types(output.dtype, torch.float32)
        errors = (output - target).abs()
        per_channel = self.per_channel.to(errors.device, dtype)
        if counts is None:
            loss: Tensor = errors.mean(dim=others, dtype=dtype) @ per_channel
            return loss
        sums = torch.where(counts, errors, 0.0).sum(dim=others, dtype=dtype)
        total = sums.new_zeros(())
        parts = (sums, counts.sum(dim=others), per_channel)
        for some, known, weight in zip(
            *(torch.split(part, list(self.sizes)) for part in parts), strict=True
        ):
            # the channels of a field have one weight, spread over them
            total = total + weight.sum() * some.sum() / known.sum().clamp(min=1)
        return total
