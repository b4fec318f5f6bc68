"""The logarithm of a density."""

from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.losses.physical import PhysicalLoss
from map2map.masked_losses import counted_loss

__all__ = ["LogDensity"]


class LogDensity(PhysicalLoss):
    """Compares logarithms of a density, or another positive quantity, in physical values.

    Of ``asinh(rho / 2 floor)``, which is ``log(rho / floor)`` but for ``(floor / rho)^2`` where rho
    is well above the floor, and a straight line below it: outputs that are zero or negative have a
    loss and a gradient, too.

    Args:
        field: The target that is compared; not needed if there is one.
        offset: What is added to the field to make it a density: 1 to an overdensity.
        floor: Densities below it count little, in the units of the field; 0.01 of the mean, say.
        criterion: Compares the two; by default the mean squared error.
    """

    def __init__(
        self,
        field: str | None = None,
        *,
        offset: float = 0.0,
        floor: float = 0.01,
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__(field)
        if not floor > 0:
            raise RecipeError(f"`floor` is above 0, not {floor}")
        self.offset, self.floor, self.criterion = offset, floor, criterion or nn.MSELoss()

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: All targets as they came out, normalized, shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all.
        """
        self.check_alike(output, target)
        logs = [
            ((self.physical(values, self.name) + self.offset) / (2 * self.floor)).asinh()
            for values in (output, target)
        ]
        known = None if counts is None else counts[:, self.channels(self.name)]
        return counted_loss(self.criterion, logs[0], logs[1], known)
