"""Use case E, Pangu-Weather: what its files mean as a recipe."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from map2map.dialects.ai4sim.settings import Settings, number
from map2map.dialects.ai4sim.stores import Recipe, Store, dates, hours, opened_store
from map2map.errors import RecipeError
from map2map.moment_files import read_variables
from map2map.times import frames_in

__all__ = ["files_of_split", "weather"]

log = logging.getLogger(__name__)

WEIGHTS = {
    "geopotential": 3.0, "specific_humidity": 0.6, "temperature": 1.5,
    "u_component_of_wind": 0.77, "v_component_of_wind": 0.54,
    "mean_sea_level_pressure": 1.5, "10m_u_component_of_wind": 0.77,
    "10m_v_component_of_wind": 0.66, "2m_temperature": 3.0,
}  # fmt: skip
"""Of errors in the loss (Bi et al. 2023)."""


def check_splits(data: Mapping[str, Any], store: Store) -> None:
    """Refuse dates of which there are no frames, or that both splits have, and steps between them.

    Raises:
        RecipeError: If it is so.
    """
    train, val = (store.frames(key, data[key]) for key in ("train_time", "val_time"))
    both = np.intersect1d(train, val)
    if len(both):
        raise RecipeError(
            f"{len(both)} frames of data.init_args.val_time, {data['val_time']}, are of "
            f"train_time, {data['train_time']}, too, so that scores would flatter: the first of "
            f"{store.times[both[0]]}; choose other dates"
        )
    try:
        frames_in(f"{data['train_time_step']}h", store.times)
    except RecipeError as error:
        raise RecipeError(f"data.init_args.train_time_step: {error}") from error


def files_of_split(data: Mapping[str, Any], store: Store, split: str) -> Recipe:
    """Where the frames of a split are, and those a step later."""
    later = f"{hours('train_time_step', data['train_time_step'])}h"
    found: Recipe = dict(store.inputs(dates(f"{split}_time", data[f"{split}_time"])))
    for name in (*store.upper, *store.surface):
        found[f"{name}_next"] = store.files(name, later=later)
    return found


def weather(told: Settings, store: Store | None = None, alone: str | None = None) -> Recipe:
    """A step of the weather, as recipe.

    Args:
        told: The settings.
        store: What they take from their store, if it was looked at before.
        alone: A split whose frames are all there is; None: training and validation.
    """
    store = store or Store.of(told.of_data)
    of, data = told.of_model, told.of_data
    splits = {split: files_of_split(data, store, split) for split in ("train", "val")}
    if alone is None:
        check_splits(data, store)
    else:
        splits = {"train": files_of_split(data, store, alone)}
    for key in ("num_workers", "chunks"):
        if data[key] not in (0, "auto", None):
            log.info("%s is not needed: threads of the process read frames ahead", key)
    learnt = (*store.upper, *store.surface)
    rate, decay = (number(f"model.init_args.{k}", of[k]) for k in ("lr", "weight_decay"))
    return {
        "model": {
            "inputs": [scalar(name) for name in (*learnt, *store.masks)],
            "targets": [scalar(f"{name}_next") for name in learnt],
            "norms": norms(told, store),
            "model": pangu(told, store),
            "loss": loss(told, store),
            "optimizer": {
                "class_path": "torch.optim.Adam",
                "init_args": {"lr": rate, "weight_decay": decay},
            },
            **schedule(told),
        },
        "data": {
            **splits,
            # longitudes go around, unless they are of a limited area
            "domain": {"ndim": 2, "periodic": [False, not of["lam"]], "pad": "model", "frames": 1},
            "reading": {"batch_size": data["batch_size"]},
        },
    }


def scalar(name: str) -> dict[str, str]:
    """A field of a recipe: of two levels it is no vector, either."""
    return {"name": name, "kind": "scalar"}


def norms(told: Settings, store: Store) -> Recipe:
    """Norms from the files of moments, or fitted in training."""
    files = {key: told.of_model[key] for key in ("mean_file", "stddev_file")}
    absent = [key for key, path in files.items() if path is None]
    if len(absent) == 1:
        raise RecipeError(
            f"model.init_args.{absent[0]} is missing; give both mean_file and stddev_file, or none "
            f"of them"
        )
    learnt = (*store.upper, *store.surface)
    found = {name: standard(files, store, name) for name in learnt}
    found |= {f"{name}_next": found[name] for name in learnt}
    if absent:
        log.info("no mean_file and stddev_file: means and deviations are those of train_time")
    if not told.of_model["norm_cst_mask"] and "geopotential_at_surface" in store.masks:
        log.warning(
            "geopotential_at_surface is an input as it is, some 10^4 m2 s-2 beside fields of "
            "deviation 1, which is hard to learn from; model.init_args.norm_cst_mask: true "
            "standardizes masks"
        )
    if told.of_model["norm_cst_mask"]:
        with opened_store(store.path) as opened:
            for name in store.masks:
                attrs = opened[name].attrs
                values = np.asarray(opened[name].values, np.float64)
                values = values * attrs.get("scale_factor", 1) + attrs.get("add_offset", 0)
                found[name] = {
                    "class_path": "map2map.norms.Standardize",
                    "init_args": {"mean": [float(values.mean())], "std": [float(values.std())]},
                }
    return found


def standard(files: Mapping[str, Any], store: Store, name: str) -> Recipe:
    """The norm of a variable."""
    if files["mean_file"] is None:
        return {"class_path": "map2map.norms.Standardize"}
    means, deviations = (Path(str(path)) for path in files.values())
    mean, std = read_variables(means, deviations, name)
    some = store.numbers(means, name), store.numbers(deviations, name)
    arguments: Recipe = {
        "mean_file": str(means), "std_file": str(deviations), "variable": name,
    }  # fmt: skip
    if any(values is not None for values in some):
        arguments = {"mean": some[0] or mean, "std": some[1] or std}
    return {"class_path": "map2map.norms.Standardize", "init_args": arguments}


def pangu(told: Settings, store: Store) -> Recipe:
    """The network."""
    of = told.of_model
    if of["add_const2"]:
        raise RecipeError(
            "model.init_args.add_const2 asks for const2.npy, a field of the published networks "
            "that the collection does not have; say --model.add_const2 false"
        )
    if number("model.init_args.dropout_rate", of["dropout_rate"]):
        raise RecipeError("model.init_args.dropout_rate is not 0, but Pangu has no dropout here")
    if of["wl_norm"]:
        raise RecipeError("model.init_args.wl_norm is used by none of the collection's modules")
    (outer, inner), (few, many) = (pair(key, of[key]) for key in ("layer_depth", "num_heads"))
    return {
        "class_path": "map2map.models.Pangu",
        "init_args": {
            "shape": list(store.shape),
            "levels": len(store.levels),
            "surface": len(store.surface),
            "patch": of["plevel_patch_size"],
            "window": of["window_size"],
            "width": of["token_size"],
            "depths": [outer, inner, inner, outer],
            "heads": [few, many, many, few],
            "limited_area": of["lam"],
            "checkpointing": of["checkpoint_activation"],
        },
    }


def pair(key: str, value: Any) -> tuple[int, int]:
    """Two numbers, of layers of tokens and of four tokens in one."""
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value)):
        raise RecipeError(f"model.init_args.{key} is {value!r}, but must be two whole numbers")
    return value[0], value[1]


def loss(told: Settings, store: Store) -> Recipe:
    """Absolute errors, weighted."""
    of = told.of_model
    if str(of["criterion"]).rpartition(".")[2] != "L1Loss":
        raise RecipeError(
            f"model.init_args.criterion is {of['criterion']}, but must be torch.nn.L1Loss; write "
            f"another loss into the recipe (--print-recipe), as model.loss"
        )
    found = {}
    for key, names in (("plevel", store.upper), ("surface", store.surface)):
        given = of[f"{key}_variable_weights"]
        if given is None:
            unknown = [name for name in names if name not in WEIGHTS]
            if unknown:
                raise RecipeError(
                    f"{', '.join(unknown)} have no usual weight in the loss; give "
                    f"model.init_args.{key}_variable_weights, of {', '.join(names)}"
                )
            given = [WEIGHTS[name] for name in names]
        if not isinstance(given, list) or len(given) != len(names):
            raise RecipeError(
                f"model.init_args.{key}_variable_weights is {given!r}, but must be {len(names)} "
                f"numbers, of {', '.join(names)}"
            )
        where = f"model.init_args.{key}_variable_weights"
        found[key] = {f"{n}_next": number(where, w) for n, w in zip(names, given, strict=True)}
    share = number("model.init_args.loss_weight", of["loss_weight"])
    arguments = {"weights": found["plevel"], "surface": found["surface"], "surface_share": share}
    return {"class_path": "map2map.losses.WeightedL1", "init_args": arguments}


def schedule(told: Settings) -> Recipe:
    """Half a cosine over all epochs, if it is asked for."""
    if not told.of_model["use_scheduler"]:
        return {}
    epochs = told.trainer.get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise RecipeError(
            f"model.init_args.use_scheduler lowers the rate over all epochs, but "
            f"trainer.max_epochs is {epochs}; give it"
        )
    cosine = {
        "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
        "init_args": {"T_max": epochs},
    }
    return {"schedule": {"scheduler": cosine}}
