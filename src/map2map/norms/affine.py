"""Norms that shift and scale."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from map2map.errors import FieldError
from map2map.moment_files import read_moments, read_variables
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
        if scale is None:
            return
        bad = torch.nonzero(~(torch.isfinite(scale) & (scale != 0))).flatten().tolist()
        if bad:
            which = ", ".join(str(channel) for channel in bad[:20])
            raise FieldError(
                f"cannot divide by {name} {scale[bad].tolist()[:20]} of channel {which} (of "
                f"{len(scale)}): a channel without variation carries no information; leave it out "
                f"or give its {name}"
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
            given, one number that is found from the training split.
        by: Which: the root mean square over all channels ("rms"), or the largest of the channels'
            deviations ("largest_std").
        beside: Other fields with as many channels, which count as if they were channels of this:
            fields that are told the same way have one number in common, and keep their ratio.
    """

    typical: Tensor

    def __init__(
        self,
        typical: float | list[float] | None = None,
        by: Literal["rms", "largest_std"] = "rms",
        beside: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.by, self.beside = by, beside
        self._known("typical", typical)
        self._check_scale("typical")

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        return None, self.typical

    def fit(self, chunks: Chunks) -> None:
        """Find one number, so that a vector keeps its direction."""
        if not self.fitted:
            moments = Moments.of(chunks)
            rms = moments.rms.square().mean().sqrt()
            self.typical = (rms if self.by == "rms" else moments.std.max()).reshape(1)
            self._check_scale("typical")


class Standardize(_ShiftScale):
    """``(x - mean) / std`` per channel.

    Args:
        mean: Mean, one number or one per channel [units of the field].
        std: Deviation likewise. What is not given is found from the training split.
        file: A ``.npy`` file with both instead, see `map2map.moment_files`: three numbers
            ``[mean, std, var]``, or two ``[mean, var]``. It is read once; the norm keeps the
            numbers and forgets the file, so that an emulator does not depend on it.
        features: If channels are levels of so many features, those of a level side by side: levels
            share the moments of their feature.
        constants: Whether channels that do not vary become 0 instead of being refused.
        mean_file: A NetCDF file or Zarr store with means by variable, a number or one per channel,
            such as a level; with ``std_file`` and ``variable``, instead of all others. Likewise
            read once.
        std_file: The same with deviations.
        variable: Name of the field in both files.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        file: str | None = None,
        *,
        features: int | None = None,
        constants: bool = False,
        mean_file: str | None = None,
        std_file: str | None = None,
        variable: str | None = None,
    ) -> None:
        super().__init__()
        self.features, self.constants = features, constants
        self.file = self.mean_file = self.std_file = self.variable = None
        if mean_file or std_file or variable:
            if not (mean_file and std_file and variable) or (mean, std, file) != (None,) * 3:
                raise FieldError(
                    f"Standardize takes its numbers from mean_file, std_file and variable, all of "
                    f"them and nothing else; given are {mean_file}, {std_file} and {variable}"
                )
            mean, std = read_variables(mean_file, std_file, variable)
        if file is not None:
            if mean is not None or std is not None:
                raise FieldError(
                    f"Standardize takes its numbers from the file {file}, or as mean and std, not "
                    f"both; leave out one of them"
                )
            mean, std = read_moments(file)
        self._known("mean", mean)
        self._known("std", std)
        self._check_std()

    def _shift_scale(self) -> tuple[Tensor | None, Tensor]:
        return self.mean, self.std

    def _check_std(self) -> None:
        if self.constants and self.std is not None and self.mean is not None:
            # what is below the rounding of single precision does not vary
            still = self.std <= 1e-7 * self.mean.abs()
            self.std = torch.where(still, torch.ones_like(self.std), self.std)
        self._check_scale("std")

    def fit(self, chunks: Chunks) -> None:
        """Find mean and deviation of every channel."""
        if not self.fitted:
            moments = Moments.of(chunks)
            mean, std = moments.mean, moments.std
            if self.features is not None:
                mean, std = self._by_feature(mean, std)
            self.mean = mean if self.mean is None else self.mean
            self.std = std if self.std is None else self.std
            self._check_std()

    def _by_feature(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """The moments that levels share."""
        levels, rest = divmod(len(mean), self.features or 1)
        if rest or (self.features or 0) < 1:
            raise FieldError(
                f"{len(mean)} channels are no whole number of levels with {self.features} features"
            )
        shared = mean.reshape(levels, -1).mean(dim=0)
        squares = (std.square() + mean.square()).reshape(levels, -1).mean(dim=0)
        spread = (squares - shared.square()).clamp(min=0).sqrt()
        return shared.repeat(levels), spread.repeat(levels)
