"""Squared errors of several fields, of which some count more than others."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from map2map.losses.base import WeightedFields

__all__ = ["WeightedMSE"]


class WeightedMSE(WeightedFields):
    """``sum_v w_v MSE(v)``, the mean squared error of each field, with a weight.

    The mean is over samples, channels and cells, in the units of the network: those of the field if
    it has no norm. So fluxes [W m-2] and heating rates [K d-1] are learnt together, and their
    weights say how much an error of one is worth in the other, (K d-1)^-2 over (W m-2)^-2.

    AI4SIM's networks of radiation learn the net flux and the sum of down and up, whose squared
    errors add up to twice those of down and up. So its losses are this one, with the weights

    - ``w_flux / 2`` for each flux and ``w_hr / 2`` for each of the two heating rates, where it is
      ``w_flux MSE(fluxes) + w_hr MSE(heating rates)``, the means over all of them;
    - 2000 for each flux and 10 000 for each heating rate where it is 1e3 times the sum over the
      combinations of fluxes and 1e4 times that over the heating rates.

    Args:
        weights: Of the fields, by name; in a training all targets need one.
        channels: Of each field, which are then in the order of the tensor. Not needed in a
            training, which tells the loss its fields.

    Raises:
        RecipeError: If a weight is negative, or all are zero.
    """

    of_mean: ClassVar[bool] = True

    def __init__(
        self, weights: Mapping[str, float], *, channels: Sequence[int] | None = None
    ) -> None:
        super().__init__(weights, channels)

    def errors(self, difference: Tensor) -> Tensor:
        """Squared errors."""
        return difference.square()
