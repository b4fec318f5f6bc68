"""What losses share that compare physical values of one field, and know its grid."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError, near_names
from map2map.grids import Grid
from map2map.typing import Shape

__all__ = ["PhysicalLoss", "or_one"]

TINY = 1e-30
"""What numbers are at least before they are divided by, or their logarithm is taken."""


def or_one(scale: Tensor) -> Tensor:
    """What to divide by: the scales of what is compared, and 1 where there is nothing."""
    return torch.where(scale > TINY, scale, 1.0)


class PhysicalLoss(nn.Module):
    """A loss of one target, in physical values, that may need the cell size and what is periodic.

    A training tells it the emulator, whose norms it undoes, and how large whole fields are: an axis
    of a crop is periodic if that of the field is, and the crop as long as the field.

    Args:
        field: The target that is compared; not needed if there is one.
    """

    takes_counts: ClassVar[bool] = True

    def __init__(self, field: str | None = None) -> None:
        super().__init__()
        self.field = field
        # in a tuple, so that its weights are not listed a second time
        self._emulator: tuple[Any, ...] = ()
        self._whole: Shape | None = None
        self._style: Tensor | None = None

    def take_emulator(self, emulator: Any) -> None:
        """Find the channels of the field; a training calls it before its first step.

        Args:
            emulator: A `map2map.emulator.Emulator`.

        Raises:
            RecipeError: If there is no such target, there are several to choose from, or targets
                are no fields.
        """
        targets = emulator.targets
        if targets.of_run:
            raise RecipeError(
                f"{type(self).__name__} compares fields, but {', '.join(targets.names)} are told "
                f"of whole runs"
            )
        if self.field is None and len(targets) > 1:
            raise RecipeError(
                f"{type(self).__name__} compares one target, but there are "
                f"{', '.join(targets.names)}: say which with `field`"
            )
        self._emulator = (emulator,)
        self.channels(self.name)

    def take_shape(self, shape: Sequence[int] | None) -> None:
        """Hear how many cells a whole field of the target has; None if not all have as many."""
        self._whole = None if shape is None else tuple(shape)

    def take_styles(self, style: Tensor | None) -> None:
        """Hear the physical styles of the samples that are compared next, (batch, style_chan)."""
        self._style = style

    @property
    def emulator(self) -> Any:
        """The emulator.

        Raises:
            RecipeError: If it was not told.
        """
        if not self._emulator:
            raise RecipeError(
                f"{type(self).__name__} compares physical values, but does not know the norms: "
                f"tell it the emulator (take_emulator), as a training does"
            )
        return self._emulator[0]

    @property
    def name(self) -> str:
        """Name of the target that is compared."""
        name: str = self.field or self.emulator.targets.names[0]
        return name

    def channels(self, name: str) -> slice:
        """The channels of a target.

        Raises:
            RecipeError: If there is none of this name.
        """
        slices: dict[str, slice] = self.emulator.targets.slices
        if name not in slices:
            raise RecipeError(
                f"{type(self).__name__} compares {name!r}, which is no target"
                f"{near_names(name, slices)}"
            )
        return slices[name]

    def physical(self, values: Tensor, name: str) -> Tensor:
        """A target in its units.

        Args:
            values: All targets, normalized, shape (batch, channel, *space).
            name: Of the target.
        """
        part: Tensor = self.emulator.decode(name, values[:, self.channels(name)], self._style)
        # powers and sums of half precision overflow
        return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part

    def grid(self, space: Sequence[int]) -> Grid:
        """The grid of a crop: an axis is periodic where the crop is as long as a periodic field.

        Args:
            space: Cells per axis.
        """
        emulator, space = self.emulator, tuple(space)
        grid: Grid = emulator.domain.grid(space, emulator.footprint.scale)
        whole = self._whole or (0,) * len(space)
        assert not isinstance(grid.periodic, bool)
        wraps = [
            p and n == all_of_it
            for p, n, all_of_it in zip(grid.periodic, space, whole, strict=True)
        ]
        return Grid(space, grid.spacing, tuple(wraps), grid.pad)

    def spacing(self, grid: Grid) -> tuple[float, ...]:
        """Cell size per axis.

        Raises:
            RecipeError: If it is not known.
        """
        if grid.spacing is None:
            raise RecipeError(
                f"{type(self).__name__} needs the cell size; give it in data.domain.spacing"
            )
        return grid.spacing

    def vector(self, name: str, ndim: int) -> str:
        """The name of a target that has one component per axis.

        Raises:
            RecipeError: If it has not.
        """
        channels = self.channels(name)
        if channels.stop - channels.start != ndim:
            raise RecipeError(
                f"{type(self).__name__} needs a vector of {ndim} components, but {name!r} has "
                f"{channels.stop - channels.start} channels"
            )
        return name

    @staticmethod
    def check_alike(output: Tensor, target: Tensor) -> None:
        """Refuse outputs of another shape than targets.

        Raises:
            GeometryError: If they differ, or have no axes of space.
        """
        if output.shape != target.shape or output.ndim < 3:
            raise GeometryError(
                f"the output has shape {tuple(output.shape)}, the target {tuple(target.shape)}; "
                f"both must be (batch, channel, *space)"
            )
