"""Variables of the environment in recipes: where data and logs are differs between machines.

In any text of a recipe stand

- ``${NAME}``, the variable ``NAME``, or ``${NAME:-default}``, as in a shell;
- ``${oc.env:NAME}`` or ``${oc.env:NAME,default}``, as OmegaConf writes the same;
- ``${oc.decode:text}``, what YAML reads in the text: a number, a list;
- ``$${``, for the two characters themselves.

They may stand inside each other: ``${oc.decode:${oc.env:GPUS,1}}``.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from map2map.errors import RecipeError

__all__ = ["expand"]

INNERMOST = re.compile(r"\$\{([^${}]*)\}")
SHELL = re.compile(r"([A-Za-z_]\w*)(?::-(.*))?", re.DOTALL)
OMEGACONF = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)\s*(?:,\s*(.*))?", re.DOTALL)
DECODE = "oc.decode:"
LITERAL = "\0"
"""Stands for ``${`` while others are replaced; no text of YAML holds it."""


def expand(value: Any, key: str = "", environment: Mapping[str, str] | None = None) -> Any:
    """A recipe, or a part of one, with its variables filled in.

    >>> expand({"data": ["${ROOT:-here}/a.npy", 3]}, environment={"ROOT": "/there"})
    {'data': ['/there/a.npy', 3]}

    Args:
        value: Dictionaries, lists, texts, numbers.
        key: Where it stands, for messages.
        environment: The variables; by default those of this process.

    Raises:
        RecipeError: If a variable has neither value nor default, or is not written as above.
    """
    if isinstance(value, Mapping):
        return {
            k: expand(v, f"{key}.{k}" if key else str(k), environment) for k, v in value.items()
        }
    if isinstance(value, list):
        return [expand(v, f"{key}[{i}]", environment) for i, v in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    return _text(value, key, os.environ if environment is None else environment)


def _text(text: str, key: str, environment: Mapping[str, str]) -> Any:
    whole, text = text, text.replace("$${", LITERAL)
    while match := INNERMOST.search(text):
        found = _value(match[1], key, environment)
        if not isinstance(found, str):
            if match[0] == text:
                return found
            # a part of a text is text
            found = str(found)
        # what a variable holds is not looked through for others
        text = text[: match.start()] + found.replace("${", LITERAL) + text[match.end() :]
    if "${" in text:
        raise RecipeError(f"{_at(key)}{whole!r} has a ${{ without its }}; write $${{ for itself")
    return text.replace(LITERAL, "${")


def _value(inside: str, key: str, environment: Mapping[str, str]) -> Any:
    if inside.startswith(DECODE):
        text = inside.removeprefix(DECODE).strip()
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"{_at(key)}{text!r} is not YAML") from error
    match = SHELL.fullmatch(inside) or OMEGACONF.fullmatch(inside)
    if match is None:
        raise RecipeError(
            f"{_at(key)}${{{inside}}} is no variable; write ${{NAME}}, ${{NAME:-default}} or "
            f"${{oc.env:NAME,default}}, or $${{ for the two characters themselves"
        )
    name, default = match.groups()
    found = environment.get(name)
    # as in a shell, a default also stands for what is empty
    if default is not None:
        return found or default
    if found is None:
        raise RecipeError(
            f"{_at(key)}the environment has no variable {name}; set it (export {name}=...), or "
            f"give a default: ${{{name}:-...}}"
        )
    return found


def _at(key: str) -> str:
    return f"{key}: " if key else ""
