"""Imports: an emulator made of what another tool has trained.

An origin is one file here, a module with ``read(path)``, which gives the emulator; one that needs
to be told more than the files do names its ``SETTINGS`` and has ``read(path, settings)``. The first
line of its docstring is its line in ``m2m import --help``; what follows says what has to be there.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

__all__ = ["origins"]


def origins() -> dict[str, ModuleType]:
    """The origins there are, by the name that they have on the command line."""
    return {
        entry.name.replace("_", "-"): import_module(f"{__name__}.{entry.name}")
        for entry in iter_modules(__path__)
    }
