"""Every loss with every way of training: a step works, or both are named before the first."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from map2map import losses
from map2map.adversarial import Adversarial
from map2map.data import FieldData, Reading
from map2map.errors import RecipeError
from map2map.fields import Field
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.models import ConvNet, FlowMatching
from map2map.noise import Noise
from map2map.preparation import Options
from map2map.runs import Files
from map2map.task import Task
from map2map.train import Output, make_trainer, train
from map2map.training import Ordinary
from map2map.unrolled import Unrolled

HOW = {
    "WeightedL1": {"weights": {"u_next": 2.0}},
    "WeightedMSE": {"weights": {"u_next": 2.0}},
    "WeightedSum": {"terms": {"mse": nn.MSELoss(), "power": losses.PowerSpectrum()}},
    "LogDensity": {"offset": 9.0},
}


class Random(nn.Module):
    """A number of each cell times the input, and noise."""

    footprint = Footprint(0)

    def __init__(self, in_chan, out_chan, *, ndim):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.conv, self.noise = nn.Conv2d(in_chan + 1, out_chan, 1), Noise()

    def forward(self, x):
        return self.conv(torch.cat([x, self.noise(x)], dim=1))


WAYS = {
    "Ordinary": (Ordinary, Random),
    "Adversarial": (lambda: Adversarial(partial(ConvNet, width=2, depth=1)), Random),
    "Unrolled": (lambda: Unrolled(2), Random),
    "FlowMatching": (Ordinary, partial(FlowMatching, network=Random)),
}
MEANS = {"WeightedMSE"}
OF_RUNS = {"GaussianNLL", "MomentLoss"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    u = np.random.default_rng(0).uniform(0.2, 0.8, size=(4, 2, 6, 6))
    np.save("u.npy", u.astype(np.float32))


def trained(loss, way, mask=False, measures=None):
    make, model = WAYS[way]
    task = Task(
        [Field("u", kind="vector")], [Field("u_next", kind="vector")], model, loss=loss,
        training=make(), options=Options(measures=measures),
    )  # fmt: skip
    data = FieldData(
        {"u": Files("u.npy"), "u_next": Files("u.npy", later=1)},
        domain=Domain(2, spacing=1.0, periodic=True, frames=1),
        reading=Reading(batch_size=2, threads=0, mask=mask),
        seed=0,
    )
    torch.manual_seed(0)
    output = Output(Path("out"), figures=0)
    trainer = make_trainer(
        output, progress=False, max_epochs=1, accelerator="cpu", logger=False,
        limit_train_batches=1,
    )  # fmt: skip
    train(task, data, trainer, output)
    return task


def expected_to_work(name, way):
    if name in OF_RUNS:
        return False
    if way == "FlowMatching":
        return name in MEANS
    return not (way == "Unrolled" and name == "EnergyScore")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", losses.__all__)
def test_a_step_works_or_both_are_named_before_it(name, way):
    loss = getattr(losses, name)(**HOW.get(name, {}))
    if expected_to_work(name, way):
        assert np.isfinite(trained(loss, way).history["train"]).all()
        return
    with pytest.raises(RecipeError) as refused:
        trained(loss, way)
    if name in OF_RUNS:
        assert "outputs for each number" in str(refused.value)
    else:
        named = "PowerSpectrum" if name == "WeightedSum" else name  # its term
        assert re.search(rf"\b{named}\b", str(refused.value))
        assert way in str(refused.value)
    assert not Path("out/checkpoint.pt").exists()


def test_losses_that_need_targets_known_everywhere_are_refused_with_a_mask_though_all_are():
    said = "data.reading.mask leaves out cells of the target, but the loss EnergyScore"
    with pytest.raises(RecipeError, match=said):
        trained(losses.EnergyScore(), "Ordinary", mask=True)
    assert trained(nn.MSELoss(), "Ordinary", mask=True).trained


def test_measures_of_several_draws_are_refused_by_name():
    with pytest.raises(RecipeError, match="the measure 'es', a EnergyScore, compares several"):
        trained(nn.MSELoss(), "Ordinary", measures={"es": losses.EnergyScore()})
