"""An epoch of Racoon(16) on planes of cubes in an HDF5 file: how long it waits for data.

Cubes of 256³, two classes, page cache warm, read as a recipe reads them. What is between the end of
a training step and the beginning of the next is waiting: reading that is not done yet, putting the
batch together, and the trainer's own work between steps.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import lightning.pytorch as pl
import numpy as np

from map2map.commands.train import make
from map2map.memory import keep_freed_memory
from map2map.train import train
from timing import Claim, report


class Waiting(pl.Callback):
    """Adds up steps and what is between them, in the last epoch."""

    def __init__(self) -> None:
        self.steps = self.between = 0.0
        self._last = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin anew."""
        self.steps = self.between = 0.0
        self._last = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """The end of waiting."""
        now = time.perf_counter()
        self.between += now - self._last
        self._last = now

    def on_train_batch_end(self, *_: Any) -> None:
        """The end of a step."""
        now = time.perf_counter()
        self.steps += now - self._last
        self._last = now


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--size", type=int, default=256)
    argument.add_argument("--seeds", type=int, default=8)
    argument.add_argument("--step", type=int, default=8, help="from plane to plane; 1: all")
    argument.add_argument("--batch", type=int, default=16)
    argument.add_argument("--in-memory", default="0", help="0: from the file; else a size")
    options = argument.parse_args()
    n = options.size
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        with h5py.File(folder / "data_z1.h5", "w") as file:
            for seed in range(options.seeds):
                for gravity in ("gr", "newton"):
                    file[f"{gravity}_seed{seed:04d}"] = rng.normal(size=(n, n, n)).astype("f4")
        made: dict[str, Any] = {
            "seed_everything": 1,
            "trainer": {"max_epochs": 2, "accelerator": "cpu"},
            "model": {
                "inputs": [{"name": "phi", "channels": 1}],
                "targets": [{"name": "gravity", "kind": "label", "classes": ["newton", "gr"]}],
                "model": {
                    "class_path": "map2map.models.Racoon",
                    "init_args": {"width": 16, "size": n},
                },
            },
            "data": {
                "train": {
                    "phi": {
                        "pattern": str(folder / "data_z1.h5"),
                        "variable": "{gravity}_seed{seed}",
                    }
                },
                "domain": {"ndim": 2, "planes": [0, 1, 2], "plane_step": options.step},
                "augment": {"symmetries": "all"},
                "reading": {
                    "batch_size": options.batch,
                    "in_memory": int(options.in_memory)
                    if options.in_memory.isdigit()
                    else options.in_memory,
                },
            },
            "output": {"folder": str(folder / "out"), "figures": 0},
        }
        cli = make(made, "bench")
        waiting = Waiting()
        cli.trainer.callbacks.append(waiting)
        train(cli.model, cli.datamodule, cli.trainer, cli.output)
        images = len(cli.datamodule.dataset("train"))
    total = waiting.steps + waiting.between
    report(
        f"An epoch of {images} planes of {n}² cells, in batches of {options.batch}",
        [
            Claim("epoch", total, unit="s"),
            Claim("a plane", 1e3 * total / images, unit="ms"),
            Claim("waiting for data, share of the epoch", waiting.between / total, 0.1),
        ],
    )


if __name__ == "__main__":
    main()
