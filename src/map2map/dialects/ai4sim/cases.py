"""What the collection's use cases mean as recipes; of the weather see `weather`."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from math import ceil
from pathlib import Path
from typing import Any

import h5py
import yaml

from map2map.dialects.ai4sim.settings import Settings, number, settings_of
from map2map.dialects.ai4sim.trainers import output_of, trainer_of
from map2map.dialects.ai4sim.weather import weather
from map2map.errors import RecipeError, SourceError
from map2map.patterns import some
from map2map.sources.npy import read_header
from map2map.splits import SIDES

__all__ = ["recipe", "recipe_of"]

log = logging.getLogger(__name__)

Recipe = dict[str, Any]

WHERE = {
    "CnfCombustionDataModule": "RAISE CoE (coe-raise.eu/od-combustion); or `m2m simulate "
    "flame_front`",
    "CnfDataModule": "RAISE CoE (coe-raise.eu/od-combustion); or `m2m simulate flame_front`",
    "R2DataModule": "JSC's JUDAC (uftp.fz-juelich.de); or `m2m simulate flame_front --layout r2`",
    "NOGWDDataModule": "ECMWF's maelstrom-nogwd; or `m2m simulate gravity_waves`",
    "LitThreeDCorrectionDataModule": "ECMWF's maelstrom-radiation; or `m2m simulate "
    "radiation_columns --layout stack`",
}
"""Where the data come from."""

ROWS = 1000
"""Columns that are read together, at most."""

POOL = 48
"""So many times of them are mixed."""

TWICE = 0.03
"""Share of columns that may be in two slices."""


def recipe(given: Mapping[str, Any]) -> Recipe:
    """The recipe that a file means.

    Args:
        given: What is in the file, variables filled in.

    Raises:
        RecipeError: If something in it is not known.
        SourceError: If its data are not there.
    """
    return recipe_of(settings_of(given))


def recipe_of(told: Settings) -> Recipe:
    """The recipe that settings mean."""
    made = weather(told) if told.model == "PanguModule" else columns_or_flames(told)
    output = output_of(told)
    if told.checkpoint is not None:
        output["resume"] = told.checkpoint
    return {
        "seed_everything": told.seed,
        "trainer": trainer_of(told),
        **made,
        "output": output,
    }


def columns_or_flames(told: Settings) -> Recipe:
    """Model and data of a use case whose optimizer is AdamP, and loss the mean squared error."""
    root = Path(str(told.of_data["data_path"]))
    if not root.is_dir():
        raise SourceError(
            f"there is no folder {root} (data.init_args.data_path); real data are at "
            f"{WHERE[told.data]}"
        )
    make = {"NOGWDDataModule": drag, "LitThreeDCorrectionDataModule": radiation}
    made = make.get(told.data, flames)(told, root)
    if told.of_data["num_workers"]:
        log.info("num_workers is not needed: threads of the process read ahead")
    if not told.of_data.get("shuffling", True):
        log.info("shuffling acts in no version of the collection: training is shuffled")
    rate = number("model.init_args.lr", told.of_model["lr"])
    optimizer = {"class_path": "map2map.optimizers.AdamP", "init_args": {"lr": rate}}
    made["model"] |= {"optimizer": optimizer, "loss": {"class_path": "torch.nn.MSELoss"}}
    return made


DRAG_INPUTS = {
    "u": ("x[0:63]", "m s-1"),
    "v": ("x[63:126]", "m s-1"),
    "T": ("x[126:189]", "K"),
    "pressure": ("x[189:190]", "Pa"),
    "geopotential": ("x[190:191]", "m2 s-2"),
}
"""Fields of gravity-wave drag: their channels, and units."""

DRAG_TARGETS = {"du": ("y[0:63]", "m s-1"), "dv": ("y[63:126]", "m s-1")}
"""What the waves add to the wind in a step."""

RADIATION_INPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hl_inputs": ("[:, 0:2]", {"levels": 138, "features": 2, "level_first": True}),
    "inter_inputs": ("[1:137, 2]", {"levels": 136, "above": 1, "below": 1}),
    "col_inputs": ("[1:, 3:30]",
                   {"levels": 137, "features": 27, "above": 1, "level_first": True}),
    "sca_inputs": ("[0, 30:47]", {"levels": 1, "features": 17}),
}  # fmt: skip
"""Groups of the inputs of radiation in a stack (level, feature), without rows that only fill up."""

RADIATION_TARGETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "flux_dn_sw": ("[:, 0]", "W m-2", {"levels": 138}),
    "flux_up_sw": ("[:, 1]", "W m-2", {"levels": 138}),
    "flux_dn_lw": ("[:, 2]", "W m-2", {"levels": 138}),
    "flux_up_lw": ("[:, 3]", "W m-2", {"levels": 138}),
    "hr_sw": ("[1:, 4]", "K d-1", {"levels": 137, "above": 1}),
    "hr_lw": ("[1:, 5]", "K d-1", {"levels": 137, "above": 1}),
}
"""Likewise of the outputs, with their units."""


def field(name: str, units: str | None = None) -> dict[str, str]:
    """A field of a recipe."""
    return {"name": name, "kind": "scalar"} | ({"units": units} if units else {})


def ratios_of(told: Settings) -> list[float]:
    """The shares of training, validation and test."""
    ratios = told.of_data["splitting_ratios"]
    if not isinstance(ratios, Sequence) or isinstance(ratios, str):
        raise RecipeError(
            f"data.init_args.splitting_ratios is {ratios!r}, but must be three numbers, such as "
            f"[0.8, 0.1, 0.1]"
        )
    return [*ratios]


def flames(told: Settings, root: Path) -> Recipe:
    """Flame surface density from the progress variable, on grids and graphs."""
    source, target = ("c_filt", "c_grad_filt") if told.data == "R2DataModule" else (
        "filt_8", "filt_grad_8"
    )  # fmt: skip
    files = raw_files(root, told)
    on_grid = told.model == "LitUnet3D"
    block = told.of_data.get("subblock_shape")
    data: Recipe = {
        "train": {
            "c": {"pattern": files, "variable": source},
            "sigma": {"pattern": files, "variable": target},
        },
        "split": {"ratios": ratios_of(told)},
        "crops": {"size": block, "halo": 0},
        # a copy of the last plane is not read. Nothing goes on at the other side, which across the
        # flame is burnt gas beside fresh gas: networks and graphs end at the edges of the box
        "domain": {"ndim": 3, "periodic": False, "pad": "model", "same_shape": False}
        | ({"skip": 1} if on_grid else {}),
        "reading": {"batch_size": told.of_data["batch_size"]},
    }
    if block is not None:
        places, moved = anywhere(block, [shape_of(path, source) for path in files])
        data["crops"] |= places
        # drawn anew in every epoch
        data["augment"] = {"shift": moved}
    scale = {"scale": number("data.init_args.y_normalizer", told.of_data["y_normalizer"])}
    return {
        "model": {
            "inputs": [field("c", "1")],
            "targets": [field("sigma", "1/m")],
            "norms": {
                "c": {"class_path": "map2map.norms.Identity"},
                "sigma": {"class_path": "map2map.norms.Affine", "init_args": scale},
            },
            "model": network(told),
        },
        "data": data,
    }


def shape_of(path: str, variable: str) -> tuple[int, ...]:
    """The shape of an array of a file.

    Raises:
        SourceError: If there is none.
    """
    try:
        with h5py.File(path, locking=False) as file:
            return tuple(file[variable].shape)
    except (OSError, KeyError) as error:
        raise SourceError(f"cannot read {variable!r} of {path}: {error}") from error


def anywhere(
    block: Any, shapes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, list[int]], list[int]]:
    """Steps from crop to crop, and how far each is moved, so that they are anywhere in the box.

    The places that a crop may begin at are shared out among crops. Parts are equal; where that does
    not come out even they overlap, and a place in two of them is twice as likely. No crop reaches
    beyond an edge.

    >>> anywhere([4], [(9,)])
    ({'step': [2], 'stop': [3]}, [3])

    Args:
        block: Cells of a crop per axis.
        shapes: Of the arrays, whose first plane is left out.

    Raises:
        RecipeError: If it is no block, or larger than a box.
    """
    key = "data.init_args.subblock_shape"
    cells = [min(sizes) - 1 for sizes in zip(*shapes, strict=True)]
    if not (
        isinstance(block, list)
        and len(block) == len(cells)
        and all(isinstance(n, int) and n > 0 for n in block)
    ):
        raise RecipeError(f"{key} is {block!r}, but must be {len(cells)} whole numbers of cells")
    if any(n > all_ for n, all_ in zip(block, cells, strict=True)):
        raise RecipeError(
            f"{key} is {block}, but the smallest file has {cells} cells without its first planes, "
            f"which are copies; make it smaller, or null for whole fields"
        )
    step, stop, moved = [], [], []
    for n, sizes in zip(block, zip(*shapes, strict=True), strict=True):
        whole = max(sizes) - 1
        places, parts = whole - n + 1, ceil(whole / n)
        step.append(max(1, places // parts))
        parts = min(parts, places)
        stop.append((parts - 1) * step[-1] + 1)
        moved.append(places - (parts - 1) * step[-1])
    return {"step": step, "stop": stop}, moved


def network(told: Settings) -> dict[str, Any]:
    """The network of a flame."""
    of = told.of_model
    if told.model == "LitUnet3D":
        # the collection's own form: never negative, as a density of surface is
        return unet("DoubleConvUNet", told, head=False)
    if told.model == "LitGraphUNet":
        ratio = of["pool_ratios"]
        arguments = {"width": of["hidden_channels"], "depth": of["depth"], "ratio": ratio}
        return {"class_path": "map2map.models.GridGraphUNet", "init_args": arguments}
    arguments = {key: of[key] for key in ("dropout", "heads", "jk") if key in of}
    arguments |= {"width": of["hidden_channels"], "depth": of["num_layers"]}
    return {"class_path": f"map2map.models.Grid{told.model[3:]}", "init_args": arguments}


def unet(name: str, told: Settings, **more: Any) -> dict[str, Any]:
    """A U-Net."""
    of = told.of_model
    arguments: dict[str, Any] = {"width": of["n_features_root"], "levels": of["n_levels"], **more}
    if of["bilinear"]:
        arguments["upsample"] = "linear"
    return {"class_path": f"map2map.models.{name}", "init_args": arguments}


def raw_files(root: Path, told: Settings) -> list[str]:
    """The files in ``raw``: those that a list names, else all HDF5 files there, by name."""
    source = told.of_data.get("source_raw_data_path")
    folder = root / "raw" if source is None else Path(str(source))
    listed = root / "filenames.yaml"
    if listed.exists() and told.data != "CnfCombustionDataModule":
        names = named(listed, read_list(listed, "data.init_args.data_path"), folder)
    else:
        names = sorted(str(path) for path in folder.glob("*.h5"))
    if not names:
        raise SourceError(f"there are no files {folder}/*.h5; real data are at {WHERE[told.data]}")
    return names


def read_list(path: Path, key: str) -> Any:
    """What a YAML file of names has.

    Raises:
        SourceError: If it cannot be read.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise SourceError(f"cannot read {path} ({key}): {said}") from error


def named(listed: Path, names: Any, folder: Path, key: str | None = None) -> list[str]:
    """The files that a list names, or a key of it."""
    where = str(listed) if key is None else f"`{key}` in {listed}"
    if not isinstance(names, list) or not names:
        found = "is empty" if names in (None, [], "", {}) else f"is {names!r}"
        raise RecipeError(f"{where} {found}, but must be a list of names of files in {folder}")
    missing = [str(name) for name in names if not (folder / str(name)).is_file()]
    if missing:
        raise SourceError(f"{where} names files that are not in {folder}: {some(missing)}")
    return [str(folder / str(name)) for name in names]


def shortened(value: Any, most: int = 60) -> str:
    """A value in a message.

    >>> shortened("a" * 9, most=6)
    "'aaaa…"
    """
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def drag(told: Settings, root: Path) -> Recipe:
    """Drag of gravity waves, column by column."""
    file = told.of_data["splitting_file"]
    if not isinstance(file, str):
        raise RecipeError(f"data.init_args.splitting_file is {file!r}, but must be a file's name")
    listed = root / file
    given = read_list(listed, "data.init_args.splitting_file")
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"{listed} (data.init_args.splitting_file) must have the keys train, val and test, "
            f"each a list of names of files in {root / 'raw'}, but is {shortened(given)}"
        )
    lacking = [side for side in SIDES if side not in given]
    if lacking:
        raise RecipeError(
            f"{listed} (data.init_args.splitting_file) has no `{'` and no `'.join(lacking)}`, but "
            f"{', '.join(map(str, given)) or 'nothing'}; it must have the keys train, val and "
            f"test, each a list of names of files in {root / 'raw'}"
        )
    sides = {side: named(listed, given[side], root / "raw", side) for side in SIDES}
    for first, second in combinations(SIDES, 2):
        both = [Path(path).name for path in sides[second] if path in sides[first]]
        if both:
            raise RecipeError(
                f"{listed} names {some(both)} both in `{first}` and in `{second}`, so that scores "
                f"would flatter; name each file in one of them"
            )
    shapes = [shape_of(path, "x")[1:] for path in chain(*sides.values())]
    if told.of_data["shard_len"] is not None:
        log.info("shard_len is not needed: rows are counted from the files")
    of, inputs = told.of_model, [{"levels": 63, "features": 3}, {"levels": 1, "features": 2}]
    model: dict[str, Any] = {"class_path": "map2map.models.ColumnMLP",
                             "init_args": {"width": of.get("hidden_channels")}}  # fmt: skip
    if told.model == "LitCNN":
        arguments = {"inputs": inputs, "width": of["init_feat"], "kernel_size": of["conv_size"]}
        model = {"class_path": "map2map.models.ColumnCNN",
                 "init_args": arguments | {"pool": of["pool_size"]}}  # fmt: skip
    rows, pool = slices([shape[0] for shape in shapes])
    several = len(shapes[0]) > 1
    size = [min(axis) for axis in zip(*shapes, strict=True)] if several else rows
    return {
        "model": {
            "inputs": [field(name, units) for name, (_, units) in DRAG_INPUTS.items()],
            "targets": [field(name, units) for name, (_, units) in DRAG_TARGETS.items()],
            "norms": {
                **{name: {"class_path": "map2map.norms.Standardize"} for name in DRAG_INPUTS},
                **{
                    # one number for both, as the loss is of both together
                    name: {
                        "class_path": "map2map.norms.Scale",
                        "init_args": {
                            "by": "largest_std",
                            "beside": [n for n in DRAG_TARGETS if n != name],
                        },
                    }
                    for name in DRAG_TARGETS
                },
            },
            "model": model,
        },
        "data": {
            **{
                side: {
                    name: {"pattern": files, "variable": variable}
                    for name, (variable, _) in {**DRAG_INPUTS, **DRAG_TARGETS}.items()
                }
                for side, files in sides.items()
            },
            "domain": {"ndim": len(shapes[0]), "periodic": False, "same_shape": False},
            "crops": {"size": size},
            "reading": {
                "batch_size": POOL if several else pool,
                "cells": told.of_data["batch_size"],
            },
        },
    }


def slices(counts: Sequence[int]) -> tuple[int, int]:
    """Columns that are read at once, and how many such slices are mixed.

    A slice lies in one file, and the last of a file may overlap the one before: the largest is
    taken of which few columns are in two.

    >>> slices([20, 20, 20]), slices([106, 106, 106, 50])
    ((20, 48), (27, 192))

    Args:
        counts: Columns of every file.
    """
    most, total = max(1, min(*counts, ROWS)), sum(counts)
    of = Counter(counts).items()
    size = next(
        size
        for size in range(most, 0, -1)
        if sum(files * (-n % size) for n, files in of) <= TWICE * total
    )
    return size, POOL * ceil(min(max(counts), ROWS) / size)


def radiation(told: Settings, root: Path) -> Recipe:
    """What the sides of clouds do to radiation, from a stack of npy files."""
    shards = sorted((root / "x").glob("*.npy"))
    if not shards:
        raise SourceError(f"there are no {root}/x/*.npy; real data are at "
                          f"{WHERE[told.data]}")  # fmt: skip
    # a last shard has the columns that remained
    size, pool = slices([read_header(path)[0][0] for path in shards])
    profiles = [profile for _, profile in RADIATION_INPUTS.values()]
    outputs = [profile for *_, profile in RADIATION_TARGETS.values()]
    places = {name: ("x", part) for name, (part, _) in RADIATION_INPUTS.items()}
    places |= {name: ("y", part) for name, (part, *_) in RADIATION_TARGETS.items()}
    # a linear head: differences of fluxes have both signs, which the collection's could not give
    model = unet("ColumnUNet", told, inputs=profiles, outputs=outputs, head=True)
    return {
        "model": {
            "inputs": [field(name) for name in RADIATION_INPUTS],
            "targets": [field(name, units) for name, (_, units, _) in RADIATION_TARGETS.items()],
            "norms": {
                **{
                    name: {"class_path": "map2map.norms.Standardize",
                           "init_args": {"constants": True}}
                    for name in RADIATION_INPUTS
                },
                **{name: {"class_path": "map2map.norms.Identity"} for name in RADIATION_TARGETS},
            },
            "model": model,
        },
        "data": {
            "train": {
                name: {"pattern": str(root / array / "{shard}.npy"), "variable": "{shard}" + part}
                for name, (array, part) in places.items()
            },
            "split": {"ratios": ratios_of(told), "by": "name"},
            "domain": {"ndim": 1, "periodic": False, "same_shape": False, "channels_last": True},
            "crops": {"size": size},
            "reading": {"batch_size": pool, "cells": told.of_data["batch_size"]},
        },
    }  # fmt: skip
