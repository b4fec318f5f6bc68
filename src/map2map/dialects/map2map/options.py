"""The options of map2map's command line, with its aliases and defaults."""

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["adversarial_given", "parser"]

DESCRIPTION = """\
map2map's command line. --print-recipe shows the recipe that a command line means. Beyond map2map,
--in-pad auto computes the halo from the model.
"""

ADVERSARIAL = (
    "adv_model_spectral_norm", "adv_criterion", "adv_r1_reg_interval", "adv_wgan_gp_interval",
    "adv_iter_ratio", "cgan", "adv_start", "adv_label_smoothing", "instance_noise",
    "instance_noise_batches", "adv_lr", "adv_optimizer_args",
)  # fmt: skip
"""What says nothing without ``--adv-model``."""


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
    top = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=formatter)
    modes = top.add_subparsers(title="modes", dest="mode", required=True)
    train = modes.add_parser("train", help="train a model", formatter_class=formatter)
    test = modes.add_parser("test", help="apply a model to test fields", formatter_class=formatter)
    for sub in (train, test):
        _add_common(sub)
    _add_train(train)
    add_adversarial(train)
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


def add_adversarial(train: argparse.ArgumentParser) -> None:
    """Options of adversarial training; the last two are of map2map's branch ``wgan``."""
    add = train.add_argument_group("adversarial training").add_argument
    add(
        "--adv-model", help="a discriminator, such as PatchGAN, srsgan.D, or file.name; turns it on"
    )
    add("--adv-model-spectral-norm", action="store_true", help="divide its weights by their norm")
    add("--adv-criterion", default="BCEWithLogitsLoss", help="its loss, such as WDistLoss")
    add("--adv-r1-reg-interval", type=int, default=0, help="batches between R1 penalties; 0: none")
    add("--cgan", action="store_true", help="it sees the input, too")
    add("--adv-start", type=int, default=0, help="first epoch with it, from 0")
    add("--adv-label-smoothing", type=float, default=1, help="what it learns to call the target")
    add("--instance-noise", type=float, default=0, help="first deviation of noise on what it sees")
    add("--instance-noise-batches", type=float, default=1e4, help="in so many, the noise is gone")
    add("--adv-lr", type=float, help="its learning rate; default: --lr")
    add("--adv-optimizer-args", type=json_object, help="its arguments; default: --optimizer-args")
    add("--adv-wgan-gp-interval", type=int, default=0, help="batches between slope penalties")
    add("--adv-iter-ratio", type=int, default=1, help="its steps for each one of the model")


def adversarial_given(options: argparse.Namespace) -> list[str]:
    """Options of adversarial training that have another value than their default."""
    default = argparse.ArgumentParser()
    add_adversarial(default)
    return [
        f"--{name.replace('_', '-')}"
        for name in ADVERSARIAL
        if getattr(options, name) != default.get_default(name)
    ]
