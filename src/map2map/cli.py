"""The command line: ``m2m train | apply | evaluate | report | …``, and the older tools' dialects.

Commands are imported when they are called, so that ``m2m --help`` needs neither torch nor
Lightning.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from map2map import __version__
from map2map.errors import M2MError, near_names

__all__ = ["main", "main_map2map", "run"]

COMMANDS = {
    "train": ("map2map.commands.train", "train an emulator from a recipe"),
    "fit": ("map2map.commands.fit:fit", "train any LightningModule, or a recipe, from a file"),
    "validate": ("map2map.commands.fit:validate", "score it on the validation split"),
    "test": ("map2map.commands.fit:test", "score it on the test split"),
    "predict": ("map2map.commands.fit:predict", "let a LightningModule predict"),
    "tune": ("map2map.commands.tune", "search for the best values in a recipe"),
    "apply": ("map2map.commands.apply", "apply an emulator to fields of any size"),
    "evaluate": ("map2map.commands.evaluate", "score an emulator beside its baselines"),
    "rollout": ("map2map.commands.rollout", "apply an emulator of one step again and again"),
    "report": ("map2map.commands.report", "make a page of an emulator's scores"),
    "saliency": ("map2map.commands.saliency", "see which cells a label or parameter hangs on"),
    "export": ("map2map.commands.export", "write an emulator for other programs and languages"),
    "import": ("map2map.commands.imports", "make an emulator of another tool's network"),
    "inspect": ("map2map.commands.inspect", "say what is in a field file, recipe or emulator"),
    "stats": ("map2map.commands.stats", "stream statistics of fields of any size"),
    "pack": ("map2map.commands.pack", "convert field files to Zarr, laid out for reading crops"),
    "prepare": ("map2map.commands.prepare", "bring files of several models to one grid"),
    "simulate": ("map2map.commands.simulate", "make data with a small, honest simulator"),
    "recipes": ("map2map.commands.recipes", "list the recipes that come with map2map"),
}

DIALECTS = [entry.name for entry in iter_modules([str(Path(__file__).parent / "dialects")])]
"""Older tools, each a module of `map2map.dialects`."""

DESCRIPTION = """\
Neural-network emulators of simulation fields: train on pairs of files, apply at any size.

commands:
{commands}

A first tour:
  m2m simulate nbody --out data          make runs of a small universe
  m2m inspect data/za_00.npy             see what is in a field
  m2m recipes                            see what can be trained
  m2m train cosmology_displacement --data.train...   train (see m2m train --help)
  m2m inspect emulator.safetensors       read the card of what was trained
  m2m apply emulator.safetensors linear=data/za_05.npy -o emulated.npy
  m2m evaluate emulator.safetensors linear=... displacement=... -o scores.nc
  m2m report scores.nc                   make a page that can be sent
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``m2m``."""
    lines = {name: text for name, (_, text) in COMMANDS.items()}
    lines |= {name: f"the command line of {name}, translated to a recipe" for name in DIALECTS}
    commands = "\n".join(f"  {name:10} {text}" for name, text in lines.items())
    parser = argparse.ArgumentParser(
        prog="m2m",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION.format(commands=commands),
        epilog="m2m COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"map2map {__version__}")
    parser.add_argument("command", nargs="?", help="one of the above", metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.command is None:
        parser.error(f"which command? there are {', '.join(lines)}")
    known = [*COMMANDS, *DIALECTS]
    if options.command not in known:
        parser.error(f"no command {options.command!r}{near_names(options.command, known)}")
    module = f"map2map.dialects.{options.command}"
    if options.command in COMMANDS:
        module, _ = COMMANDS[options.command]
    path, _, name = module.partition(":")
    call = lambda: getattr(import_module(path), name or "main")(options.arguments)  # noqa: E731
    return run(f"m2m {options.command}", call)


def run(program: str, command: Callable[[], int | None]) -> int:
    """Run a command; tell what the user can mend in one message, with exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return command() or 0
    except M2MError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def main_map2map() -> int:
    """Entry point of ``m2m.py``."""
    return run(
        "m2m.py",
        lambda: import_module("map2map.dialects.map2map").main(sys.argv[1:], "m2m.py"),
    )


if __name__ == "__main__":
    sys.exit(main())
