"""Graph networks on grids, against torch_geometric's own on edges by loops, and dense matrices."""

import subprocess
import sys
import warnings
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from map2map.arrays import Settings
from map2map.emulator import Card, Emulator
from map2map.engine import Engine, Running
from map2map.errors import GeometryError, RecipeError
from map2map.fields import Field, FieldSet
from map2map.grids import Domain
from map2map.models import GridGAT, GridGCN, GridGIN, GridGraphUNet, GridSAGE

pyg = pytest.importorskip("torch_geometric.nn", reason="needs the extra `graph`")

KINDS = (GridGCN, GridGAT, GridGIN, GridSAGE, GridGraphUNet)
LOCAL = KINDS[:4]


def by_loops(shape, wraps=(False, False, False)):
    """Edges of a grid, in any order."""
    pairs = []
    for cell in np.ndindex(*shape):
        for axis, step in product(range(len(shape)), (-1, 1)):
            other = list(cell)
            other[axis] += step
            if wraps[axis]:
                other[axis] %= shape[axis]
            if 0 <= other[axis] < shape[axis]:
                pairs.append(
                    [np.ravel_multi_index(cell, shape), np.ravel_multi_index(other, shape)]
                )
    return torch.tensor(np.array(pairs).T.reshape(2, -1))


def stock(model):
    """Torch_geometric's network of the same settings and weights, with all of its defaults."""
    sizes = model.in_chan, model.width, model.depth, model.out_chan
    options = {"act": "silu", "dropout": 0.5}
    if isinstance(model, GridGCN):
        made = pyg.GCN(*sizes, jk=model.jk, **options)
    elif isinstance(model, GridGAT):
        made = pyg.GAT(*sizes, jk=model.jk, heads=model.heads, **options)
    elif isinstance(model, GridGIN):
        made = pyg.GIN(*sizes, **options)
    elif isinstance(model, GridSAGE):
        made = pyg.GraphSAGE(*sizes, jk=model.jk, **options)
    else:
        made = pyg.GraphUNet(*sizes[:2], sizes[3], sizes[2], model.ratio, act="silu")
    weights = {k.removeprefix("model."): v for k, v in model.state_dict().items()}
    made.load_state_dict(weights)
    return made.double().eval()


def on_grid(network, x, wraps=(False, False, False)):
    """What a stock network gives for (batch, channel, *space), graph by graph."""
    space = x.shape[2:]
    edges = by_loops(space, wraps)
    with torch.no_grad(), warnings_of_sparse_matrices():
        each = [network(one.reshape(len(one), -1).T, edges).T for one in x]
    return torch.stack([y.reshape(-1, *space) for y in each])


@contextmanager
def warnings_of_sparse_matrices():
    """Which torch_geometric does not keep from its users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(kind, *chans, **options):
    """A network in double precision whose features neither vanish nor are all alike."""
    torch.manual_seed(3)
    model = kind(*(chans or (2, 3)), **options)
    for parameter in model.parameters():
        parameter.data.uniform_(-0.6, 0.6)
    return model.double().eval()


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "options", "parameters", "state"),
    [
        (GridGCN, {}, 3_265, 3_265),
        (GridGCN, {"jk": "cat"}, 3_361, 3_361),
        (GridGCN, {"jk": "max"}, 3_265, 3_265),
        (GridGCN, {"jk": "lstm"}, 53_570, 53_570),
        (GridGAT, {}, 3_521, 3_521),
        (GridGIN, {}, 5_379, 5_383),
        # two matrices and a bias per layer, and a linear layer
        (GridSAGE, {}, 2 * 32 + 32 + 3 * (2 * 32 * 32 + 32) + 33, 6_369),
        (GridGraphUNet, {}, 7_617, 7_617),
    ],
)
def test_the_defaults_have_as_many_parameters_as_published(kind, options, parameters, state):
    model = kind(1, 1, **options)
    assert count(model) == parameters
    # and no edges in it, before and after they have been made
    model(torch.zeros(1, 1, 3, 3, 3))
    assert sum(v.numel() for v in model.state_dict().values()) == state
    assert not list(model._non_persistent_buffers_set)
    if kind is not GridGraphUNet:
        assert model.dropout == 0.5
        assert model.model.dropout.p == 0.5
    assert isinstance(model.model.act, torch.nn.SiLU)


@pytest.mark.parametrize("jk", ["last", "cat", "max", "lstm"])
@pytest.mark.parametrize("kind", [GridGCN, GridGAT, GridSAGE])
def test_every_way_of_putting_layers_together_is_the_stock_networks(kind, jk):
    model = made(kind, width=8, depth=3, jk=jk)
    x = noise(1, 2, 3, 4, 2)
    torch.testing.assert_close(model(x), on_grid(stock(model), x))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_stock_network_on_the_edges_of_each_grid_of_a_batch(kind):
    model = made(kind, width=8)
    x = noise(2, 2, 4, 5, 6)
    y = model(x)
    assert y.shape == (2, 3, 4, 5, 6)
    torch.testing.assert_close(y, on_grid(stock(model), x))
    # one by one they are what they are together
    torch.testing.assert_close(y, torch.cat([model(x[:1]), model(x[1:])]))


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_it_is_the_stock_network_too(kind):
    model = made(kind, width=8, **({} if kind is GridGraphUNet else {"dropout": 0.0})).train()
    x = noise(1, 2, 3, 2, 4)
    # attention's weights are dropped out by their own rate
    for part in (other := stock(model).train()).modules():
        if isinstance(getattr(part, "dropout", None), float):
            part.dropout = 0.0
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    torch.testing.assert_close(model(x), on_grid(other, x))


def silu(x):
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", LOCAL)
def test_it_is_a_product_of_dense_matrices(kind):
    model = made(kind, width=8, depth=2, **({"heads": 2} if kind is GridGAT else {}))
    w = {k.removeprefix("model."): v.numpy() for k, v in model.state_dict().items()}
    x = noise(1, 2, 3, 4, 2)
    h = x[0].reshape(2, -1).T.numpy()
    joined = np.zeros((24, 24))
    joined[tuple(by_loops((3, 4, 2)).numpy())] = 1
    with_self = joined + np.eye(24)
    for i in range(2):
        layer = f"convs.{i}."
        if kind is GridGIN:
            h = (with_self @ h) @ w[f"{layer}nn.lins.0.weight"].T + w[f"{layer}nn.lins.0.bias"]
            h = silu(h) @ w[f"{layer}nn.lins.1.weight"].T + w[f"{layer}nn.lins.1.bias"]
            h = silu(h) if i == 0 else h
            continue
        if kind is GridSAGE:
            mean = joined @ h / joined.sum(0)[:, None]
            h = mean @ w[f"{layer}lin_l.weight"].T + h @ w[f"{layer}lin_r.weight"].T
            h = silu(h + w[f"{layer}lin_l.bias"])
            continue
        h = h @ w[f"{layer}lin.weight"].T
        if kind is GridGCN:
            degree = with_self.sum(0)
            h = with_self / np.sqrt(degree * degree[:, None]) @ h
        else:
            heads = []
            for k, part in enumerate(np.split(h, 2, axis=1)):
                to, source = part @ w[f"{layer}att_dst"][0, k], part @ w[f"{layer}att_src"][0, k]
                score = to[:, None] + source
                score = np.where(score > 0, score, 0.2 * score)
                weight = with_self * np.exp(score)
                heads.append(weight / weight.sum(1, keepdims=True) @ part)
            h = np.concatenate(heads, axis=1)
        h = silu(h + w[f"{layer}bias"])
    if kind is not GridGIN:
        h = h @ w["lin.weight"].T + w["lin.bias"]
    np.testing.assert_allclose(model(x)[0].reshape(3, -1).T.detach(), h, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_on_one_grid_is_applied_to_another(kind):
    model = made(kind, width=8).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.inference_mode():
        model(noise(1, 2, 4, 3, 5))  # as in a validation before training
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    F.mse_loss(model(noise(2, 2, 4, 3, 5)), noise(2, 3, 4, 3, 5)).backward()
    optimizer.step()
    after = model.eval().state_dict()
    assert list(after) == list(before)
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed == {k for k in after if not k.endswith(".eps")}
    x = noise(1, 2, 6, 2, 7)
    torch.testing.assert_close(model(x), on_grid(stock(model), x))


def emulator(model, domain):
    inputs = FieldSet((Field("c", "1", "scalar", 2),))
    return Emulator(inputs, FieldSet((Field("s", "1", "scalar", 3),)), {}, model, domain).eval()


def applied(model, x, domain, tile=None):
    """What the emulator gives in tiles, in double precision."""
    settings = Settings(tile=tile, running=Running("fp64"))
    return emulator(model, domain).apply({"c": x}, settings=settings)["s"]


@pytest.mark.parametrize("wraps", [(True, True, True), (False, False, False), (True, False, False)])
@pytest.mark.parametrize("kind", LOCAL)
def test_tiles_give_what_the_graph_of_the_whole_gives(kind, wraps):
    model = made(kind, width=8, depth=2)
    x = noise(2, 9, 7, 6).float().double()
    domain = Domain(3, periodic=list(wraps), pad="model")
    whole = on_grid(stock(model), x[None], wraps)[0]
    for tile in (None, [4, 3, 6], [2, 7, 4]):
        found = applied(model, x, domain, tile)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


def test_a_gcn_needs_a_cell_more_than_values_are_seen_from():
    model = made(GridGCN, width=8, depth=2)
    field = noise(1, 2, 12, 1, 1)
    whole = model(field)[0, :, 6]
    assert model.footprint.margin == 3
    torch.testing.assert_close(model(field[:, :, 3:10])[0, :, 3], whole)
    near = model(field[:, :, 4:9])[0, :, 2]
    assert (near - whole).abs().max() > 1e-3
    # the values that differ are not seen
    field[:, :, 3] = field[:, :, 9] = 99
    torch.testing.assert_close(model(field)[0, :, 6], whole)


@pytest.mark.parametrize("periodic", [False, True, [True, False, False]])
def test_a_graph_unet_is_applied_to_the_whole_alone(periodic):
    wraps = periodic if isinstance(periodic, list) else [periodic] * 3
    model = made(GridGraphUNet, width=8, periodic=periodic)
    domain = Domain(3, periodic=periodic, pad="model")
    x = noise(2, 6, 5, 4).float().double()
    whole = on_grid(stock(model), x[None], wraps)[0]
    torch.testing.assert_close(applied(model, x, domain), whole, rtol=1e-9, atol=1e-9)
    with pytest.raises(
        GeometryError, match=r"cannot be tiled exactly.*compares each cell with all"
    ):
        applied(model, x, domain, [3, 5, 4])
    # a part of the field is not what it is within the whole
    assert (model(x[None, :, :5])[0, :, 0] - whole[:, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", LOCAL)
def test_memory_that_is_allowed_is_kept_to_or_found_too_small(kind):
    model = made(kind, width=8, depth=2).float()
    whole = emulator(model, Domain(3, periodic=False, pad="model"))
    x = noise(2, 24, 6, 7).float()
    expected = whole.apply({"c": x})["s"]
    found = whole.apply({"c": x}, settings=Settings(memory="64MiB"))["s"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(GeometryError, match="the smallest tile reads"):
        whole.apply({"c": x}, settings=Settings(memory="4KiB"))
    with pytest.raises(GeometryError, match="enough for 1 cells"):
        whole.apply({"c": x}, settings=Settings(memory=64))


def test_memory_of_sparse_matrices_is_counted():
    model = made(GridGraphUNet, width=8, depth=2).float()
    n, edges = 6 * 5 * 4, by_loops((6, 5, 4)).shape[1]
    peak, largest = Engine(model, model.footprint, 3).needs(2, (6, 5, 4))
    # the first square of the graph joins cells two steps apart, by two indices and a weight
    assert peak > 20 * n * (8 + 8 + 4) > 3 * edges * 8
    assert largest >= 20 * n


@pytest.mark.parametrize("kind", KINDS)
def test_an_emulator_of_it_holds_no_edges(kind, tmp_path):
    model = made(kind, width=8, depth=2).float()
    whole = emulator(model, Domain(3, periodic=False, pad="model"))
    x = noise(2, 5, 4, 3).float()
    expected = whole.apply({"c": x})["s"]
    whole.save(tmp_path / "e.m2m")
    again = Emulator.load(tmp_path / "e.m2m")
    torch.testing.assert_close(again.apply({"c": x})["s"], expected)
    card = Card.read(tmp_path / "e.m2m").model
    assert card["class_path"] == f"map2map.models.{kind.__name__}"
    assert {k for k, v in card["init_args"].items() if isinstance(v, list)} == set()
    size = 4 * sum(v.numel() for v in model.state_dict().values())
    assert (tmp_path / "e.m2m").stat().st_size < size + 8000


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GridGCN, {"depth": 0}, "`depth` is 0"),
        (GridGIN, {"width": 0}, "`width` is 0"),
        (GridGIN, {"dropout": 1.0}, "`dropout` is 1.0"),
        (GridGCN, {"jk": "first"}, "`jk` is 'first', but must be one of 'last', 'cat'"),
        (GridGAT, {"jk": ""}, "`jk` is ''"),
        (GridGAT, {"width": 12}, "`width` is 12 and `heads` is 8"),
        (GridGAT, {"heads": 0}, "`heads` is 0"),
        (GridGraphUNet, {"ratio": 1.0}, "`ratio` is 1.0"),
        (GridGraphUNet, {"periodic": [True]}, "`periodic` of 3 axes needs 1 or 3 values"),
        (GridGIN, {"ndim": 4}, "4"),
    ],
)
def test_arguments_out_of_range_are_refused(kind, options, message):
    with pytest.raises(RecipeError, match=message):
        kind(1, 1, **options)


def test_inputs_that_do_not_fit_are_refused():
    model = GridGIN(2, 3)
    with pytest.raises(GeometryError, match="GridGIN takes 2 channels, not 3"):
        model(torch.zeros(1, 3, 2, 2, 2))
    with pytest.raises(GeometryError, match=r"GridGIN takes .batch, channel, and 3 axes"):
        model(torch.zeros(1, 2, 2, 2))
    with pytest.raises(GeometryError, match=r"edges \(2, edges\), not \(4, 3\)"):
        model.on_graph(torch.zeros(4, 3), torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(GeometryError, match="GridGraphUNet cannot take 2 cells"):
        GridGraphUNet(2, 3, periodic=True)(torch.zeros(1, 2, 4, 2, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_on_any_graph_it_is_the_stock_network(kind):
    """Directed edges, a node without any, and one with an edge to itself."""
    model = made(kind, width=8)
    edges = torch.tensor([[0, 1, 2, 3, 3, 1, 4, 0], [1, 2, 0, 0, 1, 3, 4, 4]])
    if kind is GridGIN:
        edges = edges[:, edges[0] != edges[1]]
    x = noise(6, 2)
    with torch.no_grad(), warnings_of_sparse_matrices():
        expected = stock(model)(x, edges)
    torch.testing.assert_close(model.on_graph(x, edges), expected)


def test_without_torch_geometric_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    for kind in KINDS:
        with pytest.raises(RecipeError, match=r"pip install 'map2map\[graph\]'"):
            kind(1, 1)


def test_models_are_imported_without_torch_geometric():
    code = """
import sys
import map2map.models, map2map.graph_checkpoints, map2map.mesh_networks
sys.exit("torch_geometric" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
