"""The Dice loss: what two fields do not share."""

from torch import Tensor, nn

from map2map.errors import RecipeError

__all__ = ["Dice"]


class Dice(nn.Module):
    """``1 - (2 sum ab + eps) / (sum a^2 + sum b^2 + eps)``, the sums over all numbers (map2map's).

    Zero where both are the same; 1 where they are orthogonal. Made for shares, such as those of
    cells in objects (Milletari et al. 2016, arXiv:1606.04797, eq. 3).

    Args:
        eps: Keeps 0/0 finite, and calls two empty fields equal.

    Raises:
        RecipeError: If it is negative.
    """

    def __init__(self, eps: float = 0.0) -> None:
        super().__init__()
        if not eps >= 0:
            raise RecipeError(f"`eps` is {eps}; it must be 0 or positive")
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        shared = 2 * (output * target).sum() + self.eps
        loss: Tensor = 1 - shared / (output.square().sum() + target.square().sum() + self.eps)
        return loss
