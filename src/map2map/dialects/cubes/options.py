"""The configuration of the gravity classifiers, and what they have in code only, as options."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path
from typing import Any

from map2map.errors import RecipeError, near_names
from map2map.yaml_files import load_yaml

__all__ = ["ARCHITECTURES", "Settings", "locate", "parser", "read_settings"]

DESCRIPTION = """\
Train a network that tells cubes of Newton's gravity from those of general relativity, slice by
slice, as a YAML file of the gravity classifiers says. The same command again trains as many epochs
more. --print-recipe shows the recipe that the file means. Options are what the original has in its
code only.
"""

ARCHITECTURES = {
    "racoon": "Racoon", "raccoon": "Racoon", "penguin": "Penguin", "p": "Penguin", "paco": "Paco",
}  # fmt: skip
"""Names of the architectures, in any case, and the models."""

SECTIONS: Mapping[str, Mapping[str, type]] = {
    "model_params": {"architecture": str, "layer_param": int, "dropout": float, "name": str},
    "data_params": {
        "datafile": str, "train_seeds": int, "test_seeds": int, "newton_augmentation": float,
    },
    "train_params": {"epochs": int, "lr": float, "log_dir": str},
}  # fmt: skip
"""The keys of the YAML file and what they are."""


@dataclass(frozen=True)
class Settings:
    """What the YAML file says.

    Args:
        architecture: As typed; one of `ARCHITECTURES` in any case.
        layer_param: Width of the network.
        dropout: Share of the values that training sets to zero.
        name: Prefix of the model's name.
        datafile: A file of cubes, or a folder of files.
        train_seeds: How many seeds are trained on, from 0.
        test_seeds: How many are tested on, those that follow.
        newton_augmentation: What standardized Newtonian cubes are multiplied by.
        epochs: Epochs of this session, after those of earlier ones.
        lr: Learning rate.
        log_dir: Folder of TensorBoard logs.
    """

    architecture: str
    layer_param: int
    dropout: float
    name: str
    datafile: str
    train_seeds: int
    test_seeds: int
    newton_augmentation: float
    epochs: int
    lr: float
    log_dir: str

    def __post_init__(self) -> None:
        if self.architecture.lower() not in ARCHITECTURES:
            raise RecipeError(
                f"there is no architecture {self.architecture!r}"
                f"{near_names(self.architecture, ARCHITECTURES)}"
            )
        for key in ("layer_param", "train_seeds", "test_seeds", "epochs"):
            if getattr(self, key) < 1:
                raise RecipeError(f"{key} is {getattr(self, key)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.lr <= 0:
            raise RecipeError(f"lr is {self.lr}; it must be above 0")
        if not self.name.strip():
            raise RecipeError(
                f"model_params.name is {self.name!r}; it is the first part of the model's name, "
                f"and must not be empty"
            )
        if "/" in self.name:
            raise RecipeError(
                f"model_params.name {self.name!r} becomes part of a file name; leave the / out"
            )

    @property
    def model(self) -> str:
        """The class of the network."""
        return ARCHITECTURES[self.architecture.lower()]

    @property
    def model_name(self) -> str:
        """What states and logs are called.

        It does not tell the learning rate, nor on which seeds is tested.
        """
        dataname = Path(self.datafile).name.partition(".")[0]
        return (
            f"{self.name}_{dataname}_{self.architecture}_lp{self.layer_param}_do{self.dropout}"
            f"_na{self.newton_augmentation}_ts{self.train_seeds}"
        )

    @property
    def log_name(self) -> str:
        """What its folder in ``log_dir`` is called."""
        return f"{self.model_name}_lr{self.lr}"


def locate(argument: str) -> Path:
    """The YAML file that an argument means: in ``configurations``, or else where it says.

    Raises:
        RecipeError: If there is none.
    """
    name = argument.removesuffix(".yaml") + ".yaml"
    places = [Path("configurations") / name, Path(name)]
    for path in places:
        if path.is_file():
            return path
    others = [
        path.stem for path in (*Path("configurations").glob("*.yaml"), *Path().glob("*.yaml"))
    ]
    near = near_names(Path(name).stem, others) if others else ""
    raise RecipeError(f"there is neither {places[0]} nor {places[1]}{near}")


def read_settings(path: Path) -> Settings:
    """Read a YAML file, in which every key must be, and no other.

    Raises:
        RecipeError: If a section or key is missing, unknown or there twice, or a value is not
            allowed.
    """
    try:
        entries = load_yaml(path.read_text(), path)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, dict):
        raise RecipeError(f"{path} has no sections; there must be {', '.join(SECTIONS)}")
    unknown = [name for name in entries if name not in SECTIONS]
    if unknown:
        raise RecipeError(
            f"{path} has an unknown section {unknown[0]!r}{near_names(str(unknown[0]), SECTIONS)}"
        )
    values = {}
    for section, keys in SECTIONS.items():
        inside = entries.get(section)
        if not isinstance(inside, dict):
            raise RecipeError(
                f"{path} has no section {section}, in which {', '.join(keys)} are needed"
            )
        for key in inside:
            if key not in keys:
                raise RecipeError(
                    f"{path}: there is no key {section}.{key}{near(str(key), section)}"
                )
        for key, kind in keys.items():
            if inside.get(key) is None:
                raise RecipeError(f"{path} lacks {section}.{key}; all keys are needed")
            values[key] = cast(f"{section}.{key}", inside[key], kind)
    return Settings(**values)


def near(key: str, section: str) -> str:
    """Where an unknown key may belong."""
    for other, keys in SECTIONS.items():
        if key in keys:
            return f"; it belongs to {other}"
    return near_names(key, SECTIONS[section])


def cast(key: str, value: Any, kind: type) -> Any:
    """A value as the original takes it; but a number is not cut off to a whole one.

    Raises:
        RecipeError: If it cannot be one.
    """
    names = {int: "a whole number", float: "a number", str: "a text"}
    try:
        if isinstance(value, bool | list | dict):
            raise TypeError
        made = whole(value) if kind is int else kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        fraction = isinstance(value, float) and isfinite(value)
        near = f"; give {floor(value)} or {floor(value) + 1}" if kind is int and fraction else ""
        raise RecipeError(f"{key} is {value!r}, but must be {names[kind]}{near}") from error
    if isinstance(made, float) and not isfinite(made):
        raise RecipeError(f"{key} is {value!r}, but must be finite")
    return made


def whole(value: Any) -> int:
    """A whole number; one with a fraction is none."""
    made = int(value)
    if made != float(value):
        raise ValueError(value)
    return made


def truth(text: str) -> bool:
    """True or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def devices(text: str) -> int | str:
    """A number of devices, or all."""
    return text if text == "auto" else int(text)


def parser(prog: str = "m2m cubes") -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    add = made.add_argument
    add(
        "config",
        help="a YAML file, with or without .yaml, in the folder configurations or where it says",
    )
    add("--print-recipe", action="store_true", help="print the recipe that this means, and stop")
    # fmt: off
    add = made.add_argument_group("data").add_argument
    add("--redshift", type=float, metavar="Z", help="of which snapshot, in a folder of several")
    add("--stats", type=Path, metavar="FILE",
        help=".npy file of [mean, std, var] or [mean, var] that cubes are standardized with; "
        "default: cubes that are standardized stay as they are, others by the training seeds")
    add("--stride", type=int, default=1,
        help="from slice to slice, up to a cube's size; default: 1")
    add("--augment", type=truth, default=True, metavar="true|false",
        help="turn and mirror slices at random in training; default: true")
    add("--smoothing", type=float, default=0.0, metavar="SHARE",
        help="probability, below 0.5, that labels leave to the other class in training "
        "(target_noise); default: 0")
    add("--memory", metavar="SIZE", help="cubes that together take no more are read once, and kept "
        "in memory, such as 8GiB; default: 0.7 of what is free")
    add("--workers", type=int, metavar="N",
        help="threads that read ahead; default: as many as GPUs, at least 1")
    add = made.add_argument_group("network").add_argument
    add("--activation", default="leaky_relu", metavar="NAME",
        help="behind every layer but the last: leaky_relu (of slope 0.2), relu, elu, silu, gelu, "
        "tanh or another of PyTorch; default: leaky_relu")
    add("--head", default="flatten", choices=("flatten", "pool"),
        help="in front of the linear layers: features as they are, for slices of 64, 128, … cells "
        "a side; or averaged to those of 256 cells, for any size from 64 on (PACO: from 8 on); "
        "default: flatten")
    add = made.add_argument_group("training").add_argument
    add("--batch-size", "--slices-per-batch", type=int, metavar="N",
        help="slices per step and device, at least 2; default: as many as give the steps of "
        "the original")
    add("--weight-decay", type=float, metavar="X", help="at least 0; default: 1e-11, of PACO 1e-8")
    add("--betas", type=float, nargs=2, default=[0.5, 0.999], metavar="B",
        help="decay of Adam's moments, each below 1; default: 0.5 0.999")
    add("--test-every", type=int, default=2, metavar="N",
        help="epochs from test to test; the last of a session is tested, too; default: 2")
    add("--seed", type=int, default=42, help="of everything random, at least 0; default: 42")
    add("--devices", type=devices, default="auto", metavar="N",
        help="how many GPUs, or processes on the CPU; default: all GPUs, or one CPU")
    # fmt: on
    return made
