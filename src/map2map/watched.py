"""What callbacks watch: there before an epoch is spent on it, and able to end the training."""

import logging
import math

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from map2map.errors import RecipeError, near_names
from map2map.task import Task

__all__ = ["Watched"]

log = logging.getLogger(__name__)


class Watched(pl.Callback):
    """Refuses callbacks of Lightning that watch what is not told; tells those that cannot act.

    Lightning itself would find out after the first epoch, which may be hours.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the callbacks that there are."""
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor:
                self._check_name(callback, trainer, pl_module)
            if isinstance(callback, EarlyStopping) and trainer.is_global_zero:
                _tell_if_idle(callback, trainer)
            if isinstance(callback, LearningRateMonitor) and not trainer.loggers:
                raise RecipeError(
                    "LearningRateMonitor tells loggers, but there is none (trainer.logger is "
                    "false); leave one of them out"
                )

    @staticmethod
    def _check_name(
        callback: EarlyStopping | ModelCheckpoint, trainer: pl.Trainer, task: pl.LightningModule
    ) -> None:
        name = str(callback.monitor)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        foreign = [
            c for c in callbacks if not type(c).__module__.startswith(("lightning", "map2map."))
        ]
        # others may tell more; so do labels and parameters, under names of their own
        if not isinstance(task, Task) or foreign or (task.built.targets.of_run and "/" in name):
            return
        measures = ("loss", *task.measures)
        known = [f"{measure}/train" for measure in measures]
        if trainer.limit_val_batches:
            known = [f"{measure}/val" for measure in measures] + known
            known += ["r2/val", "relative_l2/val"] if "val" in task.epochs.tallies else []
        if name not in known and not (name == "val_r2" and "r2/val" in known):
            none = "" if trainer.limit_val_batches else "; there is no validation split"
            raise RecipeError(
                f"{type(callback).__name__} monitors {name!r}, which this training does not "
                f"tell{none}{near_names(name, known)}"
            )


def _tell_if_idle(callback: EarlyStopping, trainer: pl.Trainer) -> None:
    epochs = trainer.max_epochs
    other = (callback.stopping_threshold, callback.divergence_threshold)
    if epochs is None or epochs < 0 or any(limit is not None for limit in other):
        return
    # the first look is always an improvement, so that patience + 1 looks are needed
    if callback._check_on_train_epoch_end:
        looks = epochs
    else:
        per_epoch = trainer.val_check_interval
        often = 1 / per_epoch if isinstance(per_epoch, float) else 1.0
        looks = math.floor(epochs / (trainer.check_val_every_n_epoch or 1) * often)
    if callback.patience >= looks:
        log.warning(
            "early stopping can never act: its patience is %d, and there are %d looks at %s in "
            "%d epochs; make the patience smaller, or train longer",
            callback.patience,
            looks,
            callback.monitor,
            epochs,
        )
