"""The main job, from nothing, in minutes: simulate, train, apply to a held-out run, compare.

A small universe is simulated several times; a network learns the non-linear displacement of its
matter from the linear one; it is applied to a run that it has not seen, and compared with the
particle-mesh simulation beside two baselines: Zel'dovich's approximation and second-order
Lagrangian perturbation theory (2LPT).
"""

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from map2map import plots
from map2map.commands.train import train_recipe
from map2map.emulator import Emulator
from map2map.metrics import Pointwise
from map2map.physics.lagrangian import displacement_to_density
from map2map.physics.spectra import cross_correlation
from map2map.synthetic import nbody

__all__ = ["main"]

Field = NDArray[np.float32]
SCALES = (0.1, 0.5, 1.0)
TRAINING_RUNS = 8
VALIDATION, TEST = TRAINING_RUNS, TRAINING_RUNS + 1
"""Seeds of the runs that training does not see."""


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where everything goes")
    parser.add_argument("--size", type=int, default=64, help="particles per axis")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of training")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run(options.folder, options.size, options.epochs)
    return 0


EPOCHS = 20


def run(folder: Path, size: int, epochs: int) -> dict[str, dict[str, float]]:
    """Simulate, train, apply, compare; the scores by method."""
    console, start = Console(), time.perf_counter()
    if not console.is_terminal:
        console.width = 110
    box, data = 2.0 * size, folder / "data"
    console.rule("1. simulate")
    nbody.simulate(data, runs=TEST + 1, size=size, box=box, overwrite=True)
    console.rule("2. train")
    train_recipe(
        [
            "--config", str(Path(__file__).parent / "recipes" / "cosmology_displacement.yaml"),
            f"--data.train.linear={data}/za_0[0-{TRAINING_RUNS - 1}].npy",
            f"--data.train.displacement={data}/pm_0[0-{TRAINING_RUNS - 1}].npy",
            f"--data.val.linear={data}/za_0{VALIDATION}.npy",
            f"--data.val.displacement={data}/pm_0{VALIDATION}.npy",
            f"--trainer.max_epochs={epochs}",
            f"--output.folder={folder}",
            "--output.resume=never",
        ]
    )  # fmt: skip
    console.rule("3. apply to a run it has not seen")
    fields = {name: np.load(data / f"{name}_0{TEST}.npy") for name in ("za", "lpt", "pm")}
    emulator = Emulator.load(folder / "emulator.safetensors")
    began = time.perf_counter()
    output = emulator({"linear": fields["za"]})["displacement"]
    console.print(f"{size}³ particles in {time.perf_counter() - began:.1f} s")
    np.save(folder / "emulated.npy", output)
    others = {"Zel'dovich": fields["za"], "2LPT": fields["lpt"], "emulator": output}
    console.rule("4. compare with the simulation")
    scores = compare(others, fields["pm"], box / size)
    console.print(table(scores))
    drawn = figures(others, fields["pm"], box / size)
    drawn["learning_curve"] = plots.history(emulator.scores["loss"])
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        console.print(f"figure: {folder / f'{name}.png'}")
    console.print(f"[bold]{time.perf_counter() - start:.0f} s in all[/bold]")
    return scores


def compare(
    others: Mapping[str, Field], truth: Field, spacing: float
) -> dict[str, dict[str, float]]:
    """Scores of displacements [Mpc/h] of shape (3, *space) against the simulation's."""
    scores = {}
    for name, values in others.items():
        pointwise = Pointwise()
        pointwise.add(values, truth)
        k, r = cross_correlation(values, truth, spacing, 3)
        at_scales = {f"r({scale})": float(np.interp(scale, k, r)) for scale in SCALES}
        scores[name] = {
            **pointwise.result(),
            "residual variance": float((values - truth).var()),
            **at_scales,
        }
    reference = next(iter(scores.values()))["residual variance"]
    for row in scores.values():
        row["gain"] = reference / row["residual variance"]
    return scores


def table(scores: Mapping[str, Mapping[str, float]]) -> Table:
    """The scores, for people."""
    made = Table(
        title="displacement of a held-out run against the particle-mesh simulation",
        caption="residual variance in (Mpc/h)²; gain: how many times smaller it is than "
        "Zel'dovich's; r(k): cross-correlation at k in h/Mpc",
    )
    made.add_column("", no_wrap=True)
    keys = ["r2", "relative_error", "residual variance", "gain", *(f"r({s})" for s in SCALES)]
    titles = ["R²", "relative error", "residual variance", "gain", *keys[4:]]
    for title in titles:
        made.add_column(title, justify="right")
    for name, row in scores.items():
        made.add_row(name, *(f"{row[k]:.4f}" if k != "gain" else f"{row[k]:.1f} x" for k in keys))
    return made


def density(displacement: Field, spacing: float) -> Field:
    """Overdensity of the displaced matter, shape (1, *space)."""
    values: Field = displacement_to_density(torch.from_numpy(displacement)[None], spacing)[
        0
    ].numpy()
    return values


def figures(others: Mapping[str, Field], truth: Field, spacing: float) -> dict[str, Figure]:
    """Slices and spectra, of displacement and of density."""
    every = {**others, "simulation": truth}
    shown = [(name, every[name][:1]) for name in ("Zel'dovich", "2LPT", "emulator", "simulation")]
    differences = [
        (f"{name} - simulation", (values - truth)[:1]) for name, values in others.items()
    ]
    made = {
        "displacement": plots.slices(
            shown, differences, units="Mpc/h", spacing=spacing, length="Mpc/h", channels=1
        )
    }
    densities = {name: density(values, spacing) for name, values in every.items()}
    logs = [(name, np.log10(slab(values))) for name, values in densities.items()]
    made["density"] = plots.slices(
        logs, units="log10 (1 + overdensity)", spacing=spacing, length="Mpc/h"
    )
    for name, what in (("displacement", every), ("density", densities)):
        made[f"{name}_spectra"] = plots.spectra(
            ("simulation", what["simulation"]),
            [(other, what[other]) for other in others],
            spacing,
            quantity=f"power of {name}",
            length="Mpc/h",
        )
    return made


def slab(overdensity: Field, thickness: int = 8) -> Field:
    """Mean density of a slab, shape (1, ny, nz), bounded below for logarithms."""
    middle = overdensity.shape[1] // 2
    mean = 1 + overdensity[:, middle - thickness // 2 : middle + thickness // 2].mean(axis=1)
    bounded: Field = np.maximum(mean, 0.03)
    return bounded


if __name__ == "__main__":
    sys.exit(main())
