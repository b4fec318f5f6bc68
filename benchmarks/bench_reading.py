"""Reading a sample, against the bare slice copies of the very same windows.

`SampleDataset.read` with all symmetries and shifts (draws, windows, files, a check for NaN) into
given buffers; beside it, what cannot be avoided: the same slices copied from memory maps that are
open into the same buffers. Files are in the page cache; one thread. Symmetries are applied to the
batch, on the device, so they are timed on their own: on this processor, one thread.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from map2map.batches import Batch
from map2map.crops import Augment, Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.runs import Runs
from map2map.samples import SampleDataset
from map2map.windows import Window, pieces
from timing import Claim, interleaved, report


def make(folder: Path, size: int) -> SampleDataset:
    """A run of two vector fields, cut into crops of 64 with a halo of 20 around the input."""
    rng = np.random.default_rng(0)
    patterns = {}
    for name in ("in", "out"):
        path = folder / f"{name}.npy"
        np.save(path, rng.standard_normal((3, size, size, size), np.float32))
        patterns[name] = str(path)
    runs = Runs([Field("in", kind="vector")], [Field("out", kind="vector")], patterns, Domain(3))
    return SampleDataset(runs, Crops(64, halo=20), Augment("all", shift=size))


class Bare:
    """The slice copies of samples, prepared beforehand."""

    def __init__(self, dataset: SampleDataset, rounds: int) -> None:
        self.maps = [
            np.load(dataset.runs.runs[0].paths[name], mmap_mode="r") for name in ("in", "out")
        ]
        self.slices = [self.prepare(dataset, k) for k in range(rounds)]

    def prepare(self, dataset: SampleDataset, k: int) -> list[tuple[int, tuple, tuple]]:
        """Side, source and target of every slice of sample ``k``."""
        _, *windows = dataset.windows(k % len(dataset), dataset.draw(k % len(dataset), epoch_of(k)))
        grids = dataset.grid, dataset.target_grid
        return [
            (side, (slice(None), *piece.source), (slice(None), *piece.target))
            for side, (window, grid) in enumerate(zip(windows, grids, strict=True))
            for piece in pieces(window, grid)
        ]

    def copy(self, k: int, into: tuple[np.ndarray, np.ndarray]) -> None:
        """Copy the slices of sample ``k``."""
        for side, source, target in self.slices[k]:
            into[side][target] = self.maps[side][source]


def epoch_of(k: int) -> int:
    """So that no window comes twice."""
    return 1 + k


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="cells per axis of a field")
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        dataset = make(Path(name), options.size)
        total = options.rounds + 10
        shape = (
            dataset.runs.inputs.channels,
            *Window((0,) * 3, dataset.size).grow(dataset.halo).shape,
        )
        buffers = (
            np.zeros(shape, np.float32),
            np.zeros((3, *dataset.target_size), np.float32),
        )
        bare = Bare(dataset, total)
        # brings the files into the page cache, and sets up both maps
        for values in bare.maps:
            np.add.reduce(values, axis=None)
        for k in range(len(dataset)):
            dataset.read(k, None, buffers)
        batch = Batch(dataset, [0])
        half = total // 2

        def read(k: int) -> None:
            dataset.read(k % len(dataset), epoch_of(k), buffers)

        # another sample than `read`, so that neither finds the other's in the processor's cache
        def copy(k: int) -> None:
            bare.copy((k + half) % total, buffers)

        def fill(k: int) -> None:
            Batch(dataset, [(k + 1) % len(dataset)]).fill(0, epoch_of(k))

        def settle(k: int) -> None:
            batch.draws[0] = dataset.draw(0, epoch_of(k))
            batch.settle()

        batch.fill(0, 1)
        tasks = {"read": read, "copy": copy, "fill": fill, "settle": settle}
        wall = interleaved(tasks, options.rounds)
        used = interleaved(tasks, options.rounds // 2, clock=time.process_time)
        check(dataset, bare, buffers)
    report(
        f"Reading a sample: 3 x {shape[1]}^3 and 3 x 64^3 of {options.size}^3, float32, one thread",
        [
            Claim("slice copies", 1e3 * wall["copy"], unit="ms"),
            Claim(
                "SampleDataset.read, all symmetries, shift",
                1e3 * wall["read"],
                3.0,
                "ms",
                (wall["read"] / wall["copy"], 1.7),
            ),
            Claim(
                "  ratio to the slice copies (or the line above)",
                wall["read"] / wall["copy"],
                1.7,
                other=(1e3 * wall["read"], 3.0),
            ),
            Claim("  ratio in processor time", used["read"] / used["copy"]),
            Claim("into a batch of its own (Batch, Batch.fill)", 1e3 * wall["fill"], unit="ms"),
            Claim("symmetry, on the batch (Batch.settle)", 1e3 * wall["settle"], unit="ms"),
        ],
    )


def check(dataset: SampleDataset, bare: Bare, buffers: tuple[np.ndarray, np.ndarray]) -> None:
    """Both copied the same."""
    for k in range(5):
        bare.copy(k, buffers)
        sample = dataset.read(k % len(dataset), epoch_of(k))
        for ours, theirs in zip((sample.input, sample.target), buffers, strict=True):
            np.testing.assert_array_equal(ours, theirs)


if __name__ == "__main__":
    main()
