"""TorchScript: deprecated by PyTorch, but what FTorch and older C++ programs read."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from map2map.emulator import Emulator
from map2map.errors import ArtefactError
from map2map.exports.graph import PhysicalGraph, example, example_sizes, metadata, quiet
from map2map.files import ZIP_WRITER
from map2map.typing import Shape

__all__ = ["PACKAGES", "SUFFIX", "export", "run"]

SUFFIX = ".pt"
PACKAGES: tuple[str, ...] = ()


def export(emulator: Emulator, path: Path, *, size: Shape | None = None) -> None:
    """Write a module that takes the input fields in the order of the card, one tensor each.

    It returns a tensor, or a tuple of the targets in the order of the card.

    Args:
        emulator: What to export.
        path: The file.
        size: Input cells on each axis, if they are to be fixed.

    Raises:
        ArtefactError: If the network cannot be traced.
    """
    fields = example(emulator, 2, size or example_sizes(emulator.footprint, emulator.ndim))
    graph = Positional(emulator, size)
    try:
        with quiet(), torch.no_grad():
            # script keeps the condition on the sizes, of which a trace only has the outcome
            graph.check = torch.jit.script(check_sizes)
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                graph, tuple(fields.values()), check_trace=False
            )
            torch.jit.save(traced, str(path), _extra_files=metadata(emulator))
    except Exception as error:
        if isinstance(error, OSError) or ZIP_WRITER.search(str(error)):
            raise
        cause = str(error).strip().partition("\n")[0]
        raise ArtefactError(
            f"PyTorch cannot export {type(emulator.model).__name__} as TorchScript: "
            f"{type(error).__name__}: {cause}; try --to torch-export or onnx"
        ) from error


def run(path: Path, fields: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a file on windows of physical fields, given in the order of the card."""
    texts = {"map2map": ""}
    with quiet(), torch.no_grad():
        loaded = torch.jit.load(  # type: ignore[no-untyped-call]
            str(path), map_location="cpu", _extra_files=texts
        )
        made = loaded(*fields.values())
    names = [target["name"] for target in json.loads(texts["map2map"])["targets"]]
    return dict(zip(names, [made] if isinstance(made, Tensor) else made, strict=True))


class Positional(nn.Module):
    """The physical graph as a function of tensors, in the order of the card.

    Args:
        emulator: Is not changed.
        size: Input cells on each axis, if no others are to be taken.
    """

    def __init__(self, emulator: Emulator, size: Shape | None) -> None:
        super().__init__()
        self.graph = PhysicalGraph(emulator)
        self.names = emulator.inputs.names
        self.size = list(size or ())
        self.check = check_sizes

    def forward(self, *fields: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map tensors (batch, channel, *space) to tensors (batch, channel, *smaller space)."""
        rule = self.graph.emulator.footprint
        first = self.check(fields[0], rule.multiple, rule.remainder, rule.minimum, self.size)
        made = self.graph(dict(zip(self.names, (first, *fields[1:]), strict=True)))
        # callers in other languages look at the memory, not at the strides
        outputs = tuple(y.contiguous() for y in made.values())
        return outputs[0] if len(outputs) == 1 else outputs


def check_sizes(x: Tensor, multiple: int, remainder: int, minimum: int, size: list[int]) -> Tensor:
    """Refuse a size that the footprint does not allow; part of the file."""
    for axis in range(2, x.dim()):
        n = x.size(axis)
        if len(size) > 0 and n != size[axis - 2]:
            raise ValueError(
                f"the emulator was exported for {size[axis - 2]} cells on axis {axis - 2}, not {n}"
            )
        if len(size) == 0 and (n < minimum or n % multiple != remainder):
            raise ValueError(
                f"the emulator cannot take {n} cells (axis {axis - 2}): "
                f"sizes are {minimum}, {minimum + multiple}, ..."
            )
    return x
