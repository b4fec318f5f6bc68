"""Saliency, against finite differences, linear models and integrals that are known."""

import numpy as np
import pytest
import torch
from torch import nn

from map2map.errors import GeometryError, RecipeError
from map2map.saliency import gradient, integrated_gradients, saliency_cube, smooth_grad

METHODS = [gradient, smooth_grad, integrated_gradients]
of_all = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Linear(nn.Module):
    """Sum of weights times inputs; the second output is twice the first, the third its negative."""

    def __init__(self, weight, outputs=1):
        super().__init__()
        self.weight, self.outputs = nn.Parameter(weight), outputs

    def forward(self, x):
        first = (x * self.weight).flatten(1).sum(1)
        return torch.stack([first, 2 * first, -first], dim=1)[:, : self.outputs]


class Cubes(nn.Module):
    """Sum of third powers."""

    def forward(self, x):
        return (x**3).flatten(1).sum(1, keepdim=True)


def network(outputs=1):
    """With all that behaves differently in training."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, outputs),
    ).double()
    with torch.no_grad():
        model(3 * randn(50, 2, 5, 6) + 1)
    return model


@pytest.mark.parametrize("of", ["logit", "score"])
@pytest.mark.parametrize(("outputs", "channel"), [(1, 0), (3, 2)])
def test_the_gradient_is_that_of_finite_differences(of, outputs, channel):
    model, x = network(outputs), randn(3, 2, 5, 6)
    found = gradient(model, x, of=of, channel=channel)
    model.eval()

    def value(shift):
        with torch.no_grad():
            y = model(x + shift)
        if of == "score":
            y = 1 / (1 + (-y).exp()) if outputs == 1 else y.exp() / y.exp().sum(1, keepdim=True)
        return y[:, channel]

    for cell in [(0, 0, 0), (1, 4, 5), (0, 2, 3)]:
        step = torch.zeros(2, 5, 6, dtype=torch.float64)
        step[cell] = 1e-5
        expected = (value(step) - value(-step)) / 2e-5
        torch.testing.assert_close(found[:, *cell], expected, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(
        gradient(model, x, of=of, channel=channel, absolute=True), found.abs()
    )
    assert (found < 0).any()


@of_all
def test_of_a_linear_model_it_is_the_weights(method):
    weight, x = randn(2, 3, 4, seed=1), randn(5, 2, 3, 4)
    expected = weight.expand_as(x) * (x if method is integrated_gradients else 1)
    torch.testing.assert_close(method(Linear(weight), x), expected)
    torch.testing.assert_close(method(Linear(weight, 3), x, channel=2), -expected)
    torch.testing.assert_close(
        method(Linear(weight, 3), x, channel=1, absolute=True), 2 * expected.abs()
    )


def test_of_the_score_it_is_weighted_by_the_slope_of_the_sigmoid():
    weight, x = randn(2, 3, 4, seed=1), 0.1 * randn(5, 2, 3, 4)
    z = (weight * x).sum((1, 2, 3))
    p = (1 / (1 + (-z).exp()))[:, None, None, None]
    torch.testing.assert_close(gradient(Linear(weight), x, of="score"), p * (1 - p) * weight)


def test_smooth_grad_is_the_mean_over_noise_of_the_share_that_was_asked():
    """The mean slope of x^3 is 3 (x^2 + s^2)."""
    x = randn(2, 2, 3, 4) * torch.tensor([1.0, 5.0])[:, None, None, None]
    s = 0.5 * x.std(dim=(2, 3), keepdim=True, correction=0)
    found = smooth_grad(Cubes(), x, copies=2000, noise=0.5)
    size = float(x.abs().max())
    torch.testing.assert_close(found[:1], 3 * (x**2 + s**2)[:1], rtol=0.1, atol=0.2)
    torch.testing.assert_close(found[1:], 3 * (x**2 + s**2)[1:], rtol=0.1, atol=0.2 * size**2)
    torch.testing.assert_close(smooth_grad(Cubes(), x, copies=2, noise=0), gradient(Cubes(), x))


def test_the_noise_is_that_of_the_seed_and_leaves_other_noise_alone():
    x = randn(2, 2, 3, 4)
    before = torch.get_rng_state()
    first = smooth_grad(Cubes(), x, seed=1)
    assert torch.equal(first, smooth_grad(Cubes(), x, seed=1))
    assert not torch.equal(first, smooth_grad(Cubes(), x, seed=2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("of", ["logit", "score"])
@pytest.mark.parametrize("baseline", [0.0, 0.3, randn(1, 2, 5, 6, seed=3)])
def test_integrated_gradients_add_up_to_what_the_output_changes(of, baseline):
    model, x = network(), 3 * randn(4, 2, 5, 6)
    found = integrated_gradients(model, x, baseline=baseline, of=of).flatten(1).sum(1)
    model.eval()
    with torch.no_grad():
        ends = model(x)[:, 0], model(torch.zeros_like(x) + baseline)[:, 0]
    expected = ends[0] - ends[1] if of == "logit" else ends[0].sigmoid() - ends[1].sigmoid()
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-4)


def test_integrated_gradients_of_powers_are_those_of_each_cell():
    x, b = randn(2, 1, 3, 4), randn(2, 1, 3, 4, seed=1)
    torch.testing.assert_close(integrated_gradients(Cubes(), x, baseline=b, steps=3), x**3 - b**3)


@of_all
def test_the_network_is_left_as_it_was_and_the_input_too(method):
    model, x = network(), randn(3, 2, 5, 6)
    model[1].eval()
    model[0].weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        method(model, x.clone())
    with torch.no_grad():
        method(model, x)
    assert [module.training for module in model] == [True, False] + 5 * [True]
    assert [weight.requires_grad for weight in model.parameters()] == [False] + 5 * [True]
    assert all(weight.grad is None for weight in model.parameters())
    assert not x.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    model[6] = nn.Identity()
    with pytest.raises(GeometryError), torch.no_grad():
        method(nn.Sequential(model, nn.Unflatten(1, (4, 4))), x)
    assert model[0].training


@pytest.mark.parametrize("method", [gradient, integrated_gradients])
def test_samples_of_a_batch_do_not_know_each_other(method):
    """But for `smooth_grad`, whose noise depends on the place in the batch."""
    model, x = network(), randn(3, 2, 5, 6)
    torch.testing.assert_close(method(model, x)[1:2], method(model, x[1:2]))


def reader(cube):
    return lambda axis, index: np.take(cube, index, axis=axis + 1)


@pytest.mark.parametrize("batch", [2, 5, 100])
def test_the_cube_of_a_linear_model_is_the_sum_of_three_weights(batch):
    weight = randn(1, 5, 5, seed=1).float()
    cube = np.random.default_rng(0).normal(size=(1, 5, 5, 5)).astype(np.float32)
    found = saliency_cube(Linear(weight), reader(cube), (5, 5, 5), batch=batch)
    w = weight[0].numpy()
    expected = w[None, :, :] + w[:, None, :] + w[:, :, None]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-6, atol=1e-6)
    for axis in range(3):
        planes = np.moveaxis(cube[0], axis, 0)
        np.testing.assert_allclose(
            found.outputs[axis][:, 0], (planes * w).sum((1, 2)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("axes", [(0, 1, 2), (2,), (1, 0)])
@pytest.mark.parametrize("of", ["logit", "score"])
def test_the_cube_is_the_gradient_of_the_sum_over_all_planes(axes, of):
    """Of a grid that is no cube, of two channels, by differentiating the whole at once."""
    model = network().float().eval()
    shape = (4, 6, 5)
    cube = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    calls = []
    found = saliency_cube(
        model, reader(cube), shape, axes, batch=3, of=of, progress=lambda *x: calls.append(x)
    )
    whole = torch.from_numpy(cube).requires_grad_()
    total = torch.zeros(())
    for axis in axes:
        output = model(whole.movedim(axis + 1, 0))
        np.testing.assert_allclose(found.outputs[axis], output.detach(), rtol=1e-4, atol=1e-5)
        total = total + (output.sigmoid() if of == "score" else output).sum()
    total.backward()
    np.testing.assert_allclose(found.values, whole.grad, rtol=1e-4, atol=1e-6)
    planes = sum(shape[axis] for axis in axes)
    assert calls[-1] == (planes, planes)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_plane_of_another_shape_is_refused_by_axis_and_index():
    cube = np.zeros((2, 4, 6, 5), np.float32)
    with pytest.raises(GeometryError, match=r"plane 0 across axis 1 .* \(channel, 4, 5\)"):
        saliency_cube(network().float(), lambda axis, i: cube[:, i], (4, 6, 5), axes=(1,))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("no output 1; there are 1", {"channel": 1}),
        ("'logit' or 'score', not of 'probability'", {"of": "probability"}),
    ],
)
@of_all
def test_options_that_do_not_exist_are_refused(method, words, options):
    with pytest.raises(RecipeError, match=words):
        method(network(), randn(2, 2, 5, 6), **options)


@pytest.mark.parametrize("axes", [(), (0, 0), (3,), (-1,)])
def test_axes_that_do_not_exist_are_refused(axes):
    with pytest.raises(RecipeError, match=r"among \[0, 1, 2\]"):
        saliency_cube(network(), reader(np.zeros((2, 3, 3, 3))), (3, 3, 3), axes)


def test_numbers_below_the_least_are_refused():
    x = randn(2, 2, 5, 6)
    with pytest.raises(RecipeError, match="1 copy or more"):
        smooth_grad(network(), x, copies=0)
    with pytest.raises(RecipeError, match="1 step or more"):
        integrated_gradients(network(), x, steps=0)
    with pytest.raises(RecipeError, match="batch of 1 plane"):
        saliency_cube(network(), reader(np.zeros((2, 3, 3, 3))), (3, 3, 3), batch=0)
    with pytest.raises(GeometryError, match="no planes"):
        saliency_cube(network(), reader(np.zeros((2, 3))), (3,), (0,))
