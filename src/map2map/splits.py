"""Splits: which runs train, which validate, and which are kept for the test.

A split is a function of the names of the runs alone: the same when training and when testing, and
wherever the files lie in a folder.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import numpy as np

from map2map.errors import RecipeError

__all__ = ["SIDES", "Split", "sides"]

SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """How runs are shared out.

    Args:
        ratios: Shares of training, validation and test; they add up to 1.
        by: "random": drawn by the seed, of n runs int(r n) and so on; "hash": each by a hash of its
            name, so that it stays where it is when others are added; "name": the first by their
            names train; "time": the first by the coordinate of their frames (or their numbers)
            train, so that the frames of a file may be on several sides.
        together: Placeholders; runs that agree in them are on one side. Default: those of one file.
        seed: Of the draws and hashes.
    """

    ratios: list[float] = field(default_factory=lambda: [0.8, 0.1, 0.1])
    by: Literal["random", "hash", "name", "time"] = "random"
    together: list[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.ratios) != len(SIDES) or any(not 0 <= ratio <= 1 for ratio in self.ratios):
            raise RecipeError(
                f"a split has three ratios from 0 to 1, of training, validation and test, not "
                f"{list(self.ratios)}"
            )
        if abs(sum(self.ratios) - 1) > 1e-6 or not self.ratios[0]:
            raise RecipeError(
                f"the ratios {list(self.ratios)} add up to {sum(self.ratios):.6g}; they add up to "
                f"1, and some of it trains"
            )
        if self.by == "time" and self.together:
            raise RecipeError("a split by time keeps nothing together; leave `together` out")


def sides(names: Sequence[str], split: Split) -> list[str]:
    """The side of every run.

    Args:
        names: Of the runs; equal ones are on one side. Of a split by time, texts that sort as
            times do.
        split: How they are shared out.

    Raises:
        RecipeError: If a side that has a share has no run.
    """
    unique = sorted(set(names))
    # a little more than a sum of ratios, so that 0.7 + 0.2 of 10 are 9
    bounds = [total / sum(split.ratios) + 1e-9 for total in accumulate(split.ratios)]
    if split.by == "hash":
        shares = [fraction(name, split.seed) for name in unique]
        found = [next(i for i, bound in enumerate(bounds) if share < bound) for share in shares]
    else:
        stops = [int(bound * len(unique)) for bound in bounds]
        found = [next(i for i, stop in enumerate(stops) if k < stop) for k in range(len(unique))]
        if split.by == "random":
            rng = np.random.default_rng(split.seed)
            found = [found[k] for k in rng.permutation(len(unique))]
    empty = [
        side
        for i, (side, ratio) in enumerate(zip(SIDES, split.ratios, strict=True))
        if ratio and i not in found
    ]
    if empty:
        raise RecipeError(
            f"the split {list(split.ratios)} by {split.by} of {len(unique)} runs leaves "
            f"{' and '.join(empty)} empty; give more files, other ratios, or the files of each "
            f"side (data.train, data.val, data.test)"
        )
    of = {name: SIDES[i] for name, i in zip(unique, found, strict=True)}
    return [of[name] for name in names]


def fraction(name: str, seed: int) -> float:
    """A number from 0 to below 1 that a name hashes to."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
