"""Gravity classifiers: a checkpoint FILE.pt of RACOON, PENGUIN or PACO.

Architecture, width, channels and the size of slices are told by the weights. What is not may be
given: --set dropout=0.5 (else what the file's name says, as in _do0.5_, or 0), --set stats=FILE.npy
([mean, std, var] or [mean, var] that cubes were standardized with; else they must be standardized
already), --set field=NAME and --set units=UNITS of the cubes (potential, 1), --set
activation=leaky_relu and --set slope=0.2 of it. What Newtonian cubes were multiplied by is told in
the card if the file's name says it, as in _na0.5_ts100.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.files import digest
from map2map.foreign_weights import Checkpoint, read_checkpoint
from map2map.grids import Domain
from map2map.imports import known_settings
from map2map.models import Paco, Penguin, Racoon
from map2map.norms import Norm, Standardize

__all__ = ["CLASSES", "SETTINGS", "read", "read_cubes_checkpoint"]

CLASSES = ("newton", "gr")
"""The classes, the positive one last."""

SETTINGS = ("dropout", "stats", "field", "units", "activation", "slope")
"""What ``--set`` takes."""

FIRST = {"Racoon": "conv2d1.0.weight", "Penguin": "conv2d1.0.weight", "Paco": "C01.weight"}
LAST = {"Racoon": "output.0.weight", "Penguin": "output.0.weight", "Paco": "FC2.weight"}
HEAD = {"Racoon": "fc1.1.weight", "Penguin": "fc1.1.weight", "Paco": "FC1.weight"}
"""Where the architectures' first and last weights are, and those behind the convolutions."""


def read_cubes_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of the original's, with the names of weights that one process has.

    Raises:
        ArtefactError: If it is missing, damaged, or no checkpoint.
    """
    found = read_checkpoint(path, key="model_state_dict")
    if not all(name.startswith("module.") for name in found.weights):
        return found
    weights = {name.removeprefix("module."): value for name, value in found.weights.items()}
    return replace(found, weights=weights)


def read(path: Path, settings: Mapping[str, str] | None = None) -> Emulator:
    """Make an emulator of a checkpoint.

    Args:
        path: The checkpoint.
        settings: What the weights do not tell, see `SETTINGS`.

    Raises:
        ArtefactError: If it is none, or of no architecture that is known.
        RecipeError: If a setting is unknown, or not allowed.
    """
    given = known_settings(settings, SETTINGS)
    checkpoint = read_cubes_checkpoint(path)
    named = re.search(r"_do(\d+(?:\.\d+)?)_", path.name)
    model = model_of(
        checkpoint.weights,
        path,
        dropout=number("dropout", given.get("dropout", named[1] if named else "0")),
        slope=number("slope", given.get("slope", "0.2")),
        activation=given.get("activation", "leaky_relu"),
    )
    name = given.get("field", "potential")
    norms: dict[str, Norm] = {}
    if "stats" in given:
        norms[name] = Standardize(file=given["stats"])
    emulator = Emulator(
        FieldSet((Field(name, given.get("units", "1"), "scalar", int(model.in_chan)),)),  # type: ignore[arg-type]
        FieldSet((Field("gravity", "1", "label", 1, classes=CLASSES),)),
        norms,
        model,
        Domain(ndim=2, planes=[0, 1, 2]),
    )
    emulator.training_record = {"imported": {"from": "cubes", "files": {path.name: digest(path)}}}
    factor = re.search(r"_na(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)_ts", path.name)
    if factor and float(factor[1]) != 1:
        emulator.training_record["class_factors"] = {CLASSES[0]: float(factor[1])}
    if checkpoint.epoch is not None:
        emulator.training_record["epochs"] = int(checkpoint.epoch)
    emulator.versions = {"map2map": version("map2map")}
    return emulator.eval()


def number(key: str, text: str) -> float:
    """A setting that is a number."""
    try:
        return float(text)
    except ValueError as error:
        raise RecipeError(f"{key} is {text!r}, but must be a number") from error


def model_of(
    weights: Mapping[str, Tensor], path: Path, *, dropout: float, slope: float, activation: str
) -> nn.Module:
    """The network that weights are of, with them.

    Raises:
        ArtefactError: If it is none of the three.
    """
    kind = architecture(weights)
    if kind is None:
        raise ArtefactError(
            f"the weights in {path} are those of no RACOON, PENGUIN or PACO; they are called "
            f"{', '.join(list(weights)[:4]) or 'nothing'}, …"
        )
    first, head, last = (weights[names[kind]] for names in (FIRST, HEAD, LAST))
    chan, classes = int(first.shape[1]), int(last.shape[0])
    width = int(first.shape[0])
    options: dict[str, Any] = {"dropout": dropout, "slope": slope, "activation": activation}
    try:
        if kind == "Paco":
            levels = (
                max(int(name[1]) for name in weights if re.fullmatch(r"C\d3\.weight", name)) + 1
            )
            options |= {"width": width // 2, "levels": levels}
            cells = round((head.shape[1] / (2 ** (levels + 1) * (width // 2))) ** 0.5)
            model: nn.Module = Paco(chan, classes, size=(cells + 3) * 2**levels, **options)
        else:
            features, cls = (8, Racoon) if kind == "Racoon" else (10, Penguin)
            cells = round((head.shape[1] / (features * width)) ** 0.5)
            model = cls(chan, classes, width=width, size=64 * cells, **options)
        model.load_state_dict(dict(weights))
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, RecipeError):
            raise
        raise ArtefactError(
            f"the weights in {path} look like {kind}'s, but are not: {' '.join(str(error).split())}"
        ) from error
    return model


def architecture(weights: Mapping[str, Tensor]) -> str | None:
    """Which architecture weights are of, by their names."""
    for kind, mark in (("Paco", "C01.weight"), ("Penguin", "conv2d6.0.weight"),
                       ("Racoon", "conv2d3.0.weight")):  # fmt: skip
        if mark in weights and all(names[kind] in weights for names in (FIRST, HEAD, LAST)):
            return kind
    return None
