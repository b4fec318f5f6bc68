"""Pairs of gravitational potentials, of Newton's gravity and of general relativity, same phases.

Each pair starts from one Gaussian random density with the linear power spectrum of a flat ΛCDM
universe in a periodic box. Newton's potential is that of the density, by Poisson's equation; the
relativistic one has in addition the potential of second order in the weak field,
`map2map.physics.potentials.relativistic_correction`, multiplied by ``difference``.

In nature, ``difference`` = 1, the correction is 4 * 10^-5 of the potential, too little for networks
to see it in single slices. The default makes it 10 000 times larger, so that a small network tells
the classes apart within minutes: this is a task with a known answer, not a forecast.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import torch
from torch import Tensor

from map2map.errors import RecipeError, near_names
from map2map.files import refuse_existing, replacing
from map2map.moment_files import write_moments
from map2map.physics.cosmology import Cosmology, growth_factor, growth_factor_second
from map2map.physics.lagrangian import displacement_to_density
from map2map.physics.perturbations import gaussian_field, second_order, zeldovich
from map2map.physics.potentials import newtonian_potential, relativistic_correction
from map2map.typing import Array

__all__ = ["Setting", "pair", "simulate"]

log = logging.getLogger(__name__)

Evolution = Literal["linear", "second_order"]
Layout = Literal["root", "groups", "files"]

CLASSES = ("gr", "newton")
"""In the order in which they are written."""

SNAPSHOTS = {20.0: 0, 15.0: 1, 10.0: 2, 5.0: 3, 1.0: 4, 0.0: 5}
"""Numbers that redshifts have in names of single files."""

UNIVERSE = Cosmology(Om=0.312, Ob=0.0483, h=0.67556, ns=0.9619, sigma8=0.848)
"""That of the simulations whose layout this is."""


def check_word(name: str, value: str, words: Any) -> None:
    """Refuse a word that is not one of a few.

    Raises:
        RecipeError: If it is not.
    """
    if value not in get_args(words):
        raise RecipeError(f"unknown {name} {value!r}{near_names(value, get_args(words))}")


@dataclass(frozen=True)
class Setting:
    """What pairs have in common.

    Args:
        size: Cells per axis.
        box: Side of the box [Mpc/h]. As in the simulations whose layout this is, a cell of the
            default has 20 Mpc/h.
        z: Redshift.
        difference: What the relativistic correction is multiplied by. 1 is nature, 0 makes both
            classes equal. The default makes the correction 10 000 times too large, so that its
            deviation is 0.4 of the potential's.
        evolution: "linear" takes the linear density; "second_order" moves particles by their
            displacements of first and second order and counts them, cloud in cell, so that
            Newton's potential is not Gaussian either.
        cosmology: Parameters of the universe.
    """

    size: int = 64
    box: float = 1280.0
    z: float = 1.0
    difference: float = 10_000.0
    evolution: Evolution = "linear"
    cosmology: Cosmology = UNIVERSE

    def __post_init__(self) -> None:
        if not (self.size >= 4 and 0 < self.box < np.inf and 0 <= self.z < np.inf):
            raise RecipeError(
                f"pairs need size >= 4, box > 0 and z >= 0, not size {self.size}, box {self.box}, "
                f"z {self.z}"
            )
        if not isfinite(self.difference):
            raise RecipeError(f"`difference` must be finite, not {self.difference}")
        check_word("evolution", self.evolution, Evolution)


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    runs: int = 12,
    setting: Setting = DEFAULT,
    layout: Layout = "root",
    standardize: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate pairs of potentials, of Newton's gravity and of general relativity.

    A cube is float32 of shape (size, size, size): the potential [c^2] of a seed and a class. The
    ``layout`` says where it is, here for seed 7 at redshift 1:

    - "root": data sets ``gr_seed0007`` and ``newton_seed0007`` of one file ``data_z1.h5``,
      contiguous, for each seed first the one, then the other;
    - "groups": data sets ``7/gr`` and ``7/newton`` of one file ``data_z1.h5``, compressed;
    - "files": data set ``data`` of a file per cube, ``seed0007/gr/gr_snap004_phi.h5``, where
      snapshots 0 to 5 are redshifts 20, 15, 10, 5, 1, 0.

    Beside them, ``redshifts_[1.0]_mean_std_var.npy`` has mean, deviation and variance of all
    potentials, float64, and ``pairs_z1.json`` says how they were made. A cube depends on its seed
    and the setting, not on how many there are, unless it is standardized. One pair at a time is
    in memory and takes some 130 bytes per cell, 430 if it is evolved.

    Args:
        out: Folder to write to.
        runs: Number of pairs; their seeds are ``seed``, ``seed`` + 1, …
        setting: Size, redshift, physics.
        layout: Where cubes are written.
        standardize: Write (potential - mean) / deviation, with the moments of all cubes of both
            classes, instead of potentials. Takes twice as long.
        seed: Seed of the first pair.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files of cubes.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    if runs < 1 or seed < 0:
        raise RecipeError(f"simulate needs runs >= 1 and seed >= 0, not runs {runs}, seed {seed}")
    check_word("layout", layout, Layout)
    seeds = range(seed, seed + runs)
    files = files_of(out, setting, layout, seeds)
    moments = out / f"redshifts_[{setting.z:.1f}]_mean_std_var.npy"
    record = out / f"pairs_z{setting.z:.0f}.json"
    refuse_existing([*files, moments, record], overwrite=overwrite)
    tally = Tally()
    cubes = tally.told(simulated(setting, seeds))
    if standardize:
        for _ in cubes:
            pass
        cubes = standardized(simulated(setting, seeds), tally.mean, tally.std)
    write(files, layout, cubes)
    write_moments(moments, tally.mean, tally.std)
    write_record(record, setting, seeds, {"layout": layout, "standardized": standardize})
    return files


def pair(setting: Setting, seed: int) -> tuple[Tensor, Tensor]:
    """Newton's and the relativistic potential [c^2] of a seed, in double precision.

    The linear density has the same modes in a larger ``size`` of the same box.
    """
    cosmology, spacing = setting.cosmology, setting.box / setting.size
    growth = float(growth_factor(setting.z, cosmology.Om))
    linear = gaussian_field(setting.size, setting.box, seed, cosmology.power)
    phi = newtonian_potential(growth * linear, spacing, setting.z, cosmology.Om)
    newton = phi
    if setting.evolution == "second_order":
        psi = zeldovich(linear, spacing)
        second = float(growth_factor_second(setting.z, cosmology.Om)) * second_order(psi, spacing)
        density = displacement_to_density((growth * psi + second)[None], spacing)[0, 0]
        newton = newtonian_potential(density, spacing, setting.z, cosmology.Om)
    # of the linear potential, as the solution of second order has it
    return newton, newton + setting.difference * relativistic_correction(phi, spacing)


Cube = tuple[int, str, Array]
"""Seed, class and values."""


def simulated(setting: Setting, seeds: Sequence[int]) -> Iterator[Cube]:
    """The cubes in the order in which they are written, float32."""
    for number, seed in enumerate(seeds):
        newton, relativistic = pair(setting, seed)
        for name, potential in zip(CLASSES, (relativistic, newton), strict=True):
            yield seed, name, potential.to(torch.float32).numpy()
        log.info("simulated pair %d of %d (seed %d)", number + 1, len(seeds), seed)


def standardized(cubes: Iterator[Cube], mean: float, std: float) -> Iterator[Cube]:
    """The cubes, shifted and divided in double precision."""
    for seed, name, values in cubes:
        yield seed, name, ((values.astype(np.float64) - mean) / std).astype(np.float32)


class Tally:
    """Mean and deviation of all cubes that pass; they are of equal size."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.variances: list[float] = []

    def told(self, cubes: Iterator[Cube]) -> Iterator[Cube]:
        """The same cubes."""
        for seed, name, values in cubes:
            self.means.append(float(values.mean(dtype=np.float64)))
            self.variances.append(float(values.var(dtype=np.float64)))
            yield seed, name, values

    @property
    def mean(self) -> float:
        """Of all cells [u]."""
        return float(np.mean(self.means))

    @property
    def std(self) -> float:
        """Of all cells [u]; the population's."""
        return float(np.sqrt(np.mean(self.variances) + np.var(self.means)))


def files_of(out: Path, setting: Setting, layout: Layout, seeds: Sequence[int]) -> list[Path]:
    """Where the cubes go: one file, or one per cube.

    Raises:
        RecipeError: If the layout has no name for the redshift.
    """
    if layout != "files":
        return [out / f"data_z{setting.z:.0f}.h5"]
    if setting.z not in SNAPSHOTS:
        raise RecipeError(
            f"layout 'files' numbers the redshifts {', '.join(f'{z:g}' for z in SNAPSHOTS)}, but "
            f"not {setting.z:g}; choose one of them, or layout 'root' or 'groups'"
        )
    last = f"snap{SNAPSHOTS[setting.z]:03d}_phi.h5"
    return [out / f"seed{seed:04d}" / name / f"{name}_{last}" for seed in seeds for name in CLASSES]


def write(files: Sequence[Path], layout: Layout, cubes: Iterator[Cube]) -> None:
    """Write cubes as they come; each file gets its name when it is whole."""
    if layout == "files":
        for path, (_, _, values) in zip(files, cubes, strict=True):
            with replacing(path) as part, h5py.File(part, "w") as file:
                file.create_dataset("data", data=values)
        return
    with ExitStack() as stack:
        part = stack.enter_context(replacing(files[0]))
        file = stack.enter_context(h5py.File(part, "w"))
        for seed, name, values in cubes:
            if layout == "groups":
                file.create_dataset(f"{seed}/{name}", data=values, compression="gzip")
            else:
                file.create_dataset(f"{name}_seed{seed:04d}", data=values)


def write_record(
    path: Path, setting: Setting, seeds: Sequence[int], parameters: dict[str, Any]
) -> None:
    """Write how the cubes beside it were made."""
    record = {
        "simulator": "map2map.synthetic.potential_pairs",
        "parameters": asdict(setting) | parameters,
        "seeds": list(seeds),
        "units": "standard deviations" if parameters["standardized"] else "c^2",
    }
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")
