"""What the options may be, and where logs may go: checked before the data are looked at."""

import argparse
import os
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from map2map.dialects.cubes.options import Settings
from map2map.errors import RecipeError
from map2map.memory import bytes_of

__all__ = ["RANGES", "check", "check_folders"]


class Range(NamedTuple):
    """What an option may be.

    Args:
        least: The lowest value.
        below: What values are below; none if it is infinite.
        why: What the range comes from, for the error.
    """

    least: float
    below: float = inf
    why: str = ""

    def __str__(self) -> str:
        top = f" and below {self.below:.10g}" if self.below < inf else ""
        return f"at least {self.least:g}{top}{self.why and f' ({self.why})'}"


RANGES: Mapping[str, Range] = {
    "redshift": Range(0),
    "stride": Range(1),
    "smoothing": Range(0, 0.5, "from 0.5 on, labels are more often wrong than right"),
    "workers": Range(0),
    "batch_size": Range(2, why="batch normalization needs two slices"),
    "weight_decay": Range(0),
    "betas": Range(0, 1),
    "test_every": Range(1),
    "seed": Range(0, 2**32),
    "devices": Range(1),
}
"""What the options may be."""


def check(options: argparse.Namespace) -> None:
    """Refuse options out of range.

    Raises:
        RecipeError: If there are any.
    """
    for key, allowed in RANGES.items():
        value = getattr(options, key)
        for number in value if isinstance(value, list) else [value]:
            if number is None or isinstance(number, str):
                continue
            # not for nan either
            if not allowed.least <= number < allowed.below:
                raise RecipeError(
                    f"--{key.replace('_', '-')} is {number}; it must be {allowed}; the default "
                    f"holds without it"
                )
    if options.memory is not None:
        try:
            bytes_of(options.memory)
        except RecipeError as error:
            raise RecipeError(f"--memory: {error}") from error


def check_folders(settings: Settings) -> None:
    """Refuse a folder of logs that cannot be made or written to.

    Raises:
        RecipeError: If it, or what is above it, is a file or not writable, or folders cannot be
            made in it.
    """
    folder = Path(settings.log_dir) / settings.log_name
    # what cannot be looked into is not there for `exists`, but its parent is
    found = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not found.is_dir():
        raise RecipeError(
            f"train_params.log_dir is {settings.log_dir!r}, but {found} is no folder; allowed is a "
            f"folder, or what can be made one: choose another"
        )
    if not os.access(found, os.W_OK | os.X_OK):
        raise RecipeError(
            f"train_params.log_dir is {settings.log_dir!r}, but {found} cannot be written to; "
            f"choose another"
        )
    # of several processes, the others must not remove what the first one has begun
    if os.environ.get("LOCAL_RANK", "0") == "0":
        try:
            make_and_remove([path for path in (folder, *folder.parents) if not path.exists()])
        except OSError as error:
            raise RecipeError(
                f"train_params.log_dir is {settings.log_dir!r}, but {folder} cannot be made in "
                f"{found}: {error.strerror or error}; choose another"
            ) from error


def make_and_remove(folders: Sequence[Path]) -> None:
    """Make folders, the last one first, and remove them again: rights do not tell all.

    Some file systems have folders of their own only, and some names are too long.

    Raises:
        OSError: If one cannot be made; nothing is left.
    """
    made = []
    try:
        for path in reversed(folders):
            path.mkdir()
            made.append(path)
    finally:
        for path in reversed(made):
            path.rmdir()
