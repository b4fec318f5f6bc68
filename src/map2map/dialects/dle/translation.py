"""What a command line of 2Dto2D-DLE's means, as a recipe."""

import argparse
import logging
from collections.abc import Iterable, Sequence
from math import isclose
from pathlib import Path
from typing import Any

from map2map.dialects.dle.cases import Case, largest_patch, patterns
from map2map.dialects.dle.mappings import Mapping
from map2map.errors import RecipeError

__all__ = ["recipe", "result_name"]

log = logging.getLogger(__name__)

LOSSES = {
    "mae": "torch.nn.L1Loss",
    "mse": "torch.nn.MSELoss",
    "huber": "torch.nn.HuberLoss",
    "logcosh": "map2map.losses.LogCosh",
}


def result_name(options: argparse.Namespace) -> str:
    """What the original calls the folder of results of these options."""
    dataset, factor = options.dataset, options.resample_data
    if factor != 1:
        head, _, resolution = dataset.rpartition("_")
        if not resolution.isdigit():
            raise RecipeError(
                f"--dataset {dataset} must end in _RESOLUTION, such as cfsflow_100, to be resampled"
            )
        dataset = f"{head}_{int(factor * int(resolution))}"
    depth = options.nb_layers if options.network == "cnn" else options.nb_blocks
    parts = {
        "MAPTY": Path(options.maptype).name,
        "NETWO": options.network,
        "CONVS": options.conv_ker_size,
        "DEPTH": depth,
        "NBFIL": options.nb_out_filter,
        "EPOCH": options.epochs,
        "RSAMP": factor,
        "TESTI": int(options.include_test_in_train),
    }
    return "+".join([Path(dataset).name, *(f"{key}-{value}" for key, value in parts.items())])


def recipe(
    options: argparse.Namespace,
    how: Mapping,
    train: Sequence[Case],
    test: Sequence[Case],
    out: Path,
) -> dict[str, Any]:
    """The recipe of a training.

    Args:
        options: The command line.
        how: What is mapped to what.
        train: The cases to train on.
        test: The cases of the validation, which are those of the prediction, too.
        out: The folder of results.
    """
    from map2map.imports.dle import fields_of
    from map2map.specs import describe

    if options.include_test_in_train:
        train = [*train, *test]
    derived = computed(how, [*train, *test])
    stored = [name for name in how.inputs if name not in derived]
    needs = [need for made in derived.values() for need in made.needs if need not in derived]
    used = dict.fromkeys([*stored, *needs, *how.targets])
    first = next(iter(used))
    for case in (*train, *test):
        case.check_axes(list(used))
        check_coordinates(case, derived)
    size = options.patch_size
    if size < 0:
        size = largest_patch([*train, *test], first)
    step = 1 << (options.nb_blocks - 1)
    if options.network == "unet" and size % step:
        raise RecipeError(
            f"patches of {size} cells (--patch_size {options.patch_size}) are no multiple of "
            f"{step}, which a unet of {options.nb_blocks} levels pools together (--nb_blocks)"
        )
    where = {"field": "thk", "above": options.thrice} if how.ice else None
    if how.ice and "thk" not in how.inputs:
        raise RecipeError(
            f"maps whose name begins with f take patches with ice in the middle, which thk tells, "
            f"but the inputs are {', '.join(how.inputs)}; add thk, or rename the folder"
        )
    scales = {**how.inputs, **how.targets}
    spacings = {tuple(case.spacing() or ()) for case in (*train, *test)}
    if len(spacings) > 1:
        raise RecipeError(f"cases have cells of different size: {sorted(spacings)}")
    spacing = [*spacings.pop()] or None
    steps = {case.steps(first) for case in (*train, *test)}
    mirrored = symmetries(options, how, steps)
    return {
        "seed_everything": options.seed,
        "trainer": {
            "max_epochs": options.epochs,
            "accelerator": "auto" if options.usegpu else "cpu",
            "enable_progress_bar": None if options.verbose else False,
        },
        "model": {
            "inputs": [field_entry(f) for f in fields_of(how.inputs)],
            "targets": [field_entry(f) for f in fields_of(how.targets)],
            "norms": {
                name: {"class_path": "map2map.norms.Scale", "init_args": {"typical": scale}}
                for name, scale in scales.items()
            },
            "model": network(options),
            "loss": {"class_path": LOSSES[options.loss]},
            "optimizer": {
                "class_path": "map2map.optimizers.KerasAdam",
                "init_args": {
                    "lr": options.learning_rate,
                    "clip_norm": options.clipnorm,
                    "l2": options.regularization,
                },
            },
            "options": {
                "channels_last": True,
                "measures": {
                    name: {"class_path": LOSSES[name], "init_args": {}} for name in ("mae", "mse")
                },
            },
        },
        "data": {
            "train": patterns(train, list(used)),
            "val": patterns(test, list(used)),
            "overlap": True,
            "derived": {name: describe(made) for name, made in derived.items()},
            "crops": {"size": size, "halo": 0, "where": where},
            "augment": {"symmetries": mirrored, "shift": None if how.ice else size},
            "domain": {
                "ndim": 2, "periodic": False, "pad": "model", "frames": options.data_stepping,
                "same_shape": False, "spacing": spacing,
            },
            "reading": {"batch_size": options.batch_size, "threads": 1, "mask": True},
        },
        "output": {
            "folder": str(out),
            "resume": "auto",
            # states become models at the end
            "keep": None if options.save_model_each <= options.epochs else 1,
        },
    }  # fmt: skip


def check_coordinates(case: Case, derived: dict[str, Any]) -> None:
    """Refuse a case without the coordinates that something is computed from.

    Raises:
        RecipeError: If there are none.
    """
    needing = {need: name for name, how in derived.items() for need in how.needs}
    for need in needing.keys() - derived.keys():
        if None in case.steps(need):
            how = "put x.npy and y.npy beside its fields"
            if "" in case.files:
                how = f"add them to {case.path(need)}"
            raise RecipeError(
                f"case {case.name!r} has no coordinates x and y, which {needing[need]} is computed "
                f"with; {how}"
            )


def symmetries(
    options: argparse.Namespace, how: Mapping, steps: Iterable[tuple[float | None, ...]]
) -> str:
    """Which symmetries patches are turned by.

    Args:
        options: The command line.
        how: What is mapped to what.
        steps: From a cell to the next along y and x, as far as they are known.
    """
    if not options.data_augmentation:
        return "none"
    from map2map.imports.dle import VECTORS

    for side in (how.inputs, how.targets):
        for parts in VECTORS.values():
            alone = [name for name in parts if name in side]
            if len(alone) == 1:
                log.warning(
                    "patches are not turned: %s is one component of a vector whose other, %s, is "
                    "not beside it",
                    *(alone[0], *set(parts) - set(alone)),
                )
                return "none"
    for dy, dx in steps:
        if dy and dx and not isclose(abs(dy), abs(dx), rel_tol=1e-3):
            log.info(
                "patches are flipped, but not turned by quarters, because cells are not square: "
                "%g along y, %g along x",
                *(abs(dy), abs(dx)),
            )
            return "flips"
    return "all"


def field_entry(field: Any) -> dict[str, Any]:
    """A field as a recipe writes it."""
    entry = {"name": field.name, "units": field.units, "channels": 1, "kind": "scalar"}
    if field.component is not None:
        part = field.component
        entry["component"] = {"vector": part.vector, "axis": part.axis}
    return entry


def computed(how: Mapping, cases: Sequence[Case]) -> dict[str, Any]:
    """The inputs that are computed from others, unless there are npy files of them."""
    from map2map.imports.dle import DERIVED

    found = {}
    for name in how.inputs:
        given = all(case.holds(name) for case in cases)
        if name in DERIVED and not given:
            found[name] = DERIVED[name]
    if "slopsurfn" in found:  # which is computed from the others
        found |= {name: DERIVED[name] for name in DERIVED["slopsurfn"].needs}
    return found


def network(options: argparse.Namespace) -> dict[str, Any]:
    """The network as a recipe writes it."""
    if options.network == "cnn":
        return {
            "class_path": "map2map.models.PaddedConvNet",
            "init_args": {
                "width": options.nb_out_filter,
                "depth": options.nb_layers,
                "kernel_size": options.conv_ker_size,
                "slope": 0.01 if options.activation == "lrelu" else 0.0,
                "dropout": options.dropout_rate,
            },
        }
    return {
        "class_path": "map2map.models.PaddedUNet",
        "init_args": {"width": options.nb_out_filter, "levels": options.nb_blocks},
    }
