"""The command line: how soon help is there, and what inspecting a large field takes.

Each command runs in a process of its own, which is measured as a whole: start, imports, work.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from timing import Claim, report, run_child

M2M = "import sys; from map2map.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1, help="size of the field to inspect")
    parser.add_argument("--repeats", type=int, default=7, help="calls of --help")
    options = parser.parse_args()
    helps = [run_child(["-c", M2M, "--help"]) for _ in range(options.repeats)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "field.npy"
        write(path, int(options.gib * 2**30))
        inspect = run_child(["-c", M2M, "inspect", str(path), "--ndim=3"])
    if inspect.status or any(child.status for child in helps):
        raise SystemExit(inspect.output)
    report(
        f"Command line ({options.gib:g} GiB field, float32)",
        [
            Claim("m2m --help", median(child.wall for child in helps), 0.5, "s"),
            Claim("m2m inspect", inspect.wall, 10, "s"),
            Claim("  processor time", inspect.processor, unit="s"),
            Claim("  largest resident memory", inspect.peak, 500, "MiB"),
        ],
    )


def write(path: Path, size: int) -> None:
    """A vector field of random numbers of about ``size`` bytes."""
    n = round((size / 12) ** (1 / 3))
    rng = np.random.default_rng(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (3, n, n, n)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(3 * n):
            file.write(rng.standard_normal((n, n), np.float32).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
