"""Ten thousand small files, against ten: opening them, and reading samples from them.

Files of 3 x 16^3 float32. Opening is measured in a process of its own, with its imports: the time
of `Runs` and `SampleDataset`, and the largest resident memory. Samples (crop 8, halo 2, all
symmetries, shifts) are read in shuffled order, blocks from the two data sets taking turns; all
files are in the page cache.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from map2map.batches import Batch, Batches
from map2map.crops import Augment, Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.order import Order
from map2map.runs import Runs
from map2map.samples import SampleDataset
from timing import Claim, interleaved, report, run_child

OPEN = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from bench_many_files import open_all
start = time.perf_counter()
dataset = open_all(Path({folder!r}))
print(len(dataset.runs), time.perf_counter() - start)
"""


def make(folder: Path, count: int) -> Path:
    """A folder with so many runs of one field, used as input and target."""
    folder.mkdir()
    values = np.random.default_rng(0).standard_normal((3, 16, 16, 16), np.float32)
    first = folder / "in_00000.npy"
    np.save(first, values)
    for k in range(1, count):
        shutil.copyfile(first, folder / f"in_{k:05}.npy")
    return folder


def open_all(folder: Path) -> SampleDataset:
    """The data set of a folder."""
    field, pattern = Field("in", kind="vector"), str(folder / "in_*.npy")
    target = Field("out", kind="vector")
    runs = Runs([field], [target], {"in": pattern, "out": pattern}, Domain(3))
    return SampleDataset(runs, Crops(8, halo=2), Augment("all", shift=8))


class Reader:
    """Takes the batches of a data set as training does, a block at a time."""

    def __init__(self, dataset: SampleDataset, block: int) -> None:
        self.dataset, self.block = dataset, block
        self.batches = self.endless()
        self.order = Order().everything(0, len(dataset.runs), dataset.ncrop)
        self.buffers = np.zeros((3, 12**3), np.float32), np.zeros((3, 8**3), np.float32)

    def endless(self) -> Iterator[Batch]:
        """Epoch after epoch, each in an order and with draws of its own."""
        batches = Batches(self.dataset, Order(), vary=True, threads=0)
        while True:
            yield from batches

    def read(self, _: int) -> None:
        """Take one block."""
        for batch in islice(self.batches, self.block):
            batch.settle()

    def read_alone(self, k: int) -> None:
        """Only `SampleDataset.read` of one block, into buffers that are there."""
        for i in range(k * self.block, (k + 1) * self.block):
            epoch, place = divmod(i, len(self.order))
            self.dataset.read(int(self.order[place]), epoch, self.buffers)

    def visit_all(self) -> float:
        """Read a sample of each file for the first time; seconds per sample."""
        start = time.perf_counter()
        for run in range(len(self.dataset.runs)):
            Batch(self.dataset, [run * self.dataset.ncrop]).fill(0, 0)
        return (time.perf_counter() - start) / len(self.dataset.runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--block", type=int, default=80, help="samples before taking turns")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folders = {n: make(Path(name) / str(n), n) for n in (10, options.files)}
        opened = {
            n: run_child(["-c", OPEN.format(here=str(Path(__file__).parent), folder=str(folder))])
            for n, folder in folders.items()
        }
        readers = {n: Reader(open_all(folder), options.block) for n, folder in folders.items()}
        first = {n: reader.visit_all() for n, reader in readers.items()}
        tasks = {str(n): reader.read for n, reader in readers.items()}
        tasks |= {f"{n} alone": reader.read_alone for n, reader in readers.items()}
        wall = interleaved(tasks, options.rounds)
        used = interleaved(tasks, options.rounds // 2, clock=time.process_time)
    alone = [wall[f"{n} alone"] for n in folders]
    ten, many = (1e6 * wall[str(n)] / options.block for n in folders)
    (_, seconds), (found, all_seconds) = (
        [float(word) for word in child.output.split()] for child in opened.values()
    )
    assert found == options.files
    report(
        f"{options.files} files of 3 x 16^3, against 10",
        [
            Claim("opening 10", seconds, unit="s"),
            Claim("opening all", all_seconds, 5, "s"),
            Claim("  largest resident memory of 10", opened[10].peak, unit="MiB"),
            Claim("  largest resident memory", opened[options.files].peak, 500, "MiB"),
            Claim("reading from a file never used before", 1e6 * first[options.files], unit="us"),
            Claim("a sample of 10", ten, unit="us"),
            Claim("a sample of all", many, unit="us"),
            Claim("  ratio", many / ten, 1.1),
            Claim("  ratio in processor time", used[str(options.files)] / used["10"]),
            Claim("SampleDataset.read alone, of 10", 1e6 * alone[0] / options.block, unit="us"),
            Claim("SampleDataset.read alone, of all", 1e6 * alone[1] / options.block, unit="us"),
            Claim("  ratio", alone[1] / alone[0]),
        ],
    )


if __name__ == "__main__":
    main()
