"""Flow through a medium of two permeabilities: permeability → pressure, not periodic.

The standard case of neural operators (Li et al. 2021): where a Gaussian random field of covariance
(-laplacian + 9)^-2 on the unit square, without slope at its edges, is positive, the permeability is
12, elsewhere 3; water is added everywhere alike, and flows out where the pressure is 0, at the
edges. Each sample has a field of its own, the same on every grid, so that an emulator that has
learnt from a coarse grid can be tested on a finer one.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from scipy.fft import idctn

from map2map.errors import RecipeError
from map2map.files import refuse_existing, replacing
from map2map.physics.darcy import darcy_pressure
from map2map.typing import Array

__all__ = ["Setting", "medium", "pressure_of", "simulate"]

log = logging.getLogger(__name__)

MODES = 64
"""Cosines on each axis that fields are drawn of; finer ones would not move edges by a cell."""

POWER = 2.0
"""Exponent of the covariance."""


@dataclass(frozen=True)
class Setting:
    """What samples have in common.

    Args:
        size: Cells per axis of the files for training and testing.
        fine_size: Of the other file for testing, whose samples are the same fields on a finer grid;
            0: there is none.
        permeabilities: Where the random field is negative, and elsewhere.
        inverse_length: Square root of what is added to the negative Laplacian; the higher, the
            smaller are patches [sides of the square].
        refine: Cells per cell and axis that the pressure is computed on, and averaged over.
    """

    size: int = 16
    fine_size: int = 32
    permeabilities: tuple[float, float] = (3.0, 12.0)
    inverse_length: float = 3.0
    refine: int = 4

    def __post_init__(self) -> None:
        if self.size < 2 or not (self.fine_size == 0 or self.fine_size >= 2) or self.refine < 1:
            raise RecipeError(
                f"a medium needs size >= 2, fine_size 0 or >= 2 and refine >= 1, not size "
                f"{self.size}, fine_size {self.fine_size}, refine {self.refine}"
            )
        positive = (*self.permeabilities, self.inverse_length)
        if not all(0 < value < np.inf for value in positive):
            raise RecipeError(
                f"`permeabilities` and `inverse_length` must be positive, not "
                f"{self.permeabilities}, {self.inverse_length}"
            )


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    train: int = 500,
    val: int = 50,
    test: int = 50,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate flows through random media.

    Writes ``train.nc``, ``val.nc``, ``test.nc`` and, on a finer grid, ``test_fine.nc``, with
    float32 variables ``permeability`` and ``pressure`` (sample, y, x) and the coordinates of the
    middles of cells, from 0 to 1. All is without units.

    A sample depends on its split, its number and the seed, not on how many there are.

    Args:
        out: Folder to write to.
        train: Samples for training.
        val: Samples for validation.
        test: Samples for testing.
        setting: Grids and medium.
        seed: Of the fields.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    if min(train, val, test, seed) < 0 or not train + val + test:
        raise RecipeError(
            f"simulate needs train, val, test and seed >= 0 and a sample at least, not train "
            f"{train}, val {val}, test {test}, seed {seed}"
        )
    wanted = [
        ("train", 0, train, setting.size),
        ("val", 1, val, setting.size),
        ("test", 2, test, setting.size),
        ("test_fine", 2, test, setting.fine_size),
    ]
    wanted = [entry for entry in wanted if entry[2] and entry[3]]
    paths = [out / f"{name}.nc" for name, *_ in wanted]
    refuse_existing(paths, overwrite=overwrite)
    for path, (_, split, count, size) in zip(paths, wanted, strict=True):
        media = np.stack(
            [
                medium(size, setting, np.random.default_rng([seed, split, number]))
                for number in range(count)
            ]
        )
        pressures = np.stack([pressure_of(each, setting.refine) for each in media])
        write(path, media, pressures)
        log.info("simulated %d flows on %d x %d cells to %s", count, size, size, path)
    return paths


def medium(size: int, setting: Setting, rng: np.random.Generator) -> Array:
    """The permeability at the middles of cells, shape (size, size)."""
    k = np.pi * np.arange(MODES)
    squared = k[:, None] ** 2 + k**2
    modes = rng.normal(size=squared.shape) * (squared + setting.inverse_length**2) ** (-POWER / 2)
    modes[0, 0] = 0  # as many cells of one kind as of the other, on average
    low, high = setting.permeabilities
    # exact on grids that resolve all modes; others take every so many-th cell of such
    finer = -(-MODES // size) | 1  # odd, so that the middles of cells are among them
    cells = finer * size
    padded = np.pad(modes, [(0, cells - MODES)] * 2)
    field = idctn(padded, norm="ortho")[finer // 2 :: finer, finer // 2 :: finer]
    return np.where(field > 0, high, low)


def pressure_of(permeability: Array, refine: int) -> Array:
    """The pressure in the unit square, computed on finer cells and averaged, of the same shape."""
    size = len(permeability)
    finer = np.kron(permeability, np.ones((refine, refine)))
    pressure = darcy_pressure(finer, 1 / len(finer))
    means: Array = pressure.reshape(size, refine, size, refine).mean(axis=(1, 3))
    return means


def write(path: Path, media: Array, pressures: Array) -> None:
    """Write all samples of a split, or none."""
    count, size, _ = media.shape
    middles = (np.arange(size) + 0.5) / size
    axes = {"sample": np.arange(count), "y": middles, "x": middles}
    with replacing(path) as part, netCDF4.Dataset(part, "w") as file:
        file.title = "flow through random media, simulated"
        for name, values in axes.items():
            file.createDimension(name, len(values))
            coordinate = file.createVariable(name, values.dtype, (name,))
            coordinate[:] = values
            coordinate.units = "1"
        for name, values in (("permeability", media), ("pressure", pressures)):
            variable = file.createVariable(name, "f4", tuple(axes), zlib=True)
            variable.units = "1"
            variable[:] = values
