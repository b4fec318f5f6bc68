"""Norms that shift and scale."""

from collections.abc import Sequence

import torch
from torch import Tensor

from map2map.errors import FieldError
from map2map.moment_files import read_moments
from map2map.norms.base import Chunks, Moments, Norm, per_channel

__all__ = ["Affine", "Identity", "Scale", "Standardize"]

Numbers = float | Sequence[float]


class Identity(Norm):
    """Nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """The same."""
        return y


class _ShiftScale(Norm):
    """``(x - shift) / scale`` per channel; both may be unknown until fitted."""

    def _known(self, name: str, value: Numbers | None) -> None:
        buffer = None if value is None else torch.tensor(value, dtype=torch.float64).reshape(-1)
        self.register_buffer(name, buffer)

    def _check_scale(self, name: str) -> None:
        scale = getattr(self, name)
        if scale is not None and not (torch.isfinite(scale).all() and (scale != 0).all()):
            raise FieldError(
                f"cannot divide by {name} {scale.tolist()}: a channel without variation carries "
                f"no information; leave it out or give its {name}"
            )

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        raise NotImplementedError

    @property
    def fitted(self) -> bool:
        """Whether all statistics are known."""
        return all(buffer is not None for buffer in self._buffers.values())

    def forward(self, x: Tensor) -> Tensor:
        """Shift and divide."""
        shift, scale = self._shift_scale()
        if shift is not None:
            x = x - per_channel(shift, x)
        return x / per_channel(scale, x)

    def inverse(self, y: Tensor) -> Tensor:
        """Multiply and shift back."""
        shift, scale = self._shift_scale()
        x = y * per_channel(scale, y)
        return x if shift is None else x + per_channel(shift, y)

    def found(self) -> str:
        """The statistics, named."""
        return ", ".join(
            f"{name} {[float(f'{value:.6g}') for value in buffer.tolist()]}"
            for name, buffer in self._buffers.items()
            if buffer is not None
        )


class Affine(_ShiftScale):
    """``(x - shift) / scale`` with given numbers.

    Args:
        shift: What is subtracted, one number or one per channel [units of the field].
        scale: What is divided by, one number or one per channel [units of the field].
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: float | list[float] = 0.0, scale: float | list[float] = 1.0) -> None:
        super().__init__()
        self._known("shift", shift)
        self._known("scale", scale)
        self._check_scale("scale")

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        return self.shift, self.scale


class Scale(_ShiftScale):
    """``x / typical``: keeps zero, and vectors their direction.

    Args:
        typical: A typical value, one number or one per channel [units of the field]; if not
            given, the root mean square over all channels of the training split.
    """

    typical: Tensor

    def __init__(self, typical: float | list[float] | None = None) -> None:
        super().__init__()
        self._known("typical", typical)
        self._check_scale("typical")

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        return None, self.typical

    def fit(self, chunks: Chunks) -> None:
        """Find the root mean square; one number, so that a vector keeps its direction."""
        if not self.fitted:
            self.typical = Moments.of(chunks).rms.square().mean().sqrt().reshape(1)
            self._check_scale("typical")


class Standardize(_ShiftScale):
    """``(x - mean) / std`` per channel.

    Args:
        mean: Mean, one number or one per channel [units of the field].
        std: Deviation likewise. What is not given is found from the training split.
        file: A ``.npy`` file with both instead, see `map2map.moment_files`: three numbers
            ``[mean, std, var]``, or two ``[mean, var]``. It is read once; the norm keeps the
            numbers and forgets the file, so that an emulator does not depend on it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__()
        self.file: str | None = None
        if file is not None:
            if mean is not None or std is not None:
                raise FieldError(
                    f"Standardize takes its numbers from the file {file}, or as mean and std, not "
                    f"both; leave out one of them"
                )
            mean, std = read_moments(file)
        self._known("mean", mean)
        self._known("std", std)
        self._check_scale("std")

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        return self.mean, self.std

    def fit(self, chunks: Chunks) -> None:
        """Find mean and deviation of every channel."""
        if not self.fitted:
            moments = Moments.of(chunks)
            self.mean = moments.mean if self.mean is None else self.mean
            self.std = moments.std if self.std is None else self.std
            self._check_scale("std")
