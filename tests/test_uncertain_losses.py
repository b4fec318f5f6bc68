"""Losses whose network tells its uncertainty: least at the true moments, finite everywhere."""

import math

import pytest
import torch
from torch import nn

from map2map.errors import GeometryError
from map2map.losses import GaussianNLL, MomentLoss

LOSSES = [GaussianNLL(), MomentLoss()]
named = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def skewed(n=400):
    """Two channels of other units, one of them skewed."""
    draw = torch.Generator().manual_seed(0)
    normal = torch.randn(n, 2, generator=draw, dtype=torch.float64)
    return torch.stack([3 + 0.1 * normal[:, 0], 40 * normal[:, 1].exp()], dim=1)


@named
def test_it_is_least_at_the_mean_and_the_variance_of_each_channel(loss):
    """Of skewed samples, too."""
    y = skewed()
    scale = y.std(dim=0)
    # in units near 1, where one step size fits all
    y = y / scale
    constant = nn.Parameter(torch.tensor([y[:, 0].mean() + 0.3, 0.0, 1.0, -1.0]).double())
    optimizer = torch.optim.Adam([constant], lr=0.05)
    steps = 400
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(constant.expand(len(y), 4), y).backward()
        optimizer.step()
        slower.step()
    torch.testing.assert_close(constant[:2].detach(), y.mean(dim=0), rtol=1e-4, atol=1e-4)
    found = constant[2:].detach().exp()
    torch.testing.assert_close(found, y.var(dim=0, correction=0), rtol=1e-3, atol=0)


@named
@pytest.mark.parametrize("space", [(), (3,)])
def test_the_true_moments_are_stationary_and_others_are_not(loss, space):
    y = skewed(60 * 3).reshape(60, *space, -1).movedim(-1, 1)[:, :2]
    rest = [axis for axis in range(y.ndim) if axis != 1]
    mean = y.mean(rest, keepdim=True).expand_as(y)
    log_variance = y.var(rest, correction=0, keepdim=True).log().expand_as(y)
    for shift in (0.0, 0.1):
        # of the shared constants, not of every sample's own
        constants = torch.stack([mean[0], log_variance[0]]).clone().requires_grad_()
        output = torch.cat([c.expand_as(y) for c in constants + shift], dim=1)
        (gradient,) = torch.autograd.grad(loss(output, y), constants)
        gradient = gradient.reshape(2, 2, -1).sum(-1)
        if shift == 0:
            torch.testing.assert_close(gradient, torch.zeros(2, 2).double(), rtol=0, atol=1e-9)
        else:
            assert (gradient.abs() > 1e-6).all()


def test_the_gaussian_one_is_torchs():
    draw = torch.Generator().manual_seed(0)
    output, y = torch.randn(5, 6, 2, generator=draw), torch.randn(5, 3, 2, generator=draw)
    expected = nn.GaussianNLLLoss()(output[:, :3], y, output[:, 3:].exp())
    torch.testing.assert_close(GaussianNLL()(output, y), expected)


def test_the_one_of_moments_is_its_formula():
    draw = torch.Generator().manual_seed(0)
    output, y = torch.randn(5, 6, generator=draw), torch.randn(5, 3, generator=draw)
    terms = []
    for channel in range(3):
        squares = [(float(y[i, channel]) - float(output[i, channel])) ** 2 for i in range(5)]
        variances = [math.exp(float(output[i, 3 + channel])) for i in range(5)]
        misfits = [(s - v) ** 2 for s, v in zip(squares, variances, strict=True)]
        terms.append(math.log(sum(squares)) + math.log(sum(misfits)))
    assert float(MomentLoss()(output, y)) == pytest.approx(sum(terms) / 3, rel=1e-5)


@named
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("log_variance", [-1e30, -1e4, -30.0, 0.0, 30.0, 1e4, 1e30])
@pytest.mark.parametrize("error", [0.0, 1e-30, 1e-8, 1.0, 1e8, 1e12])
def test_no_output_makes_it_or_its_gradient_infinite(loss, error, log_variance, dtype):
    output = torch.tensor([[error, log_variance], [-error, log_variance / 2]], dtype=dtype)
    output.requires_grad_()
    value = loss(output, torch.zeros(2, 1))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(output.grad).all()


@named
@pytest.mark.parametrize(("log_variance", "sign"), [(1e3, 1), (-1e3, -1)])
def test_a_log_variance_beyond_the_limit_is_drawn_back(loss, log_variance, sign):
    output = torch.tensor([[1.0, log_variance], [-1.0, log_variance]], requires_grad=True)
    loss(output, torch.zeros(2, 1)).backward()
    assert (sign * output.grad[:, 1] > 0).all()


@named
@pytest.mark.parametrize("shape", [(4, 3), (4, 4), (4, 6, 1), (4,)])
def test_an_output_of_other_channels_is_refused_with_the_remedy(loss, shape):
    with pytest.raises(GeometryError, match="twice the channels"):
        loss(torch.zeros(shape), torch.zeros(4, 3))
