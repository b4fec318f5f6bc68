"""``m2m pack NAME=PATH... -o FOLDER``: field files as Zarr, cut up for reading crops."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from map2map.commands.arguments import WHERE, files_at
from map2map.commands.terminal import bar_of_bytes, cells, memory_size, size_text
from map2map.errors import RecipeError
from map2map.layouts import OVERHEAD, amplification, chunk_reads
from map2map.pack import Plan, Settings, pack, plan
from map2map.packed import DTYPES, SHARD, Packed
from map2map.runs import Files
from map2map.sources import open_source
from map2map.sources.zarr import COMPRESSIONS

__all__ = ["main"]

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="m2m pack",
        description="Convert field files to chunked and sharded Zarr 3, one group per run, laid "
        "out for reading crops with a halo anywhere. The same command goes on where a broken one "
        "stopped.",
        epilog="Train with the packed runs by data.train.NAME='FOLDER/*.zarr' for every field.",
    )
    made.add_argument("places", nargs="+", metavar="NAME=PATH", help=WHERE)
    made.add_argument("-o", "--out", type=Path, required=True, help="the folder of packed runs")
    made.add_argument(
        "--crop", type=int, nargs="+", required=True, help="cells of a crop, for all axes or each"
    )
    made.add_argument(
        "--halo",
        type=int,
        nargs="+",
        default=[0],
        help="cells read around a crop: for all sides, per axis, or low and high per axis",
    )
    made.add_argument(
        "--target", nargs="+", default=[], metavar="NAME", help="fields that are read without halo"
    )
    made.add_argument(
        "--scale-factor", type=int, default=1, help="cells of a target per input cell and axis"
    )
    made.add_argument("--ndim", type=int, help="number of axes of the grid, if not told otherwise")
    made.add_argument("--dtype", choices=DTYPES, help="of the numbers; default: as in the files")
    made.add_argument("--compression", default="zstd", help=" | ".join(COMPRESSIONS))
    made.add_argument(
        "--shard", type=memory_size, default=SHARD, help="most bytes of a file; default: 64MiB"
    )
    made.add_argument(
        "--overhead",
        type=memory_size,
        default=OVERHEAD,
        help="what reading a chunk costs besides its bytes, in bytes; more makes larger chunks; "
        "default: 256KiB",
    )
    made.add_argument(
        "--memory", type=memory_size, default=512 << 20, help="most memory to use; default: 512MiB"
    )
    made.add_argument("--threads", type=int, default=2, help="most runs at the same time")
    made.add_argument(
        "--dask", metavar="SCHEDULER", help="use the workers of a dask scheduler: address or local"
    )
    made.add_argument(
        "--overwrite",
        action="store_true",
        help="pack runs again that were packed otherwise or from other files",
    )
    made.add_argument("--plan", action="store_true", help="only say what would be done")
    return made


def main(argv: Sequence[str]) -> int:
    """Pack."""
    options = parser().parse_args(argv)
    if options.threads < 1:
        raise RecipeError(f"--threads is {options.threads}; it takes at least one")
    settings = Settings(
        tuple(options.crop),
        tuple(options.halo),
        tuple(options.target),
        options.scale_factor,
        options.dtype,
        options.compression,
        options.shard,
        options.overhead,
    )
    files = named_files(options.places)
    todo = plan(files, options.out, settings, ndim=options.ndim, overwrite=options.overwrite)
    show(todo)
    if options.plan:
        return 0
    if options.dask:
        # its import makes it tell of every connection
        import_module("distributed")
        logging.getLogger("distributed").setLevel(logging.WARNING)
    packed: list[Packed] = []

    def done(run: Packed) -> None:
        packed.append(run)
        if options.dask:
            tell(run.read)
        log.info(
            "%s: %s, %s on the disk, %.1f s (%d of %d)",
            run.path.name,
            size_text(run.read),
            size_text(run.written),
            run.seconds,
            len(packed) + len(todo.complete),
            len(todo.jobs) + len(todo.complete),
        )

    try:
        with bar_of_bytes("packing", len(todo.jobs) * todo.run_bytes) as tell:
            pack(
                todo,
                memory=options.memory,
                threads=options.threads,
                dask=options.dask,
                tell=tell,
                done=done,
            )
    except KeyboardInterrupt:
        log.info("interrupted; runs that are complete stay, and the same command goes on")
        return 130
    there = f"{len(todo.complete)} were there" if todo.complete else "none was there before"
    sizes = " became ".join(
        size_text(sum(getattr(run, name) for run in packed)) for name in ("read", "written")
    )
    print(
        f"packed {len(packed)} runs into {options.out}, {there}" + (f"; {sizes}" if packed else "")
    )
    return 0


def named_files(places: Sequence[str]) -> Mapping[str, Files]:
    """Where the files of each field are; of one bare path, all fields of its first file.

    Raises:
        RecipeError: If a place has no name, and none can be found in the file.
    """
    if len(places) > 1 or "=" in places[0]:
        bare = [place for place in places if "=" not in place]
        if bare:
            raise RecipeError(f"{bare[0]!r} is not NAME=PATH; name every field, and quote patterns")
        return files_at(places, list(dict.fromkeys(place.partition("=")[0] for place in places)))
    path, _, variable = places[0].partition("::")
    found = Files(path).paths(path)
    if variable:
        return {variable.strip("/").rpartition("/")[2]: Files(path, variable)}
    names = list(open_source(found[0]).fields)
    if names == [found[0].stem]:
        raise RecipeError(f"the files of {path!r} have no name for their field; give NAME={path!r}")
    return files_at(places, names)


def show(todo: Plan) -> None:
    """Print how fields are cut up, and what reading a window costs."""
    table = Table(title=str(todo.folder), title_justify="left", box=None)
    for column in ("field", "cells", "window", "chunk", "shard", "files", "chunk size"):
        table.add_column(column)
    for column in ("chunks per window", "read amplification"):
        table.add_column(column, justify="right")
    for name, layout in todo.layouts.items():
        window = todo.windows[name]
        table.add_row(
            name,
            cells(layout.shape),
            cells(window),
            cells(layout.chunk),
            cells(layout.shard),
            str(layout.files),
            size_text(todo.chunk_bytes(name)),
            f"{chunk_reads(layout.shape, layout.chunk, window):.1f}",
            f"{amplification(layout.shape, layout.chunk, window):.2f}",
        )
    Console(width=1000).print(table)
    print(
        f"{len(todo.jobs)} runs of {size_text(todo.run_bytes)} to pack, {len(todo.complete)} are "
        f"packed already"
    )
