"""Recipes of a search: what is varied in them, checked; and as they are written."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from map2map.commands.train import RecipeCLI, make, recipe_of
from map2map.errors import M2MError, RecipeError, near_names
from map2map.runs import Runs
from map2map.spaces import Space, label
from map2map.task import Task

log = logging.getLogger(__name__)

__all__ = ["check_values", "flags", "flat", "most_epochs", "recipe_of"]


def check_values(arguments: Sequence[str], space: Space, keys: Sequence[str], runs: Runs) -> None:
    """Refuse keys and values that a recipe does not take, with every class that is a choice.

    Networks, optimizers and schedules are made, but take no memory and are not trained. Whether
    crops fit them, and they the memory, is left to the trials.

    Args:
        arguments: The recipe and its overrides.
        space: What is varied.
        keys: Keys that there are, for the message.
        runs: Which tell the channels and axes.

    Raises:
        RecipeError: With the key, the value and what is near.
    """
    for key, what in space.items():
        owners = [
            {owner: value}
            for owner, of in space.items()
            if owner != key and key.startswith(f"{owner.removesuffix('.class_path')}.")
            for value in of.ends()
        ]
        for before in owners or [{}]:
            for value in what.ends():
                values = {**before, key: value}
                try:
                    cli = make([*arguments, *flags(values)], "m2m tune RECIPE")
                    if key.startswith("model."):
                        check_objects(cli.model, runs)
                except RecipeError as error:
                    if "unrecognized arguments" in str(error):
                        near = near_names(key, keys)
                        raise RecipeError(f"the recipe has no key {key}{near}") from None
                    said = ", ".join(f"{k}={label(v)}" for k, v in values.items())
                    raise RecipeError(f"it cannot have {said}: {error}") from error


def check_objects(task: Task, runs: Runs) -> None:
    """Refuse a network, an optimizer or a schedule that cannot be made.

    Args:
        task: Which makes them.
        runs: Which tell the channels and axes.

    Raises:
        RecipeError: If one refuses its arguments.
    """
    outputs = int(getattr(task.loss, "outputs", 1))
    try:
        with torch.device("meta"):
            model = task.make_model(
                runs.inputs.channels, outputs * runs.targets.channels, ndim=runs.ndim
            )
            optimizer = task.make_optimizer(model.parameters())
            if task.schedule.scheduler is not None:
                task.schedule.scheduler(optimizer)
    except (M2MError, ValueError, TypeError, ArithmeticError) as error:
        raise RecipeError(" ".join(str(error).split())) from error
    except RuntimeError as error:
        # without memory not all can be made that can be with it
        log.debug("left to the trials: %s", error)


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """The values of a recipe by their keys with dots.

    >>> flat({"a": {"b": 1, "c": [2]}})
    {'a.b': 1, 'a.c': [2]}
    """
    if not isinstance(value, dict) or not value:
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= flat(inner, f"{key}.{name}" if key else str(name))
    return found


def flags(values: Mapping[str, Any]) -> list[str]:
    """Values by key as the options that override a recipe."""
    return [f"--{key}={label(value)}" for key, value in values.items()]


def most_epochs(cli: RecipeCLI, space: Space) -> int | None:
    """Most epochs that a trial may train; None if there is no limit."""
    varied = space.get("trainer.max_epochs")
    if varied is not None:
        return max((n for n in varied.ends() if isinstance(n, int)), default=None)
    most = cli.trainer.max_epochs
    return most if most is not None and most > 0 else None
