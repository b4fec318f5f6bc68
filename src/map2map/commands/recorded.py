"""The data of a training, as the emulator's card tells them; nothing of a card is run."""

from collections.abc import Mapping
from typing import Any

from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.fields import FieldSet
from map2map.patterns import Files
from map2map.runs import Patterns, Runs
from map2map.splits import SIDES, Split
from map2map.told import Told

__all__ = ["entry_of", "recorded_runs", "runs_for"]


def entry_of(value: Any) -> str | list[str] | Files | Told | float:
    """Where a field is, as a recipe says it.

    >>> entry_of({"pattern": "a.h5", "variable": "x"}).variable
    'x'
    """
    if not isinstance(value, Mapping):
        return value  # type: ignore[no-any-return]
    try:
        return Files(**value) if "pattern" in value else Told(**value)
    except TypeError as error:
        raise RecipeError(f"the emulator's card says of its data {dict(value)}: {error}") from error


def recorded_runs(
    emulator: Emulator, side: str, targets: FieldSet | None = None
) -> tuple[Runs, Patterns]:
    """The runs of a split of the emulator's training, and where their files are.

    Args:
        emulator: The emulator.
        side: "train", "val" or "test".
        targets: Only these; default: all.

    Raises:
        RecipeError: If the card does not tell.
        M2MError: If the files are not there, or do not fit.
    """
    targets = emulator.targets if targets is None else targets
    data = emulator.training_record.get("recipe", {}).get("data")
    if not data:
        raise RecipeError(
            "the emulator's card has no recipe that would tell its data; list their files instead "
            "of --split"
        )
    how = data.get("split")
    given = data.get("train" if how else side)
    if given is None:
        there = ", ".join(name for name in SIDES if data.get(name))
        raise RecipeError(
            f"the emulator was trained without {side} files; its recipe has {there}; list the "
            f"files instead of --split, or train with data.{side} or data.split"
        )
    unused = set(emulator.targets.names) - set(targets.names)
    patterns: dict[str, Any] = {
        name: entry_of(value) for name, value in given.items() if name not in unused
    }
    runs = runs_for(emulator, targets, patterns)
    if how:
        parts = runs.split(Split(**how))
        if side not in parts:
            raise RecipeError(f"the split {how['ratios']} of the training leaves {side} no share")
        runs = parts[side]
    return runs, patterns


def runs_for(emulator: Emulator, targets: FieldSet, patterns: Mapping[str, Any]) -> Runs:
    """Runs of what an emulator takes, with some of the targets."""
    return Runs(
        list(emulator.inputs),
        list(targets),
        patterns,
        emulator.domain,
        scale_factor=emulator.footprint.scale,
        derived=emulator.derived,
        styles=list(emulator.styles),
    )
