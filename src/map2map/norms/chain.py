"""Several norms, one after another."""

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from map2map.norms.base import Chunks, Norm

__all__ = ["Chain"]


class Chain(Norm):
    """Several norms, applied in order: ``[Log(), Standardize()]``, say.

    Args:
        norms: The norms, the first acts on the physical values.
    """

    def __init__(self, norms: list[Norm]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def _members(self) -> list[Norm]:
        return [norm for norm in self.norms if isinstance(norm, Norm)]

    def forward(self, x: Tensor) -> Tensor:
        """All, in order."""
        for norm in self._members():
            x = norm(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """All, undone in reverse order."""
        for norm in reversed(self._members()):
            y = norm.inverse(y)
        return y

    @property
    def fitted(self) -> bool:
        """Whether all statistics are known."""
        return all(norm.fitted for norm in self._members())

    def fit(self, chunks: Chunks) -> None:
        """Fit each on what those before it make of the values; one pass for each that needs it."""
        members = self._members()
        for i, norm in enumerate(members):
            norm.fit(partial(_through, members[:i], chunks))

    def found(self) -> str:
        """What each found."""
        return "; ".join(filter(None, (norm.found() for norm in self._members())))


def _through(norms: list[Norm], chunks: Chunks) -> Iterator[Tensor]:
    for chunk in chunks():
        batch = chunk[None]
        for norm in norms:
            batch = norm(batch)
        yield batch[0]
