"""NeuralOperator: a model of the user's own install of neuraloperator, as one of ours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint
from map2map.models.conv import check_ndim

__all__ = ["NeuralOperator"]


class NeuralOperator(nn.Module):
    """A network of neuraloperator, or of any package whose networks are made alike.

    It is made with ``in_channels`` and ``out_channels``, which are filled in, and the ``options``,
    and maps (batch, in_channels, *space) to (batch, out_channels, *space). It is taken to see the
    whole domain, so it is never tiled. What of its weights is complex is saved as pairs of real
    numbers, and it is computed in single precision at least.

    The package is not map2map's: a recipe names the class, and a card that does is refused unless
    the class is trusted by name.

    Args:
        in_chan: Channels of the input.
        out_chan: Channels of the output.
        ndim: Number of axes.
        network: The class, in a recipe by its import path: ``neuralop.models.FNO``.
        options: Its other arguments. ``n_modes`` may be one number for all axes.

    Raises:
        RecipeError: If it is no class of networks, or is not made with these arguments.
    """

    def __init__(
        self,
        in_chan: int,
        out_chan: int,
        *,
        network: type[nn.Module],
        ndim: int = 2,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        # a text is never imported here, because it may be from a card that nobody trusts
        if not (isinstance(network, type) and issubclass(network, nn.Module)):
            raise RecipeError(
                f"`network` is {network!r}, but must be a class of networks; in a recipe, name it "
                f"by its import path, such as neuralop.models.FNO"
            )
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.network, self.options = network, dict(options or {})
        arguments = {"in_channels": in_chan, "out_channels": out_chan} | self._arguments()
        try:
            self.made: nn.Module = network(**arguments)
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"{network.__module__}.{network.__qualname__} cannot be made with "
                f"{', '.join(arguments)}: {error}"
            ) from error
        self.footprint = Footprint(0, whole=f"{network.__qualname__} is taken to see all of it")
        self.register_state_dict_post_hook(real_state)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(complex_state)  # type: ignore[no-untyped-call]

    def _arguments(self) -> dict[str, Any]:
        """The options as neuraloperator takes them."""
        filled = {"in_channels", "out_channels"} & set(self.options)
        if filled:
            raise RecipeError(
                f"`options` has {', '.join(sorted(filled))}, which the fields fill in; leave it out"
            )
        modes = self.options.get("n_modes")
        if modes is None:
            return self.options
        each = (modes,) * self.ndim if isinstance(modes, int) else tuple(modes)
        if len(each) != self.ndim:
            raise RecipeError(
                f"`n_modes` is {modes}, for {len(each)} axes, but the fields have {self.ndim}"
            )
        return self.options | {"n_modes": each}

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_chan, *space) to (batch, out_chan, *space).

        Raises:
            GeometryError: If there are other axes, or another shape comes out.
        """
        self.footprint.check_input(x.shape, ndim=self.ndim, who=type(self).__name__)
        # Fourier transforms are not made for half precision
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.made(x.to(torch.promote_types(x.dtype, torch.float32)))
        if y.shape != (x.shape[0], self.out_chan, *x.shape[2:]):
            raise GeometryError(
                f"{self.network.__qualname__} returned {tuple(y.shape)} for an input of "
                f"{tuple(x.shape)}; an operator gives {self.out_chan} channels on the same cells"
            )
        return y.to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "NeuralOperator":
        """Cast and move complex weights as pairs of real numbers, or a cast would take one."""

        def paired(x: Tensor) -> Tensor:
            if not x.is_complex():
                return fn(x)
            # flat, because there is no memory format for a pair more than a network has axes
            pairs = fn(torch.view_as_real(x.detach()).flatten())
            precise = torch.promote_types(pairs.dtype, torch.float32)
            return torch.view_as_complex(pairs.to(precise).view(*x.shape, 2))

        super()._apply(paired, recurse)  # type: ignore[no-untyped-call]
        return self


def real_state(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    """Complex weights of a state as pairs; what are no weights (neuraloperator's record) left out.

    Args:
        state: Changed in place.
        prefix: Of the names that are the module's.
    """
    if not isinstance(state.get("_metadata", torch.empty(0)), Tensor):
        del state["_metadata"]
    for name, value in state.items():
        if name.startswith(prefix) and isinstance(value, Tensor) and value.is_complex():
            state[name] = torch.view_as_real(value.detach())


def complex_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Pairs of a state as complex weights again, where the module has such.

    Args:
        module: Is not changed.
        state: Changed in place.
        prefix: Of the names that are the module's.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        pairs = state.get(prefix + name)
        if value.is_complex() and isinstance(pairs, Tensor) and not pairs.is_complex():
            state[prefix + name] = torch.view_as_complex(pairs.contiguous())
