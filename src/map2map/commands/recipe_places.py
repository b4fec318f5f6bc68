"""Where a recipe says that fields, labels and parameters are: refused in words of their own.

What may stand there is one of several kinds, of which a general check of types can but say that
none fits.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from map2map.errors import RecipeError, near_names
from map2map.patterns import Files
from map2map.told import Told

__all__ = ["SIDES", "check_place", "check_places", "whole_place"]

SIDES = ("train", "val", "test")
"""Of `data`, that have them."""

WAYS = ("placeholder", "attribute", "coordinate", "table")
"""To tell a label or parameter, one of which is chosen."""

KEYS = {
    kind: {one.name: None if one.default is MISSING else one.default for one in fields(kind)}
    for kind in (Files, Told)
}


def check_places(recipe: Mapping[str, Any]) -> None:
    """Refuse what is no place.

    Raises:
        RecipeError: If there is such.
    """
    data = recipe.get("data")
    for side in SIDES:
        places = data.get(side) if isinstance(data, Mapping) else None
        for name, place in places.items() if isinstance(places, Mapping) else ():
            check_place(f"data.{side}.{name}", place)


def whole_place(place: Any) -> Any:
    """A place with its kind and all keys of that, so that it takes the place of another one.

    >>> whole_place({"placeholder": "z"})["init_args"]["table"] is None
    True
    """
    if not isinstance(place, Mapping) or "class_path" in place:
        return place
    kind = Files if "pattern" in place else Told
    path = f"{kind.__module__}.{kind.__name__}"
    return {"class_path": path, "init_args": {**KEYS[kind], **place}}


def check_place(where: str, place: Any) -> None:
    """Refuse what is no place.

    Args:
        where: It stands in a recipe.
        place: What stands there.

    Raises:
        RecipeError: If it is none.
    """
    if isinstance(place, list) and not all(isinstance(entry, str) for entry in place):
        raise RecipeError(
            f"{where} is {place}, but a list is one of patterns of files; numbers of runs are told "
            f"by a table, or by placeholders of their files"
        )
    if not isinstance(place, Mapping) or "class_path" in place:
        return
    allowed = KEYS[Files] if "pattern" in place else KEYS[Told]
    for key in place:
        if key not in allowed:
            of_kind = "pattern" in place or {*place} & {*WAYS}
            known = allowed if of_kind else {**KEYS[Files], **KEYS[Told]}
            raise RecipeError(f"there is no key {where}.{key}{near_names(str(key), known)}")
    ways = [key for key in WAYS if place.get(key) not in (None, False)]
    if "pattern" not in place and len(ways) != 1:
        found = f"{' and '.join(ways)} are" if ways else "none is"
        raise RecipeError(
            f"{where} is told by exactly one of {', '.join(WAYS)}, but {found} given"
            + ("; leave out all but one" if ways else " (files are told by their `pattern`)")
        )
