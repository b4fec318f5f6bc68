"""The keys of the collection's YAML files, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from map2map.errors import RecipeError, near_names

__all__ = ["Settings", "settings_of"]

UNET = {"in_channels": 1, "out_channels": 1, "n_levels": 3, "n_features_root": 32, "lr": 1e-4}
GRAPH = {"in_channels": 1, "hidden_channels": 32, "out_channels": 1, "num_layers": 4,
         "dropout": 0.5, "lr": 1e-4}  # fmt: skip
LEARNT = {"data_path": None, "lr": 1e-4}
"""``data_path`` is linked to that of the data, so it is read and forgotten."""

MODELS: dict[str, dict[str, Any]] = {
    "LitUnet3D": UNET | {"bilinear": False},
    "LitGCN": GRAPH | {"jk": "last"},
    "LitGAT": GRAPH | {"jk": "last", "heads": 8},
    "LitGIN": GRAPH,
    "LitGraphUNet": {"in_channels": 1, "hidden_channels": 32, "out_channels": 1, "depth": 4,
                     "pool_ratios": 0.5, "lr": 1e-4},
    "LitMLP": LEARNT | {"in_channels": 191, "hidden_channels": 256, "out_channels": 126},
    "LitCNN": LEARNT | {"in_channels": 191, "init_feat": 16, "conv_size": 1, "pool_size": 2,
                        "out_channels": 126},
    "LitUnet1D": UNET | LEARNT | {"in_channels": 47, "out_channels": 6, "bilinear": False},
}  # fmt: skip

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
}  # fmt: skip

OF = {
    "CnfCombustionDataModule": {"LitUnet3D"},
    "CnfDataModule": {"LitGCN", "LitGAT", "LitGIN", "LitGraphUNet"},
    "R2DataModule": {"LitGCN", "LitGAT", "LitGIN", "LitGraphUNet"},
    "NOGWDDataModule": {"LitMLP", "LitCNN"},
    "LitThreeDCorrectionDataModule": {"LitUnet1D"},
}
"""The models that go with data."""

ELSEWHERE = {
    "PanguModel": "weather_step", "ERA5DataModule": "weather_step",
    "MockERA5DataModule": "weather_step",
}  # fmt: skip
"""What a recipe does instead."""


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
    """

    model: str
    data: str
    of_model: Mapping[str, Any]
    of_data: Mapping[str, Any]
    trainer: Mapping[str, Any]
    seed: int


def settings_of(given: Mapping[str, Any]) -> Settings:
    """What a file says, with defaults.

    Raises:
        RecipeError: If a key or class is not known, or classes do not go together.
    """
    known = ("seed_everything", "trainer", "model", "data")
    for key in given:
        if key in ("optimizer", "lr_scheduler"):
            name = "optimizer" if key == "optimizer" else "schedule"
            raise RecipeError(
                f"`{key}` is accepted by the collection and used by none of its modules; write it "
                f"into a recipe (--print-recipe), as model.{name}"
            )
        if key not in known:
            raise RecipeError(f"there is no key {key}{near_names(str(key), known)}")
    model, of_model = class_of(given, "model", MODELS)
    data, of_data = class_of(given, "data", DATA)
    if model not in OF[data]:
        raise RecipeError(
            f"{model} does not go with {data}, which is for {' and '.join(sorted(OF[data]))}"
        )
    trainer = given.get("trainer") or {}
    seed = given.get("seed_everything", 0)
    return Settings(model, data, of_model, of_data, trainer, 0 if seed is True else int(seed))


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
        raise RecipeError(
            f"{side} {path} is not read; the recipe {ELSEWHERE[name]!r} does the same (`m2m "
            f"recipes {ELSEWHERE[name]}`)"
        )
    if name not in known:
        raise RecipeError(
            f"there is no {side} {path}{near_names(name, known)}; a LightningModule of your own is "
            f"trained by m2m fit"
        )
    arguments = section.get("init_args") or {}
    for key in arguments:
        if key not in known[name]:
            raise RecipeError(
                f"{name} has no argument {key}{near_names(str(key), known[name])} "
                f"({side}.init_args.{key})"
            )
    return name, {**known[name], **arguments}
