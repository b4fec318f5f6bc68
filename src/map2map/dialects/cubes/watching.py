"""What the original shows of every epoch: scalars under its tags, and blocks of scores."""

import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import xarray as xr
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from map2map import label_plots
from map2map.batches import Batch
from map2map.dialects.cubes.sessions import Session
from map2map.evaluate_runs import evaluate_runs
from map2map.imports.cubes import CLASSES
from map2map.mean_line import MeanLine
from map2map.metrics.labels import label_scores
from map2map.predictions import Predictions
from map2map.task import Task

__all__ = ["RECORD", "Watcher", "tested"]

MEASURES = {
    "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "F1_score": "F1 score",
    "TPR": "TPR", "FPR": "FPR",
}  # fmt: skip
"""Scores of an epoch in the order in which they are told."""

RECORD = "record_of_session"
"""Where a state keeps what the card tells of its session."""

SPLITS = {"train": "train", "val": "test"}


class Watcher(pl.Callback):
    """Tells how the epochs went, sets the rate that is asked for, and tests after the last.

    Args:
        session: What is trained, and until when.
        hyperparameters: For TensorBoard.
        group: The optimizer's ``lr``, ``betas`` and ``weight_decay``, in place of those of a state.
        record: What the card of a network tells of the session that it is from; kept in its state.
        graph: Whether TensorBoard is to show the network; an earlier session may have drawn it.
    """

    def __init__(
        self,
        session: Session,
        hyperparameters: Mapping[str, Any],
        group: Mapping[str, Any],
        record: Mapping[str, Any],
        *,
        graph: bool = True,
    ) -> None:
        self.graph = graph
        self.session, self.hyperparameters, self.group = session, hyperparameters, group
        self.record = record
        self.outputs: list[tuple[list[int], NDArray[np.float64]]] = []
        self.seconds: dict[str, float] = {}
        self._start = self._test = time.perf_counter()

    # --- before ----------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the settings, set the optimizer, and write what TensorBoard shows once."""
        for group in trainer.optimizers[0].param_groups:
            group.update(self.group)
        if not trainer.is_global_zero:
            return
        self.session.write()
        writer = writer_of(trainer)
        if writer is not None and isinstance(pl_module, Task):
            tags = [f"{name}/{split}" for name in ("loss", "accuracy") for split in SPLITS.values()]
            known = dict(self.hyperparameters)
            summaries = hparams(known, dict.fromkeys(tags, 0))  # type: ignore[no-untyped-call]
            for summary in summaries:
                writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
            if self.graph:
                draw_graph(writer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep with the weights how they were trained: later sessions may be trained otherwise."""
        checkpoint[RECORD] = dict(self.record)

    # --- epochs ----------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; the last epoch is tested, whichever it is."""
        self._start, self.seconds = time.perf_counter(), {}
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training is over, testing begins."""
        self._test = time.perf_counter()
        self.seconds["train"] = self._test - self._start
        self.outputs = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch,
        *_: Any,
    ) -> None:  # fmt: skip
        """Keep the logits."""
        self.outputs.append((batch.indices, outputs["output"].double().cpu().numpy()))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The confusion matrix of the epoch."""
        self.seconds["val"] = time.perf_counter() - self._test
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        outputs = everyones(trainer, self.outputs)
        writer = writer_of(trainer)
        if writer is not None:
            scores = scores_of(data.dataset("val"), outputs)
            figure = label_plots.confusion(scores)
            writer.add_figure("confusion/test", figure, trainer.current_epoch + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Scalars and a block of numbers."""
        assert isinstance(pl_module, Task)
        losses, epoch = pl_module.close_epoch(), trainer.current_epoch + 1
        self.seconds.setdefault("train", time.perf_counter() - self._start)
        writer = writer_of(trainer)
        if not trainer.is_global_zero:
            return
        print(f"\nEpoch {epoch}")
        for split, name in SPLITS.items():
            if split not in losses:
                continue
            values = {key: pl_module.epochs.measures[f"{key}/{split}"] for key in MEASURES}
            print(block(name, epoch, losses[split], values, self.seconds[split]), flush=True)
            if writer is not None:
                for key, value in {"loss": losses[split], **values}.items():
                    writer.add_scalar(f"{key}/{name}", value, epoch)


def block(split: str, epoch: int, loss: float, values: Mapping[str, float], seconds: float) -> str:
    """The numbers of an epoch, as the original prints them."""
    lines = [f"---{split.capitalize()}---", f"Epoch: {epoch}", f"Loss: {loss:.5f}"]
    for key, name in MEASURES.items():
        percent = f" = {100 * values[key]:.2f} %" if key == "accuracy" else ""
        lines.append(f"{name}: {values[key]:.4f}{percent}")
    return "\n".join([*lines, f"Time: {seconds:.2f} s"])


def writer_of(trainer: pl.Trainer) -> SummaryWriter | None:
    """TensorBoard's, in the first process."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            writer: SummaryWriter = logger.experiment
            return writer
    return None


def draw_graph(writer: SummaryWriter, task: Task) -> None:
    """The network, for one slice of ones."""
    import warnings

    model = task.built.model
    size, training = int(model.size), model.training  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # that checks of shapes are not part of the graph
        warnings.simplefilter("ignore")
        model.eval()
        try:
            ones = torch.ones(1, 1, size, size, device=next(model.parameters()).device)
            writer.add_graph(model, ones)
        finally:
            model.train(training)


Outputs = list[tuple[list[int], NDArray[np.float64]]]


def everyones(trainer: pl.Trainer, outputs: Outputs) -> Outputs:
    """The outputs of all processes."""
    if trainer.world_size == 1:
        return outputs
    every: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, outputs)
    return [entry for part in every for entry in part]


def scores_of(dataset: Any, outputs: Outputs) -> xr.Dataset:
    """Scores per image and per cube.

    Args:
        dataset: The samples of the split.
        outputs: Numbers of samples, and their logits, shape (sample, 1).
    """
    indices = [index for numbers, _ in outputs for index in numbers]
    logits = np.concatenate([values for _, values in outputs])
    groups = [dataset.runs.runs[dataset.locate(index)[0]].group for index in indices]
    labels = dataset.runs.numbers[groups][:, 0] > 0.5
    return label_scores(logits, labels.astype(int), np.array(groups), classes=CLASSES)


@torch.no_grad()
def tested(task: Task, data: Any) -> xr.Dataset:
    """Scores of the network on the test seeds, per slice and per cube.

    Newtonian cubes are multiplied as they were in training; for the mean line they stay as they
    are, as it was found.

    Args:
        task: In evaluation mode, on its device.
        data: Whose validation split has the test seeds.
    """
    dataset = data.dataset("val")
    logits, lines = np.empty((len(dataset), 1)), np.empty((len(dataset), 1))
    weights = task.built.training_record.get("mean_line")
    for batch in data.in_order("val"):
        _, _, output, _ = task.step(batch.to(task.device))
        assert output is not None  # labels are compared
        logits[batch.indices] = output.double().cpu().numpy()
        if weights:
            x = task.built.encode_input(batch.settle()[0])
            lines[batch.indices] = MeanLine.predict(weights, x)
    runs = dataset.runs
    groups = np.array([run.group for run in runs], np.int64)
    truth = runs.numbers[groups].astype(np.float64)
    line = lines if weights else None
    return evaluate_runs(Predictions(runs, runs.targets, logits, groups, truth, line))
