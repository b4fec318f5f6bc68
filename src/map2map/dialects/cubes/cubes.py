"""Where the cubes of a data file are: which layout it has, its seeds, and the cubes' size."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from math import hypot
from pathlib import Path

import h5py
import numpy as np

from map2map.errors import GeometryError, RecipeError, SourceError
from map2map.imports.cubes import CLASSES
from map2map.moment_files import read_moments
from map2map.patterns import some
from map2map.synthetic.potential_pairs import SNAPSHOTS

__all__ = ["Cubes", "find"]

log = logging.getLogger(__name__)

STANDARDIZED = (0.2, 5.0)
"""Root mean squares between which a cube is taken for standardized."""


@dataclass(frozen=True)
class Cubes:
    """A layout of cubes.

    Args:
        pattern: Of the files.
        variable: Of the arrays inside.
        of_class: For each class, the numbers of the seeds that there are.
        size: Cells per axis.
        mean: Of some planes of one cube [units of the field].
        std: Their deviation [units of the field].
        redshift: What the names of the files say; None if they do not.
    """

    pattern: str
    variable: str
    of_class: Mapping[str, frozenset[int]]
    size: int
    mean: float
    std: float
    redshift: float | None

    @property
    def seeds(self) -> frozenset[int]:
        """Numbers of the seeds that there are of any class."""
        return frozenset().union(*self.of_class.values())

    @property
    def rms(self) -> float:
        """Root mean square of these planes [units of the field]."""
        return hypot(self.mean, self.std)

    @property
    def standardized(self) -> bool:
        """Whether the cubes are standardized already."""
        low, high = STANDARDIZED
        return low < self.rms < high

    def check_seeds(self, train: int, test: int, where: str) -> None:
        """Refuse seeds that there are not of all classes.

        Raises:
            RecipeError: If training and test together need any, from 0 on.
        """
        need = train + test
        missing = {
            name: [seed for seed in range(need) if seed not in there]
            for name, there in self.of_class.items()
        }
        if not any(missing.values()):
            return
        first = min(seed for seeds in missing.values() for seed in seeds)
        most = f"at most {first} together" if first > 1 else "data that have them"
        told = {name: some([f"{seed}" for seed in seeds]) for name, seeds in missing.items()}
        if len(set(self.of_class.values())) == 1:
            found = f"{len(self.seeds)}, without {next(iter(told.values()))}"
        else:
            counts = (f"{len(there)} of {name}" for name, there in self.of_class.items())
            gaps = (f"{seeds} of {name}" for name, seeds in told.items() if seeds)
            found = f"{' and '.join(counts)}, without {', and without '.join(gaps)}"
        raise RecipeError(
            f"train_seeds {train} and test_seeds {test} need {need} seeds, 0 to {need - 1}, but "
            f"{where} has {found}; ask for {most}"
        )

    def check_stride(self, stride: int) -> None:
        """Refuse a stride that is longer than a cube.

        Raises:
            RecipeError: If it is.
        """
        if stride > self.size:
            raise RecipeError(
                f"--stride is {stride}, but cubes have {self.size} cells per axis; it must be at "
                f"least 1 and at most {self.size}"
            )

    def check_stats(self, path: Path) -> None:
        """Refuse statistics of another redshift or in other units.

        Args:
            path: The file of mean and deviation.

        Raises:
            RecipeError: If its name tells another redshift than those of the cubes, or if the
                cubes are not of order 1 when they are standardized with it.
        """
        mean, std = read_moments(path)
        told = re.search(r"redshifts_\[([^\]]*)\]", path.name)
        named = [float(z) for z in re.findall(r"\d+(?:\.\d+)?", told[1])] if told else []
        if named and self.redshift is not None and self.redshift not in named:
            raise RecipeError(
                f"--stats {path} is of redshift {', '.join(f'{z:g}' for z in named)}, but the "
                f"cubes are of redshift {self.redshift:g}, as their names say; give statistics of "
                f"this redshift, or leave --stats out"
            )
        low, high = STANDARDIZED
        rms = hypot(self.mean - mean, self.std) / std
        if rms <= low or rms >= high:
            raise RecipeError(
                f"--stats {path} has mean {mean:.3g} and deviation {std:.3g}, with which the "
                f"cubes, of mean {self.mean:.3g} and deviation {self.std:.3g}, get a root mean "
                f"square of {rms:.3g}; allowed is {low:g} to {high:g}: give statistics of these "
                f"cubes, or leave --stats out"
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
            found = (re.fullmatch(rf"({gravity})_seed(\d+)", name) for name in names)
            root = {m[0]: (m[1], int(m[2])) for m in found if m}
            if root:
                variable, seeds = "{gravity}_seed{seed}", root
                others = [n for n in names if n not in root]
            else:
                groups = [n for n in names if n.isdigit() and isinstance(file[n], h5py.Group)]
                variable = "{seed}/{gravity}"
                seeds = {f"{n}/{g}": (g, int(n)) for n in groups for g in CLASSES if g in file[n]}
                inside = [f"{n}/{g}" for n in groups for g in file[n]]
                others = [n for n in (*names, *inside) if n not in seeds and n not in groups]
            if not seeds:
                raise SourceError(
                    f"{path} has neither cubes gr_seed0000, newton_seed0000, … nor groups 0/gr, "
                    f"0/newton, …, but {some(names) or 'nothing'}"
                )
            leave_aside(others, path)
            size, mean, std = look(file[min(seeds)], path)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} is no HDF5 file, or is truncated: {error}") from error
    z = redshift_of(path.name)
    return Cubes(escape(str(path)), variable, by_class(seeds), size, mean, std, z)


def in_folder(folder: Path, redshift: float | None) -> Cubes:
    """The cubes of a folder, in a file each."""
    gravity = "|".join(CLASSES)
    raw: dict[str, dict[str, tuple[str, int]]] = {}
    others: dict[bool, list[str]] = {True: [], False: []}
    for path in folder.glob("seed*/*/*_snap*_phi.h5"):
        name = path.relative_to(folder).as_posix()
        match = re.fullmatch(rf"seed(\d+)/({gravity})/\2_snap(\d+)_phi\.h5", name)
        if match:
            raw.setdefault(match[3], {})[str(path)] = match[2], int(match[1])
        else:
            others[True].append(name)
    small: dict[str, dict[str, tuple[str, int]]] = {}
    for path in folder.glob("*_seed*_redshift*.h5"):
        match = re.fullmatch(rf"({gravity})_seed(\d+)_redshift([\d.]+)\.h5", path.name)
        if match:
            small.setdefault(match[3], {})[str(path)] = match[1], int(match[2])
        else:
            others[False].append(path.name)
    if not raw and not small:
        raise SourceError(
            f"{folder} has neither files seed0000/gr/gr_snap004_phi.h5, … nor "
            f"gr_seed0000_redshift1.h5, …"
        )
    if raw:
        of_number = {number: z for z, number in SNAPSHOTS.items()}
        there = {key: of_number.get(int(key)) for key in raw}
        chosen = choose(there, redshift, folder)
        seeds, name = raw[chosen], f"seed{{seed}}/{{gravity}}/{{gravity}}_snap{chosen}_phi.h5"
    else:
        there = {key: float(key) for key in small}
        chosen = choose(there, redshift, folder)
        seeds, name = small[chosen], f"{{gravity}}_seed{{seed}}_redshift{chosen}.h5"
    leave_aside(others[bool(raw)], folder)
    first = Path(min(seeds))
    try:
        with h5py.File(first, "r", locking=False) as file:
            if "data" not in file:
                raise SourceError(f"{first} has no data set 'data', but {some(list(file))}")
            size, mean, std = look(file["data"], first)
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{first} is no HDF5 file, or is truncated: {error}") from error
    pattern = f"{escape(str(folder))}/{name}"
    return Cubes(pattern, "data", by_class(seeds), size, mean, std, there[chosen])


def leave_aside(others: Sequence[str], where: Path) -> None:
    """Tell what is not taken for a cube of one of the classes: another gravity's, say."""
    if others:
        log.warning(
            "%s also has %s, left aside: only %s are told apart",
            where,
            some(sorted(others)),
            " and ".join(CLASSES),
        )


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


def redshift_of(name: str) -> float | None:
    """The redshift in a file's name.

    >>> redshift_of("data_z1.h5"), redshift_of("data_z0.5_small.h5"), redshift_of("data.h5")
    (1.0, 0.5, None)
    """
    match = re.search(r"_z(\d+(?:\.\d+)?)(?=[_.]|$)", name)
    return float(match[1]) if match else None


def look(cube: h5py.Dataset, path: Path) -> tuple[int, float, float]:
    """Cells per axis of a cube, and mean and deviation of a few of its planes."""
    shape: tuple[int, ...] = getattr(cube, "shape", ())
    if len(shape) != 3 or len(set(shape)) != 1:
        raise GeometryError(f"{cube.name} of {path} has the shape {shape}, which is no cube")
    planes = np.asarray(cube[:: max(1, shape[0] // 4)], np.float64)
    return shape[0], float(np.mean(planes)), float(np.std(planes))


def by_class(cubes: Mapping[str, tuple[str, int]]) -> dict[str, frozenset[int]]:
    """The seeds of each class."""
    return {
        name: frozenset(seed for gravity, seed in cubes.values() if gravity == name)
        for name in CLASSES
    }
