"""Recipes of a search: what is varied in them, checked; and as they are written."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from map2map.commands.train import RecipeCLI, make
from map2map.errors import RecipeError, near_names
from map2map.spaces import Space, label

__all__ = ["check_values", "flags", "flat", "most_epochs", "recipe_of"]


def check_values(arguments: Sequence[str], space: Space, keys: Sequence[str]) -> None:
    """Refuse keys and values that a recipe does not take, with every class that is a choice.

    Args:
        arguments: The recipe and its overrides.
        space: What is varied.
        keys: Keys that there are, for the message.

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
                    make([*arguments, *flags(values)], "m2m tune RECIPE")
                except RecipeError as error:
                    if "unrecognized arguments" in str(error):
                        near = near_names(key, keys)
                        raise RecipeError(f"the recipe has no key {key}{near}") from None
                    said = ", ".join(f"{k}={label(v)}" for k, v in values.items())
                    raise RecipeError(f"it cannot have {said}: {error}") from error


def recipe_of(cli: RecipeCLI, *, nulls: bool = False) -> dict[str, Any]:
    """The recipe that was read, with all defaults, as `m2m train` takes it.

    Args:
        cli: From `map2map.commands.train.make`.
        nulls: Whether keys that are not given have the value None, or are left out.
    """
    whole: dict[str, Any] = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    return whole if nulls else _given(whole)


def _given(value: Any) -> Any:
    """Without empty keys; but the arguments of a class may be None and not by default."""
    if isinstance(value, list):
        return [_given(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    inner = ("init_args", "dict_kwargs")
    return {k: v if k in inner else _given(v) for k, v in value.items() if v is not None}


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
