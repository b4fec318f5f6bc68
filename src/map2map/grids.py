"""Grid: how many cells there are, how far apart, and what lies beyond an edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from map2map.errors import GeometryError, near_names
from map2map.typing import Shape

__all__ = ["Domain", "Grid", "Pad"]

Pad = Literal["refuse", "reflect", "edge", "zero", "model"]


@dataclass(frozen=True)
class Grid:
    """A box of cells.

    Args:
        shape: Cells per axis.
        spacing: Cell size per axis, in the units of length of the data; if known.
        periodic: Whether the last cell of an axis has the first as its neighbor; one value per
            axis, or one for all.
        pad: What is made up beyond an edge that is not periodic: nothing ("refuse"), the values
            mirrored at the outermost cell ("reflect", the cell itself is not repeated), the
            outermost value ("edge") or zeros ("zero"); or nothing, because the network gets the
            edge and pads by itself ("model").

    >>> Grid((4, 6), periodic=True).periodic
    (True, True)
    """

    shape: Shape
    spacing: tuple[float, ...] | None = None
    periodic: tuple[bool, ...] | bool = True
    pad: Pad = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        ndim = len(self.shape)
        if ndim == 0 or min(self.shape) < 1:
            raise GeometryError(f"a grid needs at least one cell on every axis, not {self.shape}")
        if isinstance(self.periodic, bool):
            object.__setattr__(self, "periodic", (self.periodic,) * ndim)
        else:
            object.__setattr__(self, "periodic", tuple(self.periodic))
        if self.spacing is not None:
            object.__setattr__(self, "spacing", tuple(float(dx) for dx in self.spacing))
        for name in ("periodic", "spacing"):
            value = getattr(self, name)
            if value is not None and len(value) != ndim:
                raise GeometryError(
                    f"`{name}` of a {ndim}-D grid needs 1 or {ndim} values, not {len(value)}: "
                    f"{value}"
                )
        if self.pad not in get_args(Pad):
            raise GeometryError(f"unknown pad {self.pad!r}{near_names(self.pad, get_args(Pad))}")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def beyond(self) -> tuple[str, ...]:
        """What lies beyond the edges of each axis: "periodic" or the pad."""
        periodic: tuple[bool, ...] = self.periodic  # type: ignore[assignment]
        return tuple("periodic" if wraps else self.pad for wraps in periodic)


@dataclass(frozen=True)
class Domain:
    """What the grids of all runs have in common.

    Args:
        ndim: Number of axes of the grid; default: those of the first input's array but the first,
            which is the channels.
        periodic: Whether the box continues at its other side, one value or one per axis.
        pad: What is made up beyond an edge that is not periodic: "refuse", "reflect", "edge",
            "zero" or "model"; see `Grid`.
        spacing: Cell size of the input's grid, one number or one per axis, in the data's units.
        frames: If arrays have one more axis before all others, of time steps or members that are
            fields by themselves: take every so many-th of them. 0: such an axis counts channels.
        same_shape: Whether all runs must have the same number of cells.
        planes: If fields have one more axis: the axes that planes are taken across, each of them a
            run of ``ndim`` axes by itself.
        plane_step: From plane to plane.
        channels_last: Whether the axes of space come first in arrays (behind that of frames), and
            those of channels last: (column, level), say.
        skip: Cells at the beginning of every axis that are left out: 1 where a periodic axis
            begins with a copy of its last cell.
    """

    ndim: int | None = None
    periodic: bool | list[bool] = True
    pad: Pad = "refuse"
    spacing: float | list[float] | None = None
    frames: int = 0
    same_shape: bool = True
    planes: list[int] | None = None
    plane_step: int = 1
    channels_last: bool = False
    skip: int = 0

    def __post_init__(self) -> None:
        if self.channels_last and self.ndim is None:
            raise GeometryError(
                "which axes are those of channels is told by the number of the others: give ndim"
            )
        if self.skip < 0:
            raise GeometryError(f"{self.skip} cells cannot be left out; use 0 or more")
        if self.planes is not None:
            if self.ndim is None:
                raise GeometryError("planes are taken of fields of ndim + 1 axes: give ndim")
            axes = list(self.planes)
            if len(set(axes)) < len(axes) or not axes or not set(axes) <= set(range(self.ndim + 1)):
                raise GeometryError(
                    f"planes are taken across the axes {axes}, but must be across different ones "
                    f"of {list(range(self.ndim + 1))}"
                )
        if self.plane_step < 1:
            raise GeometryError(f"every {self.plane_step}-th plane was asked for; use 1 for all")
        if self.frames < 0:
            raise GeometryError(f"every {self.frames}-th frame was asked for; use 1 for all frames")
        if self.frames and self.ndim is None:
            raise GeometryError("frames are told from other axes by the number of those: give ndim")

    def grid(self, shape: Shape, scale_factor: int = 1) -> Grid:
        """The grid of a field of this shape."""
        spacing = self.spacing
        if spacing is not None:
            each = spacing if isinstance(spacing, Sequence) else [spacing] * len(shape)
            spacing = [dx / scale_factor for dx in each]
        periodic = self.periodic if isinstance(self.periodic, bool) else tuple(self.periodic)
        return Grid(shape, None if spacing is None else tuple(spacing), periodic, self.pad)

    @property
    def cell(self) -> float | None:
        """Cell size of the first axis; None if it is not known."""
        return self.spacing[0] if isinstance(self.spacing, Sequence) else self.spacing
