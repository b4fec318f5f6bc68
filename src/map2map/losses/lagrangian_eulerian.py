"""Displacements, compared where they start and where they end."""

from typing import Literal

import torch
from torch import Tensor, nn

from map2map.errors import RecipeError
from map2map.losses.physical import TINY, PhysicalLoss
from map2map.masked_losses import counted_loss
from map2map.physics.lagrangian import lagrangian_to_eulerian

__all__ = ["LagrangianEulerian"]


class LagrangianEulerian(PhysicalLoss):
    """``log(L_lag^a L_eul^b)``, or ``a L_lag + b L_eul``, of a displacement.

    L_lag compares normalized displacements. L_eul compares what the displaced cells make of a grid:
    the density, in units of its mean, by cloud-in-cell; or what they carry, such as momentum.
    Output and target are deposited alike: what leaves a crop that is not a whole periodic box is
    lost on both sides, and cells whose target is not known are carried by neither.

    Args:
        field: The displacement, in the units of the cell size; not needed if it is the one target.
        lag: a, of the Lagrangian term.
        eul: b, of the Eulerian term.
        form: "log" for the logarithm of the product, "sum" for the sum.
        scale: Cells of the Eulerian grid per Lagrangian cell and axis.
        pad: Cells of the Eulerian grid added on *each* side of axes on which the crop is not the
            whole periodic box, to catch what leaves it.
        remove_mean: Whether to take away the mean displacement first, that of output and target
            together, so that a crop that moves as a whole stays; no gradient flows through it.
        carried: A target that cells carry with them, in its units; by default each carries one
            mean density.
        criterion: Compares the two; by default the mean squared error.
    """

    def __init__(  # noqa: PLR0913 - the arguments of a recipe
        self,
        field: str | None = None,
        *,
        lag: float = 1.0,
        eul: float = 1.0,
        form: Literal["log", "sum"] = "log",
        scale: int = 1,
        pad: int = 0,
        remove_mean: bool = True,
        carried: str | None = None,
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__(field)
        if min(lag, eul) < 0 or not lag + eul > 0:
            raise RecipeError(f"`lag` and `eul` are 0 or more, one of them more, not {lag}, {eul}")
        if form not in ("log", "sum"):
            raise RecipeError(f"`form` is log or sum, not {form!r}")
        if scale < 1 or pad < 0:
            raise RecipeError(f"`scale` is 1 or more, and `pad` 0 or more, not {scale}, {pad}")
        self.lag, self.eul, self.form = lag, eul, form
        self.scale, self.pad, self.remove_mean = scale, pad, remove_mean
        self.carried, self.criterion = carried, criterion or nn.MSELoss()
        self.told = {"lag": torch.tensor(0.0), "eul": torch.tensor(0.0)}

    def forward(self, output: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Compare.

        Args:
            output: All targets as they came out, normalized, shape (batch, channel, *space).
            target: Of the same shape.
            counts: True for the numbers of the target that count; default: all.
        """
        self.check_alike(output, target)
        mine = self.channels(self.name)
        known = None if counts is None else counts[:, mine]
        lag = counted_loss(self.criterion, output[:, mine], target[:, mine], known)
        eul = self.criterion(*self.deposited(output, target, counts))
        self.told = {"lag": lag.detach(), "eul": eul.detach()}
        if self.form == "sum":
            total: Tensor = self.lag * lag + self.eul * eul
            return total
        terms = ((self.lag, lag), (self.eul, eul))
        both = torch.stack([a * term.clamp_min(TINY).log() for a, term in terms if a]).sum()
        # of nothing, as of other losses
        return both if known is None else torch.where(known.any(), both, 0.0)

    def deposited(
        self, output: Tensor, target: Tensor, counts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What output and target make of the Eulerian grid, shape (batch, channel, *mesh)."""
        ndim = target.ndim - 2
        name = self.vector(self.name, ndim)
        space = tuple(range(2, 2 + ndim))
        sides = [self.physical(values, name) for values in (output, target)]
        weights = torch.ones_like(sides[0][:, :1])
        if counts is not None:
            needed = counts[:, self.channels(name)].all(dim=1, keepdim=True)
            if self.carried is not None:
                held = counts[:, self.channels(self.carried)].all(dim=1, keepdim=True)
                needed = needed & held
            weights = needed.to(weights)
            # what is not known may be anything that the norm makes of 0
            sides = [torch.where(needed, side, 0.0) for side in sides]
        if self.remove_mean:
            total = weights.sum(space, keepdim=True).clamp_min(1)
            means = [(side * weights).sum(space, keepdim=True) / total for side in sides]
            mean = ((means[0] + means[1]) / 2).detach()
            sides = [side - mean for side in sides]
        carried = [self._carried(values, weights) for values in (output, target)]
        grid = self.grid(target.shape[2:])
        assert not isinstance(grid.periodic, bool)
        both: list[Tensor] = [
            lagrangian_to_eulerian(
                side,
                mass,
                self.spacing(grid),
                scale=self.scale,
                pad=0 if all(grid.periodic) else self.pad,
                periodic=grid.periodic,
            )
            * float(self.scale**ndim)
            for side, mass in zip(sides, carried, strict=True)
        ]
        return both[0], both[1]

    def _carried(self, values: Tensor, weights: Tensor) -> Tensor:
        """What each cell carries."""
        if self.carried is None:
            return weights
        held = self.physical(values, self.carried)
        return torch.where(weights > 0, held, 0.0)
