"""``m2m simulate NAME``: make data with one of the simulators in `map2map.synthetic`."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from jsonargparse import auto_cli

import map2map.synthetic
from map2map.errors import RecipeError, near_names

__all__ = ["main"]


def simulators() -> dict[str, str]:
    """The modules of `map2map.synthetic` that simulate, and their first line."""
    found = {}
    for entry in iter_modules(map2map.synthetic.__path__):
        module = import_module(f"map2map.synthetic.{entry.name}")
        if hasattr(module, "simulate"):
            found[entry.name] = (module.__doc__ or "").partition("\n")[0]
    return found


def main(argv: Sequence[str]) -> int:
    """Simulate."""
    parser = argparse.ArgumentParser(
        prog="m2m simulate", description="Make data with a small, honest simulator.", add_help=False
    )
    parser.add_argument("name", nargs="?")
    options, rest = parser.parse_known_args(argv)
    if options.name is None:
        print("usage: m2m simulate NAME [options]; m2m simulate NAME --help explains them\n")
        for name, line in simulators().items():
            print(f"{name:16} {line}")
        return 0 if {"-h", "--help"} & set(rest) or not rest else 2
    if options.name not in simulators():
        raise RecipeError(
            f"no simulator is called {options.name!r}{near_names(options.name, simulators())}"
        )
    module = import_module(f"map2map.synthetic.{options.name}")
    auto_cli(module.simulate, args=rest, prog=f"m2m simulate {options.name}", as_positional=False)
    return 0
