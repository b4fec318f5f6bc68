"""What a file says of a field: its name, shape, axes, units and attributes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from map2map.errors import FieldError, GeometryError
from map2map.typing import Array, Shape

__all__ = ["Axis", "Stored"]


@dataclass(frozen=True, slots=True)
class Axis:
    """What a file says of an axis: its name, its coordinates (cells,), their units and calendar."""

    name: str
    values: NDArray[Any] | None = field(default=None, compare=False, repr=False)
    units: str | None = None
    calendar: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """What a file is to say of the coordinates."""
        said = {"units": self.units, "calendar": self.calendar}
        return {key: text for key, text in said.items() if text is not None}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file says of a field; also what a new file shall hold.

    Args:
        name: Its name in the file.
        shape: Cells per spatial axis.
        channels: Numbers per cell.
        dtype: Their type, as numpy writes it; of packed numbers, the type when decoded.
        units: Its units, if the file has them.
        axes: The spatial axes, if the file names them.
        attrs: Whatever else the file says in words or numbers.
        around: What the groups that it is in say likewise, the inner ones before the outer ones.
        leading: The axes before the spatial ones, which together make the channels.
        frames: Length of the axis before all others that counts frames (time steps, members), each
            of which is a field by itself; None if there is no such axis.
        frame_axis: Its name and coordinates, if the file has them.
        channels_last: Whether those axes are behind the spatial ones instead.
        skip: Cells at the beginning of every spatial axis that are not part of the field.
        among: If only some channels of an array are meant: the lengths of all its axes of channels.
        first: Where ours begin on each of these axes.
    """

    name: str
    shape: Shape
    channels: int = 1
    dtype: str = "float32"
    units: str | None = None
    axes: tuple[Axis, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    leading: Shape | None = None
    frames: int | None = None
    frame_axis: Axis | None = None
    channels_last: bool = False
    skip: int = 0
    among: Shape | None = None
    first: Shape = ()
    around: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        leading = (self.channels,) if self.leading is None else tuple(self.leading)
        object.__setattr__(self, "leading", leading)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if prod(leading) != self.channels or not self.shape or min(self.shape) < 1:
            raise GeometryError(
                f"field {self.name!r} with {self.channels} channels (axes {leading}) on a grid of "
                f"{self.shape} cells; at least one cell per axis and one channel are needed"
            )
        if self.axes and len(self.axes) != len(self.shape):
            raise GeometryError(
                f"field {self.name!r} has {len(self.axes)} named axes but {len(self.shape)} in its "
                f"shape {self.shape}; name all or none"
            )

    @property
    def full_shape(self) -> Shape:
        """Shape of the array in the file."""
        frames = () if self.frames is None else (self.frames,)
        channels = (self.leading or ()) if self.among is None else self.among
        cells = tuple(n + self.skip for n in self.shape)
        return (*frames, *cells, *channels) if self.channels_last else (*frames, *channels, *cells)

    def place(self, cells: Sequence[slice], frame: int = 0) -> tuple[slice, ...]:
        """The slices of the array in the file that hold some cells.

        Args:
            cells: Which cells of the field, per spatial axis.
            frame: Which frame, if there are several.
        """
        frames = () if self.frames is None else (slice(frame, frame + 1),)
        leading = self.leading or ()
        first = self.first or (0,) * len(leading)
        channels = tuple(slice(a, a + n) for a, n in zip(first, leading, strict=True))
        moved = tuple(slice(c.start + self.skip, c.stop + self.skip) for c in cells)
        return (*frames, *moved, *channels) if self.channels_last else (*frames, *channels, *moved)

    def as_stored(self, values: Array) -> Array:
        """A view of channels by cells with the axes of what `place` gives."""
        leading, frames = self.leading or (), () if self.frames is None else (1,)
        # splitting the first axis of an array is always a view
        view = values.reshape(*frames, *leading, *values.shape[1:])
        if not self.channels_last:
            return view
        first = len(frames)
        ours = range(first, first + len(leading))
        return np.moveaxis(view, ours, range(-len(leading), 0))

    def beside(self, name: str, channels: int, leading: Shape) -> "Stored":
        """A float32 field on the same grid that is not in the file."""
        return Stored(
            name,
            self.shape,
            channels,
            axes=self.axes,
            leading=leading,
            frames=self.frames,
            frame_axis=self.frame_axis,
        )

    def picked(self, picks: Sequence[tuple[int, int | None]]) -> "Stored":
        """Only some of its channels, in the order in which they lie in the file.

        Args:
            picks: First and one behind the last, on every axis of channels, or of all channels,
                counted through; None: to the end.

        Raises:
            FieldError: If there are no such channels, or they are no box of the axes of channels.
        """
        leading = self.leading or (1,)
        axes = leading if len(picks) == len(leading) else (self.channels,)
        ranges = [(a, n if b is None else b) for (a, b), n in zip(picks, axes, strict=False)]
        box = None
        if len(picks) == len(axes) and all(
            0 <= a < b <= n for (a, b), n in zip(ranges, axes, strict=True)
        ):
            box = [(a, b - a) for a, b in ranges]
            if axes is not leading:
                box = channel_box(leading, *ranges[0])
        if box is None:
            asked = ", ".join(f"{a}:{'' if b is None else b}" for a, b in picks)
            there = ", ".join(f"0:{n}" for n in leading)
            several = (
                f", or one of all {self.channels}, counted through, between multiples of "
                f"{prod(leading[1:])}, or within one of these"
            )
            raise FieldError(
                f"the channels [{asked}] of {self.name!r} were asked for, but it has "
                f"{self.channels}, [{there}]; take some of them, a range for each axis"
                f"{several if len(leading) > 1 else ''}"
            )
        if not self.leading:
            return self
        first, sizes = zip(*box, strict=True)
        return replace(self, channels=prod(sizes), leading=sizes, among=leading, first=first)

    @property
    def said(self) -> Mapping[str, Any]:
        """What the file says of it, or else of the groups that it is in."""
        return {**self.around, **self.attrs}

    @property
    def floating(self) -> np.dtype[Any]:
        """The smallest floating type, float32 or float64, that holds all its numbers.

        Whole numbers of 64 bits are exact in it up to 2^53.
        """
        dtype = np.dtype(self.dtype)
        small = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
        return np.dtype(np.float32 if small else np.float64)


def channel_box(axes: Shape, first: int, stop: int) -> list[tuple[int, int]] | None:
    """Where a range of flattened channels begins on each axis, and how many it takes of it.

    >>> channel_box((6, 138), 276, 552), channel_box((6, 138), 139, 276)
    ([(2, 2), (0, 138)], [(1, 1), (1, 137)])

    Returns:
        None if the range is no box: it begins or ends amid an entry that it leaves.
    """
    if len(axes) == 1:
        return [(first, stop - first)]
    inner = prod(axes[1:])
    if first % inner == stop % inner == 0:
        return [(first // inner, (stop - first) // inner), *((0, n) for n in axes[1:])]
    entry = first // inner
    if (stop - 1) // inner != entry:
        return None
    rest = channel_box(axes[1:], first - entry * inner, stop - entry * inner)
    return None if rest is None else [(entry, 1), *rest]
