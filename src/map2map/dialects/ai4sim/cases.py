"""What the collection's use cases mean as recipes; of the weather see `weather`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import yaml

from map2map.dialects.ai4sim.settings import Settings, number, settings_of
from map2map.dialects.ai4sim.trainers import output_of, trainer_of
from map2map.dialects.ai4sim.weather import weather
from map2map.errors import RecipeError, SourceError
from map2map.patterns import some

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
"""Columns that are read together."""

POOL = 48
"""Slices of columns that are mixed."""


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


def field(name: str, units: str) -> dict[str, str]:
    """A field of a recipe."""
    return {"name": name, "kind": "scalar", "units": units}


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
        "split": {"ratios": list(told.of_data["splitting_ratios"])},
        "crops": {"size": block, "halo": 0},
        # the copy of the last plane is not read; graphs end at the edges of the grid
        "domain": {"ndim": 3, "periodic": on_grid, "pad": "model", "same_shape": False}
        | ({"skip": 1} if on_grid else {}),
        "reading": {"batch_size": told.of_data["batch_size"]},
    }
    if block:
        # drawn anew in every epoch
        data["augment"] = {"shift": list(block)}
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
        names = named(listed, yaml.safe_load(listed.read_text(encoding="utf-8")), folder)
    else:
        names = sorted(str(path) for path in folder.glob("*.h5"))
    if not names:
        raise SourceError(f"there are no files {folder}/*.h5; real data are at {WHERE[told.data]}")
    return names


def named(listed: Path, names: Any, folder: Path) -> list[str]:
    """The files that a list names."""
    if not isinstance(names, list) or not names:
        raise RecipeError(f"{listed} is no list of names of files")
    missing = [str(name) for name in names if not (folder / str(name)).is_file()]
    if missing:
        raise SourceError(f"{listed} names files that are not in {folder}: {some(missing)}")
    return [str(folder / str(name)) for name in names]


def drag(told: Settings, root: Path) -> Recipe:
    """Drag of gravity waves, column by column."""
    listed = root / told.of_data["splitting_file"]
    try:
        given = yaml.safe_load(listed.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SourceError(
            f"cannot read the split {listed} (data.init_args.splitting_file): {error}"
        ) from error
    if not isinstance(given, Mapping) or not set(given) >= {"train", "val", "test"}:
        raise RecipeError(f"{listed} has the keys train, val and test, each a list of files")
    sides = {side: named(listed, given[side], root / "raw") for side in ("train", "val", "test")}
    shape = rows_of(sides["train"][0])
    if told.of_data["shard_len"] is not None:
        log.info("shard_len is not needed: rows are counted from the files")
    of, inputs = told.of_model, [{"levels": 63, "features": 3}, {"levels": 1, "features": 2}]
    model: dict[str, Any] = {"class_path": "map2map.models.ColumnMLP",
                             "init_args": {"width": of.get("hidden_channels")}}  # fmt: skip
    if told.model == "LitCNN":
        arguments = {"inputs": inputs, "width": of["init_feat"], "kernel_size": of["conv_size"]}
        model = {"class_path": "map2map.models.ColumnCNN",
                 "init_args": arguments | {"pool": of["pool_size"]}}  # fmt: skip
    size = min(shape[0], ROWS) if len(shape) == 1 else None
    return {
        "model": {
            "inputs": [field("x", "1")],
            "targets": [field("y", "1")],
            "norms": {
                "x": {"class_path": "map2map.norms.Standardize"},
                "y": {"class_path": "map2map.norms.Scale", "init_args": {"by": "largest_std"}},
            },
            "model": model,
        },
        "data": {
            **{
                side: {name: {"pattern": files, "variable": name} for name in ("x", "y")}
                for side, files in sides.items()
            },
            "domain": {"ndim": len(shape), "periodic": False, "same_shape": False},
            "crops": {"size": size},
            "reading": {"batch_size": POOL, "cells": told.of_data["batch_size"]},
        },
    }


def rows_of(path: str) -> tuple[int, ...]:
    """The shape of the rows of a file, behind the axis of features."""
    try:
        with h5py.File(path) as file:
            return tuple(file["x"].shape[1:])
    except (OSError, KeyError) as error:
        raise SourceError(f"cannot read `x` of {path}: {error}") from error


def radiation(told: Settings, root: Path) -> Recipe:
    """What the sides of clouds do to radiation, from a stack of npy files."""
    shards = sorted((root / "x").glob("*.npy"))
    if not shards:
        raise SourceError(f"there are no {root}/x/*.npy; real data are at "
                          f"{WHERE[told.data]}")  # fmt: skip
    inputs = {"levels": 138, "features": 47, "level_first": True}
    outputs = {"levels": 138, "features": 6, "level_first": True}
    # a linear head: differences of fluxes have both signs, which the collection's could not give
    model = unet("ColumnUNet", told, inputs=[inputs], outputs=[outputs], head=True)
    return {
        "model": {
            "inputs": [field("x", "1")],
            "targets": [field("y", "1")],
            "norms": {
                "x": {"class_path": "map2map.norms.Standardize", "init_args": {"constants": True}},
                "y": {"class_path": "map2map.norms.Identity"},
            },
            "model": model,
        },
        "data": {
            "train": {
                name: {"pattern": str(root / name / "{shard}.npy")} for name in ("x", "y")
            },
            "split": {"ratios": list(told.of_data["splitting_ratios"]), "by": "name"},
            "domain": {"ndim": 1, "periodic": False, "same_shape": False, "channels_last": True},
            "crops": {"size": None},
            "reading": {"batch_size": POOL,
                        "cells": told.of_data["batch_size"]},
        },
    }  # fmt: skip
