"""Patterns: where the files of a field are, which arrays of them, and what their names tell."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from glob import glob
from pathlib import Path
from typing import Any

from map2map.errors import RecipeError, SourceError

__all__ = [
    "Files",
    "Found",
    "distinct_names",
    "learnt_files",
    "plain",
    "some",
    "split_channels",
]

WILD = re.compile(r"(\*\*|\*|\?|\[[^\]]*\]|\{[a-zA-Z_]\w*\})")
"""Wildcards of paths, and placeholders, which are wildcards with a name."""

PART = r"(?:\d*:\d*|\d+)"
CHANNELS = re.compile(rf"(.*[^/])\[(?=[^\]]*:)({PART}(?:, ?{PART})*)\]")
"""A name, and some of its channels; a range at least, since ``[12]`` is a wildcard."""

Pick = tuple[int, int | None]
"""First and one behind the last index on an axis of channels; None: to the end."""


@dataclass(frozen=True)
class Found:
    """A file that a pattern stands for, or an array of it.

    Args:
        path: The file.
        variable: Name of the array; None: the field's own, or the only one there is.
        told: What the placeholders stand for.
        wild: What all wildcards stand for, in the order of the pattern.
    """

    path: Path
    variable: str | None = None
    told: Mapping[str, str] = field(default_factory=dict)
    wild: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.path) if self.variable is None else f"{self.path}:{self.variable}"


@dataclass(frozen=True)
class Files:
    """Where the files of one field are.

    A placeholder, ``{seed}``, is a wildcard with a name: it stands for the same text wherever it
    occurs, and what it stands for tells runs apart, and may tell their labels and parameters.

    Args:
        pattern: A path with wildcards or placeholders, or several; what they match is sorted as
            text.
        variable: Name of the field inside the files, which may have wildcards and placeholders as
            well, each match a run of its own; by default the field's own name, or the only one
            there is. ``x[63:126]`` are some of its channels; of an array with two axes of channels,
            such as level and feature, ``x[:, 2]`` or ``x[1:, 3:30]``.
        only: Take only some values of placeholders: whole numbers from a first to before a last,
            "0:100", all of which must be there; or a list of texts, where 7 also stands for 0007. A
            number alone is refused: it is what YAML makes of a range without quotation marks.
            By the name of the axis of frames, such as ``time``, only some dates (`times.select`):
            "2019-01-01:2020-03-25", or years, 2019 or [2018, 2020]. It is enough that one field
            says so; all frames that a run reads are among them.
        later: Read a frame that much later than the run's: "6h", by the times of the axis of
            frames; or so many frames. With a minus sign it is earlier: "-6h". Runs that have none
            are left out.

    >>> Files("sims/seed{seed}/{gravity}_phi.h5").match(Path("sims/seed0007/gr_phi.h5"))
    {'seed': '0007', 'gravity': 'gr'}
    """

    pattern: str | list[str]
    variable: str | None = None
    only: dict[str, str | list[str | int] | int] | None = None
    later: str | int | None = None

    @property
    def _patterns(self) -> list[str]:
        return [self.pattern] if isinstance(self.pattern, str) else self.pattern

    @property
    def placeholders(self) -> set[str]:
        """Names of the placeholders."""
        texts = (*self._patterns, self.variable or "")
        return {part[1:-1] for text in texts for part in WILD.findall(text) if part[0] == "{"}

    @property
    def dates(self) -> dict[str, list[str | int]]:
        """What `only` says of others than placeholders: of the axis of frames."""
        return {
            key: wanted if isinstance(wanted, list) else [wanted]
            for key, wanted in (self.only or {}).items()
            if key not in self.placeholders
        }

    def paths(self, name: str) -> list[Path]:
        """The files of a field, sorted as text.

        Raises:
            SourceError: If there is none.
        """
        wildcards = [re.sub(r"\{[a-zA-Z_]\w*\}", "*", pattern) for pattern in self._patterns]
        paths = sorted({path for pattern in wildcards for path in glob(pattern)})  # noqa: PTH207
        if not paths:
            folders = [Path(pattern).parent for pattern in wildcards]
            missing = [str(folder) for folder in folders if "*" not in str(folder)]
            hint = ", ".join(
                f"{f} {'exists' if Path(f).is_dir() else 'is missing'}" for f in missing
            )
            raise SourceError(
                f"no file matches {self.pattern!r} for field {name!r}"
                f"{f' (folder {hint})' if hint else ''}; patterns are relative to {Path.cwd()}"
            )
        return [Path(path) for path in paths]

    def found(
        self, name: str, arrays: Callable[[Path], Iterable[str]], *, framed: bool = False
    ) -> list[Found]:
        """The files of a field, or their arrays that ``variable`` stands for.

        Args:
            name: Of the field, for messages.
            arrays: Gives the names of the arrays in a file.
            framed: Whether files may have an axis of frames, which `only` may name.

        Raises:
            SourceError: If there is none, or not all that `only` asks for.
        """
        variable = split_channels(self.variable or "")[0]
        several, picked = WILD.search(variable) is not None, (self.variable or "")[len(variable) :]
        found, seen = [], 0
        paths = self.paths(name)
        for path in paths:
            groups = self._groups(path)
            if groups is None:  # one placeholder would stand for different texts, or for none
                continue
            told = {key: text for key, text in groups.items() if not key.startswith("_")}
            if not several:
                found.append(Found(path, self.variable, told, tuple(groups.values())))
                continue
            expression = regex(variable, told)
            for array in sorted(arrays(path)):
                seen += 1
                match = expression.fullmatch(array)
                if match:
                    inside = match.groupdict()
                    also = {k: text for k, text in inside.items() if not k.startswith("_")}
                    wild = (*groups.values(), *inside.values())
                    found.append(Found(path, array + picked, told | also, wild))
        if not found and not several:
            raise SourceError(
                f"none of {len(paths)} files, such as {paths[0]}, matches {self.pattern!r} for "
                f"field {name!r}: a placeholder stands for one text, wherever it occurs"
            )
        if not found:
            raise SourceError(
                f"none of {seen} arrays in the files of {self.pattern!r} matches the variable "
                f"{self.variable!r} of field {name!r}; `m2m inspect` lists them"
            )
        only = self.only or {}
        return take_only(
            found, {k: only[k] for k in only if not framed or k not in self.dates}, name
        )

    def match(self, path: Path) -> dict[str, str]:
        """What the placeholders stand for in ``path``."""
        groups = self._groups(path) or {}
        return {k: text for k, text in groups.items() if not k.startswith("_")}

    def wild(self, path: Path) -> tuple[str, ...]:
        """What wildcards and placeholders stand for in ``path``."""
        return tuple((self._groups(path) or {}).values())

    def _groups(self, path: Path) -> dict[str, str] | None:
        for pattern in self._patterns:
            # written as paths are: without ./ in front, and one slash between folders
            match = regex(str(Path(pattern))).fullmatch(str(path))
            if match:
                return match.groupdict()
        return None


def learnt_files(record: Mapping[str, Any]) -> dict[str, Files]:
    """Where the files of all fields were in training, as an emulator's card has the recipe."""
    try:
        train = dict(record["recipe"]["data"]["train"])
    except (KeyError, TypeError, ValueError):
        return {}
    known = {entry.name for entry in fields(Files)}
    found = {}
    for name, entry in train.items():
        if isinstance(entry, str | list):
            found[name] = Files(entry)
        elif isinstance(entry, Mapping) and "pattern" in entry and set(entry) <= known:
            found[name] = Files(**entry)
    return found


def split_channels(variable: str) -> tuple[str, tuple[Pick, ...]]:
    """A field's name in a file, and which of its channels are meant, on every axis of channels.

    >>> split_channels("x[63:126]"), split_channels("y[1:, 4]"), split_channels("x")
    (('x', ((63, 126),)), ('y', ((1, None), (4, 5))), ('x', ()))
    """
    match = CHANNELS.fullmatch(variable)
    if match is None:
        return variable, ()
    picks: list[Pick] = []
    for part in match[2].split(","):
        first, colon, stop = part.strip().partition(":")
        one = int(first or 0)
        picks.append((one, (int(stop) if stop else None) if colon else one + 1))
    return match[1], tuple(picks)


def regex(pattern: str, told: Mapping[str, str] | None = None) -> re.Pattern[str]:
    """A pattern as a regular expression, with a group for every wildcard.

    Args:
        pattern: With wildcards, in groups _0, _1, …, and placeholders, in groups of their names.
        told: What some placeholders stand for already.
    """
    text, names = "", set[str]()
    for i, part in enumerate(WILD.split(pattern)):
        name = part[1:-1]
        if i % 2 == 0:
            text += re.escape(part)
        elif not part.startswith("{"):
            text += f"(?P<_{i}>{one_wild(part)})"
        elif told is not None and name in told:
            text += re.escape(told[name])
        elif name in names:
            text += f"(?P={name})"
        else:
            names.add(name)
            text += f"(?P<{name}>[^/]+?)"
    return re.compile(text)


def one_wild(part: str) -> str:
    """A wildcard as a regular expression.

    >>> one_wild("*"), one_wild("[!0-3]")
    ('[^/]*', '[^0-3]')
    """
    if part.startswith("["):
        inside = part[1:-1].replace("\\", r"\\")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return {"**": ".*", "*": "[^/]*", "?": "[^/]"}[part]


def take_only(
    found: Sequence[Found], only: Mapping[str, str | list[str | int] | int], name: str
) -> list[Found]:
    """Those whose placeholders have the values that are wanted.

    Raises:
        RecipeError: If there is no such placeholder, or a range cannot be read, or is a number.
        SourceError: If values of a range are missing, for any values of the other placeholders.
    """
    kept = list(found)
    for key, wanted in only.items():
        known = {k for entry in found for k in entry.told}
        if key not in known:
            raise RecipeError(
                f"`only` of field {name!r} names {key!r}, but its placeholders are "
                f"{', '.join(sorted(known)) or 'none'}; write {{{key}}} into the pattern, or set "
                f"data.domain.frames if it is the axis of frames"
            )
        lacking = next((str(entry) for entry in found if key not in entry.told), None)
        if lacking is not None:
            raise RecipeError(
                f"`only` of field {name!r} names {key!r}, which no placeholder tells of {lacking}"
            )
        if isinstance(wanted, int):
            # YAML 1.1 reads 4:6 as 4 x 60 + 6
            first, last = divmod(wanted, 60)
            raise RecipeError(
                f"`only` of field {name!r} takes {key} {wanted}, which is no range; if {first}:"
                f"{last} was meant, which YAML takes for minutes and seconds, quote it: "
                f'{key}: "{first}:{last}"; of one value write a list: {key}: [{wanted}]'
            )
        if isinstance(wanted, list):
            texts = [plain(str(text)) for text in wanted]
            absent = sorted(set(texts) - {plain(entry.told[key]) for entry in kept})
            if absent:
                raise SourceError(
                    f"field {name!r} has no files with {key} {', '.join(absent)}; there are "
                    f"{some(sorted({entry.told[key] for entry in found}))}"
                )
            kept = [entry for entry in kept if plain(entry.told[key]) in texts]
        else:
            kept = in_range(kept, key, wanted, name)
    return kept


def in_range(found: Sequence[Found], key: str, wanted: str, name: str) -> list[Found]:
    """Those whose placeholder is a whole number in a range, all of which must be there."""
    match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", wanted)
    if match is None or int(match[1]) >= int(match[2]):
        raise RecipeError(
            f"`only` of field {name!r} takes {key} {wanted!r}; write first and one after the last, "
            f"as in '0:100', or a list of texts"
        )
    numbers = range(int(match[1]), int(match[2]))
    rest: dict[tuple[str, ...], dict[int, list[Found]]] = {}
    for entry in found:
        if not entry.told[key].isdecimal():
            raise SourceError(
                f"{key} is {entry.told[key]!r} in {entry}, no whole number; give `only` a list of "
                f"texts, or a pattern that leaves such files out"
            )
        others = tuple(text for k, text in sorted(entry.told.items()) if k != key)
        # several of one number, where other wildcards tell them apart
        rest.setdefault(others, {}).setdefault(int(entry.told[key]), []).append(entry)
    for others, entries in rest.items():
        missing = [str(number) for number in numbers if number not in entries]
        if missing:
            there = len(numbers) - len(missing)
            of = f" with {', '.join(others)}" if others else ""
            raise SourceError(
                f"{len(numbers)} values of {key} are asked for, {numbers[0]} to {numbers[-1]}, but "
                f"field {name!r}{of} has {there} of them; missing: {some(missing)}"
            )
    # in the order of the numbers, those of one number side by side
    return [entry for number in numbers for entries in rest.values() for entry in entries[number]]


@cache
def plain(text: str) -> str:
    """What a placeholder stands for, or a table's key: 0007 and 7 are the same.

    >>> plain("0007"), plain("gr")
    ('7', 'gr')
    """
    text = text.strip()
    return str(int(text)) if text.isdecimal() else text


def some(texts: Sequence[str], most: int = 5) -> str:
    """The first few of several texts.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each of several files: its own, that of its folder, or its path.

    >>> distinct_names([Path("a/ex.nc"), Path("b/ex.nc")])
    ['a', 'b']
    """
    for names in ([path.stem for path in paths], [path.parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
