"""The running average of a network's weights, which is often better than the weights themselves."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """``a += (1 - d) (w - a)`` after every step, of weights and statistics; integers are copied.

    The decay d begins lower, at ``(1 + n) / (10 + n)`` after n steps, so that the first weights are
    soon forgotten. Averages are kept in single precision at least.

    Args:
        model: The network, whose weights are the first average.
        decay: d, near 1: the average is over the last ``1 / (1 - d)`` steps, about.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.updates = model, decay, 0
        self.values = {name: wide(value).clone() for name, value in self._weights()}
        self._own: dict[str, Tensor] = {}

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.model.state_dict().items():
            yield name, value.detach()

    @torch.no_grad()
    def update(self) -> None:
        """Take in what the weights are now."""
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in self._weights():
            mean = self.values[name]
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), share)
            else:
                mean.copy_(value)

    @torch.no_grad()
    def enter(self) -> None:
        """Give the network the average instead of its own weights, which are kept."""
        self._own = {name: value.clone() for name, value in self._weights()}
        for name, value in self._weights():
            value.copy_(self.values[name])

    @torch.no_grad()
    def leave(self) -> None:
        """Give the network its own weights again."""
        for name, value in self._weights():
            if name in self._own:
                value.copy_(self._own[name])
        self._own = {}

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"decay": self.decay, "updates": self.updates, "weights": dict(self.values)}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up a state; the decay is what is asked for now."""
        self.updates = int(state["updates"])
        for name, value in state["weights"].items():
            self.values[name].copy_(value)


def wide(value: Tensor) -> Tensor:
    """In a precision in which small changes count."""
    if value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return value
