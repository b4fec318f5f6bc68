"""Flame surface density from the filtered flame alone, by an algebraic closure."""

from collections.abc import Mapping

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError
from map2map.physics.flames import gradient_norm, wrinkling
from map2map.typing import Array

__all__ = ["Charlette"]


class Charlette(Derived):
    """Flame surface density (1 + width / cutoff)^beta |grad c| [1/L].

    The power law of Charlette, Meneveau & Veynante 2002 (Combust. Flame 131, 159) in its simplest
    form: a constant exponent, and an inner cut-off instead of the efficiency function, so that
    nothing but the filtered progress variable is needed. See `map2map.physics.flames.wrinkling`.

    Args:
        of: The filtered progress variable c, of one channel.
        width: Of the filter [L].
        cutoff: Scale of the smallest wrinkles [L], from one to a few laminar thicknesses.
        beta: Exponent.
    """

    margin = 1
    needs_steps = True

    def __init__(self, of: str, width: float, cutoff: float, beta: float = 0.5) -> None:
        self.of, self.width, self.cutoff, self.beta = of, width, cutoff, beta
        self.factor()

    def factor(self) -> float:
        """Surface over that of the filtered flame."""
        return wrinkling(self.width, self.cutoff, self.beta)

    @property
    def needs(self) -> tuple[str, ...]:
        """The progress variable."""
        return (self.of,)

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:
        """The density, shape (1, *space)."""
        c = values[self.of]
        if len(c) != 1:
            raise FieldError(f"{self.of!r} has {len(c)} channels, but a progress variable is one")
        return self.factor() * gradient_norm(c[0], [abs(step) for step in box.steps])[None]
