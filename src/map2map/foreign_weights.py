"""Weights of a network under other names: put under those of a model, layer by layer, in order.

Two networks of the same layers differ in what their authors called them. What is not a matter of
taste is the kind of every layer (linear, a convolution of some width, a normalization), its shapes,
and the order in which those of a kind act, in which they are also made and saved. So the first
convolution of width 3 gets the weights of the first convolution of width 3, and so on; shapes tell
whether that can be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from map2map.errors import ArtefactError

__all__ = ["Checkpoint", "Kind", "Kinds", "in_order", "layers_of", "read_checkpoint"]

Kind = tuple[int, ...] | str
"""Of a layer: the width of its kernel on each axis, () if it is linear; or "norm"."""

Layer = tuple[str, dict[str, Tensor]]
"""Its name, and its tensors by their own."""

Kinds = Mapping[Kind, list[Layer]]
"""Layers by kind, in their order."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that another tool has written.

    Args:
        weights: Tensors by name.
        rest: What else it holds, by its keys; empty if it is of weights alone.
    """

    weights: dict[str, Tensor]
    rest: Mapping[str, Any]

    @property
    def epoch(self) -> int | None:
        """Epochs done; None if it is not told."""
        epoch = self.rest.get("epoch")
        return epoch if isinstance(epoch, int) else None


def read_checkpoint(path: Path, *, key: str = "state_dict") -> Checkpoint:
    """Read a checkpoint, or a state dict alone, running no code that it may contain.

    Args:
        path: The file.
        key: Of the weights in a checkpoint; the default is Lightning's.

    Raises:
        ArtefactError: If it is missing, damaged, or no checkpoint.
    """
    if not path.is_file():
        raise ArtefactError(f"there is no checkpoint {path}; give a file that ends in .ckpt or .pt")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArtefactError(
            f"{path} is no checkpoint, or is truncated, or holds more than tensors and numbers, "
            f"which is refused because loading it could run code; where you trust it, keep its "
            f"weights alone: torch.save(torch.load(FILE, weights_only=False)[{key!r}], OTHER)"
        ) from error
    whole = isinstance(found, dict) and key in found
    weights = found[key] if whole else found
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        keys = list(map(str, found))[:5] if isinstance(found, dict) else type(found).__name__
        raise ArtefactError(f"{path} has no {key}, but {keys}")
    rest = {str(name): value for name, value in found.items() if name != key} if whole else {}
    return Checkpoint(dict(weights), rest)


def layers_of(weights: Mapping[str, Tensor]) -> Kinds:
    """The layers of a state by kind, in their order.

    Args:
        weights: Tensors by names with dots, those of a layer one after another.
    """
    named: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        layer, _, leaf = name.rpartition(".")
        named.setdefault(layer, {})[leaf] = value
    kinds: dict[Kind, list[Layer]] = {}
    for name, leaves in named.items():
        weight = leaves.get("weight")
        if "running_mean" in leaves or (weight is not None and weight.ndim == 1):
            kind: Kind = "norm"
        else:
            kind = () if weight is None else tuple(weight.shape[2:])
        kinds.setdefault(kind, []).append((name, leaves))
    return kinds


def in_order(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same tensors under the names of a model's.

    Args:
        weights: Of another network, without what is no layer's.
        model: Of the same layers; not changed.

    Raises:
        ArtefactError: If there are more or fewer layers of a kind, or one has other tensors; names
            the first.
    """
    theirs, ours = layers_of(weights), layers_of(model.state_dict())
    renamed: dict[str, Tensor] = {}
    for kind in {**ours, **theirs}:
        there, here = theirs.get(kind, []), ours.get(kind, [])
        if len(there) != len(here):
            raise ArtefactError(
                f"there are {len(there)} layers of the kind {told(kind)} "
                f"({', '.join(name for name, _ in there[:3]) or 'none'}), but a "
                f"{type(model).__name__} of these sizes has {len(here)}"
            )
        for (name, found), (own, expected) in zip(there, here, strict=True):
            shapes = {leaf: tuple(value.shape) for leaf, value in found.items()}
            wanted = {leaf: tuple(value.shape) for leaf, value in expected.items()}
            if shapes != wanted:
                raise ArtefactError(
                    f"{name or 'a layer without a name'} has {shapes}, but as the layer {own} of a "
                    f"{type(model).__name__} it would have {wanted}"
                )
            renamed |= {f"{own}.{leaf}": value for leaf, value in found.items()}
    return renamed


def told(kind: Kind) -> str:
    """A kind in words."""
    if isinstance(kind, str):
        return "normalization"
    return f"convolution {' x '.join(map(str, kind))}" if kind else "linear"
