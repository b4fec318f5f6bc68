"""Meshes of tetrahedra: their files and edges, against loops over every tetrahedron."""

from itertools import permutations

import h5py
import numpy as np
import pytest

from map2map.errors import FieldError, GeometryError, SourceError
from map2map.meshes import Mesh, edge_lengths, mesh_edges, read_mesh, write_mesh, zones


def box(nx=3, ny=2, nz=2):
    """A box of unit cubes, each cut into six tetrahedra along its diagonal, and two fields."""
    shape = (nx + 1, ny + 1, nz + 1)
    positions = np.array(list(np.ndindex(*shape)), float)
    tetrahedra = []
    for cell in np.ndindex(nx, ny, nz):
        for order in permutations(np.eye(3, dtype=int)):
            path = np.cumsum([cell, *order], axis=0)
            tetrahedra.append(np.ravel_multi_index(path.T, shape))
    rng = np.random.default_rng(0)
    # no grid any more: nodes are moved and numbered anew
    new = rng.permutation(len(positions))
    moved = np.empty_like(positions)
    moved[new] = positions + rng.uniform(-0.2, 0.2, positions.shape)
    values = {name: rng.normal(size=len(positions)) for name in ("c_filt", "c_grad_filt")}
    return Mesh(moved, new[np.array(tetrahedra)], values)


def by_loops(mesh):
    """All ordered pairs of nodes of every tetrahedron, each once."""
    return {pair for cell in mesh.tetrahedra.tolist() for pair in permutations(cell, 2)}


def test_edges_are_all_ordered_pairs_of_the_nodes_of_tetrahedra_each_once():
    mesh = box()
    expected = by_loops(mesh)
    assert mesh.edges.dtype == np.int64
    assert mesh.edges.shape == (2, len(expected))
    assert set(map(tuple, mesh.edges.T.tolist())) == expected
    source, target = mesh.edges
    order = np.lexsort((source, target))
    assert order.tolist() == list(range(len(order))), "ordered by target, then by source"


def test_lengths_are_the_distances_of_the_ends_of_edges():
    mesh = box()
    for k, (i, j) in enumerate(mesh.edges.T):
        dx, dy, dz = mesh.positions[i] - mesh.positions[j]
        assert mesh.lengths[k] == pytest.approx((dx**2 + dy**2 + dz**2) ** 0.5)
    assert edge_lengths(np.array([[0.0, 0, 0], [3, 4, 0]]), np.array([[0], [1]])).tolist() == [5]


def test_a_tetrahedron_has_twelve_edges_and_two_with_a_common_face_eighteen():
    assert mesh_edges(np.array([[0, 1, 2, 3]]), 5).shape == (2, 12)
    assert mesh_edges(np.array([[0, 1, 2, 3], [4, 2, 1, 3]]), 5).shape == (2, 18)
    assert mesh_edges(np.empty((0, 4), int), 5).shape == (2, 0)


def test_a_mesh_is_read_as_it_was_written(tmp_path):
    mesh = box()
    write_mesh(tmp_path / "a.h5", mesh, zone="zone_0012")
    assert zones(tmp_path / "a.h5") == ("zone_0012",)
    again = read_mesh(tmp_path / "a.h5")
    np.testing.assert_array_equal(again.positions, mesh.positions)
    np.testing.assert_array_equal(again.tetrahedra, mesh.tetrahedra)
    np.testing.assert_array_equal(again.edges, mesh.edges)
    assert list(again.values) == ["c_filt", "c_grad_filt"]
    np.testing.assert_array_equal(again.values["c_filt"], mesh.values["c_filt"])
    one = read_mesh(tmp_path / "a.h5", "zone_0012", ["c_grad_filt"])
    assert list(one.values) == ["c_grad_filt"]


def test_the_file_is_the_one_of_the_published_layout(tmp_path):
    """Written here by hand: connectivity from 1, innermost names that begin with a space."""
    path = tmp_path / "hand.h5"
    with h5py.File(path, "w") as file:
        for axis, x in zip("XYZ", ([0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 2]), strict=True):
            file[f"Base/7/GridCoordinates/Coordinate{axis}/ data"] = np.array(x, "f4")
        file["Base/7/Tetrahedra/ElementConnectivity/ data"] = np.array([1, 2, 3, 4], "i4")
        file["Base/7/FlowSolution/c_filt/ data"] = np.array([0.1, 0.2, 0.3, 0.4], "f4")
    mesh = read_mesh(path)
    assert mesh.tetrahedra.tolist() == [[0, 1, 2, 3]]
    assert mesh.positions.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2]]
    assert mesh.values["c_filt"].dtype == np.float32
    np.testing.assert_allclose(np.unique(mesh.lengths), [1, 2**0.5, 2, 5**0.5], rtol=1e-6)
    write_mesh(tmp_path / "ours.h5", mesh, "7")
    found = []
    for name in (path, tmp_path / "ours.h5"):
        with h5py.File(name) as file:
            sets = {}
            file.visititems(
                lambda k, v, sets=sets: (
                    sets.update({k: v[...].tolist()}) if isinstance(v, h5py.Dataset) else None
                )
            )
        found.append(sets)
    assert found[0] == found[1]


def test_of_several_zones_one_is_named(tmp_path):
    path = tmp_path / "a.h5"
    write_mesh(path, box(), "one")
    with h5py.File(path, "a") as file:
        file.copy("Base/one", file["Base"], "two")
        file.create_group("Base/Family")
    assert zones(path) == ("one", "two")
    with pytest.raises(SourceError, match=r"has 2 zones .* one, two; name one of them"):
        read_mesh(path)
    assert read_mesh(path, "two").nodes == box().nodes
    with pytest.raises(
        SourceError, match=r"no 'three' in '/Base'.*there is 'Family', 'one', 'two'"
    ):
        read_mesh(path, "three")


def broken(path, change):
    write_mesh(path, box(1, 1, 1), "Z")
    with h5py.File(path, "a") as file:
        change(file["Base/Z"])


def replaced(name, values):
    def change(zone):
        del zone[name]
        if values is not None:
            zone[name] = values

    return change


CELLS = "Tetrahedra/ElementConnectivity/ data"


@pytest.mark.parametrize(
    ("name", "values", "kind", "message"),
    [
        (
            "Tetrahedra",
            None,
            SourceError,
            "no 'Tetrahedra' in '/Base/Z'.*'FlowSolution', 'GridCoordinates'",
        ),
        ("GridCoordinates/CoordinateY", None, SourceError, "'CoordinateX', 'CoordinateZ'"),
        (CELLS, None, SourceError, "no ' data' in .*there is nothing"),
        ("Tetrahedra/ElementConnectivity", np.arange(4), SourceError, "there is a data set"),
        ("GridCoordinates", None, SourceError, "no zones with GridCoordinates"),
        (CELLS, np.array([1, 2, 3, 4, 5]), GeometryError, "holds 5 numbers of type int64"),
        (CELLS, np.array([1.0, 2, 3, 4]), GeometryError, "of type float64, but must hold 4 whole"),
        (
            CELLS,
            np.array([1, 2, 3, 4, 5, 6, 7, 9]),
            GeometryError,
            r"Z.*1 of 2 .* the 8 there are; the first is number 2, with nodes \[5, 6, 7, 9\]",
        ),
        (CELLS, np.array([0, 2, 3, 4]), GeometryError, r"number 1, with nodes \[0, 2, 3, 4\]"),
        (
            CELLS,
            np.array([1, 2, 3, 4, 5, 6, 7, 5]),
            GeometryError,
            "tetrahedron 2 has a node twice",
        ),
        (
            "FlowSolution/c_filt/ data",
            np.zeros(6),
            FieldError,
            r"'c_filt' has shape \(6,\), but the mesh has 8 nodes",
        ),
        ("Tetrahedra/ElementConnectivity/ data", b"1234", SourceError, "holds no numbers"),
        (
            "GridCoordinates/CoordinateX/ data",
            np.zeros(7),
            GeometryError,
            r"\(7,\), \(8,\), \(8,\)",
        ),
    ],
)
def test_what_a_file_lacks_or_holds_wrong_is_told(tmp_path, name, values, kind, message):
    broken(tmp_path / "a.h5", replaced(name, values))
    with pytest.raises(kind, match=message):
        read_mesh(tmp_path / "a.h5")


def test_what_a_solution_says_about_itself_is_no_field(tmp_path):
    """CGNS has the letters of "Vertex" beside the fields."""
    letters = np.frombuffer(b"Vertex", np.int8)
    broken(tmp_path / "a.h5", lambda zone: zone.create_dataset(
        "FlowSolution/GridLocation/ data", data=letters))  # fmt: skip
    assert list(read_mesh(tmp_path / "a.h5").values) == ["c_filt", "c_grad_filt"]
    with pytest.raises(FieldError, match="no field 'GridLocation'"):
        read_mesh(tmp_path / "a.h5", fields=["GridLocation"])


def test_a_mesh_without_a_solution_has_no_values(tmp_path):
    broken(tmp_path / "a.h5", replaced("FlowSolution", None))
    assert read_mesh(tmp_path / "a.h5").values == {}
    with pytest.raises(FieldError, match=r"no field 'c_filt' in FlowSolution .*there are none"):
        read_mesh(tmp_path / "a.h5", fields=["c_filt"])


def test_what_is_no_file_of_meshes_is_refused(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        read_mesh(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(SourceError, match="cannot be read as HDF5"):
        read_mesh(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["c_filt"] = np.zeros(3)
    with pytest.raises(SourceError, match=r"no 'Base' in '/'.*there is 'c_filt'"):
        read_mesh(tmp_path / "b.h5")
    write_mesh(tmp_path / "a.h5", box(1, 1, 1))
    with pytest.raises(FieldError, match=r"no field 'c_fil'.*did you mean 'c_filt'"):
        read_mesh(tmp_path / "a.h5", fields=["c_fil"])


def test_arrays_that_are_no_mesh_are_refused():
    cells = np.array([[0, 1, 2, 3]])
    with pytest.raises(GeometryError, match=r"positions of shape \(nodes, 3\), not \(4, 2\)"):
        Mesh(np.zeros((4, 2)), cells)
    with pytest.raises(GeometryError, match="4 nodes each"):
        Mesh(np.zeros((4, 3)), cells[:, :3])
