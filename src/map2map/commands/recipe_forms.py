"""What a recipe may be written as: with variables of the environment, and in Lightning's form.

Lightning's command line has the optimizer, its schedule, callbacks and loggers beside the model and
the trainer; a recipe has them in those. Either is taken.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from map2map.commands.recipe_places import SIDES, check_place, check_places, whole_place
from map2map.commands.recipes import read
from map2map.errors import RecipeError
from map2map.variables import expand

__all__ = ["FORMAT", "settled", "settled_arguments"]

FORMAT = 1
"""Version of what recipes mean; those that do not tell theirs are of this one."""

PLACES = {
    "optimizer": "model.optimizer",
    "lr_scheduler": "model.schedule.scheduler",
    "callbacks": "trainer.callbacks",
    "logger": "trainer.logger",
}
"""Where the keys that Lightning has beside the model and the trainer belong."""


PLACE = re.compile(rf"--data\.({'|'.join(SIDES)})\.[^.]+")
"""Options that say where something is."""


def settled(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with its variables filled in and all keys where they belong.

    >>> settled({"logger": False, "trainer": {"max_epochs": 3}})
    {'trainer': {'max_epochs': 3, 'logger': False}}

    Raises:
        RecipeError: If a variable has no value, a key stands in both places, or the recipe was
            written for a newer version.
    """
    found: dict[str, Any] = expand(recipe)
    _check_format(found.pop("format", FORMAT))
    for key, place in PLACES.items():
        if key in found:
            *above, name = place.split(".")
            inner = found
            for part in above:
                at = inner.get(part) or {}
                if not isinstance(at, Mapping):
                    raise RecipeError(f"{part} is {at!r}, but must be keys with values")
                inner[part] = dict(at)
                inner = inner[part]
            if inner.get(name) is not None:
                raise RecipeError(f"{key} and {place} are the same; give one of them")
            inner[name] = found.pop(key)
    check_places(found)
    return found


def settled_arguments(arguments: Sequence[str]) -> list[str]:
    """Likewise ``--config FILE`` and overrides, as ``--KEY VALUE`` or ``--KEY=VALUE``."""
    found, option = [], ""
    for text in arguments:
        if text.startswith("--"):
            option, equals, value = text.partition("=")
            option = _placed(option)
            found.append(f"{option}={_filled(option, value)}" if equals else option)
        else:
            found.append(_filled(option, text))
            # only the first one behind an option is its value
            option = ""
    return found


def _placed(option: str) -> str:
    key, dot, rest = option.removeprefix("--").partition(".")
    # callbacks are added to with a plus
    name = key.removesuffix("+")
    return f"--{PLACES[name]}{key[len(name) :]}{dot}{rest}" if name in PLACES else option


def _filled(option: str, value: str) -> str:
    if option != "--config":
        text = str(expand(value, option.removeprefix("--")))
        return _whole(text, option) if PLACE.fullmatch(option) else text
    recipe = read(Path(value))
    filled = settled(recipe)
    # jsonargparse takes YAML in the place of a file
    return value if filled == recipe else yaml.safe_dump(filled, sort_keys=False)


def _whole(text: str, option: str) -> str:
    """What takes the place of where something is in a recipe, and is not mixed with it."""
    try:
        place = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    check_place(option.removeprefix("--"), place)
    if not isinstance(place, Mapping):
        return text
    return yaml.safe_dump(whole_place(place), default_flow_style=True)


def _check_format(number: Any) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise RecipeError(f"the format of a recipe is a whole number from 1 on, not {number!r}")
    if number > FORMAT:
        raise RecipeError(
            f"the recipe is of format {number}, but this map2map knows formats up to {FORMAT}; a "
            f"newer one reads it"
        )
