"""Imports: an emulator made of what another tool has trained.

An origin is one file here, a module with ``read(path)``, which gives the emulator; one that needs
to be told more than the files do names its ``SETTINGS`` and has ``read(path, settings)``. The first
line of its docstring is its line in ``m2m import --help``; what follows says what has to be there.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from map2map.errors import RecipeError, near_names

__all__ = ["known_settings", "origins"]


def origins() -> dict[str, ModuleType]:
    """The origins there are, by the name that they have on the command line."""
    return {
        entry.name.replace("_", "-"): import_module(f"{__name__}.{entry.name}")
        for entry in iter_modules(__path__)
    }


def known_settings(given: Mapping[str, str] | None, known: Sequence[str]) -> dict[str, str]:
    """What was given with ``--set``.

    Raises:
        RecipeError: If the origin does not know one.
    """
    for key in given or {}:
        if key not in known:
            raise RecipeError(f"there is no setting {key!r}{near_names(key, known)}")
    return dict(given or {})
