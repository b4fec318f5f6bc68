"""2Dto2D-DLE's command line, translated to a recipe.

`options` has its options, `mappings` which fields are mapped to which, `cases` its folders of data,
`translation` what it all means, `results` and `prediction` what is written.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import yaml

from map2map.dialects.dle.options import check, parser
from map2map.errors import M2MError

__all__ = ["dle", "main", "parser"]

log = logging.getLogger(__name__)


class dle:  # noqa: N801 - as the original calls it
    """The original's only class: ``dle().run()`` does what the process's arguments say.

    Args:
        argv: Other arguments.
    """

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        self.options = parser("dle").parse_args(argv)

    def run(self) -> None:
        """Train and predict; what the user can mend ends the process with status 2."""
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        try:
            status = execute(self.options, "dle")
        except M2MError as error:
            print(f"dle: error: {error}", file=sys.stderr)
            status = 2
        if status:
            sys.exit(status)


def main(argv: Sequence[str], prog: str = "m2m dle") -> int:
    """Run a command line of 2Dto2D-DLE's."""
    return execute(parser(prog).parse_args(argv), prog)


@contextmanager
def talking(verbose: int) -> Iterator[None]:
    """With 0, only warnings are told."""
    logger = logging.getLogger("map2map")
    before = logger.level
    if verbose == 0:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def execute(options: Any, prog: str) -> int:
    """Do what the options say."""
    with talking(options.verbose):
        return train_and_predict(options, prog)


def train_and_predict(options: Any, prog: str) -> int:
    """Translate, train and predict, as far as the options want it."""
    from map2map.dialects.dle import results
    from map2map.dialects.dle.cases import cases_of
    from map2map.dialects.dle.mappings import mapping
    from map2map.dialects.dle.translation import recipe, result_name

    check(options)
    how, name = mapping(options.maptype), result_name(options)
    source = options.data_dir / options.dataset
    test = cases_of(source / "test")
    train = cases_of(source / "train") if options.train else test
    if options.print_recipe:
        made = recipe(options, how, train, test, options.results_dir / name)
        print(yaml.safe_dump(without_none(made), sort_keys=False), end="")
        return 0
    # everything is translated once before anything is written
    recipe(options, how, train, test, options.results_dir / name)
    folder = results.make(options, name) if options.train else results.find(options, name)
    log.info("results: %s", folder)
    if options.resample_data != 1:
        train, test = (coarser(options, how, side, folder / "data" / split)
                       for side, split in ((train, "train"), (test, "test")))  # fmt: skip
    made = without_none(recipe(options, how, train, test, folder))
    if options.train:
        from map2map.commands.train import train_recipe

        how.write(folder)
        status = train_recipe(deepcopy(made), prog=prog)
        if status:
            return status
        finish(options, folder)
    if options.predict:
        from map2map.dialects.dle.prediction import predict
        from map2map.emulator import Emulator

        emulator = Emulator.load(folder / "emulator.safetensors")
        above = options.thrice if how.ice else None
        predict(emulator, folder, test, made["data"]["val"], above)
    return 0


def coarser(options: Any, how: Any, cases: Any, folder: Any) -> Any:
    """The cases on other cells."""
    from map2map.dialects.dle.cases import resample

    fields = [*how.inputs, *how.targets]
    return [resample(case, fields, options.resample_data, folder) for case in cases]


def finish(options: Any, folder: Any) -> None:
    """Write what the original writes after training."""
    from map2map.checkpoints import load_weights, read_state
    from map2map.dialects.dle import results
    from map2map.emulator import Emulator
    from map2map.files import replacing

    emulator = Emulator.load(folder / "emulator.safetensors")
    scores = emulator.scores
    results.write_history(folder, {**scores["loss"], **scores["measures"]})
    with replacing(folder / "model-info.txt") as temporary:
        weights = sum(p.numel() for p in emulator.model.parameters())
        temporary.write_text(f"{emulator.model}\nParameters: {weights}\n")
    each = options.save_model_each
    epochs = range(each, options.epochs + 1, each)
    saved = {f"model.{n:05d}.h5": f"state_{n}.pt" for n in epochs} | {"model.best.h5": "best.pt"}
    for name, state in saved.items():
        if (folder / state).exists():
            path = folder / state
            other = Emulator.load(folder / "emulator.safetensors")
            load_weights(other.model, read_state(path)["model"], path, strict=True)
            results.write_model(other, folder, name)
    # the last, because it tells that the training is complete
    results.write_model(emulator, folder)


def without_none(entry: Any) -> Any:
    """Without keys that say nothing."""
    if isinstance(entry, dict):
        return {key: without_none(value) for key, value in entry.items() if value is not None}
    return [without_none(each) for each in entry] if isinstance(entry, list) else entry
