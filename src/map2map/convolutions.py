"""Convolutions as the engine runs them on a CPU: on rings, slab by slab, in fewer operations."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from map2map.errors import GeometryError
from map2map.footprints import Footprint

__all__ = ["SlabConv", "ThinConv", "Winograd", "arrange"]

SLAB_BYTES = 1 << 25
"""About what a slab takes, so that it stays near the processor and its memory is used again."""

GROUP = 4
"""Planes of outputs that Winograd's algorithm computes together."""

KERNEL_WIDTH = 3
"""Of the convolutions that it computes."""

WIDE = 16
"""Channels that a processor's vectors work on at once."""


class SlabConv(nn.Module):
    """A valid convolution, slab by slab along the first axis of space; some axes may be rings.

    On a ring it continues at the other end, so that space keeps its size. Reading a slab with what
    lies around it takes little memory, where a wider copy of all of space takes as much again.

    Args:
        conv: The convolution.
        rings: Axes of space that are closed into rings.
        memory_format: Of its input.
        compute: What computes the convolution of a slab, if not the convolution itself.
    """

    def __init__(
        self,
        conv: _ConvNd,
        rings: tuple[int, ...],
        memory_format: torch.memory_format,
        compute: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.compute, self.memory_format = compute or conv, memory_format
        reach = zip(conv.kernel_size, conv.dilation, strict=True)
        self.extra = [d * (k - 1) for k, d in reach]
        self.rings, self.channels = rings, conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (batch, channel, *space)."""
        sizes = [n if i in self.rings else n - self.extra[i] for i, n in enumerate(x.shape[2:])]
        y: Tensor | None = None
        height = self._height(x)
        for start in range(0, sizes[0], height):
            part: Tensor = self.compute(self._slab(x, start, min(height, sizes[0] - start)))
            if part.shape[2] == sizes[0]:
                return part
            if y is None:
                shape = (*part.shape[:2], *sizes)
                y = torch.empty(
                    shape, dtype=part.dtype, device=x.device, memory_format=self.memory_format
                )
            y.narrow(2, start, part.shape[2]).copy_(part)
            if start and isinstance(x, FakeTensor):
                break  # memory is counted, and the other slabs take as much
        if y is None:
            raise GeometryError(f"nothing is left of {tuple(x.shape[2:])} cells by a convolution")
        return y

    @staticmethod
    def _height(x: Tensor) -> int:
        if torch.compiler.is_compiling():  # which unrolls loops
            return x.shape[2]
        plane = x.nbytes // x.shape[2]
        return max(1, SLAB_BYTES // plane // GROUP) * GROUP

    def _slab(self, x: Tensor, start: int, count: int) -> Tensor:
        """The inputs of some planes of outputs; copied where axes are rings."""
        if not self.rings:
            return x.narrow(2, start, count + self.extra[0])
        around = [e // 2 if i in self.rings else 0 for i, e in enumerate(self.extra)]
        shape = [count + self.extra[0]] + [
            n + 2 * w for n, w in zip(x.shape[3:], around[1:], strict=True)
        ]
        slab = torch.empty(
            (*x.shape[:2], *shape), dtype=x.dtype, device=x.device, memory_format=self.memory_format
        )
        middle = slab
        for axis, w in enumerate(around[1:], 3):
            middle = middle.narrow(axis, w, x.shape[axis])
        first, size, done = start - around[0], x.shape[2], 0
        while done < shape[0]:
            cell = (first + done) % size
            n = min(size - cell, shape[0] - done)
            middle.narrow(2, done, n).copy_(x.narrow(2, cell, n))
            done += n
        for axis, w in enumerate(around[1:], 3):
            if w:
                # what the axes before have got is copied along
                n = x.shape[axis]
                slab.narrow(axis, 0, w).copy_(slab.narrow(axis, n, w))
                slab.narrow(axis, n + w, w).copy_(slab.narrow(axis, w, w))
        return slab


def arrange(
    module: nn.Module,
    rings: tuple[int, ...],
    memory_format: torch.memory_format,
    *,
    cpu: bool,
    winograd: bool,
) -> nn.Module:
    """Let the convolutions of a network run as they run best.

    Args:
        module: The network, which is changed.
        rings: Axes of space that are closed into rings; its footprint says that they can be.
        memory_format: Of tensors.
        cpu: Whether it runs on a CPU.
        winograd: Whether wide convolutions are Winograd's.

    Returns:
        The same network.

    Raises:
        GeometryError: If rings are asked for, and a convolution pads, or moves in steps that its
            width does not fill.
    """
    planes = cpu and memory_format is torch.channels_last_3d
    for name, parent in list(module.named_modules()):
        if rings and isinstance(getattr(parent, "footprint", None), Footprint):
            # sizes are the tiling's to check: on a ring, others fit
            parent.footprint = Footprint(0)
        for key, child in list(parent.named_children()):
            if not isinstance(child, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                continue
            if child.kernel_size == child.stride and set(child.padding) == {0}:
                continue  # looks at one cell, or pools cells that no other takes
            if rings and (set(child.stride) != {1} or set(child.padding) != {0}):
                raise GeometryError(f"the convolution {name}.{key} cannot be closed into a ring")
            compute = _computed(child, winograd=winograd) if planes else None
            if rings or compute:
                setattr(parent, key, SlabConv(child, rings, memory_format, compute))
    return module


def _computed(conv: _ConvNd, *, winograd: bool) -> nn.Module | None:
    """What computes a convolution of planes faster, if anything does."""
    if not isinstance(conv, nn.Conv3d):
        return None
    steps = set(conv.stride) | set(conv.dilation)
    if steps != {1} or set(conv.padding) != {0} or conv.groups != 1 or conv.in_channels < WIDE:
        return None
    if conv.out_channels * conv.kernel_size[0] <= WIDE:
        return ThinConv(conv)
    if winograd and conv.kernel_size[0] == KERNEL_WIDTH and conv.out_channels >= WIDE:
        return Winograd(conv)
    return None


class ThinConv(nn.Module):
    """A valid 3-D convolution with few outputs, which would leave most of a vector unused.

    The offsets of the kernel along the first axis become channels, which are added with a shift.

    Args:
        conv: The convolution.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.depth, self.bias = conv.kernel_size[0], conv.bias
        weight = conv.weight.detach().permute(2, 0, 1, 3, 4).flatten(0, 1)
        self.weight = frozen(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (1, channel, *space)."""
        parts = F.conv2d(as_planes(x), self.weight).chunk(self.depth, 1)
        count = x.shape[2] - self.depth + 1
        # sums of bf16 in float32, as in a convolution
        y = parts[0][:count].to(torch.promote_types(parts[0].dtype, torch.float32))
        for offset, part in enumerate(parts[1:], 1):
            y = y + part[offset : offset + count]
        if self.bias is not None:
            y += self.bias[:, None, None]
        return as_space(y.to(parts[0].dtype))


class Winograd(nn.Module):
    """A valid 3-D convolution of width 3 that multiplies half as often, along the first axis.

    Four planes of outputs are made of six products instead of twelve: F(4, 3) of Lavin and Gray,
    "Fast algorithms for convolutional neural networks" (2016), section 4.3, on one axis. Rounding
    errors are a few times those of the plain sums.

    Args:
        conv: The convolution.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.bias = conv.bias
        at_points = torch.tensor(KERNEL_AT_POINTS, dtype=torch.float64)
        weight = torch.einsum("tk,oikab->toiab", at_points, conv.weight.detach().double())
        self.weights = nn.ParameterList(frozen(w.to(conv.weight.dtype)) for w in weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (1, channel, *space)."""
        planes = as_planes(x)
        count = len(planes) - 2
        groups = -(-count // GROUP)
        if missing := GROUP * groups - count:  # what they give is thrown away
            planes = torch.cat([planes, planes[-1:].expand(missing, -1, -1, -1)])
        inputs = [planes[j : j + GROUP * (groups - 1) + 1 : GROUP] for j in range(GROUP + 2)]
        products = [
            F.conv2d(moved, weight)
            for moved, weight in zip(_at_points(inputs), self.weights, strict=True)
        ]
        y = _from_points(products)
        if self.bias is not None:
            y += self.bias[:, None, None]
        return as_space(y[:count])


def frozen(weight: Tensor) -> nn.Parameter:
    """Weights (out, in, height, width) in the order that convolutions of planes prefer."""
    return nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)


def as_planes(x: Tensor) -> Tensor:
    """View (1, channel, depth, …), channels last, as (depth, channel, …), channels last."""
    return x[0].transpose(0, 1)


def as_space(planes: Tensor) -> Tensor:
    """The other way round."""
    return planes.transpose(0, 1)[None]


KERNEL_AT_POINTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""Values of a kernel as a polynomial at 0, 1, -1, 2, -2 and infinity, scaled."""


def _at_points(d: list[Tensor]) -> list[Tensor]:
    """The same of six inputs."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    even2, odd2 = d[4] - d[2], (d[3] - d[1]).mul_(2)
    return [
        torch.add(d[4], d[0], alpha=4).sub_(d[2], alpha=5),
        even + odd,
        even - odd,
        even2 + odd2,
        even2 - odd2,
        torch.add(d[5], d[1], alpha=4).sub_(d[3], alpha=5),
    ]


def _from_points(m: list[Tensor]) -> Tensor:
    """Four outputs from the six products; consumes them."""
    groups, *plane = m[0].shape
    y = torch.empty(
        (GROUP * groups, *plane),
        dtype=m[0].dtype,
        device=m[0].device,
        memory_format=torch.channels_last,
    )
    even, odd = m[1] + m[2], m[1].sub_(m[2])
    even2, odd2 = m[3] + m[4], m[3].sub_(m[4])
    torch.add(even, even2, out=y[0::GROUP]).add_(m[0])
    torch.add(odd, odd2, alpha=2, out=y[1::GROUP])
    torch.add(even, even2, alpha=4, out=y[2::GROUP])
    torch.add(odd, odd2, alpha=8, out=y[3::GROUP]).add_(m[5])
    return y
