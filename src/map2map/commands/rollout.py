"""``m2m rollout EMULATOR INPUT``: apply an emulator of one step again and again, and score it."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from map2map.arrays import Settings, require_noise
from map2map.baselines import Means, training_files
from map2map.commands.arguments import WHERE, as_learnt, inputs_at, with_only
from map2map.commands.evaluate import progress
from map2map.emulator import Emulator
from map2map.errors import FieldError, M2MError, RecipeError
from map2map.feeds import (
    check_feed,
    check_kept,
    fed_targets,
    feed_of,
    history_of,
    in_words,
    one_step,
    series_of,
    share,
    shifted,
)
from map2map.lead_scores import later_truths, lead_scores
from map2map.patterns import learnt_files
from map2map.rollout import write_rollout
from map2map.runs import Files, Runs
from map2map.scores import attributes, check_output, save_scores
from map2map.typing import Array

__all__ = ["main"]

log = logging.getLogger(__name__)

DESCRIPTION = f"""\
Apply an emulator of one step to its own output, again and again. Outputs that were later frames of
an input in training become that input; other inputs are kept.

{WHERE}

  m2m rollout emulator.safetensors weather.zarr --only time=2019-03 --steps 12 -o forecast.zarr
  m2m rollout emulator.safetensors weather.zarr --only time=2019-03 --steps 12 --truth
"""


def main(argv: Sequence[str]) -> int:
    """Roll out."""
    options = parse(argv)
    if options.truth is not None:
        check_output(options.truth, overwrite=options.overwrite)
    emulator = Emulator.load(
        options.emulator, trust=tuple(options.trust), callback_at=options.callback_at
    )
    if options.device is not None:
        try:
            emulator = emulator.to(options.device)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(f"--device {options.device}: {error}") from error
    settings = settings_of(options, emulator)
    learnt = learnt_files(emulator.training_record)
    feed, step = steps_of(options, emulator, learnt)
    series = series_of(emulator, feed, learnt)
    patterns = with_only(as_learnt(inputs_at(options.data, emulator), learnt), options.only)
    with progress() as track:
        if options.output is not None:
            runs = Runs(
                list(emulator.inputs),
                [],
                patterns,
                emulator.domain,
                derived=emulator.derived,
                styles=list(emulator.styles),
                beyond=True,
            )
            check_kept(runs, patterns, feed)
            try:
                write_rollout(
                    emulator,
                    runs,
                    options.steps,
                    feed,
                    options.output,
                    step=step,
                    series=series,
                    settings=replace(settings, memory=options.memory, tile=options.tile),
                    overwrite=options.overwrite,
                    resume=options.resume,
                    track=lambda r, n: track(r, n, "steps"),
                )
            except KeyboardInterrupt:
                log.info("finished steps of %s are kept; go on with --resume", options.output)
                raise
            print(f"{options.output}: {options.steps} steps from {runs.runs[0]}")
        if options.truth is not None:
            runs = later_truths(emulator, patterns, feed, options.steps, step, series)
            check_kept(runs, patterns, feed)
            runs.runs = runs.runs[:: options.every or 1]
            usual = climatology(emulator, runs, fed_targets(emulator, feed, learnt))
            scores = lead_scores(
                emulator,
                runs,
                feed,
                options.steps,
                usual,
                series=series,
                settings=settings,
                track=lambda r, n: track(r, n, "starts"),
            )
            parts = max(map(len, series.values()))
            about = {
                "emulator": str(options.emulator),
                "step": str(share(step, parts)),
                "card": json.dumps(emulator.card().entries()),
            }
            scores = scores.assign_attrs(attributes(scores.attrs | about))
            save_scores(scores, options.truth)
            show(scores)
            log.info("scores of %d rollouts: %s", len(runs), options.truth)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="m2m rollout",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    # fmt: off
    add("emulator", type=Path, help="file that m2m train has written")
    add("data", nargs="+", help="NAME=PATH of each input, or one PATH")
    add("--steps", type=int, required=True, help="how many")
    add("-o", "--output", type=Path,
        help="write the rollout from the first frame: NAME.zarr, NAME.nc, NAME.h5 or a folder")
    add("--truth", type=Path, nargs="?", const=Path("rollout.nc"), metavar="SCORES",
        help="score rollouts from all frames by the later frames of the same files, per step; "
        "default: to rollout.nc")
    add("--overwrite", action="store_true", help="replace an output that is there")
    add("--resume", action="store_true", help="go on with a rollout to -o that broke off")
    add("--only", action="append", default=[], metavar="NAME=VALUES",
        help="start from these frames only: time=2019 or time=2019-01-01:2020-03-25")
    add("--every", type=int, metavar="N", help="score from every N-th of them only")
    add("--feed", action="append", default=[], metavar="OUTPUT=INPUT",
        help="which outputs become which inputs; default: as they were in training")
    add("--step", help="how much later outputs are: 6h, or frames; default: as in training")
    add("--memory", help="what tiles of -o may take, such as 2GiB; default: half of what is free")
    add("--tile", type=int, nargs="+", metavar="CELLS",
        help="cells per tile and axis of -o, instead of what fits")
    add("--seed", type=int, metavar="S",
        help="of an emulator that draws random numbers, anew in every step; default: 0")
    add("--device", help="cpu, cuda, cuda:1 …; default: cpu")
    add("--trust", action="append", default=[], metavar="PATH",
        help="import path that the emulator's card may import")
    add("--callback-at", type=Path, metavar="FOLDER", help="folder of your code")
    # fmt: on
    options = parser.parse_args(argv)
    for name, number in (("--steps", options.steps), ("--every", options.every)):
        if number is not None and number < 1:
            raise RecipeError(f"{name} is 1 or more, not {number}")
    if options.output is None and options.truth is None:
        raise RecipeError("nothing to do: give -o to write a rollout, or --truth to score some")
    if options.resume and options.output is None:
        raise RecipeError("--resume goes on with what -o was to write; give -o, or leave it out")
    if options.every is not None and options.truth is None:
        raise RecipeError(
            "--every is of the starts that --truth scores, but -o writes one rollout, from the "
            "first of them; give --truth, or leave --every out"
        )
    tiles = [name for name in ("memory", "tile") if getattr(options, name) is not None]
    if tiles and options.output is None:
        raise RecipeError(
            f"--{tiles[0]} is of the tiles of -o, but --truth keeps whole fields in memory; give "
            f"-o, or leave --{tiles[0]} out"
        )
    return options


def steps_of(
    options: argparse.Namespace, emulator: Emulator, learnt: Mapping[str, Files]
) -> tuple[dict[str, str], str | int]:
    """What feeds what, and how long a step is.

    Raises:
        FieldError: If they are not known, or outputs cannot feed inputs.
    """
    given = feeds(options.feed)
    if not given:
        feed = feed_of(emulator, learnt)
        return feed, step_of(options.step, feed, learnt)
    check_feed(emulator, given)
    step = step_of(options.step, given, learnt)
    return given | history_of(emulator, learnt, given, step), step


def step_of(asked: str | None, feed: Mapping[str, str], learnt: Mapping[str, Files]) -> str | int:
    """How long a step is: as asked for, or as in training; warns if the two differ."""
    if asked is None:
        return one_step(feed, learnt)
    step = int(asked) if asked.isdecimal() else asked
    try:
        own = one_step(feed, learnt)
    except FieldError:  # which is why it is asked for
        return step
    if isinstance(own, int) == isinstance(step, int) and shifted(None, own, 1) != shifted(
        None, step, 1
    ):
        log.warning(
            "a step is said to be %s, but the emulator was trained to give what is %s later; "
            "times, and truths of --truth, are those of %s",
            in_words(step),
            in_words(own),
            in_words(step),
        )
    return step


def settings_of(options: argparse.Namespace, emulator: Emulator) -> Settings:
    """How the emulator is applied.

    Raises:
        RecipeError: If a seed is given to one that draws nothing.
    """
    if options.seed is not None:
        require_noise(emulator)
    running = replace(emulator.settings.running, seed=options.seed or 0)
    return replace(emulator.settings, running=running)


def feeds(arguments: Sequence[str]) -> dict[str, str]:
    """What --feed says.

    >>> feeds(["t_next=t"])
    {'t_next': 't'}
    """
    found = {}
    for argument in arguments:
        target, equals, name = argument.partition("=")
        if not (target and equals and name):
            raise RecipeError(f"--feed {argument!r} is not OUTPUT=INPUT")
        found[target] = name
    return found


def climatology(emulator: Emulator, runs: Runs, feed: dict[str, str]) -> dict[str, Array]:
    """The mean of each cell over the training frames; nothing if they are not there."""
    targets = emulator.targets.subset(list(feed))
    try:
        files = training_files(emulator.training_record, targets)
        means = Means.over(targets, files, emulator.domain, runs.shape)
    except M2MError as error:
        log.info("no climatology, so no anomaly correlation: %s", error)
        return {}
    return dict(means.cells)


def show(scores: xr.Dataset) -> None:
    """Print RMSE and anomaly correlation at some of the leads."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    count = scores.sizes["lead"]
    for lead in sorted({1, (count + 1) // 2, count}):
        table = Table(
            title=f"step {lead} of {count}, each {scores.attrs['step']}; from "
            f"{scores.attrs['starts']} starts",
            title_justify="left",
        )
        table.add_column("")
        for method in scores.method.values:
            table.add_column(f"RMSE, {method}", justify="right")
        if "acc" in scores:
            table.add_column("ACC, emulator", justify="right")
            table.add_column("ACC, persistence", justify="right")
        for name, units in zip(scores.channel.values, scores.units.values, strict=True):
            row = scores.sel(lead=lead, channel=name)
            cells = [cell(row.rmse.sel({"method": m})) for m in scores.method.values]
            if "acc" in scores:
                cells += [cell(row.acc.sel({"method": m})) for m in ("emulator", "persistence")]
            table.add_row(f"{name} [{units}]".replace("[", r"\["), *cells)
        console.print(table)


def cell(value: xr.DataArray) -> str:
    """A number."""
    number = float(value)
    return "-" if np.isnan(number) else f"{number:.4g}"
