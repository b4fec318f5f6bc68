"""A training step through the real loop, against the same step on one resident batch.

The loop is the demo's: the recipe `cosmology_displacement`, read by the command line's own code,
with reading, symmetries, norms, clipping, log and states. The resident step is only forward,
backward and optimizer, of a copy of the same network on one batch that is on the device and
normalized. Both take turns in the same process, a block of steps each: a callback runs the resident
steps at the ends of batches. The first step of a block, when reader and caches change hands, does
not count.

On a GPU, where there is one: a 3-D U-Net of map2map's width at crop 96.
"""

import argparse
import copy
import logging
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch.nn import functional as F

from map2map.batches import Batch
from map2map.commands.recipes import find
from map2map.commands.train import make
from map2map.train import train
from timing import Claim, report


class TakeTurns(pl.Callback):
    """Runs a block of resident steps after every block of the loop's steps.

    Args:
        block: Steps of a block that count.
        blocks: Blocks, after which training stops.
    """

    def __init__(self, block: int, blocks: int) -> None:
        self.block, self.blocks = block, blocks
        self.loop: list[tuple[float, float]] = []
        self.resident: list[tuple[float, float]] = []
        self.settle: list[float] = []
        self._steps = 0
        self._start = 0.0, 0.0

    def on_train_start(self, _: pl.Trainer, pl_module: Any) -> None:
        """A network and an optimizer of our own."""
        self.network = copy.deepcopy(pl_module.built.model)
        self.optimizer = pl_module.make_optimizer(self.network.parameters())
        self.x = self.y = None

    def on_train_batch_start(self, _: pl.Trainer, pl_module: Any, batch: Batch, *__: Any) -> None:
        """Keep the first batch, normalized, as the network gets it."""
        if self.x is None:
            with torch.no_grad():
                _, self.x, _, self.y = pl_module.step(batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, _: Any, __: Any, batch: Batch, *___: Any
    ) -> None:
        """Change turns."""
        self._steps += 1
        # the first step of a block warms up
        if self._steps == 1:
            self._start = now()
        elif self._steps == 1 + self.block:
            self.loop.append(self._since())
            self._turn()
            self._time_settle(batch)
            self._steps = 0
            trainer.should_stop = len(self.loop) > self.blocks

    def _since(self) -> tuple[float, float]:
        return tuple((b - a) / self.block for a, b in zip(self._start, now(), strict=True))

    def _turn(self) -> None:
        for k in range(self.block + 1):
            if k == 1:
                self._start = now()
            self.step()
        self.resident.append(self._since())

    def _time_settle(self, batch: Batch) -> None:
        start = now()
        batch.settle()
        self.settle.append(now()[0] - start[0])

    def step(self) -> float:
        """Forward, backward, optimizer."""
        self.optimizer.zero_grad()
        with torch.autocast(self.x.device.type, torch.bfloat16):
            output = self.network(self.x)
            loss = F.mse_loss(output.to(self.y.dtype), self.y)
        loss.backward()
        self.optimizer.step()
        return loss


def now() -> tuple[float, float]:
    """Wall and processor time, when the device has done what was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def measure(folder: Path, turns: TakeTurns, size: int, *options: str) -> TakeTurns:
    """Train the recipe on made-up files of ``size`` cells, and let the blocks take turns."""
    rng = np.random.default_rng(0)
    for run in range(4):
        for name in ("za", "pm"):
            np.save(
                folder / f"{name}_{run:02}.npy",
                rng.standard_normal((3, size, size, size), np.float32),
            )
    recipe = make(
        [
            f"--config={find('cosmology_displacement')}",
            f"--data.train.linear={folder}/za_*.npy",
            f"--data.train.displacement={folder}/pm_*.npy",
            "--data.val=null",
            f"--output.folder={folder}",
            "--output.figures=0",
            "--trainer.max_epochs=1",
            "--trainer.enable_progress_bar=false",
            *options,
        ],
        "bench_step",
    )
    recipe.trainer.callbacks.insert(0, turns)
    train(recipe.model, recipe.datamodule, recipe.trainer, recipe.output)
    return turns


def claims(turns: TakeTurns, limit: float) -> list[Claim]:
    """The figures of one device."""
    # the first block warms up
    loop, resident = turns.loop[1:], turns.resident[1:]
    wall = [a[0] / b[0] for a, b in zip(loop, resident, strict=True)]
    used = [a[1] / b[1] for a, b in zip(loop, resident, strict=True)]
    return [
        Claim("step of the loop", 1e3 * median(a[0] for a in loop), unit="ms"),
        Claim("resident step", 1e3 * median(b[0] for b in resident), unit="ms"),
        Claim("  ratio (median of blocks)", median(wall), limit),
        Claim("  ratio in processor time", median(used)),
        Claim("symmetry, on the batch (Batch.settle)", 1e3 * median(turns.settle), unit="ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--block", type=int, default=4, help="steps of a block")
    parser.add_argument("--blocks", type=int, default=24, help="blocks of the loop")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        turns = TakeTurns(options.block, options.blocks)
        measure(Path(name), turns, 64, "--trainer.accelerator=cpu", "--data.crops.step=16")
    report(
        "Training step on the CPU: the network of the recipe, crop 32, bf16-mixed, channels-last",
        claims(turns, 1.05),
    )
    if not torch.cuda.is_available():
        print("Training step on a GPU: not measured, there is none here\n")
        return
    with tempfile.TemporaryDirectory() as name:
        turns = TakeTurns(options.block, options.blocks)
        measure(
            Path(name),
            turns,
            128,
            "--trainer.accelerator=gpu",
            "--trainer.devices=1",
            "--data.crops.size=96",
            "--data.crops.step=32",
            "--model.model.init_args.width=64",
        )
    report(
        "Training step on the GPU: U-Net of width 64, crop 96, bf16-mixed, channels-last",
        claims(turns, 1.05),
    )


if __name__ == "__main__":
    main()
