"""Planes of cubes in an HDF5 file, read as samples, against bare copies by numpy.

Axis by axis, planes in random order, page cache warm: the time of a sample (its target is a label)
from the file, and from memory once the cubes are kept there, against that of numpy copying the same
planes out of a memory map of the file. Both take turns, so many planes at a time.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np

from map2map.crops import Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.samples import SampleDataset
from timing import Claim, report


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--size", type=int, default=256)
    argument.add_argument("--seeds", type=int, default=4)
    argument.add_argument("--rounds", type=int, default=7)
    options = argument.parse_args()
    n = options.size
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data_z1.h5"
        rng = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for seed in range(options.seeds):
                for gravity in ("gr", "newton"):
                    file[f"{gravity}_seed{seed:04d}"] = rng.normal(size=(n, n, n)).astype("f4")
        with h5py.File(path) as file:
            places = {key: file[key].id.get_offset() for key in file}
        cubes = {
            key: np.memmap(path, "f4", "r", offset=start, shape=(n, n, n))
            for key, start in places.items()
        }
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
                ratios, times = [], []
                for _ in range(options.rounds):
                    chosen = rng.permutation(len(dataset))[:200]
                    planes = [
                        (cubes[run.found["phi"].variable or ""], run.plane[1])
                        for run in (runs.runs[i] for i in chosen)
                        if run.plane is not None
                    ]
                    ours = np.empty((2, n * n), np.float32)
                    start = time.perf_counter()
                    for i in chosen:
                        dataset.read(int(i), None, (ours[0], ours[1, :1]))
                    middle = time.perf_counter()
                    for cube, i in planes:
                        np.copyto(ours[0].reshape(n, n), cube[(slice(None),) * axis + (i,)])
                    end = time.perf_counter()
                    ratios.append((middle - start) / (end - middle))
                    times.append((middle - start) / len(chosen) * 1e3)
                claims += [
                    Claim(f"axis {axis}, {way}", median(times), unit="ms"),
                    Claim("  / numpy's copy", median(ratios), 1.5),
                ]
        report(f"A plane of {n}² of {len(cubes)} cubes", claims)


if __name__ == "__main__":
    main()
