"""The trials of `m2m tune`: trained one after another, and what is left of them."""

import gc
import json
import logging
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch
import yaml

from map2map.checkpoints import Interrupted
from map2map.commands.recipes import find
from map2map.commands.train import RecipeCLI, make
from map2map.commands.tune_recipes import check_values, flags, flat, most_epochs, recipe_of
from map2map.errors import FieldError, M2MError, RecipeError, SaveError, near_names
from map2map.files import replacing
from map2map.memory import keep_freed_memory
from map2map.search_figure import draw_search
from map2map.spaces import Space, State, Trial, short_label, short_names
from map2map.tracking import clock
from map2map.train import train
from map2map.tuning import Search, Study, Watch, best_of, logged_to, open_study, write_table
from map2map.usercode import users_errors

__all__ = ["tune"]

log = logging.getLogger(__name__)

PROG = "m2m tune RECIPE"
ALIKE = 3
"""If so many trials fail alike, and none before did not, it is not for their values."""

ELSEWHERE = ("output", "callback_at", "seed_everything", "trainer.devices", "trainer.num_nodes")
"""Keys that do not vary: they say where and how often, not what."""


def tune(
    recipe: str | Path | dict[str, Any],
    space: Space,
    folder: Path,
    search: Search | None = None,
    *,
    overrides: Sequence[str] = (),
    epochs: int | None = None,
) -> list[Trial]:
    """Search, or go on searching, for the values with which a recipe is best.

    Leaves in the folder ``best.yaml``, ``trials.csv``, ``search.png``, and for each trial its
    recipe ``trial_0001.yaml`` and its training ``trial_0001/``.

    Args:
        recipe: Name, path, or keys and values.
        space: What is varied, from `map2map.spaces.vary` or `map2map.spaces.read_space`.
        folder: Where all goes.
        search: How.
        overrides: More keys and values, as on the command line.
        epochs: How long trials train, if not as the recipe says.

    Returns:
        All trials of the study, also those of earlier calls.

    Raises:
        M2MError: If recipe, space or an earlier study do not fit; or all trials fail.
        Interrupted: If a signal stopped it; the same call goes on.
    """
    search = search or Search()
    with tempfile.TemporaryDirectory() as temporary:
        if isinstance(recipe, dict):
            path = Path(temporary) / "recipe.yaml"
            path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        else:
            path = find(str(recipe))
        keep_freed_memory()
        job = _Job(["--config", str(path), *overrides], space, folder, search, epochs)
        return job.run()


class _Job:
    """A search of one recipe, checked before anything is written."""

    def __init__(
        self, base: list[str], space: Space, folder: Path, search: Search, epochs: int | None
    ) -> None:
        self.base, self.folder, self.search = base, folder, search
        # a class before its arguments; and one order, whatever that of the command
        self.space = dict(sorted(space.items(), key=lambda item: (item[0].count("."), item[0])))
        self.short = short_names(list(self.space))
        cli = make(base, PROG)
        self.quick: list[str] = []
        if cli.config["trainer"]["devices"] == "auto":
            self.quick += ["--trainer.devices=1"]
        if epochs is not None:
            self.quick += [f"--trainer.max_epochs={epochs}"]
        cli = make([*base, *self.quick], PROG)
        self.recipe = recipe_of(cli)
        self.epochs = most_epochs(cli, space)
        self._check(cli, epochs)

    # --- checks ----------------------------------------------------------------------------

    def _check(self, cli: RecipeCLI, epochs: int | None) -> None:
        if not self.space:
            raise RecipeError(
                "what is to be varied? give --vary KEY=WHAT for each key of the recipe, such as "
                "--vary model.optimizer.init_args.lr=float:1e-5:1e-1:log, or --space FILE.yaml"
            )
        if epochs is not None and (epochs < 1 or "trainer.max_epochs" in self.space):
            why = "at least 1" if epochs < 1 else "left out, as trainer.max_epochs is varied"
            raise RecipeError(f"--epochs is {epochs}; it must be {why}")
        if cli.trainer.world_size > 1:
            raise RecipeError(
                f"a trial trains in one process, but the recipe asks for {cli.trainer.world_size}; "
                f"give --trainer.devices 1 --trainer.num_nodes 1"
            )
        how = cli.datamodule.split
        if "val" not in cli.datamodule.patterns and not (how and how.ratios[1]):
            raise RecipeError(
                "a search compares scores of the validation split, but the recipe has none; "
                "give its files (data.val), or data.split"
            )
        measures = list(cli.model.measures)
        if self.search.by not in ("loss", *measures):
            raise RecipeError(
                f"--by is {self.search.by!r}, which trainings of this recipe do not tell"
                f"{near_names(self.search.by, ['loss', *measures])}; "
                f"others are told by model.options.measures"
            )
        for key in self.space:
            if any(key == name or key.startswith(f"{name}.") for name in ELSEWHERE):
                raise RecipeError(f"{key} cannot be varied: it changes not what is learnt")
        # reading a recipe takes time, and what was begun has been checked
        if not (self.folder / "study.db").exists():
            keys = list(flat(recipe_of(cli, nulls=True)))
            runs = cli.datamodule.open(cli.model.inputs, cli.model.targets)
            check_values([*self.base, *self.quick], self.space, keys, runs)

    def _asked(self) -> dict[str, Any]:
        """What makes it another search."""
        learnt = flat({k: v for k, v in self.recipe.items() if k != "output"})
        where = ("trainer.accelerator", "trainer.devices", "trainer.enable_progress_bar")
        asked = {key: value for key, value in learnt.items() if key not in where}
        asked |= {f"--vary {key}": str(what) for key, what in self.space.items()}
        for name in ("seed", "by", "maximize", "pruner", "startup"):
            asked[f"--{name}"] = getattr(self.search, name)
        known: dict[str, Any] = json.loads(json.dumps(asked, default=str))
        return known

    # --- trials ----------------------------------------------------------------------------

    def run(self) -> list[Trial]:
        """All trials that remain."""
        search = self.search
        with open_study(self.folder, self.space, search, self._asked(), self.epochs) as study:
            start = time.perf_counter()
            before = len(study.trials())
            if before:
                log.info("going on after %d trials in %s", before, self.folder)
            try:
                while (done := len(study.trials())) < search.trials:
                    if study.all_tried():
                        log.info("all %d combinations of the values have been tried", done)
                        break
                    spent = time.perf_counter() - start
                    if search.timeout is not None and spent > search.timeout:
                        log.info("%s are over after %d trials", clock(search.timeout), done)
                        break
                    self._one(study)
                    trials = study.trials()
                    self._forget(trials)
                    write_table(self.folder / "trials.csv", trials, self.space)
                    spent = (time.perf_counter() - start) / (len(trials) - before)
                    self._tell(trials, spent)
                    self._refuse_to_fail_on(trials[before:])
            finally:
                trials = study.trials()
                best = best_of(trials, search)
                self._summarize(trials, best)
        if best is None:
            raise RecipeError(
                f"none of {len(trials)} trials was completed; see {self.folder / 'trials.csv'}"
            )
        log.info(
            "best: trial %d, %s %.6g; its recipe is %s",
            best.number, search.by, best.score, self.folder / "best.yaml",
        )  # fmt: skip
        return trials

    def _one(self, study: Study) -> None:
        trial, number, values = study.ask()
        watch, start = Watch(trial, self.search), time.perf_counter()
        folder = self._place(number)
        state: State = "failed"
        message = ""
        with logged_to(folder / "log.txt"), _interrupts():
            try:
                self._train(folder, values, watch)
                state = "pruned" if watch.pruned else "completed"
                if watch.best() is None:
                    raise FieldError(f"{self.search.by} is no number after any epoch")
            except (SaveError, Interrupted):
                raise
            except Exception as error:
                state, message = "failed", one_line(error)
                log.info("%s", traceback.format_exc())
        # a model that is too big for the memory must not stay in it
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        score, epoch = watch.best() or (None, None)
        seconds = time.perf_counter() - start
        epochs = watch.before + len(watch.scores)
        study.tell(trial, Trial(number, state, values, score, epoch, epochs, seconds, message))

    def _place(self, number: int) -> Path:
        return self.folder / f"trial_{number:04}"

    def _train(self, folder: Path, values: Mapping[str, Any], watch: Watch) -> None:
        where = [f"--output.folder={folder}"]
        cli = make([*self.base, *self.quick, *flags(values), *where], PROG)
        recipe = recipe_of(cli)
        text = yaml.safe_dump(recipe, sort_keys=False)
        path = folder.with_suffix(".yaml")
        if path.exists() and path.read_text() != text:
            # what was interrupted there was another training
            _without_states(folder)
        _write(path, text)
        cli.trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        try:
            with users_errors():
                train(cli.model, cli.datamodule, cli.trainer, cli.output, {"recipe": recipe})
        finally:
            watch.take_up(cli.model)
            # JSON knows no NaN, which epochs without validation have
            told = {
                key: [value if isfinite(value) else None for value in values]
                for key, values in cli.model.history.items()
            }
            _write(folder / "scores.json", json.dumps(told))

    def _forget(self, trials: Sequence[Trial]) -> None:
        if self.search.keep == "best":
            best = best_of(trials, self.search)
            for trial in trials:
                if trial is not best:
                    _without_states(self._place(trial.number))

    def _refuse_to_fail_on(self, trials: Sequence[Trial]) -> None:
        messages = {trial.message for trial in trials}
        if len(trials) == ALIKE and len(messages) == 1 and "" not in messages:
            raise RecipeError(f"the first {ALIKE} trials have failed alike: {messages.pop()}")

    # --- what is told ----------------------------------------------------------------------

    def _tell(self, trials: Sequence[Trial], each: float) -> None:
        trial, best = trials[-1], best_of(trials, self.search)
        said = {
            "completed": f"{self.search.by} {trial.score or 0:.6g} (epoch {trial.epoch})",
            "pruned": f"pruned after epoch {trial.epochs} at {trial.score or 0:.6g}",
            "failed": f"failed: {trial.message}",
        }[trial.state]
        values = ", ".join(f"{self.short[k]} {short_label(v)}" for k, v in trial.values.items())
        record = "none yet" if best is None else f"{best.score:.6g} by trial {best.number}"
        left = clock((self.search.trials - len(trials)) * each)
        log.info(
            "trial %d of %d: %s; %s; best %s; %s left",
            trial.number, self.search.trials, said, values, record, left,
        )  # fmt: skip

    def _summarize(self, trials: Sequence[Trial], best: Trial | None) -> None:
        if not trials:
            return
        write_table(self.folder / "trials.csv", trials, self.space)
        if best is not None:
            # with the epochs and the folder that the recipe itself says
            recipe = recipe_of(make([*self.base, *flags(best.values)], PROG))
            head = (
                f"# The best of {len(trials)} trials, number {best.number}: "
                f"{self.search.by} {best.score:.6g} after epoch {best.epoch}.\n"
            )
            _write(self.folder / "best.yaml", head + yaml.safe_dump(recipe, sort_keys=False))
        by = f"{self.search.by} (validation)"
        figure = draw_search(trials, self.space, by, maximize=self.search.maximize)
        with replacing(self.folder / "search.png") as temporary:
            figure.savefig(temporary, dpi=150, format="png")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def _without_states(folder: Path) -> None:
    """Remove what is big: states and the emulator; scores and logs stay."""
    for path in (*folder.glob("*.pt"), *folder.glob("*.safetensors")):
        path.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split("\n")[0].split())[:300]
    return text if isinstance(error, M2MError) else f"{type(error).__name__}: {text}"


@contextmanager
def _interrupts() -> Iterator[None]:
    """Lightning turns Ctrl-C into an exit, and listens to it no more; here it stays what it is."""
    former = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leave:
        if isinstance(leave.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        try:
            signal.signal(signal.SIGINT, former)
        except ValueError:  # only the main thread may
            log.debug("not in the main thread")
