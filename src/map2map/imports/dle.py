"""2Dto2D-DLE: a folder with model.h5, fieldin.dat and fieldout.dat.

The network is its CNN or its U-Net, as Keras 2 or 3 saves it in HDF5; neither Keras nor
TensorFlow is needed. Fields get the units of the tool's convention where their names are
known, else "1"; their scales become norms.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from map2map.derived import Coordinate, Derived, Gradient, Magnitude
from map2map.emulator import Emulator
from map2map.errors import ArtefactError
from map2map.fields import Component, Field, FieldSet
from map2map.files import digest
from map2map.grids import Domain
from map2map.keras_h5.networks import model_of
from map2map.keras_h5.reading import read_network
from map2map.norms import Scale
from map2map.scale_files import INPUTS, TARGETS, read_scales

__all__ = ["DERIVED", "DOMAIN", "MODEL", "VECTORS", "fields_of", "read", "units_of"]

log = logging.getLogger(__name__)

MODEL = "model.h5"

UNITS = {
    "thk|usurf|topg|X|Y|dX": "m",
    "slopsurf[xyn]": "1",
    "[uvw](bar|vel(base|surf))": "m/yr",
    "arrhenius": "MPa-3 yr-1",
    "strflowctrl": "MPa-3 yr-1",
    "slidingco": "km MPa-3 yr-1",
    "smb": "m/yr",
}
"""Units by convention, of names that match; strflowctrl is a sum of numbers of other units."""

VECTORS = {
    "slope": ("slopsurfy", "slopsurfx"),
    "velbar": ("vbar", "ubar"),
    "velbase": ("vvelbase", "uvelbase"),
    "velsurf": ("vvelsurf", "uvelsurf"),
}
"""Fields that are components of a vector, along y, the first axis, and along x."""

DERIVED: Mapping[str, Derived] = {
    "slopsurfx": Gradient("usurf", 1),
    "slopsurfy": Gradient("usurf", 0),
    "slopsurfn": Magnitude(["slopsurfx", "slopsurfy"]),
    "X": Coordinate("usurf", 1),
    "Y": Coordinate("usurf", 0),
}
"""Fields that the tool computes of others."""

DOMAIN = Domain(ndim=2, periodic=False, pad="model", frames=1, same_shape=False)
"""Frames of glaciers, each on a grid of its own, at whose edges the network pads."""


def units_of(name: str) -> str:
    """The units of a field by convention; "1" if the name is not known.

    >>> units_of("uvelsurf"), units_of("precipitation_0")
    ('m/yr', '1')
    """
    found = [units for names, units in UNITS.items() if re.fullmatch(names, name)]
    return found[0] if found else "1"


def read(folder: Path) -> Emulator:
    """Make an emulator of a folder.

    Raises:
        ArtefactError: If a file is missing or malformed, the network is none that map2map has, or
            the files name other numbers of fields than the network has channels.
    """
    paths = {name: folder / name for name in (MODEL, INPUTS, TARGETS)}
    if not folder.is_dir():
        raise ArtefactError(
            f"there is no folder {folder}; give the one with {', '.join(paths)} in it"
        )
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise ArtefactError(f"{folder} lacks {', '.join(missing)}; needed are {', '.join(paths)}")
    inputs, targets = read_scales(paths[INPUTS]), read_scales(paths[TARGETS])
    network = read_network(paths[MODEL])
    try:
        model = model_of(network)
    except ArtefactError as error:
        raise ArtefactError(f"{paths[MODEL]}: {error}") from error
    for scales, chan, name in ((inputs, model.in_chan, INPUTS), (targets, model.out_chan, TARGETS)):
        if len(scales) != chan:
            raise ArtefactError(
                f"{paths[name]} names {len(scales)} fields ({', '.join(scales)}), but the network "
                f"in {MODEL} has {chan} channels there; the files are not of one run"
            )
    for name in inputs:
        if targets.get(name, inputs[name]) != inputs[name]:
            log.warning(
                "field %r has the scale %g in %s and %g in %s; as in the original, the latter wins",
                *(name, inputs[name], INPUTS, targets[name], TARGETS),
            )
    emulator = Emulator(
        fields_of(inputs),
        fields_of(targets),
        {name: Scale(scale) for name, scale in (inputs | targets).items()},
        model,
        DOMAIN,
        derived={name: how for name, how in DERIVED.items() if name in inputs},
    )
    record = {"from": "dle", "files": {name: digest(path) for name, path in paths.items()}}
    emulator.versions = {"map2map": version("map2map")}
    if network.writer:
        record["written_by"] = network.writer
    else:
        emulator.versions["keras"] = network.version
    emulator.training_record = {"imported": record}
    return emulator.eval()


def fields_of(names: Iterable[str]) -> FieldSet:
    """Scalars of one channel, in the order of the channels; some make up vectors.

    >>> fields_of(["thk", "ubar", "vbar"]).vectors
    ((2, 1),)
    """
    names = list(names)
    parts = {
        part: Component(vector, axis)
        for vector, both in VECTORS.items()
        for axis, part in enumerate(both)
        if set(both) <= set(names)
    }
    return FieldSet(tuple(Field(n, units_of(n), "scalar", 1, parts.get(n)) for n in names))
