"""Which fields are mapped to which, and their scales."""

from dataclasses import dataclass
from pathlib import Path

from map2map.errors import RecipeError, near_names
from map2map.scale_files import INPUTS, TARGETS, read_scales, write_scales

__all__ = ["Mapping", "mapping"]

SHEAR = ["thk", "slopsurfx", "slopsurfy"]
VELBAR, VELSURF, VELBASE = (
    ["ubar", "vbar"], ["uvelsurf", "vvelsurf"], ["uvelbase", "vvelbase"],
)  # fmt: skip
CONTROLLED, GLEN = [*SHEAR, "strflowctrl"], [*SHEAR, "arrhenius", "slidingco"]

PREDEFINED = {
    "f2": (SHEAR, VELBAR),
    "f10": (CONTROLLED, VELBAR),
    "f11": (GLEN, VELBAR),
    "f12": (CONTROLLED, [*VELBAR, *VELSURF]),
    "f13": (GLEN, [*VELBAR, *VELSURF]),
    "f14": (CONTROLLED, [*VELBASE, *VELBAR, *VELSURF]),
    "f15": (GLEN, [*VELBASE, *VELBAR, *VELSURF]),
}

SCALES = {
    "thk": 2000.0, "slopsurfx": 1.5, "slopsurfy": 1.5, "slopsurfn": 1.5, "strflowctrl": 200.0,
    "arrhenius": 100.0, "slidingco": 100.0,
    **dict.fromkeys([*VELBAR, *VELSURF, *VELBASE], 1000.0),
}  # fmt: skip


@dataclass(frozen=True)
class Mapping:
    """From which fields to which, with the scale of each.

    Args:
        inputs: Scale of each input, in the order of the channels.
        targets: Likewise.
        ice: Whether only patches with ice in the middle are of interest.
    """

    inputs: dict[str, float]
    targets: dict[str, float]
    ice: bool

    def write(self, folder: Path) -> None:
        """Write ``fieldin.dat`` and ``fieldout.dat``."""
        write_scales(folder / INPUTS, self.inputs)
        write_scales(folder / TARGETS, self.targets)


def mapping(maptype: str) -> Mapping:
    """A predefined mapping, or that of a folder with two files of scales.

    Raises:
        RecipeError: If there is neither.
        ArtefactError: If a file is malformed.
    """
    # a letter as a switch is the original's choice
    ice = Path(maptype).name.startswith("f")
    if maptype in PREDEFINED:
        inputs, targets = ({n: SCALES[n] for n in side} for side in PREDEFINED[maptype])
        return Mapping(inputs, targets, ice)
    folder = Path(maptype)
    if not folder.is_dir():
        raise RecipeError(
            f"--maptype {maptype} is no folder with {INPUTS} and {TARGETS}, and no mapping that is "
            f"known{near_names(maptype, PREDEFINED)}"
        )
    inputs, targets = read_scales(folder / INPUTS), read_scales(folder / TARGETS)
    # of a field in both, the original takes the scale of the second
    inputs = {name: targets.get(name, scale) for name, scale in inputs.items()}
    return Mapping(inputs, targets, ice)
