"""The gallery: figures of all fields of a test set, taken in run by run, written to a folder."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

import map2map.figures
from map2map.errors import SaveError
from map2map.fields import Field
from map2map.figures import Case, RunFigure
from map2map.files import replacing, slug
from map2map.inks import PAPER, Inks, styled
from map2map.usercode import users_errors

__all__ = ["Gallery", "figures_available"]

DOTS = 160
"""Per inch, of images in pixels."""

TICKS: Any = {"axes.formatter.limits": (-3, 5), "axes.formatter.use_mathtext": True}
"""Small and large numbers with their power of ten at the end of the axis."""


def figures_available() -> dict[str, type[RunFigure]]:
    """The figures by their short names: all of `map2map.figures`.

    >>> sorted(figures_available())[:3]
    ['boxplot', 'cross_section', 'dispersion']
    """
    classes = [getattr(map2map.figures, name) for name in map2map.figures.__all__]
    return {
        short_name(cls): cls
        for cls in classes
        if inspect.isclass(cls) and issubclass(cls, RunFigure) and cls is not RunFigure
    }


def short_name(cls: type) -> str:
    """What a figure is called in options and files.

    >>> short_name(map2map.figures.CrossSection)
    'cross_section'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


class Gallery:
    """Figures of every field.

    Args:
        figures: What is drawn of each field, by name; they have not taken in anything yet.
        fields: Names of the fields.
    """

    def __init__(self, figures: Mapping[str, RunFigure], fields: Iterable[str]) -> None:
        self.figures = dict(figures)
        used: set[str] = set()
        self.slugs = {name: slug(name, used) for name in fields}
        self.fields: dict[str, Field] = {}
        self.walls: dict[str, dict[str, RunFigure]] = {}

    def add(self, case: Case) -> None:
        """Take in a field of a run.

        Raises:
            M2MError: If a figure cannot be made of it as it was asked for.
        """
        name = case.field.name
        self.fields[name] = case.field
        wall = self.walls.setdefault(name, {k: deepcopy(v) for k, v in self.figures.items()})
        with users_errors():
            for figure in wall.values():
                figure.add(case)

    def drawn(self, inks: Inks = PAPER) -> Iterator[tuple[str, Figure]]:
        """The figures, each with its name, one after another."""
        for name, wall in self.walls.items():
            for key, figure in wall.items():
                with users_errors(), styled(inks), mpl.rc_context(TICKS):
                    made = figure.draw(self.fields[name], inks)
                for suffix, one in made.items():
                    yield "-".join(p for p in (key, self.slugs[name], suffix) if p), one

    def check(self, folder: Path, kinds: Sequence[str], *, overwrite: bool) -> None:
        """Refuse a folder that cannot be written to, before anything is computed.

        Raises:
            SaveError: If it cannot be made, or has such figures and they may not be replaced.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"cannot make the folder {folder}: {error}; choose another") from error
        ours = re.compile(
            rf"({'|'.join(map(re.escape, self.figures))})-({'|'.join(self.slugs.values())})"
            rf"(-[0-9-]+)?\.({'|'.join(kinds)})"
        )
        existing = sorted(path for path in folder.iterdir() if ours.fullmatch(path.name))
        if existing and not overwrite:
            raise SaveError(
                f"{existing[0]} exists already; choose another folder, or give --overwrite"
            )

    def write(
        self,
        folder: Path,
        kinds: Sequence[str] = ("png",),
        inks: Inks = PAPER,
        writer: Any = None,
    ) -> list[Path]:
        """Draw all and write each figure to a file of its own.

        Args:
            folder: Where.
            kinds: Suffixes of the formats: "png", "pdf".
            inks: Colors.
            writer: TensorBoard's, which gets them as ``test/NAME``, too.

        Returns:
            The files.

        Raises:
            SaveError: If one cannot be written; what was there is still there.
        """
        written = []
        for name, figure in self.drawn(inks):
            for kind in kinds:
                path = folder / f"{name}.{kind}"
                with replacing(path) as temporary, styled(inks), users_errors():
                    # the same figure makes the same bytes
                    unknown = {"CreationDate": None} if kind == "pdf" else {"Software": None}
                    figure.savefig(
                        temporary, format=kind, dpi=DOTS, facecolor=inks.paper, metadata=unknown
                    )
                written.append(path)
            if writer is not None:
                with styled(inks):
                    writer.add_figure(f"test/{name}", figure)
        return written
