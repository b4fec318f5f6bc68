"""What pages of all kinds share: the frame ``base.html``, the card, and places for pictures."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import xarray as xr

from map2map import __version__
from map2map.report.drawing import Picture, svg
from map2map.report.scores import Held
from map2map.report.tables import card_rows
from map2map.report.wording import count

__all__ = ["NOT_SCORED", "Shown", "by_epoch", "filled", "losses_of"]

NOT_SCORED = {
    "slices": "The scores hold no slices; fields on one axis have none.",
    "spectra": "Spectra were not scored: they need periodic fields without missing values.",
    "error": "The error against scale was not scored: it needs periodic fields without missing "
    "values.",
    "bispectrum": "The bispectrum was not scored: it needs periodic fields on three axes without "
    "missing values.",
    "joint": "The scores hold no histogram of truth against emulator.",
    "ranks": "The scores hold no ranks of the truth.",
    "spread": "Members do not scatter, or the scores do not tell.",
    "runs": "There is one run.",
    "learning": "The emulator's card holds no losses.",
}


@dataclass(frozen=True)
class Shown:
    """A place for a picture: the picture, or why there is none."""

    title: str
    picture: Picture | None
    instead: str = ""


def losses_of(card: Mapping[str, Any]) -> tuple[dict[str, list[float]], str]:
    """Losses after each epoch by split, and the name of the loss."""
    held = card.get("scores")
    found = held.get("loss") if isinstance(held, Mapping) else None
    losses = {}
    for split, values in found.items() if isinstance(found, Mapping) else ():
        numbers = by_epoch(values)
        if numbers is not None:
            losses[str(split)] = numbers
    try:
        loss = str(card["training"]["recipe"]["model"]["loss"]["class_path"]).rpartition(".")[2]
    except (KeyError, TypeError):
        loss = ""
    return losses, loss


def by_epoch(values: Any) -> list[float] | None:
    """Numbers of a card, one per epoch; NaN for epochs without, such as those not validated.

    JSON has null for these.

    >>> by_epoch([None, 0.5]), by_epoch([None]), by_epoch("0.5")
    ([nan, 0.5], None, None)

    Returns:
        The numbers; None if there are none, or something else.
    """
    if not isinstance(values, list) or not all(isinstance(v, int | float | None) for v in values):
        return None
    numbers = [math.nan if value is None else float(value) for value in values]
    return numbers if any(map(math.isfinite, numbers)) else None


def filled(name: str, scores: Held, **values: Any) -> str:
    """A page as HTML.

    Args:
        name: Of the template, which extends ``base.html``.
        scores: The scores.
        values: What the template asks for besides.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("map2map", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(
        scores=scores,
        methods=scores.methods,
        card=card_rows(scores),
        whole_card=json.dumps(_trimmed(scores.card), indent=2, ensure_ascii=False),
        about=json.dumps(_without_lists(scores.about), indent=2, ensure_ascii=False),
        versions=_versions(scores.data),
        version=__version__,
        svg=svg,
        count=count,
        **values,
    )


def _trimmed(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card with counts in place of long lists of files."""
    card = dict(card)
    training = card.get("training")
    if isinstance(training, Mapping) and isinstance(training.get("files"), Mapping):
        counts = {split: count(len(runs), "run") for split, runs in training["files"].items()}
        card["training"] = {**training, "files": counts}
    return card


def _without_lists(value: Any, most: int = 12) -> Any:
    """A record with what is longer than a dozen entries cut."""
    if isinstance(value, Mapping):
        return {key: _without_lists(each, most) for key, each in value.items()}
    if isinstance(value, list):
        rest = [f"… and {len(value) - most} more"] if len(value) > most else []
        return [*(_without_lists(each, most) for each in value[:most]), *rest]
    return value


def _versions(data: xr.Dataset) -> str:
    text = str(data.attrs.get("versions", ""))
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, Mapping):
        return ", ".join(f"{name} {version}" for name, version in found.items())
    return text
