"""The symmetries of a cubic grid: drawn in one place, applied in another; vectors are vectors.

A symmetry reverses some axes and then reorders them: 2 in 1-D, 8 in 2-D (the dihedral group D4),
48 in 3-D (the full octahedral group). The components of a vector turn along.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from map2map.errors import RecipeError, near_names
from map2map.typing import Shape

__all__ = ["Symmetries", "Symmetry"]


@dataclass(frozen=True)
class Symmetry:
    """One symmetry, ready to be applied to any field of a sample.

    Args:
        axes: New axis i is old axis ``axes[i]``.
        flips: Whether each old axis is reversed (before the axes are reordered).
    """

    axes: Shape
    flips: tuple[bool, ...]

    @classmethod
    def identity(cls, ndim: int) -> "Symmetry":
        """The symmetry that moves nothing."""
        return cls(tuple(range(ndim)), (False,) * ndim)

    @property
    def is_identity(self) -> bool:
        """Whether it moves nothing."""
        return self == Symmetry.identity(len(self.axes))

    def shape(self, shape: Shape) -> Shape:
        """The shape of a field after the symmetry, from its shape before."""
        return tuple(shape[axis] for axis in self.axes)

    def apply(
        self,
        x: torch.Tensor,
        vectors: Sequence[Sequence[int]] = (),
        directions: Sequence[int] = (),
    ) -> torch.Tensor:
        """Turn a field.

        Args:
            x: Values, shape (*any, channel, *space).
            vectors: Of each vector in it, the channel of its component along each axis; the other
                channels are scalars.
            directions: 1 or -1 per axis: whether components along it count towards later cells;
                default: all do.

        Returns:
            The turned field; it may share memory with ``x``.
        """
        if self.is_identity:
            return x
        first, channels = x.ndim - len(self.axes), x.shape[-len(self.axes) - 1]
        reverse = [first + axis for axis, flip in enumerate(self.flips) if flip]
        # flip copies, permute does not
        turned = (x.flip(reverse) if reverse else x).permute(
            *range(first), *(first + axis for axis in self.axes)
        )
        source, negative = list(range(channels)), [False] * channels
        for vector in vectors:
            for new, old in enumerate(self.axes):
                source[vector[new]] = vector[old]
                # a component that counts the other way changes its sign if it becomes one that
                # does not
                turns = bool(directions) and directions[old] != directions[new]
                negative[vector[new]] = self.flips[old] != turns
        if source == sorted(source) and not any(negative):
            return turned
        # one pass that moves, turns and negates
        out = torch.empty_like(turned, memory_format=torch.contiguous_format)
        to, of = out.movedim(first - 1, 0), turned.movedim(first - 1, 0)
        for channel, old in enumerate(source):
            if negative[channel]:
                torch.neg(of[old], out=to[channel])
            else:
                to[channel] = of[old]
        return out


@dataclass(frozen=True)
class Symmetries:
    """Which symmetries the physics of a data set has; a property of the data, so declared.

    Args:
        flips: Axes that may be reversed.
        permute: Whether the axes may be reordered.
    """

    flips: Shape
    permute: bool

    @classmethod
    def declared(
        cls, value: Literal["none", "all", "flips", "permutations"] | Sequence[int], ndim: int
    ) -> "Symmetries":
        """Read what a recipe declares.

        Args:
            value: "none"; "all"; "flips" (of every axis); "permutations"; or the numbers of the
                axes that may be flipped.
            ndim: Number of axes.

        Raises:
            RecipeError: If it is none of these.
        """
        every = tuple(range(ndim))
        named = {
            "none": cls((), permute=False),
            "all": cls(every, permute=True),
            "flips": cls(every, permute=False),
            "permutations": cls((), permute=True),
        }
        if isinstance(value, str):
            if value not in named:
                raise RecipeError(f"unknown symmetries {value!r}{near_names(value, named)}")
            return named[value]
        axes = tuple(int(axis) for axis in value)
        if len(set(axes)) != len(axes) or not set(axes) <= set(every):
            raise RecipeError(
                f"symmetries {list(axes)} are to be different axes of a {ndim}-D grid, "
                f"{list(every)}, or one of {', '.join(named)}"
            )
        return cls(axes, permute=False)

    def draw(self, ndim: int, rng: np.random.Generator) -> Symmetry:
        """One of them, each with the same probability."""
        coins = rng.integers(2, size=ndim)
        flips = tuple(bool(coins[axis]) and axis in self.flips for axis in range(ndim))
        axes = tuple(rng.permutation(ndim).tolist()) if self.permute else tuple(range(ndim))
        return Symmetry(axes, flips)
