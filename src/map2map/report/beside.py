"""Figures of a test set that were written beside the scores: put into the page as they are."""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from map2map.errors import SourceError

__all__ = ["Drawn", "drawn_in"]

HEAD = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawn:
    """A figure of a file.

    Args:
        title: What it shows.
        address: The picture itself, as the source of an image.
    """

    title: str
    address: str


def drawn_in(folder: Path) -> list[Drawn]:
    """The figures that ``m2m evaluate --figures FOLDER`` has written, field by field.

    Raises:
        SourceError: If there are none, or one is no PNG.
    """
    paths = sorted(folder.glob("*.png"), key=lambda path: path.stem.partition("-")[::-1])
    if not paths:
        raise SourceError(
            f"there are no figures {folder}/*.png; m2m evaluate --figures FOLDER draws some"
        )
    found = []
    for path in paths:
        content = path.read_bytes()
        if not content.startswith(HEAD):
            raise SourceError(f"{path} is no PNG, or is damaged")
        kind, _, field = path.stem.partition("-")
        title = f"{field}: {kind.replace('_', ' ')}" if field else kind
        found.append(Drawn(title, f"data:image/png;base64,{b64encode(content).decode()}"))
    return found
