"""An epoch of 2Dto2D-DLE's default network through its dialect, against a plain PyTorch loop.

The plain loop has all normalized patches of the same epoch in memory as tensors, of the same batch
size, and does forward, backward and Adam's step; no reading, symmetries, validation or log. Its
network is a plain `nn.Sequential` of the same layers. Both take turns in one process, an epoch
each. Also what share of an epoch reading NetCDF takes: the time to read its samples in one thread.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from map2map.commands.train import make
from map2map.dialects.dle import without_none
from map2map.dialects.dle.cases import cases_of
from map2map.dialects.dle.mappings import mapping
from map2map.dialects.dle.options import parser
from map2map.dialects.dle.translation import recipe
from map2map.memory import keep_freed_memory
from map2map.synthetic.ice_flow import simulate
from map2map.train import train
from timing import Claim, report


class TakeTurns(pl.Callback):
    """Runs the plain epoch after every epoch of ours.

    Args:
        plain: The plain epoch, once the patches are there.
    """

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.plain: list[float] = []
        self._batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """The clock of our epoch."""
        self._start = time.perf_counter()

    def on_train_batch_start(self, _: pl.Trainer, pl_module: Any, batch: Any, *__: Any) -> None:
        """Keep the patches of the first epoch, normalized; it is not timed."""
        if not self.ours:
            with torch.no_grad():
                _, x, _, y = pl_module.step(batch)
            self._batches.append((x.clone(), y.clone()))

    def on_train_epoch_end(self, *_: Any) -> None:
        """The plain epoch."""
        self.ours.append(time.perf_counter() - self._start)
        if len(self.ours) == 1:
            self.network = sequential(self._batches[0])
            self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-4)
        start = time.perf_counter()
        for x, y in self._batches:
            self.optimizer.zero_grad()
            loss = nn.functional.l1_loss(self.network(x), y)
            loss.backward()
            self.optimizer.step()
        self.plain.append(time.perf_counter() - start)


def sequential(example: tuple[torch.Tensor, torch.Tensor]) -> nn.Sequential:
    """The default network, written out."""
    layers: list[nn.Module] = []
    channels = example[0].shape[1]
    for _ in range(16):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), nn.LeakyReLU(0.01, inplace=True)]
        channels = 32
    network = nn.Sequential(*layers, nn.Conv2d(32, example[1].shape[1], 1))
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--epochs", type=int, default=6)
    argument.add_argument("--batch", type=int, default=16)
    options = argument.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder / "ice_100", train=4)
        asked = parser().parse_args(
            ["--dataset", "ice_100", "--epochs", str(options.epochs + 1),
             "--batch_size", str(options.batch), "--usegpu", "False"]
        )  # fmt: skip
        train_cases, test_cases = (
            cases_of(folder / "ice_100" / split) for split in ("train", "test")
        )
        made = without_none(
            recipe(asked, mapping("f2"), train_cases, test_cases, folder / "results")
        )
        # validation is no part of the plain loop
        del made["data"]["val"]
        cli = make(made, "bench")
        turns = TakeTurns()
        cli.trainer.callbacks.append(turns)
        train(cli.model, cli.datamodule, cli.trainer, cli.output)
        dataset = cli.datamodule.dataset("train")
        start = time.perf_counter()
        for index in range(len(dataset)):
            dataset.read(index, 0)
        reading = time.perf_counter() - start
    ratios = [a / b for a, b in zip(turns.ours[1:], turns.plain[1:], strict=True)]
    ours = median(turns.ours[1:])
    report(
        f"An epoch of {len(dataset)} patches of 32² cells, in batches of {options.batch}",
        [
            Claim("through the dialect", ours, unit="s"),
            Claim("plain loop over tensors in memory", median(turns.plain[1:]), unit="s"),
            Claim("ratio (median of epochs)", median(ratios), 1.1),
            Claim("reading NetCDF in one thread, share of the epoch", reading / ours, 0.5),
        ],
    )


if __name__ == "__main__":
    main()
