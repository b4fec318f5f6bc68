"""What the report says first: what the emulator does, how well, and at what cost."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.report.scores import HEADLINE, Held, Score, Scores
from map2map.report.wording import count, duration, listed, number, score, times

__all__ = ["TEST", "Seen", "headline", "ratio", "seen_files", "trained_on", "warnings"]

DRAWS = 2000
"""Bootstrap samples of the runs."""


def ratio(own: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float, float]:
    """How many times larger the mean of another method's errors is, and its 95 % interval.

    The runs are drawn anew with replacement, the same for both, since a run that is hard for one
    is hard for the other.

    Args:
        own: Errors of the emulator, shape (run).
        other: Errors of a baseline, shape (run).

    Returns:
        Ratio of means and the ends of its interval, NaN with fewer than two runs.
    """
    both = np.isfinite(own) & np.isfinite(other)
    own, other = own[both], other[both]
    if own.size == 0 or own.mean() == 0:
        return math.nan, math.nan, math.nan
    value = float(other.mean() / own.mean())
    if own.size < 2:
        return value, math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        chosen = rng.integers(own.size, size=own.size)
        mean = own[chosen].mean()
        drawn[i] = other[chosen].mean() / mean if mean > 0 else math.inf
    low, high = np.percentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def headline(scores: Scores) -> list[str]:
    """Sentences: what it emulates, how well beside the best baseline, and what a run costs."""
    inputs = [str(each.get("name")) for each in scores.card.get("inputs", [])]
    what = f"This emulator gives {listed(scores.fields)}"
    what += f" from {listed(inputs)}." if inputs else "."
    return [what, *(_how_well(scores, field) for field in scores.fields), *_cost(scores)]


def _how_well(scores: Scores, field: str) -> str:
    held = "held-out run" if trained_on(scores).held_out else "run"
    value, interval = score(scores.score(HEADLINE, "emulator", field))
    start = (
        f"{'On' if len(scores.runs) == 1 else 'Over'} {count(len(scores.runs), held)}, the "
        f"relative L2 error of {field} is {value}{' ' if interval else ''}{interval}"
    )
    baseline = scores.best_baseline(field)
    if baseline is None:
        return f"{start}; it was compared with no baseline."
    beside = number(scores.score(HEADLINE, baseline, field).mean)
    own = scores.values(HEADLINE, method="emulator", field=field)
    factor, low, high = ratio(own, scores.values(HEADLINE, method=baseline, field=field))
    best = f"the best baseline, {baseline} ({beside})"
    if not math.isfinite(factor):
        return f"{start}; that of {best}, cannot be compared with it."
    if low <= 1 <= high:
        return f"{start}, which these runs cannot tell from that of {best}."
    if factor < 1:
        factor, low, high = 1 / factor, 1 / high, 1 / low
        word = "larger"
    else:
        word = "smaller"
    value, interval = (
        score(Score(factor, low, high), perfect=1.0, most=3)
        if math.isfinite(low + high)
        else ("", "")
    )
    between = f"{value} {interval}" if interval else times(factor)
    return f"{start}, {between} times {word} than that of {best}."


def _cost(scores: Scores) -> Iterator[str]:
    seconds, simulator = scores.seconds(), scores.simulator_seconds
    if not seconds.size:
        return
    middle = float(np.median(seconds))
    takes = f"It takes {duration(middle)} per run{' (median)' if seconds.size > 1 else ''}"
    if simulator is None:
        yield f"{takes}."
    elif simulator >= middle:
        factor = times(simulator / middle)
        yield f"{takes}; the simulator takes {duration(simulator)}, {factor} times as long."
    else:
        yield f"{takes}, which is more than the simulator's {duration(simulator)}."


@dataclass(frozen=True)
class Seen:
    """Whether the emulator was trained or validated on files that it is scored on.

    Args:
        files: Which; targets only, since runs may share inputs such as a map of the land.
        told_by: "digest" or "path"; "split" if they are the test split of its training; empty if
            the scores or the card do not say.
    """

    files: tuple[str, ...]
    told_by: str

    @property
    def held_out(self) -> bool:
        """Whether all runs are known to be new to the emulator; paths alone do not prove it."""
        return self.told_by in ("digest", "split") and not self.files


TEST = "The runs are the test split of the emulator's training, which did not read it."


def trained_on(scores: Scores) -> Seen:
    """Compare the files that are scored with those that the card names."""
    return seen_files(scores, scores.fields)


def seen_files(scores: Held, fields: Sequence[str]) -> Seen:
    """Compare the files of some fields that are scored with those that the card names."""
    training = scores.card.get("training")
    training = training if isinstance(training, Mapping) else {}
    # frames of one file may be on several sides, which files do not tell
    if scores.data.attrs.get("split") == "test" and not _overlaps(training):
        return Seen((), "split")
    files = training.get("files")
    files = files if isinstance(files, Mapping) else {}
    seen = [*_files({side: each for side, each in files.items() if side != "test"}, fields)]
    scored = [*_files(scores.about, fields)]
    for told_by, part in (("digest", 1), ("path", 0)):
        first, second = ({each[part] for each in side if each[part]} for side in (seen, scored))
        if first and second:
            both = {each[0] for each in scored if each[part] in first}
            return Seen(tuple(sorted(both)), told_by)
    return Seen((), "")


def _overlaps(training: Mapping[str, Any]) -> bool:
    """Whether runs may be on several sides of a training's splits."""
    recipe = training.get("recipe")
    data = recipe.get("data") if isinstance(recipe, Mapping) else None
    return not isinstance(data, Mapping) or bool(data.get("overlap"))


def _files(record: Any, fields: Sequence[str], name: str = "") -> Iterator[tuple[str, str]]:
    """Path and digest of the files of some fields, wherever in a record they stand."""
    if isinstance(record, Mapping) and isinstance(record.get("path"), str):
        if name in fields:
            # of a large file only some blocks are hashed, under a name that says so
            digests = [f"{key}:{v}" for key, v in record.items() if key.startswith("blake2b")]
            yield os.path.normpath(record["path"]), "".join(digests)
    elif isinstance(record, Mapping):
        for key, each in record.items():
            yield from _files(each, fields, str(key))
    elif isinstance(record, list):
        for each in record:
            yield from _files(each, fields, name)
    elif isinstance(record, str) and name in fields:
        yield os.path.normpath(record), ""


def warnings(scores: Scores) -> list[str]:
    """What a reader has to know before believing the numbers."""
    said = []
    both = trained_on(scores)
    if both.files:
        shown = ", ".join(both.files[:4]) + (" …" if len(both.files) > 4 else "")
        said.append(
            f"The emulator was trained or validated on {count(len(both.files), 'file')} of those "
            f"that it is scored on, by their {both.told_by} ({shown}). These scores do not say how "
            f"well it does on new runs."
        )
    elif not both.told_by:
        said.append(
            "Scores or card do not tell which files they are of, so whether the emulator was "
            "trained on these runs is not known."
        )
    outside = scores.data.attrs.get("styles_outside")
    if outside:
        said.append(f"The emulator is asked for more than it was trained on: {outside}.")
    runs = len(scores.runs)
    if runs == 1:
        said.append("There is one run, so how scores vary between runs is not known.")
    elif runs < 5:
        said.append(f"Intervals from {runs} runs are rough, and too narrow rather than too wide.")
    if not scores.baselines:
        said.append("No baseline was scored, so the scores have nothing to be compared with.")
    for field in scores.fields:
        masked = scores.share("masked", field)
        if masked:
            said.append(
                f"{_percent(masked)} of the cells of {field} are masked in the truth, and not "
                f"scored."
            )
        lost = scores.share("not_finite", field, "emulator")
        if lost:
            said.append(
                f"The emulator's {field} is not a number in {_percent(lost)} of the cells that the "
                f"truth has; they count for no method."
            )
    return said


def _percent(share: float) -> str:
    return f"{number(100 * share, digits=2)} %"
