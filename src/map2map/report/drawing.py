"""Pictures: a figure with its caption and what it shows in words, as inline SVG or as PDF.

A page may be light or dark, so lines and letters of its figures are drawn in stand-in colors, which
become variables of the page's style sheet. In a PDF they are the colors of the light page.
"""

import base64
import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from map2map.inks import METHODS, PAPER, Inks, styled

__all__ = ["Picture", "save_pdf", "svg"]

SCREEN = Inks(
    "#0a0b0c", "#0a0b0d", "#0a0b0e", tuple(f"#0a0b{0x10 + i:02x}" for i in range(METHODS))
)
VARIABLES = {
    SCREEN.ink: "var(--ink)",
    SCREEN.faint: "var(--faint)",
    SCREEN.paper: "var(--paper)",
} | {color: f"var(--method-{i})" for i, color in enumerate(SCREEN.methods)}


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
