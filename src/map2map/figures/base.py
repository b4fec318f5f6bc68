"""What every figure starts from: a field of one run after another, and how it is drawn."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from map2map.errors import FieldError, RecipeError
from map2map.fields import Field
from map2map.inks import Inks, legend, shorten, text
from map2map.metrics.base import slabs
from map2map.typing import Array, Shape

__all__ = [
    "Case",
    "Levels",
    "RunFigure",
    "at_least",
    "bracket",
    "heading",
    "name_methods",
    "noted",
    "titled",
]


@dataclass(frozen=True)
class Case:
    """A field of one run: the truth and what has been predicted, in physical units.

    Args:
        field: Which.
        run: Name of the run.
        truth: Values, shape (channel, *space); NaN where masked.
        predictions: Values of the same shape, by method.
        counts: Cells that count, shape (*space): where the truth and all predictions are finite.
        methods: All methods there are, in the order of their colors.
        sizes: Cell size of each axis, if it is known.
    """

    field: Field
    run: str
    truth: Array
    predictions: Mapping[str, Array]
    counts: NDArray[np.bool_]
    methods: tuple[str, ...]
    sizes: tuple[float, ...] | None = None

    @property
    def space(self) -> Shape:
        """Cells per axis."""
        return self.truth.shape[1:]

    @property
    def has_levels(self) -> bool:
        """Whether the channels are levels or other entries of a profile."""
        return len(self.truth) > 1 and self.field.kind != "vector"

    def parts(self, method: str) -> Iterator[tuple[Array, Array]]:
        """Prediction and truth where cells count, a few million at a time: (channel, cell)."""
        counts = None if self.counts.all() else self.counts
        yield from slabs(self.predictions[method], self.truth, counts)

    def only(self, values: Array) -> Array:
        """Values with NaN where cells do not count, in a copy if there are such."""
        return values if self.counts.all() else np.where(self.counts, values, np.nan)

    def range_of(self, *values: Array) -> tuple[float, float]:
        """The smallest and the largest value of any of these where cells count."""
        every = self.counts.all()
        ends = [
            (float(channel.min()), float(channel.max()))
            for each in values
            for whole in each
            for channel in [whole if every else whole[self.counts]]
        ]
        return min(low for low, _ in ends), max(high for _, high in ends)


class RunFigure(ABC):
    """A figure of a field, which takes in one run after another and is drawn at the end.

    It remembers no more than what is drawn. The options of how it is drawn are its arguments. A
    figure of which there is nothing to show (the levels of a field that has none) draws nothing.
    """

    @abstractmethod
    def add(self, case: Case) -> None:
        """Take in a field of a run, of which at least one cell counts."""

    @abstractmethod
    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """Draw all that was taken in.

        Args:
            field: Which field it was.
            inks: Colors.

        Returns:
            The figures, by what is added to the name of their files; "" if there is but one.
        """


@dataclass(frozen=True)
class Levels:
    """How channels are profiles: ``features`` of them, each of as many levels.

    Args:
        features: How many profiles the channels are.
        level_first: Whether channels are (level, feature), flattened, instead of (feature, level).
        downwards: Whether levels count downwards, as where the pressure rises from one to the
            next, so that the first is drawn at the top.
    """

    features: int = 1
    level_first: bool = False
    downwards: bool = True

    def __post_init__(self) -> None:
        at_least(1, features=self.features)

    def split(self, values: Array, axis: int = 0) -> list[Array]:
        """The values of each feature, with the levels along ``axis``, where channels were.

        >>> Levels(2, level_first=True).split(np.arange(4))
        [array([0, 2]), array([1, 3])]
        """
        channels = values.shape[axis]
        if channels % self.features:
            raise FieldError(
                f"{channels} channels are not {self.features} profiles of as many levels each; "
                f"give as features a number that divides {channels}"
            )
        levels = channels // self.features
        parts = (
            [slice(i, None, self.features) for i in range(self.features)]
            if self.level_first
            else [slice(i * levels, (i + 1) * levels) for i in range(self.features)]
        )
        front = (slice(None),) * axis
        return [values[(*front, part)] for part in parts]

    def suffixes(self) -> list[str]:
        """What distinguishes the files of the features."""
        return [""] if self.features == 1 else [str(i) for i in range(self.features)]

    def show(self, axis: Axes, levels: int) -> None:
        """Make the vertical axis one of levels."""
        ends = (-0.5, levels - 0.5)
        axis.set_ylim(ends[::-1] if self.downwards else ends)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def at_least(least: int, **options: int) -> None:
    """Refuse options that are too small.

    Raises:
        RecipeError: Which.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RecipeError(
                f"{name} of a figure is a whole number from {least} on, not {value!r}"
            )


def bracket(units: str | None) -> str:
    """Units behind a name; nothing if there are none.

    >>> bracket("m/s"), bracket("1")
    (' [m/s]', '')
    """
    return f" [{shorten(units)}]" if units and units != "1" else ""


def heading(field: Field, what: str) -> str:
    """What a figure shows, in words."""
    return text(f"{shorten(field.name)}: {what}")


def titled(figure: Figure, heading: str) -> None:
    """Write above a figure without a legend what it shows."""
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left")


def noted(figure: Figure, note: str) -> None:
    """Write below a figure how to read it."""
    figure.supxlabel(text(note), fontsize=7.5, x=0.01, ha="left")


def name_methods(
    figure: Figure,
    heading: str,
    inks: Inks,
    methods: Sequence[str],
    shown: Sequence[str],
    *,
    truth: bool,
) -> None:
    """Write above a figure what it shows, and name the truth and those methods that are shown."""
    numbers: list[int | None] = [None] if truth else []
    numbers += [methods.index(name) for name in shown]
    box = legend(figure, [*(["truth"] if truth else []), *shown], inks, numbers)
    box.set_title(heading, prop=FontProperties(size=10))
    box.set_alignment("left")
