"""Losses of transformed fields, against loops over cells and modes in double precision."""

import math
import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from map2map.emulator import Emulator
from map2map.errors import GeometryError, RecipeError
from map2map.footprints import Footprint
from map2map.losses import (
    Derivatives,
    Dice,
    EnergyScore,
    GaussianNLL,
    LagrangianEulerian,
    LogDensity,
    PowerSpectrum,
    WeightedSum,
)
from map2map.masked_losses import masked_loss
from map2map.norms import Scale
from map2map.physics.binned_power import binned_power, hann
from map2map.physics.spectra import power_spectrum

MADE = runpy.run_path(str(Path(__file__).with_name("made_losses.py")))
emulator_of, told = MADE["emulator_of"], MADE["told"]


def drawn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def cloud_in_cell(displacement, spacing, scale, pad, periodic, mass):
    """Density of one sample by loops over particles and the cells around each, (*mesh)."""
    ndim, space = len(displacement), displacement.shape[1:]
    pads = [0 if p else pad for p in periodic]
    mesh = [scale * n + 2 * p for n, p in zip(space, pads, strict=True)]
    found = np.zeros(mesh)
    for cell in np.ndindex(*space):
        place = [
            (cell[i] + displacement[i][cell] / spacing[i]) * scale + pads[i] for i in range(ndim)
        ]
        for corner in product((0, 1), repeat=ndim):
            share, where = float(mass[cell]), []
            for i, side in enumerate(corner):
                index = math.floor(place[i]) + side
                share *= 1 - abs(place[i] - index)
                if periodic[i]:
                    index %= mesh[i]
                elif not 0 <= index < mesh[i]:
                    share = 0.0
                where.append(index if share else 0)
            found[tuple(where)] += share
    return found * scale**ndim


CROPS = {
    "3-D box, finer": ((4, 3, 5), (4, 3, 5), 2, 0, (True, True, True)),
    "2-D crop with a margin": ((5, 4), (9, 9), 1, 2, (True, True)),
    "one axis whole": ((5, 4), (9, 4), 3, 1, (True, True)),
    "1-D with edges": ((6,), (6,), 1, 1, (False,)),
}


@pytest.mark.parametrize("case", CROPS)
@pytest.mark.parametrize("form", ["log", "sum"])
def test_lagrangian_and_eulerian_terms_are_those_of_loops_over_particles(case, form):
    space, whole, scale, pad, around = CROPS[case]
    ndim = len(space)
    spacing = [0.5, 0.8, 1.1][:ndim]
    loss = LagrangianEulerian("psi", lag=3.0, eul=0.7, form=form, scale=scale, pad=pad)
    targets = {"other": 1, "psi": ndim}
    norms = {"psi": Scale(2.5)}
    told(loss, targets, whole, norms=norms, spacing=spacing, periodic=list(around))
    output, target = (drawn(2, 1 + ndim, *space, seed=s, scale=0.4) for s in (1, 2))
    # the Lagrangian term is of normalized values of the displacement alone
    lag = float(((output - target)[:, 1:] ** 2).mean())
    periodic = [p and n == m for p, n, m in zip(around, space, whole, strict=True)]
    squares = []
    for one, true in zip(output, target, strict=True):
        sides = [2.5 * side[1:].numpy() for side in (one, true)]
        mean = np.mean([side.reshape(ndim, -1).mean(1) for side in sides], axis=0)
        sides = [side - mean.reshape(-1, *(1,) * ndim) for side in sides]
        found = [
            cloud_in_cell(side, spacing, scale, pad, periodic, np.ones(space)) for side in sides
        ]
        squares.append((found[0] - found[1]) ** 2)
    eul = float(np.mean(squares))
    expected = 3 * lag + 0.7 * eul if form == "sum" else 3 * math.log(lag) + 0.7 * math.log(eul)
    torch.testing.assert_close(float(loss(output, target)), expected)
    assert {k: round(float(v), 9) for k, v in loss.told.items()} == {
        "lag": round(lag, 9),
        "eul": round(eul, 9),
    }


def test_a_shift_that_output_and_target_share_keeps_matter_in_the_crop():
    loss = told(LagrangianEulerian(form="sum", lag=0), {"psi": 2}, (40, 40))
    output, target = (drawn(1, 2, 6, 6, seed=s, scale=0.3) for s in (1, 2))
    moved = loss(output + 30.0, target + 30.0)
    torch.testing.assert_close(moved, loss(output, target))
    # one that only the output has is an error
    assert loss(target + 0.5, target) > 0.01
    left = told(LagrangianEulerian(form="sum", lag=0, remove_mean=False), {"psi": 2}, (40, 40))
    assert left(output + 30.0, target + 30.0) == 0
    # and carries no gradient
    mean = (output + target).mean((2, 3), keepdim=True) / 2
    (found,) = torch.autograd.grad(loss(moved := output.clone().requires_grad_(), target), moved)
    (expected,) = torch.autograd.grad(left(moved - mean, target - mean), moved)
    torch.testing.assert_close(found, expected)


def test_momentum_is_what_cells_carry_along():
    loss = LagrangianEulerian("psi", carried="v", form="sum", lag=0)
    told(loss, {"psi": 1, "v": 1}, (6,), norms={"v": Scale(4.0)})
    output, target = (drawn(1, 2, 6, seed=s) for s in (1, 2))
    sides = []
    for values in (output[0].numpy(), target[0].numpy()):
        mean = (output[0, 0].mean() + target[0, 0].mean()).item() / 2
        sides.append(cloud_in_cell(values[:1] - mean, [1.0], 1, 0, [True], 4 * values[1]))
    torch.testing.assert_close(
        float(loss(output, target)), float(np.mean((sides[0] - sides[1]) ** 2))
    )


def test_cells_that_are_not_known_are_carried_by_neither_side():
    loss = told(LagrangianEulerian(form="sum", lag=0), {"psi": 1}, (6,))
    output, target = (drawn(1, 1, 6, seed=s) for s in (1, 2))
    holed = target.clone()
    holed[0, 0, 3] = torch.nan
    known = np.array([1, 1, 1, 0, 1, 1.0])
    each = [side[0].numpy() for side in (output, target)]
    mean = np.mean([(side[0] * known).sum() / 5 for side in each])
    found = [cloud_in_cell(side - mean, [1.0], 1, 0, [True], known) for side in each]
    expected = float(np.mean((found[0] - found[1]) ** 2))
    torch.testing.assert_close(float(masked_loss(loss, output, holed)), expected)


def naive_power(values, sizes):
    """Power in bins of one channel, by a sum over cells for every mode."""
    space = values.shape
    fundamental = 2 * np.pi / max(n * s for n, s in zip(space, sizes, strict=True))
    count = int(np.pi / max(sizes) / fundamental + 1e-6)
    sums, modes = np.zeros(count), np.zeros(count)
    cells = list(np.ndindex(*space))
    for wave in cells:
        signed = [m - n if m > n // 2 else m for m, n in zip(wave, space, strict=True)]
        k = math.sqrt(
            sum(
                (2 * np.pi * m / (n * s)) ** 2 for m, n, s in zip(signed, space, sizes, strict=True)
            )
        )
        b = math.ceil(k / fundamental - 1e-9)
        if 1 <= b <= count:
            phases = [
                -2j * np.pi * sum(m * c / n for m, c, n in zip(wave, cell, space, strict=True))
                for cell in cells
            ]
            total = sum(values[c] * np.exp(p) for c, p in zip(cells, phases, strict=True))
            sums[b - 1] += abs(total) ** 2
            modes[b - 1] += 1
    return sums / modes * math.prod(sizes) / math.prod(space)


@pytest.mark.parametrize(
    ("space", "sizes"), [((9,), [0.5]), ((6, 8), [1.0, 1.5]), ((4, 5, 4), [2.0] * 3)]
)
def test_binned_power_is_that_of_a_sum_over_cells_and_of_physics_spectra(space, sizes):
    field = drawn(1, 2, *space)
    found = binned_power(field, sizes)[0].numpy()
    for channel in range(2):
        values = field[0, channel].numpy()
        np.testing.assert_allclose(found[channel], naive_power(values, sizes), rtol=1e-9)
        np.testing.assert_allclose(found[channel], power_spectrum(values, sizes)[1], rtol=1e-9)


def test_white_noise_has_its_power_through_a_taper():
    noise = drawn(400, 1, 24, scale=3.0)
    power = binned_power(noise, 0.5, hann((24,), (False,))).mean(dim=(0, 1))
    np.testing.assert_allclose(power[2:], 9 * 0.5, rtol=0.15)


@pytest.mark.parametrize("form", ["log", "ratio"])
def test_the_power_spectrum_loss_is_that_of_naive_spectra(form):
    loss = PowerSpectrum("b", form=form, floor=1e-3, upto=0.7)
    sizes = [1.0, 1.5]
    told(loss, {"a": 1, "b": 2}, (6, 8), norms={"b": Scale(3.0)}, spacing=sizes)
    output, target = (drawn(2, 3, 6, 8, seed=s) for s in (1, 2))
    target[1] = 0.1 * target[1]  # the floor is of the batch, not of the sample
    terms, powers = [], {}
    for sample, channel in product(range(2), (1, 2)):
        powers[sample, channel] = [
            naive_power(3 * x[sample, channel].numpy(), sizes) for x in (output, target)
        ]
    for (_, channel), (out, true) in powers.items():
        floor = 1e-3 * np.mean([powers[sample, channel][1] for sample in range(2)])
        bins = int(len(true) * 0.7)
        for p, q in zip(out[:bins], true[:bins], strict=True):
            ratio = (p - q) / (q + floor)
            terms.append(math.log((p + floor) / (q + floor)) ** 2 if form == "log" else ratio**2)
    torch.testing.assert_close(float(loss(output, target)), float(np.mean(terms)))


def test_phases_do_not_count_and_empty_bins_do_not_either():
    loss = told(PowerSpectrum(), {"a": 1}, (16,))
    x = torch.arange(16.0, dtype=torch.float64)[None, None]
    wave = torch.sin(2 * math.pi * 3 * x / 16)
    shifted = torch.sin(2 * math.pi * 3 * x / 16 + 1)
    assert loss(shifted, wave) < 1e-12
    # power where the truth has none but rounding, far below the floor
    assert loss(wave + 1e-6 * torch.sin(2 * math.pi * 5 * x / 16), wave) < 1e-6
    assert loss(2 * wave, wave) > 0.1


@pytest.mark.parametrize("form", ["log", "ratio"])
@pytest.mark.parametrize("empty", ["all", "a sample"])
def test_targets_without_any_power_give_moderate_losses_and_finite_gradients(form, empty):
    loss = told(PowerSpectrum(form=form), {"a": 1}, (6, 8))
    output, target = (drawn(2, 1, 6, 8, seed=s).float() for s in (1, 2))
    target[slice(None) if empty == "all" else 0] = 0
    output.requires_grad_()
    value = loss(output, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(output.grad).all()
    if form == "log":
        # e is 1e-6, so that it is about log(1e6)^2 at most
        assert float(value.detach()) < 400


@pytest.mark.parametrize("of", ["gradient", "divergence"])
@pytest.mark.parametrize("target", [0.0, 3.0])
def test_derivatives_of_a_target_without_any_are_errors_in_its_units(of, target):
    loss = told(Derivatives(of=of), {"a": 2}, (6, 8), periodic=False)
    output, truth = drawn(2, 2, 6, 8).float(), torch.full((2, 2, 6, 8), target)
    output.requires_grad_()
    value = loss(output, truth)
    value.backward()
    assert 1e-3 < float(value.detach()) < 1e3
    assert torch.isfinite(output.grad).all()


def test_a_crop_is_tapered_so_that_a_trend_is_no_power_at_all_wavenumbers():
    trend = torch.linspace(-3, 3, 32, dtype=torch.float64)[None, None]
    small = 0.1 * drawn(1, 1, 32)
    crop = told(PowerSpectrum(upto=1.0), {"a": 1}, (64,))
    box = told(PowerSpectrum(upto=1.0), {"a": 1}, (32,))
    # a jump hides that the output lacks what is small
    assert crop(trend, trend + small) > 5 * box(trend, trend + small)


@pytest.mark.parametrize("of", ["gradient", "divergence"])
@pytest.mark.parametrize("periodic", [(True, False), (False, False), (True, True)])
def test_derivatives_are_differences_of_cells_that_are_there(of, periodic):
    space, sizes = (4, 5), (0.5, 2.0)
    how = {"norms": {"u": Scale(3.0)}, "spacing": list(sizes), "periodic": list(periodic)}
    loss = told(Derivatives("u", of=of), {"s": 1, "u": 2}, space, **how)
    exact = told(Derivatives("u", of=of, absolute=True), {"s": 1, "u": 2}, space, **how)
    output, target = (drawn(2, 3, *space, seed=s) for s in (1, 2))
    holed = target.clone()
    holed[1, 2, 2, 3] = torch.nan
    error = 3 * (output - holed)[:, 1:].numpy()
    slopes = {}
    for kind, values in (("error", error), ("truth", 3 * holed[:, 1:].numpy())):
        slopes[kind] = list(slopes_of(values, sizes, periodic))
    wrong = slopes["error"] if of == "gradient" else list(divergences(error, sizes, periodic))
    expected = np.mean([w**2 for w in wrong if not math.isnan(w)])
    scale = np.mean([w**2 for w in slopes["truth"] if not math.isnan(w)])
    torch.testing.assert_close(float(masked_loss(exact, output, holed)), float(expected))
    torch.testing.assert_close(float(masked_loss(loss, output, holed)), float(expected / scale))


def neighbor(cell, axis, step, space, periodic):
    moved = list(cell)
    moved[axis] += step
    if periodic[axis]:
        moved[axis] %= space[axis]
    return tuple(moved) if 0 <= moved[axis] < space[axis] else None


def slopes_of(values, sizes, periodic):
    space = values.shape[2:]
    for sample, channel, *cell in np.ndindex(*values.shape):
        for axis in range(len(space)):
            ahead = neighbor(cell, axis, 1, space, periodic)
            if ahead is not None:
                here = values[sample, channel][tuple(cell)]
                yield (values[sample, channel][ahead] - here) / sizes[axis]


def divergences(values, sizes, periodic):
    space = values.shape[2:]
    for sample in range(len(values)):
        for cell in np.ndindex(*space):
            total = 0.0
            for axis, size in enumerate(sizes):
                pair = [neighbor(cell, axis, step, space, periodic) for step in (-1, 1)]
                if None in pair:
                    total = math.nan
                    break
                behind, ahead = (values[sample, axis][p] for p in pair)
                total += (ahead - behind) / (2 * size)
            yield total


def test_a_constant_has_no_gradient_and_a_rotation_no_divergence():
    loss = told(Derivatives(), {"a": 1}, (4, 4))
    x = drawn(1, 1, 4, 4)
    torch.testing.assert_close(float(loss(x + 5, x)), 0.0)
    swirl = told(Derivatives(of="divergence"), {"u": 2}, (9, 9))
    rows, columns = torch.meshgrid(*[torch.arange(5.0).double()] * 2, indexing="ij")
    rotation = torch.stack([-columns, rows])[None]
    assert swirl(rotation, 0 * rotation + drawn(1, 2, 5, 5)) > 0
    target = torch.stack([rows, columns])[None]
    torch.testing.assert_close(float(swirl(target + rotation, target)), 0.0)
    # both components grow by 1 per cell: the gradient's mean square is 1/2
    torch.testing.assert_close(float(swirl(0 * target, target)), 4 / 0.5)


def test_log_densities_are_compared_well_above_the_floor_and_negative_ones_have_a_gradient():
    loss = told(LogDensity(offset=1.0, floor=1e-3), {"delta": 1}, (5,), norms={"delta": Scale(2.0)})
    rho, true = (drawn(2, 1, 5, seed=s).exp() for s in (1, 2))
    found = float(loss((rho - 1) / 2, (true - 1) / 2))
    logs = [[math.log(x) for x in side.flatten()] for side in (rho, true)]
    expected = np.mean(np.square(np.subtract(*logs)))
    assert found == pytest.approx(expected, rel=1e-4)
    below = torch.full((1, 1, 5), -2.0, requires_grad=True)
    loss(below, torch.zeros(1, 1, 5)).backward()
    assert (below.grad < 0).all()


def test_dice_is_one_minus_twice_the_overlap_over_both():
    output, target = (drawn(2, 1, 4, seed=s) for s in (1, 2))
    o, t = output.flatten().tolist(), target.flatten().tolist()
    both = 2 * sum(a * b for a, b in zip(o, t, strict=True)) + 0.5
    expected = 1 - both / (sum(a * a for a in o) + sum(b * b for b in t) + 0.5)
    torch.testing.assert_close(float(Dice(0.5)(output, target)), expected)
    assert float(Dice()(target, target)) == 0


def test_a_sum_weighs_its_terms_tells_them_and_restricts_them_to_fields():
    loss = WeightedSum(
        {"mse": nn.MSELoss(), "mae.b": nn.L1Loss(), "shape": Dice(), "grad": Derivatives("a")},
        weights={"mse": 2.0, "mae.b": 0.5, "shape": 0.0},
        fields={"mae.b": "b"},
    )
    told(loss, {"a": 1, "b": 2}, (4, 4))
    output, target = (drawn(2, 3, 4, 4, seed=s) for s in (1, 2))
    alone = told(Derivatives("a"), {"a": 1, "b": 2}, (4, 4))
    difference = (output - target).numpy()
    parts = {
        "mse": np.mean(difference**2),
        "mae.b": np.mean(np.abs(difference[:, 1:])),
        "shape": float(Dice()(output, target)),
        "grad": float(alone(output, target)),
    }
    expected = 2 * parts["mse"] + 0.5 * parts["mae.b"] + parts["grad"]
    torch.testing.assert_close(float(loss(output, target)), float(expected))
    assert {k: pytest.approx(float(v)) for k, v in loss.told.items()} == parts
    holed = target.clone()
    holed[:, 1:, 0, 0] = torch.nan
    expected = 2 * masked_loss(nn.MSELoss(), output, holed) + masked_loss(alone, output, holed)
    expected = expected + 0.5 * masked_loss(nn.L1Loss(), output[:, 1:], holed[:, 1:])
    torch.testing.assert_close(masked_loss(loss, output, holed), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LagrangianEulerian(lag=0, eul=0), "one of them more"),
        (lambda: LagrangianEulerian(form="product"), "log or sum"),
        (lambda: LagrangianEulerian(scale=0), "1 or more"),
        (lambda: PowerSpectrum(floor=0), "above 0"),
        (lambda: PowerSpectrum(form="square"), "log or ratio"),
        (lambda: Derivatives(of="curl"), "gradient or divergence"),
        (lambda: LogDensity(floor=-1), "above 0"),
        (lambda: Dice(-1), "0 or positive"),
        (lambda: WeightedSum({}), "one term at least"),
        (lambda: WeightedSum({"a": EnergyScore()}), "'a', a EnergyScore, compares several draws"),
        (lambda: WeightedSum({"a": Dice()}, {"b": 1}), "no term"),
        (lambda: WeightedSum({"a": Dice()}, {"a": -1}), "0 or more"),
        (lambda: WeightedSum({"a": Dice()}, {"a": 0}), "0 or more"),
        (lambda: WeightedSum({"a": Dice(), "b": GaussianNLL()}), "as many outputs"),
        (lambda: WeightedSum({"a": PowerSpectrum()}, fields={"a": "x"}), "give it `field`"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, words):
    with pytest.raises(RecipeError, match=words):
        make()


def test_what_a_loss_does_not_know_it_asks_for():
    x = drawn(1, 2, 4, 4)
    with pytest.raises(RecipeError, match="take_emulator"):
        PowerSpectrum()(x, x)
    with pytest.raises(RecipeError, match="take_fields"):
        WeightedSum({"a": Dice()}, fields={"a": "x"})(x, x)
    with pytest.raises(RecipeError, match=r"which is no target; did you mean 'psi'\?"):
        told(LagrangianEulerian("psy"), {"psi": 2, "b": 1}, (4, 4))
    with pytest.raises(RecipeError, match="say which with `field`"):
        told(PowerSpectrum(), {"a": 1, "b": 1}, (4, 4))
    with pytest.raises(RecipeError, match=r"data\.domain\.spacing"):
        told(LagrangianEulerian(), {"psi": 2}, (4, 4), spacing=None)(x, x)
    with pytest.raises(RecipeError, match="a vector of 2 components"):
        told(LagrangianEulerian(), {"psi": 1}, (4, 4))(x[:, :1], x[:, :1])
    with pytest.raises(GeometryError, match="the output has shape"):
        told(PowerSpectrum(), {"a": 2}, (4, 4))(x[..., 1:], x)
    with pytest.raises(GeometryError, match="make them larger"):
        told(Derivatives(of="divergence"), {"a": 2}, (9, 9))(x[..., :2], x[..., :2])


def test_the_cell_size_of_a_finer_target_is_the_finer_one():
    class Finer(nn.Module):
        def __init__(self):
            super().__init__()
            self.footprint = Footprint(margin=0, scale=4)

    emulator = emulator_of({"psi": 1}, 1, spacing=2.0, model=Finer())
    loss = LagrangianEulerian()
    loss.take_emulator(emulator)
    assert loss.spacing(loss.grid((8,))) == (0.5,)


def test_whole_fields_of_another_size_than_those_of_training_are_periodic_too(m2m, tmp_path):
    """The loss of validation, by hand: without a taper."""
    rng = np.random.default_rng(0)
    for name, n in (("x_0", 8), ("y_0", 8), ("x_1", 16), ("y_1", 16)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(1, n, n)).astype(np.float32))
    (tmp_path / "recipe.yaml").write_text("""
trainer: {max_epochs: 1, accelerator: cpu, logger: false}
model:
  inputs: [{name: x}]
  targets: [{name: y}]
  model: {class_path: map2map.models.ConvNet, init_args: {width: 2, depth: 1}}
  loss: {class_path: map2map.losses.PowerSpectrum}
  optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.0}}
data:
  train: {x: x_0.npy, y: y_0.npy}
  val: {x: x_1.npy, y: y_1.npy}
  domain: {ndim: 2, periodic: true, spacing: 1.0}
""")
    status, _, err = m2m("train", "recipe.yaml")
    assert status == 0, err
    emulator = Emulator.load(tmp_path / "emulator.safetensors")
    x, y = (np.load(tmp_path / f"{name}_1.npy") for name in "xy")
    sides = [torch.from_numpy(emulator.apply({"x": x})["y"])[None], torch.from_numpy(y)[None]]
    by_hand = told(PowerSpectrum(), {"y": 1}, (16, 16))(*sides)
    assert emulator.scores["loss"]["val"][0] == pytest.approx(float(by_hand), rel=1e-4)


def test_logarithms_of_losses_of_no_cell_at_all_are_zero():
    loss = told(LagrangianEulerian(form="log"), {"psi": 2}, (4, 4))
    x = drawn(1, 2, 4, 4).requires_grad_()
    found = loss(x, drawn(1, 2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.bool))
    found.backward()
    assert found.item() == 0
    assert (x.grad == 0).all()


RECIPE = """
trainer: {max_epochs: 2, accelerator: cpu}
model:
  inputs: [{name: given}]
  targets: [{name: psi, kind: vector}, {name: rho}]
  norms: {psi: {class_path: map2map.norms.Scale, init_args: {typical: 2.0}}}
  model: {class_path: map2map.models.ConvNet, init_args: {width: 4, depth: 2}}
  loss:
    class_path: map2map.losses.WeightedSum
    init_args:
      terms:
        both:
          class_path: map2map.losses.LagrangianEulerian
          init_args: {field: psi, lag: 3.0, pad: 2}
        mse: {class_path: torch.nn.MSELoss}
        power:
          class_path: map2map.losses.PowerSpectrum
          init_args: {field: rho}
      weights: {power: 0.1}
      fields: {mse: rho}
  optimizer: {class_path: torch.optim.Adam, init_args: {lr: 1.0e-2}}
data:
  train: {given: "given_*.npy", psi: "psi_*.npy", rho: "rho_*.npy"}
  val: {given: "given_*.npy", psi: "psi_*.npy", rho: "rho_*.npy"}
  overlap: true
  crops: {size: 8}
  domain: {spacing: 0.5}
"""


def test_a_recipe_declares_a_sum_and_each_term_is_told_every_epoch(m2m, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        for name, channels in (("given", 1), ("psi", 2), ("rho", 1)):
            values = rng.normal(size=(channels, 16, 16)).astype(np.float32)
            np.save(tmp_path / f"{name}_{i}.npy", values)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    status, _, err = m2m("train", "recipe.yaml")
    assert status == 0, err
    (events,) = (tmp_path / "runs").rglob("events*")
    told_tags = EventAccumulator(str(events))
    told_tags.Reload()
    scalars = {
        name: [event.value for event in told_tags.Scalars(f"{name}/epoch/{split}")]
        for name in ("loss_both", "loss_mse", "loss_power")
        for split in ("val",)
    }
    losses = [event.value for event in told_tags.Scalars("loss/epoch/val")]
    for epoch, loss in enumerate(losses):
        parts = {name: told[epoch] for name, told in scalars.items()}
        expected = parts["loss_both"] + parts["loss_mse"] + 0.1 * parts["loss_power"]
        assert loss == pytest.approx(expected, rel=1e-5)
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("field: psi,", "field: psy,"))
    status, _, err = m2m("train", "bad.yaml", "--output.resume", "never", "--output.folder", "b")
    assert status == 2
    assert "'psy', which is no target; did you mean 'psi'?" in err
