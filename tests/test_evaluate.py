"""Evaluation against metrics called by hand, and all that can be wrong with what it is given."""

import json
import resource
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from map2map import metrics
from map2map.baselines import Means, computed, constant, identity, training_files
from map2map.derived import GradientNorm
from map2map.emulator import Emulator
from map2map.ensembles import placed
from map2map.errors import FieldError, GeometryError, RecipeError
from map2map.evaluate import Options, evaluate, metrics_available
from map2map.examples import middle
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import ConvNet
from map2map.report.scores import read_scores
from map2map.runs import Files, Runs
from map2map.score_tables import table
from map2map.scores import Joint

SHAPE = (12, 10)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs of a vector v and a scalar s, and an emulator from them to a vector w and a scalar t."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for run in range(5):
        v, s = rng.normal(size=(2, *SHAPE)), rng.gamma(1.0, size=(1, *SHAPE))
        fields = {"v": v, "s": s, "w": v + 0.1 * (run + 1) * v**2, "t": 2 * s + 0.1 * v[:1]}
        for name, values in fields.items():
            np.save(f"{name}_{run}.npy", values.astype(np.float32))
    inputs = FieldSet((Field("v", "m", "vector", 2), Field("s", "kg", "scalar", 1)))
    targets = FieldSet((Field("w", "m", "vector", 2), Field("t", "K", "scalar", 1)))
    torch.manual_seed(0)
    model = ConvNet(3, 3, ndim=2, width=2, depth=1)
    emulator = Emulator(inputs, targets, {}, model, Domain(ndim=2, spacing=[0.5, 0.7]))
    emulator.training_record = {
        "files": {
            "train": [{name: {"path": f"{name}_{k}.npy"} for name in "vswt"} for k in range(2)]
        }
    }
    emulator.save("e.safetensors")
    return tmp_path


def patterns(runs="[2-4]", **changes):
    return {name: f"{name}_{runs}.npy" for name in "vswt"} | changes


def runs_of(emulator, runs="[2-4]", **changes):
    return Runs(list(emulator.inputs), list(emulator.targets), patterns(runs, **changes), Domain(2))


def data(runs="[2-4]", **changes):
    return [f"{name}={pattern}" for name, pattern in patterns(runs, **changes).items()]


def outputs(emulator, run):
    return emulator({name: np.load(f"{name}_{run}.npy") for name in "vs"})


def scores_of(emulator, truth, name):
    """Every metric, by hand."""
    vector = emulator.targets[name].kind == "vector"
    found = [f(truth[0], truth[1], (0.5, 0.7), vector=vector) for f in metrics_available().values()]
    return xr.merge(found, compat="equals")


# --- scores --------------------------------------------------------------------------------------


def test_scores_are_those_of_the_metrics_called_by_hand(folder):
    emulator = Emulator.load("e.safetensors")
    _, same = identity(emulator.inputs, emulator.targets)
    found = evaluate(emulator, runs_of(emulator), {"identity": same})
    assert list(found["method"].values) == ["emulator", "identity"]
    assert list(found.run.values) == ["w_2", "w_3", "w_4"]
    assert list(found.units.values) == ["m", "K"]
    assert list(found.kind.values) == ["vector", "scalar"]
    for k, run in enumerate((2, 3, 4)):
        for name in "wt":
            truth = np.load(f"{name}_{run}.npy")
            expected = scores_of(emulator, (outputs(emulator, run)[name], truth), name)
            for key, value in expected.items():
                place = {"method": "emulator", "field": name}
                place = place if "method" in found[key].dims else {"field": name}
                np.testing.assert_allclose(found[key].sel(place)[k], value, err_msg=key)
    # only the vector has a partner of its units
    first = found.sel({"method": "identity", "run": "w_2", "field": "w"})
    assert float(first.rmse) == pytest.approx(
        np.sqrt(((np.load("v_2.npy") - np.load("w_2.npy")) ** 2).mean())
    )
    assert np.isnan(found.rmse.sel({"method": "identity", "field": "t"})).all()
    assert np.isnan(found.curl_error.sel(field="t")).all()
    np.testing.assert_allclose(found.k, metrics.spectral_scores(truth, truth, (0.5, 0.7)).k)
    assert (found.seconds > 0).all()


def test_scores_of_all_runs_together_are_those_of_one_large_run(folder):
    np.save("w_3.npy", np.load("w_3.npy") + 5)
    emulator = Emulator.load("e.safetensors")
    _, same = identity(emulator.inputs, emulator.targets)
    found = evaluate(emulator, runs_of(emulator), {"identity": same})
    for name in "wt":
        made, truth = (
            np.concatenate(x, axis=1).astype(np.float64)
            for x in (
                [outputs(emulator, run)[name] for run in (2, 3, 4)],
                [np.load(f"{name}_{run}.npy") for run in (2, 3, 4)],
            )
        )
        squared = ((made - truth) ** 2).sum()
        deviations = ((truth - truth.mean((1, 2), keepdims=True)) ** 2).sum()
        expected = {
            "rmse": np.sqrt(squared / truth.size),
            "r2": 1 - squared / deviations,
            "relative_l2": np.sqrt(squared / (truth**2).sum()),
        }
        at = found.sel({"method": "emulator", "field": name})
        for key, value in expected.items():
            np.testing.assert_allclose(at[f"{key}_all"], value, rtol=1e-6)
            told = table(found)["emulator"][name][key]["all"]
            np.testing.assert_allclose(told, value, rtol=1e-6)
    w = found.sel({"method": "emulator", "field": "w"})
    assert abs(float(w.r2_all - w.r2_mean)) > 0.05
    assert np.isnan(found.r2_all.sel({"method": "identity", "field": "t"}))


def test_means_and_intervals_are_over_runs(folder):
    emulator = Emulator.load("e.safetensors")
    found = evaluate(emulator, runs_of(emulator), {}, Options(["spectral"]))
    for key in ("rmse", "bias", "r2", "transfer", "error_power"):
        np.testing.assert_allclose(found[f"{key}_mean"], found[key].mean("run"))
        assert (found[f"{key}_low"] <= found[f"{key}_mean"]).all()
        assert (found[f"{key}_high"] >= found[f"{key}_mean"]).all()
        assert (found[f"{key}_high"] > found[f"{key}_low"]).any()
    assert "wasserstein" not in found
    one = evaluate(emulator, runs_of(emulator, "2"), {}, Options(["spectral"]))
    np.testing.assert_allclose(one.rmse_mean, one.rmse[:, 0])
    assert np.isnan(one.rmse_low).all()


def test_the_same_seed_draws_the_same(folder):
    emulator = Emulator.load("e.safetensors")
    one, same, other = (
        evaluate(emulator, runs_of(emulator), {}, Options(["pointwise"], bootstrap=20, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one.drop_vars("seconds").identical(same.drop_vars("seconds"))
    assert not one.rmse_low.equals(other.rmse_low)


def test_examples_are_the_best_median_and_worst_run(folder):
    emulator = Emulator.load("e.safetensors")
    for run, worse in {2: 1.3, 3: 1.1, 4: 1.2}.items():
        for name, values in outputs(emulator, run).items():
            np.save(f"{name}_{run}.npy", worse * values)
    found = evaluate(emulator, runs_of(emulator), {}, Options(["pointwise"]))
    assert list(found.example_run.values) == ["w_3", "w_4", "w_2"]
    assert list(found.example.values) == ["best", "median", "worst"]
    for i, name in enumerate(found.example_run.values):
        run = name[-1]
        np.testing.assert_array_equal(found.slice_truth[i, 0], np.load(f"w_{run}.npy"))
        np.testing.assert_array_equal(found.slice_truth[i, 1, 0], np.load(f"t_{run}.npy")[0])
        assert np.isnan(found.slice_truth[i, 1, 1]).all()
        np.testing.assert_array_equal(found.slice[0, i, 0], outputs(emulator, run)["w"])
    assert found.slice.dtype == np.float32


def test_the_middle_plane_of_any_field():
    x = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(middle(x), x[:, 1])
    np.testing.assert_array_equal(middle(x[0]), x[0])
    np.testing.assert_array_equal(middle(x[0, 0]), x[0, 0][:, None])


def test_the_joint_histogram_is_numpys(monkeypatch):
    monkeypatch.setattr("map2map.scores.CHUNK", 7)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 6, 5)).astype(np.float32)
    output = truth + rng.normal(size=truth.shape).astype(np.float32)
    kept = rng.random((6, 5)) < 0.8
    joint = Joint.like(truth, output, kept)
    joint.add(truth, output, kept)
    expected, *_ = np.histogram2d(
        truth[:, kept].ravel(), output[:, kept].ravel(), [joint.edges, joint.edges]
    )
    np.testing.assert_array_equal(joint.counts, expected)
    # what is beyond is in the outermost bins
    joint.add(truth + 100, output - 100, kept)
    assert joint.counts[-1, 0] == joint.counts.sum() / 2
    flat = Joint.like(truth * 0, truth * 0, kept)
    flat.add(truth * 0, truth * 0, kept)
    assert flat.counts.sum() == 2 * kept.sum()


# --- masks ---------------------------------------------------------------------------------------


def test_masked_cells_count_for_no_method_and_are_told(folder, caplog):
    emulator = Emulator.load("e.safetensors")
    truth = np.load("w_3.npy")
    truth[1, :3] = np.nan
    np.save("w_3.npy", truth)
    caplog.set_level("INFO")
    found = evaluate(emulator, runs_of(emulator), {})
    assert found.masked.sel(run="w_3", field="w") == pytest.approx(0.25)
    assert (found.masked.sel(run="w_2") == 0).all()
    error = (outputs(emulator, 3)["w"] - truth)[:, 3:]
    score = found.rmse.sel({"method": "emulator", "run": "w_3", "field": "w"})
    assert float(score) == pytest.approx(np.sqrt((error**2).mean()))
    assert np.isnan(found.transfer.sel(run="w_3", field="w")).all()
    assert np.isfinite(found.transfer.sel(run="w_2", field="w")).all()
    # over the runs that have one
    mean = found.transfer.sel(run=["w_2", "w_4"]).mean("run")
    np.testing.assert_allclose(
        found.transfer_mean, mean.where(mean.field == "w", found.transfer_mean)
    )
    assert found.attrs["spectra_missing"] == "cells of w are masked"
    assert "'w' of run w_3 is masked in 25 % of the cells" in caplog.text


def test_predictions_that_are_not_finite_are_counted_and_scored_nowhere(folder, caplog):
    emulator = Emulator.load("e.safetensors")
    holed = np.load("t_2.npy")
    holed[0, 0, :6] = np.inf
    found = evaluate(emulator, runs_of(emulator, "2"), {"theirs": lambda run, fields: {"t": holed}})
    assert found.not_finite.sel({"method": "theirs", "field": "t"}) == pytest.approx(6 / 120)
    assert found.not_finite.sel({"method": "emulator", "field": "t"}) == 0
    assert "theirs of 't' is not finite in 6 of 120 cells of run w_2" in caplog.text
    kept = np.isfinite(holed)
    error = (outputs(emulator, 2)["t"] - np.load("t_2.npy"))[kept]
    score = found.rmse.sel({"method": "emulator", "field": "t"})
    assert float(score[0]) == pytest.approx(np.sqrt((error**2).mean()))
    assert float(found.rmse.sel({"method": "theirs", "field": "t"})[0]) == 0


def test_a_field_without_a_cell_to_score_in_any_run_is_refused(folder):
    emulator = Emulator.load("e.safetensors")
    np.save("w_2.npy", np.full((2, *SHAPE), np.nan, np.float32))
    says = r"no cell of 'w' can be scored in any of 1 runs.*score the others \(--targets t\)"
    with pytest.raises(FieldError, match=says):
        evaluate(emulator, runs_of(emulator, "2"), {})
    np.save("t_2.npy", np.full((1, *SHAPE), np.nan, np.float32))
    with pytest.raises(FieldError, match=r"no cell of 'w' and 't' .* give other runs$"):
        evaluate(emulator, runs_of(emulator, "2"), {})


@pytest.mark.parametrize("which", [2, 3, 4])
def test_a_run_without_a_cell_to_score_has_nan_and_costs_the_others_nothing(folder, caplog, which):
    emulator = Emulator.load("e.safetensors")
    others = "".join(str(k) for k in (2, 3, 4) if k != which)
    expected = evaluate(emulator, runs_of(emulator, f"[{others}]"), {})
    for name, channels in (("w", 2), ("t", 1)):
        np.save(f"{name}_{which}.npy", np.full((channels, *SHAPE), np.nan, np.float32))
    found = evaluate(emulator, runs_of(emulator), {})
    lost = found.sel(run=f"w_{which}")
    assert np.isnan(lost.rmse).all()
    assert (lost.masked == 1).all()
    assert f"no cell of 'w' in run w_{which} can be scored" in caplog.text
    kept = found.sel(run=[f"w_{k}" for k in others])
    for name in ("rmse", "relative_l2", "power_truth", "wasserstein"):
        np.testing.assert_array_equal(kept[name], expected[name])
    np.testing.assert_array_equal(found.rmse_mean, expected.rmse_mean)
    # nothing can be seen of it, so that it is no example, not even the worst
    assert found.example_run.values.tolist() == expected.example_run.values.tolist()
    assert f"w_{which}" not in found.example_run.values


def test_the_command_scores_runs_whose_inputs_hold_nan_if_it_is_allowed(folder, m2m):
    np.save("s_3.npy", np.full((1, *SHAPE), np.nan, np.float32))
    holed = np.load("s_4.npy")
    holed[0, 5, 5] = np.nan
    np.save("s_4.npy", holed)
    places = ["e.safetensors", *(f"{name}={name}_[2-4].npy" for name in "vswt")]
    status, _, err = m2m("evaluate", *places)
    assert status == 2
    assert "--allow-nan" in err
    assert m2m("evaluate", *places, "--allow-nan")[0] == 0
    with xr.open_dataset("scores.nc") as found:
        mine = found.sel({"method": "emulator", "field": "t"})
        assert np.isfinite(mine.rmse.values).tolist() == [True, False, True]
        assert mine.not_finite.values[:2].tolist() == [0, 1]
        # one convolution of 3 x 3 sees it
        assert float(mine.not_finite[2]) == pytest.approx(9 / 120)
    assert m2m("report", "scores.nc", "-o", "page.html")[0] == 0


def test_without_periodic_axes_there_are_no_spectra(folder):
    emulator = Emulator.load("e.safetensors")
    emulator.domain = Domain(2, periodic=[True, False], pad="edge", spacing=0.5)
    found = evaluate(emulator, runs_of(emulator), {})
    assert np.isnan(found.power).all()
    assert np.isfinite(found.curl_error.sel(field="w")).all()
    assert found.attrs["spectra_missing"] == "the grid is not periodic"
    assert list(found.attrs["periodic"]) == [1, 0]


def test_an_output_without_edges_is_scored_where_it_is():
    inner = np.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    found = placed(inner, (2, 8, 3), "emulator")
    np.testing.assert_array_equal(found[:, 2:6], inner)
    assert np.isnan(found[:, :2]).all()
    assert np.isnan(found[:, 6:]).all()
    for shape, method in (((2, 7, 3), "emulator"), ((2, 8, 3), "theirs"), ((1, 8, 3), "emulator")):
        with pytest.raises(GeometryError, match=r"prediction of .* has shape \(2, 4, 3\), but"):
            placed(inner, shape, method)


# --- baselines -----------------------------------------------------------------------------------


def test_identity_takes_an_input_of_the_same_units_kind_and_channels():
    a, b = Field("a", "m", "scalar", 1), Field("b", "m", "scalar", 1)
    targets = (b, Field("v", "m", "vector", 2), Field("c", "km", "scalar", 1))
    partners, same = identity(FieldSet((a, b)), FieldSet(targets))
    # that of the same name, although another comes first
    assert partners == {"b": "b"}
    assert same(0, {"a": 1, "b": 2}) == {"b": 2}
    partners, _ = identity(FieldSet((a,)), FieldSet(targets))
    assert partners == {"b": "a"}
    # several of the same units: the name tells, or nothing does
    several = FieldSet(tuple(Field(name, "m", "scalar", 1) for name in ("raw_b", "raw_d", "e")))
    wanted = FieldSet(tuple(Field(name, "m", "scalar", 1) for name in ("d", "b", "f")))
    assert identity(several, wanted)[0] == {"d": "raw_d", "b": "raw_b"}
    assert identity(FieldSet((a,)), wanted)[0] == {}
    # finer targets have no cell in common with an input
    assert identity(FieldSet((a,)), FieldSet(targets), 2)[0] == {}


def test_the_mean_of_the_training_set_is_numpys(folder, monkeypatch):
    monkeypatch.setattr("map2map.baselines.CELLS", 40)
    emulator = Emulator.load("e.safetensors")
    holed = np.load("w_1.npy")
    holed[0, :2] = np.nan
    np.save("w_1.npy", holed)
    files = training_files(emulator.training_record, emulator.targets)
    means = Means.over(emulator.targets, files, Domain(2), SHAPE)
    both = np.stack([np.load("w_0.npy"), holed]).astype(float)
    np.testing.assert_allclose(means.channels["w"], np.nanmean(both, axis=(0, 2, 3)))
    np.testing.assert_allclose(means.cells["w"], np.nanmean(both, axis=0), rtol=1e-6)
    assert means.runs == 2
    found = evaluate(emulator, runs_of(emulator, "2"), {"training mean": constant(means.channels)})
    error = np.load("w_2.npy") - means.channels["w"][:, None, None]
    score = found.rmse.sel({"method": "training mean", "field": "w"})
    assert float(score[0]) == pytest.approx(np.sqrt((error**2).mean()))
    assert (found.power.sel({"method": "training mean"}) == 0).all()


def test_training_files_that_are_not_those_of_the_card_are_told(folder):
    emulator = Emulator.load("e.safetensors")
    record, targets = emulator.training_record, emulator.targets
    assert training_files(record, targets)["w"].paths("w")[1].name == "w_1.npy"
    record["files"]["train"][1]["t"]["bytes"] = 7
    with pytest.raises(
        FieldError, match=r"t_1.npy is not the file of the training: .* another size"
    ):
        training_files(record, targets)
    record["files"]["train"][1]["w"]["path"] = "gone.npy"
    with pytest.raises(FieldError, match=r"the training file gone.npy is not there"):
        training_files(record, targets)
    with pytest.raises(FieldError, match="card does not name its training files"):
        training_files({}, targets)


def test_a_mean_of_nothing_is_refused(folder):
    emulator = Emulator.load("e.safetensors")
    np.save("w_0.npy", np.full((2, *SHAPE), np.nan, np.float32))
    files = {name: Files(f"{name}_0.npy") for name in "wt"}
    with pytest.raises(FieldError, match="no training file has a finite value of 'w'"):
        Means.over(emulator.targets, files, Domain(2))


# --- the command ---------------------------------------------------------------------------------


@contextmanager
def little_room(size):
    """Files cannot grow beyond so many bytes; it fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["scores.nc", "scores.zarr", "new/scores.nc"])
def test_the_command_writes_what_the_function_gives(folder, m2m, caplog, name):
    caplog.set_level("INFO")
    status, out, _ = m2m(
        "evaluate", "e.safetensors", *data(), "-o", name, "--simulator-seconds", 60,
        "--baseline", "theirs:w=v_[2-4].npy", "--climatology",
    )  # fmt: skip
    assert status == 0
    found = read_scores(name).data
    methods = ["emulator", "identity", "training mean", "climatology", "theirs"]
    assert list(found["method"].values) == methods
    emulator = Emulator.load("e.safetensors")
    expected = evaluate(emulator, runs_of(emulator), {})
    for key, value in expected.drop_vars("seconds").data_vars.items():
        mine = found[key].sel({"method": ["emulator"]}) if "method" in value.dims else found[key]
        np.testing.assert_array_equal(mine, value, err_msg=key)
        assert value.attrs.items() <= found[key].attrs.items()
    # the same field by two roads
    theirs, same = (found.rmse.sel({"method": m, "field": "w"}) for m in ("theirs", "identity"))
    np.testing.assert_array_equal(theirs, same)
    climatology = (np.load("t_0.npy") + np.load("t_1.npy")) / 2
    error = np.sqrt(((climatology - np.load("t_3.npy")) ** 2).mean())
    mine = found.rmse.sel({"method": "climatology", "run": "w_3", "field": "t"})
    assert float(mine) == pytest.approx(error)
    attrs = found.attrs
    assert (attrs["format"], attrs["simulator_seconds"]) == (1, 60)
    files = json.loads(attrs["data"])["t"]
    assert [file["path"] for file in files] == ["t_2.npy", "t_3.npy", "t_4.npy"]
    assert files[0]["blake2b"] == blake2b(Path("t_2.npy").read_bytes(), digest_size=16).hexdigest()
    assert json.loads(attrs["card"])["targets"][0]["name"] == "w"
    assert attrs["emulator_digest"].startswith("sha256:")
    assert list(attrs["spacing"]) == [0.5, 0.7]
    assert "map2map" in json.loads(attrs["versions"])
    assert f"{float(found.rmse_mean.sel({'method': 'emulator', 'field': 'w'})):.4g}" in out
    assert "RMSE [m]" in out
    assert "curl" in out.partition("t: mean over 3 runs")[0]
    assert "curl" not in out.partition("t: mean over 3 runs")[2]
    assert "baseline 'identity': 'w' is predicted by 'v'" in caplog.text
    assert "no baseline 'identity': no input has the units, kind and grid of 't'" in caplog.text
    assert [path.name for path in (folder / name).parent.glob(".*part*")] == []


def test_the_json_beside_the_scores_has_what_is_one_number_with_its_interval(folder, m2m):
    status, _, err = m2m("evaluate", "e.safetensors", *data(), "-o", "new/scores.nc")
    assert status == 0, err
    found = read_scores("new/scores.nc").data
    told = json.loads(Path("new/scores.json").read_text(), parse_constant=pytest.fail)
    assert (told["format"], told["all"], told["emulator"]) == (1, "scores.nc", "e.safetensors")
    assert told["emulator_digest"] == found.attrs["emulator_digest"]
    assert list(told["scores"]) == ["emulator", "identity", "training mean"]
    rmse = told["scores"]["emulator"]["w"]["rmse"]
    emulator = Emulator.load("e.safetensors")
    by_hand = [
        np.sqrt(((outputs(emulator, run)["w"] - np.load(f"w_{run}.npy")) ** 2).mean())
        for run in (2, 3, 4)
    ]
    assert rmse["mean"] == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert min(by_hand) <= rmse["low"] * (1 + 1e-5) < rmse["mean"] < rmse["high"]
    assert (rmse["units"], rmse["runs"]) == ("m", 3)
    assert told["scores"]["emulator"]["t"]["rmse"]["units"] == "K"
    assert told["scores"]["emulator"]["w"]["r2"]["units"] == "1"
    pooled = np.sqrt(np.mean(np.square(by_hand)))
    assert rmse["all"] == pytest.approx(pooled, rel=1e-5)
    # no input predicts t, and a scalar has no curl
    assert told["scores"]["identity"]["t"] == {}
    assert "curl_error" in told["scores"]["emulator"]["w"]
    assert "curl_error" not in told["scores"]["emulator"]["t"]
    assert "divergence" not in " ".join(told["scores"]["emulator"]["t"])
    # of one run there is no interval
    one = ("--metrics", "pointwise", "--no-training-mean", "-o", "one.nc")
    assert m2m("evaluate", "e.safetensors", *data("2"), *one)[0] == 0
    only = json.loads(Path("one.json").read_text())["scores"]["emulator"]["w"]["rmse"]
    assert (only["low"], only["high"], only["runs"]) == (None, None, 1)
    assert only["mean"] == pytest.approx(by_hand[0], rel=1e-5)


def test_what_is_there_is_replaced_only_if_asked_for(folder, m2m):
    few = ("--metrics", "pointwise", "--no-training-mean")
    for name in ("s.nc", "z.zarr"):
        assert m2m("evaluate", "e.safetensors", *data("2"), "-o", name, *few)[0] == 0
        status, _, err = m2m("evaluate", "e.safetensors", *data("3"), "-o", name, *few)
        assert (status, "exists already" in err, "--overwrite" in err) == (2, True, True)
        assert read_scores(name).data.run.values == ["w_2"]
        again = m2m("evaluate", "e.safetensors", *data("3"), "-o", name, "--overwrite", *few)
        assert again[0] == 0
        assert read_scores(name).data.run.values == ["w_3"]
        assert json.loads(Path(name).with_suffix(".json").read_text())["all"] == name
    # the JSON beside it is not replaced, either
    Path("mine.json").write_text("{}")
    status, _, err = m2m("evaluate", "e.safetensors", *data("3"), "-o", "mine.nc", *few)
    assert (status, "mine.json, where the scores go as JSON, exists already" in err) == (2, True)
    assert not Path("mine.nc").exists()
    assert Path("mine.json").read_text() == "{}"
    (folder / "mine.zarr").mkdir()
    (folder / "mine.zarr" / "thesis.tex").touch()
    status, _, err = m2m("evaluate", "e.safetensors", *data(), "-o", "mine.zarr", "--overwrite")
    assert (status, "not a file of scores" in err) == (2, True)
    assert (folder / "mine.zarr" / "thesis.tex").exists()


@pytest.mark.parametrize("name", ["s.nc", "s.zarr"])
def test_a_full_disk_leaves_what_was_there(folder, m2m, name):
    few = ("--metrics", "pointwise", "--no-training-mean", "-o", name)
    assert m2m("evaluate", "e.safetensors", *data("2"), *few)[0] == 0
    # no room for the scores, or for the slices
    for room, words in ((9000, "cannot write"), (300, "temporary folder")):
        with little_room(room):
            status, _, err = m2m("evaluate", "e.safetensors", *data("3"), *few, "--overwrite")
        assert (status, words in err, "error" in err) == (2, True, True), err
        assert read_scores(name).data.run.values == ["w_2"]
        assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (data(w="w_[2-3].npy"), "unequal numbers of files: 3 for v"),
        (data(w="none_*.npy"), "no file matches 'none_*.npy' for field 'w'"),
        (data()[:3], "the fields t are missing"),
        ([*data()[:3], "tt=t_2.npy"], "'tt=t_2.npy' is not NAME=PATH of a field that is needed"),
        (data(t="w_[2-4].npy"), "field 't' is declared with 1 channels, but its files have 2"),
        (data("2", t="small.npy"), "field 't' in small.npy has shape (6, 5), but (12, 10) is exp"),
        (data("2", w="line.npy"), "spatial axes were asked for"),
        ([*data(), "--metrics", "pointwize"], "no metric 'pointwize'; did you mean 'pointwise'"),
        ([*data(), "--bootstrap", "0"], "draws runs at least once, not 0 times"),
        ([*data(), "--baseline", "w=v_*.npy"], "'w=v_*.npy' is not NAME:FIELD=PATH, such as"),
        ([*data(), "--baseline", "a:x=v_*.npy"], "predicts 'x', which is no target"),
        ([*data(), "--baseline", "a:x=0"], "'a:x=0' is a number for 'x', which is no target"),
        ([*data("2"), "--baseline", "a:t=0", "--baseline", "a:w=v_2.npy"], "baseline 'a' already"),
        ([*data(), "--baseline", "a:w=v_*.npy"], "unequal numbers of files"),
        ([*data("2"), "--baseline", "a:w=s_2.npy"], "channels, but its files have 1"),
        ([*data("2"), "--baseline", "identity:w=v_2.npy"], "a baseline 'identity' already"),
        ([*data("2"), "--baseline", "emulator:w=v_2.npy"], "cannot be called 'emulator'"),
        ([*data("2"), "--baseline", "a:w=v_2.npy", "--baseline", "a:w=v_2.npy"], "given twice"),
        ([*data("2"), "--formula", "a=GradientNorm(of=s)"], "is not NAME:FIELD=CLASS(…), such"),
        ([*data("2"), "--formula", "a:t=GradientNorm"], "not a class with named arguments"),
        ([*data("2"), "--formula", "a:t=GradientNorm(s)"], "not a class with named arguments"),
        ([*data("2"), "--formula", "a:t=Gradient(of=s, axis=f())"], "'f()' is no number, word"),
        ([*data("2"), "--formula", "a:t=Gradient(of="], "cannot be read"),
        ([*data("2"), "--formula", "a:t=GradientNrm(of=s)"], "did you mean 'GradientNorm'"),
        ([*data("2"), "--formula", "a:t=os.system(of=s)"], "refusing to import 'os.system'"),
        ([*data("2"), "--formula", "a:t=Gradient(like=s)"], "does not take the arguments"),
        ([*data("2"), "--formula", "a:x=GradientNorm(of=s)"], "predicts 'x', which is no target"),
        ([*data("2"), "--formula", "a:w=GradientNorm(of=s)"], "1 channels, but the target 2"),
        ([*data("2"), "--formula", "a:t=GradientNorm(of=q)"], "(and q, to compute others)"),
        ([*data("2"), "--formula", "identity:t=GradientNorm(of=s)"], "'identity' already"),
        ([*data("2"), "--formula", "a:t=GradientNorm(of=v)"], "'v' has 2 channels"),
        ([*data("2"), *["--formula", "a:t=GradientNorm(of=s)"] * 2], "given twice"),
        (
            [*data("2"), "--formula", "a:t=GradientNorm(of=s)", "--baseline", "a:t=s_2.npy"],
            "a baseline 'a' already",
        ),
        ([*data(), "--train", "w=none.npy", "t=t_0.npy"], "no file matches 'none.npy'"),
        ([*data(), "--train", "w=w_0.npy"], "the fields t are missing"),
        ([*data(), "--train", "w=w_0.npy", "t=t_0.npy", "--climatology"], "several training runs"),
        ([*data(), "--climatology", "--no-training-mean"], "contradicts"),
        ([*data(), "--device", "cuda:99"], "--device cuda:99"),
        ([*data(), "-o", "scores.txt"], "written to NAME.nc or NAME.zarr, not scores.txt"),
        ([*data(), "-o", "v_0.npy/s.nc"], "cannot make the folder v_0.npy"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(folder, m2m, argv, message):
    np.save("small.npy", np.zeros((1, 6, 5), np.float32))
    np.save("line.npy", np.zeros(10, np.float32))
    status, _, err = m2m("evaluate", "e.safetensors", *argv)
    assert (status, message in err) == (2, True), err
    assert "Traceback" not in err
    assert not (folder / "scores.nc").exists()


def test_an_emulator_that_is_none_is_refused(folder, m2m):
    status, _, err = m2m("evaluate", "v_0.npy", *data())
    assert (status, "is not an emulator" in err) == (2, True)


def test_other_units_in_the_files_are_told(folder, m2m, caplog):
    array = xr.DataArray(np.load("t_2.npy")[0], dims=("y", "x"), attrs={"units": "degC"})
    array.to_dataset(name="t").to_netcdf("t_2.nc")
    assert (
        m2m("evaluate", "e.safetensors", *data("2", t="t_2.nc"), "--metrics", "pointwise")[0] == 0
    )
    assert "field 't' is declared in units of 'K', but its files say 'degC'" in caplog.text


def test_without_training_files_there_is_no_training_mean_and_the_log_says_so(folder, m2m, caplog):
    caplog.set_level("INFO")
    (folder / "w_0.npy").unlink()
    assert m2m("evaluate", "e.safetensors", *data(), "--metrics", "pointwise")[0] == 0
    assert "training mean" not in read_scores("scores.nc").data["method"]
    assert "no baseline 'training mean': the training file w_0.npy is not there" in caplog.text
    train = ("--train", "w=w_1.npy", "t=t_1.npy")
    assert m2m("evaluate", "e.safetensors", *data(), *train, "-o", "b.nc")[0] == 0
    rmse = read_scores("b.nc").data.rmse
    found = rmse.sel({"method": "training mean", "run": "w_2", "field": "t"})
    error = np.load("t_2.npy") - np.load("t_1.npy").mean()
    assert float(found) == pytest.approx(np.sqrt((error**2).mean()))


def test_a_number_is_a_baseline_everywhere(folder, m2m):
    given = [*data("[23]"), "--baseline", "none:w=0", "--baseline", "two:t=2", "-o", "n.nc"]
    status, _, err = m2m("evaluate", "e.safetensors", *given)
    assert status == 0, err
    found = read_scores("n.nc").data
    none = found.sel({"method": "none", "field": "w"})
    np.testing.assert_allclose(none.relative_l2, 1)
    assert float(none.relative_l2_all) == pytest.approx(1)
    truth = np.stack([np.load(f"t_{run}.npy") for run in (2, 3)])
    two = found.sel({"method": "two", "field": "t"})
    assert float(two.rmse_all) == pytest.approx(np.sqrt(((truth - 2) ** 2).mean()), rel=1e-5)
    assert np.isnan(found.sel({"method": "two", "field": "w"}).rmse).all()


def test_a_baseline_in_a_file_of_many_fields_is_found_by_the_target_s_name(folder, m2m):
    for run in (2, 3):
        fields = {n: (("c", "y", "x"), np.load(f"{n}_{run}.npy")) for n in ("v", "w")}
        xr.Dataset(fields).to_netcdf(f"both_{run}.nc")
    given = [*data("[23]"), "--baseline", "exact:w=both_[23].nc"]
    given += ["--baseline", "linear:w=both_[23].nc::v"]
    assert m2m("evaluate", "e.safetensors", *given, "--metrics", "pointwise")[0] == 0
    found = read_scores("scores.nc").data.rmse.sel(field="w")
    assert (found.sel({"method": "exact"}) == 0).all()
    np.testing.assert_array_equal(
        found.sel({"method": "linear"}), found.sel({"method": "identity"})
    )


def test_options_are_checked(folder):
    with pytest.raises(RecipeError, match="no metric 'x'"):
        Options(["x"])


def test_a_formula_is_a_baseline_computed_with_the_grid_s_cells_and_edges(folder, m2m):
    given = [*data("[23]"), "--metrics", "pointwise", "--no-training-mean"]
    given += ["--formula", "slope:t=GradientNorm(of=s)"]
    given += [
        "--formula",
        "more:t=map2map.derived.Charlette(of=s, width=3e0, cutoff=1.0, beta=0.5)",
    ]
    given += ["--formula", "speed:t=Magnitude(of=[v, s])"]
    assert m2m("evaluate", "e.safetensors", *given)[0] == 0
    found = read_scores("scores.nc").data.rmse.sel(field="t")
    for run in (2, 3):
        s, t, v = (np.load(f"{name}_{run}.npy").astype(float) for name in "stv")
        wide = np.pad(s[0], 1, mode="wrap")
        slope = np.hypot(*np.gradient(wide, 0.5, 0.7))[1:-1, 1:-1]
        speed = np.sqrt((v**2).sum(axis=0) + s[0] ** 2)
        for name, predicted in (("slope", slope), ("more", 2 * slope), ("speed", speed)):
            score = float(found.sel({"method": name, "run": f"w_{run}"}))
            assert score == pytest.approx(np.sqrt(((predicted - t[0]) ** 2).mean()), rel=1e-5)


def test_a_formula_on_a_coarser_grid_than_its_target_is_refused(folder):
    emulator = Emulator.load("e.safetensors")
    runs = runs_of(emulator)
    runs.scale_factor = 2
    with pytest.raises(GeometryError, match="computed on the grid of the inputs, but targets have"):
        computed({"a": {"t": GradientNorm("s")}}, patterns(), runs)


def test_runs_of_other_shapes_have_no_profiles(folder):
    emulator = Emulator.load("e.safetensors")
    same = evaluate(emulator, runs_of(emulator, "2"), {})
    assert same.profile.dims == ("method", "run", "field", "layer")
    assert same.profile_error_mean.dims == ("method", "field")
    domain = Domain(2, same_shape=False)
    runs = Runs(list(emulator.inputs), list(emulator.targets), patterns("2"), domain)
    other = evaluate(emulator, runs, {})
    assert "profile" not in other
    assert "integral_error" in other


def test_a_climatology_for_nothing_is_refused(folder, m2m):
    status, _, err = m2m("evaluate", "e.safetensors", *data("2"), "--climatology-files", "t_1.npy")
    assert status == 2
    assert "no axis of latitudes" in err
    assert "--baseline climatology:FIELD=PATH" in err
