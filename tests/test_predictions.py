"""Predictions and their scores against a loop over samples in memory."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import nn

from map2map.emulator import Emulator
from map2map.errors import FieldError, GeometryError, RecipeError, SaveError
from map2map.evaluate_runs import evaluate_runs
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import ConvNet, ResNet
from map2map.norms import Exp, Standardize
from map2map.patterns import Files
from map2map.prediction_tables import as_dataset, probabilities, save_table
from map2map.predictions import predict_runs
from map2map.runs import Runs
from map2map.told import Told

PHI = Field("phi", channels=1)
GRAVITY = Field("gravity", kind="label", classes=("newton", "gr"))
MODEL = Field("model", kind="label", classes=("a", "b", "c"))
MASS = Field("mass", kind="parameter", units="eV")
DOMAIN = Domain(ndim=2, planes=[0, 2], plane_step=3)


class Sums(nn.Module):
    """A network that gives sums of powers of the whole: those of each output are others."""

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int = 2) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.weight = nn.Parameter(torch.linspace(-1, 1, out_chan))

    def forward(self, x):
        flat = x.flatten(1)
        return torch.stack([w * flat.sum(1) + flat.square().sum(1) / 40 for w in self.weight], 1)


@pytest.fixture
def cubes(tmp_path):
    """Four cubes in one file, by name, sorted."""
    rng = np.random.default_rng(0)
    names = [f"{g}_seed{s}" for g in ("gr", "newton") for s in (0, 1)]
    arrays = {name: rng.normal(size=(6, 6, 6)).astype(np.float32) for name in names}
    with h5py.File(tmp_path / "z1.h5", "w") as opened:
        for name, values in arrays.items():
            opened[name] = values
    return arrays, {"phi": Files(str(tmp_path / "z1.h5"), "{gravity}_seed{seed}")}


def made(*targets, norms=None, record=None):
    fields = FieldSet((PHI.resolved(1, 2),)), FieldSet(tuple(t.resolved(1, 2) for t in targets))
    model = Sums(1, fields[1].channels)
    norms = {"phi": Standardize([0.5], [2.0])} | (norms or {})
    spec = {"class_path": "x.Sums", "init_args": {}}
    emulator = Emulator(*fields, norms, model, DOMAIN, spec).eval()
    emulator.training_record = record or {}
    return emulator


def planes(arrays):
    """All planes, cube by cube, and the number of their cube."""
    for k, name in enumerate(sorted(arrays)):
        for axis in (0, 2):
            for i in (0, 3):
                yield k, arrays[name].take(i, axis=axis)


def loop(emulator, arrays):
    with torch.no_grad():
        return np.concatenate(
            [emulator(torch.from_numpy(plane)[None, None]).numpy() for _, plane in planes(arrays)]
        )


@pytest.mark.parametrize("at_once", [0, 1 << 30])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_predictions_are_those_of_a_loop(cubes, batch_size, at_once, monkeypatch):
    monkeypatch.setattr("map2map.predictions.AT_ONCE", at_once)
    arrays, patterns = cubes
    emulator = made(MODEL, MASS, norms={"mass": Standardize([3.0], [0.5])})
    runs = Runs([PHI], [], patterns, DOMAIN)
    found = predict_runs(emulator, runs, batch_size=batch_size)
    np.testing.assert_allclose(found.outputs, loop(emulator, arrays), rtol=1e-5)
    assert found.groups.tolist() == [k for k, _ in planes(arrays)]
    assert found.truth is None
    assert found.line is None


def test_parameters_are_in_their_units_and_the_truth_is_told(cubes):
    arrays, patterns = cubes
    emulator = made(MASS, norms={"mass": Standardize([3.0], [0.5])})
    runs = Runs([PHI], [MASS], patterns | {"mass": Told(placeholder="seed", scale=2)}, DOMAIN)
    found = predict_runs(emulator, runs)
    x = torch.from_numpy(np.stack([plane for _, plane in planes(arrays)]))[:, None]
    raw = emulator.model((x - 0.5) / 2).detach().numpy()
    np.testing.assert_allclose(found.outputs, 0.5 * raw + 3, rtol=1e-5)
    np.testing.assert_array_equal(found.truth[:, 0], [0] * 4 + [2] * 4 + [0] * 4 + [2] * 4)


@pytest.mark.parametrize("front", [(), (1,)])
def test_one_plane_alone_is_told_as_it_is_in_its_cube(m2m, front):
    fields = FieldSet((PHI.resolved(1, 2),)), FieldSet((GRAVITY.resolved(1, 2),))
    model = ResNet(1, 1, width=2, levels=2, ndim=2)
    Emulator(*fields, {}, model, Domain(ndim=2, planes=[0, 1, 2])).eval().save("e.safetensors")
    cube = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
    np.save("cube.npy", cube)
    np.save("plane.npy", cube[2].reshape(*front, 8, 8))
    found = {}
    for name in ("plane", "cube"):
        assert m2m("apply", "e.safetensors", f"{name}.npy", "-o", f"{name}.csv")[0] == 0
        with Path(f"{name}.csv").open(newline="") as opened:
            found[name] = [r for r in csv.DictReader(opened) if r["per"] == "sample"]
    (alone,), whole = found["plane"], found["cube"]
    (its,) = (row for row in whole if (row["axis"], row["plane"]) == ("0", "2"))
    logits = [float(row["gravity_logit"]) for row in (alone, its)]
    assert logits[0] == pytest.approx(logits[1], rel=1e-5)


def test_the_mean_line_of_the_card_is_applied_to_normalized_means(cubes):
    arrays, patterns = cubes
    record = {"mean_line": [[0.25], [2.0]]}
    found = predict_runs(made(GRAVITY, record=record), Runs([PHI], [], patterns, DOMAIN))
    expected = [0.25 + 2 * (plane.mean() - 0.5) / 2 for _, plane in planes(arrays)]
    np.testing.assert_allclose(found.line[:, 0], expected, rtol=1e-5)


def test_runs_of_several_shapes_are_not_mixed_in_a_batch(tmp_path):
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(1, *s)).astype(np.float32) for s in ((4, 4), (4, 4), (5, 6), (4, 4))]
    for i, values in enumerate(arrays):
        np.save(tmp_path / f"phi_{i}.npy", values)
    emulator = made(GRAVITY)
    domain = Domain(ndim=2, same_shape=False)
    runs = Runs([PHI], [], {"phi": str(tmp_path / "phi_*.npy")}, domain)
    found = predict_runs(emulator, runs, domain)
    expected = [emulator(torch.from_numpy(values[None])).item() for values in arrays]
    np.testing.assert_allclose(found.outputs[:, 0], expected, rtol=1e-5)


def test_inputs_that_are_not_finite_are_refused_by_run(cubes, tmp_path):
    _, patterns = cubes
    with h5py.File(tmp_path / "z1.h5", "a") as opened:
        opened["newton_seed1"][3, 1, 1] = np.nan
    with pytest.raises(FieldError, match=r"newton_seed1, plane 3 of axis 0 holds 1 NaN"):
        predict_runs(made(GRAVITY), Runs([PHI], [], patterns, DOMAIN))


def test_an_emulator_of_fields_is_refused(cubes):
    _, patterns = cubes
    model = ConvNet(1, 1, ndim=2, width=1, depth=1)
    fields = FieldSet((PHI.resolved(1, 2),)), FieldSet((Field("rho").resolved(1, 2),))
    with pytest.raises(GeometryError, match="gives fields, rho, and no labels"):
        predict_runs(Emulator(*fields, {}, model, DOMAIN), Runs([PHI], [], patterns, DOMAIN))


# --- scores


def test_scores_of_a_label_are_counted_per_sample_and_per_cube(cubes):
    _, patterns = cubes
    emulator = made(GRAVITY, record={"mean_line": [[0.5], [0.0]]})
    found = predict_runs(emulator, Runs([PHI], [GRAVITY], patterns, DOMAIN))
    # so that logits lie around zero
    found = type(found)(found.runs, found.targets, found.outputs + 1.4, *vars_of(found))
    scores = evaluate_runs(found)
    truth, guess = found.truth[:, 0] > 0.5, found.outputs[:, 0] > 0
    mean = found.outputs[:, 0].reshape(4, 4).mean(axis=1)
    assert 0 < (guess == truth).mean() < 1
    accuracy = scores.accuracy.sel({"method": "emulator"}).values
    np.testing.assert_allclose(
        accuracy, [(guess == truth).mean(), ((mean > 0) == [True, True, False, False]).mean()]
    )
    # a line that calls everything gr
    np.testing.assert_allclose(scores.accuracy.sel({"method": "mean_line"}), 0.5)
    assert [name.rpartition(":")[2] for name in scores.group_name.values] == [
        "gr_seed0", "gr_seed1", "newton_seed0", "newton_seed1",
    ]  # fmt: skip
    assert scores.seed.values.tolist() == ["0", "1", "0", "1"]
    assert scores.attrs["samples"] == 16


def read_rows(path):
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


def vars_of(found):
    return found.groups, found.truth, found.line


def test_scores_of_parameters_are_those_of_numpy(cubes):
    _, patterns = cubes
    runs = Runs([PHI], [MASS], patterns | {"mass": Told(placeholder="seed")}, DOMAIN)
    found = predict_runs(made(MASS), runs)
    scores = evaluate_runs(found)
    error = found.outputs - found.truth
    rmse = [
        np.sqrt((error**2).mean()),
        np.sqrt((error.reshape(4, 4).mean(axis=1) ** 2).mean()),
    ]
    np.testing.assert_allclose(scores.rmse.sel({"method": "emulator", "parameter": "mass"}), rmse)
    assert scores.attrs["units"] == "eV"


def test_without_truth_or_with_two_tables_there_are_no_scores(cubes):
    _, patterns = cubes
    found = predict_runs(made(GRAVITY), Runs([PHI], [], patterns, DOMAIN))
    with pytest.raises(FieldError, match="truth of the runs is not known"):
        evaluate_runs(found)
    told = patterns | {"mass": Told(placeholder="seed")}
    found = predict_runs(made(GRAVITY, MASS), Runs([PHI], [GRAVITY, MASS], told, DOMAIN))
    with pytest.raises(FieldError, match="do not fit one table"):
        evaluate_runs(found)
    assert evaluate_runs(found, ["mass"]).attrs["kind"] == "parameter"


# --- tables


def test_probabilities_are_softmax_and_sigmoid():
    logits = np.array([[0.0, 1.0, -2.0], [1000.0, 0.0, 0.0]])
    expected = torch.softmax(torch.from_numpy(logits), 1).numpy()
    np.testing.assert_allclose(probabilities(logits), expected)
    one = np.array([[0.3], [-800.0]])
    second = torch.sigmoid(torch.from_numpy(one[:, 0])).numpy()
    np.testing.assert_allclose(probabilities(one), np.stack([1 - second, second], 1), atol=1e-15)


def test_a_table_has_samples_and_the_means_of_cubes(cubes, tmp_path):
    arrays, patterns = cubes
    emulator = made(GRAVITY, MODEL, MASS)
    found = predict_runs(emulator, Runs([PHI], [], patterns, DOMAIN))
    table = as_dataset(found)
    save_table(table, tmp_path / "t.nc")
    save_table(table, tmp_path / "t.csv")
    with xr.open_dataset(tmp_path / "t.nc") as opened:
        table = opened.load()
    outputs = loop(emulator, arrays)
    mean = outputs.reshape(4, 4, 5).mean(axis=1)
    for front, values in (("", outputs), ("group_", mean)):
        np.testing.assert_allclose(table[f"{front}gravity_logit"], values[:, 0], rtol=1e-5)
        np.testing.assert_allclose(table[f"{front}model_logit"], values[:, 1:4], rtol=1e-5)
        np.testing.assert_allclose(table[f"{front}mass_predicted"], values[:, 4], rtol=1e-5)
        names = np.array(["a", "b", "c"])[values[:, 1:4].argmax(axis=1)]
        assert table[f"{front}model_predicted"].values.tolist() == names.tolist()
        names = np.array(["newton", "gr"])[(values[:, 0] > 0).astype(int)]
        assert table[f"{front}gravity_predicted"].values.tolist() == names.tolist()
    assert table.mass_predicted.attrs["units"] == "eV"
    assert table.axis.values.tolist() == [0, 0, 2, 2] * 4
    assert table.plane.values.tolist() == [0, 3] * 8
    assert table.gravity.values.tolist() == ["gr"] * 8 + ["newton"] * 8
    rows = read_rows(tmp_path / "t.csv")
    assert [row["per"] for row in rows] == ["sample"] * 16 + ["group"] * 4
    for row, values in zip(rows, [*outputs, *mean], strict=True):
        assert float(row["gravity_logit"]) == pytest.approx(values[0], rel=1e-5)
        assert float(row["mass_predicted [eV]"]) == pytest.approx(values[4], rel=1e-5)
        share = probabilities(values[None, 1:4])[0]
        assert float(row["model_probability_c"]) == pytest.approx(share[2], rel=1e-4)
    assert (rows[5]["seed"], rows[5]["axis"], rows[5]["plane"]) == ("1", "0", "3")
    assert (rows[17]["seed"], rows[17]["plane"], rows[17]["group"]) == ("1", "", "1")


def test_a_table_has_no_other_ending(cubes, tmp_path):
    table = as_dataset(predict_runs(made(GRAVITY), Runs([PHI], [], cubes[1], DOMAIN)))
    with pytest.raises(RecipeError, match=r"NAME\.nc or NAME\.csv"):
        save_table(table, tmp_path / "t.npy")


# --- one sample, and the command


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    fields = FieldSet((PHI.resolved(1, 2),)), FieldSet((GRAVITY.resolved(1, 2),))
    model = ResNet(1, 1, ndim=2, width=2, levels=2, depth=1)
    emulator = Emulator(*fields, {"phi": Standardize([0.1], [2.0])}, model, DOMAIN)
    emulator.save(tmp_path / "e.safetensors")
    return tmp_path / "e.safetensors"


def test_an_emulator_of_labels_gives_numbers_of_one_sample(saved):
    emulator = Emulator.load(saved)
    x = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    expected = emulator(torch.from_numpy(x)[None, None]).detach().numpy()[0]
    found = emulator({"phi": x})
    assert list(found) == ["gravity"]
    np.testing.assert_allclose(found["gravity"], expected, rtol=1e-5)
    as_tensor = emulator({"phi": torch.from_numpy(x)[None]})["gravity"]
    np.testing.assert_allclose(as_tensor.numpy(), expected, rtol=1e-5)
    with pytest.raises(FieldError, match="1 NaN or infinite"):
        emulator({"phi": np.where(np.arange(36).reshape(6, 6) == 7, np.nan, x)})


def test_what_is_no_single_sample_is_refused_with_where_to_go(saved):
    emulator = Emulator.load(saved)
    data = xr.Dataset({"phi": (("x", "y"), np.zeros((6, 6), np.float32))})
    with pytest.raises(FieldError, match=r"m2m apply .*predict_runs"):
        emulator(data)


def test_apply_writes_the_table_of_an_emulator_that_was_moved(saved, cubes, m2m, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "moved.safetensors"
    elsewhere.parent.mkdir()
    saved.rename(elsewhere)
    place = "phi=z1.h5::{gravity}_seed{seed}"
    status, out, err = m2m("apply", elsewhere, place, "-o", "t.csv", "--device", "cpu")
    assert (status, err) == (0, "")
    assert "16 samples of 4 runs" in out
    found = predict_runs(Emulator.load(elsewhere), Runs([PHI], [], cubes[1], DOMAIN))
    rows = read_rows(tmp_path / "t.csv")
    logits = [float(row["gravity_logit"]) for row in rows]
    mean = found.outputs.reshape(4, 4).mean(axis=1)
    np.testing.assert_allclose(logits, [*found.outputs[:, 0], *mean], rtol=1e-6)
    status, _, err = m2m("apply", elsewhere, place, "-o", "t.csv")
    assert status == 2
    assert "--overwrite" in err
    assert m2m("apply", elsewhere, place, "--only", "seed=1", "-o", "t.nc")[0] == 0
    with xr.open_dataset(tmp_path / "t.nc") as table:
        np.testing.assert_allclose(table.group_gravity_logit, mean[[1, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    "only",
    [
        ["--only", "seed=1", "gravity=newton"],
        ["--only", "gravity=newton", "--only", "seed=1"],
        ["--only=seed=1", "--only=gravity=newton"],
    ],
)
@pytest.mark.parametrize("command", ["apply", "evaluate", "saliency"])
def test_only_takes_several_placeholders_at_once_and_one_after_another(
    saved, cubes, m2m, command, only
):
    place = "phi=z1.h5::{gravity}_seed{seed}"
    more = ["--cube"] if command == "saliency" else []
    status, _, err = m2m(command, saved, place, *only, *more, "-o", "t.nc")
    assert status == 0, err
    with xr.open_dataset("t.nc") as found:
        if command == "saliency":
            assert [name.rpartition(":")[2] for name in found["name"].values] == ["newton_seed1"]
        elif command == "apply":
            told = found.group_gravity.values.tolist(), found.group_seed.values.tolist()
            assert [list(map(str, each)) for each in told] == [["newton"], ["1"]]
        else:
            assert [n.rpartition(":")[2] for n in found.group_name.values] == ["newton_seed1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "t.npy"], "NAME.nc or NAME.csv"),
        (["-o", "t.nc", "--tile", "3"], "--tile is for emulators of fields"),
        (["-o", "t.nc", "--derivative", "z"], "--derivative is for emulators of fields"),
        (["-o", "t.nc", "--velocity"], "--velocity is for emulators of fields"),
        (["-o", "t.nc", "--Om", "0.3"], "--Om is for emulators of fields"),
        (["-o", "t.nc", "--only", "seed"], "PLACEHOLDER=FIRST:LAST"),
        (["-o", "t.nc", "--only", "seed=0:9"], "9 values of seed"),
        (["-o", "t.nc", "--only", "seed=1", "seed=0"], "names seed twice"),
        (["gravity=gr", "-o", "t.nc"], "is predicted here"),
    ],
)
def test_apply_refuses_what_labels_do_not_take(saved, cubes, m2m, options, says):
    status, _, err = m2m("apply", saved, "phi=z1.h5::{gravity}_seed{seed}", *options)
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_runs_of_a_third_class_are_left_out_as_the_error_says(saved, cubes, m2m):
    with h5py.File("z1.h5", "a") as opened:
        opened["mond_seed0"] = np.zeros((6, 6, 6), np.float32)
    place = "phi=z1.h5::{gravity}_seed{seed}"
    status, _, err = m2m("evaluate", saved, place)
    assert status == 2
    only = err.split("leave such runs out with ")[1].split(", or")[0]
    assert only == "--only gravity=newton,gr"
    status, out, _ = m2m("evaluate", saved, place, *only.split())
    assert status == 0
    assert "of 4 runs" in out


def test_evaluate_writes_the_scores_of_the_command_line(saved, cubes, m2m, tmp_path):
    place = "phi=z1.h5::{gravity}_seed{seed}"
    status, out, _ = m2m("evaluate", saved, place, "-o", "s.nc")
    assert status == 0
    runs = Runs([PHI], [GRAVITY], cubes[1], DOMAIN)
    expected = evaluate_runs(predict_runs(Emulator.load(saved), runs))
    with xr.open_dataset(tmp_path / "s.nc") as scores:
        np.testing.assert_allclose(scores.accuracy, expected.accuracy)
        np.testing.assert_allclose(scores.auc, expected.auc)
    told = json.loads((tmp_path / "s.json").read_text(), parse_constant=pytest.fail)
    assert (told["kind"], told["samples"]) == ("label", 16)
    for method in expected.method.values:
        row = expected.sel({"method": method})
        mine = told["scores"][str(method)]["gravity"]
        for per in ("image", "group"):
            assert mine["accuracy"][per] == pytest.approx(float(row.accuracy.sel(per=per)))
            for name, value in mine["recall"][per].items():
                assert value == pytest.approx(float(row.recall.sel({"per": per, "class": name})))
        # images have no interval, runs do
        assert mine["accuracy_low"]["image"] is None
        assert 0 <= mine["accuracy_low"]["group"] <= mine["accuracy"]["group"]
        assert mine["accuracy"]["units"] == "1"
    assert "16 samples of 4 runs" in out
    assert m2m("report", "s.nc")[0] == 0
    status, _, err = m2m("evaluate", saved, place, "--metrics", "pointwise", "-o", "q.nc")
    assert status == 2
    assert "--metrics is for emulators of fields" in err


def test_inspect_and_export_know_labels(saved, m2m, tmp_path):
    status, out, err = m2m("inspect", saved)
    assert (status, err) == (0, "")
    assert '"newton"' in out
    status, _, err = m2m("export", saved, "--to", "torch-export", "--size", "6", "--out", "e.pt2")
    assert status == 0, err
    assert (tmp_path / "e.pt2").is_file()


def test_a_table_that_cannot_be_written_is_refused(cubes, tmp_path):
    table = as_dataset(predict_runs(made(GRAVITY), Runs([PHI], [], cubes[1], DOMAIN)))
    (tmp_path / "file").write_text("")
    for name in ("t.nc", "t.csv"):
        with pytest.raises(SaveError, match="cannot write"):
            save_table(table, tmp_path / "file" / name)


@pytest.mark.parametrize("norm", [Standardize([3.0], [5.0]), Exp()])
def test_log_variances_become_deviations_in_the_units_of_the_parameter(norm):
    fields = FieldSet((PHI.resolved(1, 2),)), FieldSet((MASS.resolved(1, 2),))
    spec = {"class_path": "x.Sums", "init_args": {}}
    emulator = Emulator(*fields, {"mass": norm}, Sums(1, 2), DOMAIN, spec).eval()
    assert emulator.outputs == 2
    y = torch.tensor([[0.3, -1.2], [0.7, 0.4]])
    mean, std = y[:, 0], torch.exp(y[:, 1] / 2)
    if isinstance(norm, Standardize):
        expected = 5 * mean + 3, 5 * std
    else:
        expected = torch.log(mean), (torch.log(mean + std) - torch.log(mean - std)).abs() / 2
    torch.testing.assert_close(emulator.decode_target(y)[:, 0], expected[0])
    torch.testing.assert_close(
        emulator.decode_spread(y)[:, 0], expected[1], equal_nan=True, rtol=1e-5, atol=1e-6
    )
    x = torch.ones(1, 1, 4, 4)
    assert emulator(x).shape == (1, 1)


def test_a_network_learns_how_sure_it_is_and_tells_so_everywhere(tmp_path, m2m):
    rng = np.random.default_rng(0)
    truth = rng.normal(10, 2, size=(24, 1))
    for k, value in enumerate(truth):
        np.save(tmp_path / f"phi_{k:02}.npy", rng.normal(value, 1, size=(8, 8)).astype("f4"))
    rows = "\n".join(f"{k:02},{value[0]}" for k, value in enumerate(truth))
    (tmp_path / "masses.csv").write_text(f"k,mass\n{rows}\n")
    recipe = {
        "seed_everything": 0,
        "trainer": {"max_epochs": 3, "accelerator": "cpu"},
        "model": {
            "inputs": [{"name": "phi", "channels": 1}],
            "targets": [{"name": "mass", "kind": "parameter", "units": "eV"}],
            "norms": {"mass": {"class_path": "map2map.norms.Standardize"}},
            "model": {
                "class_path": "map2map.models.ResNet",
                "init_args": {"width": 2, "levels": 1},
            },
            "loss": {"class_path": "map2map.losses.GaussianNLL"},
            "options": {"measures": {"mae": {"class_path": "torch.nn.L1Loss"}}},
        },
        "data": {
            "train": {"phi": "phi_{k}.npy", "mass": {"table": "masses.csv"}},
            "domain": {"ndim": 2},
            "reading": {"batch_size": 8},
        },
        "output": {"figures": 0, "folder": "out"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert m2m("train", "r.yaml")[0] == 0
    emulator = Emulator.load("out/emulator.safetensors")
    assert (emulator.outputs, emulator.model.out_chan) == (2, 2)
    assert m2m("apply", "out/emulator.safetensors", "phi=phi_{k}.npy", "-o", "t.csv")[0] == 0
    table = read_rows(tmp_path / "t.csv")
    x = torch.from_numpy(np.load(tmp_path / "phi_07.npy"))[None, None]
    with torch.no_grad():
        mean, log_variance = emulator.model(emulator.encode_input(x))[0]
    norm = emulator.norm("mass")
    scale, shift = float(norm.std), float(norm.mean)
    assert float(table[7]["mass_predicted [eV]"]) == pytest.approx(float(mean) * scale + shift)
    expected = scale * float(torch.exp(log_variance / 2))
    assert float(table[7]["mass_std [eV]"]) == pytest.approx(expected, rel=1e-4)
    assert m2m("evaluate", "out/emulator.safetensors", "phi=phi_{k}.npy")[0] == 0
    with xr.open_dataset(tmp_path / "scores.nc") as scores:
        covered = scores.coverage_68.sel(per="sample", parameter="mass")
        errors = np.array([float(row["mass_predicted [eV]"]) for row in table]) - truth[:, 0]
        std = np.array([float(row["mass_std [eV]"]) for row in table])
        share = np.mean(np.abs(errors) < 0.9945 * std)
        assert float(covered.sel({"method": "emulator"})) == pytest.approx(share)
        assert np.isnan(covered.sel({"method": "mean_line"}))
    assert m2m("report", "scores.nc")[0] == 0
    (tmp_path / "other.csv").write_text((tmp_path / "masses.csv").read_text().replace("mass", "m"))
    other = ("phi=phi_{k}.npy", "mass=other.csv::m", "-o", "again.nc")
    assert m2m("evaluate", "out/emulator.safetensors", *other)[0] == 0
    with xr.open_dataset("again.nc") as again, xr.open_dataset("scores.nc") as scores:
        np.testing.assert_array_equal(again.rmse, scores.rmse)


def test_a_loss_of_uncertain_numbers_is_not_for_labels(cubes, m2m, tmp_path):
    recipe = {
        "model": {
            "inputs": [{"name": "phi", "channels": 1}],
            "targets": [{"name": "gravity", "kind": "label", "classes": ["newton", "gr"]}],
            "model": {"class_path": "map2map.models.ResNet", "init_args": {"levels": 1}},
            "loss": {"class_path": "map2map.losses.GaussianNLL"},
        },
        "data": {
            "train": {"phi": {"pattern": "z1.h5", "variable": "{gravity}_seed{seed}"}},
            "domain": {"ndim": 2, "planes": [0]},
        },
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    status, _, err = m2m("train", "r.yaml")
    assert status == 2
    assert "gravity are not all parameters" in err
