"""Numbers with their uncertainty, from the first two moments alone."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from map2map.losses.base import OUTPUTS, mean_and_log_variance

__all__ = ["MomentLoss"]

SMALLEST = 1e-30
"""Squares are taken relative to the largest error, unless that is smaller yet."""


class MomentLoss(nn.Module):
    """Mean over channels of ``log sum (y - m)^2 + log sum ((y - m)^2 - v)^2``.

    The sums are over the batch. The first is least where m is the mean of what is possible given
    the input, the second where v is its variance, whatever the distribution (Jeffrey & Wandelt
    2020, arXiv:2011.05991: moment networks). Logarithms weigh parameters and moments alike, be
    they of few or many units (Villaescusa-Navarro et al. 2021, arXiv:2109.10360).

    The second sum moves v alone, as if by a network of its own that is trained when the first is;
    else a skewed distribution would draw m away from its mean. The network gives log v, as for
    `GaussianNLL`. Means over batches of another size are not the same: the logarithm is of a sum.
    """

    outputs: ClassVar[int] = OUTPUTS
    takes_counts: ClassVar[bool] = True

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: Shape (batch, 2 channel, *space): means, then log-variances.
            target: Shape (batch, channel, *space).
            counts: True for the numbers of the target that count; default: all. Channels in which
                none does are left out of the mean.

        Raises:
            GeometryError: If the output is not of twice the target's channels.
        """
        mean, log_variance = mean_and_log_variance(output, target)
        error = target - mean
        if counts is None:
            return (log_sum_squares(error) + log_variance_misfit(error, log_variance)).mean()
        # what adds nothing to the sums
        error = torch.where(counts, error, 0.0)
        each = log_sum_squares(error) + log_variance_misfit(error, log_variance, counts)
        known = counts.sum(dim=over(counts)) > 0
        return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


def log_sum_squares(values: Tensor) -> Tensor:
    """``log sum values^2`` per channel, shape (channel,), of squares that may overflow or be 0."""
    largest = values.detach().abs().amax(dim=over(values), keepdim=True).clamp_min(SMALLEST)
    total = (values / largest).square().sum(dim=over(values))
    # where all are smaller than that, zero too, the gradient is zero
    return total.clamp_min(SMALLEST).log() + 2 * largest.flatten().log()


def log_variance_misfit(
    error: Tensor, log_variance: Tensor, counts: Tensor | None = None
) -> Tensor:
    """``log sum (error^2 - v)^2`` per channel, shape (channel,); its gradient moves v alone."""
    error = error.detach()
    # in units in which no square overflows
    largest = error.abs().amax(dim=over(error), keepdim=True)
    unit = torch.maximum(largest, (log_variance.detach().amax(over(error), keepdim=True) / 2).exp())
    variance = (log_variance - 2 * unit.log()).exp()
    misfit = (error / unit).square() - variance
    if counts is not None:
        misfit = torch.where(counts, misfit, 0.0)
    return log_sum_squares(misfit) + 4 * unit.flatten().log()


def over(values: Tensor) -> list[int]:
    """All axes but that of channels."""
    return [axis for axis in range(values.ndim) if axis != 1]
