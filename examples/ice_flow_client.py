"""A glacier in time, with the velocities of an emulator: what an ice-flow model does with one.

A step is that of the Instructed Glacier Model (Jouvet et al. 2022, J. Glaciol. 68, 651): slopes of
the surface by central differences; velocities from the emulator, 0 off the ice and no faster than a
cap; upwind conservation of mass with the mean velocity; a mass balance that depends on elevation.

    m2m simulate ice_flow --out glaciers          # then train an emulator of ubar, vbar on them
    python ice_flow_client.py emulator.safetensors --years 100
    python ice_flow_client.py emulator.safetensors --geology geology.nc --slidingco 10
    python ice_flow_client.py --membrane          # without an emulator: solve for the velocities
    python ice_flow_client.py --shallow-ice       # or take the closed formula
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import netCDF4
import numpy as np
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from numpy.typing import NDArray

from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, M2MError, SourceError
from map2map.grids import Domain
from map2map.physics.glacier import Climate, evolve
from map2map.physics.ice import Velocity, conserve_mass, longest_step, shallow_ice, slopes
from map2map.physics.ice_membrane import membrane_flow
from map2map.physics.spacing import step_of
from map2map.synthetic.ice_flow import Setting, draw

Array = NDArray[np.floating]
INPUTS = ("thk", "usurf", "slopsurfx", "slopsurfy", "arrhenius", "slidingco", "strflowctrl")
OUTPUTS = ("ubar", "vbar")
ICE = 5.0
"""Thickness from which on the figure shows ice [m]."""


@dataclass(frozen=True)
class Glacier:
    """Where ice flows: bed [m], thickness at the start [m], cell sizes (dy, dx) [m], A and c."""

    bed: Array
    thickness: Array
    spacing: tuple[float, float]
    arrhenius: Array
    slidingco: Array


class Step(NamedTuple):
    """The glacier at one time [yr]."""

    time: float
    thickness: Array
    speed: Array


Velocities = Callable[[Glacier, Array], Velocity]
"""From a glacier and the thickness that it has now to the velocity averaged over the depth."""


def read(path: Path, arrhenius: float | None, slidingco: float | None) -> Glacier:
    """The geometry in a NetCDF file with x, y, thk, and usurf or topg; of several times, the last.

    A and c are those given, or else the file's, or else 78 and 0.
    """
    try:
        with netCDF4.Dataset(path) as file:
            fields = {name: np.ma.filled(v[:].astype(float), np.nan)
                      for name, v in file.variables.items() if v.dtype != str}  # fmt: skip
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    missing = {"x", "y", "thk"} - set(fields)
    if missing or not {"usurf", "topg"} & set(fields):
        raise FieldError(
            f"{path} has the variables {', '.join(fields)}, but x, y, thk, and usurf or topg are "
            f"needed"
        )
    steps = [step_of(fields[axis]) for axis in ("y", "x")]
    if any(step is None or not np.isfinite(step) for step in steps):
        raise GeometryError(f"x and y of {path} must be coordinates with even steps")
    # towards ascending coordinates, so that slopes and velocities have the signs of the axes
    order = tuple(slice(None, None, 1 if step > 0 else -1) for step in steps)

    def field(name: str, default: float | None = None) -> Array:
        values = fields[name] if default is None else np.full_like(fields["thk"], default)
        while values.ndim > 2:
            values = values[-1]
        values = values[order]
        if not np.isfinite(values).all() or values.shape != (len(fields["y"]), len(fields["x"])):
            raise FieldError(f"{name} of {path} must be finite on the axes y and x")
        return values

    thickness = np.maximum(field("thk"), 0)
    bed = field("usurf") - thickness if "usurf" in fields else field("topg")
    flow = [
        field(name, fallback if given is None and name not in fields else given)
        for name, given, fallback in (("arrhenius", arrhenius, 78), ("slidingco", slidingco, 0))
    ]
    return Glacier(bed, thickness, (abs(steps[0]), abs(steps[1])), *flow)


def made_up(seed: int, arrhenius: float | None, slidingco: float | None) -> Glacier:
    """Glaciers that have grown on random mountains for a century."""
    massif, climate = draw(Setting(), np.random.default_rng([seed, *b"client"]))
    *_, last = evolve(massif, climate, [100.0])
    given = (massif.arrhenius if arrhenius is None else arrhenius,
             massif.slidingco if slidingco is None else slidingco)  # fmt: skip
    flow = (np.full_like(massif.topography, value) for value in given)
    return Glacier(massif.topography, last.thickness, (massif.spacing,) * 2, *flow)


def emulated(emulator: Emulator) -> Velocities:
    """Velocities from an emulator whose inputs are among `INPUTS`, and its outputs have ubar, vbar.

    The emulator is given the whole grid, in physical units; it normalizes, and makes up what it
    needs beyond the edges as in training, or as zeros if that had no edges.
    """
    names, targets = emulator.inputs.names, emulator.targets.names
    if emulator.ndim != 2 or set(names) - set(INPUTS) or set(OUTPUTS) - set(targets):
        raise FieldError(
            f"the emulator maps {', '.join(names)} to {', '.join(targets)} on {emulator.ndim} "
            f"axes; ice flow needs inputs among {', '.join(INPUTS)} and the outputs "
            f"{', '.join(OUTPUTS)}, on 2 axes"
        )
    pad = "zero" if emulator.domain.pad == "refuse" else emulator.domain.pad
    domain = Domain(ndim=2, periodic=False, pad=pad)

    def velocities(glacier: Glacier, thickness: Array) -> Velocity:
        surface = glacier.bed + thickness
        along_x, along_y = slopes(surface, glacier.spacing)
        fields = {
            "thk": thickness,
            "usurf": surface,
            "slopsurfx": along_x,
            "slopsurfy": along_y,
            "arrhenius": glacier.arrhenius,
            "slidingco": glacier.slidingco,
            "strflowctrl": glacier.arrhenius + glacier.slidingco,
        }
        out = emulator.apply({n: fields[n] for n in names}, domain=domain, other_grid=True)
        return Velocity(out["ubar"][0].astype(float), out["vbar"][0].astype(float))

    return velocities


def membrane() -> Velocities:
    """Velocities from solving for them, each time from those before."""
    before = None

    def velocities(glacier: Glacier, thickness: Array) -> Velocity:
        nonlocal before
        before = membrane_flow(
            thickness, glacier.bed + thickness, glacier.spacing, arrhenius=glacier.arrhenius,
            slidingco=glacier.slidingco, start=before, tolerance=0.03,
        )  # fmt: skip
        return before.mean

    return velocities


def closed(glacier: Glacier, thickness: Array) -> Velocity:
    """Velocities in the shallow-ice approximation."""
    return shallow_ice(
        thickness, glacier.bed + thickness, glacier.spacing,
        arrhenius=glacier.arrhenius, slidingco=glacier.slidingco,
    ).mean  # fmt: skip


def diffusive_step(glacier: Glacier, thickness: Array, velocity: Velocity) -> float:
    """The longest step [yr] in which a flux down the slope does not turn the slope around."""
    slope = np.hypot(*slopes(glacier.bed + thickness, glacier.spacing))
    diffusivity = float((velocity.speed * thickness / np.maximum(slope, 1e-6)).max())
    return 0.4 * min(glacier.spacing) ** 2 / diffusivity if diffusivity > 0 else np.inf


def run(
    glacier: Glacier, velocities: Velocities, climate: Climate, years: float, cap: float
) -> list[Step]:
    """The loop. Steps are at most a year, and short enough for the ice to cross half a cell.

    The closed formula makes the surface diffuse as heat does, and needs far shorter ones, thousands
    per year where ice is thick.
    """
    now, thickness, steps = 0.0, glacier.thickness, []
    while True:
        velocity = velocities(glacier, thickness).scaled(thickness > 0).capped(cap)
        if not np.isfinite(velocity.speed).all():
            raise FieldError(f"velocities at {now:.1f} yr are not finite; is the emulator trained?")
        steps.append(Step(now, thickness, velocity.speed))
        if now >= years:
            return steps
        step = min(1.0, longest_step(velocity, glacier.spacing, 0.5), years - now)
        if velocities is closed:
            step = min(step, diffusive_step(glacier, thickness, velocity))
        balance = climate.balance(glacier.bed + thickness, now)
        thickness = conserve_mass(thickness, velocity, glacier.spacing, step, balance)
        now = years if step == years - now else now + step


def figure(glacier: Glacier, steps: Sequence[Step], title: str) -> Figure:
    """Thickness and speed at start and end on shaded mountains; volume and fastest ice in time."""
    ny, nx = glacier.bed.shape
    dy, dx = glacier.spacing
    box = (0, nx * dx / 1e3, 0, ny * dy / 1e3)
    high = box[3] > 1.3 * box[1]
    panels = "thickness 0", "thickness -1", "speed 0", "speed -1"
    across, curves = (4, ["volume", "volume", "fast", "fast"]) if high else (2, ["volume", "fast"])
    rows = [list(panels[i : i + across]) for i in range(0, 4, across)]
    width, height = (11, 6.5) if high else (8.5, 8.5 * box[3] / box[1] + 1.0)
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 9, "legend.frameon": False}):
        made = Figure(figsize=(width, min(height, 11)), layout="constrained")
        made.suptitle(title)
        axes = made.subplot_mosaic([*rows, curves], height_ratios=[*[3] * len(rows), 1.6])
        for name, units, colors in (("thickness", "m", "Blues"), ("speed", "m/yr", "magma_r")):
            pair = [axes[f"{name} {i}"] for i in (0, -1)]
            shown = {i: getattr(steps[i], name) for i in (0, -1)}
            inside = np.concatenate([v[steps[i].thickness >= ICE] for i, v in shown.items()])
            most = float(np.percentile(inside, 99.5)) if inside.size else 1.0
            for i, values in shown.items():
                axis, thickness = axes[f"{name} {i}"], steps[i].thickness
                relief = LightSource(altdeg=40).hillshade(glacier.bed + thickness, dx=dx, dy=dy)
                axis.imshow(relief, cmap="gray", vmin=-0.4, vmax=1.1, origin="lower", extent=box)
                ice = np.where(thickness >= ICE, values, np.nan)
                image = axis.imshow(ice, cmap=colors, vmin=0, vmax=most, origin="lower", extent=box)
                axis.set(title=f"{name} at {steps[i].time:.0f} yr", xlabel="x [km]")
            pair[0].set_ylabel("y [km]")
            made.colorbar(image, ax=pair, label=f"{name} [{units}]", shrink=0.85)
        times = [step.time for step in steps]
        volumes = [volume(glacier, step) for step in steps]
        axes["volume"].plot(times, volumes, color="tab:blue")
        axes["volume"].set(xlabel="time [yr]", ylabel="volume [km³]")
        axes["volume"].set_ylim(0, 1.1 * max(volumes) or 1)
        for color, label, of in (("tab:red", "fastest", np.max), ("tab:orange", "mean", np.mean)):
            moving = [s.speed[s.thickness >= ICE] for s in steps]
            speeds = [float(of(speed)) if speed.size else 0.0 for speed in moving]
            axes["fast"].plot(times, speeds, color=color, label=label)
        axes["fast"].set(xlabel="time [yr]", ylabel="speed [m/yr]")
        axes["fast"].set_ylim(0, None)
        axes["fast"].legend()
    return made


def volume(glacier: Glacier, step: Step) -> float:
    """Of the ice [km3]."""
    return float(step.thickness.sum() * np.prod(glacier.spacing) / 1e9)


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("emulator", nargs="?", type=Path, help="emulator file with the outputs ubar and vbar")
    add("--membrane", action="store_true", help="solve for velocities instead")
    add("--shallow-ice", action="store_true", help="take the closed formula instead")
    add("--geology", type=Path, help="NetCDF file with x, y, thk, and usurf or topg [m]; "
        "default: glaciers on random mountains")  # fmt: skip
    add("--seed", type=int, default=0, help="of the random mountains")
    add("--years", type=float, default=100.0, help="how long to run (default: 100)")
    add("--arrhenius", type=float, help="rate factor A [MPa^-3 yr^-1]")
    add("--slidingco", type=float, help="sliding coefficient c [km MPa^-3 yr^-1]")
    add("--ela", type=float, help="equilibrium line of the mass balance [m]; default: the median "
        "elevation of the ice at the start")  # fmt: skip
    add("--speed-cap", type=float, default=400.0, help="no ice is faster [m/yr] (default: 400)")
    add("--out", type=Path, default=Path("ice_flow.png"), help="the figure (default: ice_flow.png)")
    chosen = parser.parse_args(argv)
    if (chosen.emulator is not None) + chosen.membrane + chosen.shallow_ice != 1:
        parser.error("give an emulator, or --membrane, or --shallow-ice")
    for name in ("years", "speed_cap"):
        if not 0 < getattr(chosen, name) < np.inf:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    for name in ("seed", "arrhenius", "slidingco"):
        if (getattr(chosen, name) or 0) < 0:
            parser.error(f"--{name} must not be negative")
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 2 is the exit status for what the user can mend."""
    chosen = options(argv)
    flow = (chosen.arrhenius, chosen.slidingco)
    try:
        if chosen.emulator is not None:
            velocities, how = emulated(Emulator.load(chosen.emulator)), chosen.emulator.name
        else:
            velocities = membrane() if chosen.membrane else closed
            how = "membrane stresses" if chosen.membrane else "shallow ice"
        glacier = read(chosen.geology, *flow) if chosen.geology else made_up(chosen.seed, *flow)
        surface = glacier.bed + glacier.thickness
        icy = glacier.thickness > 0
        ela = float(np.median(surface[icy] if icy.any() else surface))
        climate = Climate(ela if chosen.ela is None else chosen.ela)
        began = time.perf_counter()
        steps = run(glacier, velocities, climate, chosen.years, chosen.speed_cap)
        seconds = time.perf_counter() - began
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        figure(glacier, steps, f"Ice flow with velocities by {how}").savefig(chosen.out, dpi=130)
    except (M2MError, OSError) as error:
        print(f"ice_flow_client: error: {error}", file=sys.stderr)
        return 2
    print(
        f"{chosen.years:g} yr in {len(steps) - 1} steps and {seconds:.1f} s: volume "
        f"{volume(glacier, steps[0]):.3f} to {volume(glacier, steps[-1]):.3f} km3, "
        f"fastest ice {steps[-1].speed.max():.0f} m/yr; "
        f"figure: {chosen.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
