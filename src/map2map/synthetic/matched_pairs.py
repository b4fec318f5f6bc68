"""Null tests of pairs of cubes: made again without spectra, or without phases, that tell a class.

The file has the layout "root" of `map2map.synthetic.potential_pairs`: data sets ``CLASS_seedNNNN``,
float32, for each seed one of either class.
"""

import logging
import re
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np

from map2map.errors import FieldError, RecipeError, SaveError, SourceError, near_names
from map2map.files import replacing
from map2map.physics.matched_spectra import match_spectra, replace_phases
from map2map.typing import Array

__all__ = ["Keep", "simulate"]

log = logging.getLogger(__name__)

Keep = Literal["phases", "spectra"]

NAME = re.compile(r"(?P<class_>.+)_seed(?P<seed>\d+)")


def simulate(
    source: Path,
    out: Path,
    *,
    keep: Keep = "phases",
    classes: tuple[str, str] = ("gr", "newton"),
    overwrite: bool = False,
) -> Path:
    """Write pairs of cubes whose class is not in the power spectrum, or nowhere else.

    A pair at a time is in memory; names, order and types are those of the source.

    Args:
        source: The file of pairs.
        out: The file to write.
        keep: "phases" gives the cubes of each pair the mean of their spectra and keeps their
            phases; "spectra" keeps the spectrum of each cube and replaces its phases by those of
            noise, the same for both of a pair.
        classes: The two, as the data sets are named, in the order in which they are written.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The file.

    Raises:
        RecipeError: If there is no such ``keep``.
        SourceError: If the source cannot be read, or has a cube without its partner.
        FieldError: If a cube is not finite.
        SaveError: If the file exists, or cannot be written.
    """
    if keep not in get_args(Keep):
        raise RecipeError(f"unknown keep {keep!r}{near_names(keep, get_args(Keep))}")
    if out.exists() and (not overwrite or out.samefile(source)):
        raise SaveError(
            f"{out} would be replaced; choose another file, or allow to overwrite one that is "
            f"not the source"
        )
    try:
        pairs = h5py.File(source, "r", locking=False)
    except OSError as error:
        raise SourceError(f"cannot read pairs from {source}: {error}") from error
    with pairs:
        seeds = seeds_of(pairs, source, classes)
        with replacing(out) as part, h5py.File(part, "w") as file:
            for seed, number in seeds.items():
                names = [f"{name}_seed{seed}" for name in classes]
                cubes = [read(pairs[name], source) for name in names]
                if keep == "phases":
                    made = match_spectra(cubes[0], cubes[1])
                else:
                    made = replace_phases(cubes[0], number), replace_phases(cubes[1], number)
                for name, values in zip(names, made, strict=True):
                    file.create_dataset(name, data=values.astype(np.float32))
                log.info("kept the %s of seed %s", keep, seed)
    return out


def seeds_of(file: Any, path: Path, classes: tuple[str, str]) -> dict[str, int]:
    """The seeds of a file of pairs, as written, and as numbers by which they are sorted.

    Raises:
        SourceError: If there are none, or a cube has no partner, or another shape.
    """
    found: dict[str, set[str]] = {name: set() for name in classes}
    for name in file:
        match = NAME.fullmatch(name)
        if match and match["class_"] in found and isinstance(file[name], h5py.Dataset):
            found[match["class_"]].add(match["seed"])
    first, second = (found[name] for name in classes)
    if not first | second:
        raise SourceError(
            f"{path} has no data set {classes[0]}_seedNNNN or {classes[1]}_seedNNNN, but "
            f"{', '.join(sorted(file)[:3]) or 'nothing'}; name the two classes of the file"
        )
    for seed in sorted(first ^ second):
        missing = classes[seed in first]
        raise SourceError(
            f"{path} has a cube of seed {seed}, but no {missing}_seed{seed}; both of a pair are "
            f"needed"
        )
    for seed in first:
        shapes = [file[f"{name}_seed{seed}"].shape for name in classes]
        if shapes[0] != shapes[1]:
            raise SourceError(f"{path} has cubes of seed {seed} of different shapes: {shapes}")
    return {seed: int(seed) for seed in sorted(first, key=int)}


def read(item: Any, path: Path) -> Array:
    """A cube, float64.

    Raises:
        FieldError: If it is not finite.
    """
    values: Array = item[...].astype(np.float64)
    if not np.isfinite(values).all():
        raise FieldError(
            f"data set {item.name!r} of {path} has values that are not finite, and so has no "
            f"spectrum; make it again"
        )
    return values
