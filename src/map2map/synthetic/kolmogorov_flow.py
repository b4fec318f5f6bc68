"""Two-dimensional turbulence that a shear force drives: vorticity in time, several flows.

See `map2map.physics.kolmogorov`. Each flow starts from random vorticity of large scales, and is
kept once it has forgotten that. What is written is the vorticity on every `coarsen`-th cell after
all that is beyond the wavenumbers of that grid was taken away.
"""

import json
import logging
from dataclasses import asdict, dataclass
from math import pi
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import fft

from map2map.errors import RecipeError
from map2map.files import refuse_existing, replacing
from map2map.physics.kolmogorov import KolmogorovFlow
from map2map.typing import Array

__all__ = ["Setting", "simulate"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """The flow, in units in which the square has the side 2 pi and the force the strength 1.

    Args:
        size: Cells per axis of the simulation.
        coarsen: How many times fewer are written.
        viscosity: Of the flow.
        drag: Linear, 1/time.
        waves: Of the force along the second axis.
        interval: Time between frames.
        step: Longest time step.
        spin_up: Time before the first frame.
    """

    size: int = 64
    coarsen: int = 2
    viscosity: float = 0.01
    drag: float = 0.1
    waves: int = 4
    interval: float = 0.2
    step: float = 0.025
    spin_up: float = 10.0

    def __post_init__(self) -> None:
        if self.coarsen < 1 or self.size % (2 * self.coarsen):
            raise RecipeError(
                f"`size` is a multiple of twice `coarsen`, not {self.size} and {self.coarsen}"
            )
        if not (self.interval > 0 and self.step > 0 and self.spin_up >= 0):
            raise RecipeError(
                f"`interval` and `step` are above 0, `spin_up` 0 or more, not {self.interval}, "
                f"{self.step}, {self.spin_up}"
            )

    @property
    def flow(self) -> KolmogorovFlow:
        """The flow."""
        return KolmogorovFlow(self.size, viscosity=self.viscosity, drag=self.drag, waves=self.waves)


DEFAULT = Setting()


def simulate(
    out: Path,
    *,
    runs: int = 26,
    frames: int = 61,
    setting: Setting = DEFAULT,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate turbulence.

    Args:
        out: Folder to write ``flow_00.nc``, ``flow_01.nc``, … to, each with the vorticity [1/s] of
            (time, x, y) as float32 and what the force does to it, curl [1/s2] of (x, y); and
            ``simulation.json`` with the parameters.
        runs: How many flows.
        frames: Of each.
        setting: The flow, its grid and times.
        seed: Of the first vorticity.
        overwrite: Whether files that are there may be replaced.

    Returns:
        The files of vorticity.
    """
    if runs < 1 or frames < 1:
        raise RecipeError(f"there are 1 or more runs and frames, not {runs} and {frames}")
    out = Path(out)
    width = max(2, len(str(runs - 1)))
    paths = [out / f"flow_{k:0{width}d}.nc" for k in range(runs)]
    about = out / "simulation.json"
    refuse_existing([*paths, about], overwrite=overwrite)
    out.mkdir(parents=True, exist_ok=True)
    flow = setting.flow
    # all flows at once, each with random numbers of its own
    now = np.stack([first(flow, np.random.default_rng([seed, k])) for k in range(runs)])
    now = flow.advance(now, setting.spin_up, setting.step)
    kept = []
    for k in range(frames):
        now = flow.advance(now, setting.interval, setting.step) if k else now
        kept.append(coarse(now, setting.coarsen).astype(np.float32))
        if k % 20 == 0:
            log.info("frame %d of %d: energy %.3g", k + 1, frames, flow.energy(now).mean())
    values = np.stack(kept, axis=1)
    for path, one in zip(paths, values, strict=True):
        write(path, one, setting)
    with replacing(about) as temporary:
        told = {"seed": seed, "runs": runs, "frames": frames, "setting": asdict(setting)}
        temporary.write_text(json.dumps(told, indent=2))
    return paths


def first(flow: KolmogorovFlow, rng: np.random.Generator) -> Array:
    """Random vorticity of a few waves, of deviation 2 [1/s]."""
    modes = fft.rfft2(rng.normal(size=(flow.size, flow.size)))
    waves = np.hypot(
        fft.fftfreq(flow.size, 1 / flow.size)[:, None], fft.rfftfreq(flow.size, 1 / flow.size)
    )
    modes[(waves < 1) | (waves > 8)] = 0
    field = fft.irfft2(modes, s=(flow.size, flow.size))
    return np.asarray(2 * field / field.std())


def coarse(vorticity: Array, times: int) -> Array:
    """Vorticity on every so many-th cell, without the waves that those cells cannot tell."""
    if times == 1:
        return vorticity
    size = vorticity.shape[-1]
    modes = np.array(fft.rfft2(vorticity))
    limit = size // times / 2
    modes[..., np.abs(fft.fftfreq(size, 1 / size)) >= limit, :] = 0
    modes[..., fft.rfftfreq(size, 1 / size) >= limit] = 0
    whole = fft.irfft2(modes, s=(size, size))
    return np.asarray(whole[..., ::times, ::times])


def write(path: Path, values: Array, setting: Setting) -> None:
    """Write the frames of one flow."""
    size = values.shape[-1]
    cells = np.arange(size) * 2 * pi / size
    curl = np.broadcast_to(-setting.waves * np.cos(setting.waves * cells), (size, size))
    times = np.arange(len(values)) * setting.interval
    data = xr.Dataset(
        {
            "vorticity": (("time", "x", "y"), values, {"units": "s-1"}),
            "curl": (("x", "y"), curl.astype(np.float32), {"units": "s-2"}),
        },
        {
            "time": ("time", times, {"long_name": "time since the first frame [s]"}),
            "x": ("x", cells, {"units": "m"}),
            "y": ("y", cells, {"units": "m"}),
        },
    )
    with replacing(path) as temporary:
        data.to_netcdf(temporary)
