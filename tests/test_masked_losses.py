"""Losses of targets with holes, against loops over what is known in double precision."""

import math

import pytest
import torch
from torch import nn

from map2map.errors import RecipeError
from map2map.fields import Field, FieldSet
from map2map.losses import GaussianNLL, LogCosh, MomentLoss, WeightedL1
from map2map.masked_losses import counted_loss, masked_loss

BATCH, CHANNELS, CELLS = 3, 3, 7


def made(channels=CHANNELS, seed=0, share=0.6):
    """Output and target, of which more is known in some channels than in others."""
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(BATCH, channels, CELLS, generator=generator, dtype=torch.float64)
    target = torch.rand(BATCH, CHANNELS, CELLS, generator=generator, dtype=torch.float64)
    likely = torch.linspace(share, 1, CHANNELS)[:, None]
    counts = torch.rand(BATCH, CHANNELS, CELLS, generator=generator) < likely
    assert 0.2 < counts.double().mean() < 0.95
    return output.requires_grad_(), target, counts


def holed(target, counts):
    target = target.clone()
    target[~counts] = torch.nan
    target[0, 0, 0] = torch.inf if not counts[0, 0, 0] else target[0, 0, 0]
    return target


def known(output, target, counts):
    """Pairs of numbers that count, channel by channel."""
    o, t, c = (x.detach().transpose(0, 1).flatten(1).tolist() for x in (output, target, counts))
    return [
        [(a, b) for a, b, k in zip(*channel, strict=True) if k]
        for channel in zip(o, t, c, strict=True)
    ]


def mean_of(function):
    def reference(output, target, counts):
        values = [function(a, b) for part in known(output, target, counts) for a, b in part]
        return math.fsum(values) / len(values)

    return reference


def sum_of(function):
    def reference(output, target, counts):
        return math.fsum(function(a, b) for part in known(output, target, counts) for a, b in part)

    return reference


def bce(a, b):
    return math.log1p(math.exp(-abs(a))) + max(a, 0) - a * b


def by_field(output, target, counts):
    """0.7 of the first two channels' field, 2 of the last one's."""
    first, second, third = known(output, target, counts)
    means = [math.fsum(abs(a - b) for a, b in x) / len(x) for x in (first + second, third)]
    return 0.7 * means[0] + 2 * means[1]


def nll(output, target, counts):
    values = []
    for i, j, k in counts.nonzero().tolist():
        m, s = output[i, j, k].item(), output[i, j + CHANNELS, k].item()
        values.append((s + math.exp(-s) * (float(target[i, j, k]) - m) ** 2) / 2)
    return math.fsum(values) / len(values)


def moments(output, target, counts):
    found = []
    for j in range(CHANNELS):
        first, second = [], []
        for i, k in counts[:, j].nonzero().tolist():
            squared = (target[i, j, k] - output[i, j, k]).item() ** 2
            first.append(squared)
            second.append((squared - math.exp(output[i, j + CHANNELS, k].item())) ** 2)
        found.append(math.log(math.fsum(first)) + math.log(math.fsum(second)))
    return math.fsum(found) / CHANNELS


def weighted_l1():
    loss = WeightedL1({"a": 0.7, "b": 2.0})
    loss.take_fields(FieldSet((Field("a", channels=2), Field("b", channels=1))))
    return loss


def huber(a, b):
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


CASES = {
    "l1": (nn.L1Loss(), mean_of(lambda a, b: abs(a - b))),
    "mse": (nn.MSELoss(), mean_of(lambda a, b: (a - b) ** 2)),
    "huber": (nn.HuberLoss(), mean_of(huber)),
    "sum": (nn.L1Loss(reduction="sum"), sum_of(lambda a, b: abs(a - b))),
    "entropy": (nn.BCEWithLogitsLoss(), mean_of(bce)),
    "poisson": (nn.PoissonNLLLoss(), mean_of(lambda a, b: math.exp(a) - b * a)),
    "log_cosh": (LogCosh(), mean_of(lambda a, b: math.log(math.cosh(a - b)))),
    "weighted_l1": (weighted_l1(), by_field),
    "gaussian_nll": (GaussianNLL(), nll),
    "moments": (MomentLoss(), moments),
}


@pytest.mark.parametrize("name", CASES)
class TestEveryLoss:
    def inputs(self, name):
        loss, reference = CASES[name]
        return loss, reference, *made(CHANNELS * getattr(loss, "outputs", 1))

    def test_it_is_a_loop_over_what_is_known(self, name):
        loss, reference, output, target, counts = self.inputs(name)
        found = masked_loss(loss, output, holed(target, counts))
        assert found.item() == pytest.approx(reference(output, target, counts), rel=1e-10)

    def test_where_all_is_known_it_is_the_loss_itself(self, name):
        loss, reference, output, target, counts = self.inputs(name)
        found = masked_loss(loss, output, target)
        torch.testing.assert_close(found, loss(output, target), rtol=1e-12, atol=1e-12)
        everything = torch.ones_like(counts)
        assert found.item() == pytest.approx(reference(output, target, everything), rel=1e-10)

    def test_what_comes_out_where_nothing_is_known_moves_nothing(self, name):
        loss, _, output, target, counts = self.inputs(name)
        (gradient,) = torch.autograd.grad(masked_loss(loss, output, holed(target, counts)), output)
        assert torch.isfinite(gradient).all()
        of_outputs = counts.repeat(1, gradient.shape[1] // CHANNELS, 1)
        assert (gradient[~of_outputs] == 0).all()
        assert (gradient[of_outputs] != 0).double().mean() > 0.9
        # and what does, moves it as a finite difference says
        sample, channel, cell = counts.nonzero()[4].tolist()
        # of two outputs the second, as the mean's part of `MomentLoss` moves the mean alone
        i = sample, gradient.shape[1] - CHANNELS + channel, cell
        step = torch.zeros_like(output)
        step[i] = 1e-6
        with torch.no_grad():
            ends = [masked_loss(loss, output + s, holed(target, counts)) for s in (step, -step)]
        assert gradient[i].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, rel=1e-4)

    def test_a_batch_of_which_nothing_is_known_teaches_nothing(self, name):
        loss, _, output, target, _ = self.inputs(name)
        found = masked_loss(loss, output, torch.full_like(target, torch.nan))
        assert found.item() == 0
        (gradient,) = torch.autograd.grad(found, output)
        assert (gradient == 0).all()


def test_a_channel_without_a_known_number_is_left_out():
    output, target, counts = made(2 * CHANNELS)
    counts[:, 1] = False
    some = [0, 2, 3, 5]
    kept = MomentLoss()(
        output[:, some], torch.where(counts, target, 0.0)[:, [0, 2]], counts[:, [0, 2]]
    )
    found = masked_loss(MomentLoss(), output, holed(target, counts))
    torch.testing.assert_close(found, kept, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        masked_loss(weighted_l1(), output[:, :3], holed(target, counts)),
        masked_loss(
            WeightedL1({"a": 0.7, "b": 2.0}, channels=[1, 1]),
            output[:, [0, 2]],
            holed(target, counts)[:, [0, 2]],
        ),
        rtol=1e-12,
        atol=0,
    )


def test_classes_count_where_all_of_them_are_known():
    output, _, _ = made()
    target = torch.zeros_like(output)
    target[:, 1] = 1
    target[0, 2, 3] = torch.nan
    counts = torch.ones(BATCH, CELLS, dtype=torch.bool)
    counts[0, 3] = False
    each = -torch.log_softmax(output, dim=1)[:, 1]
    found = masked_loss(nn.CrossEntropyLoss(), output, target)
    torch.testing.assert_close(found, each[counts].mean(), rtol=1e-12, atol=0)


class Foreign(nn.Module):
    """The root of a mean, which tells nothing of itself."""

    def forward(self, output, target):
        return (output - target).square().mean().sqrt()


class Declared(Foreign):
    """A mean that is zero where both agree."""

    is_mean = True

    def forward(self, output, target):
        return (output - target).abs().mean()


def test_a_loss_that_does_not_say_how_is_refused_once_numbers_are_missing():
    output, target, counts = made()
    assert masked_loss(Foreign(), output, target) == Foreign()(output, target)
    with pytest.raises(RecipeError, match=r"Foreign does not say how .*is_mean.*takes_counts"):
        masked_loss(Foreign(), output, holed(target, counts))
    expected = mean_of(lambda a, b: abs(a - b))(output, target, counts)
    found = masked_loss(Declared(), output, holed(target, counts))
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_what_a_class_says_of_itself_counts_more_than_what_it_inherits():
    class Mine(torch.nn.MSELoss):
        is_mean = True

        def forward(self, output, target):
            return (output - target).square().mean()

    target = torch.tensor([[1.0, float("nan")]])
    assert float(masked_loss(Mine(), torch.tensor([[3.0, 5.0]]), target)) == 4.0


@pytest.mark.parametrize("loss", [nn.L1Loss(), nn.MSELoss(reduction="sum"), LogCosh()])
def test_what_does_not_count_may_be_anything_and_all_counts_if_nothing_is_said(loss):
    output, target, counts = made()
    expected = masked_loss(loss, output, holed(target, counts))
    for value in (0.0, 7.0, math.inf, math.nan):
        filled = torch.where(counts, target, value)
        torch.testing.assert_close(counted_loss(loss, output, filled, counts), expected)
    torch.testing.assert_close(counted_loss(loss, output, target, None), loss(output, target))
    assert counted_loss(loss, output, target, torch.zeros_like(counts)) == 0
