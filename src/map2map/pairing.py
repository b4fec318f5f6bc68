"""Pairing: which files of different fields make one run, and what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from map2map.errors import FieldError, SourceError
from map2map.fields import Field
from map2map.patterns import Files, Found
from map2map.told import Told

__all__ = ["Patterns", "Run", "check_kinds", "check_names", "check_styles", "paired"]

Patterns = Mapping[str, str | list[str] | Files | Told | float]
"""For each field, where its files are, or its value if it is the same everywhere; for a label or
parameter, where it is told."""


@dataclass(frozen=True)
class Run:
    """One simulation, or a frame or plane of it: a file for each field (often the same file).

    Args:
        found: The file of each field that has one, and which array of it.
        told: What the placeholders of their patterns stand for.
        frame: Which frame of those files, if they have several.
        later: The frame of each field that is read from a later or earlier one.
        plane: Across which axis a plane is taken, and which one, if it is a plane.
        group: Number of the simulation, or frame of it, that it is or is a plane of.
    """

    found: Mapping[str, Found]
    told: Mapping[str, str] = field(default_factory=dict)
    frame: int | None = None
    plane: tuple[int, int] | None = None
    group: int = 0
    later: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        text = ", ".join(sorted({str(found) for found in self.found.values()}))
        if self.frame is not None:
            text += f", frame {self.frame}"
        return (
            text if self.plane is None else f"{text}, plane {self.plane[1]} of axis {self.plane[0]}"
        )

    def place(self, name: str) -> str:
        """Where a field is, as file::array with frame and plane; of one without files, another."""
        found = self.found.get(name) or next(iter(self.found.values()))
        text = str(found.path) if found.variable is None else f"{found.path}::{found.variable}"
        text += "" if self.frame is None else f", frame {self.frame}"
        return text + (
            "" if self.plane is None else f", plane {self.plane[1]} of axis {self.plane[0]}"
        )

    @property
    def paths(self) -> Mapping[str, Path]:
        """The file of each field that has one."""
        return {name: found.path for name, found in self.found.items()}

    def array(self, name: str) -> dict[str, str]:
        """Which array of a field's file it has; empty if that is not told."""
        variable = self.found[name].variable
        return {} if variable is None else {"array": variable}

    def part(self, name: str) -> dict[str, str | int]:
        """Which array of a field's file it has, and which frame of that; empty if it is all."""
        return self.array(name) | ({} if self.frame is None else {"frame": self.frame})

    @property
    def path(self) -> Path:
        """The first of its files."""
        return next(iter(self.found.values())).path

    @property
    def whole(self) -> "Run":
        """The run that it is a plane of; itself if it is none."""
        return self if self.plane is None else replace(self, plane=None)


def check_kinds(inputs: Sequence[Field], patterns: Patterns, told: Mapping[str, object]) -> None:
    """Refuse labels that are inputs, and files and places that are mistaken for each other."""
    for one in inputs:
        if one.of_run:
            raise FieldError(
                f"the {one.kind} {one.name!r} can be learnt, but is no input"
                + ("; declare it among the `styles`" if one.kind == "parameter" else "")
            )
    for name, entry in patterns.items():
        if isinstance(entry, Told) and name not in told:
            raise FieldError(
                f"field {name!r} has values in cells, which are in files; labels and "
                f"parameters of whole runs are declared by their kind"
            )
        if name in told and isinstance(entry, list | Files):
            raise FieldError(
                f"{name!r} is told of whole runs, so it has no files of its own: give a value, "
                f"or placeholder, attribute, coordinate or table"
            )


def check_styles(styles: Sequence[Field], others: Sequence[Field]) -> None:
    """Refuse styles that are no parameters, or inputs or targets as well.

    Raises:
        FieldError: If there are such.
    """
    for one in styles:
        if one.kind != "parameter":
            raise FieldError(
                f"the style {one.name!r} is of kind {one.kind}; a style is a number of each run, "
                f"so declare it with `kind: parameter`"
            )
        if any(one.name == other.name for other in others):
            raise FieldError(f"{one.name!r} is a style, and an input or target, too; name it once")


def check_names(names: list[str], needs: list[str], patterns: Patterns) -> None:
    """Refuse fields without files, and files that belong to no field."""
    missing = [name for name in dict.fromkeys((*names, *needs)) if name not in patterns]
    unused = [name for name in patterns if name not in names and name not in needs]
    if missing or unused:
        computed = f"{', '.join(needs)}, to compute others" if needs else ""
        fields = f"{', '.join(names)} (and {computed})" if names and needs else computed
        raise FieldError(
            f"the fields are {fields or ', '.join(names)}, but files are given for "
            f"{', '.join(patterns) or 'none'}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not a field: {', '.join(unused)}" if unused else "")
        )


def paired(found: Mapping[str, list[Found]]) -> dict[str, list[Found]]:
    """The files of all fields in the order of the first field's, by the placeholders they share.

    Raises:
        SourceError: If one has no partner, or names tell that partners do not belong together.
    """
    _check_counts(found)
    (first, reference), *others = found.items()
    ordered = {first: reference}
    for name, entries in others:
        shared = set.intersection(*(set(entry.told) for entry in (*reference, *entries)))
        partners: dict[tuple[str, ...], list[Found]] = {}
        for entry in entries:
            partners.setdefault(tuple(entry.told[key] for key in sorted(shared)), []).append(entry)
        ordered[name] = []
        for entry in reference:
            same = partners.get(tuple(entry.told[key] for key in sorted(shared)))
            if not same:
                what = ", ".join(f"{key} {entry.told[key]}" for key in sorted(shared))
                raise SourceError(
                    f"files do not correspond: {entry} of field {first!r} has {what}, but "
                    f"{name!r} has no such file, or not as many"
                )
            ordered[name].append(same.pop(0))
    _check_pairs(ordered)
    return ordered


def _check_counts(found: Mapping[str, list[Found]]) -> None:
    """Refuse fields with unequal numbers of files, and name those without a partner."""
    counts = {name: len(entries) for name, entries in found.items()}
    if len(set(counts.values())) > 1:
        least = min(counts, key=counts.__getitem__)
        most = max(counts, key=counts.__getitem__)
        have = {entry.wild for entry in found[least]}
        wild = {str(entry): entry.wild for entry in found[most]}
        # names tell of partners only where some of them agree
        agree = not have.isdisjoint(wild.values())
        alone = [name for name, key in wild.items() if agree and key not in have]
        raise SourceError(
            "unequal numbers of files: "
            + ", ".join(f"{n} for {name}" for name, n in counts.items())
            + (f"; without a partner in {least!r}: " if alone else "")
            + ", ".join(alone[:5])
            + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
            + "; every field needs one file per run"
        )


def _check_pairs(found: Mapping[str, list[Found]]) -> None:
    """Refuse pairs that sorting has misaligned, where the names tell."""
    (first, reference), *others = found.items()
    keys = [entry.wild for entry in reference]
    for name, entries in others:
        mine = [entry.wild for entry in entries]
        if mine != keys and set(mine) & set(keys):
            k = next(i for i, (a, b) in enumerate(zip(keys, mine, strict=True)) if a != b)
            raise SourceError(
                f"files do not correspond: sorted, number {k} of {first!r} is {reference[k]}, "
                f"but of {name!r} it is {entries[k]}; name them alike, or list them in order"
            )
