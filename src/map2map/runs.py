"""Runs: which files hold which field, paired across fields, and checked against one another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from map2map.derived import Derived
from map2map.errors import FieldError, GeometryError, SourceError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.physics.spacing import step_of
from map2map.readers import ConstantReader, DerivedReader, FrameReader, Reader, resolve
from map2map.sources import Source, Stored, open_source
from map2map.typing import Shape

__all__ = ["Files", "Patterns", "Run", "Runs", "distinct_names"]


@dataclass(frozen=True)
class Files:
    """Where the files of one field are.

    Args:
        pattern: A path with wildcards, or several; what they match is sorted as text.
        variable: Name of the field inside the files; by default the field's own name, or the
            only one there is.
    """

    pattern: str | list[str]
    variable: str | None = None

    def paths(self, field: str) -> list[Path]:
        """The files, sorted as text.

        Raises:
            SourceError: If there is none.
        """
        patterns = [self.pattern] if isinstance(self.pattern, str) else self.pattern
        paths = sorted({path for pattern in patterns for path in glob(pattern)})  # noqa: PTH207
        if not paths:
            folders = [Path(pattern).parent for pattern in patterns]
            missing = [str(folder) for folder in folders if "*" not in str(folder)]
            hint = ", ".join(
                f"{f} {'exists' if Path(f).is_dir() else 'is missing'}" for f in missing
            )
            raise SourceError(
                f"no file matches {self.pattern!r} for field {field!r}"
                f"{f' (folder {hint})' if hint else ''}; patterns are relative to {Path.cwd()}"
            )
        return [Path(path) for path in paths]

    def wild(self, path: Path) -> tuple[str, ...]:
        """What the wildcards stand for in ``path``."""
        for pattern in [self.pattern] if isinstance(self.pattern, str) else self.pattern:
            parts = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", pattern)
            regex = "".join(
                re.escape(part) if i % 2 == 0 else f"({'.' if part == '?' else '.*'})"
                for i, part in enumerate(parts)
            )
            match = re.fullmatch(regex, str(path))
            if match:
                return match.groups()
        return ()


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each of several files: its own, that of its folder, or its path.

    >>> distinct_names([Path("a/ex.nc"), Path("b/ex.nc")])
    ['a', 'b']
    """
    for names in ([path.stem for path in paths], [path.parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


Patterns = Mapping[str, str | list[str] | Files | float]
"""For each field, where its files are, or its value if it is the same everywhere."""


@dataclass(frozen=True)
class Run:
    """One simulation, or one frame of it: a file for each field (often the same file).

    Args:
        paths: The file of each field that has one.
        frame: Which frame of those files, if they have several.
    """

    paths: Mapping[str, Path]
    frame: int | None = None

    def __str__(self) -> str:
        files = ", ".join(sorted({str(path) for path in self.paths.values()}))
        return files if self.frame is None else f"{files}, frame {self.frame}"

    @property
    def path(self) -> Path:
        """The first of its files."""
        return next(iter(self.paths.values()))


class Runs:
    """The runs of a split, with fields whose kind and channels are known.

    Args:
        inputs: Fields the network sees.
        targets: Fields it learns.
        patterns: Where the files of each field are, and of those that others are derived from.
        domain: What the grids have in common; default for its ``ndim``: the axes of the first input
            without its channels.
        scale_factor: Target cells per input cell and axis.
        derived: How fields without files are computed.

    Raises:
        SourceError: If no file matches, a file is unreadable, or counts differ between fields.
        FieldError: If a field is not declared, has no files or changes its channels.
        GeometryError: If shapes differ between fields or files.

    Attributes:
        reference: Name of the first field that has files.
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        targets: Sequence[Field],
        patterns: Patterns,
        domain: Domain | None = None,
        *,
        scale_factor: int = 1,
        derived: Mapping[str, Derived] | None = None,
    ) -> None:
        self.domain = domain or Domain()
        names = list(dict.fromkeys(field.name for field in (*inputs, *targets)))
        # files win over what is computed
        computed, stored = resolve(names, derived or {}, patterns)
        self.derived: Mapping[str, Derived] = computed
        needs = [name for name in stored if name not in names]
        self._check_names([name for name in names if name not in computed], needs, patterns)
        self._values = {n: float(v) for n, v in patterns.items() if isinstance(v, int | float)}
        files = {
            name: entry if isinstance(entry, Files) else Files(entry)
            for name, entry in patterns.items()
            if not isinstance(entry, int | float)
        }
        if not files:
            raise FieldError(
                f"{', '.join(patterns)} have values, but no field has files; one at least says how "
                f"large the grid is"
            )
        self._files = files
        paths = {name: files[name].paths(name) for name in files}
        self._check_counts(paths)
        self._check_pairs(paths)
        self._sources: dict[Path, Source] = {}
        self._directions: dict[Path, Shape] = {}
        self.reference = next((name for name in names if name in files), next(iter(files)))
        self.ndim = self.domain.ndim or self._guess_ndim(paths[self.reference][0])
        count = len(paths[self.reference])
        self.runs = self._frames([Run({n: paths[n][k] for n in paths}) for k in range(count)])
        self.shape = self.shape_of(0)
        self.scale_factor = scale_factor
        self._finer = {field.name for field in targets} - {field.name for field in inputs}
        read = dict.fromkeys((*names, *needs))
        self._channels = {name: self._stored(name, self.runs[0]).channels for name in read}
        self._check_shapes()
        self.inputs, self.targets = (
            FieldSet(
                tuple(
                    f.resolved(
                        self._channels[f.name],
                        self.ndim,
                        self._stored(f.name, self.runs[0]).units,
                    )
                    for f in side
                )
            )
            for side in (inputs, targets)
        )

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def shape_of(self, run: int) -> Shape:
        """Cells per axis of a run's inputs."""
        return tuple(self._stored(self.reference, self.runs[run]).shape)

    def directions(self, run: int) -> Shape:
        """Whether the coordinates of a run's axes ascend (1) or descend (-1); 1 if not known."""
        path = self.runs[run].paths[self.reference]
        if path not in self._directions:
            axes = self._stored(self.reference, self.runs[run]).axes
            steps = [step_of(axis.values) or 1.0 for axis in axes] or [1.0] * self.ndim
            self._directions[path] = tuple(-1 if step < 0 else 1 for step in steps)
        return self._directions[path]

    def source(self, name: str, run: int) -> tuple[Reader, str]:
        """What reads a field of a run, and the field's name there.

        Raises:
            GeometryError, FieldError: If the file differs from those of the first run.
        """
        reader, variable = self._reader(name, self.runs[run])
        self._check_like_first(name, self.runs[run])
        return reader, variable

    def _reader(self, name: str, run: Run) -> tuple[Reader, str]:
        if name in self.derived:
            how = self.derived[name]
            needs = {need: self._reader(need, run) for need in how.needs}
            spacing = self.domain.grid((1,) * self.ndim).spacing
            return DerivedReader(how, needs, spacing), name
        if name in self._values:
            like, variable = self._reader(self.reference, run)
            return ConstantReader(self._values[name], like.stored(variable), like.path), name
        source = self._open(run.paths[name])
        variable = self._variable(name, source)
        return (source if run.frame is None else FrameReader(source, run.frame)), variable

    def _guess_ndim(self, path: Path) -> int:
        source = open_source(path)
        return len(source.stored(self._variable(self.reference, source)).shape)

    def _frames(self, runs: list[Run]) -> list[Run]:
        """A run for every frame that is wanted."""
        if not self.domain.frames:
            return runs
        found = []
        for run in runs:
            counts = {name: self._stored(name, run).frames for name in run.paths}
            several = {name: n for name, n in counts.items() if n is not None}
            if not several:  # one frame, without an axis that would say so
                found.append(run)
                continue
            if len(set(several.values())) > 1:
                raise GeometryError(f"fields of {run} have different numbers of frames: {several}")
            steps = range(0, next(iter(several.values())), self.domain.frames)
            found += [Run(run.paths, frame) for frame in steps]
        return found

    def _open(self, path: Path) -> Source:
        if path not in self._sources:
            framed = self.domain.frames > 0
            self._sources[path] = open_source(path, ndim=self.ndim, framed=framed)
        return self._sources[path]

    def _variable(self, name: str, source: Source) -> str:
        asked = self._files[name].variable
        if asked is None and name not in source.fields and len(source.fields) == 1:
            return next(iter(source.fields))
        return source.stored(asked or name).name

    def _stored(self, name: str, run: Run) -> Stored:
        reader, variable = self._reader(name, run)
        return reader.stored(variable)

    @staticmethod
    def _check_names(names: list[str], needs: list[str], patterns: Patterns) -> None:
        missing = [name for name in dict.fromkeys((*names, *needs)) if name not in patterns]
        unused = [name for name in patterns if name not in names and name not in needs]
        if missing or unused:
            computed = f" (and {', '.join(needs)}, to compute others)" if needs else ""
            raise FieldError(
                f"the fields are {', '.join(names)}{computed}, but files are given for "
                f"{', '.join(patterns) or 'none'}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; not a field: {', '.join(unused)}" if unused else "")
            )

    def _check_counts(self, paths: Mapping[str, list[Path]]) -> None:
        counts = {name: len(found) for name, found in paths.items()}
        if len(set(counts.values())) > 1:
            least = min(counts, key=counts.__getitem__)
            most = max(counts, key=counts.__getitem__)
            have = {self._files[least].wild(path) for path in paths[least]}
            wild = {path: self._files[most].wild(path) for path in paths[most]}
            # names tell of partners only where some of them agree
            agree = not have.isdisjoint(wild.values())
            alone = [path for path, key in wild.items() if agree and key not in have]
            raise SourceError(
                "unequal numbers of files: "
                + ", ".join(f"{n} for {name}" for name, n in counts.items())
                + (f"; without a partner in {least!r}: " if alone else "")
                + ", ".join(map(str, alone[:5]))
                + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
                + "; every field needs one file per run"
            )

    def _check_pairs(self, paths: Mapping[str, list[Path]]) -> None:
        """Refuse pairs that sorting has misaligned, where the names tell."""
        (first, reference), *others = paths.items()
        keys = [self._files[first].wild(path) for path in reference]
        for name, found in others:
            mine = [self._files[name].wild(path) for path in found]
            if mine != keys and set(mine) & set(keys):
                k = next(i for i, (a, b) in enumerate(zip(keys, mine, strict=True)) if a != b)
                raise SourceError(
                    f"files do not correspond: sorted, number {k} of {first!r} is {reference[k]}, "
                    f"but of {name!r} it is {found[k]}; name them alike, or list them in order"
                )

    def _check_shapes(self) -> None:
        """All files whose headers are cheap to read; the others when they are first used."""
        for run in self.runs:
            for name in self._channels:
                path = run.paths.get(name)
                if run is self.runs[0] or (path is not None and self._open(path).cheap_header):
                    self._check_like_first(name, run)

    def _check_like_first(self, name: str, run: Run) -> None:
        stored = self._stored(name, run)
        like = self.runs[0] if self.domain.same_shape else run
        shape = self.shape if self.domain.same_shape else self._stored(self.reference, run).shape
        factor = self.scale_factor if name in self._finer else 1
        expected = tuple(factor * n for n in shape)
        if tuple(stored.shape) != expected:
            scaled = f" (scale factor {self.scale_factor})" if self.scale_factor > 1 else ""
            raise GeometryError(
                f"field {name!r} in {run.paths.get(name, run.path)} has shape "
                f"{tuple(stored.shape)}, but {expected} is expected from "
                f"{like.paths[self.reference]}{scaled}; "
                + (
                    "all files of all fields must have the same grid (or set "
                    "data.domain.same_shape to false)"
                    if self.domain.same_shape
                    else "all fields of a run must have the same grid"
                )
            )
        if stored.channels != self._channels[name]:
            raise FieldError(
                f"field {name!r} in {run.paths.get(name, run.path)} has {stored.channels} "
                f"channels, but {self._channels[name]} in "
                f"{self.runs[0].paths.get(name, self.runs[0].path)}"
            )
