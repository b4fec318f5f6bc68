"""Whole fields in memory: from the arrays of the inputs to the arrays of the targets."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, prod
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from map2map.derived import Derived
from map2map.engine import LAST_SEED, Engine, NonFiniteError, Running
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import FieldSet, field_channels
from map2map.footprints import Footprint
from map2map.grids import Domain, Grid
from map2map.memory import bytes_of, free_memory
from map2map.noise import draws_noise
from map2map.readers import derive, resolve
from map2map.sources import Axis
from map2map.styles import bound, style_of
from map2map.tiling import Tile, Tiling, best_size, overlapping, take
from map2map.typing import Shape
from map2map.windows import per_axis

__all__ = [
    "Applicable",
    "Settings",
    "apply_arrays",
    "domain_of_input",
    "drawn",
    "make_engine",
    "make_tiling",
    "require_noise",
]


SMALL = 1 << 18
"""Input cells of a field for which nobody need look at the memory."""


ALLOWED = (
    "allow them (--allow-nan, allow_nonfinite=True): outputs that see such a cell are NaN then"
)
"""What to do about NaN in the input, if not to mend it."""


class Applicable(Protocol):
    """What can be applied: an emulator."""

    inputs: FieldSet
    targets: FieldSet
    domain: Domain
    ndim: int
    footprint: Footprint
    derived: Mapping[str, Derived]
    styles: FieldSet
    style_range: dict[str, list[float]]
    cells: Shape | None


@dataclass(frozen=True)
class Settings:
    """How an emulator is applied.

    Of all this only precision and seed change the result by more than round-off.

    Args:
        running: Precision, device, and how the network is set up.
        memory: What tiles may take, in bytes or as "2GiB"; default: half of what is free.
        tile: Input cells per tile, one number or one per axis, instead of what fits the memory.
        allow_nonfinite: Whether NaN in the input is allowed; outputs that see it are NaN.
    """

    running: Running = field(default_factory=Running)
    memory: int | str | None = None
    tile: int | Sequence[int] | None = None
    allow_nonfinite: bool = False

    def of_member(self, member: int) -> "Settings":
        """The same for a member of an ensemble: that of the seed and so many more."""
        return replace(self, running=replace(self.running, seed=self.running.seed + member))

    def of_step(self, step: int, start: int = 0) -> "Settings":
        """The same for a step of a rollout from a start, both numbered from 0 on; see `drawn`."""
        return self.of_member(drawn(step, start))


def drawn(step: int, start: int = 0) -> int:
    """What is added to the seed in a step of a rollout, so that each draws numbers of its own.

    Seeds of a million members lie between two steps, and a million steps between two starts.
    """
    return ((start << 40) + (step << 20)) % LAST_SEED


def require_noise(emulator: Applicable) -> None:
    """Refuse an ensemble whose members would all be the same.

    Raises:
        RecipeError: If the emulator draws no random numbers.
    """
    if not draws_noise(cast(nn.Module, emulator)):
        network = type(getattr(emulator, "model", emulator)).__name__
        raise RecipeError(
            f"the emulator draws no random numbers (its network is a {network}), so neither is "
            f"there a seed, nor are there members that differ; use a network that does, such as "
            f"FlowMatching"
        )


def make_engine(
    emulator: Applicable, settings: Settings, style: Mapping[str, float] | None = None
) -> Engine:
    """The engine that runs an emulator, for the styles of one run if it has any.

    Raises:
        RecipeError: If a derivative is asked for with what is not made for it.
    """
    running = settings.running
    module = cast(nn.Module, emulator)
    if running.precision == "fp64" and style:
        # styles are settled in the type of the weights
        module = copy.deepcopy(module).double()
    if getattr(module, "plain", False):
        if running.winograd or running.compile:
            raise RecipeError(
                "derivatives are computed by PyTorch's own convolutions; leave winograd and "
                "compile out"
            )
        running = replace(running, rings=False, channels_last=False)
        module = cast(Any, module).for_run(style or {})
    elif style:
        module = bound(module, style)
    return Engine(
        module,
        emulator.footprint,
        emulator.ndim,
        running,
        allow_nonfinite=settings.allow_nonfinite,
    )


def make_tiling(engine: Engine, emulator: Applicable, grid: Grid, settings: Settings) -> Tiling:
    """Tiles of the size that was asked for, or that fits the memory.

    Raises:
        GeometryError: If that cannot be.
    """
    footprint, rings = emulator.footprint, engine.running.rings
    if 1 in grid.shape and footprint.margin:
        raise GeometryError(
            f"the input has {grid.shape} cells, one of them on an axis along which the emulator "
            f"looks {footprint.margin} cells far; it takes fields on {grid.ndim} axes (if this is "
            f"one of {grid.ndim - 1}, repeat it along the axis)"
        )
    whole = Tiling(grid, footprint, rings=rings)
    if settings.tile is not None:
        size = per_axis(
            settings.tile if isinstance(settings.tile, int) else list(settings.tile),
            whole.size,
            "tile",
        )
        size = tuple(min(n, m) for n, m in zip(size, whole.size, strict=True))
        return Tiling(grid, footprint, size, rings=rings)
    small = prod(whole.largest_read) <= SMALL
    if settings.memory is None and (small or footprint.whole is not None):
        return whole
    channels = emulator.inputs.channels, emulator.targets.channels
    most = engine.most_cells(*channels, allowed_memory(engine.device, settings.memory))
    return Tiling(grid, footprint, best_size(grid, footprint, most, rings=rings), rings=rings)


def allowed_memory(device: torch.device, asked: int | str | None) -> int:
    """Bytes that tiles may take: what was asked for, or half of what is free."""
    if asked is not None:
        return bytes_of(asked)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return free_memory() // 2


def apply_arrays(
    emulator: Applicable,
    fields: Mapping[str, Any],
    domain: Domain | None = None,
    settings: Settings | None = None,
    axes: Sequence[Axis] = (),
    remedy: str = ALLOWED,
) -> dict[str, Any]:
    """Apply an emulator to whole fields.

    Args:
        emulator: The emulator.
        fields: By name, arrays or tensors of shape (channel, *space) or, of one channel, (*space);
            styles are numbers.
        domain: What lies beyond the edges, if other than in training.
        settings: How it is applied.
        axes: Of the grid, with the coordinates that derived fields may need.
        remedy: What to do about NaN in the input, if not to mend it.

    Returns:
        Targets by name, (channel, *space); tensors if tensors were given.

    Raises:
        FieldError: If a field is missing, unknown, has other channels, or is not finite.
        GeometryError: If shapes do not fit.
    """
    settings = settings or Settings()
    style = style_of(emulator, fields)
    fields = {name: values for name, values in fields.items() if name not in style}
    arrays = checked(emulator, fields)
    shape = next(iter(arrays.values())).shape[1:]
    grid = (domain or emulator.domain).grid(shape)
    computed, _ = resolve(emulator.inputs.names, emulator.derived, fields)
    engine = make_engine(emulator, settings, style)
    dtype = numpy_dtype(engine)
    arrays |= derive(computed, arrays, grid, axes, dtype)
    tiling = make_tiling(engine, emulator, grid, settings)
    output = np.empty((emulator.targets.channels, *tiling.shape), dtype)

    def read(tile: Tile) -> NDArray[Any]:
        values = np.empty((emulator.inputs.channels, *tile.read.shape), dtype)
        for name, channels in emulator.inputs.slices.items():
            take(arrays[name], tile.read, tiling.grid, values[channels])
        return values

    def write(tile: Tile, values: NDArray[Any]) -> None:
        output[(slice(None), *tile.target.slices)] = values

    try:
        overlapping((tiling[i] for i in range(len(tiling))), read, engine, write)
    except NonFiniteError as error:
        raise FieldError(where_not_finite(error, emulator.inputs, grid, remedy=remedy)) from error
    parts = {name: output[channels] for name, channels in emulator.targets.slices.items()}
    given = next(iter(fields.values()))
    if isinstance(given, Tensor):
        return {name: torch.from_numpy(part).to(given.device) for name, part in parts.items()}
    return parts


def apply_whole(
    emulator: Applicable,
    fields: Mapping[str, Any],
    axes: Sequence[Axis] = (),
) -> dict[str, Any]:
    """Apply an emulator of labels or parameters to the whole fields of one sample.

    Args:
        emulator: The emulator.
        fields: As for `apply_arrays`.
        axes: Likewise.

    Returns:
        By name: the logits of labels, parameters in their units, shape (channel,); tensors if
        tensors were given.

    Raises:
        FieldError: If a field is missing, unknown, has other channels, or is not finite.
        GeometryError: If shapes do not fit.
    """
    arrays = checked(emulator, fields)
    grid = emulator.domain.grid(next(iter(arrays.values())).shape[1:])
    computed, _ = resolve(emulator.inputs.names, emulator.derived, fields)
    arrays |= derive(computed, arrays, grid, axes)
    x = np.concatenate([arrays[name] for name in emulator.inputs.names]).astype(np.float32)
    if not np.isfinite(x).all():
        raise FieldError(
            f"the input holds {int((~np.isfinite(x)).sum())} NaN or infinite values, which a label "
            f"or parameter of the whole cannot leave out; mend the data"
        )
    module = cast(nn.Module, emulator)
    device = next(module.parameters(), torch.empty(0)).device
    with torch.no_grad():
        output: Tensor = module(torch.from_numpy(x[None]).to(device))[0]
    given = next(iter(fields.values()))
    parts = {name: output[channels] for name, channels in emulator.targets.slices.items()}
    if isinstance(given, Tensor):
        return {name: part.to(given.device) for name, part in parts.items()}
    return {name: part.cpu().numpy() for name, part in parts.items()}


def numpy_dtype(engine: Engine) -> type[np.floating[Any]]:
    """The type of inputs, as they are read, and outputs."""
    return np.float64 if engine.dtype == torch.float64 else np.float32


def where_not_finite(
    error: NonFiniteError, fields: FieldSet, grid: Grid, files: str = "", remedy: str = ALLOWED
) -> str:
    """The message for inputs that are NaN."""
    name = next(n for n, channels in fields.slices.items() if channels.stop > error.channel)
    cell = tuple(
        c % n if beyond == "periodic" else c
        for c, n, beyond in zip(error.cell, grid.shape, grid.beyond, strict=True)
    )
    return (
        f"the input holds {error.count} NaN or infinite values{files}, the first in field {name!r} "
        f"at cell {cell}; mend the data, or {remedy}"
    )


def checked(emulator: Applicable, fields: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inputs as arrays (channel, *space) on one grid, in the emulator's order."""
    ndim = emulator.ndim
    _, names = resolve(emulator.inputs.names, emulator.derived, fields)
    unknown = [name for name in fields if name not in names]
    missing = [name for name in names if name not in fields]
    if unknown or missing:
        raise FieldError(
            f"the emulator takes the fields {', '.join(names)}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(map(str, unknown))}" if unknown else "")
        )
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        values = fields[name]
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        array = array[None] if array.ndim == ndim else array
        # of a field that others are derived from, the number of channels is theirs to know
        is_input = name in emulator.inputs.names
        channels = field_channels(emulator.inputs[name]) if is_input else len(array)
        if array.ndim != ndim + 1 or len(array) != channels:
            raise FieldError(
                f"field {name!r} has shape {array.shape}, but the emulator takes "
                f"{channels} channels on {ndim} axes: ({channels}, *space)"
            )
        if array.dtype.kind not in "fiub":
            raise FieldError(f"field {name!r} has dtype {array.dtype}; give real numbers")
        arrays[name] = array
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise GeometryError(f"the input fields are on different grids: {shapes}")
    return arrays


def domain_of_input(
    emulator: Applicable,
    domain: Domain,
    spacing: Sequence[float | None] = (),
    *,
    shape: Sequence[int] = (),
    other_grid: bool = False,
) -> None:
    """Refuse a grid of another kind than the emulator has learnt on.

    Args:
        emulator: The emulator.
        domain: Of the input.
        spacing: Step of the coordinates of each axis of the input, where it is known.
        shape: Cells per axis of the input, if they are known.
        other_grid: Whether this was asked for.

    Raises:
        GeometryError: If axes are periodic where they were not, or the other way round, or cells
            are of another size; or if the domain is of another size, and the network sees all of
            it.
    """
    if other_grid:
        return
    ask = "ask for it if this is what you want (--other-grid, other_grid=True)"
    one: Shape = (1,) * emulator.ndim
    grid, learnt = domain.grid(one), emulator.domain.grid(one)
    if grid.periodic != learnt.periodic:
        raise GeometryError(
            f"the input's axes are periodic: {grid.periodic}, but the emulator has learnt on "
            f"{learnt.periodic}; {ask}"
        )
    for axis, (found, known) in enumerate(zip(spacing, learnt.spacing or (), strict=False)):
        if found is not None and not abs(abs(found) - known) <= 1e-3 * known:
            width = "of unequal widths" if isnan(found) else f"{abs(found):g} wide"
            raise GeometryError(
                f"the input's cells are {width} on axis {axis}, but the emulator has learnt "
                f"on {known:g}; {ask}"
            )
    # cells are known to be as wide as those of the training
    known = None not in spacing and len(spacing) == emulator.ndim and learnt.spacing is not None
    if known and shape and emulator.cells is not None and tuple(shape) != emulator.cells:
        given, cells = (" x ".join(map(str, each)) for each in (shape, emulator.cells))
        raise GeometryError(
            f"the input's domain has {given} cells, but the emulator, whose network sees the whole "
            f"domain ({emulator.footprint.whole}), has learnt on {cells} of the same size; what it "
            f"has learnt is of that domain: {ask}"
        )
