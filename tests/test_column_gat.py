"""Graph attention along columns, against torch_geometric's own on chains that loops write out."""

import numpy as np
import pytest
import torch

from map2map.errors import GeometryError, RecipeError
from map2map.models import ColumnFluxes, ColumnGAT, Profile

pyg = pytest.importorskip("torch_geometric.nn", reason="needs the extra `graph`")

LEVELS, LAYERS = 7, 6
INPUTS = [
    Profile(LEVELS, 2, level_first=True),
    Profile(LEVELS - 2, above=1, below=1),
    Profile(LAYERS, 3, level_first=True),
    Profile(1, 2),
]
IN = 2 * LEVELS + LEVELS - 2 + 3 * LAYERS + 2
OUTPUTS = [Profile(LEVELS, 2), Profile(LAYERS, above=1)]
OUT = 2 * LEVELS + LAYERS
SMALL = {"inputs": INPUTS, "outputs": OUTPUTS, "width": 8, "heads": 2, "depth": 3}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(**changes):
    torch.manual_seed(0)
    return ColumnGAT(IN, OUT, **SMALL | changes).double().eval()


def values(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


def test_a_column_is_a_chain_whose_layers_are_its_edges():
    """Each column by itself, edges without loops: torch_geometric adds those of nodes itself."""
    model, x = made(), values(4, IN, 1)
    stock = pyg.GAT(5, 8, 3, 3, act="silu", jk="last", heads=2, edge_dim=3)
    stock.load_state_dict({k.removeprefix("model."): v for k, v in model.state_dict().items()})
    stock.double().eval()
    with torch.no_grad():
        found = model(x)[:, :, 0]
    for c in range(4):
        row = x[c, :, 0].numpy()
        hl, inter = row[: 2 * LEVELS].reshape(LEVELS, 2), row[2 * LEVELS : 3 * LEVELS - 2]
        layers = row[3 * LEVELS - 2 : -2].reshape(LAYERS, 3)
        nodes = np.zeros((LEVELS, 5))
        for level in range(LEVELS):
            nodes[level, :2] = hl[level]
            nodes[level, 2] = inter[level - 1] if 0 < level < LEVELS - 1 else 0
            nodes[level, 3:] = row[-2:]
        edges, attributes = [], []
        for layer in range(LAYERS):
            for pair in ((layer, layer + 1), (layer + 1, layer)):
                edges.append(pair)
                attributes.append(layers[layer])
        with torch.no_grad():
            wanted = stock(
                torch.from_numpy(nodes),
                torch.tensor(edges).T,
                edge_attr=torch.from_numpy(np.array(attributes)),
            ).numpy()
        flat = np.concatenate([wanted[:, 0], wanted[:, 1], wanted[1:, 2]])
        np.testing.assert_allclose(found[c], flat, rtol=1e-10, atol=1e-12)


def test_a_level_sees_as_many_levels_as_there_are_network_layers():
    torch.manual_seed(0)
    model = ColumnGAT(20, 20, width=8, heads=2, depth=3).double().eval()
    x = values(1, 20, 1).requires_grad_()
    (seen,) = torch.autograd.grad(model(x)[0, 10, 0], x)
    assert np.flatnonzero(seen[0, :, 0]).tolist() == list(range(7, 14))


def test_columns_are_alone_on_any_grid():
    model, x = made(), values(2, IN, 3)
    plane = made(ndim=2)
    with torch.no_grad():
        whole = model(x)
        for batch in range(2):
            for cell in range(3):
                alone = model(x[batch : batch + 1, :, cell : cell + 1])
                torch.testing.assert_close(whole[batch, :, cell], alone[0, :, 0])
        torch.testing.assert_close(plane(x[:, :, None])[:, :, 0], whole)


def test_parameters_are_those_of_attention_with_edges():
    profiles = [
        Profile(138, 2, level_first=True),
        Profile(136, 1, above=1, below=1),
        Profile(137, 27, level_first=True),
        Profile(1, 17),
        Profile(138),
    ]
    outputs = [*[Profile(138)] * 4, *[Profile(137, above=1)] * 2]
    channels = [sum(p.channels for p in side) for side in (profiles, outputs)]
    model = ColumnGAT(*channels, inputs=profiles, outputs=outputs)
    # features of the 138 nodes: 2 + 1 + 17 and the pressure; of the edges: 27
    expected = 0
    for before in (21, 32, 32, 32):
        # weights of nodes and edges; attention to source, target and edge; bias
        expected += before * 32 + 27 * 32 + 3 * 32 + 32
    expected += 32 * 6 + 6
    assert sum(p.numel() for p in model.parameters()) == expected == 7_910


def test_without_layers_between_levels_edges_have_no_attributes():
    model = ColumnGAT(5, 5, width=8, heads=2).double().eval()
    assert not [name for name, _ in model.named_parameters() if "edge" in name]
    assert model(values(3, 5, 1)).shape == (3, 5, 1)


def test_it_can_be_the_network_of_fluxes():
    own = IN
    model = ColumnFluxes(
        own + LEVELS + 2,
        2 * (3 * LEVELS - 1),
        inputs=INPUTS,
        network="ColumnGAT",
        options={"width": 8, "heads": 2, "depth": 2},
    )
    assert model.half_levels == LEVELS
    x = values(3, own + LEVELS + 2, 1).float()
    x[:, own : own + LEVELS] = torch.linspace(1e3, 1e5, LEVELS)[:, None]
    assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "must be a multiple of `heads`"),
        ({"jk": "first"}, "`jk` is 'first'"),
        ({"depth": 0}, "`depth` is 0"),
        ({"dropout": 1.5}, "dropout"),
        ({"inputs": [Profile(LAYERS, 6), Profile(1)]}, "are .* channels"),
    ],
)
def test_arguments_that_do_not_fit_are_told(changes, message):
    with pytest.raises(RecipeError, match=message):
        made(**changes)


def test_something_must_lie_on_the_levels():
    with pytest.raises(RecipeError, match="lie between the levels, and nothing on them"):
        ColumnGAT(6, 7, inputs=[Profile(6)], outputs=[Profile(7)], width=8, heads=2)


def test_other_axes_are_refused():
    with pytest.raises(GeometryError):
        made()(values(1, IN, 2, 2))
