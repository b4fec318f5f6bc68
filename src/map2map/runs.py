"""Runs: which files hold which field, paired across fields, and checked against one another."""

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from map2map.derived import Derived
from map2map.errors import FieldError, GeometryError, RecipeError, SourceError, near_names
from map2map.fields import Field, FieldSet
from map2map.frames import choose
from map2map.grids import Domain
from map2map.pairing import (
    Patterns,
    Run,
    check_kinds,
    check_names,
    check_styles,
    paired,
)
from map2map.patterns import Files, Found, distinct_names, split_channels
from map2map.physics.spacing import step_of
from map2map.readers import (
    ConstantReader,
    DerivedReader,
    FrameReader,
    PlaneReader,
    Reader,
    resolve,
)
from map2map.sources import Source, Stored, open_source
from map2map.splits import SIDES, Split, sides
from map2map.told import Known, numbers
from map2map.typing import Shape

__all__ = ["Files", "Patterns", "Run", "Runs", "distinct_names"]

FEW = 200
"""Files whose headers are all read at once; to open a thousand of HDF5 takes seconds."""


class Runs:
    """The runs of a split, with fields whose kind and channels are known.

    Args:
        inputs: Fields the network sees.
        targets: Fields it learns.
        patterns: Where the files of each field are, and of those that others are derived from.
        domain: What the grids have in common; default for its ``ndim``: the axes of the first input
            without its channels.
        scale_factor: Target cells per input cell and axis; None: what the first run's files have.
        derived: How fields without files are computed.
        styles: Parameters of the runs that the network sees beside its inputs.
        beyond: Whether fields of later and earlier frames may lie beyond the dates that `only`
            asks for, which are those of the runs then.

    Raises:
        SourceError: If no file matches, a file is unreadable, or counts differ between fields.
        FieldError: If a field is not declared, has no files or changes its channels.
        GeometryError: If shapes differ between fields or files.

    Attributes:
        reference: Name of the first field that has files.
        groups: A run for each simulation, or frame of it, that is not cut into planes.
        numbers: Labels and parameters of the runs, shape (group, channel); None if the targets are
            fields.
        styles: The styles, resolved.
        style_numbers: Their values, shape (group, style).
        chosen: Which of all groups there are these are; None: all.
    """

    chosen: Sequence[int] | None = None

    def __init__(
        self,
        inputs: Sequence[Field],
        targets: Sequence[Field],
        patterns: Patterns,
        domain: Domain | None = None,
        *,
        scale_factor: int | None = 1,
        derived: Mapping[str, Derived] | None = None,
        styles: Sequence[Field] = (),
        beyond: bool = False,
    ) -> None:
        self.domain, self._beyond = domain or Domain(), beyond
        names = list(dict.fromkeys(f.name for f in (*inputs, *targets) if not f.of_run))
        told = {f.name: patterns.get(f.name) for f in (*targets, *styles) if f.of_run}
        check_kinds(inputs, patterns, told)
        check_styles(styles, (*inputs, *targets))
        patterns = {name: entry for name, entry in patterns.items() if name not in told}
        # files win over what is computed
        computed, stored = resolve(names, derived or {}, patterns)
        self.derived: Mapping[str, Derived] = computed
        needs = [name for name in stored if name not in names]
        check_names([name for name in names if name not in computed], needs, patterns)
        self._values = {n: float(v) for n, v in patterns.items() if isinstance(v, int | float)}
        self._files = {
            name: entry if isinstance(entry, Files) else Files(entry)
            for name, entry in patterns.items()
            if isinstance(entry, str | list | Files)
        }
        if not self._files:
            raise FieldError(
                f"{', '.join(patterns)} have values, but no field has files; one at least says how "
                f"large the grid is"
            )
        self._sources: dict[Path, Source] = {}
        self._directions: dict[tuple[Path, int | None], Shape] = {}
        self._checked: dict[tuple[str, int, int], tuple[Reader, str]] = {}
        self.reference = next((n for n in names if n in self._files), next(iter(self._files)))
        self.ndim = self.domain.ndim or self._guess_ndim()
        found = {
            name: files.found(name, self._arrays, framed=self.domain.frames > 0)
            for name, files in self._files.items()
        }
        found = paired(found)
        count = len(found[self.reference])
        self.groups = self._frames(
            [self._run({n: found[n][k] for n in found}) for k in range(count)]
        )
        self.runs = self._planes()
        self.shape = self.shape_of(0)
        self._finer = {field.name for field in targets} - {field.name for field in inputs}
        self.scale_factor = self._found_factor() if scale_factor is None else scale_factor
        read = dict.fromkeys((*names, *needs))
        self._channels = {name: self._stored(name, self.runs[0]).channels for name in read}
        self._check_shapes()
        self.inputs, self.targets, self.styles = (
            FieldSet(tuple(self._resolved(f) for f in side)) for side in (inputs, targets, styles)
        )
        self.numbers = self._numbers(targets, told, found) if self.targets.of_run else None
        self.style_numbers = self._numbers(styles, told, found)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def shape_of(self, run: int | Run) -> Shape:
        """Cells per axis of a run's inputs."""
        run = self.runs[run] if isinstance(run, int) else run
        return tuple(self._stored(self.reference, run).shape)

    def some(self, groups: Sequence[int]) -> "Runs":
        """Only some simulations, or frames of them, with their planes."""
        part, number = copy(self), {old: new for new, old in enumerate(groups)}
        part.groups = [replace(self.groups[old], group=new) for old, new in number.items()]
        part.runs = part.groups
        if self.domain.planes is not None:
            part.runs = [
                replace(run, group=number[run.group]) for run in self.runs if run.group in number
            ]
        if self.numbers is not None:
            part.numbers = self.numbers[list(groups)]
        part.style_numbers = self.style_numbers[list(groups)]
        part.shape, part._checked, part.chosen = part.shape_of(0), {}, list(groups)
        return part

    def split(self, how: Split) -> dict[str, "Runs"]:
        """Training, validation and test, those that have a share.

        Raises:
            RecipeError: If runs cannot be told apart as is asked for, or there are too few.
        """
        of = sides(self._split_names(how), how)
        return {
            side: self.some([k for k, its in enumerate(of) if its == side])
            for side in SIDES
            if side in of
        }

    def _split_names(self, how: Split) -> list[str]:
        """What tells runs apart in a split, one text each."""
        if how.by == "time":
            known = [self._coordinate(run) for run in self.groups]
            numbers = [float(run.frame or 0) for run in self.groups]
            times = numbers if None in known else [float(time or 0) for time in known]
            order = {time: k for k, time in enumerate(sorted(set(times)))}
            return [f"{order[time]:012d}" for time in times]
        if how.together:
            told = {key for run in self.groups for key in run.told}
            for key in how.together:
                if not all(key in run.told for run in self.groups):
                    raise RecipeError(
                        f"data.split keeps runs of one {key!r} together, but not all patterns "
                        f"tell it{near_names(key, sorted(told))}"
                    )
            return ["/".join(run.told[key] for key in how.together) for run in self.groups]
        # wherever the folder is
        found = [run.found[self.reference] for run in self.groups]
        common = Path(os.path.commonpath([one.path.parent for one in found]))
        return [f"{one.path.relative_to(common)}:{one.variable or ''}" for one in found]

    def styles_of(self, run: int) -> dict[str, float]:
        """The styles of a run, by name."""
        row = self.style_numbers[self.runs[run].group]
        return dict(zip(self.styles.names, map(float, row), strict=True))

    def framed(self, name: str) -> bool:
        """Whether a field is read from frames of its files, and so is another one in each."""
        run = self.runs[0].whole
        there = run.frame is not None and name in self._files
        return there and self._stored(name, run).frames is not None

    def directions(self, run: int) -> Shape:
        """Whether the coordinates of a run's axes ascend (1) or descend (-1); 1 if not known."""
        one = self.runs[run]
        key = one.paths[self.reference], one.plane and one.plane[0]
        if key not in self._directions:
            axes = self._stored(self.reference, one).axes
            steps = [step_of(axis.values) or 1.0 for axis in axes] or [1.0] * self.ndim
            self._directions[key] = tuple(-1 if step < 0 else 1 for step in steps)
        return self._directions[key]

    def source(self, name: str, run: int | Run) -> tuple[Reader, str]:
        """What reads a field of a run, given by its number or itself, and the field's name there.

        Raises:
            GeometryError, FieldError: If the file differs from those of the first run.
        """
        run = self.runs[run] if isinstance(run, int) else run
        key = name, run.group, -1 if run.plane is None else run.plane[0]
        if key not in self._checked:
            if run.plane is not None or self.domain.planes is None:
                self._check_like_first(name, run)
            self._checked[key] = self._reader(name, run.whole)
        if run.plane is None:
            return self._checked[key]
        if name in self.derived:  # computed on the plane
            return self._reader(name, run)
        reader, variable = self._checked[key]
        return PlaneReader(reader, *run.plane), variable

    def _reader(self, name: str, run: Run) -> tuple[Reader, str]:
        if name in self.derived:
            how = self.derived[name]
            needs = {need: self._reader(need, run) for need in how.needs}
            spacing = self.domain.grid((1,) * self.ndim).spacing
            return DerivedReader(how, needs, spacing), name
        if name in self._values:
            like, variable = self._reader(self.reference, run)
            return ConstantReader(self._values[name], like.stored(variable), like.path), name
        found = run.found[name]
        source = self._open(found.path)
        variable = variable_of(name, source, found.variable)
        frame = run.later.get(name, run.frame)
        reader: Reader = source if frame is None else FrameReader(source, frame)
        return (reader if run.plane is None else PlaneReader(reader, *run.plane)), variable

    def _resolved(self, one: Field) -> Field:
        if one.of_run:
            return one.resolved(one.outputs, self.ndim)
        units = self._stored(one.name, self.runs[0]).units
        return one.resolved(self._channels[one.name], self.ndim, units)

    def _guess_ndim(self) -> int:
        files = self._files[self.reference]
        source = open_source(files.paths(self.reference)[0])
        found = files.found(self.reference, lambda _: source.fields)[0]
        return len(source.stored(variable_of(self.reference, source, found.variable)).shape)

    def _arrays(self, path: Path) -> Sequence[str]:
        return list(self._open(path).fields)

    def _run(self, found: Mapping[str, Found]) -> Run:
        """A run of the files of all fields."""
        told: dict[str, str] = {}
        for entry in found.values():
            told |= entry.told
        return Run(found, told)

    def _planes(self) -> list[Run]:
        """All runs, or their planes."""
        self.groups = [replace(run, group=k) for k, run in enumerate(self.groups)]
        if self.domain.planes is None:
            return self.groups
        cut = []
        for run in self.groups:
            shape = self._stored(self.reference, run).shape
            for axis in self.domain.planes:
                self._check_plane_step(run, axis, shape[axis])
                cut += [
                    replace(run, plane=(axis, i))
                    for i in range(0, shape[axis], self.domain.plane_step)
                ]
        return cut

    def _check_plane_step(self, run: Run, axis: int, planes: int) -> None:
        """Refuse a step beyond the last plane: it is likelier a slip than a wish for the first."""
        step = self.domain.plane_step
        # of one plane, every so many-th is that one
        if step > planes > 1:
            raise GeometryError(
                f"every {step}-th plane is asked for, but {run} has {planes} across axis {axis}; "
                f"data.domain.plane_step is at most {planes}, which takes the first plane only"
            )

    def _numbers(
        self,
        fields: Sequence[Field],
        told: Mapping[str, object],
        found: Mapping[str, list[Found]],
    ) -> NDArray[np.float64]:
        """Labels and parameters of all groups."""
        if not fields:
            return np.empty((len(self.groups), 0))
        files = self._files[self.reference]
        every = found[self.reference]
        if files.only:
            # rows of tables are those of all files
            framed = self.domain.frames > 0
            every = replace(files, only=None).found(self.reference, self._arrays, framed=framed)
        names = [str(entry) for entry in every]
        order = {name: k for k, name in enumerate(names)}
        known = [
            Known(
                str(run),
                order[str(run.found[self.reference])],
                names,
                run.told,
                lambda run=run: self._coordinate(run),  # type: ignore[misc]
                lambda run=run: self._stored(self.reference, run).said,  # type: ignore[misc]
            )
            for run in self.groups
        ]
        columns = [numbers(one, told[one.name], known) for one in fields]  # type: ignore[arg-type]
        return np.concatenate(columns, axis=1)

    def _coordinate(self, run: Run) -> float | None:
        """Of the frame of a run."""
        for name in dict.fromkeys((self.reference, *run.found)) if run.frame is not None else ():
            axis = self._stored(name, run).frame_axis
            if axis is not None and axis.values is not None:
                return float(axis.values[run.frame])
        return None

    def _frames(self, runs: list[Run]) -> list[Run]:
        """A run for every frame that is wanted."""
        asked = [name for name, files in self._files.items() if files.later is not None]
        if not self.domain.frames:
            if asked:
                raise FieldError(
                    f"{', '.join(asked)} are asked for later or earlier than the others, but "
                    f"files are not said to have frames; set data.domain.frames: 1"
                )
            return runs
        found = []
        for run in runs:
            counts = {name: self._stored(name, run).frames for name in run.found}
            several = {name: n for name, n in counts.items() if n is not None}
            alone = [name for name in asked if name not in several]
            if alone or (not several and any(files.dates for files in self._files.values())):
                raise FieldError(
                    f"times are asked for, but {', '.join(alone) or 'no field'} of {run} has "
                    f"{'no' if alone else 'an'} axis of frames"
                )
            if not several:  # one frame, without an axis that would say so
                found.append(run)
                continue
            if len(set(several.values())) > 1:
                raise GeometryError(f"fields of {run} have different numbers of frames: {several}")
            first, count = next(iter(several.items()))
            axis, every = self._stored(first, run).frame_axis, self.domain.frames
            frames, later = choose(
                count, axis, self._files, every, run, among=len(runs) > 1, beyond=self._beyond
            )
            found += [
                replace(run, frame=int(frame), later={name: int(n[k]) for name, n in later.items()})
                for k, frame in enumerate(frames)
            ]
        if not found:
            dates = next((files.dates for files in self._files.values() if files.dates), None)
            steps = ", ".join(f"{name} {self._files[name].later}" for name in asked)
            wanted = f"frames of {dates}, or has them" if dates else f"frames ({steps})"
            raise SourceError(
                f"none of {len(runs)} files, such as {runs[0]}, has {wanted} and their later and "
                f"earlier ones; `m2m inspect` tells their times"
            )
        return found

    def _open(self, path: Path) -> Source:
        if path not in self._sources:
            framed = self.domain.frames > 0
            ndim = self.ndim + (self.domain.planes is not None)
            self._sources[path] = open_source(
                path,
                ndim=ndim,
                framed=framed,
                channels_last=self.domain.channels_last,
                skip=self.domain.skip,
            )
        return self._sources[path]

    def _stored(self, name: str, run: Run) -> Stored:
        reader, variable = self._reader(name, run)
        return reader.stored(variable)

    def _found_factor(self) -> int:
        """Target cells per input cell and axis of the first run; 1 if that is no whole number."""
        for name in self._finer & set(self._files) - {self.reference}:
            cells = zip(self._stored(name, self.runs[0]).shape, self.shape, strict=False)
            factors = {divmod(n, m) for n, m in cells}
            if len(factors) == 1 and (found := factors.pop())[0] > 1 and found[1] == 0:
                return found[0]
        return 1

    def _check_shapes(self) -> None:
        """All files, if they are few or their headers cheap; else when they are first used."""
        few = len(self.groups) * len(self._files) <= FEW
        first = {(run.group, run.plane and run.plane[0]): run for run in reversed(self.runs)}
        for run in reversed(first.values()):
            for name in self._channels:
                found = run.found.get(name)
                # planes are counted from the headers, so that these are read already
                if (
                    few
                    or run is self.runs[0]
                    or self.domain.planes is not None
                    or (found is not None and self._open(found.path).cheap_header)
                ):
                    self._check_like_first(name, run)

    def _check_like_first(self, name: str, run: Run) -> None:
        stored = self._stored(name, run)
        like = self.runs[0] if self.domain.same_shape else run
        shape = self.shape if self.domain.same_shape else self._stored(self.reference, run).shape
        factor = self.scale_factor if name in self._finer else 1
        expected = tuple(factor * n for n in shape)
        if tuple(stored.shape) != expected:
            own = self._stored(self.reference, run).shape
            scaled = f" (scale factor {self.scale_factor})" if self.scale_factor > 1 else ""
            if tuple(factor * n for n in own) == tuple(stored.shape):
                remedy = (
                    "all fields of all runs must have the same grid: make those of other shapes "
                    "anew, or leave them out; in a recipe, data.domain.same_shape: false lets runs "
                    "differ"
                )
            elif name in self._finer:
                remedy = self._told_factor(own, stored.shape)
            else:
                remedy = "all fields of a run must have the same grid"
            raise GeometryError(
                f"field {name!r} in {run.place(name)} has shape "
                f"{tuple(stored.shape)}, but {expected} is expected from "
                f"{like.place(self.reference)}{scaled}; {remedy}"
            )
        if stored.channels != self._channels[name]:
            raise FieldError(
                f"field {name!r} in {run.place(name)} has {stored.channels} channels, but "
                f"{self._channels[name]} in {self.runs[0].place(name)}"
            )

    def _told_factor(self, coarse: Shape, fine: Shape) -> str:
        """What is wrong with the cells of a target, and the remedy."""
        ratios = [m / n for n, m in zip(coarse, fine, strict=True)]
        same = ratios[0] if len(set(ratios)) == 1 else 0.0
        times = f"{same:.3g}" if same else " x ".join(f"{each:.3g}" for each in ratios)
        if same >= 1 and same.is_integer():
            remedy = f"set data.crops.scale_factor: {same:g}, if all have it"
        else:
            factors = sorted({self.scale_factor, 2, 3})
            fitting = [" x ".join(str(factor * n) for n in coarse) for factor in factors]
            remedy = f"give targets of {' or '.join(fitting)} cells"
        return (
            f"targets have {times} times the cells of the inputs on each axis, but the scale "
            f"factor, one whole number for all axes and runs, is {self.scale_factor} (that of the "
            f"recipe, or else of the first files of the training); {remedy}"
        )


def variable_of(name: str, source: Source, asked: str | None) -> str:
    """Name of a field in a file: the one asked for, its own, or the only one there is."""
    if asked is None and name not in source.fields and len(source.fields) == 1:
        return next(iter(source.fields))
    whole = asked or name
    name, _ = split_channels(whole)
    return source.stored(name).name + whole[len(name) :]
