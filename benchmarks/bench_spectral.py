"""A spectral convolution as products with matrices, against one by fast Fourier transforms.

The same modes and weights, forward and backward, on one thread and side by side. The other way
transforms all modes, multiplies the lowest and puts them into zeros, as neural operators usually
do. Costs of FFTs hardly depend on the modes, those of matrices do.
"""

import argparse
import time

import torch
from torch import Tensor

from map2map.models.spectral import SpectralConv, turns_of
from timing import Claim, interleaved, report

CASES = (
    ((256,), 16), ((4096,), 16), ((16, 16), 8), ((64, 64), 12), ((256, 256), 12),
    ((256, 256), 32), ((16, 16, 16), 4), ((32, 32, 32), 8), ((64, 64, 64), 8),
)  # fmt: skip


def by_fft(conv: SpectralConv, x: Tensor) -> Tensor:
    """The convolution, with complex numbers."""
    axes, cells, modes = list(range(2, x.ndim)), x.shape[2:], conv.modes
    kept = [2 * m - 1 for m in modes[:-1]] + [modes[-1]]
    weight = torch.complex(*conv.weight.reshape(2, *kept, conv.in_chan, conv.out_chan))
    low = torch.fft.rfftn(x, dim=axes, norm="forward")
    # modes of both signs next to each other, from the lowest on
    for axis, m in enumerate(modes[:-1], start=2):
        low = low.roll(m - 1, axis).narrow(axis, 0, 2 * m - 1)
    low = low[..., : modes[-1]]
    mixed = torch.einsum("bi...,...io->bo...", low, weight)
    *others, last = cells
    pads = [0, last // 2 + 1 - modes[-1]]
    for n, m in zip(reversed(others), reversed(modes[:-1]), strict=True):
        pads.extend([0, n - (2 * m - 1)])
    full = torch.nn.functional.pad(mixed, pads)
    for axis, m in enumerate(modes[:-1], start=2):
        full = full.roll(1 - m, axis)
    return torch.fft.irfftn(full, s=cells, dim=axes, norm="forward")


def compared(shape: tuple[int, ...], m: int, width: int, rounds: int) -> list[Claim]:
    """Both ways with the same weights."""
    torch.manual_seed(0)
    modes = (m,) * len(shape)
    conv = SpectralConv(width, width, modes)
    batch = max(1, 2**14 // torch.Size(shape).numel())
    x = torch.randn(batch, width, *shape, requires_grad=True)
    with torch.no_grad():
        expected = by_fft(conv, x)
        error = (conv(x, turns_of(x, modes)) - expected).abs().max() / expected.std()

    def step(y: Tensor) -> None:
        torch.autograd.grad(y.square().sum(), [x, conv.weight])

    ways = {
        "matrices": lambda _: step(conv(x, turns_of(x, modes))),
        "fft": lambda _: step(by_fft(conv, x)),
    }
    # of the processor, which others may share
    took = interleaved(ways, rounds, clock=time.process_time)
    name = f"{' x '.join(map(str, shape))}, {m} modes, batch {batch}"
    return [
        Claim(f"{name}: time over that of FFTs", took["matrices"] / took["fft"]),
        Claim(f"{name}: deviation", float(error), 1e-5),
    ]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    claims = []
    for shape, m in CASES:
        claims += compared(shape, m, options.width, options.rounds)
    report(f"spectral convolutions, {options.width} channels", claims)


if __name__ == "__main__":
    main()
