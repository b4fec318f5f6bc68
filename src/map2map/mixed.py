"""Cells as samples: crops are read some at a time, and their cells mixed.

For networks that see one cell: a column of air, a row of a table. Millions of them are read in long
slices, never one by one.
"""

from collections.abc import Iterator
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from map2map.batches import Batch, Batches
from map2map.errors import GeometryError, RecipeError
from map2map.order import Order, Share
from map2map.samples import SampleDataset

__all__ = ["CellBatch", "CellBatches"]


class CellBatch(Batch):
    """Several cells, each a sample.

    Args:
        dataset: Where they come from.
        input: Shape (cell, channel).
        target: Shape (cell, channel).
    """

    def __init__(self, dataset: SampleDataset, input: Tensor, target: Tensor) -> None:
        self.dataset, self.input, self.target = dataset, input, target

    def __len__(self) -> int:
        return len(self.input)

    def settle(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, shape (cell, channel, 1, …)."""
        ones = (1,) * self.dataset.runs.ndim
        x, y = (side.reshape(*side.shape, *ones) for side in (self.input, self.target))
        return x, y

    def noise(self) -> tuple[None, None]:
        """None: cells are not varied."""
        return None, None

    def factors(self) -> None:
        """None, likewise."""


class CellBatches(Batches):
    """The cells of all crops, mixed within so many crops at a time.

    Processes have crops of their own. Where there are fewer crops than processes, all of them are
    trained on by several; of others (``vary`` false) every process takes its part of the cells, so
    that each counts once.

    Args:
        dataset: The crops.
        order: Their order.
        crops: Crops that are read together.
        cells: Cells per batch.
        share: Our rank and the number of processes.
        vary: Whether cells are mixed anew each epoch (training) or left in their order.
        threads: Threads that read ahead.
        pin: Whether batches are in page-locked memory.

    Raises:
        RecipeError: If there is anything that cells by themselves do not have, or there are fewer
            cells than processes.
        GeometryError: If more than the crop's own cells would be read.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        order: Order,
        crops: int,
        cells: int,
        share: Share | None = None,
        *,
        vary: bool = False,
        threads: int = 2,
        pin: bool = False,
    ) -> None:
        share, self._part = share or Share(), Share()
        if not vary and len(dataset) < share.world:
            share, self._part = Share(), share
        super().__init__(dataset, order, crops, share, vary=vary, threads=threads)
        self.cells, self._pin, self._cell = cells, pin, 0
        if cells < 1:
            raise RecipeError(f"a batch has at least 1 cell, not {cells}")
        augment = dataset.augment
        varied = augment.symmetries != "none" or augment.add is not None or augment.mul is not None
        if varied or dataset.runs.targets.of_run:
            raise RecipeError(
                "cells are samples by themselves (data.reading.cells): they have no symmetries, "
                "noise, labels or parameters of runs; leave those out, or leave `cells` out"
            )
        whole = dataset.windows(0, dataset.draw(0, 0))
        if {window.shape for window in whole} != {tuple(dataset.size)}:
            raise GeometryError(
                f"cells are samples by themselves (data.reading.cells), but the crop of "
                f"{dataset.size} cells is read as {whole[1].shape} for inputs and "
                f"{whole[2].shape} for targets; this is for networks that see one cell, without "
                f"halo or scale factor"
            )

        world = self._part.world
        if not all(
            any(b > a for a, b in map(Share(r, world).of, self._sizes())) for r in range(world)
        ):
            raise RecipeError(
                f"{len(dataset)} crops of {self.per_crop} cells are to be shared out to {world} "
                f"processes, of which some would have none; take fewer processes "
                f"(trainer.devices), or more data"
            )

    @property
    def per_crop(self) -> int:
        """Cells of a crop."""
        return prod(self.dataset.size)

    def state_dict(self) -> dict[str, int]:
        """Which crop of which epoch comes next, and which cell of those that it is read with."""
        return super().state_dict() | {"cell": self._cell}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin there."""
        super().load_state_dict(state)
        self._cell = state.get("cell", 0)

    @property
    def samples(self) -> int:
        """Cells of one epoch of this process."""
        return sum(stop - start for start, stop in map(self._part.of, self._sizes()))

    def __len__(self) -> int:
        parts = map(self._part.of, self._sizes())
        return sum(ceil((stop - start) / self.cells) for start, stop in parts)

    def _sizes(self) -> Iterator[int]:
        """Cells of the crops that are read together, each time."""
        left = super().samples
        while left > 0:
            yield min(self.size, left) * self.per_crop
            left -= self.size

    def __iter__(self) -> Iterator[Batch]:
        if (self._sample or self._cell) and not self._resumed:
            # the last iteration was left early
            self._epoch, self._sample, self._cell = self._epoch + 1, 0, 0
        epoch, self._resumed = self._epoch, False
        indices = self._indices(epoch)
        parts = self._parts(indices[self._sample :])
        read = self._ahead if self.threads else self._one_by_one
        for several in read(parts, epoch if self.vary else None):
            x, y = (rows_of(side) for side in several.settle())
            start, end = self._part.of(len(x))
            chosen = self._mixed(epoch, len(x))[start:end]
            stop = self._sample + len(several)
            for batch in torch.split(chosen[self._cell :], self.cells) if len(chosen) else ():
                self._cell += len(batch)
                if self._cell == len(chosen):
                    last = stop >= len(indices)
                    self._sample, self._cell = (0, 0) if last else (stop, 0)
                    self._epoch = epoch + 1 if last else epoch
                yield self._batch(x[batch], y[batch])

    def _mixed(self, epoch: int, cells: int) -> Tensor:
        """The order of the cells of the crops that are read from our sample on."""
        if not self.vary:
            return torch.arange(cells)
        rng = np.random.default_rng([self.order.seed, epoch, self._sample, self.share.rank])
        return torch.from_numpy(rng.permutation(cells))

    def _batch(self, x: Tensor, y: Tensor) -> CellBatch:
        pinned: Any = (side.pin_memory() if self._pin else side for side in (x, y))
        return CellBatch(self.dataset, *pinned)


def rows_of(values: Tensor) -> Tensor:
    """Cells as rows, shape (cell, channel), of fields (batch, channel, *space)."""
    return values.flatten(2).transpose(1, 2).reshape(-1, values.shape[1])
