"""Running averages of weights."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from map2map.averages import Average
from map2map.errors import RecipeError
from map2map.preparation import Options


def test_the_average_is_the_sum_of_all_weights_with_the_shares_that_the_decays_leave_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
    average = Average(model, 0.7)
    seen = [{k: v.clone().double() for k, v in model.state_dict().items()}]
    decays = []
    for step in range(12):
        with torch.no_grad():
            model(torch.randn(4, 1, 8))  # the statistics move, too
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        average.update()
        seen.append({k: v.clone().double() for k, v in model.state_dict().items()})
        decays.append(min(0.7, (1 + step) / (10 + step)))
    assert decays[0] == 0.1
    assert decays[-1] < 0.7  # of many steps it will be that
    shares = []
    for i in range(13):
        share = 1.0 if i == 0 else 1 - decays[i - 1]
        for later in decays[i:]:
            share *= later
        shares.append(share)
    assert sum(shares) == pytest.approx(1)
    for name in ("0.weight", "0.bias", "1.running_var"):
        expected = sum(share * w[name] for share, w in zip(shares, seen, strict=True))
        torch.testing.assert_close(average.values[name].double(), expected, rtol=1e-5, atol=1e-6)
    assert average.values["1.num_batches_tracked"] == 12


def test_the_network_has_the_average_for_a_while_and_then_its_own_weights_again():
    model = nn.Linear(2, 1)
    own = {k: v.clone() for k, v in model.state_dict().items()}
    average = Average(model, 0.9)
    first = {k: v.clone() for k, v in average.values.items()}
    with torch.no_grad():
        model.weight.add_(1)
    average.update()
    average.enter()
    torch.testing.assert_close(model.weight, first["weight"] + 0.9)
    average.leave()
    assert torch.equal(model.weight, own["weight"] + 1)


def test_averages_of_half_precision_are_kept_in_single_precision():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = Average(model, 0.999)
    average.updates = 10**6
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(10):
        average.update()  # each adds less than half precision resolves
    assert float(average.values["weight"]) == pytest.approx(2 - 0.999**10, rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_decays_that_average_nothing_or_for_ever_are_refused(decay):
    with pytest.raises(RecipeError, match="the decay must be between 0 and 1"):
        Options(ema=decay)


TWO = """
import sys
from types import SimpleNamespace
import torch
from torch import distributed, nn
from map2map.averages import Average
from map2map.task import Task

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
model = nn.BatchNorm1d(2)
average = Average(model, 0.9)
# statistics of batches are each process's own
average.values["running_mean"] += 1.0 + rank
Task.on_validation_epoch_start(SimpleNamespace(average=average))
print(model.running_mean.tolist(), average.values["running_mean"].tolist())
average.leave()
print(model.running_mean.tolist())
"""


def test_all_processes_validate_the_average_of_the_first(tmp_path):
    command = [sys.executable, "-c", TWO]
    both = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in both:
        told = process.communicate(timeout=120)[0].decode()
        assert (process.returncode, told) == (0, "[1.0, 1.0] [1.0, 1.0]\n[0.0, 0.0]\n")
