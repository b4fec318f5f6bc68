"""What people watch: scalars and figures for loggers, a progress bar, a line per epoch."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from map2map import plots
from map2map.batches import Batch
from map2map.fields import Field
from map2map.physics.lagrangian import displacement_to_density
from map2map.task import Task

__all__ = ["EpochLines", "Progress", "Tracker"]

log = logging.getLogger(__name__)

SHARE = 0.01
"""Most of the time that figures of a split may take; there are two."""

Scalars = dict[str, float | dict[str, float]]
"""Numbers by tag, or by tag and name if they belong into one diagram."""

LENGTHS = ("Mpc/h", "kpc/h", "Mpc", "kpc", "km", "m")


class Tracker(pl.Callback):
    """Scalars for all loggers, figures for TensorBoard, under map2map's tags and a few more.

    Every ``interval`` optimizer steps: ``loss/batch/train``, ``grad/first`` and ``grad/last`` (norm
    of the gradient of the first and last weights), ``grad/all``, ``lr``, ``samples/s``. After every
    epoch: ``loss/epoch/train`` and ``/val``, and the same of measures; figures ``fig/train`` and
    ``fig/val`` (slices), and their power spectra ``/power/lag``; for displacements also in Eulerian
    space, ``/power/eul``.

    What is told after epochs stands at the number of the epoch in TensorBoard, as in map2map's.
    Other loggers have one axis for all, the optimizer steps, and get the scalar ``epoch`` with it.

    Args:
        interval: Optimizer steps between scalars.
        figures: Epochs between figures; 0: none. Where these would take more than a fiftieth of
            the time, most are left out; those of the first epoch and the last are drawn.
        epochs: Whether to write scalars of epochs; somebody else may under other tags.
    """

    def __init__(self, interval: int = 100, figures: int = 1, *, epochs: bool = True) -> None:
        self.interval, self.figures, self.epochs = max(1, interval), figures, epochs
        self._samples, self._since = 0, time.perf_counter()
        self._due = {"train": 0.0, "val": 0.0}
        self._grads: dict[str, float] = {}

    @staticmethod
    def _writer(trainer: pl.Trainer) -> SummaryWriter | None:
        """What figures go to; others than TensorBoard's loggers have no common way to take any."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                writer: SummaryWriter = logger.experiment
                return writer
        return None

    @staticmethod
    def _scalars(trainer: pl.Trainer, values: Scalars, step: int) -> None:
        if trainer.is_global_zero and values:
            for logger in trainer.loggers:
                tell(logger, values, step)

    @staticmethod
    def _epoch_scalars(trainer: pl.Trainer, values: Scalars) -> None:
        epoch = trainer.current_epoch + 1
        for logger in trainer.loggers if trainer.is_global_zero and values else ():
            if isinstance(logger, TensorBoardLogger):
                tell(logger, values, epoch)
            else:
                tell(logger, {**values, "epoch": epoch}, trainer.global_step)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock: figures and validation are not training."""
        self._samples, self._since = 0, time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Norms of the gradients, before they are clipped."""
        step = trainer.global_step + 1
        if step % self.interval or not trainer.loggers or not trainer.is_global_zero:
            return
        named = [(name, p.grad) for name, p in pl_module.named_parameters() if p.grad is not None]
        weights = [grad for name, grad in named if name.endswith("weight")]
        for tag, grads in (("first", weights[:1]), ("last", weights[-1:]), ("all", named)):
            norms = [(g[1] if isinstance(g, tuple) else g).norm() for g in grads]
            if norms:
                self._grads[f"grad/{tag}"] = torch.stack(norms).norm().item()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        """Loss, learning rate and rate."""
        self._samples += len(batch) if isinstance(batch, Batch) else 1
        step = trainer.global_step
        if isinstance(pl_module, Task) and (idx + 1) % trainer.accumulate_grad_batches == 0:
            self._scalars(trainer, pl_module.way.scalars(pl_module, self.interval), step)
        if step % self.interval or (idx + 1) % trainer.accumulate_grad_batches:
            return
        compared = outputs.get("compared", outputs["loss"])
        loss = trainer.strategy.reduce(compared.detach(), reduce_op="mean")
        now = time.perf_counter()
        rate, self._samples = self._samples * trainer.world_size / (now - self._since), 0
        self._since = now
        if trainer.loggers:
            lr = float(trainer.optimizers[0].param_groups[0]["lr"])
            told: Scalars = {"loss/batch/train": float(loss), "samples/s": rate, "lr": lr}
            self._scalars(trainer, {**told, **self._grads}, step)
            # there are none of a batch from which the network does not learn
            self._grads = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Figures of the validation split."""
        if not trainer.sanity_checking and isinstance(pl_module, Task):
            self._draw(trainer, pl_module, "val")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Losses of the epoch, figures of the training split."""
        if not isinstance(pl_module, Task):
            return
        losses = pl_module.close_epoch()
        told: Scalars = {f"loss/epoch/{split}": loss for split, loss in losses.items()}
        told |= grouped(pl_module.epochs.parts, pl_module.way.groups)
        for key, value in pl_module.epochs.measures.items():
            name, _, split = key.rpartition("/")
            told[f"{name}/epoch/{split}"] = value
        if self.epochs:
            self._epoch_scalars(trainer, told)
        self._draw(trainer, pl_module, "train")

    def _draw(self, trainer: pl.Trainer, task: Task, split: str) -> None:
        writer, epoch = self._writer(trainer), trainer.current_epoch + 1
        example, start = task.examples.get(split), time.perf_counter()
        if writer is None or example is None or not self.figures or task.built.targets.of_run:
            return
        seldom = epoch % self.figures or start < self._due[split]
        if seldom and epoch not in (1, trainer.max_epochs):
            return
        self._figures(writer, task, split, example, epoch)
        end = time.perf_counter()
        self._due[split] = end + (end - start) / SHARE

    @staticmethod
    def _figures(
        writer: SummaryWriter, task: Task, split: str, example: tuple[Tensor, ...], epoch: int
    ) -> None:
        x, output, target = example
        emulator = task.built
        spacing, scale = emulator.domain.cell, emulator.footprint.scale
        title = "input" if scale == 1 else "input, interpolated"
        panels = [(title, x), ("output", output), ("target", target)]
        fine = (spacing or 1.0) / scale
        field = next(iter(emulator.targets))
        if target[0].numel() == 1:  # a cell by itself
            sides = [("target", target.numpy()), ("output", output.numpy())]
            writer.add_figure(f"fig/{split}", plots.columns(sides, field.units or ""), epoch)
            return
        figure = plots.slices(
            [(name, values.numpy()) for name, values in panels],
            [("output - target", (output - target).numpy())],
            units=field.units or "",
            spacing=fine if spacing else None,
        )
        writer.add_figure(f"fig/{split}", figure, epoch)
        spectra = {"lag": (target, output)}
        if spacing and is_displacement(field):
            density = [
                displacement_to_density(side[None, : field.channels], fine)[0]
                for side in (target, output)
            ]
            spectra["eul"] = density[0], density[1]
        for space, (truth, other) in spectra.items():
            figure = plots.spectra(
                ("target", truth.numpy()),
                [("output", other.numpy())],
                fine,
                quantity=f"power of {field.name if space == 'lag' else 'density'}",
                length=field.units or "" if spacing and is_displacement(field) else "",
            )
            writer.add_figure(f"fig/{split}/power/{space}", figure, epoch)


def tell(logger: Any, values: Scalars, step: int) -> None:
    """Give numbers to a logger; only TensorBoard's knows diagrams of several."""
    if isinstance(logger, TensorBoardLogger):
        logger.log_metrics(values, step)  # type: ignore[arg-type]
        return
    flat: dict[str, float] = {}
    for tag, value in values.items():
        several = value if isinstance(value, dict) else {"": value}
        flat |= {f"{tag}/{name}".rstrip("/"): number for name, number in several.items()}
    logger.log_metrics(flat, step)


def grouped(parts: Mapping[str, float], groups: Sequence[str]) -> Scalars:
    """Further losses of an epoch, "name/split", by map2map's tags.

    >>> grouped({"adv/G/val": 1.0, "adv/D/fake/val": 2.0}, ["adv/D"])
    {'loss/epoch/val/adv/G': 1.0, 'loss/epoch/val/adv/D': {'fake': 2.0}}
    """
    told: Scalars = {}
    for key, value in parts.items():
        name, _, split = key.rpartition("/")
        group = next((g for g in groups if name.startswith(f"{g}/")), None)
        if group is None:
            told[f"loss/epoch/{split}/{name}"] = value
        else:
            several = told.setdefault(f"loss/epoch/{split}/{group}", {})
            assert isinstance(several, dict)
            several[name.removeprefix(f"{group}/")] = value
    return told


def is_displacement(field: Field) -> bool:
    """Whether a field moves things: a vector in units of length."""
    return field.kind == "vector" and field.units in LENGTHS and field.channels == 3


class Progress(TQDMProgressBar):
    """Lightning's bar (rate and remaining time), without its version number."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Only what helps."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochLines(pl.Callback):
    """A line per epoch: losses, R² or the accuracy of each label, rate, and what time remains."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start, self._first = time.perf_counter(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The line."""
        if not isinstance(pl_module, Task):
            return
        losses = listed(pl_module.close_epoch())
        names = dict.fromkeys(key.rpartition("/")[0] for key in pl_module.epochs.parts)
        for name in sorted(names):
            parts = {
                split: pl_module.epochs.parts[key]
                for split in ("train", "val")
                if (key := f"{name}/{split}") in pl_module.epochs.parts
            }
            losses += f"; {name} {listed(parts)}"
        targets = pl_module.built.targets
        for field in targets:
            # a measure of several targets has the target's name in front
            front, of = (f"{field.name}_", f" of {field.name}") if len(targets) > 1 else ("", "")
            right = {
                split: pl_module.epochs.measures[key]
                for split in ("train", "val")
                if (key := f"{front}accuracy/{split}") in pl_module.epochs.measures
            }
            if right and field.kind == "label":
                losses += f"; accuracy{of} {listed(right)}"
        if "r2/val" in pl_module.epochs.measures and not targets.of_run:
            losses += f"; R² val {pl_module.epochs.measures['r2/val']:.4g}"
        if trainer.is_global_zero:
            done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
            each = (time.perf_counter() - self._start) / (done - self._first)
            log.info(
                "epoch %d of %d: loss %s; lr %.3g; %.1f s per epoch, %s left",
                done,
                total,
                losses,
                trainer.optimizers[0].param_groups[0]["lr"],
                each,
                clock((total - done) * each),
            )


def listed(values: Mapping[str, float]) -> str:
    """Numbers of splits.

    >>> listed({"val": 0.5, "train": 0.25})
    'train 0.25, val 0.5'
    """
    return ", ".join(f"{split} {value:.6g}" for split, value in sorted(values.items()))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
