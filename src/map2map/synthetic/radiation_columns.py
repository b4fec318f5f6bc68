"""Cloudy columns of air and what the sides of clouds do to radiation: 3-D minus 1-D fluxes.

Columns cover a random planet: `map2map.physics.cloudy_sky`. Fluxes are those of two streams in a
clear and a cloudy region, once with and once without radiation that crosses the edges of clouds:
`map2map.physics.radiation`, where formulas and sources are. Columns without clouds have no
difference.

Files are those of the data set "3dcorrection" of the MAELSTROM project, whose differences are those
of the solvers SPARTACUS and Tripleclouds of ECMWF's radiation scheme ecRad.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import netCDF4
import numpy as np

from map2map.column_stack import (
    StackWriter,
    assemble_inputs,
    assemble_outputs,
    shard_sizes,
    write_statistics,
)
from map2map.errors import RecipeError, near_names
from map2map.files import make_way, replacing
from map2map.physics.air_columns import season_of
from map2map.physics.cloudy_sky import LEVELS, Sky
from map2map.physics.heating_rates import heating_rates
from map2map.typing import Array

__all__ = ["Setting", "columns", "simulate"]

log = logging.getLogger(__name__)

Layout = Literal["raw", "stack"]

DAYS = {
    "train": [date(2020, 1, 1) + timedelta(30 * i) for i in range(13)],
    "val": [date(2019, 1, 31)],
    "test": [date(2019, 5, 31), date(2019, 10, 28)],
}
"""Those of the data set."""

PATCHES, STEPS, STEP_HOURS = 16, range(0, 3501, 125), 0.2
"""Files of a time, the numbers of times in files' names, and hours between those numbers."""

RECORD = "simulation.json"

UNITS = {"pressure_hl": "Pa", "lat": "degrees_north", "lon": "degrees_east"}

FEATURES = {
    "sca_inputs": "skin_temperature cos_solar_zenith_angle sw_albedo*6 sw_albedo_direct*6 "
    "lw_emissivity*2 solar_irradiance",
    "col_inputs": "q o3_mmr co2_mmr n2o_mmr ch4_mmr o2_mmr cfc11_mmr cfc12_mmr hcfc22_mmr ccl4_mmr "
    "cloud_fraction aerosol_mmr*12 q_liquid q_ice re_liquid re_ice",
    "hl_inputs": "temperature_hl pressure_hl",
    "inter_inputs": "overlap_param",
}
"""Of groups, in the order of their channels."""


@dataclass(frozen=True)
class Setting:
    """What columns have in common.

    Args:
        size: Of clouds, the smaller the more sides they have [m].
    """

    size: float = 1500.0

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise RecipeError(f"the size of clouds must be positive, not {self.size} m")


DEFAULT = Setting()


class Group(NamedTuple):
    """Columns of a file."""

    day: date
    step: int
    patch: int

    @property
    def name(self) -> str:
        """As file names end."""
        return f"{self.day:%Y%m%d}00_{self.step}c{self.patch}.nc"


def simulate(
    out: Path,
    *,
    columns_per_group: int = 240,
    groups: int = 36,
    layout: Layout = "raw",
    shards: int = 8,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate cloudy columns and the effect of the sides of clouds on radiation.

    Layout "raw" writes a pair of files for each group of columns, ``raw/rad4NN_inputs_NAME.nc`` and
    ``raw/3dcorrection_outputs_NAME.nc``, where NAME is date, step and patch, ``2020010100_0c0``.
    Those of 2020 are for training, 20190131 for validation, the others of 2019 for testing. Inputs,
    float32 and from the top down: ``sca_inputs`` (column, 17), ``col_inputs`` (column, 137, 27),
    ``hl_inputs`` (column, 138, 2), ``inter_inputs`` (column, 136, 1), ``pressure_hl``
    (column, 138, 1) [Pa], ``lat``, ``lon``. Outputs, with minus without sides: ``flux_dn_sw``,
    ``flux_up_sw``, ``flux_dn_lw``, ``flux_up_lw`` (column, 138) [W m-2], ``hr_sw`` and ``hr_lw``
    (column, 137) [K d-1].

    Layout "stack" writes what is prepared from these: ``processed/x/0.npy``, … and
    ``processed/y/0.npy``, …, see `map2map.column_stack`, columns in the order train, val, test;
    and ``processed/stats.npz`` with moments over all columns.

    A group depends on its name, its size and the seed, not on how many there are.

    Args:
        out: Folder to write to.
        columns_per_group: Columns of a file.
        groups: Number of files, at least 3: a sixth each for val and test, the rest for train.
        layout: Which files are written.
        shards: Number of shards of layout "stack"; columns that remain are one more.
        setting: Clouds.
        seed: Of the planet and its weather.
        overwrite: Whether an earlier simulation in the folder may be removed.

    Returns:
        The files of columns.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    if columns_per_group < 1 or seed < 0:
        raise RecipeError(
            f"simulate needs columns_per_group >= 1 and seed >= 0, not {columns_per_group}, {seed}"
        )
    if layout not in get_args(Layout):
        raise RecipeError(f"unknown layout {layout!r}{near_names(layout, get_args(Layout))}")
    names = groups_of(groups)
    sizes = shard_sizes(columns_per_group * groups, shards) if layout == "stack" else []
    patterns = ("raw/*_inputs_*.nc", "raw/*_outputs_*.nc", "processed/[xy]/*.npy")
    make_way(out, patterns, out / RECORD, overwrite=overwrite)
    record = {
        "simulator": "map2map.synthetic.radiation_columns",
        "parameters": asdict(setting)
        | {"columns_per_group": columns_per_group, "groups": groups, "seed": seed},
    }
    with replacing(out / RECORD) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")
    made = simulated(names, columns_per_group, setting, seed)
    if layout == "raw":
        return [path for group, arrays in made for path in write_group(out / "raw", group, arrays)]
    return write_processed(out / "processed", made, sizes)


def groups_of(count: int) -> list[Group]:
    """So many groups, first those for training.

    Raises:
        RecipeError: If there are too few or too many for the names.
    """
    few = max(1, count // 6)
    counts = {"train": count - 2 * few, "val": few, "test": few}
    most = 6 * len(DAYS["val"]) * len(STEPS) * PATCHES + 5
    if not 3 <= count <= most:
        raise RecipeError(f"simulate needs from 3 to {most} groups, not {count}")
    found = []
    for split, days in DAYS.items():
        for i in range(counts[split]):
            # every day, then every patch, then later in the year; few groups have all times of day
            times, number = divmod(i, len(days))
            patch = (8 + 5 * number + 3 * times) % PATCHES
            found.append(Group(days[number], STEPS[times // PATCHES], patch))
    return found


Arrays = dict[str, Array]
"""The variables of a group by name, float32."""


def simulated(
    groups: Sequence[Group], count: int, setting: Setting, seed: int
) -> Iterator[tuple[Group, Arrays]]:
    """The groups, one in memory at a time."""
    for number, group in enumerate(groups):
        yield group, columns(group, count, setting, seed)
        log.info("simulated group %d of %d, %s", number + 1, len(groups), group.name)


def columns(group: Group, count: int, setting: Setting = DEFAULT, seed: int = 0) -> Arrays:
    """The variables of a group of so many columns, inputs and outputs."""
    keys = [seed, group.day.toordinal(), group.step, group.patch]
    latitude, longitude = block_of_globe(group.patch, count)
    time = group.step * STEP_HOURS
    day = group.day + timedelta(hours=int(time))
    sky = Sky.draw(latitude, longitude, season_of(day.timetuple().tm_yday), time % 24, keys)
    with_sides, without = sky.fluxes(setting.size), sky.fluxes(np.inf)
    found = sky.inputs()
    nets = []
    for kind, sides, none in zip(("sw", "lw"), with_sides, without, strict=True):
        down, up = (sides.down - none.down).T, (sides.up - none.up).T
        found[f"flux_dn_{kind}"], found[f"flux_up_{kind}"] = down, up
        nets.append(down - up)
    for kind, net in zip(("sw", "lw"), nets, strict=True):
        found[f"hr_{kind}"] = heating_rates(net, sky.half)
    return {name: values.astype(np.float32) for name, values in found.items()}


def block_of_globe(patch: int, count: int) -> tuple[Array, Array]:
    """Latitudes and longitudes [rad] of columns that lie along lines within a sector of the globe.

    Patches are sectors of longitude, so that each has all climates.
    """
    lines = max(1, round(np.sqrt(count)))
    sine = 1 - (2 * np.arange(count) + 1) / count
    along = np.arange(count) * lines / count % 1
    return np.arcsin(sine), 2 * np.pi * (patch + along) / PATCHES


def write_group(folder: Path, group: Group, arrays: Arrays) -> list[Path]:
    """Write the two files of a group, each all or nothing."""
    outputs = {
        name: values for name, values in arrays.items() if name[:4] in ("flux", "hr_s", "hr_l")
    }
    inputs = {name: values for name, values in arrays.items() if name not in outputs}
    files = []
    for prefix, some in (("rad4NN_inputs", inputs), ("3dcorrection_outputs", outputs)):
        files.append(folder / f"{prefix}_{group.name}")
        with replacing(files[-1]) as part, netCDF4.Dataset(part, "w") as file:
            file.title = "cloudy columns of air and the radiation of the sides of clouds, simulated"
            for name, values in some.items():
                write_variable(file, name, values)
    return files


def write_variable(file: netCDF4.Dataset, name: str, values: Array) -> None:
    """Add an array of columns to an open file."""
    levels = {LEVELS + 1: "half_level", LEVELS: "level", LEVELS - 1: "level_interface"}
    axes = ["column", *(levels.get(n, f"{name}_feature") for n in values.shape[1:])]
    for axis, size in zip(axes, values.shape, strict=True):
        if axis not in file.dimensions:
            file.createDimension(axis, size)
    variable = file.createVariable(name, "f4", axes, fill_value=False)
    variable[:] = values
    units = UNITS.get(name) or {"flux": "W m-2", "hr_s": "K d-1", "hr_l": "K d-1"}.get(name[:4])
    if units:
        variable.units = units
    if name in FEATURES:
        variable.features = FEATURES[name]


def write_processed(
    folder: Path, made: Iterator[tuple[Group, Arrays]], sizes: Sequence[int]
) -> list[Path]:
    """Write groups as stacks of inputs and outputs, with their moments."""
    x, y = (StackWriter(folder / name, sizes) for name in "xy")
    for _, arrays in made:
        x.add(assemble_inputs(arrays))
        y.add(assemble_outputs(arrays))
    x.close()
    y.close()
    write_statistics(folder / "stats.npz", x.files, y.files)
    return [*x.files, *y.files]
