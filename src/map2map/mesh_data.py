"""The zones of meshes that a graph network learns from, for Lightning's trainer."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from map2map.errors import RecipeError, SourceError, near_names
from map2map.memory import bytes_of
from map2map.meshes import check_finite, read_mesh, zones
from map2map.models.graph_nets import torch_geometric_part
from map2map.patterns import Files, Found, some
from map2map.splits import SIDES, Split, sides

__all__ = ["MeshData", "ZoneSet"]

Side = Literal["train", "val", "test"]
Patterns = str | list[str] | Files


class MeshData(pl.LightningDataModule):
    """Zones of meshes in files, see `map2map.meshes`, in batches of graphs.

    A batch is torch_geometric's union of its zones: ``x`` and ``y``, values at nodes in physical
    units, shape (nodes, field); ``edge_index``; ``edge_attr``, lengths of edges, shape (edges, 1);
    ``pos``; ``batch``, the zone that a node is of.

    Args:
        train: The files of the training split: a pattern, or several, with placeholders such as
            ``{snapshot}``. Its ``variable`` are zones in the files; default: all there are.
        val: Likewise of the validation split; none, no validation.
        test: Likewise of the test split, which training never sees.
        predict: Likewise of those that `m2m predict` writes predictions for.
        split: How the zones of ``train`` are shared out among the splits, if ``val`` and ``test``
            are not given. Zones of one snapshot are neighbors: say what is kept ``together``.
        batch_size: Zones per batch, of each process.
        workers: Processes that read ahead; 0: read when asked.
        in_memory: Zones that together take no more than this are read once and kept in memory, of
            each process and split; 0: none.
    """

    def __init__(
        self,
        train: Patterns | None = None,
        val: Patterns | None = None,
        test: Patterns | None = None,
        predict: Patterns | None = None,
        split: Split | None = None,
        batch_size: int = 1,
        workers: int = 0,
        in_memory: int | str = "1GiB",
    ) -> None:
        super().__init__()
        if split is not None and (val or test):
            raise RecipeError(
                "data.split shares out the zones of data.train, so data.val and data.test are not "
                "given; leave out one or the others"
            )
        if split is not None and split.by == "time":
            raise RecipeError(
                "zones have no times to be split by; split them by name, hash or random"
            )
        if batch_size < 1 or workers < 0:
            raise RecipeError(
                f"a batch has 1 zone or more, and there are 0 workers or more, not {batch_size} "
                f"and {workers}"
            )
        self.patterns = {"train": train, "val": val, "test": test, "predict": predict}
        self.split, self.batch_size, self.workers = split, batch_size, workers
        self.kept_bytes = 0 if in_memory in (0, "0") else bytes_of(in_memory)
        self.names: tuple[tuple[str, ...], ...] = ((), (), ())
        self._found: dict[str, list[Found]] | None = None
        self._sets: dict[str, ZoneSet] = {}

    def open(
        self, inputs: Sequence[str], targets: Sequence[str], others: Sequence[str] = ()
    ) -> None:
        """Say which fields are read.

        Args:
            inputs: Names of the fields that the network sees, in ``FlowSolution``.
            targets: Of those that it learns.
            others: Of those that are compared with the targets.
        """
        names = tuple(inputs), tuple(targets), tuple(others)
        if names != self.names:
            self.names, self._sets = names, {}

    @property
    def found(self) -> Mapping[str, Sequence[Found]]:
        """The zones of each split that is not empty.

        Raises:
            SourceError: If there are no files, or no zones in one.
            RecipeError: If a split has no zone, or a zone is in two.
        """
        if self._found is None:
            given = {side: self.zones_of(side) for side in SIDES if self.patterns[side]}
            if self.split is not None and "train" in given:
                of = sides(split_names(given["train"], self.split), self.split)
                given = {
                    side: [
                        zone for zone, its in zip(given["train"], of, strict=True) if its == side
                    ]
                    for side in SIDES
                    if side in of
                }
            for first, second in combinations(given, 2):
                known = {(zone.path.resolve(), zone.variable) for zone in given[first]}
                both = [
                    str(zone)
                    for zone in given[second]
                    if (zone.path.resolve(), zone.variable) in known
                ]
                if both:
                    raise RecipeError(
                        f"{len(both)} zones of data.{second} are in data.{first}, too, so its "
                        f"scores would flatter: {some(both, 3)}; take others"
                    )
            self._found = given
        return self._found

    def zones_of(self, side: str) -> list[Found]:
        """The zones that the patterns of a split, or of what is predicted, stand for.

        Raises:
            SourceError: If there are none.
        """
        pattern = self.patterns[side]
        files = pattern if isinstance(pattern, Files) else Files(pattern or [])
        if files.variable is None:
            files = Files(files.pattern, "*", files.only)
        return files.found(f"data.{side}", some_zones)

    def side(self, side: str) -> "ZoneSet":
        """The zones of a split.

        Raises:
            RecipeError: If none are given.
        """
        if side not in self.found:
            raise RecipeError(
                f"there are no zones of the {side} split; give data.{side}, or data.split, and "
                f"data.train"
            )
        if side not in self._sets:
            self._sets[side] = ZoneSet(self.found[side], self.names, self.kept_bytes)
        return self._sets[side]

    def chunks(self, name: str) -> Iterator[Tensor]:
        """The values of an input or target in the training split, shape (1, node), by zone."""
        inputs, targets, _ = self.names
        for item in self.side("train"):
            values = item.x[:, inputs.index(name)] if name in inputs else None
            yield (item.y[:, targets.index(name)] if values is None else values)[None]

    def loader(self, side: Side) -> Any:
        """Batches of a split."""
        return torch_geometric_part("loader").DataLoader(
            self.side(side),
            batch_size=self.batch_size,
            shuffle=side == "train",
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def train_dataloader(self) -> Any:
        """Batches of the training split, in another order each epoch."""
        return self.loader("train")

    def val_dataloader(self) -> Any:
        """Batches of the validation split; of a training, if there is one."""
        asked = self.trainer is not None and self.trainer.validating
        return self.loader("val") if asked or "val" in self.found else []

    def test_dataloader(self) -> Any:
        """Batches of the test split."""
        return self.loader("test")

    def predict_dataloader(self) -> Any:
        """Files, each with the names of its zones: whole, because predictions are written by file.

        Raises:
            RecipeError: If no files are given.
        """
        if not self.patterns["predict"]:
            raise RecipeError("say which files are to be predicted, by data.predict")
        files: dict[str, list[str]] = {}
        for zone in self.zones_of("predict"):
            files.setdefault(str(zone.path), []).append(str(zone.variable))
        return DataLoader(list(files.items()), batch_size=None, collate_fn=as_it_is)  # type: ignore[arg-type]


class ZoneSet(Dataset[Any]):
    """Zones, each a graph of torch_geometric's.

    Args:
        found: Where they are.
        names: Of the fields of ``x``, of ``y``, and of others, which are in ``z``.
        kept_bytes: How much of them is kept in memory.
    """

    def __init__(
        self, found: Sequence[Found], names: tuple[tuple[str, ...], ...], kept_bytes: int = 0
    ) -> None:
        self.found, self.names, self.free = found, names, kept_bytes
        self.kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Any:
        """A zone.

        Raises:
            SourceError: If its file is missing or damaged, or lacks a group or data set.
            GeometryError: If the connectivity does not fit the nodes.
            FieldError: If a field is missing, has values elsewhere than at nodes, or is not finite.
        """
        if number in self.kept:
            return self.kept[number]
        item = graph_of(self.found[number], self.names)
        size = sum(value.nbytes for value in item.to_dict().values())
        if size <= self.free:
            self.free -= size
            self.kept[number] = item
        return item


def graph_of(found: Found, names: Sequence[Sequence[str]]) -> Any:
    """Read a zone."""
    every = list(dict.fromkeys(name for group in names for name in group))
    mesh = read_mesh(found.path, found.variable, every)
    check_finite(mesh, str(found))
    x, y, z = (
        torch.from_numpy(
            np.stack([mesh.values[name] for name in group], axis=1).astype(np.float32)
            if group
            else np.empty((mesh.nodes, 0), np.float32)
        )
        for group in names
    )
    # lengths in the numbers of the file: single precision is enough for what is learnt
    lengths, places = (
        torch.from_numpy(values.astype(np.float32))
        for values in (mesh.lengths[:, None], mesh.positions)
    )
    edges = torch.from_numpy(mesh.edges)
    data = torch_geometric_part("data").Data
    return data(x=x, y=y, z=z, edge_index=edges, edge_attr=lengths, pos=places)


def some_zones(path: Path) -> tuple[str, ...]:
    """The zones of a file.

    Raises:
        SourceError: If it has none.
    """
    found = zones(path)
    if not found:
        raise SourceError(f"{path} has no zones with GridCoordinates in 'Base'; leave it out")
    return found


def split_names(found: Sequence[Found], how: Split) -> list[str]:
    """What tells zones apart in a split, one text each.

    Raises:
        RecipeError: If a placeholder is not known.
    """
    for key in how.together or ():
        told = sorted({name for zone in found for name in zone.told})
        if not all(key in zone.told for zone in found):
            raise RecipeError(
                f"data.split keeps zones of one {key!r} together, but not all patterns tell it"
                f"{near_names(key, told)}"
            )
    if how.together:
        return ["/".join(zone.told[key] for key in how.together) for zone in found]
    # wherever the folder is
    common = os.path.commonpath([zone.path.parent for zone in found])
    return [f"{zone.path.relative_to(common)}:{zone.variable}" for zone in found]


def as_it_is(item: Any) -> Any:
    """What makes a batch of one thing: nothing."""
    return item
