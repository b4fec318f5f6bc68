"""The data of a recipe, for Lightning's trainer."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from map2map.batches import Batch, Batches
from map2map.crops import Augment, Crops
from map2map.derived import Derived
from map2map.errors import GeometryError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.order import Order, Share
from map2map.patterns import some
from map2map.runs import Files, Runs
from map2map.samples import SampleDataset
from map2map.told import Told
from map2map.windows import Halo, per_axis, slabs

__all__ = ["FieldData", "Reading"]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How samples are read.

    Args:
        batch_size: Samples per batch, of each process.
        threads: Threads that read ahead; 0 reads when asked, as on a CPU where all is in memory.
        local_order: Shuffle files, and crops only among neighboring files, so that each process
            reads its share of the files one after another (map2map's ``--div-data``).
        distance: How far a crop may be displaced when ``local_order``, in files.
        mask: Whether cells that are NaN or infinite in the target are left out of the loss (and
            become 0 in the normalized input); refused otherwise.
        in_memory: A split whose fields together take no more than this is read once and kept in
            memory (of each process), as float32; 0: every crop is read from the files.
        class_factors: What normalized inputs are multiplied by, by the class of their run: 0 blanks
            one, to test what a network of labels sees at all.
    """

    batch_size: int = 1
    threads: int = 2
    local_order: bool = False
    distance: float = 1.0
    mask: bool = False
    in_memory: int | str = "256MiB"
    class_factors: dict[str, float] | None = None


class FieldData(pl.LightningDataModule):
    """Pairs of field files, cut into crops.

    Args:
        train: For each field, the files of the training split: a pattern, several, or a pattern
            with the variable's name; or a value that it has everywhere.
        val: Likewise of the validation split; none, no validation.
        crops: Where the crops are.
        augment: What is varied from epoch to epoch in training.
        domain: What the grids have in common.
        reading: Batches, threads, order and mask.
        seed: Of the order and of everything drawn; in a recipe by default `seed_everything`.
        derived: How fields without files are computed from others, by name.
    """

    def __init__(
        self,
        train: dict[str, str | list[str] | Files | Told | float],
        val: dict[str, str | list[str] | Files | Told | float] | None = None,
        crops: Crops | None = None,
        augment: Augment | None = None,
        domain: Domain | None = None,
        reading: Reading | None = None,
        seed: int | None = None,
        derived: dict[str, Derived] | None = None,
    ) -> None:
        super().__init__()
        self.patterns = {"train": train} | ({"val": val} if val else {})
        self.crops, self.augment = crops or Crops(), augment or Augment()
        self.domain, self.reading, self.seed = domain or Domain(), reading or Reading(), seed
        self.derived = derived or {}
        self.runs: dict[str, Runs] = {}
        self._batches: dict[str, Batches] = {}
        self.next_sample = {"epoch": 0, "sample": 0}

    def open(self, inputs: list[Field], targets: list[Field]) -> Runs:
        """Find the files of all splits and check them; the runs of the training split."""
        for split, patterns in self.patterns.items():
            self.runs[split] = Runs(
                inputs,
                targets,
                patterns,
                self.domain,
                scale_factor=self.crops.scale_factor,
                derived=self.derived,
            )
        train, val = self.runs["train"], self.runs.get("val")
        if val is not None and (val.inputs, val.targets) != (train.inputs, train.targets):
            raise GeometryError(
                f"the fields of the validation split, {val.inputs} and {val.targets}, are not "
                f"those of the training split, {train.inputs} and {train.targets}"
            )
        if val is not None:
            self._tell_shared(train, val)
        return train

    @staticmethod
    def _tell_shared(train: Runs, val: Runs) -> None:
        """Warn of runs that are in both splits."""
        known = {str(run) for run in train.groups}
        both = [str(run) for run in val.groups if str(run) in known]
        if both:
            log.warning(
                "%d of %d runs of the validation split are in the training split, too, so its "
                "scores flatter: %s",
                len(both),
                len(val.groups),
                some(both, 3),
            )

    def resolve(self, footprint: Footprint) -> None:
        """Settle the crops' halo for a model, and make the batches."""
        self.aligned, gpu = self.crops.halo == "auto", torch.cuda.is_available()
        for split, runs in self.runs.items():
            crops = self.crops
            if self.aligned:
                size = per_axis(crops.size, runs.shape, "crop")
                crops = dataclasses.replace(crops, halo=sides(footprint.halo_for(size)))
            training = split == "train"
            dataset = SampleDataset(
                runs,
                crops,
                self.augment if training else None,
                self.domain,
                seed=self.seed or 0,
                allow_nonfinite=self.reading.mask,
                in_memory=self.reading.in_memory,
                factors=self.reading.class_factors,
            )
            self._batches[split] = Batches(
                dataset,
                Order(
                    shuffle=training,
                    local=self.reading.local_order,
                    distance=self.reading.distance,
                    seed=self.seed or 0,
                ),
                self.reading.batch_size,
                self._share(),
                vary=training,
                # copying from memory takes less than a thread's competing with a step on the CPU
                threads=0 if dataset.in_memory and not gpu else self.reading.threads,
                pin=gpu,
                join_last=training and footprint.reduces,
            )

    def _share(self) -> Share:
        trainer = self.trainer
        return Share() if trainer is None else Share(trainer.global_rank, trainer.world_size)

    def chunks(self, name: str) -> Iterator[torch.Tensor]:
        """All values of a field in the training split, out of core: (channel, cell) at a time."""
        runs = self.runs["train"]
        if runs.numbers is not None and name in runs.targets.names:
            yield torch.from_numpy(runs.numbers[:, runs.targets.slices[name]].T.copy())
            return
        fields = runs.inputs if name in runs.inputs.names else runs.targets
        channels = fields[name].channels
        for run in runs.groups:
            source, variable = runs.source(name, run)
            shape = source.stored(variable).shape
            grid = self.domain.grid(shape) if self.domain.planes is None else None
            for slab in slabs(shape, channels or 1):
                out = np.empty((channels or 1, *slab.shape), np.float32)
                source.read(variable, slab, out, grid)
                source.release()
                yield torch.from_numpy(out.reshape(len(out), -1))

    def dataset(self, split: str) -> SampleDataset:
        """The samples of a split."""
        return self._batches[split].dataset

    def in_order(self, split: str) -> Batches:
        """All samples of a split, one after another, as they are."""
        size, threads = self.reading.batch_size, self.reading.threads
        return Batches(self.dataset(split), Order(shuffle=False), size, threads=threads)

    def train_dataloader(self) -> Batches:
        """The batches of the training split."""
        batches = self._batches["train"]
        batches.load_state_dict(self.next_sample)
        return batches

    def state_dict(self) -> dict[str, int]:
        """Which sample of which epoch comes next."""
        return self._batches["train"].state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let training begin there; Lightning itself restores batches only within an epoch."""
        self.next_sample = state_dict

    def val_dataloader(self) -> Any:
        """The batches of the validation split."""
        return self._batches["val"]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Copy a batch to the device, asynchronously from page-locked memory."""
        if isinstance(batch, Batch):
            return batch.to(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


def sides(halo: Halo) -> list[int]:
    """Low and high per axis, as a recipe writes them."""
    return [n for pair in zip(halo.low, halo.high, strict=True) for n in pair]
