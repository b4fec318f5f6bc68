"""``m2m evaluate EMULATOR DATA``: scores of an emulator and its baselines on runs."""

import argparse
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from map2map.arrays import Settings, domain_of_input
from map2map.baselines import (
    Baseline,
    Means,
    alike,
    computed,
    constant,
    from_training,
    identity,
    named,
    same_arrays,
    training_files,
)
from map2map.commands.arguments import (
    WHERE,
    add_only,
    as_learnt,
    files_at,
    inputs_at,
    with_only,
)
from map2map.commands.evaluate_runs import open_told, scores_of_runs, show_runs
from map2map.commands.figures import add_figures, draw, gallery_of
from map2map.commands.formulas import formulas_of
from map2map.commands.recorded import recorded_runs, runs_for
from map2map.crops import Where
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError, near_names
from map2map.evaluate import Options, evaluate, metrics_available
from map2map.fields import FieldSet, field_channels
from map2map.files import digest
from map2map.globe import latitudes
from map2map.patterns import learnt_files
from map2map.physics.spacing import step_of
from map2map.runs import Files, Patterns, Runs
from map2map.score_tables import check_table, save_table
from map2map.scores import NAMES, attributes, check_output, save_scores
from map2map.splits import SIDES
from map2map.typing import Array
from map2map.upsampling import interpolated

__all__ = ["about", "main"]

log = logging.getLogger(__name__)

DESCRIPTION = f"""\
Score an emulator and its baselines on runs, in physical units, and write the scores to one file;
and those that are one number also to NAME.json beside it, by method, field and score.

{WHERE}
All of the emulator's inputs and targets are needed, or those targets that --targets names.
"""

ALL = ("rmse", "r2", "relative_l2")
"""What is shown of all runs together."""

SHOWN = (
    "rmse", "mae", "bias", "r2", "pearson", "relative_l2", "crps", "spread", "spread_skill",
    "rank_error", "max_error", "wasserstein", "mean_error", "integral_error", "profile_error",
    "divergence_error", "curl_error", "latitude_rmse", "latitude_bias", "acc",
)  # fmt: skip
"""Scores that are shown, in this order."""


def main(argv: Sequence[str]) -> int:
    """Evaluate."""
    options = parse(argv)
    output: Path = options.output
    check_output(output, overwrite=options.overwrite)
    check_table(output.with_suffix(".json"), overwrite=options.overwrite)
    where = None if options.where is None else where_of(*options.where)
    how = Options(
        options.metrics, options.bootstrap, options.seed, where=where, members=options.members
    )
    emulator = Emulator.load(
        options.emulator, trust=tuple(options.trust), callback_at=options.callback_at
    )
    emulator.settings = Settings(allow_nonfinite=options.allow_nan)
    if options.device is not None:
        try:
            emulator = emulator.to(options.device)
        except (RuntimeError, AssertionError) as error:
            # an assertion is what torch makes of a GPU that it was not built for
            raise RecipeError(f"--device {options.device}: {error}") from error
    if emulator.targets.of_run:
        return evaluate_told(options, emulator)
    targets = chosen(emulator.targets, options.targets)
    runs, patterns = runs_of(options, emulator, targets)
    gallery = gallery_of(options, targets)
    with progress() as track:
        baselines, usual = find_baselines(options, emulator, runs, patterns, track)
        how = replace(
            how,
            climatology=usual,
            track=lambda r, n: track(r, n, "runs"),
            watch=None if gallery is None else gallery.add,
        )
        scores = evaluate(emulator, runs, baselines, how)
    told = about(options.emulator, emulator, runs, options.simulator_seconds, options.split)
    scores = scores.assign_attrs(attributes(scores.attrs | told))
    save_scores(scores, output)
    save_table(scores, output.with_suffix(".json"), output)
    show(scores)
    log.info("scores of %d %s: %s", len(runs), "run" if len(runs) == 1 else "runs", output)
    if gallery is not None:
        files = draw(gallery, options)
        log.info("%d figures: %s", len(files), options.figures)
    return 0


def runs_of(
    options: argparse.Namespace, emulator: Emulator, targets: FieldSet
) -> tuple[Runs, Patterns]:
    """On what it is scored, and where the files of that are."""
    if options.split is not None:
        return recorded_runs(emulator, options.split, targets)
    patterns: Patterns = as_learnt(
        inputs_at(options.data, emulator, targets.names), learnt_files(emulator.training_record)
    )
    patterns = with_only(patterns, options.only)
    runs = runs_for(emulator, targets, patterns)
    check_grid(emulator, runs, other_grid=options.other_grid)
    return runs, patterns


def check_grid(emulator: Emulator, runs: Runs, *, other_grid: bool) -> None:
    """Refuse cells of another size than the emulator has learnt on, or take theirs from now on.

    Args:
        emulator: Its domain is that of the runs afterwards.
        runs: Likewise.
        other_grid: Whether other cells were asked for.

    Raises:
        GeometryError: If they are others, and were not.
    """
    if runs.domain.planes is not None:
        return  # coordinates are those of the cubes
    source, name = runs.source(runs.reference, 0)
    spacing = [step_of(axis.values) for axis in source.stored(name).axes]
    domain = emulator.domain
    domain_of_input(emulator, domain, spacing, shape=runs.shape, other_grid=other_grid)
    known = [abs(step) for step in spacing if step is not None and not isnan(step)]
    if other_grid and len(known) == len(spacing) == emulator.ndim:
        emulator.domain = runs.domain = replace(emulator.domain, spacing=known)


def evaluate_told(options: argparse.Namespace, emulator: Emulator) -> int:
    """Evaluate an emulator of labels or parameters."""
    fields_only = (
        "metrics", "where", "baseline", "formula", "train", "climatology", "climatology_files",
        "simulator_seconds",
        "allow_nan", "other_grid", "figures", "figure", "pdf", "members",
    )  # fmt: skip
    given = [name for name in fields_only if getattr(options, name)]
    if given:
        raise RecipeError(
            f"--{given[0].replace('_', '-')} is for emulators of fields, but this one gives "
            f"{', '.join(emulator.targets.names)} of whole runs"
        )
    if options.split is None:
        runs = open_told(emulator, options.data, options.only)
    else:
        runs, _ = recorded_runs(emulator, options.split)
    with progress() as track:
        scores = scores_of_runs(
            emulator, runs, options.targets, lambda r, n: track(r, n, "batches")
        )
    told = about(options.emulator, emulator, runs, split=options.split)
    scores = scores.assign_attrs(attributes(scores.attrs | told))
    save_scores(scores, options.output)
    save_table(scores, options.output.with_suffix(".json"), options.output)
    show_runs(scores)
    log.info("scores of %d runs: %s", len(runs.groups), options.output)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="m2m evaluate",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    # fmt: off
    add("emulator", type=Path, help="file that m2m train has written")
    add("data", nargs="*", help="NAME=PATH of each input and target, or one PATH")
    add("--split", choices=SIDES,
        help="instead of files: those of a split of the training, as the emulator's card tells")
    add("-o", "--output", type=Path, default=Path("scores.nc"),
        help="NAME.nc or NAME.zarr, beside which NAME.json is written; default: scores.nc")
    add("--overwrite", action="store_true", help="replace an output that is there")
    add("--metrics", nargs="+", metavar="METRIC",
        help=f"which, of {', '.join(metrics_available())}; default: all")
    add("--bootstrap", type=int, default=1000, metavar="N",
        help="draws of runs for the uncertainty of means; default: 1000")
    add("--seed", type=int, default=0,
        help="of these draws, and of the random numbers that the emulator draws")
    add("--members", type=int, metavar="N",
        help="of an emulator that draws random numbers: score an ensemble of so many")
    add("--targets", nargs="+", metavar="FIELD",
        help="score only these, where there is no truth for the others")
    add("--where", nargs=2, metavar=("FIELD", "ABOVE"),
        help="score only the cells where a field exceeds a value, such as: thk 1")
    add("--allow-nan", action="store_true",
        help="let the input hold NaN; outputs that see one are NaN, and not scored")
    add_only(parser)
    add("--other-grid", action="store_true",
        help="let the cell size differ from that of the training")
    add("--simulator-seconds", type=float, metavar="S",
        help="what the simulator takes for a run, for the report")
    beside = parser.add_argument_group(
        "baselines (identity, or interpolation to a finer grid, comes by itself)"
    )
    beside.add_argument("--baseline", action="append", default=[], metavar="NAME:FIELD=PATH",
        help="files of a target FIELD as predicted by something else, or a number; may be given "
        "several times")
    beside.add_argument("--formula", action="append", default=[], metavar="NAME:FIELD=CLASS(…)",
        help="a target FIELD computed from other fields by a class of map2map.derived, such as "
        "resolved:sigma='GradientNorm(of=c)'; may be given several times")
    beside.add_argument("--train", nargs="+", metavar="FIELD=PATH",
        help="training files of the targets, for their mean; default: those that the emulator's "
        "card names, if they are there")
    beside.add_argument("--climatology", action="store_true",
        help="also the mean of the training runs in each cell")
    beside.add_argument("--climatology-files", nargs="+", metavar="FIELD=PATH",
        help="what is usual of targets in each cell, for anomaly correlations on latitudes: the "
        "mean over all frames and runs of these files; default: of the training's")
    beside.add_argument("--no-training-mean", action="store_true",
        help="do not read the training files")
    add_figures(parser)
    code = parser.add_argument_group("applying the emulator")
    code.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cpu")
    code.add_argument("--trust", action="append", default=[], metavar="PATH",
        help="import path that the emulator's card may import")
    code.add_argument("--callback-at", type=Path, metavar="FOLDER", help="folder of your code")
    # fmt: on
    options = parser.parse_args(argv)
    if bool(options.data) == (options.split is not None):
        raise RecipeError(
            "on what is it scored? List the files of its inputs and targets (NAME=PATH), or say "
            "--split test"
        )
    if options.split is not None and options.only:
        raise RecipeError("--only takes some of listed files; with --split they are known")
    if options.no_training_mean and (options.train or options.climatology):
        raise RecipeError("--no-training-mean contradicts --train and --climatology")
    return options


def chosen(targets: FieldSet, names: Sequence[str] | None) -> FieldSet:
    """The targets that are scored."""
    return targets if names is None else targets.subset(names)


def where_of(field: str, above: str) -> Where:
    """The cells that are scored."""
    try:
        return Where(field, float(above))
    except ValueError as error:
        raise RecipeError(f"--where takes a field and a number, not {above!r}") from error


def find_baselines(
    options: argparse.Namespace,
    emulator: Emulator,
    runs: Runs,
    patterns: Patterns,
    track: Any,
) -> tuple[dict[str, Baseline], Mapping[str, Array]]:
    """The baselines that there are, and a line in the log on those that there are not.

    Also what is usual in each cell, of fields on latitudes.
    """
    found: dict[str, Baseline] = {}
    targets = runs.targets
    earlier = same_arrays(runs)
    still = {name: runs.derived[name].persistent for name in targets.names if name in runs.derived}
    changes = {name: value for name, value in still.items() if value is not None}
    partners, same = identity(emulator.inputs, targets, runs.scale_factor, earlier, changes)
    label = "persistence" if partners and {*partners} == {*earlier, *changes} else "identity"
    for target in targets.names:
        if target in partners:
            log.info("baseline %r: %r is predicted by %r", label, target, partners[target])
        elif runs.scale_factor == 1:
            log.info("no baseline %r: no input has the units, kind and grid of %r", label, target)
    if partners:
        found[label] = same
    found |= finer_baselines(emulator, runs)
    usual: Mapping[str, Array] = usual_at(options.climatology_files, runs, track)
    if not options.no_training_mean:

        def find() -> Mapping[str, Files]:
            if options.train:
                return files_at(options.train, targets.names)
            return training_files(emulator.training_record, targets, runs.derived)

        made, cells = from_training(
            targets,
            runs,
            find,
            lambda r, n: track(r, n, "training runs"),
            climatology=options.climatology,
            usual=on_latitudes(options, runs) and not usual,
            required=bool(options.train),
        )
        found, usual = found | made, usual or cells
    values, rest = numbers_of(options.baseline, targets)
    places = named_places(rest)
    formulas = formulas_of(options.formula, tuple(options.trust), options.callback_at)
    for name in (names := [*values, *places, *formulas]):
        if name in found or names.count(name) > 1:
            raise RecipeError(f"there is a baseline {name!r} already; choose another name")
    found |= {name: constant(each) for name, each in values.items()}
    found |= named(places, patterns, runs) if places else {}
    return found | (computed(formulas, patterns, runs) if formulas else {}), usual


def finer_baselines(emulator: Emulator, runs: Runs) -> dict[str, Baseline]:
    """Inputs interpolated to the grid of the targets, if that is finer."""
    if runs.scale_factor == 1:
        return {}
    partners = alike(emulator.inputs, runs.targets)
    names = emulator.inputs, runs.targets, emulator.domain, runs.scale_factor
    found = interpolated(partners, *names) if partners else {}
    for target in runs.targets.names:
        if target in partners:
            each = " and ".join(map(repr, found))
            log.info("baselines %s: %r is predicted by %r", each, target, partners[target])
        else:
            log.info("no interpolated baseline: no input has the units and kind of %r", target)
    return found


def on_latitudes(options: argparse.Namespace, runs: Runs) -> bool:
    """Whether scores are weighted by area, so that it is worth knowing what is usual."""
    wanted = "latitude" in (options.metrics or metrics_available())
    return wanted and latitudes(runs, 0, runs.targets.names[0]) is not None


def usual_at(places: Sequence[str] | None, runs: Runs, track: Any) -> Mapping[str, Array]:
    """What is usual in each cell, of the targets whose files were named for that.

    Raises:
        GeometryError: If they are on another grid.
    """
    if not places:
        return {}
    if latitudes(runs, 0, runs.targets.names[0]) is None:
        raise RecipeError(
            "--climatology-files are for scores weighted by latitude, but the files have no axis "
            "of latitudes; as a baseline: --baseline climatology:FIELD=PATH"
        )
    named_ones = {place.partition("=")[0] for place in places if "=" in place}
    chosen_ones = [name for name in runs.targets.names if name in named_ones]
    targets = runs.targets.subset(chosen_ones or runs.targets.names)
    shape = tuple(n * runs.scale_factor for n in runs.shape)
    means = Means.over(
        targets,
        files_at(places, targets.names),
        runs.domain,
        shape,
        lambda r, n: track(r, n, "climatology"),
    )
    if not means.cells:
        raise GeometryError(
            f"the files of --climatology-files are on another grid than that of the evaluation, "
            f"{shape}; regrid them"
        )
    return means.cells


def numbers_of(
    arguments: Sequence[str], targets: FieldSet
) -> tuple[dict[str, dict[str, Array]], list[str]]:
    """Baselines that are a number everywhere, NAME:FIELD=NUMBER, and the other arguments.

    Returns:
        By baseline and field the number, as often as the field has channels.

    Raises:
        FieldError: If there is no such field.
    """
    found: dict[str, dict[str, Array]] = {}
    rest = []
    for argument in arguments:
        about, _, text = argument.rpartition("=")
        name, colon, target = about.partition(":")
        try:
            number = float(text)
        except ValueError:
            rest.append(argument)
            continue
        if not colon or target not in targets.names:
            raise FieldError(
                f"--baseline {argument!r} is a number for {target!r}, which is no target"
                f"{near_names(target, targets.names)}"
            )
        channels = field_channels(targets[target])
        found.setdefault(name, {})[target] = np.full(channels, number, np.float32)
    return found, rest


def named_places(arguments: Sequence[str]) -> dict[str, dict[str, Files]]:
    """Where the fields of each named baseline are.

    >>> named_places(["2LPT:displacement=lpt_*.npy"])
    {'2LPT': {'displacement': Files(pattern='lpt_*.npy', variable=None)}}
    """
    found: dict[str, dict[str, Files]] = {}
    for argument in arguments:
        name, colon, rest = argument.partition(":")
        target, equals, place = rest.partition("=")
        if not (name and colon and target and equals and place):
            raise RecipeError(
                f"--baseline {argument!r} is not NAME:FIELD=PATH, such as "
                f"2LPT:displacement='lpt_*.npy'"
            )
        if target in found.setdefault(name, {}):
            raise RecipeError(f"field {target!r} of the baseline {name!r} is given twice")
        found[name] |= files_at([f"{target}={place}"], [target])
    return found


@contextmanager
def progress() -> Iterator[Any]:
    """Shows how far an iteration is, on a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def track(runs: Iterable[int], total: int, what: str) -> Iterator[int]:
            task = bar.add_task(what, total=total, rate="")
            for run in runs:
                yield run
                speed = bar.tasks[task].speed
                bar.update(task, advance=1, rate=f"{speed:.2g}/s" if speed else "")

        yield track


def about(
    path: Path,
    emulator: Emulator,
    runs: Runs,
    simulator_seconds: float | None = None,
    split: str | None = None,
) -> dict[str, Any]:
    """What the scores are of.

    Args:
        path: The emulator's file.
        emulator: The emulator.
        runs: On what it was scored.
        simulator_seconds: What the simulator takes for a run, if known.
        split: Which of the training's the runs are, if they are one of them.
    """
    with path.open("rb") as file:
        own = hashlib.file_digest(file, "sha256").hexdigest()
    names = list(runs.groups[0].paths)
    known = cache(digest)  # many runs may be in one file
    files = {
        name: [known(run.paths[name]) | run.part(name) for run in runs.groups] for name in names
    }
    packages = ("map2map", "torch", "numpy", "scipy", "xarray")
    return {
        "emulator": str(path),
        "emulator_digest": f"sha256:{own}",
        "card": json.dumps(emulator.card().entries()),
        "data": json.dumps(files),
        "simulator_seconds": simulator_seconds,
        "split": split,
        "versions": json.dumps({name: version(name) for name in packages}),
    }


def show(scores: xr.Dataset) -> None:
    """Print the means over runs, with their uncertainty."""
    console = Console()
    if not console.is_terminal:
        # numbers are not cut off in a file
        console.width = 1000
    count = scores.sizes["run"]
    for name, units in zip(scores.field.values, scores.units.values, strict=True):
        table = Table(
            title=f"{name}: mean over {count} runs [95 % interval]" if count > 1 else str(name),
            title_justify="left",
        )
        table.add_column("")
        for method in scores.method.values:
            table.add_column(str(method), justify="right")
        for key in SHOWN:
            if key not in scores:
                continue
            row = scores.sel(field=name)
            if not np.isfinite(row[f"{key}_mean"]).any():
                continue
            table.add_row(
                labelled(NAMES[key], scores[key], units),
                *(cell(row.sel({"method": method}), key) for method in scores.method.values),
            )
        if count > 1:
            row = scores.sel(field=name)
            for key in ALL:
                all_runs = row[f"{key}_all"]
                values = [float(all_runs.sel({"method": m})) for m in scores.method.values]
                table.add_row(
                    labelled(f"{NAMES[key]}, all runs together", all_runs, units),
                    *("-" if np.isnan(value) else f"{value:.4g}" for value in values),
                )
        console.print(table)


def labelled(text: str, values: xr.DataArray, units: str) -> str:
    """What a row is called, with the units of the field if its values have them."""
    in_units = values.attrs["units"] == "field" and units != "1"
    return rf"{text} \[{units}]" if in_units else text


def cell(row: xr.Dataset, key: str) -> str:
    """A mean with its interval."""
    mean, low, high = (float(row[f"{key}_{part}"]) for part in ("mean", "low", "high"))
    if np.isnan(mean):
        return "-"
    # what is zero but for rounding is shown as zero, without a sign
    mean, low, high = (round(value, 12) + 0.0 for value in (mean, low, high))
    return f"{mean:.4g}" if np.isnan(low) else f"{mean:.4g}\n" + rf"\[{low:.3g}, {high:.3g}]"
