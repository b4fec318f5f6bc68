"""A training step of DoubleConvUNet in 3-D: float32, channels last, against the older float64.

Forward, mean squared error, backward and an optimizer's step on one batch that is there, of the
network of flames with its 1,357,505 parameters. Both take turns. On the CPU in processor time by
default, because other programs may share it; with --wall in wall time, and on a GPU always.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from map2map.memory import keep_freed_memory
from map2map.models import DoubleConvUNet
from timing import Claim, interleaved, report

CROPS = {"1 x 32 x 16 x 16": (1, 32, 16, 16), "1 x 48^3": (1, 48, 48, 48)}
"""Batch and cells: the crop of the older system, and a larger one."""


def step(
    dtype: torch.dtype, shape: tuple[int, ...], layout: torch.memory_format, device: str
) -> Callable[[int], None]:
    """A training step of a network of its own."""
    torch.manual_seed(0)
    network = DoubleConvUNet(1, 1, head=False).to(device, dtype).to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batch, *cells = shape
    x, y = (torch.rand(batch, 1, *cells, device=device, dtype=dtype) for _ in range(2))
    x = x.contiguous(memory_format=layout)

    def run(_: int) -> None:
        optimizer.zero_grad()
        F.mse_loss(network(x), y).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def measure(
    shape: tuple[int, ...], rounds: int, device: str, clock: Callable[[], float]
) -> list[Claim]:
    """The figures of one crop."""
    layouts = torch.contiguous_format, torch.channels_last_3d
    tasks = {
        "float64": step(torch.float64, shape, layouts[0], device),
        "float32": step(torch.float32, shape, layouts[0], device),
        "float32, channels last": step(torch.float32, shape, layouts[1], device),
    }
    seconds = interleaved(tasks, rounds, clock=clock)
    older, newer = seconds["float64"], seconds["float32, channels last"]
    return [
        *(Claim(f"step in {name}", 1e3 * value, unit="ms") for name, value in seconds.items()),
        Claim("  times as fast as in float64", older / newer, 2.0, at_least=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--wall", action="store_true", help="wall time, also on the CPU")
    parser.add_argument("--crop", choices=CROPS, help="one of the crops; default: all")
    options = parser.parse_args()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wall = options.wall or device == "cuda"
    clock = time.perf_counter if wall else time.process_time
    for name, shape in CROPS.items():
        if options.crop in (None, name):
            title = f"{device}, {'wall' if wall else 'processor'} time, {name} cells"
            if device == "cpu":
                title += f", {torch.get_num_threads()} threads"
            report(title, measure(shape, options.rounds, device, clock))


if __name__ == "__main__":
    main()
