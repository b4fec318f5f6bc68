"""Arrays saved by numpy: one file per field, memory-mapped."""

import mmap as mmaps
import os
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO, FileIO
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from map2map.errors import SaveError, SourceError
from map2map.sources.base import Copy, Source
from map2map.sources.pools import Pool
from map2map.sources.sinks import Sink
from map2map.sources.stored import Stored

__all__ = ["NpySource"]

Header = tuple[tuple[int, ...], bool, np.dtype[Any], int]
"""Shape, whether in Fortran order, dtype, and the position of the first value."""


def most_maps() -> int:
    """How many files may be mapped at once: each takes one of the files a process may open."""
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:  # not on Windows
        return 256
    limit = getrlimit(RLIMIT_NOFILE)[0]
    return 1 << 14 if limit < 0 else min(limit // 2, 1 << 14)


MAPS: Pool[NDArray[Any]] = Pool(most_maps())
"""Maps in use: one that is set up anew makes copying a crop out of it twice as slow."""


class NpySource(Source):
    """An ``.npy`` file, which is a run of one field named by the file, or a folder of them.

    Any byte order, real dtype and memory order. Nothing is ever unpickled.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    cheap_header: ClassVar[bool] = True
    __slots__ = ()

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether ``path`` is an ``.npy`` file or has some in it."""
        return super().claims(path) or (path.is_dir() and any(path.glob("*.npy")))

    @classmethod
    def create(
        cls, path: Path | str, fields: Sequence[Stored], *, overwrite: bool = False
    ) -> "NpySink":
        """Write a run: a file if ``path`` ends in ``.npy`` (one field), else a folder.

        Units, axes and other attributes are not kept; the format has no place for them.
        """
        return NpySink(path, fields, overwrite=overwrite)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy" if self.path.is_dir() else self.path

    def _scan(self) -> dict[str, Stored | str]:
        folder = self.path.is_dir()
        files = sorted(self.path.glob("*.npy")) if folder else [self.path]
        found: dict[str, Stored | str] = {}
        for file in files:
            try:
                shape, _, dtype, _ = read_header(file)
                found[file.stem] = self._describe(file.stem, shape, dtype)
            except SourceError as error:
                found[file.stem] = str(error)
        return found

    def release(self) -> None:
        """Unmap the files of this run."""
        for name in self._scanned():
            MAPS.drop(self._file(name))

    def mapped(self, field: str) -> NDArray[Any]:
        """The array in its file."""
        stored = self.stored(field)
        values = MAPS.get(self._file(stored.name), map_array)
        self._check_unchanged(stored, values.shape)
        return values

    def _fill(self, stored: Stored, copies: list[Copy]) -> None:
        values = self.mapped(stored.name)
        for index, target in copies:
            np.copyto(target, values[index], casting="same_kind")


def read_header(path: Path) -> Header:
    """Shape, whether in Fortran order, dtype, and the position of the first value.

    Raises:
        SourceError: If it is not an array of plain numbers saved by numpy, or is not complete.
    """
    with path.open("rb", buffering=0) as file:
        return header_of(file, path)


def header_of(file: FileIO, path: Path) -> Header:
    """The same, of a file that is open."""
    start = file.read(128)
    # length of the rest of the header: after magic and version, in 2 bytes, later in 4
    end = 8 + (2 if start[6:7] == b"\x01" else 4)
    end += int.from_bytes(start[8:end], "little")
    if end > len(start) and start.startswith(npy_format.MAGIC_PREFIX):
        start += file.read(end - len(start))
    try:
        header = parse_header(start[:end])
    except ValueError as error:
        raise SourceError(
            f"{path} is not an array of numbers saved by numpy.save: it begins with {start[:8]!r} "
            f"({error}); files are never unpickled; save the array with numpy.save"
        ) from error
    shape, _, dtype, offset = header
    size, expected = os.fstat(file.fileno()).st_size, offset + prod(shape) * dtype.itemsize
    # an array of objects is as long as its pickle, and refused for what it is
    if size < expected and not dtype.hasobject:
        raise SourceError(
            f"{path} is truncated: its header announces an array {shape} of {dtype}, "
            f"{expected} bytes with the header, but there are {size}; copy or make it again"
        )
    return header


@lru_cache(maxsize=64)
def parse_header(start: bytes) -> Header:
    """Read a header; kept, because the files of a data set begin alike."""
    file = BytesIO(start)
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy_format.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version {version} is for records")
    return shape, fortran, dtype, file.tell()


def map_array(path: Path) -> NDArray[Any]:
    """The array in a file, memory-mapped so that only what is used is read."""
    with path.open("rb", buffering=0) as file:
        shape, fortran, dtype, offset = header_of(file, path)
        if dtype.hasobject:
            raise SourceError(f"{path} holds Python objects, which are never unpickled")
        buffer = mmap(file.fileno(), 0, access=ACCESS_READ)
    return np.ndarray(shape, dtype, buffer, offset, order="F" if fortran else "C")


class NpySink(Sink):
    """Writes ``.npy`` files."""

    resumable: ClassVar[bool] = True

    @property
    def _single(self) -> bool:
        return self.path.suffix.lower() == ".npy"

    def _file(self, path: Path, name: str) -> Path:
        return path if self._single else path / f"{name}.npy"

    def _prepare(self, path: Path) -> None:
        self._arrays: dict[str, np.memmap[Any, Any]] = {}
        single = self._single
        if single and len(self.fields) != 1:
            raise SaveError(
                f"{self.path} is one file, but {len(self.fields)} fields shall be written: "
                f"{list(self.fields)}; give a folder (a name without .npy)"
            )
        if not single:
            path.mkdir()
        for name, stored in self.fields.items():
            if Path(name).name != name:
                raise SaveError(f"field {name!r} cannot be the name of a file; rename it")
            self._arrays[name] = new_array(self._file(path, name), stored)

    def _reopen(self, path: Path) -> None:
        self._arrays = {
            name: np.lib.format.open_memmap(self._file(path, name), "r+") for name in self.fields
        }

    def _put(self, stored: Stored, index: tuple[slice, ...], values: NDArray[Any]) -> None:
        array = self._arrays[stored.name]
        array[index] = values
        # written pages count as this process's memory as long as they are mapped
        if hasattr(mmaps, "MADV_DONTNEED"):
            array._mmap.madvise(mmaps.MADV_DONTNEED)  # type: ignore[attr-defined]

    def _close(self) -> None:
        for values in self._arrays.values():
            values.flush()
        self._arrays.clear()

    def _may_replace(self) -> bool:
        return self.path.is_file() or all(
            entry.suffix == ".npy" and entry.is_file() for entry in self.path.iterdir()
        )


def new_array(path: Path, stored: Stored) -> "np.memmap[Any, Any]":
    """A new file with room for a field, memory-mapped for writing."""
    shape, dtype = stored.full_shape, np.dtype(stored.dtype)
    header = {
        "descr": npy_format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, header)
        offset = file.tell()
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        file.flush()
        # room is taken now, because a full disk under a memory map would kill the process
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, offset + size)
        else:
            block = bytes(1 << 20)
            for start in range(0, size, len(block)):
                file.write(block[: size - start])
    return np.memmap(path, dtype, "r+", offset, shape)
