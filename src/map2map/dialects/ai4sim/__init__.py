"""The AI4sim model collection: its YAML files, translated to recipes, trained and tested.

`settings` has the keys of its files with their defaults; `cases` and `weather` the recipe that they
mean, with `trainers` and `stores`; `scoring` tests what was trained.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from map2map.commands.recipes import read
from map2map.dialects.ai4sim.cases import recipe_of
from map2map.dialects.ai4sim.settings import COMMANDS, Settings, keys_told, settings_of
from map2map.dialects.ai4sim.trainers import on_this_machine, trainer_of
from map2map.errors import RecipeError
from map2map.variables import expand

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)

DESCRIPTION = """\
Train and test what a YAML file of the AI4sim model collection describes: U-Nets and graph networks
of flames, networks of gravity-wave drag and of radiation, Pangu-Weather.

  m2m ai4sim -c FILE               fit, then test
  m2m ai4sim -c FILE fit           train
  m2m ai4sim -c FILE validate      score what was trained on the validation split
  m2m ai4sim -c FILE test          score it on the test split

A file may have a section for each of these, `fit:` and `test:`. Scored is the emulator that fit
wrote beside its logs, or --ckpt_path EMULATOR; of Pangu-Weather also the collection's checkpoint.

Any key can be given behind it, init_args may be left out:
  --trainer.max_epochs 5 --data.batch_size 2
"""


def parser(prog: str = "m2m ai4sim") -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} -c FILE [fit | validate | test] [--print-recipe] [--KEY VALUE ...]",
        description=DESCRIPTION,
        epilog=keys_told(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = found.add_argument
    add("-c", "--config", type=Path, action="append", required=True, help="the file")
    add("--print-recipe", action="store_true", help="print the recipe that it means, and stop")
    return found


def main(argv: Sequence[str], prog: str = "m2m ai4sim") -> int:
    """Do what is asked for: train, score, or both."""
    options, rest = parser(prog).parse_known_args(argv)
    if len(options.config) > 1:
        raise RecipeError("--config is given twice; write one file, and other keys behind it")
    command, words = command_of(rest)
    sections = sections_of(read(options.config[0]), command, words)
    if command == "predict":
        raise RecipeError(
            "predict is done by other commands: m2m apply EMULATOR DATA -o FILE; of a weather, "
            "m2m rollout EMULATOR STORE --steps N -o forecast.zarr"
        )
    told = {key: settings_of(expand(section)) for key, section in sections.items()}
    if options.print_recipe:
        made = recipe_of(next(iter(told.values())))
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return 0
    status, trained = 0, None
    for key, settings in told.items():
        if key == "fit":
            status, trained = fit(settings, prog), settings
            if status or not first_process():
                return status
            continue
        from map2map.dialects.ai4sim.scoring import score

        if trained is not None and settings.checkpoint == trained.checkpoint:
            # what was just trained, not what that went on from
            settings = replace(settings, checkpoint=None)
        status = score(settings, key, trained)
    return status


def fit(told: Settings, prog: str) -> int:
    """Train."""
    from map2map.commands.train import train_recipe

    trainer = on_this_machine(trainer_of(told))
    return train_recipe(recipe_of(told) | {"trainer": trainer}, prog)


def first_process() -> bool:
    """Whether this is the first of the processes that have trained; it goes on alone."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def command_of(rest: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command among words, and the others, which are keys and their values.

    >>> command_of(["--trainer.max_epochs", "5", "fit"])
    ('fit', ['--trainer.max_epochs', '5'])
    """
    found: list[str] = []
    words, value = [], False
    for word in rest:
        if word in COMMANDS and not value:
            found.append(word)
            continue
        words.append(word)
        value = not value and word.startswith("--") and "=" not in word
    if len(found) > 1:
        raise RecipeError(f"{' and '.join(found)} are two commands; give one of them")
    return next(iter(found), None), words


def sections_of(
    given: Mapping[str, Any], command: str | None, words: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """What a file says of each command that is asked for, with keys from the command line.

    >>> sections_of({"fit": {"model": {}}, "test": {}}, "fit", ["--model.lr=1"])
    {'fit': {'model': {'init_args': {'lr': 1}}}}

    Args:
        given: The file.
        command: What is asked for; None: training, then the test.
        words: Keys and values, such as ``--trainer.max_epochs 5``.

    Raises:
        RecipeError: If the file has sections, but not that of the command.
    """
    there = [key for key in COMMANDS if key in given]
    beside = [str(key) for key in given if key not in COMMANDS]
    if there and beside:
        raise RecipeError(
            f"the file has sections of its own for {' and '.join(there)}, so that "
            f"{', '.join(beside)} beside them would belong to none; move them into a section"
        )
    asked = [command] if command else ["fit", "test"]
    if not there:
        return {key: overridden(_copy(given), words, key) for key in asked}
    if command is None and "fit" not in there:
        asked = there
    if command is not None and command not in there:
        # a validation is of what was trained
        if command != "validate" or "fit" not in there:
            raise RecipeError(
                f"the file has no section `{command}`, but {' and '.join(there)}; m2m ai4sim -c "
                f"FILE {there[0]}"
            )
        return {"validate": overridden(_copy(given["fit"]), words)}
    # a file that says nothing of the test is tested as it was trained
    return {
        key: overridden(_copy(given[key if key in there else "fit"]), words, key) for key in asked
    }


def _copy(section: Any) -> dict[str, Any]:
    """A section that may be written to."""
    if section is None or not isinstance(section, Mapping):
        raise RecipeError(f"a section of the file is {section!r}, but must have keys")
    return {
        key: _copy(value) if isinstance(value, Mapping) else value for key, value in section.items()
    }


def overridden(settings: dict[str, Any], rest: Sequence[str], command: str = "") -> dict[str, Any]:
    """Settings with those from the command line: ``--trainer.max_epochs 5`` or with ``=``.

    >>> overridden({"trainer": {"max_epochs": 1}}, ["--trainer.max_epochs=5"])
    {'trainer': {'max_epochs': 5}}

    Args:
        settings: They are written to.
        rest: Words. In front of a key may be that of a section, ``--test.data.batch_size 4``.
        command: The section that these are; keys of other sections are left out.
    """
    words = list(rest)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or words):
            raise RecipeError(f"{word!r} is not --KEY VALUE, such as --trainer.max_epochs 5")
        value = value if equals else words.pop(0)
        *parents, leaf = key.split(".")
        if parents and parents[0] in COMMANDS and parents.pop(0) != command:
            continue
        if not parents and leaf in ("model", "data"):  # a class
            parents, leaf = [leaf], "class_path"
        elif parents in (["model"], ["data"]) and leaf not in ("class_path", "init_args"):
            parents.append("init_args")
        try:
            inside(settings, parents, key)[leaf] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--{key} {value!r} is not YAML; quote what is a text") from error
    return settings


def inside(settings: dict[str, Any], parents: Sequence[str], key: str) -> dict[str, Any]:
    """The place of a key, made if it is not there."""
    place = settings
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise RecipeError(f"--{key}: `{parent}` has no keys in it")
    return place
