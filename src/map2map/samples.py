"""Samples: input and target of one crop, in physical values.

What is random about a sample is drawn in one place (`SampleDataset.draw`), keyed by (seed, epoch,
index), and applied in two: the shift of the crop when it is read, symmetry and noise on the device,
on the batch.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from map2map.crops import Augment, Crops, Draw, Layout, Where
from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.fields import FieldSet
from map2map.grids import Domain, Grid
from map2map.kept import Kept, Views, read_fields, whole_bytes
from map2map.memory import bytes_of
from map2map.runs import Runs
from map2map.symmetry import Symmetries, Symmetry
from map2map.typing import Shape
from map2map.windows import Bounds, Halo, Window, anchors, bounds, crop_window, per_axis

__all__ = ["Sample", "SampleDataset"]


@dataclass(frozen=True)
class Sample:
    """Input and target of one crop, in physical values, before symmetry and noise.

    Args:
        input: Shape (channel, *space).
        target: Shape (channel, *space); of labels and parameters (channel,).
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
        in_memory: Fields that together take no more than this (bytes, or a text such as 256MiB)
            are read once and kept in memory.
        factors: What normalized inputs are multiplied by, by the class of their run.

    Samples count the crops of the first run, then those of the second, and so on; crops run through
    the axes, the last fastest.

    Attributes:
        layouts: Where the crops of each run are.
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
        in_memory: int | str = 0,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self.runs, self.seed, self.allow_nonfinite = runs, seed, allow_nonfinite
        shape, ndim, factor = runs.shape, runs.ndim, runs.scale_factor
        if crops.scale_factor not in ("auto", factor):
            raise GeometryError(
                f"crops have the scale factor {crops.scale_factor}, but the runs {factor}"
            )
        self.crops, self.domain, self.scale_factor = crops, domain or Domain(), factor
        self.size = per_axis(crops.size, shape, "crop")
        if crops.halo == "auto":
            raise GeometryError("the halo is still 'auto'; resolve it with the model's footprint")
        self.halo = Halo.parse(crops.halo, ndim)
        self.target_halo = Halo.parse(crops.target_halo, ndim)
        self._windows = lru_cache(1 << 12)(self._windows_from)
        self._augment(augment or Augment(), ndim)
        self.layouts = self._layouts()
        crop_window((0,) * ndim, self.size, self.halo)
        target = tuple(factor * n for n in self.size)
        self.target_size = crop_window((0,) * ndim, target, self.target_halo).shape
        if runs.numbers is not None:
            self.target_size = ()
        counts = [layout.count for layout in self.layouts]
        if not any(counts):
            where = crops.where
            assert where is not None
            raise FieldError(
                f"no crop of {self.size} cells has a middle where {where.field!r} is above "
                f"{where.above}, in any run; lower `crops.where.above`, or make crops smaller"
            )
        self._stops = list(accumulate(counts))
        small = bool(in_memory) and whole_bytes(runs) <= bytes_of(in_memory)
        self._kept = Kept(runs) if small else None
        self._views = Views(runs, self._kept)
        self._factors = None if not factors else self._group_factors(factors)
        first = self.layouts[0]
        self.grid, self.target_grid, self.anchors = first.grid, first.target_grid, first.anchors

    def _layouts(self) -> list[Layout]:
        if self.runs.domain.same_shape:
            one = self._layout(self.runs.shape)
            every = [one] * len(self.runs)
        else:
            shapes = [self.runs.shape_of(k) for k in range(len(self.runs))]
            made = {shape: self._layout(shape) for shape in dict.fromkeys(shapes)}
            every = [made[shape] for shape in shapes]
        if self.crops.where is None:
            return every
        return [
            replace(layout, choices=self._choices(k, layout, self.crops.where))
            for k, layout in enumerate(every)
        ]

    def _layout(self, shape: Shape) -> Layout:
        if any(n < 1 or n > m for n, m in zip(self.size, shape, strict=True)):
            raise GeometryError(
                f"the crop is {self.size}, but the fields are {shape}: a crop has at least one "
                f"cell, and is no larger than the field (its halo may be)"
            )
        crops, factor, grid = self.crops, self.scale_factor, self.domain.grid(shape)
        limits = bounds(
            grid,
            self.size,
            self.halo,
            flips=bool(self.symmetries.flips),
            permute=self.symmetries.permute,
        )
        return Layout(
            grid,
            self.domain.grid(tuple(factor * n for n in shape), factor),
            limits,
            anchors(
                per_axis(crops.start, (0,) * len(shape), "crop_start"),
                None if crops.stop is None else per_axis(crops.stop, shape, "crop_stop"),
                per_axis(crops.step, self.size, "crop_step"),
                shape,
                limits,
            ),
        )

    def _choices(self, run: int, layout: Layout, where: Where) -> NDArray[np.int64]:
        """The cells that a crop may start at, so that its middle is of interest."""
        targets = () if self.runs.targets.of_run else self.runs.targets.names
        names = (*self.runs.inputs.names, *targets)
        if where.field not in names or self.scale_factor > 1:
            raise FieldError(
                f"`crops.where` needs a field on the grid of the inputs, not {where.field!r}"
                f"{near_names(where.field, names)}"
            )
        source, variable = self.runs.source(where.field, run)
        shape = layout.grid.shape
        values = np.empty((source.stored(variable).channels, *shape), np.float32)
        source.read(variable, Window.whole(shape), values, layout.grid)
        with np.errstate(invalid="ignore"):
            wanted = (values > where.above).any(axis=0)
        # from middles to first cells
        wanted = np.roll(wanted, [-(n // 2) for n in self.size], tuple(range(len(shape))))
        for axis, bound in enumerate(layout.bounds):
            if bound is not None:
                first = np.arange(shape[axis])
                outside = (first < bound[0]) | (first > bound[1])
                wanted[(slice(None),) * axis + (outside,)] = False
        return np.flatnonzero(wanted)

    def _augment(self, augment: Augment, ndim: int) -> None:
        self.augment = augment
        self.symmetries = Symmetries.declared(augment.symmetries, ndim)
        self._still = Draw(Symmetry.identity(ndim), (0,) * ndim)
        self.shift = per_axis(augment.shift, (0,) * ndim, "shift")
        if min(self.shift) < 0:
            raise RecipeError(f"`shift` is {self.shift}; crops are moved by 0 or more cells")
        if augment.label_smoothing and not any(f.kind == "label" for f in self.runs.targets):
            raise RecipeError(
                f"`label_smoothing` is for labels, but the targets are "
                f"{', '.join(self.runs.targets.names)}"
            )
        if augment.add is not None or augment.mul is not None:
            targets = () if self.runs.targets.of_run else self.runs.targets
            each = {f.name: f.channels for f in (*self.runs.inputs, *targets)}
            first = next(iter(each.values()))
            if first != 1 and any(n != first for n in each.values()):
                raise FieldError(
                    f"`add` and `mul` draw a number per channel of the first input and apply it to "
                    f"all fields, so these must have equally many channels, not {each}"
                )

    def __len__(self) -> int:
        return self._stops[-1]

    @property
    def ncrop(self) -> int | None:
        """Crops of every run; None if their numbers differ."""
        counts = {layout.count for layout in self.layouts}
        return counts.pop() if len(counts) == 1 else None

    def locate(self, index: int) -> tuple[int, int]:
        """The run of a sample, and the number of its crop there."""
        run = bisect_right(self._stops, index)
        return run, index - self._stops[run] + self.layouts[run].count

    def anchor(self, index: int) -> Shape:
        """First cell of a sample's crop on the lattice."""
        run, number = self.locate(index)
        return self.layouts[run].anchor(number)

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
            self._drawn_anchor(index, rng),
            self._directions(index),
        )

    def _directions(self, index: int) -> Shape:
        """Of the axes of a sample's run, where it matters: if axes and components are exchanged."""
        vectors = self.runs.inputs.vectors or self.runs.targets.vectors
        if not (self.symmetries.permute and vectors):
            return ()
        return self.runs.directions(self.locate(index)[0])

    def _drawn_anchor(self, index: int, rng: np.random.Generator | None) -> Shape | None:
        run, number = self.locate(index)
        return self.layouts[run].choice(number, rng)

    def windows(self, index: int, draw: Draw) -> tuple[Window, Window, Window]:
        """The crop of a sample, and the windows to read of input and target."""
        run, number = self.locate(index)
        layout = self.layouts[run]
        start = draw.anchor or layout.anchor(number)
        return self._windows(start, draw.shift, layout.bounds, draw.symmetry)

    def _windows_from(
        self, start: Shape, shift: Shape, bounds: tuple[Bounds, ...], symmetry: Symmetry
    ) -> tuple[Window, Window, Window]:
        anchor = tuple(
            a + by if bound is None else min(a + by, bound[1])
            for a, by, bound in zip(start, shift, bounds, strict=True)
        )
        axes, flips, factor = symmetry.axes, symmetry.flips, self.scale_factor
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
            drawn = self._drawn_anchor(index, None)
            draw = replace(self._still, anchor=drawn) if drawn else self._still
        else:
            draw = self.draw(index, epoch)
        run, _ = self.locate(index)
        crop, *windows = self.windows(index, draw)
        layout, sides = self.layouts[run], []
        for i, (fields, grid) in enumerate(
            ((self.runs.inputs, layout.grid), (self.runs.targets, layout.target_grid))
        ):
            shape = (fields.channels, *(() if fields.of_run else windows[i].shape))
            out = np.empty(shape, np.float32) if into is None else into[i].reshape(shape)
            if fields.of_run:
                out[...] = self.numbers(run)
            else:
                self._read(run, i, windows[i], grid, out)
            sides.append(out)
        return Sample(sides[0], sides[1], draw, run, crop)

    @property
    def in_memory(self) -> bool:
        """Whether the fields are kept in memory."""
        return self._kept is not None

    def factor(self, index: int) -> float:
        """What the normalized inputs of a sample are multiplied by."""
        if self._factors is None:
            return 1.0
        run, _ = self.locate(index)
        return self._factors[self.runs.runs[run].group]

    def _group_factors(self, factors: Mapping[str, float]) -> list[float]:
        """For each group of runs, the factor of its class."""
        found = [1.0] * len(self.runs.groups)
        numbers, unused = self.runs.numbers, set(factors)
        for label in self.runs.targets:
            classes = label.classes or ()
            for name in set(classes) & set(factors):
                unused.discard(name)
                assert numbers is not None
                mine = numbers[:, self.runs.targets.slices[label.name]]
                k = classes.index(name)
                is_class = mine[:, 0] == k if len(classes) == 2 else mine[:, k] == 1
                found = [
                    f * factors[name] if its else f for f, its in zip(found, is_class, strict=True)
                ]
        if unused:
            known = [name for label in self.runs.targets for name in label.classes or ()]
            raise RecipeError(
                f"`class_factors` names {', '.join(sorted(unused))}, but the classes of the "
                f"targets are {', '.join(known) or 'none'}"
            )
        return found

    def numbers(self, run: int) -> NDArray[np.float32]:
        """Labels and parameters of a run, shape (channel,); see `Runs.numbers`."""
        assert self.runs.numbers is not None
        row: NDArray[np.float32] = self.runs.numbers[self.runs.runs[run].group].astype(np.float32)
        return row

    def styles(self, index: int) -> NDArray[np.float32]:
        """Styles of a sample, shape (style,); see `Runs.style_numbers`."""
        run, _ = self.locate(index)
        numbers = self.runs.style_numbers[self.runs.runs[run].group]
        row: NDArray[np.float32] = numbers.astype(np.float32)
        return row

    def _read(
        self, run: int, side: int, window: Window, grid: Grid, out: NDArray[np.float32]
    ) -> None:
        if self._views.copy(run, side, window, out):
            return
        fields = (self.runs.inputs, self.runs.targets)[side]
        if self._kept is None:
            read_fields(self.runs, run, fields, window, grid, out)
        else:
            self._kept.read(run, fields, window, grid, out)
        flat = out.reshape(-1)
        # a sum of squares is NaN or infinite if any value is, and costs a fifth of looking at each
        if not self.allow_nonfinite and not np.isfinite(np.vdot(flat, flat)):
            self._refuse_nonfinite(run, fields, window, grid, out)
        self._views.remember(run, side, window, grid)

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
                    f"field {name!r} in {self.runs.runs[run].place(name)} holds {len(bad)} NaN or "
                    f"infinite values in the window from {window.start} to {window.stop}, the "
                    f"first at channel {channel}, cell {where}; mend the data; in a recipe, "
                    f"data.reading.mask: true leaves such cells out"
                )
