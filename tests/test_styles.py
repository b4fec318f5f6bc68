"""Styles: parameters of a run that a network sees, from where they are told to what is written."""

import copy
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from map2map import apply as applying
from map2map.apply import apply_files
from map2map.arrays import Settings
from map2map.assemble import assemble
from map2map.cli import main_map2map
from map2map.crops import Crops
from map2map.data import FieldData, Reading
from map2map.emulator import Card, Emulator
from map2map.engine import Running
from map2map.errors import ArtefactError, FieldError, RecipeError, SourceError
from map2map.exports.writing import write
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint
from map2map.grids import Domain
from map2map.jobs import Job, Slope, jobs_of
from map2map.losses import LagrangianEulerian, WeightedSum
from map2map.losses.physical import PhysicalLoss
from map2map.models import UNet
from map2map.norms import Affine, Displacement, Scale, Velocity
from map2map.physics.cosmology import growth_factor, growth_rate, hubble, velocity_of_slope
from map2map.preparation import Options, make_emulator
from map2map.runs import Files, Runs
from map2map.slopes import per
from map2map.styles import bound
from map2map.task import Task
from map2map.told import Told
from map2map.train import Output, make_trainer, train

X, Y = Field("x", "m", "scalar", 1), Field("y", "K", "scalar", 1)
Z = Field("z", kind="parameter")
OM = Field("Om", kind="parameter")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


class Growing(nn.Module):
    """Gives its input times 1 / (1 + z), the growth of structure in a universe of matter alone."""

    def __init__(self, in_chan, out_chan, *, ndim=3, style_chan=1):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.style_chan = style_chan
        self.footprint = Footprint(0)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, style):
        return self.weight * x / (1 + style[:, 0].reshape(-1, *(1,) * (x.ndim - 1)))


class Smooth(nn.Module):
    """A network without kinks, whose finite differences are those of its derivative."""

    def __init__(self, in_chan, out_chan, *, ndim=2, style_chan=2):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.style_chan = style_chan
        self.first = nn.Conv2d(in_chan, 4, 3)
        self.second = nn.Conv2d(4, out_chan, 3)
        self.mix = nn.Linear(style_chan, 4)

    def forward(self, x, style):
        return self.second(torch.tanh(self.first(x) * (1 + self.mix(style)[..., None, None])))


def emulator(model, inputs=(X,), targets=(Y,), styles=(Z, OM), ndim=2, **norms):
    resolved = FieldSet(tuple(f.resolved(1, ndim) for f in styles))
    made = Emulator(
        FieldSet(inputs), FieldSet(targets), norms, model, Domain(ndim, True), styles=resolved
    )
    made.style_range = {f.name: [0.0, 1.0] for f in styles}
    return made.eval()


def styled(ndim=2, **options):
    model = UNet(1, 1, ndim=ndim, width=4, depth=1, style_chan=2, **options)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    norms = {"x": Scale(2.0), "y": Affine(1.0, 3.0), "z": Affine(0.5, 0.25), "Om": Affine(0.3, 0.1)}
    return emulator(model, ndim=ndim, **norms)


def field(shape=(12, 8), seed=0):
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def write_runs(count=4, shape=(8, 8)):
    """y is x times a factor that is told in names."""
    for k in range(count):
        x = field(shape, k)
        np.save(f"x_{k}_z{k / 2:g}.npy", x)
        np.save(f"y_{k}_z{k / 2:g}.npy", x * (1 + k / 2))


PLACES = {
    "x": "x_{run}_z{z}.npy",
    "y": "y_{run}_z{z}.npy",
}


# --- told ------------------------------------------------------------------------------------


def told(place, count=4):
    write_runs(count)
    runs = Runs([X], [Y], {**PLACES, "z": place}, Domain(2), styles=[Z])
    assert runs.styles.names == ("z",)
    return runs.style_numbers[:, 0].tolist()


def test_a_csv_tells_styles_by_the_columns_that_are_named_like_placeholders():
    with Path("t.csv").open("w") as file:
        file.write("run,depth\n3,30\n2,20\n1,10\n0,0\n")
    assert told(Told(table="t.csv", column="depth")) == [0, 10, 20, 30]


def test_names_numbers_and_npy_files_tell_styles():
    assert told(Told(placeholder="z")) == [0, 0.5, 1, 1.5]
    assert told(Told(placeholder="z", scale=2, offset=1)) == [1, 2, 3, 4]
    assert told(0.25) == [0.25] * 4
    np.save("one.npy", np.arange(4.0))
    assert told(Told(table="one.npy")) == [0, 1, 2, 3]
    np.save("t.npy", np.arange(8.0).reshape(4, 2))
    assert told(Told(table="t.npy", column=1)) == [1, 3, 5, 7]
    for k in range(4):
        np.save(f"style_{k}.npy", np.array([9.0, k]))
    assert told(Told(table="style_*.npy", column=1)) == [0, 1, 2, 3]


def test_attributes_of_files_tell_styles():
    for k in range(2):
        data = xr.Dataset({"x": (("a", "b"), field()[0]), "y": (("a", "b"), field()[0])})
        data.attrs["z"] = 0.1 * k
        data.to_netcdf(f"run_{k}.nc")
    places = {"x": "run_*.nc", "y": "run_*.nc", "z": Told(attribute="z")}
    runs = Runs([X], [Y], places, Domain(2), styles=[Z])
    np.testing.assert_allclose(runs.style_numbers[:, 0], [0, 0.1], rtol=1e-6)
    assert runs.some([1]).styles_of(0)["z"] == pytest.approx(0.1)


BAD = {
    "rows": (np.zeros((3, 2)), {"column": 0}, r"shape \(3, 2\) for 4 files"),
    "columns": (np.zeros((4, 2)), {"column": 2}, "has 2 columns, and `column` 2 is asked for"),
    "which column": (np.zeros((4, 2)), {}, "no `column` is given"),
    "named column": (np.zeros((4, 2)), {"column": "Om"}, "`column` 'Om' is asked for"),
    "NaN": (np.array([0, np.nan, 0, 0]), {}, "which is no finite number"),
    "texts": (np.array(["a"] * 4), {}, "not numbers"),
    "axes": (np.zeros((4, 2, 2)), {"column": 0}, "a row for each"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_does_not_fit_is_refused(case):
    values, how, message = BAD[case]
    np.save("t.npy", values)
    with pytest.raises((SourceError, FieldError), match=message):
        told(Told(table="t.npy", **how))


def test_npy_files_that_are_not_as_many_or_alike_are_refused():
    np.save("s_0.npy", np.zeros(2))
    with pytest.raises(SourceError, match="1 files match"):
        told(Told(table="s_*.npy", column=0))
    for k in range(1, 4):
        np.save(f"s_{k}.npy", np.zeros(3))
    with pytest.raises(SourceError, match="have the shapes"):
        told(Told(table="s_*.npy", column=0))
    with pytest.raises(SourceError, match="cannot read the table"):
        told(Told(table="absent.npy"))


def test_a_style_is_a_parameter_and_nothing_else():
    write_runs()
    with pytest.raises(FieldError, match="declare it with `kind: parameter`"):
        Runs([X], [Y], {**PLACES, "z": 1.0}, Domain(2), styles=[Field("z")])
    with pytest.raises(FieldError, match="is a style, and an input or target"):
        Runs([X], [Y], {**PLACES}, Domain(2), styles=[Field("x", kind="parameter")])
    with pytest.raises(FieldError, match="among the `styles`"):
        Runs([X, Z], [Y], {**PLACES, "z": 1.0}, Domain(2))
    with pytest.raises(FieldError, match="nothing says what the parameter 'Om'"):
        Runs([X], [Y], PLACES, Domain(2), styles=[OM])


# --- trained ---------------------------------------------------------------------------------


def trained(epochs=1, styles=(Z,), model=None, norms=None, loss=None, mask=False, **places):
    task = Task(
        [X], [Y], model or make, norms or {}, styles=list(styles), loss=loss,
        optimizer=lambda p: torch.optim.SGD(p, 0.1),
    )  # fmt: skip
    if Z in styles:
        places = {"z": Told(placeholder="z")} | places
    data = FieldData(
        {**PLACES, **places},
        crops=Crops(size=8),
        domain=Domain(2, True),
        reading=Reading(batch_size=3, threads=0, mask=mask),
        seed=0,
    )
    output = Output(Path("out"))
    trainer = make_trainer(output, max_epochs=epochs, accelerator="cpu", logger=False)
    train(task, data, trainer, output)
    return task


def make(in_chan, out_chan, *, ndim, style_chan=0):
    return UNet(
        in_chan, out_chan, ndim=ndim, width=2, depth=1, batch_norm=False, style_chan=style_chan
    )


def test_every_sample_carries_the_styles_of_its_run():
    write_runs()
    task = trained()
    batch = task.trainer.datamodule.in_order("train")
    batch.size = 3
    rows = [part.styles() for part in batch]
    assert torch.cat(rows)[:, 0].tolist() == [0, 0.5, 1, 1.5]
    # standardized over the training runs
    z = task.built.encode_style(torch.cat(rows))
    np.testing.assert_allclose([z.mean(), z.std(unbiased=False)], [0, 1], atol=1e-6)


def test_the_loss_is_that_of_the_network_with_the_styles_of_its_samples():
    write_runs()
    task = trained()
    part = next(iter(task.trainer.datamodule.in_order("train")))
    loss, x, output, y = task.step(part)
    style = (torch.tensor([[0.0], [0.5], [1.0]]) - 0.75) / 0.5590169943749475
    model = task.built.model
    expected = model(x, style)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(loss, (expected - y).square().mean())


class PhysicalMSE(PhysicalLoss):
    """The mean square of differences in units of the field."""

    def forward(self, output, target, counts=None):
        square = (self.physical(output, "y") - self.physical(target, "y")).square()
        return square.mean() if counts is None else square[counts].mean()


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_losses_of_physical_values_undo_norms_of_the_style_of_each_sample(alone, mask):
    write_runs()
    loss = PhysicalMSE() if alone else WeightedSum({"a": PhysicalMSE()}, {"a": 1.0})
    norms = {"y": Displacement(z="z", Om=1.0, std=2.0)}
    task = trained(loss=loss, norms=norms, mask=mask)
    part = next(iter(task.trainer.datamodule.in_order("train")))
    found, _, output, y = task.step(part)
    # D = 1 / (1 + z), where there is matter alone
    factor = 2 / (1 + torch.tensor([0.0, 0.5, 1.0])).reshape(3, 1, 1, 1)
    torch.testing.assert_close(found, ((output - y) * factor).square().mean(), rtol=1e-4, atol=0)
    assert np.isfinite(task.history["train"]).all()


def test_a_displacement_and_what_it_carries_are_learnt_in_units_of_each_runs_growth():
    for k in range(2):
        for name in "xy":
            np.save(f"{name}_{k}_z{k / 2:g}.npy", np.repeat(field((8, 8), k), 2, axis=0))
    vector = [Field(name, "Mpc/h", "vector", 2) for name in "xy"]
    task = Task(
        vector[:1], vector[1:], make, {"y": Displacement(z="z")}, LagrangianEulerian(),
        styles=[Z],
    )  # fmt: skip
    runs = Runs(task.inputs, task.targets, PLACES | {"z": Told(placeholder="z")},
                Domain(2, True, spacing=1.0), styles=[Z])  # fmt: skip
    made = task.build(runs, runs.domain)
    style = torch.tensor([[0.0], [0.5]])
    y = torch.from_numpy(np.stack([np.repeat(field((8, 8), k), 2, axis=0) for k in range(2)]))
    output = y + 0.5 * torch.roll(y, 1, 2)
    task.loss.take_styles(style)
    found = task.loss(made.encode_target(output, style), made.encode_target(y, style))
    plain = Task(task.inputs, task.targets, make, {"y": Scale(6.0)}, LagrangianEulerian())
    plain.build(Runs(plain.inputs, plain.targets, PLACES, runs.domain), runs.domain)
    plain.loss(output / 6, y / 6)
    assert task.loss.told["eul"] == pytest.approx(plain.loss.told["eul"].item(), rel=1e-4)
    assert task.loss.told["lag"] != pytest.approx(plain.loss.told["lag"].item(), rel=1e-2)
    assert found.isfinite()


def test_a_style_that_is_the_same_for_all_runs_does_no_harm():
    write_runs()
    task = trained(styles=(Z, OM), Om=0.3)
    assert np.isfinite(task.history["train"]).all()
    assert task.built.style_range["Om"] == [pytest.approx(0.3)] * 2


def test_norms_of_styles_are_given_by_name():
    write_runs()
    task = trained(norms={"z": Affine(1.0, 4.0)})
    assert task.built.encode_style(torch.tensor([[3.0]])).item() == 0.5


def test_a_network_that_takes_no_styles_is_refused_by_name():
    write_runs()

    def plain(in_chan, out_chan, *, ndim):
        return UNet(in_chan, out_chan, ndim=ndim)

    with pytest.raises(RecipeError, match=r"styles \(z\), .* none; .* StyledVNet, UNet, .*, VNet"):
        trained(model=plain)


def test_a_recipe_that_gives_another_number_of_styles_is_refused():
    write_runs()
    with pytest.raises(RecipeError, match="`style_chan` of the model is 3, but `styles` has 1"):
        make_emulator(
            make,
            Runs([X], [Y], {**PLACES, "z": 0.0}, Domain(2), styles=[Z]),
            {},
            Domain(2),
            Options(),
            {"style_chan": 3},
        )


def test_a_network_of_ones_own_with_another_number_of_styles_is_refused():
    write_runs()
    runs = Runs([X], [Y], PLACES, Domain(2))
    with pytest.raises(RecipeError, match=r"UNet takes a style of 2 numbers, but there are 0"):
        make_emulator(
            lambda i, o, ndim: make(i, o, ndim=ndim, style_chan=2),
            runs,
            {},
            Domain(2),
            Options(),
            {},
        )


def test_what_knows_no_styles_says_so_in_one_line(m2m, capsys, monkeypatch):
    write_runs()
    trained()
    data = ("--test-in-patterns", "x_*.npy", "--test-tgt-patterns", "y_*.npy")
    options = ("--model", "UNet", "--batch-size", "1", "--load-state", "out/checkpoint.pt")
    for more in ((), ("--load-state-non-strict",)):
        monkeypatch.setattr("sys.argv", ["m2m.py", "test", *data, *options, *more])
        assert main_map2map() == 2
        err = capsys.readouterr().err
        assert "with the styles z [1], which m2m.py test cannot tell it; use m2m apply" in err
        assert "Traceback" not in err
    status, _, err = m2m("saliency", "out/emulator.safetensors", "x=x_{run}_z{z}.npy")
    assert status == 2
    assert "gives fields, y; saliency is of labels" in err


def test_cells_of_several_runs_cannot_be_mixed():
    write_runs()
    data = FieldData(
        {**PLACES, "z": Told(placeholder="z")}, domain=Domain(2), reading=Reading(cells=4)
    )
    with pytest.raises(RecipeError, match="cells mixes cells of several runs"):
        data.open([X], [Y], [Z])


def test_a_resumed_training_must_have_the_same_styles():
    write_runs()
    trained()
    with pytest.raises(ArtefactError, match="was trained with styles"):
        trained(epochs=2, styles=(OM,), Om=Told(placeholder="z"))


def test_the_card_tells_styles_and_their_range_and_the_file_gives_them_back():
    made = styled()
    made.style_range = {"z": [0.0, 2.0], "Om": [0.2, 0.4]}
    made.save("e.safetensors")
    card = Card.read("e.safetensors")
    assert [each["name"] for each in card.styles] == ["z", "Om"]
    assert card.style_range == {"z": [0.0, 2.0], "Om": [0.2, 0.4]}
    again = Emulator.load("e.safetensors")
    given = {"x": field(), "z": 1.0, "Om": 0.3}
    np.testing.assert_array_equal(again(given)["y"], made(given)["y"])
    assert again.style_range == card.style_range


# --- applied ---------------------------------------------------------------------------------


@pytest.mark.parametrize("modulation", ["weights", "film"])
@pytest.mark.parametrize("tile", [4, 12])
def test_tiles_give_what_the_network_gives_with_its_style(modulation, tile):
    made = styled(modulation=modulation).double()
    x, z, om = field(), 0.75, 0.25
    wide = np.pad(x.astype(float), [(0, 0), (8, 8), (8, 8)], mode="wrap")
    style = (torch.tensor([[z, om]], dtype=torch.float64) - torch.tensor([0.5, 0.3])) / (
        torch.tensor([0.25, 0.1], dtype=torch.float64)
    )
    with torch.no_grad():
        expected = made.model(torch.from_numpy(wide)[None] / 2, style)[0, :, :12, :8] * 3 + 1
    settings = Settings(Running("fp64"), tile=tile)
    found = made.apply({"x": x, "z": z, "Om": om}, settings=settings)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_network_of_ones_own_is_bound_without_being_settled():
    made = emulator(Smooth(1, 1))
    x = torch.from_numpy(field())[None]
    with torch.no_grad():
        expected = made(x.expand(2, -1, -1, -1), torch.tensor([[0.5, 0.2], [0.5, 0.2]]))
        found = bound(made, {"z": 0.5, "Om": 0.2})(x.expand(2, -1, -1, -1))
    torch.testing.assert_close(found, expected)


def test_a_dataset_tells_styles_as_attributes_and_as_variables_along_other_axes():
    made = styled()
    x = np.stack([field(seed=k)[0] for k in range(2)])
    data = xr.Dataset({"x": (("time", "a", "b"), x)}, attrs={"Om": 0.3})
    data["z"] = ("time", [0.25, 0.75])
    found = made(data).y.values
    for k, z in enumerate((0.25, 0.75)):
        alone = made({"x": x[k], "z": z, "Om": 0.3})["y"][0]
        np.testing.assert_allclose(found[k], alone, atol=1e-6)
    with pytest.raises(FieldError, match="neither a variable nor an attribute 'z'"):
        made(data.drop_vars("z"))
    with pytest.raises(FieldError, match="beside time"):
        made(data.assign(z=("a", np.zeros(12))))


def test_what_is_no_number_for_a_style_is_refused():
    made = styled()
    with pytest.raises(FieldError, match=r"style 'Om' .* trained from 0 to 1"):
        made({"x": field(), "z": 1.0})
    for bad in (np.nan, np.zeros(3), "a"):
        with pytest.raises(FieldError, match="is one finite number"):
            made({"x": field(), "z": bad, "Om": 0.3})
    with pytest.raises(FieldError, match="unknown: h"):
        made({"x": field(), "z": 0.0, "Om": 0.3, "h": 0.7})
    x = torch.zeros(1, 1, 20, 20)
    with pytest.raises(FieldError, match="takes z, Om styles, but none were"):
        made(x)
    with pytest.raises(FieldError, match="takes no styles"):
        emulator(UNet(1, 1, ndim=2), styles=())(x, torch.zeros(1, 1))


def test_a_style_outside_the_range_of_the_training_is_told(caplog):
    made = styled()
    with caplog.at_level(logging.WARNING):
        made({"x": field(), "z": 1.0, "Om": 0.0})
        assert not caplog.records
        made({"x": field(), "z": 1.5, "Om": 0.3})
    assert "z = 1.5 is outside the training's 0 to 1" in caplog.text


# --- generative --------------------------------------------------------------------------------

FLOWING = """
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
model:
  inputs: [{name: x, units: m}]
  targets: [{name: y, units: K}]
  styles: [{name: z, kind: parameter}]
  model:
    class_path: FlowMatching
    init_args: {steps: 1, solver: euler, options: {width: 2, depth: 1}}
data:
  train: {x: 'x_{run}_z{z}.npy', y: 'y_{run}_z{z}.npy'}
  domain: {ndim: 2, periodic: true}
  split: {ratios: [0.5, 0.5, 0]}
  reading: {threads: 0}
output: {folder: out}
"""


def test_flow_matching_with_styles_is_trained_applied_and_evaluated_with_members(m2m):
    write_runs()
    Path("r.yaml").write_text(FLOWING)
    status, _, err = m2m("train", "r.yaml")
    assert status == 0, err
    made = Emulator.load("out/emulator.safetensors")
    assert made.model.style_chan == made.model.velocity.style_chan == 1
    status, _, err = m2m(
        "apply", "out/emulator.safetensors", "x=x_0_z0.npy", "z=0.5",
        "--members", "2", "--seed", "4", "-o", "m_{member}.npy",
    )  # fmt: skip
    assert status == 0, err
    for member in range(2):
        given = {"x": np.load("x_0_z0.npy"), "z": 0.5}
        one = made.apply(given, settings=Settings(Running(seed=4 + member)))["y"]
        np.testing.assert_allclose(np.load(f"m_{member}.npy"), one, atol=1e-5)
    other = made.apply(given | {"z": 1.0}, settings=Settings(Running(seed=5)))["y"]
    assert np.abs(other - one).max() > 1e-3, "the style acts"
    status, _, err = m2m(
        "evaluate", "out/emulator.safetensors", "x=x_{run}_z{z}.npy", "y=y_{run}_z{z}.npy",
        "--members", "2", "--bootstrap", "3",
    )  # fmt: skip
    assert status == 0, err
    assert np.isfinite(xr.load_dataset("scores.nc").crps.sel(method="emulator")).all()


def test_networks_in_flow_matching_that_take_no_styles_are_refused_by_name(m2m):
    write_runs()
    Path("r.yaml").write_text(FLOWING.replace("options:", "network: ConvNet, options:"))
    status, _, err = m2m("train", "r.yaml")
    assert status == 2
    assert "the `network` ConvNet takes none" in err


# --- on the command line -----------------------------------------------------------------------


def test_apply_takes_styles_as_numbers_names_tables_and_as_in_training(m2m, caplog):
    write_runs()
    made = styled()
    made.training_record = {"recipe": {"data": {"train": {"z": {"placeholder": "z"}, "Om": 0.3}}}}
    made.save("e.safetensors")
    np.save("t.npy", np.array([[0.1], [0.2], [0.3], [0.4]]))
    cases = {
        "a": (["z=1", "Om=0.3"], [(1, 0.3)] * 4),
        "b": ([], [(0, 0.3), (0.5, 0.3), (1, 0.3), (1.5, 0.3)]),
        "c": (["Om=t.npy::0", "z={z}"], [(0, 0.1), (0.5, 0.2), (1, 0.3), (1.5, 0.4)]),
    }
    for name, (options, expected) in cases.items():
        where = f"{name}_{{run}}.npy"
        status, _, err = m2m("apply", "e.safetensors", "x=x_{run}_z{z}.npy", *options, "-o", where)
        assert status == 0, err
        for k, (z, om) in enumerate(expected):
            x = np.load(f"x_{k}_z{k / 2:g}.npy")
            alone = made({"x": x, "z": z, "Om": om})["y"]
            (path,) = Path().glob(f"{name}_*{k}_z*.npy")
            np.testing.assert_allclose(np.load(path), alone, atol=1e-6)
    assert "z = 1.5 is outside the training's 0 to 1" in caplog.text
    for bad, message in {
        "z=deep": "tells no style",
        "z=nan": "is a finite number, not nan",
        "Omm=0.3": "nor NAME=NUMBER of a style (z, Om); did you mean 'Om'?",
    }.items():
        status, _, err = m2m("apply", "e.safetensors", "x=x_0_z0.npy", bad, "-o", "n.npy")
        assert status == 2
        assert message in err


def test_frames_of_a_file_have_styles_of_their_own():
    made = styled()
    made.domain = Domain(2, True, frames=1)
    made.save("e.safetensors")
    x = np.concatenate([field(seed=k) for k in range(3)])
    data = xr.Dataset({"x": (("z", "a", "b"), x)}, coords={"z": [0.0, 0.5, 1.0]})
    data.to_netcdf("run.nc")
    inputs = {"x": Files("run.nc"), "z": Told(coordinate=True), "Om": 0.3}
    job = Job(Path("e.safetensors"), inputs, Path("o.nc"))
    (one,) = jobs_of(job)
    apply_files(one)
    found = xr.load_dataset("o.nc").y.values
    for k, z in enumerate((0.0, 0.5, 1.0)):
        alone = made({"x": x[k], "z": z, "Om": 0.3})["y"][0]
        np.testing.assert_allclose(found[k], alone, atol=1e-6)


def test_evaluate_gives_each_run_its_styles_and_tells_those_outside(m2m):
    write_runs()
    made = emulator(Growing(1, 1, ndim=2), styles=(Z,))
    made.save("e.safetensors")
    where = ["x=x_{run}_z{z}.npy", "y=y_{run}_z{z}.npy", "z={z}"]
    args = ["evaluate", "e.safetensors", *where, "--metrics", "pointwise", "--bootstrap", "3"]
    own = ["--trust", f"{Growing.__module__}.Growing"]
    status, _, err = m2m(*args, *own, "--no-training-mean")
    assert status == 0, err
    scores = xr.load_dataset("scores.nc")
    rms = [np.sqrt(np.square(np.load(f"x_{k}_z{k / 2:g}.npy")).mean()) for k in range(4)]
    z = np.arange(4) / 2
    expected = rms * np.abs(1 / (1 + z) - (1 + z))
    np.testing.assert_allclose(
        scores.rmse.sel(method="emulator").values.squeeze(), expected, rtol=1e-5, atol=1e-6
    )
    assert "z = 1.5 is outside the training's 0 to 1" in scores.attrs["styles_outside"]
    assert m2m("report", "scores.nc")[0] == 0
    assert "z = 1.5 is outside" in Path("report.html").read_text()


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_exports_take_styles_as_inputs(to):
    pytest.importorskip("onnxruntime")
    check = write(styled(), Path("file"), to)
    assert max(check.deviations.values()) < 1e-4


def test_exports_that_cannot_hold_styles_say_so():
    with pytest.raises(ArtefactError, match="takes the styles z, Om, which --to torchscript"):
        write(styled(), Path("file"), "torchscript")


# --- derived -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["z", "Om", "x"])
def test_derivatives_are_those_of_finite_differences_and_tiles_do_not_show(by):
    made = emulator(Smooth(1, 1), z=Affine(0.5, 0.25), x=Scale(2.0), y=Affine(1.0, 3.0)).double()
    # steps that float32, in which fields are read, holds exactly
    given = {"x": np.round(field() * 64) / 64, "z": 0.5, "Om": 0.25}
    step = 2.0**-9

    def at(change):
        settings = Settings(Running("fp64"))
        return made.apply(given | {by: given[by] + change}, settings=settings)["y"]

    # of fourth order
    expected = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    for tile in (5, 12):
        found = made.derivative(given, by, settings=Settings(Running("fp64"), tile=tile))
        assert list(found) == [f"y_by_{by}"]
        np.testing.assert_allclose(found[f"y_by_{by}"], expected, rtol=1e-7, atol=1e-7)


def test_derivatives_of_modulated_networks_are_those_of_finite_differences():
    made = styled(batch_norm=False).double()
    given = {"x": field(), "z": 0.5, "Om": 0.25}
    settings, h = Settings(Running("fp64"), tile=4), 1e-7
    above, below = (made.apply(given | {"z": 0.5 + d}, settings=settings)["y"] for d in (h, -h))
    found = made.derivative(given, "z", settings=settings)["y_by_z"]
    np.testing.assert_allclose(found, (above - below) / (2 * h), rtol=1e-4, atol=1e-6)


PSI = Field("psi", "Mpc/h", "vector", 3)


def zeldovich():
    return emulator(Growing(3, 3), (Field("linear", "Mpc/h", "vector", 3),), (PSI,), (Z,), ndim=3)


def test_the_velocity_of_a_linear_displacement_is_that_of_linear_theory():
    psi = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    found = zeldovich().velocity({"linear": psi, "z": 0.5}, Om=1.0)
    # D = a, f = 1 and H = 100 a^-3/2, so that v = 100 a^1/2 psi
    np.testing.assert_allclose(found["psi_velocity"], 100 * 1.5**-0.5 * psi, rtol=1e-5)


@pytest.mark.parametrize("z", [0.0, 1.0, 5.0])
def test_velocities_from_slopes_are_those_of_the_growth_rate(z):
    h, om = 1e-5, 0.31
    slope = (growth_factor(z + h, om) - growth_factor(z - h, om)) / (2 * h)
    expected = growth_factor(z, om) * hubble(z, om) * growth_rate(z, om) / (1 + z)
    np.testing.assert_allclose(slope * velocity_of_slope(z, om), expected, rtol=1e-8)


class Same(nn.Module):
    """Gives its input."""

    def __init__(self, in_chan, out_chan, *, ndim=3, style_chan=2):
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        self.style_chan, self.footprint = style_chan, Footprint(0)

    def forward(self, x, style):
        return x


def in_growth(**numbers):
    """An emulator of linear theory: a norm of the growth at each run's redshift, and no network."""
    told = {"z": "z", "Om": "Om"} | numbers
    norms = {"linear": Displacement(z=0.0), "psi": Displacement(**told)}
    inputs = (Field("linear", "Mpc/h", "vector", 3),)
    return emulator(Same(3, 3), inputs, (PSI,), (Z, OM), ndim=3, **norms)


def test_a_norm_of_growth_takes_redshift_and_density_of_each_sample():
    made = in_growth().double()
    x = torch.randn(2, 3, 4, 4, 4, dtype=torch.float64)
    style = torch.tensor([[0.0, 0.2], [2.0, 0.4]], dtype=torch.float64)
    factors = [float(growth_factor(z, om)) for z, om in style.tolist()]
    expected = x * torch.tensor(factors, dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(made(x, style), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(made.encode_target(expected, style) * 6, x, rtol=1e-9, atol=0)
    for one, values, y in zip(x, style.tolist(), expected, strict=True):
        found = made.apply({"linear": one.numpy(), "z": values[0], "Om": values[1]})
        np.testing.assert_allclose(found["psi"], y, rtol=1e-5)


@pytest.mark.parametrize(("z", "om"), [(0.0, 0.3), (1.0, 0.3), (3.0, 0.6)])
def test_linear_growth_of_a_norm_gives_the_velocity_of_linear_theory(z, om):
    psi = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    made, fields = in_growth(), {"linear": psi, "z": z, "Om": om}
    # D H f psi / (1 + z)
    expected = growth_factor(z, om) * hubble(z, om) * growth_rate(z, om) / (1 + z) * psi
    np.testing.assert_allclose(made.velocity(fields)["psi_velocity"], expected, rtol=1e-5)
    typical = Velocity("z", "Om").typical_of(*torch.tensor([[z], [om]], dtype=torch.float64))
    expected = Velocity(z, om).factor / 6
    np.testing.assert_allclose(typical, expected, rtol=1e-9)


def test_a_norm_of_a_style_that_there_is_not_is_refused():
    with pytest.raises(FieldError, match="depends on 'w', which is no style"):
        in_growth(z="w")
    with pytest.raises(FieldError, match="depends on the styles z, which are not known here"):
        Displacement(z="z")(torch.zeros(1))


def test_the_loss_of_a_training_is_in_units_of_each_runs_growth():
    write_runs()
    norm = Displacement(z="z", Om=1.0, std=1.0)
    task = trained(norms={"y": norm})
    part = next(iter(task.trainer.datamodule.in_order("train")))
    _, _, _, y = task.step(part)
    physical = part.settle()[1]
    expected = physical * torch.tensor([1.0, 1.5, 2.0]).reshape(3, 1, 1, 1)  # D = 1 / (1 + z)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(task._decoded(y), physical)
    assert type(Emulator.load("out/emulator.safetensors").norm("y")) is Displacement


class Logarithm(Displacement):
    """Not of values below zero."""

    def forward_at(self, x, styles):
        return super().forward_at(x, styles).log()


def test_a_norm_of_a_style_that_does_not_take_what_files_hold_is_refused_by_name():
    write_runs()
    with pytest.raises(FieldError, match="the norm Logarithm of field 'y' makes"):
        trained(norms={"y": Logarithm(z="z", Om=1.0, std=1.0)})


def test_the_command_line_writes_derivatives_and_velocities_with_their_units(m2m):
    zeldovich().save("e.safetensors")
    psi = np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)
    data = xr.Dataset({"linear": (("c", "x", "y", "z0"), psi)})
    data.to_netcdf("in.nc")
    base = ["apply", "e.safetensors", "in.nc", "z=0.5", "--trust", f"{Growing.__module__}.Growing"]
    assert m2m(*base, "--velocity", "--Om", "1", "-o", "v.nc", "--check", "1")[0] == 0
    velocity = xr.load_dataset("v.nc").psi_velocity
    assert velocity.units == "km/s"
    np.testing.assert_allclose(velocity, 100 * 1.5**-0.5 * psi, rtol=1e-5)
    assert m2m(*base, "--derivative", "z", "-o", "d.nc")[0] == 0
    slope = xr.load_dataset("d.nc").psi_by_z
    assert slope.units == "Mpc/h"
    np.testing.assert_allclose(slope, -psi / 1.5**2, rtol=1e-5)
    for more, message in {
        ("--velocity",): "needs the matter density",
        ("--derivative", "q"): "not by 'q'",
        ("--derivative", "z", "--velocity"): "two outputs",
        ("--Om", "0.3"): "--Om is for --velocity",
        ("--derivative", "z", "--compile"): "leave winograd and compile out",
    }.items():
        status, _, err = m2m(*base, *more, "-o", "n.nc")
        assert status == 2, more
        assert message in err


def test_a_velocity_from_inputs_of_each_redshift_is_refused():
    inputs = (Field("linear", "Mpc/h", "vector", 3),)
    made = emulator(
        Same(3, 3), inputs, (PSI,), (Z, OM), ndim=3, linear=Displacement(z="z"), psi=Displacement()
    )
    with pytest.raises(FieldError, match="the norm of 'linear' depends on z"):
        made.velocity({"linear": np.zeros((3, 4, 4, 4)), "z": 0.5, "Om": 0.3})


def test_what_has_no_velocity_says_why():
    with pytest.raises(FieldError, match="needs a style 'z'"):
        emulator(Smooth(1, 1), styles=(OM, Field("w", kind="parameter"))).velocity({}, Om=0.3)
    with pytest.raises(FieldError, match="a vector in Mpc/h, but 'y' is a scalar in K"):
        emulator(Growing(1, 1, ndim=2), styles=(Z,)).velocity({}, Om=0.3)
    assert Slope().by is None
    assert (per("K", "m"), per("m/s", "m s-1"), per("K", "1")) == ("K/m", "(m/s)/(m s-1)", "K")


def test_the_card_is_readable_as_json():
    made = styled()
    assert json.loads(json.dumps(made.card().entries()["styles"]))[0]["kind"] == "parameter"


def test_a_card_without_styles_is_that_of_before():
    made = emulator(UNet(1, 1, ndim=2, width=2, depth=1), styles=())
    assert not {"styles", "style_range"} & {*made.card().entries()}


@pytest.mark.filterwarnings("default")
def test_workers_elsewhere_get_the_styles_that_a_table_tells(tmp_path, monkeypatch):
    from distributed import LocalCluster

    made = styled()
    made.save("e.safetensors")
    np.save("x.npy", field())
    Path("told.csv").write_text("z\n0.5\n")
    inputs = {"x": Files("x.npy"), "z": Told(table="told.csv"), "Om": 0.3}
    job = Job(Path("e.safetensors"), inputs, Path("o.npy"), settings=Settings(tile=4))
    part_of = applying.part_of

    def elsewhere(job, numbers):
        # as a process that was started in another folder
        (tmp_path / "other").mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / "other")
            return part_of(job, numbers)

    monkeypatch.setattr(applying, "part_of", elsewhere)
    with LocalCluster(1, processes=False, dashboard_address=None, threads_per_worker=1) as cluster:
        apply_files(job, scheduler=cluster.scheduler_address)
    alone = made({"x": field(), "z": 0.5, "Om": 0.3})["y"]
    np.testing.assert_allclose(np.load("o.npy"), alone, atol=1e-6)


@pytest.mark.parametrize(("size", "halo"), [(None, "auto"), (4, 8)])
def test_whole_fields_of_the_test_mode_are_those_of_their_styles(size, halo):
    """In tiles, and where a halo was chosen, crop by crop."""
    write_runs()
    made = styled()
    with torch.no_grad():
        data = FieldData(
            PLACES | {"Om": 0.3},
            domain=Domain(2, True),
            crops=Crops(size=size, halo=halo),
            reading=Reading(batch_size=2, threads=0),
        )
        runs = data.open([X], [Y], [Z, OM])
        data.resolve(made.footprint)
        report = assemble(
            made, data.in_order("train"), lambda path: Path(f"{path.stem}_out.npy"),
            nn.MSELoss(), aligned=data.aligned,
        )  # fmt: skip
    losses = []
    for k in range(len(runs)):
        alone = made({"x": field((8, 8), k), "z": k / 2, "Om": 0.3})["y"]
        found = np.load(f"y_{k}_z{k / 2:g}_out.npy")
        np.testing.assert_allclose(found, alone, atol=1e-5)
        losses.append(np.square((alone - np.load(f"y_{k}_z{k / 2:g}.npy")) / 3).mean())
    np.testing.assert_allclose(report["loss"], np.mean(losses), rtol=1e-4)


@pytest.mark.parametrize("modulation", ["weights", "film"])
def test_double_precision_is_that_of_styles_and_inputs_too(modulation):
    made = styled(modulation=modulation)
    x, z, om = field().astype(np.float64) + 1e-9, 1 / 3, 0.1
    wide = torch.from_numpy(np.pad(x, [(0, 0), (8, 8), (8, 8)], mode="wrap"))
    style = torch.tensor([[z, om]], dtype=torch.float64)
    with torch.no_grad():
        expected = copy.deepcopy(made).double()(wide[None], style)[0, :, :12, :8]
    settings = Settings(Running("fp64"))
    found = made.apply({"x": x, "z": z, "Om": om}, settings=settings)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    other = made.apply({"x": x, "z": z + 1e-9, "Om": om}, settings=settings)["y"]
    assert 0 < np.abs(other - found).max() < 1e-6
    assert next(made.parameters()).dtype == torch.float32  # the emulator is as it was


def test_double_precision_goes_from_files_to_files(m2m):
    made, double = styled(), Settings(Running("fp64"))
    made.save("e.safetensors")
    x = field().astype(np.float64) + 1e-9
    np.save("x.npy", x)
    Path("s.csv").write_text("z,Om\n0.1,0.3333333333333333\n")
    styles = ("z=s.csv", "Om=s.csv", "--precision", "fp64")
    told = m2m("apply", "e.safetensors", "x=x.npy", *styles, "--tile", "4", "-o", "y.npy")
    assert told[0] == 0
    given = {"x": x, "Om": 1 / 3}
    expected = made.apply({**given, "z": 0.1}, settings=double)["y"]
    np.testing.assert_allclose(np.load("y.npy"), expected, rtol=1e-12, atol=1e-12)
    slope = made.derivative({**given, "z": 0.1}, "z", settings=double)["y_by_z"]
    low, high = (made.apply({**given, "z": 0.1 + d}, settings=double)["y"] for d in (-1e-6, 1e-6))
    np.testing.assert_allclose(slope, (high - low) / 2e-6, rtol=1e-4, atol=1e-7)


def test_a_style_that_a_norm_does_not_take_is_told_as_it_was_given(m2m):
    norms = {"x": Displacement("z", "Om"), "y": Displacement("z", "Om")}
    made = emulator(UNet(1, 1, ndim=2, width=2, depth=1, style_chan=2), **norms)
    made.save("e.safetensors")
    np.save("x.npy", field())
    status, _, err = m2m("apply", "e.safetensors", "x=x.npy", "z=0", "Om=-0.3", "-o", "y.npy")
    assert status == 2
    assert "not -0.3\n" in err
