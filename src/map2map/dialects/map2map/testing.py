"""map2map's test mode: whole fields from crops, and their scores."""

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from map2map.assemble import assemble
from map2map.checkpoints import load_weights, read_state, to_apply
from map2map.commands.train import make
from map2map.errors import ArtefactError
from map2map.files import replacing

__all__ = ["test"]

log = logging.getLogger(__name__)


def test(made: dict[str, Any], options: argparse.Namespace, prog: str) -> int:
    """Apply a state to test fields: ``*_out.npy`` and ``metrics.json`` in the current folder."""
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    state_path = Path(options.load_state)
    state = read_state(state_path)
    check_styles(state, state_path)
    cli = make({**made, "trainer": {"logger": False}}, prog)
    task, data = cli.model, cli.datamodule
    runs = data.open(task.inputs, task.targets)
    emulator = task.build(runs, data.domain)
    strict = not options.load_state_non_strict
    load_weights(emulator.model, to_apply(state), state_path, strict=strict)
    log.info("model state at epoch %s loaded from %s", state.get("epoch"), state_path)
    data.resolve(emulator.footprint)
    emulator.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    batches = data.in_order("train")
    roots = common_folders(runs)
    report = assemble(
        emulator, batches, lambda path: output_path(path, roots), task.loss, aligned=data.aligned
    )
    with replacing(Path("metrics.json")) as temporary:
        temporary.write_text(json.dumps(finite(report), indent=2, allow_nan=False))
    print(f"mean loss: {report['loss']:.6g}")
    for field, scores in report["fields"].items():
        print(f"{field}: " + ", ".join(f"{name} {value:.6g}" for name, value in scores.items()))
    return 0


def check_styles(state: Mapping[str, Any], path: Path) -> None:
    """Refuse the state of a network with styles, of which nothing here tells the values.

    Raises:
        ArtefactError: If it is one.
    """
    task = state.get("task")
    styles = task.get("styles") if isinstance(task, Mapping) else None
    if styles:
        raise ArtefactError(
            f"{path} is of a network with the styles {', '.join(styles)}, which m2m.py test cannot "
            f"tell it; use m2m apply or m2m evaluate with its emulator.safetensors"
        )


def finite(entry: Any) -> Any:
    """With null for scores that are not defined, because JSON knows no NaN."""
    if isinstance(entry, dict):
        return {key: finite(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [finite(value) for value in entry]
    return None if isinstance(entry, float) and not isfinite(entry) else entry


def common_folders(runs: Any) -> tuple[Path, ...]:
    """What the files of the first two runs have in common, as map2map has it, and of all runs."""
    folders = [[path.resolve().parent for path in run.paths.values()] for run in runs]
    return tuple(
        Path(os.path.commonpath([folder for run in some for folder in run]))
        for some in (folders[:2], folders)
    )


def output_path(target: Path, roots: Sequence[Path]) -> Path:
    """Where the output for a target goes: relative to the current folder, ``_out`` appended."""
    resolved = target.resolve()
    root = next(root for root in roots if resolved.is_relative_to(root))
    return resolved.relative_to(root).with_name(f"{resolved.stem}_out.npy")
