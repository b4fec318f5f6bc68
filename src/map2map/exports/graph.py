"""An emulator as a graph of physical fields by name, traced for all sizes; what exports share."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from map2map.emulator import Emulator
from map2map.errors import ArtefactError
from map2map.fields import field_channels
from map2map.footprints import Footprint
from map2map.noise import draws_noise
from map2map.typing import Shape

__all__ = [
    "PhysicalGraph",
    "arguments",
    "check_draws_nothing",
    "example",
    "example_sizes",
    "metadata",
    "quiet",
    "trace",
]

PREFIX = "map2map"


def check_draws_nothing(emulator: Emulator) -> None:
    """Refuse a network whose numbers a file could not give again.

    Raises:
        ArtefactError: If it draws random numbers.
    """
    if draws_noise(emulator):
        raise ArtefactError(
            f"{type(emulator.model).__name__} draws random numbers, which belong to a cell's "
            f"place in the field that exported programs do not know; apply it with m2m apply"
        )


class PhysicalGraph(nn.Module):
    """Windows of physical inputs by name to windows of physical targets by name.

    A copy of the emulator on the CPU, in evaluation mode and float32: the statistics of norms too,
    which an emulator keeps in float64 but uses in the precision of the field.

    Args:
        emulator: Is not changed.

    Raises:
        ArtefactError: If a norm is not fitted, or the network draws random numbers.
    """

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        for name in (
            *emulator.inputs.names,
            *emulator.targets.names,
            *emulator.styles.names,
        ):
            if not emulator.norm(name).fitted:
                raise ArtefactError(
                    f"the norm of field {name!r} has no statistics yet; train the emulator, or "
                    f"give them in its constructor"
                )
        check_draws_nothing(emulator)
        self.emulator = copy.deepcopy(emulator).cpu().float().eval().requires_grad_(False)

    def forward(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map tensors (batch, channel, *space) to tensors (batch, channel, *smaller space).

        Styles are tensors (batch, 1).
        """
        y: Tensor = self.emulator(*arguments(self.emulator, fields))
        slices = self.emulator.targets.slices
        if len(slices) == 1:
            return dict.fromkeys(slices, y)
        return {name: y[:, channels] for name, channels in slices.items()}


def arguments(emulator: Emulator, fields: Mapping[str, Tensor]) -> list[Tensor]:
    """What an emulator is called with: its inputs, and its styles if it has any."""
    sides = [[fields[name] for name in side.names] for side in (emulator.inputs, emulator.styles)]
    return [parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in sides if parts]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what PyTorch says about its own interfaces from the user, who cannot mend it."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def example_sizes(footprint: Footprint, ndim: int, turn: int = 0) -> Shape:
    """Input sizes, a different one on every axis, so that no two are taken for the same.

    Args:
        footprint: Says which sizes are allowed.
        ndim: Number of axes.
        turn: By how many axes to turn them.
    """
    steps = [1 + (axis + turn) % max(ndim, 2) for axis in range(ndim)]
    return tuple(footprint.fitting(footprint.minimum + k * footprint.multiple) for k in steps)


def example(emulator: Emulator, batch: int, size: Shape) -> dict[str, Tensor]:
    """Random physical inputs by name, as large as the norms say that they are.

    Args:
        emulator: Whose inputs.
        batch: Number of windows.
        size: Cells on each axis.
    """
    generator = torch.Generator().manual_seed(0)
    made = {}
    for field in emulator.inputs:
        z = torch.randn(batch, field_channels(field), *size, generator=generator)
        with torch.no_grad():
            norm = copy.deepcopy(emulator.norm(field.name)).cpu()
            middle = {name: sum(ends) / 2 for name, ends in emulator.style_range.items()}
            norm = norm.settled(middle) if norm.needs else norm
            x, positive = norm.inverse(z), norm.inverse(z.abs())
        # a norm that maps to positive numbers only, as Exp, cannot be undone for the others
        made[field.name] = torch.where(x.isfinite(), x, positive)
    for field in emulator.styles:
        z = torch.rand(batch, 1, generator=generator)
        low, high = emulator.style_range.get(field.name, (0.0, 1.0))
        made[field.name] = low + (high - low) * z
    return made


def metadata(emulator: Emulator) -> dict[str, str]:
    """What a file says about itself: texts by key, the same in every format.

    ``map2map`` is the card; ``map2map.KEY`` are numbers that a caller needs to read its halo,
    so that a program in C need not read JSON.
    """
    footprint = emulator.footprint
    texts = ("whole", "sizes")
    numbers = {key: value for key, value in asdict(footprint).items() if key not in texts}
    numbers |= {
        "ndim": emulator.ndim,
        "low": footprint.low,
        "first": footprint.scale * footprint.low - footprint.cut,
    }
    card = json.dumps(emulator.card().entries())
    return {PREFIX: card} | {f"{PREFIX}.{key}": str(value) for key, value in numbers.items()}


def trace(emulator: Emulator, size: Shape | None) -> ExportedProgram:
    """The graph, for any number of windows and any size, or for one size.

    Args:
        emulator: What to trace.
        size: Input cells on each axis; if not given, all that the footprint allows.

    Raises:
        ArtefactError: If the graph cannot be traced, or only for one size.
    """
    graph = PhysicalGraph(emulator)
    if size is not None:
        try:
            return _traced(graph, 2, size, dynamic={0})
        except ArtefactError:
            # some networks compute with the number of windows, too
            return _traced(graph, 1, size, dynamic=set())
    axes = set(range(emulator.ndim + 2)) - {1}
    return _traced(graph, 2, example_sizes(emulator.footprint, emulator.ndim), dynamic=axes)


def _traced(graph: PhysicalGraph, batch: int, size: Shape, dynamic: set[int]) -> ExportedProgram:
    """The graph, traced with an example, whose dimensions ``dynamic`` stay open."""
    emulator = graph.emulator
    minimum = emulator.footprint.minimum
    shape = {axis: Dim.AUTO(min=minimum if axis else 1) for axis in sorted(dynamic)}
    fields = example(emulator, batch, size)
    shapes = {
        name: {axis: dim for axis, dim in shape.items() if axis < x.ndim}
        for name, x in fields.items()
    }
    name = type(emulator.model).__name__
    advice = "give --size to export it for one size" if len(dynamic) > 1 else "see the cause above"
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(graph, (fields,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:
        cause = str(error).strip().partition("\n")[0]
        raise ArtefactError(
            f"PyTorch cannot export {name}: {type(error).__name__}: {cause}; {advice}"
        ) from error
    held = dynamic - open_dimensions(program)
    if held:
        where = ", ".join(
            "the number of windows" if a == 0 else f"axis {a - 2}" for a in sorted(held)
        )
        raise ArtefactError(f"{name} can only be exported for a fixed size of {where}; {advice}")
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    program.example_inputs = None  # larger than the weights
    return program


def open_dimensions(program: ExportedProgram) -> set[int]:
    """The dimensions of the inputs that are not fixed in a graph."""
    inputs = set(program.graph_signature.user_inputs)
    shapes = [n.meta["val"].shape for n in program.graph.nodes if n.name in inputs]
    # styles have no axes of space
    sizes_of = {
        axis: [shape[axis] for shape in shapes if axis < len(shape)]
        for axis in range(max(map(len, shapes)))
    }
    return {
        axis
        for axis, sizes in sizes_of.items()
        # a symbol that turned out to be a number is still a SymInt
        if not any(str(size).isdigit() for size in sizes)
    }
