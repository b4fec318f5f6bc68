"""Code of the user, from where the user points: an import path, or a file in a given folder.

The folder becomes the package ``map2map_callback``, so that its file ``json.py`` is
``map2map_callback.json``, which neither shadows nor is shadowed by the standard library.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ParamSpec, TypeVar

from map2map.errors import M2MError, RecipeError, UserCodeError, near_names

P = ParamSpec("P")
R = TypeVar("R")

__all__ = [
    "PACKAGE",
    "guarded",
    "load_from_folder",
    "load_from_packages",
    "use_folder",
    "users_errors",
]

PACKAGE = "map2map_callback"


def load_from_packages(name: str, packages: Iterable[str]) -> Any | None:
    """The public object ``name`` (or ``module.name``) of the first package that has it.

    Args:
        name: Such as "UNet" or "srsgan.G".
        packages: Import paths of the packages to look in, the first wins.
    """
    module_name, _, attribute = name.rpartition(".")
    for package in packages:
        path = f"{package}.{module_name}" if module_name else package
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError:
            continue
        public = getattr(module, "__all__", dir(module))
        if attribute in public and not attribute.startswith("_"):
            return getattr(module, attribute)
    return None


def use_folder(folder: Path) -> None:
    """Make the files of a folder importable as modules of ``map2map_callback``.

    Raises:
        RecipeError: If there is no such folder.
    """
    if not folder.is_dir():
        raise RecipeError(f"the callback folder {folder} does not exist")
    path = [str(folder.resolve())]
    package = sys.modules.get(PACKAGE)
    if package is None or package.__path__ != path:
        for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
        package = ModuleType(PACKAGE, "The user's own code.")
        package.__path__ = path
        sys.modules[PACKAGE] = package
        importlib.invalidate_caches()


def load_from_folder(name: str, folder: Path) -> Any:
    """The object ``module.name`` from the file ``folder/module.py``.

    Raises:
        RecipeError: If the file or the name does not exist.
        UserCodeError: If the file raises when it is run.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise RecipeError(
            f"{name!r} names no file; code in {folder} is named by its file, 'file.name'"
        )
    use_folder(folder)
    path = folder.joinpath(*module_name.split(".")).with_suffix(".py")
    if not path.is_file():
        files = [p.stem for p in folder.glob("*.py")]
        raise RecipeError(f"no callback file {path} for {name!r}{near_names(module_name, files)}")
    try:
        module = importlib.import_module(f"{PACKAGE}.{module_name}")
    except Exception as error:
        raise UserCodeError(f"{path} raised {type(error).__name__} when run: {error}") from error
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise RecipeError(f"{path} has no {attribute!r}{near_names(attribute, public)}")
    return getattr(module, attribute)


def guarded(function: Callable[P, R], name: str) -> Callable[P, R]:
    """The function, with any error in it told as an error of the user's code."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except M2MError:
            raise
        except Exception as error:
            raise UserCodeError(f"{name} raised {type(error).__name__}: {error}") from error

    return call


@contextmanager
def users_errors() -> Iterator[None]:
    """Tell an error from within the user's folder as such, with its file and line."""
    try:
        yield
    except M2MError:
        raise
    except Exception as error:
        package = sys.modules.get(PACKAGE)
        if isinstance(error, SyntaxError) and package is not None:
            path = Path(error.filename or "")
            if path.parent in map(Path, package.__path__):
                raise UserCodeError(f"{path} raised SyntaxError when run: {error}") from error
        theirs = _theirs(error)
        if theirs is None:
            raise
        cause, code, line = theirs
        raise UserCodeError(
            f"{code.co_filename}, line {line}, {code.co_qualname} raised "
            f"{type(cause).__name__}: {cause}"
        ) from error


def _theirs(error: BaseException) -> tuple[BaseException, CodeType, int] | None:
    """The first error that went through the user's code, and where, of those that caused one."""
    earlier = None if error.__cause__ is None else _theirs(error.__cause__)
    if earlier is not None:
        return earlier
    found = [
        (error, frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(f"{PACKAGE}.")
    ]
    return found[-1] if found else None
