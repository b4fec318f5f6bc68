"""What losses share whose network tells how uncertain each of its outputs is."""

import torch
from torch import Tensor

from map2map.errors import GeometryError

__all__ = ["LIMIT", "OUTPUTS", "mean_and_log_variance"]

OUTPUTS = 2
"""How many numbers such a network gives for each that it learns: the attribute ``outputs``."""

LIMIT = 20.0
"""Log-variances count as within these bounds: deviations from 5e-5 to 2e4, in the units of the
loss, so that neither a variance nor its inverse overflows."""


def mean_and_log_variance(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a network's output, in single precision at least.

    A log-variance beyond `LIMIT` counts as at it, but has the gradient that it has there, so that
    a network that went astray finds its way back.

    Args:
        output: Shape (batch, 2 channel, *space): means, then natural logarithms of variances.
        target: Shape (batch, channel, *space).

    Raises:
        GeometryError: If the output is not of twice the target's channels.
    """
    expected = (target.shape[0], 2 * target.shape[1], *target.shape[2:]) if target.ndim > 1 else ()
    if tuple(output.shape) != expected:
        raise GeometryError(
            f"the output has shape {tuple(output.shape)}, the target {tuple(target.shape)}; this "
            f"loss needs (batch, 2 channel, *space) for a target of (batch, channel, *space), a "
            f"mean and a log-variance for each number; give the network twice the channels"
        )
    if output.dtype in (torch.float16, torch.bfloat16):
        output = output.float()
    mean, log_variance = output.chunk(2, dim=1)
    within = log_variance.clamp(-LIMIT, LIMIT).detach()
    # adds zero, and passes the gradient on
    return mean, within + (log_variance - log_variance.detach())
