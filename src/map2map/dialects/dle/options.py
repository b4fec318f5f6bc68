"""The options of 2Dto2D-DLE's command line, with its defaults."""

import argparse
from collections.abc import Callable
from math import inf, isfinite
from pathlib import Path
from typing import Any

from map2map.errors import RecipeError

__all__ = ["check", "parser"]

DESCRIPTION = """\
2Dto2D-DLE's command line: trains on folders of cases, predicts the test cases, and writes all into
a folder of results named by the options. --print-recipe shows the recipe that a command line means.
What differs from the original is told in the documentation (docs/dle.md).
"""

LEVELS = 16
"""A U-Net with more has more cells in its largest cell than a case has."""


def between(low: float, high: float = inf, *, ends: bool = True) -> Callable[[float], bool]:
    """Whether a number is in a range, with or without its ends; NaN and infinities are not."""
    return lambda n: isfinite(n) and (low <= n <= high if ends else low < n < high)


ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "conv_ker_size": ("an odd number from 1", lambda n: n > 0 and n % 2 == 1),
    "nb_layers": ("a number from 1", between(1)),
    "nb_blocks": (f"a number from 1 to {LEVELS}", between(1, LEVELS)),
    "nb_out_filter": ("a number from 1", between(1)),
    "dropout_rate": ("a number from 0, and below 1", lambda x: 0 <= x < 1),
    "learning_rate": ("a positive number", between(0, ends=False)),
    "clipnorm": ("a positive number, or 0 to clip nothing", between(0)),
    "regularization": ("a positive number, or 0", between(0)),
    "batch_size": ("a number from 1", between(1)),
    "epochs": ("a number from 1", between(1)),
    "seed": ("a number from 0 to 4294967295", between(0, 2**32 - 1)),
    "save_model_each": ("a number from 1", between(1)),
    "resample_data": (
        "a whole number from 1, to coarsen, or a number between 0 and 1, to refine",
        lambda x: isfinite(x) and x > 0 and (x < 1 or x == int(x)),
    ),
    "data_stepping": ("a number from 1", between(1)),
    "thrice": ("a finite number", between(-inf)),
    "patch_size": ("a number of cells, or negative for the largest that fits", lambda n: n != 0),
}
"""What numbers can be, in words and tested."""

IDLE = {
    "cnn": ["nb_blocks"],
    "unet": ["conv_ker_size", "nb_layers", "activation", "dropout_rate", "regularization"],
}
"""Options that a network does not take."""


def check(options: argparse.Namespace) -> None:
    """Refuse values that are not allowed, and options that would do nothing.

    Raises:
        RecipeError: Names the option, what was found and what is allowed.
    """
    for name, (words, allowed) in ALLOWED.items():
        value = getattr(options, name)
        if not allowed(value):
            raise RecipeError(f"--{name} is {value}; it can be {words}")
    usual = parser()
    network = options.network
    idle = [n for n in IDLE[network] if getattr(options, n) != usual.get_default(n)]
    if idle:
        other = "cnn" if network == "unet" else "unet"
        raise RecipeError(
            f"the {network} does not take {', '.join(f'--{name}' for name in idle)}; leave it out, "
            f"or use --network {other}"
        )


def truth(text: str) -> bool:
    """True or False, as the original writes them."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return known[text.lower()]


truth.__name__ = "bool"


def parser(prog: str = "m2m dle") -> argparse.ArgumentParser:
    """The parser of 2Dto2D-DLE's command line."""
    made = argparse.ArgumentParser(
        prog=prog, description=DESCRIPTION, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    # fmt: off
    what = made.add_argument_group("what is done")
    what.add_argument("--dataset", default="pism_isoth_2000",
                      help="folder in data_dir with the folders train and test")
    what.add_argument("--data_dir", type=Path, default=Path(), help="where data sets are")
    what.add_argument("--results_dir", type=Path, default=Path("results"),
                      help="where folders of results go")
    what.add_argument("--maptype", default="f2", help="f2, f10 to f15, or a folder with "
                      "fieldin.dat and fieldout.dat")
    flag(what, "train", default=True, help="train; else the newest results of these options are "
         "taken")
    flag(what, "predict", default=True, help="predict the test cases")
    net = made.add_argument_group("network")
    net.add_argument("--network", choices=["cnn", "unet"], default="cnn", help="cnn or unet")
    net.add_argument("--conv_ker_size", type=int, default=3, help="cnn: width of kernels")
    net.add_argument("--nb_layers", type=int, default=16, help="cnn: hidden layers")
    net.add_argument("--nb_blocks", type=int, default=4, help="unet: levels")
    net.add_argument("--nb_out_filter", type=int, default=32, help="channels (of level 0)")
    net.add_argument("--activation", choices=["lrelu", "relu"], default="lrelu",
                     help="cnn: lrelu (slope 0.01) or relu")
    net.add_argument("--dropout_rate", type=float, default=0.0, help="cnn: share dropped")
    fit = made.add_argument_group("training")
    fit.add_argument("--learning_rate", type=float, default=1e-4, help="of Adam")
    fit.add_argument("--clipnorm", type=float, default=0.5,
                     help="gradients are clipped to it tensor by tensor; 0: not")
    fit.add_argument("--regularization", type=float, default=0.0,
                     help="cnn: L2 of hidden kernels")
    fit.add_argument("--batch_size", type=int, default=64, help="patches per batch")
    fit.add_argument("--loss", choices=["mae", "mse", "huber", "logcosh"], default="mae",
                     help="of normalized values")
    fit.add_argument("--epochs", type=int, default=100, help="epochs")
    fit.add_argument("--seed", type=int, default=123, help="of everything random")
    fit.add_argument("--save_model_each", type=int, default=10000,
                     help="write model.NNNNN.h5 every so many epochs")
    data = made.add_argument_group("data")
    data.add_argument("--resample_data", type=float, default=1.0,
                      help="above 1: means of blocks of so many cells; below: cubic refinement")
    flag(data, "include_test_in_train", default=False, help="train on the test cases as well")
    flag(data, "data_augmentation", default=True, help="turn and flip patches, and vectors along")
    data.add_argument("--data_stepping", type=int, default=1, help="take every n-th frame")
    data.add_argument("--thrice", type=float, default=1.0,
                      help="thickness above which the middle of a patch has ice (maps f*)")
    data.add_argument("--patch_size", type=int, default=32,
                      help="cells per side; negative: the largest power of two that fits")
    run = made.add_argument_group("running")
    run.add_argument("--verbose", type=int, choices=[0, 1, 2], default=1, help="0: quiet")
    flag(run, "usegpu", default=True, help="use a GPU if there is one")
    run.add_argument("--print-recipe", action="store_true", help="print the recipe and stop")
    # fmt: on
    return made


def flag(
    group: "argparse._ArgumentGroup",
    name: str,
    *,
    default: bool,
    help: str,
) -> None:
    """An option that is True or False; without a value, True."""
    group.add_argument(f"--{name}", type=truth, nargs="?", const=True, default=default, help=help)
