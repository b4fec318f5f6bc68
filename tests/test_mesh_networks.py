"""Graph networks on meshes: parts with halos give what the whole gives."""

import numpy as np
import pytest
import torch

from map2map.errors import FieldError, GeometryError
from map2map.grid_graphs import grid_edges
from map2map.mesh_networks import apply_to_mesh
from map2map.meshes import Mesh, bisected, within
from map2map.models import GridGAT, GridGCN, GridGIN, GridGraphUNet, GridSAGE

pyg = pytest.importorskip("torch_geometric.nn", reason="needs the extra `graph`")
LOCAL = GridGCN, GridGAT, GridGIN, GridSAGE


def ribbon(nodes=60):
    """Tetrahedra of four nodes that follow each other: a long mesh, of which a part sees a part."""
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 0.1, (nodes, 3))
    positions[:, 1] += np.arange(nodes)
    new = rng.permutation(nodes)
    moved = np.empty_like(positions)
    moved[new] = positions
    cells = np.arange(nodes - 3)[:, None] + np.arange(4)
    return Mesh(moved, new[cells])


def made(kind, **options):
    torch.manual_seed(0)
    model = kind(2, 3, width=8, **options)
    for parameter in model.parameters():
        parameter.data.uniform_(-0.6, 0.6)
    return model.double()


def noise(nodes):
    return np.random.default_rng(1).normal(size=(2, nodes))


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("kind", LOCAL)
def test_parts_do_not_show(kind, parts):
    mesh, model = ribbon(), made(kind, depth=2)
    values = noise(mesh.nodes)
    # torch_geometric's own, on the edges as they are
    stock = type(model.model)(2, 8, 2, 3, act="silu", **options_of(kind))
    stock.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        x = torch.from_numpy(values.T.copy())
        expected = stock.double().eval()(x, torch.from_numpy(mesh.edges)).T.numpy()
    found = apply_to_mesh(model, mesh, values, parts=parts)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert model.training


def options_of(kind):
    return {
        GridGCN: {"jk": "last"},
        GridGAT: {"jk": "last", "heads": 8},
        GridGIN: {},
        GridSAGE: {"jk": "last"},
    }[kind]


@pytest.mark.parametrize("kind", LOCAL)
def test_a_halo_of_one_edge_less_would_show(kind):
    mesh, model = ribbon(), made(kind, depth=2)
    values = noise(mesh.nodes)
    whole = apply_to_mesh(model, mesh, values, parts=3)
    from dataclasses import replace

    model.footprint = replace(model.footprint, margin=model.footprint.margin - 1)
    assert np.abs(apply_to_mesh(model, mesh, values, parts=3) - whole).max() > 1e-4


def test_a_network_of_a_grid_gives_the_same_on_a_mesh_with_its_edges():
    model = made(GridGCN, depth=2)
    mesh = ribbon(24)
    object.__setattr__(mesh, "edges", grid_edges((4, 3, 2)))
    values = noise(24)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(values.reshape(1, 2, 4, 3, 2)))
    np.testing.assert_allclose(
        apply_to_mesh(model, mesh, values), expected.reshape(3, 24), rtol=1e-10, atol=1e-12
    )


def test_a_graph_unet_runs_on_the_whole_mesh_alone():
    mesh, model = ribbon(), made(GridGraphUNet, depth=2)
    assert apply_to_mesh(model, mesh, noise(60)).shape == (3, 60)
    with pytest.raises(GeometryError, match="GridGraphUNet cannot be tiled exactly"):
        apply_to_mesh(model, mesh, noise(60), parts=2)


def test_outputs_have_the_networks_precision():
    model = made(GridGIN, depth=1).float()
    assert apply_to_mesh(model, ribbon(), noise(60)).dtype == np.float32


def test_values_of_another_shape_are_refused():
    with pytest.raises(FieldError, match=r"shape \(2, 60\), not \(60, 2\)"):
        apply_to_mesh(made(GridGIN), ribbon(), noise(60).T)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_parts_hold_every_node_once_and_as_many_each(parts):
    positions = np.random.default_rng(0).normal(size=(20, 3))
    inside = np.array(list(bisected(positions, parts)))
    assert len(inside) == parts
    assert (inside.sum(axis=0) == 1).all()
    assert np.ptp(inside.sum(axis=1)) <= 1


def test_parts_are_cut_across_the_longest_side():
    line = ribbon().positions
    for inside in bisected(line, 4):
        assert np.ptp(line[inside, 1]) < 16
    with pytest.raises(GeometryError, match="60 nodes were to be cut into 61 parts; use 1 to 60"):
        list(bisected(line, 61))


def test_what_reaches_a_node_in_so_many_steps_is_within():
    # 0 -> 1 -> 2 -> 3, and 4 that is reached from 3 only
    edges = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
    inside = np.array([False, False, True, False, False])
    for steps, expected in enumerate([[2], [1, 2], [0, 1, 2], [0, 1, 2]]):
        assert np.flatnonzero(within(edges, inside, steps)).tolist() == expected
