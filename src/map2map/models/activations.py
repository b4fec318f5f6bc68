"""The activations that models may be asked for, by name.

Like conv.py, vocabulary that models may import. None has weights, so a network's weights are the
same whichever it has.
"""

from collections.abc import Callable, Mapping

from torch import nn

from map2map.errors import RecipeError, near_names

__all__ = ["ACTIVATIONS", "SLOPE", "activation_of", "check_activation", "leaky"]

SLOPE = 0.2
"""What leaky ReLUs of networks that reduce multiply negative values by, unless told otherwise."""


def leaky(slope: float) -> nn.Module:
    """An activation that multiplies what is negative by ``slope``, in place."""
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "logsigmoid": nn.LogSigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "softshrink": nn.Softshrink,
    "hardshrink": nn.Hardshrink,
    "tanhshrink": nn.Tanhshrink,
}
"""PyTorch's activations of one argument and no weights, under the names of its functions."""


def check_activation(name: str, slope: float = SLOPE) -> None:
    """Refuse a name that is none, and a slope of an activation that has none.

    Args:
        name: One of `ACTIVATIONS`.
        slope: Of "leaky_relu".

    Raises:
        RecipeError: If it is refused, with names that are near.
    """
    if name not in ACTIVATIONS:
        raise RecipeError(f"`activation` is {name!r}, which is none{near_names(name, ACTIVATIONS)}")
    if name != "leaky_relu" and slope != SLOPE:
        raise RecipeError(
            f"`slope` is {slope}, but is of `activation` 'leaky_relu' only, not {name!r}; leave "
            f"one of them out"
        )


def activation_of(name: str, slope: float) -> nn.Module:
    """A new activation.

    Args:
        name: One of `ACTIVATIONS`.
        slope: Of "leaky_relu"; 0 is a ReLU.
    """
    return leaky(slope) if name == "leaky_relu" else ACTIVATIONS[name]()
