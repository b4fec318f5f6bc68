"""The laws of losses: differentiable, least at the truth, blind to what is not known."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from map2map import losses
from map2map.errors import RecipeError
from map2map.masked_losses import masked_loss

MADE = runpy.run_path(str(Path(__file__).parents[1] / "made_losses.py"))
CROP, WHOLE = (4, 5), (4, 9)
TARGETS = {"u": 2}

HOW = {
    "Derivatives": {"of": "divergence"},
    "LagrangianEulerian": {"form": "sum", "scale": 2, "pad": 1, "remove_mean": False},
    "LogDensity": {"offset": 3.0},
    "WeightedL1": {"weights": {"u": 2.0}},
    "WeightedMSE": {"weights": {"u": 2.0}},
    "WeightedSum": {"terms": {"mse": nn.MSELoss(), "power": losses.PowerSpectrum()}},
}
SCORING = ("Wasserstein",)
"""Losses of a critic's scores, which have no truth."""
OF_ALL = ("EnergyScore", "Wasserstein")
"""Losses that need targets known everywhere."""

named = pytest.mark.parametrize("name", losses.__all__)
with_truth = pytest.mark.parametrize("name", [n for n in losses.__all__ if n not in SCORING])


def made(name):
    return MADE["told"](
        getattr(losses, name)(**HOW.get(name, {})), TARGETS, WHOLE, spacing=[1.0, 0.7]
    )


def members(loss):
    """How many draws of a network the loss compares, one after another along the batch."""
    return getattr(loss, "members", 1)


def values(loss, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    shape = members(loss) * batch, getattr(loss, "outputs", 1) * 2, *CROP
    output = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = 0.3 * torch.randn(batch, 2, *CROP, generator=generator, dtype=torch.float64)
    return output, target


@named
def test_its_gradient_is_that_of_finite_differences(name):
    loss = made(name)
    output, target = values(loss)
    output.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(output, target), output)
    if name == "MomentLoss":  # whose terms move a part of the outputs each
        gradient, compared = gradient[:, 2:], slice(2, 4)
    else:
        compared = slice(None)
    direction = torch.zeros_like(output)
    draw = torch.Generator().manual_seed(1)
    direction[:, compared] = torch.randn(gradient.shape, generator=draw, dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        above, below = (loss(output + s * direction, target) for s in (step, -step))
    expected = float((above - below) / (2 * step))
    found = float((gradient * direction[:, compared]).sum())
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(found) > 1e-6


@named
def test_it_is_finite_and_has_a_finite_gradient_at_the_truth(name):
    loss = made(name)
    target = values(loss)[1].float()
    outputs = getattr(loss, "outputs", 1)
    output = torch.cat([target] + [torch.zeros_like(target)] * (outputs - 1), dim=1)
    output = torch.cat([output] * members(loss)).requires_grad_()
    value = loss(output, target)
    value.backward()
    assert value.shape == ()
    assert math.isfinite(value.detach())
    assert torch.isfinite(output.grad).all()


@with_truth
def test_no_output_is_better_than_the_truth(name):
    loss = made(name)
    target = values(loss)[1]
    outputs = getattr(loss, "outputs", 1)
    extra = [torch.zeros_like(target)] * (outputs - 1)

    def of(output):
        # all draws alike
        return float(loss(torch.cat([torch.cat([output, *extra], dim=1)] * members(loss)), target))

    best = of(target)
    for seed in range(1, 6):
        assert of(target + values(loss, seed)[1]) > best + 1e-6


@named
def test_what_it_gives_where_the_target_is_not_known_is_all_the_same(name):
    loss = made(name)
    output, target = values(loss)
    unknown = torch.zeros_like(target, dtype=torch.bool)
    unknown[0, :, 1, 2:] = True
    unknown[1, 1, 3, 0] = True
    holed = torch.where(unknown, torch.nan, target)
    if name in OF_ALL:
        with pytest.raises(RecipeError, match=f"{name} does not say how they are left out"):
            masked_loss(loss, output, holed)
        return
    other = torch.where(unknown.repeat(1, getattr(loss, "outputs", 1), 1, 1), 7.0, output)
    other.requires_grad_()
    found = masked_loss(loss, other, holed)
    torch.testing.assert_close(found, masked_loss(loss, output, holed))
    assert found != masked_loss(loss, output, target)
    found.backward()
    assert (other.grad[:, :2][unknown] == 0).all()
    assert torch.isfinite(other.grad).all()
    everything = masked_loss(loss, output, torch.full_like(target, torch.nan))
    assert math.isfinite(float(everything))


@named
def test_samples_of_a_batch_may_come_in_any_order(name):
    loss = made(name)
    output, target = values(loss, batch=3)
    order = torch.tensor([2, 0, 1])
    each = torch.cat([order + 3 * member for member in range(members(loss))])
    torch.testing.assert_close(loss(output, target), loss(output[each], target[order]))
