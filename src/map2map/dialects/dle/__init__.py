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
from map2map.errors import M2MError, RecipeError

__all__ = ["dle", "main", "parser"]

log = logging.getLogger(__name__)

OPTIONS = {
    "`crops.where.above`": "--thrice",
    "the crop is": "the patch (--patch_size) is",
    "a crop has": "a patch has",
    "make crops smaller": "make patches smaller (--patch_size)",
    "no crop of": "no patch of",
}
"""What is called otherwise in a recipe."""


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
def telling(level: int) -> Iterator[None]:
    """Only what is as grave as that is told; 0: as usual."""
    logger = logging.getLogger("map2map")
    before = logger.level
    if level:
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def execute(options: Any, prog: str) -> int:
    """Do what the options say."""
    check(options)
    with telling(0 if options.verbose else logging.WARNING):
        return train_and_predict(options, prog)


def train_and_predict(options: Any, prog: str) -> int:
    """Translate, train and predict, as far as the options want it."""
    from map2map.dialects.dle import results
    from map2map.dialects.dle.cases import cases_of, check_resampling
    from map2map.dialects.dle.mappings import mapping
    from map2map.dialects.dle.prediction import predict
    from map2map.dialects.dle.translation import recipe, result_name
    from map2map.emulator import Emulator

    how, name = mapping(options.maptype), result_name(options)
    source = options.data_dir / options.dataset
    test = cases_of(source / "test")
    train = cases_of(source / "train") if options.train else test
    resampled = options.resample_data != 1
    if resampled:
        check_resampling([*train, *test], [*how.inputs, *how.targets], options.resample_data)
    if options.print_recipe:
        made = recipe(options, how, train, test, options.results_dir / name)
        return show(without_none(made), prog, resampled=resampled)
    if options.train:
        with results.made(options, name) as folder:
            if resampled:
                train, test = (coarser(options, how, side, folder / "data" / split)
                               for side, split in ((train, "train"), (test, "test")))  # fmt: skip
            made = without_none(recipe(options, how, train, test, folder))
            prepare(made, prog)
            how.write(folder)
        log.info("results: %s", folder)
        from map2map.commands.train import train_recipe

        status = train_recipe(deepcopy(made), prog=prog)
        if status:
            return status
        finish(options, folder)
    else:
        folder = results.find(options, name)
        log.info("results: %s", folder)
        if resampled:
            test = coarser(options, how, test, folder / "data" / "test")
        made = without_none(recipe(options, how, test, test, folder))
    if options.predict:
        emulator = Emulator.load(folder / "emulator.safetensors")
        above = options.thrice if how.ice else None
        predict(emulator, folder, test, made["data"]["val"], above)
    return 0


def show(made: dict[str, Any], prog: str, *, resampled: bool) -> int:
    """Print a recipe, if it can be trained."""
    if resampled:
        print("# of the cases as they are; --resample_data writes others, and trains on those")
    else:
        prepare(made, prog)
    print(yaml.safe_dump(made, sort_keys=False), end="")
    return 0


def prepare(made: dict[str, Any], prog: str) -> None:
    """Open the data and make the network, to learn what is wrong before anything is written.

    Raises:
        M2MError: If something is; in words of this command line.
    """
    from map2map.commands.train import make

    try:
        with telling(logging.ERROR):  # training tells the rest
            cli = make(deepcopy(made), prog)
            cli.model.prepare(cli.datamodule)
    except M2MError as error:
        text = str(error)
        for key, option in OPTIONS.items():
            text = text.replace(key, option)
        raise RecipeError(text) from error


def coarser(options: Any, how: Any, cases: Any, folder: Any) -> Any:
    """The cases on other cells."""
    from map2map.dialects.dle.cases import resample

    fields = [*how.inputs, *how.targets]
    return [resample(case, fields, options.resample_data, folder) for case in cases]


def finish(options: Any, folder: Any) -> None:
    """Write what the original writes after training."""
    from map2map.checkpoints import load_weights, read_state, to_apply
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
            load_weights(other.model, to_apply(read_state(path)), path, strict=True)
            results.write_model(other, folder, name)
    # the last, because it tells that the training is complete
    results.write_model(emulator, folder)


def without_none(entry: Any) -> Any:
    """Without keys that say nothing."""
    if isinstance(entry, dict):
        return {key: without_none(value) for key, value in entry.items() if value is not None}
    return [without_none(each) for each in entry] if isinstance(entry, list) else entry
