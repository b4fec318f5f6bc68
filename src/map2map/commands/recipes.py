"""``m2m recipes``: the recipes that come with map2map."""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from map2map.errors import M2MError, RecipeError, near_names
from map2map.yaml_files import load_yaml

__all__ = ["find", "main", "pointing_to_data", "read", "shipped"]


def shipped() -> dict[str, Path]:
    """The recipes of the package, by name."""
    folder = Path(str(files("map2map") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a recipe, given by name or path.

    Raises:
        RecipeError: If there is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"there is no recipe {path}")
        return path
    if name not in shipped():
        raise RecipeError(
            f"no recipe is called {name!r}{near_names(name, shipped())}; "
            f"a path ends in .yaml; `m2m recipes` lists those that come with map2map"
        )
    return shipped()[name]


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe's file, unchecked.

    Raises:
        RecipeError: If it is no YAML, has no keys, or one twice.
    """
    try:
        found = load_yaml(path.read_text(), path)
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe {path}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise RecipeError(f"cannot read {path}: {error.strerror}; a recipe is a file") from error
    if not isinstance(found, dict):
        what = "empty" if found is None else f"a {type(found).__name__}"
        raise RecipeError(
            f"{path} is {what}, not a recipe; a recipe has the keys `model` and `data`, see "
            f"`m2m recipes cosmology_displacement`"
        )
    return found


def summary(path: Path) -> str:
    """The first sentence of a recipe's comment."""
    lines = (line.lstrip("#").strip() for line in path.read_text().splitlines())
    paragraph = " ".join(takewhile(bool, lines))
    return re.split(r"\.(?:\s|$)", paragraph)[0]


def where_data_are(path: Path) -> str:
    """What the comment at a recipe's head says of its data: where real ones are, how to make some.

    Args:
        path: Of a recipe.

    Returns:
        A clause for messages; empty if its comment tells nothing.
    """
    head = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    text = "\n".join(line.lstrip("#").strip() for line in head)
    real = re.search(r"^Real data: ((?:.+\n)+)", text, re.M)
    made = re.search(r"^m2m simulate .*", text, re.M)
    clauses = [
        " ".join(real[1].split()).rstrip(".") if real else "",
        f"`{made[0]}` makes some up" if made else "",
    ]
    return "; or ".join(filter(None, clauses))


@contextmanager
def pointing_to_data(path: Path) -> Iterator[None]:
    """Say where the data of a recipe come from, if it fails for lack of the folder ``data``."""
    try:
        yield
    except M2MError as error:
        lacks = "data/" in str(error) and not Path("data").exists()
        if lacks and (hint := where_data_are(path)):
            raise type(error)(f"{error}; where data are: {hint}") from error
        raise


def main(argv: Sequence[str]) -> int:
    """Print a line per recipe, or one recipe."""
    parser = argparse.ArgumentParser(
        prog="m2m recipes",
        description="List the recipes that come with map2map, or print one, to start your own.",
        epilog="example: m2m recipes cosmology_displacement > mine.yaml",
    )
    parser.add_argument("name", nargs="?", help="the recipe to print")
    options = parser.parse_args(argv)
    if options.name:
        print(find(options.name).read_text(), end="")
    else:
        width = max(map(len, shipped()))
        for name, path in shipped().items():
            print(f"{name:{width}}  {summary(path)}")
    return 0
