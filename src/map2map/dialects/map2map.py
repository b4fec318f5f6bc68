"""map2map's command line, ``m2m.py train`` and ``m2m.py test``, translated to a recipe.

Every option, alias and default is map2map's. ``--print-recipe`` shows the recipe that a command
line means. Beyond map2map: ``--in-pad auto`` computes the halo from the model.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from glob import glob
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from map2map.errors import RecipeError, near_names
from map2map.files import replacing

__all__ = ["main", "parser", "recipe"]

log = logging.getLogger(__name__)

ADVERSARIAL = (
    "adv_model", "adv_model_spectral_norm", "adv_criterion", "adv_r1_reg_interval", "cgan",
    "adv_start", "adv_label_smoothing", "instance_noise", "instance_noise_batches", "adv_lr",
    "adv_optimizer_args",
)  # fmt: skip


def int_tuple(text: str) -> int | list[int]:
    """A whole number, or several separated by commas."""
    numbers = [int(part) for part in text.split(",")]
    return numbers if len(numbers) > 1 else numbers[0]


def int_tuple_or_auto(text: str) -> int | list[int] | str:
    """As `int_tuple`, or "auto"."""
    return text if text == "auto" else int_tuple(text)


def str_list(text: str) -> list[str]:
    """Texts separated by commas."""
    return text.split(",")


def json_object(text: str) -> dict[str, Any]:
    """Keys and values as JSON."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"{text} has no keys")
    return found


json_object.__name__ = "JSON object"
int_tuple.__name__ = int_tuple_or_auto.__name__ = "int_tuple"


def parser(prog: str = "m2m.py") -> argparse.ArgumentParser:
    """The parser of map2map's command line."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    top = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=formatter)
    modes = top.add_subparsers(title="modes", dest="mode", required=True)
    train = modes.add_parser("train", help="train a model", formatter_class=formatter)
    test = modes.add_parser("test", help="apply a model to test fields", formatter_class=formatter)
    for sub in (train, test):
        _add_common(sub)
    _add_train(train)
    _add_adversarial(train)
    group = test.add_argument_group("test")
    group.add_argument("--test-in-patterns", type=str_list, required=True, help="a glob per input")
    group.add_argument(
        "--test-tgt-patterns", type=str_list, required=True, help="a glob per target"
    )
    group.add_argument("--num-threads", type=int, help="CPU threads; default: what PyTorch chooses")
    return top


def _add_common(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--in-norms", type=str_list, help="a norm per input field, such as cosmology.dis")
    add("--tgt-norms", type=str_list, help="a norm per target field")
    add("--crop", type=int_tuple, help="crop size, input cells; default: the field")
    add("--crop-start", type=int_tuple, help="first cell of the first crop")
    add("--crop-stop", type=int_tuple, help="first cells of crops are below this")
    add("--crop-step", type=int_tuple, help="from crop to crop; default: the crop")
    add(
        "--in-pad",
        "--pad",
        type=int_tuple_or_auto,
        default=0,
        help="periodic halo of the input crop, input cells; auto: what the model needs",
    )
    add("--tgt-pad", type=int_tuple, default=0, help="halo of the target crop, target cells")
    add("--scale-factor", type=int, default=1, help="target size / input size")
    add("--model", required=True, help="such as UNet, VNet, or file.name with --callback-at")
    add("--criterion", default="MSELoss", help="a loss of torch.nn, or file.name")
    add(
        "--load-state",
        default="checkpoint.pt",
        help="state to go on from or to test; '': from scratch",
    )
    add("--load-state-non-strict", action="store_true", help="allow missing and unknown weights")
    add("--batch-size", "--batches", type=int, required=True, help="samples per batch and process")
    add("--loader-workers", type=int, default=8, help="threads that read; 0 reads when asked")
    add("--callback-at", type=lambda text: Path(text).resolve(), help="folder of your own code")
    add(
        "--misc-kwargs",
        type=json_object,
        default={},
        help='arguments of norms and model as JSON, such as {"z": 1}',
    )
    add("--print-recipe", action="store_true", help="print the recipe that this means, and stop")


def _add_train(train: argparse.ArgumentParser) -> None:
    add = train.add_argument_group("train").add_argument
    add("--train-in-patterns", type=str_list, required=True, help="a glob per input field")
    add("--train-tgt-patterns", type=str_list, required=True, help="a glob per target field")
    add("--val-in-patterns", type=str_list, help="likewise, to validate on")
    add("--val-tgt-patterns", type=str_list, help="likewise, to validate on")
    add("--augment", action="store_true", help="draw flips and permutations of the axes")
    add("--aug-shift", type=int_tuple, help="move crops by a random number of cells below this")
    add("--aug-add", type=float, help="deviation of a number added to the normalized fields")
    add("--aug-mul", type=float, help="deviation of the logarithm of a factor")
    add("--optimizer", default="Adam", help="an optimizer of torch.optim, or file.name")
    add("--lr", type=float, required=True, help="learning rate")
    add("--optimizer-args", type=json_object, default={}, help="further arguments as JSON")
    add("--reduce-lr-on-plateau", action="store_true", help="with ReduceLROnPlateau")
    add("--scheduler-args", type=json_object, default={}, help="its arguments as JSON")
    add("--init-weight-std", type=float, help="draw weights anew, with this deviation")
    add("--epochs", type=int, default=128, help="epochs in all, with those of the loaded state")
    add("--seed", type=int, default=42, help="of everything random")
    add("--div-data", action="store_true", help="divide files among processes")
    add("--div-shuffle-dist", type=float, default=1, help="how far crops move, in files")
    add("--dist-backend", choices=["gloo", "nccl"], default="nccl", help="between processes")
    add("--log-interval", type=int, default=100, help="batches between scalars")
    add("--detect-anomaly", action="store_true", help="find where NaN come from; slow")


def _add_adversarial(train: argparse.ArgumentParser) -> None:
    add = train.add_argument_group("adversarial training (not in this version)").add_argument
    add("--adv-model")
    add("--adv-model-spectral-norm", action="store_true")
    add("--adv-criterion", default="BCEWithLogitsLoss")
    add("--adv-r1-reg-interval", type=int, default=0)
    add("--cgan", action="store_true")
    add("--adv-start", type=int, default=0)
    add("--adv-label-smoothing", type=float, default=1)
    add("--instance-noise", type=float, default=0)
    add("--instance-noise-batches", type=float, default=1e4)
    add("--adv-lr", type=float)
    add("--adv-optimizer-args", type=json_object)


# --- translation -------------------------------------------------------------------------------


class Names:
    """Finds models, losses, optimizers and norms as map2map does: in packages, then callbacks."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def find(self, name: str, packages: Sequence[str], what: str) -> str:
        """The import path of a name.

        Raises:
            RecipeError: If it is in none of the packages and not in the callback folder.
        """
        from map2map.specs import import_path
        from map2map.usercode import load_from_folder, load_from_packages

        found = load_from_packages(name, packages)
        if found is None and "." in name and self.folder is not None:
            found = load_from_folder(name, self.folder)
        if found is None:
            raise RecipeError(
                f"no {what} {name!r} in {' or '.join(packages)}{self._near(name, packages)}"
                + ("" if self.folder else "; your own are found with --callback-at FOLDER")
            )
        return import_path(found)

    @staticmethod
    def _near(name: str, packages: Sequence[str]) -> str:
        from importlib import import_module

        names: set[str] = set()
        for package in packages:
            module = import_module(package)
            public = getattr(module, "__all__", dir(module))
            names |= {entry for entry in public if entry[0].isupper() or "." in entry}
        near = near_names(name, names)
        return near if near.startswith("; did") or len(names) < 12 else ""


class Misc:
    """``--misc-kwargs``: every key must be used by something."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values, self.used = dict(values), set[str]()
        self.known: set[str] = {"boxsize", "meshsize"}

    def take(self, signature: dict[str, str], *, everything: bool = False) -> dict[str, Any]:
        """Values of the keys of ``signature``, under the names that it maps them to."""
        self.known |= set(signature)
        wanted = {k: signature.get(k, k) for k in self.values if everything or k in signature}
        self.used |= set(wanted)
        return {new: self.values[old] for old, new in wanted.items()}

    def check(self) -> None:
        """Refuse keys that nothing has used."""
        unused = [key for key in self.values if key not in self.used]
        if unused:
            raise RecipeError(
                f"--misc-kwargs: nothing takes {unused[0]!r}{near_names(unused[0], self.known)}"
            )


NORMS: dict[str, tuple[str, dict[str, str]]] = {
    "identity": ("Identity", {}),
    "torch.exp": ("Exp", {}),
    "torch.log": ("Log", {"eps": "eps"}),
    "torch.expm1": ("Expm1", {}),
    "torch.log1p": ("Log1p", {"eps": "eps"}),
    "cosmology.dis": ("Displacement", {"z": "z", "dis_std": "std", "Om": "Om"}),
    "cosmology.vel": ("Velocity", {"z": "z", "dis_std": "std", "Om": "Om"}),
}
"""map2map's norms, and what of ``--misc-kwargs`` they take."""


def norm_spec(name: str, names: Names, misc: Misc) -> dict[str, Any]:
    """A norm as a recipe writes it."""
    if name in NORMS:
        cls, takes = NORMS[name]
        return {"class_path": f"map2map.norms.{cls}", "init_args": misc.take(takes)}
    from map2map.usercode import load_from_folder

    near = near_names(name, NORMS)
    mine = names.folder is not None and (names.folder / f"{name.partition('.')[0]}.py").is_file()
    if "." not in name or names.folder is None or ("did you" in near and not mine):
        raise RecipeError(
            f"no norm {name!r}{near}; your own are found as file.name with --callback-at FOLDER"
        )
    load_from_folder(name, names.folder)
    return {
        "class_path": "map2map.norms.FunctionNorm",
        "init_args": {
            "function": f"map2map_callback.{name}",
            "name": name,
            "arguments": misc.take({}, everything=True),
        },
    }


def model_spec(options: argparse.Namespace, names: Names, misc: Misc) -> dict[str, Any]:
    """The model as a recipe writes it."""
    import inspect

    from map2map.specs import import_object

    path = names.find(options.model, ["map2map.models"], "model")
    cls = import_object(path)
    if path.startswith("map2map_callback."):
        # map2map calls models so, and they must take any keyword
        extra = {"scale_factor": options.scale_factor} | misc.take({}, everything=True)
        return {"class_path": path, "dict_kwargs": extra}
    own = set(inspect.signature(cls).parameters) - {"in_chan", "out_chan", "ndim"}
    return {"class_path": path, "init_args": misc.take({key: key for key in own})}


def fields(kind: str, patterns: Sequence[str], norms: Sequence[str] | None) -> list[str]:
    """Names for fields that map2map does not name."""
    if norms is not None and len(norms) != len(patterns):
        raise RecipeError(
            f"{len(patterns)} {kind} patterns need as many norms, not {len(norms)}: {norms}"
        )
    return [f"{kind}_{i}" for i in range(len(patterns))]


def without_outputs(pattern: str) -> str | list[str]:
    """The pattern, or what it matches without the outputs of earlier tests (``x_out.npy``)."""
    paths = sorted(glob(pattern))  # noqa: PTH207
    stems = {Path(path).with_suffix("") for path in paths}
    kept = [
        path
        for path in paths
        if not path.endswith("_out.npy")
        or Path(path).with_name(Path(path).name.removesuffix("_out.npy")) not in stems
    ]
    return pattern if len(kept) == len(paths) else kept


def patterns_of(inputs: Sequence[str], targets: Sequence[str]) -> dict[str, str | list[str]]:
    """Patterns by field name."""
    sides = {"input": inputs, "target": targets}
    return {
        f"{kind}_{i}": without_outputs(pattern)
        for kind, patterns in sides.items()
        for i, pattern in enumerate(patterns)
    }


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe that a command line means.

    Raises:
        RecipeError: If a name is unknown, or an option belongs to adversarial training.
    """
    training = options.mode == "train"
    names, misc = Names(options.callback_at), Misc(options.misc_kwargs)
    in_patterns = options.train_in_patterns if training else options.test_in_patterns
    tgt_patterns = options.train_tgt_patterns if training else options.test_tgt_patterns
    inputs = fields("input", in_patterns, options.in_norms)
    targets = fields("target", tgt_patterns, options.tgt_norms)
    norms = {
        name: norm_spec(norm, names, misc)
        for name, norm in zip(
            (*inputs, *targets),
            [
                *(options.in_norms or ["identity"] * len(inputs)),
                *(options.tgt_norms or ["identity"] * len(targets)),
            ],
            strict=True,
        )
    }
    model: dict[str, Any] = {
        "inputs": [{"name": name} for name in inputs],
        "targets": [{"name": name} for name in targets],
        "norms": norms,
        "model": model_spec(options, names, misc),
        "loss": {
            "class_path": names.find(options.criterion, ["torch.nn", "map2map.models"], "criterion")
        },
    }
    data: dict[str, Any] = {
        "train": patterns_of(in_patterns, tgt_patterns),
        "crops": {
            "size": options.crop,
            "start": options.crop_start,
            "stop": options.crop_stop,
            "step": options.crop_step,
            "halo": options.in_pad,
            "target_halo": options.tgt_pad,
            "scale_factor": options.scale_factor,
        },
        "domain": {"periodic": True},
        "reading": {"batch_size": options.batch_size, "threads": options.loader_workers},
    }
    if {"boxsize", "meshsize"} <= set(options.misc_kwargs):
        box, mesh = (options.misc_kwargs[key] for key in ("boxsize", "meshsize"))
        misc.used |= {"boxsize", "meshsize"}
        data["domain"]["spacing"] = box / mesh
    misc.check()
    made: dict[str, Any] = {"model": model, "data": data}
    if options.callback_at is not None:
        made["callback_at"] = str(options.callback_at)
    if training:
        _add_training(made, options, names)
    return made


def _add_training(made: dict[str, Any], options: argparse.Namespace, names: Names) -> None:
    _refuse_adversarial(options)
    model, data = made["model"], made["data"]
    model["optimizer"] = {
        "class_path": names.find(options.optimizer, ["torch.optim"], "optimizer"),
        "init_args": {"lr": options.lr, **options.optimizer_args},
    }
    if options.reduce_lr_on_plateau:
        # PyTorch has taken `verbose` away; every epoch's line shows the rate
        arguments = {k: v for k, v in options.scheduler_args.items() if k != "verbose"}
        path = "torch.optim.lr_scheduler.ReduceLROnPlateau"
        model["schedule"] = {"scheduler": {"class_path": path, "init_args": arguments}}
    if options.init_weight_std is not None:
        model["options"] = {"init_weight_std": options.init_weight_std}
    if bool(options.val_in_patterns) != bool(options.val_tgt_patterns):
        raise RecipeError(
            "validation needs both --val-in-patterns and --val-tgt-patterns; only one is given"
        )
    if options.val_in_patterns:
        data["val"] = patterns_of(options.val_in_patterns, options.val_tgt_patterns)
    data["augment"] = {
        "symmetries": "all" if options.augment else "none",
        "shift": options.aug_shift,
        "add": options.aug_add,
        "mul": options.aug_mul,
    }
    data["reading"] |= {"local_order": options.div_data, "distance": options.div_shuffle_dist}
    data["seed"] = made["seed_everything"] = options.seed
    made["trainer"] = {
        # Lightning takes -1 as no end
        "max_epochs": max(options.epochs, 0),
        "detect_anomaly": options.detect_anomaly,
        "num_nodes": nodes(),
        "strategy": strategy(options.dist_backend),
    }
    state = options.load_state
    resume = {"": "never", "checkpoint.pt": "auto"}.get(state, state)
    made["output"] = {
        "log_interval": options.log_interval,
        "resume": resume,
        "strict": not options.load_state_non_strict,
    }


def nodes() -> int:
    """Nodes of the SLURM step or job, 1 without SLURM."""
    for name in ("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES"):
        if os.environ.get(name):
            return int(os.environ[name])
    return 1


def strategy(backend: str) -> Any:
    """Lightning's strategy: all GPUs of all nodes, or the CPU."""
    import torch

    several = (
        torch.cuda.device_count() > 1 or nodes() > 1 or int(os.environ.get("WORLD_SIZE", 1)) > 1
    )
    if not several:
        return "auto"
    usable = backend if torch.cuda.is_available() else "gloo"
    path = "lightning.pytorch.strategies.DDPStrategy"
    return {"class_path": path, "init_args": {"process_group_backend": usable}}


def _refuse_adversarial(options: argparse.Namespace) -> None:
    default = argparse.ArgumentParser()
    _add_adversarial(default)
    for name in ADVERSARIAL:
        if getattr(options, name) != default.get_default(name):
            raise RecipeError(
                f"--{name.replace('_', '-')} belongs to adversarial training, which this version "
                f"does not do yet; train without it"
            )


def drop_none(entry: Any) -> Any:
    """Without what is not given."""
    if isinstance(entry, dict):
        return {key: drop_none(value) for key, value in entry.items() if value is not None}
    return entry


def test(made: dict[str, Any], options: argparse.Namespace, prog: str) -> int:
    """Apply a state to test fields: ``*_out.npy`` and ``metrics.json`` in the current folder."""
    import torch

    from map2map.assemble import assemble
    from map2map.checkpoints import load_weights, read_state
    from map2map.commands.train import make

    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    state_path = Path(options.load_state)
    state = read_state(state_path)
    cli = make({**made, "trainer": {"logger": False}}, prog)
    task, data = cli.model, cli.datamodule
    runs = data.open(task.inputs, task.targets)
    emulator = task.build(runs, data.domain)
    strict = not options.load_state_non_strict
    load_weights(emulator.model, state["model"], state_path, strict=strict)
    log.info("model state at epoch %s loaded from %s", state.get("epoch"), state_path)
    data.resolve(emulator.footprint)
    emulator.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    batches = data.in_order("train")
    roots = common_folders(runs)
    report = assemble(
        emulator, batches, lambda path: output_path(path, roots), task.loss, aligned=data.aligned
    )
    with replacing(Path("metrics.json")) as temporary:
        temporary.write_text(json.dumps(finite(report), indent=2, allow_nan=False))
    print(f"mean loss: {report['loss']:.6g}")
    for field, scores in report["fields"].items():
        print(f"{field}: " + ", ".join(f"{name} {value:.6g}" for name, value in scores.items()))
    return 0


def finite(entry: Any) -> Any:
    """With null for scores that are not defined, because JSON knows no NaN."""
    if isinstance(entry, dict):
        return {key: finite(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [finite(value) for value in entry]
    return None if isinstance(entry, float) and not isfinite(entry) else entry


def common_folders(runs: Any) -> tuple[Path, ...]:
    """What the files of the first two runs have in common, as map2map has it, and of all runs."""
    folders = [[path.resolve().parent for path in run.paths.values()] for run in runs]
    return tuple(
        Path(os.path.commonpath([folder for run in some for folder in run]))
        for some in (folders[:2], folders)
    )


def output_path(target: Path, roots: Sequence[Path]) -> Path:
    """Where the output for a target goes: relative to the current folder, ``_out`` appended."""
    resolved = target.resolve()
    root = next(root for root in roots if resolved.is_relative_to(root))
    return resolved.relative_to(root).with_name(f"{resolved.stem}_out.npy")


def main(argv: Sequence[str], prog: str = "m2m map2map") -> int:
    """Run a command line of map2map's."""
    options = parser(prog).parse_args(argv)
    made = drop_none(recipe(options))
    if options.print_recipe:
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return 0
    if options.mode == "train":
        from map2map.commands.train import train_recipe

        return train_recipe(made, prog=f"{prog} train")
    return test(made, options, f"{prog} test")
