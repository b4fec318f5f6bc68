"""Baselines that are computed: from what was typed to derived fields."""

import ast
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import map2map.derived
from map2map.derived import Derived
from map2map.errors import RecipeError, near_names
from map2map.specs import build

__all__ = ["formulas_of"]

EXAMPLE = "resolved:sigma='GradientNorm(of=c)'"


def formulas_of(
    arguments: Sequence[str], trust: Sequence[str] = (), callback_at: Path | None = None
) -> dict[str, dict[str, Derived]]:
    """How each named baseline computes targets.

    >>> formulas_of(["resolved:sigma=GradientNorm(of=c)"])
    {'resolved': {'sigma': GradientNorm(c)}}

    Args:
        arguments: ``NAME:FIELD=CLASS(argument=value, …)``, where a class without dots is one of
            `map2map.derived`, and words need no quotes.
        trust: Import paths of others that may be imported.
        callback_at: Folder of the user's code.

    Raises:
        RecipeError: If one is not of this form, or its arguments do not fit.
        ArtefactError: If it asks for code that is not trusted.
    """
    found: dict[str, dict[str, Derived]] = {}
    for argument in arguments:
        place, equals, text = argument.partition("=")
        name, colon, target = place.partition(":")
        if not (name and colon and target and equals and text):
            raise RecipeError(
                f"--formula {argument!r} is not NAME:FIELD=CLASS(…), such as {EXAMPLE}"
            )
        if target in found.setdefault(name, {}):
            raise RecipeError(f"field {target!r} of the baseline {name!r} is given twice")
        path, values = parsed(text, argument)
        spec = {"class_path": path, "init_args": values}
        found[name][target] = build(spec, base=Derived, trust=trust, callback_at=callback_at)
    return found


def parsed(text: str, argument: str) -> tuple[str, Mapping[str, Any]]:
    """Import path and arguments of a call; nothing is run."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("it is not a class with named arguments")
        values = {str(word.arg): value_of(word.value) for word in call.keywords}
        path = ast.unparse(call.func)
    except (SyntaxError, ValueError) as error:
        raise RecipeError(
            f"--formula {argument!r} cannot be read: {error}; write it as {EXAMPLE}"
        ) from error
    if "." not in path:
        ours = {
            name: item
            for name, item in vars(map2map.derived).items()
            if inspect.isclass(item) and issubclass(item, Derived) and item is not Derived
        }
        if path not in ours:
            raise RecipeError(f"there is no derived field {path!r}{near_names(path, ours)}")
        path = f"map2map.derived.{path}"
    return path, values


def value_of(node: ast.expr) -> Any:
    """A number, word or list."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.List | ast.Tuple):
        return [value_of(entry) for entry in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"{ast.unparse(node)!r} is no number, word or list") from error
