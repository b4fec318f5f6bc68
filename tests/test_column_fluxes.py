"""Fluxes and heating rates by a network: the law between them, what each form means, the loss."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.footprints import measure
from map2map.grids import Domain
from map2map.losses import WeightedMSE
from map2map.models import ColumnFluxes, Profile

THEIRS = runpy.run_path(str(Path(__file__).with_name("ai4sim_networks.py")))
C = 843.9188844621514
HALF, COLUMNS = 9, 6
INPUTS = [Profile(HALF, 2, level_first=True), Profile(1)]
OWN = 2 * HALF + 1
IN, OUT = OWN + HALF + 2, 2 * (3 * HALF - 1)
SMALL = {"inputs": INPUTS, "options": {"width": 8, "levels": 2}}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(**changes):
    torch.manual_seed(3)
    return ColumnFluxes(IN, OUT, **SMALL | changes).double().eval()


def columns(seed=0):
    """Inputs, pressures [Pa], cosines of the sun's angle and irradiances; the first is at night."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(COLUMNS, OWN))
    pressure = np.cumsum(rng.uniform(1000, 20000, size=(COLUMNS, HALF)), axis=1)
    sun = np.stack([rng.uniform(0.1, 1, COLUMNS), np.full(COLUMNS, 1400.0)], axis=1)
    sun[0, 0] = 0
    return own, pressure, sun


def run(model, own, pressure, sun):
    x = torch.from_numpy(np.concatenate([own, pressure, sun], axis=1))[:, :, None]
    with torch.no_grad():
        return model(x)[:, :, 0].numpy(), model.columns(x[:, :OWN])[:, :, 0].numpy()


def parts(y):
    """Down, up and heating rates of both bands."""
    fluxes = y[:, : 4 * HALF].reshape(COLUMNS, 2, 2, HALF)
    rates = y[:, 4 * HALF :].reshape(COLUMNS, 2, HALF - 1)
    return fluxes[:, :, 0], fluxes[:, :, 1], rates


@pytest.mark.parametrize("form", ["layers", "fluxes"])
def test_heating_rates_follow_from_fluxes(form):
    own, pressure, sun = columns()
    down, up, rates = parts(run(made(form=form), own, pressure, sun)[0])
    # not what biases alone give
    assert np.ptp(rates[1:] / sun[1:, :1, None], axis=0).min(axis=1).max() > 1e-4
    for c in range(COLUMNS):
        for band in range(2):
            for k in range(HALF - 1):
                above, below = (down[c, band, j] - up[c, band, j] for j in (k, k + 1))
                wanted = -C * (below - above) / (pressure[c, k + 1] - pressure[c, k])
                assert rates[c, band, k] == pytest.approx(wanted, rel=1e-8, abs=1e-10)


def test_layers_add_up_from_the_top_and_from_the_surface():
    model = made(typical_flux=[10.0, 3.0], typical_rate=[0.1, 0.2])
    own, pressure, sun = columns()
    y, inner = run(model, own, pressure, sun)
    down, up, rates = parts(y)
    inner = inner.reshape(COLUMNS, 2, 2, HALF)
    for c in range(COLUMNS):
        for band, (flux, rate) in enumerate([(10.0, 0.1), (3.0, 0.2)]):
            light = sun[c].prod() / 1361 if band == 0 else 1.0
            heating, second = inner[c, band] * light
            assert down[c, band, 0] == 0
            assert up[c, band, -1] == pytest.approx(second[0] * flux, rel=1e-6)
            for k in range(HALF - 1):
                mass = pressure[c, k + 1] - pressure[c, k]
                mean = (pressure[c, -1] - pressure[c, 0]) / (HALF - 1)
                half = heating[k + 1] * rate * mass / (2 * C)
                sent = second[k + 1] * 0.1 * flux * mass / mean
                assert rates[c, band, k] == pytest.approx(heating[k + 1] * rate, rel=1e-6)
                after = down[c, band, k] - sent - half
                assert down[c, band, k + 1] == pytest.approx(after, rel=1e-6, abs=1e-9)
                after = up[c, band, k + 1] + sent - half
                assert up[c, band, k] == pytest.approx(after, rel=1e-6, abs=1e-9)


def test_fluxes_are_of_their_difference_and_sum():
    own, pressure, sun = columns()
    y, inner = run(made(form="fluxes"), own, pressure, sun)
    down, up, _ = parts(y)
    inner = inner.reshape(COLUMNS, 2, 2, HALF)
    np.testing.assert_allclose((down - up)[:, 1], inner[:, 1, 0] * 3, rtol=1e-6)
    np.testing.assert_allclose((down + up)[:, 1], inner[:, 1, 1] * 3, rtol=1e-6)
    light = sun.prod(axis=1, keepdims=True) / 1361
    np.testing.assert_allclose((down + up)[:, 0], light * inner[:, 0, 1] * 10, rtol=1e-6)


@pytest.mark.parametrize("form", ["layers", "fluxes"])
def test_at_night_there_is_no_sunlight(form):
    own, pressure, sun = columns()
    down, up, rates = parts(run(made(form=form), own, pressure, sun)[0])
    for values in (down, up, rates):
        assert (values[0, 0] == 0).all()
        assert (values[0, 1, 1:] != 0).all()
        assert (values[1:, 0, 1:] != 0).all()


def test_without_what_tells_of_sunlight_there_is_always_as_much():
    model = ColumnFluxes(IN - 2, OUT, **SMALL, sunlit=0).double().eval()
    own, pressure, _ = columns()
    with torch.no_grad():
        x = torch.from_numpy(np.concatenate([own, pressure], axis=1))[:, :, None]
        down, _, _ = parts(model(x)[:, :, 0].numpy())
    assert (down[0, 0, 1:] != 0).all()


def test_without_numbers_for_sunlight_the_sun_is_overhead():
    alone, seen = ColumnFluxes(IN - 2, OUT, **SMALL).double().eval(), made()
    alone.load_state_dict(seen.state_dict())
    own, pressure, sun = columns()
    sun[:] = (1.0, 1361.0)
    x = torch.from_numpy(np.concatenate([own, pressure, sun], axis=1))[:, :, None]
    with torch.no_grad():
        torch.testing.assert_close(alone(x[:, :-2]), seen(x))


def test_with_attention_it_has_as_many_parameters_as_described():
    profiles = [
        Profile(138, 2, level_first=True),
        Profile(136, 1, above=1, below=1),
        Profile(137, 27, above=1, level_first=True),
        Profile(1, 17),
    ]
    own = sum(profile.channels for profile in profiles)
    model = ColumnFluxes(
        own + 138, 2 * 413, inputs=profiles, network="ColumnAttention", options={}, form="fluxes"
    )
    assert THEIRS["count"](model) == 1_065_360


def test_it_is_a_model_of_single_columns_that_an_emulator_keeps(tmp_path):
    assert measure(made(), IN, 1).margin == 0
    fields = [Field(n, "1", "scalar", c) for n, c in (("x", OWN), ("p", HALF), ("sun", 2))]
    targets = [Field("fluxes", "W m-2", "scalar", 4 * HALF), Field("hr", "K d-1", "scalar", 16)]
    sets = FieldSet(tuple(fields)), FieldSet(tuple(targets))
    emulator = Emulator(*sets, {}, made().float(), Domain(ndim=1)).eval()
    emulator.save(tmp_path / "e.safetensors")
    again = Emulator.load(tmp_path / "e.safetensors").eval()
    x = torch.from_numpy(np.concatenate(columns(), axis=1)).float()[:, :, None]
    with torch.no_grad():
        assert torch.equal(again(x), emulator(x))
        # columns on a plane, and memory that is counted without computing
        plane = ColumnFluxes(IN, OUT, ndim=2, **SMALL).eval()
        plane.load_state_dict(emulator.model.state_dict())
        got = plane(x.reshape(2, 3, IN, 1).movedim(2, 1))
        flat = emulator.model(x).reshape(2, 3, OUT, 1).movedim(2, 1)
        torch.testing.assert_close(got, flat)
    applied = again({"x": x[:, :OWN, 0].T, "p": x[:, OWN:-2, 0].T, "sun": x[:, -2:, 0].T})
    torch.testing.assert_close(applied["hr"], emulator.model(x)[:, -16:, 0].T.detach())


def test_it_learns_fluxes_and_heating_rates_together():
    own, pressure, sun = columns()
    x = torch.from_numpy(np.concatenate([own, pressure, sun], axis=1)).float()[:, :, None]
    wanted = torch.from_numpy(run(made(), own, pressure, sun)[0])
    torch.manual_seed(1)
    model = ColumnFluxes(IN, OUT, **SMALL)
    loss = WeightedMSE({"flux": 1.0, "hr": 100.0}, channels=[4 * HALF, 2 * (HALF - 1)])
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(loss(model(x), wanted[:, :, None].float()))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "ColumnUnet"}, "'ColumnUnet', no network of columns.*ColumnUNet"),
        ({"network": "UNet"}, "no network of columns"),
        ({"form": "layer"}, "`form` is 'layer'"),
        ({"options": {"widht": 3}}, "ColumnUNet cannot be made with .*widht"),
        ({"typical_flux": [1.0]}, "a number above 0 for each of 2"),
        ({"typical_rate": [1.0, -1.0]}, "a number above 0 for each of 2"),
        ({"sunlit": 3}, "of which 3 can be `sunlit`"),
        ({"bands": 1, "typical_flux": [1.0], "typical_rate": [1.0]}, "are 26 channels"),
        ({"inputs": [Profile(30)]}, "are 178 channels"),
    ],
)
def test_what_does_not_fit_is_told(changes, message):
    with pytest.raises(RecipeError, match=message):
        ColumnFluxes(IN, OUT, **SMALL | changes)


def test_layers_of_no_mass_are_told():
    own, pressure, sun = columns()
    pressure[2, 4] = pressure[2, 3]
    with pytest.raises(GeometryError, match="half levels 3 and 4"):
        run(made(form="fluxes"), own, pressure, sun)


WEIGHTS = {"down": 2.0, "up": 0.5, "hr": 30.0}


def of_loop(output, target, weights, sizes):
    """Field by field, number by number."""
    total, first = 0.0, 0
    for name, size in sizes.items():
        errors = [
            (float(output[b, first + c, i]) - float(target[b, first + c, i])) ** 2
            for b in range(output.shape[0])
            for c in range(size)
            for i in range(output.shape[2])
        ]
        total += weights[name] * sum(errors) / len(errors)
        first += size
    return total


def test_the_loss_weighs_fields_as_a_loop_does():
    rng = np.random.default_rng(0)
    sizes = {"down": 4, "up": 4, "hr": 3}
    output, target = (torch.from_numpy(rng.normal(size=(5, 11, 2))) for _ in range(2))
    loss = WeightedMSE(WEIGHTS)
    fields = [Field(name, "1", "scalar", n) for name, n in sizes.items()]
    loss.take_fields(FieldSet(tuple(fields)))
    wanted = of_loop(output, target, WEIGHTS, sizes)
    assert float(loss(output, target)) == pytest.approx(wanted, rel=1e-12)
    same = WeightedMSE(WEIGHTS, channels=[4, 4, 3])
    assert float(same(output, target)) == pytest.approx(wanted, rel=1e-12)
    assert same(output.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_the_losses_of_differences_and_sums_are_those_of_fluxes_with_other_weights():
    """AI4SIM's two: means over all fluxes and all rates; 1e3 and 1e4 times sums."""
    rng = np.random.default_rng(0)
    output, target = (rng.normal(size=(5, 4 * 6 + 2 * 5)) for _ in range(2))
    sides = []
    for y in (output, target):
        down_sw, up_sw, down_lw, up_lw = (y[:, 6 * i : 6 * i + 6] for i in range(4))
        sides.append(
            (
                [down_sw - up_sw, down_sw + up_sw, down_lw - up_lw, down_lw + up_lw],
                [y[:, 24:29], y[:, 29:]],
            )
        )
    (fluxes, rates), (true_fluxes, true_rates) = sides
    of_fluxes = [np.mean((p - t) ** 2) for p, t in zip(fluxes, true_fluxes, strict=True)]
    of_rates = [np.mean((p - t) ** 2) for p, t in zip(rates, true_rates, strict=True)]
    names, channels = ["a", "b", "c", "d", "sw", "lw"], [6, 6, 6, 6, 5, 5]
    for each_flux, each_rate, wanted in (
        (0.7 / 2, 0.3 / 2, 0.7 * np.mean(of_fluxes) + 0.3 * np.mean(of_rates)),
        (2000.0, 10_000.0, 1e3 * sum(of_fluxes) + 1e4 * sum(of_rates)),
    ):
        weights = dict(zip(names, [each_flux] * 4 + [each_rate] * 2, strict=True))
        loss = WeightedMSE(weights, channels=channels)
        found = loss(*(torch.from_numpy(y)[:, :, None] for y in (output, target)))
        assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_weights_that_do_not_fit_are_told():
    with pytest.raises(RecipeError, match=r"0 or more.*\{'a': -1\}"):
        WeightedMSE({"a": -1})
    with pytest.raises(RecipeError, match="2 numbers, but there are weights of 1 fields"):
        WeightedMSE({"a": 1}, channels=[1, 2])
    loss, x = WeightedMSE({"a": 1}), torch.zeros(1, 2, 3)
    with pytest.raises(RecipeError, match="does not know which channels"):
        loss(x, x)
    with pytest.raises(RecipeError, match="weighs 'a', which is no target"):
        loss.take_fields(FieldSet((Field("b", "1", "scalar", 1),)))
    with pytest.raises(RecipeError, match="no weight for b"):
        loss.take_fields(FieldSet((Field("a", "1", "scalar", 1), Field("b", "1", "scalar", 1))))
    loss.take_fields(FieldSet((Field("a", "1", "scalar", 1),)))
    with pytest.raises(GeometryError, match="but the weights are of 1 channels"):
        loss(x, x)
    with pytest.raises(GeometryError, match="the target"):
        loss(x, x[:, :1])
