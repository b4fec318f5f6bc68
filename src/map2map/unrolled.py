"""Training over several steps in time: the network is applied to what it gives, as in a rollout."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from map2map.batches import Batch
from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.feeds import (
    check_feed,
    check_kept,
    feed_of,
    later_field,
    one_step,
    told_as_steps,
    with_variable,
)
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Grid
from map2map.patterns import Files
from map2map.runs import Runs
from map2map.training import Step, Training, check_known
from map2map.typing import Shape
from map2map.windows import Halo

if TYPE_CHECKING:
    from map2map.task import Task

__all__ = ["Unrolled"]


@dataclass(frozen=True)
class Repeated(Footprint):
    """The footprint of a network that is applied so many times, without edges in between."""

    steps: int = field(default=1, kw_only=True)

    def halo_for(self, crop: Shape) -> Halo:
        """What all steps together read around a crop."""
        own = super().halo_for
        low, high = [0] * len(crop), [0] * len(crop)
        for _ in range(self.steps):
            size = tuple(a + n + b for a, n, b in zip(low, crop, high, strict=True))
            one = own(size)
            low = [a + b for a, b in zip(low, one.low, strict=True)]
            high = [a + b for a, b in zip(high, one.high, strict=True)]
        return Halo(tuple(low), tuple(high))


class Unrolled(Training):
    """The loss is a weighted mean over steps, each from what the step before gave.

    Outputs become inputs as in `m2m rollout`: a target that is a later frame of an input becomes
    it, and earlier frames move on. What is true later is read from the same files, so frames that
    have no such truth are left out. Inputs without time, such as masks, stay as they are.

    Crops are read with a halo for all steps. If the crop is the whole field, its halo is made
    anew after every step, by what `domain` says of the edges.

    Args:
        steps: How many; validation takes all of them.
        pushforward: Whether the gradient of a step's loss flows through this step alone, as if
            what it started from were data (Brandstetter et al. 2022, arXiv:2202.03376); takes the
            memory of one step.
        weights: Of the losses of the steps; by default all count alike. [0, 0, 1] with
            ``pushforward`` learns the last step from what the first two gave.
        noise: Deviation of normal numbers that are added to the normalized inputs that outputs
            become, in training, before the first step: what a rollout does to them later.
        grow: Epochs of training after which there is one step more, beginning with one; 0: all
            from the first.
    """

    def __init__(
        self,
        steps: int = 2,
        *,
        pushforward: bool = False,
        weights: list[float] | None = None,
        noise: float = 0.0,
        grow: int = 0,
    ) -> None:
        if steps < 1 or grow < 0 or not noise >= 0:
            raise RecipeError(
                f"`steps` is 1 or more, `noise` and `grow` 0 or more, not {steps}, {noise}, {grow}"
            )
        given = [1.0] * steps if weights is None else [float(w) for w in weights]
        if len(given) != steps or any(not w >= 0 for w in given) or not any(given):
            raise RecipeError(
                f"`weights` has one number of 0 or more for each of {steps} steps, not all 0, but "
                f"is {weights}"
            )
        if grow and not given[0]:
            raise RecipeError(
                "`grow` begins with one step, whose weight is 0, so that nothing would be learnt"
            )
        self.steps, self.pushforward, self.noise, self.grow = steps, pushforward, noise, grow
        self.weights = given
        self._feed: dict[str, str] = {}
        self._whole: Grid | None = None
        self._ready = False

    # --- before training -------------------------------------------------------------------

    def footprint(self, own: Footprint) -> Footprint:
        """The network's, applied so many times, unless crops are whole fields."""
        if not self._ready or self._whole is not None:
            return own
        known = {entry.name: getattr(own, entry.name) for entry in fields(Footprint)}
        return Repeated(**known, steps=self.steps)

    def check_loss(self, loss: nn.Module) -> None:
        """Refuse losses of several draws.

        Raises:
            RecipeError: If it is one.
        """
        if getattr(loss, "members", 1) > 1:
            raise RecipeError(
                f"the loss {type(loss).__name__} compares several draws of a network, but in "
                f"unrolled training (Unrolled) steps go on from one; take another loss, or leave "
                f"model.training out"
            )

    def begin(self, task: "Task", data: Any) -> None:
        """Find what feeds what, and the truths of later steps.

        Raises:
            FieldError: If nothing does, or it is not known later.
            RecipeError: If crops, edges or fields are such that steps cannot follow one another.
        """
        emulator = task.built
        check_known(data, "the next of several steps (model.training) starts from all of them")
        learnt = files_of(data.patterns["train"])
        if emulator.targets.of_run or emulator.footprint.scale > 1 or data.reading.cells:
            raise RecipeError(
                "steps follow one another only where outputs are fields on the grid of the "
                "inputs, read crop by crop; leave out model.training, or a scale factor, labels, "
                "parameters and data.reading.cells"
            )
        for name in (*emulator.inputs.names, *emulator.targets.names):
            needs = emulator.norm(name).needs
            if needs:
                raise RecipeError(
                    f"the norm of {name!r} depends on the styles {', '.join(needs)}, with which "
                    f"outputs do not become inputs from step to step; give it numbers"
                )
        self._feed = feed_of(emulator, learnt)
        check_feed(emulator, self._feed)
        step = one_step(
            {k: v for k, v in self._feed.items() if k in emulator.targets.names}, learnt
        )
        check_kept(data.runs["train"], data.patterns["train"], self._feed)
        whole = data.split and later_runs(task, data, data.patterns["train"], step, self.steps)
        parts = whole.split(data.split) if whole else {}
        for split in [split for split in data.runs if split != "test"]:
            made = parts.get(split)
            data.runs[split] = made or later_runs(
                task, data, data.patterns[split], step, self.steps
            )
        self._settle(data)
        self._ready = True
        data.resolve(self.footprint(emulator.footprint))

    def _settle(self, data: Any) -> None:
        """Whether crops are whole fields; what else is not possible."""
        dataset = data.dataset("train")
        grid = dataset.grid
        if not data.aligned:
            raise RecipeError("unrolled training computes the halo: data.crops.halo: auto")
        every = [data.dataset(split) for split in data.runs if split != "test"]
        if all(d.size == layout.grid.shape for d in every for layout in d.layouts):
            self._whole = grid
            halo = any((*dataset.halo.low, *dataset.halo.high))
            if halo and {"refuse", "model"} & set(grid.beyond):
                raise GeometryError(
                    f"the network needs a halo, but beyond the edges there is nothing to make it "
                    f"of in later steps (data.domain.pad: {grid.pad}); use another pad, or crops "
                    f"smaller than the fields"
                )
            if halo and dataset.symmetries.permute and len(set(grid.beyond)) > 1:
                raise GeometryError(
                    "axes are exchanged, of which some are periodic and others not, so that it is "
                    "not known which; leave augment.symmetries out, or flip only"
                )
        elif set(grid.beyond) - {"periodic", "refuse"} and self.steps > 1:
            raise GeometryError(
                f"what is made up beyond the edges ({grid.pad}) is made up anew after each step, "
                f"for which crops must be whole fields; leave data.crops.size out, or use "
                f"data.domain.pad: refuse"
            )

    # --- steps -----------------------------------------------------------------------------

    def step(self, task: "Task", batch: Batch) -> Step:
        """A training step."""
        steps = self.steps
        if self.grow:
            steps = min(steps, 1 + task.current_epoch // self.grow)
        return self._unroll(task, batch, steps, noise=self.noise)

    def validate(self, task: "Task", batch: Batch) -> Step:
        """The same over all steps, without noise."""
        return self._unroll(task, batch, self.steps, noise=0.0)

    def _unroll(self, task: "Task", batch: Batch, steps: int, noise: float) -> Step:
        emulator = task.built
        read, truths = task.encoded(batch, steps)
        read = read.clone()  # of which x is a part, that noise is added to
        x = self._narrowed(task.built.footprint, batch, read, steps)
        if noise:
            for name in self._feed.values():
                channels = emulator.inputs.slices[name]
                x[:, channels] += noise * self._drawn(x[:, channels], batch.dataset.halo)
        weights = self.weights[:steps]
        losses: list[Tensor] = []
        first: tuple[Tensor, Tensor] | None = None
        told: dict[str, Tensor | float] = {}
        for k, y in enumerate(truths):
            # what follows needs the gradient, too, unless it is cut off
            needed = bool(weights[k]) if self.pushforward else any(weights[k:])
            with nullcontext() if needed else torch.no_grad():
                output, cropped = self._apply(task, batch, x, steps - 1 - k)
                cropped = cropped.to(y.dtype)
                losses.append(task.compared(task.loss, cropped, y, batch))
            for name, value in getattr(task.loss, "told", {}).items():
                told[name] = told.get(name, 0.0) + weights[k] / sum(weights) * value
            first = first or (cropped, y)
            if k + 1 < steps:
                x = self._next(emulator, batch, x, output)
                x = x.detach() if self.pushforward else x
        loss = torch.stack([w * part for w, part in zip(weights, losses, strict=True) if w]).sum()
        parts = {f"step_{k + 1}": part.detach() for k, part in enumerate(losses)}
        assert first is not None
        return Step(loss / sum(weights), read, *first, parts=parts, terms=told)

    def _drawn(self, like: Tensor, halo: Halo) -> Tensor:
        """Normal numbers for inputs; those beyond the edges of whole fields are made of theirs."""
        if self._whole is None:
            return torch.randn_like(like)
        space = [
            n - low - high for n, low, high in zip(like.shape[2:], halo.low, halo.high, strict=True)
        ]
        return surrounded(torch.randn_like(cut(like, halo.low, space)), halo, self._whole)

    def _narrowed(self, footprint: Footprint, batch: Batch, x: Tensor, steps: int) -> Tensor:
        """Inputs without the halo of the steps that are not taken."""
        if self._whole is not None or steps == self.steps:
            return x
        size = batch.dataset.size
        halo = replace(self.footprint(footprint), steps=steps).halo_for(size)  # type: ignore[call-arg]
        low = (self.steps - steps) * footprint.low
        return cut(x, low, sum_of(halo.low, size, halo.high))

    def _apply(self, task: "Task", batch: Batch, x: Tensor, left: int) -> tuple[Tensor, Tensor]:
        """The output that later steps need, and the crop of it."""
        footprint, size = task.built.footprint, batch.dataset.size
        output = task.network(task.as_taken(x))
        if self._whole is not None:
            output = output[(slice(None), slice(None), *footprint.kept(size))]
            return output, output
        halo = replace(self.footprint(footprint), steps=left).halo_for(size)  # type: ignore[call-arg]
        kept = footprint.kept(sum_of(halo.low, size, halo.high))
        output = output[(slice(None), slice(None), *kept)]
        return output, cut(output, halo.low, size)

    def _next(self, emulator: Emulator, batch: Batch, x: Tensor, output: Tensor) -> Tensor:
        """Normalized inputs of the next step."""
        inputs, targets, grid = emulator.inputs, emulator.targets, self._whole
        sources = {name: source for source, name in self._feed.items()}
        space = tuple(output.shape[2:])
        # in whole fields what is kept keeps its halo
        inner = cut(x, emulator.footprint.low, space) if grid is None else x
        parts = []
        for name, channels in inputs.slices.items():
            source = sources.get(name)
            if source is None:
                part = inner[:, channels]
            elif source in targets.names:
                made = output[:, targets.slices[source]]
                part = emulator.norm(source).inverse(made)
                if grid is not None:
                    part = surrounded(part, batch.dataset.halo, grid)
                part = emulator.norm(name)(part)
            else:
                before = emulator.norm(source).inverse(inner[:, inputs.slices[source]])
                part = emulator.norm(name)(before)
            parts.append(part.to(x.dtype))
        return torch.cat(parts, dim=1)


def files_of(patterns: Mapping[str, Any]) -> dict[str, Files]:
    """Where the files of fields are, of those that have any."""
    return {
        name: entry if isinstance(entry, Files) else Files(entry)
        for name, entry in patterns.items()
        if isinstance(entry, str | list | Files)
    }


def later_runs(
    task: "Task", data: Any, patterns: Mapping[str, Any], step: str | int, steps: int
) -> Runs:
    """Runs with the truths of all steps behind the targets, ``TARGET+1``, … one after another."""
    places, targets = dict(patterns), list[Field](task.targets)
    wanted = task.built.targets.names
    files = {n: with_variable(n, e) for n, e in files_of(patterns).items() if n in wanted}
    for k in range(1, steps):
        for one in task.built.targets:
            if one.name not in files:
                raise FieldError(
                    f"{one.name!r} is in no file of its own, so there is no truth of its later "
                    f"steps; learn fields that are in files"
                )
            target, at = later_field(one, k, files[one.name], step)
            places[target.name] = at
            targets.append(target)
    with told_as_steps(steps, step, "take fewer `steps` in model.training, or more data"):
        how = {"derived": data.derived, "styles": task.styles}
        return Runs(task.inputs, targets, places, data.domain, **how)


def sum_of(*shapes: Sequence[int]) -> Shape:
    """Sizes, axis by axis."""
    return tuple(sum(sizes) for sizes in zip(*shapes, strict=True))


def cut(values: Tensor, low: int | Sequence[int], size: Sequence[int]) -> Tensor:
    """A box of cells that starts so many cells behind the first."""
    starts = [low] * len(size) if isinstance(low, int) else low
    inner = (slice(a, a + n) for a, n in zip(starts, size, strict=True))
    return values[(slice(None), slice(None), *inner)]


def surrounded(values: Tensor, halo: Halo, grid: Grid) -> Tensor:
    """A whole field with the halo that its grid has beyond its edges; see `Grid`."""
    for axis, (low, high, how) in enumerate(zip(halo.low, halo.high, grid.beyond, strict=True)):
        if not low and not high:
            continue
        n = values.shape[2 + axis]
        cells = torch.arange(-low, n + high, device=values.device)
        if how == "periodic":
            index = cells % n
        elif how == "reflect" and n > 1:
            index = cells.remainder(2 * (n - 1))
            index = torch.minimum(index, 2 * (n - 1) - index)
        else:
            index = cells.clamp(0, n - 1)
        values = values.index_select(2 + axis, index)
        if how == "zero":
            there = ((cells >= 0) & (cells < n)).reshape(-1, *(1,) * (values.ndim - 3 - axis))
            values = torch.where(there, values, 0.0)
    return values
