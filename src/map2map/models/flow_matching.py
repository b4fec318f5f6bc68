"""FlowMatching: a network that draws samples of what the target can be, given the input."""

import copy
import importlib
from typing import Any, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError, near_names
from map2map.footprints import Footprint, footprint_of
from map2map.models.conv import check_ndim, narrow_by, narrow_like
from map2map.models.styled import check_style
from map2map.noise import Noise
from map2map.styles import with_any_style
from map2map.windows import round_up

__all__ = ["FlowMatching"]

Solver = Literal["euler", "midpoint", "heun"]
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}
"""Of the velocity, per step."""
TIMES = (0.125, 0.375, 0.625, 0.875)
"""At which the loss of validation is taken: midpoints of four intervals."""


class Compare(Protocol):
    """A loss."""

    def __call__(self, output: Tensor, target: Tensor, /) -> Tensor:
        """The loss."""


class FlowMatching(nn.Module):
    """Conditional flow matching after Lipman et al. 2023 (arXiv:2210.02747), on straight paths.

    A network learns the velocity dz/dt = v(x, z, t) that carries noise, z at t = 0, to the target,
    z at t = 1, given the input x. It sees input and state side by side, and the time as a constant
    channel. Where z = (1 - t) noise + t target, the velocity is on average target - noise, which is
    what the loss compares with; it must be one of squared errors, which averages are learnt by. The
    output is a sample: noise carried along in a few steps, each of which cuts off (or, of a network
    that pads, makes up for) as many cells as the network does, so the footprint grows with the
    number of evaluations.

    The noise belongs to cells (`map2map.noise`): tiles draw that of the whole field, and another
    seed gives another sample. Without a place, as in training, PyTorch's generator draws it
    (`map2map.noise.drawing`).

    A learning step evaluates the network once, so it reads less than a sample needs: the halo of
    the network, around the crops of input and target (`learning_footprint`). Losses of validation
    are of fixed noise and times, so that epochs can be compared.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        network: The network's name in `map2map.models`, or its class; made with the channels
            ``in_chan + out_chan + 1`` and ``out_chan``.
        options: Its arguments, without channels and axes.
        steps: From noise to the sample.
        solver: "euler", first order, which evaluates the network once per step; "midpoint" or
            "heun", second order, twice.
        style_chan: Numbers of the style of a sample, which the network is given; 0: none.

    Raises:
        RecipeError: If there is no such network or solver, or arguments do not fit; also if the
            network takes no styles, and there are some.
        GeometryError: If the network gives no field on the grid of its input.
    """

    learns_means: ClassVar[bool] = True

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        ndim: int = 3,
        network: type[nn.Module] | str = "UNet",
        options: dict[str, Any] | None = None,
        steps: int = 4,
        solver: Solver = "midpoint",
        style_chan: int = 0,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        if solver not in get_args(Solver):
            raise RecipeError(f"`solver` is {solver!r}{near_names(solver, get_args(Solver))}")
        if steps < 1:
            raise RecipeError(f"`steps` is {steps}, but a sample takes at least 1")
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.network, self.options = network, dict(options or {})
        self.steps, self.solver, self.style_chan = steps, solver, style_chan
        made: Any = network_class(network) if isinstance(network, str) else network
        channels = in_chan + out_chan + 1
        if "style_chan" in self.options:
            raise RecipeError("`options` has a `style_chan`; leave it out, it is filled in")
        # only then, because few networks know of them
        style = {"style_chan": style_chan} if style_chan else {}
        try:
            self.velocity: nn.Module = made(channels, out_chan, ndim=ndim, **self.options, **style)
        except TypeError as error:
            if style and "style_chan" in str(error):
                raise RecipeError(
                    f"there are styles, but the `network` {getattr(made, '__name__', made)} takes "
                    f"none; UNet, VNet and StyledVNet do, or leave `styles` out"
                ) from error
            raise RecipeError(f"{network} cannot be made with {self.options}: {error}") from error
        self.noise = Noise(channels=out_chan)
        self.learning_footprint = footprint_of(
            with_any_style(self.velocity, style_chan), channels, ndim
        )
        self._check()
        one = self.learning_footprint
        self.less = round_up(one.cut, one.multiple)
        self.footprint = self._of_sample()

    def _check(self) -> None:
        """Refuse networks that give no field on the grid of their input."""
        one = self.learning_footprint
        if one.reduces or one.scale > 1:
            what = "numbers for the whole" if one.reduces else f"{one.scale} cells per input cell"
            raise GeometryError(
                f"{type(self.velocity).__name__} gives {what}, but a velocity is a field on the "
                f"grid of the state; use a network from fields to fields of the same cells"
            )

    def _of_sample(self) -> Footprint:
        """The footprint of all evaluations one after another."""
        one, more = self.learning_footprint, EVALUATIONS[self.solver] * self.steps - 1
        cut = one.cut + more * self.less
        if one.sizes is not None:
            return Footprint(0, whole=one.whole, sizes=one.sizes)
        # between evaluations the phase of the levels is kept
        margin = one.margin + more * round_up(one.margin, one.multiple)
        return Footprint(
            cut if one.whole is not None else margin,
            one.multiple,
            cut=cut,
            remainder=one.remainder,
            minimum=one.minimum + 2 * more * self.less,
            whole=one.whole,
            ragged=one.ragged,
            # the noise is that of the input's cells, wherever the ring begins
            ring=one.ring if one.cut == self.less else None,
        )

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Draw a sample: (batch, in_chan, *space) to (batch, out_chan, *smaller space).

        Args:
            x: The input.
            style: (batch, style_chan), if the network takes one.

        Raises:
            GeometryError: If the sizes do not fit, or there is no style.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        check_style(self, style, self.style_chan)
        z: Tensor = self.noise(x)
        dt = 1 / self.steps
        for step in range(self.steps):
            t, last = step * dt, step == self.steps - 1
            v = self._flow(x, z, t, style, last and self.solver == "euler")
            # beside a velocity there is less of a field; all of it on axes that are rings
            x, z = narrow_like(x, v), narrow_like(z, v)
            if self.solver == "midpoint":
                v = self._flow(x, z + dt / 2 * v, t + dt / 2, style, last)
            elif self.solver == "heun":
                second = self._flow(x, z + dt * v, t + dt, style, last)
                v = (narrow_like(v, second) + second) / 2
            x, z = narrow_like(x, v), narrow_like(z, v) + dt * v
        return z

    def settled(self, style: Tensor) -> nn.Module:
        """A copy for one style, shape (style_chan,), that takes none."""
        settle = getattr(self.velocity, "settled", None)
        # the network is copied by itself
        made = copy.deepcopy(self, {id(self.velocity): nn.Identity()})
        made.velocity = settle(style) if settle else OfOneStyle(self.velocity, style)
        made.style_chan = 0
        return made

    def _flow(
        self, x: Tensor, z: Tensor, t: float | Tensor, style: Tensor | None, last: bool
    ) -> Tensor:
        """The velocity, shape (batch, out_chan, *smaller space)."""
        time = torch.full_like(x[:, :1], t) if isinstance(t, float) else t.expand_as(x[:, :1])
        seen = torch.cat([x, z.to(x.dtype), time], dim=1)
        v: Tensor = self.velocity(seen) if style is None else self.velocity(seen, style)
        return v if last else narrow_by(v, self.less - self.learning_footprint.cut)

    def learn(self, x: Tensor, y: Tensor, compare: Compare, style: Tensor | None = None) -> Tensor:
        """The loss of the velocity, at a time and noise that are drawn for each sample.

        Args:
            x: Normalized input, shape (batch, in_chan, *space).
            y: Normalized target of the same cells, or of fewer or more around the same center.
            compare: The loss of velocities, both of shape (batch, out_chan, *smaller space).
            style: Normalized, (batch, style_chan), if the network takes one.

        Raises:
            GeometryError: If too few cells have both, or there is no style.
        """
        check_style(self, style, self.style_chan)
        x, y = self._together(x, y)
        each = (len(y), *(1 for _ in y.shape[1:]))
        if self.training:
            t = torch.rand(each, dtype=y.dtype, device=y.device)
            return self._loss(x, y, torch.randn_like(y), t, compare, style)
        drawn = torch.Generator(y.device).manual_seed(0)
        noise = torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=drawn)
        losses = [self._loss(x, y, noise, y.new_full(each, time), compare, style) for time in TIMES]
        return torch.stack(losses).mean()

    def _loss(
        self,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        t: Tensor,
        compare: Compare,
        style: Tensor | None,
    ) -> Tensor:
        v = self._flow(x, (1 - t) * noise + t * y, t.to(x.dtype), style, True)
        wanted = narrow_by(y - noise, self.learning_footprint.cut)
        return compare(v.to(y.dtype), wanted)

    def _together(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Input and target of the cells that both have, as many as the network takes."""
        one = self.learning_footprint
        for axis, (n, m) in enumerate(zip(x.shape[2:], y.shape[2:], strict=True)):
            size = min(n, m)
            while size > 0 and not one.accepts(size):
                size -= 1
            if size < 1 or (n - m) % 2:
                raise GeometryError(
                    f"{type(self).__name__} learns from input and target of the same cells, but "
                    f"there are {n} and {m} on axis {axis}; of {type(self.velocity).__name__} "
                    f"{one.sizes_near(min(n, m))}; use halo: auto (--in-pad auto), or larger crops"
                )
            shared = min(n, m)
            x = x.narrow(axis + 2, (n - shared) // 2, size)
            y = y.narrow(axis + 2, (m - shared) // 2, size)
        return x, y


class OfOneStyle(nn.Module):
    """A network with a style that is the same for all it is given.

    Args:
        network: Takes an input and a style; it is copied.
        style: Shape (style_chan,).
    """

    style: Tensor

    def __init__(self, network: nn.Module, style: Tensor) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("style", style.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channel, *space)."""
        y: Tensor = self.network(x, self.style.to(x).expand(len(x), -1))
        return y


def network_class(name: str) -> Any:
    """A network by its name.

    Raises:
        RecipeError: If there is none.
    """
    # siblings do not know each other, so it is looked up where all of them are named
    models = importlib.import_module("map2map.models")
    known = [each for each in models.__all__ if each != FlowMatching.__name__]
    if name not in known:
        raise RecipeError(f"`network` is {name!r}, no network{near_names(name, known)}")
    return getattr(models, name)
