"""Where the cubes of a data file are: which layout it has, its seeds, and the cubes' size."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import h5py
import numpy as np

from map2map.errors import GeometryError, RecipeError, SourceError
from map2map.imports.cubes import CLASSES
from map2map.patterns import some
from map2map.synthetic.potential_pairs import SNAPSHOTS

__all__ = ["Cubes", "find"]


STANDARDIZED = (0.2, 5.0)
"""Root mean squares between which a cube is taken for standardized."""


@dataclass(frozen=True)
class Cubes:
    """A layout of cubes.

    Args:
        pattern: Of the files.
        variable: Of the arrays inside.
        seeds: Numbers of the seeds that there are.
        size: Cells per axis.
        rms: Root mean square of some planes of one cube [units of the field].
    """

    pattern: str
    variable: str
    seeds: frozenset[int]
    size: int
    rms: float

    @property
    def standardized(self) -> bool:
        """Whether the cubes are standardized already."""
        low, high = STANDARDIZED
        return low < self.rms < high

    def check_seeds(self, train: int, test: int, where: str) -> None:
        """Refuse more seeds than there are.

        Raises:
            RecipeError: If training and test together need more.
        """
        if train + test > len(self.seeds):
            raise RecipeError(
                f"train_seeds {train} and test_seeds {test} need {train + test} seeds, but {where} "
                f"has {len(self.seeds)}; ask for fewer"
            )

    def files(self, start: int, stop: int) -> dict[str, object]:
        """The files of seeds from ``start`` to before ``stop``, as a recipe says it."""
        return {
            "pattern": self.pattern,
            "variable": self.variable,
            "only": {"gravity": list(CLASSES), "seed": f"{start}:{stop}"},
        }


def find(datafile: Path, redshift: float | None = None) -> Cubes:
    """Find out the layout of a file, or of a folder with a file per cube.

    Args:
        datafile: The file or folder.
        redshift: Which snapshot is taken, if there are several.

    Raises:
        SourceError: If there is no such file, it is not HDF5, or has no cubes.
        RecipeError: If there are several snapshots, and none or another is asked for.
        GeometryError: If the first cube is none.
    """
    if datafile.is_dir():
        return in_folder(datafile, redshift)
    if redshift is not None:
        raise RecipeError(f"--redshift chooses files of a folder, but {datafile} is one file")
    return in_file(datafile)


def in_file(path: Path) -> Cubes:
    """The cubes of one file."""
    if not path.exists():
        raise SourceError(f"there is no data file {path}, from {Path.cwd()}")
    gravity = "|".join(CLASSES)
    try:
        with h5py.File(path, "r", locking=False) as file:
            names = list(file)
            root = {n: m[1] for n in names if (m := re.fullmatch(rf"(?:{gravity})_seed(\d+)", n))}
            if root:
                variable, seeds = "{gravity}_seed{seed}", root
            else:
                groups = [n for n in names if n.isdigit() and isinstance(file[n], h5py.Group)]
                variable = "{seed}/{gravity}"
                seeds = {f"{n}/{g}": n for n in groups for g in CLASSES if g in file[n]}
            if not seeds:
                raise SourceError(
                    f"{path} has neither cubes gr_seed0000, newton_seed0000, … nor groups 0/gr, "
                    f"0/newton, …, but {some(names) or 'nothing'}"
                )
            size, rms = look(file[min(seeds)], path)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} is no HDF5 file, or is truncated: {error}") from error
    return Cubes(escape(str(path)), variable, numbers(seeds), size, rms)


def in_folder(folder: Path, redshift: float | None) -> Cubes:
    """The cubes of a folder, in a file each."""
    gravity = "|".join(CLASSES)
    raw: dict[str, dict[str, str]] = {}
    for path in folder.glob("seed*/*/*_snap*_phi.h5"):
        match = re.fullmatch(
            rf"seed(\d+)/({gravity})/\2_snap(\d+)_phi\.h5", path.relative_to(folder).as_posix()
        )
        if match:
            raw.setdefault(match[3], {})[str(path)] = match[1]
    small: dict[str, dict[str, str]] = {}
    for path in folder.glob("*_seed*_redshift*.h5"):
        match = re.fullmatch(rf"(?:{gravity})_seed(\d+)_redshift([\d.]+)\.h5", path.name)
        if match:
            small.setdefault(match[2], {})[str(path)] = match[1]
    if not raw and not small:
        raise SourceError(
            f"{folder} has neither files seed0000/gr/gr_snap004_phi.h5, … nor "
            f"gr_seed0000_redshift1.h5, …"
        )
    if raw:
        of_number = {number: z for z, number in SNAPSHOTS.items()}
        chosen = choose({key: of_number.get(int(key)) for key in raw}, redshift, folder)
        seeds, name = raw[chosen], f"seed{{seed}}/{{gravity}}/{{gravity}}_snap{chosen}_phi.h5"
    else:
        chosen = choose({key: float(key) for key in small}, redshift, folder)
        seeds, name = small[chosen], f"{{gravity}}_seed{{seed}}_redshift{chosen}.h5"
    first = Path(min(seeds))
    try:
        with h5py.File(first, "r", locking=False) as file:
            if "data" not in file:
                raise SourceError(f"{first} has no data set 'data', but {some(list(file))}")
            size, rms = look(file["data"], first)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{first} is no HDF5 file, or is truncated: {error}") from error
    return Cubes(f"{escape(str(folder))}/{name}", "data", numbers(seeds), size, rms)


def choose(there: Mapping[str, float | None], redshift: float | None, folder: Path) -> str:
    """The snapshot of a redshift, or the only one."""
    told = ", ".join(key if z is None else f"{z:g}" for key, z in sorted(there.items()))
    if redshift is None:
        if len(there) > 1:
            raise RecipeError(
                f"{folder} has cubes of several redshifts: {told}; choose one with --redshift"
            )
        return next(iter(there))
    found = [key for key, z in there.items() if z == redshift]
    if not found:
        raise RecipeError(f"{folder} has no cubes of redshift {redshift:g}, but of {told}")
    return found[0]


def look(cube: h5py.Dataset, path: Path) -> tuple[int, float]:
    """Cells per axis of a cube, and the root mean square of a few of its planes."""
    shape: tuple[int, ...] = getattr(cube, "shape", ())
    if len(shape) != 3 or len(set(shape)) != 1:
        raise GeometryError(f"{cube.name} of {path} has the shape {shape}, which is no cube")
    planes = np.asarray(cube[:: max(1, shape[0] // 4)], np.float64)
    return shape[0], float(np.sqrt(np.mean(planes**2)))


def numbers(seeds: Mapping[str, str]) -> frozenset[int]:
    """The seeds as numbers."""
    return frozenset(map(int, seeds.values()))
