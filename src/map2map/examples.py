"""Examples of an evaluation: middle planes of the best, the median and the worst run.

Which runs these are is known at the end only, so the planes of all are kept on disk until then.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from map2map.typing import Array

__all__ = ["Examples", "middle"]

NAMES = ("best", "median", "worst")


class Examples:
    """Middle planes of fields of runs.

    Args:
        folder: Where they are kept.
        fields: Names of the fields.
        methods: Names of all that is compared.
    """

    def __init__(self, folder: Path, fields: Sequence[str], methods: Sequence[str]) -> None:
        self.folder, self.fields, self.methods = folder, list(fields), list(methods)

    def keep(self, run: int, planes: Mapping[str, Mapping[str, Array]]) -> None:
        """Keep planes of a run: by field, that of the truth, and those of predictions by method."""
        named: dict[str, Any] = {
            f"{field}/{side}": values
            for field, sides in planes.items()
            for side, values in sides.items()
        }
        np.savez(self.folder / f"{run}.npz", **named)

    def chosen(self, errors: NDArray[np.float64], names: Sequence[str]) -> dict[str, xr.Variable]:
        """Those of three runs, and which they are.

        Args:
            errors: By which runs are ordered, shape (run,); runs that are NaN are chosen only if
                all are.
            names: Of the runs.
        """
        order = np.argsort(errors)
        # runs that could not be scored are behind all others
        order = order[: np.isfinite(errors).sum() or len(order)]
        runs = [int(order[i]) for i in (0, (len(order) - 1) // 2, -1)]
        loaded = [dict(np.load(self.folder / f"{run}.npz")) for run in runs]
        dims = ("example", "field", "component", "y", "x")
        attrs = {"units": "field", "long_name": "middle plane of the first axis"}
        slices = [self._stack(loaded, method) for method in self.methods]
        return {
            "example": xr.Variable("example", list(NAMES)),
            "example_run": xr.Variable(
                "example",
                [names[run] for run in runs],
                {"long_name": "by the emulator's relative L2, mean over fields"},
            ),
            "slice_truth": xr.Variable(dims, self._stack(loaded, "truth"), attrs),
            "slice": xr.Variable(("method", *dims), np.stack(slices), attrs),
        }

    def _stack(self, loaded: Sequence[Mapping[str, Array]], side: str) -> NDArray[np.float32]:
        """Planes of one side, shape (example, field, component, y, x); NaN where there are none."""
        truths = [[planes[f"{name}/truth"].shape for name in self.fields] for planes in loaded]
        components = max(shape[0] for shape in truths[0])
        plane = tuple(max(sizes) for sizes in zip(*(each[0][1:] for each in truths), strict=True))
        shape = len(loaded), len(self.fields), components, *plane
        out = np.full(shape, np.nan, np.float32)
        for i, planes in enumerate(loaded):
            for j, name in enumerate(self.fields):
                if (values := planes.get(f"{name}/{side}")) is not None:
                    out[i, j][tuple(slice(0, n) for n in values.shape)] = values
        return out


def middle(values: Array) -> NDArray[np.float32]:
    """The middle plane of a field, shape (component, y, x)."""
    if values.ndim == 2:
        plane = values[:, None]
    elif values.ndim == 3:
        plane = values
    else:
        plane = values[:, values.shape[1] // 2]
    return plane.astype(np.float32)
