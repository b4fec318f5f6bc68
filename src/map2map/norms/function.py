"""A function of the user's as a norm, as map2map calls them: ``f(x, undo=False, **arguments)``."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from map2map.norms.base import Norm
from map2map.usercode import guarded

__all__ = ["FunctionNorm"]


class FunctionNorm(Norm):
    """A function that changes a tensor in place, or undoes that with ``undo=True``.

    Args:
        function: The function, called as ``function(x, undo=..., **arguments)`` on a copy of
            the values, shape (batch, channel, *space). It may return the result instead.
        name: What the card says of it; an emulator is loaded with the function given again.
        arguments: Further keyword arguments.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, arguments: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.function = function
        self.name = name
        self.arguments = arguments or {}

    def _call(self, x: Tensor, *, undo: bool) -> Tensor:
        result = x.clone()
        returned = guarded(self.function, f"norm {self.name}")(result, undo=undo, **self.arguments)
        return returned if isinstance(returned, Tensor) else result

    def forward(self, x: Tensor) -> Tensor:
        """The function."""
        return self._call(x, undo=False)

    def inverse(self, y: Tensor) -> Tensor:
        """The function with ``undo=True``."""
        return self._call(y, undo=True)
