"""Columns: how the channels of a cell are profiles over levels, for networks of single columns.

Like conv.py, vocabulary that models may import. A column of air is what one cell of a horizontal
grid, or one row of a table, holds: all levels of its profiles, and its scalars, are the channels of
the cell. A network of columns never looks at another cell, so its footprint is that of one cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from map2map.errors import RecipeError, near_names
from map2map.footprints import Footprint
from map2map.models.conv import check_ndim

__all__ = [
    "POINT",
    "Profile",
    "check_columns",
    "common_levels",
    "from_rows",
    "profiles_of",
    "stack",
    "to_rows",
    "unstack",
]

POINT = Footprint(margin=0)
"""What an output cell of a network of columns sees: itself."""


@dataclass(frozen=True)
class Profile:
    """Some channels that are profiles over levels, from the top down.

    Args:
        levels: Levels of a profile. A single one, with nothing above or below, is a scalar, which
            is the same on all levels of the network.
        features: Profiles of as many levels.
        above: Levels of the network above the first; zeros in inputs, not kept of outputs.
        below: Likewise below the last.
        level_first: Whether channels are the features of the first level, then of the next, as the
            file's (level, feature); else the levels of the first feature, then of the next.

    Raises:
        RecipeError: If there are no levels or features, or fewer than none around them.

    >>> Profile(137, features=27, above=1).channels
    3699
    """

    levels: int
    features: int = 1
    above: int = 0
    below: int = 0
    level_first: bool = False

    def __post_init__(self) -> None:
        if min(self.levels, self.features) < 1 or min(self.above, self.below) < 0:
            raise RecipeError(
                f"{self}: `levels` and `features` must be at least 1, `above` and `below` at "
                f"least 0"
            )

    @property
    def channels(self) -> int:
        """Channels of a cell that it takes."""
        return self.levels * self.features

    @property
    def height(self) -> int:
        """Levels of the network that it covers; 1 for a scalar, which is repeated."""
        return self.above + self.levels + self.below


def profiles_of(
    given: Sequence[Profile | Mapping[str, Any]] | None, channels: int, side: str
) -> list[Profile]:
    """Profiles that account for all channels; one over all channels if none are given.

    Args:
        given: Profiles, or their arguments by name, as in a card.
        channels: Of the fields.
        side: "inputs" or "outputs", for the message.

    Raises:
        RecipeError: If an argument is unknown, or there are more or fewer channels.
    """
    if given is None:
        return [Profile(channels)]
    known = [field.name for field in fields(Profile)]
    profiles = []
    for entry in given:
        if not isinstance(entry, Profile):
            for key in entry:
                if key not in known:
                    raise RecipeError(
                        f"a profile of `{side}` has no {key!r}{near_names(key, known)}"
                    )
            if "levels" not in entry:
                raise RecipeError(f"a profile of `{side}` has no `levels`: {dict(entry)}")
            entry = Profile(**entry)
        profiles.append(entry)
    total = sum(profile.channels for profile in profiles)
    if total != channels:
        each = " + ".join(f"{p.levels} x {p.features}" for p in profiles) or "nothing"
        raise RecipeError(
            f"the profiles of `{side}` are {each} (levels x features) = {total} channels, but the "
            f"fields have {channels}; describe all fields in their order, a scalar as levels: 1"
        )
    return profiles


def common_levels(inputs: Sequence[Profile], outputs: Sequence[Profile] = ()) -> int:
    """The levels of the network: those that every profile covers which is not a scalar.

    Raises:
        RecipeError: If profiles cover different ones, or an output is a scalar on several.
    """
    heights = {p.height for p in (*inputs, *outputs)} - {1}
    if len(heights) > 1:
        each = ", ".join(f"{p.above} + {p.levels} + {p.below}" for p in (*inputs, *outputs))
        raise RecipeError(
            f"profiles cover {sorted(heights)} levels, but the network has one number of levels: "
            f"above + levels + below are {each}; fill up with `above` and `below`, or give 1 level "
            f"for a scalar"
        )
    levels = heights.pop() if heights else 1
    for profile in outputs:
        if profile.height != levels:
            raise RecipeError(
                f"an output of 1 level covers 1 of the {levels} levels of the network, which one "
                f"is not told; give its `above` and `below`, {levels - 1} in sum"
            )
    return levels


def check_columns(ndim: int, **positive: int) -> None:
    """Refuse arguments of a network of columns.

    Args:
        ndim: Number of axes of the grid that columns stand on.
        **positive: Arguments that must be at least 1.

    Raises:
        RecipeError: If one is out of range.
    """
    check_ndim(ndim)
    for name, value in positive.items():
        if value < 1:
            raise RecipeError(f"`{name}` is {value}, but must be at least 1")


def to_rows(x: Tensor) -> Tensor:
    """(batch, channel, *space) as (column, channel)."""
    return x.movedim(1, -1).flatten(0, -2)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """(column, channel) on the batch and space of ``like``, (batch, any channel, *space)."""
    return rows.reshape(like.shape[0], *like.shape[2:], rows.shape[1]).movedim(-1, 1)


def stack(rows: Tensor, profiles: Sequence[Profile], levels: int) -> Tensor:
    """(column, channel) as (column, feature, level), profiles one after another.

    Args:
        rows: Columns.
        profiles: What their channels are.
        levels: Of the network, as `common_levels` tells.
    """
    parts = []
    split = torch.split(rows, [p.channels for p in profiles], dim=1)
    for part, profile in zip(split, profiles, strict=True):
        if profile.level_first:
            y = part.reshape(part.shape[0], profile.levels, profile.features).mT
        else:
            y = part.reshape(part.shape[0], profile.features, profile.levels)
        if profile.height == 1:
            y = y.expand(-1, -1, levels)
        elif profile.above or profile.below:
            y = F.pad(y, (profile.above, profile.below))
        parts.append(y)
    return torch.cat(parts, dim=1)


def unstack(y: Tensor, profiles: Sequence[Profile]) -> Tensor:
    """(column, feature, level) as (column, channel), without levels above and below profiles."""
    parts = []
    split = torch.split(y, [p.features for p in profiles], dim=1)
    for part, profile in zip(split, profiles, strict=True):
        kept = part.narrow(2, profile.above, profile.levels)
        parts.append((kept.mT if profile.level_first else kept).flatten(1))
    return torch.cat(parts, dim=1)
