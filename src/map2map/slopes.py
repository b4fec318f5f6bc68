"""Derivatives of what an emulator gives, with respect to a style or an input; applied as it is.

Forward-mode differentiation (`torch.func.jvp`) gives them with the outputs, for three times their
cost. What an output depends on, its derivative depends on, so footprint and tiles stay.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from map2map.arrays import Applicable
from map2map.errors import FieldError, near_names
from map2map.fields import Field, FieldSet, same_units
from map2map.norms import Norm
from map2map.physics.cosmology import velocity_of_slope
from map2map.styles import row_of

__all__ = ["Derivative", "Velocity", "per"]


class _Slope(nn.Module):
    """What is applied like an emulator, with the same inputs and other targets.

    Args:
        emulator: What is derived.
        by: Name of the style, or of the input, that it is derived by.
    """

    plain = True
    """Convolutions must stay as they are, because nothing else is made to be differentiated."""

    def __init__(self, emulator: Applicable, by: str) -> None:
        super().__init__()
        names = (*emulator.styles.names, *emulator.inputs.names)
        if by not in names:
            raise FieldError(
                f"what an emulator gives can be derived by its styles and inputs, "
                f"{', '.join(names)}, not by {by!r}{near_names(by, names)}"
            )
        self.emulator, self.by = cast(nn.Module, emulator), by
        self.inputs, self.styles = emulator.inputs, emulator.styles
        self.style_range, self.domain = emulator.style_range, emulator.domain
        self.ndim, self.footprint = emulator.ndim, emulator.footprint
        self.derived, self.cells = emulator.derived, emulator.cells
        self.targets = FieldSet(tuple(self.named(field) for field in emulator.targets))

    def named(self, target: Field) -> Field:
        """A target of its own for a target of the emulator."""
        raise NotImplementedError

    def factor(self, values: Mapping[str, float]) -> float:
        """What the derivative is multiplied by for these styles."""
        del values
        return 1.0

    def for_run(self, values: Mapping[str, float]) -> nn.Module:
        """It for the styles of one run, a module of physical inputs alone."""
        return Slope(self.emulator, self.by, row_of(self.emulator, values), self.factor(values))


class Derivative(_Slope):
    """The derivative of all targets by one style or input.

    Args:
        emulator: What is derived.
        by: Name of the style; or of the input, of which all values in all cells change alike.
    """

    def named(self, target: Field) -> Field:
        """The name of a target's derivative, with its units."""
        one = (self.styles if self.by in self.styles.names else self.inputs)[self.by]
        name, units = f"{target.name}_by_{self.by}", per(target.units, one.units)
        if one.kind == "vector":  # all components of which change alike, on whatever axes
            return replace(target, name=name, units=units, kind="scalar", component=None)
        part = target.component
        part = None if part is None else replace(part, vector=f"{part.vector}_by_{self.by}")
        return replace(target, name=name, units=units, component=part)


class Velocity(_Slope):
    """The peculiar velocity [km/s] of displacements that depend on a redshift.

    Inputs are what does not change with the redshift, such as the linear displacement at z = 0: the
    derivative is taken at given inputs.

    Args:
        emulator: Gives comoving displacements [Mpc/h] and has a style ``z``.
        Om: Matter density, if there is no style of that name.
    """

    def __init__(self, emulator: Applicable, Om: float | None = None) -> None:
        if "z" not in emulator.styles.names:
            raise FieldError(
                f"a velocity is told by how displacements change with redshift, so the emulator "
                f"needs a style 'z'; it has {', '.join(emulator.styles.names) or 'none'}"
            )
        moving = [n for n in emulator.inputs.names if "z" in norm_of(emulator, n).needs]
        if moving:
            raise FieldError(
                f"a velocity is the change of displacements with redshift from inputs that stay "
                f"what they are, but the norm of {moving[0]!r} depends on z, so it is a field of "
                f"each redshift; train with the linear field at z = 0"
            )
        if (Om is None) != ("Om" in emulator.styles.names):
            raise FieldError(
                "the velocity needs the matter density Om (--Om, Om=…)"
                if Om is None
                else "the emulator has a style 'Om', so the velocity takes no other"
            )
        self.Om = Om
        super().__init__(emulator, "z")

    def named(self, target: Field) -> Field:
        """The name of a target's velocity, with its units.

        Raises:
            FieldError: If it is no displacement.
        """
        if target.kind != "vector" or not same_units(target.units or "", "Mpc/h"):
            raise FieldError(
                f"a velocity is that of a displacement, a vector in Mpc/h, but {target.name!r} is "
                f"a {target.kind} in {target.units}"
            )
        return replace(target, name=f"{target.name}_velocity", units="km/s")

    def factor(self, values: Mapping[str, float]) -> float:
        """From the derivative by the redshift to the velocity."""
        Om = values["Om"] if self.Om is None else self.Om
        return velocity_of_slope(values["z"], Om)


def norm_of(emulator: Applicable, name: str) -> Norm:
    """The norm of a field."""
    found: Norm = cast(Any, emulator).norm(name)
    return found


class Slope(nn.Module):
    """A derivative for the styles of one run: physical inputs to physical derivatives.

    Args:
        emulator: What is derived.
        by: Name of the style or input.
        style: Physical styles, shape (1, style_chan).
        factor: What the derivative is multiplied by.
    """

    def __init__(self, emulator: nn.Module, by: str, style: Tensor, factor: float) -> None:
        super().__init__()
        self.emulator, self.by, self.factor = emulator, by, factor
        self.register_buffer("style", style)

    def forward(self, x: Tensor) -> Tensor:
        """Derivatives, for windows (batch, channel, *space)."""
        emulator: Any = self.emulator
        style = cast(Tensor, self.style).expand(len(x), -1)
        more = (style,) if style.shape[1] else ()
        if self.by in emulator.styles.names:
            direction = torch.zeros_like(style)
            direction[:, emulator.styles.slices[self.by]] = 1
            slope = torch.func.jvp(lambda s: emulator(x, s), (style,), (direction,))[1]
        else:
            direction = torch.zeros_like(x)
            direction[:, emulator.inputs.slices[self.by]] = 1
            slope = torch.func.jvp(lambda x: emulator(x, *more), (x,), (direction,))[1]
        return cast(Tensor, slope) * self.factor


def per(units: str | None, other: str | None) -> str | None:
    """Units of a quotient.

    >>> per("m", "1"), per("Mpc/h", "m s-1"), per("1", "K")
    ('m', '(Mpc/h)/(m s-1)', '1/K')
    """
    if units is None or other in (None, "1"):
        return units

    def grouped(text: str) -> str:
        return f"({text})" if set(text) & set("/ *.") else text

    return f"{grouped(units)}/{grouped(str(other))}"
