"""Darcy's flow through a porous medium: pressure by finite volumes.

The steady equation -div(a grad p) = f on a box whose edges are at p = 0, with permeability a and
source f. Values are means over cells. The flux through a face between two cells follows from the
permeability of both, one behind the other: half a cell of each, hence their harmonic mean; that
through an edge of the box from half a cell. So what flows into a cell is exactly what its source
takes up, however the permeability jumps, and pressures of layers across an axis are exact there.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from map2map.errors import FieldError
from map2map.physics.spacing import Spacing, cell_sizes
from map2map.typing import Array

__all__ = ["darcy_pressure"]


def darcy_pressure(permeability: Array, spacing: Spacing, source: float | Array = 1.0) -> Array:
    """The pressure in a box with p = 0 on its edges.

    Args:
        permeability: Of each cell, positive, shape (*space) of 1 to 3 axes.
        spacing: Cell size [L], one for all axes or one each.
        source: f, a number or one per cell, in units of permeability x pressure / L^2.

    Returns:
        Pressure at the middles of cells, same shape.

    Raises:
        FieldError: If permeability is not positive, or the source not finite.
        GeometryError: If there are other cell sizes than axes.
    """
    conductances = face_conductances(permeability, spacing)
    shape, cells = permeability.shape, permeability.size
    index = np.arange(cells).reshape(shape)
    diagonal = np.zeros(shape)
    rows, columns, values = [], [], []
    for axis, faces in enumerate(conductances):
        low, high = (np.moveaxis(diagonal, axis, 0), np.moveaxis(faces, axis, 0))
        low += high[:-1] + high[1:]
        between = np.moveaxis(index, axis, 0)
        rows.append(between[:-1].ravel())
        columns.append(between[1:].ravel())
        values.append(-high[1:-1].ravel())
    row, column, value = (np.concatenate(parts) for parts in (rows, columns, values))
    upper = sparse.coo_array((value, (row, column)), shape=(cells, cells))
    matrix = (upper + upper.T + sparse.diags_array(diagonal.ravel())).tocsc()
    given = np.broadcast_to(np.asarray(source, dtype=float), shape).ravel()
    if not np.isfinite(given).all():
        raise FieldError("the source of a flow must be finite; it has NaN or infinite values")
    # symmetric and positive, so that pivots may stay on the diagonal, where they fill least
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    pressure: Array = factors.solve(given).reshape(shape)
    return pressure


def face_conductances(permeability: Array, spacing: Spacing) -> list[Array]:
    """What flows through faces per difference of pressure and volume of a cell, for each axis.

    Raises:
        FieldError: If permeability is not positive and finite.
        GeometryError: If there are other cell sizes than axes.
    """
    if not (np.isfinite(permeability).all() and (permeability > 0).all()):
        raise FieldError(
            f"permeability must be positive and finite everywhere; it is between "
            f"{np.nanmin(permeability)} and {np.nanmax(permeability)}"
        )
    found: list[Array] = []
    for axis, size in enumerate(cell_sizes(spacing, permeability.ndim)):
        # half a cell on both sides of a face, on one side of an edge
        resistance = np.moveaxis(0.5 * size**2 / permeability, axis, 0)
        faces = np.concatenate([resistance[:1], resistance[1:] + resistance[:-1], resistance[-1:]])
        found.append(np.moveaxis(1 / faces, 0, axis))
    return found
