"""The page of labels and parameters of whole runs: its parts in order, into ``runs.html``."""

from dataclasses import dataclass, field, replace

from map2map.report import curves
from map2map.report.drawing import Picture
from map2map.report.filling import NOT_SCORED, Shown, filled, losses_of
from map2map.report.run_origin import held_out
from map2map.report.run_pictures import decisions, measures, parameters
from map2map.report.run_scores import LINE, RunScores, of_runs, run_scores
from map2map.report.run_tables import columns, group_rows, score_rows
from map2map.report.run_words import headline, warnings
from map2map.report.tables import SHOWN_RUNS, Row

__all__ = ["Content", "content", "of_runs", "render", "run_scores"]

NO_MEASURES = "The emulator's card holds no accuracy or other measure of its epochs."


@dataclass(frozen=True)
class Content:
    """What the page is filled with."""

    title: str
    scores: RunScores
    tables: list[tuple[str, str, list[Row]]]
    figures: list[list[list[Shown]]]
    learning: list[Shown]
    pictures: list[Picture] = field(default_factory=list)


def content(scores: RunScores, title: str | None = None) -> Content:
    """Everything on the page, with pictures not yet drawn."""
    of_label = scores.kind == "label"
    parts = [""] if of_label else scores.targets
    tables = [(part, scores.units(part), score_rows(scores, part)) for part in parts]
    made = decisions(scores) if of_label else parameters(scores)
    # rows of columns: what is compared stands side by side
    tables_of = [[["confusion"], ["confusion_line"]]]
    if of_label and len(scores.classes) > 2:
        # which are too wide for that
        tables_of = [[["confusion"]], [["confusion_line"]]]
    order = [*tables_of, [["roc", "logits"], ["reliability"]]]
    order = order if of_label else [[[name]] for name in made]
    figures = [
        [[Shown(n, made[n]) for n in column] for column in row if column[0] in made]
        for row in order
    ]
    figures = [row for row in figures if row]
    losses, loss = losses_of(scores.card)
    curve = curves.learning(losses, loss, "learning")
    if curve is not None:
        curve = replace(curve, caption=curve.caption.replace(" of normalized fields", ""))
    learning = [
        Shown("Learning curve", curve, NOT_SCORED["learning"]),
        Shown("Measures", measures(scores.card, "measures"), NO_MEASURES),
    ]
    if title is None:
        title = f"Emulator of {', '.join(scores.targets)}"
    places = [each for row in figures for column in row for each in column] + learning
    pictures = [each.picture for each in places if each.picture is not None]
    return Content(title, scores, tables, figures, learning, pictures)


def render(made: Content) -> str:
    """The page as HTML."""
    scores = made.scores
    heads, rows = group_rows(scores)
    return filled(
        "runs.html",
        scores,
        title=made.title,
        headline=headline(scores),
        warnings=warnings(scores),
        tables=made.tables,
        columns=columns(scores),
        figures=made.figures,
        learning=made.learning,
        heads=heads,
        rows=rows,
        shown_runs=SHOWN_RUNS,
        held=held_out(scores),
        line=LINE,
    )
