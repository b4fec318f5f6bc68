"""States: ``state_{i}.pt`` after epoch i, the link ``checkpoint.pt``, and resuming bit for bit.

Order and draws are functions of (seed, epoch, index); Lightning keeps weights, optimizer, loops and
which sample comes next; the task adds the sums of the losses and the scheduler, and we the random
number generators of every process. A run that was killed at any moment therefore goes on as if
nothing had happened.
"""

import logging
import random
import re
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from map2map.errors import ArtefactError
from map2map.files import link, replacing

__all__ = ["AtomicCheckpointIO", "Interrupted", "States", "load_weights", "read_state", "to_apply"]

log = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818
    """Training was asked to stop by a signal, and has saved its state."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name and renames, so that a former file survives a full disk."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint."""
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class States(Checkpoint):
    """Saves states, and leaves cleanly when asked to by a signal.

    Args:
        folder: Where they go.
        every: Also save after every so many batches, to ``state_partial.pt``; 0: after epochs only.
        keep: How many of the latest ``state_{i}.pt`` to keep; None: all.
        signals: On these, save and stop: SIGTERM, and SIGUSR1, which SLURM can send before it
            pre-empts a job.
    """

    def __init__(
        self,
        folder: Path,
        every: int = 0,
        keep: int | None = None,
        signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGUSR1),
    ) -> None:
        self.folder, self.every, self.keep, self.signals = folder, every, keep, signals
        self.partial = folder / "state_partial.pt"
        self.best: float | None = None
        self._finished = 0
        self._asked: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._steps = 0

    # --- saving ----------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Save if it is time or a signal has come."""
        stepped, self._steps = trainer.global_step != self._steps, trainer.global_step
        progress = trainer.fit_loop.epoch_loop.batch_progress
        if progress.is_last_batch or not stepped:
            return
        asked = trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False)
        if asked or (self.every and trainer.global_step % self.every == 0):
            self._save(trainer, self.partial, trainer.current_epoch)
        self._leave(asked)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch."""
        done = trainer.current_epoch + 1
        # with trainer.limit_train_batches, samples are left over that a resumed run must not take
        close = getattr(trainer.train_dataloader, "close_epoch", None)
        if close is not None:
            close()
        losses: dict[str, float] = getattr(pl_module, "epoch_losses", {})
        # of an epoch that is not validated where others are, it is not known
        loss = losses.get("val" if trainer.limit_val_batches else "train")
        better = loss is not None and (self.best is None or loss < self.best)
        self.best = loss if better else self.best
        path = self.folder / f"state_{done}.pt"
        self._save(trainer, path, done)
        if trainer.is_global_zero:
            if better:
                link(self.folder / "best.pt", path.name)
            self.partial.unlink(missing_ok=True)
            self._forget(done)
        asked = trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False)
        self._leave(asked and done < (trainer.max_epochs or 0))

    def _save(self, trainer: pl.Trainer, path: Path, finished: int) -> None:
        check = getattr(trainer.lightning_module, "check_finite", None)
        if check is not None:
            check()
        self._finished = finished
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            link(self.folder / "checkpoint.pt", path.name)

    def _forget(self, done: int) -> None:
        if self.keep is None:
            return
        best = (self.folder / "best.pt").resolve()
        for path in self.folder.glob("state_*.pt"):
            number = path.stem.removeprefix("state_")
            if number.isdigit() and int(number) <= done - self.keep and path.resolve() != best:
                path.unlink(missing_ok=True)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the generators of all processes, and map2map's keys."""
        checkpoint["epoch"] = self._finished
        checkpoint["min_loss"] = self.best
        states = [_rng_state()]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size  # type: ignore[list-item]
            torch.distributed.all_gather_object(states, _rng_state())
        checkpoint["rngs"] = states
        checkpoint["rng"] = states[0]["torch"]

    # --- resuming --------------------------------------------------------------------------

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up what we added."""
        self.best = checkpoint["min_loss"]
        self._rngs = checkpoint["rngs"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the generators, last of all; listen to signals."""
        self._steps = trainer.global_step
        rngs = getattr(self, "_rngs", None)
        if rngs is not None and len(rngs) == trainer.world_size:
            _restore_rng(rngs[trainer.global_rank])
        elif rngs is not None:
            log.warning(
                "the state is of %d processes, this run has %d: dropout and the like go on with "
                "other random numbers; order and augmentation do not",
                len(rngs),
                trainer.world_size,
            )
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler communicates from within the handler, which can deadlock
            self._former = {s: signal.signal(s, self._ask) for s in self.signals}

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _ask(self, number: int, _: FrameType | None) -> None:
        # only a flag: saving within a handler can deadlock
        self._asked = signal.Signals(number)

    def _leave(self, asked: bool) -> None:
        if asked:
            name = self._asked.name if self._asked else "a signal to another process"
            raise Interrupted(f"stopped by {name}, saved {self.folder / 'checkpoint.pt'}")


def _rng_state() -> dict[str, Any]:
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    inner = numpy_state["state"]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(inner["key"].astype(np.int64)),
            "pos": int(inner["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
    }


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    saved = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": "MT19937",
            "state": {"key": saved["key"].numpy().astype(np.uint32), "pos": saved["pos"]},
            "has_gauss": saved["has_gauss"],
            "gauss": saved["gauss"],
        }
    )


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file, ours or map2map's, running no code that it may contain.

    Raises:
        ArtefactError: If it is missing, truncated, holds code, or is no state.
    """
    if not path.is_file():
        raise ArtefactError(f"there is no state {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to load it all the same
        asked = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        more = f" (it asks for {asked[1]})" if asked else ""
        raise ArtefactError(
            f"{path} is not a state of map2map, or is truncated, or holds more than tensors and "
            f"numbers{more}, which is refused because loading it could run code; use a state_*.pt "
            f"that training has written"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        found = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ArtefactError(f"{path} is no state: it has no 'model', only {found}")
    return state


def to_apply(state: dict[str, Any]) -> dict[str, Any]:
    """The weights of a state that an emulator is to have: their running average, if there is one.

    Those under the key "model" are what training goes on with.
    """
    average = state.get("ema")
    weights: dict[str, Any] = state["model"] if average is None else average["weights"]
    return weights


def load_weights(model: nn.Module, weights: dict[str, Any], path: Path, *, strict: bool) -> None:
    """Load a network's weights.

    Args:
        model: The network.
        weights: Tensors by name; map2map's may begin with "module.".
        path: Where they are from, for the message.
        strict: Refuse missing and unknown names; otherwise tell them.

    Raises:
        ArtefactError: If they are of another network.
    """
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if weights[name].shape != own[name].shape
    ]
    clauses = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("other shape", shapes))
        if names
    ]
    if shapes or (strict and clauses):
        raise ArtefactError(
            f"the weights in {path} are not those of this {type(model).__name__}: "
            f"{'; '.join(clauses)}; use the model and arguments it was trained with"
        )
    if clauses:
        log.warning("weights in %s: %s", path, "; ".join(clauses))
    model.load_state_dict(weights, strict=False)
