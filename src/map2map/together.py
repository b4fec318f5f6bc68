"""What processes that train together do with tensors that no strategy of Lightning's knows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["average_gradients", "of_all", "share_first", "share_of"]


def share_first(tensors: list[Tensor]) -> None:
    """Give all processes what the first one has."""
    if torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor.data, 0)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give all processes the mean of their gradients."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not torch.distributed.is_initialized() or not grads:
        return
    flat = torch.cat([grad.flatten() for grad in grads])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    for grad, mean in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def of_all(mine: Any) -> list[Any]:
    """What every process gives, by rank."""
    if not torch.distributed.is_initialized():
        return [mine]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, mine)
    return found


def share_of(rank: int, processes: int, states: Sequence[Any]) -> Any:
    """What a process goes on from, of the sums that each one had.

    Args:
        rank: Of the process.
        processes: How many there are now; of another number than there were, the first goes on from
            the sums over all, the others from nothing.
        states: What `of_all` gave: numbers or tensors, in lists or dictionaries.
    """
    return states[rank] if len(states) == processes else added(states, int(rank == 0))


def added(states: Sequence[Any], times: int) -> Any:
    """The sums over states, so many times."""
    first = states[0]
    if isinstance(first, dict):
        return {key: added([state[key] for state in states], times) for key in first}
    if isinstance(first, list):
        return [added(each, times) for each in zip(*states, strict=True)]
    return times * sum(states)
