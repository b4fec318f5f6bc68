"""Exports: an emulator as a file that programs without map2map run.

A format is one file here, a module with

- ``export(emulator, path, *, size=None, …)``, which writes the file; further keywords are options
  of ``m2m export``;
- ``SUFFIX`` of its files, and ``PACKAGES`` that it needs and that map2map does not;
- if the file can be run from Python, ``run(path, fields)``, physical fields by name to physical
  fields by name. `map2map.exports.writing` compares with the emulator then;
- if the file needs others, ``beside(emulator)``, their names and texts; they lie in its folder;
- if it does without an option that others have, ``NEEDLESS``, the reason by the option's name;
- if the file has to be called so, ``NAME``; and ``TOLD``, lines by title, what else to say of it.

What all share is in `map2map.exports.graph`: the emulator as a graph of physical fields.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

__all__ = ["formats"]


def formats() -> dict[str, ModuleType]:
    """The formats there are, by the name that they have on the command line."""
    found = {}
    for entry in iter_modules(__path__):
        module = import_module(f"{__name__}.{entry.name}")
        if hasattr(module, "export"):
            found[entry.name.replace("_", "-")] = module
    return found
