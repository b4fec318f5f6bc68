"""Runs on disk, readable by field and window: one file of code per format."""

from pathlib import Path

from map2map.errors import SourceError
from map2map.sources.base import Source, missing
from map2map.sources.hdf5 import Hdf5Source
from map2map.sources.netcdf import NetcdfSource
from map2map.sources.npy import NpySource
from map2map.sources.stored import Axis, Stored
from map2map.sources.zarr import ZarrSource

__all__ = [
    "Axis",
    "Hdf5Source",
    "NetcdfSource",
    "NpySource",
    "Source",
    "Stored",
    "ZarrSource",
    "format_for",
    "open_source",
]


def formats() -> list[type[Source]]:
    """The formats there are: the sources of this package's ``__all__``."""
    public = [globals()[name] for name in __all__]
    return [
        item
        for item in public
        if isinstance(item, type) and issubclass(item, Source) and item is not Source
    ]


def format_for(path: Path | str) -> type[Source]:
    """The format that a new run is written in, from the suffix of its name.

    Raises:
        SourceError: If no format has this suffix.
    """
    suffix = Path(path).suffix.lower()
    if not suffix:
        return NpySource
    for source in formats():
        if suffix in source.suffixes:
            return source
    known = ", ".join(suffix for source in formats() for suffix in source.suffixes)
    raise SourceError(
        f"cannot tell from {str(path)!r} in which format to write; end it with one of {known}, or "
        f"with no suffix for a folder of .npy files"
    )


def open_source(
    path: Path | str,
    *,
    ndim: int | None = None,
    framed: bool = False,
    channels_last: bool = False,
    skip: int = 0,
) -> Source:
    """Open a run in whatever format it is stored.

    Args:
        path: A file, or a folder that is one run.
        ndim: Number of spatial axes, the last ones of every array; see the format's class for what
            is taken if it is not given.
        framed: Whether the first axis of arrays with more axes counts frames.
        channels_last: Whether the spatial axes are the first ones instead.
        skip: Cells at the beginning of every spatial axis that are left out.

    Raises:
        SourceError: If there is nothing at ``path``, or nothing that a format reads.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path)
    for source in formats():
        if source.claims(path):
            return source(path, ndim=ndim, framed=framed, channels_last=channels_last, skip=skip)
    known = ", ".join(suffix for source in formats() for suffix in source.suffixes)
    if path.is_dir():
        raise SourceError(
            f"cannot tell the format of the folder {path}: it has neither .npy files nor Zarr "
            f"metadata; give a folder of .npy files, a Zarr store, or a file ({known})"
        )
    raise SourceError(
        f"cannot tell the format of {path} from its suffix {path.suffix!r}; known are {known}; "
        f"rename the file"
    )
