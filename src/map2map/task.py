"""Task: one training step for any emulator and loss. Knows nothing of files."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from map2map.assemble import beside_output, fit_together
from map2map.averages import Average
from map2map.batches import Batch
from map2map.comparing import check_reduced, compared, default_loss, tell_losses
from map2map.emulator import Emulator
from map2map.epochs import SPLITS, Epochs
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.fields import Field
from map2map.grids import Domain
from map2map.mean_line import MeanLine
from map2map.noise import drawing, draws_noise
from map2map.norms import Norm
from map2map.preparation import (
    ModelFactory,
    Options,
    channels_last,
    check_sizes,
    fit_norms,
    make_emulator,
    take_up,
)
from map2map.runs import Runs
from map2map.schedules import OptimizerFactory, Schedule, Scheduler, check_class
from map2map.tallies import FieldTally, Tally
from map2map.together import of_all, share_first, share_of
from map2map.training import ByItself, Ordinary, Step, Training, check_losses

log = logging.getLogger(__name__)

__all__ = ["Schedule", "Task"]


class Task(pl.LightningModule):
    """Learn targets from inputs.

    Args:
        inputs: Fields the network sees.
        targets: Fields it learns.
        model: The network's class and its arguments; channels and axes come from the files.
        norms: Norms by field name; a field without one is left as it is.
        loss: Compares normalized output and target; by default the mean squared error, and of
            labels the cross entropy.
        optimizer: The optimizer's class and its arguments; by default AdamW at 1e-3.
        schedule: How the learning rate changes.
        options: How the network is set up.
        training: How a batch becomes a loss, if not by comparing output and target alone.
        styles: Parameters of a run that the network sees beside its inputs, such as a redshift; by
            default they are standardized.
    """

    def __init__(  # noqa: PLR0913 - the keys of a recipe
        self,
        inputs: list[Field],
        targets: list[Field],
        model: ModelFactory,
        norms: dict[str, Norm] | None = None,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        options: Options | None = None,
        training: Training | None = None,
        styles: list[Field] | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.targets, self.styles = inputs, targets, styles or []
        self.make_model, self.norms = model, norms or {}
        self.loss: nn.Module = loss or default_loss(targets)
        self.make_optimizer = optimizer or torch.optim.AdamW
        self.schedule, self.options = schedule or Schedule(), options or Options()
        self.measures: dict[str, nn.Module] = self.options.measures or {}
        # "way", because Lightning's modules know whether they are `training`
        self.way: Training = training or Ordinary()
        self.emulator: Emulator | None = None
        self.seed = 0  # of what steps draw, and nothing else
        self.scheduler: Scheduler | None = None
        self.epochs = Epochs()
        self.model_arguments: dict[str, Any] | None = None
        self.scheduler_state: dict[str, Any] | None = None
        self._resumed: tuple[dict[str, Any], Path, bool] | None = None
        self.begun_with: dict[str, Any] | None = None  # digest of an emulator
        self.terms: tuple[str, ...] = ()  # of a loss of several, each of which is told, too
        self._closed, self.trained = -1, False
        self.examples: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._style: Tensor | None = None  # physical, of the batch under way
        self.line: MeanLine | None = None
        self.average: Average | None = None
        self._average_state: dict[str, Any] | None = None

    # --- before training -------------------------------------------------------------------

    def build(self, runs: Runs, domain: Domain) -> Emulator:
        """Make the emulator, now that channels and axes are known."""
        self.emulator = make_emulator(
            self.make_model,
            runs,
            self.norms,
            domain,
            self.options,
            self.model_arguments,
            outputs=getattr(self.loss, "outputs", 1),
        )
        tell_losses((self.loss, *self.measures.values()), self.emulator, runs)
        model = self.emulator.model
        if hasattr(model, "learn"):
            self._learns_by_itself(model)
        else:
            self.terms = tuple(getattr(self.loss, "told", {}))
        self.epochs = Epochs((*self.measures, *(f"loss_{name}" for name in self.terms)))
        if self.members > 1 and not draws_noise(model):
            raise RecipeError(
                f"the loss {type(self.loss).__name__} compares {self.members} draws of a network, "
                f"but {type(model).__name__} as it is made draws no random numbers; give it some "
                f"(`noise_chan` of UpsampledUNet), or take another loss"
            )
        network = torch.compile(model) if self.options.compile else model
        # in a tuple, so that its weights are not listed a second time
        self._network: tuple[Callable[..., Tensor]] = (network,)
        if runs.targets.of_run:
            decode = self.emulator.decode_target
            self.epochs.tallies = {split: Tally(runs.targets, decode) for split in SPLITS}
            self.line = MeanLine(runs.targets, runs.inputs.channels)
        elif not self.way.teaches_itself:
            self.epochs.tallies = {"val": FieldTally(runs.targets, self._decoded)}
        return self.emulator

    def _learns_by_itself(self, model: nn.Module) -> None:
        """Let a network learn as it knows to.

        Raises:
            RecipeError: If something was asked for that compares its outputs.
        """
        asked = {
            "training": not isinstance(self.way, Ordinary | ByItself),
            "options.compile": self.options.compile,
            "options.measures": bool(self.measures),
        }
        for key in (key for key, given in asked.items() if given):
            raise RecipeError(
                f"model.{key} is about outputs that are compared with targets, but "
                f"{type(model).__name__} learns in another way; leave it out"
            )
        self.way = ByItself(model)

    def prepare(self, data: Any) -> None:
        """Open the data, make the emulator, check that they fit together; writes nothing.

        Args:
            data: A `map2map.data.FieldData`.
        """
        runs = data.open(self.inputs, self.targets, self.styles)
        emulator = self.build(runs, data.domain)
        mask = data.reading.mask and not emulator.targets.of_run
        check_losses(self.way, self.loss, self.measures, mask=mask)
        if self._resumed is not None:
            take_up(emulator, self._identity(emulator), *self._resumed)
        self._resolve(data)
        self._aligned, self.seed = data.aligned, data.seed or 0
        if not self.way.teaches_itself:
            check_sizes(emulator, data)
        self.way.begin(self, data)
        if self._resumed is not None:
            state, path, strict = self._resumed
            self.way.load(state, path, strict=strict)

    def _resolve(self, data: Any) -> None:
        """Settle what is read around crops: what a step of training sees."""
        footprint = self.way.footprint(self.built.footprint)
        data.resolve(footprint, targets_too=self.way.teaches_itself)

    def setup(self, stage: str) -> None:
        """Fit the norms; share the samples out to the processes there are."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.emulator is None:
            self.prepare(data)
        fit_norms(self.built, data, self.trainer)
        self._resolve(data)
        if "val" not in data.runs:
            self.trainer.limit_val_batches = 0

    def resume(self, state: dict[str, Any], path: Path, *, strict: bool = True) -> None:
        """Start from the weights and norms of a state, ours or map2map's, read from ``path``."""
        self._resumed = state, path, strict
        self.begun_with = state.get("begun_with")

    def _identity(self, emulator: Emulator) -> dict[str, Any]:
        """What must be the same when a state is resumed."""
        names = (*emulator.inputs.names, *emulator.targets.names, *emulator.styles.names)
        return {
            "inputs": [f"{f.name} [{f.units}] ({f.kind})" for f in emulator.inputs],
            "targets": [f"{f.name} [{f.units}] ({f.kind})" for f in emulator.targets],
            "styles": [f"{f.name} [{f.units}]" for f in emulator.styles],
            "norms": [type(emulator.norm(name)).__name__ for name in names],
            "loss": type(self.loss).__name__,
        }

    @property
    def built(self) -> Emulator:
        """The emulator, once the data have told channels and axes."""
        if self.emulator is None:
            raise GeometryError("the task has no emulator yet; `build` makes it from the data")
        return self.emulator

    def finished(self) -> Emulator:
        """The emulator as it is saved after training: with averaged weights, if asked for."""
        if self.average is not None:
            self.average.enter()
        return self.built

    def configure_optimizers(self) -> Optimizer:
        """The optimizer; the scheduler is ours to step, so that resuming is exact."""
        optimizer, self.scheduler = self.schedule.with_optimizer(
            self.make_optimizer,
            self.built.model.parameters(),
            lambda: self.way.network_steps(self, self.trainer.estimated_stepping_batches),
        )
        if self._resumed is not None:
            # all of it has been taken up, and it is as large as the network, thrice
            (state, path, _), self._resumed = self._resumed, None
            check_class(optimizer, state.get("optimizer_class"), path)
        return optimizer

    @property
    def epoch_losses(self) -> dict[str, float]:
        """The losses of the epoch, by split."""
        return self.epochs.losses

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses and measures of every epoch; see `map2map.epochs.Epochs`."""
        return self.epochs.history

    @property
    def members(self) -> int:
        """How many draws of a network that draws random numbers the loss compares."""
        return int(getattr(self.loss, "members", 1))

    # --- steps -----------------------------------------------------------------------------

    def step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, and normalized inputs, outputs and targets, of a batch on the device.

        Labels are smoothed for the loss only: what is measured is how well the true ones are told.
        """
        emulator = self.built
        x, y = self.normalized(batch)
        output = self.network(x, self.members)
        if emulator.targets.of_run:
            check_reduced(output, y, emulator)
        else:
            output, y = fit_together(output, y, batch.dataset, self.built, aligned=self._aligned)
        output = output.to(y.dtype)
        loss = self.compared(self.loss, output, self._smoothed(y, batch), batch)
        return loss, x, output[: len(y)], y

    def network(self, x: Tensor, members: int = 1) -> Tensor:
        """The network's output for normalized inputs, with the styles of the batch under way.

        Args:
            x: Shape (batch, channel, *space).
            members: How many draws of it, one after another along the batch.
        """
        arguments = (x, *self.style_arguments(x.dtype))
        if members > 1:
            arguments = tuple(torch.cat([each] * members) for each in arguments)
        return self._network[0](*arguments)

    def style_arguments(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The normalized styles of the batch under way, (batch, style_chan); none: nothing."""
        return self.built.style_arguments(self._style, dtype)

    def styles_of(self, batch: Batch) -> Tensor | None:
        """Physical styles of a batch, shape (batch, style_chan), which is under way from now on."""
        self._style = batch.styles()
        return self._style

    def normalized(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalized inputs, as the network takes them, and targets, with what was drawn."""
        x, truths = self.encoded(batch)
        return self.as_taken(x), truths[0]

    def encoded(self, batch: Batch, steps: int = 1) -> tuple[Tensor, list[Tensor]]:
        """Normalized inputs, and targets of so many steps, with what was drawn.

        Args:
            batch: Its targets may be those of several steps, one behind another.
            steps: Of how many.
        """
        emulator = self.built
        physical_x, physical_y = batch.settle()
        if self.dtype == torch.float64:  # files are read in single precision
            physical_x, physical_y = physical_x.double(), physical_y.double()
        style = self.styles_of(batch)
        x = emulator.encode_input(physical_x, style)
        each = torch.split(physical_y, emulator.targets.channels, dim=1)[:steps]
        truths = [emulator.encode_target(y, style) for y in each]
        if self.line is not None and self.training and self.current_epoch == 0:
            self.line.add(x, truths[0])
        pairs = [self.varied(x, y, batch) for y in truths]
        x, truths = pairs[0][0], [y for _, y in pairs]
        if batch.dataset.allow_nonfinite:
            x = torch.where(torch.isfinite(x), x, 0.0)
        return x, truths

    def as_taken(self, x: Tensor) -> Tensor:
        """Normalized inputs, as the network takes them."""
        x = x.to(self.dtype)
        if self.options.channels_last:
            x = x.contiguous(memory_format=channels_last(x.ndim - 2))
        return x

    def beside_output(self, x: Tensor, output: Tensor, batch: Batch) -> Tensor:
        """The inputs of a step on the cells of its output, (batch, channel, *space)."""
        space = tuple(output.shape[2:])
        return beside_output(x, space, batch.dataset, self.built, aligned=self._aligned)

    def _decoded(self, y: Tensor) -> Tensor:
        """Physical targets, of the batch of the step before."""
        return self.built.decode_target(y, self._style)

    def varied(self, x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Normalized inputs and targets with what was drawn for them."""
        of_run = self.built.targets.of_run
        add, mul = batch.noise()
        if add is not None:
            x, y = x + _spread(add, x), y if of_run else y + _spread(add, y)
        if mul is not None:
            x, y = x * _spread(mul, x), y if of_run else y * _spread(mul, y)
        factors = batch.factors()
        if factors is not None:
            x = x * _spread(factors[:, None], x)
        return x, y

    def _smoothed(self, y: Tensor, batch: Batch) -> Tensor:
        """Normalized targets as the loss sees them."""
        share = batch.dataset.augment.label_smoothing
        if not share:
            return y
        slices, targets = self.built.targets.slices, self.built.targets
        parts = [
            smoothed(y[:, channels], share) if targets[name].kind == "label" else y[:, channels]
            for name, channels in slices.items()
        ]
        return torch.cat(parts, dim=1)

    def compared(self, compare: nn.Module, output: Tensor, y: Tensor, batch: Batch) -> Tensor:
        """What a loss says of output and target of the batch under way; see `compared`."""
        return compared(compare, output, y, batch, self._style)

    def check_finite(self) -> None:
        """Refuse to go on, and to save, once the loss is not a number.

        Raises:
            FieldError: If it is NaN or infinite.
        """
        if not self.epochs.is_finite():
            raise FieldError(
                "the loss is NaN or infinite, so nothing is saved of this epoch; is a norm given "
                "values that it cannot take (a logarithm of negative ones, say), or is the "
                "learning rate too high?"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """What is lowered; if that is not the loss of the batch, both."""
        number = self.current_epoch, batch_idx
        with drawing(self.device, self.seed, "train", self.global_rank, *number):
            done = self.way.step(self, batch)
        loss, x, output, y = done.loss, done.input, done.output, done.target
        if self.trainer.global_step < 5 and self.trainer.is_global_zero and not self._closed > -1:
            shapes = ", ".join(
                f"{n} {list(t.shape)}"
                for n, t in (("input", x), ("output", output), ("target", y))
                if t is not None
            )
            log.info("batch %d: %s", batch_idx + 1, shapes)
        self._count("train", done, batch)
        self.trained = True
        if batch_idx + 1 == self.trainer.num_training_batches:
            self._keep("train", x, output, y, batch)
        if done.objective is None:
            return loss
        return {"loss": done.objective, "compared": loss.detach()}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """The loss of a batch, added up; labels and parameters as they came out, for callbacks."""
        # the same in all epochs, so that none is the best by luck
        with drawing(self.device, self.seed, "val", self.global_rank, batch_idx):
            done = self.way.validate(self, batch)
        x, output, y = done.input, done.output, done.target
        self._count("val", done, batch)
        if batch_idx + 1 == self.trainer.num_val_batches[0]:
            self._keep("val", x, output, y, batch)
        if output is None or not self.built.targets.of_run:
            return None
        return {"output": output.detach(), "target": y}

    @torch.no_grad()
    def _count(self, split: str, done: Step, batch: Batch) -> None:
        epochs, n = self.epochs, len(batch)
        output, y = done.output, done.target
        epochs.count(split, done.loss, n)
        for name, value in done.parts.items():
            epochs.count_part(f"{name}/{split}", value, n)
        if output is None:
            return
        for name, measure in self.measures.items():
            # of a network that gives uncertainties, too, the numbers themselves
            value = self.compared(measure, output.detach()[:, : y.shape[1]], y, batch)
            epochs.count(f"{name}/{split}", value, n)
        terms: Any = done.terms or getattr(self.loss, "told", {})
        for name in self.terms:
            epochs.count(f"loss_{name}/{split}", torch.as_tensor(terms[name]), n)
        if split in epochs.tallies:
            epochs.tallies[split].add(output, y)

    @torch.no_grad()
    def _keep(self, split: str, x: Tensor, output: Tensor | None, y: Tensor, batch: Batch) -> None:
        """Keep one sample for figures: input, output and target, physical (channel, *space)."""
        if output is None:
            return
        emulator = self.built
        if not emulator.targets.of_run:
            x = self.beside_output(x[:1], output, batch)
        style = None if self._style is None else self._style[:1]
        physical = (
            emulator.decode_input(x[:1].float(), style),
            emulator.decode_target(output[:1].detach().float(), style),
            emulator.decode_target(y[:1].float(), style),
        )
        self.examples[split] = tuple(t[0].cpu() for t in physical)  # type: ignore[assignment]

    def _tell(self, split: str) -> None:
        """Tell callbacks, which look up by name what they monitor."""
        # every process has the same, so that nothing is to be reduced
        for name, value in self.epochs.of(split).items():
            if name == "r2":  # as other tools call it
                self.log(f"{split}_r2", value, logger=False, rank_zero_only=False, sync_dist=False)
            self.log(f"{name}/{split}", value, logger=False, rank_zero_only=False, sync_dist=False)

    def _total(self, counts: Tensor) -> Tensor:
        total: Tensor = self.trainer.strategy.reduce(counts.to(self.device), reduce_op="sum")
        return total

    def on_validation_epoch_end(self) -> None:
        """The validation loss of the epoch."""
        # callbacks may save the state from here on
        if self.average is not None:
            self.average.leave()
        if not self.trainer.sanity_checking and self.epochs.sums["val"][1]:
            self.epochs.close("val", self._total)
            self._tell("val")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Look at the first normalized values: a norm may not take what the files hold."""
        if not self.trained and not batch.dataset.allow_nonfinite:
            emulator, style = self.built, self.styles_of(batch)
            for fields, values in zip(
                (emulator.inputs, emulator.targets), batch.settle(), strict=True
            ):
                for name, channels in fields.slices.items():
                    normal = emulator.encode(name, values[:, channels], style)
                    bad = int((~torch.isfinite(normal)).sum())
                    if bad:
                        low, high = (float(f(values[:, channels])) for f in (torch.min, torch.max))
                        raise FieldError(
                            f"the norm {type(self.built.norm(name)).__name__} of field {name!r} "
                            f"makes {bad} NaN or infinite values of values from {low:g} to "
                            f"{high:g}; use a norm that takes them"
                        )

    def on_train_epoch_start(self) -> None:
        """Forget the numbers of the epoch before."""
        self.epochs.begin()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, and step a scheduler that steps along, before the state may be saved."""
        if optimizer_closure is not None and self.way.withholds_step(self):
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            if self.average is not None:
                self.average.update()
            self.schedule.after_step(self.scheduler)

    def close_epoch(self) -> dict[str, float]:
        """The losses of the epoch; steps the scheduler the first time it is asked."""
        if self._closed == self.current_epoch:
            return self.epoch_losses
        self._closed = self.current_epoch
        self.check_finite()
        self.epochs.close("train", self._total)
        if self.line is not None and self.current_epoch == 0:
            self.line.load({k: self._total(sums) for k, sums in self.line.state().items()})
        self.epochs.record()
        validates = bool(self.trainer.limit_val_batches)
        self.schedule.after_epoch(self.scheduler, self.epoch_losses, validates=validates)
        self.way.end_epoch(self)
        return self.epoch_losses

    def on_train_epoch_end(self) -> None:
        """Close the epoch before its state is saved."""
        self.close_epoch()
        self._tell("train")

    # --- saving ----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what resuming exactly needs, and the weights under map2map's key."""
        emulator = self.built
        checkpoint["model"] = emulator.model.state_dict()
        checkpoint["model_spec"] = emulator.model_spec
        checkpoint["task"] = self._identity(emulator)
        checkpoint["begun_with"] = self.begun_with
        checkpoint["optimizer_class"] = type(self.trainer.optimizers[0]).__name__
        checkpoint["scheduler"] = None if self.scheduler is None else self.scheduler.state_dict()
        line = {} if self.line is None else self.line.state()
        checkpoint["sums"] = of_all(self.epochs.state() | {"line": line})
        checkpoint["history"] = {k: list(v) for k, v in self.epochs.history.items()}
        checkpoint["ema"] = None if self.average is None else self.average.state()
        checkpoint.update(self.way.state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the sums and the scheduler."""
        sums = share_of(self.global_rank, self.trainer.world_size, checkpoint["sums"])
        self.epochs.load(sums)
        if self.line is not None and sums["line"]:
            self.line.load(sums["line"])
        self._average_state = checkpoint.get("ema")
        if self.way.forgets_best:
            checkpoint["min_loss"] = None
        self.epochs.history |= {k: list(v) for k, v in checkpoint["history"].items()}
        self.scheduler_state = checkpoint["scheduler"]

    def on_fit_start(self) -> None:
        """Begin, or go on, to average weights; let the way of training follow to the device."""
        if self.options.ema is not None:
            self.average = Average(self.built.model, self.options.ema)
            if self._average_state is not None:
                self.average.load(self._average_state)
        self.way.start(self)

    def on_validation_epoch_start(self) -> None:
        """Validate what will be saved as the emulator."""
        if self.average is not None:
            # statistics of batches are those of the first process
            share_first(list(self.average.values.values()))
            self.average.enter()

    def on_train_start(self) -> None:
        """Restore the scheduler, which exists only now."""
        if self.scheduler is not None and self.scheduler_state is not None:
            self.scheduler.load_state_dict(self.scheduler_state)


def smoothed(y: Tensor, share: float) -> Tensor:
    """Labels whose true class has the probability 1 - share; the others have equal parts of it."""
    others = max(y.shape[1] - 1, 1)
    return y * (1 - share) + (1 - y) * (share / others)


def _spread(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))
