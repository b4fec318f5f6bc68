"""``m2m inspect FILE``: what is in a field file, a recipe, a state or an emulator."""

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from map2map.commands.recipes import find, shipped
from map2map.errors import M2MError, RecipeError, SourceError
from map2map.patterns import distinct_names, some
from map2map.sources import Source, Stored, open_source
from map2map.statistics import Part, Statistics, Wanted, read_pass

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Say what is in a file."""
    parser = argparse.ArgumentParser(
        prog="m2m inspect",
        description="Say what is in a file: of a field file the fields with shapes, dtypes, units, "
        "range and NaNs; of a recipe, with overrides behind it, its resolved settings and splits; "
        "of a state or emulator its card; of a network, named by its import path, the footprint.",
    )
    parser.add_argument(
        "file",
        type=Path,
        help="npy, NetCDF, HDF5, Zarr, YAML, pt or safetensors; or a class such as "
        "map2map.models.UNet",
    )
    parser.add_argument(
        "--ndim", type=int, help="number of axes of the grid, if not told otherwise"
    )
    parser.add_argument(
        "--channels", type=int, nargs=2, default=[1, 1], help="of a network: in and out"
    )
    parser.add_argument("--callback-at", type=Path, help="of a network: folder of your own code")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options, overrides = parser.parse_known_args(argv)
    path: Path = options.file
    if str(path) in shipped():
        path = shipped()[str(path)]
    if path.suffix in (".yaml", ".yml"):
        return _recipe(path, overrides)
    if overrides:
        parser.error(f"only a recipe takes {' '.join(overrides)}")
    if not path.exists() and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", str(path)):
        _network(str(path), options.channels, options.ndim or 3, options.callback_at)
        return 0
    if not path.exists():
        raise SourceError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        from map2map.emulator import Card

        card = asdict(Card.read(path))
        if not options.json:
            # with ten thousand files nobody would see the rest
            files = card["training"].get("files", {})
            card["training"]["files"] = {k: f"{len(runs)} runs" for k, runs in files.items()}
        print(json.dumps(card, indent=2))
    elif path.suffix in (".pt", ".pth", ".ckpt"):
        print(json.dumps(_state(path), indent=2))
    else:
        _fields(open_source(path, ndim=options.ndim), as_json=options.json)
    return 0


def _network(path: str, channels: list[int], ndim: int, callback_at: Path | None) -> None:
    """The footprint that a network states, and the one that is measured."""
    from map2map.footprints import Footprint, measure
    from map2map.usercode import use_folder

    if callback_at is not None:
        use_folder(callback_at)
    module, _, name = path.rpartition(".")
    try:
        made = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"there is no file {path}, and no network of that name: {error}"
        ) from error
    try:
        network = made(*channels, ndim=ndim)
    except TypeError:
        try:
            network = made(*channels)
        except TypeError as error:
            raise RecipeError(
                f"{path} cannot be made from the numbers of channels {channels}: {error}"
            ) from error
    stated = getattr(network, "footprint", None)
    measured = None
    # one that takes a single grid has to be asked for which
    if not isinstance(stated, Footprint) or stated.sizes is None:
        measured = asdict(measure(network, channels[0], ndim))
        del measured["ring"], measured["sizes"]  # can only be stated
    report = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "stated": asdict(stated) if isinstance(stated, Footprint) else None,
        "measured": measured,
    }
    print(json.dumps(report, indent=2))


def _recipe(path: Path, overrides: Sequence[str]) -> int:
    """Print the resolved recipe, and as comments which runs are in which split."""
    from map2map.commands.train import make

    cli = make(["--config", str(find(str(path))), *overrides], "m2m inspect")
    print(cli.parser.dump(cli.config, skip_none=False), end="")
    try:
        cli.datamodule.open(cli.model.inputs, cli.model.targets)
    except M2MError as error:
        print(f"# splits are not known: {error}")
        return 0
    for split, runs in cli.datamodule.runs.items():
        names = distinct_names(list(dict.fromkeys(run.path for run in runs.groups)))
        frames = "" if len(names) == len(runs.groups) else f" of {len(names)} files"
        print(f"# {split}: {len(runs.groups)} runs{frames}: {some(names, 8)}")
    return 0


def _state(path: Path) -> dict[str, object]:
    from map2map.checkpoints import read_state

    state = read_state(path)
    return {
        "kind": "state of map2map" + ("" if "loops" in state else ", of its first version"),
        "epoch": state.get("epoch"),
        "next": state.get("FieldData"),
        "model": state.get("model_spec"),
        "parameters": sum(
            v.numel()
            for k, v in state["model"].items()
            if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))
        ),
        "weights": {name: list(value.shape) for name, value in state["model"].items()},
        "history": state.get("history"),
    }


def _fields(source: Source, *, as_json: bool) -> None:
    rows = {name: _summary(source, stored) for name, stored in source.fields.items()}
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = (
        "field",
        "channels",
        "shape",
        "dtype",
        "units",
        "min",
        "max",
        "mean",
        "std",
        "NaN/Inf",
    )
    table = Table(*columns, title=str(source.path), title_justify="left", box=None)
    for name, row in rows.items():
        table.add_row(name, *(_short(row[column]) for column in columns[1:]))
    # numbers are not cut off, whatever the width of the window
    Console(width=1000).print(table)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return " x ".join(map(str, value))
    return "-" if value is None else str(value)


def _summary(source: Source, stored: Stored) -> dict[str, object]:
    """What can be said of a field, in one pass, a slab at a time."""
    statistics = Statistics(Wanted(), stored.floating)
    read_pass([Part(source, stored, (statistics,))])
    found = statistics.moments
    known = found.count > 0
    return {
        "channels": stored.channels,
        "shape": list(stored.shape),
        "dtype": stored.dtype,
        "units": stored.units,
        "min": found.low if known else None,
        "max": found.high if known else None,
        "mean": found.mean if known else None,
        "std": found.std if known else None,
        "NaN/Inf": found.nan + found.inf,
    }
