"""An object as data: its class and the arguments it was made with, and back.

Every model and norm keeps each constructor argument as an attribute of the same name, so that a
card can be written from the object itself, however it was made. Reading a card imports nothing but
our own classes and torch.nn's, unless the user says what else to trust.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from map2map.errors import ArtefactError, RecipeError
from map2map.usercode import PACKAGE, load_from_folder

__all__ = ["Spec", "build", "describe", "describe_call", "import_object", "import_path"]

Spec = dict[str, Any]
"""``{"class_path": ..., "init_args": {...}}``, all of it JSON."""

TRUSTED = (
    "map2map.models.",
    "map2map.norms.",
    "map2map.derived.",
    "map2map.figures.",
    "torch.nn.",
)
CALLBACK = f"{PACKAGE}."


def describe(thing: object) -> Spec:
    """The class of an object and the arguments it was made with.

    Raises:
        RecipeError: If it does not keep an argument as an attribute.
    """
    arguments = {}
    for name, parameter in inspect.signature(type(thing).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(thing, name):
            raise RecipeError(
                f"{type(thing).__name__} cannot be saved: it does not keep its argument {name!r}; "
                f"write `self.{name} = {name}` in its constructor"
            )
        arguments[name] = _as_data(getattr(thing, name), f"{type(thing).__name__}.{name}")
    return {"class_path": import_path(type(thing)), "init_args": arguments}


def describe_call(cls: type, *args: Any, **kwargs: Any) -> Spec:
    """The class and arguments of ``cls(*args, **kwargs)``, for one that does not keep them.

    Raises:
        RecipeError: If the arguments do not fit, or cannot be written as data.
    """
    try:
        bound = inspect.signature(cls).bind(*args, **kwargs)
    except TypeError as error:
        raise RecipeError(f"{cls.__name__} does not take these arguments: {error}") from error
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        arguments |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return {
        "class_path": import_path(cls),
        "init_args": {k: _as_data(v, f"{cls.__name__}.{k}") for k, v in arguments.items()},
    }


def _as_data(value: Any, where: str) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, nn.ModuleList | list | tuple):
        return [_as_data(entry, where) for entry in value]
    if isinstance(value, dict):
        return {str(key): _as_data(entry, where) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        # a value with no behaviour worth a class path; who takes it takes its fields as well
        return _as_data(asdict(value), where)
    if isinstance(value, nn.Module):
        return describe(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return {"import_path": import_path(value)}
    raise RecipeError(f"{where} is a {type(value).__name__}, which a card cannot hold")


def import_object(path: str) -> Any:
    """What an import path names.

    Raises:
        ImportError, AttributeError: If there is no such thing.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def import_path(thing: Any) -> str:
    """Where a class or function can be imported from, as short as is public."""
    module: str = thing.__module__
    package = ".".join(module.split(".")[:2])
    shortest = package if module.startswith(("map2map.", "torch.")) else module
    if not hasattr(importlib.import_module(shortest), thing.__qualname__):
        shortest = module
    return f"{shortest}.{thing.__qualname__}"


def build(
    spec: Spec,
    *,
    base: type = nn.Module,
    trust: Iterable[str] = (),
    callback_at: Path | None = None,
) -> Any:
    """Make the object that a spec describes.

    Args:
        spec: Class and arguments, from a card.
        base: What it has to be.
        trust: Import paths outside map2map and torch.nn that may be imported.
        callback_at: Folder with the user's code that the card needs.

    Raises:
        ArtefactError: If the spec is malformed or asks for code that is not trusted.
    """
    if not isinstance(spec, dict) or set(spec) != {"class_path", "init_args"}:
        raise ArtefactError(f"a spec has a class_path and init_args, not {spec!r}")
    trusted = tuple(trust)

    def resolve(path: str) -> Any:
        return _resolve(path, trusted, callback_at)

    cls = resolve(spec["class_path"])
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        kind = "torch module" if base is nn.Module else base.__name__
        raise ArtefactError(f"{spec['class_path']!r} is not a {kind}; refusing to build it")
    arguments = {
        key: _as_object(value, resolve, trusted, callback_at)
        for key, value in spec["init_args"].items()
    }
    try:
        made = cls(**arguments)
    except TypeError as error:
        raise ArtefactError(
            f"{spec['class_path']} does not take the arguments {sorted(arguments)}: {error}"
        ) from error
    return made


def _as_object(
    value: Any, resolve: Callable[[str], Any], trust: tuple[str, ...], callback_at: Path | None
) -> Any:
    if isinstance(value, list):
        return [_as_object(entry, resolve, trust, callback_at) for entry in value]
    if isinstance(value, dict):
        if set(value) == {"class_path", "init_args"}:
            return build(value, trust=trust, callback_at=callback_at)
        if set(value) == {"import_path"}:
            return resolve(value["import_path"])
    return value


def _resolve(path: str, trust: tuple[str, ...], callback_at: Path | None) -> Any:
    if path.startswith(CALLBACK):
        name = path.removeprefix(CALLBACK)
        if callback_at is None:
            raise ArtefactError(
                f"the emulator needs the user's own {name!r}; say in which folder its file lies "
                f"(--callback-at FOLDER, callback_at=…)"
            )
        return load_from_folder(name, callback_at)
    if not path.startswith(TRUSTED) and path not in trust:
        raise ArtefactError(
            f"refusing to import {path!r}, which is neither map2map's nor torch.nn's; if you know "
            f"this code, trust it (--trust {path}, trust=[{path!r}])"
        )
    try:
        return import_object(path)
    except (ImportError, AttributeError) as error:
        raise ArtefactError(f"{path!r} cannot be imported: {error}") from error
