"""Flow matching: samples of what the target can be, of any size, tile by tile."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from map2map.arrays import Settings
from map2map.emulator import Emulator
from map2map.engine import Engine, Running
from map2map.errors import ArtefactError, GeometryError, RecipeError
from map2map.exports.graph import PhysicalGraph
from map2map.fields import Field, FieldSet
from map2map.footprints import Footprint, measure
from map2map.grids import Domain, Grid
from map2map.models import ConvNet, FlowMatching
from map2map.models.styled import StyledConv
from map2map.noise import Place, placed
from map2map.specs import build, describe
from map2map.tiling import Tiling, take

CASES = [
    ("ConvNet", {"width": 4, "depth": 2}),
    ("UNet", {"width": 4, "depth": 1, "batch_norm": False}),  # a margin that is a multiple
    ("ConvNet", {"width": 4, "depth": 1, "kernel_size": 5}),
    ("PaddedUNet", {"width": 4, "levels": 1}),
    ("PaddedConvNet", {"width": 4, "depth": 2}),
]


class Odd(nn.Module):
    """Pools pairs of cells, with a margin that is no multiple of them."""

    footprint = Footprint(3, 2, cut=3)

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int) -> None:
        super().__init__()
        self.in_chan, self.out_chan, self.ndim = in_chan, out_chan, ndim
        conv, up = (nn.Conv1d, nn.ConvTranspose1d) if ndim == 1 else (nn.Conv2d, nn.ConvTranspose2d)
        self.layers = nn.Sequential(
            conv(in_chan, 3, 2, stride=2), conv(3, 3, 3), nn.Tanh(), up(3, out_chan, 2, stride=2),
            conv(out_chan, out_chan, 3),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Given(nn.Module):
    """The velocity -z + x + cos(5 t), of each cell alone."""

    footprint = Footprint(0)

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int) -> None:
        super().__init__()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        x, z, t = values.chunk(3, dim=1)
        return -z + x + torch.cos(5 * t)


def flow(network, options, *, ndim=1, in_chan=2, out_chan=1, **more):
    torch.manual_seed(0)
    model = FlowMatching(
        in_chan, out_chan, ndim=ndim, network=network, options=options, **{"steps": 2, **more}
    )
    return model.double().eval()


def periodic(model, field, seed):
    """The whole field, wrapped around so far that no edge is seen; no tiles, no halos."""
    f, shape = model.footprint, field.shape[1:]
    low = f.low
    sizes = [next(h for h in range(f.margin, 9999) if f.accepts(low + n + h)) for n in shape]
    wide = np.pad(field, [(0, 0), *[(low, high) for high in sizes]], mode="wrap")
    place = Place((-low,) * len(shape), shape, (True,) * len(shape), seed)
    with placed(model, place), torch.no_grad():
        whole = model(torch.from_numpy(wide)[None])[0]
    first = low - f.cut
    return whole[(slice(None), *[slice(first, first + n) for n in shape])].numpy()


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize(("network", "options"), [*CASES, (Odd, {})])
@pytest.mark.parametrize("ndim", [1, 2])
def test_tiles_are_parts_of_the_sample_of_the_whole_field(network, options, solver, ndim):
    model = flow(network, options, ndim=ndim, solver=solver)
    n, step = {1: 36, 2: 16}[ndim], model.footprint.multiple
    field = np.random.default_rng(0).normal(size=(2, *[n] * ndim))
    whole = periodic(model, field, seed=3)
    assert np.isfinite(whole).all()
    engine = Engine(model, model.footprint, ndim, Running("fp64", seed=3))
    for size in (n, 12 // step * step):
        tiling = Tiling(Grid((n,) * ndim), model.footprint, (size,) * ndim, rings=True)
        out = np.full_like(whole, np.nan)
        for i in range(len(tiling)):
            tile = tiling[i]
            x = np.empty((2, *tile.read.shape))
            take(field, tile.read, tiling.grid, x)
            out[(slice(None), *tile.target.slices)] = engine(tile, x)
        np.testing.assert_allclose(out, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_a_periodic_axis_that_a_tile_covers_is_closed_into_a_ring(solver):
    model = flow("UNet", {"width": 4, "depth": 1, "batch_norm": False}, solver=solver)
    n = model.footprint.fitting(model.footprint.minimum)
    field = np.random.default_rng(0).normal(size=(2, n))
    tiling = Tiling(Grid((n,)), model.footprint, rings=True)
    assert tiling.largest_read == (n,), "no halo"
    x = np.empty((2, n))
    take(field, tiling[0].read, tiling.grid, x)
    found = Engine(model, model.footprint, 1, Running("fp64", seed=3))(tiling[0], x)
    np.testing.assert_allclose(found, periodic(model, field, seed=3), rtol=1e-9, atol=1e-9)
    assert flow(Odd, {}).footprint.ring is None


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize(("network", "options"), [*CASES, (Odd, {})])
def test_a_sample_sees_what_its_footprint_tells(network, options, solver):
    """What it draws being left out, because it moves with no input."""
    model = flow(network, options, solver=solver)
    model.noise = Zero()
    stated, measured = model.footprint, measure(model.float(), 2, 1)
    assert (measured.multiple, measured.cut, measured.scale, measured.remainder) == (
        stated.multiple, stated.cut, 1, stated.remainder,
    )  # fmt: skip
    assert measured.margin <= stated.margin <= measured.margin + 2 * 4 * stated.multiple
    assert measured.minimum == stated.minimum


class Zero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x[:, :1])


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_the_error_of_solvers_is_of_their_order(solver, order):
    x = torch.randn(1, 1, 5, dtype=torch.float64)
    torch.manual_seed(4)
    start = torch.randn(1, 1, 5, dtype=torch.float64)
    # dz/dt = -z + x + cos 5t, solved by hand
    particular = (np.cos(5.0) + 5 * np.sin(5.0)) / 26
    exact = (start - x - 1 / 26) * np.exp(-1.0) + x + particular
    errors = []
    for steps in (20, 40):
        model = FlowMatching(1, 1, ndim=1, network=Given, steps=steps, solver=solver).double()
        torch.manual_seed(4)
        errors.append(float((model(x) - exact).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(2.0**order, rel=0.1)
    assert errors[1] < 0.05


def test_the_loss_of_a_step_is_that_of_velocities_on_straight_paths():
    model = flow("ConvNet", {"width": 3, "depth": 2}).train()
    x, y = torch.randn(3, 2, 16).double(), torch.randn(3, 1, 16).double()
    torch.manual_seed(7)
    found = model.learn(x, y, nn.functional.l1_loss)
    torch.manual_seed(7)
    t = torch.rand((3, 1, 1), dtype=torch.float64)
    noise = torch.randn_like(y)
    expected = 0.0
    for i in range(3):  # sample by sample
        state = noise[i] * (1 - t[i]) + t[i] * y[i]
        time = torch.full((1, 16), float(t[i]), dtype=torch.float64)
        v = model.velocity(torch.cat([x[i], state, time])[None])[0]
        expected += float((v - (y[i] - noise[i])[:, 2:-2]).detach().abs().mean()) / 3
    assert found.item() == pytest.approx(expected, rel=1e-12)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.velocity.parameters())


def test_losses_of_validation_draw_the_same_every_time():
    model = flow("ConvNet", {"width": 3, "depth": 1})
    x, y = torch.randn(3, 2, 16).double(), torch.randn(3, 1, 16).double()
    state = torch.get_rng_state()
    first = model.learn(x, y, nn.functional.mse_loss)
    assert torch.equal(torch.get_rng_state(), state), "training goes on as if there were none"
    torch.manual_seed(99)
    assert torch.equal(model.learn(x, y, nn.functional.mse_loss), first)
    drawn = [model.train().learn(x, y, nn.functional.mse_loss).item() for _ in range(400)]
    assert first.item() == pytest.approx(np.mean(drawn), rel=0.2)


def test_input_and_target_are_cut_to_the_cells_that_both_have():
    model = flow("UNet", {"width": 4, "depth": 1, "batch_norm": False})
    x, y = torch.randn(1, 2, 39).double(), torch.randn(1, 1, 33).double()
    loss = model.learn(x, y, nn.functional.mse_loss)
    same = model.learn(x[..., 3:35], y[..., :32], nn.functional.mse_loss)
    assert torch.equal(loss, same)
    for n, m in ((16, 12), (20, 19)):
        with pytest.raises(GeometryError, match=f"there are {n} and {m} on axis 0; of UNet"):
            model.learn(x[..., :n], y[..., :m], nn.functional.mse_loss)


def test_cells_are_learnt_with_their_mean_and_spread():
    """Y ~ N(2 x, (0.3 + 0.2 |x|)^2), cell by cell."""
    torch.manual_seed(0)
    model = FlowMatching(
        1, 1, ndim=1, network="ConvNet", options={"width": 48, "depth": 3, "kernel_size": 1},
        steps=12, solver="heun",
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 700)
    for _ in range(700):
        x = 2 * torch.rand(1, 1, 2048) - 1
        y = 2 * x + (0.3 + 0.2 * x.abs()) * torch.randn_like(x)
        loss = model.learn(x, y, nn.functional.mse_loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    for given in (-0.8, 0.0, 0.5):
        with torch.no_grad():
            samples = model(torch.full((1, 1, 20000), given))
        assert float(samples.mean()) == pytest.approx(2 * given, abs=0.05)
        assert float(samples.std()) == pytest.approx(0.3 + 0.2 * abs(given), rel=0.1)


def test_samples_have_the_spectrum_of_what_the_input_does_not_tell():
    """Y = x + n, with n of a spectrum that falls to small scales: members have it, their mean not.

    A moving average of white noise of weights w has the power |sum w exp(i k j)|^2.
    """
    torch.manual_seed(0)
    weights = torch.tensor([0.5, 1.0, 0.5])
    model = FlowMatching(
        1, 1, ndim=1, network="ConvNet", options={"width": 32, "depth": 4}, steps=6, solver="heun"
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)

    def drawn(cells):
        x = torch.randn(1, 1, cells)
        white = torch.randn(1, 1, cells + 2)
        return x, x + nn.functional.conv1d(white, weights[None, None])

    for _ in range(500):
        loss = model.learn(*drawn(1024), nn.functional.mse_loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.randn(1, 1, 40000)
    with torch.no_grad():
        y = model.eval()(x)
    rest = (y - x[..., model.footprint.cut : -model.footprint.cut]).squeeze()
    found = rest[: len(rest) // 64 * 64].reshape(-1, 64)
    power = torch.fft.rfft(found).abs().square().mean(dim=0) / 64
    k = 2 * np.pi * np.arange(33) / 64
    expected = (1 + np.cos(k)) ** 2
    kept = expected > 0.2
    np.testing.assert_allclose(power[kept], expected[kept], rtol=0.25)
    assert power[-4:].max() < 0.1, "hardly any at the smallest scales"


class Leaning(nn.Module):
    """The velocity of a convolution of all that is seen times the style; it cannot be settled."""

    footprint = Footprint(1)

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int, style_chan: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_chan, out_chan, 3)

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * style[:, :1, None] + style[:, 1:, None]


STYLED = [
    ("UNet", {"width": 4, "depth": 1, "batch_norm": False}),
    ("UNet", {"width": 4, "depth": 1, "batch_norm": False, "modulation": "film"}),
    (Leaning, {}),
]


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize(("network", "options"), STYLED)
def test_samples_of_a_style_are_carried_by_the_velocity_of_that_style(network, options, solver):
    model = flow(network, options, solver=solver, style_chan=2)
    field = np.random.default_rng(0).normal(size=(2, 40))
    style = torch.tensor([[0.3, -0.5], [1.5, 2.0]], dtype=torch.float64)
    place = Place((0,), (40,), (True,), 3)
    size = model.footprint.minimum
    x = torch.from_numpy(np.resize(field, (1, 2, size)))
    with placed(model, place), torch.no_grad():
        both = model(x.expand(2, 2, size), style)
    for one, expected in zip(style, both, strict=True):
        settled = model.settled(one)
        assert not any(isinstance(part, StyledConv) for part in settled.modules())
        with placed(settled, place), torch.no_grad():
            torch.testing.assert_close(settled(x)[0], expected)
        with pytest.raises(GeometryError, match="takes no style"):
            settled(x, style[:1])
    assert (both[0] - both[1]).abs().max() > 0.01
    engine = Engine(model.settled(style[1]), model.footprint, 1, Running("fp64", seed=3))
    whole = periodic(model.settled(style[1]), field, seed=3)
    tiling = Tiling(Grid((40,)), model.footprint, (8,), rings=True)
    out = np.full_like(whole, np.nan)
    for i in range(len(tiling)):
        tile = tiling[i]
        values = np.empty((2, *tile.read.shape))
        take(field, tile.read, tiling.grid, values)
        out[(slice(None), *tile.target.slices)] = engine(tile, values)
    np.testing.assert_allclose(out, whole, rtol=1e-9, atol=1e-9)


def test_a_step_learns_the_velocity_of_the_style_of_each_sample():
    model = flow(Leaning, {}, style_chan=2).train()
    x, y = torch.randn(3, 2, 16).double(), torch.randn(3, 1, 16).double()
    style = torch.randn(3, 2).double()
    torch.manual_seed(7)
    found = model.learn(x, y, nn.functional.l1_loss, style)
    torch.manual_seed(7)
    t = torch.rand((3, 1, 1), dtype=torch.float64)
    noise = torch.randn_like(y)
    seen = torch.cat([x, (1 - t) * noise + t * y, t.expand(3, 1, 16)], 1)
    v = model.velocity.conv(seen) * style[:, :1, None] + style[:, 1:, None]
    expected = (v - (y - noise)[..., 1:-1]).abs().mean()
    torch.testing.assert_close(found, expected)
    with pytest.raises(GeometryError, match="a style of 2 numbers, and none was given"):
        model.learn(x, y, nn.functional.l1_loss)


def test_a_network_without_styles_is_refused_by_name():
    with pytest.raises(RecipeError, match="`network` ConvNet takes none; UNet, VNet"):
        FlowMatching(1, 1, ndim=1, network="ConvNet", style_chan=1)
    with pytest.raises(RecipeError, match="`options` has a `style_chan`; leave it out"):
        FlowMatching(1, 1, ndim=1, options={"style_chan": 1})


def test_what_draws_numbers_is_not_exported():
    emulator = Emulator(
        FieldSet((Field("x", "m", "scalar", 2),)), FieldSet((Field("y", "m", "scalar", 1),)), {},
        flow("ConvNet", {"width": 3, "depth": 2}).float(), Domain(1),
    )  # fmt: skip
    with pytest.raises(ArtefactError, match="FlowMatching draws random numbers"):
        PhysicalGraph(emulator)


def test_a_network_is_named_or_given_by_its_class_and_remembered():
    for network in ("ConvNet", ConvNet):
        model = flow(network, {"width": 3, "depth": 2}, steps=3, solver="heun")
        again = build(describe(model)).double()
        assert (again.steps, again.solver, again.footprint) == (3, "heun", model.footprint)
        again.load_state_dict(model.state_dict())
        x = torch.randn(1, 2, 40).double()
        with placed(model, Place((0,), (40,), (True,))):
            expected = model(x)
        with placed(again, Place((0,), (40,), (True,))):
            assert torch.equal(again.eval()(x), expected)
    assert model.footprint == Footprint(12)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"network": "Unet"}, "`network` is 'Unet', no network; did you mean 'UNet'"),
        ({"solver": "rk4"}, "`solver` is 'rk4'"),
        ({"steps": 0}, "`steps` is 0"),
        ({"options": {"wide": 3}}, "UNet cannot be made with {'wide': 3}"),
        ({"network": "FlowMatching"}, "no network"),
    ],
)
def test_nonsense_is_refused(asked, said):
    with pytest.raises(RecipeError) as error:
        FlowMatching(1, 1, **asked)
    assert said in str(error.value)


def test_networks_that_give_no_field_of_the_same_cells_are_refused():
    with pytest.raises(GeometryError, match="ResNet gives numbers for the whole"):
        FlowMatching(1, 1, ndim=1, network="ResNet", options={"width": 4})
    with pytest.raises(GeometryError, match="Twice gives 2 cells per input cell"):
        FlowMatching(1, 1, ndim=1, network=Twice)


class Twice(nn.Module):
    footprint = Footprint(0, scale=2)

    def __init__(self, in_chan: int, out_chan: int, *, ndim: int) -> None:
        super().__init__()


def test_an_ensemble_is_what_its_seeds_give():
    emulator = Emulator(
        FieldSet((Field("x", "m", "scalar", 2),)),
        FieldSet((Field("y", "m", "scalar", 1),)),
        {},
        flow("ConvNet", {"width": 3, "depth": 2}, ndim=2).float(),
        Domain(2),
    ).eval()
    x = np.random.default_rng(0).normal(size=(2, 9, 8)).astype(np.float32)
    members = emulator.ensemble({"x": x}, 3, settings=Settings(Running(seed=5)))["y"]
    assert members.shape == (3, 1, 9, 8)
    for member, seed in product(range(3), range(5, 8)):
        one = emulator.apply({"x": x}, settings=Settings(Running(seed=seed)))["y"]
        assert np.array_equal(members[member], one) == (seed == 5 + member)
    with pytest.raises(RecipeError, match="at least 1 member, not 0"):
        emulator.ensemble({"x": x}, 0)
    emulator.model = ConvNet(2, 1, ndim=2)
    with pytest.raises(RecipeError, match=r"draws no random numbers .its network is a ConvNet"):
        emulator.ensemble({"x": x}, 2)
