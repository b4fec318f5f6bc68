"""What remains of potentials of two redshifts when linear growth is taken out."""

import warnings
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline

from map2map.derived.base import Box, Derived
from map2map.errors import FieldError, RecipeError, SourceError
from map2map.physics.cosmology import growth_factor
from map2map.typing import Array

__all__ = ["GrowthDifference"]

COLUMNS = 19
"""Of a background table that CLASS writes; the first is z, the one before the last is D."""

Z, GROWTH = 0, 17


class GrowthDifference(Derived):
    """The difference of two potentials, each divided by its linear growth [units of the field].

    It is first / G(z1) - second / G(z2), with G(z) = D(z) (1 + z) the growth of potentials, where D
    is the growth factor of density, 1 at z = 0. Linear evolution leaves nothing of it.

    D comes from a table or, for a flat universe of matter and a cosmological constant, from the
    matter density. A table is read once; what is kept are the two numbers G, so that an emulator
    does not depend on the file.

    Args:
        first: The potential at the first redshift, such as an early one.
        second: The potential at the second redshift, of as many channels.
        z: Both redshifts.
        table: File of the background as CLASS writes it: 19 columns, the first z, the 18th D;
            interpolated in z by cubic splines.
        Om: Matter density today, in units of the critical density, instead of a table.
        growth: Both G, instead of a table.
        channels: Of each potential.
    """

    def __init__(
        self,
        first: str,
        second: str,
        z: tuple[float, float],
        table: str | None = None,
        Om: float | None = None,
        growth: tuple[float, float] | None = None,
        channels: int = 1,
    ) -> None:
        given = [
            name
            for name, value in (("table", table), ("Om", Om), ("growth", growth))
            if value is not None
        ]
        if len(given) != 1:
            raise RecipeError(
                f"growth comes from one of table, Om and growth, but "
                f"{' and '.join(given) or 'none'} of them is given"
            )
        if len(z) != 2 or not all(isfinite(one) and one >= 0 for one in z):
            raise RecipeError(f"`z` needs two redshifts of 0 or more, not {list(z)}")
        self.first, self.second, self.z = first, second, [float(one) for one in z]
        self.Om, self.channels = Om, channels
        self.table: str | None = None
        self.growth = None if growth is None else [float(one) for one in growth]
        if table is not None:
            self.growth = [(1 + one) * D for one, D in zip(z, table_growth(table, z), strict=True)]
        if self.growth is not None and not (
            len(self.growth) == 2 and all(isfinite(one) and one > 0 for one in self.growth)
        ):
            raise RecipeError(f"`growth` needs two positive numbers, not {self.growth}")
        self.factors()

    def factors(self) -> tuple[float, float]:
        """G at both redshifts."""
        if self.growth is not None:
            return self.growth[0], self.growth[1]
        assert self.Om is not None
        first, second = ((1 + z) * float(growth_factor(z, self.Om)) for z in self.z)
        return first, second

    @property
    def needs(self) -> tuple[str, ...]:
        """Both potentials."""
        return self.first, self.second

    def compute(self, values: Mapping[str, Array], box: Box) -> Array:  # noqa: ARG002
        """The difference, shape (channels, *space)."""
        first, second = values[self.first], values[self.second]
        if not len(first) == len(second) == self.channels:
            raise FieldError(
                f"{self.first!r} and {self.second!r} have {len(first)} and {len(second)} channels, "
                f"but a growth difference of {self.channels} is asked for; give `channels`"
            )
        above, below = self.factors()
        difference: Array = first / above - second / below
        return difference


def table_growth(path: str, z: tuple[float, float]) -> list[float]:
    """D at redshifts, from a background table of CLASS, normalized as it is there.

    Raises:
        SourceError: If it cannot be read, or is no such table.
        RecipeError: If a redshift lies outside it.
    """
    asked = f"asked for growth from the background table {path}"
    try:
        with warnings.catch_warnings():
            # of an empty file, which is refused below
            warnings.simplefilter("ignore", UserWarning)
            table = np.loadtxt(Path(path), ndmin=2)
    except FileNotFoundError as error:
        raise SourceError(f"{asked}, but there is no such file") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{asked}, but it cannot be read as numbers: {error}") from error
    if table.shape[1] != COLUMNS or len(table) < 4:
        raise SourceError(
            f"{asked}; found {len(table)} rows of {table.shape[1]} columns, but allowed are 4 or "
            f"more rows of {COLUMNS}, z the first and D the {GROWTH + 1}th, as CLASS writes them "
            f"without further species"
        )
    # CLASS starts with the highest redshift
    order = np.argsort(table[:, Z])
    redshifts, growth = table[order, Z], table[order, GROWTH]
    if not np.isfinite([redshifts, growth]).all() or np.diff(redshifts).min() <= 0:
        raise SourceError(f"{asked}; its redshifts must differ and its numbers must be finite")
    for one in z:
        if not redshifts[0] <= one <= redshifts[-1]:
            raise RecipeError(
                f"{asked} at redshift {one:g}, but it has redshifts {redshifts[0]:g} to "
                f"{redshifts[-1]:g}; choose one of these, or write a longer table"
            )
    found: list[float] = CubicSpline(redshifts, growth)(z).tolist()
    return found
