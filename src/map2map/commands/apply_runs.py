"""What ``m2m apply`` does with an emulator of labels or parameters."""

import argparse
import logging

from map2map.commands.evaluate_runs import open_told
from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.prediction_tables import as_dataset, check_ending, save_table
from map2map.predictions import predict_runs

__all__ = ["apply_told"]

log = logging.getLogger(__name__)

FIELDS_ONLY = {
    "resume": False, "allow_nan": False, "memory": None, "tile": None, "periodic": None,
    "pad": None, "other_grid": False, "precision": "fp32", "channels_last": None,
    "compile": False, "fold_batch_norm": False, "winograd": False, "rings": True, "dask": None,
    "check": None, "members": None, "seed": None, "derivative": None, "velocity": False,
    "Om": None,
}  # fmt: skip
"""Options that are for emulators of fields, and what they are if they are not given."""


def apply_told(options: argparse.Namespace, emulator: Emulator, device: str) -> int:
    """Write a table of predictions.

    Raises:
        RecipeError: If an option is for emulators of fields.
        SaveError: If the table is there already.
    """
    if not emulator.targets.of_run:
        raise RecipeError("--only is for emulators of labels and parameters; list the files here")
    given = [name for name, default in FIELDS_ONLY.items() if getattr(options, name) != default]
    if given:
        raise RecipeError(
            f"--{given[0].replace('_', '-')} is for emulators of fields, but this one gives "
            f"{', '.join(emulator.targets.names)} of whole runs"
        )
    check_ending(options.output, overwrite=options.overwrite)
    runs = open_told(emulator, options.input, options.only, truth=False)
    try:
        emulator = emulator.to(device)
    except (RuntimeError, AssertionError) as error:
        # an assertion is what torch makes of a GPU that it was not built for
        raise RecipeError(f"--device {device}: {error}") from error
    table = as_dataset(predict_runs(emulator, runs))
    save_table(table.assign_attrs(emulator=str(options.emulator)), options.output)
    print(f"{options.output}: {table.sizes['sample']} samples of {table.sizes['group']} runs")
    return 0
