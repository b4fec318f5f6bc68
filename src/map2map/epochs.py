"""Epochs: what a training tells of each, from the losses of its batches and of all processes."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from map2map.tallies import FieldTally, Tally

__all__ = ["SPLITS", "Epochs"]

SPLITS = ("train", "val")

Total = Callable[[Tensor], Tensor]


class Epochs:
    """Sums of the epoch under way, the numbers that it comes to, and those of all epochs before.

    A key is the name of a split for the loss, and "name/split" for anything else.

    Args:
        measures: Names of what is told beside the loss.

    Attributes:
        sums: By key, the sum over samples of a loss or measure, and the number of samples.
        part_sums: Likewise of further losses, which are there once they are counted.
        tallies: Counts of another kind, by split.
        losses: Of the epoch, by split.
        measures: Of the epoch, by key.
        parts: Likewise of further losses.
        history: All of these, by key, of every epoch; NaN for epochs that did not tell them.
    """

    def __init__(self, measures: Iterable[str] = ()) -> None:
        keys = (*SPLITS, *(f"{name}/{split}" for name in measures for split in SPLITS))
        self.sums: dict[str, list[Any]] = {key: [0.0, 0] for key in keys}
        self.part_sums: dict[str, list[Any]] = {}
        self.tallies: dict[str, Tally | FieldTally] = {}
        self.losses: dict[str, float] = {}
        self.measures: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.history: dict[str, list[float]] = {key: [] for key in keys}

    def begin(self) -> None:
        """Forget the epoch before: not every epoch need be validated."""
        self.losses, self.measures, self.parts = {}, {}, {}

    def count(self, key: str, value: Tensor, n: int) -> None:
        """Add the mean over ``n`` samples, a scalar."""
        add(self.sums[key], value, n)

    def count_part(self, key: str, value: Tensor, n: int) -> None:
        """Likewise of a further loss."""
        add(self.part_sums.setdefault(key, [0.0, 0]), value, n)

    def is_finite(self) -> bool:
        """Whether all losses of the epoch so far are."""
        sums = [self.sums["train"], *self.part_sums.values()]
        return all(math.isfinite(float(total)) for total, _ in sums)

    def close(self, split: str, total: Total) -> None:
        """Make sums into the numbers of the epoch.

        Args:
            split: "train" or "val".
            total: Adds up a tensor over all processes.
        """
        self.losses[split] = mean(self.sums[split], total)
        self.sums[split] = [0.0, 0]
        for key in keys_of(split, self.sums):
            self.measures[key] = mean(self.sums[key], total)
            self.sums[key] = [0.0, 0]
        for key in keys_of(split, self.part_sums):
            self.parts[key] = mean(self.part_sums.pop(key), total)
        if split in self.tallies:
            for name, value in self.tallies[split].results(total).items():
                self.measures[f"{name}/{split}"] = value
            self.tallies[split].clear()

    def of(self, split: str) -> dict[str, float]:
        """The loss and the measures of the epoch, by name."""
        names = {key.removesuffix(f"/{split}"): key for key in keys_of(split, self.measures)}
        told = {name: self.measures[key] for name, key in names.items()}
        return {"loss": self.losses.get(split, math.nan)} | told

    def record(self) -> None:
        """Put the numbers of the epoch into the history."""
        before = len(self.history["train"])
        for key, value in (self.losses | self.measures | self.parts).items():
            past = self.history.setdefault(key, [])
            past += [math.nan] * (before - len(past)) + [value]

    def state(self) -> dict[str, Any]:
        """The sums of this process, for a state."""
        sums, parts = (
            {key: [float(total), n] for key, (total, n) in of.items()}
            for of in (self.sums, self.part_sums)
        )
        tallies = {split: tally.state() for split, tally in self.tallies.items()}
        return {"sums": sums, "parts": parts, "tallies": tallies}

    def load(self, state: dict[str, Any]) -> None:
        """Take up the sums of a state."""
        # what is measured only now begins with the next epoch
        self.sums |= {key: list(pair) for key, pair in state["sums"].items() if key in self.sums}
        self.part_sums = {key: list(pair) for key, pair in state["parts"].items()}
        for split, sums in state["tallies"].items():
            self.tallies[split].load(sums)


def add(into: list[Any], value: Tensor, n: int) -> None:
    """Add a mean over ``n`` samples to a sum."""
    # kept on the device, so that the processor does not wait for the GPU
    into[0] = into[0] + value.detach().double() * n
    into[1] += n


def mean(sums: list[Any], total: Total) -> float:
    """Over the samples of all processes."""
    pair = total(torch.tensor([float(n) for n in sums], dtype=torch.float64))
    return float(pair[0] / pair[1])


def keys_of(split: str, keys: Iterable[str]) -> list[str]:
    """Those of a split that have a name."""
    return [key for key in keys if key.endswith(f"/{split}")]
