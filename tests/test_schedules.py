"""The schedule's rates against its formula, written out."""

from math import cos, pi

import pytest
import torch

from map2map.errors import RecipeError
from map2map.schedules import WarmupCosine


def rates(steps, **arguments):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, total_steps=steps, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_it_rises_in_a_line_and_falls_as_half_a_cosine():
    found = rates(100, warmup=0.2, final=0.1)
    rising = [2 * (i + 1) / 21 for i in range(20)]
    falling = [2 * (0.1 + 0.9 * (1 + cos(pi * i / 80)) / 2) for i in range(80)]
    assert found == pytest.approx(rising + falling)


def test_it_stays_at_its_end():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = WarmupCosine(optimizer, total_steps=4, final=0.5)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_a_warm_up_longer_than_training_is_refused():
    with pytest.raises(RecipeError, match="warm-up"):
        rates(4, warmup=1.0)
