"""What the collection says to Lightning's trainer, and where its logs go."""

import logging
from collections.abc import Mapping
from typing import Any

from map2map.dialects.ai4sim.settings import Settings
from map2map.errors import RecipeError

__all__ = ["on_this_machine", "output_of", "renamed", "trainer_of"]

log = logging.getLogger(__name__)

MONITORS = {
    "val_loss": "loss/val", "val_loss_epoch": "loss/val",
    "train_loss": "loss/train", "train_loss_epoch": "loss/train",
    "val_r2": "r2/val", "val_r2_epoch": "r2/val",
}  # fmt: skip
"""What callbacks monitor, by the collection's names and ours."""

TESTS_ALONE = ("limit_test_batches", "limit_predict_batches")
"""They act on what is done here by other commands."""


def trainer_of(told: Settings) -> dict[str, Any]:
    """Arguments of the trainer as a recipe has them.

    Raises:
        RecipeError: If one of them could not act.
    """
    found = dict(told.trainer)
    for key in TESTS_ALONE:
        acts = told.model == "PanguModule" and key == "limit_test_batches"
        if found.pop(key, None) is not None and not acts:
            raise RecipeError(
                f"trainer.{key} limits nothing here: scores are of the whole split, and "
                f"predictions are made by m2m apply; leave it out"
            )
    if found.get("enable_checkpointing") is False:
        raise RecipeError(
            "trainer.enable_checkpointing is false, but a training that keeps no state could not "
            "go on after it was stopped; leave it out (the last two states are kept)"
        )
    if found.get("fast_dev_run"):
        raise RecipeError(
            "trainer.fast_dev_run leaves no emulator that could be tested; say instead "
            "--trainer.max_epochs 1 --trainer.limit_train_batches 1"
        )
    if found.get("barebones"):
        raise RecipeError(
            "trainer.barebones keeps no state and tells no loss, so that nothing would be left of "
            "a training; leave it out"
        )
    callbacks = found.get("callbacks")
    if isinstance(callbacks, Mapping):  # one of them
        found["callbacks"] = [callbacks]
    return {key: renamed(value) for key, value in found.items()}


def renamed(value: Any) -> Any:
    """Arguments of the trainer with our names of what callbacks monitor."""
    if isinstance(value, Mapping):
        return {
            key: MONITORS.get(entry, entry) if key == "monitor" else renamed(entry)
            for key, entry in value.items()
        }
    return [renamed(entry) for entry in value] if isinstance(value, list) else value


def output_of(told: Settings) -> dict[str, Any]:
    """Where emulator, states and scores go: beside the logs."""
    logger = told.trainer.get("logger")
    folder = told.trainer.get("default_root_dir")
    for each in logger if isinstance(logger, list) else [logger]:
        arguments = each.get("init_args") or {} if isinstance(each, Mapping) else {}
        if arguments.get("save_dir") is not None:
            folder = arguments["save_dir"]
            break
    found: dict[str, Any] = {"folder": str(folder or "./logs"), "keep": 2}
    if told.trainer.get("log_every_n_steps"):
        found["log_interval"] = told.trainer["log_every_n_steps"]
    return found


def on_this_machine(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the trainer, if this machine has the devices.

    Numbers of GPUs are nothing to a CPU, which takes one process then.

    Raises:
        RecipeError: If it has not.
    """
    import torch

    from map2map.train import check_accelerator

    found, accelerator = dict(trainer), trainer.get("accelerator") or "auto"
    devices, gpus = trainer.get("devices"), torch.cuda.device_count()
    some = gpus > 0 or torch.backends.mps.is_available()
    check_accelerator(accelerator)
    if accelerator == "cpu" or (accelerator == "auto" and not some):
        if isinstance(devices, list):
            log.info("trainer.devices %s are of GPUs; the CPU takes one process", devices)
            found["devices"] = 1
        return found
    lacking = devices if isinstance(devices, list) else []
    lacking = [n for n in lacking if isinstance(n, int) and n >= gpus]
    if gpus and (lacking or (isinstance(devices, int) and devices > gpus)):
        raise RecipeError(
            f"trainer.devices is {devices}, but this machine has {gpus} GPU{'s' * (gpus > 1)}, "
            f"number 0{f' to {gpus - 1}' if gpus > 1 else ''}; say --trainer.devices 1, or, where "
            f"the file reads it, SLURM_GPUS_ON_NODE=1"
        )
    return found
