"""Whole fields for map2map's test mode: apply an emulator to every run, write, score.

Where the crops cover the field and their halo is the footprint's, the fields come from tiles, as in
`apply`. Otherwise (a halo that somebody chose, crops with gaps) they come from the very crops.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from map2map.arrays import Settings, make_engine, make_tiling
from map2map.batches import Batches
from map2map.emulator import Emulator
from map2map.errors import GeometryError
from map2map.files import replacing
from map2map.metrics import Pointwise
from map2map.models.conv import narrow_to, resample
from map2map.noise import Place, draws_noise, placed
from map2map.samples import SampleDataset
from map2map.sources import Stored
from map2map.sources.npy import new_array
from map2map.tiling import Tile, overlapping, take
from map2map.typing import Shape
from map2map.windows import Halo, Window, crop_window, pieces, slabs

__all__ = ["assemble", "beside_output", "fit_together", "output_space"]

log = logging.getLogger(__name__)


def fit_together(
    output: Tensor, target: Tensor, dataset: SampleDataset, emulator: Emulator, *, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Cut output and target to the cells that both have.

    Args:
        output: From the network, shape (batch, channel, *space).
        target: From the data, likewise.
        dataset: Where the samples are from.
        emulator: Whose network it is.
        aligned: Whether the halo was computed from the footprint: the output then starts at the
            crop. Otherwise both have the same center; an odd cell is left over on the high side.

    Raises:
        GeometryError: If the output is larger than the target, on the same grid. On a finer one it
            may have to be, because a halo is a whole number of the coarser cells.
    """
    if aligned:
        return output[(slice(None), slice(None), *emulator.footprint.kept(dataset.size))], target
    if emulator.footprint.scale > 1:
        output = narrow_to(
            output, [min(n) for n in zip(output.shape[2:], target.shape[2:], strict=True)]
        )
    have, found = tuple(target.shape[2:]), tuple(output.shape[2:])
    if any(n > m for n, m in zip(found, have, strict=True)):
        raise GeometryError(
            f"the model's output has {found} cells, more than the target's {have}: the halo around "
            f"the input is too large, or that around the target too small; this model cuts off "
            f"{emulator.footprint.cut} cells per side, which `halo: auto` (--in-pad auto) knows"
        )
    starts = [(m - n) // 2 for n, m in zip(found, have, strict=True)]
    inner = (slice(a, a + n) for a, n in zip(starts, found, strict=True))
    return output, target[(slice(None), slice(None), *inner)]


def output_space(emulator: Emulator, dataset: SampleDataset, *, aligned: bool) -> Shape:
    """Cells per axis of a sample's output, as `fit_together` leaves it."""
    footprint = emulator.footprint
    if aligned:
        return tuple(footprint.scale * n for n in dataset.size)
    read = crop_window((0,) * len(dataset.size), dataset.size, dataset.halo).shape
    output = tuple(footprint.scale * n - 2 * footprint.cut for n in read)
    if footprint.scale == 1:
        return output
    return tuple(min(n) for n in zip(output, dataset.target_size, strict=True))


def beside_output(
    x: Tensor, space: Shape, dataset: SampleDataset, emulator: Emulator, *, aligned: bool
) -> Tensor:
    """The input on the cells of the output; linearly interpolated, if those are smaller.

    Args:
        x: Of the network, shape (batch, channel, *space with its halo).
        space: Cells per axis of the output, as `fit_together` leaves it.
        dataset: Where the samples are from.
        emulator: Whose network it is.
        aligned: Whether the halo was computed from the footprint, see `fit_together`.
    """
    scale = emulator.footprint.scale
    if scale != 1:
        x = resample(x, scale, narrow=False)
    low = dataset.halo.low
    starts = [
        scale * low[axis] if aligned else (n - size) // 2
        for axis, (n, size) in enumerate(zip(x.shape[2:], space, strict=True))
    ]
    inner = (slice(a, a + n) for a, n in zip(starts, space, strict=True))
    return x[(slice(None), slice(None), *inner)]


def assemble(
    emulator: Emulator,
    batches: Batches,
    name: Callable[[Path], Path],
    loss: nn.Module,
    *,
    aligned: bool,
) -> dict[str, Any]:
    """Apply an emulator to every crop of a data set, write whole fields, and score them.

    Patches are written in order, later ones over earlier ones; cells that none covers are 0.

    Args:
        emulator: In evaluation mode, on its device.
        batches: The crops, in their natural order.
        name: The file to write, from a target's file.
        loss: Compares normalized outputs and targets of every batch.
        aligned: See `fit_together`.

    Returns:
        The mean loss; the scores of each field over all runs, in physical units; and the files
        written and scores of each run.

    Raises:
        GeometryError: If crops are further apart than outputs are large.
        SaveError: If a file cannot be written.
    """
    dataset = batches.dataset
    if dataset.layouts[0].count > 1 and emulator.footprint.whole is not None:
        log.warning(
            "the result depends on the crops, because every output cell depends on the whole "
            "domain: %s; use one crop per field (no --crop)",
            emulator.footprint.whole,
        )
    runs, losses = dataset.runs, list[float]()
    tiled = aligned and emulator.footprint.whole is None and covers(dataset)
    total = {field: Pointwise() for field in runs.targets.names}
    report = []
    stream = _patches(emulator, batches, loss, losses, aligned=aligned)
    for number, run in enumerate(runs):
        with ExitStack() as stack:
            files, arrays = dict[str, Path](), dict[str, np.memmap[Any, Any]]()
            for field in runs.targets:
                target = run.paths[field.name]
                files[field.name] = name(target)
                temporary = stack.enter_context(replacing(files[field.name]))
                stored = Stored(field.name, dataset.target_grid.shape, field.channels or 1)
                arrays[field.name] = new_array(temporary, stored)
            if tiled:
                _apply(emulator, dataset, number, arrays)
                losses += _losses(emulator, dataset, number, arrays, loss)
            else:
                for _ in range(dataset.layouts[0].count):
                    index, patch = next(stream)
                    _put(arrays, patch, dataset, index, aligned=aligned)
            scores = _score(arrays, dataset, number, total)
            for array in arrays.values():
                array.flush()
        report.append({"files": {key: str(path) for key, path in files.items()}, "fields": scores})
        log.info("wrote %s", ", ".join(str(path) for path in files.values()))
    return {
        "loss": float(np.mean(losses)),
        "fields": {field: scores.result() for field, scores in total.items()},
        "runs": report,
    }


def covers(dataset: SampleDataset) -> bool:
    """Whether the crops leave no cell out."""
    axes = zip(dataset.anchors, dataset.size, dataset.grid.shape, strict=True)
    return all(
        len({(anchor + i) % n for anchor in anchors for i in range(size)}) == n
        for anchors, size, n in axes
    )


def _apply(
    emulator: Emulator,
    dataset: SampleDataset,
    run: int,
    arrays: Mapping[str, NDArray[np.float32]],
) -> None:
    """Fill the arrays of a run tile by tile."""
    settings = Settings(allow_nonfinite=dataset.allow_nonfinite)
    engine = make_engine(emulator, settings, dataset.runs.styles_of(run))
    tiling = make_tiling(engine, emulator, dataset.grid, settings)

    def read(tile: Tile) -> NDArray[np.float32]:
        values = np.empty((dataset.runs.inputs.channels, *tile.read.shape), np.float32)
        for name, channels in dataset.runs.inputs.slices.items():
            source, variable = dataset.runs.source(name, run)
            source.read(variable, tile.read, values[channels], tiling.grid)
        return values

    def write(tile: Tile, values: NDArray[Any]) -> None:
        for name, channels in emulator.targets.slices.items():
            arrays[name][(slice(None), *tile.target.slices)] = values[channels]

    overlapping((tiling[i] for i in range(len(tiling))), read, engine, write)


@torch.no_grad()
def _losses(
    emulator: Emulator,
    dataset: SampleDataset,
    run: int,
    arrays: Mapping[str, NDArray[np.float32]],
    loss: nn.Module,
) -> Iterator[float]:
    """The loss of every crop, of normalized values."""
    factor = dataset.scale_factor
    device = next(emulator.parameters(), torch.empty(0)).device
    for index in range(run * dataset.layouts[0].count, (run + 1) * dataset.layouts[0].count):
        start, size = (tuple(factor * n for n in m) for m in (dataset.anchor(index), dataset.size))
        window = crop_window(start, size, Halo.parse(0, len(size)))
        sides = np.empty((2, dataset.runs.targets.channels, *window.shape), np.float32)
        for name, channels in dataset.runs.targets.slices.items():
            take(arrays[name], window, dataset.target_grid, sides[0, channels])
            source, variable = dataset.runs.source(name, run)
            source.read(variable, window, sides[1, channels], dataset.target_grid)
        style = None
        if len(emulator.styles):
            style = torch.from_numpy(dataset.styles(index)).to(device).expand(2, -1)
        normal = emulator.encode_target(torch.from_numpy(sides).to(device), style)
        value = float(loss(normal[:1], normal[1:]))
        log.info("sample %d loss: %g", index, value)
        yield value


def _patches(
    emulator: Emulator, batches: Batches, loss: nn.Module, losses: list[float], *, aligned: bool
) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    """Outputs in physical units, by field, of one crop after another."""
    device = next(emulator.parameters(), torch.empty(0)).device
    slices = emulator.targets.slices
    for number, batch in enumerate(batches):
        with torch.no_grad():
            x, y = batch.to(device).settle()
            style = batch.styles()
            more = emulator.style_arguments(style, x.dtype)
            arguments = (emulator.encode_input(x, style), *more)
            output = drawn_in_place(emulator, arguments, batch.indices, batches)
            shape = list(output.shape)
            output, y = fit_together(output, y, batches.dataset, emulator, aligned=aligned)
            losses.append(float(loss(output, emulator.encode_target(y, style))))
            physical = emulator.decode_target(output, style).float().cpu().numpy()
        if number < 5:
            log.info("##### sample : %d", number)
            log.info("input shape : %s", list(x.shape))
            log.info("output shape : %s", shape)
            log.info("target shape : %s", list(y.shape))
        log.info("sample %d loss: %g", number, losses[-1])
        for index, values in zip(batch.indices, physical, strict=True):
            yield index, {field: values[channels] for field, channels in slices.items()}


def drawn_in_place(
    emulator: Emulator, arguments: Sequence[Tensor], indices: Sequence[int], batches: Batches
) -> Tensor:
    """Outputs of crops; what the network draws at random belongs to cells, as in tiles."""
    if not draws_noise(emulator.model):
        return torch.as_tensor(emulator.model(*arguments))
    dataset, outputs = batches.dataset, []
    for index, *sample in zip(indices, *arguments, strict=True):
        start = crop_window(dataset.anchor(index), dataset.size, dataset.halo).start
        with placed(emulator.model, Place.within(dataset.grid, start)):
            outputs.append(emulator.model(*(part[None] for part in sample)))
    return torch.cat(outputs)


def _put(
    arrays: Mapping[str, NDArray[np.float32]],
    patches: dict[str, NDArray[np.float32]],
    dataset: SampleDataset,
    index: int,
    *,
    aligned: bool,
) -> None:
    """Write the patches of one crop where they belong, around periodic edges."""
    factor, halo = dataset.scale_factor, dataset.target_halo
    anchor = tuple(factor * a for a in dataset.anchor(index))
    crop = tuple(factor * n for n in dataset.size)
    window = crop_window(anchor, crop, Halo.parse(0, len(crop)) if aligned else halo)
    for field, patch in patches.items():
        size = patch.shape[1:]
        steps = ({b - a for a, b in pairwise(axis)} for axis in dataset.anchors)
        if any(abs(s) * factor > n for each, n in zip(steps, size, strict=True) for s in each):
            raise GeometryError(
                f"the outputs have {size} cells, too few to tile the field with crops that are "
                f"further apart; use a crop step of at most that, or a halo that keeps the crop "
                f"whole (--in-pad auto)"
            )
        low = [(n - m) // 2 for n, m in zip(window.shape, size, strict=True)]
        start = tuple(a + d for a, d in zip(window.start, low, strict=True))
        there = Window(start, tuple(a + n for a, n in zip(start, size, strict=True)))
        for piece in pieces(there, dataset.target_grid):
            arrays[field][(slice(None), *piece.source)] = patch[(slice(None), *piece.target)]


def _score(
    arrays: Mapping[str, NDArray[np.float32]],
    dataset: SampleDataset,
    run: int,
    total: dict[str, Pointwise],
) -> dict[str, dict[str, float]]:
    """Compare whole fields with the truth, a slab at a time."""
    scores = {}
    for field, array in arrays.items():
        mine = Pointwise()
        source, variable = dataset.runs.source(field, run)
        for slab in slabs(array.shape[1:], len(array)):
            truth = np.empty((len(array), *slab.shape), np.float32)
            source.read(variable, slab, truth, dataset.target_grid)
            inside = array[:, slab.start[0] : slab.stop[0]]
            mine.add(inside, truth)
            total[field].add(inside, truth)
        scores[field] = mine.result()
    return scores
