"""Whether runs are new to the emulator, by their files and by the recipe in its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from map2map.report.headline import TEST, seen_files
from map2map.report.run_scores import RunScores
from map2map.report.wording import count

__all__ = ["HeldOut", "held_out", "within"]


@dataclass(frozen=True)
class HeldOut:
    """Whether the runs are new to the emulator.

    Args:
        proved: Whether that is certain.
        why: A sentence on how it is known; empty if it is not.
        warning: What a reader must know; empty if nothing.
    """

    proved: bool = False
    why: str = ""
    warning: str = ""


def held_out(scores: RunScores) -> HeldOut:
    """Compare the files of the inputs; where one holds several runs, the recipe tells which."""
    inputs = [str(each.get("name")) for each in scores.card.get("inputs", [])]
    # what a derived field is computed from has files, and no entry among the inputs
    inputs += [name for name in scores.about if name not in inputs] if scores.about else []
    both = seen_files(scores, inputs)
    if not both.told_by:
        return HeldOut(
            warning="Scores or card do not tell which files they are of, so whether the emulator "
            "was trained on these runs is not known."
        )
    if both.told_by == "split":
        return HeldOut(True, TEST)
    if both.held_out:
        return HeldOut(
            True,
            "No file of an input has the digest of one that the card names for training or "
            "validation.",
        )
    if not both.files:
        return HeldOut(
            why="No file of an input has the path of one that the card names for training or "
            "validation; digests, which would prove it, are not recorded."
        )
    taken = splits(scores)
    shown = ", ".join(both.files[:4]) + (" …" if len(both.files) > 4 else "")
    if taken is None:
        return HeldOut(
            warning=f"The emulator was trained or validated on {count(len(both.files), 'file')} of "
            f"those that it is scored on, by their {both.told_by} ({shown}), and nothing tells "
            f"apart the runs in them. These scores may not say how well it does on new runs."
        )
    used = {name: sum(split == name for split in taken) for name in ("train", "val")}
    if any(used.values()):
        numbers = f"trained on {used['train']} and validated on {used['val']}"
        return HeldOut(
            warning=f"The emulator was {numbers} of these {count(scores.groups, 'run')}, by the "
            f"recipe in its card. These scores do not say how well it does on new runs."
        )
    return HeldOut(
        both.told_by == "digest",
        f"Files of training or validation are scored ({shown}), but they hold several runs: the "
        f"recipe in the card takes none of those that are scored.",
    )


def splits(scores: RunScores) -> list[str] | None:
    """Which split of the training has each group, "" if none; None if nothing tells."""
    try:
        data = scores.card["training"]["recipe"]["data"]
        # the first of all that is taken of a split, by the names of placeholders
        chosen = {name: _only(data[name]) for name in ("train", "val") if data.get(name)}
    except (KeyError, TypeError, AttributeError):
        return None
    told = scores.told() | {
        name: [str(v) for v in scores.data[name].values]
        for name in scores.targets
        if name in scores.data.coords
    }
    keys = {key for only in chosen.values() for key in only}
    if not chosen or not all(chosen.values()) or not keys <= set(told):
        return None
    found = []
    for k in range(scores.groups):
        mine = [
            split
            for split, only in chosen.items()
            if all(within(told[key][k], wanted) for key, wanted in only.items())
        ]
        found.append(mine[0] if mine else "")
    return found


def _only(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Which values of placeholders a split takes, over its fields."""
    found: dict[str, Any] = {}
    for entry in fields.values():
        if isinstance(entry, Mapping) and isinstance(entry.get("only"), Mapping):
            found |= entry["only"]
    return found


def within(text: str, wanted: str | Sequence[str]) -> bool:
    """Whether a placeholder's value is taken.

    >>> within("0004", "0:5"), within("0005", "0:5"), within("gr", ["gr"])
    (True, False, True)
    """
    if not isinstance(wanted, str):
        return text in [str(each) for each in wanted]
    first, _, last = wanted.partition(":")
    try:
        return int(first) <= int(text) < int(last)
    except ValueError:
        # it cannot be told, so it counts as seen
        return True
