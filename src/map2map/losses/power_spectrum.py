"""The power of output and target, wavenumber by wavenumber."""

from typing import Literal

import torch
from torch import Tensor

from map2map.errors import RecipeError
from map2map.losses.physical import PhysicalLoss, or_one
from map2map.physics.binned_power import binned_power, hann

__all__ = ["PowerSpectrum"]


class PowerSpectrum(PhysicalLoss):
    """Mean over samples, channels and bins of the squared relative error of the power.

    ``log((P_out + e) / (P_true + e))^2``, or ``((P_out - P_true) / (P_true + e))^2``, of each
    channel in physical values, in the bins of `physics.spectra.power_spectrum`. e is a small part
    of the mean power of the target's channel over the batch, so that bins without any do not count,
    and neither do samples; where the batch has none, of one unit. The mean of the field has no bin.

    A crop that is not as long as a periodic field has no continuation at its ends. There both
    sides are tapered alike (Hann) after their means were taken away: the bins then mix with their
    neighbors, and the outer cells count less. Cells that are not known are 0 after that on both
    sides.

    Args:
        field: The target that is compared; not needed if there is one.
        form: "log" or "ratio".
        floor: e, in parts of the mean power over the batch's samples and bins of the target.
        upto: The largest wavenumber, in parts of the smallest Nyquist wavenumber.
    """

    def __init__(
        self,
        field: str | None = None,
        *,
        form: Literal["log", "ratio"] = "log",
        floor: float = 1e-6,
        upto: float = 1.0,
    ) -> None:
        super().__init__(field)
        if form not in ("log", "ratio"):
            raise RecipeError(f"`form` is log or ratio, not {form!r}")
        if not (floor > 0 and 0 < upto <= 1):
            raise RecipeError(
                f"`floor` is above 0, and `upto` above 0 up to 1, not {floor}, {upto}"
            )
        self.form, self.floor, self.upto = form, floor, upto

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: All targets as they came out, normalized, shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all.
        """
        self.check_alike(output, target)
        grid = self.grid(target.shape[2:])
        assert not isinstance(grid.periodic, bool)
        taper = None if all(grid.periodic) else hann(grid.shape, grid.periodic).to(target)
        sides = [self.physical(values, self.name) for values in (output, target)]
        if counts is not None:
            known = counts[:, self.channels(self.name)]
            sides = [torch.where(known, side, 0.0) for side in sides]
            taper = known.to(target) if taper is None else taper * known
        # only ratios of cell sizes matter
        spacing = grid.spacing or (1.0,) * grid.ndim
        units = or_one(sides[1].detach().square().mean().sqrt())
        # in units in which no square overflows
        found, truth = (binned_power(side / units, spacing, taper) for side in sides)
        bins = max(1, int(truth.shape[-1] * self.upto * (1 + 1e-9)))
        floor = self.floor * or_one(truth.mean(dim=(0, -1), keepdim=True))
        found, truth = found[..., :bins], truth[..., :bins]
        if self.form == "ratio":
            return ((found - truth) / (truth + floor)).square().mean()
        return ((found + floor) / (truth + floor)).log().square().mean()
