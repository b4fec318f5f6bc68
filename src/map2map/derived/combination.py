"""A sum of fields, each times a number."""

from collections.abc import Mapping, Sequence

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError, RecipeError
from map2map.typing import Array

__all__ = ["Combination"]


class Combination(Derived):
    """``sum_i weight_i field_i``, of fields of the same units.

    Args:
        of: The fields.
        weights: A number for each; default: 1, their sum.
        channels: Of the fields.
    """

    def __init__(
        self, of: list[str], weights: Sequence[float] | None = None, channels: int = 1
    ) -> None:
        self.of, self.channels = list(of), channels
        self.weights = [float(w) for w in (weights or [1.0] * len(self.of))]
        if not self.of or len(self.weights) != len(self.of):
            raise RecipeError(
                f"a combination has a weight for each of its fields, one at least, not {weights} "
                f"for {', '.join(self.of) or 'none'}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields."""
        return tuple(dict.fromkeys(self.of))

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The sum, shape (channels, *space)."""
        for name in self.of:
            if len(values[name]) != self.channels:
                raise FieldError(
                    f"a combination of {self.channels} channels is asked for, but {name!r} has "
                    f"{len(values[name])}; give `channels`"
                )
        first, *others = (
            weight * values[name] for name, weight in zip(self.of, self.weights, strict=True)
        )
        return sum(others, first)
