"""``m2m fit | validate | test | predict --config FILE``: Lightning's command line.

The file is a recipe, or describes any LightningModule and LightningDataModule by import paths:

    seed_everything: 0
    trainer: {max_epochs: 5}
    model: {class_path: my_models.Closure, init_args: {width: 16}}
    data: {class_path: my_data.Flames, init_args: {folder: data}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
    lr_scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.9}}

Of a recipe, `fit` is `m2m train`; `validate` and `test` score the emulator that it wrote on those
splits, with the options of `m2m evaluate`; predictions are written by `m2m apply`. What else is
described is Lightning's: its options, callbacks, loggers and checkpoints, and the resolved
configuration beside the log.
"""

import argparse
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from map2map.commands.recipe_forms import settled
from map2map.commands.recipes import read
from map2map.commands.refusals import one_sentence
from map2map.errors import ArtefactError, M2MError, RecipeError
from map2map.memory import keep_freed_memory
from map2map.usercode import use_folder, users_errors
from map2map.variables import expand

__all__ = ["fit", "predict", "test", "validate"]

log = logging.getLogger(__name__)

WORDS = re.compile(r"(best|last|hpc|registry.*|\w+://.*)$")
"""Checkpoints that are no files here."""

SIDES = {"validate": "val", "test": "test"}
"""The split that a command scores a recipe's emulator on."""


def fit(argv: Sequence[str]) -> int:
    """Train."""
    return run("fit", argv)


def validate(argv: Sequence[str]) -> int:
    """Score on the validation split."""
    return run("validate", argv)


def test(argv: Sequence[str]) -> int:
    """Score on the test split."""
    return run("test", argv)


def predict(argv: Sequence[str]) -> int:
    """Write what the module's ``predict_step`` gives to where its callbacks put it."""
    return run("predict", argv)


def run(command: str, argv: Sequence[str]) -> int:
    """Do what a file and the options behind it say."""
    parser = argparse.ArgumentParser(
        prog=f"m2m {command}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", type=Path, required=True, help="the file")
    told = "folder of your own code; its file.py is map2map_callback.file"
    add("--callback_at", type=Path, metavar="FOLDER", help=told)
    options, rest = parser.parse_known_args(argv)
    config = read(options.config)
    model = config.get("model")
    if not (isinstance(model, dict) and "class_path" in model):
        code = options.callback_at
        code = [] if code is None else ["--callback_at", str(code)]
        return of_recipe(command, options.config, settled(config), [*code, *rest])
    config = expand(config)
    folder = options.callback_at or config.get("callback_at")
    if folder is not None:
        use_folder(Path(folder))
    check_weights(command, config, rest)
    # jsonargparse takes YAML in the place of a file
    filled = yaml.safe_dump(config, sort_keys=False)
    return described([command, "--config", filled, *(str(expand(text)) for text in rest)])


def check_weights(command: str, config: Mapping[str, Any], rest: Sequence[str]) -> None:
    """Refuse weights that are not there; say so if there are none.

    Raises:
        ArtefactError: If the checkpoint does not exist.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--ckpt_path", default=config.get("ckpt_path"))
    path = early.parse_known_args(rest)[0].ckpt_path
    if path is None and command != "fit":
        log.warning(
            "no --ckpt_path is given, so the weights are those that the module begins with; for "
            "trained ones: --ckpt_path FILE.ckpt"
        )
    # Lightning knows some by a word, others by the address of a store
    if path is not None and not WORDS.match(str(path)) and not Path(path).exists():
        raise ArtefactError(f"there is no checkpoint {path}; `m2m fit` writes them beside its log")


class AnyCLI(LightningCLI):
    """Lightning's command line, which also knows where the user's code is."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What Lightning does not know of."""
        parser.add_argument("--callback_at", type=str | None, help="folder of your own code")


def described(arguments: Sequence[str]) -> int:
    """Let Lightning do it with the module and data that a file names."""
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    keep_freed_memory()
    try:
        with users_errors():
            AnyCLI(
                subclass_mode_model=True,
                subclass_mode_data=True,
                args=list(arguments),
                parser_kwargs={"prog": "m2m", "exit_on_error": False},
                save_config_kwargs={"overwrite": True},
            )
    except M2MError:
        raise
    except MisconfigurationException as error:
        raise RecipeError(f"trainer: {error}") from error
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise RecipeError(
            f"{one_sentence(str(error), [])}; modules are imported from PYTHONPATH, or from "
            f"--callback_at FOLDER as map2map_callback.FILE.CLASS"
        ) from error
    return 0


def of_recipe(command: str, path: Path, recipe: dict[str, Any], rest: Sequence[str]) -> int:
    """Train from a recipe, or score the emulator that it wrote."""
    if command == "fit":
        from map2map.commands.train import train_recipe

        return train_recipe(["--config", str(path), *rest], "m2m fit")
    if command == "predict":
        raise RecipeError(
            f"{path} is a recipe, whose emulator `m2m apply` applies to fields of any size; "
            f"`m2m predict` is for modules that a file names by model.class_path"
        )
    from map2map.commands.evaluate import main

    output = recipe.get("output") or {}
    if not isinstance(output, Mapping):
        raise RecipeError(f"output is {output!r}, but must be keys with values, such as folder")
    given = {key: value for key, value in output.items() if value}
    early = argparse.ArgumentParser(prog=f"m2m {command}", add_help=False, allow_abbrev=False)
    early.add_argument("--output.folder", dest="folder", default=given.get("folder", ""))
    early.add_argument("--output.emulator", dest="emulator",
                       default=given.get("emulator", "emulator.safetensors"))  # fmt: skip
    options, rest = early.parse_known_args(rest)
    for text in rest:
        if re.match(r"--\w+\.", text):
            raise RecipeError(
                f"`m2m {command}` scores the emulator that `m2m fit` has written, on the data that "
                f"its card tells; of a recipe's keys only output.folder and output.emulator can "
                f"be given, not {text.partition('=')[0]}"
            )
    folder = Path(options.folder)
    scores = ["-o", str(folder / f"{command}_scores.nc"), "--overwrite"]
    return main([str(folder / options.emulator), "--split", SIDES[command], *scores, *rest])
