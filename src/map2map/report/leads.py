"""The page of rollouts: errors, spectra and drift against lead time, into ``leads.html``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from map2map.errors import SourceError
from map2map.inks import Inks, dash, from_zero, legend, plain_decades, positive, text, tint
from map2map.report.drawing import Picture
from map2map.report.filling import Shown, filled
from map2map.report.scores import Held, json_of
from map2map.report.tables import closest
from map2map.report.wording import count, listed, number

__all__ = ["Content", "content", "lead_scores", "of_leads", "render"]

NEEDED = ("rmse", "mean", "rms", "lasting")

DRAWN = 6
"""Most channels that are drawn."""

HALF = 0.5
"""Of the power of the truth: what a scale has lost that has less."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class LeadScores(Held):
    """Scores of rollouts."""

    @property
    def leads(self) -> Values:
        """Steps of each."""
        return np.asarray(self.data["lead"].values, np.float64)

    @property
    def channels(self) -> list[str]:
        """Names of what is told."""
        return [str(name) for name in self.data["channel"].values]

    @property
    def starts(self) -> int:
        """How many rollouts."""
        return int(self.data.attrs.get("starts", 1))

    @property
    def step(self) -> str:
        """How much later each lead is, for a reader."""
        told = str(self.data.attrs.get("step", "1"))
        return count(int(told), "frame") if told.isdecimal() else told

    def curve(self, name: str, channel: str, **at: str) -> Values:
        """Values along the leads."""
        return np.asarray(self.data[name].sel(at | {"channel": channel}).values, np.float64)

    def units(self, channel: str) -> str:
        """Of a channel; empty if it has none."""
        if "units" not in self.data.coords:
            return ""
        units = str(self.data["units"].sel(channel=channel).item())
        return "" if units == "1" else units


@dataclass(frozen=True)
class Content:
    """What the page is filled with."""

    title: str
    scores: LeadScores
    shown: list[int]
    rows: list[tuple[str, str, list[tuple[str, bool]]]]
    figures: list[Shown]
    pictures: list[Picture] = field(default_factory=list)


def of_leads(data: xr.Dataset) -> bool:
    """Whether scores are of rollouts."""
    return "lead" in data.coords and "rmse" in data.variables and "field" not in data.coords


def lead_scores(path: Path, data: xr.Dataset) -> LeadScores:
    """Scores of rollouts, checked.

    Raises:
        SourceError: If something lacks, or there is nothing.
    """
    lacks = [name for name in NEEDED if name not in data.variables]
    if lacks or not data.sizes.get("lead") or not data.sizes.get("channel"):
        raise SourceError(
            f"{path} has scores of rollouts, but lacks {', '.join(lacks) or 'leads or channels'}; "
            f"write them anew with `m2m rollout EMULATOR INPUT --truth`"
        )
    card = json_of(path, data, "card") if "card" in data.attrs else {}
    return LeadScores(data, path, card if isinstance(card, dict) else {}, {})


def content(scores: LeadScores, title: str | None = None) -> Content:
    """Everything on the page, with pictures not yet drawn."""
    last = len(scores.leads)
    some = {1, last // 4, last // 2}
    if len(scores.channels) == 1:  # a row for each, so there is room for more
        some = {n * 10**e for n in (1, 2, 5) for e in range(len(str(last)))}
    shown = sorted({k - 1 for k in some if 1 <= k <= last} | {last - 1})
    figures = [Shown("Error against lead time", errors(scores))]
    figures.append(Shown("Energy against lead time", energy(scores)))
    spectra = power(scores) if "power" in scores.data else None
    figures.append(Shown("Power at some leads", spectra, "Power needs fields that are periodic."))
    pictures = [each.picture for each in figures if each.picture is not None]
    if title is None:
        title = f"Rollouts of {listed(scores.channels[:3])}"
        title += f" and {len(scores.channels) - 3} more" if len(scores.channels) > 3 else ""
    return Content(title, scores, shown, table(scores, shown), figures, pictures)


def table(
    scores: LeadScores, shown: Sequence[int]
) -> list[tuple[str, str, list[tuple[str, bool]]]]:
    """RMSE of every channel at some leads: its name, its units, and for each lead each method."""
    rows = []
    for channel in scores.channels:
        cells = []
        for k in shown:
            at = [float(scores.curve("rmse", channel, method=m)[k]) for m in scores.methods]
            best = closest(at, 0.0)
            cells += [(number(value), is_best) for value, is_best in zip(at, best, strict=True)]
        rows.append((channel, scores.units(channel), cells))
    return rows


def headline(scores: LeadScores) -> list[str]:
    """How far the emulator is better than doing nothing, and how long it lasts."""
    sentences = []
    for channel in scores.channels[:DRAWN]:
        own, *others = (scores.curve("rmse", channel, method=m) for m in scores.methods)
        ratio = own[0] / others[0][0] if others[0][0] else np.nan
        start = (
            f"{channel}: after one step of {scores.step} the error is {number(100 * ratio)} % of "
            f"{scores.methods[1]}'s"
        )
        # comparisons with what is NaN are false
        better = [int(np.argmin(np.append(own < other, False))) for other in others]
        if not better[0]:
            sentences.append(f"{start}, so that doing nothing is better.")
            continue
        sentences.append(f"{start}, and it is {how_long(scores, better)}.")
    return [*sentences, lasting(scores)]


def how_long(scores: LeadScores, better: Sequence[int]) -> str:
    """For how many steps the error is below that of each other method."""
    said = []
    for method, steps in zip(scores.methods[1:], better, strict=True):
        every = steps == len(scores.leads)
        long = f"for all {steps}" if every else f"for {count(steps, 'step')}"
        said.append(f"below {method}'s {long}" if steps else f"not below {method}'s")
    return " and ".join(said)


def lasting(scores: LeadScores) -> str:
    """How many rollouts blow up, and when."""
    share = np.asarray(scores.data["lasting"].min("channel").values, np.float64)
    bound = number(float(scores.data.attrs.get("blown_up", 3)))
    if share[-1] == 1:
        return (
            f"None of {count(scores.starts, 'rollout')} blows up within "
            f"{count(len(share), 'step')}: rms stays below {bound} times the truth's."
        )
    first = int(np.argmax(share < 1)) + 1
    lost = round((1 - share[-1]) * scores.starts)
    return (
        f"{lost} of {count(scores.starts, 'rollout')} blow up (rms beyond {bound} times the "
        f"truth's, or infinite), the first after {count(first, 'step')}."
    )


def warnings(scores: LeadScores) -> list[str]:
    """What to beware of."""
    found = []
    for channel in scores.channels:
        own, true = (scores.curve("rms", channel, of=which) for which in ("emulator", "truth"))
        ratio = own[-1] / true[-1] if true[-1] else np.nan
        if not 1 / 1.5 < ratio < 1.5:
            found.append(
                f"At the last lead the rms of {channel} is {number(float(ratio))} times the "
                f"truth's: the rollout {'gains' if ratio > 1 else 'loses'} energy."
            )
    beyond = scores.data.attrs.get("styles_outside")
    if beyond:
        found.append(f"The emulator is asked for more than it was trained on: {beyond}.")
    if scores.starts < 10:
        found.append(f"There are {count(scores.starts, 'rollout')} only.")
    return found


def panels(scores: LeadScores, height: float = 2.6) -> tuple[Figure, list[tuple[str, Axes]]]:
    """An axis for each of the first channels."""
    names = scores.channels[:DRAWN]
    wide = min(len(names), 2)
    rows = -(-len(names) // wide)
    figure = Figure(figsize=(4.6 * wide, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, wide, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    return figure, list(zip(names, axes, strict=False))


def named(scores: LeadScores, axis: Axes, channel: str, what: str) -> None:
    """Name the axes."""
    units = f" [{scores.units(channel)}]" if scores.units(channel) else ""
    axis.set_ylabel(text(f"{what}{units}"))
    axis.set_xlabel(text(f"lead [steps of {scores.step}]"))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(scores.channels) > 1:
        axis.set_title(text(channel), fontsize="medium")


def more(scores: LeadScores) -> str:
    """That not all are drawn, for a caption."""
    hidden = len(scores.channels) - DRAWN
    return f" The first {DRAWN} of {len(scores.channels)} channels." if hidden > 0 else ""


def errors(scores: LeadScores) -> Picture:
    """RMSE of all methods."""
    ends = "; ".join(
        f"{method}: {number(float(curve[0]))} to {number(float(curve[-1]))}"
        for method in scores.methods
        for curve in [scores.curve("rmse", scores.channels[0], method=method)]
    )
    return Picture(
        "lead-rmse",
        f"Root of the mean squared error over {count(scores.starts, 'rollout')}, against lead "
        f"time.{more(scores)}",
        f"Lines from left to right. {scores.channels[0]}, from the first lead to the last: {ends}.",
        partial(_draw_errors, scores),
        wide=len(scores.channels) > 1,
    )


def _draw_errors(scores: LeadScores, inks: Inks) -> Figure:
    figure, places = panels(scores)
    for channel, axis in places:
        curves = [scores.curve("rmse", channel, method=m) for m in scores.methods]
        for i, curve in reversed(list(enumerate(curves))):
            axis.plot(scores.leads, curve, color=tint(inks, i), ls=dash(i))
        from_zero(axis, "y", curves)
        named(scores, axis, channel, "RMSE")
    legend(figure, scores.methods, inks, range(len(scores.methods)))
    return figure


def energy(scores: LeadScores) -> Picture:
    """The mean square of emulator and truth."""
    own, true = (
        scores.curve("rms", scores.channels[0], of=which) ** 2 for which in ("emulator", "truth")
    )
    return Picture(
        "lead-energy",
        f"Mean square of emulator and truth against lead time: what grows without end is "
        f"unstable, what falls loses its small scales.{more(scores)}",
        f"Two lines. {scores.channels[0]} at the last lead: emulator {number(float(own[-1]))}, "
        f"truth {number(float(true[-1]))}.",
        partial(_draw_energy, scores),
        wide=len(scores.channels) > 1,
    )


def _draw_energy(scores: LeadScores, inks: Inks) -> Figure:
    figure, places = panels(scores)
    for channel, axis in places:
        own, true = (scores.curve("rms", channel, of=which) ** 2 for which in ("emulator", "truth"))
        axis.plot(scores.leads, true, color=inks.ink, lw=2.2)
        axis.plot(scores.leads, own, color=tint(inks, 0))
        from_zero(axis, "y", [own, true])
        named(scores, axis, channel, "mean square")
        units = scores.units(channel)
        axis.set_ylabel(text(f"mean square [({units})²]" if units else "mean square"))
    legend(figure, ["truth", "emulator"], inks, [None, 0])
    return figure


def chosen(scores: LeadScores) -> list[int]:
    """Leads whose spectra are drawn: the first, one in the middle, the last."""
    last = len(scores.leads) - 1
    return sorted({0, last // 2, last})


def power(scores: LeadScores) -> Picture:
    """The power of the emulator over that of the truth at some leads."""
    told = []
    for k in chosen(scores):
        ratio = ratios(scores, scores.channels[0], k)
        lost = np.flatnonzero(~(ratio > HALF))
        told.append(
            f"lead {k + 1}: "
            + (
                f"half is lost from bin {lost[0] + 1} of {len(ratio)} on"
                if len(lost)
                else "no bin has lost half"
            )
        )
    return Picture(
        "lead-power",
        f"Power of the emulator over that of the truth, by wavenumber, at some leads; 1 is "
        f"right. Means over {count(scores.starts, 'rollout')}.{more(scores)}",
        f"Lines on logarithmic axes. {scores.channels[0]}: {'; '.join(told)}.",
        partial(_draw_power, scores),
        wide=len(scores.channels) > 1,
    )


def ratios(scores: LeadScores, channel: str, lead: int) -> Values:
    """Of the power in each bin, emulator over truth."""
    at = scores.data["power"].isel(lead=lead).sel(channel=channel)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(at.sel(of="emulator").values / at.sel(of="truth").values, np.float64)


def _draw_power(scores: LeadScores, inks: Inks) -> Figure:
    figure, places = panels(scores)
    k = np.asarray(scores.data["wavenumber"].values, np.float64)
    leads = chosen(scores)
    for channel, axis in places:
        axis.axhline(1, color=inks.ink, lw=1)
        for i, lead in enumerate(leads):
            curve = positive(ratios(scores, channel, lead))
            axis.plot(k, curve, color=tint(inks, i), ls=dash(i))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel(text("wavenumber [rad per length]"))
        axis.set_ylabel("power, emulator / truth")
        plain_decades(axis.xaxis)
        plain_decades(axis.yaxis)
        if len(scores.channels) > 1:
            axis.set_title(text(channel), fontsize="medium")
    legend(figure, [f"lead {lead + 1}" for lead in leads], inks, range(len(leads)))
    return figure


def render(made: Content) -> str:
    """The page as HTML."""
    scores = made.scores
    return filled(
        "leads.html",
        scores,
        title=made.title,
        headline=headline(scores),
        warnings=warnings(scores),
        shown=[int(scores.leads[k]) for k in made.shown],
        rows=made.rows,
        figures=made.figures,
    )
