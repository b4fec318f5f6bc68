"""The keys of the collection's YAML files, with their defaults."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import TextWrapper
from typing import Any

from map2map.errors import RecipeError, near_names

__all__ = ["COMMANDS", "Settings", "keys_told", "settings_of"]

log = logging.getLogger(__name__)

COMMANDS = ("fit", "validate", "test", "predict")
"""What can be done with a file; each may have a section of its own in it."""

UNET = {"in_channels": 1, "out_channels": 1, "n_levels": 3, "n_features_root": 32, "lr": 1e-4}
GRAPH = {"in_channels": 1, "hidden_channels": 32, "out_channels": 1, "num_layers": 4,
         "dropout": 0.5, "lr": 1e-4}  # fmt: skip
LEARNT = {"data_path": None, "lr": 1e-4}
"""``data_path`` is linked to that of the data."""

PANGU: dict[str, Any] = {
    "plevel_patch_size": [2, 4, 4], "token_size": 192, "layer_depth": [2, 6], "num_heads": [6, 12],
    "window_size": [2, 6, 12], "dropout_rate": 0.0, "lam": False, "checkpoint_activation": False,
    "add_const2": False, "norm_cst_mask": False, "mean_file": None, "stddev_file": None,
    "wl_norm": False, "criterion": "torch.nn.L1Loss", "loss_weight": 0.25,
    "plevel_variable_weights": None, "surface_variable_weights": None, "lr": 5e-4,
    "weight_decay": 3e-6, "use_scheduler": False,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "LitUnet3D": UNET | {"bilinear": False},
    "LitGCN": GRAPH | {"jk": "last"},
    "LitGAT": GRAPH | {"jk": "last", "heads": 8},
    "LitGIN": GRAPH,
    "LitGraphUNet": {"in_channels": 1, "hidden_channels": 32, "out_channels": 1, "depth": 4,
                     "pool_ratios": 0.5, "lr": 1e-4},
    "LitMLP": LEARNT | {"in_channels": 191, "hidden_channels": 256, "out_channels": 126},
    "LitCNN": LEARNT | {"in_channels": 5, "init_feat": 16, "conv_size": 1, "pool_size": 2,
                        "out_channels": 126},
    "LitUnet1D": UNET | LEARNT | {"in_channels": 47, "out_channels": 6, "bilinear": False},
    "PanguModule": PANGU,
}  # fmt: skip

CHANNELS = ("in_channels", "out_channels")
"""What these are follows from the data; another number than the default fits none of them."""

LINKED = {
    "latitude": "from the store", "longitude": "from the store",
    "surface_variables": "from data.init_args.surface_variables",
    "plevel_variables": "from data.init_args.plevel_variables",
    "plevels": "from data.init_args.plevels",
    "constant_masks": "from data.init_args.constant_mask_list",
    "time_step": "from data.init_args.train_time_step",
}  # fmt: skip
"""Arguments of Pangu's model that the collection takes from the data."""

NOT_NEEDED = {"graph_topology": "edges are made of the shape of the grid, when they are needed"}
"""Arguments of graph networks that the collection takes from the data, and why they do not act."""

SAVED = {
    "optimizer": "model.optimizer",
    "lr_scheduler": "model.schedule",
    "weights_only": "",
    "verbose": "",
}
"""Keys of the files that Lightning saves, and where what they mean is in a recipe."""

LOADED = {"batch_size": 1, "num_workers": 0}
RATIOS = {"splitting_ratios": [0.8, 0.1, 0.1]}
FLAMES = LOADED | RATIOS | {"data_path": "./data", "source_raw_data_path": None}

DATA: dict[str, dict[str, Any]] = {
    "CnfCombustionDataModule": FLAMES
    | {"y_normalizer": 342.553, "subblock_shape": None, "shuffling": True},
    "CnfDataModule": FLAMES | {"y_normalizer": 342.553},
    "R2DataModule": FLAMES | {"y_normalizer": 3295.4},
    "NOGWDDataModule": LOADED
    | {"data_path": "./data", "batch_size": 256, "splitting_file": "filenames-split.yaml",
       "shard_len": None},
    "LitThreeDCorrectionDataModule": LOADED
    | RATIOS
    | {"data_path": "./data/processed", "batch_size": 256},
    "ERA5DataModule": {
        "zarr_store": None, "train_time": "slice('1979', '2017')", "val_time": "2019",
        "test_time": ["2018", "2020", "2021"], "train_time_step": 6, "test_time_step": 6,
        "surface_variables": ["10m_u_component_of_wind", "10m_v_component_of_wind",
                              "2m_temperature", "mean_sea_level_pressure"],
        "plevel_variables": ["geopotential", "specific_humidity", "temperature",
                             "u_component_of_wind", "v_component_of_wind"],
        "plevels": [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000],
        "constant_mask_list": ["geopotential_at_surface", "land_sea_mask", "soil_type"],
        "chunks": "auto", "batch_size": 16, "num_workers": 16,
    },
}  # fmt: skip

OF = {
    "CnfCombustionDataModule": {"LitUnet3D"},
    "CnfDataModule": {"LitGCN", "LitGAT", "LitGIN", "LitGraphUNet"},
    "R2DataModule": {"LitGCN", "LitGAT", "LitGIN", "LitGraphUNet"},
    "NOGWDDataModule": {"LitMLP", "LitCNN"},
    "LitThreeDCorrectionDataModule": {"LitUnet1D"},
    "ERA5DataModule": {"PanguModule"},
}
"""The models that go with data."""

ELSEWHERE = {
    "MockERA5DataModule": "it is random numbers on 721 x 1440 cells, of which nothing can be "
    "learnt. `m2m simulate vortex_weather --out data` makes a weather; read it by data.class_path: "
    "data.ERA5DataModule with zarr_store: data/weather.zarr, plevels: [250, 500, 700, 850], "
    "train_time, val_time and test_time of 2019-01-01 to 2019-03-16, and the model's mean_file: "
    "data/mean.nc and stddev_file: data/std.nc",
    "LitCombustionDataModule": "later files of the collection say what its data are: "
    "data.R2DataModule or data.CnfDataModule",
    "PanguModel": "it is the network alone; name the module that trains it, "
    "transformer_module.PanguModule",
}
"""Why a class is not read."""


WRAPPER = TextWrapper(96, " " * 4, " " * 4, break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Settings:
    """What a file says.

    Args:
        model: Name of its class.
        data: Likewise.
        of_model: Its arguments, with defaults.
        of_data: Likewise.
        trainer: Lightning's arguments, as they are.
        seed: Of everything random.
        checkpoint: What is gone on from or tested, ``ckpt_path``.
    """

    model: str
    data: str
    of_model: Mapping[str, Any]
    of_data: Mapping[str, Any]
    trainer: Mapping[str, Any]
    seed: int
    checkpoint: str | None = None


def settings_of(given: Mapping[str, Any]) -> Settings:
    """What a file says, with defaults.

    Raises:
        RecipeError: If a key or class is not known, or classes do not go together.
    """
    known = ("seed_everything", "trainer", "model", "data", "ckpt_path")
    for key, value in given.items():
        if key in SAVED:
            if SAVED[key] and value is not None:
                raise RecipeError(
                    f"`{key}` is accepted by the collection and used by none of its modules; write "
                    f"it into a recipe (--print-recipe), as {SAVED[key]}"
                )
            log.info("%s is not needed", key)
            continue
        if key not in known:
            raise RecipeError(f"there is no key {key}{near_names(str(key), known)}")
    model, of_model = class_of(given, "model", MODELS)
    data, of_data = class_of(given, "data", DATA)
    if model not in OF[data]:
        raise RecipeError(
            f"{model} does not go with {data}, which is for {' and '.join(sorted(OF[data]))}"
        )
    path = of_model.get("data_path")
    if path is not None and str(path) != str(of_data["data_path"]):
        raise RecipeError(
            f"model.init_args.data_path is {path}, but the collection takes it from the data, "
            f"where it is {of_data['data_path']}; leave it out"
        )
    trainer = given.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        raise RecipeError(f"`trainer` is {trainer!r}, but must be arguments of Lightning's Trainer")
    seed = given.get("seed_everything", True)
    if not isinstance(seed, int):
        raise RecipeError(f"`seed_everything` is {seed!r}, but must be a whole number")
    usual = 1978 if model == "PanguModule" else 0
    checkpoint = given.get("ckpt_path")
    return Settings(
        model,
        data,
        of_model,
        of_data,
        trainer,
        usual if seed is True else int(seed),
        None if checkpoint is None else str(checkpoint),
    )


def class_of(
    given: Mapping[str, Any], side: str, known: Mapping[str, Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """The class of a side, and its arguments with defaults."""
    section = given.get(side)
    path = section.get("class_path") if isinstance(section, Mapping) else None
    if not isinstance(path, str) or section is None:
        raise RecipeError(f"{side}.class_path is missing; it is one of {', '.join(known)}")
    name = path.rpartition(".")[2]
    if name in ELSEWHERE:
        raise RecipeError(f"{side} {path} is not read: {ELSEWHERE[name]}")
    if name not in known:
        raise RecipeError(
            f"there is no {side} {path}{near_names(name, known)}; a LightningModule of your own is "
            f"trained by m2m fit"
        )
    for key in section:
        if key not in ("class_path", "init_args"):
            raise RecipeError(f"there is no key {side}.{key}; arguments are in {side}.init_args")
    arguments = section.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise RecipeError(f"{side}.init_args is {arguments!r}, but must be keys with values")
    for key, value in arguments.items():
        where = f"{side}.init_args.{key}"
        if why := linked(name, key, value, where):
            log.info("%s is not needed: %s", where, why)
            continue
        if key not in known[name]:
            raise RecipeError(
                f"{name} has no argument {key}{near_names(str(key), known[name])} ({where})"
            )
        check(where, value, known[name][key], fixed=key in CHANNELS)
    return name, {**known[name], **{k: v for k, v in arguments.items() if k in known[name]}}


def linked(name: str, key: str, value: Any, where: str) -> str | None:
    """Why an argument is not needed that the collection takes from the data; None if it is none.

    Raises:
        RecipeError: If it has a value that would not act.
    """
    if name == "PanguModule" and key in LINKED:
        if value is None:
            return f"it is taken {LINKED[key]}"
        raise RecipeError(f"{where} is not given: it is taken {LINKED[key]}; leave it out")
    return NOT_NEEDED.get(key) if name in OF["R2DataModule"] else None


def check(where: str, value: Any, usual: Any, *, fixed: bool = False) -> None:
    """Refuse a value of another kind than the default, or another value of what is fixed.

    Raises:
        RecipeError: If it is one.
    """
    if fixed and value != usual:
        raise RecipeError(f"{where} is {value!r}, but the data of this use case have {usual}")
    kind = type(usual)
    if kind is bool and not isinstance(value, bool):
        raise RecipeError(f"{where} is {value!r}, but must be true or false")
    if kind is int and (not isinstance(value, int) or isinstance(value, bool)):
        raise RecipeError(f"{where} is {value!r}, but must be a whole number")
    if kind is float:
        number(where, value)


def number(where: str, value: Any) -> float:
    """A number, also as YAML does not read it: 1e-4.

    Raises:
        RecipeError: If it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where} is {value!r}, but must be a number") from error


def keys_told() -> str:
    """All keys with their defaults, for the help."""
    lines = ["keys, with their defaults (- : none):"]
    for side, classes in (("model", MODELS), ("data", DATA)):
        for name, arguments in classes.items():
            texts = [f"{key} {shown(value)}" for key, value in arguments.items()]
            lines += [f"  {side} {name}:", WRAPPER.fill(", ".join(texts))]
    lines += [
        "  trainer: arguments of Lightning's Trainer",
        "  seed_everything 0 (of PanguModule 1978), ckpt_path -",
    ]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)
