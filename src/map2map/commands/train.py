"""``m2m train RECIPE``: train an emulator from a recipe.

A recipe is YAML whose keys are arguments of classes: ``seed_everything``; ``trainer`` (Lightning's
Trainer); ``model`` (`map2map.task.Task`); ``data`` (`map2map.data.FieldData`); ``output``
(`map2map.train.Output`).
"""

import argparse
import inspect
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

# their names may stand in recipes without a path
import map2map.losses
import map2map.models
import map2map.norms  # noqa: F401
from map2map.checkpoints import Interrupted
from map2map.commands.recipe_forms import FORMAT, settled, settled_arguments
from map2map.commands.recipes import find, pointing_to_data, read
from map2map.commands.refusals import one_sentence
from map2map.common_grid import CommonGrid
from map2map.data import FieldData
from map2map.errors import M2MError, RecipeError, near_names
from map2map.memory import keep_freed_memory
from map2map.prepared_columns import ColumnStacks
from map2map.provenance import Provenance
from map2map.task import Task
from map2map.train import Output, make_trainer, train
from map2map.usercode import use_folder, users_errors
from map2map.variables import expand

__all__ = ["RecipeCLI", "main", "make", "recipe_of", "train_recipe"]

log = logging.getLogger(__name__)


TRY_AGAIN = 75
"""Exit status of a training that a signal has stopped, with its state saved (EX_TEMPFAIL)."""


class RecipeCLI(LightningCLI):
    """Reads a recipe and makes what it describes.

    Args:
        args: ``--config FILE`` and overrides, or the recipe itself.
        prog: Name of the command, for messages.
    """

    def __init__(self, args: Sequence[str] | dict[str, Any], prog: str) -> None:
        _use_callbacks(args)
        args = settled(args) if isinstance(args, dict) else settled_arguments(args)
        super().__init__(
            Task,
            FieldData,
            args=args,
            run=False,
            save_config_callback=None,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": prog,
                "description": __doc__,
                "exit_on_error": False,
                "allow_abbrev": False,
            },
        )
        if self.datamodule.seed is None:
            self.datamodule.seed = int(self.config["seed_everything"])
        network = self.config["model"]["model"]
        self.model.model_arguments = {
            **_plain(network.get("init_args")),
            **_plain(network.get("dict_kwargs")),
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What Lightning does not know of."""
        parser.add_class_arguments(Output, "output")
        # for `m2m prepare`; a training only keeps it
        parser.add_argument("--prepare", type=CommonGrid | ColumnStacks | None)
        parser.add_argument(
            "--callback_at",
            type=str | None,
            help="folder of your own code; its file.py is the module map2map_callback.file",
        )

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Lightning's trainer, with our states and log."""
        init = self.config_init
        self.output: Output = init["output"]
        options = {**init["trainer"], **kwargs}
        shown = options.pop("enable_progress_bar", None)
        progress = sys.stderr.isatty() if shown is None else bool(shown)
        options = {key: value for key, value in options.items() if value is not None}
        return make_trainer(self.output, progress=progress, **options)


def _plain(arguments: Any) -> dict[str, Any]:
    if arguments is None:
        return {}
    return arguments.as_dict() if hasattr(arguments, "as_dict") else dict(arguments)


def _use_callbacks(args: Sequence[str] | dict[str, Any]) -> None:
    """Make the user's folder importable before class paths are looked up."""
    if isinstance(args, dict):
        args = settled(args)
        folder = args.get("callback_at")
        _check_keys(args)
    else:
        early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        early.add_argument("--config")
        early.add_argument("--callback_at")
        known, _ = early.parse_known_args(args)
        folder = known.callback_at
        if known.config is not None:
            recipe = settled(read(Path(known.config)))
            folder = recipe.get("callback_at") if folder is None else folder
            _check_keys(recipe)
    if folder is not None:
        use_folder(Path(str(expand(folder, "callback_at"))))


def _check_keys(recipe: dict[str, Any]) -> None:
    """Refuse unknown keys here, because jsonargparse overlooks those whose value is empty."""
    allowed = _keys()
    for side, values in {**recipe, "": recipe}.items():
        prefix = f"{side}." if side else ""
        known = {k.removeprefix(prefix).partition(".")[0] for k in allowed if k.startswith(prefix)}
        for key in values if known and isinstance(values, dict) else ():
            if key not in known:
                raise RecipeError(f"there is no key {prefix}{key}{near_names(str(key), known)}")


def make(arguments: Sequence[str] | dict[str, Any], prog: str) -> RecipeCLI:
    """Read a recipe, and make what it describes.

    Raises:
        RecipeError: If a key or value is not allowed.
    """
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with users_errors():
            return RecipeCLI(arguments, prog)
    except M2MError:
        raise
    except MisconfigurationException as error:
        raise RecipeError(f"trainer: {error}") from error
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise RecipeError(one_sentence(str(error), _keys())) from error


def recipe_of(cli: RecipeCLI, *, nulls: bool = False) -> dict[str, Any]:
    """The recipe that was read, with all defaults, as `m2m train` takes it.

    Args:
        cli: From `make`.
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


def _keys() -> list[str]:
    """The keys of a recipe: arguments of the classes that it describes."""
    sides = {"model": Task, "data": FieldData, "output": Output, "trainer": Trainer}
    inner = [
        f"{side}.{name}"
        for side, cls in sides.items()
        for name in inspect.signature(cls).parameters
    ]
    return [*inner, "seed_everything", "callback_at", "prepare"]


def train_recipe(arguments: Sequence[str] | dict[str, Any], prog: str = "m2m train RECIPE") -> int:
    """Train from ``--config FILE`` and overrides, or from a recipe as a dictionary."""
    keep_freed_memory()
    cli = make(arguments, prog)
    record = {"recipe": yaml.safe_load(cli.parser.dump(cli.config, skip_none=True))}
    cli.trainer.callbacks.append(  # type: ignore[attr-defined]
        Provenance(cli.output.folder, {"format": FORMAT, **recipe_of(cli)})
    )
    try:
        with users_errors():
            train(cli.model, cli.datamodule, cli.trainer, cli.output, record=record)
    except MisconfigurationException as error:
        raise RecipeError(f"trainer: {' '.join(str(error).split())}") from error
    except Interrupted as interruption:
        log.info("%s; the same command goes on from there", interruption)
        return TRY_AGAIN
    return 0


def main(argv: Sequence[str]) -> int:
    """Train the recipe named first; the rest overrides it."""
    if not argv or argv[0].startswith("-"):
        if {"-h", "--help"} & set(argv):
            return train_recipe(argv)
        raise RecipeError(
            "which recipe? `m2m train NAME` or `m2m train PATH.yaml`; see m2m recipes"
        )
    path = find(argv[0])
    with pointing_to_data(path):
        return train_recipe(["--config", str(path), *argv[1:]])
