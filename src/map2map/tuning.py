"""Tuning: a search's trials, drawn by Optuna, judged after every epoch and kept in a file.

Trial k is drawn with a generator of its own, keyed by (seed, k), and from the scores of those
before it; so a search that was broken off and gone on with is the search that was not.
"""

import csv
import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import numpy as np

from map2map.errors import ArtefactError, RecipeError, SaveError
from map2map.files import replacing
from map2map.points import count_of, number_of, untried
from map2map.spaces import Choice, Range, Space, Trial, label
from map2map.task import Task

if TYPE_CHECKING:
    import optuna

__all__ = ["Search", "Study", "Watch", "best_of", "logged_to", "open_study", "write_table"]

OUTCOME = "outcome"
"""The attribute of Optuna's trial that holds ours; a trial without was interrupted."""


@dataclass(frozen=True)
class Search:
    """How a search goes.

    Args:
        trials: How many in all, with those of earlier calls.
        timeout: Start none once so much time has passed in this call [s].
        seed: Of what is drawn.
        by: What is compared: "loss", or a measure of the recipe, of the validation split.
        maximize: Whether more of it is better.
        pruner: What ends trials early: "median", if their best is worse than the median of those
            before after as many epochs; "hyperband"; "none".
        startup: The median pruner ends none before so many are completed.
        keep: Whose states and emulators to keep, "best" or "all".
    """

    trials: int = 20
    timeout: float | None = None
    seed: int = 0
    by: str = "loss"
    maximize: bool = False
    pruner: Literal["median", "hyperband", "none"] = "median"
    startup: int = 5
    keep: Literal["best", "all"] = "best"

    def __post_init__(self) -> None:
        for name, least in {"trials": 1, "seed": 0, "startup": 1}.items():
            if getattr(self, name) < least:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.timeout is not None and not self.timeout > 0:
            raise RecipeError(f"timeout is {self.timeout} s; it must be positive")
        allowed = {"pruner": ("median", "hyperband", "none"), "keep": ("best", "all")}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; it may be {words}")

    @property
    def key(self) -> str:
        """Where a task's history has what is compared."""
        return "val" if self.by == "loss" else f"{self.by}/val"


class Watch(pl.Callback):
    """Reports the score of every epoch, and ends a trial that the pruner gives up.

    Args:
        trial: Optuna's.
        search: What is compared.
    """

    def __init__(self, trial: "optuna.Trial", search: Search) -> None:
        self.trial, self.search = trial, search
        self.scores: list[float] = []
        self.before, self.pruned = 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; stop after this epoch if it is not worth going on."""
        if not isinstance(pl_module, Task):
            return
        pl_module.close_epoch()
        self.take_up(pl_module)
        done = trainer.current_epoch + 1
        may_end = (trainer.min_epochs or 0) <= done and done != trainer.max_epochs
        scored = bool(self.scores) and bool(np.isfinite(self.scores[-1]))
        if scored and may_end and self.trial.should_prune():
            self.pruned = trainer.should_stop = True

    def take_up(self, task: Task) -> None:
        """Report what was not yet reported, such as the epochs before a trial was resumed."""
        scores = task.history[self.search.key]
        # there may be no validation after the first epochs
        self.before = len(task.history["train"]) - len(scores)
        for i in range(len(self.scores), len(scores)):
            if np.isfinite(scores[i]):  # not an epoch without validation
                self.trial.report(scores[i], self.before + i + 1)
        self.scores = list(scores)

    def best(self) -> tuple[float, int] | None:
        """The best score and its epoch, of those that are numbers."""
        sign = -1 if self.search.maximize else 1
        steps = enumerate(self.scores, self.before + 1)
        found = [(sign * score, epoch) for epoch, score in steps if np.isfinite(score)]
        if not found:
            return None
        score, epoch = min(found)
        return sign * score, epoch


class Study:
    """The trials of a search, in an SQLite file. Made by `open_study`."""

    def __init__(self, study: "optuna.Study", space: Space, search: Search) -> None:
        self._study, self.space, self.search = study, space, search

    def trials(self) -> list[Trial]:
        """Those that have ended, but for interrupted ones."""
        return [
            self._read(trial)
            for trial in self._study.get_trials(deepcopy=False)
            if OUTCOME in trial.user_attrs
        ]

    def _read(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        values = {
            key: self._value(key, trial.params[key]) for key in self.space if key in trial.params
        }
        return Trial(**trial.user_attrs[OUTCOME], values=values)

    def _value(self, key: str, drawn: Any) -> Any:
        what = self.space[key]
        if isinstance(what, Range):
            return drawn
        return next(value for value in what.values if label(value) == drawn)

    def ask(self) -> tuple["optuna.Trial", int, dict[str, Any]]:
        """The next trial: Optuna's, its number and what it has."""
        import optuna

        number = len(self.trials()) + 1
        seed = np.random.SeedSequence([self.search.seed, number]).generate_state(1)[0]
        self._study.sampler = optuna.samplers.TPESampler(seed=int(seed))
        trial, values = self._drawn()
        tried = [done.values for done in self.trials()]
        if count_of(self.space) is not None and values in tried:
            # training the same again tells nothing: another point is tried instead
            rng = np.random.default_rng([self.search.seed, number])
            point = untried(self.space, tried, rng)
            if point is not None:
                _close(self._study, trial.number, None)
                self._study.enqueue_trial(
                    {
                        key: label(point[key]) if isinstance(what, Choice) else point[key]
                        for key, what in self.space.items()
                    }
                )
                trial, values = self._drawn()
        return trial, number, values

    def _drawn(self) -> tuple["optuna.Trial", dict[str, Any]]:
        trial = self._study.ask()
        drawn = {key: _draw(trial, key, what) for key, what in self.space.items()}
        return trial, {key: self._value(key, value) for key, value in drawn.items()}

    def all_tried(self) -> bool:
        """Whether the space has finitely many points, and all were tried."""
        count = count_of(self.space)
        if count is None:
            return False
        return len({number_of(self.space, done.values) for done in self.trials()}) == count

    def tell(self, trial: "optuna.Trial", done: Trial) -> None:
        """Keep what came of a trial."""
        outcome = asdict(done)
        del outcome["values"]
        # at once, so that it is either over or to be done again
        trial.set_user_attr(OUTCOME, outcome)
        _close(self._study, trial.number, outcome)


def _close(study: "optuna.Study", number: int, outcome: Mapping[str, Any] | None) -> None:
    """Tell Optuna that a trial is over; one without outcome was interrupted."""
    from optuna.trial import TrialState

    states = {
        "completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
    }  # fmt: skip
    state = TrialState.FAIL if outcome is None else states[outcome["state"]]
    value = outcome["score"] if outcome and state is TrialState.COMPLETE else None
    study.tell(number, value, state=state)


def _draw(trial: "optuna.Trial", key: str, what: Range | Choice) -> Any:
    if isinstance(what, Choice):
        return trial.suggest_categorical(key, [label(value) for value in what.values])
    if what.whole:
        low, high, step = int(what.low), int(what.high), int(what.step or 1)
        return trial.suggest_int(key, low, high, step=step, log=what.log)
    return trial.suggest_float(key, what.low, what.high, step=what.step, log=what.log)


def best_of(trials: Sequence[Trial], search: Search) -> Trial | None:
    """The best of those that were completed, the first of equals."""
    sign = -1 if search.maximize else 1
    done = [
        (sign * t.score, t.number, t)
        for t in trials
        if t.state == "completed" and t.score is not None
    ]
    return min(done, key=lambda entry: entry[:2])[2] if done else None


@contextmanager
def open_study(
    folder: Path, space: Space, search: Search, asked: Mapping[str, Any], epochs: int | None
) -> Iterator[Study]:
    """The study in ``folder/study.db``, begun or gone on with; nobody else may work on it.

    Args:
        folder: Where the search is.
        space: What is varied.
        search: How.
        asked: What makes a search another one, by the words for it, as JSON knows it.
        epochs: Most epochs of a trial, for the pruner; None if there is no limit.

    Raises:
        RecipeError: If Optuna is missing, or the study is of another search.
        ArtefactError: If the file is no study.
        SaveError: If another process works in the folder.
    """
    try:
        import optuna
        from sqlalchemy import URL
        from sqlalchemy.exc import DatabaseError
    except ImportError as error:
        raise RecipeError(
            f"a search needs Optuna, which cannot be imported ({error}); pip install map2map[tune]"
        ) from error

    path = folder / "study.db"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if not path.exists() and any(folder.glob("trial_*")):
        raise RecipeError(f"{folder} has trials, but no study.db; choose another folder (-o)")
    with _alone(folder):
        storage = None
        try:
            url = URL.create("sqlite", database=str(path)).render_as_string()
            storage = optuna.storages.RDBStorage(url)
            study = optuna.create_study(
                study_name="map2map",
                storage=storage,
                direction="maximize" if search.maximize else "minimize",
                pruner=_pruner(search, epochs),
                load_if_exists=True,
            )
            _check_same(study, dict(asked), path)
            for trial in study.get_trials(
                deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)
            ):
                # interrupted; it is drawn again under the same number, and its training goes on
                _close(study, trial.number, trial.user_attrs.get(OUTCOME))
            yield Study(study, space, search)
        except DatabaseError as error:
            raise ArtefactError(
                f"{path} is no study, or cannot be written: {error.orig}; "
                f"choose another folder (-o)"
            ) from error
        finally:
            if storage is not None:
                storage.remove_session()
                storage.engine.dispose()


def _pruner(search: Search, epochs: int | None) -> "optuna.pruners.BasePruner":
    import optuna

    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs or "auto")
    # the first losses say little where the learning rate warms up
    warmup = (epochs or 0) // 10
    return optuna.pruners.MedianPruner(search.startup, n_warmup_steps=warmup)


def _check_same(study: "optuna.Study", asked: dict[str, Any], path: Path) -> None:
    if not study.trials and "asked" not in study.user_attrs:
        study.set_user_attr("asked", asked)
        return
    found = study.user_attrs.get("asked", {})
    differ = [key for key in {**asked, **found} if asked.get(key) != found.get(key)]
    if differ:
        said = "; ".join(
            f"{key} was {label(found.get(key))}, and {label(asked.get(key))} is asked for"
            for key in differ[:3]
        )
        more = f"; and {len(differ) - 3} more" if differ[3:] else ""
        raise RecipeError(
            f"{path} is of another search: {said}{more}; give the same as before, or another "
            f"folder (-o)"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise SaveError(f"cannot write in {folder}: {error}; choose another folder (-o)") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SaveError(
                f"another search works in {folder}; wait for it, or choose another folder (-o)"
            ) from error
        yield


def write_table(path: Path, trials: Sequence[Trial], space: Space) -> None:
    """Write a CSV with a row for each trial."""
    names = ["trial", "state", "score", "epoch", "epochs", "seconds", *space, "message"]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for t in trials:
            values = [label(t.values[key]) if key in t.values else "" for key in space]
            row = [t.number, t.state, t.score, t.epoch, t.epochs, f"{t.seconds:.1f}"]
            writer.writerow([*row, *values, t.message])


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Let what map2map tells go to a file instead."""
    logger = logging.getLogger("map2map")
    former = logger.propagate, logger.level
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.propagate = former[0]
        logger.setLevel(former[1])
        logger.removeHandler(handler)
        handler.close()
