"""What an emulator makes of whole runs: a prediction of each, or an ensemble, which is scored."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.arrays import apply_arrays, require_noise
from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field
from map2map.metrics import Pointwise
from map2map.metrics.base import slabs
from map2map.metrics.ensembles import EnsembleScores, crps_score, slabs_of
from map2map.noise import draws_noise
from map2map.tiling import valid_domain
from map2map.typing import Array, Shape

__all__ = ["EMULATOR", "MEAN", "Ensembles", "placed", "predict"]

EMULATOR = "emulator"
"""What the emulator, of an ensemble its first member, is called among the methods."""

MEAN = "ensemble mean"
"""What the mean of an ensemble is called among the methods."""


class Ensembles:
    """Predictions of runs, one or several of each, and scores of the several.

    Args:
        emulator: Makes them.
        fields: What is scored, each with the names of the targets that it is made of.
        members: How many predictions there are of each run, from two on; None: one.
        seed: Of what the emulator draws: member m of run r, of N, has the seed and r N + m more.

    Raises:
        RecipeError: If one member is asked for.
        M2MError: If several are, and the emulator draws nothing.
    """

    def __init__(
        self,
        emulator: Emulator,
        fields: Mapping[Field, Sequence[str]],
        members: int | None = None,
        seed: int = 0,
    ) -> None:
        check_members(members)
        if members is not None:
            require_noise(emulator)
        self.emulator, self.fields, self.members, self.seed = emulator, fields, members, seed
        self.methods = (EMULATOR,) if members is None else (EMULATOR, MEAN)
        self.seconds: list[float] = []
        self.draws = draws_noise(emulator)
        self.pooled: dict[str, EnsembleScores] = {}

    def of_run(
        self, run: int, inputs: Mapping[str, Array], shape: Shape, folder: Path
    ) -> tuple[dict[str, Mapping[str, Array]], dict[str, list[Array]]]:
        """What the emulator makes of a run, by method and field; and by field all members' values.

        Args:
            run: Its number, for the seeds.
            inputs: Its inputs by name, styles among them.
            shape: Of its targets, (*space).
            folder: Where members are kept, but for the first and the mean.
        """
        count = self.members or 1
        first: Mapping[str, Array] = {}
        sums: dict[str, NDArray[np.float64]] = {}
        members: dict[str, list[Array]] = {}
        start = time.perf_counter()
        seed = self.seed + run * count if self.draws else 0
        for member in range(count):
            outputs = predict(self.emulator, inputs, seed + member)
            first = first or outputs
            if self.members is None:
                break
            for name, values in outputs.items():
                sums[name] = sums.get(name, np.zeros(1)) + values
            for number, (scored, parts) in enumerate(self.fields.items()):
                made = [outputs[name] for name in parts]
                sides = [placed(x, (len(x), *shape), EMULATOR) for x in made]
                kept = members.setdefault(scored.name, [])
                path = folder / f"{number}-{member}.npy"
                np.save(path, np.concatenate(sides))
                kept.append(np.load(path, mmap_mode="r"))
        self.seconds.append((time.perf_counter() - start) / count)
        if self.members is None:
            return {EMULATOR: first}, {}
        mean = {name: (total / count).astype(np.float32) for name, total in sums.items()}
        return {EMULATOR: first, MEAN: mean}, members

    def scores(
        self,
        scored: Field,
        truth: Array,
        found: Mapping[str, Array],
        members: Sequence[Array],
        counts: NDArray[np.bool_] | None,
    ) -> dict[str, xr.Dataset]:
        """Scores of members together, if there are any, and what compares with that of others.

        Args:
            scored: The field.
            truth: Shape (channel, *space).
            found: Predictions of it by method.
            members: All the members' predictions, as `of_run` gives them.
            counts: Cells that count, shape (*space); default: all.

        Returns:
            By method.
        """
        if not members:
            return {}
        mine = EnsembleScores(len(members), vector=scored.kind == "vector")
        for part in slabs_of(members, truth, counts):
            mine.add(*part)
        self.pooled.setdefault(scored.name, EnsembleScores(len(members))).merge(mine)
        told = {EMULATOR: mine.result()}
        for method in [name for name in found if name != EMULATOR]:
            alone = Pointwise()
            for window in slabs(found[method], truth, counts):
                alone.add(*window)
            told[method] = xr.Dataset({"crps": crps_score(alone.result()["mae"])})
        return told

    def by_spread(self) -> dict[str, xr.Variable]:
        """Of ensembles, the error of the mean where members scatter so much, over all runs."""
        if not self.pooled:
            return {}
        curves = [self.pooled[each.name].by_spread() for each in self.fields]
        table = np.full((3, len(curves), max(c.shape[1] for c in curves)), np.nan)
        for number, curve in enumerate(curves):
            table[:, number, : curve.shape[1]] = curve
        told = {
            "binned_spread": ("field", "spread of members, times the root of (M + 1) / M"),
            "binned_skill": ("field", "rmse of the mean of members"),
            "binned_share": ("1", "share of all numbers"),
        }
        return {
            name: xr.Variable(
                ("field", "spread_bin"),
                values,
                {"units": units, "long_name": f"{what}; in bins of the spread, over all runs"},
            )
            for (name, (units, what)), values in zip(told.items(), table, strict=True)
        }


def check_members(members: int | None) -> None:
    """Refuse an ensemble of one.

    Raises:
        RecipeError: If it is one.
    """
    if members is not None and members < 2:
        raise RecipeError(f"an ensemble is scored from 2 members on, not {members}")


def predict(
    emulator: Emulator, fields: Mapping[str, Array], member: int = 0
) -> Mapping[str, Array]:
    """Apply the emulator to the whole fields of one run, shape (channel, *space).

    Cells without an output, beside the valid interior, are NaN.

    Args:
        emulator: The emulator.
        fields: Its inputs by name.
        member: By how much the seed of what it draws is larger than that of its settings.
    """
    settings = emulator.settings.of_member(member) if member else emulator.settings
    # styles outside the range are told once of all runs
    found: Mapping[str, Array] = apply_arrays(emulator, fields, None, settings)
    shape = next(iter(fields.values())).shape[-emulator.ndim :]
    domain = valid_domain(emulator.domain.grid(shape), emulator.footprint)
    if domain.shape == shape:
        return found
    scale = emulator.footprint.scale
    whole = {}
    for name, values in found.items():
        whole[name] = np.full((len(values), *(scale * n for n in shape)), np.nan, values.dtype)
        whole[name][(slice(None), *domain.scaled(scale).slices)] = values
    return whole


def placed(values: Array, shape: Shape, method: str) -> Array:
    """A prediction on the cells of the truth.

    Numbers per channel are spread. Cells at the edges that the emulator could not compute without
    making up values are NaN.

    Raises:
        GeometryError: If it does not fit.
    """
    if values.ndim == 1:
        values = values.reshape(-1, *(1,) * (len(shape) - 1)).astype(np.float32)
        return np.broadcast_to(values, shape)
    if values.shape == shape:
        return values
    gaps = [m - n for n, m in zip(values.shape[1:], shape[1:], strict=True)]
    odd = any(gap < 0 or gap % 2 for gap in gaps)
    if len(values) != shape[0] or odd or method != EMULATOR:
        raise GeometryError(
            f"the prediction of {method!r} has shape {values.shape}, but the truth {shape}"
        )
    out = np.full(shape, np.nan, values.dtype)
    inner = (slice(gap // 2, gap // 2 + n) for gap, n in zip(gaps, values.shape[1:], strict=True))
    out[(slice(None), *inner)] = values
    return out
