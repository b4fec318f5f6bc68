"""AI4SIM's model collection: a checkpoint FILE.ckpt of a U-Net, MLP, CNN or attention network.

Flames (LitUnet3D), gravity-wave drag (LitMLP, LitCNN) and radiation (LitUnet1D, the attention CNN)
are told by the weights, and so are their sizes. What is not may be given: --set stats=stats.pt of
gravity-wave drag (else x and y are taken as normalized already), --set normalizer=342.553 that
flames' targets were divided by, --set levels=138 of columns, --set heads=8 of attention, --set
ndim=2 if columns stand on a grid and not in the rows of a table. Names in checkpoints do not
matter: layers are matched by kind and order.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.files import digest
from map2map.foreign_weights import Kinds, in_order, layers_of, read_checkpoint
from map2map.grids import Domain, Pad
from map2map.imports import known_settings
from map2map.models import (
    ColumnAttention,
    ColumnCNN,
    ColumnMLP,
    ColumnUNet,
    DoubleConvUNet,
    Profile,
)
from map2map.norms import Norm, Scale, Standardize

__all__ = ["SETTINGS", "read"]

log = logging.getLogger(__name__)

SETTINGS = ("stats", "normalizer", "levels", "heads", "ndim")
"""What ``--set`` takes."""

BUFFERS = ("x_mean", "x_std")
"""Statistics of radiation's inputs that its checkpoints hold, shape (level, feature)."""

TINY = 1e-8
"""Added to deviations there."""

FLUXES = ("flux_dn", "flux_up")


@dataclass(frozen=True)
class Made:
    """What weights are of.

    Args:
        model: The network, without the weights.
        inputs: Its fields.
        targets: Likewise.
        norms: By name of the field.
    """

    model: nn.Module
    inputs: tuple[Field, ...]
    targets: tuple[Field, ...]
    norms: dict[str, Norm]


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
    checkpoint = read_checkpoint(path)
    weights = checkpoint.weights
    buffers = {name.rpartition(".")[2]: name for name in weights}
    stats = {key: weights.pop(buffers[key]) for key in BUFFERS if key in buffers}
    try:
        made = made_of(weights, stats, given)
        renamed = in_order(weights, made.model)
        if isinstance(made.model, ColumnAttention):
            renamed = mixed(renamed)
        made.model.load_state_dict(renamed)
    except (ArtefactError, RuntimeError, IndexError) as error:
        raise ArtefactError(
            f"the weights in {path} are of none of AI4SIM's networks that map2map has: "
            f"{' '.join(str(error).split())}"
        ) from error
    pad: Pad = "model" if isinstance(made.model, DoubleConvUNet) else "refuse"
    domain = Domain(int(made.model.ndim), periodic=False, pad=pad, same_shape=False)  # type: ignore[arg-type]
    emulator = Emulator(
        FieldSet(made.inputs), FieldSet(made.targets), made.norms, made.model, domain
    )
    emulator.training_record = {"imported": {"from": "ai4sim", "files": {path.name: digest(path)}}}
    if checkpoint.epoch is not None:
        emulator.training_record["epochs"] = checkpoint.epoch
    emulator.versions = {"map2map": version("map2map")}
    return emulator.eval()


def made_of(
    weights: Mapping[str, Tensor], stats: Mapping[str, Tensor], given: Mapping[str, str]
) -> Made:
    """The network that weights are of, without them, and its fields.

    Raises:
        ArtefactError: If it is none that is known.
        RecipeError: If a setting does not fit.
    """
    kinds = layers_of(weights)
    convs = [kind for kind in kinds if kind not in ("norm", ())]
    if "norm" in kinds and convs:
        # more of one than of the other, whatever was trained
        return flame(kinds, given) if len(convs[0]) == 3 else radiation(kinds, stats, given)
    linear = [leaves["weight"] for _, leaves in kinds.get((), ()) if "weight" in leaves]
    if linear and not convs:
        chans = [int(linear[0].shape[1]), *(int(w.shape[0]) for w in linear)]
        mlp = ColumnMLP(
            chans[0], chans[-1], ndim=axes(given), width=chans[1], depth=len(linear) - 1
        )
        return Made(mlp, *drag(chans[0], chans[-1], given))
    if len(linear) == 2 and convs:
        return drag_cnn(kinds, given)
    if linear and convs:
        return attention(kinds, given)
    raise ArtefactError(f"it has no linear layer and no convolution, but {list(weights)[:4]}")


def whole(given: Mapping[str, str], key: str, default: int) -> int:
    """A setting that is a whole number."""
    try:
        return int(given.get(key, default))
    except ValueError as error:
        raise RecipeError(f"{key} is {given[key]!r}, but must be a whole number") from error


def axes(given: Mapping[str, str]) -> int:
    """Axes of the grid that columns stand on."""
    return whole(given, "ndim", 1)


def u_options(kinds: Kinds) -> tuple[int, int, dict[str, Any]]:
    """Channels of the input and of the output of a U-Net, and its sizes."""
    ndim = next(len(kind) for kind in kinds if kind not in ("norm", ()))
    pairs = [leaves["weight"] for _, leaves in kinds.get((3,) * ndim, ())]
    ups, ones = (len(kinds.get((n,) * ndim, ())) for n in (2, 1))
    options = {
        "width": int(pairs[0].shape[0]),
        "levels": 1 + (ups or ones),
        "upsample": "transposed" if ups or not ones else "linear",
        "head": False,
    }
    return int(pairs[0].shape[1]), int(pairs[-1].shape[0]), options


def flame(kinds: Kinds, given: Mapping[str, str]) -> Made:
    """The sub-grid flame surface of a filtered flame, by the names of the data sets."""
    in_chan, out_chan, options = u_options(kinds)
    model = DoubleConvUNet(in_chan, out_chan, ndim=3, **options)
    inputs = (Field("filt_8", "1", "scalar", in_chan),)
    targets = (Field("filt_grad_8", "1/m", "scalar", out_chan),)
    text = given.get("normalizer", "342.553")
    try:
        norms: dict[str, Norm] = {"filt_grad_8": Scale(float(text))}
    except ValueError as error:
        raise RecipeError(f"normalizer is {text!r}, but must be a number that is not 0") from error
    return Made(model, inputs, targets, norms)


def drag(
    in_chan: int, out_chan: int, given: Mapping[str, str]
) -> tuple[tuple[Field, ...], tuple[Field, ...], dict[str, Norm]]:
    """The fields of gravity-wave drag, by the names of the data sets, and their norms."""
    norms: dict[str, Norm] = {}
    if "stats" in given:
        norms = drag_norms(Path(given["stats"]), in_chan, out_chan)
    else:
        log.warning("no --set stats=stats.pt is given, so x and y have to be normalized already")
    inputs = (Field("x", "1", "scalar", in_chan),)
    return inputs, (Field("y", "1", "scalar", out_chan),), norms


def drag_norms(path: Path, in_chan: int, out_chan: int) -> dict[str, Norm]:
    """Norms from the statistics: x by channel, y by the largest deviation of any channel."""
    found = read_checkpoint(path).weights
    for key, channels in (("x_mean", in_chan), ("x_std", in_chan), ("y_std", out_chan)):
        if key not in found or found[key].numel() != channels:
            has = {name: tuple(value.shape) for name, value in found.items()}
            raise RecipeError(f"{path} needs {key} of {channels} numbers, but has {has}")
    mean, std, scale = (found[key].double().flatten() for key in ("x_mean", "x_std", "y_std"))
    return {"x": Standardize(mean.tolist(), std.tolist()), "y": Scale(float(scale.max()))}


def drag_cnn(kinds: Kinds, given: Mapping[str, str]) -> Made:
    """Profiles of 63 levels and two scalars; pooling is what gives the linear layer its inputs."""
    weight = kinds[next(kind for kind in kinds if kind)][0][1]["weight"]
    width, features, kernel = weight.shape
    flat, out_chan = (int(n) for n in kinds[()][0][1]["weight"].T.shape)
    levels, scalars = whole(given, "levels", 63), 2
    profiles = [*[Profile(levels)] * (features - scalars), *[Profile(1)] * scalars]
    in_chan = sum(profile.channels for profile in profiles)
    for pool in range(1, levels):
        left = ((levels - kernel + 1) // pool - kernel + 1) // pool
        if left * 2 * width == flat:
            model = ColumnCNN(
                in_chan,
                out_chan,
                ndim=axes(given),
                inputs=profiles,
                width=width,
                kernel_size=kernel,
                pool=pool,
            )
            return Made(model, *drag(in_chan, out_chan, given))
    raise ArtefactError(
        f"no pooling leaves {flat} numbers of {levels} levels and {2 * width} channels; give "
        f"--set levels=N"
    )


GROUPS = {"hl_inputs": 2, "inter_inputs": 1, "col_inputs": 27, "sca_inputs": 17}
"""Arrays of radiation's inputs, and their features, in the order of the U-Net's channels."""


def group(name: str, levels: int) -> Profile:
    """What the channels of an array are, of shape (level, feature) in the files."""
    features = GROUPS[name]
    return {
        "hl_inputs": Profile(levels, features, level_first=True),
        "inter_inputs": Profile(levels - 2, features, above=1, below=1),
        "col_inputs": Profile(levels - 1, features, above=1, level_first=True),
        "sca_inputs": Profile(1, features),
    }[name]


def check_chans(found: tuple[int, int], expected: tuple[int, int]) -> None:
    """Refuse other inputs and outputs than those of the data.

    Raises:
        ArtefactError: If there are others.
    """
    if found != expected:
        raise ArtefactError(
            f"it takes {found[0]} and gives {found[1]} profiles, but those of radiation are "
            f"{expected[0]} and {expected[1]}"
        )


def radiation(kinds: Kinds, stats: Mapping[str, Tensor], given: Mapping[str, str]) -> Made:
    """Four fluxes and two heating rates, of six profiles."""
    in_chan, out_chan, options = u_options(kinds)
    check_chans((in_chan, out_chan), (sum(GROUPS.values()), 6))
    known = stats["x_mean"].shape[0] if "x_mean" in stats else 138
    levels = whole(given, "levels", known)
    profiles = {name: group(name, levels) for name in GROUPS}
    norms: dict[str, Norm] = {}
    if set(stats) == set(BUFFERS):
        ends = list(pairwise([0, *torch.tensor(list(GROUPS.values())).cumsum(0).tolist()]))
        for (name, profile), (a, b) in zip(profiles.items(), ends, strict=True):
            mean, std = (kept(stats[key][:, a:b].double(), profile) for key in BUFFERS)
            norms[name] = Standardize(mean.tolist(), (std + TINY).tolist())
    else:
        log.warning(
            "the checkpoint has no x_mean and x_std, so inputs have to be normalized already"
        )
    fluxes = [f"{name}_{band}" for band in ("sw", "lw") for name in FLUXES]
    targets = [Field(name, "W m-2", "scalar", levels) for name in fluxes]
    targets += [Field(name, "K d-1", "scalar", levels - 1) for name in ("hr_sw", "hr_lw")]
    outputs = [*[Profile(levels)] * 4, *[Profile(levels - 1, above=1)] * 2]
    return columns(ColumnUNet, profiles, targets, outputs, given, options, norms)


def kept(values: Tensor, profile: Profile) -> Tensor:
    """Statistics (level, feature) of a profile's own levels, in the order of its channels."""
    inside = values[profile.above : profile.above + profile.levels]
    return (inside if profile.level_first else inside.T).flatten()


def attention(kinds: Kinds, given: Mapping[str, str]) -> Made:
    """Fluxes in the long and in the short waves."""
    convs = next((found for kind, found in kinds.items() if kind not in ((), (1,))), None)
    if convs is None or (1,) not in kinds:
        raise ArtefactError("it has no convolutions that are wider than 1, or none of width 1")
    width, features, kernel = convs[0][1]["weight"].shape
    out = sum(int(leaves["weight"].shape[0]) for _, leaves in kinds[(1,)])
    check_chans((features, out), (sum(GROUPS.values()), 4))
    levels = whole(given, "levels", 138)
    order = ("sca_inputs", "col_inputs", "hl_inputs", "inter_inputs")
    log.warning(
        "statistics of inputs are in files of their own, so they have to be normalized already"
    )
    fluxes = [f"{name}_{band}" for band in ("lw", "sw") for name in FLUXES]
    options = {
        "width": width,
        "heads": whole(given, "heads", 8),
        "kernel_size": kernel,
        "depth": len(convs) - 4,
    }
    return columns(
        ColumnAttention,
        {name: group(name, levels) for name in order},
        [Field(name, "W m-2", "scalar", levels) for name in fluxes],
        [Profile(levels, 2)] * 2,
        given,
        options,
    )


def columns(
    kind: type[ColumnUNet | ColumnAttention],
    inputs: Mapping[str, Profile],
    targets: list[Field],
    outputs: list[Profile],
    given: Mapping[str, str],
    options: dict[str, Any],
    norms: dict[str, Norm] | None = None,
) -> Made:
    """A network of columns, and its fields."""
    fields = tuple(Field(name, "1", "scalar", p.channels) for name, p in inputs.items())
    model = kind(
        sum(p.channels for p in inputs.values()),
        sum(p.channels for p in outputs),
        ndim=axes(given),
        inputs=list(inputs.values()),
        outputs=outputs,
        **options,
    )
    return Made(model, fields, tuple(targets), norms or {})


def mixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let heads give fluxes down and up, where they gave down less up, and down plus up."""
    to_fluxes = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])
    return {
        name: to_fluxes.to(value.dtype) @ value if ".mix." in name else value
        for name, value in weights.items()
    }
