"""Trajectories of optimizers, against their formulas written out."""

import numpy as np
import pytest
import torch
from torch import nn

from map2map.errors import RecipeError
from map2map.losses import LogCosh
from map2map.optimizers import AdamP, KerasAdam


def by_formula(start, gradients, lr, eps, clip=0.0, b1=0.9, b2=0.999):
    x, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, 1):
        norm = np.sqrt((g**2).sum())
        g = g * min(1, clip / norm) if clip else g
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        x = x - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
    return x


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("size", [1.0, 1e-7])
def test_steps_are_those_of_the_formula_even_with_gradients_as_small_as_epsilon(clip, size):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=6), size * rng.normal(size=(7, 6))
    p = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = KerasAdam([p], lr=0.1, eps=1e-7, clip_norm=clip)
    for k, g in enumerate(gradients):
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        if k == 3:  # it goes on from its state
            state = optimizer.state_dict()
            optimizer = KerasAdam([p], lr=0.1, eps=1e-7, clip_norm=clip)
            optimizer.load_state_dict(state)
    expected = by_formula(start, gradients, 0.1, 1e-7, clip)
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-5)
    if size < 1e-6:
        # PyTorch's own is another one
        q = nn.Parameter(torch.from_numpy(start.copy()))
        other = torch.optim.Adam([q], lr=0.1, eps=1e-7)
        for g in gradients:
            q.grad = torch.from_numpy(g.copy())
            other.step()
        assert np.abs(q.detach().numpy() - expected).max() > 0.01


def test_every_tensor_is_clipped_by_itself_and_kernels_but_the_last_are_kept_small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 1, 1))
    optimizer = KerasAdam(net.parameters(), lr=0.0, clip_norm=1.0, l2=0.25)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}

    def closure():
        optimizer.zero_grad()
        for p in net.parameters():
            p.grad = torch.full_like(p, 3.0)
        return torch.tensor(7.0)

    assert optimizer.step(closure) == 7
    for name, p in net.named_parameters():
        gradient = torch.full_like(p, 3.0)
        if name in ("0.weight", "1.weight"):
            gradient += 2 * 0.25 * before[name]
        gradient *= min(1, 1 / float(gradient.norm()))
        torch.testing.assert_close(p.grad, gradient)
    with pytest.raises(RecipeError, match="`l2` is -1"):
        KerasAdam(net.parameters(), l2=-1)


def adamp_by_formula(start, gradients, lr, decay, nesterov, b1=0.9, b2=0.999, eps=1e-8):
    """Trajectory of a tensor, channel by channel in loops; and which rule each step took."""
    w, m, v, rules = start.copy(), np.zeros_like(start), np.zeros_like(start), []
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        top = b1 * m + (1 - b1) * g if nesterov else m
        # in Heo et al. the first moment's correction is part of the rate
        step = top / (np.sqrt(v / (1 - b2**t)) + eps)
        rule, ratio = "none", 1.0
        if w.ndim > 1:
            for name, parts in (("channel", list(range(len(w)))), ("layer", [slice(None)])):
                cosines = [
                    abs((w[i] * g[i]).sum()) / np.linalg.norm(w[i]) / np.linalg.norm(g[i])
                    for i in parts
                ]
                if max(cosines) < 0.1 / np.sqrt(w[parts[0]].size):
                    for i in parts:
                        along = w[i] / np.linalg.norm(w[i])
                        step[i] = step[i] - along * (along * step[i]).sum()
                    rule, ratio = name, 0.1
                    break
        w = w * (1 - lr * decay * ratio)
        w = w - lr / (1 - b1**t) * step
        rules.append(rule)
    return w, rules


def orthogonal(gradient, weight):
    return gradient - weight * (gradient * weight).sum() / (weight**2).sum()


def gradients_that_are(kind, weight, rng, count):
    """Gradients that are as `kind` says towards the weight as it was at the beginning."""
    for _ in range(count):
        g = rng.normal(size=weight.shape)
        if kind == "channel":
            yield np.stack([orthogonal(a, w) for a, w in zip(g, weight, strict=True)])
        elif kind == "layer":
            # the channels' own products are large and cancel
            pull = np.ones(len(weight))
            pull[: len(pull) // 2] = -1
            pull *= 1 / (weight.reshape(len(weight), -1) ** 2).sum(1)
            rows = np.stack([orthogonal(a, w) for a, w in zip(g, weight, strict=True)])
            yield rows + pull.reshape(-1, *(1,) * (weight.ndim - 1)) * weight
        else:
            yield g + 3 * weight


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["channel", "layer", "none", "bias"])
def test_adamp_leaves_out_what_is_parallel_to_weights_by_channel_then_by_layer(
    kind, decay, nesterov
):
    rng = np.random.default_rng(3)
    start = rng.normal(size=(5,) if kind == "bias" else (4, 3, 2, 2))
    gradients = list(gradients_that_are(kind, start, rng, 4))
    # a rate so small that what is orthogonal at the beginning stays about so
    arguments = {"lr": 1e-4, "weight_decay": decay, "nesterov": nesterov}
    p = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = AdamP([p], **arguments)
    for k, g in enumerate(gradients):
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        if k == 1:  # it goes on from its state
            state = optimizer.state_dict()
            optimizer = AdamP([p], **arguments)
            optimizer.load_state_dict(state)
    expected, rules = adamp_by_formula(start, gradients, 1e-4, decay, nesterov)
    assert set(rules) == {"none" if kind == "bias" else kind}
    moved = p.detach().numpy() - start
    np.testing.assert_allclose(moved, expected - start, rtol=1e-5)
    if kind in ("channel", "layer"):
        plain, _ = adamp_by_formula(start.reshape(-1), [g.ravel() for g in gradients], 1e-4, decay,
                                    nesterov)  # fmt: skip
        assert np.abs(plain.reshape(start.shape) - expected).max() > 1e-6


def test_adamp_with_delta_zero_is_adam_with_decoupled_decay():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    ends = []
    for make in (lambda p: AdamP(p, delta=0.0), torch.optim.Adam):
        p = nn.Parameter(torch.from_numpy(start.copy()))
        optimizer = make([p])
        for g in gradients:
            p.grad = torch.from_numpy(g.copy())
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends)
    with pytest.raises(RecipeError, match="`delta` is -1"):
        AdamP([p], delta=-1)
    with pytest.raises(RecipeError, match="`betas` are"):
        AdamP([p], betas=(0.9, 1.0))


def test_log_cosh_is_what_it_is_called_and_does_not_overflow():
    error = torch.linspace(-5, 5, 11, dtype=torch.float64)
    expected = np.log(np.cosh(error.numpy())).mean()
    assert float(LogCosh()(error, torch.zeros(11))) == pytest.approx(expected)
    assert float(LogCosh()(torch.tensor([1e4]), torch.tensor([0.0]))) == pytest.approx(
        1e4 - np.log(2)
    )
