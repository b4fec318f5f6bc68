"""Laws of symmetries: a group that moves vectors as vectors."""

import numpy as np
import pytest
import torch

from map2map.errors import RecipeError
from map2map.symmetry import Symmetries, Symmetry


def all_drawn(ndim, declared="all", n=3000):
    rng = np.random.default_rng(0)
    group = Symmetries.declared(declared, ndim)
    return {group.draw(ndim, rng) for _ in range(n)}


@pytest.mark.parametrize(("ndim", "size"), [(1, 2), (2, 8), (3, 48)])
def test_all_symmetries_of_the_grid_are_drawn(ndim, size):
    assert len(all_drawn(ndim)) == size


@pytest.mark.parametrize(
    ("declared", "size"), [("none", 1), ("flips", 8), ("permutations", 6), ([1], 2), ([0, 2], 4)]
)
def test_only_declared_symmetries_are_drawn(declared, size):
    assert len(all_drawn(3, declared)) == size


@pytest.mark.parametrize("declared", ["any", [3], [0, 0]])
def test_other_declarations_are_refused(declared):
    with pytest.raises(RecipeError, match="symmetries"):
        Symmetries.declared(declared, 3)


def divergence(v):
    return sum((torch.roll(v[i], -1, i) - torch.roll(v[i], 1, i)) / 2 for i in range(v.ndim - 1))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_symmetry_commutes_with_the_divergence(ndim):
    v = torch.randn(ndim, *(6,) * ndim, dtype=torch.float64)
    for symmetry in all_drawn(ndim):
        moved = symmetry.apply(v, vectors=[range(ndim)])
        expected = symmetry.apply(divergence(v)[None])[0]
        torch.testing.assert_close(divergence(moved), expected)


def test_a_symmetry_moves_something():
    x = torch.arange(4.0).reshape(1, 2, 2)
    assert Symmetry((1, 0), (False, False)).apply(x)[0].tolist() == [[0, 2], [1, 3]]
    assert Symmetry((0, 1), (True, False)).apply(x)[0].tolist() == [[2, 3], [0, 1]]


def test_against_a_rotation_written_out_by_hand():
    """Old axis 0 reversed, then the axes swapped: v'(i, j) = (v_1, -v_0)(-j, i)."""
    v = torch.randn(2, 3, 5)
    turned = Symmetry((1, 0), (True, False)).apply(v, [(0, 1)])
    for i in range(5):
        for j in range(3):
            assert turned[0, i, j] == v[1, 2 - j, i]
            assert turned[1, i, j] == -v[0, 2 - j, i]


def test_scalars_beside_a_vector_keep_their_sign_and_place():
    x = torch.randn(5, 4, 4)
    turned = Symmetry((1, 0), (True, True)).apply(x, [(1, 2)])
    expected = x.flip(1, 2).permute(0, 2, 1)
    torch.testing.assert_close(turned[0], expected[0])
    torch.testing.assert_close(turned[3:], expected[3:])
    torch.testing.assert_close(turned[1], -expected[2])


def test_a_non_cubic_field_changes_shape_as_announced():
    x = torch.zeros(1, 2, 3, 4)
    symmetry = Symmetry((2, 0, 1), (False, True, False))
    assert tuple(symmetry.apply(x).shape[1:]) == symmetry.shape((2, 3, 4)) == (4, 2, 3)


def test_components_with_names_of_their_own_turn_like_a_vector():
    rng = np.random.default_rng(0)
    v = torch.from_numpy(rng.normal(size=(2, 4, 4)))
    h = torch.from_numpy(rng.normal(size=(1, 4, 4)))
    for seed in range(16):
        symmetry = Symmetries.declared("all", 2).draw(2, np.random.default_rng(seed))
        whole = symmetry.apply(v, [(0, 1)])
        # the component along axis 1 first, a scalar between
        parts = symmetry.apply(torch.cat([v[1:], h, v[:1]]), [(2, 0)])
        torch.testing.assert_close(parts[[2, 0]], whole, rtol=0, atol=0)
        torch.testing.assert_close(parts[1:2], symmetry.apply(h), rtol=0, atol=0)


def test_components_along_a_descending_axis_are_those_of_the_array_turned_over():
    rng = np.random.default_rng(0)
    v = torch.from_numpy(rng.normal(size=(2, 4, 4)))
    for seed in range(16):
        symmetry = Symmetries.declared("all", 2).draw(2, np.random.default_rng(seed))
        # components that count against the first axis, as north does where rows run south
        against = v * torch.tensor([-1.0, 1.0])[:, None, None]
        found = symmetry.apply(against, [(0, 1)], directions=(-1, 1))
        expected = symmetry.apply(v, [(0, 1)]) * torch.tensor([-1.0, 1.0])[:, None, None]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        both = symmetry.apply(v, [(0, 1)], directions=(-1, -1))
        torch.testing.assert_close(both, symmetry.apply(v, [(0, 1)]), rtol=0, atol=0)
