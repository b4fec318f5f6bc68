"""Relative errors, sample by sample, against NumPy."""

import numpy as np
import pytest
import torch

from map2map.losses import RelativeL2
from map2map.masked_losses import masked_loss

RNG = np.random.default_rng(0)
OUTPUT, TARGET = RNG.normal(size=(2, 3, 2, 4, 5)) * np.array([1, 10, 100]).reshape(3, 1, 1, 1)
RATIOS = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(OUTPUT, TARGET, strict=True)]


def test_it_is_the_mean_of_the_ratios_of_norms():
    found = RelativeL2()(torch.from_numpy(OUTPUT), torch.from_numpy(TARGET))
    assert float(found) == pytest.approx(np.mean(RATIOS), rel=1e-12)


def test_samples_of_any_size_count_alike():
    scaled = [torch.from_numpy(x * np.array([1e3, 1, 1e-3])[:, None, None, None])
              for x in (OUTPUT, TARGET)]  # fmt: skip
    assert float(RelativeL2()(*scaled)) == pytest.approx(np.mean(RATIOS), rel=1e-12)


def test_cells_that_are_not_known_do_not_count():
    target = TARGET.copy()
    target[0, :, :2], target[1, 0], target[2] = np.nan, np.nan, np.nan
    found = masked_loss(RelativeL2(), torch.from_numpy(OUTPUT), torch.from_numpy(target))
    known = [
        np.linalg.norm(OUTPUT[0, :, 2:] - TARGET[0, :, 2:]) / np.linalg.norm(TARGET[0, :, 2:]),
        np.linalg.norm(OUTPUT[1, 1] - TARGET[1, 1]) / np.linalg.norm(TARGET[1, 1]),
    ]
    assert float(found) == pytest.approx(np.mean(known), rel=1e-12)


def test_targets_of_zeros_and_half_precision_stay_finite():
    zeros, ones = torch.zeros(2, 1, 8), torch.ones(2, 1, 8, requires_grad=True)
    loss = RelativeL2()(ones, zeros)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(8**0.5)
    assert ones.grad.isfinite().all()
    # their squares vanish in half precision
    small = torch.full((1, 1, 8), 1e-4, dtype=torch.float16)
    assert float(RelativeL2()(2 * small, small)) == pytest.approx(1, rel=1e-2)


def test_the_gradient_is_finite_where_output_and_target_agree():
    output = torch.from_numpy(TARGET).requires_grad_()
    RelativeL2()(output, torch.from_numpy(TARGET)).backward()
    assert output.grad.isfinite().all()
