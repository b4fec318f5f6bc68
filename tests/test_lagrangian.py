"""Cloud-in-cell against a loop over particles, and its laws."""

from itertools import product

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError
from map2map.physics.lagrangian import deposit, displacement_to_density, interpolate
from map2map.physics.lagrangian import lagrangian_to_eulerian as to_eulerian

SHAPES = [(7,), (5, 4), (4, 3, 5)]


def particles(shape, rng, *, count=20, batch=2):
    positions = rng.uniform(-8, 12, size=(batch, len(shape), count))
    return torch.from_numpy(positions), torch.from_numpy(rng.normal(size=(batch, 3, count)))


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_deposit_gives_each_cell_the_overlap_of_unit_boxes(shape, periodic):
    positions, weights = particles(shape, np.random.default_rng(0))
    expected = np.zeros((2, 3, *shape))
    # every image of every cell: the overlap is the product of max(0, 1 - distance)
    for cell in product(*(range(-12, n + 16) for n in shape)):
        inside = tuple(i % n for i, n in zip(cell, shape, strict=True))
        if not periodic and inside != cell:
            continue
        distance = np.abs(positions.numpy() - np.reshape(cell, (1, -1, 1)))
        share = np.clip(1 - distance, 0, None).prod(axis=1)
        expected[:, :, *inside] += (weights.numpy() * share[:, None]).sum(-1)
    result = deposit(positions, weights, shape, periodic=periodic)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_interpolate_is_the_adjoint_of_deposit(shape, periodic):
    rng = np.random.default_rng(0)
    positions, weights = particles(shape, rng)
    field = torch.from_numpy(rng.normal(size=(2, 3, *shape)))
    there = (deposit(positions, weights, shape, periodic=periodic) * field).sum()
    back = (weights * interpolate(field, positions, periodic=periodic)).sum()
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize("shape", SHAPES)
def test_interpolation_of_a_linear_field_is_exact(shape):
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=len(shape))
    cells = np.meshgrid(*map(np.arange, shape), indexing="ij")
    field = sum(slope * cell for slope, cell in zip(slopes, cells, strict=True))
    top = np.reshape([n - 1 for n in shape], (1, -1, 1))
    positions = rng.uniform(size=(1, len(shape), 30)) * top
    values = interpolate(torch.from_numpy(field)[None, None], torch.from_numpy(positions))
    np.testing.assert_allclose(values[0, 0], slopes @ positions[0], atol=1e-12)


def test_a_particle_at_a_center_stays_in_its_cell_and_one_between_two_is_halved():
    positions = torch.tensor([[[2.0, 3.5]]])
    assert deposit(positions, None, (4,)).tolist() == [[[0.5, 0.0, 1.0, 0.5]]]
    assert deposit(positions, None, (4,), periodic=False).tolist() == [[[0.0, 0.0, 1.0, 0.5]]]


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape):
    rng = np.random.default_rng(0)
    positions, weights = particles(shape, rng, count=4, batch=1)
    field = torch.from_numpy(rng.normal(size=(1, 3, *shape)))
    inputs = (positions.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: deposit(x, w, shape), inputs)
    assert torch.autograd.gradcheck(interpolate, (field.requires_grad_(), positions))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_mass_is_conserved_in_a_periodic_box(shape, scale):
    rng = np.random.default_rng(0)
    displacement = torch.from_numpy(rng.normal(scale=9, size=(2, len(shape), *shape)))
    density = displacement_to_density(displacement, 0.7, scale=scale)
    assert density.shape == (2, 1, *(scale * n for n in shape))
    assert density.min() >= -1
    torch.testing.assert_close(density.mean(), torch.zeros((), dtype=torch.float64))


def test_small_displacements_give_minus_their_divergence():
    n, spacing, amplitude = 64, 0.5, 1e-4
    x = torch.arange(n, dtype=torch.float64) * spacing
    k = 2 * torch.pi / (n * spacing)
    # off by half a cell, because the slope within a cell has a kink where a particle is at a center
    displacement = (spacing / 2 + amplitude * torch.sin(k * x))[None, None]
    expected = -amplitude * k * torch.cos(k * (x - spacing / 2))
    density = displacement_to_density(displacement, spacing)[0, 0]
    torch.testing.assert_close(density, expected, rtol=1e-3, atol=1e-3 * amplitude * k)


def test_a_whole_cell_of_displacement_rolls_the_values():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(1, 2, 4, 5)))
    displacement = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    displacement[:, 0], displacement[:, 1] = 3.0, -0.5
    moved = to_eulerian(displacement, values, (3.0, 0.25))
    torch.testing.assert_close(moved, values.roll((1, -2), (2, 3)))


def test_pad_is_on_both_sides_and_catches_what_leaves():
    displacement = torch.tensor([[[-2.0, 0.0, 1.0]]])
    values = torch.tensor([[[1.0, 2.0, 4.0]]])
    caught = to_eulerian(displacement, values, 1.0, pad=2, periodic=False)
    assert caught.tolist() == [[[1, 0, 0, 2, 0, 4, 0]]]
    lost = to_eulerian(displacement, values, 1.0, periodic=False)
    assert lost.tolist() == [[[0, 2, 0]]]


def test_errors_say_what_does_not_fit():
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(GeometryError, match=r"must have shape \(batch, 3, \*points\)"):
        deposit(x, None, (4, 4, 4))
    with pytest.raises(GeometryError, match="do not fit positions"):
        deposit(x, torch.zeros(1, 1, 4, 5), (4, 4))
    with pytest.raises(GeometryError, match="2 fields, but 1 sets of positions"):
        interpolate(torch.zeros(2, 1, 4, 4), x)
    with pytest.raises(GeometryError, match="1 to 3 axes"):
        deposit(torch.zeros(1, 4, 5), None, (2, 2, 2, 2))
    with pytest.raises(GeometryError, match="nothing around it"):
        displacement_to_density(x, 1.0, pad=1)
    with pytest.raises(GeometryError, match="`scale` must be at least 1"):
        displacement_to_density(x, 1.0, scale=0)
    with pytest.raises(GeometryError, match="`spacing` needs 1 or 2 positive values"):
        displacement_to_density(x, (1.0, -1.0))
