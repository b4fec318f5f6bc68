"""Arguments that several commands share."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from map2map.errors import M2MError, RecipeError, near_names
from map2map.patterns import split_channels
from map2map.readers import resolve
from map2map.runs import Files, Patterns
from map2map.sources import open_source
from map2map.told import Told

if TYPE_CHECKING:  # which imports torch
    from map2map.emulator import Emulator

__all__ = [
    "WHERE",
    "add_only",
    "as_learnt",
    "fields_at",
    "files_at",
    "inputs_at",
    "only_of",
    "styles_at",
    "with_only",
]

T = TypeVar("T")

WHERE = """\
Where fields are: NAME=PATH for each, or one PATH whose files hold all that are not named. PATH may
have wildcards (in quotes), and ::VARIABLE behind it if the field is called otherwise in the file.
NAME=NUMBER is a field of that value everywhere. ::VARIABLE@+6h is the frame 6 hours later, @+2 the
next but one, @-6h the one 6 hours earlier; without it, all fields are as in training."""


def add_only(parser: argparse.ArgumentParser, of: str = "") -> None:
    """The option --only; see `only_of`.

    Args:
        parser: Of the command.
        of: What it is for, in front of its help.
    """
    parser.add_argument(
        "--only",
        nargs="+",
        action="extend",
        default=[],
        metavar="PLACEHOLDER=VALUES",
        help=f"{of}take only these runs, such as seed=100:125 or seed=1,5 gravity=gr; or, "
        "by the name of the axis of frames, dates: time=2019 or time=2019-01-01:2020-03-25",
    )


def fields_at(
    places: Sequence[str],
    names: Sequence[str],
    optional: Sequence[str] = (),
    styles: Sequence[str] = (),
) -> Mapping[str, Files | float]:
    """Where the files of each field are, from what was typed.

    >>> fields_at(["rho=run_*.h5::/density"], ["rho"])
    {'rho': Files(pattern='run_*.h5', variable='/density')}

    Args:
        places: ``NAME=PATH``, ``NAME=PATH::VARIABLE``, ``NAME=NUMBER``, or one ``PATH`` for all
            fields that are not named.
        names: The fields that are needed.
        optional: Fields that may be given besides.
        styles: Numbers of runs that may be given besides, for messages.

    Raises:
        RecipeError: If a field is missing, unknown or given twice.
    """
    found: dict[str, Files | float] = {}
    rest: Files | None = None
    known = (*names, *optional)
    for place in places:
        name, equals, where = place.partition("=")
        if not equals and rest is None and Path(place).name:
            rest = files_of(place)
            continue
        if not equals or name not in known:
            near = near_names(name, (*known, *styles))
            hint = near if equals else f"; the fields are {', '.join(known)}"
            or_style = f", nor NAME=NUMBER of a style ({', '.join(styles)})" if styles else ""
            raise RecipeError(
                f"{place!r} is not NAME=PATH of a field that is needed{or_style}{hint}"
            )
        if name in found:
            raise RecipeError(f"field {name!r} is given twice; quote patterns: '{name}=…*…'")
        files = files_of(where)
        number = None if Path(str(files.pattern)).exists() else as_number(str(files.pattern))
        found[name] = files if number is None else number
    missing = [name for name in names if name not in found]
    if missing and rest is None:
        raise RecipeError(f"the fields {', '.join(missing)} are missing; give NAME=PATH for each")
    if rest is not None:
        if rest.variable and len(missing) > 1:
            raise RecipeError(
                f"'{rest.pattern}::{rest.variable}' names one variable, but the fields "
                f"{', '.join(missing)} are needed; give NAME=PATH::VARIABLE for each"
            )
        if not missing:
            raise RecipeError(
                f"'{rest.pattern}' is superfluous: {', '.join(found)} have their places already; "
                f"leave it out"
            )
        found |= dict.fromkeys(missing, rest)
    return {name: found[name] for name in known if name in found}


def files_of(place: str) -> Files:
    """The files of a place.

    >>> files_of("w.zarr::t@+6h")
    Files(pattern='w.zarr', variable='t', only=None, later='6h')
    >>> files_of("w.zarr::t@-1").later
    -1
    """
    path, _, rest = place.partition("::")
    match = re.fullmatch(r"(.*)@([+-])(\w+)", rest)
    if match is None:
        return Files(path, rest or None)
    later = match[2].strip("+") + match[3]
    return Files(path, match[1] or None, later=int(later) if match[3].isdecimal() else later)


def as_learnt(found: Mapping[str, T], learnt: Mapping[str, Files]) -> dict[str, T | Files]:
    """Places with what was left out and the training knows.

    Of later and earlier fields these are step and variable; of others the variable, if files have
    no field of the name, but that one.

    Args:
        found: The places.
        learnt: Those of the training.
    """
    made: dict[str, T | Files] = dict(found)
    for name, entry in found.items():
        before = learnt.get(name)
        if before is None or not isinstance(entry, Files):
            continue
        if before.later is not None:
            later = before.later if entry.later is None else entry.later
            made[name] = replace(entry, variable=entry.variable or before.variable, later=later)
        elif entry.variable is None and is_called(name, before.variable, entry):
            made[name] = replace(entry, variable=before.variable)
    return made


def is_called(name: str, variable: str | None, files: Files) -> bool:
    """Whether a field has that name in the first of its files, and not its own."""
    if variable is None or "{" in variable:
        return False
    try:
        fields = open_source(files.paths(name)[0]).fields
    except M2MError:  # told with more context when it is opened to be read
        return False
    return name not in fields and split_channels(variable)[0].strip("/") in {
        field.strip("/") for field in fields
    }


def only_of(texts: Sequence[str]) -> dict[str, str | list[str | int] | int]:
    """What --only says.

    >>> only_of(["seed=0:100", "gravity=gr"])
    {'seed': '0:100', 'gravity': ['gr']}
    """
    found: dict[str, str | list[str | int] | int] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise RecipeError(f"--only {text!r} is not PLACEHOLDER=FIRST:LAST or PLACEHOLDER=A,B,…")
        if name in found:
            raise RecipeError(
                f"--only names {name} twice, the second time in {text!r}; write all its values in "
                f"one, such as {name}=A,B,… or {name}=FIRST:LAST"
            )
        found[name] = values if ":" in values else [*values.split(",")]
    return found


def with_only(found: Patterns, texts: Sequence[str]) -> Patterns:
    """Places of which only some are taken, as --only says."""
    only = only_of(texts) or None
    return {n: replace(e, only=only) if isinstance(e, Files) else e for n, e in found.items()}


def files_at(places: Sequence[str], names: Sequence[str]) -> Mapping[str, Files]:
    """Where the files of each field are; numbers are refused.

    Args:
        places: As for `fields_at`.
        names: The fields that are needed.
    """
    found = fields_at(places, names)
    files = {name: entry for name, entry in found.items() if isinstance(entry, Files)}
    for name in found.keys() - files.keys():
        raise RecipeError(f"{name}={found[name]} is a number, but {name!r} needs files here")
    return files


def styles_at(
    places: Sequence[str], emulator: "Emulator"
) -> tuple[list[str], dict[str, Files | Told | float]]:
    """What was typed of styles, and the other arguments.

    ``NAME=NUMBER``; ``NAME=TABLE.csv`` or ``NAME=TABLE.npy`` with ``::COLUMN`` behind it;
    ``NAME={placeholder}``, ``NAME=@attribute``. A style that is not given is told as in training.

    Args:
        places: The arguments.
        emulator: Whose styles.

    Raises:
        RecipeError: If a style is given twice, or not told at all.
    """
    rest, found = [], {}
    for place in places:
        name, equals, text = place.partition("=")
        if not equals or name not in emulator.styles.names:
            rest.append(place)
            continue
        if name in found:
            raise RecipeError(f"the style {name!r} is given twice")
        found[name] = style_told(name, text)
    data = emulator.training_record.get("recipe", {}).get("data") or {}
    before = data.get("train") or {}
    for name in emulator.styles.names:
        told = before.get(name)
        if name not in found and told is not None:
            found[name] = Told(**told) if isinstance(told, Mapping) else told
    return rest, {name: found[name] for name in emulator.styles.names if name in found}


def style_told(name: str, text: str) -> Told | float:
    """Where a style is told.

    >>> style_told("z", "0.5"), style_told("z", "table.csv::redshift").column
    (0.5, 'redshift')
    >>> style_told("z", "{redshift}").placeholder, style_told("z", "@z").attribute
    ('redshift', 'z')
    """
    path, _, column = text.partition("::")
    if text.startswith("{") and text.endswith("}"):
        return Told(placeholder=text[1:-1])
    if text.startswith("@"):
        return Told(attribute=text[1:])
    if path.endswith((".csv", ".npy")):
        return Told(table=path, column=column or None)
    number = as_number(text)
    if number is None:
        raise RecipeError(
            f"{name}={text} tells no style: give {name}=NUMBER, {name}=TABLE.csv, "
            f"{name}=TABLE.npy::COLUMN, '{name}={{PLACEHOLDER}}' or {name}=@ATTRIBUTE"
        )
    return number


def inputs_at(
    places: Sequence[str], emulator: "Emulator", others: Sequence[str] = ()
) -> Mapping[str, Files | Told | float]:
    """Where the fields and styles are that an emulator has to be given.

    Args:
        places: As for `fields_at`.
        emulator: The emulator.
        others: More fields that are needed, such as its targets; instead of those that are
            computed, what they are computed from.
    """
    styles: dict[str, Files | Told | float] = {}
    if len(emulator.styles):
        places, styles = styles_at(places, emulator)
    given = {place.partition("=")[0] for place in places if "=" in place}
    beside = resolve(others, emulator.derived, given)[1]
    names = dict.fromkeys((*emulator.needed(given), *beside))
    computed = [n for n in emulator.derived if n in given]
    fields = fields_at(places, list(names), computed, emulator.styles.names)
    return {**fields, **styles}


def as_number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not isfinite(number):
        raise RecipeError(
            f"a field that is the same everywhere, or a style, is a finite number, not {text}"
        )
    return number
