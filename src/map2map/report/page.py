"""The page: sections of tables and pictures in order, filled into ``page.html``."""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from map2map import __version__
from map2map.errors import SaveError
from map2map.files import replacing
from map2map.report import curves, maps
from map2map.report.drawing import Picture, save_pdf, svg
from map2map.report.headline import headline, trained_on, warnings
from map2map.report.scores import Scores, read_scores
from map2map.report.tables import (
    SHOWN_RUNS,
    Row,
    card_rows,
    percentile_rows,
    reach,
    run_rows,
    score_rows,
    time_rows,
)
from map2map.report.wording import count

__all__ = ["report"]

log = logging.getLogger(__name__)

Maker = Callable[[Scores, str, str], Picture | None]

NOT_SCORED = {
    "slices": "The scores hold no slices; fields on one axis have none.",
    "spectra": "Spectra were not scored: they need periodic fields without missing values.",
    "error": "The error against scale was not scored: it needs periodic fields without missing "
    "values.",
    "bispectrum": "The bispectrum was not scored: it needs periodic fields on three axes without "
    "missing values.",
    "joint": "The scores hold no histogram of truth against emulator.",
    "runs": "There is one run.",
    "learning": "The emulator's card holds no losses.",
}


@dataclass(frozen=True)
class Shown:
    """A place for a picture: the picture, or why there is none."""

    title: str
    picture: Picture | None
    instead: str = ""


@dataclass(frozen=True)
class Target:
    """All that is said about one target field."""

    name: str
    units: str
    kind: str
    rows: list[Row]
    reach: list[Row]
    runs: list[Row]
    percentiles: list[Row]
    slices: list[Shown]
    spectra: list[Shown]
    values: list[Shown]


@dataclass(frozen=True)
class Content:
    """What the page is filled with."""

    title: str
    scores: Scores
    targets: list[Target]
    learning: Shown
    pictures: list[Picture] = field(default_factory=list)


def report(
    scores: Path | str,
    output: Path | str | None = None,
    *,
    title: str | None = None,
    pdf: Path | str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a scores file.

    Args:
        scores: What ``m2m evaluate`` has written, NetCDF or Zarr.
        output: The page; if not given, ``report.html`` beside the scores.
        title: Of the page.
        pdf: Folder to write every figure to, as PDF.
        overwrite: Whether files may be replaced.

    Returns:
        The path of the page.

    Raises:
        SourceError: If the scores cannot be read.
        SaveError: If a file is there already, or cannot be written.
    """
    found = read_scores(scores)
    page = Path(scores).parent / "report.html" if output is None else Path(output)
    made = content(found, title)
    prints = {Path(pdf) / f"{p.name}.pdf": p for p in made.pictures} if pdf is not None else {}
    _refuse_to_replace([page, *prints], overwrite=overwrite)
    text = render(made)
    for path, picture in prints.items():
        with replacing(path) as temporary:
            save_pdf(picture, temporary)
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def _refuse_to_replace(paths: Sequence[Path], *, overwrite: bool) -> None:
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise SaveError(f"cannot write {folders[0]}: it is a folder; give the name of a file")
    existing = [path for path in paths if path.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise SaveError(
            f"{existing[0]}{more} exists already; choose another name (--output, --pdf) or allow "
            f"to replace it (--overwrite)"
        )


def content(scores: Scores, title: str | None = None) -> Content:
    """Everything on the page, with pictures not yet drawn."""
    used: set[str] = set()
    targets = [_target(scores, name, _slug(name, used)) for name in scores.fields]
    losses, loss = _losses(scores.card)
    learning = Shown(
        "Learning curve", curves.learning(losses, loss, "learning"), NOT_SCORED["learning"]
    )
    if title is None:
        title = f"Emulator of {', '.join(scores.fields)}"
    places = [each for t in targets for each in (*t.slices, *t.spectra, *t.values)]
    pictures = [each.picture for each in (*places, learning) if each.picture is not None]
    return Content(title, scores, targets, learning, pictures)


def _slug(name: str, used: set[str]) -> str:
    """A part of a file name, a letter first, that no other field has."""
    start = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "field"
    slug, number = start, 2
    while slug in used:
        slug, number = f"{start}-{number}", number + 1
    used.add(slug)
    return slug


def _target(scores: Scores, name: str, slug: str) -> Target:
    missing = scores.data.attrs.get("spectra_missing")

    def shown(title: str, key: str, make: Maker) -> Shown:
        why = NOT_SCORED[key]
        if missing and key in ("spectra", "error", "bispectrum"):
            why = f"{why.partition(':')[0]}, since {missing}."
        return Shown(title, make(scores, name, f"{key}-{slug}"), why)

    kind = scores.data["kind"].sel(field=name).item() if "kind" in scores.data.coords else ""
    components = scores.data.sizes.get("component", 1)
    pictures = [
        maps.slices(scores, name, i, f"slices-{slug}" + (f"-{i}" if i else ""))
        for i in range(components)
    ]
    slices = [Shown("Slices", picture) for picture in pictures if picture is not None]
    return Target(
        name,
        scores.units(name),
        str(kind),
        score_rows(scores, name),
        reach(scores, name),
        run_rows(scores, name),
        percentile_rows(scores, name),
        slices or [Shown("Slices", None, NOT_SCORED["slices"])],
        [
            shown("Spectra", "spectra", curves.spectra),
            shown("Error against scale", "error", curves.error_by_scale),
            shown("Bispectrum", "bispectrum", curves.bispectrum),
        ],
        [
            shown("Truth against emulator", "joint", maps.joint),
            shown("Run by run", "runs", curves.runs),
        ],
    )


def _losses(card: Mapping[str, Any]) -> tuple[dict[str, list[float]], str]:
    """Losses after each epoch by split, and the name of the loss."""
    held = card.get("scores")
    found = held.get("loss") if isinstance(held, Mapping) else None
    losses = {}
    for split, values in found.items() if isinstance(found, Mapping) else ():
        if isinstance(values, list) and values and all(isinstance(v, int | float) for v in values):
            losses[str(split)] = [float(v) for v in values]
    try:
        loss = str(card["training"]["recipe"]["model"]["loss"]["class_path"]).rpartition(".")[2]
    except (KeyError, TypeError):
        loss = ""
    return losses, loss


def render(made: Content) -> str:
    """The page as HTML."""
    scores = made.scores
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("map2map") / "report" / "page.html"
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        title=made.title,
        headline=headline(scores),
        warnings=warnings(scores),
        targets=made.targets,
        learning=made.learning,
        scores=scores,
        methods=scores.methods,
        card=card_rows(scores),
        whole_card=json.dumps(_trimmed(scores.card), indent=2, ensure_ascii=False),
        about=json.dumps(_without_lists(scores.about), indent=2, ensure_ascii=False),
        seen=trained_on(scores),
        length=scores.length_units(),
        times=time_rows(scores),
        shown_runs=SHOWN_RUNS,
        svg=svg,
        count=count,
        versions=_versions(scores.data),
        version=__version__,
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
