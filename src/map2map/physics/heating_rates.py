"""Heating rates of layers of air, from net fluxes at their edges.

Levels go from the top of the atmosphere down: a column of n layers has n + 1 half levels, their
edges. The functions take numpy arrays and tensors alike.
"""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from map2map.errors import GeometryError
from map2map.typing import Array

__all__ = ["KELVIN_PER_DAY", "HeatingRates", "down_and_up", "heating_rates"]

Values = TypeVar("Values", Array, Tensor)

KELVIN_PER_DAY = 86400 * 9.80665 / 1004
"""A heating rate [K d-1] per change of the net flux with pressure [W m-2 Pa-1]: seconds of a day
times standard gravity [m s-2] over the specific heat of dry air at constant pressure [J kg-1 K-1].
"""


def heating_rates(net: Values, pressure: Values, axis: int = 1) -> Values:
    """Heating rates of the layers between half levels.

    A layer holds the mass dp / g per area, so what it keeps of the net flux warms it by

        dT/dt [k] = -(g / c_p) (net[k + 1] - net[k]) / (p[k + 1] - p[k]),

    the energy equation of radiation alone, in hydrostatic air (Petty 2006, A First Course in
    Atmospheric Radiation, chapter 10), with the constants of `KELVIN_PER_DAY`.

    Args:
        net: Down less up [W m-2], at n + 1 half levels along ``axis``.
        pressure: At the half levels [Pa]; of the same shape, or one that is broadcast to it.
        axis: Of the half levels, in both; 1 is the channels of (batch, channel, *space).

    Returns:
        Heating rates [K d-1] of n layers.

    Raises:
        GeometryError: If the half levels are not as many in both, are fewer than two, or neighbours
            have equal pressures.
    """
    counts = net.shape[axis], pressure.shape[axis]
    if counts[0] != counts[1] or counts[0] < 2:
        raise GeometryError(
            f"net fluxes are given at {counts[0]} half levels, and pressures at {counts[1]} (axis "
            f"{axis} of {tuple(net.shape)} and {tuple(pressure.shape)}); they are the edges of "
            f"layers, so both need the same number of them, at least 2"
        )
    thickness = steps(pressure, axis)
    # what is traced, compiled or only counted (fake tensors) must not look at values
    real = type(thickness) in (Tensor, nn.Parameter, np.ndarray)
    if real and not torch.compiler.is_compiling():
        check_thickness(thickness, axis)
    rates: Values = -KELVIN_PER_DAY * steps(net, axis) / thickness
    return rates


def down_and_up(net: Values, total: Values) -> tuple[Values, Values]:
    """The fluxes down and up [W m-2] of their difference, ``net``, and their sum."""
    return (net + total) / 2, (total - net) / 2


def steps(values: Values, axis: int) -> Values:
    """Differences of neighbours along an axis: the lower less the upper."""
    before: list[slice] = [slice(None)] * values.ndim
    after = list(before)
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    found: Values = values[tuple(after)] - values[tuple(before)]
    return found


def check_thickness(thickness: Array | Tensor, axis: int) -> None:
    """Refuse layers of no mass.

    Raises:
        GeometryError: If there are any; names the first.
    """
    empty = thickness == 0
    if not bool(empty.any()):
        return
    where = np.argwhere(np.asarray(empty.cpu() if isinstance(empty, Tensor) else empty))
    level = int(where[0][axis])
    raise GeometryError(
        f"{len(where)} layers have no thickness: half levels {level} and {level + 1}, the first "
        f"such, have equal pressures, so their heating rate is not defined; pressures must change "
        f"from every half level to the next, in Pa and in enough digits"
    )


class HeatingRates(nn.Module):
    """`heating_rates` as a layer, of channels that are half levels."""

    def forward(self, net: Tensor, pressure: Tensor) -> Tensor:
        """Heating rates of layers.

        Args:
            net: Flux down less up [W m-2], shape (batch, n + 1, *space).
            pressure: At the half levels [Pa], likewise.

        Returns:
            Shape (batch, n, *space) [K d-1].

        Raises:
            GeometryError: If half levels do not fit, or have equal pressures.
        """
        return heating_rates(net, pressure)
