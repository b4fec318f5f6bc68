"""Errors in units of the target, sample by sample."""

from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["RelativeL2"]


class RelativeL2(nn.Module):
    """``mean over samples of |output - target| / |target|``, with norms over channels and cells.

    So samples of small and of large values count alike. It is the relative error of physical values
    where norms of targets only scale them (`Scale`); one that shifts them, as `Standardize`,
    changes what the error is relative to. A target that is zero everywhere counts as if of norm 1.
    """

    takes_counts: ClassVar[bool] = True

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: Shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all. A sample without
                any is left out of the mean.
        """
        error, known = output - target, target
        if counts is not None:
            error, known = (torch.where(counts, part, 0.0) for part in (error, target))
        # squares in half precision would lose what is small
        dtype = torch.promote_types(error.dtype, torch.float32)
        size, scale = (
            torch.linalg.vector_norm(part.flatten(1), dim=1, dtype=dtype) for part in (error, known)
        )
        relative = size / torch.where(scale > 0, scale, 1.0)
        samples: Tensor | int = len(relative)
        if counts is not None:
            samples = counts.flatten(1).any(dim=1).sum().clamp(min=1)
        loss: Tensor = relative.sum() / samples
        return loss
