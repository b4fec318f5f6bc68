"""Tallies against counts by hand, and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from map2map.fields import Field, FieldSet
from map2map.tallies import FieldTally, Tally, rates

TWO = Field("g", kind="label", classes=("a", "b")).resolved(1, 2)
THREE = Field("k", kind="label", classes=("a", "b", "c")).resolved(3, 2)
MASS = Field("m", kind="parameter").resolved(1, 2)


def same(x):
    return x


def drawn(seed=0, n=57):
    rng = torch.Generator().manual_seed(seed)
    output = torch.randn(n, 5, generator=rng)
    two = torch.randint(2, (n,), generator=rng)
    three = torch.randint(3, (n,), generator=rng)
    mass = torch.randn(n, 1, generator=rng)
    target = torch.cat([two[:, None], torch.eye(3)[three], mass], dim=1).float()
    return output, target, two.numpy(), three.numpy()


def sums(tally):
    return {name: values.clone() for name, values in tally.sums.items()}


def test_several_targets_are_counted_as_scikit_learn_counts_them():
    output, target, two, three = drawn()
    tally = Tally(FieldSet((TWO, THREE, MASS)), same)
    for start in range(0, len(output), 10):
        tally.add(output[start : start + 10], target[start : start + 10])
    found = tally.results()
    guess = (output[:, 0] > 0).int().numpy()
    assert found["g_accuracy"] == pytest.approx(metrics.accuracy_score(two, guess))
    assert found["g_precision"] == pytest.approx(metrics.precision_score(two, guess))
    assert found["g_recall"] == found["g_TPR"] == pytest.approx(metrics.recall_score(two, guess))
    assert found["g_F1_score"] == pytest.approx(metrics.f1_score(two, guess))
    assert found["g_FPR"] == pytest.approx(((guess == 1) & (two == 0)).sum() / (two == 0).sum())
    guess = output[:, 1:4].argmax(1).numpy()
    assert found["k_accuracy"] == pytest.approx(metrics.accuracy_score(three, guess))
    for name, score in (
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("F1_score", metrics.f1_score),
    ):
        assert found[f"k_{name}"] == pytest.approx(score(three, guess, average="macro"))
    rate = [((guess == k) & (three != k)).sum() / (three != k).sum() for k in range(3)]
    assert found["k_FPR"] == pytest.approx(np.mean(rate))
    error = (output[:, 4] - target[:, 4]).double().square().mean().sqrt()
    assert found["m_rmse"] == pytest.approx(float(error))


def test_rows_of_the_confusion_matrix_are_the_truth():
    tally = Tally(FieldSet((THREE,)), same)
    tally.add(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
    assert tally.sums["k"].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_the_size_of_batches_does_not_matter():
    output, target, *_ = drawn()
    found = []
    for size in (1, 8, 57):
        tally = Tally(FieldSet((TWO, THREE, MASS)), same)
        for start in range(0, len(output), size):
            tally.add(output[start : start + size], target[start : start + size])
        found.append(sums(tally))
    for other in found[1:]:
        for name in ("g", "k"):
            assert torch.equal(found[0][name], other[name])
        torch.testing.assert_close(found[0]["m"], other["m"])
    assert found[0]["m"][1] == 57


def test_parameters_are_compared_in_their_units():
    tally = Tally(FieldSet((MASS,)), lambda y: 10 * y + 3)
    tally.add(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [2.5]]))
    assert tally.results() == {"rmse": pytest.approx(5.0)}
    tally.clear()
    assert tally.results() == {"rmse": 0.0}


def test_a_single_target_has_no_name_in_front_and_processes_are_added_up():
    tally = Tally(FieldSet((TWO,)), same)
    tally.add(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [1.0]]))
    assert tally.results()["accuracy"] == 0.5
    other = torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    assert tally.results(lambda counts: counts + other)["accuracy"] == pytest.approx(5 / 6)


def test_a_ratio_of_nothing_is_zero():
    assert set(rates(torch.zeros(3, 3)).values()) == {0.0}
    assert rates(torch.tensor([[3.0, 0.0], [0.0, 0.0]])) == {
        "accuracy": 1.0, "precision": 0.0, "recall": 0.0, "F1_score": 0.0, "TPR": 0.0, "FPR": 0.0,
    }  # fmt: skip


# --- fields -----------------------------------------------------------------------------------


def decoded(x):
    """Normalized to physical: channels have units of their own."""
    return x * torch.tensor([10.0, 0.5, 3.0]).reshape(1, 3, 1) + 280


def physical_scores(outputs, targets):
    """R² and relative L2 of the fields "a" (two channels) and "b", in float64, mean of both."""
    y, t = (decoded(torch.cat(x)).double().numpy() for x in (outputs, targets))
    r2, relative = [], []
    for part in (slice(0, 2), slice(2, 3)):
        truth, error = t[:, part], (y - t)[:, part]
        mean = np.nanmean(truth, axis=(0, 2), keepdims=True)
        r2.append(1 - np.nansum(error**2) / np.nansum((truth - mean) ** 2))
        relative.append(np.sqrt(np.nansum(error**2) / np.nansum(truth**2)))
    return np.mean(r2), np.mean(relative)


@pytest.mark.parametrize("holes", [False, True])
def test_scores_of_fields_are_those_of_the_data_set_and_no_means_of_batches(holes):
    fields = FieldSet((Field("a", channels=2), Field("b", channels=1)))
    generator = torch.Generator().manual_seed(0)
    targets = [torch.randn(2, 3, 5, generator=generator), torch.randn(1, 3, 5) * 0.1 + 4]
    outputs = [t + 0.3 * torch.randn(t.shape, generator=generator) for t in targets]
    if holes:
        targets[0][0, 0, :3] = torch.nan
    tally = FieldTally(fields, decoded)
    alone = []
    for y, t in zip(outputs, targets, strict=True):
        tally.add(y, t)
        one = FieldTally(fields, decoded)
        one.add(y, t)
        alone.append(one.results()["r2"])
        assert alone[-1] == pytest.approx(physical_scores([y], [t])[0], rel=1e-5)
    found = tally.results()
    expected = physical_scores(outputs, targets)
    assert (found["r2"], found["relative_l2"]) == pytest.approx(expected, rel=1e-5)
    # the second batch hardly varies by itself
    assert np.mean(alone) < expected[0] - 0.5
    # two processes with a batch each
    other = [FieldTally(fields, decoded) for _ in range(2)]
    for one, y, t in zip(other, outputs, targets, strict=True):
        one.add(y, t)
    together = other[0].results(lambda sums: sums + other[1].sums)
    assert together == pytest.approx(found, rel=1e-12)
    tally.clear()
    tally.add(outputs[1], targets[1])
    assert tally.results()["r2"] == pytest.approx(alone[1], rel=1e-12)
