"""Absolute errors of several fields, of which some count more than others."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from map2map.errors import RecipeError
from map2map.losses.base import WeightedFields

__all__ = ["WeightedL1"]


class WeightedL1(WeightedFields):
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

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        surface: Mapping[str, float] | None = None,
        surface_share: float = 0.25,
        channels: Sequence[int] | None = None,
    ) -> None:
        low = dict(surface or {})
        twice = sorted({*weights} & {*low})
        if twice:
            raise RecipeError(f"{', '.join(twice)} have two weights, in `weights` and in `surface`")
        each = dict(weights) | {name: surface_share * w for name, w in low.items()}
        told = f"{dict(weights) | low}, with a `surface_share` of {surface_share}"
        super().__init__(each, channels, told)

    def errors(self, difference: Tensor) -> Tensor:
        """Absolute errors."""
        return difference.abs()
