"""A sum of losses."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError, near_names
from map2map.fields import FieldSet
from map2map.losses.physical import PhysicalLoss
from map2map.masked_losses import counted_loss

__all__ = ["WeightedSum"]


class WeightedSum(nn.Module):
    """``sum_i w_i L_i`` of named losses.

    What each of them was, before its weight, is told after every epoch as a measure, ``loss_NAME``.

    Args:
        terms: The losses, by name.
        weights: Of them, by name; 1 of those that have none here. A term of weight 0 is told, but
            not learnt.
        fields: Of some terms the one target that they compare, all if not given. A loss that has
            an argument ``field`` is told there.

    Raises:
        RecipeError: If there are no terms, names do not fit, a weight is negative or all are zero,
            terms need networks of different outputs, or one compares several draws of a network.
    """

    takes_counts: ClassVar[bool] = True

    def __init__(
        self,
        terms: dict[str, nn.Module],
        weights: dict[str, float] | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise RecipeError("a weighted sum has one term at least: terms: {NAME: a loss}")
        for key, given in (("weights", weights), ("fields", fields)):
            for name in given or {}:
                if name not in terms:
                    raise RecipeError(
                        f"`{key}` of the sum name {name!r}, which is no term"
                        f"{near_names(name, terms)}"
                    )
        self.weights = dict.fromkeys(terms, 1.0) | dict(weights or {})
        negative = [name for name, weight in self.weights.items() if not weight >= 0]
        if negative or not any(self.weights.values()):
            raise RecipeError(
                f"weights must be 0 or more, and one of them more than 0, but those of "
                f"{', '.join(negative) or 'all terms'} are {self.weights}"
            )
        outputs = outputs_of(terms)
        self.fields = dict(fields or {})
        for name in self.fields:
            if isinstance(terms[name], PhysicalLoss) or outputs[name] > 1:
                raise RecipeError(
                    f"the term {name!r}, a {type(terms[name]).__name__}, compares one field by "
                    f"itself; give it `field`, or leave it out of `fields`"
                )
        self.outputs = outputs[next(iter(terms))]
        # a list, because names of modules may have no dots
        self.names, self.terms = tuple(terms), nn.ModuleList(terms.values())
        self._slices: dict[str, slice] = {}
        self.told = dict.fromkeys(self.names, torch.tensor(0.0))

    def _each(self, hook: str) -> Iterator[Any]:
        """The methods of this name that terms have."""
        for term in self.terms:
            if callable(method := getattr(term, hook, None)):
                yield method

    def take_fields(self, targets: FieldSet) -> None:
        """Find the channels of terms of one field, and tell those that want to know.

        Raises:
            RecipeError: If there is no such target.
        """
        for name, field in self.fields.items():
            if field not in targets.names:
                raise RecipeError(
                    f"the term {name!r} compares {field!r}, which is no target"
                    f"{near_names(field, targets.names)}"
                )
            self._slices[name] = targets.slices[field]
        for take in self._each("take_fields"):
            take(targets)

    def take_emulator(self, emulator: Any) -> None:
        """Tell terms that want to know."""
        for take in self._each("take_emulator"):
            take(emulator)

    def take_shape(self, shape: Sequence[int] | None) -> None:
        """Tell terms that want to know."""
        for take in self._each("take_shape"):
            take(shape)

    def take_styles(self, style: Tensor | None) -> None:
        """Tell terms that want to know."""
        for take in self._each("take_styles"):
            take(style)

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: Shape (batch, channel, *space).
            target: Of the same shape, or as its terms take it.
            counts: True for the numbers of the target that count; default: all.

        Raises:
            RecipeError: If it was not told which channels are which field's.
        """
        if len(self._slices) < len(self.fields):
            raise RecipeError(
                f"the sum does not know which channels are those of "
                f"{', '.join(self.fields.values())}; tell it the fields (take_fields)"
            )
        loss = output.new_zeros(())
        for name, term in zip(self.names, self.terms, strict=True):
            mine = (slice(None), self._slices[name]) if name in self._slices else ...
            known = None if counts is None else counts[mine]
            value = counted_loss(term, output[mine], target[mine], known)
            self.told[name] = value.detach()
            if self.weights[name]:
                loss = loss + self.weights[name] * value
        return loss


def outputs_of(terms: dict[str, nn.Module]) -> dict[str, int]:
    """How many outputs for each number the terms of a sum need, by name; all as many.

    Raises:
        RecipeError: If they need others, or one compares several draws of a network.
    """
    for name, term in terms.items():
        if getattr(term, "members", 1) > 1:
            raise RecipeError(
                f"the term {name!r}, a {type(term).__name__}, compares several draws of a "
                f"network, which a sum does not share out to its terms; use it by itself"
            )
    outputs = {name: int(getattr(term, "outputs", 1)) for name, term in terms.items()}
    if len(set(outputs.values())) > 1:
        raise RecipeError(
            f"the terms of a sum need as many outputs for each number, but need {outputs}"
        )
    return outputs
