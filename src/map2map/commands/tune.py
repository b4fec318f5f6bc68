"""``m2m tune RECIPE --vary KEY=…``: search for the values with which a recipe is best.

Every trial is an ordinary training, of a recipe that is written beside its folder.
"""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

from map2map.checkpoints import Interrupted
from map2map.commands.train import TRY_AGAIN
from map2map.commands.tune_trials import tune
from map2map.errors import RecipeError, near_names
from map2map.spaces import read_space, vary
from map2map.tuning import Search

__all__ = ["main", "tune"]

log = logging.getLogger(__name__)


def seconds_of(text: str) -> float:
    """A time as one types it.

    >>> seconds_of("90"), seconds_of("1.5h")
    (90.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+\.?\d*)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; give seconds, or 30m, 2h, 1d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


DESCRIPTION = """\
Search for the values with which a recipe is best: trials with different values are trained one
after another, and compared by the best validation loss that they reach. Which values come next is
Optuna's guess (TPE) from all before; trials that are worse than others are ended early.

WHAT to vary, for a KEY of the recipe (as in m2m train, such as model.optimizer.init_args.lr):
  int:8:64     int:8:64:log     int:8:64:8     whole numbers: all, evenly in log, in steps
  float:0:1    float:1e-5:1e-1:log             numbers
  map2map.models.UNet,map2map.models.VNet      choices, as YAML
A file for --space has a line for each key: `KEY: WHAT`, or a list of choices.

Any other option overrides a key of the recipe in all trials, as in m2m train. The same command
again goes on with the search, also after it was killed; with more --trials, from its end."""


def parser() -> argparse.ArgumentParser:
    """The options of the command itself; others are keys of the recipe."""
    default = Search()
    made = argparse.ArgumentParser(
        prog="m2m tune",
        usage="m2m tune RECIPE --vary KEY=WHAT [--vary …] [options] [--KEY VALUE …]",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="example: m2m tune mine.yaml --trials 30 --epochs 20 "
        "--vary model.optimizer.init_args.lr=float:1e-4:1e-1:log",
    )
    add = made.add_argument
    add("--vary", action="append", default=[], metavar="KEY=WHAT", help="what to vary; repeat it")
    add("--space", type=Path, metavar="FILE", help="YAML that says what to vary")
    add("-o", "--out", type=Path, default=Path("tune"), metavar="FOLDER", help="default: tune")
    add("--trials", type=int, default=default.trials, metavar="N",
        help="how many in all, with those of earlier calls; default: %(default)s")  # fmt: skip
    add("--epochs", type=int, metavar="N", help="of each trial; default: as the recipe says")
    add("--timeout", type=seconds_of, metavar="TIME",
        help="start no trial after so many seconds (or 30m, 2h, 1d) in this call")  # fmt: skip
    add("--by", default=default.by, metavar="MEASURE",
        help="what is compared: loss, or a measure of the recipe; default: loss")  # fmt: skip
    add("--maximize", action="store_true", help="more of it is better")
    add("--pruner", choices=("median", "hyperband", "none"), default=default.pruner,
        help="what ends trials early; default: %(default)s")  # fmt: skip
    add("--startup", type=int, default=default.startup, metavar="N",
        help="end none before N are completed (median); default: %(default)s")  # fmt: skip
    add("--seed", type=int, default=default.seed, help="of what is drawn; default: %(default)s")
    add("--keep", choices=("best", "all"), default=default.keep,
        help="whose states and emulators to keep; default: %(default)s")  # fmt: skip
    return made


def main(argv: Sequence[str]) -> int:
    """Search for the recipe named first."""
    own = parser()
    if {"-h", "--help"} & set(argv):
        own.print_help()
        return 0
    if not argv or argv[0].startswith("-"):
        raise RecipeError("which recipe? `m2m tune NAME …` or `m2m tune PATH.yaml …`")
    options, overrides = own.parse_known_args(argv[1:])
    _refuse_unknown(overrides, own)
    space = {} if options.space is None else read_space(options.space)
    for text in options.vary:
        key, what = vary(text)
        if key in space:
            raise RecipeError(f"{key} is varied twice")
        space[key] = what
    names = ("trials", "timeout", "seed", "by", "maximize", "pruner", "startup", "keep")
    search = Search(**{name: getattr(options, name) for name in names})
    try:
        tune(argv[0], space, options.out, search, overrides=overrides, epochs=options.epochs)
    except Interrupted as interruption:
        log.info("%s; the same command goes on from there", interruption)
        return TRY_AGAIN
    return 0


def _refuse_unknown(overrides: Sequence[str], own: argparse.ArgumentParser) -> None:
    """A misspelled option is told as one, with near ones, not as a key of the recipe."""
    options = [name for action in own._actions for name in action.option_strings]
    for text in overrides:
        name = text.partition("=")[0]
        top = name.partition(".")[0]
        keys = ("--seed_everything", "--callback_at", "--trainer", "--model", "--data", "--output")
        if text.startswith("--") and top not in keys:
            raise RecipeError(f"there is no option {name}{near_names(name, [*options, *keys])}")
