"""Engine: runs a network over windows as fast as asked for, and knows what memory that takes."""

import copy
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from map2map.convolutions import Winograd, arrange
from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.footprints import Footprint
from map2map.noise import Noise, Place, placed
from map2map.tiling import Tile, reached
from map2map.typing import Shape
from map2map.windows import round_up

__all__ = ["Engine", "NonFiniteError", "Precision", "Running"]

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16", "fp64"]
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
MOST_ELEMENTS = 2**31 - 1
"""Of a tensor: above it, 3-D convolutions break or slow down."""
PLANES = ("cpu", 3, torch.channels_last_3d)
"""Where Winograd's algorithm is used."""
LAST_SEED = 2**62
"""So that the seeds of members, which come after it, are numbers of 64 bits, too."""
FRAGMENTED = 1.6
"""How much more the C library takes when it keeps what was freed, measured for two networks."""


@dataclass(frozen=True)
class Running:
    """How a network is run; all but ``precision`` and ``seed`` change outputs by round-off only.

    Args:
        precision: "fp32"; "bf16" or "fp16", in which convolutions are computed while sums and norms
            stay in fp32; or "fp64".
        channels_last: Whether tensors keep the channels of a cell together, which convolutions
            prefer; default: where it helps, in 2-D and 3-D.
        compile: Whether the network goes through ``torch.compile``.
        fold_batch_norm: Whether batch norms that follow a convolution become part of it.
        winograd: Whether 3-D convolutions are computed by Winograd's algorithm along one axis, in
            fp32 on a CPU: half the multiplications, and round-off that is a few times larger.
        rings: Whether a periodic axis that one tile covers is closed into a ring, so that it needs
            no halo, where the model allows it.
        device: "cpu", "cuda", "cuda:1"…; default: where the emulator is.
        seed: Of what a network draws at random for each cell: the same seed gives the same field,
            another one another field. Networks that draw nothing do not know it.
    """

    precision: Precision = "fp32"
    channels_last: bool | None = None
    compile: bool = False
    fold_batch_norm: bool = False
    winograd: bool = False
    rings: bool = True
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LAST_SEED:
            raise RecipeError(f"the seed is {self.seed}; give a number from 0 to {LAST_SEED}")
        if self.precision not in DTYPES:
            raise RecipeError(
                f"unknown precision {self.precision!r}{near_names(self.precision, DTYPES)}"
            )
        try:
            device = torch.device(self.device or "cpu")
        except RuntimeError as error:
            raise RecipeError(f"unknown device {self.device!r}; use cpu, cuda or cuda:1") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise RecipeError(f"device {self.device!r} was asked for, but there is no GPU here")
        if self.winograd and self.precision != "fp32":
            raise RecipeError(
                f"Winograd's algorithm is for fp32, not {self.precision}, whose round-off it would "
                f"make larger; leave one of them out"
            )


class Engine:
    """A network from physical inputs to physical outputs, set up for running.

    Args:
        emulator: Takes and gives physical values (batch, channel, *space); copied if it has to be
            changed.
        footprint: Of its network.
        ndim: Number of axes of space.
        running: How it is run.
        allow_nonfinite: Whether inputs may be NaN or infinite. Outputs that see such a cell, by the
            footprint, are NaN then.
    """

    def __init__(
        self,
        emulator: nn.Module,
        footprint: Footprint,
        ndim: int,
        running: Running | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        self.running, self.footprint, self.ndim = running or Running(), footprint, ndim
        self.allow_nonfinite = allow_nonfinite
        here = next(emulator.parameters(), torch.empty(0)).device
        self.device = torch.device(self.running.device or here)
        self.dtype = torch.float64 if self.running.precision == "fp64" else torch.float32
        self.module = copy.deepcopy(emulator).eval().to(self.device, self.dtype)
        if self.running.fold_batch_norm:
            log.info("folded %d batch norms into convolutions", fold_batch_norms(self.module))
        self.format = torch.contiguous_format
        if self.running.channels_last is not False:
            self.format = {2: torch.channels_last, 3: torch.channels_last_3d}.get(ndim, self.format)
        if self.format is not torch.contiguous_format:
            self.module.to(memory_format=self.format)  # type: ignore[call-overload]
        elif self.running.channels_last:
            raise RecipeError(f"channels-last is for 2 and 3 axes, not {ndim}")
        if self.running.winograd and (self.device.type, ndim, self.format) != PLANES:
            raise RecipeError(
                f"Winograd's algorithm is for 3 axes, channels-last, on a CPU, not for {ndim} axes "
                f"on {self.device}"
            )
        self._modules: dict[tuple[int, ...], nn.Module] = {}
        self._compiled: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

    def module_for(self, rings: tuple[int, ...]) -> nn.Module:
        """The emulator, some axes closed into rings."""
        if rings not in self._modules:
            self._modules[rings] = arrange(
                copy.deepcopy(self.module),
                rings,
                self.format,
                cpu=self.device.type == "cpu",
                winograd=self.running.winograd,
            )
            if self.running.winograd and not any(
                isinstance(part, Winograd) for part in self._modules[rings].modules()
            ):
                log.warning("no convolution is wide enough for Winograd's algorithm")
        return self._modules[rings]

    def _run(self, rings: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """The same, compiled if it shall be."""
        module = self.module_for(rings)
        if not self.running.compile:
            return module
        if rings not in self._compiled:
            for layer in (part for part in module.modules() if isinstance(part, Noise)):
                # would be compiled anew for each place
                layer.forward = eager(layer.forward)  # type: ignore[method-assign,assignment]
            self._compiled[rings] = torch.compile(module, dynamic=False)
        return self._compiled[rings]

    @torch.inference_mode()
    def __call__(self, tile: Tile, values: NDArray[Any], member: int = 0) -> NDArray[Any]:
        """The outputs of a tile.

        Args:
            tile: The tile.
            values: What it reads, in physical units, shape (channel, *tile.read.shape).
            member: Of an ensemble: its random numbers are those of the seed and so many more.

        Returns:
            In physical units, shape (channel, *tile.target.shape).

        Raises:
            FieldError: If a value is NaN or infinite, and they are not allowed.
            GeometryError: If the network gives another shape than its footprint says.
        """
        unseen = self._unusable(tile, values)
        x = torch.from_numpy(values)
        if self.device.type == "cuda":
            x = x.pin_memory()
        x = x[None].to(self.device, self.dtype, non_blocking=True)
        run = self._run(tile.rings)
        with placed(self.module_for(tile.rings), tile.place(self.running.seed + member)):
            y = self._forward(run, x)
        inside = y[0][(slice(None), *tile.kept)]
        if tile.rings and self.footprint.ring:
            shift = [self.footprint.ring] * len(tile.rings)
            inside = inside.roll(shift, [1 + axis for axis in tile.rings])
        if tuple(inside.shape[1:]) != tile.target.shape:
            raise GeometryError(
                f"the model returned {tuple(y.shape[2:])} cells for {values.shape[1:]} read, which "
                f"its footprint does not tell: {self.footprint}"
            )
        # a copy of its own, so that the rest of the output is freed
        output: NDArray[Any] = inside.to("cpu", memory_format=torch.contiguous_format).numpy()
        output = output if output.flags.owndata and output.flags.c_contiguous else output.copy()
        if unseen is not None:
            output[:, unseen] = np.nan
        return output

    def _unusable(self, tile: Tile, values: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Outputs that see a NaN; replaces NaN by numbers that do no harm."""
        flat = values.reshape(-1)
        # a sum of squares is NaN or infinite if any value is, and costs a fifth of looking at each
        with np.errstate(over="ignore"):
            if np.isfinite(np.vdot(flat, flat)):
                return None
        bad = ~np.isfinite(values)
        count = int(bad.sum())
        if count == 0:  # the squares were too large
            return None
        if not self.allow_nonfinite:
            channel, *cell = np.argwhere(bad)[0].tolist()
            halo = zip(tile.read.start, tile.cells.start, tile.cells.stop, strict=True)
            own = bad[(slice(None), *(slice(a - first, b - first) for first, a, b in halo))]
            # the halo may hold the same cells once more
            raise NonFiniteError(channel, cell, int(own.sum()) or count, tile)
        for channel in values:
            finite = channel[np.isfinite(channel)]
            channel[~np.isfinite(channel)] = finite[0] if finite.size else 1.0
        return reached(np.asarray(bad.any(axis=0)), tile, self.footprint)

    def _forward(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=self.format)
        mixed = self.running.precision in ("bf16", "fp16")
        with torch.autocast(self.device.type, DTYPES[self.running.precision], enabled=mixed):
            y = run(x)
        return y.to(self.dtype)

    def needs(self, channels: int, shape: Shape, rings: tuple[int, ...] = ()) -> tuple[int, int]:
        """What a tile takes while it is computed, found without computing it.

        Args:
            channels: Channels of the input.
            shape: Input cells per axis, with the halo.
            rings: Axes that are closed into rings.

        Returns:
            Bytes at the worst moment, and numbers in the largest tensor.
        """
        # not what is compiled, which would hide its tensors
        module = self.module_for(rings)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                tally = self._tally(module, channels, shape)
        except Exception:  # a module that looks at values: it has to be run
            tally = self._tally(module, channels, shape)
        # a convolution may bring what it takes and gives into an order of its own
        return tally.peak + tally.largest_call, tally.largest_tensor

    @torch.no_grad()
    def _tally(self, module: nn.Module, channels: int, shape: Shape) -> "Tally":
        x = torch.zeros(1, channels, *shape, device=self.device, dtype=self.dtype)
        tally = Tally()
        # numbers that belong to cells take more than those of PyTorch's generator
        somewhere = Place((0,) * len(shape), tuple(shape), (False,) * len(shape))
        with tally, placed(module, somewhere):
            tally.add(x)
            self._forward(module, x)
        return tally

    def most_cells(self, channels: int, outputs: int, memory: int) -> int:
        """Input cells of the largest tile, with its halo, that fits into so many bytes.

        Beside the tile that is computed there are the inputs of the next and the outputs of the
        last one.
        """
        size = self.footprint.fitting(self.footprint.minimum + {1: 4096, 2: 256}.get(self.ndim, 64))
        shapes: dict[tuple[int, ...], int] = {(): size}
        if self.running.rings and self.footprint.ring is not None:
            # whatever axes become rings, none keeps more than if all do
            shapes[tuple(range(self.ndim))] = round_up(size, self.footprint.multiple)
        width = self.dtype.itemsize
        around = width * (2 * channels + 2 * outputs * self.footprint.scale**self.ndim)
        spare = FRAGMENTED if self.device.type == "cpu" else 1.0
        most = float("inf")
        for rings, n in shapes.items():
            space = self.footprint.sizes or (n,) * self.ndim
            peak, largest = self.needs(channels, space, rings)
            # a large tile keeps more of what its halo gives than this small one
            per_cell = spare * (1.1 * peak / prod(space) + around)
            most = min(most, memory / per_cell, MOST_ELEMENTS / (1.1 * largest / prod(space)))
        return max(1, int(most))


def eager(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that ``torch.compile`` leaves alone."""
    alone: Callable[[Tensor], Tensor] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return alone


class NonFiniteError(FieldError):
    """An input is NaN or infinite; who knows its name and file says so."""

    def __init__(self, channel: int, cell: list[int], count: int, tile: Tile) -> None:
        super().__init__(f"{count} inputs are NaN or infinite in {tile.read}")
        self.channel, self.count, self.tile = channel, count, tile
        self.cell = tuple(a + b for a, b in zip(tile.read.start, cell, strict=True))


class Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.largest_call = self.largest_tensor = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and take its results into account."""
        output = func(*args, **(kwargs or {}))
        results = dense_parts(output)
        for result in results:
            self.add(result)
        touched = dense_parts(args) + results
        self.largest_call = max(self.largest_call, sum(t.nbytes for t in touched))
        return output

    def add(self, tensor: Tensor) -> None:
        """Count a tensor until it is freed."""
        self.largest_tensor = max(self.largest_tensor, tensor.numel())
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.live += self._known[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.live -= self._known.pop(key)


def dense_parts(values: Any) -> list[Tensor]:
    """The tensors in nested values; instead of sparse ones, what those are made of."""
    found: list[Tensor] = []
    for leaf in tree_leaves(values):
        if not isinstance(leaf, Tensor):
            continue
        if leaf.layout is torch.sparse_csr:
            found += [leaf.crow_indices(), leaf.col_indices(), leaf.values()]
        elif leaf.layout is torch.sparse_coo:
            found += [leaf._indices(), leaf._values()]
        elif leaf.layout is torch.strided:
            found.append(leaf)
    return found


def fold_batch_norms(module: nn.Module) -> int:
    """Make each batch norm that follows a convolution in a sequence part of it; how many."""
    folded = 0
    for child in list(module.modules()):
        if not isinstance(child, nn.Sequential):
            continue
        layers = list(child)
        for i, (first, second) in enumerate(pairwise(layers)):
            if (
                isinstance(first, _ConvNd)
                and isinstance(second, _BatchNorm)
                and second.track_running_stats
            ):
                child[i] = fuse_conv_bn_eval(first, second, transpose=bool(first.transposed))
                child[i + 1] = nn.Identity()
                folded += 1
    return folded
