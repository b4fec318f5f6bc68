"""The logarithm of the hyperbolic cosine of the error."""

import math
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LogCosh"]


class LogCosh(nn.Module):
    """Mean of ``log(cosh(error))``: squared for small errors, absolute for large ones."""

    is_mean: ClassVar[bool] = True

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        error = output - target
        # the same, without the cosine's overflow
        loss: Tensor = (error + F.softplus(-2 * error) - math.log(2)).mean()
        return loss
