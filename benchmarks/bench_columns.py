"""Columns of air in batches: waiting for them, against steps of a network that learns from them.

Gravity waves: rows of 191 and 126 numbers in HDF5 shards, features first, mixed within slices; the
time of an epoch's batches alone, as a share of the same epoch with steps of ColumnMLP(256) on them.
Radiation: columns of 138 x 47 and 138 x 6 numbers in Zarr; the time per column. Page cache warm.
"""

import argparse
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
import zarr

from map2map.crops import Crops
from map2map.fields import Field
from map2map.grids import Domain
from map2map.mixed import CellBatches
from map2map.models import ColumnMLP
from map2map.order import Order
from map2map.runs import Patterns, Runs
from map2map.samples import SampleDataset
from timing import Claim, report


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--rows", type=int, default=40_000, help="of each of 4 shards")
    argument.add_argument("--columns", type=int, default=1_000, help="of radiation")
    options = argument.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claims = [*drag(folder, options.rows), *radiation(folder, options.columns)]
    report(f"Columns: {4 * options.rows} rows, {options.columns} columns", claims)


def drag(folder: Path, rows: int) -> list[Claim]:
    """Waiting for rows."""
    rng = np.random.default_rng(0)
    for shard in range(4):
        with h5py.File(folder / f"{shard}.h5", "w") as file:
            file["x"] = rng.normal(size=(191, rows)).astype("f4")
            file["y"] = rng.normal(size=(126, rows)).astype("f4")
    fields = [Field("x", kind="scalar")], [Field("y", kind="scalar")]
    pattern = str(folder / "*.h5")
    batches = loader(fields, {"x": pattern, "y": pattern}, Domain(1), (1000, 48, 256))
    network = ColumnMLP(191, 126)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()

    for batch in batches:  # the page cache
        step(*batch.settle())
    start = time.perf_counter()
    for _ in batches:
        pass
    alone = time.perf_counter() - start
    kept = [batch.settle() for batch in batches]
    start = time.perf_counter()
    for x, y in kept:
        step(x, y)
    steps = time.perf_counter() - start
    return [
        Claim("gravity waves: a batch of 256 rows", alone / len(kept) * 1e3, unit="ms"),
        Claim("  a step of ColumnMLP(256)", steps / len(kept) * 1e3, unit="ms"),
        Claim("  batches / steps", alone / steps, 0.1),
    ]


def radiation(folder: Path, columns: int) -> list[Claim]:
    """Reading columns."""
    rng = np.random.default_rng(0)
    for name, features in (("x", 47), ("y", 6)):
        values = rng.normal(size=(columns, 138, features)).astype("f4")
        root = zarr.open_group(folder / f"{name}.zarr", mode="w")
        root.create_array(name, data=values, chunks=(100, 138, features))
    fields = [Field("x", kind="scalar")], [Field("y", kind="scalar")]
    patterns: Patterns = {name: str(folder / f"{name}.zarr") for name in ("x", "y")}
    batches = loader(fields, patterns, Domain(1, channels_last=True), (100, 8, 256))
    for _ in batches:
        pass
    start = time.perf_counter()
    for _ in batches:
        pass
    each = (time.perf_counter() - start) / columns
    return [Claim("radiation: a column from Zarr", each * 1e3, 0.2, unit="ms")]


def loader(
    fields: tuple[list[Field], list[Field]],
    patterns: Patterns,
    domain: Domain,
    sizes: tuple[int, int, int],
) -> CellBatches:
    """Batches of cells: cells per crop, crops per pool, cells per batch."""
    crop, crops, cells = sizes
    dataset = SampleDataset(Runs(*fields, patterns, domain), Crops(crop, halo=0), domain=domain)
    return CellBatches(dataset, Order(), crops, cells, vary=True)


if __name__ == "__main__":
    main()
