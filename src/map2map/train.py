"""Train: a task and data in, states, a log and an emulator out."""

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import safetensors.torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.loggers import TensorBoardLogger

from map2map.checkpoints import AtomicCheckpointIO, States, load_weights, read_state, to_apply
from map2map.data import FieldData
from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, RecipeError, SaveError
from map2map.files import digest
from map2map.provenance import commit, versions
from map2map.task import Task
from map2map.tracking import EpochLines, Progress, Tracker
from map2map.watched import Watched

__all__ = ["Output", "check_accelerator", "commit", "make_trainer", "train", "versions"]

log = logging.getLogger(__name__)

EVENTS = "events.out.tfevents.*"


@dataclass(frozen=True)
class Output:
    """What a run leaves behind.

    Args:
        folder: Where states, ``runs/`` (for TensorBoard) and the emulator go.
        emulator: The emulator's file name.
        weights: Of which epoch the emulator's are: the "last", or the "best", whose validation loss
            (without a validation split, training loss) is the smallest.
        every: Also save the state after every so many optimizer steps; 0: after epochs only.
        keep: How many of the latest ``state_{i}.pt`` to keep; not given, all.
        log_interval: Optimizer steps between scalars.
        figures: Epochs between figures; 0: none. See `Tracker`.
        strict: Whether the weights of a state to resume from must be those of the model.
        resume: "auto" goes on from ``checkpoint.pt`` in the folder if there is one; "never" starts
            anew; else the path of a state, or of an emulator, whose weights training begins with:
            a training that has so begun goes on from ``checkpoint.pt``, too.
    """

    folder: Path = Path()
    emulator: str = "emulator.safetensors"
    weights: Literal["last", "best"] = "last"
    every: int = 0
    keep: int | None = None
    log_interval: int = 100
    figures: int = 1
    strict: bool = True
    resume: str = "auto"

    def __post_init__(self) -> None:
        least = {"every": 0, "keep": 1, "log_interval": 1, "figures": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise RecipeError(f"output.{name} is {value}; it must be at least {low}")

    def state(self) -> Path | None:
        """The state to resume from."""
        path = self.folder / "checkpoint.pt"
        if self.resume == "never":
            return None
        if self.resume == "auto":
            return path if path.exists() else None
        given = Path(self.resume)
        if is_emulator(given) and path.exists():
            known = read_state(path).get("begun_with")
            if known and given.exists() and known == contents(given):
                return path
        return given


def make_trainer(output: Output, *, progress: bool = True, **options: Any) -> pl.Trainer:
    """Lightning's trainer with our states, log and progress.

    Args:
        output: What the run leaves behind.
        progress: Whether to show a bar.
        options: Any other arguments of ``lightning.Trainer``.
    """
    callbacks = [
        *(options.pop("callbacks", None) or []),
        Watched(),
        Tracker(output.log_interval, output.figures),
        EpochLines(),
        States(output.folder, output.every, output.keep),
        *([Progress()] if progress else []),
    ]
    check_accelerator(options.get("accelerator"))
    logger = options.pop("logger", None)
    if logger is None or logger is True:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{platform.node()}"
        logger = TensorBoardLogger(output.folder, name="runs", version=name)
    defaults: dict[str, Any] = {
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "default_root_dir": output.folder,
    }
    ours: dict[str, Any] = {
        "callbacks": callbacks,
        "logger": logger,
        "plugins": [AtomicCheckpointIO(), *(options.pop("plugins", None) or [])],
        "enable_progress_bar": progress,
        # the order shares the samples out itself
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**(defaults | options | ours))


def check_accelerator(asked: object) -> None:
    """Refuse devices of a kind that this machine lacks.

    Raises:
        RecipeError: If there is none.
    """
    kinds = {"gpu": ("cuda", "mps")}.get(str(asked), (str(asked),))
    there = [k for k, of in AcceleratorRegistry.items() if of["accelerator"].is_available()]
    if asked in ("gpu", *AcceleratorRegistry) and not set(kinds) & set(there):
        raise RecipeError(
            f"trainer.accelerator is {asked!r}, of which PyTorch finds none on this machine, but "
            f"{', '.join(sorted(there))}; say --trainer.accelerator cpu, or auto for what there is"
        )


class _ForeignState(pl.Callback):
    """Goes on from a state of map2map's: weights, optimizer, scheduler and epoch."""

    def __init__(self, state: dict[str, Any], path: Path) -> None:
        self.old, self.path = state, path

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = self.old.get("optimizer")
        if optimizer is not None:
            try:
                trainer.optimizers[0].load_state_dict(optimizer)
            except ValueError as error:
                raise ArtefactError(
                    f"the optimizer state in {self.path} is of another optimizer or network: "
                    f"{error}"
                ) from error
        if isinstance(pl_module, Task):
            pl_module.scheduler_state = self.old.get("scheduler")
        epoch = int(self.old.get("epoch", 0))
        self.old = {}  # it is large
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = epoch


def train(
    task: Task,
    data: FieldData,
    trainer: pl.Trainer,
    output: Output | None = None,
    record: dict[str, Any] | None = None,
) -> Emulator:
    """Train, or go on training, and save the emulator.

    Args:
        task: What is learnt.
        data: From what.
        trainer: From `make_trainer`.
        output: What the run leaves behind.
        record: What the emulator's card is to say of the training besides its data.

    Returns:
        The emulator, also saved by the first process.

    Raises:
        Interrupted: If a signal stopped it; its state is saved.
        M2MError: If data, recipe or state do not fit.
    """
    output = output or Output()
    try:
        output.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(
            f"cannot make the folder {output.folder}: {error}; choose another (output.folder)"
        ) from error
    path = output.state()
    checkpoint = path and _resume(path, task, data, trainer, strict=output.strict)
    # before anything is written, so that a refused run leaves nothing behind
    task.prepare(data)
    with _no_log_of_nothing(task, trainer):
        trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    emulator = task.finished()
    target = output.folder / output.emulator
    if not task.trained and (path is None or target.exists()):
        log.info(
            "nothing to do: %s epochs are done, and %s were asked for",
            trainer.current_epoch,
            trainer.max_epochs,
        )
        return emulator.eval()
    chosen = _take_best(emulator, output, trainer) if output.weights == "best" else {}
    emulator.eval()
    line = None if task.line is None else task.line.weights()
    if task.line is not None and line is None:
        log.warning(
            "no mean line is kept to compare with: no sample of the first epoch has finite means "
            "in all channels, or that epoch was not trained here"
        )
    emulator.training_record = {
        "files": _files(data) if trainer.is_global_zero else {},
        "seed": data.seed,
        "epochs": trainer.current_epoch,
        "optimizer_steps": int(task.way.network_steps(task, trainer.global_step)),
        **chosen,
        **({} if task.line is None else {"mean_line": line}),
        # applying the emulator cannot do likewise: it does not know the class
        **(
            {"class_factors": dict(data.reading.class_factors)}
            if data.reading.class_factors
            else {}
        ),
        **commit(),
        **(record or {}),
    }
    losses: dict[str, list[float | None]] = {}
    measured: dict[str, list[float | None]] = {}
    for key, values in task.history.items():
        # JSON knows no NaN
        told = [value if isfinite(value) else None for value in values]
        (measured if "/" in key else losses)[key] = told
    emulator.scores = {"loss": losses} | ({"measures": measured} if measured else {})
    emulator.versions = versions()
    if trainer.is_global_zero:
        emulator.save(target)
        log.info("saved %s", target)
    return emulator


def _resume(
    path: Path, task: Task, data: FieldData, trainer: pl.Trainer, *, strict: bool
) -> Path | None:
    """Let a training go on from a state, or begin with an emulator; the state, if it is of ours."""
    state = _weights(path) if is_emulator(path) else read_state(path)
    task.resume(state, path, strict=strict)
    log.info("resuming from %s, after %d epochs", path, state.get("epoch", 0))
    if "loops" in state:
        return path
    trainer.callbacks.append(_ForeignState(state, path))  # type: ignore[attr-defined]
    data.next_sample = {"epoch": int(state.get("epoch", 0)), "sample": 0}
    return None


def contents(path: Path) -> dict[str, Any]:
    """What tells a file from others, wherever it is."""
    return {key: value for key, value in digest(path).items() if key != "path"}


def is_emulator(path: Path) -> bool:
    """Whether a file is an emulator rather than a state."""
    return path.suffix == ".safetensors"


@contextmanager
def _no_log_of_nothing(task: Task, trainer: pl.Trainer) -> Iterator[None]:
    """Remove TensorBoard's files of a training that is refused before its first step."""
    folders = [Path(x.log_dir) for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
    before = {path for folder in folders for path in folder.glob(EVENTS)}
    try:
        yield
    except BaseException:
        if not task.trained and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.finalize("failed")
            for folder in folders:
                for path in {*folder.glob(EVENTS)} - before:
                    path.unlink()
                for made in (folder, folder.parent):
                    with suppress(OSError):  # something else is in it, or it was never made
                        made.rmdir()
        raise


def _weights(path: Path) -> dict[str, Any]:
    """The weights of an emulator as a state of no epochs; norms are those of the new training."""
    Card.read(path)
    weights = safetensors.torch.load_file(path)
    model = {
        name.removeprefix("model."): value
        for name, value in weights.items()
        if name.startswith("model.")
    }
    return {"epoch": 0, "model": model, "begun_with": contents(path)}


def _take_best(emulator: Emulator, output: Output, trainer: pl.Trainer) -> dict[str, int]:
    """Give the emulator the best epoch's weights; which that is, for the card."""
    # the first process may still be linking it
    trainer.strategy.barrier("best")
    path = output.folder / "best.pt"
    state = read_state(path)
    load_weights(emulator.model, to_apply(state), path, strict=True)
    if trainer.is_global_zero:
        log.info("the emulator's weights are those of epoch %d, the best", state["epoch"])
    return {"weights_of_epoch": int(state["epoch"])}


def _files(data: FieldData) -> dict[str, list[dict[str, Any]]]:
    # many runs may be in one file, so that it is read once, and what of it they are is told
    known = cache(digest)
    return {
        split: [
            {field: known(path) | run.array(field) for field, path in run.paths.items()}
            for k, run in enumerate(runs.groups)
            # once for all frames of a file
            if run.frame is None or not k or run.found != runs.groups[k - 1].found
        ]
        for split, runs in data.runs.items()
    }
