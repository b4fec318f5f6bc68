"""Planes of cubes in an HDF5 file, read as samples, against bare copies by numpy.

Axis by axis, planes in random order, page cache warm: the time of a sample (its target is a label)
from the file, and from memory once the cubes are kept there, after a first epoch, against that of
numpy copying the same planes out of a memory map of the file. Both take turns in being the first to
touch so many planes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import h5py
import numpy as np
from numpy.typing import NDArray

from map2map.crops import Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset
from timing import Claim, report

SOME = 200
"""Planes per turn."""


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--size", type=int, default=256)
    argument.add_argument("--seeds", type=int, default=4)
    argument.add_argument("--rounds", type=int, default=10)
    options = argument.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data_z1.h5"
        cubes = simulated(path, options.size, options.seeds)
        claims = []
        for axis in range(3):
            runs = Runs(
                [Field("phi", channels=1)],
                [Field("gravity", kind="label", classes=("newton", "gr"))],
                {"phi": Files(str(path), "{gravity}_seed{seed}")},
                Domain(2, planes=[axis]),
            )
            ways = {
                "from the file": SampleDataset(runs, Crops(halo=0)),
                "kept in memory": SampleDataset(runs, Crops(halo=0), in_memory="64GiB"),
            }
            for way, dataset in ways.items():
                seconds, ratio = compared(dataset, cubes, axis, options.rounds)
                claims += [
                    Claim(f"axis {axis}, {way}", seconds * 1e3, unit="ms"),
                    Claim("  / numpy's copy", ratio, 1.5),
                ]
        report(f"A plane of {options.size}² of {len(cubes)} cubes", claims)


def simulated(path: Path, n: int, seeds: int) -> dict[str, NDArray[np.float32]]:
    """Write cubes, and map them into memory."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for seed in range(seeds):
            for gravity in ("gr", "newton"):
                file[f"{gravity}_seed{seed:04d}"] = rng.normal(size=(n, n, n)).astype("f4")
    with h5py.File(path) as file:
        places = {key: file[key].id.get_offset() for key in file}
    return {
        key: np.memmap(path, "f4", "r", offset=start, shape=(n, n, n))
        for key, start in places.items()
    }


def compared(
    dataset: SampleDataset, cubes: dict[str, NDArray[np.float32]], axis: int, rounds: int
) -> tuple[float, float]:
    """Seconds of a sample, and its ratio to a copy by numpy."""
    rng = np.random.default_rng(1)
    n = dataset.size[0]
    ours, label = np.empty(n * n, np.float32), np.empty(1, np.float32)
    plane = ours.reshape(n, n)

    def read(chosen: Sequence[int]) -> None:
        for i in chosen:
            dataset.read(i, None, (ours, label))

    def copy(chosen: Sequence[tuple[str, int]]) -> None:
        for name, i in chosen:
            np.copyto(plane, cubes[name][(slice(None),) * axis + (i,)])

    def timed(what: Callable[[], None]) -> float:
        start = time.perf_counter()
        what()
        return time.perf_counter() - start

    # where planes lie is found out in the first epoch
    read(range(len(dataset)))
    ratios, times = [], []
    for turn in range(rounds):
        chosen = [int(i) for i in rng.permutation(len(dataset))[:SOME]]
        runs = [dataset.runs.runs[i] for i in chosen]
        planes = [(run.found["phi"].variable or "", run.plane[1]) for run in runs if run.plane]
        ways = {"read": lambda c=chosen: read(c), "copy": lambda p=planes: copy(p)}
        took = {way: timed(ways[way]) for way in sorted(ways, reverse=bool(turn % 2))}
        ratios.append(took["read"] / took["copy"])
        times.append(took["read"] / SOME)
    return median(times), median(ratios)


if __name__ == "__main__":
    main()
