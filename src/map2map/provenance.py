"""What a training was: its recipe, and where and when it ran, beside what it leaves behind."""

import json
import logging
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml

from map2map.errors import SaveError
from map2map.files import replacing

__all__ = ["FORMAT", "Provenance", "commit", "versions"]

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of ``environment.json``."""

HEAD = """\
# A recipe with all that was not said filled in, written by m2m train; `m2m train` of this file
# trains the same. environment.json beside it says where and when it ran.
"""


class Provenance(pl.Callback):
    """Writes ``recipe.yaml`` and ``environment.json`` once training begins, and how it ended.

    A file of something else is never replaced: another recipe in the same folder goes to
    ``recipe_1.yaml`` and so on, and `environment.json` has an entry for every start.

    Args:
        folder: Where they go.
        recipe: Keys and values, all resolved.
        command: The command line; by default that of this process.
    """

    def __init__(
        self, folder: Path, recipe: dict[str, Any], command: list[str] | None = None
    ) -> None:
        self.folder, self.recipe = folder, recipe
        self.command = sys.argv if command is None else command
        self._place: Path | None = None
        self._number = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write both, before the first step."""
        if not trainer.is_global_zero:
            return
        recipe = self._write_recipe()
        self._place = next(p for p in _names(self.folder, "environment.json") if _ours(p))
        starts = _starts(self._place)
        self._number = len(starts)
        _write_starts(self._place, [*starts, self._entry(trainer, recipe)])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say when it ended."""
        self._end(trainer.current_epoch, "finished")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Say when it ended, and why."""
        reason = " ".join(str(exception).split())[:300]
        kind = type(exception).__name__
        self._end(trainer.current_epoch, f"{kind}: {reason}" if reason else kind)

    def _write_recipe(self) -> str:
        for path in _names(self.folder, "recipe.yaml"):
            if not path.exists():
                text = HEAD + yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True)
                with replacing(path) as temporary:
                    temporary.write_text(text)
                break
            if _same(path, self.recipe):
                break
            log.info("%s is another recipe, and stays as it is", path)
        return path.name

    def _entry(self, trainer: pl.Trainer, recipe: str) -> dict[str, Any]:
        device = trainer.strategy.root_device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "recipe": recipe,
            "command": self.command,
            "folder": str(Path.cwd()),
            **commit(),
            "start": _now(),
            "end": None,
            "ended": None,
            "epochs": [trainer.current_epoch, None],
            "versions": versions(),
            "platform": platform.platform(),
            "host": platform.node(),
            "device": f"{device.type}: {name}",
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "precision": str(trainer.precision),
        }

    def _end(self, epoch: int, ended: str) -> None:
        if self._place is None:
            return
        try:
            starts = _starts(self._place)
            first = starts[self._number]["epochs"][0]
            starts[self._number] |= {"end": _now(), "ended": ended, "epochs": [first, epoch]}
            _write_starts(self._place, starts)
        except (SaveError, OSError, LookupError, ValueError) as error:
            # what was learnt is worth more than this
            log.warning("%s does not say when training ended: %s", self._place, error)


def versions() -> dict[str, str]:
    """Versions of what trains."""
    names = ("map2map", "torch", "lightning", "numpy")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def commit() -> dict[str, str]:
    """The commit of the folder that training was started in, if it has one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
    except OSError:
        return {}
    return {"commit": done.stdout.strip()} if done.returncode == 0 else {}


def _names(folder: Path, name: str) -> Iterator[Path]:
    """A name and its successors, such as ``recipe.yaml``, ``recipe_1.yaml``, and so on."""
    path = folder / name
    yield path
    number = 0
    while True:
        number += 1
        yield path.with_stem(f"{path.stem}_{number}")


def _same(path: Path, recipe: dict[str, Any]) -> bool:
    try:
        return bool(yaml.safe_load(path.read_text()) == recipe)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False


def _ours(path: Path) -> bool:
    """Whether a file may be added to."""
    try:
        found = json.loads(path.read_text())
        return found["format"] == FORMAT and isinstance(found["starts"], list)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _starts(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    starts: list[dict[str, Any]] = json.loads(path.read_text())["starts"]
    return starts


def _write_starts(path: Path, starts: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, "starts": starts}, indent=2) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
