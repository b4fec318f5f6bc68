"""Probes: what a network does with sizes, shifts and a single cell, found by running it.

The network is copied, given random weights and run in eval mode on the CPU, so that what counts is
its structure: weights that are zero at first, or ReLUs that are dead, hide nothing.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from map2map.errors import GeometryError
from map2map.typing import Shape

__all__ = ["Prober", "SizeRule"]

TOLERANCE = 1e-4
"""Of the largest output: far above rounding in float32, far below a wrong phase."""

SizeRule = tuple[int, int, int, int, int]
"""Which input sizes fit, and what comes out: multiple, remainder, minimum, scale, cut."""

DEVICES = "meta", "cpu"
"""Sizes are tried without computing; with, for modules that look at values on the way."""

QUICK = 1 << 18
"""Cells of an input that is soon computed."""

SCANS = {"meta": (12, 24, 48, 96, 192, 384), "cpu": (12, 24, 48, 96)}


class Prober:
    """A network that answers questions about its geometry.

    Args:
        module: The network; it is copied, not changed.
        in_chan: Channels of its input.
        ndim: Axes of its input.
    """

    def __init__(self, module: nn.Module, in_chan: int, ndim: int) -> None:
        self.in_chan, self.ndim, self.name = in_chan, ndim, type(module).__name__
        self.module = randomized(module)
        self.minimum = self.maximum = 1
        self.reduces = False
        self.refusal: Exception | None = None

    def noise(self, size: int, axis: int | None = None) -> Tensor:
        """Random input of so many cells on one axis and few on the others, or on all axes."""
        sizes = [size if axis in (None, i) else self.minimum for i in range(self.ndim)]
        return torch.randn(1, self.in_chan, *sizes)

    def run(self, x: Tensor) -> Tensor:
        """The output."""
        with torch.no_grad():
            y: Tensor = self.module(x)
        return y

    def sizes(self) -> SizeRule | None:
        """Which sizes fit; None if one alone does, or if the output has no space (`reduces`).

        Raises:
            GeometryError: If no size is taken, or the output's size follows no rule.
        """
        shapes: dict[int, Shape] = {}
        for device in DEVICES:
            module = copy.deepcopy(self.module).to(device)
            tried = 0
            for last in SCANS[device]:
                for n in range(tried + 1, last + 1):
                    if shape := self._shape(module, device, n):
                        shapes[n] = shape
                tried = last
                if rule := size_rule(shapes, last, self.ndim):
                    self.minimum = rule[2]
                    return rule
                self.reduces = {len(shape) for shape in shapes.values()} == {2}
                if self.reduces:
                    # as large as is soon computed, so that what is local does not reach all of it
                    shapes |= self._large(module, device, last)
                    break
            if shapes:
                break
        if not shapes:
            raise GeometryError(
                f"{self.name} takes no {self.ndim}-D input of {self.in_chan} channels with 1 to "
                f"{tried} cells per axis; it says {type(self.refusal).__name__}: {self.refusal}"
            ) from self.refusal
        self.minimum, self.maximum = min(shapes), max(shapes)
        if len({shape[2:] for shape in shapes.values()}) == 1:
            return None
        few = {n: shape[2:] for n, shape in list(shapes.items())[:4]}
        raise GeometryError(
            f"no footprint describes {self.name}: its output is not an integer times its input "
            f"less a cut that is the same on both sides; sizes of input and output are {few}"
        )

    def _large(self, module: nn.Module, device: str, tried: int) -> dict[int, Shape]:
        """The shape of the output for the largest size of `SCANS` that is soon computed, if any."""
        for n in reversed(SCANS[device]):
            if n > tried and n**self.ndim <= QUICK and (shape := self._shape(module, device, n)):
                return {n: shape}
        return {}

    def _shape(self, module: nn.Module, device: str, n: int) -> Shape | None:
        """The shape of the output for n cells per axis, if they are taken."""
        try:
            with torch.no_grad(), torch.device(device):
                y = module(torch.zeros(1, self.in_chan, *[n] * self.ndim))
        except Exception as error:  # whatever it raises, this size does not fit
            self.refusal = error
            return None
        return tuple(y.shape) if y.numel() else None

    def is_random(self, size: int) -> bool:
        """Whether the same input gives different outputs."""
        x = self.noise(size, axis=0)
        return not torch.allclose(self.run(x), self.run(x), rtol=0, atol=0, equal_nan=True)

    def reached(self, size: int, axis: int, cell: int) -> list[bool]:
        """Which outputs along an axis depend on the inputs at a cell of it.

        A NaN reaches all that it can; it is hidden by functions that replace it, which a finite
        change is not.
        """
        x = self.noise(size, axis)
        spoilt, changed = x.clone(), x.clone()
        spoilt.select(axis + 2, cell).fill_(torch.nan)
        changed.select(axis + 2, cell).mul_(-3).add_(1)
        y = self.run(x)
        hit = (self.run(changed) - y).abs() > 1e-6 * y.abs().max()
        with suppress(Exception):  # modules may refuse a NaN
            hit |= self.run(spoilt).isnan()
        others = [i for i in range(y.ndim) if i != axis + 2]
        reached: list[bool] = hit.any(dim=others).tolist()
        return reached

    def moves_with(self, shift: int, size: int, drop: int, scale: int) -> bool:
        """Whether the output moves with its input on every axis.

        Args:
            shift: By how many cells.
            size: Input cells.
            drop: Output cells at either end that are not compared.
            scale: Output cells per input cell.
        """
        for axis in range(self.ndim):
            x = self.noise(size + shift, axis)
            below = self.run(x.narrow(axis + 2, 0, size))
            above = self.run(x.narrow(axis + 2, shift, size))
            cells = below.shape[axis + 2] - scale * shift - 2 * drop
            a = below.narrow(axis + 2, scale * shift + drop, cells)
            b = above.narrow(axis + 2, drop, cells)
            if (a - b).abs().max() > TOLERANCE * a.abs().max():
                return False
        return True

    def stays(self, size: int, seen: slice, block: slice) -> bool:
        """Whether outputs are the same when inputs elsewhere are replaced, on every axis.

        Args:
            size: Input cells.
            seen: Those that are left as they are.
            block: The outputs.
        """
        for axis in range(self.ndim):
            x = self.noise(size, axis)
            before = self.run(x).movedim(axis + 2, 0)[block]
            for factor in (10, 0.1):  # what is ranked has other ranks then
                other = factor * self.noise(size, axis)
                other.movedim(axis + 2, 0)[seen] = x.movedim(axis + 2, 0)[seen]
                after = self.run(other).movedim(axis + 2, 0)[block]
                if (after - before).abs().max() > TOLERANCE * before.abs().max():
                    return False
        return True

    def culprit(self, size: int) -> tuple[str, bool]:
        """The first layer that spreads one slice over all it has, and whether it is a convolution.

        A convolution may yet prove local in a larger field.
        """
        found: list[tuple[str, bool]] = []
        names = {module: name for name, module in self.module.named_modules()}

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before = list(tensors([args, kwargs]))
            after = list(tensors(output))
            partial = any(x.isnan().any() and not x.isnan().all() for x in before)
            if not found and partial and after and all(y.isnan().all() for y in after):
                where = f" ({names[module]!r})" if names[module] else ""
                found.append((type(module).__name__ + where, isinstance(module, _ConvNd)))

        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in names]
        x = self.noise(size, axis=0)
        x.select(2, size // 2).fill_(torch.nan)
        with suppress(Exception):  # modules may refuse a NaN
            self.run(x)
        for handle in handles:
            handle.remove()
        return found[0] if found else (self.name, False)


def randomized(module: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode, of random weights that neither grow nor damp a signal."""
    module = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.uniform_(0.5, 1.5)
    return module


def size_rule(shapes: dict[int, Shape], last: int, ndim: int) -> SizeRule | None:
    """The rule with the smallest multiple that three sizes or more obey, up to ``last``."""
    for multiple in range(1, last // 3 + 1):
        for remainder in range(multiple):
            sizes = [n for n in sorted(shapes) if n % multiple == remainder]
            # all sizes from the smallest on must fit, or the multiple is larger
            if len(sizes) < 3 or len(sizes) != (last - sizes[0]) // multiple + 1:
                continue
            first, second = sizes[:2]
            outs = [shapes[n][2:] for n in sizes]
            if any(len(out) != ndim or len(set(out)) != 1 for out in outs):
                continue
            scale = (outs[1][0] - outs[0][0]) // (second - first)
            double = scale * first - outs[0][0]
            linear = all(out[0] == scale * n - double for n, out in zip(sizes, outs, strict=True))
            if linear and scale >= 1 and double >= 0 and double % 2 == 0:
                return multiple, remainder, first, scale, double // 2
    return None


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors of real numbers in nested arguments."""
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.is_complex():
            yield values
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """The same random numbers every time, and those of the caller left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
