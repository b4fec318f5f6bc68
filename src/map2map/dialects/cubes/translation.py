"""What a configuration of the gravity classifiers means, as a recipe."""

import argparse
import logging
from math import ceil, log2
from pathlib import Path
from typing import Any

from map2map.dialects.cubes.cubes import Cubes
from map2map.dialects.cubes.options import Settings
from map2map.errors import GeometryError
from map2map.imports.cubes import CLASSES
from map2map.memory import bytes_of, free_memory
from map2map.models.activations import SLOPE
from map2map.moment_files import read_moments

__all__ = ["MODELS", "batch_size", "recipe", "run_folder", "weight_decay"]

log = logging.getLogger(__name__)

MODELS = Path("models")
"""Folder of what is trained, in the current one."""

SHARE = 0.7
"""Of the memory that is free, what cubes may take."""

CUBES_AT_ONCE = {"Racoon": ((16, 4), (32, 5), (None, 2)), "Penguin": ((16, 2), (None, 1))}
"""Cubes per step up to a width: the original's."""

SYMMETRIES = 8
"""Steps that the original makes of the same cubes, one for each symmetry of a square."""

PACO_AT_ONCE = 150

LEAST_POOLED = {"Racoon": 64, "Penguin": 64, "Paco": 8}
"""Fewest cells a side that leave some behind the convolutions: three quarterings, six halvings, and
one halving with four cells for the last convolution."""


def run_folder(settings: Settings) -> Path:
    """Where states and emulators of a model go."""
    return MODELS / settings.model_name


def batch_size(settings: Settings, options: argparse.Namespace, cubes: Cubes) -> int:
    """Slices per step.

    The original takes a few cubes at once and makes a step with all their slices for each of 8
    symmetries. Slices are turned one by one here, so that an 8th of them makes as many steps.
    """
    if options.batch_size is not None:
        return int(options.batch_size)
    if settings.model == "Paco":
        return PACO_AT_ONCE
    tops = CUBES_AT_ONCE[settings.model]
    many: int = next(n for top, n in tops if top is None or settings.layer_param <= top)
    slices: int = 3 * -(-cubes.size // options.stride)
    found: int = max(2, many * slices // SYMMETRIES)
    # batch normalization needs two, in the last batch, too
    return found + (2 * settings.train_seeds * slices % found == 1)


def weight_decay(settings: Settings, options: argparse.Namespace) -> float:
    """The optimizer's weight decay."""
    if options.weight_decay is not None:
        return float(options.weight_decay)
    return 1e-8 if settings.model == "Paco" else 1e-11


def network(
    settings: Settings, size: int, head: str = "flatten", activation: str = "leaky_relu"
) -> dict[str, Any]:
    """The network for slices of so many cells, as a recipe writes it.

    Args:
        settings: What the YAML file says.
        size: Cells of a slice on every axis.
        head: "flatten", which takes multiples of 64 cells, or "pool", which takes any number from
            the least on: RACOON and PENGUIN have cells of features 64 times as wide, PACO can halve
            less often.
        activation: Its name.

    Raises:
        GeometryError: If there is none.
    """
    arguments: dict[str, Any] = {
        "width": settings.layer_param, "dropout": settings.dropout, "slope": SLOPE, "size": size,
        "head": head, "activation": activation,
    }  # fmt: skip
    least = LEAST_POOLED[settings.model]
    if head == "pool" and size < least:
        raise GeometryError(
            f"slices have {size} x {size} cells, but {settings.architecture} takes at least "
            f"{least}, with --head pool, too"
        )
    if head == "flatten" and (size < 64 or size % 64):
        remedy = f"; --head pool takes any number from {least} on" if size >= least else ""
        raise GeometryError(
            f"slices have {size} x {size} cells, but {settings.architecture} takes 64, 128, … "
            f"(multiples of 64){remedy}"
        )
    if settings.model == "Paco" and size < 256:
        # at least 4 cells are left for the last convolution
        arguments["levels"] = int(log2(size // 4))
        log.info("slices of %d cells are halved %d times, not 6", size, arguments["levels"])
    return {"class_path": f"map2map.models.{settings.model}", "init_args": arguments}


def norm(options: argparse.Namespace, cubes: Cubes) -> dict[str, Any] | None:
    """The norm of the potential; None if it is standardized already."""
    path = "map2map.norms.Standardize"
    if options.stats is not None:
        read_moments(options.stats)
        return {"class_path": path, "init_args": {"file": str(options.stats)}}
    if cubes.standardized:
        return None
    log.info(
        "cubes are not standardized (their root mean square is %.3g), which is done with mean and "
        "deviation of the training seeds; --stats gives others",
        cubes.rms,
    )
    return {"class_path": path, "init_args": {}}


def kept_in_memory(settings: Settings, options: argparse.Namespace, cubes: Cubes) -> str | int:
    """The bytes that cubes may take in memory: all of a split, or none if there is no room."""
    training, tested = (
        2 * seeds * 4 * cubes.size**3 for seeds in (settings.train_seeds, settings.test_seeds)
    )
    room = SHARE * free_memory() if options.memory is None else bytes_of(options.memory)
    room /= processes(options)
    if training + tested <= room:
        return f"{max(256, ceil(max(training, tested) / 2**20))}MiB"
    log.info(
        "cubes take %.1f GiB, which do not fit into memory (%.1f GiB), so that slices are read "
        "from the file every time, which is slow across the last axis; give --memory, or --stride",
        (training + tested) / 2**30,
        room / 2**30,
    )
    return 0


def processes(options: argparse.Namespace) -> int:
    """How many processes share the machine's memory."""
    import torch

    if options.devices != "auto":
        return int(options.devices)
    return max(1, torch.cuda.device_count())


def recipe(
    settings: Settings, options: argparse.Namespace, cubes: Cubes, epochs: int
) -> dict[str, Any]:
    """The recipe of a training.

    Args:
        settings: What the YAML file says.
        options: The command line.
        cubes: The data.
        epochs: After which it ends, with those of earlier sessions.
    """
    import torch

    gpu = torch.cuda.is_available()
    seeds = settings.train_seeds, settings.train_seeds + settings.test_seeds
    scale, factor = norm(options, cubes), settings.newton_augmentation
    workers = max(1, torch.cuda.device_count()) if options.workers is None else options.workers
    data: dict[str, Any] = {
        "train": {"potential": cubes.files(0, seeds[0])},
        "val": {"potential": cubes.files(*seeds)},
        "domain": {
            "ndim": 2, "periodic": True, "planes": [0, 1, 2], "plane_step": options.stride,
        },
        "augment": {
            "symmetries": "all" if options.augment else "none",
            "label_smoothing": options.smoothing,
        },
        "reading": {
            "batch_size": batch_size(settings, options, cubes),
            "threads": workers,
            "in_memory": kept_in_memory(settings, options, cubes),
        },
    }  # fmt: skip
    if factor != 1:
        data["reading"]["class_factors"] = {CLASSES[0]: factor}
    return {
        "seed_everything": options.seed,
        "trainer": {
            "max_epochs": epochs,
            "accelerator": "gpu" if gpu else "cpu",
            "devices": options.devices,
            "check_val_every_n_epoch": options.test_every,
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {
                    "save_dir": settings.log_dir,
                    "name": settings.log_name,
                    "version": "",
                },
            },
        },
        "model": {
            "inputs": [{"name": "potential", "channels": 1, "kind": "scalar"}],
            "targets": [{"name": "gravity", "kind": "label", "classes": list(CLASSES)}],
            "norms": {} if scale is None else {"potential": scale},
            "model": network(settings, cubes.size, options.head, options.activation),
            "loss": {"class_path": "torch.nn.BCEWithLogitsLoss"},
            "optimizer": {
                "class_path": "torch.optim.Adam",
                "init_args": {
                    "lr": settings.lr,
                    "betas": list(options.betas),
                    "weight_decay": weight_decay(settings, options),
                },
            },
        },
        "data": data,
        "output": {
            "folder": str(run_folder(settings)),
            "emulator": "last.safetensors",
            "keep": 1,
            "figures": 0,
        },
    }
