"""Tables of the page: scores against baselines, scales, runs, times, and the emulator's card."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.report.scores import HEADLINE, Held, Score, Scores, column_means
from map2map.report.wording import DASH, count, duration, number, score, times

__all__ = [
    "Cell",
    "Row",
    "card_rows",
    "percentile_rows",
    "reach",
    "run_rows",
    "score_rows",
    "time_rows",
]

SHOWN_RUNS = 200
"""Most runs that the page lists one by one."""

FIRST = (HEADLINE, "r2", "pearson", "rmse", "mae", "max_error", "bias")
"""Scores in the order of the table; then come the others."""


@dataclass(frozen=True)
class Cell:
    """A number, its interval, and whether it is the best of its row."""

    value: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is about, in which units, a cell per method, what it means."""

    name: str
    units: str
    perfect: str
    cells: tuple[Cell, ...]
    meaning: str = ""


def score_rows(scores: Scores, field: str) -> list[Row]:
    """A row per score that is known for a field."""
    names = scores.scalars()
    order = [name for name in FIRST if name in names]
    order += [name for name in names if name not in FIRST]
    rows = []
    for name in order:
        if scores.known(name, field=field):
            perfect = scores.perfect(name)
            found = [scores.score(name, method, field) for method in scores.methods]
            cells = scored(found, perfect)
            said, units = scores.called(name), scores.units_of(name, field)
            meaning = scores.label(name)
            shown = meaning if not meaning.casefold().startswith(said.casefold()) else ""
            rows.append(Row(said, units, DASH if perfect is None else f"{perfect:g}", cells, shown))
    return rows


def scored(found: Sequence[Score], perfect: float | None) -> tuple[Cell, ...]:
    """A cell for each method's score; the best is marked if a perfect one is known."""
    best = closest([each.mean for each in found], math.nan if perfect is None else perfect)
    told = [score(each, perfect or 0.0) for each in found]
    return tuple(Cell(*texts, best=b) for texts, b in zip(told, best, strict=True))


def closest(values: Sequence[float], perfect: float) -> list[bool]:
    """Which values are nearest to perfect; none if there is nothing to compare with.

    >>> closest([0.1, -0.05, float("nan")], 0.0)
    [False, True, False]
    """
    far = [abs(value - perfect) for value in values]
    known = [distance for distance in far if math.isfinite(distance)]
    if len(known) < 2 or min(known) == max(known):
        return [False] * len(far)
    return [distance == min(known) for distance in far]


def percentile_rows(scores: Scores, field: str) -> list[Row]:
    """A row per percentile of the error that is known for a field, mean over runs."""
    name = "error_percentile"
    if not scores.known(name, field=field):
        return []
    rows = []
    means = np.stack(
        [column_means(scores.values(name, method=m, field=field)) for m in scores.methods]
    )
    for place, percent in enumerate(scores.data["percentile"].values):
        found = [float(value) for value in means[:, place]]
        cells = zip(found, closest(found, 0.0), strict=True)
        made = tuple(Cell(number(value), best=best) for value, best in cells)
        rows.append(Row(f"{float(percent):g} %", "", "", made))
    return rows


def reach(scores: Scores, field: str, levels: Sequence[float] = (0.99, 0.95, 0.9)) -> list[Row]:
    """Up to which wavenumber the mean correlation with the truth stays above given levels."""
    if not scores.known("correlation", field=field):
        return []
    k = np.asarray(scores.data["k"].values, np.float64)
    rows = []
    for level in levels:
        found = [
            crossing(k, scores.curve("correlation", method, field)[0], level)
            for method in scores.methods
        ]
        best = closest([1 / value if value > 0 else 1e300 for value in found], 0.0)
        cells = [Cell(_wavenumber(value, k), best=b) for value, b in zip(found, best, strict=True)]
        rows.append(Row(f"r > {level:g}", "", "", tuple(cells)))
    return rows


def crossing(k: NDArray[np.float64], values: NDArray[np.float64], level: float) -> float:
    """Where a curve first falls below a level, interpolated; 0 or infinity if beyond the ends."""
    known = np.isfinite(values)
    k, values = k[known], values[known]
    below = np.flatnonzero(values < level)
    if values.size == 0:
        return math.nan
    if below.size == 0:
        return math.inf
    first = int(below[0])
    if first == 0:
        return 0.0
    share = (values[first - 1] - level) / (values[first - 1] - values[first])
    return float(k[first - 1] + share * (k[first] - k[first - 1]))


def _wavenumber(value: float, k: NDArray[np.float64]) -> str:
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return f"> {number(float(k[-1]))}"
    return number(value) if value > 0 else f"< {number(float(k[0]))}"


def run_rows(scores: Scores, field: str) -> list[Row]:
    """The error of every run, the emulator's worst first."""
    table = scores.data[HEADLINE].sel(field=field)
    every = np.asarray(table.transpose("run", "method").values, np.float64)
    rank = np.argsort(np.where(np.isfinite(every[:, 0]), -every[:, 0], -np.inf))
    rows = []
    for place in rank[:SHOWN_RUNS]:
        found = [float(value) for value in every[place]]
        cells = zip(found, closest(found, 0.0), strict=True)
        made = tuple(Cell(number(value), best=best) for value, best in cells)
        rows.append(Row(scores.runs[place], "", "", made))
    return rows


def time_rows(scores: Scores) -> list[tuple[str, str]]:
    """What a run costs, with the emulator and with the simulator."""
    seconds, simulator = scores.seconds(), scores.simulator_seconds
    rows = []
    if seconds.size:
        middle = float(np.median(seconds))
        spread = ""
        if seconds.size > 1:
            spread = f" (from {duration(float(seconds.min()))} to {duration(float(seconds.max()))})"
        rows.append(
            (
                "Emulator, per run" + (", median" if seconds.size > 1 else ""),
                duration(middle) + spread,
            )
        )
    if simulator is not None:
        rows.append(("Simulator, as told", duration(simulator)))
        if seconds.size and middle > 0:
            rows.append(("Speed-up", f"{times(simulator / middle)} times"))
    return rows


def card_rows(scores: Held) -> list[tuple[str, str]]:
    """What the emulator says about itself, in words."""
    card = scores.card
    training = _mapping(card.get("training"))
    rows = [
        ("Takes", ", ".join(_field(each) for each in _list(card.get("inputs")))),
        ("Gives", ", ".join(_field(each) for each in _list(card.get("targets")))),
        ("Styles", _styles(card)),
        ("Network", _spec(card.get("model"))),
        ("Sees", _footprint(_mapping(card.get("footprint")))),
        ("Norms", "; ".join(f"{k}: {_spec(v)}" for k, v in _mapping(card.get("norms")).items())),
        ("Grids", _grid(_mapping(card.get("grid")))),
        ("Trained on", _trained(training)),
        ("Loss and optimizer", _optimized(training)),
        ("Way of training", _way(training)),
        ("File", str(scores.data.attrs.get("emulator", ""))),
        ("Digest", str(scores.data.attrs.get("emulator_digest", ""))),
        ("Made with", ", ".join(f"{k} {v}" for k, v in _mapping(card.get("versions")).items())),
    ]
    return [(name, words) for name, words in rows if words]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _field(entry: Mapping[str, Any]) -> str:
    units = entry.get("units")
    channels = entry.get("channels")
    parts = [str(entry.get("name", "?"))]
    if units not in (None, "1"):
        parts.append(f"[{units}]")
    about = [str(entry["kind"])] if entry.get("kind") else []
    classes = entry.get("classes")
    if isinstance(classes, list) and classes:
        return " ".join(parts) + f" (one of {', '.join(map(str, classes))})"
    about += [count(int(channels), "channel")] if isinstance(channels, int) else []
    return " ".join(parts) + (f" ({', '.join(about)})" if about else "")


def _styles(card: Mapping[str, Any]) -> str:
    """The parameters of a run that it takes, and from where to where it was trained."""
    ranges, words = _mapping(card.get("style_range")), []
    for entry in _list(card.get("styles")):
        known = ranges.get(str(entry.get("name")))
        among = f" from {known[0]:g} to {known[1]:g}" if isinstance(known, list) else ""
        units = entry.get("units")
        words.append(f"{entry.get('name')}{'' if units in (None, '1') else f' [{units}]'}{among}")
    return ", ".join(words)


def _spec(spec: Any) -> str:
    """An object as data, in words: its class and what it was made with."""
    spec = _mapping(spec)
    if "class_path" not in spec:
        return ""
    arguments = {k: v for k, v in _mapping(spec.get("init_args")).items() if v is not None}
    words = ", ".join(f"{k} {_value(v)}" for k, v in arguments.items())
    return str(spec["class_path"]).rpartition(".")[2] + (f" ({words})" if words else "")


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        return _spec(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    words = f"{value:g}" if isinstance(value, float) else str(value)
    return words if len(words) <= 60 else f"{words[:59]}…"


def _footprint(entries: Mapping[str, Any]) -> str:
    if not entries:
        return ""
    if entries.get("reduces"):
        return "the whole input, of which it gives numbers"
    if entries.get("whole"):
        return "the whole domain"
    words = [f"{entries.get('margin')} cells around each output cell"]
    if entries.get("multiple", 1) != 1:
        words.append(f"in steps of {entries['multiple']}")
    if entries.get("scale", 1) != 1:
        words.append(f"and refines the grid {entries['scale']} times")
    return ", ".join(words)


def _grid(entries: Mapping[str, Any]) -> str:
    words = []
    if entries.get("ndim"):
        words.append(f"{entries['ndim']}-D")
    periodic = entries.get("periodic")
    if isinstance(periodic, list):
        words.append(f"periodic axes: {', '.join('yes' if p else 'no' for p in periodic)}")
    elif periodic is not None:
        words.append("periodic" if periodic else "not periodic")
    if entries.get("spacing") is not None:
        words.append(f"cells of {entries['spacing']}")
    return ", ".join(words)


def _trained(training: Mapping[str, Any]) -> str:
    files = _mapping(training.get("files"))
    kept = {"val": " to validate on", "test": " kept apart for tests"}
    words = [
        count(len(runs), "run") + kept.get(split, "")
        for split, runs in files.items()
        if hasattr(runs, "__len__")
    ]
    for key, noun in (("epochs", "epoch"), ("optimizer_steps", "optimizer step")):
        if isinstance(training.get(key), int):
            words.append(count(training[key], noun))
            more = training.get(f"best_of_{key}")
            if isinstance(more, int) and more > training[key]:
                words[-1] += f" (the best of {more})"
    if training.get("seed") is not None:
        words.append(f"seed {training['seed']}")
    return ", ".join(words)


def _way(training: Mapping[str, Any]) -> str:
    """How it learnt, if not by comparing output and target alone."""
    model = _mapping(_mapping(training.get("recipe")).get("model"))
    ema = _mapping(model.get("options")).get("ema")
    words = [_spec(model.get("training"))]
    words.append(f"running average of weights ({ema:g})" if isinstance(ema, float) else "")
    return "; ".join(word for word in words if word)


def _optimized(training: Mapping[str, Any]) -> str:
    model = _mapping(_mapping(training.get("recipe")).get("model"))
    optimizer = _mapping(model.get("optimizer"))
    rate = _mapping(optimizer.get("init_args")).get("lr")
    words = [str(_mapping(model.get("loss")).get("class_path", "")).rpartition(".")[2]]
    name = str(optimizer.get("class_path", "")).rpartition(".")[2]
    words.append(name + (f", learning rate {rate:g}" if name and isinstance(rate, float) else ""))
    return "; ".join(word for word in words if word)
