"""ColumnFluxes: any network of columns, whose fluxes and heating rates obey the same law."""

import importlib
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from map2map.errors import RecipeError, near_names
from map2map.models.columns import POINT, Profile, check_columns, profiles_of
from map2map.physics.heating_rates import KELVIN_PER_DAY, down_and_up, heating_rates, steps

__all__ = ["ColumnFluxes"]

Form = Literal["layers", "fluxes"]

SOLAR_CONSTANT = 1361.0
"""Irradiance of the sun in the mean over a year [W m-2]."""


class ColumnFluxes(nn.Module):
    """Radiative fluxes in columns of air by another network, and the heating rates that follow.

    Inputs end with fields in physical units, which have no norm: the pressure of half levels [Pa],
    from the top down, and maybe numbers whose product is how much sunlight there is at the top
    [W m-2], such as the cosine of the sun's zenith angle and its irradiance. What is before them is
    what the other network sees. Outputs, in physical units as well, so that targets have no norms,
    are for each band of wavelengths the fluxes down and up at the half levels [W m-2], and then for
    each band the heating rates of the layers [K d-1], with one row less:

        dT/dt [k] = -C (net[k + 1] - net[k]) / (p[k + 1] - p[k]),    net = down - up,

    `map2map.physics.heating_rates`. Bands in sunlight are multiplied by that there is, over 1361
    W m-2, so at night they are zero. The other network has two numbers for each band and half
    level, in units of ``typical_flux`` and ``typical_rate``, with these meanings:

    - "fluxes": the net flux, and the sum of down and up. So AI4SIM's networks learn.
    - "layers": on all but the first level, how the layer above it heats, r, and how much of what
      comes down it sends up instead, x, in a tenth of the typical flux per mean mass of a layer; on
      the first, what the surface sends up. With a = r dp / 2C a layer changes the flux down by
      -(x + a), from zero at the top on, and the flux up by x - a, from the surface on. So fluxes
      are sums over layers, as those of radiation are, which a convolution along the levels would
      have to learn across the whole column, and heating rates are no small differences of them.
      Right where nothing but the sun shines from above, and of differences between two ways of
      computing the same column.

    Args:
        in_chan: Channels of the input: those of ``inputs``, one per half level, and what tells how
            much sunlight there is.
        out_chan: Channels of the output, 3 n - 1 for each band on n half levels.
        ndim: Number of axes of the grid that columns stand on; 1 for the rows of a table.
        network: Name of a network of columns in `map2map.models`.
        options: Its arguments, without channels and profiles.
        inputs: What the channels are that the other network sees, in their order.
        bands: How many there are.
        sunlit: How many of them, the first ones, are of sunlight.
        form: "layers" or "fluxes".
        typical_flux: Of each band [W m-2], in full sunlight.
        typical_rate: Likewise of heating rates [K d-1].

    Raises:
        RecipeError: If there is no such network, or arguments or channels do not fit.
    """

    light: Tensor
    flux: Tensor
    rate: Tensor

    def __init__(  # noqa: PLR0913
        self,
        in_chan: int,
        out_chan: int,
        *,
        inputs: list[Profile],
        ndim: int = 1,
        network: str = "ColumnUNet",
        options: dict[str, Any] | None = None,
        bands: int = 2,
        sunlit: int = 1,
        form: Form = "layers",
        typical_flux: list[float] | tuple[float, ...] = (10.0, 3.0),
        typical_rate: list[float] | tuple[float, ...] = (0.1, 0.2),
    ) -> None:
        super().__init__()
        check_columns(ndim, bands=bands)
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.network, self.options, self.form = network, dict(options or {}), form
        self.bands, self.sunlit = bands, sunlit
        self.typical_flux, self.typical_rate = list(typical_flux), list(typical_rate)
        own = sum(Profile(**p).channels if isinstance(p, dict) else p.channels for p in inputs)
        self.inputs = profiles_of(inputs, own, "inputs")
        # what lies between half levels, which only a graph takes, has one less
        if not self.inputs:
            raise RecipeError("`inputs` are the profiles of the columns; give one at least")
        self.half_levels = max(profile.height for profile in self.inputs)
        self._check(own)
        # a head for each band, where networks have heads
        sides = {"inputs": self.inputs, "outputs": [Profile(self.half_levels, 2)] * bands}
        made = network_class(network)
        try:
            self.columns: nn.Module = made(
                own, 2 * bands * self.half_levels, ndim=ndim, **sides, **self.options
            )
        except TypeError as error:
            raise RecipeError(f"{network} cannot be made with {self.options}: {error}") from error
        scales = {"flux": self.typical_flux, "rate": self.typical_rate}
        for name, values in scales.items():
            value = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, value[:, None], persistent=False)
        self.footprint = POINT

    def _check(self, own: int) -> None:
        """Refuse arguments and channels that do not fit.

        Raises:
            RecipeError: Which.
        """
        if self.form not in get_args(Form):
            raise RecipeError(f"`form` is {self.form!r}{near_names(self.form, get_args(Form))}")
        sizes = {len(self.typical_flux), len(self.typical_rate)}
        positive = min(*self.typical_flux, *self.typical_rate, 1.0) > 0
        if sizes != {self.bands} or not positive or not 0 <= self.sunlit <= self.bands:
            raise RecipeError(
                f"`typical_flux` {self.typical_flux} and `typical_rate` {self.typical_rate} are a "
                f"number above 0 for each of {self.bands} `bands`, of which {self.sunlit} can be "
                f"`sunlit`"
            )
        n = self.half_levels
        if n < 2 or self.in_chan < own + n or self.out_chan != self.bands * (3 * n - 1):
            raise RecipeError(
                f"{self.bands} bands on {n} half levels are {self.bands * (3 * n - 1)} channels, "
                f"fluxes down and up of each and then heating rates, but targets have "
                f"{self.out_chan}; of {self.in_chan} channels of inputs, {own} are in `inputs`, "
                f"behind which come {n} pressures"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes, or layers of no mass.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        n = self.half_levels
        own = sum(profile.channels for profile in self.inputs)
        # rows of columns: (column, band, half level)
        rows = x.movedim(1, -1)
        pressure, sun = rows[..., own : own + n].flatten(0, -2), rows[..., own + n :]
        light = sun.flatten(0, -2).prod(dim=1, keepdim=True)
        # without numbers for sunlight, fluxes are those of a sun that always shines alike
        light = light / SOLAR_CONSTANT if sun.shape[-1] else light
        shares = torch.cat(
            [light.expand(-1, self.sunlit), torch.ones_like(light).expand(-1, self.bands)], dim=1
        )[:, : self.bands, None]
        y: Tensor = self.columns(x[:, :own])
        # sums along the column are no matter for half precision
        dtype = torch.promote_types(y.dtype, torch.float32)
        numbers = y.movedim(1, -1).reshape(-1, self.bands, 2, n).to(dtype)
        numbers = numbers * shares[..., None].to(dtype)
        compute = self._of_layers if self.form == "layers" else self._of_fluxes
        down, up, rates = compute(numbers[:, :, 0], numbers[:, :, 1], pressure[:, None].to(dtype))
        found = torch.cat([torch.stack([down, up], dim=2).flatten(1), rates.flatten(1)], dim=1)
        return found.reshape(*rows.shape[:-1], self.out_chan).movedim(-1, 1)

    def _of_layers(
        self, first: Tensor, second: Tensor, pressure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fluxes down and up, and heating rates, of heating and exchange: (column, band, level)."""
        mass = steps(pressure, 2)
        rates = first[..., 1:] * self.rate
        absorbed = rates * mass / (2 * KELVIN_PER_DAY)
        mean = (pressure[..., -1:] - pressure[..., :1]) / mass.shape[-1]
        exchanged = second[..., 1:] * (0.1 * self.flux) * mass / mean
        down = torch.cumsum(F.pad(-exchanged - absorbed, (1, 0)), dim=-1)
        from_below = F.pad(exchanged - absorbed, (0, 1)).flip(-1)
        up = second[..., :1] * self.flux + torch.cumsum(from_below, dim=-1).flip(-1)
        return down, up, rates

    def _of_fluxes(
        self, first: Tensor, second: Tensor, pressure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, of net fluxes and sums."""
        net = first * self.flux
        down, up = down_and_up(net, second * self.flux)
        return down, up, heating_rates(net, pressure, axis=2)


def network_class(name: str) -> Any:
    """A network of columns by its name.

    Raises:
        RecipeError: If there is none.
    """
    # siblings do not know each other, so it is looked up where all of them are named
    models = importlib.import_module("map2map.models")
    known = [n for n in models.__all__ if n.startswith("Column") and n != ColumnFluxes.__name__]
    if name not in known:
        raise RecipeError(f"`network` is {name!r}, no network of columns{near_names(name, known)}")
    return getattr(models, name)
