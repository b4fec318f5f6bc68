"""What commands show on a terminal: bars, and numbers that people can read."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from map2map.errors import M2MError
from map2map.memory import bytes_of

__all__ = ["bar_of_bytes", "cells", "memory_size", "size_text"]


def memory_size(text: str) -> int:
    """An option that is a size of memory, for argparse."""
    try:
        return bytes_of(text)
    except M2MError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size_text(number: float) -> str:
    """Bytes in a unit that suits them.

    >>> size_text(1536), size_text(7)
    ('1.5 KiB', '7 B')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def cells(shape: Sequence[int]) -> str:
    """Cells per axis.

    >>> cells((64, 32))
    '64 x 32'
    """
    return " x ".join(map(str, shape))


@contextmanager
def bar_of_bytes(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and remaining time; nothing where standard error is no terminal.

    Yields:
        What is to be told of every number of bytes that are done.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield partial(progress.advance, progress.add_task(title, total=total))
