"""What every source does: know its fields, and read a window of one into a caller's buffer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from map2map.errors import FieldError, GeometryError, M2MError, SourceError, near_names
from map2map.grids import Grid
from map2map.patterns import split_channels
from map2map.sources.stored import Axis, Stored
from map2map.typing import Array, Shape
from map2map.windows import Window, pieces

__all__ = ["Copy", "Source"]

Copy = tuple[tuple[slice, ...], Array]
"""The slices to read, one per axis of the stored array, and the view where their values go."""


class Source(ABC):
    """One run on disk, readable by field and window.

    The last ``ndim`` axes of an array are spatial; those before them, flattened, are its channels
    (none: one channel). A source holds no open file and can be pickled.

    Args:
        path: The file or folder.
        ndim: Number of spatial axes. If not given: all but the first of an array with more than
            one (map2map's convention, channel first), and the only one of an array with one.
        framed: Whether the first axis of arrays with more than ``ndim`` axes counts frames.
        channels_last: Whether the spatial axes are the first ones instead (behind that of frames).
        skip: Cells at the beginning of every spatial axis that are left out.

    Raises:
        SourceError: If there is nothing at ``path``.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """How the names of such files end."""

    cheap_header: ClassVar[bool] = False
    """Whether ten thousand files can be asked for their fields in a few seconds."""

    __slots__ = ("_found", "channels_last", "framed", "ndim", "path", "skip")

    def __init__(
        self,
        path: Path | str,
        *,
        ndim: int | None = None,
        framed: bool = False,
        channels_last: bool = False,
        skip: int = 0,
    ) -> None:
        self.path = Path(path)
        self.ndim, self.framed = ndim, framed
        self.channels_last, self.skip = channels_last, skip
        self._found: dict[str, Stored | str] | None = None
        if not self.path.exists():
            raise missing(self.path)
        if ndim is not None and ndim < 1:
            raise GeometryError(f"a field has at least 1 spatial axis, not ndim={ndim}")
        if (framed or channels_last) and ndim is None:
            raise GeometryError(
                "the axes of frames or channels can be told from others only if the number of "
                "spatial axes is given (ndim)"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, ndim={self.ndim})"

    @classmethod
    def claims(cls, path: Path) -> bool:
        """Whether the file or folder at ``path`` is of this format, by its name."""
        return path.is_file() and path.suffix.lower() in cls.suffixes

    @abstractmethod
    def _scan(self) -> dict[str, Stored | str]:
        """All fields: what is stored, or why it cannot be read."""

    @abstractmethod
    def _fill(self, stored: Stored, copies: list[Copy]) -> None:
        """Copy slices of a stored array into views, converting to the views' type."""

    def _find(self, name: str) -> Stored | str | None:  # noqa: ARG002 - for formats with links
        """A field that `_scan` does not list."""
        return None

    def _scanned(self) -> dict[str, Stored | str]:
        if self._found is None:
            try:
                self._found = self._scan()
            except M2MError:
                raise
            except UNREADABLE as error:
                raise SourceError(
                    f"cannot read {self.path}: {one_line(error)}; the file is "
                    f"truncated, damaged or of another format; copy or make it again"
                ) from error
        return self._found

    @property
    def fields(self) -> Mapping[str, Stored]:
        """The fields that can be read, by name.

        Raises:
            SourceError: If there are none.
        """
        found = self._scanned()
        fields = {name: item for name, item in found.items() if isinstance(item, Stored)}
        if not fields:
            reasons = [item for item in found.values() if isinstance(item, str)][:3]
            raise SourceError("; ".join(reasons) or f"no field in {self.path}: it is empty")
        return fields

    def stored(self, field: str) -> Stored:
        """What the file says of one field.

        Args:
            field: Its name; ``name[3:5]`` are two of its channels, ``name[:, 2]`` those of
                one index on the second of two axes of channels.

        Raises:
            FieldError: If there is no such field, or no such channel.
            SourceError: If it cannot be read.
        """
        name, picks = split_channels(field)
        if picks:
            whole = self.stored(name)
            try:
                return whole.picked(picks)
            except FieldError as error:
                raise FieldError(f"{self.path}: {error}") from error
        found = self._scanned()
        item = found.get(field) or found.get(field.strip("/")) or self._find(field)
        if isinstance(item, Stored):
            return item
        if item is not None:
            raise SourceError(item)
        names = [name for name, other in found.items() if isinstance(other, Stored)]
        raise FieldError(f"no field {field!r} in {self.path}{near_names(field, names)}")

    def read(
        self,
        field: str,
        window: Window,
        out: Array,
        grid: Grid | None = None,
        frame: int = 0,
    ) -> None:
        """Read one window of one field.

        Args:
            field: Name of the field.
            window: Cells to read; it may reach beyond the grid.
            out: Where the values go, (channels, *window.shape), of any floating type; they are
                converted once, while they are copied.
            grid: What lies beyond the edges; if not given, all axes are periodic.
            frame: Which frame, of a field that has an axis of them.

        Raises:
            FieldError: If there is no such field, or ``out`` is not floating.
            GeometryError: If ``window``, ``out``, ``grid`` or ``frame`` do not fit the field.
            SourceError: If the file cannot be read.
        """
        stored = self.stored(field)
        check_target(stored, window, out, grid)
        copies = copies_of(stored, window, out, grid, frame)
        try:
            self._fill(stored, copies)
        except M2MError:
            raise
        except UNREADABLE as error:
            raise SourceError(
                f"cannot read field {field!r} of {self.path}, window {window.start} to "
                f"{window.stop}: {one_line(error)}; the file is truncated or "
                f"damaged, or was removed; copy or make it again"
            ) from error

    def view(
        self, field: str, window: Window, grid: Grid | None = None, frame: int = 0
    ) -> tuple[Array, object] | None:
        """A window of a field where it lies in a memory map.

        Args:
            field: Name of the field.
            window: Cells; see `read`.
            grid: What lies beyond the edges; if not given, all axes are periodic.
            frame: Which frame, of a field that has an axis of them.

        Returns:
            An array of shape (channels, *window.shape), and the map (`mapped`) that it is valid
            with; None if the field is not mapped, or the window has to be put together.
        """
        stored, whole = self.stored(field), self.mapped(field)
        parts = pieces(window, grid or Grid(stored.shape))
        if whole is None or len(parts) > 1 or parts[0].is_zero or parts[0].reverse:
            return None
        part = whole[stored.place(parts[0].source, frame)]
        part = part if stored.frames is None else part[0]
        if stored.channels_last:
            part = np.moveaxis(part, range(window.ndim), range(-window.ndim, 0))
        try:
            return np.reshape(part, (stored.channels, *window.shape), copy=False), whole
        except ValueError:  # its channels are apart in memory
            return None

    def mapped(self, field: str) -> Array | None:  # noqa: ARG002 - for formats that can be mapped
        """All of a field in a memory map, another one if the file was replaced; None without."""
        return None

    def release(self) -> None:  # noqa: B027 - few formats hold on to anything
        """Give back memory of what was read; the next `read` opens the file again."""

    def _check_unchanged(self, stored: Stored, shape: Shape) -> None:
        """Refuse a file that was written anew, of another shape, since it was scanned."""
        if tuple(shape) != stored.full_shape:
            raise SourceError(
                f"field {stored.name!r} of {self.path} now has shape {tuple(shape)}; when it was "
                f"opened, it had {stored.full_shape}; open it again"
            )

    def _describe(
        self,
        name: str,
        shape: Shape,
        dtype: np.dtype[Any],
        guess: int | None = None,
        **about: Any,
    ) -> Stored | str:
        """What is stored in an array, or why it is not a field of real numbers.

        Args:
            name: Name of the field.
            shape: Shape of the whole array.
            dtype: Its type.
            guess: Number of spatial axes, if nobody gave it.
            about: More for `Stored`.
        """
        where = f"array {name!r} of {self.path}"
        if dtype.hasobject:
            return (
                f"{where} holds Python objects, which are never unpickled; "
                f"save real numbers, without pickling"
            )
        if dtype.kind not in "fiub":
            return (
                f"{where} has dtype {dtype}; a field has real numbers (float, int or bool); "
                f"save real and imaginary parts, or members, as channels or fields of their own"
            )
        ndim = self.ndim or guess or max(1, len(shape) - 1)
        if len(shape) < ndim or not shape:
            return (
                f"{where} has {len(shape)} axes, {shape}, but {ndim} spatial axes were asked for "
                f"(where planes are taken, one more than these have); save it with (channels, "
                f"*cells); in a recipe, data.domain tells how many axes there are"
            )
        if 0 in shape:
            return f"{where} of shape {shape} holds no cell; make it again"
        rest, frames = tuple(shape), None
        if self.framed and len(shape) > ndim:
            frames, *others = rest
            rest = tuple(others)
        leading, cells = (
            (rest[ndim:], rest[:ndim])
            if self.channels_last
            else (rest[: len(rest) - ndim], rest[len(rest) - ndim :])
        )
        if min(cells) <= self.skip:
            return f"{where} has {cells} cells, too few to leave out the first {self.skip}"
        return Stored(
            name,
            tuple(n - self.skip for n in cells),
            prod(leading),
            str(dtype),
            leading=leading,
            frames=frames,
            channels_last=self.channels_last,
            skip=self.skip,
            **about,
        )

    def _with_axes(self, stored: Stored, axes: Sequence[Axis]) -> Stored:
        """What is stored with its spatial axes and that of frames, of all axes of the array."""
        first = axes[0] if stored.frames is not None else None
        rest = axes if first is None else axes[1:]
        ndim = len(stored.shape)
        spatial = rest[:ndim] if self.channels_last else rest[len(rest) - ndim :]
        skipped = tuple(
            axis if axis.values is None else replace(axis, values=axis.values[self.skip :])
            for axis in spatial
        )
        return replace(stored, axes=skipped, frame_axis=first)


UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError)
"""What the libraries raise on files that are damaged."""


def one_line(error: Exception) -> str:
    """What a library says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def missing(path: Path) -> SourceError:
    """The error for a path where there is nothing."""
    folder = path.parent
    if not folder.is_dir():
        return SourceError(f"no file or folder {path}, nor its folder {folder}; correct the path")
    near = near_names(path.name, (entry.name for entry in folder.iterdir()))
    hint = near if "did you mean" in near else "; correct the path"
    return SourceError(f"no file or folder {path}{hint}")


def copies_of(
    stored: Stored, window: Window, out: Array, grid: Grid | None = None, frame: int = 0
) -> list[Copy]:
    """What to copy from a stored array to fill a buffer; what is made up as zeros is filled now.

    Raises:
        GeometryError: If there is no such frame.
    """
    if stored.frames is not None and not 0 <= frame < stored.frames:
        raise GeometryError(
            f"field {stored.name!r} has frames 0 to {stored.frames - 1}, so none of number {frame}"
        )
    copies = []
    for piece in pieces(window, grid or Grid(stored.shape)):
        target = out[(slice(None), *piece.target)]
        if piece.is_zero:
            target[...] = 0
            continue
        # mirrored cells are read forwards into a view that runs backwards
        target = np.flip(target, tuple(axis + 1 for axis in piece.reverse))
        copies.append((stored.place(piece.source, frame), stored.as_stored(target)))
    return copies


def check_target(stored: Stored, window: Window, out: Array, grid: Grid | None) -> None:
    """Refuse a buffer or grid that does not fit a field and a window."""
    if not np.issubdtype(out.dtype, np.floating):
        raise FieldError(
            f"cannot read field {stored.name!r} into a buffer of dtype {out.dtype}; "
            f"use a floating one"
        )
    if grid is not None and grid.shape != stored.shape:
        raise GeometryError(
            f"field {stored.name!r} has {stored.shape} cells, but the grid has {grid.shape}"
        )
    expected = (stored.channels, *window.shape)
    if out.shape != expected:
        raise GeometryError(
            f"a window of {window.shape} cells of field {stored.name!r}, which has "
            f"{stored.channels} channels, needs a buffer of shape {expected}, not {out.shape}"
        )
