"""Maps of saliency: a linear model's are its weights, whatever wraps it."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from map2map import saliency_maps, saliency_outputs
from map2map.commands.saliency import figures
from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.norms import Standardize

SIDE, MEAN, STD = 4, 1.5, 2.0

LINE = '''"""A network that is a sum of weights times inputs."""

import torch
from torch import nn

from map2map.footprints import Footprint


class Line(nn.Module):
    def __init__(self, in_chan, out_chan, side=4):
        super().__init__()
        self.in_chan, self.out_chan, self.side = in_chan, out_chan, side
        shape = (out_chan, in_chan, side, side)
        random = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(shape, generator=random))
        self.footprint = Footprint(margin=0, minimum=side, reduces=True)

    def forward(self, x):
        return torch.einsum("bcyx,ocyx->bo", x, self.weight)
'''
TARGETS = {
    "two": [Field("gravity", "1", "label", 1, classes=("newton", "gr"))],
    "three": [Field("gravity", "1", "label", 3, classes=("newton", "gr", "other"))],
    "parameters": [Field("omega", "1", "parameter", 1), Field("h", "km/s", "parameter", 1)],
    "both": [
        Field("omega", "1", "parameter", 1),
        Field("gravity", "1", "label", 3, classes=("newton", "gr", "other")),
    ],
}
TRUST = ("--trust", "line_model.Line")
CUBES = {
    f"{name}_seed{seed}": np.random.default_rng([k, seed])
    .normal(size=(SIDE, SIDE, SIDE))
    .astype(np.float32)
    for k, name in enumerate(("gr", "newton"))
    for seed in (0, 1)
}


def where(file="data.h5"):
    return f"potential={file}::{{gravity}}_seed{{seed}}"


def write(path, cubes):
    with h5py.File(path, "w") as file:
        for name, values in cubes.items():
            file[name] = values


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Makes an emulator of a kind; two cubes of each of two classes lie beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "line_model.py").write_text(LINE)
    write("data.h5", CUBES)

    def make(kind="two", channels=1, planes=(0, 2), step=2):
        from line_model import Line

        targets = FieldSet(tuple(TARGETS[kind]))
        inputs = FieldSet((Field("potential", "m", "scalar", channels),))
        norms = {"potential": Standardize([MEAN] * channels, [STD] * channels)}
        if kind == "parameters":
            norms["h"] = Standardize([70.0], [5.0])
        domain = Domain(ndim=2, planes=list(planes), plane_step=step)
        model = Line(channels, targets.channels)
        emulator = Emulator(inputs, targets, norms, model, domain).eval()
        emulator.save(tmp_path / "e.safetensors")
        return emulator, model.weight.detach().numpy()

    return make


def normal(values):
    return (values - MEAN) / STD


def run(m2m, *more, file="data.h5"):
    options = (where(file), *TRUST, "-o", "s.nc", "--overwrite", *more)
    status, _, error = m2m("saliency", "e.safetensors", *options)
    assert status == 0, error
    with xr.open_dataset("s.nc", engine="netcdf4") as found:
        return found.load()


def test_the_map_of_a_linear_model_is_its_weight_for_normalized_inputs(lab, m2m):
    """Not divided by the deviation of the norm, which physical inputs would need."""
    _, weight = lab()
    found = run(m2m, "--samples", "1", "2", "9")
    # of each cube: planes 0 and 2 across axis 0, then across axis 2; cubes in the order of names
    wanted = [CUBES["gr_seed0"][2], CUBES["gr_seed0"][:, :, 0], CUBES["newton_seed0"][2]]
    assert found.saliency.dims == ("sample", "channel", "y", "x")
    assert found.sample.values.tolist() == [1, 2, 9]
    np.testing.assert_allclose(found.saliency, np.repeat(weight, 3, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found.input.values[:, 0], wanted)
    logits = [(weight[0, 0] * normal(x)).sum() for x in wanted]
    np.testing.assert_allclose(found.logit, logits, rtol=1e-5)
    np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-np.array(logits))), rtol=1e-5)
    assert found.truth.values.tolist() == ["gr", "gr", "newton"]
    assert found.seed.values.tolist() == ["0", "0", "0"]
    assert found["name"].values[0] == "data.h5:gr_seed0, plane 2 of axis 0"
    assert found.attrs["class"] == "gr"
    assert found.attrs["signed"] == 1
    assert found.saliency.attrs["units"] == "1"
    assert "normalized" in found.saliency.attrs["comment"]
    assert found.channel_units.values.tolist() == ["m"]
    assert json.loads(found.attrs["card"])["targets"][0]["name"] == "gravity"


@pytest.mark.parametrize(("name", "sign"), [("newton", -1), ("gr", 1)])
def test_the_first_of_two_classes_has_the_negative_logit(lab, m2m, name, sign):
    _, weight = lab()
    logit = sign * float((weight[0, 0] * normal(CUBES["gr_seed0"][0])).sum())
    p = 1 / (1 + np.exp(-logit))
    found = run(m2m, "--class", name)
    np.testing.assert_allclose(found.saliency[0], sign * weight[0], rtol=1e-6)
    assert float(found.logit[0]) == pytest.approx(logit, rel=1e-5)
    assert float(found.probability[0]) == pytest.approx(p, rel=1e-5)
    score = run(m2m, "--class", name, "--of", "score")
    np.testing.assert_allclose(score.saliency[0], sign * weight[0] * p * (1 - p), rtol=1e-4)
    size = run(m2m, "--class", name, "--absolute")
    np.testing.assert_allclose(size.saliency[0], abs(weight[0]), rtol=1e-6)
    assert size.attrs["signed"] == 0


@pytest.mark.parametrize("kind", ["three", "both"])
def test_a_class_of_several_is_told_from_other_outputs(lab, m2m, kind):
    _, weight = lab(kind)
    weight = weight[-3:, 0]
    found = run(m2m, "--class", "other")
    np.testing.assert_allclose(found.saliency[0, 0], weight[2], rtol=1e-6)
    logits = (weight * normal(CUBES["gr_seed0"][0])).sum(axis=(1, 2))
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert float(found.probability[0]) == pytest.approx(p[2], rel=1e-4)
    score = run(m2m, "--class", "other", "--of", "score")
    expected = p[2] * (weight[2] - np.einsum("o,oyx->yx", p, weight))
    np.testing.assert_allclose(score.saliency[0, 0], expected, rtol=1e-3, atol=1e-6)


def test_parameters_are_given_in_their_units_and_their_maps_normalized(lab, m2m):
    _, weight = lab("parameters")
    found = run(m2m, "--target", "h", "--samples", "0")
    np.testing.assert_allclose(found.saliency[0], weight[1], rtol=1e-6)
    value = 70 + 5 * (weight[1, 0] * normal(CUBES["gr_seed0"][0])).sum()
    assert float(found.output[0]) == pytest.approx(value, rel=1e-5)
    assert found.output.attrs["units"] == "km/s"
    assert found.attrs["of"] == "value"
    # nothing in the files tells it
    assert "truth" not in found


@pytest.mark.parametrize("method", ["smooth", "integrated"])
def test_other_methods_give_what_a_linear_model_has(lab, m2m, method):
    _, weight = lab()
    found = run(m2m, "--method", method, "--copies", "3", "--steps", "5", "--samples", "0")
    x = normal(CUBES["gr_seed0"][0]) if method == "integrated" else 1
    np.testing.assert_allclose(found.saliency[0, 0], weight[0, 0] * x, rtol=1e-5)
    assert found.attrs["method"] == method
    if method == "integrated":
        assert float(found.saliency.sum()) == pytest.approx(float(found.logit[0]), rel=1e-5)


def test_a_cube_is_the_sum_of_all_of_its_planes_across_the_domains_axes(lab, m2m):
    _, weight = lab()
    found = run(m2m, "--cube", "--samples", "2", "0", "--batch", "3")
    assert found.saliency.dims == ("run", "channel", "z", "y", "x")
    w = weight[0, 0]
    # planes of axis 0 are (y, x), of axis 2 (z, y); every one counts, whatever the step
    expected = np.zeros((SIDE,) * 3) + w[None] + w[:, :, None]
    np.testing.assert_allclose(found.saliency.values[0, 0], expected, rtol=1e-5)
    for k, name in enumerate(["newton_seed0", "gr_seed0"]):
        values = normal(CUBES[name])
        np.testing.assert_array_equal(found.input.values[k, 0], CUBES[name])
        outputs = [(w * values[i]).sum() for i in range(SIDE)]
        outputs += [(w * values[:, :, i]).sum() for i in range(SIDE)]
        assert float(found.logit[k]) == pytest.approx(np.mean(outputs), rel=1e-5)
    assert found.truth.values.tolist() == ["newton", "gr"]
    assert found["name"].values.tolist() == ["data.h5:newton_seed0", "data.h5:gr_seed0"]
    negative = run(m2m, "--cube", "--samples", "2", "--class", "newton")
    np.testing.assert_allclose(negative.saliency.values[0, 0], -expected, rtol=1e-5)
    size = run(m2m, "--cube", "--samples", "2", "--absolute")
    np.testing.assert_allclose(size.saliency.values[0, 0], abs(expected), rtol=1e-5)


def test_a_cube_of_one_label_among_other_outputs(lab, m2m):
    _, weight = lab("both", planes=(1,))
    found = run(m2m, "--cube", "--samples", "0", "--class", "gr", "--of", "score")
    w, values = weight[1:, 0], normal(CUBES["gr_seed0"])
    logits = np.einsum("ozx,zyx->yo", w, values)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope = p[:, 1, None, None] * (w[1] - np.einsum("yo,ozx->yzx", p, w))
    np.testing.assert_allclose(
        found.saliency.values[0, 0], slope.transpose(1, 0, 2), rtol=1e-3, atol=1e-6
    )
    mean = np.exp(logits.mean(axis=0))
    assert float(found.probability[0]) == pytest.approx(mean[1] / mean.sum(), rel=1e-4)


def test_by_default_it_is_of_the_first_sample_of_each_run_up_to_eight(lab, m2m):
    lab()
    found = run(m2m)
    assert found.sample.values.tolist() == [0, 4, 8, 12]
    assert run(m2m, "--only", "gravity=newton").sample.values.tolist() == [0, 4]
    write("ten.h5", CUBES | {f"gr_seed{seed}": CUBES["gr_seed0"] for seed in range(2, 8)})
    assert run(m2m, file="ten.h5").sample.values.tolist() == [4 * k for k in range(8)]
    assert run(m2m, "--cube", file="ten.h5").run.values.tolist() == list(range(8))


def test_what_is_not_there_is_refused_by_name(lab, m2m):
    lab("three")

    def refused(*more, file="data.h5"):
        options = (where(file), *TRUST, "-o", "r.nc", *more)
        status, _, error = m2m("saliency", "e.safetensors", *options)
        assert status == 2
        assert not list(Path().glob("r.nc"))
        return error

    gr = ("--class", "gr")
    assert "'gravity' is one of newton, gr, other; choose a class" in refused()
    assert "no class 'grr'; did you mean 'gr'" in refused("--class", "grr")
    assert "no target 'gravitty'; did you mean 'gravity'" in refused("--target", "gravitty")
    assert "no method 'smoth'; did you mean 'smooth'" in refused(*gr, "--method", "smoth")
    assert "no sample 16; there are 16, from 0" in refused(*gr, "--samples", "3", "16")
    assert "no sample -1" in refused(*gr, "--samples", "-1")
    assert "no run 4; there are 4, from 0" in refused(*gr, "--cube", "--samples", "4")
    assert "each once" in refused(*gr, "--samples", "1", "1")
    assert "not of the method 'smooth'" in refused(*gr, "--cube", "--method", "smooth")
    assert "NAME.png" in refused(*gr, "--figure", "a.doc")
    holed = CUBES["gr_seed0"].copy()
    holed[0, 0, 0] = np.nan
    write("nan.h5", CUBES | {"gr_seed0": holed})
    assert "1 NaN" in refused(*gr, file="nan.h5")
    assert "1 NaN" in refused(*gr, "--cube", file="nan.h5")
    lab("both")
    assert "gives omega, gravity; choose one" in refused()
    assert "'omega' is a parameter and has no class 'gr'" in refused("--target", "omega", *gr)
    assert "'omega' is a parameter" in refused("--target", "omega", "--of", "score")


def test_emulators_of_fields_and_runs_that_are_no_planes_are_refused(lab):
    emulator, _ = lab()
    fields = FieldSet((Field("density", "1", "scalar", 1),))
    emulator.targets = fields
    with pytest.raises(GeometryError, match="gives fields, density; saliency is of labels"):
        saliency_outputs.chosen(emulator)
    emulator, _ = lab()
    output = saliency_outputs.chosen(emulator)
    with pytest.raises(RecipeError, match="logit or score, not of 'odds'"):
        saliency_outputs.How(output, of="odds")
    domain = type("Runs", (), {"domain": replace(emulator.domain, planes=None)})
    with pytest.raises(GeometryError, match="leave out --cube"):
        saliency_maps.of_cubes(emulator, domain, [0], saliency_outputs.How(output))


def test_figures_have_names_of_what_they_show(lab, m2m, tmp_path):
    lab()
    run(m2m, "--samples", "3", "--figure", "one.png")
    run(m2m, "--samples", "3", "7", "--figure", "two.png")
    run(m2m, "--cube", "--samples", "1", "--figure", "cube.svg")
    names = {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".svg")}
    cubes = {f"cube-1-{axis}2.svg" for axis in "zyx"}
    assert names == {"one.png", "two-3.png", "two-7.png", *cubes}
    options = (where(), *TRUST, "-o", "new.nc", "--samples", "3", "--figure", "one.png")
    status, _, error = m2m("saliency", "e.safetensors", *options)
    assert status == 2
    assert "one.png exists already" in error
    assert not (tmp_path / "new.nc").exists()


def test_a_figure_is_of_the_plane_that_its_name_tells(lab, m2m):
    from map2map.commands.saliency import draw

    lab()
    found = run(m2m, "--cube", "--samples", "0", "1", "--absolute")
    plans = figures(Path("f.png"), [0, 1], ["potential"], (SIDE,) * 3)
    shown = plans[Path("f-1-y2.png")]
    figure = draw(found, shown)
    image, values = (axis.images[0].get_array() for axis in figure.axes[:2])
    np.testing.assert_array_equal(image, found.input.values[1, 0, :, 2])
    np.testing.assert_array_equal(values, found.saliency.values[1, 0, :, 2])
    assert figure.get_suptitle() == (
        f"data.h5:gr_seed1, y = 2; probability of gr: {float(found.probability[1]):.3f}; truth: gr"
    )
    with pytest.raises(GeometryError, match="one axis"):
        figures(Path("f.png"), [0], ["a"], (5,))
    several = figures(Path("f.png"), [4], ["a", "b"], (5, 5))
    assert [path.name for path in several] == ["f-4-a.png", "f-4-b.png"]


def test_help_shows_an_example(m2m):
    status, out, _ = m2m("saliency", "--help")
    assert status == 0
    assert "m2m saliency emulator.safetensors" in out


def test_the_network_is_left_as_it_was(lab, m2m):
    emulator, _ = lab()
    from map2map.commands.evaluate_runs import open_told

    runs = open_told(emulator, [where()], [])
    how = saliency_outputs.How(saliency_outputs.chosen(emulator))
    saliency_maps.of_samples(emulator, runs, [0], how)
    assert all(weight.requires_grad and weight.grad is None for weight in emulator.parameters())
    assert not emulator.training
    assert torch.is_grad_enabled()
