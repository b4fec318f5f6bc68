"""The AI4sim model collection: its YAML files, translated to recipes, trained and tested.

`settings` has the keys of its files with their defaults, `cases` the recipe that they mean.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from map2map.commands.recipes import read
from map2map.dialects.ai4sim.cases import recipe
from map2map.errors import RecipeError
from map2map.variables import expand

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)


def parser(prog: str = "m2m ai4sim") -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog=prog,
        description="Train and test what a YAML file of the AI4sim model collection describes: "
        "U-Nets and graph networks of flames, networks of gravity-wave drag and of radiation. Any "
        "of its keys can be given behind it: --trainer.max_epochs 5 --data.init_args.batch_size 2.",
        allow_abbrev=False,
    )
    add = found.add_argument
    add("-c", "--config", type=Path, required=True, help="the file")
    add("--print-recipe", action="store_true", help="print the recipe that it means, and stop")
    return found


def main(argv: Sequence[str], prog: str = "m2m ai4sim") -> int:
    """Train, then score on the test split."""
    options, rest = parser(prog).parse_known_args(argv)
    settings = overridden(read(options.config), rest)
    made = recipe(expand(settings))
    if options.print_recipe:
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return 0
    from map2map.commands.evaluate import main as evaluate
    from map2map.commands.train import train_recipe

    status = train_recipe(made, prog)
    if status:
        return status
    folder = Path(made["output"]["folder"])
    emulator = folder / "emulator.safetensors"
    scores = folder / "test_scores.nc"
    return evaluate([str(emulator), "--split", "test", "-o", str(scores), "--overwrite"])


def overridden(settings: dict[str, Any], rest: Sequence[str]) -> dict[str, Any]:
    """Settings with those from the command line: ``--trainer.max_epochs 5`` or with ``=``.

    >>> overridden({"trainer": {"max_epochs": 1}}, ["--trainer.max_epochs=5"])
    {'trainer': {'max_epochs': 5}}
    """
    words = list(rest)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or words):
            raise RecipeError(f"{word!r} is not --KEY VALUE, such as --trainer.max_epochs 5")
        *parents, leaf = key.split(".")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise RecipeError(f"--{key}: `{parent}` has no keys in it")
        place[leaf] = yaml.safe_load(value if equals else words.pop(0))
    return settings
