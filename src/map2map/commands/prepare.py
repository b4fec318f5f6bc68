"""``m2m prepare RECIPE``: bring files to one grid, or groups of columns into one array."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import jsonargparse

from map2map.commands.recipe_forms import settled
from map2map.commands.recipes import find, pointing_to_data, read
from map2map.common_grid import CommonGrid
from map2map.errors import RecipeError
from map2map.prepared_columns import ColumnStacks
from map2map.prepared_stores import prepare
from map2map.workers import connected

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write what the section `prepare` of a recipe describes."""
    parser = argparse.ArgumentParser(
        prog="m2m prepare",
        description="Regrid the files that the section `prepare` of a recipe names to one grid, "
        "conservatively, a few times after the others; or put the groups of columns of air that it "
        "names into one array, some columns after the others. Writes a Zarr store per run. What is "
        "complete and made of the same files is left as it is; what was broken off is taken up.",
        epilog="example: m2m prepare ocean_atmosphere_coupling && m2m train "
        "ocean_atmosphere_coupling",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="its name or path")
    parser.add_argument("--overwrite", action="store_true", help="make complete stores again")
    parser.add_argument("--dask", metavar="SCHEDULER",
                        help="compute on the workers of a dask.distributed scheduler, or `local` "
                        "for worker processes of this machine; default: threads")  # fmt: skip
    options = parser.parse_args(argv)
    path = find(options.recipe)
    section = settled(read(path)).get("prepare")
    if section is None:
        raise RecipeError(
            f"{path} has no section `prepare`; its files are read as they are (m2m train)"
        )
    declared = declared_by(section)
    with ExitStack() as stack:
        if options.dask is not None:
            client = stack.enter_context(connected(options.dask))
            stack.enter_context(client.as_current())
        with pointing_to_data(path):
            stores = prepare(declared, overwrite=options.overwrite)
    if isinstance(declared, CommonGrid):
        what = f"grid {declared.like!r}"
    else:
        what = f"stacks {', '.join(declared.stacks)}"
    print(f"{len(stores)} {'run' if len(stores) == 1 else 'runs'}: {what}")
    return 0


def declared_by(section: Any) -> CommonGrid | ColumnStacks:
    """What a section of a recipe describes.

    Raises:
        RecipeError: If a key or value is not allowed.
    """
    kind = ColumnStacks if isinstance(section, dict) and "stacks" in section else CommonGrid
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--prepare", type=kind)
    try:
        parsed = parser.parse_object({"prepare": section})
        # newer versions call it so, and warn of its former name
        instantiate: Any = getattr(parser, "instantiate", None) or parser.instantiate_classes
        made = instantiate(parsed).prepare
    except (jsonargparse.ArgumentError, ValueError) as error:
        raise RecipeError(f"prepare: {' '.join(str(error).split())}") from error
    if not isinstance(made, kind):
        raise RecipeError(
            f"prepare: a mapping with out, like and parts is expected, or with out and stacks, not "
            f"{section!r}"
        )
    return made
