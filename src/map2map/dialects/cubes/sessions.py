"""Sessions: a model is trained on by its name, with the settings that it had."""

import argparse
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from map2map.checkpoints import Interrupted, read_state
from map2map.dialects.cubes.cubes import Cubes
from map2map.dialects.cubes.options import Settings
from map2map.dialects.cubes.translation import MODELS, batch_size, run_folder, weight_decay
from map2map.errors import ArtefactError, RecipeError
from map2map.files import digest, replacing
from map2map.imports.cubes import read_cubes_checkpoint
from map2map.moment_files import read_moments

__all__ = ["Session", "begin", "convert", "nothing_left", "resolved"]

log = logging.getLogger(__name__)

RECORD = "settings.yaml"
CONVERTED = "from_original.pt"

ORIGINALS = (MODELS, Path("cnn_storage/models"))
"""Where the original's checkpoints are."""

MUST_BE = ("data", "test_seeds", "stats", "redshift", "stride", "activation", "head")
"""Settings that change what scores or weights are of, so that they cannot change between sessions.
"""

ALWAYS_WAS = {"activation": "leaky_relu", "head": "flatten"}
"""What the original has, and settings that were kept before these could be chosen."""

MAY_BE = ("batch_size", "smoothing", "weight_decay", "betas", "augment", "test_every", "seed")
"""Settings whose changes are told."""


@dataclass(frozen=True)
class Session:
    """From where a model is trained on, and until when.

    Args:
        folder: Its folder.
        begin: Epochs done before.
        until: Epochs done at the end.
        resume: The state; None if it begins anew.
        record: What is kept of the settings.
    """

    folder: Path
    begin: int
    until: int
    resume: Path | None
    record: Mapping[str, Any]

    def write(self) -> None:
        """Keep the settings and the session's epochs beside the states."""
        entries = {**self.record, "session": {"begin": self.begin, "until": self.until}}
        with replacing(self.folder / RECORD) as temporary:
            temporary.write_text(yaml.safe_dump(entries, sort_keys=False))


def resolved(settings: Settings, options: argparse.Namespace, cubes: Cubes) -> dict[str, Any]:
    """The settings, those of the YAML file, of the command line, and what the data are."""
    datafile = Path(settings.datafile)
    contents: dict[str, Any] = {"path": str(datafile.resolve())}
    if datafile.is_file():
        contents |= {k: v for k, v in digest(datafile).items() if k != "path"}
    else:
        contents["seeds"] = len(cubes.seeds)
    stats = options.stats
    return {
        **asdict(settings),
        "data": contents,
        "size": cubes.size,
        "redshift": options.redshift,
        "stats": None if stats is None else list(read_moments(stats)),
        "stride": options.stride,
        "activation": options.activation,
        "head": options.head,
        "batch_size": batch_size(settings, options, cubes),
        "smoothing": options.smoothing,
        "weight_decay": weight_decay(settings, options),
        "betas": list(options.betas),
        "augment": options.augment,
        "test_every": options.test_every,
        "seed": options.seed,
    }


def begin(settings: Settings, record: Mapping[str, Any]) -> Session:
    """The session of a model: its first one, or one that goes on.

    Raises:
        RecipeError: If settings that its name does not tell differ from those before, or from the
            original's.
    """
    folder = run_folder(settings)
    state, kept = folder / "checkpoint.pt", folder / RECORD
    if state.exists():
        done, before = int(read_state(state)["epoch"]), {}
        if kept.is_file():
            before = yaml.safe_load(kept.read_text())
            compare(before, record, settings.model_name)
        session = before.get("session", {})
        if done < session.get("until", 0):
            start = int(session["begin"])
            log.info(
                "the session of %s that began after epoch %d broke off; it goes on after epoch %d",
                *(settings.model_name, start, done),
            )
        else:
            start = done
            log.info("going on with %s after epoch %d", settings.model_name, done)
        if before.get("lr", settings.lr) != settings.lr:
            log.info("lr is %g, and was %g", settings.lr, before["lr"])
        until = max(start + settings.epochs, done + 1)
        return Session(folder, start, until, state, record)
    for place in ORIGINALS:
        original = place / f"{settings.model_name}.pt"
        if original.is_file():
            for key, was in ALWAYS_WAS.items():
                if record[key] != was:
                    raise RecipeError(
                        f"{original}, the original's, was trained with {key} {was}, not "
                        f"{record[key]}; give the same, or another model_params.name"
                    )
            epoch = read_cubes_checkpoint(original).epoch or 0
            log.info("going on with the original's %s after epoch %d", original, epoch)
            return Session(folder, epoch, epoch + settings.epochs, original, record)
    log.info("no model %s yet: it begins from scratch", settings.model_name)
    return Session(folder, 0, settings.epochs, None, record)


@contextmanager
def nothing_left(state: Path, *folders: Path) -> Iterator[None]:
    """Remove folders that are made inside, if it fails before a first state is saved.

    Folders that were there before stay as they are.

    Args:
        state: The state; what failed later can be gone on from, and all stays.
        folders: What may be made, with their parents.
    """
    missing = [path for path in folders if not os.path.lexists(path)]
    above = {parent for path in missing for parent in path.parents if not parent.exists()}
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        # of several processes, the first one makes them
        if not os.path.lexists(state) and os.environ.get("LOCAL_RANK", "0") == "0":
            for path in missing:
                shutil.rmtree(path, ignore_errors=True)
            for parent in sorted(above, key=lambda path: -len(path.parts)):
                with suppress(OSError):  # that something else is in it
                    parent.rmdir()
        raise


def compare(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Refuse changes of what the scores are of; tell others.

    Raises:
        RecipeError: If there are any.
    """
    for key in MUST_BE:
        was = before.get(key, ALWAYS_WAS.get(key))
        if was != now[key]:
            raise RecipeError(
                f"{name} was trained with {key} {was}, not {now[key]}, which its name "
                f"does not tell and which would make it or its scores another thing; give the "
                f"same, or another model_params.name"
            )
    for key in MAY_BE:
        if before.get(key) != now[key]:
            log.info("%s is %s, and was %s", key, now[key], before.get(key))


def convert(path: Path, folder: Path, model: torch.nn.Module) -> Path:
    """Write a checkpoint of the original's as a state that training goes on from.

    The state of the optimizer numbers the weights as the original has them, which is the order of
    the names in the checkpoint.

    Args:
        path: The checkpoint.
        folder: Where the state is written.
        model: The network that its weights are for.

    Raises:
        ArtefactError: If its optimizer's state is of other weights.
    """
    checkpoint = read_cubes_checkpoint(path)
    state: dict[str, Any] = {"model": checkpoint.weights, "epoch": checkpoint.epoch or 0}
    optimizer = checkpoint.rest.get("optimizer_state_dict")
    if optimizer is not None:
        ours = dict(model.named_parameters())
        theirs = [name for name in checkpoint.weights if name in ours]
        if set(theirs) == set(ours):  # else loading the weights tells what is wrong
            state |= {
                "optimizer": renumbered(optimizer, theirs, ours, path),
                "optimizer_class": "Adam",
            }
    with replacing(folder / CONVERTED) as temporary:
        torch.save(state, temporary)
    return folder / CONVERTED


def renumbered(
    optimizer: Mapping[str, Any], theirs: list[str], ours: Mapping[str, Tensor], path: Path
) -> dict[str, Any]:
    """The state of an optimizer, of weights in our order."""
    groups = optimizer["param_groups"]
    if len(groups) != 1 or len(groups[0]["params"]) != len(theirs):
        told = [len(group["params"]) for group in groups]
        raise ArtefactError(
            f"the optimizer's state in {path} is of {told} weights, but the network has "
            f"{len(theirs)}"
        )
    by_name = {
        name: optimizer["state"][number]
        for name, number in zip(theirs, groups[0]["params"], strict=True)
        if number in optimizer["state"]
    }
    for name, entries in by_name.items():
        for key, value in entries.items():
            if key != "step" and isinstance(value, Tensor) and value.shape != ours[name].shape:
                raise ArtefactError(
                    f"the optimizer's {key} of {name} in {path} has shape {tuple(value.shape)}, "
                    f"but the weight {tuple(ours[name].shape)}"
                )
    return {
        "state": {i: by_name[name] for i, name in enumerate(ours) if name in by_name},
        "param_groups": [{**groups[0], "params": list(range(len(ours)))}],
    }
