"""What graph networks on meshes learn: one step, scores, predictions in files.

For Lightning's command line, ``m2m fit | validate | test | predict --config FILE``, together with
`map2map.mesh_data`. The checkpoint holds the emulator whole, with its card, so that it is applied
without the training data. It holds no edges.
"""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from map2map.emulator import Card, Emulator
from map2map.errors import ArtefactError, RecipeError, SaveError
from map2map.fields import Field, FieldSet
from map2map.files import replacing
from map2map.grids import Domain
from map2map.mesh_data import MeshData
from map2map.mesh_predictions import graph_network_of, predict_file
from map2map.norms import Norm
from map2map.preparation import ModelFactory, fit_norms

__all__ = ["MeshTask"]

CARD = "emulator_card"
"""The key of the card in a checkpoint."""

NDIM = 3


class MeshTask(pl.LightningModule):
    """Learn fields at the nodes of meshes from others.

    What is logged: ``loss/train`` and ``loss/val``, means over nodes; and of validation and test,
    over all nodes together and in physical units, ``r2/val/TARGET``, ``rmse/…`` and
    ``relative_l2/…``; likewise of what is compared with it, ``r2/val/TARGET_by_FIELD``.

    Args:
        inputs: Fields the network sees; their names are those in ``FlowSolution``.
        targets: Fields it learns.
        network: The network's class and its arguments, one of graphs; channels are told it.
        norms: Norms by field name; a field without one is left as it is.
        loss: Compares normalized output and target, shape (1, channel, nodes); by default the mean
            squared error.
        baselines: For targets, a field of the solution that tells them as well, to be scored
            beside.
        most_nodes: A zone of more nodes is predicted in parts; see `predict_mesh`.
        predictions: Folder for copies of files with predictions.
        overwrite: Whether predictions that are there may be replaced.
    """

    def __init__(  # noqa: PLR0913 - the keys of a recipe
        self,
        inputs: list[Field] | None = None,
        targets: list[Field] | None = None,
        network: ModelFactory | None = None,
        norms: dict[str, Norm] | None = None,
        loss: nn.Module | None = None,
        baselines: dict[str, str] | None = None,
        most_nodes: int | None = None,
        predictions: Path = Path("predictions"),
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        given = [bool(inputs), bool(targets), network is not None]
        if any(given) and not all(given):
            raise RecipeError(
                "inputs, targets and network belong together; give all three, or none of them to "
                "take those of a checkpoint"
            )
        self.inputs, self.targets = inputs or [], targets or []
        self.make_network, self.norms = network, norms or {}
        self.loss: nn.Module = loss or nn.MSELoss()
        self.baselines, self.most_nodes = baselines or {}, most_nodes
        self.predictions, self.overwrite = predictions, overwrite
        self.emulator: Emulator | None = None if network is None else self._made()
        self.trained = False
        self.sums: dict[str, Tensor] = {}

    def _made(self) -> Emulator:
        """An emulator that has learnt nothing."""
        assert self.make_network is not None
        fields = [
            FieldSet(tuple(f.resolved(1, NDIM) for f in s)) for s in (self.inputs, self.targets)
        ]
        network = self.make_network(*(side.channels for side in fields), ndim=NDIM)
        emulator = Emulator(fields[0], fields[1], self.norms, network, Domain(ndim=NDIM))
        graph_network_of(emulator)
        unknown = sorted(set(self.baselines) - set(fields[1].names))
        if unknown:
            raise RecipeError(
                f"baselines are given of {', '.join(unknown)}, but the targets are "
                f"{', '.join(fields[1].names)}"
            )
        return emulator

    @property
    def built(self) -> Emulator:
        """The emulator.

        Raises:
            RecipeError: If there is none yet.
        """
        if self.emulator is None:
            raise RecipeError(
                "no network is given; give inputs, targets and network (model.init_args), or a "
                "checkpoint (--ckpt_path)"
            )
        return self.emulator

    @property
    def data(self) -> MeshData:
        """The zones.

        Raises:
            RecipeError: If the data are others.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, MeshData):
            raise RecipeError(
                f"MeshTask learns from map2map.mesh_data.MeshData, not from {type(data).__name__}"
            )
        return data

    # --- steps -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Say what is to be read; before training, fit the norms."""
        self._open()
        if stage == "fit":
            fit_norms(self.built, self.data, self.trainer)
            self.trained = True

    def _open(self) -> None:
        if self.emulator is not None:
            names = self.emulator.targets.names
            others = [self.baselines[name] for name in names if name in self.baselines]
            self.data.open(self.emulator.inputs.names, self.emulator.targets.names, others)

    def forward(self, batch: Any) -> Tensor:
        """Normalized output for a batch of zones, shape (nodes, target)."""
        seen = self.built.encode_input(batch.x.T[None])[0].T
        return graph_network_of(self.built).on_graph(seen, batch.edge_index, batch.batch)

    def _step(self, batch: Any, side: str) -> Tensor:
        output = self(batch).T[None]
        truth = batch.y.T[None]
        loss: Tensor = self.loss(output, self.built.encode_target(truth))
        self.log(
            f"loss/{side}", loss, on_step=False, on_epoch=True, prog_bar=True,
            batch_size=batch.num_nodes, sync_dist=True,
        )  # fmt: skip
        if side != "train":
            self._add(self.built.decode_target(output.detach().float())[0], batch)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score a batch."""
        self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score a batch."""
        self._step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at 1e-3, if the file names no optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def on_validation_start(self) -> None:
        """Refuse to score what has learnt nothing."""
        self._require()

    def on_test_start(self) -> None:
        """Likewise."""
        self._require()

    # --- scores ----------------------------------------------------------------------------

    def _add(self, found: Tensor, batch: Any) -> None:
        """Add predictions (target, nodes) to the sums, and what is compared with them."""
        names = self.built.targets.names
        others = [name for name in names if name in self.baselines]
        pairs = {name: (found[k], batch.y[:, k]) for k, name in enumerate(names)}
        pairs |= {
            f"{name}_by_{self.baselines[name]}": (batch.z[:, k], batch.y[:, names.index(name)])
            for k, name in enumerate(others)
        }
        for name, (p, t) in pairs.items():
            p, t = p.double(), t.double()
            error = (p - t).square().sum()
            sums = torch.stack(
                [torch.tensor(float(len(t))).to(error), error, t.sum(), t.square().sum()]
            )
            self.sums[name] = self.sums.get(name, torch.zeros_like(sums)) + sums

    def _close(self, side: str) -> dict[str, float]:
        """The scores over all nodes, of all processes."""
        scores: dict[str, float] = {}
        for name, sums in self.sums.items():
            total: Any = self.trainer.strategy.reduce(sums, reduce_op="sum")
            count, error, truth, power = total.tolist()
            variance = power - truth**2 / count
            scores[f"r2/{side}/{name}"] = 1 - error / variance if variance > 0 else math.nan
            scores[f"rmse/{side}/{name}"] = math.sqrt(error / count)
            scores[f"relative_l2/{side}/{name}"] = math.sqrt(error / power) if power else math.nan
        self.sums = {}
        for name, value in scores.items():
            # every process has the same
            self.log(name, value, rank_zero_only=False, sync_dist=False)
        return scores

    def on_validation_epoch_end(self) -> None:
        """Close the scores."""
        self._close("val")

    def on_test_epoch_end(self) -> None:
        """Close the scores, and write them to ``test_scores.json`` in the folder of the log."""
        scores = self._close("test")
        # without a logger there is no folder of its own to write to
        if self.trainer.loggers and self.trainer.log_dir and self.trainer.is_global_zero:
            with replacing(Path(self.trainer.log_dir) / "test_scores.json") as part:
                part.write_text(json.dumps(scores, indent=2) + "\n")

    # --- predictions -----------------------------------------------------------------------

    def on_predict_start(self) -> None:
        """Refuse to replace files, before any is written."""
        self._require()
        loader: Any = self.trainer.predict_dataloaders
        paths = [Path(path) for path, _ in loader.dataset]
        names = [path.name for path in paths]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RecipeError(
                f"several files are called {twice[0]}, which would be one in {self.predictions}; "
                f"predict them one after another, each to a folder of its own (predictions)"
            )
        there = [name for name in names if (self.predictions / name).exists()]
        if there and not self.overwrite:
            raise SaveError(
                f"{self.predictions} holds {there[0]}{', …' if there[1:] else ''} already, "
                f"perhaps of a run that broke off; choose another folder (predictions), or allow "
                f"to overwrite"
            )

    def predict_step(self, batch: tuple[str, list[str]], batch_idx: int) -> str:
        """Write predictions for the zones of a file; where to."""
        path, zones = Path(batch[0]), batch[1]
        out = self.predictions / path.name
        predict_file(self.built, path, out, zones, most_nodes=self.most_nodes)
        return str(out)

    # --- checkpoints -----------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the emulator says about itself, norms included."""
        checkpoint[CARD] = json.dumps(self.built.card().entries())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the emulator of a checkpoint, which must be the one that was asked for.

        Raises:
            ArtefactError: If it is another, or no checkpoint of this kind.
        """
        where = "the checkpoint"
        text = checkpoint.get(CARD)
        if not isinstance(text, str):
            raise ArtefactError(
                f"{where} has no card of an emulator ({CARD}), but "
                f"{', '.join(map(str, list(checkpoint)[:4]))}; give one that MeshTask has written"
            )
        card = Card.parse(text, where)
        model = None
        if self.emulator is not None:
            mine: Any = json.loads(json.dumps(asdict(self.emulator.card())))
            for key in ("inputs", "targets", "model"):
                if mine[key] != getattr(card, key):
                    raise ArtefactError(
                        f"{where} was trained with {key} {getattr(card, key)}, but asked for are "
                        f"{mine[key]}; give the same (model.init_args)"
                    )
            model = self.emulator.model
        self.emulator = Emulator.of_card(card, where, model).train()
        self.trained = True
        if self._trainer is not None:
            self._open()

    def _require(self) -> None:
        if not self.trained:
            raise RecipeError(
                "this network has learnt nothing yet; give its checkpoint (--ckpt_path FILE.ckpt)"
            )
