"""Scores of rollouts against lead time: errors, spectra, drift, and how long they last."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.arrays import Settings
from map2map.baselines import read_field
from map2map.emulator import Emulator
from map2map.errors import FieldError
from map2map.feeds import (
    Series,
    fed_targets,
    label,
    later_field,
    share,
    told_as_steps,
    with_variable,
)
from map2map.fields import field_channels
from map2map.globe import latitudes
from map2map.metrics.base import score
from map2map.metrics.latitudes import LatitudeScores
from map2map.noise import seed_of
from map2map.patterns import some
from map2map.physics.spectra import mode_counts, power_spectrum
from map2map.rollout import Track, followed, inputs_of
from map2map.runs import Files, Patterns, Runs
from map2map.styles import outside, style_attributes
from map2map.typing import Array

__all__ = ["later_truths", "lead_scores"]

log = logging.getLogger(__name__)

BLOWN_UP = 3.0
"""A rollout has blown up once its rms is so many times that of the truth, or it is not finite."""


def later_truths(
    emulator: Emulator,
    patterns: Patterns,
    feed: Mapping[str, str],
    steps: int,
    step: str | int,
    series: Series | None = None,
    *,
    within: bool = False,
) -> Runs:
    """Runs that have the truth of all leads: targets named ``TARGET+1`` and on.

    Runs that lack any of these frames are left out. Dates that `only` asks for are those of the
    starts; what is true later may have others, unless `within`.

    Args:
        emulator: Of one step.
        patterns: Where its inputs are.
        feed: The inputs that outputs are later frames of.
        steps: How many.
        step: How much later an output is, the last of several; a time or frames.
        series: Which outputs are later frames of which inputs (`feeds.series_of`); by default each
            has one.
        within: Whether all that is read has the dates that `only` asks for.
    """
    targets, places = [], dict(patterns)
    for name, members in each_of(emulator, feed, series).items():
        entry = patterns.get(name)
        if not isinstance(entry, Files):
            raise FieldError(f"{name!r} is in no file, so there is no truth of {members[-1]!r}")
        entry, part = with_variable(name, entry), share(step, len(members))
        # one by one, so that they need not be whole vectors
        called = replace(emulator.targets[members[-1]], name=label(members, name), component=None)
        for k in range(1, steps * len(members) + 1):
            target, places[f"{called.name}+{k}"] = later_field(called, k, entry, part)
            targets.append(target)
    with told_as_steps(steps, step, "take fewer (--steps), or more data"):
        return Runs(
            list(emulator.inputs),
            targets,
            places,
            emulator.domain,
            derived=emulator.derived,
            styles=list(emulator.styles),
            beyond=not within,
        )


def each_of(
    emulator: Emulator, feed: Mapping[str, str], series: Series | None
) -> dict[str, tuple[str, ...]]:
    """The outputs of each input that is fed."""
    if series is not None:
        return dict(series)
    return {name: (target,) for target, name in fed_targets(emulator, feed).items()}


class Leads:
    """What is added up over rollouts, of one target.

    Args:
        methods: What is compared with the truth.
        leads: How many.
        rows: Latitudes of rows of cells; all 0 where there are none.
        spacing: Cell size of a periodic field; None: no spectra.
    """

    def __init__(
        self,
        methods: tuple[str, ...],
        leads: int,
        rows: NDArray[np.float64],
        spacing: tuple[float, ...] | None,
    ) -> None:
        self.methods, self.leads, self.spacing = methods, leads, spacing
        self.errors = {(m, k): LatitudeScores(rows) for m in methods for k in range(leads)}
        self.weights = np.cos(np.deg2rad(rows)) / np.cos(np.deg2rad(rows)).mean()
        self.sums: dict[str, list[Array | float]] = {}
        self.starts = 0
        # leads at which a start is not finite any more: means over the others would flatter
        self.lost: dict[int, NDArray[np.bool_]] = {}
        self.lasting: Array | float = 0.0

    def add(self, name: str, lead: int, value: Array | float) -> None:
        """Add to the sum of a quantity at a lead."""
        self.sums.setdefault(name, [0.0] * self.leads)[lead] += value

    def compare(
        self,
        lead: int,
        values: Mapping[str, Array],
        truth: Array,
        usual: Array | None,
    ) -> None:
        """Take in what was made of one start for one lead, each (channel, *space)."""
        mean = None if usual is None else as_rows(usual)
        axes = tuple(range(1, truth.ndim))
        gone = (np.isfinite(truth) & ~np.isfinite(values["emulator"])).any(axis=axes)
        self.lost[lead] = self.lost.get(lead, np.zeros(len(truth), bool)) | gone
        for method, value in values.items():
            self.errors[method, lead].add(as_rows(value), as_rows(truth), mean)
        for name, field in (("emulator", values["emulator"]), ("truth", truth)):
            rows = as_rows(field).astype(np.float64) * self.weights[:, None]
            self.add(f"mean {name}", lead, rows.mean(axis=(1, 2)))
            squares = as_rows(field).astype(np.float64) ** 2 * self.weights[:, None]
            self.add(f"square {name}", lead, squares.mean(axis=(1, 2)))
            if self.spacing is not None:
                # of what is not finite there is no power
                power = [power_spectrum(part, self.spacing)[1] for part in np.asarray(field)]
                self.add(f"power {name}", lead, np.array(power))

    def result(self, channels: list[str], units: str) -> xr.Dataset:
        """Scores along method, lead and channel."""
        made = [
            xr.concat([self.errors[m, k].result() for k in range(self.leads)], "lead")
            for m in self.methods
        ]
        lost = np.array([self.lost[k] for k in range(self.leads)])
        made[0] = made[0].where(~xr.DataArray(lost, dims=("lead", "channel")))
        scores = xr.concat(made, "method", join="outer")
        both, weighted = ["emulator", "truth"], " weighted by area" if np.ptp(self.weights) else ""

        def of(kind: str) -> Array:
            return np.array([self.sums[f"{kind} {name}"] for name in both]) / self.starts

        along = ("of", "lead", "channel")
        over = f"over starts and cells{weighted}"
        scores["mean"] = score(of("mean"), "field", f"mean {over}", None, along)
        rms = np.sqrt(of("square"))
        scores["rms"] = score(rms, "field", f"root of the mean square {over}", None, along)
        scores["lasting"] = score(
            self.share_lasting(),
            "1",
            f"share of starts whose rms was never beyond {BLOWN_UP:g} times that of the truth",
            1,
            ("lead", "channel"),
        )
        if self.spacing is not None:
            of_power = f"field^2 L^{len(self.spacing)}"
            mean = "power spectrum, mean over starts"
            scores["power"] = score(of("power"), of_power, mean, None, (*along, "wavenumber"))
        places = {"method": list(self.methods), "of": both, "channel": channels}
        leads = np.arange(1, self.leads + 1)
        return scores.assign_coords(
            places | {"lead": leads, "units": ("channel", [units] * len(channels))}
        )

    def share_lasting(self) -> Array:
        """Of the starts, the share that has not blown up yet, (lead, channel)."""
        return np.asarray(self.lasting) / self.starts


def lead_scores(
    emulator: Emulator,
    runs: Runs,
    feed: Mapping[str, str],
    steps: int,
    climatology: Mapping[str, Array] | None = None,
    *,
    series: Series | None = None,
    settings: Settings | None = None,
    track: Track = lambda numbers, _: numbers,
) -> xr.Dataset:
    """Scores of rollouts per lead time, beside persistence and climatology.

    - ``rmse``, ``mae``, ``bias``, ``acc``: see `metrics.latitudes.LatitudeScores`; means over cells
      are weighted by cos(latitude) where the first axis is one of latitudes;
    - ``mean`` and ``rms`` of emulator and truth, the root of the mean square over all starts:
      drifts, and energies;
    - ``lasting``: the share of starts that have not blown up: whose rms was never beyond
      `BLOWN_UP` times that of the truth, nor infinite. A start that is not finite any more makes
      the scores of its channel NaN from there on;
    - ``power`` per bin of wavenumbers, on grids that are periodic on all axes.

    Args:
        emulator: Of one step.
        runs: Where rollouts start, with the truth of all leads (`later_truths`).
        feed: See `rollout`; these outputs are scored.
        steps: How many.
        climatology: Of each of them, what is usual (channel, *space); without, no ``acc``.
        series: Which outputs are later frames of which inputs, if several are of one.
        settings: How the emulator is applied; default: its own. Each start draws its own numbers.
        track: Shows the progress over the starts.

    Returns:
        Scores along ``method``, ``lead`` (in outputs) and ``channel``, such as ``t[3]``.
    """
    usual, every = climatology or {}, each_of(emulator, feed, series)
    parts = max(map(len, every.values()))
    methods = ("emulator", "persistence", *(["climatology"] if usual else []))
    rows, spacing = row_latitudes(runs), periodic_spacing(emulator, runs)
    leads = {name: Leads(methods, steps * parts, rows, spacing) for name in every}
    styles = styles_told(emulator, runs)
    for run in track(range(len(runs)), len(runs)):
        start = inputs_of(emulator, runs, run)
        made = followed(emulator, start, steps, feed, settings, run)
        add_start(leads, every, start, whole_steps(made, steps), runs, run, usual)
    results = []
    for name, members in every.items():
        target = emulator.targets[members[-1]]
        channels, called = field_channels(target), label(members, name)
        names = [called] if channels == 1 else [f"{called}[{i}]" for i in range(channels)]
        results.append(leads[name].result(names, target.units or ""))
    scores = xr.concat(results, "channel", join="outer")
    if spacing is not None:
        about = {"units": "rad/L", "long_name": "mean wavenumber"}
        k = mode_counts(runs.shape_of(0), spacing)[0]
        scores = scores.assign_coords(wavenumber=("wavenumber", k, about))
    scores.lead.attrs["units"] = "steps"
    scores.attrs |= seed_of(emulator, (settings or emulator.settings).running.seed) | styles
    return scores.assign_attrs(starts=len(runs), blown_up=BLOWN_UP)


def styles_told(emulator: Emulator, runs: Runs) -> dict[str, str]:
    """What scores say of the styles of starts; warns of those outside the training's range."""
    rows = [runs.styles_of(run) for run in range(len(runs))]
    beyond: dict[str, list[str]] = {}
    for run, row in zip(runs, rows, strict=True):
        for text in outside(emulator, row):
            beyond.setdefault(text, []).append(run.place(runs.reference))
    told = "; ".join(f"{text} ({some(names, 3)})" for text, names in sorted(beyond.items()))
    if told:
        log.warning("styles outside the training's range: %s", told)
    return style_attributes(rows) | ({"styles_outside": told} if told else {})


def whole_steps(made: Iterator[dict[str, Array]], steps: int) -> Iterator[dict[str, Array]]:
    """All steps of a rollout, of NaN once it is not finite any more."""
    found = dict[str, Array]()
    for _ in range(steps):
        if not found or all_finite(found):
            found = {name: np.asarray(values) for name, values in next(made).items()}
        else:  # nothing comes of what is not finite
            found = {name: np.full_like(values, np.nan) for name, values in found.items()}
        yield found


def add_start(
    leads: Mapping[str, Leads],
    every: Series,
    start: Mapping[str, Array],
    made: Iterator[dict[str, Array]],
    runs: Runs,
    run: int,
    usual: Mapping[str, Array],
) -> None:
    """Compare a rollout with the truth.

    Args:
        leads: Takes it in, for each input that is fed.
        every: The outputs that are later frames of each of these.
        start: What the rollout starts from, by name.
        made: What each step gives.
        runs: With the truths.
        run: The start's number.
        usual: The climatology of outputs, where there is one.
    """
    shape = runs.shape_of(run)
    going = {name: np.ones(field_channels(runs.inputs[name]), bool) for name in every}
    lasting: dict[str, list[Array]] = {name: [] for name in every}
    parts = max(map(len, every.values()))
    for step, found in enumerate(made):
        for k in range(step * parts, (step + 1) * parts):
            for name, members in every.items():
                truth = read_field(runs, f"{label(members, name)}+{k + 1}", run, shape)
                values = {"emulator": found[members[k % parts]], "persistence": start[name]}
                if members[-1] in usual:
                    values["climatology"] = usual[members[-1]]
                leads[name].compare(k, values, truth, usual.get(members[-1]))
                # never beyond, whether or not it comes back
                going[name] &= holds(values["emulator"], truth)
                lasting[name].append(going[name].copy())
    for name in every:
        leads[name].starts += 1
        leads[name].lasting = leads[name].lasting + np.array(lasting[name], float)


def all_finite(found: Mapping[str, Array]) -> bool:
    """Whether all values of all fields are finite."""
    return all(bool(np.isfinite(values).all()) for values in found.values())


def holds(values: Array, truth: Array) -> NDArray[np.bool_]:
    """Of each channel, whether it is not beyond `BLOWN_UP` times the truth."""
    axes = tuple(range(1, truth.ndim))
    with np.errstate(over="ignore", invalid="ignore"):
        found, true = (
            np.sqrt((np.asarray(x, np.float64) ** 2).mean(axis=axes)) for x in (values, truth)
        )
        return np.asarray(np.isfinite(found) & (found <= BLOWN_UP * true))


def periodic_spacing(emulator: Emulator, runs: Runs) -> tuple[float, ...] | None:
    """Cell size of fields that have spectra; 1 where it is not known."""
    shape = runs.shape_of(0)
    grid = emulator.domain.grid(shape)
    assert not isinstance(grid.periodic, bool)
    if not all(grid.periodic) or len(shape) > 3 or not emulator.domain.same_shape:
        return None
    return grid.spacing or (1.0,) * len(shape)


def row_latitudes(runs: Runs) -> NDArray[np.float64]:
    """Of the rows of cells [degrees]; all 0 if the first axis is none of latitudes."""
    found, rows = latitudes(runs), runs.shape_of(0)[0]
    known = found is not None and len(found) == rows and found.size == rows
    return found.ravel() if found is not None and known else np.zeros(rows)


def as_rows(values: Array) -> Array:
    """Fields (channel, *space) as (channel, row, cell)."""
    return np.asarray(values).reshape(*values.shape[:2], -1)
