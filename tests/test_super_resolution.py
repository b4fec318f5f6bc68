"""Super-resolution from the command line: files, training, tiles, baselines, map2map's options."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from map2map.arrays import Settings
from map2map.cli import main_map2map
from map2map.crops import Crops
from map2map.data import FieldData
from map2map.emulator import Emulator
from map2map.engine import Running
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.losses import EnergyScore
from map2map.losses.energy_score import waves_of
from map2map.models import FourierUpsampling, UNet, UpsampledUNet
from map2map.runs import Runs
from map2map.task import Task
from map2map.upsampling import interpolated

RECIPE = """
seed_everything: 1
trainer: {max_epochs: 2, accelerator: cpu, logger: false, enable_progress_bar: false}
model:
  inputs: [{name: low, units: K}]
  targets: [{name: high, units: K}]
  model: {class_path: map2map.models.UpsampledUNet,
          init_args: {scale_factor: 2, width: 2, convs: 1, noise_chan: 1}}
  loss: {class_path: map2map.losses.EnergyScore}
data:
  train: {low: 'low_[0-2].npy', high: 'high_[0-2].npy'}
  test: {low: low_3.npy, high: high_3.npy}
  crops: {size: 8}
  augment: {symmetries: all, shift: 8}
  domain: {ndim: 2, periodic: true, spacing: 1.0}
"""


def smooth(n, run, waves=3):
    """A periodic field of few waves, on n x n cells of a unit square."""
    rng = np.random.default_rng(run)
    x = (np.arange(n) + 0.5) / n
    total = np.zeros((n, n))
    for k in np.ndindex(waves, waves):
        phase = 2 * np.pi * np.add.outer(k[0] * x, k[1] * x)
        total += rng.normal() * np.cos(phase + rng.uniform(0, 6))
    return total.astype(np.float32)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Four runs of 16 x 16 and 32 x 32 cells."""
    monkeypatch.chdir(tmp_path)
    for run in range(4):
        for name, n in (("low", 16), ("high", 32)):
            np.save(f"{name}_{run}.npy", smooth(n, run)[None])
    return tmp_path


# --- from the command line ------------------------------------------------------------------------


def test_a_recipe_trains_applies_evaluates_and_reports(files, m2m):
    (files / "recipe.yaml").write_text(RECIPE)
    status, _, err = m2m("train", "recipe.yaml")
    assert status == 0, err
    emulator = "emulator.safetensors"
    for name, more in {"whole": [], "tiles": ["--tile", "4"]}.items():
        assert m2m("apply", emulator, "low=low_3.npy", "-o", f"{name}.npy", *more)[0] == 0
    whole, tiles = (np.load(f"{name}.npy") for name in ("whole", "tiles"))
    assert whole.shape == (1, 32, 32)
    np.testing.assert_allclose(tiles, whole, atol=1e-5)
    fields = {"low": np.load("low_3.npy")}
    for seed in (0, 1):
        settings = Settings(Running(seed=seed), tile=4)
        found = Emulator.load(emulator).apply(fields, settings=settings)["high"]
        assert (np.abs(found - whole).max() < 1e-5) == (seed == 0), "another seed, another field"
    assert m2m("evaluate", emulator, "--split", "test", "--bootstrap", "5")[0] == 0
    scores = xr.load_dataset("scores.nc")
    assert scores.method.values.tolist() == ["emulator", "bilinear", "fourier", "training mean"]
    # what has no waves beyond Nyquist is continued exactly
    rmse = scores.rmse.squeeze().to_series()
    assert rmse["fourier"] < 1e-5 < 0.01 < rmse["bilinear"] < rmse["training mean"]
    # of the finer cells, which are half as wide
    assert float(scores.k.max()) == pytest.approx(2 * np.pi, rel=0.1)
    assert m2m("report", "scores.nc")[0] == 0


def test_coordinates_are_those_of_the_finer_grid(files, m2m):
    (files / "recipe.yaml").write_text(RECIPE)
    assert m2m("train", "recipe.yaml", "--trainer.max_epochs=1")[0] == 0
    axes = {"y": 2 + np.arange(16.0), "x": np.arange(16.0)}
    low = xr.DataArray(np.load("low_3.npy")[0], axes, ("y", "x"), attrs={"units": "K"})
    low.to_dataset(name="low").to_netcdf("in.nc")
    for out, how in {"out.nc": {}, "out.zarr": {"engine": "zarr", "consolidated": False}}.items():
        assert m2m("apply", "emulator.safetensors", "low=in.nc", "-o", out)[0] == 0
        found = xr.open_dataset(out, **how)
        np.testing.assert_allclose(found.y, 2 - 0.25 + np.arange(32) / 2)
        np.testing.assert_allclose(found.x, -0.25 + np.arange(32) / 2)


def test_map2maps_generator_trains_and_tests_with_a_scale_factor(files, monkeypatch, capsys):
    """Of which map2map itself can only do the former."""
    sizes = {"chan_base": 4, "chan_min": 2, "chan_max": 4}
    common = ["--crop", "8", "--in-pad", "3", "--scale-factor", "2", "--model", "srsgan.G",
              "--batch-size", "2", "--loader-workers", "0",
              "--misc-kwargs", json.dumps(sizes)]  # fmt: skip
    train = ["--train-in-patterns", "low_[0-2].npy", "--train-tgt-patterns", "high_[0-2].npy",
             "--lr", "1e-3", "--epochs", "1"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["m2m.py", "train", *common, *train])
    assert main_map2map() == 0
    state = torch.load("checkpoint.pt", weights_only=False)["model"]
    assert set(state) >= {"block0.0.weight", "blocks.0.conv.0.std", "blocks.0.proj.0.bias"}
    test = ["--test-in-patterns", "low_3.npy", "--test-tgt-patterns", "high_3.npy"]
    monkeypatch.setattr("sys.argv", ["m2m.py", "test", *common, *test])
    assert main_map2map() == 0
    found = np.load("high_3_out.npy")
    assert found.shape == (1, 32, 32)
    expected = Emulator.load("emulator.safetensors").apply({"input_0": np.load("low_3.npy")})
    np.testing.assert_allclose(found, expected["target_0"], atol=1e-5)
    assert "target_0: rmse" in capsys.readouterr().out


# --- scale factors --------------------------------------------------------------------------------


def runs(**options):
    return Runs(
        [Field("low")], [Field("high")], {"low": "low_*.npy", "high": "high_*.npy"}, **options
    )


def test_the_scale_factor_is_found_in_the_files(files):
    assert runs(scale_factor=None).scale_factor == 2
    for run in range(4):
        np.save(f"high_{run}.npy", smooth(16, run)[None])
    assert runs(scale_factor=None).scale_factor == 1
    np.save("high_2.npy", smooth(32, 2)[None])
    with pytest.raises(GeometryError, match=r"high_2.npy has shape \(32, 32\), but \(16, 16\)"):
        runs(scale_factor=None)


def test_a_factor_that_the_files_contradict_is_refused_with_their_sizes(files):
    with pytest.raises(GeometryError, match=r"\(32, 32\), but \(64, 64\).*low_0.*scale factor 4"):
        runs(scale_factor=4)
    np.save("high_0.npy", np.zeros((1, 32, 24), np.float32))
    with pytest.raises(GeometryError, match=r"\(32, 24\), but \(16, 16\) is expected"):
        runs(scale_factor=None)


@pytest.mark.parametrize(
    ("shape", "factor", "says"),
    [
        (
            (24, 24),
            None,
            "1.5 times the cells .* is 1 .*; give targets of 16 x 16 or 32 x 32 or",
        ),
        ((32, 48), None, "2 x 3 times the cells .*; give targets of 16 x 16 or 32 x 32"),
        ((64, 64), 2, "4 times the cells .* is 2 .*; set data.crops.scale_factor: 4, if all"),
        ((64, 64), 3, "4 times the cells .* is 3 .*; set data.crops.scale_factor: 4, if all"),
    ],
)
def test_what_fits_a_target_is_told_by_its_factor(files, shape, factor, says):
    for run in range(4):
        np.save(f"high_{run}.npy", np.zeros((1, *shape), np.float32))
    with pytest.raises(GeometryError, match=says) as found:
        runs(scale_factor=factor)
    assert "same_shape" not in str(found.value)


def test_runs_of_other_shapes_that_fit_are_told_that_they_may_differ(files):
    np.save("low_2.npy", smooth(8, 2)[None])
    np.save("high_2.npy", smooth(16, 2)[None])
    with pytest.raises(GeometryError, match=r"low_2\.npy .*same_shape: false lets runs differ"):
        runs(scale_factor=None)


def test_the_factor_of_the_training_split_goes_for_the_others(files):
    np.save("high_3.npy", smooth(64, 3)[None])
    data = FieldData(
        {"low": "low_[0-1].npy", "high": "high_[0-1].npy"},
        {"low": "low_3.npy", "high": "high_3.npy"},
        domain=Domain(2),
    )
    with pytest.raises(GeometryError, match=r"high_3.npy has shape \(64, 64\), but \(32, 32\)"):
        data.open([Field("low")], [Field("high")])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (UNet, r"gives 1 cells .* targets have 2 .*16 x 16 cells, targets 32 x 32"),
        (lambda i, o, ndim: UpsampledUNet(i, o, ndim=ndim, scale_factor=4), "gives 4 cells"),
    ],
)
def test_a_model_of_another_factor_is_refused(files, model, message):
    data = FieldData({"low": "low_*.npy", "high": "high_*.npy"}, crops=Crops(8), domain=Domain(2))
    task = Task([Field("low")], [Field("high")], model)
    with pytest.raises(GeometryError, match=message):
        task.prepare(data)


def test_a_model_that_draws_nothing_cannot_be_scored_as_a_distribution(files):
    data = FieldData({"low": "low_*.npy", "high": "high_*.npy"}, crops=Crops(8), domain=Domain(2))

    def model(i, o, ndim):
        return UpsampledUNet(i, o, ndim=ndim, width=2)

    task = Task([Field("low")], [Field("high")], model, loss=EnergyScore())
    with pytest.raises(RecipeError, match="UpsampledUNet as it is made draws no random numbers"):
        task.prepare(data)


# --- baselines ------------------------------------------------------------------------------------


def test_edges_that_are_not_periodic_take_the_last_cells_value():
    fields = FieldSet([Field("a", "K", "scalar", 1)]), FieldSet([Field("b", "K", "scalar", 1)])
    names = interpolated({"b": "a"}, *fields, Domain(1, periodic=False), 2)
    assert set(names) == {"linear"}, "a spectrum is one of a periodic field"
    values = np.array([[1.0, 3.0, 7.0]], np.float32)
    found = names["linear"](0, {"a": values})["b"]
    np.testing.assert_allclose(found, [[1, 1.5, 2.5, 4, 6, 7]])
    around = interpolated({"b": "a"}, *fields, Domain(1), 2)
    found = around["linear"](0, {"a": values})["b"]
    np.testing.assert_allclose(found, [[2.5, 1.5, 2.5, 4, 6, 5.5]])


def test_a_training_begins_with_the_weights_of_an_emulator(files, m2m):
    """With other crops, loss and optimizer, and its own epochs; steps of 0 leave the weights."""
    (files / "recipe.yaml").write_text(RECIPE)
    assert m2m("train", "recipe.yaml", "--output.folder=first")[0] == 0
    first = "first/emulator.safetensors"
    second = [
        "--data.crops.size=16",
        "--model.loss.init_args.power=1",
        "--model.optimizer={class_path: torch.optim.SGD, init_args: {lr: 0.0}}",
        f"--output.resume={first}",
        "--output.folder=second",
    ]
    status, _, err = m2m("train", "recipe.yaml", *second)
    assert status == 0, err
    before, after = (Emulator.load(path) for path in (first, "second/emulator.safetensors"))
    assert after.training_record["epochs"] == 2
    for name, weights in before.model.state_dict().items():
        assert torch.equal(weights, after.model.state_dict()[name]), name
    steps = after.training_record["optimizer_steps"] // 2
    # the same command goes on from where it was broken off, but not from what began otherwise
    assert m2m("train", "recipe.yaml", *second, "--trainer.max_epochs=3")[0] == 0
    assert Emulator.load("second/emulator.safetensors").training_record["epochs"] == 3
    assert torch.load("second/checkpoint.pt", weights_only=True)["global_step"] == 3 * steps
    again = ["--output.resume=second/emulator.safetensors", "--output.folder=second"]
    assert m2m("train", "recipe.yaml", *second, *again)[0] == 0
    assert Emulator.load("second/emulator.safetensors").training_record["epochs"] == 2


# --- the energy score -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9,), (6, 8), (4, 5, 7)])
def test_power_by_wavenumber_is_that_of_all_modes(shape):
    values = torch.randn(2, 3, *shape, dtype=torch.float64)
    axes = tuple(range(2, values.ndim))
    half = torch.fft.rfftn(values, dim=axes)
    found = waves_of(shape, (1.0,) * len(shape), values.device).power(half)
    power = torch.fft.fftn(values, dim=axes).abs().square().sum(1).mean(0)
    each = [np.fft.fftfreq(n, 1 / max(shape)) ** 2 for n in shape]
    numbers = np.rint(np.sqrt(sum(np.ix_(*each)))).astype(int)
    for k in range(numbers.max() + 1):
        if (numbers == k).any():
            np.testing.assert_allclose(found[k], power.numpy()[numbers == k].mean(), rtol=1e-9)


def test_waves_of_one_length_are_counted_together_on_cells_of_any_shape():
    """Cells of 1 x 4: a wave of 8 along the first axis, and one of 8 along the second."""
    waves = waves_of((16, 8), (1.0, 4.0), torch.device("cpu"))
    lengths = {(0, 1): 32, (2, 0): 8, (0, 4): 8, (8, 0): 2, (1, 0): 16}
    assert {mode: int(waves.number[mode]) for mode in lengths} == {
        mode: 32 // length for mode, length in lengths.items()
    }
    # up to the wave of two of the longer cells
    assert waves.there.tolist() == [1, 2, 3, 4]
    fields = (FieldSet((Field(name, "K", "scalar", 1),)) for name in "ab")
    model, domain = FourierUpsampling(1, 1, ndim=2, scale_factor=2), Domain(2, spacing=[1.0, 4.0])
    score = EnergyScore()
    score.take_emulator(Emulator(*fields, {}, model, domain))
    assert score.sizes == (1.0, 4.0)


def test_waves_do_not_know_the_mean():
    score = EnergyScore(cells=0.0, power=1.0)
    draws, target = torch.randn(4, 1, 8, 8).double(), torch.randn(2, 1, 8, 8).double()
    torch.testing.assert_close(score(draws + 30, target + 30), score(draws, target))


def test_of_one_channel_it_is_the_crps():
    """Of a normal distribution, for which it is known; unbiased however few the draws."""
    torch.manual_seed(0)
    target, n = torch.full((40_000, 1, 1), 0.7, dtype=torch.float64), 40_000
    z = 0.7
    expected = z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    for members in (2, 3):
        draws = torch.randn(members * n, 1, 1)
        score = EnergyScore(members, spectral=0)(draws, target)
        assert float(score) == pytest.approx(expected, abs=0.01)


def test_draws_of_a_sample_are_those_of_its_place_in_the_batch():
    target = torch.tensor([10.0, -10.0]).reshape(2, 1, 1)
    loss = EnergyScore(2, spectral=0)
    draws = torch.tensor([11.0, -10.0, 9.0, -10.0]).reshape(4, 1, 1)
    # |11 - 10| and |9 - 10|, less half of |11 - 9|; and a sample that is met
    assert float(loss(draws, target)) == pytest.approx(0, abs=1e-5)
    draws = torch.tensor([13.0, -10.0, 13.0, -10.0]).reshape(4, 1, 1)
    assert float(loss(draws, target)) == pytest.approx(3 / 2, abs=1e-5)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_it_is_least_for_draws_of_the_power_of_the_truth(ndim, power):
    """Where a loss that compares one draw with the truth is least for none."""
    torch.manual_seed(0)
    shape = (4 * 8 ** (4 - ndim), 2, *(8,) * ndim)
    scores = {}
    for amplitude in (0.0, 0.5, 1.0, 1.5):
        draws = amplitude * torch.randn(2 * shape[0], *shape[1:])
        loss = EnergyScore(cells=0, power=power)
        scores[amplitude] = float(loss(draws, torch.randn(shape)))
    assert min(scores, key=scores.get) == 1.0


def test_power_is_compared_up_to_the_nyquist_wavenumber():
    """Beyond it are the corners of the transform, few modes of each number."""
    torch.manual_seed(0)
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    target = torch.randn(3, 2, 8, 8)
    loss = EnergyScore(cells=0, spectral=0, power=1.0, window=False)
    for wave, counts in ((i + j, False), (i, True)):
        draws = target.repeat(2, 1, 1, 1) + (1 - 2 * (wave % 2))
        assert (float(loss(draws, target)) > 1e-3) == counts


def test_small_waves_count_as_much_as_large_ones():
    """As power may fall by orders of magnitude."""
    torch.manual_seed(0)
    x = torch.arange(32.0)
    loss = EnergyScore(cells=0, window=False)

    def fields(n, amplitude):
        phases = 2 * torch.pi * torch.rand(n, 2, 1)
        waves = [torch.cos(2 * torch.pi * k * x / 32 + phases[:, i]) for i, k in enumerate((2, 12))]
        return (100 * waves[0] + amplitude * waves[1])[:, None]

    right, wrong = (float(loss(fields(800, a), fields(400, 0.1))) for a in (0.1, 0.0))
    assert right < wrong


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(RecipeError, match="at least 2 `members`, not 1"):
        EnergyScore(1)
    with pytest.raises(RecipeError, match="one of them more than 0"):
        EnergyScore(cells=0, spectral=0)
    with pytest.raises(GeometryError, match=r"shape \(3, 1, 4\), but 2 draws"):
        EnergyScore()(torch.zeros(3, 1, 4), torch.zeros(2, 1, 4))
    with pytest.raises(GeometryError, match="has no waves; use spectral: 0"):
        EnergyScore()(torch.zeros(4, 1, 1), torch.zeros(2, 1, 1))


def test_gradients_are_finite_where_draws_are_equal():
    x = torch.zeros(4, 1, 8, requires_grad=True)
    EnergyScore(power=1.0)(x, torch.randn(2, 1, 8)).backward()
    assert x.grad.isfinite().all()


# --- an emulator without weights ------------------------------------------------------------------


def test_interpolation_can_be_an_emulator(tmp_path):
    fields = FieldSet([Field("a", "K", "scalar", 1)]), FieldSet([Field("b", "K", "scalar", 1)])
    model = FourierUpsampling(1, 1, ndim=2, scale_factor=2)
    emulator = Emulator(*fields, {}, model, Domain(2)).eval()
    emulator.save(tmp_path / "fourier.safetensors")
    again = Emulator.load(tmp_path / "fourier.safetensors")
    found = again.apply({"a": smooth(16, 0)})["b"]
    np.testing.assert_allclose(found[0], smooth(32, 0), atol=1e-5)


# --- accuracy -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_draws_have_the_power_of_a_finer_simulation_up_to_waves_of_a_few_cells(m2m):
    """On a universe held out: within 10 % up to 80 % of the Nyquist wavenumber of the fine grid."""
    assert m2m("simulate", "nbody", "--out=data", "--runs=9", "--size=32", "--finer=2")[0] == 0
    fast = ["--trainer.precision=bf16-mixed", "--output.figures=0"]
    assert m2m("train", "super_resolution", "--output.folder=first", *fast)[0] == 0
    whole_boxes = ["--data.crops.size=32", "--data.augment.shift=32", "--trainer.max_epochs=20",
                   "--model.loss.init_args.power=20", "--model.optimizer.init_args.lr=1.0e-3",
                   "--model.options.ema=0.9"]  # fmt: skip
    folders = ["--output.resume=first/emulator.safetensors", "--output.folder=second"]
    assert m2m("train", "super_resolution", *folders, *whole_boxes, *fast)[0] == 0
    assert m2m("evaluate", "second/emulator.safetensors", "--split=test", "--bootstrap=10")[0] == 0
    with xr.open_dataset("scores.nc") as scores:
        ratio = (scores.power / scores.power_truth).isel(run=0).squeeze().load()
    ratio = ratio.sel(k=slice(0.8 * np.pi / 2.0))
    assert ratio.sizes["k"] >= 24
    np.testing.assert_allclose(ratio.sel({"method": "emulator"}), 1, atol=0.1)
    assert float(ratio.sel({"method": "trilinear"})[-1]) < 0.5
