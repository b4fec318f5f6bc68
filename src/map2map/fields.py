"""Named quantities with units, and where their channels lie in a tensor."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from map2map.errors import FieldError, near_names

__all__ = ["Component", "Field", "FieldSet", "Kind", "field_channels", "same_units"]

log = logging.getLogger(__name__)

YEARS = {"a", "y", "yr", "year", "years"}
"""Names of one unit, which ice flow and climate data use side by side."""

Kind = Literal["scalar", "vector", "label", "parameter"]

OF_RUN = ("label", "parameter")
"""Kinds of what is told of a whole run, not of its cells."""


@dataclass(frozen=True)
class Component:
    """That a field is one component of a vector whose components have names of their own.

    Args:
        vector: A name for the vector, which its components share.
        axis: The axis of the grid that it points along; 0 is the first axis of the arrays.
    """

    vector: str
    axis: int


@dataclass(frozen=True)
class Field:
    """A named quantity with units.

    Args:
        name: What it is called, in files, messages and cards.
        units: Its units, as in the files; "1" if it has none. If not given: what the files say.
        kind: "vector" has one component per axis, and a symmetry of the grid turns the components
            along; "scalar" is one or several independent numbers per cell. If not given: a vector
            if there are as many channels as axes (and more than one), which is map2map's guess.
            "label" is one of several classes that a whole run belongs to, "parameter" a number that
            it has.
        channels: Numbers per cell; if not given, read from the files.
        component: Of which vector it is one component, where each has a field of its own; a
            symmetry of the grid exchanges them.
        classes: Names of the classes of a label, the positive one of two last. A network has one
            output for two classes, the logit of the second, and one for each of more.
    """

    name: str
    units: str | None = None
    kind: Kind | None = None
    channels: int | None = None
    component: Component | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
        classes = self.classes or ()
        if (self.kind == "label") != (len(classes) > 1) or len(set(classes)) < len(classes):
            raise FieldError(
                f"field {self.name!r} is of kind {self.kind} with the classes {list(classes)}; a "
                f"label has two or more classes, all different, and no other field has any"
            )

    @property
    def of_run(self) -> bool:
        """Whether it is told of a whole run, not of its cells."""
        return self.kind in OF_RUN

    @property
    def outputs(self) -> int:
        """How many numbers a label or a parameter is for a network."""
        classes = len(self.classes or ())
        return classes if classes > 2 else 1

    def resolved(self, channels: int, ndim: int, units: str | None = None) -> "Field":
        """The same with nothing left open, for files with ``channels`` on ``ndim`` axes.

        Units of the files that differ from those declared are told, not refused, because the
        same units can be spelt in many ways.

        Raises:
            FieldError: If the files contradict what was declared.
        """
        if self.of_run:
            return replace(self, channels=self.outputs, units=self.units or "1")
        if self.channels not in (None, channels):
            raise FieldError(
                f"field {self.name!r} is declared with {self.channels} channels, but its files "
                f"have {channels}; correct `channels` or leave it out"
            )
        if self.component is not None and (channels, self.kind) not in ((1, None), (1, "scalar")):
            raise FieldError(
                f"field {self.name!r} is one component of {self.component.vector!r}, so it has one "
                f"channel and is no vector itself, but it has {channels}"
            )
        kind = self.kind or ("vector" if channels == ndim > 1 else "scalar")
        if kind == "vector" and channels != ndim:
            raise FieldError(
                f"field {self.name!r} is declared a vector, but has {channels} channels on a "
                f"{ndim}-D grid; a vector has one component per axis; declare `kind: scalar` if "
                f"its channels are independent"
            )
        if units and self.units and not same_units(units, self.units):
            log.warning(
                "field %r is declared in units of %r, but its files say %r",
                self.name,
                self.units,
                units,
            )
        return replace(self, channels=channels, kind=kind, units=self.units or units or "1")


@dataclass(frozen=True)
class FieldSet:
    """Several fields whose channels lie one after another in a tensor: names ↔ channels.

    >>> fields = FieldSet((Field("v", channels=3), Field("rho", channels=1)))
    >>> fields.channels, fields.slices["rho"]
    (4, slice(3, 4, None))
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FieldError(f"fields need different names, but {twice} occur more than once")
        if len({field.of_run for field in self.fields}) > 1:
            told = [field.name for field in self.fields if field.of_run]
            raise FieldError(
                f"{', '.join(told)} are told of whole runs, the others of {', '.join(names)} of "
                f"cells; a network gives the one or the other"
            )
        for vector, parts in self._components().items():
            if sorted(parts) != list(range(len(parts))) or len(parts) < 2:
                raise FieldError(
                    f"vector {vector!r} has components on the axes {sorted(parts)}; there must be "
                    f"one field for each axis, from 0 on"
                )

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise FieldError(f"no field {name!r}{near_names(name, self.names)}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the channels."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def of_run(self) -> bool:
        """Whether they are labels and parameters of whole runs."""
        return any(field.of_run for field in self.fields)

    @cached_property
    def channels(self) -> int:
        """Channels of all fields together."""
        return sum(field_channels(field) for field in self.fields)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """The channels of each field."""
        stop, slices = 0, {}
        for field in self.fields:
            start, stop = stop, stop + field_channels(field)
            slices[field.name] = slice(start, stop)
        return slices

    def _components(self) -> dict[str, dict[int, str]]:
        """For each vector of several fields, its field on each axis."""
        found: dict[str, dict[int, str]] = {}
        for field in self.fields:
            if field.component is not None:
                parts = found.setdefault(field.component.vector, {})
                # of two on one axis, the second has no axis
                axis = field.component.axis
                parts[-1 if axis in parts else axis] = field.name
        return found

    @cached_property
    def vectors(self) -> tuple[tuple[int, ...], ...]:
        """Of every vector, the channel of its component along each axis."""
        slices = self.slices
        whole = [field.name for field in self.fields if field.kind == "vector"]
        channels = [tuple(range(slices[name].start, slices[name].stop)) for name in whole]
        for parts in self._components().values():
            channels.append(tuple(slices[parts[axis]].start for axis in sorted(parts)))
        return tuple(channels)

    def subset(self, names: Sequence[str]) -> "FieldSet":
        """Some of the fields; a component whose vector is not complete any more is a scalar.

        Raises:
            FieldError: If there is no such field.
        """
        chosen = [self[name] for name in names]
        whole = {
            vector
            for vector, parts in self._components().items()
            if set(parts.values()) <= set(names)
        }
        return FieldSet(
            tuple(
                replace(f, component=None) if f.component and f.component.vector not in whole else f
                for f in chosen
            )
        )

    def with_vectors(self) -> dict[Field, tuple[str, ...]]:
        """All fields, and after them the vectors that several of them make up.

        Returns:
            For each the names of the fields that it consists of, in the order of the axes.
        """
        found: dict[Field, tuple[str, ...]] = {field: (field.name,) for field in self.fields}
        for vector, parts in self._components().items():
            names = tuple(parts[axis] for axis in sorted(parts))
            found[Field(vector, self[names[0]].units, "vector", len(names))] = names
        return found

    def as_dicts(self) -> list[dict[str, Any]]:
        """For a card."""
        return [asdict(field) for field in self.fields]

    @staticmethod
    def from_dicts(dicts: Sequence[dict[str, Any]]) -> "FieldSet":
        """From a card."""
        fields = []
        for entry in dicts:
            part = entry.get("component")
            fields.append(Field(**entry | {"component": part and Component(**part)}))
        return FieldSet(tuple(fields))


def field_channels(field: Field) -> int:
    """The number of channels of a field of which it is known."""
    if field.channels is None:
        raise FieldError(f"the number of channels of field {field.name!r} is not known yet")
    return field.channels


def same_units(first: str, second: str) -> bool:
    """Whether two texts are the same units, spelt differently or not; nothing is converted.

    >>> same_units("m s-1", "m/s"), same_units("m/yr", "m a-1"), same_units("m", "km")
    (True, True, False)
    """
    return powers(first) == powers(second)


def powers(units: str) -> dict[str, int] | str:
    """The power of each unit in a product; the text itself if it is no product."""
    found: Counter[str] = Counter()
    text = units.replace("**", "^").strip()
    sign = 1
    for part in re.split(r"([/*. ·]+)", text):
        if re.fullmatch(r"[/*. ·]*", part):
            sign = -1 if "/" in part else 1
            continue
        match = re.fullmatch(r"([^\W\d]+|%|°\w*|1)\^?([+-]?\d+)?", part)
        if match is None:
            return text
        if match[1] != "1":
            unit = "year" if match[1] in YEARS else match[1]
            found[unit] += sign * int(match[2] or 1)
    return {unit: power for unit, power in found.items() if power}
