"""Optimizers that PyTorch does not have."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from map2map.errors import RecipeError

__all__ = ["AdamP", "KerasAdam"]


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


class AdamP(torch.optim.Optimizer):
    """Adam whose steps do not make the weights of normalized layers grow: Heo et al. (2021).

    Where a norm follows, the length of a weight does not matter, only its direction; momentum
    makes it grow all the same, so that steps turn it less and less. A weight of two axes or more
    whose gradient is about orthogonal to it, in every output channel, or else as a whole, is
    taken for one of these, and the part of its step that is parallel to it is left out
    (algorithm 1 there, and section 3.3 for `delta`).

    Args:
        params: The parameters.
        lr: The learning rate.
        betas: Decay of the moments.
        eps: Added to the root of the second moment, and to lengths.
        weight_decay: Share of a weight that a step takes off it, times ``lr`` (as in AdamW).
        delta: About orthogonal are those whose cosine is below this over the root of their length.
        wd_ratio: What the decay of such weights is multiplied by.
        nesterov: Whether the step looks ahead by one gradient.

    Raises:
        RecipeError: If a number is out of its range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        nesterov: bool = False,
    ) -> None:
        numbers = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "delta": delta}
        for name, value in (numbers | {"wd_ratio": wd_ratio}).items():
            if value < 0:
                raise RecipeError(f"`{name}` is {value}; it must be 0 or positive")
        if not all(0 <= beta < 1 for beta in betas):
            raise RecipeError(f"`betas` are {list(betas)}; both must be at least 0 and below 1")
        defaults: dict[str, Any] = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "delta": delta, "wd_ratio": wd_ratio, "nesterov": nesterov,
        }  # fmt: skip
        super().__init__(params, defaults)

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
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        first, second = state["exp_avg"], state["exp_avg_sq"]
        (b1, b2), taken = group["betas"], int(state["step"])
        first.lerp_(grad, 1 - b1)
        second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        root = (second.sqrt() / math.sqrt(1 - b2**taken)).add_(group["eps"])
        step = (first.lerp(grad, 1 - b1) if group["nesterov"] else first) / root
        decay = group["lr"] * group["weight_decay"]
        if p.ndim > 1:
            step, found = _tangential(p, grad, step, group["delta"], group["eps"])
            if decay:
                p.mul_(1 - decay * torch.where(found, group["wd_ratio"], 1.0).to(p.dtype))
        elif decay:
            p.mul_(1 - decay)
        p.add_(step, alpha=-group["lr"] / (1 - b1**taken))


def _tangential(
    p: Tensor, grad: Tensor, step: Tensor, delta: float, eps: float
) -> tuple[Tensor, Tensor]:
    """A step without its part along the weight, if the weight is one whose length is free.

    Chosen on the device by masks, so that the processor does not wait for a GPU at every tensor.

    Returns:
        The step; and whether the weight is such a one, a scalar.
    """
    chosen, found = step, torch.zeros((), dtype=torch.bool, device=p.device)
    # each output channel by itself, or else the whole
    for rows in (len(p), 1):
        weight, slope, move = (t.reshape(rows, -1) for t in (p, grad, step))
        length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
        product = (weight * slope).sum(1, keepdim=True).abs()
        steepness = torch.linalg.vector_norm(slope, dim=1, keepdim=True)
        cosine = product / ((length + eps) * (steepness + eps))
        free = cosine.max() < delta / math.sqrt(weight.shape[1])
        along = weight / (length + eps)
        tangent = move - along * (along * move).sum(1, keepdim=True)
        chosen = torch.where(free & ~found, tangent.reshape(p.shape), chosen)
        found = found | free
    return chosen, found
