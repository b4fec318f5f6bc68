"""The first sentences on labels and parameters: how well, and whether that beats the mean line."""

import math

import numpy as np

from map2map.report.headline import ratio
from map2map.report.run_origin import held_out
from map2map.report.run_scores import LINE, RunScores, percent, rate
from map2map.report.wording import count, listed, number

__all__ = ["chance", "headline", "warnings"]

CERTAIN = 0.05
"""Chance of a difference as large between methods that are equally good, below which it counts."""


def headline(scores: RunScores) -> list[str]:
    """Sentences: what it tells, how well, and whether that beats the mean of the input."""
    inputs = [str(each.get("name")) for each in scores.card.get("inputs", [])]
    what = f"This emulator tells {listed(scores.targets)}"
    if scores.kind == "label":
        what += f" ({' or '.join(scores.classes)})"
    what += f" from {listed(inputs)}." if inputs else "."
    each = label_sentences if scores.kind == "label" else parameter_sentences
    return [what, *each(scores)]


def held(scores: RunScores) -> str:
    """So many runs, in words."""
    noun = "held-out run" if held_out(scores).proved else "run"
    single = scores.pers[0]
    more = f" ({count(scores.samples, single)})" if single != "group" else ""
    return count(scores.groups, noun) + more


def label_sentences(scores: RunScores) -> list[str]:
    """How often the class is right, beside the mean line."""
    said = [f"Of {held(scores)}, it gives {_rates(scores, 'emulator')} the right class."]
    if "mean_line" not in scores.methods:
        return [*said, f"It was not compared with the {LINE}."]
    own, other = scores.right("emulator"), scores.right("mean_line")
    more, less = int((own & ~other).sum()), int((~own & other).sum())
    between = f"right for {count(more, 'run')} that the line has wrong"
    between += f", wrong for {less} that it has right"
    if chance(more, less) <= CERTAIN:
        beats = "beats" if more > less else "does not beat"
        verdict = f"The emulator {beats} the {LINE} over runs: {between}"
    else:
        verdict = f"These runs cannot tell whether the emulator beats the {LINE}: it is {between}"
    said.append(f"The {LINE} gives {_rates(scores, 'mean_line')} the right class.")
    return [*said, f"{verdict}."]


def _rates(scores: RunScores, method: str) -> str:
    right = int(scores.right(method).sum())
    runs = rate(scores, method, "group")
    words = f"{right} of {count(scores.groups, 'run')}, {percent(runs.mean)}"
    if runs.has_interval:
        words += f" [{percent(runs.low)}, {percent(runs.high)}],"
    if len(scores.pers) > 1:
        single = scores.pers[0]
        words += f" and {percent(rate(scores, method, single).mean)} of single {single}s"
    return words.removesuffix(",")


def chance(more: int, less: int) -> float:
    """Of a split as uneven as this if both were as likely: the exact sign test, two-sided.

    >>> chance(5, 0)
    0.0625
    """
    n = more + less
    tail: float = sum(math.comb(n, k) for k in range(min(more, less) + 1)) / 2**n
    return min(1.0, 2 * tail)


def parameter_sentences(scores: RunScores) -> list[str]:
    """How far each parameter is from the truth, beside the mean line."""
    said = []
    for place, name in enumerate(scores.targets):
        start = "Over " + held(scores) if place == 0 else "Over the same runs"
        start += f", the RMSE of {name} is {_errors(scores, 'emulator', name)}"
        if "mean_line" not in scores.methods:
            said.append(f"{start}; it was not compared with the {LINE}.")
            continue
        verdict = _compared(scores, name)
        said.append(f"{start}, where the {LINE} has {_errors(scores, 'mean_line', name)}.")
        said.append(verdict)
    return said


def _errors(scores: RunScores, method: str, name: str) -> str:
    at = scores.of(method).sel(parameter=name, per="group")
    unit = f" {scores.units(name)}" if scores.units(name) else ""
    r2 = float(at.r2)
    told = f"R² {number(r2, 1.0)}" if math.isfinite(r2) else "R² is undefined"
    return f"{number(float(at.rmse))}{unit} ({told})"


def _compared(scores: RunScores, name: str) -> str:
    """Whether errors of runs are smaller than the mean line's."""
    squares = []
    for method in ("emulator", "mean_line"):
        mine = scores.of(method).sel(parameter=name)
        squares.append(((mine.group_output - mine.group_truth) ** 2).values.astype(float))
    value, low, high = (np.sqrt(part) for part in ratio(*squares))
    factor = f"its RMSE over runs is {number(1 / value)} times as large" if value > 0 else ""
    if factor and math.isfinite(high) and low > 0:
        factor += f" [{number(1 / high)}, {number(1 / low)}]"
    elif factor and scores.groups < 2:
        factor += " (of one run there is no interval)"
    if math.isfinite(low) and low > 1:
        return f"The emulator beats the {LINE} of {name}: {factor}."
    if math.isfinite(high) and high < 1:
        return f"The emulator does not beat the {LINE} of {name}: {factor}."
    return f"These runs cannot tell whether the emulator beats the {LINE} of {name}: {factor}."


def warnings(scores: RunScores) -> list[str]:
    """What a reader has to know before believing the numbers."""
    said = [held_out(scores).warning]
    if scores.groups == 1:
        said.append("There is one run, so how scores vary between runs is not known.")
    elif scores.groups < 10:
        said.append(f"There are {scores.groups} runs, which say little about others.")
    if "mean_line" not in scores.methods:
        said.append(f"The emulator's card knows no {LINE}, so there is nothing to compare with.")
    if scores.kind == "label":
        there = {scores.classes[i] for i in scores.of("emulator").group_truth.values.astype(int)}
        missing = [name for name in scores.classes if name not in there]
        if missing:
            said.append(f"No run is {listed(missing)}, so scores that need one are not known.")
    return [each for each in said if each]
