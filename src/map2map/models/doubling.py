"""What networks that double or halve their cells share: numbers of blocks and of channels.

Like conv.py, vocabulary that models may import.
"""

from map2map.errors import RecipeError
from map2map.models.activations import SLOPE

__all__ = ["SLOPE", "Channels", "doublings"]


class Channels:
    """Channels of the levels: half as many on each, from coarse to fine, within bounds.

    Args:
        base: On the coarsest level, 0.
        least: The lower bound.
        most: The upper bound.

    Raises:
        RecipeError: If the bounds contradict each other, or one is not positive.

    >>> channels = Channels(512, 64, 512)
    >>> [channels(level) for level in (-1, 0, 1, 5)]
    [512, 512, 256, 64]
    """

    def __init__(self, base: int, least: int, most: int) -> None:
        if not 1 <= least <= most or base < 1:
            raise RecipeError(
                f"`chan_base` ({base}) and `chan_min` ({least}) must be at least 1, and `chan_max` "
                f"({most}) at least `chan_min`"
            )
        self.base, self.least, self.most = base, least, most

    def __call__(self, level: int) -> int:
        """Channels of a level."""
        chan = self.base >> level if level >= 0 else self.base << -level
        return min(max(chan, self.least), self.most)


def doublings(scale_factor: int, other: str) -> int:
    """How often cells are divided by two.

    Args:
        scale_factor: Cells of the output for one of the input, per axis.
        other: Which model takes other factors.

    Raises:
        RecipeError: If the factor is no power of two from 2.
    """
    blocks = max(scale_factor, 1).bit_length() - 1
    if scale_factor != 2**blocks or blocks < 1:
        below = 2 ** max(blocks, 1)
        near = f"{below}" if scale_factor < 2 else f"{below} or {2 * below}"
        raise RecipeError(
            f"`scale_factor` is {scale_factor}, but each block doubles the cells: a power of two, "
            f"such as {near}; {other} takes other factors"
        )
    return blocks
