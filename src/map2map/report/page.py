"""The page: sections of tables and pictures in order, filled into ``page.html``."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from map2map.errors import SaveError, SourceError
from map2map.files import replacing, slug
from map2map.report import curves, leads, maps, runs
from map2map.report.beside import Drawn, drawn_in
from map2map.report.drawing import Picture, save_pdf
from map2map.report.ensembles import ranks, spread
from map2map.report.filling import NOT_SCORED, Shown, filled, losses_of
from map2map.report.headline import TEST, headline, trained_on, warnings
from map2map.report.profiles import profiles
from map2map.report.scores import Scores, open_scores, scores_of
from map2map.report.tables import (
    SHOWN_RUNS,
    Row,
    percentile_rows,
    reach,
    run_rows,
    score_rows,
    time_rows,
)

__all__ = ["report"]

log = logging.getLogger(__name__)

Maker = Callable[[Scores, str, str], Picture | None]


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
    levels: list[Shown]
    members: list[Shown]


@dataclass(frozen=True)
class Content:
    """What the page is filled with."""

    title: str
    scores: Scores
    targets: list[Target]
    learning: Shown
    pictures: list[Picture] = field(default_factory=list)
    beside: list[Drawn] = field(default_factory=list)


def report(
    scores: Path | str,
    output: Path | str | None = None,
    *,
    title: str | None = None,
    pdf: Path | str | None = None,
    figures: Path | str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a scores file.

    Args:
        scores: What ``m2m evaluate`` has written, NetCDF or Zarr.
        output: The page; if not given, ``report.html`` beside the scores.
        title: Of the page.
        pdf: Folder to write every figure to, as PDF.
        figures: Folder of figures that ``m2m evaluate --figures`` has drawn, to be shown, too.
        overwrite: Whether files may be replaced.

    Returns:
        The path of the page.

    Raises:
        SourceError: If the scores cannot be read.
        SaveError: If a file is there already, or cannot be written.
    """
    data = open_scores(scores)
    page = Path(scores).parent / "report.html" if output is None else Path(output)
    made: Content | runs.Content | leads.Content
    if figures is not None and (runs.of_runs(data) or leads.of_leads(data)):
        what = "labels or parameters" if runs.of_runs(data) else "rollouts"
        raise SourceError(
            f"{scores} are of {what}, which have no figures of fields; leave --figures out"
        )
    if runs.of_runs(data):
        made = runs.content(runs.run_scores(Path(scores), data), title)
    elif leads.of_leads(data):
        made = leads.content(leads.lead_scores(Path(scores), data), title)
    else:
        made = content(scores_of(Path(scores), data), title)
        made.beside.extend([] if figures is None else drawn_in(Path(figures)))
    prints = {Path(pdf) / f"{p.name}.pdf": p for p in made.pictures} if pdf is not None else {}
    _refuse_to_replace([page, *prints], overwrite=overwrite)
    if isinstance(made, Content):
        text = render(made)
    else:
        text = runs.render(made) if isinstance(made, runs.Content) else leads.render(made)
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
    targets = [_target(scores, name, slug(name, used)) for name in scores.fields]
    losses, loss = losses_of(scores.card)
    learning = Shown(
        "Learning curve", curves.learning(losses, loss, "learning"), NOT_SCORED["learning"]
    )
    if title is None:
        title = f"Emulator of {', '.join(scores.fields)}"
    places = [
        each for t in targets for each in (*t.slices, *t.levels, *t.spectra, *t.members, *t.values)
    ]
    pictures = [each.picture for each in (*places, learning) if each.picture is not None]
    return Content(title, scores, targets, learning, pictures)


def _target(scores: Scores, name: str, slug: str) -> Target:
    missing = scores.data.attrs.get("spectra_missing")

    def shown(title: str, key: str, make: Maker) -> Shown:
        why = NOT_SCORED[key]
        if missing and key in ("spectra", "error", "bispectrum"):
            why = f"{why.partition(':')[0]}, since {missing}."
        return Shown(title, make(scores, name, f"{key}-{slug}"), why)

    kind = scores.data["kind"].sel(field=name).item() if "kind" in scores.data.coords else ""
    pictures = [
        maps.slices(scores, name, i, f"slices-{slug}" + (f"-{i}" if i else ""))
        for i in maps.drawn(scores, name)
    ]
    levels = profiles(scores, name, f"profiles-{slug}")
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
        # without levels there is nothing to be missed
        [] if levels is None else [Shown("Profiles", levels)],
        [
            shown("Ranks of the truth", "ranks", ranks),
            shown("Spread and error", "spread", spread),
        ]
        if scores.known("rank_histogram", field=name)
        else [],
    )


def render(made: Content) -> str:
    """The page as HTML."""
    scores = made.scores
    return filled(
        "page.html",
        scores,
        title=made.title,
        headline=headline(scores),
        warnings=warnings(scores),
        targets=made.targets,
        learning=made.learning,
        seen=trained_on(scores),
        test_split=TEST,
        length=scores.length_units(),
        times=time_rows(scores),
        shown_runs=SHOWN_RUNS,
        beside=made.beside,
    )
