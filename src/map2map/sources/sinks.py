"""How every format writes a run: beside its destination, renamed when it is complete."""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError, M2MError, SaveError, near_names
from map2map.sources.base import one_line
from map2map.sources.stored import Axis, Stored
from map2map.typing import Shape
from map2map.windows import Window

__all__ = ["Sink", "chunk_shape"]


class Sink(ABC):
    """A run that is being written, as a context manager.

    Everything goes to a temporary name beside ``path``, which takes its place when the ``with``
    block ends. If anything fails before that, the temporary is removed and what was at ``path``
    is still there. Cells that are never written are zero. With `in_part` the temporary is kept.

    Args:
        path: Where the run shall be.
        fields: What it shall hold; leading axes are written as one axis of channels, after that of
            frames if there is one.
        overwrite: Whether a run that is already there may be replaced.

    Raises:
        SaveError: If there is something at ``path`` that may not be replaced, or on the disk's
            refusal at any time.
    """

    def __init__(
        self, path: Path | str, fields: Sequence[Stored], *, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        # an axis of frames tells that there are fields of one number without one of channels
        self.fields = {
            item.name: replace(
                item,
                leading=() if item.frames and item.channels == 1 else (item.channels,),
            )
            for item in fields
        }
        self.fields = {
            name: replace(item, axes=self._axes(item)) for name, item in self.fields.items()
        }
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.{token_hex(4)}.part")
        self._keeps_part = False
        self._lock = Lock()
        self._is_open = False
        if len(self.fields) != len(fields) or not fields:
            raise FieldError(
                f"a run needs fields of different names, not {[item.name for item in fields]}"
            )
        for item in fields:
            if np.dtype(item.dtype).kind not in "fiub":
                raise FieldError(
                    f"field {item.name!r} cannot be written with dtype {item.dtype}; "
                    f"use a real one (float, int or bool)"
                )
        self._check_destination()

    names_axes: ClassVar[bool] = False
    """Whether readers of this format need names of axes."""

    def _axes(self, item: Stored) -> tuple[Axis, ...]:
        """The axes of a field; with names that are made up if it has none, and none of a field's.

        A variable that is called like its axis would be taken for a coordinate.
        """
        axes, ndim = item.axes, len(item.shape)
        if not axes and self.names_axes:
            names = ("z", "y", "x")[-ndim:] if ndim <= 3 else [f"axis_{i}" for i in range(ndim)]
            # axes of one name have one size
            alike = len({other.shape for other in self.fields.values()}) == 1
            axes = tuple(Axis(name if alike else f"{name}_{item.name}") for name in names)
        return tuple(
            replace(axis, name=f"{axis.name}_axis") if axis.name in self.fields else axis
            for axis in axes
        )

    resumable: ClassVar[bool] = False
    """Whether what was written survives the end of the process that wrote it."""

    def in_part(self, part: Path) -> Self:
        """Write to ``part`` until it is complete; it is kept if that fails, and taken up again.

        Only where `resumable`. Several processes may write different windows of it.
        """
        self._part, self._keeps_part = part, True
        return self

    def suspend(self) -> None:
        """Close the part and leave it where it is; the ``with`` block then ends without effect."""
        if self._is_open:
            self._is_open = False
            with self._guarded():
                self._close()

    @abstractmethod
    def _prepare(self, path: Path) -> None:
        """Make the file or folder, with room for all fields, and leave it open."""

    def _reopen(self, path: Path) -> None:
        """Open for writing what `_prepare` made, perhaps in another process."""
        raise SaveError(f"{path} cannot be taken up: this format has to be written in one go")

    @abstractmethod
    def _put(self, stored: Stored, index: tuple[slice, ...], values: NDArray[Any]) -> None:
        """Write values at slices of the whole array."""

    @abstractmethod
    def _close(self) -> None:
        """Write out what is pending and close."""

    def _may_replace(self) -> bool:
        """Whether what is at ``path`` is a run of this format, rather than something dear."""
        return self.path.is_file()

    def _check_destination(self) -> None:
        if not self.path.exists():
            return
        if not self.overwrite:
            raise SaveError(
                f"{self.path} exists already; choose another name, or overwrite it (--overwrite)"
            )
        if not self._may_replace():
            raise SaveError(
                f"{self.path} will not be overwritten: it is not a run of this format; "
                f"choose another name or remove it yourself"
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn the libraries' errors into one that says what to do."""
        try:
            yield
        except M2MError:
            raise
        except (OSError, RuntimeError) as error:
            raise SaveError(
                f"cannot write {self.path}: {one_line(error)}; what was there before is "
                f"unchanged; check free space, quota and permissions of {self.path.parent}"
            ) from error

    def __enter__(self) -> Self:
        try:
            with self._guarded():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self._keeps_part and self._part.exists():
                    self._reopen(self._part)
                else:
                    self._prepare(self._part)
        except BaseException as error:
            self._discard()
            if isinstance(error, M2MError) or not isinstance(error, ValueError | TypeError):
                raise
            raise SaveError(
                f"cannot make {self.path}: {one_line(error)}; change the fields' shapes or dtypes, "
                f"or the options (chunks, shards, compression)"
            ) from error
        self._is_open = True
        return self

    def write(self, field: str, window: Window, values: NDArray[Any], frame: int = 0) -> None:
        """Write one window of one field.

        Args:
            field: Name of the field.
            window: Cells to write; they lie inside the grid.
            values: What to write, (channels, *window.shape).
            frame: Which frame, of a field that has an axis of them.

        Raises:
            FieldError: If there is no such field, or the file's dtype cannot hold the values.
            GeometryError: If the window leaves the grid, or the values do not fit it.
            SaveError: If the disk refuses.
        """
        if not self._is_open:
            raise SaveError(f"{self.path} is not open for writing; write inside its `with` block")
        if field not in self.fields:
            raise FieldError(
                f"no field {field!r} is being written to {self.path}"
                f"{near_names(field, self.fields)}"
            )
        stored = self.fields[field]
        check_values(stored, window, values)
        of_frame = () if stored.frames is None else (slice(frame, frame + 1),)
        index = (*of_frame, *(slice(0, n) for n in stored.leading or ()), *window.slices)
        values = values.reshape(*(1 for _ in of_frame), *(stored.leading or ()), *window.shape)
        with self._lock, self._guarded():
            self._put(stored, index, values)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        suspended, self._is_open = not self._is_open, False
        if suspended:
            return
        try:
            if kind is None:
                with self._guarded():
                    self._close()
                    self._check_destination()
                    move(self._part, self.path)
            elif self._keeps_part:
                with suppress(Exception):
                    self._close()
        finally:
            if not self._keeps_part:
                self._discard()

    def _discard(self) -> None:
        """Remove the temporary, if it is still there."""
        if self._part.exists():
            # the file is given up; that it cannot be closed in order is no news
            with suppress(Exception):
                self._close()
            if self._part.is_dir():
                shutil.rmtree(self._part, ignore_errors=True)
            else:
                self._part.unlink(missing_ok=True)


def chunk_shape(stored: Stored, cells: Shape) -> Shape:
    """The shape of a chunk with so many cells: one frame, all channels."""
    frames = () if stored.frames is None else (1,)
    return (*frames, *(stored.leading or ()), *cells)


def check_values(stored: Stored, window: Window, values: NDArray[Any]) -> None:
    """Refuse values that do not fit a window of a field."""
    beyond = window.ndim != len(stored.shape) or any(
        a < 0 or b > n for a, b, n in zip(window.start, window.stop, stored.shape, strict=False)
    )
    if beyond:
        raise GeometryError(
            f"cannot write the window from {window.start} to {window.stop} of field "
            f"{stored.name!r}: it must lie inside the grid of {stored.shape} cells; "
            f"wrap it before, one write per part"
        )
    expected = (stored.channels, *window.shape)
    if values.shape != expected:
        raise GeometryError(
            f"a window of {window.shape} cells of field {stored.name!r} takes values of shape "
            f"{expected}, not {values.shape}"
        )
    if not np.can_cast(values.dtype, stored.dtype, "same_kind"):
        raise FieldError(
            f"values of dtype {values.dtype} would be cut short in field {stored.name!r}, which "
            f"is written as {stored.dtype}; write it with a dtype that holds them"
        )


def move(part: Path, path: Path) -> None:
    """Put a complete file or folder in its place, in one step if it is a file."""
    if part.is_file():
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    if not (path.is_dir() or (part.is_dir() and path.exists())):
        part.replace(path)
        return
    # a folder cannot be replaced in one step: the former one steps aside until the new one is there
    aside = part.with_name(f"{part.name}.former")
    path.replace(aside)
    try:
        part.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
