"""Predictions: labels and parameters of whole runs, sample by sample, and what is known of them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError
from map2map.fields import FieldSet
from map2map.grids import Domain
from map2map.kept import Kept, read_fields, whole_bytes
from map2map.mean_line import MeanLine
from map2map.memory import bytes_of
from map2map.runs import Runs
from map2map.windows import Window

__all__ = ["Predictions", "predict_runs"]

AT_ONCE = bytes_of("1GiB")
"""Most of a run that is kept in memory while its planes are gone through."""


@dataclass(frozen=True)
class Predictions:
    """What an emulator says of the runs; physical values of parameters, logits of labels.

    Args:
        runs: The samples: runs, their frames or planes.
        targets: What is predicted.
        outputs: Shape (sample, channel).
        groups: Of which simulation, or frame of it, a sample is, shape (sample,).
        truth: Likewise shape (sample, channel), if it is known.
        line: What the mean of the input alone tells, likewise, if the emulator's card knows.
        std: Standard deviations of outputs, likewise, if the network gives them.
    """

    runs: Runs
    targets: FieldSet
    outputs: NDArray[np.float64]
    groups: NDArray[np.int64]
    truth: NDArray[np.float64] | None = None
    line: NDArray[np.float64] | None = None
    std: NDArray[np.float64] | None = None


@torch.no_grad()
def predict_runs(
    emulator: Emulator,
    runs: Runs,
    domain: Domain | None = None,
    *,
    batch_size: int = 32,
    track: Callable[[Iterable[int], int], Iterable[int]] = lambda batches, _: batches,
) -> Predictions:
    """Apply an emulator of labels or parameters to runs, frames or planes, in their order.

    Args:
        emulator: In evaluation mode, on its device.
        runs: With its inputs; with its targets, if the truth is known.
        domain: What lies beyond edges; default: as in training.
        batch_size: Samples at a time, which must have one shape.
        track: Shows the progress over so many batches.

    Raises:
        FieldError: If inputs are not finite.
        GeometryError: If the emulator gives fields.
    """
    if not emulator.targets.of_run:
        raise GeometryError(
            f"the emulator gives fields, {', '.join(emulator.targets.names)}, and no labels or "
            f"parameters of runs"
        )
    device = next(emulator.parameters(), torch.empty(0)).device
    weights = emulator.training_record.get("mean_line")
    outputs, lines, spreads = [], [], []
    parts = batches(runs, batch_size)
    values = ahead(runs, parts, domain or emulator.domain)
    for _ in track(range(len(parts)), len(parts)):
        x = emulator.encode_input(torch.from_numpy(next(values)).to(device))
        output = emulator.model(x)
        outputs.append(physical(emulator, output))
        spread = emulator.decode_spread(output)
        if spread is not None:
            spreads.append(spread.double().cpu().numpy())
        if weights:
            line = torch.from_numpy(MeanLine.predict(weights, x))
            lines.append(physical(emulator, line.to(device)))
    groups = np.array([run.group for run in runs], np.int64)
    return Predictions(
        runs,
        emulator.targets,
        np.concatenate(outputs),
        groups,
        None if runs.numbers is None else runs.numbers[groups].astype(np.float64),
        np.concatenate(lines) if lines else None,
        np.concatenate(spreads) if spreads else None,
    )


def physical(emulator: Emulator, output: Tensor) -> NDArray[np.float64]:
    """Outputs of the network in physical units."""
    values: NDArray[np.float64] = emulator.decode_target(output).double().cpu().numpy()
    return values


def batches(runs: Runs, size: int) -> list[range]:
    """Numbers of the runs that are gone through together: neighbors of one shape."""
    same = runs.domain.same_shape
    shapes = [None if same else runs.shape_of(k) for k in range(len(runs))]
    parts, start = [], 0
    for k in range(1, len(runs) + 1):
        if k == len(runs) or k - start == size or shapes[k] != shapes[start]:
            parts.append(range(start, k))
            start = k
    return parts


def ahead(runs: Runs, parts: list[range], domain: Domain) -> Iterator[NDArray[np.float32]]:
    """The inputs of one batch after another, shape (sample, channel, *space), read ahead."""
    # planes are read from their run, in memory, if it fits
    small = runs.domain.planes is not None and whole_bytes(runs) <= AT_ONCE * len(runs.groups)
    kept = Kept(runs, most=2) if small else None

    def read(part: range) -> NDArray[np.float32]:
        shape = runs.shape_of(part[0])
        out = np.empty((len(part), runs.inputs.channels, *shape), np.float32)
        window, grid = Window.whole(shape), domain.grid(shape)
        for row, k in zip(out, part, strict=True):
            if kept is None:
                read_fields(runs, k, runs.inputs, window, grid, row)
            else:
                kept.read(k, runs.inputs, window, grid, row)
            if not np.isfinite(row).all():
                bad = int((~np.isfinite(row)).sum())
                raise FieldError(
                    f"{runs.runs[k]} holds {bad} NaN or infinite values, which a label or "
                    f"parameter of the whole cannot leave out; mend the data"
                )
        return out

    with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
        coming = pool.submit(read, parts[0])
        for following in [*parts[1:], None]:
            values = coming.result()
            if following is not None:
                coming = pool.submit(read, following)
            yield values
