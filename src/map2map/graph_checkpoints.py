"""Checkpoints of graph networks that AI4sim or others have trained with torch_geometric.

Lightning's checkpoints or weights alone, of ``GCN``, ``GAT``, ``GIN`` and ``GraphUNet``. The kind
of the network and its sizes are told by the names and shapes of its weights; a prefix, such as a
LightningModule's attribute, may stand before all names. Two things that weights do not tell are
taken from the checkpoint's hyper-parameters, if they are there: `dropout` and `jk`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from map2map.errors import ArtefactError, RecipeError
from map2map.foreign_weights import read_checkpoint
from map2map.models import GridGAT, GridGCN, GridGIN, GridGraphUNet
from map2map.models.graph_nets import JUMPS, GraphNetwork

__all__ = ["graph_network", "read_graph_checkpoint"]

FIRST = re.compile(r"(?P<prefix>.*?)(?P<layers>down_convs|convs)\.0\.")
"""A weight of a network's first layer, behind the prefix that all its weights have."""

RENAMED = (
    (r"(convs\.\d+\.)lin_src\.weight", r"\1lin.weight"),
    (r"(pools\.\d+\.)weight", r"\1select.weight"),
)
"""What the weights of older versions of torch_geometric are called now."""

SHARED = r"convs\.\d+\.lin_dst\.weight"
"""Weights of older versions that are ``lin_src`` once more."""

PREFIX = "model."
"""In front of the names of weights here."""


def read_graph_checkpoint(
    path: Path | str,
    *,
    ndim: int = 3,
    dropout: float | None = None,
    jk: str | None = None,
    ratio: float = 0.5,
) -> GraphNetwork:
    """Read a network from a checkpoint, running no code that it may contain.

    Args:
        path: The file.
        ndim: Number of axes of the grids that the network shall be applied to.
        dropout: Of the network; default: the checkpoint's ``dropout``, else 0.5.
        jk: What the linear layer behind a GCN or GAT gets, where the weights are the same for
            "last" and "max"; default: the checkpoint's ``jk``, else "last".
        ratio: Share of the cells that a GraphUNet keeps at each level.

    Raises:
        ArtefactError: If there is no such file, it holds more than tensors and plain values, or
            its weights are those of no network that is known.
        RecipeError: If torch_geometric is missing, or an argument is out of range.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    told = checkpoint.rest.get("hyper_parameters")
    told = told if isinstance(told, Mapping) else {}
    if dropout is None:
        rate = told.get("dropout")
        dropout = float(rate) if isinstance(rate, int | float) else 0.5
    if jk is None:
        jk = str(told["jk"]) if told.get("jk") in JUMPS else None
    try:
        return graph_network(checkpoint.weights, ndim=ndim, dropout=dropout, jk=jk, ratio=ratio)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


def graph_network(
    weights: Mapping[str, Tensor],
    *,
    ndim: int = 3,
    dropout: float = 0.5,
    jk: str | None = None,
    ratio: float = 0.5,
) -> GraphNetwork:
    """Make the network that a state dict is of.

    Args:
        weights: By name, with one prefix before all names, or none.
        ndim: Number of axes of the grids that it shall be applied to.
        dropout: See `read_graph_checkpoint`.
        jk: Likewise.
        ratio: Likewise.

    Raises:
        ArtefactError: If the weights are those of no network that is known.
        RecipeError: If torch_geometric is missing, or an argument is out of range.
    """
    bare = current_names(weights)
    try:
        model = network_of(bare, ndim=ndim, dropout=dropout, jk=jk, ratio=ratio)
    except (KeyError, IndexError) as error:
        raise ArtefactError(
            f"the weights are none of torch_geometric's GCN, GAT, GIN or GraphUNet: no {error} "
            f"among {', '.join(list(bare)[:4])}, …"
        ) from error
    ours = {PREFIX + name: value for name, value in bare.items()}
    expected = model.state_dict()
    wrong = sorted(
        name.removeprefix(PREFIX)
        for name in expected.keys() | ours.keys()
        if name not in expected or name not in ours or expected[name].shape != ours[name].shape
    )
    if wrong:
        raise ArtefactError(
            f"the weights look like those of torch_geometric's {type(model.model).__name__}, but "
            f"are not: missing, unknown or of other shapes are {', '.join(wrong[:6])}; only "
            f"networks without norms, and GraphUNets that add where levels meet, are known"
        )
    model.load_state_dict(ours)
    return model


def current_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names that torch_geometric has for them, without a prefix.

    Raises:
        ArtefactError: If there is no layer of a graph network, or weights beside the network's.
    """
    first = next((match for match in map(FIRST.match, weights) if match), None)
    if first is None:
        raise ArtefactError(
            f"there is no graph network in it, whose weights are named convs.0.… or "
            f"down_convs.0.…; found {', '.join(list(weights)[:4]) or 'nothing'}"
        )
    prefix = first["prefix"]
    others = [name for name in weights if not name.startswith(prefix)]
    if others:
        raise ArtefactError(
            f"beside the network {prefix!r} it holds {', '.join(others[:4])}; keep the weights of "
            f"one network"
        )
    bare = {}
    for name, value in weights.items():
        name = name.removeprefix(prefix)
        if re.fullmatch(SHARED, name):
            continue
        for old, new in RENAMED:
            name = re.sub(f"^{old}$", new, name)
        bare[name] = value
    return bare


def network_of(
    bare: Mapping[str, Tensor], *, ndim: int, dropout: float, jk: str | None, ratio: float
) -> GraphNetwork:
    """A network of the kind and sizes that the weights tell, with weights of its own."""
    if any(name.startswith("down_convs.") for name in bare):
        width, in_chan = bare["down_convs.0.lin.weight"].shape
        depth = layers(bare, "pools")
        out_chan = len(bare[f"up_convs.{depth - 1}.lin.weight"])
        return GridGraphUNet(in_chan, out_chan, ndim=ndim, width=width, depth=depth, ratio=ratio)
    depth = layers(bare, "convs")
    if "convs.0.eps" in bare:
        width, in_chan = bare["convs.0.nn.lins.0.weight"].shape
        out_chan = len(bare[f"convs.{depth - 1}.nn.lins.1.weight"])
        return GridGIN(in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout)
    width, in_chan = bare["convs.0.lin.weight"].shape
    out_chan, features = bare["lin.weight"].shape
    if "jk.lstm.weight_ih_l0" in bare:
        jk = "lstm"
    elif features != width:
        jk = "cat"
    elif jk not in (None, "last", "max"):
        raise RecipeError(f"`jk` is {jk!r}, but the weights are those of 'last' or 'max'")
    if "convs.0.att_src" in bare:
        return GridGAT(
            in_chan,
            out_chan,
            ndim=ndim,
            width=width,
            depth=depth,
            heads=bare["convs.0.att_src"].shape[1],
            dropout=dropout,
            jk=jk or "last",
        )
    return GridGCN(
        in_chan, out_chan, ndim=ndim, width=width, depth=depth, dropout=dropout, jk=jk or "last"
    )


def layers(bare: Mapping[str, Tensor], name: str) -> int:
    """How many layers of a name there are."""
    return len({key.split(".")[1] for key in bare if key.startswith(f"{name}.")})
