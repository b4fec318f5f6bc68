"""What jsonargparse refuses, in one sentence: which key, what was found, what is near."""

import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module

from map2map.errors import near_names

__all__ = ["one_sentence"]

NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Problem with given class_path "
    r"'(?P<class>[^']*)':|Subtypes:.*|Errors:|Given value type:.*|Expected a <class 'NoneType'>|"
    r"(?:Type .*? )?expects a function or a callable class:|Expected a path but .*|"
    r"Parser key \"(?P<key>[^\"]*)\":"
)
UNKNOWN_IN_GROUP = re.compile(r"Group '([^']*)' does not accept option '([^']*)'")
UNKNOWN = re.compile(r"Option '([^']*)' is not accepted")
NO_ATTRIBUTE = re.compile(r"module '([^']*)' has no attribute '([^']*)'")
NO_MODULE = re.compile(r"No module named '([^']*)'")
NO_PATH = re.compile(r"Expected a dot import path string: (\S+)")
MISSING = re.compile(r"Requirement '(([\w-]+)[^']*)' not met")
GOT = re.compile(r"Got value: Namespace\(class_path='([^']*)'")
VALUE = re.compile(r"\.? ?(Given|Got) value: .*")
PACKAGES = ("map2map.models", "map2map.norms", "map2map.losses")
FILLED_IN = {"in_chan", "out_chan", "ndim", "style_chan", "params"}
"""Arguments of networks and optimizers that a recipe does not give."""
BASES = ("Optimizer", "LRScheduler", "Module")
"""Classes of PyTorch that only say what a class of theirs is."""


def one_sentence(text: str, keys: Iterable[str]) -> str:
    """The message for a refused recipe, from jsonargparse's.

    Args:
        text: What jsonargparse says, which repeats the types of all that it has tried.
        keys: All keys of a recipe, such as "data.crops".
    """
    if missing := MISSING.search(text):
        return (
            f"a class of the recipe needs the package {missing[2]}, which is not installed; "
            f"`pip install '{missing[1]}'`, or leave it out (for loggers, "
            f"lightning.pytorch.loggers.CSVLogger needs none)"
        )
    found: dict[str, list[str]] = {"key": [], "class": []}

    def note(match: re.Match[str]) -> str:
        for kind, value in match.groupdict().items():
            if value:
                found[kind].append(value)
        return ""

    value = re.search(
        r"(?:Given|Got) value: (?!Namespace|\{|NestedArg)(.*?)(?:\. Got value|$)", text, re.M
    )
    parts: dict[str, str] = {}
    for line in text.splitlines():
        part = NOISE.sub(note, VALUE.sub("", line)).strip(" -")
        if part:
            # what a line says of itself is further inside than what the lines before say
            owner = GOT.search(line)
            parts[part] = owner[1] if owner else found["class"][-1] if found["class"] else ""
    values = [part for part in parts if part.startswith("Expected a <class")]
    if values:
        # what is a number or a text may also be some object, which nobody means
        parts = {part: owner for part, owner in parts.items() if not NO_PATH.search(part)}
    said = " or ".join(
        _with_near(part, _owner(part, owner, text), list(keys)) for part, owner in parts.items()
    )
    where = ".".join(dict.fromkeys(found["key"]))
    given = f", not {value[1]!r}" if value and parts and "xpected" in said else ""
    said = re.sub(r"(?:a )?<class '([^']*)'>|(?:a )?typing\.Literal", _type_name, said)
    return f"{f'{where}: ' if where else ''}{said}{given}"


def _owner(part: str, owner: str, text: str) -> str:
    """The class whose key a part is about: the outer one, or one that is named among its keys."""
    match = UNKNOWN.search(part)
    inner = match[1].split(".init_args.")[:-1] if match else []
    if not inner:
        return owner
    name = re.escape(inner[-1].rpartition(".")[2])
    found = re.search(rf"\b{name}'?(?:: \{{|=Namespace\()'?class_path'?[:=] ?'([^']*)'", text)
    return found[1] if found else ""


def _with_near(part: str, owner: str, keys: list[str]) -> str:
    if match := UNKNOWN_IN_GROUP.search(part):
        group, key = match.groups()
        inside = [k.removeprefix(f"{group}.") for k in keys if k.startswith(f"{group}.")]
        return f"there is no key {group}.{key}{near_names(key, _first(inside))}"
    if match := UNKNOWN.search(part):
        key = match[1]
        if ".init_args." not in key and not owner:
            return f"there is no key {key!r}{near_names(key, _first(keys))}"
        if owner.rpartition(".")[2] in BASES:
            return f"{key!r} is of a class that is not given; say which, too (class_path)"
        allowed = _arguments(owner)
        near = "" if allowed is None else near_names(key.rpartition(".")[2], allowed)
        return f"there is no key {key!r}{near}"
    if match := NO_ATTRIBUTE.search(part):
        module, name = match.groups()
        return f"there is no {name!r} in {module}{near_names(name, _public(module))}"
    if match := NO_MODULE.search(part):
        return (
            f"there is no module {match[1]!r} to import here; install the package that has it "
            f"beside map2map, or mend the import path"
        )
    if match := NO_PATH.search(part):
        known = [name for package in PACKAGES for name in _public(package)]
        near = near_names(match[1], known + [n for n in _public("torch.nn") if n.endswith("Loss")])
        return (
            f"there is no class {match[1]!r}"
            + (near if "did you" in near else "")
            + f" (a class is named by its import path, such as map2map.models.UNet; those of "
            f"{', '.join(PACKAGES)}, and losses of torch.nn, by their names alone, too)"
        )
    return part[:1].lower() + part[1:] if part.startswith("Expected") else part


def _type_name(match: re.Match[str]) -> str:
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    return names.get(match[1], f"a {match[1]}") if match[1] else "one of "


def _first(keys: Iterable[str]) -> Iterator[str]:
    return (key.partition(".")[0] for key in keys)


def _public(module: str) -> list[str]:
    found = import_module(module)
    return [name for name in getattr(found, "__all__", dir(found)) if not name.startswith("_")]


def _arguments(path: str) -> list[str] | None:
    """What a recipe can give a class; None if that is not known."""
    name = path.rpartition(".")[2]
    for module in (path.rpartition(".")[0],) if "." in path else PACKAGES:
        try:
            known = inspect.signature(getattr(import_module(module), name)).parameters
        except (ImportError, AttributeError, ValueError):
            continue
        several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
        given = {key for key, one in known.items() if one.kind not in several}
        return sorted(given - FILLED_IN)
    return None
