"""The data of a recipe, for Lightning's trainer."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from map2map.batches import Batch, Batches
from map2map.crops import Augment, Crops
from map2map.derived import Derived
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.mixed import CellBatches
from map2map.order import Order, Share
from map2map.patterns import some
from map2map.prepared_stores import check_current
from map2map.runs import Files, Runs
from map2map.samples import SampleDataset
from map2map.splits import Split
from map2map.told import Told
from map2map.windows import Halo, per_axis, slabs

__all__ = ["FieldData", "Reading"]

SPLITS = {"train": "training", "val": "validation", "test": "test"}

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
        cells: For networks that see one cell, such as a column: `batch_size` crops are read
            together, their cells mixed, and given out so many at a time, each as a sample.
    """

    batch_size: int = 1
    threads: int = 2
    local_order: bool = False
    distance: float = 1.0
    mask: bool = False
    in_memory: int | str = "256MiB"
    class_factors: dict[str, float] | None = None
    cells: int | None = None


class FieldData(pl.LightningDataModule):
    """Pairs of field files, cut into crops.

    Args:
        train: For each field, the files of the training split: a pattern, several, or a pattern
            with the variable's name; or a value that it has everywhere.
        val: Likewise of the validation split; none, no validation.
        test: Likewise of the test split, which training never sees.
        crops: Where the crops are.
        augment: What is varied from epoch to epoch in training.
        domain: What the grids have in common.
        reading: Batches, threads, order and mask.
        seed: Of the order and of everything drawn; in a recipe by default `seed_everything`.
        derived: How fields without files are computed from others, by name.
        split: How the runs of ``train`` are shared out among the splits, if ``val`` and ``test``
            are not given.
        overlap: Whether a run may be in several splits; refused otherwise.
    """

    def __init__(  # noqa: PLR0913 - the keys of a recipe
        self,
        train: dict[str, str | list[str] | Files | Told | float],
        val: dict[str, str | list[str] | Files | Told | float] | None = None,
        crops: Crops | None = None,
        augment: Augment | None = None,
        domain: Domain | None = None,
        reading: Reading | None = None,
        seed: int | None = None,
        derived: dict[str, Derived] | None = None,
        test: dict[str, str | list[str] | Files | Told | float] | None = None,
        split: Split | None = None,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if split is not None and (val or test):
            raise RecipeError(
                "data.split shares out the runs of data.train, so data.val and data.test are not "
                "given; leave out one or the others"
            )
        self.patterns = {"train": train}
        self.patterns |= {side: of for side, of in (("val", val), ("test", test)) if of}
        self.split, self.overlap = split, overlap
        self.crops, self.augment = crops or Crops(), augment or Augment()
        self.domain, self.reading, self.seed = domain or Domain(), reading or Reading(), seed
        self.derived = derived or {}
        self.runs: dict[str, Runs] = {}
        self._batches: dict[str, Batches] = {}
        self.next_sample = {"epoch": 0, "sample": 0}

    def open(self, inputs: list[Field], targets: list[Field], styles: Sequence[Field] = ()) -> Runs:
        """Find the files of all splits and check them; the runs of the training split."""
        factor = None if self.crops.scale_factor == "auto" else self.crops.scale_factor
        for split, patterns in self.patterns.items():
            self.runs[split] = Runs(
                inputs,
                targets,
                patterns,
                self.domain,
                scale_factor=factor,
                derived=self.derived,
                styles=styles,
            )
            # that of the training split goes for the others
            factor = self.runs[split].scale_factor
        if styles and self.reading.cells is not None:
            raise RecipeError(
                "data.reading.cells mixes cells of several runs, whose styles differ; leave out one"
            )
        for path in {
            path for runs in self.runs.values() for run in runs for path in run.paths.values()
        }:
            check_current(path)
        if self.split is not None:
            self.runs = self.runs["train"].split(self.split)
        train = self.runs["train"]
        for split, runs in self.runs.items():
            if (runs.inputs, runs.targets) != (train.inputs, train.targets):
                raise GeometryError(
                    f"the fields of the {SPLITS[split]} split, {runs.inputs} and {runs.targets}, "
                    f"are not those of the training split, {train.inputs} and {train.targets}"
                )
        for first, second in combinations(self.runs, 2):
            self._tell_shared(first, second)
        return train

    def _tell_shared(self, first: str, second: str) -> None:
        """Refuse runs that are in both splits, or warn of them."""
        known = {str(run) for run in self.runs[first].groups}
        both = [str(run) for run in self.runs[second].groups if str(run) in known]
        if not both:
            return
        message = (
            f"{len(both)} of {len(self.runs[second].groups)} runs of the {SPLITS[second]} split "
            f"are in the {SPLITS[first]} split, too, so its scores flatter: {some(both, 3)}"
        )
        if not self.overlap:
            raise RecipeError(f"{message}; take others, or say data.overlap: true")
        log.warning("%s", message)

    def resolve(self, footprint: Footprint, *, targets_too: bool = False) -> None:
        """Settle the crops' halo for a model, and make the batches.

        Args:
            footprint: Of what a step computes.
            targets_too: Whether it needs the target of all cells that it reads of the input.
        """
        check_scale(footprint, self.runs["train"])
        self.aligned, gpu = self.crops.halo == "auto", torch.cuda.is_available()
        for split in [split for split in self.runs if split != "test"]:
            runs, crops = self.runs[split], self.crops
            if self.aligned:
                size = per_axis(crops.size, runs.shape, "crop")
                halo = sides(footprint.halo_for(size))
                crops = dataclasses.replace(crops, halo=halo)
                if targets_too:
                    crops = dataclasses.replace(crops, target_halo=halo)
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
            order = Order(
                shuffle=training,
                local=self.reading.local_order,
                distance=self.reading.distance,
                seed=self.seed or 0,
            )
            # copying from memory takes less than a thread's competing with a step on the CPU
            threads = 0 if dataset.in_memory and not gpu else self.reading.threads
            number, cells, share = self.reading.batch_size, self.reading.cells, self._share()
            how: dict[str, Any] = {"vary": training, "threads": threads, "pin": gpu}
            if cells is None:
                joined = training and footprint.reduces
                batches = Batches(dataset, order, number, share, join_last=joined, **how)
            else:
                batches = CellBatches(dataset, order, number, cells, share, **how)
            self._batches[split] = batches

    def _share(self) -> Share:
        trainer = self.trainer
        return Share() if trainer is None else Share(trainer.global_rank, trainer.world_size)

    def chunks(self, name: str) -> Iterator[torch.Tensor]:
        """All values of a field in the training split, out of core: (channel, cell) at a time."""
        runs = self.runs["train"]
        if name in runs.styles.names:
            column = runs.style_numbers[:, runs.styles.slices[name]].T
            yield torch.from_numpy(column.astype(np.float32))
            return
        if runs.numbers is not None and name in runs.targets.names:
            column = runs.numbers[:, runs.targets.slices[name]].T
            yield torch.from_numpy(column.astype(np.float32))
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

    def batch_sizes(self, split: str) -> list[int]:
        """How many samples the batches of a split have: also the last one, if it is smaller."""
        return self._batches[split].sizes

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


def check_scale(footprint: Footprint, runs: Runs) -> None:
    """Refuse a model whose outputs are not as fine as the targets.

    Raises:
        GeometryError: If they are not.
    """
    if runs.targets.of_run or footprint.reduces or footprint.scale == runs.scale_factor:
        return
    coarse, fine = (
        " x ".join(str(factor * n) for n in runs.shape) for factor in (1, runs.scale_factor)
    )
    raise GeometryError(
        f"the model gives {footprint.scale} cells per input cell and axis, but the targets have "
        f"{runs.scale_factor} (scale factor): inputs have {coarse} cells, targets {fine}; use a "
        f"model of that scale factor, such as UpsampledUNet or SRGenerator with `scale_factor: "
        f"{runs.scale_factor}`, or targets of {footprint.scale} times the inputs' cells"
    )


def sides(halo: Halo) -> list[int]:
    """Low and high per axis, as a recipe writes them."""
    return [n for pair in zip(halo.low, halo.high, strict=True) for n in pair]
