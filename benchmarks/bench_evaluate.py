"""Spectra of two 512³ fields, against exactly the Fourier transforms that they need.

Power of both fields, transfer function and correlation coefficient, as `metrics.spectral_scores`
computes them from float32 fields in memory; beside it, what cannot be avoided: the two real
transforms of the same fields, by each library at hand. Both take turns in one process. The
peak memory is that of a process that makes the fields and computes their spectra once, less that
of one that makes the fields only.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import fft

from map2map.physics import spectra
from map2map.physics.bispectra import bispectrum
from map2map.physics.modes import threads
from timing import Claim, interleaved, report, run_child


def make(size: int) -> list[np.ndarray]:
    """Two fields that are correlated."""
    first, noise = (
        np.random.default_rng(seed).standard_normal((size,) * 3, np.float32) for seed in (0, 1)
    )
    noise += first
    return [first, noise]


def transforms(fields: list[np.ndarray]) -> dict[str, object]:
    """The transforms of both fields, one after another, by each library that there is."""

    def with_scipy(_: int) -> None:
        for field in fields:
            fft.rfftn(field, workers=threads())

    def with_torch(_: int) -> None:
        for field in fields:
            torch.fft.rfftn(torch.from_numpy(field))

    return {"scipy.fft": with_scipy, "torch.fft": with_torch}


def both_spectra(first: np.ndarray, second: np.ndarray, *, double: bool = False) -> object:
    """Power of both fields, and their cross spectrum."""
    pairs = [(first, first), (second, second), (first, second)]
    return spectra.spectra(pairs, 1.0, 3, double=double)


def peak(size: int, *, compute: bool) -> float:
    """Peak memory of a process of its own [MiB]."""
    return run_child([__file__, "--size", str(size), "--child", str(int(compute))]).peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="cells per axis")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    fields = make(options.size)
    if options.child is not None:
        if options.child:
            both_spectra(*fields)
        sys.exit()
    libraries = transforms(fields)
    seconds = interleaved(libraries, 3, warmup=1)
    compared = []
    for name, needed in libraries.items():
        wall, used = ratios(
            lambda: both_spectra(*fields), lambda needed=needed: needed(0), options.rounds
        )
        compared += [
            Claim(f"  / two transforms by {name} (median of rounds)", wall, 1.5),
            Claim("  ratio in processor time", used),
        ]
    one = transforms(fields[:1])["scipy.fft"]
    wall, used = ratios(
        lambda: spectra.spectra([(fields[0],) * 2], 1.0, 3, double=False),
        lambda: one(0),
        options.rounds,
    )
    compared += [
        Claim("power of one field / one transform by scipy.fft", wall, 1.5),
        Claim("  ratio in processor time", used),
    ]
    width = max(1, options.size // 48)
    others = interleaved(
        {
            "spectra": lambda _: both_spectra(*fields),
            "double": lambda _: both_spectra(*fields, double=True),
            "bispectrum": lambda _: bispectrum(fields[0], 1.0, 3, width, double=False),
        },
        3,
        warmup=1,
    )
    before, after = (peak(options.size, compute=compute) for compute in (False, True))
    report(
        f"Spectra of {options.size}³ float32 fields, {threads()} threads",
        [
            *(Claim(f"two transforms by {name}", seconds[name], unit="s") for name in libraries),
            Claim("power of both, cross, transfer, correlation", others["spectra"], unit="s"),
            *compared,
            Claim("the same of both in double precision", others["double"], unit="s"),
            Claim("memory besides the two fields", after - before, unit="MiB"),
            Claim("  / one field", (after - before) / (fields[0].nbytes / 2**20)),
            Claim("bispectrum of one field, in 16 bins", others["bispectrum"], unit="s"),
        ],
    )


def ratios(
    work: Callable[[], object], needed: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Median over rounds, in each of which both take turns, of the ratios of wall and CPU time."""
    found = []
    for k in range(-1, rounds):
        spent = []
        for task in (needed, work):
            start = time.perf_counter(), time.process_time()
            task()
            spent.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        # the first round warms up
        if k >= 0:
            found.append([after / before for before, after in zip(*spent, strict=True)])
    wall, used = np.median(found, axis=0)
    return float(wall), float(used)


if __name__ == "__main__":
    main()
