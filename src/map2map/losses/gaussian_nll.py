"""Numbers with their uncertainty, from a Gaussian likelihood."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from map2map.losses.base import OUTPUTS, mean_and_log_variance

__all__ = ["GaussianNLL"]


class GaussianNLL(nn.Module):
    """Mean of ``(log v + (y - m)^2 / v) / 2``: minus the log of a Gaussian, less a constant.

    The network gives the mean m and s = log v of every number, so that any s is a variance and the
    loss is ``(s + exp(-s) (y - m)^2) / 2`` (Kendall & Gal 2017, arXiv:1703.04977, eq. 8). The
    constant left out is log(2 pi) / 2 = 0.919.

    Least where m and v are the mean and variance of what is possible given the input.
    """

    outputs: ClassVar[int] = OUTPUTS
    takes_counts: ClassVar[bool] = True

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: Shape (batch, 2 channel, *space): means, then log-variances.
            target: Shape (batch, channel, *space).
            counts: True for the numbers of the target that count; default: all.

        Raises:
            GeometryError: If the output is not of twice the target's channels.
        """
        mean, log_variance = mean_and_log_variance(output, target)
        # the error over the deviation is squared, not the error, which overflows earlier
        scaled = (target - mean) * (-log_variance / 2).exp()
        each = log_variance + scaled.square()
        if counts is None:
            return each.mean() / 2
        return torch.where(counts, each, 0.0).sum() / (2 * counts.sum().clamp(min=1))
