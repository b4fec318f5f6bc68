"""``m2m stats PLACE...``: statistics of fields of any size and number."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from map2map.commands.stats_files import FORMATS, Row, SpectrumRow, save, save_figure, to_json
from map2map.commands.terminal import bar_of_bytes, memory_size
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.runs import Files
from map2map.sources import Source, Stored, open_source
from map2map.statistics import (
    Part,
    Spectrum,
    Statistics,
    Wanted,
    read_pass,
    spacing_of,
    spectrum_memory,
)

__all__ = ["main"]

log = logging.getLogger(__name__)

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="m2m stats",
        description="Statistics of fields of any size, streamed: counts, mean and standard "
        "deviation (of the population), extremes, exact quantiles, histogram and power spectrum of "
        "the finite values.",
    )
    made.add_argument(
        "places",
        nargs="+",
        metavar="PLACE",
        help="a path, or NAME=PATH, with wildcards in quotes; ::VARIABLE behind it for one field "
        "of the files. Fields of one name are pooled over all files",
    )
    made.add_argument("--per-file", action="store_true", help="do not pool")
    made.add_argument(
        "--per-channel", action="store_true", help="channels of a field by themselves"
    )
    made.add_argument("--ndim", type=int, help="number of axes of the grid, if not told otherwise")
    made.add_argument(
        "--quantiles",
        type=float,
        nargs="*",
        default=QUANTILES,
        metavar="Q",
        help="between 0 and 1; none after it: no quantiles",
    )
    made.add_argument("--bins", type=int, default=100, help="of the histogram; 0: none is made")
    made.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of the histogram; default: the extremes",
    )
    made.add_argument("--spectrum", action="store_true", help="the isotropic power spectrum, too")
    made.add_argument(
        "--spacing",
        type=float,
        nargs="+",
        help="cell size, for all axes or each; default: by the coordinates, or 1",
    )
    made.add_argument(
        "--memory", type=memory_size, default=512 << 20, help="most memory to use; default: 512MiB"
    )
    made.add_argument("-o", "--out", type=Path, help="write all to a file: .json or .nc")
    made.add_argument("--plot", type=Path, help="draw histogram and spectrum: .png, .pdf or .svg")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return made


def main(argv: Sequence[str]) -> int:
    """Find out, print and save."""
    options = parser().parse_args(argv)
    check_files(options.out, options.plot, overwrite=options.overwrite)
    limits = None if options.range is None else tuple(options.range)
    wanted = Wanted(tuple(dict.fromkeys(options.quantiles)), options.bins, limits)
    groups = grouped(options.places, options.ndim, per_file=options.per_file)
    if options.spectrum:
        check_spectra(groups, options.spacing, options.memory)
    parts = [part for group in groups for part in group.ask(wanted, options.per_channel)]
    number = 1
    while parts:
        with bar_of_bytes(f"pass {number}", sum(part.nbytes for part in parts)) as tell:
            parts = read_pass(parts, memory=options.memory // 4, tell=tell)
        number += 1
    if options.spectrum:
        with bar_of_bytes("spectra", sum(part.nbytes for g in groups for part in g.parts)) as tell:
            for group in groups:
                group.find_spectrum(options.spacing, options.memory)
                tell(sum(part.nbytes for part in group.parts))
    rows = [row for group in groups for row in group.rows()]
    if options.out is not None:
        save(options.out, rows)
    if options.plot is not None:
        save_figure(options.plot, rows)
    if options.json:
        print(to_json(rows))
    else:
        show(rows)
    return 0


def check_files(out: Path | None, plot: Path | None, *, overwrite: bool) -> None:
    """Refuse files that cannot be written, before anything is read.

    Raises:
        RecipeError: If the format is not known.
        SaveError: If there is something already.
    """
    for path, known in ((out, FORMATS), (plot, (".png", ".pdf", ".svg"))):
        if path is None:
            continue
        if path.suffix not in known:
            raise RecipeError(f"cannot write {path}; its name ends with one of {', '.join(known)}")
        if path.exists() and not overwrite:
            raise SaveError(f"{path} exists already; choose another name, or add --overwrite")


@dataclass
class Group:
    """A field of one or several files, whose values are pooled."""

    name: str
    files: list[tuple[Source, Stored]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    spectrum: SpectrumRow | None = None

    def ask(self, wanted: Wanted, per_channel: bool) -> list[Part]:
        """What is to be read for this.

        Raises:
            FieldError: If files differ in units, or in channels that are told apart.
        """
        first = self.files[0][1]
        for source, stored in self.files:
            for what in ("units", "channels") if per_channel else ("units",):
                if getattr(stored, what) != getattr(first, what):
                    raise FieldError(
                        f"{what} of field {self.name!r} are {getattr(first, what)} in "
                        f"{self.files[0][0].path}, but {getattr(stored, what)} in {source.path}; "
                        f"values are not pooled; add --per-file"
                    )
        dtype = max((stored.floating for _, stored in self.files), key=lambda d: d.itemsize)
        count = first.channels if per_channel else 1
        into = tuple(Statistics(wanted, dtype) for _ in range(count))
        self.parts = [Part(source, stored, into) for source, stored in self.files]
        return self.parts

    def cell_sizes(self, spacing: Sequence[float] | None) -> tuple[float, ...] | None:
        """Cell size per axis; None if it is not known.

        Raises:
            GeometryError: If there are another number of axes, or coordinates are uneven.
        """
        first = self.files[0][1]
        if spacing is None:
            return spacing_of(first)
        if len(spacing) not in (1, len(first.shape)) or min(spacing) <= 0:
            raise GeometryError(
                f"--spacing takes 1 or {len(first.shape)} positive values for field "
                f"{self.name!r}, not {' '.join(f'{dx:g}' for dx in spacing)}"
            )
        return tuple(spacing) * (len(first.shape) if len(spacing) == 1 else 1)

    def find_spectrum(self, spacing: Sequence[float] | None, memory: int) -> None:
        """Find the mean spectrum of the files; none where values are not finite."""
        first, sizes = self.files[0][1], self.cell_sizes(spacing)
        mean = Spectrum(sizes or (1.0,) * len(first.shape), memory)
        for source, stored in self.files:
            try:
                mean.add(source, stored)
            except FieldError as error:
                log.warning("no spectrum: %s", error)
                return
        units = {axis.units for axis in first.axes} if spacing is None and sizes else set()
        length = "cell" if sizes is None else (units.pop() or "") if len(units) == 1 else ""
        self.spectrum = SpectrumRow(mean.k, mean.power, mean.modes, len(first.shape), length)

    def rows(self) -> list[Row]:
        """What was found."""
        first = self.files[0][1]
        paths = tuple(str(source.path) for source, _ in self.files)
        into = self.parts[0].into
        channels = [None] if len(into) == 1 else range(len(into))
        return [
            Row(self.name, paths, channel, first.units, statistics, self.spectrum)
            for channel, statistics in zip(channels, into, strict=True)
        ]


def grouped(places: Sequence[str], ndim: int | None, *, per_file: bool) -> list[Group]:
    """The fields, with the files that have them.

    Raises:
        SourceError: If no file matches, or one cannot be read.
        FieldError: If a file lacks a field.
    """
    groups: dict[tuple[str, ...], Group] = {}
    for place in places:
        head, equals, rest = place.partition("=")
        name, path = (head, rest) if equals else (None, place)
        path, _, variable = path.partition("::")
        for found in Files(path).paths(name or variable or path):
            source = open_source(found, ndim=ndim)
            for label, stored in fields_of(source, name, variable or None).items():
                key = (label, str(found)) if per_file else (label,)
                groups.setdefault(key, Group(label)).files.append((source, stored))
    return list(groups.values())


def fields_of(source: Source, name: str | None, variable: str | None) -> dict[str, Stored]:
    """The fields of a file that are meant, by the names that they are given."""
    if variable is not None:
        return {name or variable: source.stored(variable)}
    if name is None:
        return dict(source.fields)
    if name not in source.fields and len(source.fields) == 1:
        return {name: next(iter(source.fields.values()))}
    return {name: source.stored(name)}


def check_spectra(groups: Sequence[Group], spacing: Sequence[float] | None, memory: int) -> None:
    """Refuse spectra of fields that do not fit, or of uneven cells, before anything is read."""
    for group in groups:
        group.cell_sizes(spacing)
        for source, stored in group.files:
            needed = spectrum_memory(stored)
            if needed > memory:
                raise GeometryError(
                    f"the spectrum of field {group.name!r} of {source.path} needs "
                    f"{needed / 2**20:.0f} MiB of memory, but {memory / 2**20:.0f} MiB are "
                    f"allowed; give more by --memory, or leave --spectrum out"
                )


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    many = len({(row.field, row.files) for row in rows}) > len({row.field for row in rows})
    channels = any(row.channel is not None for row in rows)
    quantiles = rows[0].statistics.wanted.quantiles
    table = Table(box=None)
    for column in ("field", *(["file"] if many else []), *(["channel"] if channels else [])):
        table.add_column(column)
    numbers = ("values", "NaN", "inf", "min", "max", "mean", "std")
    for column in ("units", *numbers, *(f"q{q:g}" for q in quantiles)):
        table.add_column(column, justify="left" if column == "units" else "right")
    for row in rows:
        moments = row.statistics.moments
        low, high = (moments.low, moments.high) if moments.count else (np.nan, np.nan)
        found = row.statistics.quantiles()
        table.add_row(
            row.field,
            *([row.files[0]] if many else []),
            *([str(row.channel)] if channels else []),
            row.units or "-",
            *(str(n) for n in (moments.count, moments.nan, moments.inf)),
            *(short(x) for x in (low, high, row.mean, moments.std)),
            *(short(found.get(q, np.nan)) for q in quantiles),
        )
    Console(width=1000).print(table)


def short(number: float) -> str:
    """A number in a table."""
    return "-" if np.isnan(number) else f"{number:.5g}"
