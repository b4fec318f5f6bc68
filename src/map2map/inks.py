"""Inks: the colors, dashes, letters and legends of figures of an emulator beside baselines.

A method has the same color in all of them, and the truth that of the letters.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from map2map.plots import STYLE
from map2map.typing import Array

__all__ = [
    "DIVERGING",
    "MARKERS",
    "MASKED",
    "METHODS",
    "PAPER",
    "SEQUENTIAL",
    "Inks",
    "dash",
    "ending",
    "from_zero",
    "legend",
    "plain_decades",
    "positive",
    "shorten",
    "styled",
    "text",
    "tint",
]

LINE = 64
"""About how many letters fit above the axes."""

METHODS = 6
"""How many methods have a color of their own; further ones differ by their dashes."""


@dataclass(frozen=True)
class Inks:
    """Colors of a figure.

    Args:
        ink: Of letters, axes and the truth.
        faint: Of lines to compare with.
        paper: Of the page.
        methods: Of the emulator and of baselines.
    """

    ink: str
    faint: str
    paper: str
    methods: tuple[str, ...]


# Okabe and Ito's colors, which the color-blind tell apart, the light ones darkened for white paper
PAPER = Inks(
    "#1a1a1a",
    "#b8b8b8",
    "#ffffff",
    ("#0072b2", "#c25a00", "#007a5a", "#a8588a", "#8a6d00", "#666666"),
)

DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 3)),
)
MARKERS = "osD^vPX"

DIFFERENT = 15
"""Curves that differ by more than this factor are drawn on a logarithmic axis."""

MASKED = "#999999"
"""Of cells without a value, on light and on dark pages."""

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"


def tint(inks: Inks, number: int) -> str:
    """The color of a method, the same in every figure."""
    return inks.methods[number % len(inks.methods)]


def dash(number: int) -> Any:
    """The dashes of a method's lines; those of the emulator are not broken."""
    return DASHES[(number + number // METHODS) % len(DASHES)]


def shorten(name: str, most: int = 28) -> str:
    """A name that fits into a figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def ending(name: str, most: int = 22) -> str:
    """The end of a run's name that fits into a figure: names of runs begin alike."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def text(words: str) -> str:
    """Words of the user's as they stand: in matplotlib, $ begins mathematics."""
    return "".join(c if c.isprintable() else " " for c in words).replace("$", r"\$")


@contextmanager
def styled(inks: Inks) -> Iterator[None]:
    """Settings in which a figure is made and written."""
    style = {
        **STYLE,
        "text.color": inks.ink,
        "axes.edgecolor": inks.ink,
        "axes.labelcolor": inks.ink,
        "axes.titlecolor": inks.ink,
        "xtick.color": inks.ink,
        "ytick.color": inks.ink,
        # what is drawn in "C0", "C1" …
        "axes.prop_cycle": cycler(color=inks.methods),
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        # letters as outlines look the same everywhere; in a PDF they are letters
        "svg.fonttype": "path",
        "pdf.fonttype": 42,
        # the same scores make the same bytes
        "svg.hashsalt": "map2map",
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes, and stands in the caption
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def legend(
    figure: Figure, names: Sequence[str], inks: Inks, numbers: Sequence[int | None]
) -> Legend:
    """Name the methods by their numbers (None for the truth), above the axes."""
    handles = [
        Line2D(
            [],
            [],
            color=inks.ink if number is None else tint(inks, number),
            ls="-" if number is None else dash(number),
            lw=2.2 if number is None else 1.6,
        )
        for number in numbers
    ]
    # labels are put in afterwards, since matplotlib drops those that begin with an underscore
    widest = max(len(shorten(name)) for name in names)
    box = figure.legend(
        handles,
        ["x"] * len(names),
        loc="outside upper left",
        ncols=max(1, min(len(names), LINE // (widest + 8))),
        handlelength=2.6,
        borderpad=0.1,
    )
    for label, name in zip(box.get_texts(), names, strict=True):
        label.set_text(text(shorten(name)))
    return box


def plain_decades(axis: Axis) -> None:
    """Label a logarithmic axis that spans few decades with plain numbers."""
    low, high = axis.get_view_interval()
    if not 0 < low < high or low < 1e-4 or high > 1e5 or high / low > 300:
        return
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    subs = (2, 5) if high / low > 5 else (1.2, 1.5, 2, 3, 4, 5, 6, 8)
    axis.set_minor_locator(LogLocator(subs=subs))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def positive(values: Array) -> Array:
    """What a logarithmic axis can show; the rest is NaN."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def from_zero(axes: Axes, which: Literal["x", "y"], curves: Sequence[Array]) -> None:
    """Let an axis of what is never negative begin at 0, or be logarithmic if curves differ a lot.

    Args:
        axes: With all curves drawn.
        which: The axis.
        curves: Their values.
    """
    kept = [c[np.isfinite(c) & (c > 0)] for c in curves]
    typical = [float(np.median(each)) for each in kept if each.size]
    low = 0.0
    if len(typical) > 1 and max(typical) > DIFFERENT * min(typical):
        axes.set(**{f"{which}scale": "log"})
        low = min(float(np.percentile(each, 2)) for each in kept if each.size) / 2
    axes.set(**{f"{which}lim": (low, None)})
    if low:
        plain_decades(axes.xaxis if which == "x" else axes.yaxis)
