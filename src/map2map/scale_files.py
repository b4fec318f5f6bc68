"""Files of scales, ``fieldin.dat`` and ``fieldout.dat`` of 2Dto2D-DLE: a field's name and scale.

A line for each field, in the order of the channels: name, space, scale, space, newline. The scale
has six decimals, as in the original; where six would change it, it has all digits, because the
original wrote scales below 5e-7 as 0.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from map2map.errors import ArtefactError
from map2map.files import replacing

__all__ = ["INPUTS", "TARGETS", "as_text", "read_scales", "write_scales"]

INPUTS, TARGETS = "fieldin.dat", "fieldout.dat"
"""What the two files of a network are called."""


def read_scales(path: Path) -> dict[str, float]:
    """The scale of each field [units of the field], in the order of the channels.

    What follows the scale on a line is ignored, and so are empty lines at the end.

    Raises:
        ArtefactError: If there is no such file, it is no text, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except FileNotFoundError as error:
        raise ArtefactError(
            f"there is no file {path}; it has a line with the name and the scale of each field"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read as a text: {error}") from error
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        name, *rest = line.split() or [""]
        if not rest:
            raise ArtefactError(
                f"{where}: found {line.strip()!r}, expected a name and a scale, such as "
                f"'thk 2000.000000'"
            )
        if name in scales:
            raise ArtefactError(f"{where}: field {name!r} is there twice; names must differ")
        scales[name] = checked(rest[0], where)
    if not scales:
        raise ArtefactError(f"{path} is empty; expected a name and a scale on each line")
    return scales


def checked(text: str, where: str) -> float:
    """A scale that can be divided by.

    Raises:
        ArtefactError: If it is no number, not positive or not finite; says where.
    """
    try:
        scale = float(text)
    except ValueError:
        raise ArtefactError(f"{where}: the scale {text!r} is not a number") from None
    if scale < 0:
        raise ArtefactError(
            f"{where}: the scale {text} is negative; give a typical size of the field, a positive "
            f"number"
        )
    if scale == 0 or not math.isfinite(scale):
        raise ArtefactError(
            f"{where}: cannot divide by the scale {text}; give a typical value of the field"
        )
    return scale


def write_scales(path: Path, scales: Mapping[str, float]) -> None:
    """Write what `read_scales` reads; an existing file is replaced.

    Raises:
        ArtefactError: If a name or scale cannot be written.
        SaveError: If the file cannot be written.
    """
    text = as_text(scales)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def as_text(scales: Mapping[str, float]) -> str:
    r"""The content of a file.

    >>> as_text({"thk": 2000, "a": 2.5e-9})
    'thk 2000.000000 \na 2.5e-09 \n'

    Raises:
        ArtefactError: If a name has spaces in it, or a scale cannot be divided by.
    """
    lines = []
    for name, scale in scales.items():
        if name.split() != [name]:
            raise ArtefactError(
                f"field {name!r} cannot be written to a file of scales, where a space ends the "
                f"name; rename it"
            )
        checked(repr(float(scale)), f"field {name!r}")
        short = f"{scale:.6f}"
        lines.append(f"{name} {short if float(short) == scale else repr(float(scale))} \n")
    return "".join(lines)
