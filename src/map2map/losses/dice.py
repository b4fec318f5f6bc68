"""How little two shapes overlap."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError

__all__ = ["Dice"]


class Dice(nn.Module):
    """``1 - (2 sum(o t) + eps) / (sum(o^2) + sum(t^2) + eps)`` of all numbers of a batch.

    0 where both are the same, 1 where nothing that one has is where the other has something; for
    fields that are 0 in most cells (Milletari et al. 2016, arXiv:1606.04797, eq. 3). map2map's
    DiceLoss.

    Args:
        eps: Keeps the quotient finite where both are 0, and calls two empty fields equal.

    Raises:
        RecipeError: If it is negative.
    """

    takes_counts: ClassVar[bool] = True

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        if not eps >= 0:
            raise RecipeError(f"`eps` is {eps}; it must be 0 or positive")
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare two tensors of one shape.

        Args:
            output: Of any shape.
            target: Likewise.
            counts: True for the numbers of the target that count; default: all.
        """
        if counts is not None:
            output, target = (torch.where(counts, values, 0.0) for values in (output, target))
        both = 2 * (output * target).sum() + self.eps
        each = output.square().sum() + target.square().sum() + self.eps
        return 1 - both / each
