"""``m2m import --from TOOL FOLDER`` or FILE: an emulator made of what another tool has trained."""

import argparse
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from types import ModuleType

from map2map.emulator import Emulator
from map2map.errors import RecipeError, SaveError, near_names
from map2map.imports import origins

__all__ = ["main"]

EPILOG = """\
The emulator is one file that needs no other: fields with units, norms, network. What of it cannot
be read as it was meant is refused by name, so what is imported gives the numbers that it gave.
m2m export --to keras-h5 is the way back.

origins:
{origins}

examples:
  m2m import --from dle f15_cfsflow/100
  m2m import --from dle f15_cfsflow/100 -o ice_flow.safetensors
  m2m import --from cubes models/run_data_z1_RACOON_lp16_do0.5_na1.0_ts100.pt --set units=c^2
  m2m inspect ice_flow.safetensors       read what it takes and gives
"""


def main(argv: Sequence[str]) -> int:
    """Read, save, and say what the emulator takes and gives."""
    known = origins()
    options = _parser().parse_args(argv)
    if options.origin not in known:
        raise RecipeError(
            f"there is no origin {options.origin!r} to import from"
            f"{near_names(options.origin, known)}"
        )
    path: Path = options.output
    if path.exists() and not options.overwrite:
        raise SaveError(f"{path} exists; choose another name (-o) or allow to --overwrite")
    emulator: Emulator = read(known[options.origin], options)
    emulator.save(path)
    print("\n".join(_told(emulator, path)))
    return 0


def read(origin: ModuleType, options: argparse.Namespace) -> Emulator:
    """Read what the origin has, with settings if it takes any.

    Raises:
        RecipeError: If it takes none, or one is no setting.
    """
    settings = {}
    for text in options.set or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise RecipeError(f"--set {text!r} is not KEY=VALUE")
        settings[key] = value
    if not settings:
        return origin.read(options.path)  # type: ignore[no-any-return]
    known = getattr(origin, "SETTINGS", ())
    for key in settings:
        if key not in known:
            raise RecipeError(
                f"--from {options.origin} takes no setting {key!r}{near_names(key, known)}"
            )
    return origin.read(options.path, settings)  # type: ignore[no-any-return]


def _parser() -> argparse.ArgumentParser:
    texts = []
    for name, module in origins().items():
        first, *more = (getdoc(module) or "").splitlines()
        texts += [f"  {name:6} {first}", *(f"         {line}".rstrip() for line in more if line)]
    parser = argparse.ArgumentParser(
        prog="m2m import",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make an emulator of a network that another tool has trained.",
        epilog=EPILOG.format(origins="\n".join(texts)),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("path", type=Path, metavar="FOLDER", help="where the other tool's files are, or its file")
    add("--from", dest="origin", required=True, metavar="ORIGIN", help="one of those below")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("emulator.safetensors"),
        help="the emulator to write; default: %(default)s",
    )
    add("--overwrite", action="store_true", help="replace an existing file")
    add(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="what the files do not tell, where the origin says so; may be repeated",
    )
    return parser


def _told(emulator: Emulator, path: Path) -> list[str]:
    """What has been written."""
    rule = emulator.footprint
    sides = {
        title: ", ".join(f"{f.name} [{f.units}] ({emulator.norm(f.name).found()})" for f in fields)
        for title, fields in (("takes", emulator.inputs), ("gives", emulator.targets))
    }
    sees = f"{rule.margin} cells on each side; sizes are multiples of {rule.multiple}"
    if rule.reduces:
        size = getattr(emulator.model, "size", None)
        cells = " x ".join([str(size)] * emulator.ndim)
        least = f"sizes are multiples of {rule.multiple}, and at least {rule.minimum}"
        sees = f"the whole of a sample; it has {cells} cells" if size else f"the whole; {least}"
    parameters = sum(p.numel() for p in emulator.model.parameters())
    return [
        f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        *(f"  {title:9} {text}" for title, text in sides.items()),
        f"  network   {type(emulator.model).__name__} of {parameters} parameters",
        f"  sees      {sees}",
    ]
