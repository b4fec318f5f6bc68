"""Columns of air and what breaking gravity waves do to their winds: u, v, T, ps, z -> du, dv.

Columns cover a random planet from pole to pole, with the climate of a day of the year (jets,
tropopause, stratopause) and random weather, `map2map.physics.air_columns`. The drag is that of a
spectrum of waves which are launched at the lowest level, at some 450 hPa, the same everywhere, and
filtered by the winds above: `map2map.physics.gravity_waves`, where formulas and sources are.

Files are those of the data set of Chantry, Hatfield, Dueben, Polichtchouk & Palmer 2021 (*J. Adv.
Model. Earth Syst.* 13, e2021MS002477, "NOGWD") as the AI4sim collection stores them.
"""

import json
import logging
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path

import h5py
import numpy as np
import yaml

from map2map.errors import RecipeError
from map2map.files import make_way, replacing
from map2map.physics.air_columns import (
    GAS_CONSTANT,
    GRAVITY,
    HybridLevels,
    Weather,
    log_height,
    mean_temperature,
    mean_wind,
    season_of,
    spiral,
    surface_noise,
)
from map2map.physics.gravity_waves import Spectrum, wave_drag
from map2map.typing import Array

__all__ = ["Setting", "columns", "simulate"]

log = logging.getLogger(__name__)

DATES = {
    "train": [date(2015, 1, 1) + timedelta(30 * i) for i in range(12)],
    "val": [date(2016, 2, 25), date(2016, 6, 24), date(2016, 12, 21)],
    "test": [date(2017, 2, 19), date(2017, 7, 19), date(2017, 11, 16)],
}
"""Those of the data set; fewer shards are the first ones."""

LIST, RECORD = "filenames-split.yaml", "simulation.json"

BLOCK = 256
"""Columns that are computed together; their waves stay in the processor's cache."""

LAPSE = 0.0065
"""Of the temperature between sea level and the ground [K/m]."""


@dataclass(frozen=True)
class Setting:
    """What columns have in common.

    Args:
        levels: Number of levels, which is 63 in the data set.
        top: Pressure of the highest half level [Pa].
        launch: Pressure of the lowest one, where waves are launched, above the sea [Pa].
        step: Time over which the increments of the wind are taken [s].
        mountains: Height of most of them [m]; the highest are three times as high.
        spectrum: The waves.
    """

    levels: int = 63
    top: float = 1.0
    launch: float = 45e3
    step: float = 1800.0
    mountains: float = 900.0
    spectrum: Spectrum = field(default_factory=Spectrum)

    def __post_init__(self) -> None:
        if not (self.step > 0 and 0 <= self.mountains <= 1500):
            raise RecipeError(
                f"`step` must be positive and `mountains` from 0 to 1500 m, not {self.step}, "
                f"{self.mountains}"
            )
        # which refuses what it cannot take
        HybridLevels(self.levels, self.top, self.launch)

    @property
    def grid(self) -> HybridLevels:
        """The levels."""
        return HybridLevels(self.levels, self.top, self.launch)


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    rows: int = 4000,
    shards: int = 18,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate columns of air and the drag of gravity waves in them.

    A shard is a day, ``raw/YYYY-MM-DD.h5``, with float32 data sets, channels first and levels from
    the top down: ``x`` (3 levels + 2, rows), u | v | T | surface pressure | surface geopotential
    [m s-1, m s-1, K, Pa, m2 s-2], and ``y`` (2 levels, rows), the increments du | dv [m s-1] of a
    time step. Rows are columns along a spiral from the north pole to the south pole.
    ``filenames-split.yaml`` lists the files for train, val and test; they are of different years.

    A shard depends on its date, its number of rows and the seed, not on how many there are.

    Args:
        out: Folder to write to.
        rows: Columns per shard; the data set has 2355840.
        shards: Number of files, 3 to 18: a sixth each for val and test, and the rest for train.
        setting: Levels and waves.
        seed: Of the planet and its weather.
        overwrite: Whether an earlier simulation in the folder may be removed.

    Returns:
        The shards.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    most = sum(map(len, DATES.values()))
    if rows < 1 or seed < 0 or not 3 <= shards <= most:
        raise RecipeError(
            f"simulate needs rows >= 1, seed >= 0 and 3 to {most} shards (there are so many "
            f"dates), not rows {rows}, seed {seed}, shards {shards}"
        )
    few = max(1, shards // 6)
    counts = {"train": shards - 2 * few, "val": few, "test": few}
    split = {name: DATES[name][:count] for name, count in counts.items()}
    days = [day for name in split for day in split[name]]
    files = [out / "raw" / f"{day.isoformat()}.h5" for day in days]
    listed, record = out / LIST, out / RECORD
    make_way(out, ("raw/*.h5", LIST), record, overwrite=overwrite)
    # before the shards, so that a folder that is not finished says what it is
    parameters = asdict(setting) | {"rows": rows, "seed": seed}
    write_text(record, json.dumps(as_record(parameters), indent=2) + "\n")
    for i, (day, path) in enumerate(zip(days, files, strict=True)):
        write_shard(path, day, rows, setting, seed)
        log.info("simulated shard %d of %d to %s", i + 1, len(files), path)
    names = {name: [f"{day.isoformat()}.h5" for day in split[name]] for name in split}
    write_text(listed, yaml.safe_dump(names, sort_keys=False))
    return files


def as_record(parameters: dict[str, object]) -> dict[str, object]:
    """What a folder says about itself."""
    return {"simulator": "map2map.synthetic.gravity_waves", "parameters": parameters}


def write_text(path: Path, text: str) -> None:
    """Write it, all or nothing."""
    with replacing(path) as part:
        part.write_text(text)


def write_shard(path: Path, day: date, rows: int, setting: Setting, seed: int) -> None:
    """Write the columns of a day, all or nothing; a block of them is in memory."""
    levels = setting.levels
    planet = Planet(day, rows, setting, seed)
    # so that neither reading nor writing touches more of the file than it must
    many = max(1, 2**22 // (3 * levels + 2) // BLOCK) * BLOCK
    with replacing(path) as part, h5py.File(part, "w") as file:
        x = file.create_dataset("x", (3 * levels + 2, rows), "f4")
        y = file.create_dataset("y", (2 * levels, rows), "f4")
        x.attrs["channels"] = "u|v|T|surface pressure|surface geopotential"
        x.attrs["channel_units"] = "m s-1|m s-1|K|Pa|m2 s-2"
        y.attrs["channels"], y.attrs["units"] = "du|dv", "m s-1"
        y.attrs["time_step_in_s"] = setting.step
        for start in range(0, rows, many):
            stop = min(start + many, rows)
            blocks = [
                planet.block(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)
            ]
            x[:, start:stop] = np.concatenate([block[0] for block in blocks], axis=1)
            y[:, start:stop] = np.concatenate([block[1] for block in blocks], axis=1)


def columns(day: date, rows: int, setting: Setting = DEFAULT, seed: int = 0) -> tuple[Array, Array]:
    """The columns of a day as they are written: x (3 levels + 2, rows), y (2 levels, rows)."""
    x, y = Planet(day, rows, setting, seed).block(0, rows)
    return x, y


class Planet:
    """Terrain that depends on the seed, and the weather of a day.

    Args:
        day: The day.
        rows: Columns on the planet.
        setting: Levels and waves.
        seed: The seed.
    """

    def __init__(self, day: date, rows: int, setting: Setting, seed: int) -> None:
        self.setting, self.seed = setting, [seed, day.toordinal()]
        rng = np.random.default_rng(self.seed)
        self.season = season_of(day.timetuple().tm_yday)
        self.oscillation = rng.uniform(0, 2 * np.pi)
        self.weather = Weather.draw(rng)
        self.latitude, self.longitude = spiral(rows, rng.uniform(0, 2 * np.pi))

    def block(self, start: int, stop: int) -> tuple[Array, Array]:
        """The arrays x and y of some of the columns, float32; see `columns`."""
        setting, latitude = self.setting, self.latitude[start:stop]
        u, v, warmth, ground, pressure = self._air(latitude, self.longitude[start:stop])
        half = setting.grid.half(pressure)
        drag = wave_drag(u, v, warmth, half, setting.spectrum, setting.levels)
        x = np.concatenate([u, v, warmth, pressure[:, None], ground[:, None]], axis=1)
        y = setting.step * np.concatenate([drag.x, drag.y], axis=1)
        return x.T.astype(np.float32), y.T.astype(np.float32)

    def _air(self, latitude: Array, longitude: Array) -> tuple[Array, ...]:
        """Winds, temperatures, surface geopotential and surface pressure."""
        setting = self.setting
        # every block draws the same functions of the globe
        terrain, rng = np.random.default_rng(self.seed[0]), np.random.default_rng([*self.seed, 1])
        rough = surface_noise(latitude, longitude, terrain, 16)
        # half of the planet is sea, and no mountain is so high that levels would cross
        height = setting.mountains * np.clip(rough, 0, 3) ** 1.2
        high = surface_noise(latitude, longitude, rng)
        sea_level = 101325 + 900 * np.clip(high, -3, 3) * (0.3 + np.abs(np.sin(latitude)))
        warm = 288.0 - LAPSE * height / 2
        pressure = sea_level * np.exp(-GRAVITY * height / (GAS_CONSTANT * warm))
        grid = setting.grid
        half = grid.half(pressure)
        heights = log_height((half[:, 1:] + half[:, :-1]) / 2)
        flat = log_height((grid.reference[1:] + grid.reference[:-1]) / 2)
        u, v, warmth = self.weather.at(latitude, longitude, flat)
        u += mean_wind(latitude, heights, self.season, self.oscillation)
        warmth += mean_temperature(latitude, heights, self.season)
        return u, v, warmth, GRAVITY * height, pressure
