"""Flames on tetrahedra: a mesh fills its box, zones share it out, fields are those of the grid."""

import json

import numpy as np
import pytest

from map2map.errors import GeometryError, RecipeError
from map2map.meshes import read_mesh, zones
from map2map.synthetic.flame_front import Setting, simulate
from map2map.synthetic.flame_meshes import flame_mesh, write_zones

TINY = Setting(size=8, every=2, thickness=2e-4, integral=0.2)
SHAPE, EVERY, SPACING = (12, 8, 8), 2, 0.1


def volumes(part):
    corners = part.positions[part.tetrahedra]
    return np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6


def made(parts, seed=0):
    return flame_mesh(SHAPE, EVERY, SPACING, parts, np.random.default_rng(seed))


def test_the_zones_of_a_mesh_fill_the_box_once():
    parts = made(3)
    # from the first to the last node, which are the centres of cells
    box = np.prod([(n // EVERY - 1) * EVERY * SPACING for n in SHAPE])
    assert sum(volumes(part).sum() for part in parts) == pytest.approx(box, rel=1e-9)
    assert min(volumes(part).min() for part in parts) > 0
    sizes = [len(part.tetrahedra) for part in parts]
    assert np.ptp(sizes) <= 1


def test_nodes_are_cells_that_are_moved_a_little_and_each_is_in_a_zone():
    parts = made(3)
    assert sum(len(part.positions) for part in parts) > 6 * 4 * 4, "those between are in both"
    every = np.unique(np.concatenate([part.positions for part in parts]), axis=0)
    assert len(every) == 6 * 4 * 4
    cells = every / (EVERY * SPACING) - 0.5
    far = np.abs(cells - cells.round())
    assert 0.2 < far.max() <= 0.3
    assert len(np.unique(cells.round(), axis=0)) == len(every)
    for part in parts:
        assert set(part.tetrahedra.ravel().tolist()) == set(range(len(part.positions)))


def test_the_flame_stands_in_all_zones():
    for part in made(4):
        x = part.positions[:, 0]
        assert (x.min(), x.max()) == pytest.approx((0.1, 1.1))


def test_fields_at_nodes_are_those_of_the_grid_between_its_cells(tmp_path):
    (part,) = made(1)
    x, y, z = ((np.arange(n) + 0.5) * SPACING for n in SHAPE)
    whole = 3 + 2 * x[:, None, None] - y[:, None] + 0.5 * z
    write_zones([tmp_path / "a.h5"], [part], {"p": whole}, SPACING)
    mesh = read_mesh(tmp_path / "a.h5", "zone_0001")
    expected = 3 + mesh.positions @ [2, -1, 0.5]
    # cubic splines bend a little at the faces of the box
    inner = (np.abs(mesh.positions - mesh.positions.mean(axis=0)) < 0.25).all(axis=1)
    assert inner.sum() > 5
    np.testing.assert_allclose(mesh.values["p"], expected, atol=0.05)
    np.testing.assert_allclose(mesh.values["p"][inner], expected[inner], atol=0.01)
    np.testing.assert_array_equal(mesh.positions, part.positions)


def test_the_files_are_zones_of_snapshots_of_one_mesh(tmp_path):
    files = simulate(tmp_path, snapshots=2, layout="mesh", zones=2, setting=TINY, seed=1)
    names = [f"{r}_0000{k}000_zone_000{z}.h5" for r in ("R2", "R3") for k in (1, 2) for z in (1, 2)]
    assert [path.name for path in files] == names
    assert json.loads((tmp_path / "simulation.json").read_text())["parameters"]["zones"] == 2
    first, other, later = (read_mesh(files[k]) for k in (0, 1, 2))
    assert zones(files[1]) == ("zone_0002",)
    np.testing.assert_array_equal(first.edges, later.edges)
    assert np.abs(first.values["c_filt"] - later.values["c_filt"]).max() > 0.01
    for mesh in (first, other):
        c, surface, resolved = (
            mesh.values[name] for name in ("c_filt", "c_grad_filt", "c_filt_grad")
        )
        along = mesh.positions[:, 0]
        assert c[along < 2e-4].max() < 0.1
        assert c[along > along.max() - 1e-4].min() > 0.9
        assert (surface >= resolved - 1e-3 * surface.max()).all()
        assert surface.sum() > 1.01 * resolved.sum()


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="1 zone or more, not 0"):
        simulate(tmp_path, layout="mesh", zones=0)
    with pytest.raises(GeometryError, match="cannot be cut into 9999 zones"):
        made(9999)
