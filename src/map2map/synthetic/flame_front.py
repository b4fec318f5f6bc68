"""Turbulent premixed flames, filtered as large-eddy simulations are: c → flame surface density.

A flame stands across a turbulent flow of fresh gas, which wrinkles it. Its front follows the
G-equation dG/dt + u . grad G = S_L (|grad G| + M laplacian G) with a velocity u that is a
random field without divergence, of the spectrum of von Karman and Pao, and changes in time
(`physics.turbulence`, `physics.level_set`). G is kept a signed distance, so that c is the profile
of a plane laminar flame at that distance (`physics.flames`). The density is constant: gas does
not expand in the flame, and the flame does not act on the flow. The mean velocity is such that
the flame stays where it is.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np
import yaml

from map2map.errors import GeometryError, RecipeError, SaveError, near_names
from map2map.files import refuse_existing, replacing
from map2map.physics.flames import flame_profile, gaussian_filter, gradient_norm
from map2map.physics.level_set import advance, burnt_fraction, largest_step, redistance, refined
from map2map.physics.turbulence import KarmanPao, Turbulence
from map2map.synthetic.flame_meshes import Part, flame_mesh, write_zones
from map2map.typing import Array, Shape

__all__ = ["Case", "Layout", "Setting", "filtered_flame", "fronts", "simulate"]

log = logging.getLogger(__name__)

Layout = Literal["cnf", "r2", "mesh"]

RECORD = "simulation.json"

REFINE = 2
"""Cells of the direct simulation per cell of the front, whose wrinkles are larger."""

WARM_UP, BETWEEN = 1.0, 0.25
"""Before what is written, and from snapshot to snapshot [turnovers of eddies]."""

OFTEN, BRIEFLY = 4, 3
"""Steps between relaxations of the distance, and iterations of them."""

REACH = 7.0
"""How far from the front the distance is known for a snapshot [thicknesses]."""

PLACE = 0.5
"""Where the flame stands, as a share of the first axis."""

EDGE = 0.05
"""How far c may be from 0 and 1 at the ends of the first axis."""


@dataclass(frozen=True)
class Case:
    """A simulation.

    Args:
        name: How its files start.
        intensity: u' / S_L.
        surge: What u' is multiplied by in the first third of the time that is written.
        larger: Cells per axis, over those of the setting.
    """

    name: str
    intensity: float
    surge: float = 1.0
    larger: float = 1.0


CASES: dict[str, tuple[Case, ...]] = {
    "cnf": (Case("DNS1", 4.0), Case("DNS2", 8.0), Case("DNS3", 6.0, surge=2.0)),
    "r2": (Case("R2", 6.0), Case("R3", 8.0, larger=1.25)),
    "mesh": (Case("R2", 6.0), Case("R3", 8.0, larger=1.25)),
}
"""The simulations of each layout; their order is part of the seed."""

NAMES = {
    "cnf": ("filt_{}", "filt_grad_{}", "grad_filt_{}"),
    "r2": ("c_filt", "c_grad_filt", "c_filt_grad"),
    "mesh": ("c_filt", "c_grad_filt", "c_filt_grad"),
}
"""Of filtered c, filtered |grad c| and |grad of filtered c|."""


@dataclass(frozen=True)
class Setting:
    """What simulations have in common; the defaults are of methane and air.

    Args:
        size: Cells of the large-eddy grid across the flow; along it there are twice as many.
        spacing: Cell size of the direct simulation [m].
        every: Cells of the direct simulation per cell of the large-eddy grid, on each axis.
        width: Of the filter [cells of the direct simulation].
        thickness: Thermal thickness of the laminar flame [m].
        speed: Of the laminar flame, S_L [m/s].
        markstein: Markstein's length M, in thicknesses of the flame.
        integral: Integral length of turbulence, as a share of the width of the box.
        viscosity: Of fresh gas, which sets Kolmogorov's length [m^2/s].
    """

    size: int = 24
    spacing: float = 1e-4
    every: int = 4
    width: int = 8
    thickness: float = 4e-4
    speed: float = 0.36
    markstein: float = 0.25
    integral: float = 0.15
    viscosity: float = 1.6e-5

    def __post_init__(self) -> None:
        if self.size < 4 or self.every < REFINE or self.every % REFINE or self.width < 0:
            raise RecipeError(
                f"flames need size >= 4, an even `every` and width >= 0, not size {self.size}, "
                f"every {self.every}, width {self.width}"
            )
        positive = ("spacing", "thickness", "speed", "viscosity", "integral")
        for name in positive:
            if not 0 < getattr(self, name) < np.inf:
                raise RecipeError(f"`{name}` must be positive, not {getattr(self, name)}")
        if self.integral > 0.5:
            raise RecipeError(
                f"eddies of {self.integral} of the box do not fit into it; `integral` is at most "
                f"0.5, and 0.15 leaves room for several"
            )
        if not 0 <= self.markstein < np.inf:
            raise RecipeError(f"`markstein` must be 0 or more, not {self.markstein}")
        if self.thickness < 2 * self.spacing:
            raise RecipeError(
                f"a flame of {self.thickness} m is not resolved by cells of {self.spacing} m; it "
                f"takes two of them or more"
            )


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    snapshots: int = 4,
    layout: Layout = "cnf",
    setting: Setting = DEFAULT,
    seed: int = 0,
    zones: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate turbulent premixed flames, and filter them as a large-eddy simulation would.

    Files are ``raw/CASE_SNAPSHOT.h5``, such as ``raw/DNS1_00001000.h5``, of float64 data sets
    without chunks, here for a filter of 8 cells:

    - layout "cnf": ``filt_8``, filtered c; ``filt_grad_8``, filtered |grad c|, which is the flame
      surface density [1/m]; ``grad_filt_8``, |grad of filtered c|, what is resolved of it [1/m].
      Axes are x, y, z, and the gas burns towards x = 0. At index 0 of each axis there is one more
      plane, a copy of the last, which is to be dropped. ``DNS1`` and ``DNS2`` are turbulence of 4
      and 8 S_L; ``DNS3`` of 6, and 12 for a third of the time.
    - layout "r2": ``c_filt``, ``c_grad_filt`` and ``c_filt_grad``, likewise, but with axes z, y, x
      and without additional planes. ``R2`` is turbulence of 6 S_L, listed in ``filenames.yaml``;
      ``R3`` is turbulence of 8 S_L in a box of 1.25 times as many cells, not listed there.
    - layout "mesh": the same fields and cases at the nodes of tetrahedra, see `flame_meshes`, and
      `map2map.meshes` for the layout of files, ``raw/R2_00001000_zone_0001.h5``, one per zone.
      Nodes are cells of the large-eddy grid that are moved at random.

    Attributes of data sets on grids are ``units``, ``cell_size`` [m], ``filter_width`` [m] and
    ``thickness`` [m], of files also ``time`` [s] and ``rms`` [m/s], u'. A case depends on
    its seed and the setting; more snapshots go on from the others, but for surges.

    Args:
        out: Folder to write to.
        snapshots: Of each case, a quarter of a turnover of eddies apart.
        layout: Names and axes: "cnf", "r2" or "mesh".
        setting: Size, flame and turbulence.
        seed: Seed of all cases, which are different flames.
        zones: How many parts a mesh is cut into, each with a file of its own; default: 4. Only of
            the layout "mesh".
        overwrite: Whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        RecipeError: If a parameter is not allowed.
        GeometryError: If a flame does not fit into its box.
        SaveError: If files exist, or cannot be written.
    """
    if snapshots < 1 or seed < 0:
        raise RecipeError(
            f"simulate needs snapshots >= 1 and seed >= 0, not snapshots {snapshots}, seed {seed}"
        )
    if zones is not None and layout != "mesh":
        raise RecipeError(f"the layout {layout!r} is not cut into zones; leave out --zones")
    zones = 4 if zones is None else zones
    if zones < 1:
        raise RecipeError(f"a mesh is cut into 1 zone or more, not {zones}")
    if layout not in get_args(Layout):
        raise RecipeError(f"unknown layout {layout!r}{near_names(layout, get_args(Layout))}")
    cases = CASES[layout]
    # for each case, for each snapshot
    files = [
        [
            names_of(out, case, number, zones if layout == "mesh" else 0)
            for number in range(snapshots)
        ]
        for case in cases
    ]
    every = [path for shots in files for paths in shots for path in paths]
    about = {"layout": layout, "snapshots": snapshots, "seed": seed, **asdict(setting)}
    if layout == "mesh":
        about["zones"] = zones
    check_folder(out, every, overwrite=overwrite)
    # before the flames, so that a folder that is not finished says what it is
    write_text(
        out / RECORD,
        json.dumps({"simulator": "map2map.synthetic.flame_front", "parameters": about}, indent=2),
    )
    for number, (case, shots) in enumerate(zip(cases, files, strict=True)):
        rng = np.random.default_rng([seed, get_args(Layout).index(layout), number])
        flames = fronts(setting, case, snapshots, rng)
        parts: list[Part] = []
        for paths, (time, rms, level) in zip(shots, flames, strict=True):
            if layout == "mesh":
                # one mesh for all snapshots
                parts = parts or flame_mesh(level.shape, setting.every, setting.spacing, zones, rng)
                fields = dict(zip(NAMES[layout], whole_flame(level, setting), strict=True))
                write_zones(paths, parts, fields, setting.spacing)
            else:
                about_it = {"time": time, "rms": rms}
                write(paths[0], layout, filtered_flame(level, setting), setting, about_it)
        log.info("simulated flame %s, %d of %d", case.name, number + 1, len(cases))
    if layout == "r2":
        names = [path.name for (path,) in files[0]]
        write_text(out / "filenames.yaml", yaml.safe_dump(names))
    return every


def names_of(out: Path, case: Case, snapshot: int, zones: int) -> list[Path]:
    """The files of a snapshot: of zones if there are any, else one."""
    name = f"{case.name}_{1000 * (snapshot + 1):08d}"
    parts = [f"_zone_{zone + 1:04d}" for zone in range(zones)] or [""]
    return [out / "raw" / f"{name}{part}.h5" for part in parts]


def fronts(
    setting: Setting, case: Case, snapshots: int, rng: np.random.Generator
) -> Iterator[tuple[float, float, Array]]:
    """A flame's front in time.

    Yields:
        Time [s], u' [m/s] and G [m], positive in burnt gas, of shape (x, y, z) on the grid of the
        direct simulation.

    Raises:
        GeometryError: If the flame reaches the ends of the box.
    """
    flame = Flame(setting, case, rng)
    for number in range(snapshots):
        surge = case.surge if number < snapshots / 3 else 1.0
        flame.burn(WARM_UP if number == 0 else 0.0, 1.0)
        flame.burn(BETWEEN, surge)
        yield flame.time, surge * flame.rms, flame.distance()


class Flame:
    """A flame that burns.

    Args:
        setting: Flame and turbulence.
        case: How strong that is.
        rng: Draws it.
    """

    def __init__(self, setting: Setting, case: Case, rng: np.random.Generator) -> None:
        self.setting, self.case = setting, case
        cells = round(setting.size * case.larger) * setting.every // REFINE
        self.shape: Shape = (2 * cells, cells, cells)
        self.cell = REFINE * setting.spacing
        self.rms = case.intensity * setting.speed
        length = setting.integral * cells * self.cell
        spectrum = KarmanPao.of_viscosity(self.rms, length, setting.viscosity)
        self.flow = Turbulence(spectrum, self.shape, self.cell, rng)
        self.turnover = length / self.rms
        # in cells, as is all that follows
        self.speed = setting.speed / self.cell
        self.markstein = setting.markstein * setting.thickness / self.cell
        plane = np.arange(self.shape[0], dtype=np.float32) + 0.5 - PLACE * self.shape[0]
        self.level = np.broadcast_to(plane[:, None, None], self.shape)
        self.time, self.steps, self.wind, self.carried = 0.0, 0, self.speed, 0.0

    def burn(self, turnovers: float, surge: float) -> None:
        """Go on for so many turnovers of eddies, in a flow that is so many times as fast."""
        until = self.time + turnovers * self.turnover
        while until - self.time > 1e-9 * self.turnover:
            velocity = self.flow.velocity(self.time, (self.carried * self.cell,))
            velocity *= np.float32(surge / self.cell)
            velocity[0] += np.float32(self.wind)
            step = largest_step(velocity, self.speed, self.markstein)
            step = min(step, until - self.time)
            before = self.fresh()
            self.level = advance(self.level, velocity, self.speed, self.markstein, step)
            after = self.fresh()
            self.time += step
            self.carried += self.wind * step
            # the mean flow is as fast as the flame has burnt, and brings it back to its place
            burning = self.wind - (after - before) / step
            self.wind = burning + (PLACE * self.shape[0] - after) / self.turnover
            self.steps += 1
            if self.steps % OFTEN == 0:
                self.level = redistance(self.level, BRIEFLY)

    def fresh(self) -> float:
        """Cells of the first axis in front of the flame, on average."""
        return self.shape[0] * (1 - burnt_fraction(self.level))

    def distance(self) -> Array:
        """G [m] on the grid of the direct simulation.

        Raises:
            GeometryError: If the flame reaches the ends of the box.
        """
        # a third of a cell per iteration
        iterations = math.ceil(3 * REACH * self.setting.thickness / self.cell)
        found = self.cell * refined(redistance(self.level, iterations), REFINE)
        ends = flame_profile(np.array([found[0].max(), found[-1].min()]), self.setting.thickness)
        if ends[0] > EDGE or ends[1] < 1 - EDGE:
            raise GeometryError(
                f"the flame {self.case.name} reaches an end of its box after "
                f"{self.time / self.turnover:.2f} turnovers of eddies: c is up to {ends[0]:.3f} in "
                f"fresh and down to {ends[1]:.3f} in burnt gas; take a larger `size`, or a smaller "
                f"`integral` length"
            )
        return found


def filtered_flame(distance: Array, setting: Setting) -> tuple[Array, Array, Array]:
    """What a large-eddy simulation has of a flame.

    Args:
        distance: G [m], shape (x, y, z), on the grid of the direct simulation.
        setting: Flame, filter and grids.

    Returns:
        Filtered c, filtered |grad c| and |grad of filtered c| [1/m], on the large-eddy grid.
    """
    here = (slice(setting.every // 2, None, setting.every),) * 3
    c, surface, resolved = whole_flame(distance, setting)
    return c[here], surface[here], resolved[here]


def whole_flame(distance: Array, setting: Setting) -> tuple[Array, Array, Array]:
    """The same as `filtered_flame`, in all cells of the direct simulation."""
    periodic = (False, True, True)
    # beyond its ends the first axis goes on, so that the filter has something to take there
    more = math.ceil(1.2 * setting.width) + 3
    ends = setting.spacing * np.arange(1, more + 1)[:, None, None]
    longer = np.concatenate([distance[:1] - ends[::-1], distance, distance[-1:] + ends])
    c = flame_profile(longer, setting.thickness)

    def filtered(values: Array) -> Array:
        return gaussian_filter(values, setting.width, periodic)

    smooth = filtered(c)
    surface = filtered(gradient_norm(c, setting.spacing, periodic))
    resolved = gradient_norm(smooth, setting.spacing, periodic)
    return smooth[more:-more], surface[more:-more], resolved[more:-more]


def check_folder(out: Path, files: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to replace flames, or to put them beside others.

    Raises:
        SaveError: If that would happen.
    """
    refuse_existing([out / RECORD, *files], overwrite=overwrite)
    others = [path.name for path in sorted((out / "raw").glob("*.h5")) if path not in files]
    if others:
        raise SaveError(
            f"{out / 'raw'} holds {', '.join(others[:3])}{', …' if others[3:] else ''} besides, "
            f"which would be read with the new flames; move them, or choose another folder"
        )


def write(
    path: Path,
    layout: Layout,
    fields: Sequence[Array],
    setting: Setting,
    about: dict[str, float],
) -> None:
    """Write a snapshot, all or nothing."""
    attributes = {
        "cell_size": setting.every * setting.spacing,
        "filter_width": setting.width * setting.spacing,
        "thickness": setting.thickness,
    }
    with replacing(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(about)
        for name, values, units in zip(NAMES[layout], fields, ("1", "1/m", "1/m"), strict=True):
            # the copies of a periodic plane, as such files have them; or the other order of axes
            whole = np.pad(values, (1, 0), mode="wrap") if layout == "cnf" else values.T
            item = file.create_dataset(
                name.format(setting.width), data=np.ascontiguousarray(whole, np.float64)
            )
            item.attrs.update(attributes | {"units": units})


def write_text(path: Path, text: str) -> None:
    """Write a small file, all or nothing."""
    with replacing(path) as part:
        part.write_text(text.rstrip() + "\n")
