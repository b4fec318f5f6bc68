"""Evaluation of ensembles: scores of all members together, of one, and of their mean."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from map2map.cli import main
from map2map.emulator import Emulator
from map2map.ensembles import predict
from map2map.errors import RecipeError
from map2map.evaluate import Options, evaluate
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.metrics import pointwise_scores
from map2map.metrics.ensembles import ensemble_scores
from map2map.models import ConvNet, FlowMatching
from map2map.runs import Runs

SHAPE = (12, 10)


@pytest.fixture
def emulator(tmp_path, monkeypatch):
    """From a scalar s to a scalar t and a vector w, and two runs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for run in range(2):
        for name, channels in (("s", 1), ("t", 1), ("w", 2)):
            np.save(f"{name}_{run}.npy", rng.normal(size=(channels, *SHAPE)).astype(np.float32))
    torch.manual_seed(0)
    network = {"network": "ConvNet", "options": {"width": 4, "depth": 1}}
    made = Emulator(
        FieldSet((Field("s", "m", "scalar", 1),)),
        FieldSet((Field("t", "K", "scalar", 1), Field("w", "m", "vector", 2))),
        {},
        FlowMatching(1, 3, ndim=2, steps=1, solver="euler", **network),
        Domain(2),
    ).eval()
    made.save("e.safetensors")
    return made


def patterns():
    return {name: f"{name}_*.npy" for name in "stw"}


def runs_of(emulator):
    return Runs(list(emulator.inputs), list(emulator.targets), patterns(), Domain(2))


def members_of(emulator, run, seed, count=3):
    """As documented: member m of run r is that of the seed and r N + m more."""
    fields = {"s": np.load(f"s_{run}.npy")}
    return [predict(emulator, fields, seed + run * count + m) for m in range(count)]


def test_an_ensemble_is_scored_as_by_hand(emulator):
    found = evaluate(emulator, runs_of(emulator), {}, Options(seed=5, members=3))
    assert list(found.method.values) == ["emulator", "ensemble mean"]
    for run in range(2):
        members = members_of(emulator, run, 5)
        for name, vector in (("t", False), ("w", True)):
            truth = np.load(f"{name}_{run}.npy")
            each = [member[name] for member in members]
            row = found.isel(run=run).sel(field=name)
            together = ensemble_scores(each, truth, vector=vector)
            for key, value in together.data_vars.items():
                np.testing.assert_allclose(row[key].sel({"method": "emulator"}), value, rtol=1e-6)
            one = pointwise_scores(each[0], truth, vector=vector)
            mean = pointwise_scores(np.mean(each, axis=0), truth, vector=vector)
            for key in one:
                np.testing.assert_allclose(
                    row[key].sel({"method": "emulator"}), one[key], rtol=1e-5
                )
                np.testing.assert_allclose(
                    row[key].sel({"method": "ensemble mean"}), mean[key], rtol=1e-4
                )
            crps = row.crps.sel({"method": "ensemble mean"})
            assert float(crps) == pytest.approx(float(mean.mae), rel=1e-5)
    # a mean is smoother than its members
    own, mean = (found.transfer.sel({"method": m, "field": "t"}).isel(run=0)
                 for m in ("emulator", "ensemble mean"))  # fmt: skip
    assert float(mean.mean()) < 0.8 * float(own.mean())
    assert found.attrs["members"] == 3
    share = found.binned_share
    np.testing.assert_allclose(share.sum("spread_bin"), 1)
    pooled = (share * found.binned_skill**2).sum("spread_bin").sel(field="t")
    rmse = found.rmse_all.sel({"method": "ensemble mean", "field": "t"})
    assert float(pooled) ** 0.5 == pytest.approx(float(rmse), rel=1e-5)
    assert np.isnan(found.energy_score.sel(field="t")).all()


def test_masked_cells_do_not_count(emulator):
    truth = np.load("t_0.npy")
    truth[0, :6] = np.nan
    np.save("t_0.npy", truth)
    found = evaluate(emulator, runs_of(emulator), {}, Options(members=3)).isel(run=0)
    each = [member["t"][:, 6:] for member in members_of(emulator, 0, 0)]
    expected = ensemble_scores(each, truth[:, 6:])
    row = found.sel({"field": "t", "method": "emulator"})
    np.testing.assert_allclose(row.crps, expected.crps, rtol=1e-6)
    np.testing.assert_allclose(row.rank_histogram, expected.rank_histogram)


def test_without_members_runs_have_noise_of_their_own_and_the_seed_tells_which(emulator):
    found = evaluate(emulator, runs_of(emulator), {}, Options(seed=4))
    assert list(found.method.values) == ["emulator"]
    assert "crps" not in found
    for run in range(2):
        output = predict(emulator, {"s": np.load(f"s_{run}.npy")}, 4 + run)["t"]
        expected = pointwise_scores(output, np.load(f"t_{run}.npy")).rmse
        np.testing.assert_allclose(found.rmse.sel(field="t").isel(run=run, method=0), expected)


def test_the_command_tells_and_shows_an_ensemble(emulator, capsys):
    data = [f"{name}={pattern}" for name, pattern in patterns().items()]
    command = ["evaluate", "e.safetensors", *data, "--members", "4", "--seed", "1"]
    assert main([*command, "--no-training-mean"]) == 0
    shown = capsys.readouterr().out
    for text in ("CRPS", "spread / error of the mean", "ensemble mean"):
        assert text in shown
    with xr.open_dataset("scores.nc") as scores:
        assert scores.rank_histogram.sizes["rank"] == 5
        assert {"crps_mean", "spread_skill_mean"} <= {*scores}
    table = json.loads(Path("scores.json").read_text())
    assert "spread_skill" in json.dumps(table)
    assert main(["report", "scores.nc"]) == 0
    page = Path("report.html").read_text()
    assert "Ranks of the truth" in page
    assert "Root mean squared error of the ensemble" in page


def test_ensembles_that_cannot_be_are_refused(emulator, capsys):
    with pytest.raises(RecipeError, match="from 2 members on, not 1"):
        Options(members=1)
    with pytest.raises(RecipeError, match="a baseline cannot be called 'ensemble mean'"):
        evaluate(emulator, runs_of(emulator), {"ensemble mean": None}, Options(members=2))
    emulator.model = ConvNet(1, 3, ndim=2, width=2, depth=1)
    with pytest.raises(RecipeError, match="draws no random numbers"):
        evaluate(emulator, runs_of(emulator), {}, Options(members=2))
