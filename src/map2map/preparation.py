"""Preparation: the emulator that a task trains, made, taken up and fitted to its data."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import nn

from map2map import models
from map2map.assemble import fit_together
from map2map.checkpoints import load_weights
from map2map.emulator import Emulator
from map2map.errors import (
    ArtefactError,
    FieldError,
    GeometryError,
    M2MError,
    RecipeError,
    near_names,
)
from map2map.grids import Domain
from map2map.models.operators import Operator
from map2map.norms import Norm, Standardize
from map2map.runs import Runs
from map2map.specs import Spec, describe, describe_call
from map2map.typing import Shape
from map2map.windows import crop_window

__all__ = [
    "ModelFactory",
    "Options",
    "channels_last",
    "check_sizes",
    "check_whole",
    "fit_norms",
    "make_emulator",
    "take_up",
]

log = logging.getLogger(__name__)


class ModelFactory(Protocol):
    """Makes a network for so many channels and axes."""

    def __call__(self, in_chan: int, out_chan: int, /, *, ndim: int) -> nn.Module:
        """Make it."""


@dataclass(frozen=True)
class Options:
    """How the network is set up, and what is told of it.

    Args:
        channels_last: Whether tensors keep the channels of a cell together, which convolutions
            prefer; changes results by round-off only.
        compile: Whether the network goes through ``torch.compile``; likewise.
        init_weight_std: Draw the weights of convolutions and linear layers from a normal
            distribution of this deviation, those of norm layers (one number for each channel)
            around 1, instead of as PyTorch does.
        measures: More comparisons of normalized output and target than the loss, by name, which are
            told for every epoch.
        ema: Decay of a running average of the weights, such as 0.999, which is validated and saved
            as the emulator; states hold both.

    Raises:
        RecipeError: If the decay is not between 0 and 1.
    """

    channels_last: bool = False
    compile: bool = False
    init_weight_std: float | None = None
    measures: dict[str, nn.Module] | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        if self.ema is not None and not 0 < self.ema < 1:
            raise RecipeError(f"`ema` is {self.ema}; the decay must be between 0 and 1, as 0.999")


def make_emulator(
    make_model: ModelFactory,
    runs: Runs,
    norms: dict[str, Norm],
    domain: Domain,
    options: Options,
    model_arguments: dict[str, Any] | None,
    outputs: int = 1,
) -> Emulator:
    """Make the emulator for the channels and axes of the runs; with ``outputs`` for each number.

    Raises:
        FieldError: If the model cannot be made for them.
        RecipeError: If there are several outputs for what is no parameter, or styles for such.
    """
    if outputs > 1 and any(field.kind != "parameter" for field in runs.targets):
        raise RecipeError(
            f"the loss wants {outputs} outputs for each number, which parameters of whole runs can "
            f"have, but {', '.join(runs.targets.names)} are not all parameters"
        )
    channels = runs.inputs.channels, outputs * runs.targets.channels
    if len(runs.styles) and runs.targets.of_run:
        raise RecipeError(
            f"the styles {', '.join(runs.styles.names)} are for networks that give fields, but "
            f"{', '.join(runs.targets.names)} are numbers of whole runs; leave `styles` out"
        )
    # only then, because few models know of them
    style: dict[str, Any] = {"style_chan": runs.styles.channels} if len(runs.styles) else {}
    asked = (model_arguments or {}).get("style_chan") or 0
    if asked not in (0, runs.styles.channels):
        raise RecipeError(
            f"`style_chan` of the model is {asked}, but `styles` has {runs.styles.channels} "
            f"numbers; leave it out, it is filled in"
        )
    model = make_network(make_model, channels, runs, style)
    takes = getattr(model, "style_chan", runs.styles.channels)
    if isinstance(takes, int) and takes != runs.styles.channels:
        raise RecipeError(
            f"{type(model).__name__} takes a style of {takes} numbers, but there are "
            f"{runs.styles.channels} (`styles`: {', '.join(runs.styles.names) or 'none'})"
        )
    if options.init_weight_std is not None:
        draw_weights(model, options.init_weight_std)
    known = None if model_arguments is None else model_arguments | style
    learn_on(model, runs.shape)
    spec = model_spec(model, channels, runs.ndim, known)
    made = replace(domain, ndim=runs.ndim)
    norms = {name: Standardize(constants=True) for name in runs.styles.names} | norms
    emulator = Emulator(
        runs.inputs, runs.targets, norms, model, made, spec, runs.derived, styles=runs.styles
    )
    emulator.style_range = {
        name: [float(runs.style_numbers[:, k].min()), float(runs.style_numbers[:, k].max())]
        for k, name in enumerate(runs.styles.names)
    }
    if emulator.footprint.whole is not None and not emulator.footprint.reduces:
        emulator.cells = runs.shape
    if options.channels_last:
        emulator.model.to(memory_format=channels_last(runs.ndim))  # type: ignore[call-overload]
    return emulator


def make_network(
    make_model: ModelFactory, channels: tuple[int, int], runs: Runs, style: dict[str, Any]
) -> nn.Module:
    """Make the network.

    Raises:
        FieldError: If it cannot be made for these channels and axes.
        RecipeError: If it takes no styles, and there are some.
    """
    try:
        return make_model(*channels, ndim=runs.ndim, **style)
    except M2MError:
        raise
    except TypeError as error:
        if style and "style_chan" in str(error):
            raise RecipeError(
                f"there are styles ({', '.join(runs.styles.names)}), but the network takes none; "
                f"those that do are {', '.join(styled_models())}; use one of them, or leave "
                f"`styles` out"
            ) from error
        raise FieldError(
            f"the model cannot be made for {channels[0]} input and {channels[1]} output "
            f"channels on {runs.ndim} axes"
            + (f" with {style['style_chan']} styles" if style else "")
            + f": {error}"
        ) from error


def styled_models() -> list[str]:
    """The networks that take styles."""
    made = {name: getattr(models, name) for name in models.__all__}
    return [name for name, one in made.items() if "style_chan" in signature(one).parameters]


def learn_on(model: nn.Module, space: Shape) -> None:
    """Leave out Fourier modes that fields of so many cells do not have: they cannot be learnt."""
    for operator in model.modules():
        if not isinstance(operator, Operator):
            continue
        learnt = operator.learn_on(space)
        if learnt != operator.each:
            who, cells = type(operator).__name__, " x ".join(map(str, space))
            asked, there = (
                each[0] if len(set(each)) == 1 else list(each) for each in (operator.each, learnt)
            )
            log.warning(
                "%s keeps %s modes, but the fields of the training, %s cells, have %s; those "
                "beyond cannot be learnt and are left out, on finer grids, too; with fewer weights "
                "it is the same: `modes: %s`",
                *(who, asked, cells, there, there),
            )


def model_spec(
    model: nn.Module, channels: tuple[int, int], ndim: int, arguments: dict[str, Any] | None
) -> Spec:
    """How to make the model again."""
    try:
        return describe(model)
    except RecipeError:
        if arguments is None:
            raise
    # a model that does not keep its arguments, but a recipe that does
    return describe_call(type(model), *channels, ndim=ndim, **arguments)


def draw_weights(model: nn.Module, std: float) -> None:
    """Draw the weights as `Options.init_weight_std` says."""
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not isinstance(weight, nn.Parameter):
            continue
        if weight.ndim > 1:
            nn.init.normal_(weight, 0.0, std)
        else:
            nn.init.normal_(weight, 1.0, std)
            if isinstance(bias, nn.Parameter):
                nn.init.zeros_(bias)


def channels_last(ndim: int) -> torch.memory_format:
    """The memory format that keeps the channels of a cell together."""
    if ndim == 2:
        return torch.channels_last
    return torch.channels_last_3d if ndim == 3 else torch.contiguous_format


def take_up(
    emulator: Emulator, identity: dict[str, Any], state: dict[str, Any], path: Path, strict: bool
) -> None:
    """Take weights and norms from a state, ours or map2map's.

    Args:
        emulator: Gets them.
        identity: What must be the same in the state.
        state: The state.
        path: Its file, for messages.
        strict: Whether all weights have to be there.

    Raises:
        ArtefactError: If the state is of something else.
    """
    for key, value in state.get("task", {}).items():
        if value != identity[key]:
            raise ArtefactError(
                f"{path} was trained with {key} {value}, not {identity[key]}; go on with the same "
                f"recipe, or start anew in another folder (output.folder) or with "
                f"output.resume: never"
            )
    load_weights(emulator.model, state["model"], path, strict=strict)
    prefix = "emulator.norms."
    for name, value in state.get("state_dict", {}).items():
        if name.startswith(prefix):
            owner, _, leaf = name.removeprefix(prefix).rpartition(".")
            setattr(emulator.norms.get_submodule(owner), leaf, value)


def fit_norms(emulator: Emulator, data: Any, trainer: pl.Trainer) -> None:
    """Fit the norms that are not yet, on the training split; once, not by every process."""
    for name in (*emulator.inputs.names, *emulator.targets.names, *emulator.styles.names):
        norm = emulator.norm(name)
        if norm.fitted:
            continue
        if trainer.is_global_zero:
            names = check_beside(emulator, name)
            try:
                norm.fit(lambda names=names: together(data, names))  # type: ignore[misc]
            except FieldError as error:
                raise FieldError(f"norm of field {name!r}: {error}") from error
        buffers = trainer.strategy.broadcast(dict(norm.named_buffers()))
        for key, value in buffers.items():
            owner, _, leaf = key.rpartition(".")
            setattr(norm.get_submodule(owner), leaf, value)
        if trainer.is_global_zero:
            log.info("norm of %s, fitted: %s", name, norm.found())


def check_beside(emulator: Emulator, name: str) -> list[str]:
    """A field, and those whose values its norm is fitted to, too.

    Raises:
        FieldError: If there is none of that name, or of other channels.
    """
    fields = {f.name: f.channels for f in (*emulator.inputs, *emulator.targets)}
    names = [name, *(emulator.norm(name).beside or ())]
    for other in names[1:]:
        if other not in fields:
            raise FieldError(
                f"the norm of {name!r} is `beside` {other!r}{near_names(other, fields)}"
            )
        if fields[other] != fields[name]:
            raise FieldError(
                f"the norm of {name!r}, which has {fields[name]} channels, is `beside` {other!r}, "
                f"which has {fields[other]}; fields with one number in common have as many"
            )
    return names


def together(data: Any, names: list[str]) -> Iterator[torch.Tensor]:
    """All values of several fields with as many channels, (channel, cell) at a time."""
    for parts in zip(*(data.chunks(name) for name in names), strict=True):
        yield torch.cat(parts)


def check_sizes(emulator: Emulator, data: Any) -> None:
    """Refuse crops that the model cannot take, or whose output the target cannot meet."""
    dataset = data.dataset("train")
    if emulator.targets.of_run:
        if not emulator.footprint.reduces:
            raise GeometryError(
                f"{', '.join(emulator.targets.names)} are numbers for the whole of a sample, but "
                f"the network {type(emulator.model).__name__} gives fields; use one that reduces "
                f"its input to numbers, as Racoon and ResNet do"
            )
        return
    shape = crop_window((0,) * len(dataset.size), dataset.size, dataset.halo).shape
    emulator.footprint.check_sizes(shape, type(emulator.model).__name__)
    check_whole(emulator, data)
    if not data.aligned and emulator.footprint.whole is None:
        sizes = [emulator.footprint.output_size(n) for n in shape]
        output, target = (torch.empty(1, 1, *n) for n in (sizes, dataset.target_size))
        fit_together(output, target, dataset, emulator, aligned=False)


def check_whole(emulator: Emulator, data: Any) -> None:
    """Refuse crops for a network that sees the whole domain: it would learn of another one.

    Raises:
        GeometryError: If there are some.
    """
    if emulator.footprint.whole is None:
        return
    for split in [split for split in data.runs if split != "test"]:
        dataset = data.dataset(split)
        for layout in dataset.layouts:
            if layout.grid.shape != dataset.size:
                crop, field = (" x ".join(map(str, n)) for n in (dataset.size, layout.grid.shape))
                asked = "leave data.crops.size out" if data.crops.size else "let all have one shape"
                raise GeometryError(
                    f"crops have {crop} cells of fields of {field}, but every output cell of "
                    f"{type(emulator.model).__name__} depends on the whole domain "
                    f"({emulator.footprint.whole}), so it learns of whole fields; {asked}"
                )
