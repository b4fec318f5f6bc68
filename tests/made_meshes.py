"""Small meshes for tests: Delaunay's tetrahedra of random points, with fields at their nodes."""

import numpy as np
from scipy.spatial import Delaunay

from map2map.meshes import Mesh, write_mesh


def made_mesh(seed, nodes=14, dtype=np.float64):
    """A mesh whose ``a`` is noise, ``b`` a linear function of it, and ``near_b`` almost that."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(nodes, 3))
    a = rng.normal(2, 3, size=nodes).astype(dtype)
    b = 10 - 5 * a
    values = {"a": a, "b": b, "near_b": b + rng.normal(size=nodes).astype(dtype)}
    return Mesh(positions, Delaunay(positions).simplices.astype(np.int64), values)


def write_zones(folder, snapshots=3, zones=2):
    """Files of zones of different sizes; their meshes by path."""
    found = {}
    for shot in range(snapshots):
        for zone in range(zones):
            path = folder / f"R_{shot:03d}_zone_{zone}.h5"
            found[path] = made_mesh(10 * shot + zone, 12 + 3 * zone + shot)
            write_mesh(path, found[path], f"zone_{zone}")
    return found
