"""A few open files, the most recently used."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

__all__ = ["LIBRARIES", "Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """The most recently used open files, so that ten thousand of them cost what ten do.

    A file that was replaced since it was opened is opened anew. A forked process starts with an
    empty pool and leaves its parent's handles alone.

    Args:
        size: How many are open at most.
        close: How one is closed when it has to make room.
    """

    def __init__(self, size: int, close: Callable[[T], object] | None = None) -> None:
        self._size = size
        self._close = close
        self._open: OrderedDict[tuple[object, Path], tuple[object, T]] = OrderedDict()
        self._inherited: list[object] = []
        self.lock = RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # kept, because collecting them would close what the parent still reads
        self._inherited.append(self._open)
        self._open = OrderedDict()
        self.lock = RLock()

    def get(self, path: Path, opener: Callable[[Path], T]) -> T:
        """The open file; hold ``lock`` while using it if closing it elsewhere would hurt."""
        info = path.stat()
        key, version = (opener, path), (info.st_ino, info.st_mtime_ns, info.st_size)
        with self.lock:
            known = self._open.get(key)
            if known is not None and known[0] == version:
                self._open.move_to_end(key)
                return known[1]
            # the library would hand out the former content of a file that is open
            if known is not None:
                self._evict(key)
            handle = opener(path)
            self._open[key] = version, handle
            while len(self._open) > self._size:
                self._evict(next(iter(self._open)))
            return handle

    def drop(self, path: Path) -> None:
        """Close a file if it is open."""
        with self.lock:
            for key in [key for key in self._open if key[1] == path]:
                self._evict(key)

    def _evict(self, key: tuple[object, Path]) -> None:
        _, handle = self._open.pop(key)
        if self._close is not None:
            self._close(handle)


LIBRARIES: Pool[Any] = Pool(32, close=lambda handle: handle.close())
"""Open HDF5 and NetCDF files. These libraries serve one thread at a time: hold its ``lock``."""
