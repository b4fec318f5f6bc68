"""Batches: samples read ahead by threads, in an order that can be resumed at any sample.

Threads, not processes: a window is copied from a memory map straight into the batch, and numpy
lets other threads run meanwhile. A process would have to copy every crop several times more.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from map2map.crops import Draw
from map2map.errors import RecipeError
from map2map.order import Order, Share
from map2map.samples import SampleDataset
from map2map.symmetry import Symmetry
from map2map.typing import Shape
from map2map.windows import crop_window

__all__ = ["Batch", "Batches"]

PAUSE = 0.004
"""Seconds before a sample is read, if another is ready already."""


class Batch:
    """Several samples, raw, on their way to the device.

    A symmetry may change the shape of a crop that is not a cube, so samples travel as rows of
    numbers and get their shapes when `settle` turns them.

    Args:
        dataset: Where they come from.
        indices: Their numbers.
        pin: Whether to use page-locked memory, from which a GPU copies asynchronously.
    """

    def __init__(
        self, dataset: SampleDataset, indices: Sequence[int], *, pin: bool = False
    ) -> None:
        self.dataset, self.indices = dataset, [int(i) for i in indices]
        input_size = dataset.runs.inputs.channels * prod(
            crop_window((0,) * dataset.runs.ndim, dataset.size, dataset.halo).shape
        )
        target_size = dataset.runs.targets.channels * prod(dataset.target_size)
        n = len(self.indices)
        self.input = torch.empty(n, input_size, pin_memory=pin)
        self.target = torch.empty(n, target_size, pin_memory=pin)
        self.draws: list[Draw | None] = [None] * n
        self._shapes: list[tuple[Shape, Shape]] = [((), ())] * n

    def __len__(self) -> int:
        return len(self.indices)

    def fill(self, i: int, epoch: int | None) -> None:
        """Read the i-th sample."""
        into = self.input[i].numpy(), self.target[i].numpy()
        sample = self.dataset.read(self.indices[i], epoch, into)
        self.draws[i] = sample.draw
        self._shapes[i] = sample.input.shape, sample.target.shape

    def to(self, device: Any, *, non_blocking: bool = True, **_: Any) -> "Batch":
        """Copy to a device."""
        moved = object.__new__(type(self))
        moved.__dict__ = self.__dict__ | {
            "input": self.input.to(device, non_blocking=non_blocking),
            "target": self.target.to(device, non_blocking=non_blocking),
        }
        return moved

    def settle(self) -> tuple[Tensor, Tensor]:
        """Apply the symmetries.

        Returns:
            Inputs and targets in physical values, shapes (batch, channel, *space); labels and
            parameters (batch, channel).
        """
        runs = self.dataset.runs
        sides = []
        for i, (rows, fields) in enumerate(
            ((self.input, runs.inputs), (self.target, runs.targets))
        ):
            shapes = [shapes[i] for shapes in self._shapes]
            draws = [draw for draw in self.draws if draw is not None]
            if fields.of_run or all(draw.symmetry.is_identity for draw in draws):
                sides.append(rows.reshape(len(self), *shapes[0]))
            else:
                sides.append(turned(rows, shapes, draws, fields.vectors))
        return sides[0], sides[1]

    def noise(self) -> tuple[Tensor | None, Tensor | None]:
        """Numbers to add to, then to multiply, the normalized fields with: (batch, channel)."""
        pairs = [(draw.add, draw.mul) for draw in self.draws if draw is not None]
        add, mul = (
            None
            if any(values is None for values in side)
            else torch.from_numpy(np.stack(side)).to(self.input.device)
            for side in zip(*pairs, strict=True)
        )
        return add, mul

    def styles(self) -> Tensor | None:
        """Physical values of the styles, (batch, style_chan); None if there are none."""
        if not len(self.dataset.runs.styles):
            return None
        rows = np.stack([self.dataset.styles(index) for index in self.indices])
        return torch.from_numpy(rows).to(self.input.device)

    def factors(self) -> Tensor | None:
        """What the normalized inputs of samples are multiplied by: (batch,); None if by nothing."""
        factors = [self.dataset.factor(index) for index in self.indices]
        if all(factor == 1 for factor in factors):
            return None
        return torch.tensor(factors, device=self.input.device)


class Batches:
    """The batches of an epoch, read ahead.

    Each iteration is one epoch. `state_dict` tells how far it has come, and `load_state_dict` lets
    the next iteration go on from there.

    Args:
        dataset: The samples.
        order: Their order.
        size: Samples per batch (of this process).
        share: Our rank and the number of processes.
        vary: Whether samples are drawn anew each epoch (training) or left as they are.
        threads: Threads that read ahead; 0 reads when asked.
        pin: Whether batches are in page-locked memory.
        join_last: Whether a last batch of a single sample, which batch normalization of numbers
            does not take, joins the batch before it.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        order: Order,
        size: int = 1,
        share: Share | None = None,
        *,
        vary: bool = False,
        threads: int = 2,
        pin: bool = False,
        join_last: bool = False,
    ) -> None:
        if size < 1 or threads < 0:
            raise RecipeError(
                f"a batch has at least 1 sample and is read by 0 or more threads, not {size} and "
                f"{threads}"
            )
        self.dataset, self.order, self.size = dataset, order, size
        self.share = share or Share()
        if not vary and len(dataset) < self.share.world:
            raise RecipeError(
                f"{len(dataset)} crops are to be shared out to {self.share.world} processes, of "
                f"which some would have none to validate on; take fewer processes "
                f"(trainer.devices), smaller crops, or more data"
            )
        self.vary, self.threads, self.pin = vary, threads, pin
        self.join_last = join_last and size > 1
        # what comes next: a sample of an epoch, counted in this process
        self._epoch, self._sample, self._resumed = 0, 0, False

    def state_dict(self) -> dict[str, int]:
        """Which sample of which epoch comes next."""
        return {"epoch": self._epoch, "sample": self._sample}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin there."""
        self._epoch, self._sample, self._resumed = state["epoch"], state["sample"], True

    def close_epoch(self) -> None:
        """Let the next iteration be the next epoch, though not all of this one was taken."""
        if self._sample:
            self._epoch, self._sample = self._epoch + 1, 0

    @property
    def samples(self) -> int:
        """Samples of one epoch of this process."""
        return len(self._indices(0))

    def __len__(self) -> int:
        return len(self._parts(range(self.samples)))

    @property
    def sizes(self) -> list[int]:
        """Samples of the batches of an epoch, those there are, the largest first."""
        return sorted({len(part) for part in self._parts(range(self.samples))}, reverse=True)

    @property
    def _files_and_crops(self) -> tuple[int, int]:
        crops = self.dataset.ncrop
        if crops is not None:
            return len(self.dataset.runs), crops
        if self.order.local:
            raise RecipeError(
                "the order can be local only if all runs have as many crops; leave local_order out"
            )
        return 1, len(self.dataset)

    def _indices(self, epoch: int) -> Sequence[int]:
        runs, crops = self._files_and_crops
        # even shares in training, where all processes must take as many steps
        mine = self.order.samples(epoch, runs, crops, self.share, even=self.vary)
        return [int(index) for index in mine]

    def __iter__(self) -> Iterator[Batch]:
        if self._sample and not self._resumed:
            # the last iteration was left early
            self._epoch, self._sample = self._epoch + 1, 0
        epoch, self._resumed = self._epoch, False
        indices = self._indices(epoch)
        parts = self._parts(indices[self._sample :])
        read = self._ahead if self.threads else self._one_by_one
        for batch in read(parts, epoch if self.vary else None):
            self._sample += len(batch)
            if self._sample >= len(indices):
                self._epoch, self._sample = epoch + 1, 0
            yield batch

    def _parts(self, indices: Sequence[int]) -> list[Sequence[int]]:
        """The samples of each batch."""
        parts = [indices[i : i + self.size] for i in range(0, len(indices), self.size)]
        if self.join_last and len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [indices[-1 - self.size :]]
        return parts

    def _one_by_one(self, parts: Sequence[Sequence[int]], epoch: int | None) -> Iterator[Batch]:
        for part in parts:
            batch = Batch(self.dataset, part, pin=self.pin)
            for i in range(len(batch)):
                batch.fill(i, epoch)
            yield batch

    def _ahead(self, parts: Sequence[Sequence[int]], epoch: int | None) -> Iterator[Batch]:
        # one batch being used, one ready, and as many samples under way as there are threads
        depth = 1 + ceil(self.threads / self.size)
        queue: deque[tuple[Batch, list[Future[None]]]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="read")
        try:
            for part in parts:
                batch = Batch(self.dataset, part, pin=self.pin)
                # a thread that begins at once would compete for the interpreter with the training
                # step that begins as well; in a moment that step is busy outside of it
                pause = PAUSE if queue and all(future.done() for future in queue[0][1]) else 0.0
                fills = [pool.submit(fill, batch, i, epoch, pause) for i in range(len(batch))]
                queue.append((batch, fills))
                if len(queue) > depth:
                    yield _finished(*queue.popleft())
            while queue:
                yield _finished(*queue.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def turned(
    rows: Tensor, shapes: Sequence[Shape], draws: Sequence[Draw], vectors: Sequence[Sequence[int]]
) -> Tensor:
    """Samples after their symmetries; those that are turned alike are turned together."""
    alike: dict[tuple[Symmetry, Shape], list[int]] = {}
    for number, draw in enumerate(draws):
        alike.setdefault((draw.symmetry, draw.directions), []).append(number)
    channels, *space = shapes[0]
    out = rows.new_empty(len(rows), channels, *draws[0].symmetry.shape(tuple(space)))
    for (symmetry, directions), members in alike.items():
        # a single row is a view, several are copied
        some = rows[members] if len(members) > 1 else rows[members[0]]
        some = some.reshape(len(members), *shapes[members[0]])
        out[members] = symmetry.apply(some, vectors, directions)
    return out


def fill(batch: Batch, i: int, epoch: int | None, pause: float) -> None:
    """Read a sample after a pause."""
    time.sleep(pause)
    batch.fill(i, epoch)


def _finished(batch: Batch, fills: Sequence["Future[None]"]) -> Batch:
    for future in fills:
        future.result()
    return batch
