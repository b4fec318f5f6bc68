"""Writing an export: checked against the emulator before it gets its name."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from map2map.emulator import Emulator
from map2map.errors import ArtefactError, RecipeError, SaveError, near_names
from map2map.exports import formats
from map2map.exports.graph import arguments, check_draws_nothing, example, example_sizes
from map2map.files import replacing
from map2map.typing import Shape

__all__ = ["TOLERANCE", "Check", "deviations", "find", "options_of", "write"]

TOLERANCE = 1e-4
"""Of the rms of a field: a larger deviation is no round-off, which is about 1e-6."""


@dataclass(frozen=True)
class Check:
    """How far the numbers of a file are from those of the emulator.

    Args:
        sizes: Input sizes that were run.
        deviations: The largest deviation of each target, in units of its rms; empty if the file
            cannot be run here.
    """

    sizes: tuple[Shape, ...]
    deviations: dict[str, float]


def find(name: str) -> ModuleType:
    """The format of a name, if what it needs is installed.

    Raises:
        RecipeError: If there is no such format, or it needs a package that is not there.
    """
    known = formats()
    if name not in known:
        raise RecipeError(f"there is no format {name!r} to export to{near_names(name, known)}")
    packages = known[name].PACKAGES
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise RecipeError(
            f"--to {name} needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"install with: pip install 'map2map[export]'"
        )
    return known[name]


def options_of(module: ModuleType) -> dict[str, Any]:
    """The options of a format and their defaults: the keywords of its function."""
    parameters = inspect.signature(module.export).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def write(
    emulator: Emulator,
    path: Path,
    to: str,
    options: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Check:
    """Export an emulator, run the file, and let it have its name if the numbers are the same.

    Args:
        emulator: What to export.
        path: The file.
        to: The format.
        options: Keywords of the format's function, such as ``size``.
        overwrite: Whether an existing file may be replaced.

    Raises:
        RecipeError: If there is no such format or option.
        GeometryError: If the emulator does not take the size.
        ArtefactError: If it cannot be exported, or the file gives other numbers.
        SaveError: If it cannot be written.
    """
    module, options = find(to), dict(options or {})
    check_possible(emulator, module, to)
    unknown = [name for name in options if name not in options_of(module)]
    if unknown:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options_of(module))
        why = f"its options are {names}" if names else "it has none of its own"
        raise RecipeError(
            f"--to {to} has no option --{unknown[0].replace('_', '-')}; "
            + getattr(module, "NEEDLESS", {}).get(unknown[0], why)
        )
    # a network of one grid has a file for it without being asked
    size = options.get("size", emulator.footprint.sizes if "size" in options_of(module) else None)
    if size is not None:
        options["size"] = size = checked_size(emulator, size)
    others = module.beside(emulator) if hasattr(module, "beside") else {}
    beside = {path.with_name(name): text for name, text in others.items()}
    for each in (path, *beside):
        if each.exists() and not overwrite:
            raise SaveError(f"{each} exists; choose another name (--out) or allow to --overwrite")
    emulator = copy.deepcopy(emulator).eval()
    check = Check((), {})
    with replacing(path) as temporary:
        module.export(emulator, temporary, **options)
        if hasattr(module, "run"):
            check = compared(emulator, module, temporary, size)
        for name, deviation in check.deviations.items():
            if not deviation <= TOLERANCE:
                raise ArtefactError(
                    f"the file deviates from the emulator by {deviation:.2g} of the rms of "
                    f"{name!r}, more than {TOLERANCE:g}; it was not kept"
                )
        for other, text in beside.items():
            with replacing(other) as part:
                part.write_text(text, encoding="utf-8", newline="\n")
    return check


def check_possible(emulator: Emulator, module: ModuleType, to: str) -> None:
    """Refuse emulators that a format cannot hold.

    Raises:
        ArtefactError: If it is one.
    """
    if len(emulator.styles) and not getattr(module, "STYLES", False):
        raise ArtefactError(
            f"the emulator takes the styles {', '.join(emulator.styles.names)}, which --to {to} "
            f"cannot hold; use --to onnx or --to torch-export"
        )
    check_draws_nothing(emulator)


def checked_size(emulator: Emulator, size: Shape) -> Shape:
    """The size on every axis, if the emulator takes it."""
    size = tuple(size) * (emulator.ndim if len(size) == 1 else 1)
    if len(size) != emulator.ndim:
        raise RecipeError(
            f"--size has {len(size)} numbers, but the emulator works on {emulator.ndim} axes; "
            f"give one for each axis, or one for all"
        )
    for cells in size if not emulator.footprint.reduces else ():
        emulator.footprint.output_size(cells)
    return size


def compared(emulator: Emulator, module: ModuleType, path: Path, size: Shape | None) -> Check:
    """Run a file on random fields, of several sizes if it takes them."""
    turns = range(1 if size else min(emulator.ndim + 1, 2))
    sizes = [size or example_sizes(emulator.footprint, emulator.ndim, turn) for turn in turns]
    worst: dict[str, float] = {}
    for shape in sizes:
        fields = example(emulator, 1, shape)
        try:
            made = module.run(path, fields)
        except Exception as error:
            cause = str(error).strip().partition("\n")[0]
            raise ArtefactError(
                f"the file was written, but does not run on {' x '.join(map(str, shape))} cells: "
                f"{type(error).__name__}: {cause}; it was not kept"
                + ("" if size else "; give --size to export it for one size")
            ) from error
        for name, deviation in deviations(emulator, fields, made).items():
            worst[name] = max(worst.get(name, 0.0), deviation)
    return Check(tuple(sizes), worst)


def deviations(
    emulator: Emulator, fields: Mapping[str, Tensor], made: Mapping[str, Tensor]
) -> dict[str, float]:
    """The largest deviation of each target from what the emulator gives, in units of its rms.

    Args:
        emulator: The reference, in evaluation mode.
        fields: Physical inputs by name, shape (batch, channel, *space).
        made: Physical targets by name.
    """
    given = arguments(emulator, fields)
    like = next(emulator.parameters(), given[0])
    with torch.no_grad():
        expected = emulator(*(x.to(like) for x in given)).cpu().float()
    found = {}
    for name, channels in emulator.targets.slices.items():
        y, other = expected[:, channels], made[name]
        finite = y.isfinite()
        if other.shape != y.shape or not torch.equal(other.isfinite(), finite):
            found[name] = float("inf")
            continue
        y, other = y[finite], other[finite]
        rms = y.double().square().mean().sqrt()
        worst = (other.double() - y.double()).abs().max() if y.numel() else rms * 0
        found[name] = float(worst / rms) if worst > 0 else 0.0
    return found
