"""Arguments that several commands share."""

import argparse
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from map2map.errors import RecipeError, near_names
from map2map.runs import Files

if TYPE_CHECKING:  # which imports torch
    from map2map.emulator import Emulator

__all__ = ["WHERE", "add_only", "fields_at", "files_at", "inputs_at"]

WHERE = """\
Where fields are: NAME=PATH for each, or one PATH whose files hold all that are not named. PATH may
have wildcards (in quotes), and ::VARIABLE behind it if the field is called otherwise in the file.
NAME=NUMBER is a field of that value everywhere."""


def add_only(parser: argparse.ArgumentParser, of: str = "") -> None:
    """The option --only; see `map2map.commands.evaluate_runs.only_of`.

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
        help=f"{of}take only these runs, such as seed=100:125, seed=1,5 or seed=1,5 gravity=gr",
    )


def fields_at(
    places: Sequence[str], names: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, Files | float]:
    """Where the files of each field are, from what was typed.

    >>> fields_at(["rho=run_*.h5::/density"], ["rho"])
    {'rho': Files(pattern='run_*.h5', variable='/density')}

    Args:
        places: ``NAME=PATH``, ``NAME=PATH::VARIABLE``, ``NAME=NUMBER``, or one ``PATH`` for all
            fields that are not named.
        names: The fields that are needed.
        optional: Fields that may be given besides.

    Raises:
        RecipeError: If a field is missing, unknown or given twice.
    """
    found: dict[str, Files | float] = {}
    rest: Files | None = None
    known = (*names, *optional)
    for place in places:
        name, equals, where = place.partition("=")
        if not equals and rest is None and Path(place).name:
            path, _, variable = place.partition("::")
            rest = Files(path, variable or None)
            continue
        if not equals or name not in known:
            hint = near_names(name, known) if equals else f"; the fields are {', '.join(known)}"
            raise RecipeError(f"{place!r} is not NAME=PATH of a field that is needed{hint}")
        if name in found:
            raise RecipeError(f"field {name!r} is given twice; quote patterns: '{name}=…*…'")
        path, _, variable = where.partition("::")
        number = None if Path(path).exists() else as_number(path)
        found[name] = Files(path, variable or None) if number is None else number
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


def inputs_at(
    places: Sequence[str], emulator: "Emulator", others: Sequence[str] = ()
) -> Mapping[str, Files | float]:
    """Where the fields are that an emulator has to be given.

    Args:
        places: As for `fields_at`.
        emulator: The emulator.
        others: More fields that are needed, such as its targets.
    """
    given = {place.partition("=")[0] for place in places if "=" in place}
    names = dict.fromkeys((*emulator.needed(given), *others))
    return fields_at(places, list(names), [n for n in emulator.derived if n in given])


def as_number(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not isfinite(number):
        raise RecipeError(f"a field cannot be {text} everywhere; give a finite number")
    return number
