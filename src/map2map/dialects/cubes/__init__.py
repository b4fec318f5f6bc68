"""The gravity classifiers of Johanmkr's MasterThesis: their YAML file, translated to a recipe.

`options` has the keys of the file and our options, `limits` what these may be, `cubes` finds the
data, `translation` says what it all means, `sessions` goes on with what was trained before,
`watching` shows the epochs.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from map2map.dialects.cubes.limits import check, check_folders
from map2map.dialects.cubes.options import locate, parser, read_settings
from map2map.errors import FieldError, GeometryError, RecipeError, without_recipe

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)


def main(argv: Sequence[str], prog: str = "m2m cubes") -> int:
    """Train what a YAML file of the gravity classifiers says."""
    options = parser(prog).parse_args(argv)
    check(options)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        # of several processes, the first one tells
        logging.getLogger("map2map.dialects").setLevel(logging.WARNING)
    settings = read_settings(locate(options.config))
    check_folders(settings)

    from map2map.dialects.cubes.cubes import find
    from map2map.dialects.cubes.sessions import begin, nothing_left, resolved
    from map2map.dialects.cubes.translation import recipe
    from map2map.models.activations import check_activation

    try:
        check_activation(options.activation)
    except RecipeError as error:
        raise RecipeError(f"--activation: {error}") from error
    cubes = find(Path(settings.datafile), options.redshift)
    cubes.check_seeds(settings.train_seeds, settings.test_seeds, settings.datafile)
    cubes.check_stride(options.stride)
    if options.stats is not None:
        cubes.check_stats(options.stats)
    if options.print_recipe:
        made = recipe(settings, options, cubes, settings.epochs)
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return 0
    session = begin(settings, resolved(settings, options, cubes))
    made = recipe(settings, options, cubes, session.until)
    logs = Path(settings.log_dir) / settings.log_name
    with nothing_left(session.folder / "checkpoint.pt", session.folder, logs):
        return train_session(made, session, prog)


def train_session(made: dict[str, Any], session: Any, prog: str) -> int:
    """Train until the end of the session, and keep the best epoch's network."""
    from map2map.checkpoints import Interrupted
    from map2map.commands.train import TRY_AGAIN, make
    from map2map.dialects.cubes.watching import Watcher
    from map2map.memory import keep_freed_memory
    from map2map.tracking import Tracker
    from map2map.train import commit, train, versions

    keep_freed_memory()
    resume = session.resume
    if resume is not None and resume.parent != session.folder:
        resume = taken_over(made, session, prog)
    made["output"]["resume"] = "never" if resume is None else str(resume)
    cli = make(made, prog)
    record = {"recipe": yaml.safe_load(cli.parser.dump(cli.config, skip_none=True))}
    group = {
        key: tuple(value) if key == "betas" else value
        for key, value in made["model"]["optimizer"]["init_args"].items()
    }
    told = {key: shown(value) for key, value in session.record.items()}
    of_session = {**record, "seed": cli.datamodule.seed, "versions": versions(), **commit()}
    where = made["trainer"]["logger"]["init_args"]
    graph = not any(Path(where["save_dir"], where["name"]).glob("events.out.tfevents.*"))
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, Tracker):
            # the watcher writes the original's
            callback.epochs = False
    callbacks.insert(0, Watcher(session, told, group, of_session, graph=graph))
    try:
        train(cli.model, cli.datamodule, cli.trainer, cli.output, record=record)
    except Interrupted as interruption:
        log.info("%s; the same command goes on from there", interruption)
        return TRY_AGAIN
    except (FieldError, GeometryError) as error:
        # a YAML file of the original's has no such keys
        raise type(error)(without_recipe(str(error))) from error
    if cli.trainer.is_global_zero:
        finish(cli, session.folder)
    return 0


def shown(value: Any) -> str | float | bool:
    """A setting as TensorBoard takes it."""
    return value if isinstance(value, str | int | float | bool) else str(value)


def taken_over(made: dict[str, Any], session: Any, prog: str) -> Path:
    """A state made of the original's checkpoint, once the data and the network fit."""
    from map2map.commands.train import make
    from map2map.dialects.cubes.sessions import convert

    cli = make({**made, "trainer": {"logger": False}}, prog)
    cli.model.prepare(cli.datamodule)
    return convert(session.resume, session.folder, cli.model.built.model)


def finish(cli: Any, folder: Path) -> None:
    """Save the network of the best epoch, and tell how well it does on the test seeds.

    Its card tells how it was trained, in the session that its epoch was of.
    """
    import torch

    from map2map.checkpoints import load_weights, read_state, to_apply
    from map2map.commands.evaluate import about
    from map2map.commands.evaluate_runs import show_runs
    from map2map.dialects.cubes.watching import RECORD, tested
    from map2map.scores import attributes, save_scores

    task, data, best = cli.model, cli.datamodule, folder / "best.pt"
    emulator, state = task.built, read_state(best)
    load_weights(emulator.model, to_apply(state), best, strict=True)
    epoch = int(state["epoch"])
    of_session = dict(state.get(RECORD, {}))
    emulator.versions = of_session.pop("versions", emulator.versions)
    # of a folder that is under version control now, and was not then, or the other way round
    without = {k: v for k, v in emulator.training_record.items() if k != "commit" or not of_session}
    emulator.training_record = {
        **without,
        **of_session,
        "epochs": epoch,
        "optimizer_steps": int(state["global_step"]),
        "best_of_epochs": cli.trainer.current_epoch,
    }
    emulator.save(folder / "emulator.safetensors")
    task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    scores = tested(task, data)
    # as m2m evaluate writes them, so that m2m report takes them
    known = about(folder / "emulator.safetensors", emulator, data.dataset("val").runs)
    scores = scores.assign_attrs(attributes(scores.attrs | known))
    save_scores(scores, folder / "scores.nc")
    print(f"\nTest seeds, network of epoch {epoch}, the best of all sessions:")
    show_runs(scores)
    log.info("%s has emulator.safetensors, of that epoch, and last.safetensors", folder)
