"""Arguments that several commands share."""

from collections.abc import Mapping, Sequence

from map2map.errors import RecipeError, near_names
from map2map.runs import Files

__all__ = ["WHERE", "fields_at"]

WHERE = """\
Where fields are: NAME=PATH for each, or one PATH whose files hold all of them. PATH may have
wildcards (in quotes), and ::VARIABLE behind it if the field is called otherwise in the file."""


def fields_at(places: Sequence[str], names: Sequence[str]) -> Mapping[str, Files]:
    """Where the files of each field are, from what was typed.

    >>> fields_at(["rho=run_*.h5::/density"], ["rho"])
    {'rho': Files(pattern='run_*.h5', variable='/density')}

    Args:
        places: ``NAME=PATH``, ``NAME=PATH::VARIABLE``, or one ``PATH`` for all fields.
        names: The fields that are needed.

    Raises:
        RecipeError: If a field is missing, unknown or given twice.
    """
    named = {name for name in names if any(place.startswith(f"{name}=") for place in places)}
    if len(places) == 1 and not named and "=" not in places[0]:
        path, _, variable = places[0].partition("::")
        if variable and len(names) > 1:
            raise RecipeError(
                f"{places[0]!r} names one variable, but the fields {', '.join(names)} are needed; "
                f"give NAME=PATH::VARIABLE for each"
            )
        return {name: Files(path, variable or None) for name in names}
    found: dict[str, Files] = {}
    for place in places:
        name, equals, rest = place.partition("=")
        if not equals or name not in names:
            hint = near_names(name, names) if equals else f"; the fields are {', '.join(names)}"
            raise RecipeError(f"{place!r} is not NAME=PATH of a field that is needed{hint}")
        if name in found:
            raise RecipeError(f"field {name!r} is given twice; quote patterns: '{name}=…*…'")
        path, _, variable = rest.partition("::")
        found[name] = Files(path, variable or None)
    missing = [name for name in names if name not in found]
    if missing:
        raise RecipeError(f"the fields {', '.join(missing)} are missing; give NAME=PATH for each")
    return found
