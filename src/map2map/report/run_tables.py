"""Tables of labels and parameters: scores, and what is said of each run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from map2map.report.run_scores import RunScores, percent
from map2map.report.scores import Score
from map2map.report.tables import SHOWN_RUNS, Cell, Row, scored
from map2map.report.wording import DASH, number

__all__ = ["Listed", "group_rows", "score_rows"]

OF_LABEL = {
    "accuracy": "accuracy",
    "cross_entropy": "cross-entropy",
    "brier": "Brier score",
    "precision": "precision",
    "recall": "recall (TPR)",
    "fpr": "FPR",
    "f1": "F1",
    "auc": "area under ROC",
    "calibration_error": "calibration error",
}
OF_PARAMETER = {
    "rmse": "RMSE",
    "r2": "R²",
    "mae": "mean absolute error",
    "bias": "bias",
    "relative_error": "relative error",
    "pearson": "Pearson's r",
}


@dataclass(frozen=True)
class Listed:
    """A row of the table of runs: texts, and whether the answer is wrong."""

    name: str
    cells: tuple[str, ...]
    wrong: bool = False


def score_rows(scores: RunScores, part: str = "") -> list[Row]:
    """A row per score; of a parameter, or of a label and its classes.

    Cells are in the order of `columns`.

    Args:
        scores: The scores.
        part: Name of the parameter.
    """
    names = OF_LABEL if scores.kind == "label" else OF_PARAMETER
    rows = []
    for name, said in names.items():
        if name not in scores.data:
            continue
        values = scores.data[name]
        if "parameter" in values.dims:
            rows.append(_row(scores, name, said, {"parameter": part}))
        elif "class" in values.dims:
            shown = scores.classes[1:] if len(scores.classes) == 2 else scores.classes
            found = [_row(scores, name, f"{said} of {each}", {"class": each}) for each in shown]
            # what it means is said once
            rows += [*found[:1], *(replace(row, meaning="") for row in found[1:])]
        else:
            rows.append(_row(scores, name, said, {}))
    return rows


def columns(scores: RunScores) -> list[tuple[str, str]]:
    """Method and what its scores are of, for each column of numbers."""
    return [(method, per) for per in scores.pers[::-1] for method in scores.methods]


def _row(scores: RunScores, name: str, said: str, at: dict[str, str]) -> Row:
    perfect = scores.perfect(name)
    cells: list[Cell] = []
    for per in scores.pers[::-1]:
        found = []
        for method in scores.methods:
            parts = [
                float(scores.data[each].sel({**at, "method": method, "per": per}))
                for each in (name, f"{name}_low", f"{name}_high")
                if each in scores.data
            ]
            found.append(Score(*parts))
        cells += scored(found, perfect)
    about = scores.data[name].attrs
    own = scores.units(at.get("parameter", ""))
    units = str(about.get("units", "1")).replace("field", own or "1")
    meaning = str(about.get("long_name", ""))
    shown = "" if meaning.casefold().startswith(said.casefold()) else meaning
    best = DASH if perfect is None else f"{perfect:g}"
    return Row(said, "" if units == "1" else units, best, tuple(cells), shown)


def group_rows(scores: RunScores) -> tuple[list[str], list[Listed]]:
    """Heads and rows of the table of runs, the worst first."""
    told = scores.told()
    heads, values, badness, wrong = (_of_labels if scores.kind == "label" else _of_parameters)(
        scores
    )
    names = [str(name) for name in scores.data["group_name"].values]
    rank = np.argsort(-badness, kind="stable")[:SHOWN_RUNS]
    rows = [
        Listed(
            names[k],
            (*(column[k] for column in told.values()), *(column[k] for column in values)),
            bool(wrong[k]),
        )
        for k in rank
    ]
    return ["Run", *told, *heads], rows


Columns = tuple[list[str], list[list[str]], np.ndarray, np.ndarray]


def _of_labels(scores: RunScores) -> Columns:
    mine, names = scores.of("emulator"), scores.classes
    truth, said = (mine[f"group_{each}"].values.astype(int) for each in ("truth", "predicted"))
    p = mine.group_probability.transpose("group", "class").values
    rows = np.arange(len(truth))
    heads = ["truth", "predicted"]
    values = [[names[k] for k in truth], [names[k] for k in said]]
    if len(names) == 2:
        heads.append(f"probability of {names[1]}")
        values.append([f"{x:.3f}" for x in p[:, 1]])
    else:
        heads += ["probability of the predicted", "of the truth"]
        values += [[f"{x:.3f}" for x in p[rows, which]] for which in (said, truth)]
    if len(scores.pers) > 1:
        heads += [f"{scores.pers[0]}s", "of them right"]
        values.append([str(int(n)) for n in mine.group_images.values])
        values.append([percent(float(x)) for x in mine.group_right.values])
    # log odds order what is certain to be 1 within rounding
    odds = mine.group_log_odds.transpose("group", "class").values[rows, truth]
    wrong = said != truth
    badness = np.empty(len(rows))
    badness[np.lexsort((-odds, wrong))] = rows
    return heads, values, badness, wrong


def _of_parameters(scores: RunScores) -> Columns:
    mine, heads = scores.of("emulator"), []
    values: list[list[str]] = []
    badness = np.zeros(scores.groups)
    line = scores.of("mean_line") if "mean_line" in scores.methods else None
    for name in scores.targets:
        part = mine.sel(parameter=name)
        truth, output = part.group_truth.values, part.group_output.values
        unit = f" [{scores.units(name)}]" if scores.units(name) else ""
        heads += [f"{name}{unit}, truth", "predicted"]
        values += [_numbers(truth), _numbers(output)]
        if len(scores.pers) > 1:
            heads.append("± spread")
            values.append(_numbers(part.group_spread.values))
        if line is not None:
            heads.append("mean line")
            values.append(_numbers(line.group_output.sel(parameter=name).values))
        error = np.abs(output - truth)
        badness = np.maximum(badness, error / (np.sqrt((error**2).mean()) or 1))
    return heads, values, badness, np.zeros(scores.groups, bool)


def _numbers(values: Sequence[float] | np.ndarray) -> list[str]:
    return [number(float(value), digits=4) for value in values]
