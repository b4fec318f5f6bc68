"""Styles of one run: from what is given by name to what an engine runs.

An engine runs a network of one argument. A style is the same in all cells of a run, so an emulator
is bound to it: where the network can, its convolutions become those that they are for this style,
and run as fast as any other.
"""

import copy
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from map2map.errors import FieldError, near_names
from map2map.fields import FieldSet

__all__ = [
    "Stylish",
    "bound",
    "outside",
    "style_attributes",
    "style_of",
    "warn_outside",
    "with_any_style",
]

log = logging.getLogger(__name__)


class Stylish(Protocol):
    """What has styles: an emulator."""

    styles: FieldSet
    style_range: dict[str, list[float]]


def style_of(emulator: Stylish, given: Mapping[str, Any]) -> dict[str, float]:
    """The styles among what is given by name, in the order of the emulator's.

    Args:
        emulator: Whose styles.
        given: Numbers, or arrays of one; all else is left alone.

    Raises:
        FieldError: If one is missing or no finite number.
    """
    found = {}
    for field in emulator.styles:
        if field.name not in given:
            ranges = emulator.style_range.get(field.name)
            learnt = f"; it was trained from {ranges[0]:g} to {ranges[1]:g}" if ranges else ""
            raise FieldError(
                f"the emulator takes the style {field.name!r} [{field.units}], a number of the "
                f"run, which is not given{learnt}{near_names(field.name, map(str, given))}"
            )
        value = given[field.name]
        value = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if value.size != 1 or value.dtype.kind not in "fiub" or not np.isfinite(value).all():
            raise FieldError(
                f"the style {field.name!r} is one finite number of the run, not "
                f"{value.tolist() if value.size <= 1 else f'an array of shape {value.shape}'}"
            )
        found[field.name] = float(value.reshape(()))
    return found


def outside(emulator: Stylish, values: Mapping[str, float]) -> list[str]:
    """In words, the styles that lie outside the range of the training."""
    found = []
    for name, value in values.items():
        low, high = emulator.style_range.get(name, (-np.inf, np.inf))
        # files hold float32
        slack = 1e-6 * max(abs(low), abs(high)) if np.isfinite([low, high]).all() else 0.0
        if not low - slack <= value <= high + slack:
            found.append(f"{name} = {value:g} is outside the training's {low:g} to {high:g}")
    return found


def warn_outside(emulator: Stylish, rows: Iterable[Mapping[str, float]]) -> None:
    """Warn of styles outside the range of the training, once of each value."""
    for text in dict.fromkeys(text for row in rows for text in outside(emulator, row)):
        log.warning("%s; what the emulator gives there was never tested", text)


def style_attributes(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What a file says of the styles of what it holds, if they are the same in all of it.

    >>> style_attributes([{"z": 0.5}]), style_attributes([{"z": 1 / 3}, {"z": 1.0}])
    ({'style_z': '0.5'}, {})
    """
    if any(row != rows[0] for row in rows):
        return {}
    return {f"style_{name}": repr(value).removesuffix(".0") for name, value in rows[0].items()}


def bound(emulator: nn.Module, values: Mapping[str, float]) -> nn.Module:
    """An emulator for the styles of one run, a module of physical inputs alone.

    Args:
        emulator: The emulator, not changed; itself if it has no styles.
        values: Its styles by name.
    """
    if not values:
        return emulator
    for_run = getattr(emulator, "for_run", None)
    if for_run is not None:
        return cast(nn.Module, for_run(values))
    model = emulator.model
    style = row_of(emulator, values)
    settle = getattr(model, "settled", None)
    if settle is None:
        return Constant(emulator, style)
    with torch.no_grad():
        normalized = cast(Any, emulator).encode_style(style)[0]
        # the network is copied by itself
        made = copy.deepcopy(emulator, {id(model): nn.Identity()})
        made.model = settle(normalized)
    run: Any = made
    run.norms = nn.ModuleList(norm.settled(values) for norm in run.norms)
    run.styles = FieldSet(())
    return made


def row_of(emulator: nn.Module, values: Mapping[str, float]) -> Tensor:
    """Physical styles, shape (1, style_chan), like the weights of an emulator."""
    like = next((p for p in emulator.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.tensor([list(values.values())], dtype=like.dtype, device=like.device)


class Constant(nn.Module):
    """An emulator with a style that is the same for all it is given.

    Args:
        emulator: Takes physical inputs and styles.
        style: Physical styles, shape (1, style_chan).
    """

    def __init__(self, emulator: nn.Module, style: Tensor) -> None:
        super().__init__()
        self.emulator = emulator
        self.register_buffer("style", style)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, *space)."""
        style = cast(Tensor, self.style)
        y: Tensor = self.emulator(x, style.expand(len(x), -1))
        return y


def with_any_style(model: nn.Module, style_chan: int) -> nn.Module:
    """A network whose footprint can be measured: itself, or with a style of zeros.

    Args:
        model: The network.
        style_chan: Numbers of its style; 0: it takes none.
    """
    if style_chan == 0 or getattr(model, "footprint", None) is not None:
        return model
    return Unstyled(model, style_chan)


class Unstyled(nn.Module):
    """A network with a style of zeros.

    Args:
        model: The network.
        style_chan: Numbers of its style.
    """

    def __init__(self, model: nn.Module, style_chan: int) -> None:
        super().__init__()
        self.model, self.style_chan = model, style_chan

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, *space)."""
        y: Tensor = self.model(x, x.new_zeros(len(x), self.style_chan))
        return y
