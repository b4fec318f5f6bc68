"""Checkpoints of torch_geometric's networks, as Lightning writes them."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from map2map.errors import ArtefactError, RecipeError
from map2map.graph_checkpoints import graph_network, read_graph_checkpoint
from map2map.grid_graphs import grid_edges

pyg = pytest.importorskip("torch_geometric.nn", reason="needs the extra `graph`")

NETWORKS = {
    "gcn": lambda: pyg.GCN(2, 8, 3, 1, act="silu", dropout=0.5, jk="last"),
    "gcn max": lambda: pyg.GCN(2, 8, 3, 1, act="silu", jk="max"),
    "gcn cat": lambda: pyg.GCN(2, 8, 3, 1, act="silu", jk="cat"),
    "gcn lstm": lambda: pyg.GCN(2, 8, 3, 1, act="silu", jk="lstm"),
    "gat": lambda: pyg.GAT(2, 8, 3, 1, act="silu", heads=2, jk="last"),
    "gin": lambda: pyg.GIN(2, 8, 3, 1, act="silu"),
    "gin of one layer": lambda: pyg.GIN(2, 8, 1, 1, act="silu"),
    "graph unet": lambda: pyg.GraphUNet(2, 8, 1, 3, act="silu"),
}


class Module(pl.LightningModule):
    """A network, and hyper-parameters like those of AI4sim's checkpoint."""

    def __init__(self, in_channels, out_channels, graph_topology=None, dropout=0.5):
        super().__init__()
        self.save_hyperparameters()
        self.model = pyg.GIN(in_channels, 32, 4, out_channels, act="silu", dropout=dropout)
        self.register_buffer("edge_index", torch.zeros(2, 3), persistent=False)

    def training_step(self, batch):
        x = batch[0]
        edges = torch.from_numpy(grid_edges((len(x),)))
        return self.model(x, edges).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-4)


def compare(network, model, x):
    """Both on the same graph; torch_geometric makes the edges to themselves on its own."""
    edges = torch.from_numpy(grid_edges(x.shape[2:]))
    with torch.no_grad():
        expected = network.eval()(x[0].reshape(len(x[0]), -1).T, edges)
        found = model.eval()(x)[0].reshape(model.out_chan, -1).T
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("prefix", ["", "model.", "module.net."])
@pytest.mark.parametrize("name", NETWORKS)
def test_kind_and_sizes_are_told_by_the_weights(name, prefix):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    weights = {prefix + key: value for key, value in network.state_dict().items()}
    model = graph_network(weights, jk="max" if name == "gcn max" else None)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in network.parameters()
    )
    compare(network, model, torch.randn(1, 2, 3, 4, 2))


@pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")
@pytest.mark.filterwarnings("ignore:.*num_workers.*")
def test_a_lightning_checkpoint_of_a_gin_is_read_without_running_code(tmp_path):
    """84 kB, 5 steps, no graph in its hyper-parameters, as the one that AI4sim ships."""
    torch.manual_seed(0)
    module = Module(1, 1, dropout=0.25)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(5, 7, 1)), None)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    found = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert found["hyper_parameters"]["graph_topology"] is None
    assert found["global_step"] == 5
    model = read_graph_checkpoint(tmp_path / "model.ckpt")
    assert type(model).__name__ == "GridGIN"
    assert (model.in_chan, model.out_chan, model.width, model.depth) == (1, 1, 32, 4)
    assert model.dropout == 0.25
    assert sum(v.numel() for v in model.state_dict().values()) == 5_383
    # the names are its own
    assert list(model.state_dict()) == list(found["state_dict"])
    compare(module.model, model, torch.randn(1, 1, 4, 3, 5))
    flat = read_graph_checkpoint(tmp_path / "model.ckpt", ndim=1, dropout=0.0)
    compare(module.model, flat, torch.randn(1, 1, 9))
    assert flat.dropout == 0


def test_how_layers_are_put_together_is_told_by_the_hyper_parameters(tmp_path):
    network = NETWORKS["gcn max"]()
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"jk": "max"}}, tmp_path / "a.ckpt")
    assert read_graph_checkpoint(tmp_path / "a.ckpt").jk == "max"
    assert read_graph_checkpoint(tmp_path / "a.ckpt", jk="last").jk == "last"
    torch.save(state, tmp_path / "weights.pt")
    assert read_graph_checkpoint(tmp_path / "weights.pt").jk == "last"
    with pytest.raises(RecipeError, match="`jk` is 'cat', but the weights are those of 'last'"):
        read_graph_checkpoint(tmp_path / "weights.pt", jk="cat")


def test_weights_of_older_versions_are_renamed():
    network = NETWORKS["gat"]()
    old = {}
    for key, value in network.state_dict().items():
        if key.endswith("lin.weight") and key.startswith("convs"):
            old[key.replace("lin.", "lin_src.")] = old[key.replace("lin.", "lin_dst.")] = value
        else:
            old[key] = value
    compare(network, graph_network(old), torch.randn(1, 2, 3, 4, 2))
    unet = NETWORKS["graph unet"]().state_dict()
    renamed = {key.replace(".select.", "."): value for key, value in unet.items()}
    assert renamed.keys() != unet.keys()
    again = graph_network(renamed).state_dict()
    assert all(torch.equal(again[f"model.{key}"], value) for key, value in unet.items())


def test_what_is_no_graph_network_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(ArtefactError, match="there is no checkpoint"):
        read_graph_checkpoint(path)
    path.write_bytes(b"text")
    with pytest.raises(ArtefactError, match="is no checkpoint, or is truncated"):
        read_graph_checkpoint(path)
    torch.save({"state_dict": {}, "hyper_parameters": {"graph": Module}}, path)
    with pytest.raises(ArtefactError, match="could run code"):
        read_graph_checkpoint(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ArtefactError, match=r"has no state_dict, but \['epoch'\]"):
        read_graph_checkpoint(path)
    torch.save({"state_dict": nn.Linear(2, 3).state_dict()}, path)
    with pytest.raises(ArtefactError, match=r"a.ckpt: there is no graph network.*found weight"):
        read_graph_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"other.weight": torch.zeros(2)}, "beside the network 'model.' it holds ot"),
        (lambda w: w | {"model.norms.0.weight": torch.zeros(8)}, r"of other shapes are norms.0"),
        (lambda w: {k: v for k, v in w.items() if "2.nn.lins.1.bias" not in k}, "GIN, but are not"),
        (lambda w: {k: v for k, v in w.items() if "lins.1" not in k}, r"no 'convs.2.nn.lins.1"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    weights = {f"model.{k}": v for k, v in NETWORKS["gin"]().state_dict().items()}
    with pytest.raises(ArtefactError, match=message):
        graph_network(change(weights))


def test_other_kinds_of_these_networks_are_refused_by_what_differs():
    concatenating = pyg.GraphUNet(2, 8, 1, 3, sum_res=False).state_dict()
    with pytest.raises(ArtefactError, match=r"up_convs.0.lin.weight.*only networks without norms"):
        graph_network(concatenating)
    sage = pyg.GraphSAGE(2, 8, 3, 1).state_dict()
    with pytest.raises(ArtefactError, match="none of torch_geometric's GCN, GAT, GIN"):
        graph_network(sage)
