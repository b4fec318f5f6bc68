"""What an emulator of parameters is worth: per sample, and per group of samples of one run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from map2map.errors import FieldError, GeometryError
from map2map.metrics.base import as_array, score
from map2map.metrics.groups import FEW, Groups, counts, finite

__all__ = ["parameter_scores"]

LEVELS = (68, 95)
"""Percentages of a normal distribution that intervals around its mean hold."""


def parameter_scores(
    outputs: Any,
    truth: Any,
    groups: Any = None,
    *,
    names: Sequence[str],
    std: Any = None,
    baseline: Any = None,
) -> xr.Dataset:
    """Everything about predicted parameters, ready to be written as NetCDF.

    Scores are given twice, along ``per``: of single samples, and of groups, whose outputs are the
    means of those of their samples. Ratios 0/0 are NaN, such as R^2 where the truth is always the
    same.

    The standard deviation of a group's output is the mean of its samples', as if their errors were
    all the same. That is the most it can be; where errors are not all the same, z-scores of groups
    spread less than 1.

    Args:
        outputs: Values [u], shape (sample, parameter).
        truth: Values [u], of the same shape.
        groups: A whole number per sample, the same for those that belong together, shape (sample,);
            by default each sample is a group.
        names: Names of the parameters.
        std: Predicted standard deviations [u], of the outputs' shape.
        baseline: What is to be beaten [u], such as the mean of the training's truths: shape
            (parameter,), or as the outputs.

    Returns:
        Scores along ``per`` and ``parameter``, and a table along ``group`` and ``parameter``;
        "field" in units stands for those of the parameter. With ``std``, also whether it is right;
        with ``baseline``, also the same errors of that, and the skill.

    Raises:
        FieldError: If truths differ within a group, a deviation is not positive, or numbers are not
            finite.
        GeometryError: If shapes do not fit.
    """
    y, t = finite(outputs, "outputs"), finite(truth, "true parameters")
    check_shapes(y, t, list(names))
    together = Groups.of(groups, len(y))
    shared = together.shared(t, "parameters")
    table = {
        "group_output": table_of(together.mean(y), "mean of the outputs"),
        "group_truth": table_of(shared, "true value"),
        "group_spread": table_of(spread(y, together), "standard deviation of the outputs"),
        "group_samples": counts(together.counts, "number of samples", ("group",)),
    }
    cases = [(y, t), (together.mean(y), shared)]
    parts = [errors(*case) for case in cases]
    if baseline is not None:
        other = with_shape(baseline, y, "baseline")
        for part, (mean, true), b in zip(parts, cases, (other, together.mean(other)), strict=True):
            part.update(compared(mean, true, b))
    if std is not None:
        deviation = with_shape(std, y, "standard deviations")
        if (deviation <= 0).any():
            sample, number = np.argwhere(deviation <= 0)[0]
            raise FieldError(
                f"the standard deviation of {names[number]!r} is {deviation[sample, number]:g} for "
                f"sample {sample}; it must be positive (give std, not its logarithm)"
            )
        both = deviation, together.mean(deviation)
        for part, (mean, true), s in zip(parts, cases, both, strict=True):
            part.update(calibration(mean, true, s))
        table["group_std"] = table_of(both[1], "predicted standard deviation")
    found = xr.concat(
        [xr.Dataset(part) for part in parts],
        xr.Variable("per", ["sample", "group"]),
        combine_attrs="override",
    )
    return found.merge(xr.Dataset(table)).assign_coords(parameter=list(names), group=together.names)


def check_shapes(y: NDArray[np.float64], t: NDArray[np.float64], names: list[str]) -> None:
    """Refuse outputs, truths and names that do not fit."""
    if y.shape != t.shape or y.shape[1] != len(names):
        raise GeometryError(
            f"the outputs have shape {y.shape} and the true parameters {t.shape}; both must be "
            f"(sample, {len(names)}) for the parameters {names}"
        )


def with_shape(values: Any, like: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    """Numbers of the same shape, repeated for each sample if they are one per parameter."""
    numbers = as_array(values)
    if numbers.shape == like.shape[1:]:
        numbers = np.broadcast_to(numbers, like.shape)
    numbers = finite(numbers, what)
    if numbers.shape != like.shape:
        raise GeometryError(f"the {what} have shape {numbers.shape}, but the outputs {like.shape}")
    return numbers


def spread(y: NDArray[np.float64], groups: Groups) -> NDArray[np.float64]:
    """Standard deviation of the outputs within each group [u], shape (group, parameter)."""
    away = y - groups.mean(y)[groups.index]
    return np.sqrt(groups.mean(away**2))


def table_of(values: NDArray[np.float64], what: str) -> xr.Variable:
    """Numbers of groups."""
    return score(values, "field", f"{what} of the group", None, ("group", "parameter"))


def of_parameter(value: Any, units: str, long_name: str, perfect: float | None) -> xr.Variable:
    """A score per parameter."""
    return score(value, units, long_name, perfect, ("parameter",))


def errors(y: NDArray[np.float64], t: NDArray[np.float64]) -> dict[str, xr.Variable]:
    """How far outputs are from truths."""
    error = y - t
    mse = (error**2).mean(axis=0)
    scatter = centered(t)
    with np.errstate(divide="ignore", invalid="ignore"):
        some = t != 0
        relative = np.where(some, np.abs(error) / np.abs(t), 0).sum(axis=0) / some.sum(axis=0)
        r2 = 1 - mse / (scatter**2).mean(axis=0)
        mine = centered(y)
        r = (mine * scatter).sum(axis=0)
        r = r / np.sqrt((mine**2).sum(axis=0) * (scatter**2).sum(axis=0))
    # nothing is explained of a truth that is always the same
    r2[~np.isfinite(r2)] = np.nan
    return {
        "bias": of_parameter(error.mean(axis=0), "field", "mean of output - truth", 0),
        "mae": of_parameter(np.abs(error).mean(axis=0), "field", "mean of |output - truth|", 0),
        "rmse": of_parameter(np.sqrt(mse), "field", "root of the mean squared error", 0),
        "relative_error": of_parameter(
            relative, "1", "mean of |output - truth| / |truth| where the truth is not 0", 0
        ),
        "r2": of_parameter(
            r2, "1", "coefficient of determination, 1 - mse / variance of the truth", 1
        ),
        "pearson": of_parameter(r, "1", "correlation coefficient of output and truth", 1),
    }


def centered(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less their mean, shape (case, parameter); zero, without rounding, where they are all one."""
    away = values - values.mean(axis=0)
    return np.where(np.ptp(values, axis=0) > FEW**2 * np.abs(values).max(axis=0), away, 0)


def compared(
    y: NDArray[np.float64], t: NDArray[np.float64], baseline: NDArray[np.float64]
) -> dict[str, xr.Variable]:
    """Errors of a baseline, and by how much they are beaten."""
    squares, theirs = (((x - t) ** 2).mean(axis=0) for x in (y, baseline))
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = 1 - squares / theirs
    skill[theirs == 0] = np.nan
    found = {
        f"baseline_{name}": value
        for name, value in errors(baseline, t).items()
        if name in ("bias", "mae", "rmse")
    }
    for value in found.values():
        value.attrs = {
            "units": "field",
            "long_name": f"{value.attrs['long_name']}, of the baseline",
        }
    return found | {
        "skill": of_parameter(
            skill, "1", "1 - mse / mse of the baseline, 0 if no better than that", 1
        )
    }


def calibration(
    y: NDArray[np.float64], t: NDArray[np.float64], std: NDArray[np.float64]
) -> dict[str, xr.Variable]:
    """Whether errors are as large as predicted."""
    z = (t - y) / std
    nll = np.log(std) + np.log(2 * np.pi) / 2 + z**2 / 2
    found = {
        "gaussian_nll": of_parameter(
            nll.mean(axis=0),
            "ln field",
            "mean of -ln of the Gaussian density of the truth, the value in units of the parameter",
            None,
        ),
        "z_mean": of_parameter(z.mean(axis=0), "1", "mean of z = (truth - output) / std", None),
        "z_std": of_parameter(
            z.std(axis=0), "1", "standard deviation of z = (truth - output) / std, 1 if right", None
        ),
    }
    for level in LEVELS:
        far = ndtri(0.5 + level / 200)
        found[f"coverage_{level}"] = of_parameter(
            (np.abs(z) <= far).mean(axis=0),
            "1",
            f"share of truths within {far:.3f} std, {level} % if right",
            None,
        )
    return found
