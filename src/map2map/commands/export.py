"""``m2m export EMULATOR --to FORMAT``: a file that programs without map2map run."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from map2map.emulator import Emulator
from map2map.errors import RecipeError
from map2map.exports import formats
from map2map.exports.writing import Check, find, options_of, write
from map2map.fields import Field

__all__ = ["main"]

EPILOG = """\
The file takes windows of physical fields and gives windows of physical fields: norms and units are
inside. It has its card in it, and the numbers that a caller needs to read its halo. But keras-h5
is the bare network, as clients of 2Dto2D-DLE read it, with the scales of its fields beside it.

formats:
{formats}

examples:
  m2m export emulator.safetensors --to onnx
  m2m export emulator.safetensors --to torchscript --size 104 --out emulator_104.pt
  m2m export emulator.safetensors --to keras-h5 --out library/f2_mine/100/model.h5
"""


def main(argv: Sequence[str]) -> int:
    """Export, check, and say what the file is."""
    options, rest = _parser().parse_known_args(argv)
    module = find(options.to)
    given = _options(options, rest, options_of(module))
    emulator = Emulator.load(
        options.emulator, trust=tuple(options.trust), callback_at=options.callback_at
    )
    by_default = options.emulator.with_suffix(module.SUFFIX)
    if hasattr(module, "NAME"):
        by_default = options.emulator.with_name(module.NAME)
    path: Path = options.out or by_default
    check = write(emulator, path, options.to, given, overwrite=options.overwrite)
    lines = _told(emulator, path, options.to, given.get("size"), check)
    lines |= getattr(module, "TOLD", {})
    print("\n".join([lines.pop(""), *(f"  {key:9} {text}" for key, text in lines.items())]))
    return 0


def _parser() -> argparse.ArgumentParser:
    lines = []
    for name, module in formats().items():
        summary = (module.__doc__ or "").partition("\n")[0]
        more = [f"--{key}" for key in options_of(module) if key != "size"]
        lines.append(f"  {name:14} {summary}" + f" Has {', '.join(more)}." * bool(more))
    parser = argparse.ArgumentParser(
        prog="m2m export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write an emulator as a file that programs without map2map run.",
        epilog=EPILOG.format(formats="\n".join(lines)),
        allow_abbrev=False,
    )
    parser.add_argument("emulator", type=Path, help="the file that m2m train has written")
    parser.add_argument("--to", required=True, metavar="FORMAT", help="one of those below")
    parser.add_argument(
        "--out", type=Path, help="the file to write; by default beside the emulator"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="CELLS",
        help="fix the input size, halo included: one number for all axes or one for each; without "
        "it the file takes every size that the emulator takes",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="IMPORT.PATH",
        help="a class outside map2map that the emulator's card may import",
    )
    parser.add_argument(
        "--callback-at", type=Path, metavar="FOLDER", help="folder with code that its card needs"
    )
    return parser


def _options(
    options: argparse.Namespace, rest: Sequence[str], known: dict[str, Any]
) -> dict[str, Any]:
    """The options of the format, from what the parser of all formats has left over.

    Raises:
        RecipeError: If the format has no such option.
    """
    given: dict[str, Any] = {} if options.size is None else {"size": tuple(options.size)}
    parser = argparse.ArgumentParser(prog=f"m2m export --to {options.to}", allow_abbrev=False)
    for name, default in known.items():
        if name != "size":
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=type(default), default=argparse.SUPPRESS)
    own, unknown = parser.parse_known_args(rest)
    if unknown:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in known)
        raise RecipeError(
            f"--to {options.to} has no option {unknown[0]}; its options are {names}, and those "
            f"that all formats have (m2m export --help)"
        )
    return given | vars(own)


def _told(
    emulator: Emulator, path: Path, to: str, size: Sequence[int] | None, check: Check
) -> dict[str, str]:
    """What the file takes and gives, and how well: lines by title."""
    rule, ndim = emulator.footprint, emulator.ndim

    def fields(side: Sequence[Field]) -> str:
        return ", ".join(f"{f.name} [{f.units}] ({f.channels} channels)" for f in side)

    if size is None:
        first = rule.minimum
        sizes = f"{first}, {first + rule.multiple}, … cells on each of {ndim} axes"
    else:
        sizes = " x ".join(map(str, check.sizes[0] if check.sizes else size)) + " cells, fixed"
    output = f"the output has {rule.scale} per cell, less {rule.cut} on each side"
    if rule.reduces:
        output = "the output is of the whole"
    lines = {
        "": f"{path} ({to}, {path.stat().st_size / 1e6:.1f} MB)",
        "takes": fields(tuple(emulator.inputs)),
        "gives": fields(tuple(emulator.targets)),
        "sizes": f"{sizes}; {output}",
        "halo": f"{rule.low} cells below a crop, {rule.margin} or more above",
        "checked": "not: this format cannot be run here",
    }
    if check.deviations:
        worst = max(check.deviations.values())
        ran = " and ".join(" x ".join(map(str, shape)) for shape in check.sizes)
        lines["checked"] = f"on {ran} cells: deviates by at most {worst:.1e} of the rms"
    return lines
