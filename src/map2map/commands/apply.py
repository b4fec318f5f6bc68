"""``m2m apply EMULATOR INPUT -o OUTPUT``: physical fields of any size in, physical fields out."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from map2map.apply import apply_files, check
from map2map.arrays import Settings, require_noise
from map2map.commands.apply_runs import apply_told
from map2map.commands.arguments import WHERE, add_only, as_learnt, inputs_at
from map2map.emulator import Emulator
from map2map.engine import DTYPES, Running
from map2map.errors import RecipeError, SaveError
from map2map.grids import Domain, Pad
from map2map.jobs import Job, Slope, emulator_at, jobs_of
from map2map.memory import bytes_of, keep_freed_memory
from map2map.patterns import learnt_files
from map2map.work import Report, Work

__all__ = ["main"]

log = logging.getLogger(__name__)

MUCH_HALO = 8.0
"""Cells read for a cell of output, above which a hint is given."""

DESCRIPTION = """\
Apply an emulator to fields of any size. Fields are cut into tiles that fit the memory; each reads
the halo that its outputs see, so the tiles do not show in the result.

{where}

  m2m apply emulator.safetensors linear=za_05.npy -o emulated.npy
  m2m apply emulator.safetensors 'runs/*.nc' -o 'out/{{run}}.zarr' --memory 4GiB
  m2m apply styled.safetensors linear=za_05.npy z=0.5 Om=0.3 -o emulated.npy
  torchrun --nproc-per-node 4 -m map2map.cli apply ...      several GPUs or processes

Styles are NAME=NUMBER, NAME=TABLE.csv, NAME=TABLE.npy::COLUMN, 'NAME={{PLACEHOLDER}}' of the
pattern or NAME=@ATTRIBUTE of the files; those not given are told as in training.

Emulators of labels and parameters of whole runs write a table, NAME.nc or NAME.csv: a row for
each frame or plane, and for each run.

  m2m apply gravity.safetensors 'potential=cubes.h5::{{gravity}}_seed{{seed}}' -o table.csv
"""


def main(argv: Sequence[str]) -> int:
    """Apply."""
    options = make_parser().parse_args(argv)
    emulator = emulator_at(options.emulator, tuple(options.trust or ()), options.callback_at)
    if emulator.targets.of_run or options.only:
        return apply_told(options, emulator, options.device or best_device())
    settings = Settings(
        Running(
            precision=options.precision,
            channels_last=options.channels_last,
            compile=options.compile,
            fold_batch_norm=options.fold_batch_norm,
            winograd=options.winograd,
            rings=options.rings,
            device=options.device or best_device(),
            seed=options.seed or 0,
        ),
        None if options.memory is None else bytes_of(options.memory),
        options.tile,
        options.allow_nan,
    )
    job = Job(
        options.emulator,
        as_learnt(inputs_at(options.input, emulator), learnt_files(emulator.training_record)),
        options.output,
        declared(options, emulator.domain),
        options.other_grid,
        settings,
        options.overwrite,
        tuple(options.trust or ()),
        options.callback_at,
        options.members,
        slope_of(options),
    )
    check_asked(options, emulator)
    keep_freed_memory()
    jobs = jobs_of(job)
    there = [each.output for each in jobs if each.output.exists()]
    if there and not options.overwrite and (not options.resume or len(jobs) == 1):
        nothing = ", and no broken run to go on with" if options.resume else ""
        raise SaveError(
            f"{there[0]} exists already{nothing}; choose another name, or overwrite it "
            f"(--overwrite)"
        )
    for each in jobs:
        if options.resume and each.output in there:
            log.info("%s is there already, and kept", each.output)
            continue
        try:
            report = apply_files(
                each, resume=options.resume, scheduler=options.dask, progress=progress_bar
            )
        except KeyboardInterrupt:
            log.info("what is finished of %s is kept; go on with --resume", each.output)
            raise
        if int(os.environ.get("RANK", "0")) == 0:
            print(summary(report))
            if options.check:
                print_check(each, options.check)
    return 0


def check_asked(options: argparse.Namespace, emulator: Emulator) -> None:
    """Refuse options that contradict each other, or the emulator."""
    if options.seed is not None:
        require_noise(emulator)
    if options.check is not None and options.check < 1:
        raise RecipeError(f"--check computes at least 1 window, not {options.check}")
    if options.dask and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("tiles are shared by torchrun's processes or dask's workers, not both")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="m2m apply",
        description=DESCRIPTION.format(where=WHERE),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("emulator", type=Path, help="file that m2m train has written")
    add("input", nargs="+", help="NAME=PATH of each input, or one PATH")
    add("-o", "--output", type=Path, required=True,
        help="what to write: .npy, .nc, .h5, .zarr, or a folder of npy files; {run} stands for the "
        "name of the first input's file; of labels and parameters .nc or .csv")
    add("--overwrite", action="store_true", help="replace an output that is there")
    add_only(parser, "of labels and parameters: ")
    add("--resume", action="store_true", help="go on with a run that broke off")
    add("--allow-nan", action="store_true",
        help="let the input hold NaN; outputs that see one are NaN")
    drawn = parser.add_argument_group("emulators that draw random numbers")
    drawn.add_argument("--members", type=int, metavar="N",
                       help="write an ensemble, along an axis `member`, or to a file for each "
                       "where {member} is in the name of the output")
    drawn.add_argument("--seed", type=int, metavar="S",
                       help="of the first member; member m is that of S + m; default: 0")
    size = parser.add_argument_group("tiles (they change memory and speed, never the result)")
    size.add_argument("--memory", help="what tiles may take, such as 2GiB; default: half of what "
                      "is free")
    size.add_argument("--tile", type=int, nargs="+", metavar="CELLS",
                      help="cells per tile and axis, instead of what fits")
    grid = parser.add_argument_group("grid of the input, if its files do not say and it is not the "
                                     "training's")
    grid.add_argument("--periodic", nargs="+", choices=["yes", "no"], metavar="yes|no",
                      help="whether its axes are periodic: one for all, or one for each")
    grid.add_argument("--pad", choices=["interior", "reflect", "edge", "zero", "model"],
                      help="beyond an edge that is not periodic: only outputs that do not see "
                      "beyond it, or what to make up; with 'model', the network pads by itself")
    grid.add_argument("--other-grid", action="store_true",
                      help="apply it although periodic axes, cell size, or the domain that its "
                      "network sees the whole of, are not the training's")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--precision", choices=list(DTYPES), default="fp32", help="default: fp32")
    speed.add_argument("--channels-last", action=argparse.BooleanOptionalAction,
                       help="memory format; default: where it helps, in 2-D and 3-D")
    speed.add_argument("--compile", action="store_true", help="use torch.compile")
    speed.add_argument("--fold-batch-norm", action="store_true",
                       help="make batch norms part of the convolutions before them")
    speed.add_argument("--winograd", action="store_true",
                       help="compute 3-D convolutions in fp32 on a CPU with half the "
                       "multiplications; round-off grows a few times")
    speed.add_argument("--rings", action=argparse.BooleanOptionalAction, default=True,
                       help="close a periodic axis that one tile covers into a ring, which needs "
                       "no halo, where the model allows it (default)")
    speed.add_argument("--device", help="cpu, cuda, cuda:1…; default: a GPU if there is one")
    speed.add_argument("--dask", metavar="SCHEDULER",
                       help="share the tiles among the workers of a dask.distributed scheduler, or "
                       "'local' ones")
    speed.add_argument("--check", type=int, metavar="N",
                       help="compute N random windows again in float64 and tell how far off the "
                       "output is")
    slope = parser.add_argument_group("how the targets change, instead of them")
    slope.add_argument("--derivative", metavar="NAME",
                       help="write TARGET_by_NAME, the derivative of each target by a style, or by "
                       "an input of which all values change alike")
    slope.add_argument("--velocity", action="store_true",
                       help="write TARGET_velocity in km/s, of displacements in Mpc/h and an "
                       "emulator with a style z")
    slope.add_argument("--Om", type=float, metavar="NUMBER",
                       help="matter density for --velocity, if there is no style Om")
    code = parser.add_argument_group("code of your own that the emulator needs")
    code.add_argument("--trust", action="append", metavar="MODULE",
                      help="import path that its card may import")
    code.add_argument("--callback-at", type=Path, metavar="FOLDER", help="folder of your modules")
    # fmt: on
    return parser


def slope_of(options: argparse.Namespace) -> Slope | None:
    """What is to be computed instead of the targets.

    Raises:
        RecipeError: If options contradict each other.
    """
    if options.derivative and options.velocity:
        raise RecipeError("--derivative and --velocity are two outputs; run the command twice")
    if options.Om is not None and not options.velocity:
        raise RecipeError("--Om is for --velocity; styles are given as NAME=NUMBER")
    if options.velocity:
        return Slope(None, options.Om)
    return None if options.derivative is None else Slope(options.derivative)


def best_device() -> str:
    """The GPU of this process, or the CPU."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu"


def declared(options: argparse.Namespace, learnt: Domain) -> Domain | None:
    """The grid of the input, as far as the options say."""
    if options.periodic is None and options.pad is None:
        return None
    ndim = learnt.ndim or 1
    periodic = learnt.periodic
    if options.periodic is not None:
        sides = [side == "yes" for side in options.periodic]
        if len(sides) not in (1, ndim):
            raise RecipeError(f"--periodic takes 1 or {ndim} values, not {len(sides)}")
        periodic = sides if len(sides) > 1 else sides[0]
    if options.pad is not None and (periodic is True or (periodic and all(periodic))):
        raise RecipeError("--pad is for axes that are not periodic, and all are; see --periodic")
    pads: dict[str | None, Pad] = {"interior": "refuse", None: learnt.pad}
    return replace(learnt, periodic=periodic, pad=pads.get(options.pad, options.pad))


@contextmanager
def progress_bar(work: Work) -> Iterator[Callable[[int], None] | None]:
    """A bar with the rate, on a terminal."""
    tiling, console = work.tiling, Console(stderr=True)
    size, reads = (" x ".join(map(str, shape)) for shape in (tiling.size, tiling.largest_read))
    if int(os.environ.get("RANK", "0")):
        yield None
        return
    count = f"{len(tiling)} tiles" if len(tiling) > 1 else "1 tile"
    log.info("%s of %s cells, reading %s", count, size, reads)
    share = prod(tiling.largest_read) / prod(tiling.size)
    if share > MUCH_HALO and len(tiling) > 1:
        log.warning("tiles read %.0f times their cells; more --memory is faster", share)
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task: Any = bar.add_task(work.job.output.name, total=prod(tiling.shape), rate="")

        def told(cells: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, advance=cells, rate=f"{speed:.3g} cells/s" if speed else "")

        yield told


def summary(report: Report) -> str:
    """What was done, in one line."""
    rate = report.cells / report.seconds if report.seconds else 0.0
    share = report.computing / report.seconds if report.seconds else 0.0
    return (
        f"{report.output}: {report.cells} cells in {report.seconds:.1f} s, "
        f"{rate:.3g} cells/s; the network ran for {100 * share:.0f} % of the time"
    )


def print_check(job: Job, count: int) -> None:
    """Say how far an output is off."""
    for name, (error, rms) in check(job, count).items():
        relative = f", {error / rms:.2g} of its rms" if rms else ""
        print(f"check of {name}: at most {error:.3g} off in {count} windows{relative}")
