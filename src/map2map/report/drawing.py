"""Pictures: a figure with its caption and what it shows in words, as inline SVG or as PDF.

A page may be light or dark, so lines and letters of its figures are drawn in stand-in colors, which
become variables of the page's style sheet. In a PDF they are the colors of the light page.
"""

import base64
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

from map2map.plots import STYLE
from map2map.typing import Array

__all__ = ["PAPER", "Inks", "Picture", "legend", "save_pdf", "shorten", "svg", "text", "tint"]

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
SCREEN = Inks(
    "#0a0b0c", "#0a0b0d", "#0a0b0e", tuple(f"#0a0b{0x10 + i:02x}" for i in range(METHODS))
)
VARIABLES = {
    SCREEN.ink: "var(--ink)",
    SCREEN.faint: "var(--faint)",
    SCREEN.paper: "var(--paper)",
} | {color: f"var(--method-{i})" for i, color in enumerate(SCREEN.methods)}

DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 3)),
)
MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn when it is needed.

    Args:
        name: Short and unique; of its file.
        caption: What is shown, with units and what bands mean.
        alt: What one would see, for those who do not.
        draw: Makes the figure in given colors.
        wide: Whether it needs the width of the page.
    """

    name: str
    caption: str
    alt: str
    draw: Callable[[Inks], Figure]
    wide: bool = False


def tint(inks: Inks, number: int) -> str:
    """The color of a method, the same in every figure."""
    return inks.methods[number % len(inks.methods)]


def dash(number: int) -> Any:
    """The dashes of a method's lines; those of the emulator are not broken."""
    return DASHES[(number + number // METHODS) % len(DASHES)]


def shorten(name: str, most: int = 28) -> str:
    """A name that fits into a figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


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


def svg(picture: Picture) -> Markup:
    """A picture as SVG within a page, in the page's colors."""
    out = io.StringIO()
    with styled(SCREEN):
        figure = picture.draw(SCREEN)
        width = float(figure.get_size_inches()[0])
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    code = out.getvalue()
    code = code[code.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', code)
    assert box is not None
    code = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", code, flags=re.S)
    # what is named in one figure must not be found by another
    code = re.sub(r'\bid="', f'id="{picture.name}-', code)
    code = re.sub(r'(xlink:)?href="#', f'href="#{picture.name}-', code)
    code = re.sub(r"data:image/png;base64,([^\"]+)", lambda found: with_palette(found[1]), code)
    code = code.replace("xlink:href=", "href=").replace("url(#", f"url(#{picture.name}-")
    code = re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], code)
    code = re.sub(r"\n\s*", "\n", code[code.index(">") + 1 :])
    start = (
        f'<svg {box[0]} role="img" aria-label="{escape(picture.alt)}" '
        f'style="max-width:{1.35 * width:.2f}in">'
    )
    return Markup(start + code)


def with_palette(text: str) -> str:
    """An image in base64 as a data URI, with a palette if its colors fit: a third of the size."""
    png = base64.b64decode(text)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    colors, index = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colors) <= 256:
        small = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
        small.putpalette(colors[:, :3].tobytes())
        out = io.BytesIO()
        small.save(out, "PNG", optimize=True, transparency=colors[:, 3].tobytes())
        png = out.getvalue()
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def save_pdf(picture: Picture, path: Path) -> None:
    """Write a picture as a PDF, in the colors of paper."""
    # it would tell of every letter of the fonts
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    with styled(PAPER):
        figure = picture.draw(PAPER)
        figure.savefig(
            path, format="pdf", dpi=300, metadata={"CreationDate": None, "Title": picture.caption}
        )


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
