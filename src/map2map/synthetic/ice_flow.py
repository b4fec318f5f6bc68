"""Glaciers that grow and melt on random mountains: thickness and slope → velocity of the ice.

Each case is a massif of its own with several glaciers. They grow from bare ground under a simple
mass balance, for a century or two, and melt back in its last part, when the climate warms. All the
while their velocities are those of `physics.ice_membrane`, in which a column of ice feels those
around it, so that no formula for a single cell can replace an emulator of them.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import netCDF4
import numpy as np

from map2map.errors import RecipeError, near_names
from map2map.files import refuse_existing, replacing
from map2map.memory import keep_freed_memory
from map2map.physics.glacier import Climate, Frame, Massif, Physics, evolve
from map2map.simulations import SPLITS, former_record, seeds_of_splits
from map2map.typing import Array, Shape

__all__ = ["Setting", "mountains", "simulate"]

log = logging.getLogger(__name__)

RECORD = "simulation.json"

SNOW_FREE = 0.8
"""Part of the land below the equilibrium line while glaciers grow."""

WARMING = 500.0
"""How far the equilibrium line rises in the last third of the time [m]."""

LARGEST, SMALLEST = 3000.0, 400.0
"""Scales of valleys [m]: of what separates them, and below which they are smooth."""

RELIEF, ROUGHNESS = 0.18, 250.0
"""Height of the massif over the side of the grid, and deviation of the valleys [m]."""

UNITS = {
    "usurf": "m",
    "thk": "m",
    "topg": "m",
    "arrhenius": "MPa-3 yr-1",
    "slidingco": "km MPa-3 yr-1",
    "strflowctrl": "MPa-3 yr-1",
    "ubar": "m/yr",
    "vbar": "m/yr",
    "uvelsurf": "m/yr",
    "vvelsurf": "m/yr",
    "uvelbase": "m/yr",
    "vvelbase": "m/yr",
}
"""What a case's file holds, beside its coordinates, and in which units."""


@dataclass(frozen=True)
class Setting:
    """What cases have in common, and between which bounds they are drawn.

    Args:
        sizes: Fewest and most cells per axis.
        spacing: Cell size [m].
        years: How long glaciers are followed; the climate warms in the last third [yr].
        frames: Times that are written, evenly from ``years`` / ``frames`` to ``years``.
        arrhenius: Smallest and largest rate factor A [MPa^-3 yr^-1].
        slidingco: Smallest and largest sliding coefficient c [km MPa^-3 yr^-1].
        physics: Which velocities are written: "membrane" are those with which the glaciers have
            grown, "shallow_ice" those of the closed formula for the same glaciers.
    """

    sizes: tuple[int, int] = (60, 100)
    spacing: float = 100.0
    years: float = 180.0
    frames: int = 9
    arrhenius: tuple[float, float] = (50.0, 100.0)
    slidingco: tuple[float, float] = (0.0, 15.0)
    physics: Physics = "membrane"

    def __post_init__(self) -> None:
        if not 8 <= self.sizes[0] <= self.sizes[1]:
            raise RecipeError(f"`sizes` must ascend, from at least 8 cells, not {self.sizes}")
        if not (self.spacing > 0 and self.years > 0 and self.frames >= 1):
            raise RecipeError(
                f"`spacing`, `years` and `frames` must be positive, not {self.spacing}, "
                f"{self.years}, {self.frames}"
            )
        for name, (low, high), positive in (
            ("arrhenius", self.arrhenius, self.arrhenius[0] > 0),
            ("slidingco", self.slidingco, self.slidingco[0] >= 0),
        ):
            if not (positive and low <= high < np.inf):
                raise RecipeError(f"`{name}` must ascend, and not be negative: {low}, {high}")
        if self.physics not in get_args(Physics):
            raise RecipeError(
                f"unknown physics {self.physics!r}{near_names(self.physics, get_args(Physics))}"
            )


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    train: int = 12,
    test: int = 1,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate glaciers on random mountains, from bare ground through growth to retreat.

    Each case is a file ``train/case_SEED/ex.nc`` or ``test/case_SEED/ex.nc`` with float32 variables
    of shape (time, y, x): elevations ``usurf`` and ``topg`` and thickness ``thk`` [m]; the
    coefficients of flow and sliding, ``arrhenius`` [MPa^-3 yr^-1], ``slidingco`` [km MPa^-3 yr^-1]
    and the sum of both numbers, ``strflowctrl``; velocities [m/yr], averaged over the depth
    (``ubar``, ``vbar``), at the surface (``uvelsurf``, ``vvelsurf``) and at the base (``uvelbase``,
    ``vvelbase``). Where there is no ice, thickness and velocities are 0.

    A case depends on its split and its seed, not on how many there are.

    Args:
        out: Folder to write to.
        train: Cases for training; their seeds are ``seed``, ``seed`` + 1, …
        test: Cases for testing, likewise; they are others than those for training.
        setting: Sizes, times and bounds of what is drawn.
        seed: Seed of the first case of both splits.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    cases = seeds_of_splits(train, test, seed, "case")
    files = [out / split / f"case_{number:02d}" / "ex.nc" for split, number in cases]
    check_folder(out, files, setting, overwrite=overwrite)
    # before the cases, so that a folder that is not finished says what it is
    write_record(out / RECORD, setting)
    keep_freed_memory()
    for i, ((split, number), path) in enumerate(zip(cases, files, strict=True)):
        rng = np.random.default_rng([SPLITS.index(split), number])
        massif, climate = draw(setting, rng)
        times = [setting.years * (n + 1) / setting.frames for n in range(setting.frames)]
        write_case(path, massif, list(evolve(massif, climate, times)), setting.physics)
        log.info("simulated case %d of %d to %s", i + 1, len(cases), path)
    return files


def draw(setting: Setting, rng: np.random.Generator) -> tuple[Massif, Climate]:
    """Mountains, and the climate in which glaciers grow on them."""
    low, high = setting.sizes
    ny, nx = rng.integers(low, high + 1, 2).tolist()
    massif = Massif(
        mountains((ny, nx), setting.spacing, rng),
        setting.spacing,
        float(rng.uniform(*setting.arrhenius)),
        float(rng.uniform(*setting.slidingco)),
    )
    climate = Climate(
        float(np.quantile(massif.topography, SNOW_FREE)),
        warming=WARMING / (setting.years / 3),
        since=setting.years * 2 / 3,
    )
    return massif, climate


def mountains(shape: Shape, spacing: float, rng: np.random.Generator) -> Array:
    """Random topography: a long massif at any angle, with valleys and side valleys.

    Args:
        shape: Cells along y and x.
        spacing: Cell size [m].
        rng: What draws it.

    Returns:
        Elevation [m], shape (y, x).
    """
    ny, nx = shape
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    massif = np.exp(-((along / 0.9) ** 2) - (across / 0.55) ** 2)
    # a field of twice the size is periodic, its half is not
    valleys = smooth_noise((2 * ny, 2 * nx), spacing, rng)[:ny, :nx]
    # as steep on small grids as on large ones
    relief = RELIEF * spacing * (ny + nx) / 2
    topography: Array = 1500 + relief * massif + ROUGHNESS * valleys * (0.3 + 0.7 * massif)
    return topography


def smooth_noise(shape: Shape, spacing: float, rng: np.random.Generator) -> Array:
    """A periodic Gaussian random field of deviation 1, its amplitudes falling as k^-2."""
    ky, kx = np.fft.fftfreq(shape[0], spacing)[:, None], np.fft.rfftfreq(shape[1], spacing)
    squared = ky**2 + kx**2
    amplitude = np.exp(-squared * SMALLEST**2) / (squared + LARGEST**-2)
    amplitude[0, 0] = 0
    modes = np.fft.rfft2(rng.normal(size=shape)) * amplitude
    field = np.fft.irfft2(modes, shape)
    normalized: Array = field / field.std()
    return normalized


def check_folder(out: Path, files: list[Path], setting: Setting, *, overwrite: bool) -> None:
    """Refuse to replace cases, or to mix those of different settings.

    Raises:
        SaveError: If that would happen.
    """
    refuse_existing(files, overwrite=overwrite, choose="another folder or seed")
    former_record(out / RECORD, as_json(setting), overwrite=overwrite)


def as_json(setting: Setting) -> dict[str, object]:
    """The setting as it comes back from a file."""
    parameters: dict[str, object] = json.loads(json.dumps(asdict(setting)))
    return parameters


def write_record(path: Path, setting: Setting) -> None:
    """Write what the folder holds."""
    record = {"simulator": "map2map.synthetic.ice_flow", "parameters": as_json(setting)}
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")


def write_case(path: Path, massif: Massif, frames: list[Frame], physics: Physics) -> None:
    """Write the frames of a case, all or nothing."""
    ny, nx = massif.topography.shape
    axes = {
        "time": (np.array([frame.time for frame in frames]), "yr"),
        "y": (massif.spacing * (np.arange(ny) + 0.5), "m"),
        "x": (massif.spacing * (np.arange(nx) + 0.5), "m"),
    }
    with replacing(path) as part, netCDF4.Dataset(part, "w") as file:
        file.title = "glaciers on random mountains, simulated"
        file.velocities = physics
        for name, (values, units) in axes.items():
            file.createDimension(name, len(values))
            coordinate = file.createVariable(name, "f8", (name,))
            coordinate[:] = values
            coordinate.units = units
        for name, units in UNITS.items():
            file.createVariable(name, "f4", tuple(axes), zlib=True).units = units
        for i, frame in enumerate(frames):
            for name, values in fields_of(massif, frame, physics).items():
                file[name][i] = values


def fields_of(massif: Massif, frame: Frame, physics: Physics) -> dict[str, Array]:
    """The variables of a case at one time, by name."""
    flow = frame.flow if physics == "membrane" else massif.flow(frame.thickness, physics)
    # rounded before they are added, so that usurf = topg + thk holds in the file
    topography, thickness = (a.astype(np.float32) for a in (massif.topography, frame.thickness))
    rate, sliding = (np.full_like(thickness, c) for c in (massif.arrhenius, massif.slidingco))
    return {
        "usurf": topography + thickness,
        "thk": thickness,
        "topg": topography,
        "arrhenius": rate,
        "slidingco": sliding,
        "strflowctrl": rate + sliding,
        **flow.named(),
    }
