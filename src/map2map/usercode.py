"""Code of the user, from where the user points: an import path, or a file in a given folder."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from map2map.errors import M2MError, RecipeError, UserCodeError, near_names

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["guarded", "load_from_folder", "load_from_packages"]


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


def load_from_folder(name: str, folder: Path) -> Any:
    """The object ``module.name`` from the file ``folder/module.py``.

    The file is used whatever else is called like it: a callback file ``json.py`` does not shadow,
    and is not shadowed by, the standard library.

    Raises:
        RecipeError: If the file or the name does not exist.
        UserCodeError: If the file raises when it is run.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise RecipeError(f"{name!r} names no module; code in {folder} is named 'module.{name}'")
    path = folder.joinpath(*module_name.split(".")).with_suffix(".py")
    if not path.is_file():
        files = [p.stem for p in folder.glob("*.py")] if folder.is_dir() else []
        raise RecipeError(
            f"no callback file {path} for {name!r}{near_names(module_name, files)}"
            if folder.is_dir()
            else f"the callback folder {folder} does not exist; {name!r} was to be found there"
        )
    module = _module(path)
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise RecipeError(f"{path} has no {attribute!r}{near_names(attribute, public)}")
    return getattr(module, attribute)


def _module(path: Path) -> ModuleType:
    digest = blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
    unique = f"map2map_callback_{digest}_{path.stem}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[unique]
        raise UserCodeError(f"{path} raised {type(error).__name__} when run: {error}") from error
    return module


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
