"""The graph of a grid of 60³ cells: time and memory to make it, and what a network takes on it.

Its edges are made from the shape, in a process of its own for the memory: that beyond what the same
process takes without. Then GridGIN(32) on the grid, against torch_geometric's own network on the
same edges, and on them in the order of a list of edges axis by axis.
"""

import argparse
import time
from statistics import median

import numpy as np
import torch

from map2map.grid_graphs import EDGES, count_edges, grid_edges
from map2map.models import GridGIN
from timing import Claim, interleaved, report, run_child

PEAK = "import numpy, torch, map2map.grid_graphs as g{}"


def axis_by_axis(n: int) -> torch.Tensor:
    """The same edges, in another order."""
    edges = grid_edges((n, n, n))
    step = np.abs(edges[0] - edges[1])
    return torch.from_numpy(edges[:, np.argsort(step, kind="stable")])


def main() -> None:
    argument = argparse.ArgumentParser(description=__doc__)
    argument.add_argument("--size", type=int, default=60)
    argument.add_argument("--rounds", type=int, default=5)
    options = argument.parse_args()
    n = options.size
    shape = (n, n, n)
    seconds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        edges = grid_edges(shape)
        seconds.append(time.perf_counter() - start)
    work = f"; g.EDGES.get({shape}, (False,) * 3, torch.device('cpu'))"
    with_it, without = (run_child(["-c", PEAK.format(more)]).peak for more in (work, ""))
    report(
        f"The graph of {n}³ cells: {edges.shape[1]} edges",
        [
            Claim("made in (median)", median(seconds), 1.0, "s"),
            Claim("made in (slowest)", max(seconds), unit="s"),
            Claim("memory beyond the process's", with_it - without, 300, "MiB"),
            Claim("of which edges", edges.nbytes / 2**20, unit="MiB"),
            Claim("edges / expected", edges.shape[1] / count_edges(shape)),
        ],
    )
    model = GridGIN(1, 1).eval()
    x = torch.randn(1, 1, *shape)
    nodes = x.reshape(-1, 1)
    other, same = axis_by_axis(n), torch.from_numpy(edges)
    ours, stock, unordered = "GridGIN(32)", "torch_geometric's", "the same, axis by axis"
    with torch.inference_mode():
        times = interleaved(
            {
                ours: lambda _: model(x),
                stock: lambda _: model.model(nodes, same),
                unordered: lambda _: model.model(nodes, other),
            },
            options.rounds,
        )
    report(
        f"A network on {n}³ cells, {len(EDGES)} graph kept",
        [
            Claim(ours, times[ours], unit="s"),
            Claim(f"  / {stock}", times[ours] / times[stock], 1.1),
            Claim(f"  / {unordered}", times[ours] / times[unordered]),
        ],
    )


if __name__ == "__main__":
    main()
