"""What a command line of map2map's means, as a recipe."""

import argparse
import os
import warnings
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

from map2map.dialects.map2map.options import adversarial_given
from map2map.errors import RecipeError, near_names

__all__ = ["drop_none", "recipe"]


ELSEWHERE = {
    "srsgan.G": "map2map.models.SRGenerator",
    "srsgan.D": "map2map.models.SRDiscriminator",
    "patchgan.PatchGAN": "map2map.models.PatchGAN",
    "patchgan.PatchGAN42": "map2map.models.PatchGAN42",
    "DiceLoss": "map2map.losses.Dice",
    "dice.DiceLoss": "map2map.losses.Dice",
    "WDistLoss": "map2map.losses.Wasserstein",
    "adversary.WDistLoss": "map2map.losses.Wasserstein",
    "wasserstein.WDistLoss": "map2map.losses.Wasserstein",
}
"""What map2map calls otherwise, or what is elsewhere."""


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

        found = None
        if name in ELSEWHERE:
            package, _, attribute = ELSEWHERE[name].rpartition(".")
            found = load_from_packages(attribute, [package])
        found = found or load_from_packages(name, packages)
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
            names |= {old for old, new in ELSEWHERE.items() if new.startswith(f"{package}.")}
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


CRITERIA = ["torch.nn", "map2map.models", "map2map.losses"]
"""Where losses are looked up."""

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
    from map2map.specs import import_path
    from map2map.usercode import load_from_folder

    near = near_names(name, NORMS)
    mine = names.folder is not None and (names.folder / f"{name.partition('.')[0]}.py").is_file()
    if "." not in name or names.folder is None or ("did you" in near and not mine):
        raise RecipeError(
            f"no norm {name!r}{near}; your own are found as file.name with --callback-at FOLDER"
        )
    found = load_from_folder(name, names.folder)
    if isinstance(found, type):
        # one of ours, which knows its inverse
        return {"class_path": import_path(found), "init_args": misc.take({}, everything=True)}
    return {
        "class_path": "map2map.norms.FunctionNorm",
        "init_args": {
            "function": f"map2map_callback.{name}",
            "name": name,
            "arguments": misc.take({}, everything=True),
        },
    }


def model_spec(
    name: str, options: argparse.Namespace, names: Names, misc: Misc, what: str = "model"
) -> dict[str, Any]:
    """A network as a recipe writes it."""
    import inspect

    from map2map.specs import import_object

    path = names.find(name, ["map2map.models"], what)
    cls = import_object(path)
    if path.startswith("map2map_callback."):
        # map2map calls models so, and they must take any keyword
        extra = {"scale_factor": options.scale_factor} | misc.take({}, everything=True)
        return {"class_path": path, "dict_kwargs": extra}
    own = set(inspect.signature(cls).parameters) - {"in_chan", "out_chan", "ndim"}
    arguments = misc.take({key: key for key in own - {"scale_factor"}})
    if "scale_factor" in own:
        arguments["scale_factor"] = options.scale_factor
    return {"class_path": path, "init_args": arguments}


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
        RecipeError: If a name is unknown, or an option without effect.
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
        "model": model_spec(options.model, options, names, misc),
        "loss": {"class_path": names.find(options.criterion, CRITERIA, "criterion")},
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
    made: dict[str, Any] = {"model": model, "data": data}
    if options.callback_at is not None:
        made["callback_at"] = str(options.callback_at)
    if training:
        _add_training(made, options, names)
        _add_adversarial(model, options, names, misc)
    misc.check()
    return made


def _add_training(made: dict[str, Any], options: argparse.Namespace, names: Names) -> None:
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
        data["overlap"] = True
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


def _add_adversarial(
    model: dict[str, Any], options: argparse.Namespace, names: Names, misc: Misc
) -> None:
    """The discriminator, if there is one.

    Raises:
        RecipeError: If a penalty is asked for without one, or a number is out of its range.
    """
    given = adversarial_given(options)
    if options.adv_model is None:
        _tell_idle(given)
        return
    rate = options.lr if options.adv_lr is None else options.adv_lr
    arguments = options.adv_optimizer_args
    arguments = options.optimizer_args if arguments is None else arguments
    made = {
        "model": model_spec(options.adv_model, options, names, misc, "discriminator"),
        "loss": {"class_path": names.find(options.adv_criterion, CRITERIA, "criterion")},
        "optimizer": {
            "class_path": model["optimizer"]["class_path"],
            "init_args": {"lr": rate, **arguments},
        },
        "conditional": options.cgan,
        "start": options.adv_start,
        "real_label": options.adv_label_smoothing,
        "instance_noise": options.instance_noise,
        "instance_noise_batches": options.instance_noise_batches,
        "spectral_norm": options.adv_model_spectral_norm,
        # map2map takes all that is not positive as never
        "r1_interval": max(options.adv_r1_reg_interval, 0),
        # the loss between output and target is only told
        "supervised_weight": 0.0,
        "adversarial_weight": 1.0,
    }
    if options.adv_wgan_gp_interval > 0:
        made |= {"gradient_penalty": 10.0}
        made |= {"gradient_penalty_interval": options.adv_wgan_gp_interval}
    made["critic_steps"] = options.adv_iter_ratio
    path = "map2map.adversarial.Adversarial"
    model["training"] = {"class_path": path, "init_args": made}


def _tell_idle(given: Sequence[str]) -> None:
    """Refuse penalties of a discriminator that there is not; warn of other options."""
    penalties = [option for option in given if "-reg-" in option or "-gp-" in option]
    if penalties:
        raise RecipeError(
            f"{penalties[0]} penalizes a discriminator, but there is none; give it (--adv-model)"
        )
    if given:
        warnings.warn(
            f"{', '.join(given)} belong to adversarial training, which only --adv-model turns on",
            RuntimeWarning,
            stacklevel=4,
        )


def drop_none(entry: Any) -> Any:
    """Without what is not given."""
    if isinstance(entry, dict):
        return {key: drop_none(value) for key, value in entry.items() if value is not None}
    return entry
