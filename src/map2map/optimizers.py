"""Optimizers that PyTorch does not have."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from map2map.errors import RecipeError

__all__ = ["KerasAdam"]


class KerasAdam(torch.optim.Adam):
    """Adam as Keras has it, with gradients clipped tensor by tensor.

    The step is ``lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)``, Kingma and Ba (2015),
    section 2 ("epsilon hat"), where PyTorch divides ``sqrt(v)`` by ``sqrt(1 - b2^t)`` before it
    adds ``eps``: with gradients about as small as ``eps``, Keras's first steps are much smaller.

    Args:
        params: The parameters.
        lr: The learning rate.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
        clip_norm: Each gradient tensor is scaled down to this norm; 0: not at all.
        l2: Weight of the sum of squared kernels of convolutions, but for the last one, in the loss.

    Raises:
        RecipeError: If ``clip_norm`` or ``l2`` is negative.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        clip_norm: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        for name, value in (("clip_norm", clip_norm), ("l2", l2)):
            if value < 0:
                raise RecipeError(f"`{name}` is {value}; it must be 0 (off) or positive")
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)
        self.eps, self.clip_norm, self.l2 = eps, clip_norm, l2
        every: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        self._kernels = [p for p in every if p.ndim > 2][:-1]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: Computes the loss and its gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.l2:
            for kernel in self._kernels:
                if kernel.grad is not None:
                    kernel.grad.add_(kernel, alpha=2 * self.l2)
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            if self.clip_norm:
                for p in with_grad:
                    norm = torch.linalg.vector_norm(p.grad)
                    p.grad.mul_(self.clip_norm / norm.clamp(min=self.clip_norm))
            taken = max((int(self.state[p]["step"]) for p in with_grad if self.state[p]), default=0)
            # what PyTorch has to add for the same step
            group["eps"] = self.eps / math.sqrt(1 - group["betas"][1] ** (taken + 1))
        super().step()
        return loss
