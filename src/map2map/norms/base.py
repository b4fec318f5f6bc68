"""What a norm is: an invertible map of one field, whose statistics travel with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from map2map.errors import FieldError

__all__ = ["Chunks", "Moments", "Norm"]

Chunks = Callable[[], Iterable[Tensor]]
"""Starts a pass over a field's values in the training split: tensors of shape (channel, cell)."""


class Norm(nn.Module, ABC):
    """An invertible map of one field, of shape (batch, channel, *space).

    Statistics are buffers: they follow the device and are saved with the weights. Every argument
    of the constructor is an attribute of the same name, from which the emulator's card is written.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Physical values to what the network sees."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """What the network sees to physical values."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the styles that it depends on."""
        return ()

    def forward_at(self, x: Tensor, styles: Mapping[str, Tensor]) -> Tensor:
        """`forward`, for samples with the styles that it needs, each of shape (batch)."""
        del styles
        y: Tensor = self(x)
        return y

    def inverse_at(self, y: Tensor, styles: Mapping[str, Tensor]) -> Tensor:
        """`inverse` likewise."""
        del styles
        return self.inverse(y)

    def settled(self, styles: Mapping[str, float]) -> "Norm":
        """The norm for the styles of one run, which needs none."""
        del styles
        return self

    @property
    def fitted(self) -> bool:
        """Whether all statistics are known."""
        return True

    beside: list[str] | None = None
    """Fields whose channels come behind those of this in what `fit` is given."""

    def fit(self, chunks: Chunks) -> None:
        """Find the statistics from the training split; does nothing where none are needed."""

    def found(self) -> str:
        """What `fit` found, in a few words; empty if it needs to find nothing."""
        return ""


class Moments:
    """Mean and variance per channel, of any number of values, in one pass and in float64.

    By the pairwise update of Chan, Golub and LeVeque (1983), eq. 2.1, which does not cancel as
    the mean of squares minus the square of the mean does.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.squares = torch.zeros(0, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in values, shape (channel, cell); cells that are not finite are left out."""
        values = values.double()
        finite = torch.isfinite(values).all(dim=0)
        if not finite.all():
            values = values[:, finite]
        n = values.shape[1]
        if n == 0:
            return
        mean = values.mean(dim=1)
        squares = (values - mean[:, None]).square().sum(dim=1)
        if self.count == 0:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        shift = mean - self.mean
        self.mean = self.mean + shift * (n / total)
        self.squares = self.squares + squares + shift.square() * (self.count * n / total)
        self.count = total

    @classmethod
    def of(cls, chunks: Chunks) -> "Moments":
        """The moments of all values."""
        moments = cls()
        for chunk in chunks():
            moments.add(chunk)
        if moments.count == 0:
            raise FieldError("the training split holds no finite value to fit a norm on")
        return moments

    @property
    def std(self) -> Tensor:
        """Deviation per channel."""
        return (self.squares / self.count).sqrt()

    @property
    def rms(self) -> Tensor:
        """Root mean square per channel."""
        return (self.squares / self.count + self.mean.square()).sqrt()


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values per channel (or one for all), shaped to act on ``x`` (batch, channel, *space)."""
    return values.to(x.dtype).reshape(1, -1, *(1,) * (x.ndim - 2))
