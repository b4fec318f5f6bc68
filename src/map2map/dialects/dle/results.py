"""The folder of results: found or made, and what training leaves in it."""

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from map2map.errors import RecipeError, SaveError
from map2map.files import replacing
from map2map.plots import STYLE

__all__ = ["PARAMETERS", "find", "made", "write_history", "write_model"]

log = logging.getLogger(__name__)

PARAMETERS = "dle-run-parameters.txt"
WIDTH = 30
"""Characters of an option's name in the list of parameters."""


def as_text(options: argparse.Namespace) -> str:
    """The list of parameters, a line for each option."""
    values = {key: value for key, value in vars(options).items() if key != "print_recipe"}
    return "".join(f"{key:>{WIDTH}} : {value}\n" for key, value in values.items())


def runs_in(folder: Path, name: str) -> list[Path]:
    """The folders of results of a name, the oldest first."""
    others = sorted(
        folder.glob(f"{name}+RUN-*"), key=lambda path: int(path.name.rpartition("-")[2])
    )
    return [path for path in (folder / name, *others) if path.is_dir()]


@contextmanager
def made(options: argparse.Namespace, name: str) -> Iterator[Path]:
    """The folder to train in: a new one, or that of the same options whose training broke off.

    Nothing that was there is ever removed: where results of the name are there already, others get
    a number. A new folder is removed again if what is made inside the context is refused.
    """
    folder, text = options.results_dir, as_text(options)
    there = runs_in(folder, name)
    for former in there:
        parameters = former / PARAMETERS
        same = parameters.is_file() and parameters.read_text() == text
        if same and not (former / "model.h5").exists():
            log.info("going on with %s", former)
            yield former
            return
    number = 1 + max((int(p.name.partition("+RUN-")[2] or 1) for p in there), default=0)
    path: Path = folder / (f"{name}+RUN-{number}" if there else name)
    if there:
        log.info("%s has results already, which are kept; these go to %s", there[-1], path)
    above = [each for each in path.parents if not each.exists()]
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise SaveError(f"cannot make {path}: {error}; see --results_dir") from error
    try:
        with replacing(path / PARAMETERS) as temporary:
            temporary.write_text(text)
        yield path
    except BaseException:
        rmtree(path)
        with suppress(OSError):  # somebody else's are there meanwhile
            for each in above:
                each.rmdir()
        raise


def find(options: argparse.Namespace, name: str) -> Path:
    """The newest results of a name.

    Raises:
        RecipeError: If there are none.
    """
    there = [p for p in runs_in(options.results_dir, name) if (p / "model.h5").is_file()]
    if not there:
        raise RecipeError(
            f"--train False takes results that are there, but there is no {name} with a model.h5 "
            f"in {options.results_dir}; train first, with the same --epochs and network"
        )
    return there[-1]


def write_model(emulator: Any, folder: Path, name: str = "model.h5") -> None:
    """The network for Keras; its scales are in the two files beside it."""
    from map2map.exports.keras_h5 import export

    with replacing(folder / name) as temporary:
        export(emulator, temporary)


def write_history(folder: Path, history: dict[str, list[float]]) -> None:
    """``train-history.csv``, as Keras logs it, and ``Learning-curve.pdf``.

    Args:
        folder: Of the results.
        history: Losses and measures of each epoch, by name.
    """
    columns = {
        "loss": "train", "mae": "mae/train", "mse": "mse/train",
        "val_loss": "val", "val_mae": "mae/val", "val_mse": "mse/val",
    }  # fmt: skip
    rows = zip(*(history[key] for key in columns.values()), strict=True)
    lines = [" ".join(["epoch", *columns])]
    lines += [" ".join(map(str, [epoch, *row])) for epoch, row in enumerate(rows)]
    with replacing(folder / "train-history.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 6))
        axis = figure.subplots()
        epochs = np.arange(1, len(history["train"]) + 1)
        axis.plot(epochs, history["train"], "-", label="Train loss")
        axis.plot(epochs, history["val"], "--", label="Validation loss")
        axis.set(xlabel="Epoch", ylabel="Loss", ylim=(0, None))
        axis.legend()
    with replacing(folder / "Learning-curve.pdf") as temporary:
        figure.savefig(temporary, format="pdf")
