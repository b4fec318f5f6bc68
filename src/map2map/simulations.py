"""What simulations share that are written to a folder: seeds of two splits, and their record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from map2map.errors import RecipeError, SaveError

__all__ = ["SPLITS", "former_record", "seeds_of_splits"]

SPLITS = ("train", "test")


def seeds_of_splits(train: int, test: int, seed: int, what: str) -> list[tuple[str, int]]:
    """Split and seed of each simulation.

    Args:
        train: How many there are for training; their seeds are ``seed``, ``seed`` + 1, …
        test: For testing, likewise.
        seed: The first of both splits.
        what: One of them is called.

    Raises:
        RecipeError: If there are none, or a number is negative.
    """
    if min(train, test, seed) < 0 or not train + test:
        raise RecipeError(
            f"simulate needs train >= 0, test >= 0, at least one {what}, and seed >= 0, not train "
            f"{train}, test {test}, seed {seed}"
        )
    counts = zip(SPLITS, (train, test), strict=True)
    return [(split, seed + i) for split, count in counts for i in range(count)]


def former_record(
    path: Path, parameters: Mapping[str, Any], *, overwrite: bool
) -> dict[str, Any] | None:
    """What a folder says of its simulations, if more may be added to them.

    Args:
        path: The record, JSON with ``parameters``.
        parameters: Of those that shall be added, as they come back from JSON.
        overwrite: Whether others may be replaced.

    Returns:
        None if there are none, or others, which may be replaced.

    Raises:
        SaveError: If the record cannot be read, or tells other parameters and they may not be.
    """
    try:
        record = dict(json.loads(path.read_text()))
        before = record["parameters"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaveError(f"cannot add simulations to {path.parent}: {error}") from error
    if before == parameters:
        return record
    if not overwrite:
        raise SaveError(
            f"{path.parent} holds simulations with {before}, not {parameters}; choose another "
            f"folder, or allow to overwrite"
        )
    return None
