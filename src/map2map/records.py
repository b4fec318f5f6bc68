"""What a packed run says of its making, by which it is known to be complete and as asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from map2map.errors import SourceError

__all__ = ["FORMAT", "KEY", "differences", "identity", "record_of"]

FORMAT = 1
KEY = "map2map_pack"
"""The attribute of a Zarr group that holds the record."""


def identity(path: Path) -> dict[str, int]:
    """Size [bytes] and time of the last change [ns] of a file, or of all in a folder."""
    files = [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]
    try:
        states = [file.stat() for file in files]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    return {
        "bytes": sum(state.st_size for state in states),
        "mtime_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def record_of(path: Path) -> dict[str, Any] | None:
    """What a packed run says of its making; None if there is no packed run at ``path``."""
    try:
        record = json.loads((path / "zarr.json").read_text())["attributes"][KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if isinstance(record, dict) else None


def differences(
    found: Mapping[str, Any], asked: Mapping[str, Any], *, inputs: bool = True
) -> list[str]:
    """In which ways a packed run is not what is asked for.

    Args:
        found: Its record.
        asked: The record that it should have.
        inputs: Whether the files matter, too.
    """
    if found.get("format") != asked["format"]:
        return [f"its format is {found.get('format')}, and {asked['format']} is known"]
    said = [
        f"{key} is {found['settings'].get(key)}, and {value} is asked for"
        for key, value in asked["settings"].items()
        if found["settings"].get(key) != value
    ]
    if inputs:
        for name, item in asked["inputs"].items():
            was = found["inputs"].get(name, {})
            if Path(was.get("path", "")).name != Path(item["path"]).name:
                said.append(f"{name} was read from {was.get('path')}, not {item['path']}")
            elif any(was.get(key) != item[key] for key in ("variable", "bytes", "mtime_ns")):
                said.append(f"{item['path']} has changed since")
    return said
