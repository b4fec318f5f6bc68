"""The test cases predicted: fields, figures and scores."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from map2map.apply import apply_files
from map2map.arrays import Settings
from map2map.baselines import read_field
from map2map.commands.evaluate import about
from map2map.crops import Where
from map2map.dialects.dle.cases import Case
from map2map.emulator import Emulator
from map2map.errors import FieldError
from map2map.evaluate import Options, evaluate
from map2map.files import replacing
from map2map.jobs import Job
from map2map.plots import STYLE
from map2map.runs import Files, Runs
from map2map.scores import attributes, save_scores
from map2map.typing import Array

__all__ = ["predict"]

log = logging.getLogger(__name__)

ANY = Settings(allow_nonfinite=True)
"""Fields may hold NaN."""

STEPS = 10
"""Of color."""

SMALLEST = 0.03
"""Share of the largest difference that is drawn below which there is no color."""


def predict(
    emulator: Emulator,
    folder: Path,
    cases: Sequence[Case],
    places: dict[str, Any],
    above: float | None,
) -> None:
    """Predict all frames of all cases, and compare them with the truth.

    For each case ``CASE/predictions.nc`` and figures of about ten frames; of all of them scores.nc,
    of cells with ice. Outputs that see a NaN are NaN, which are not scored, nor drawn.

    Args:
        emulator: The emulator, which is also in ``folder``.
        folder: Of the results.
        cases: The cases.
        places: The pattern of each field's files, as in the recipe.
        above: Thickness above which a cell is scored; None: all are.
    """
    patterns = {name: Files(**place) for name, place in places.items()}
    runs = Runs(
        list(emulator.inputs),
        list(emulator.targets),
        patterns,
        emulator.domain,
        derived=emulator.derived,
    )
    for case in cases:
        inputs = {name: Files(str(case.path(name)), patterns[name].variable)
                  for name in emulator.needed()}  # fmt: skip
        output = folder / case.name / "predictions.nc"
        job = Job(folder / "emulator.safetensors", inputs, output, overwrite=True)
        apply_files(replace(job, settings=ANY))
    for case in cases:
        draw_case(emulator, runs, case, folder)
    where = None if above is None else Where("thk", above)
    emulator.settings = ANY
    try:
        scores = evaluate(emulator, runs, {}, Options(where=where))
    except FieldError as error:
        # bare ground in all frames, say; fields and figures are there all the same
        log.warning("scores.nc is not written: %s", error)
        return
    said = about(folder / "emulator.safetensors", emulator, runs)
    save_scores(scores.assign_attrs(attributes(scores.attrs | said)), folder / "scores.nc")
    for name in scores["field"].values:
        scored = int(np.isfinite(scores.rmse.sel({"method": "emulator", "field": name})).sum())
        mean = {key: float(scores[f"{key}_mean"].sel({"method": "emulator", "field": name}))
                for key in ("mae", "rmse", "relative_l2")}  # fmt: skip
        log.info(
            "%s: mean absolute error %.4g, RMSE %.4g, relative L2 %.3g, mean over %d frames",
            *(name, mean["mae"], mean["rmse"], mean["relative_l2"], scored),
        )


def draw_case(emulator: Emulator, runs: Runs, case: Case, folder: Path) -> None:
    """Figures of about ten frames of a case."""
    target = emulator.targets.names[0]
    mine = [k for k, run in enumerate(runs) if run.paths[target] == case.path(target)]
    made = Runs(
        list(emulator.targets),
        [],
        {name: Files(str(folder / case.name / "predictions.nc"), name)
         for name in emulator.targets.names},
        emulator.domain,
    )  # fmt: skip
    for number in range(0, len(mine), max(len(mine) // 10, 1)):
        shape = runs.shape_of(mine[number])
        # of every frame that is predicted there is one, whatever the stepping
        frame = number if len(made) == len(mine) else 0
        both = [
            np.concatenate([read_field(of, name, k, shape) for name in emulator.targets.names])
            for of, k in ((runs, mine[number]), (made, frame))
        ]
        truth, prediction = both
        units = emulator.targets.fields[0].units or ""
        names = {"predict": draw, "predict-diff": draw_difference}
        for kind, drawing in names.items():
            path = folder / case.name / f"{kind}-{case.name}_{number:04d}.png"
            with mpl.rc_context(STYLE), replacing(path) as temporary:
                drawing(truth, prediction, units, number).savefig(temporary, format="png", dpi=100)


def sizes(values: Array) -> Array:
    """Length of the vector of all channels; NaN where there is none. Shape (y, x)."""
    return np.asarray(np.sqrt((values.astype(np.float64) ** 2).sum(axis=0)))


def quantile(values: Array, share: float) -> float:
    """Of the values that are finite; 0 if none is."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, share)) if finite.size else 0.0


def draw(truth: Array, prediction: Array, units: str, number: int) -> Figure:
    """Truth and prediction side by side, in the same colors."""
    both = [sizes(truth), sizes(prediction)]
    top = max(quantile(x, 0.999) for x in both) or 1.0
    error = (prediction - truth)[np.isfinite(prediction - truth)]
    error = error if error.size else np.full(1, np.nan)
    mae, rmse = float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))
    titles = f"TRUE, frame {number}", f"PREDICTED, MAE {mae:.3g}, RMSE {rmse:.3g}"
    levels, colors = np.linspace(0, top, STEPS + 1), mpl.colormaps["viridis"]
    figure = Figure(figsize=(20, 10), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, values, title in zip(axes, both, titles, strict=True):
        axis.imshow(values, origin="lower", cmap=colors, norm=BoundaryNorm(levels, 256))
        axis.set_title(title, fontsize=20)
        axis.set_axis_off()
    bar = ScalarMappable(BoundaryNorm(levels, 256), colors)
    figure.colorbar(bar, ax=axes, label=units, shrink=0.8, extend="max", format="%.3g")
    return figure


def draw_difference(truth: Array, prediction: Array, units: str, number: int) -> Figure:
    """How much larger the prediction is, in colors that cover the differences."""
    difference = sizes(prediction) - sizes(truth)
    top = quantile(np.abs(difference), 0.995) or 1.0
    difference = np.where(np.abs(difference) < SMALLEST * top, np.nan, difference)
    # exactly zero in the middle
    norm = BoundaryNorm(top * (np.arange(-STEPS, STEPS + 1, 2) / STEPS), 256)
    figure = Figure(figsize=(10, 10), layout="constrained")
    axis = figure.subplots()
    axis.imshow(difference, origin="lower", cmap="RdBu", norm=norm)
    axis.set_title(f"PREDICTED minus TRUE, frame {number}", fontsize=20)
    axis.set_axis_off()
    bar = ScalarMappable(norm, mpl.colormaps["RdBu"])
    figure.colorbar(bar, ax=axis, label=units, shrink=0.8, extend="both", format="%.3g")
    return figure
