"""Scores of what was trained: of a weather those of rollouts, of others those of m2m evaluate."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table
from torch import device as torch_device

from map2map.commands.evaluate import main as evaluate
from map2map.commands.evaluate import progress
from map2map.commands.train import make
from map2map.dialects.ai4sim.cases import recipe_of
from map2map.dialects.ai4sim.settings import Settings
from map2map.dialects.ai4sim.stores import Store, dates, hours
from map2map.dialects.ai4sim.trainers import on_this_machine, output_of, trainer_of
from map2map.dialects.ai4sim.weather import files_of_split, weather
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.feeds import feed_of, one_step
from map2map.files import digest, replacing
from map2map.foreign_weights import read_checkpoint
from map2map.lead_scores import later_truths, lead_scores
from map2map.models.pangu import from_pangu_weather
from map2map.patterns import Files, learnt_files
from map2map.runs import Runs
from map2map.scores import attributes, save_scores
from map2map.times import select

__all__ = ["score"]

log = logging.getLogger(__name__)

SIDES = {"validate": "val", "test": "test"}

HEADLINES = {
    "z500": ("geopotential", 500), "t850": ("temperature", 850),
    "t2m": ("2m_temperature", None), "u10": ("10m_u_component_of_wind", None),
}  # fmt: skip
"""What the collection tells of a weather: a variable, and on which level [hPa]."""


def score(told: Settings, side: str, trained: Settings | None = None) -> int:
    """Score an emulator on a split.

    Args:
        told: The settings.
        side: "validate" or "test".
        trained: The settings of the training, if it was just done.

    Raises:
        RecipeError: If there is nothing that was trained.
    """
    made = output_of(trained or told)
    folder = Path(made["folder"])
    path = folder / "emulator.safetensors" if told.checkpoint is None else Path(told.checkpoint)
    if not path.is_file():
        where = "" if told.checkpoint is None else f" (ckpt_path {told.checkpoint})"
        raise RecipeError(
            f"there is nothing to {side}: no {path}{where}. Random weights are not scored; train "
            f"before (m2m ai4sim -c FILE fit), or give --ckpt_path EMULATOR"
        )
    scores = folder / f"{side}_scores.nc"
    if told.model == "PanguModule":
        score_weather(told, side, path, scores)
        return 0
    if path.suffix != ".safetensors":
        raise RecipeError(
            f"ckpt_path {path} is no emulator; make one of a checkpoint of the collection by m2m "
            f"import --from ai4sim {path}"
        )
    emulator = Emulator.load(path)
    if not emulator.training_record.get("recipe"):
        names = (*emulator.inputs.names, *emulator.targets.names)
        raise RecipeError(
            f"{path} was not trained here, so that it knows no {SIDES[side]} split; list the files "
            f"of its fields: m2m evaluate {path} {' '.join(f'{name}=FILES' for name in names)}"
        )
    check_same_data(told, emulator, path)
    # what could not act is refused, as before a training
    on_this_machine(trainer_of(told))
    scores.parent.mkdir(parents=True, exist_ok=True)
    return evaluate([str(path), "--split", SIDES[side], "-o", str(scores), "--overwrite"])


def check_same_data(told: Settings, emulator: Emulator, path: Path) -> None:
    """Refuse to score on a split of other data than settings tell: the card tells its own.

    Raises:
        RecipeError: If they are others.
    """
    record, asked = emulator.training_record["recipe"], recipe_of(told)
    learnt, wanted = learnt_files({"recipe": record}), learnt_files({"recipe": asked})
    ratios = [side["data"].get("split", {}).get("ratios") for side in (record, asked)]
    if learnt != wanted or ratios[0] != ratios[1]:
        raise RecipeError(
            f"{path} was trained on other files or splits than the settings tell, and its splits "
            f"are those of its training; give the settings of the training, or list files: m2m "
            f"evaluate {path} {' '.join(f'{name}=FILES' for name in wanted)}"
        )


def score_weather(told: Settings, side: str, path: Path, output: Path) -> None:
    """Score rollouts from all frames of a split that have the truth of all steps.

    Args:
        told: The settings.
        side: "validate", a step each, or "test", up to ``test_time_step``.
        path: An emulator, or a checkpoint of the collection.
        output: Where scores go; and to JSON beside it.

    Raises:
        RecipeError: If steps do not fit, or training has seen the split.
    """
    store = Store.of(told.of_data)
    emulator = emulator_of(told, store, path, output.parent)
    learnt = learnt_files(emulator.training_record)
    feed = feed_of(emulator, learnt)
    step = hours("train_time_step", told.of_data["train_time_step"])
    if str(one_step(feed, learnt)) != f"{step}h":
        raise RecipeError(
            f"a step of {path} is {one_step(feed, learnt)}, but data.init_args.train_time_step is "
            f"{step} (hours); make it the same"
        )
    steps = 1
    if side == "test":
        steps, rest = divmod(hours("test_time_step", told.of_data["test_time_step"]), step)
        if rest or not steps:
            raise RecipeError(
                f"data.init_args.test_time_step is {told.of_data['test_time_step']} hours, but "
                f"must be a multiple of train_time_step, {step}"
            )
    split = SIDES[side]
    wanted = dates(f"{split}_time", told.of_data[f"{split}_time"])
    if side == "test":
        check_unseen(told, store, emulator)
    runs = starts(emulator, store, feed, steps, f"{step}h", wanted)
    runs.runs = runs.runs[: limited(told, len(runs.runs))]
    emulator = emulator.to(torch_device(device_of(told)))
    with progress() as track:
        scores = lead_scores(
            emulator, runs, feed, steps, track=lambda r, n: track(r, n, "rollouts")
        )
    about = {"emulator": str(path), "step": f"{step}h", "split": split}
    scores = scores.assign_attrs(attributes(scores.attrs | about))
    output.parent.mkdir(parents=True, exist_ok=True)
    save_scores(scores, output)
    found = headlines(scores, store, step)
    with replacing(output.with_suffix(".json")) as temporary:
        told_of = {"all": output.name, "starts": len(runs.runs), **about, "rmse": found}
        temporary.write_text(json.dumps(told_of, indent=2) + "\n")
    show(found, side, len(runs.runs))
    log.info(
        "scores of all variables, levels and leads: %s; m2m rollout adds those of climatology, and "
        "anomaly correlations",
        output,
    )


def emulator_of(told: Settings, store: Store, path: Path, folder: Path) -> Emulator:
    """The emulator of a file, or made of a checkpoint of the collection, and kept in a folder."""
    if path.suffix == ".safetensors":
        return Emulator.load(path)
    weights = from_pangu_weather(read_checkpoint(path).weights)
    # frames of the training need not be there
    made = weather(told, store, alone="test")
    if told.of_model["mean_file"] is None:
        # as it was trained
        fitted = {k: v for k, v in made["model"]["norms"].items() if k in store.masks}
        made["model"]["norms"] = fitted
        log.warning("no mean_file and stddev_file: %s sees values as they are", path)
    alone = {"accelerator": "cpu", "devices": 1, "logger": False}
    output = {"folder": str(folder), "resume": "never"}
    cli = make(
        made | {"seed_everything": told.seed, "trainer": alone, "output": output}, "m2m ai4sim"
    )
    runs = cli.datamodule.open(cli.model.inputs, cli.model.targets)
    emulator: Emulator = cli.model.build(runs, cli.datamodule.domain)
    try:
        emulator.model.load_state_dict(weights)
    except RuntimeError as error:
        raise RecipeError(
            f"the weights of {path} are of another network than model.init_args and the store "
            f"tell: {' '.join(str(error).split())[:400]}"
        ) from error
    made["data"]["train"] = files_of_split(told.of_data, store, "train")
    emulator.training_record = {"recipe": made, "imported": {path.name: digest(path)}}
    kept = folder / f"{path.stem}.safetensors"
    if kept.exists() and Emulator.load(kept).training_record.get("imported") != {
        path.name: digest(path)
    }:
        raise RecipeError(
            f"{path} would be kept as {kept}, which is there already and another emulator; rename "
            f"one of them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    emulator.eval().save(kept)
    log.info("%s as an emulator: %s", path, kept)
    return emulator


def check_unseen(told: Settings, store: Store, emulator: Emulator) -> None:
    """Refuse to test on dates of the training."""
    train = emulator.training_record["recipe"]["data"]["train"]
    given = [(e.get("only") or {}).get("time") for e in train.values() if isinstance(e, dict)]
    only = next(filter(None, given), None)
    # without dates all were seen
    seen = select(store.times, only, strict=False) if only else np.arange(len(store.times))
    wanted = told.of_data["test_time"]
    both = np.intersect1d(seen, store.frames("test_time", wanted))
    if len(both):
        raise RecipeError(
            f"{len(both)} frames of data.init_args.test_time, {wanted}, are of the training, too "
            f"({only}), so that scores would flatter: the first of {store.times[both[0]]}; "
            f"choose other dates"
        )


def starts(
    emulator: Emulator,
    store: Store,
    feed: dict[str, str],
    steps: int,
    step: str,
    wanted: list[str],
) -> Runs:
    """The frames of a split from which rollouts start, with the truth of all their steps."""
    patterns: dict[str, Any] = {
        name: Files(**entry) if isinstance(entry, dict) else Files(str(entry))
        for name, entry in store.inputs(wanted).items()
    }
    other = [name for name in emulator.inputs.names if name not in patterns]
    if other or len(patterns) > len(emulator.inputs.names):
        raise RecipeError(
            f"the emulator takes {', '.join(emulator.inputs.names)}, but the settings have "
            f"{', '.join(patterns)}; make surface_variables, plevel_variables and "
            f"constant_mask_list those of the training"
        )
    return later_truths(emulator, patterns, feed, steps, step, within=True)


def limited(told: Settings, count: int) -> int:
    """How many rollouts ``limit_test_batches`` allows: batches, or a share of them."""
    limit = told.trainer.get("limit_test_batches")
    if limit is None:
        return count
    if isinstance(limit, float) and 0 < limit <= 1:
        return max(1, math.floor(limit * count))
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return min(count, limit * int(told.of_data["batch_size"]))
    raise RecipeError(
        f"trainer.limit_test_batches is {limit!r}, but must be batches, 1 or more, or a share of "
        f"them, 0.0 to 1.0"
    )


def device_of(told: Settings) -> str:
    """Where rollouts run: the first of the trainer's devices."""
    import torch

    trainer = on_this_machine(trainer_of(told))
    gpu = trainer.get("accelerator", "auto") in ("gpu", "cuda", "auto")
    devices = trainer.get("devices")
    if not (gpu and torch.cuda.is_available()):
        return "cpu"
    return f"cuda:{devices[0]}" if isinstance(devices, list) and devices else "cuda"


def headlines(
    scores: xr.Dataset, store: Store, step: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The RMSE weighted by latitude of what the collection tells, by lead and method.

    >>> # {"z500": {"24h": {"emulator": 641.2, "persistence": 773.0}}, ...}
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (variable, level) in HEADLINES.items():
        channel = f"{variable}_next"
        if level is not None and len(store.levels) > 1 and level in store.levels:
            channel += f"[{store.levels.index(level)}]"
        elif level is not None and store.levels != (level,):
            channel = ""
        if channel not in scores.channel.values:
            log.info("no %s: the network has no %s%s", name, variable,
                     "" if level is None else f" at {level} hPa")  # fmt: skip
            continue
        at = {"channel": channel}
        found[name] = {
            f"{int(lead) * step}h": {
                str(method): float(scores.rmse.sel(at | {"lead": lead, "method": method}))
                for method in scores.method.values
            }
            for lead in scores.lead.values
        }
    return found


def show(found: dict[str, dict[str, dict[str, float]]], side: str, count: int) -> None:
    """Print RMSE by lead."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    title = f"RMSE weighted by latitude, of {count} rollouts (persistence)"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    leads = next(iter(found.values()), {})
    for lead in leads:
        table.add_column(lead, justify="right")
    for name, values in found.items():
        cells = [f"{v['emulator']:.4g} ({v['persistence']:.4g})" for v in values.values()]
        table.add_row(f"{SIDES[side]}_rmse_{name}", *cells)
    console.print(table)
