"""PyTorch's own exported programs (.pt2): run with PyTorch alone, in Python or compiled."""

from pathlib import Path

import torch
from torch import Tensor

from map2map.emulator import Emulator
from map2map.exports.graph import metadata, quiet, trace
from map2map.typing import Shape

__all__ = ["PACKAGES", "SUFFIX", "export", "run"]
STYLES = True
"""Whether a file can hold a network that takes styles."""

SUFFIX = ".pt2"
PACKAGES: tuple[str, ...] = ()


def export(emulator: Emulator, path: Path, *, size: Shape | None = None) -> None:
    """Write a program that takes and gives dictionaries of tensors by field name.

    Args:
        emulator: What to export.
        path: The file.
        size: Input cells on each axis, if they are to be fixed.
    """
    program = trace(emulator, size)
    # an open file, because torch warns of names that do not end in .pt2, such as temporary ones
    with quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files=metadata(emulator))


def run(path: Path, fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a file on windows of physical fields."""
    with quiet(), path.open("rb") as file, torch.no_grad():
        made: dict[str, Tensor] = torch.export.load(file).module()(fields)
    return made
