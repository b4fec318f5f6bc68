"""The few errors, each a `M2MError` and the builtin that fits.

```
M2MError
├── FieldError(ValueError)      a field is missing, of other units or channels, or not finite
├── GeometryError(ValueError)   shapes, crops, halos and windows that do not fit
├── SourceError(OSError)        a data file is missing, truncated or unreadable
├── RecipeError(ValueError)     an unknown key or name, or a value that is not allowed
├── ArtefactError(ValueError)   a checkpoint or emulator file that cannot be trusted or does not fit
├── SaveError(OSError)          something could not be written; what was there before is still there
└── UserCodeError(RuntimeError) code that the user pointed to has raised
```

A message says what was asked, what was found, what is allowed and what to do. The command line
prints it on one line and exits with status 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ArtefactError",
    "FieldError",
    "GeometryError",
    "M2MError",
    "RecipeError",
    "SaveError",
    "SourceError",
    "UserCodeError",
    "near_names",
    "without_recipe",
]


class M2MError(Exception):
    """Something the user can mend."""


class FieldError(M2MError, ValueError):
    """A field is missing, misnamed, of other units or channels, or not finite."""


class GeometryError(M2MError, ValueError):
    """Shapes, crops, halos or windows that do not fit together."""


class SourceError(M2MError, OSError):
    """A data file is missing, truncated, unreadable or of another format."""


class RecipeError(M2MError, ValueError):
    """An unknown key or name in a recipe or on the command line, or a value not allowed."""


class ArtefactError(M2MError, ValueError):
    """A checkpoint or emulator file that cannot be trusted, or does not fit."""


class SaveError(M2MError, OSError):
    """Something could not be written; what was there before is still there."""


class UserCodeError(M2MError, RuntimeError):
    """Code that the user pointed to has raised."""


def without_recipe(text: str) -> str:
    """A message without what only those who write recipes can do, its last clause.

    >>> without_recipe("the field is NaN; mend the data; in a recipe, mask it")
    'the field is NaN; mend the data'
    """
    return text.partition("; in a recipe, ")[0]


def near_names(asked: str, allowed: Iterable[str]) -> str:
    """A clause for an error message: the near names, or all of them if there are few.

    >>> near_names("UNt", ["UNet", "VNet"])
    "; did you mean 'UNet' or 'VNet'?"
    >>> near_names("zzz", ["UNet", "VNet"])
    '; there are UNet, VNet'
    """
    names = sorted(set(allowed))
    folded = {name.casefold(): name for name in names}
    near = [folded[n] for n in get_close_matches(asked.casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"
