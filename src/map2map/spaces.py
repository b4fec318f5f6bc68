"""Search spaces: what a search varies in a recipe, and the trials that came of it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml

from map2map.errors import RecipeError, near_names
from map2map.yaml_files import load_yaml

__all__ = [
    "Choice",
    "Range",
    "Space",
    "State",
    "Trial",
    "label",
    "read_space",
    "short_label",
    "short_names",
    "vary",
]

FORMS = (
    "int:LOW:HIGH, int:LOW:HIGH:log, int:LOW:HIGH:STEP, the same with float, or choices "
    "separated by commas"
)
RANGE_LIKE = re.compile(r"\w+(:[-+.\deE]+){2}(:[-+.\w]+)?")
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    >>> str(Range(8, 64, whole=True, log=True))
    'int:8:64:log'

    Args:
        low: The least.
        high: The greatest.
        whole: Whether they are whole numbers.
        log: Whether their logarithm is drawn uniformly.
        step: Only ``low`` plus multiples of it.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        low, high, step = self.low, self.high, self.step
        if not all(map(math.isfinite, (low, high))):
            raise RecipeError(f"from {low} to {high}: both ends must be finite")
        if self.whole and not all(float(n).is_integer() for n in (low, high, step or 1)):
            raise RecipeError(f"{self}: an int range needs whole numbers; use float")
        if low >= high:
            raise RecipeError(
                f"from {low} to {high}: low must be below high; a value that does not vary is "
                f"given as in `m2m train`, --KEY VALUE"
            )
        if self.log and low <= 0:
            raise RecipeError(
                f"from {low} to {high} with log: low must be positive, for its logarithm; "
                f"raise it or leave out log"
            )
        if step is None:
            return
        if self.log:
            raise RecipeError(f"{self}: a range has either log or a step, not both")
        if not step > 0:
            raise RecipeError(f"step {step}: it must be positive")
        if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            raise RecipeError(
                f"from {low} to {high} in steps of {step}: high is no whole number of steps from "
                f"low; change one of them"
            )

    def __str__(self) -> str:
        more = ":log" if self.log else "" if self.step is None else f":{self.step:.12g}"
        kind, number = ("int", int) if self.whole else ("float", float)
        low, high = (number(n) if math.isfinite(n) else n for n in (self.low, self.high))
        return f"{kind}:{low!r}:{high!r}{more}"

    def ends(self) -> tuple[Any, ...]:
        """The values that a recipe has to allow if it is to allow all."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values, of any kind that a recipe may hold.

    >>> str(Choice(("UNet", [4, 4])))
    'UNet, [4, 4]'
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        labels = [label(value) for value in self.values]
        if len(labels) < 2:
            raise RecipeError(
                f"{', '.join(labels) or 'nothing'}: a choice needs at least two values; a value "
                f"that does not vary is given as in `m2m train`, --KEY VALUE"
            )
        twice = next((text for text in labels if labels.count(text) > 1), None)
        if twice is not None:
            raise RecipeError(f"the choice {twice} is given twice")

    def __str__(self) -> str:
        return ", ".join(map(label, self.values))

    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values


Space = Mapping[str, Range | Choice]
"""What is varied, by the key of the recipe."""


State = Literal["completed", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """What came of one trial.

    Args:
        number: Its number, from 1.
        state: Whether all its epochs were trained, or a pruner or an error ended it.
        values: What it had, by the key of the recipe.
        score: The best that it has reached; None if it has reached none.
        epoch: After which epoch.
        epochs: How many were trained.
        seconds: How long it took [s].
        message: Why it failed.
    """

    number: int
    state: State
    values: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    epoch: int | None = None
    epochs: int = 0
    seconds: float = 0.0
    message: str = ""


def label(value: Any) -> str:
    """A value as one writes it on the command line.

    >>> label("UNet"), label(True), label([4, 4])
    ('UNet', 'true', '[4, 4]')
    """
    return value if isinstance(value, str) else json.dumps(value)


def short_label(value: Any) -> str:
    """A value as one tells it: of an import path the name, of a number four digits.

    >>> short_label("map2map.models.UNet"), short_label(0.123456), short_label([0.5])
    ('UNet', '0.1235', '[0.5]')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value.rpartition(".")[2] if isinstance(value, str) else label(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The keys with as few of their last parts as tell them from each other.

    >>> short_names(["model.model.class_path", "model.optimizer.class_path", "data.crops.size"])
    {'model.model.class_path': 'model', 'model.optimizer.class_path': 'optimizer', \
'data.crops.size': 'size'}
    """
    parts = {
        key: [p for p in key.split(".") if p not in ("init_args", "class_path")] for key in keys
    }
    names = {}
    for key, own in parts.items():
        others = [other for k, other in parts.items() if k != key]
        alone = (n for n in range(1, len(own) + 1) if all(o[-n:] != own[-n:] for o in others))
        count = next(alone, None)
        names[key] = key if count is None else ".".join(own[-count:])
    return names


def vary(text: str) -> tuple[str, Range | Choice]:
    """What ``--vary KEY=…`` says.

    >>> vary("model.optimizer.init_args.lr=float:1e-5:1e-1:log")
    ('model.optimizer.init_args.lr', Range(low=1e-05, high=0.1, whole=False, log=True, step=None))
    >>> vary("model.model.class_path=UNet,VNet")
    ('model.model.class_path', Choice(values=('UNet', 'VNet')))

    Raises:
        RecipeError: If it cannot be understood.
    """
    key, equals, what = text.partition("=")
    if not equals or not key or not what:
        raise RecipeError(f"{text!r} is not KEY=WHAT; WHAT is {FORMS}")
    return key, _parsed(key, what)


def read_space(path: Path) -> dict[str, Range | Choice]:
    """What a YAML file says: for each key a text as behind ``--vary``, a list, or a mapping.

    Raises:
        RecipeError: If there is no such file, or it cannot be understood.
    """
    try:
        found = load_yaml(path.read_text(), path)
    except OSError as error:
        raise RecipeError(f"cannot read the search space {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not found:
        what = "empty" if not found else f"a {type(found).__name__}"
        raise RecipeError(
            f"{path} is {what}, not a search space; it has a line for each key of the recipe that "
            f"varies, such as `model.optimizer.init_args.lr: float:1e-5:1e-1:log`"
        )
    return {str(key): _parsed(str(key), what, f"{path}: ") for key, what in found.items()}


def _parsed(key: str, what: Any, where: str = "") -> Range | Choice:
    try:
        if isinstance(what, str):
            return _from_text(what)
        if isinstance(what, list):
            return Choice(tuple(map(_plain, what)))
        if isinstance(what, dict):
            return _from_mapping(what)
        raise RecipeError(f"{what!r} says not what to vary; it is {FORMS}, or a list")
    except RecipeError as error:
        raise RecipeError(f"{where}{key}: {error}") from error


def _from_text(text: str) -> Range | Choice:
    kind, *numbers = text.split(":")
    if kind in ("int", "float"):
        low, high, *more = [*numbers, "", ""][: max(2, len(numbers))]
        if not low or not high or len(more) > 1:
            raise RecipeError(f"{text!r} is no range; it is {FORMS}")
        step = more[0] if more and more[0] != "log" else None
        return _range(kind, low, high, log=more == ["log"], step=step)
    if RANGE_LIKE.fullmatch(text):
        raise RecipeError(
            f"{text!r} is no range, which begins with int or float"
            f"{near_names(kind, ('int', 'float'))}"
        )
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{text!r} is no list of choices; quote what is special in YAML"
        ) from error
    return Choice(tuple(map(_plain, values)))


def _from_mapping(what: dict[str, Any]) -> Range:
    known = ("type", "low", "high", "log", "step")
    for name in what:
        if name not in known:
            raise RecipeError(f"there is no key {name!r}{near_names(str(name), known)}")
    for name in ("low", "high"):
        if name not in what:
            raise RecipeError(f"a range needs {name}; it has the keys {', '.join(known)}")
    log, both = what.get("log", False), (what["low"], what["high"])
    kind = what.get("type", "int" if all(isinstance(n, int) for n in both) else "float")
    if kind not in ("int", "float"):
        raise RecipeError(f"type is {kind!r}; it must be int or float")
    if not isinstance(log, bool):
        raise RecipeError(f"log is {log!r}; it must be true or false")
    return _range(kind, *both, log=log, step=what.get("step"))


def _range(kind: str, low: Any, high: Any, *, log: bool, step: Any) -> Range:
    numbers = []
    for name, value in (("low", low), ("high", high), ("step", step)):
        try:
            numbers.append(None if value is None else float(value))
        except (TypeError, ValueError):
            hint = " (or `log`)" if name == "step" else ""
            raise RecipeError(f"{name} is {value!r}; it must be a number{hint}") from None
    least, greatest, every = numbers
    if least is None or greatest is None:
        raise RecipeError("low and high must be numbers")
    return Range(least, greatest, whole=kind == "int", log=log, step=every)


def _plain(value: Any) -> Any:
    """YAML takes 1e-3 for a text; here it is the number."""
    if isinstance(value, str):
        return float(value) if EXPONENT.fullmatch(value) else value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value
