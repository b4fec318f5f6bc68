"""A particle-mesh simulator of dark matter: linear displacement → non-linear displacement.

Each run starts from a Gaussian random field with the linear power spectrum of a flat ΛCDM universe
and follows as many particles as cells in a periodic box to z = 0, in steps of FastPM (F16: Feng,
Chu, Seljak & McDonald 2016, MNRAS 463, 2273), which grow linear modes exactly, however few they
are.

For super-resolution, each universe can be followed with more particles, too, whose initial modes
are those of the fewer ones and, beyond their Nyquist wavenumber, new ones.

Lengths are comoving, in Mpc/h. Momenta are p = a^3 E dx/da, with E = H / H(z = 0) [Mpc/h].
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from map2map.errors import RecipeError, SaveError
from map2map.files import refuse_existing, replacing
from map2map.physics.cosmology import (
    Cosmology,
    expansion,
    growth_factor,
    growth_factor_second,
    growth_rate,
    growth_rate_second,
)
from map2map.physics.lagrangian import deposit, displaced, interpolate
from map2map.physics.operators import wavenumbers
from map2map.physics.perturbations import (
    Displacement,
    check_displacement,
    gaussian_field,
    inverse_gradient,
    second_order,
    zeldovich,
)
from map2map.physics.spacing import Spacing
from map2map.simulations import former_record

__all__ = ["Cosmology", "evolve", "simulate"]

log = logging.getLogger(__name__)


FIDUCIAL = Cosmology()

START = 0.1
"""Scale factor at which `simulate` starts."""

RECORD = "simulation.json"


def simulate(  # noqa: PLR0913 - the options of a command
    out: Path,
    *,
    runs: int = 6,
    size: int = 64,
    box: float = 128.0,
    cosmology: Cosmology = FIDUCIAL,
    steps: int = 20,
    seed: int = 0,
    redshifts: list[float] | None = None,
    densities: list[float] | None = None,
    finer: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Simulate dark matter in periodic boxes, from linear to non-linear displacements.

    Each run writes three float32 files of shape (3, size, size, size), all of them displacements
    at z = 0 [Mpc/h] of the particles of a grid: ``za_SEED.npy`` linear (Zel'dovich), the input;
    ``lpt_SEED.npy`` of second order, a baseline; ``pm_SEED.npy`` non-linear, the target. The
    parameters are written beside them, in ``simulation.json``.

    With ``redshifts`` or ``densities`` each run is made for all of them, told in names such as
    ``pm_SEED_Om0.3_z0.5.npy``. The linear displacement is that at z = 0 for all redshifts, so that
    what a network makes of it changes with z alone; ``lpt`` and ``pm`` are those at z.

    With ``finer`` above 1 a fourth file ``fine_SEED.npy``, of shape (3, n, n, n) with n = ``finer``
    * ``size``: the same universe, followed with so many times as many particles per axis. Its modes
    are those of the others as far as these go; ``finer`` of its particles lie in each cell and axis
    of theirs, around its center.

    A run depends on its seed, not on how many there are, and its modes are the same in a larger
    ``size`` of the same box.

    Args:
        out: Folder to write to.
        runs: Number of runs; their seeds are ``seed``, ``seed`` + 1, …
        size: Particles and mesh cells per axis.
        box: Side of the box [Mpc/h].
        cosmology: Parameters of the universe.
        steps: Time steps between a = 0.1 and a = 1.
        seed: Seed of the first run.
        redshifts: Of the displacements; each from 0 to below 9; default: 0.
        densities: Matter densities, instead of that of the cosmology.
        finer: Particles and mesh cells of the finer simulation for one of the others, per axis; 1:
            none is made.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files of displacements.

    Raises:
        RecipeError: If a parameter is not allowed.
        SaveError: If files exist, or cannot be written.
    """
    if runs < 1 or seed < 0 or size < 4 or not box > 0 or finer < 1:
        raise RecipeError(
            f"simulate needs runs >= 1, seed >= 0, size >= 4, box > 0 and finer >= 1, not runs "
            f"{runs}, seed {seed}, size {size}, box {box}, finer {finer}"
        )
    check_times(START, 1.0, steps)
    seeds = range(seed, seed + runs)
    names = ("za", "lpt", "pm", *(("fine",) if finer > 1 else ()))
    cases = cases_of(cosmology, redshifts, densities)
    files = [
        out / f"{name}_{run:02d}{case}.npy" for run in seeds for case in cases for name in names
    ]
    parameters = {"size": size, "box": box, "start": START, "steps": steps} | asdict(cosmology)
    parameters |= {} if redshifts is None else {"redshifts": redshifts}
    parameters |= {} if densities is None else {"densities": densities}
    parameters |= {"finer": finer} if finer > 1 else {}
    others = check_folder(out, files, parameters, overwrite=overwrite)
    for run in seeds:
        for case, (universe, z) in cases.items():
            for name, values in displacements(universe, z, run, size, box, steps, finer).items():
                write_array(out / f"{name}_{run:02d}{case}.npy", values)
        others = sorted({*others, run})
        write_record(out / RECORD, parameters, others)
        log.info("simulated run %d of %d to %s (seed %d)", run - seed + 1, runs, out, run)
    return files


def cases_of(
    cosmology: Cosmology, redshifts: Sequence[float] | None, densities: Sequence[float] | None
) -> dict[str, tuple[Cosmology, float]]:
    """The universes and redshifts that are asked for, by what they add to names.

    Raises:
        RecipeError: If a redshift is not between 0 and that of the start.
    """
    first = 1 / START - 1
    for z in redshifts or ():
        if not 0 <= z < first:
            raise RecipeError(f"a redshift is from 0 to below {first:g}, the start, not {z:g}")
    cases = {}
    for density in densities or (cosmology.Om,):
        universe = replace(cosmology, Om=density)
        for z in redshifts or (0.0,):
            told = "" if densities is None else f"_Om{density:g}"
            told += "" if redshifts is None else f"_z{z:g}"
            cases[told] = universe, float(z)
    return cases


def displacements(
    cosmology: Cosmology, z: float, seed: int, size: int, box: float, steps: int, finer: int = 1
) -> dict[str, Displacement]:
    """Linear displacement at z = 0, second-order and non-linear ones at a redshift, by name."""
    spacing = box / size
    linear = zeldovich(gaussian_field(size, box, seed, cosmology.power), spacing)
    growth, growth2 = (float(D(z, cosmology.Om)) for D in (growth_factor, growth_factor_second))
    second = growth2 * second_order(linear, spacing)
    stop = 1 / (1 + z)
    # as long as those to z = 0
    count = max(1, round(steps * (stop - START) / (1 - START)))
    final, _ = evolve(linear, spacing, cosmology, stop=stop, steps=count)
    found = {"za": linear, "lpt": growth * linear + second, "pm": final}
    if finer > 1:
        more = finer_linear(size, box, seed, finer, cosmology)
        found["fine"], _ = evolve(more, spacing / finer, cosmology, stop=stop, steps=count)
    return found


def finer_linear(
    size: int, box: float, seed: int, finer: int, cosmology: Cosmology = FIDUCIAL
) -> Displacement:
    """Linear displacement of more particles of the same universe [Mpc/h].

    Of ``size`` particles per axis, the first is at 0; of the more, ``finer`` are around it, the
    first of them at ``-(finer - 1) / 2`` of their distances.

    Args:
        size: Particles per axis of the fewer.
        box: Side of the box [Mpc/h].
        seed: Of the universe.
        finer: Of the more particles for one of the fewer, per axis.
        cosmology: Parameters of the universe.
    """
    spacing = box / (finer * size)
    overdensity = gaussian_field(finer * size, box, seed, cosmology.power)
    modes = torch.fft.rfftn(overdensity)
    for k in wavenumbers(overdensity.shape, (spacing,) * 3):
        modes = modes * torch.exp(-0.5j * (finer - 1) * spacing * k)
    # modes at Nyquist, which cannot be moved, are empty
    return zeldovich(torch.fft.irfftn(modes, s=overdensity.shape), spacing)


def evolve(
    zeldovich: Displacement,
    spacing: Spacing,
    cosmology: Cosmology = FIDUCIAL,
    *,
    start: float = START,
    stop: float = 1.0,
    steps: int = 20,
) -> tuple[Displacement, Displacement]:
    """Follow particles by a particle-mesh method, kick-drift-kick, from second-order displacements.

    Steps are equal in the scale factor a. With D the growth factor and G = a^3 E dD/da, the time
    integrals of the steps are those of F16, for which a mode that grows linearly does so exactly:
    a kick is p += g (G1 - G0) / D, a drift x += p (D1 - D0) / G, with the divisors at the time of
    the acceleration g = -grad laplacian^-1 delta, or of the momentum p.

    Args:
        zeldovich: Linear displacement at z = 0 of the particles of a periodic grid [Mpc/h].
        spacing: Distance of the particles [Mpc/h]; one per axis, or one for all.
        cosmology: Parameters of the universe, of which the matter density is needed.
        start: Scale factor of the second-order displacement from which to start.
        stop: Scale factor at which to end.
        steps: Number of time steps.

    Returns:
        Displacement [Mpc/h] from the initial grid, and peculiar velocity [km/s], at ``stop``.
    """
    check_displacement(zeldovich, spacing)
    check_times(start, stop, steps)
    Om = cosmology.Om
    second = second_order(zeldovich, spacing)
    z = 1 / start - 1
    growth, growth2 = (float(D(z, Om)) for D in (growth_factor, growth_factor_second))
    rate, rate2 = (float(f(z, Om)) for f in (growth_rate, growth_rate_second))
    x = growth * zeldovich + growth2 * second
    p = rate * growth * zeldovich + rate2 * growth2 * second
    p = start**2 * float(expansion(start, Om)) * p
    g = acceleration(x, spacing)
    times = np.linspace(start, stop, 2 * steps + 1)
    D = growth_factor(1 / times - 1, Om)
    G = times**2 * expansion(times, Om) * growth_rate(1 / times - 1, Om) * D  # noqa: N806
    for now in range(0, 2 * steps, 2):
        half, end = now + 1, now + 2
        p = p + g * float((G[half] - G[now]) / D[now])
        x = x + p * float((D[end] - D[now]) / G[half])
        g = acceleration(x, spacing)
        p = p + g * float((G[end] - G[half]) / D[end])
    return x, p * (100 / stop)


def acceleration(displacement: Displacement, spacing: Spacing) -> Displacement:
    """Minus the gradient of laplacian^-1 of the overdensity, at particles of a periodic box [L].

    The gradient is by central differences of fourth order, and the same cloud-in-cell that gives
    the density reads the force, so that no particle pulls at itself.

    Args:
        displacement: Of the particles of a grid [L].
        spacing: Distance of the particles in this grid [L]; one per axis, or one for all.
    """
    sizes = check_displacement(displacement, spacing)
    positions = displaced(displacement[None], sizes)
    density = deposit(positions, None, displacement.shape[1:])[0, 0]
    force = -inverse_gradient(density, sizes, spectral=False)
    read: Tensor = interpolate(force[None], positions)[0]
    return read


def check_times(start: float, stop: float, steps: int) -> None:
    """Refuse times that do not advance.

    Raises:
        RecipeError: Unless 0 < start < stop and there is a step.
    """
    if not 0 < start < stop or steps < 1:
        raise RecipeError(
            f"time goes from `start` > 0 to a later `stop` in at least 1 step, not from {start} to "
            f"{stop} in {steps}"
        )


def check_folder(
    out: Path, files: Sequence[Path], parameters: dict[str, Any], *, overwrite: bool
) -> list[int]:
    """The seeds that a folder already holds, if more may be added to it.

    Raises:
        SaveError: If files would be replaced, or those there have other parameters.
    """
    refuse_existing(files, overwrite=overwrite, choose="another folder or seed")
    record = former_record(out / RECORD, parameters, overwrite=overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [] if record is None else [int(seed) for seed in record["seeds"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SaveError(f"cannot add simulations to {out}: {error}") from error


def write_array(path: Path, values: Tensor) -> None:
    """Write a float32 array, all or nothing."""
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, values.to(torch.float32).numpy())


def write_record(path: Path, parameters: dict[str, Any], seeds: Sequence[int]) -> None:
    """Write what the files beside it are."""
    when = "at the z of its name" if "redshifts" in parameters else "at z = 0"
    files = {
        "za": "linear displacement at z = 0 [Mpc/h]",
        "lpt": f"second-order displacement {when} [Mpc/h]",
        "pm": f"non-linear displacement {when} [Mpc/h]",
    }
    if "finer" in parameters:
        files["fine"] = f"non-linear displacement {when} of more particles [Mpc/h]"
    record = {
        "simulator": "map2map.synthetic.nbody",
        "parameters": parameters,
        "seeds": list(seeds),
        "files": files,
    }
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")
