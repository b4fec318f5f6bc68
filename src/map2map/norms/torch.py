"""Exponentials and logarithms, under map2map's names; all are undone exactly."""

import torch
from torch import Tensor

from map2map.norms.base import Norm

__all__ = ["Exp", "Expm1", "Log", "Log1p"]


class Exp(Norm):
    """``exp(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Exponential."""
        return torch.exp(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Logarithm."""
        return torch.log(y)


class Log(Norm):
    """``log(x + eps)``, for values that are not negative.

    Args:
        eps: Keeps zero finite; the inverse subtracts it again [units of the field].
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Logarithm."""
        return torch.log(x + self.eps)

    def inverse(self, y: Tensor) -> Tensor:
        """Exponential."""
        return torch.exp(y) - self.eps


class Expm1(Norm):
    """``exp(x) - 1``."""

    def forward(self, x: Tensor) -> Tensor:
        """Exponential, less 1."""
        return torch.expm1(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Logarithm of 1 + y."""
        return torch.log1p(y)


class Log1p(Norm):
    """``log(1 + x + eps)``.

    Args:
        eps: Keeps -1 finite; the inverse subtracts it again [units of the field].
    """

    def __init__(self, eps: float = 1e-7) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Logarithm of 1 + x."""
        return torch.log1p(x + self.eps)

    def inverse(self, y: Tensor) -> Tensor:
        """Exponential, less 1."""
        return torch.expm1(y) - self.eps
