"""How much of a field there is along an axis, such as the surface of a flame."""

import logging

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.errors import GeometryError
from map2map.fields import Field
from map2map.figures.base import (
    Case,
    RunFigure,
    at_least,
    heading,
    name_methods,
    noted,
)
from map2map.inks import Inks, dash, shorten, text, tint
from map2map.typing import Array

__all__ = ["LayerProfile"]

log = logging.getLogger(__name__)


class LayerProfile(RunFigure):
    """Sums over the layers of cells across an axis, of the truth and of predictions.

    Where cell sizes are known, these are integrals: of a flame surface density, the flame's surface
    per length along the axis. Cells that do not count add nothing. Each channel has a profile.
    Vectors have none, since what their components sum up to depends on the axes, nor have fields on
    one axis.

    Args:
        axis: Along which axis of space, from 0.
        channels: How many channels, from the first on.
    """

    def __init__(self, axis: int = 0, channels: int = 3) -> None:
        at_least(0, axis=axis)
        at_least(1, channels=channels)
        self.axis, self.channels = axis, channels
        self.methods: tuple[str, ...] = ()
        self.sizes: tuple[float, ...] | None = None
        self.ndim = 0
        self.uneven = False
        self.runs: dict[str | None, int] = {}
        self.sums: dict[str | None, NDArray[np.float64]] = {}
        self.gaps: dict[str | None, NDArray[np.float64]] = {}
        """Sum over runs, lowest and highest difference from the truth, shape (3, channel, layer);
        of the truth, of what it is itself."""

    def add(self, case: Case) -> None:
        """Take in a field of a run.

        Raises:
            GeometryError: If there is no such axis.
        """
        if case.field.kind == "vector" or len(case.space) == 1 or self.uneven:
            return
        self.methods, self.sizes, self.ndim = case.methods, case.sizes, len(case.space)
        own: dict[str | None, NDArray[np.float64]] = {None: self.layers(case, case.truth)}
        own |= {name: self.layers(case, values) for name, values in case.predictions.items()}
        for name, sums in own.items():
            about = sums if name is None else sums - own[None]
            known = self.sums.get(name)
            if known is None:
                self.runs[name], self.sums[name] = 1, sums
                self.gaps[name] = np.stack([about, about, about])
                continue
            if known.shape != sums.shape:
                log.warning(
                    "runs have %d and %d layers along axis %d, so there is no layer_profile of %r, "
                    "which is a mean over runs",
                    known.shape[1],
                    sums.shape[1],
                    self.axis,
                    case.field.name,
                )
                self.uneven = True
                return
            gaps = self.gaps[name]
            self.runs[name] += 1
            self.sums[name] = known + sums
            self.gaps[name] = np.stack(
                [gaps[0] + about, np.minimum(gaps[1], about), np.maximum(gaps[2], about)]
            )

    def layers(self, case: Case, values: Array) -> NDArray[np.float64]:
        """Sums over all axes but one, shape (channel, layer), times the area of a cell."""
        ndim = len(case.space)
        if self.axis >= ndim:
            raise GeometryError(
                f"sums along axis {self.axis} were asked for, but {case.field.name!r} has the axes "
                f"0 to {ndim - 1}"
            )
        across = tuple(1 + i for i in range(ndim) if i != self.axis)
        kept = values[: self.channels]
        sums = kept.sum(axis=across, dtype=np.float64, where=case.counts[None])
        return np.asarray(sums * np.prod([(case.sizes or (1.0,) * ndim)[i - 1] for i in across]))

    def profile(self, method: str | None) -> NDArray[np.float64]:
        """Mean over runs, shape (channel, layer), of a method or (None) of the truth."""
        return self.sums[method] / self.runs[method]

    def difference(
        self, method: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean, lowest and highest difference from the truth in any run, (channel, layer)."""
        total, low, high = self.gaps[method]
        return total / self.runs[method], low, high

    def draw(self, field: Field, inks: Inks) -> dict[str, Figure]:
        """A figure per channel: profiles, and below them differences from the truth."""
        channels = len(self.sums[None]) if self.sums and not self.uneven else 0
        return {
            str(channel) if channels > 1 else "": self._draw(channel, channels, field, inks)
            for channel in range(channels)
        }

    def _draw(self, channel: int, channels: int, field: Field, inks: Inks) -> Figure:
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
        truth = self.profile(None)[channel]
        size = 1.0 if self.sizes is None else self.sizes[self.axis]
        x = (np.arange(len(truth)) + 0.5) * size
        several = self.runs[None] > 1
        if several:
            _, low, high = self.gaps[None][:, channel]
            top.fill_between(x, low, high, color=inks.ink, alpha=0.12, lw=0)
        top.plot(x, truth, color=inks.ink, lw=2.2)
        bottom.axhline(0, color=inks.faint, lw=0.8)
        shown = [name for name in self.sums if name is not None]
        for name in reversed(shown):
            number = self.methods.index(name)
            how = {"color": tint(inks, number), "ls": dash(number), "lw": 1.5}
            top.plot(x, self.profile(name)[channel], **how)
            mean, low, high = (part[channel] for part in self.difference(name))
            if several:
                bottom.fill_between(x, low, high, color=how["color"], alpha=0.15, lw=0)
            bottom.plot(x, mean, **how)
        units = f"[{self._units(field)}]"
        top.set_ylabel(text(f"{'sum' if self.sizes is None else 'integral'} {units}"))
        bottom.set_ylabel(text(f"difference {units}"))
        kind = "cells" if self.sizes is None else "length L"
        bottom.set_xlabel(f"axis {self.axis} [{kind}]")
        top.set_xlim(0, len(truth) * size)
        what = f"channel {channel}, " if channels > 1 else ""
        if several:
            noted(
                figure,
                f"Lines: means over {self.runs[None]} runs; bands: from the lowest to the highest "
                f"of them.",
            )
        name_methods(
            figure,
            heading(field, f"{what}layers along axis {self.axis}"),
            inks,
            self.methods,
            shown,
            truth=True,
        )
        return figure

    def _units(self, field: Field) -> str:
        units = field.units if field.units and field.units != "1" else ""
        across = self.ndim - 1
        if self.sizes is None:
            return f"{shorten(units)} cells".strip()
        length = "L" if across == 1 else "L²"
        return " ".join(part for part in (shorten(units), length) if part) or "1"
