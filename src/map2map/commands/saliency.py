"""``m2m saliency EMULATOR DATA``: which cells a label or parameter hangs on."""

import argparse
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from map2map import label_plots
from map2map.commands.arguments import add_only
from map2map.commands.evaluate import about
from map2map.commands.evaluate_runs import open_told
from map2map.emulator import Emulator
from map2map.errors import GeometryError, M2MError, RecipeError, SaveError
from map2map.files import replacing
from map2map.runs import Runs
from map2map.saliency_maps import (
    channel_names,
    first_of_groups,
    of_cubes,
    of_samples,
)
from map2map.saliency_outputs import METHODS, How, chosen
from map2map.scores import attributes, check_output, save_scores
from map2map.typing import Shape

__all__ = ["main"]

log = logging.getLogger(__name__)

DESCRIPTION = """\
Which cells a label or parameter of a whole run hangs on: the gradient of what the emulator gives
with respect to each cell of its input, normalized. DATA is as for m2m evaluate.

Written are saliency and input (sample, channel, y, x), or with --cube (run, channel, z, y, x), what
the emulator gives, the truth if it is known, and the names of the runs.
"""

EXAMPLE = """\
example:
  m2m saliency emulator.safetensors 'potential=data_z1.h5::{gravity}_seed{seed}' \\
      --only seed=100:102 --samples 0 5 --method smooth -o saliency.nc --figure saliency.png
"""


def main(argv: Sequence[str]) -> int:
    """Make maps."""
    options = parse(argv)
    check_output(options.output, overwrite=options.overwrite)
    emulator = Emulator.load(
        options.emulator, trust=tuple(options.trust), callback_at=options.callback_at
    )
    output = chosen(emulator, options.target, options.class_name)
    how = How(
        output,
        options.method,
        options.of,
        absolute=options.absolute,
        copies=options.copies,
        noise=options.noise,
        steps=options.steps,
        seed=options.seed,
    )
    if options.device is not None:
        try:
            emulator = emulator.to(options.device)
        except (RuntimeError, AssertionError) as error:
            raise RecipeError(f"--device {options.device}: {error}") from error
    runs = opened(emulator, options.data, options.only)
    numbers = options.samples or (
        list(range(len(first_of_groups(runs)))) if options.cube else first_of_groups(runs)
    )
    shape = runs.shape_of(runs.groups[0] if options.cube else 0)
    pictures = figures(options.figure, numbers, channel_names(runs.inputs)[0], shape)
    there = [path for path in pictures if path.exists()]
    if there and not options.overwrite:
        raise SaveError(f"{there[0]} exists already; choose another name, or give --overwrite")
    if options.cube:
        with bar("planes", planes(runs) * len(numbers)) as done:
            found = of_cubes(emulator, runs, numbers, how, options.batch, done)
    else:
        with bar("samples", len(numbers)) as done:
            found = of_samples(emulator, runs, numbers, how, done)
    found = found.assign_attrs(attributes(found.attrs | about(options.emulator, emulator, runs)))
    save_scores(found, options.output)
    log.info("maps of %d %ss: %s", len(numbers), found.saliency.dims[0], options.output)
    for path, shown in pictures.items():
        with replacing(path) as temporary:
            draw(found, shown).savefig(temporary, dpi=150, format=path.suffix[1:])
        log.info("figure: %s", path)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="m2m saliency",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    # fmt: off
    add("emulator", type=Path, help="file that m2m train has written, of labels or parameters")
    add("data", nargs="+", help="NAME=PATH of each input, or one PATH")
    add("-o", "--output", type=Path, default=Path("saliency.nc"),
        help="NAME.nc or NAME.zarr; default: saliency.nc")
    add("--overwrite", action="store_true", help="replace files that are there")
    add("--figure", type=Path, metavar="FILE",
        help="draw the maps: of one the file itself, of several FILE with their numbers; of cubes "
        "their three middle planes")
    add_only(parser)
    add("--samples", type=int, nargs="+", metavar="K",
        help="numbers, from 0, of samples in the order of the runs; with --cube of runs; default: "
        "the first of each run, of 8 runs at most")
    add("--cube", action="store_true",
        help="of runs that are planes of cubes: the sum over all planes, across each axis that the "
        "emulator's planes are taken across")
    what = parser.add_argument_group("of what")
    what.add_argument("--target", metavar="NAME", help="which, if the emulator gives several")
    what.add_argument("--class", dest="class_name", metavar="NAME",
        help="of a label; default: the second of two")
    what.add_argument("--of", choices=("logit", "score"), default="logit",
        help="logit (of a parameter, its value), or score, the probability, whose gradient "
        "vanishes where the emulator is certain; default: logit")
    how = parser.add_argument_group("how")
    how.add_argument("--method", default="gradient", metavar="METHOD",
        help=f"{', '.join(METHODS)}: the gradient, its mean over copies with noise, or integrated "
        "from 0; default: gradient")
    sign = how.add_mutually_exclusive_group()
    sign.add_argument("--signed", dest="absolute", action="store_false", default=False,
        help="with sign, the default: positive where more of the input speaks for the class")
    sign.add_argument("--absolute", action="store_true", help="without sign")
    how.add_argument("--copies", type=int, default=32, help="of smooth; default: 32")
    how.add_argument("--noise", type=float, default=0.1,
        help="of smooth, as a share of the input's deviation; default: 0.1")
    how.add_argument("--steps", type=int, default=64, help="of integrated; default: 64")
    how.add_argument("--seed", type=int, default=0, help="of the noise; default: 0")
    how.add_argument("--batch", type=int, default=32, help="planes at a time; default: 32")
    code = parser.add_argument_group("applying the emulator")
    code.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cpu")
    code.add_argument("--trust", action="append", default=[], metavar="PATH",
        help="import path that the emulator's card may import")
    code.add_argument("--callback-at", type=Path, metavar="FOLDER", help="folder of your code")
    # fmt: on
    return parser.parse_args(argv)


def opened(emulator: Emulator, places: Sequence[str], only: Sequence[str]) -> Runs:
    """The runs, with their truth if it is told."""
    try:
        return open_told(emulator, places, only)
    except M2MError as error:
        # what else is wrong is wrong without the truth, too
        runs = open_told(emulator, places, only, truth=False)
        log.info("the truth is not known: %s", error)
        return runs


def planes(runs: Runs) -> int:
    """Planes of the first run; 0 if it has none."""
    shape = runs.shape_of(runs.groups[0])
    return sum(shape[axis] for axis in runs.domain.planes or ())


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar; nothing where standard error is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield partial(progress.advance, progress.add_task(title, total=total))


@dataclass(frozen=True)
class Shown:
    """What a figure shows: which map, which channel, which plane of it and its name."""

    number: int
    channel: int
    plane: Mapping[str, int]
    where: str


def figures(
    path: Path | None, numbers: Sequence[int], channels: Sequence[str], shape: Shape
) -> dict[Path, Shown]:
    """Figures by their file.

    Args:
        path: As typed, if there are to be any.
        numbers: Of samples or cubes.
        channels: Names of the inputs' channels.
        shape: Cells per axis of a map.

    Raises:
        GeometryError: If maps have one axis.
        SaveError: If files of that kind cannot be written.
    """
    if path is None:
        return {}
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise SaveError(f"figures are written to NAME.png, NAME.pdf or NAME.svg, not {path}")
    places = middle_planes(shape)
    made: dict[str, Shown] = {}
    for k, number in enumerate(numbers):
        for c, channel in enumerate(channels):
            for where, plane in places:
                parts = [str(number), *([channel] if len(channels) > 1 else []), where]
                made["-".join(part for part in parts if part)] = Shown(k, c, plane, where)
    if len(made) == 1:
        return dict.fromkeys([path], next(iter(made.values())))
    return {path.with_stem(f"{path.stem}-{name}"): shown for name, shown in made.items()}


def middle_planes(shape: Shape) -> list[tuple[str, dict[str, int]]]:
    """Planes that are drawn: their name, empty if it is all, and where they are.

    >>> middle_planes((4, 6, 8))
    [('z2', {'z': 2}), ('y3', {'y': 3}), ('x4', {'x': 4})]
    """
    if len(shape) < 2:
        raise GeometryError("fields on one axis are not drawn: leave out --figure")
    if len(shape) == 2:
        return [("", {})]
    middles = {name: cells // 2 for name, cells in zip("zyx", shape, strict=True)}
    return [(f"{name}{place}", {name: place}) for name, place in middles.items()]


def draw(found: xr.Dataset, shown: Shown) -> Figure:
    """A map beside its input."""
    one = found.isel({found.saliency.dims[0]: shown.number, "channel": shown.channel})
    part, where = one.isel(shown.plane), shown.where
    figure = label_plots.saliency(
        part.input.values,
        part.saliency.values,
        units=str(one.channel_units.item()),
        title=str(one.channel.item()),
        of=f"{one.attrs['of']} of {one.attrs['class'] or one.attrs['target']}",
    )
    said = [str(one["name"].item()) + (f", {where[0]} = {where[1:]}" if where else "")]
    if "probability" in one:
        said.append(f"probability of {one.attrs['class']}: {float(one.probability):.3f}")
    else:
        said.append(f"{one.attrs['target']}: {float(one.output):.4g}")
    said += [f"truth: {truth_of(one)}"] if "truth" in one else []
    figure.suptitle(label_plots.plain("; ".join(said)), fontsize=8)
    return figure


def truth_of(one: xr.Dataset) -> str:
    """The truth of a map, in words."""
    value = one.truth.item()
    return value if isinstance(value, str) else f"{value:.4g}"
