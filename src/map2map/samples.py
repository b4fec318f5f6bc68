"""Samples: input and target of one crop, in physical values.

What is random about a sample is drawn in one place (`SampleDataset.draw`), keyed by (seed, epoch,
index), and applied in two: the shift of the crop when it is read, symmetry and noise on the device,
on the batch.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import FieldSet
from map2map.grids import Domain, Grid
from map2map.runs import Runs
from map2map.symmetry import Symmetries, Symmetry
from map2map.typing import Shape
from map2map.windows import Halo, Window, anchors, bounds, crop_window, per_axis

__all__ = ["Augment", "Crops", "Draw", "Sample", "SampleDataset"]

HaloFormat = int | list[int]


@dataclass(frozen=True)
class Crops:
    """Where the crops of a run are, and what is read around them.

    Args:
        size: Cells per axis of the input's crop, one number or one per axis; default: the field.
        start: First cell of the first crop; default 0.
        stop: First cells of crops are below this; default: the field's size.
        step: From crop to crop; default: the size.
        halo: Cells of the input read around a crop: for all sides, per axis, or low and high per
            axis; "auto" computes them from the model's footprint.
        target_halo: Likewise around the target's crop, in its own cells.
        scale_factor: Target cells per input cell and axis.
    """

    size: int | list[int] | None = None
    start: int | list[int] | None = None
    stop: int | list[int] | None = None
    step: int | list[int] | None = None
    halo: HaloFormat | Literal["auto"] = "auto"
    target_halo: HaloFormat = 0
    scale_factor: int = 1

    def __post_init__(self) -> None:
        if self.scale_factor < 1:
            raise GeometryError(f"the scale factor is {self.scale_factor}; it must be at least 1")


@dataclass(frozen=True)
class Augment:
    """What is varied from epoch to epoch.

    Args:
        symmetries: Which symmetries of the grid the physics has: "none", "all", "flips",
            "permutations", or the numbers of the axes that may be flipped.
        shift: Crops are moved by a random number of cells below this, one number or one per axis.
        add: Deviation of a random number added to all cells of a channel, of the normalized fields.
        mul: Deviation of the logarithm of a random factor, likewise, after ``add``.
    """

    symmetries: Literal["none", "all", "flips", "permutations"] | list[int] = "none"
    shift: int | list[int] | None = None
    add: float | None = None
    mul: float | None = None

    def __post_init__(self) -> None:
        for name in ("add", "mul"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise RecipeError(f"`{name}` is a deviation, {value}; it cannot be negative")


@dataclass(frozen=True)
class Draw:
    """What is random about one sample.

    Args:
        symmetry: Applied to input and target.
        shift: Cells the crop is moved by.
        add: Added to the normalized fields, shape (channel,) or None.
        mul: Multiplied after that, shape (channel,) or None.
    """

    symmetry: Symmetry
    shift: Shape
    add: NDArray[np.float32] | None = None
    mul: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Sample:
    """Input and target of one crop, in physical values, before symmetry and noise.

    Args:
        input: Shape (channel, *space).
        target: Shape (channel, *space).
        draw: What is to be applied to both.
        run: Number of the run.
        crop: The crop's window in the input's grid.
    """

    input: NDArray[np.float32]
    target: NDArray[np.float32]
    draw: Draw
    run: int
    crop: Window


class SampleDataset:
    """The crops of the runs of one split.

    Args:
        runs: The runs.
        crops: Where the crops are. Its halo must be known ("auto" is resolved by who knows the
            model).
        augment: What is varied; None varies nothing.
        domain: What the grids have in common.
        seed: Of everything random.
        allow_nonfinite: Whether NaN and infinities may be read; refused otherwise.

    Sample ``s`` is crop ``s % ncrop`` of run ``s // ncrop``; crops run through the axes, the last
    fastest.
    """

    def __init__(
        self,
        runs: Runs,
        crops: Crops,
        augment: Augment | None = None,
        domain: Domain | None = None,
        *,
        seed: int = 0,
        allow_nonfinite: bool = False,
    ) -> None:
        self.runs, self.seed, self.allow_nonfinite = runs, seed, allow_nonfinite
        shape, ndim, factor = runs.shape, runs.ndim, crops.scale_factor
        domain = domain or Domain()
        self.grid = domain.grid(shape)
        self.target_grid = domain.grid(tuple(factor * n for n in shape), factor)
        self.scale_factor = factor
        self.size = per_axis(crops.size, shape, "crop")
        if any(n < 1 or n > m for n, m in zip(self.size, shape, strict=True)):
            raise GeometryError(
                f"the crop is {self.size}, but the fields are {shape}: a crop has at least one "
                f"cell, and is no larger than the field (its halo may be)"
            )
        if crops.halo == "auto":
            raise GeometryError("the halo is still 'auto'; resolve it with the model's footprint")
        self.halo = Halo.parse(crops.halo, ndim)
        self.target_halo = Halo.parse(crops.target_halo, ndim)
        self._augment(augment or Augment(), ndim)
        symmetries = self.symmetries
        self._bounds = bounds(
            self.grid,
            self.size,
            self.halo,
            flips=bool(symmetries.flips),
            permute=symmetries.permute,
        )
        self.anchors = anchors(
            per_axis(crops.start, (0,) * ndim, "crop_start"),
            None if crops.stop is None else per_axis(crops.stop, shape, "crop_stop"),
            per_axis(crops.step, self.size, "crop_step"),
            shape,
            self._bounds,
        )
        self.ncrop = prod(len(axis) for axis in self.anchors)
        crop_window((0,) * ndim, self.size, self.halo)
        target = tuple(factor * n for n in self.size)
        self.target_size = crop_window((0,) * ndim, target, self.target_halo).shape

    def _augment(self, augment: Augment, ndim: int) -> None:
        self.augment = augment
        self.symmetries = Symmetries.declared(augment.symmetries, ndim)
        self.shift = per_axis(augment.shift, (0,) * ndim, "shift")
        if min(self.shift) < 0:
            raise RecipeError(f"`shift` is {self.shift}; crops are moved by 0 or more cells")
        if augment.add is not None or augment.mul is not None:
            each = {f.name: f.channels for f in (*self.runs.inputs, *self.runs.targets)}
            first = next(iter(each.values()))
            if first != 1 and any(n != first for n in each.values()):
                raise FieldError(
                    f"`add` and `mul` draw a number per channel of the first input and apply it to "
                    f"all fields, so these must have equally many channels, not {each}"
                )

    def __len__(self) -> int:
        return len(self.runs) * self.ncrop

    def anchor(self, index: int) -> Shape:
        """First cell of a sample's crop."""
        where = np.unravel_index(index % self.ncrop, [len(axis) for axis in self.anchors])
        return tuple(axis[int(i)] for axis, i in zip(self.anchors, where, strict=True))

    def draw(self, index: int, epoch: int) -> Draw:
        """What is random about a sample in an epoch, and about nothing else."""
        rng = np.random.default_rng([self.seed, epoch, index])
        ndim = self.runs.ndim
        shift = tuple(int(rng.integers(n)) if n else 0 for n in self.shift)
        symmetry = self.symmetries.draw(ndim, rng)
        channels = next(iter(self.runs.inputs)).channels
        add, mul = self.augment.add, self.augment.mul
        return Draw(
            symmetry,
            shift,
            None if add is None else rng.normal(0, add, channels).astype(np.float32),
            None if mul is None else rng.lognormal(0, mul, channels).astype(np.float32),
        )

    def windows(self, index: int, draw: Draw) -> tuple[Window, Window, Window]:
        """The crop of a sample, and the windows to read of input and target."""
        anchor = tuple(
            a + shift if bound is None else min(a + shift, bound[1])
            for a, shift, bound in zip(self.anchor(index), draw.shift, self._bounds, strict=True)
        )
        axes, flips, factor = draw.symmetry.axes, draw.symmetry.flips, self.scale_factor
        none = Halo.parse(0, len(anchor))
        crop = crop_window(anchor, self.size, none, axes, flips)
        input_window = crop_window(anchor, self.size, self.halo, axes, flips)
        scaled = tuple(factor * a for a in anchor), tuple(factor * n for n in self.size)
        return crop, input_window, crop_window(*scaled, self.target_halo, axes, flips)

    def read(
        self,
        index: int,
        epoch: int | None = None,
        into: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> Sample:
        """Read one sample.

        Args:
            index: Number of the sample.
            epoch: For what is drawn; None varies nothing.
            into: Buffers for input and target, of as many numbers as they have.

        Raises:
            IndexError: If there is no such sample.
            FieldError: If it holds NaN or infinities and they are not allowed.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        if epoch is None:
            draw = Draw(Symmetry.identity(self.runs.ndim), (0,) * self.runs.ndim)
        else:
            draw = self.draw(index, epoch)
        run = index // self.ncrop
        crop, *windows = self.windows(index, draw)
        sides = []
        for i, (fields, grid) in enumerate(
            ((self.runs.inputs, self.grid), (self.runs.targets, self.target_grid))
        ):
            shape = (fields.channels, *windows[i].shape)
            out = np.empty(shape, np.float32) if into is None else into[i].reshape(shape)
            self._read(run, fields, windows[i], grid, out)
            sides.append(out)
        return Sample(sides[0], sides[1], draw, run, crop)

    def _read(
        self, run: int, fields: FieldSet, window: Window, grid: Grid, out: NDArray[np.float32]
    ) -> None:
        for name, channels in fields.slices.items():
            source, variable = self.runs.source(name, run)
            source.read(variable, window, out[channels], grid)
        flat = out.reshape(-1)
        # a sum of squares is NaN or infinite if any value is, and costs a fifth of looking at each
        if not self.allow_nonfinite and not np.isfinite(np.vdot(flat, flat)):
            self._refuse_nonfinite(run, fields, window, grid, out)

    def _refuse_nonfinite(
        self, run: int, fields: FieldSet, window: Window, grid: Grid, out: NDArray[np.float32]
    ) -> None:
        for name, channels in fields.slices.items():
            bad = np.argwhere(~np.isfinite(out[channels]))
            if len(bad):
                channel, *cell = bad[0].tolist()
                where = [
                    (a + c) % n if beyond == "periodic" else a + c
                    for a, c, n, beyond in zip(
                        window.start, cell, grid.shape, grid.beyond, strict=True
                    )
                ]
                raise FieldError(
                    f"field {name!r} in {self.runs.runs[run].paths[name]} holds {len(bad)} NaN or "
                    f"infinite values in the window from {window.start} to {window.stop}, the "
                    f"first at channel {channel}, cell {where}; mend the data, or let such cells "
                    f"be masked (`data.reading.mask: true` in a recipe)"
                )
