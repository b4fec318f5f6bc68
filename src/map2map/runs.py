"""Runs: which files hold which field, paired across fields, and checked against one another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from map2map.errors import FieldError, GeometryError, SourceError
from map2map.fields import Field, FieldSet
from map2map.sources import Source, Stored, open_source
from map2map.typing import Shape

__all__ = ["Files", "Patterns", "Run", "Runs"]


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


Patterns = Mapping[str, str | list[str] | Files]
"""For each field, where its files are."""


@dataclass(frozen=True)
class Run:
    """One simulation: a file for each field (often the same file)."""

    paths: Mapping[str, Path]

    def __str__(self) -> str:
        return ", ".join(sorted({str(path) for path in self.paths.values()}))


class Runs:
    """The runs of a split, with fields whose kind and channels are known.

    Args:
        inputs: Fields the network sees.
        targets: Fields it learns.
        patterns: Where the files of each field are.
        scale_factor: Target cells per input cell and axis.
        ndim: Number of axes of the grid; by default that of the first input without its channels.

    Raises:
        SourceError: If no file matches, a file is unreadable, or counts differ between fields.
        FieldError: If a field is not declared, has no files or changes its channels.
        GeometryError: If shapes differ between fields or files.
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        targets: Sequence[Field],
        patterns: Patterns,
        *,
        scale_factor: int = 1,
        ndim: int | None = None,
    ) -> None:
        fields = [*inputs, *targets]
        names = [field.name for field in fields]
        self._check_names(names, patterns)
        files = {
            name: entry if isinstance(entry, Files) else Files(entry)
            for name, entry in patterns.items()
        }
        self._files = files
        paths = {name: files[name].paths(name) for name in dict.fromkeys(names)}
        self._check_counts(paths)
        self._check_pairs(paths)
        self._sources: dict[Path, Source] = {}
        first = open_source(paths[names[0]][0], ndim=ndim)
        self.ndim: int = ndim or len(first.stored(self._variable(names[0], first)).shape)
        self.runs = [
            Run({name: paths[name][k] for name in paths}) for k in range(len(paths[names[0]]))
        ]
        self.shape = self._shape(names[0], self.runs[0])
        self.scale_factor = scale_factor
        self._expected = {
            field.name: tuple(n * (scale_factor if i >= len(inputs) else 1) for n in self.shape)
            for i, field in enumerate(fields)
        }
        self._channels = {name: self._stored(name, self.runs[0]).channels for name in paths}
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

    def source(self, name: str, run: int) -> tuple[Source, str]:
        """The source of a field in a run, and the field's name inside it.

        Raises:
            GeometryError, FieldError: If the file differs from those of the first run.
        """
        source = self._open(self.runs[run].paths[name])
        variable = self._variable(name, source)
        self._check_like_first(name, self.runs[run])
        return source, variable

    def _open(self, path: Path) -> Source:
        if path not in self._sources:
            self._sources[path] = open_source(path, ndim=self.ndim)
        return self._sources[path]

    def _variable(self, name: str, source: Source) -> str:
        asked = self._files[name].variable
        if asked is None and name not in source.fields and len(source.fields) == 1:
            return next(iter(source.fields))
        return source.stored(asked or name).name

    def _stored(self, name: str, run: Run) -> Stored:
        source = self._open(run.paths[name])
        return source.stored(self._variable(name, source))

    def _shape(self, name: str, run: Run) -> Shape:
        return tuple(self._stored(name, run).shape)

    @staticmethod
    def _check_names(names: list[str], patterns: Patterns) -> None:
        missing = [name for name in names if name not in patterns]
        unused = [name for name in patterns if name not in names]
        if missing or unused:
            raise FieldError(
                f"the fields are {', '.join(names)}, but files are given for "
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
            for name, path in run.paths.items():
                if run is self.runs[0] or self._open(path).cheap_header:
                    self._check_like_first(name, run)

    def _check_like_first(self, name: str, run: Run) -> None:
        stored = self._stored(name, run)
        if tuple(stored.shape) != self._expected[name]:
            scaled = f" (scale factor {self.scale_factor})" if self.scale_factor > 1 else ""
            raise GeometryError(
                f"field {name!r} in {run.paths[name]} has shape {tuple(stored.shape)}, but "
                f"{self._expected[name]} is expected from {next(iter(self.runs[0].paths.values()))}"
                f"{scaled}; all files of all fields must have the same grid"
            )
        if stored.channels != self._channels[name]:
            raise FieldError(
                f"field {name!r} in {run.paths[name]} has {stored.channels} channels, but "
                f"{self._channels[name]} in {self.runs[0].paths[name]}"
            )
