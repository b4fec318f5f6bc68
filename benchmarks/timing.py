"""What the benchmarks share: interleaved timings, and a table of requirements."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

__all__ = ["Child", "Claim", "interleaved", "report", "run_child"]


@dataclass(frozen=True)
class Claim:
    """A figure, and what is required of it.

    Args:
        what: What was measured.
        value: The figure.
        limit: What it may be at most; None: shown for information.
        at_least: Whether it has to be at least that, rather than at most.
        unit: Its unit; none for ratios.
        other: A second figure and its limit, of which one is enough.
    """

    what: str
    value: float
    limit: float | None = None
    unit: str = ""
    other: tuple[float, float] | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the requirement is met."""
        if self.limit is None:
            return ""
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        if self.other is not None:
            met = met or self.other[0] <= self.other[1]
        return "PASS" if met else "over"


def report(title: str, claims: Sequence[Claim]) -> None:
    """Print a table of figures and requirements."""
    width = max(len(claim.what) for claim in claims)
    print(f"{title}\n{'':{width}}  {'measured':>14}  {'required':>14}")
    for claim in claims:
        value = f"{claim.value:.3g} {claim.unit}".strip()
        limit = "" if claim.limit is None else f"{claim.limit:g} {claim.unit}".strip()
        side = "at least" if claim.at_least else "at most"
        required = limit and f"{side} {limit}"
        print(f"{claim.what:{width}}  {value:>14}  {required:>14}  {claim.verdict}".rstrip())
    print()


def interleaved(
    tasks: Mapping[str, Callable[[int], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warmup: int = 2,
) -> dict[str, float]:
    """Median seconds of each task, when all take turns in an order that is reversed every round.

    Args:
        tasks: What to time, by name; each is given the number of the round.
        rounds: How often.
        clock: Of wall time, or `time.process_time` where other programs share the processor.
        warmup: Rounds that do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for k in range(-warmup, rounds):
        for name in list(tasks)[:: 1 if k % 2 else -1]:
            start = clock()
            tasks[name](k + warmup)
            if k >= 0:
                seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}


@dataclass(frozen=True)
class Child:
    """How a program fared: exit status, output, wall and processor time [s], peak memory [MiB]."""

    status: int
    output: str
    wall: float
    processor: float
    peak: float


def run_child(arguments: Sequence[str]) -> Child:
    """Run a program with this interpreter and measure it, imports and all.

    A small process starts it, because Linux counts the memory of whoever does.
    """
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    return Child(**json.loads(done.stdout))


def measure_child(arguments: Sequence[str]) -> Child:
    """The same, from the small process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    # macOS counts bytes, Linux KiB
    memory = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
    return Child(done.returncode, done.stdout, wall, usage.ru_utime + usage.ru_stime, memory)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_child(sys.argv[1:]))))
