"""Discriminators and their penalties, against map2map's numbers and analytic ones."""

import pytest
import torch
from torch import nn

from map2map.critics import (
    check_scores,
    gradient_norms,
    gradient_penalty,
    make_critic,
    normalize_spectrally,
    r1_penalty,
    random_numbers,
)
from map2map.errors import GeometryError, RecipeError
from map2map.footprints import measure
from map2map.losses import Dice, Wasserstein
from map2map.models import PatchGAN, PatchGAN42

BCE = nn.BCEWithLogitsLoss()


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "in_chan", "number"),
    [
        (PatchGAN, 1, 281_409), (PatchGAN, 3, 283_137), (PatchGAN, 6, 285_729),
        (PatchGAN42, 1, 2_627_009), (PatchGAN42, 3, 2_635_201), (PatchGAN42, 6, 2_647_489),
    ],
)  # fmt: skip
def test_discriminators_have_as_many_weights_as_map2maps(model, in_chan, number):
    assert count(model(in_chan, 1)) == number


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_patches_give_as_many_scores_as_map2maps(ndim):
    small, large = PatchGAN(2, 1, ndim=ndim).eval(), PatchGAN42(2, 1, ndim=ndim).eval()
    with torch.no_grad():
        assert small(torch.zeros(1, 2, *[11] * ndim)).shape == (1, 1, *[3] * ndim)
        sizes = (22, 30) if ndim == 3 else (22, 29, 30, 37, 38)
        for n in sizes:
            expected = 1 + (n - 22) // 8
            assert large(torch.zeros(1, 2, *[n] * ndim)).shape == (1, 1, *[expected] * ndim)
            assert large.scores(n) == expected


def test_a_score_sees_its_patch_and_no_more():
    torch.manual_seed(0)
    for model, patch, step in ((PatchGAN(1, 1, ndim=1), 9, 1), (PatchGAN42(1, 1, ndim=1), 22, 8)):
        x = torch.randn(1, 1, 46, requires_grad=True)
        model.eval()(x)[0, 0, 2].backward()
        seen = x.grad[0, 0].nonzero().flatten().tolist()
        assert (seen[0], seen[-1]) == (2 * step, 2 * step + patch - 1)


def test_what_does_not_fit_patches_is_refused():
    with pytest.raises(GeometryError, match=r"cannot take \(21, 30\) cells: .* 22 cells"):
        PatchGAN42(1, 1, ndim=2)(torch.zeros(1, 1, 21, 30))
    with pytest.raises(GeometryError, match=r"takes \(batch, 1 channels"):
        PatchGAN42(1, 1, ndim=2)(torch.zeros(1, 3, 30, 30))
    with pytest.raises(GeometryError, match="PatchGAN cannot take 8 cells"):
        PatchGAN(1, 1, ndim=1)(torch.zeros(1, 1, 8))
    # as the network of an emulator
    with pytest.raises(GeometryError, match="no footprint describes PatchGAN42"):
        measure(PatchGAN42(1, 1, ndim=1), 1, 1)


def test_states_of_map2map_have_the_names_of_the_patches_weights():
    assert {name.rpartition(".")[0] for name in PatchGAN(3, 1).state_dict()} == {
        "convs.0.convs.0", "convs.1.convs.0", "convs.1.convs.1", "convs.2.convs.0",
        "convs.2.convs.1", "convs.3.convs.0",
    }  # fmt: skip
    assert {name.rpartition(".")[0] for name in PatchGAN42(3, 1).state_dict()} == {
        f"convs.{i}" for i in (0, 2, 3, 5, 6, 8)
    }


class Linear(nn.Module):
    """Scores that are linear in the field, whose slope is known."""

    def __init__(self, slope, cells=1):
        super().__init__()
        self.slope, self.cells = slope, cells

    def forward(self, x):
        return (self.slope * x).sum(dim=(1, 2), keepdim=True).expand(-1, 1, self.cells)


@pytest.mark.parametrize("cells", [1, 5])
def test_penalties_of_a_linear_critic_are_those_of_its_slope(cells):
    """Scores are averaged over space, however many there are."""
    slope = torch.tensor([[[1.0, -2.0, 3.0]]])
    critic, real = Linear(slope, cells), torch.randn(4, 1, 3)
    assert float(r1_penalty(critic, real)) == pytest.approx(0.5 * 10 * 14)
    assert float(r1_penalty(critic, real, 3.0)) == pytest.approx(0.5 * 3 * 14)
    penalty = gradient_penalty(critic, torch.randn(4, 1, 3), real, torch.rand(4))
    assert float(penalty) == pytest.approx(10 * (14**0.5 - 1) ** 2, rel=1e-5)


def test_slopes_are_taken_between_real_and_fake_by_each_samples_share():
    class Square(nn.Module):
        def forward(self, x):
            return 0.5 * x.square().sum(dim=(1, 2), keepdim=True)  # whose slope is x

    fake, real = torch.full((2, 1, 1), 5.0), torch.full((2, 1, 1), 1.0)
    found = gradient_penalty(Square(), fake, real, torch.tensor([0.25, 1.0]), 1.0)
    assert float(found.detach()) == pytest.approx(((2 - 1) ** 2 + (5 - 1) ** 2) / 2)
    assert float(r1_penalty(Square(), fake, 2.0).detach()) == pytest.approx(25)


def test_spectral_norms_are_map2maps_by_name_and_one_in_value():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(3, 2, 2), nn.Linear(4, 1))
    normalize_spectrally(critic)
    assert {name.partition(".")[2] for name in critic.state_dict()} == {
        "bias", "weight_orig", "weight_u", "weight_v",
    }  # fmt: skip
    for _ in range(100):
        critic(torch.zeros(1, 2, 5))
    largest = torch.linalg.matrix_norm(critic[0].weight.flatten(1).detach(), 2)
    assert float(largest) == pytest.approx(1, rel=1e-3)
    with pytest.raises(RecipeError, match="of which the discriminator ReLU has none"):
        normalize_spectrally(nn.ReLU())


def test_gradients_are_of_the_first_and_last_weights():
    critic = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert gradient_norms(critic) is None
    critic(torch.ones(1, 2)).sum().backward()
    first, last = gradient_norms(critic)
    assert first == pytest.approx(float(critic[0].weight.grad.norm()))
    assert last == pytest.approx(float(critic[1].weight.grad.norm()))


class Fixed(nn.Module):
    """Takes 3 channels, and gives one score for all samples together."""

    in_chan = 3

    def __init__(self, in_chan, out_chan, *, ndim):
        super().__init__()

    def forward(self, x):
        return x.mean().reshape(1, 1)


class Nothing(Fixed):
    in_chan = 1

    def forward(self, x):
        return x[..., :0]


class Lambda(nn.Module):
    """A convolution, and a function of what it gives."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv1d(1, 1, 1), function

    def forward(self, x):
        return self.function(self.conv(x))


def test_discriminators_that_do_not_fit_are_refused_before_training():
    with pytest.raises(RecipeError, match="Fixed takes 3 channels, but is to see the 1 channels"):
        make_critic(Fixed, ["y"], 1, 2)
    with pytest.raises(RecipeError, match="cannot be made for the 1 channels of y on 2 axes"):
        make_critic(lambda i, o: Fixed(i, o, ndim=2), ["y"], 1, 2)
    with pytest.raises(GeometryError, match=r"gives \(1, 1\) for batches of 2 x 3 channels"):
        check_scores(Fixed(3, 1, ndim=2), (2, 3, 4, 4), BCE, ["y"])
    with pytest.raises(GeometryError, match="take a smaller one, or larger crops"):
        check_scores(Nothing(1, 1, ndim=1), (2, 1, 4), BCE, ["y"])
    with pytest.raises(GeometryError, match="does not take batches of 2 x 1 channels x 21 x 21"):
        check_scores(PatchGAN42(1, 1, ndim=2), (2, 1, 21, 21), BCE, ["y"])
    with pytest.raises(GeometryError, match="channels"):
        check_scores(nn.Conv1d(3, 1, 1), (2, 1, 4), BCE, ["y"])
    with pytest.raises(GeometryError, match="which are x, y: "):
        check_scores(nn.Conv1d(3, 1, 1), (2, 2, 4), BCE, ["x", "y"])
    with pytest.raises(GeometryError, match=r"Lambda gives \(\) for batches"):
        check_scores(Lambda(lambda x: x.mean()), (2, 1, 4), BCE, ["y"])
    with pytest.raises(RecipeError, match="Lambda cannot learn: its scores have no gradient"):
        check_scores(Lambda(lambda x: x.detach()), (2, 1, 4), BCE, ["y"])
    with pytest.raises(RecipeError, match="CrossEntropyLoss is 0 for what"):
        check_scores(nn.Conv1d(1, 1, 4), (2, 1, 4), nn.CrossEntropyLoss(), ["y"])
    with pytest.raises(RecipeError, match="CosineEmbeddingLoss does not compare scores"):
        check_scores(nn.Conv1d(1, 1, 1), (2, 1, 4), nn.CosineEmbeddingLoss(), ["y"])
    with pytest.raises(RecipeError, match="no single number"):
        check_scores(nn.Conv1d(1, 1, 1), (2, 1, 4), nn.MSELoss(reduction="none"), ["y"])


def test_trying_a_critic_changes_neither_it_nor_random_numbers():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Dropout(0.5))
    before = {k: v.clone() for k, v in critic.state_dict().items()}
    state = torch.get_rng_state()
    check_scores(critic, (2, 1, 8), BCE, ["y"])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in critic.state_dict().items())


def test_random_numbers_differ_by_seed_process_and_batch_alone():
    def draw(*key):
        return torch.randn(3, generator=random_numbers(*key, torch.device("cpu"))).tolist()

    keys = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2), (0, 10, 1), (0, 1, 11)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)
    assert draw(3, 1, 4) == draw(3, 1, 4)


def test_the_losses_are_their_formulas():
    scores, labels = torch.tensor([[2.0, -3.0]]), torch.tensor([[1.0, 0.0]])
    assert float(Wasserstein()(scores, labels)) == pytest.approx(-(2 + 3) / 2)
    assert float(Wasserstein()(scores, torch.full_like(scores, 0.5))) == 0
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 3.0, 0.0])
    assert float(Dice()(a, b)) == pytest.approx(1 - 2 * 1 / (5 + 10))
    assert float(Dice(eps=1)(a, b)) == pytest.approx(1 - 3 / 16)
    assert float(Dice()(a, a)) == pytest.approx(0)
    assert float(Dice(eps=1e-6)(0 * a, 0 * a)) == pytest.approx(0)
    with pytest.raises(RecipeError, match="`eps` is -1"):
        Dice(eps=-1)
