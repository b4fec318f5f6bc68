"""Files of moments: mean and deviation of a field as numbers.

A ``.npy`` file has both, in one of two ways, as they are kept beside cubes of potentials: three
numbers, float64, ``[mean, std, var]``, and two numbers ``[mean, var]``.

NetCDF files and Zarr stores are two, one of means and one of deviations, with a variable per field,
by its name: a number, or one per channel, such as (level), as they are kept beside reanalyses.
"""

import math
from pathlib import Path

import numpy as np
import xarray as xr

from map2map.errors import FieldError, SourceError, near_names
from map2map.files import replacing

__all__ = ["read_moments", "read_variables", "write_moments"]

ALLOWED = "allowed are 3 numbers [mean, std, var] or 2 numbers [mean, var]"

TOLERANCE = 1e-5
"""Relative difference of var and std^2 that rounding to single precision may explain."""


def read_moments(path: Path | str) -> tuple[float, float]:
    """Mean and deviation [units of the field] from a file of moments.

    Raises:
        SourceError: If there is no such file, or it is not one of numpy's.
        FieldError: If it does not hold the moments of a field: another shape, numbers that are
            not finite, a deviation that is not positive, or a variance that is not its square.
    """
    path = Path(path)
    asked = f"asked for mean and deviation from {path}"
    try:
        numbers = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise SourceError(
            f"{asked}, but there is no such file; {ALLOWED}, written by numpy.save"
        ) from error
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{asked}, but it cannot be read as a .npy file: {error}") from error
    if not isinstance(numbers, np.ndarray):
        numbers.close()
        raise SourceError(f"{asked}, but found an archive of arrays; {ALLOWED} in a .npy file")
    if numbers.dtype.kind != "f" or numbers.shape not in ((2,), (3,)):
        raise FieldError(
            f"{asked}; found shape {numbers.shape} of type {numbers.dtype}; {ALLOWED}, of type "
            f"float64 or float32"
        )
    mean, *spread = numbers.astype(np.float64).tolist()
    variance = spread[-1]
    if not all(map(math.isfinite, (mean, *spread))):
        raise FieldError(f"{asked}; found {numbers.tolist()}, but allowed are finite numbers only")
    if min(spread) <= 0:
        raise FieldError(
            f"{asked}; found {numbers.tolist()}, but a deviation or variance must be positive: a "
            f"field without variation carries no information"
        )
    std: float = spread[0] if len(spread) == 2 else math.sqrt(variance)
    if not math.isclose(std**2, variance, rel_tol=TOLERANCE):
        raise FieldError(
            f"{asked}; found std {std:g} and var {variance:g}, but the variance must be the square "
            f"of the deviation, {std**2:g}: the numbers are of two redshifts, or in another order; "
            f"{ALLOWED}"
        )
    return mean, std


def write_moments(path: Path, mean: float, std: float) -> None:
    """Write ``[mean, std, var]`` in float64; an existing file is replaced.

    Raises:
        SaveError: If it cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, np.array([mean, std, std**2]))


def read_variables(
    means: Path | str, deviations: Path | str, variable: str
) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel of a field [units of the field] from two files.

    Args:
        means: A NetCDF file or Zarr store with the variable, without axes or with one.
        deviations: Likewise.
        variable: Its name in both.

    Raises:
        SourceError: If there is no such file, or it cannot be read.
        FieldError: If there is no such variable, or its numbers are no moments.
    """
    mean, std = (numbers_of(Path(path), variable) for path in (means, deviations))
    if len(mean) != len(std):
        raise FieldError(
            f"{variable!r} has {len(mean)} means in {means}, but {len(std)} deviations in "
            f"{deviations}; there is one of each per channel"
        )
    if min(std) <= 0:
        raise FieldError(
            f"{variable!r} has the deviations {std} in {deviations}, but they must be positive: a "
            f"field without variation carries no information"
        )
    return mean, std


def numbers_of(path: Path, variable: str) -> list[float]:
    """The numbers of a variable, one per channel."""
    if not path.exists():
        raise SourceError(f"asked for moments from {path}, but there is no such file or store")
    try:
        if path.is_dir():
            opened = xr.open_zarr(path, decode_times=False, chunks=None, consolidated=False)
        else:
            opened = xr.open_dataset(path, decode_times=False)
        with opened:
            if variable not in opened:
                names = [str(name) for name in opened.data_vars]
                raise FieldError(
                    f"{path} has no moments of {variable!r}{near_names(variable, names)}"
                )
            values = np.asarray(opened[variable].values, np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FieldError):
            raise
        raise SourceError(f"cannot read moments from {path}: {error}") from error
    if values.ndim > 1 or not np.isfinite(values).all():
        raise FieldError(
            f"{variable!r} of {path} has shape {values.shape}"
            f"{'' if np.isfinite(values).all() else ' and numbers that are not finite'}; moments "
            f"are one finite number, or one per channel"
        )
    numbers: list[float] = values.reshape(-1).tolist()
    return numbers
