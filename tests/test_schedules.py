"""The schedule's rates against its formula, written out."""

from math import cos, pi

import pytest
import torch

from map2map.errors import RecipeError
from map2map.schedules import Schedule, WarmupCosine


def rates(steps, **arguments):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return rates_of(optimizer, WarmupCosine(optimizer, total_steps=steps, **arguments), steps)


def rates_of(optimizer, scheduler, steps):
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


def test_the_rates_are_the_same_where_the_steps_are_told_later():
    """The first one, too, which PyTorch sets when the schedule is made."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = Schedule(lambda o: WarmupCosine(o, warmup=0.2, final=0.1), interval="step")
    scheduler = schedule.make(optimizer, lambda: 100)
    assert scheduler.get_last_lr() == pytest.approx([2 / 21])
    assert rates_of(optimizer, scheduler, 100) == rates(100, warmup=0.2, final=0.1)


def test_steps_without_end_are_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(RecipeError, match=r"how many steps that takes; give trainer\.max_epochs"):
        Schedule(WarmupCosine, interval="step").make(optimizer, lambda: float("inf"))


def test_steps_are_not_taken_for_epochs():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    with pytest.raises(RecipeError, match="interval: step"):
        Schedule(WarmupCosine).make(optimizer, lambda: 100)


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
