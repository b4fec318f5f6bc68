"""Stores that are prepared: written a slab after the others, and taken up where they ended.

A store has its name once it is complete. Before, it is called ``.NAME.part``, and a small file
beside it says how much is in it. An attribute tells what it was made of.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import xarray as xr

from map2map.errors import M2MError, RecipeError, SaveError, SourceError
from map2map.files import replacing
from map2map.patterns import Files, some

__all__ = ["Preparation", "check_current", "paired", "prepare"]

log = logging.getLogger(__name__)

DIGEST = "prepared"
"""The attribute of a store that tells what it was made of, in one word."""

ORIGIN = "prepared_of"
"""The attribute that tells for each file, as seen from the store, its state and content."""

TOLD = 10.0
"""Seconds until it is told again how far a store is."""


class Preparation(Protocol):
    """What stores are prepared of, and how; a dataclass.

    Attributes:
        several: How many are computed at once along the axis, and in a chunk of the store.
        axis: Along which slabs follow each other.
    """

    @property
    def several(self) -> int:
        """How many are computed at once."""

    @property
    def axis(self) -> str:
        """Along which slabs follow each other."""

    def runs(self) -> dict[Path, dict[str, Path]]:
        """For the store of each run, the file of each part."""

    def opened(self, files: Mapping[str, Path]) -> AbstractContextManager[xr.Dataset]:
        """All fields of a run, lazily: nothing is read before it is asked for."""


def paired(out: str, patterns: Mapping[str, str | list[str]]) -> dict[Path, dict[str, Path]]:
    """For the store of each run, the file of each part.

    Args:
        out: The store: ``{run}`` stands for what the wildcards of the patterns stand for, and a
            placeholder of theirs for the same text.
        patterns: The files of each part, by its name. What wildcards and placeholders stand for
            pairs the runs of all parts; without any, the file is the same for all runs.

    Raises:
        SourceError: If files are missing.
        RecipeError: If several runs would be written to one store.
    """
    found = {
        name: {entry.wild: entry for entry in Files(pattern).found(name, lambda _: ())}
        for name, pattern in patterns.items()
    }
    # those without wildcards are the same for all runs
    several = {name: entries for name, entries in found.items() if set(entries) != {()}}
    every = sorted(set().union(*several.values())) or [()]
    for name, mine in several.items():
        missing = ["_".join(run) for run in every if run not in mine]
        if missing:
            there = some(["_".join(run) for run in mine])
            raise SourceError(
                f"part {name!r} has no files of the runs {some(missing)}, which other parts "
                f"have; {patterns[name]!r} matches {there}"
            )
    made: dict[Path, dict[str, Path]] = {}
    for run in every:
        entries = {name: found[name].get(run) or found[name][()] for name in found}
        store = out.replace("{run}", "_".join(run))
        for entry in entries.values():
            for key, text in entry.told.items():
                store = store.replace(f"{{{key}}}", text)
        if "{" in store or Path(store) in made:
            raise RecipeError(
                f"`out` is {out!r}, which for the run {'_'.join(run)!r} is {store}, "
                f"{'with names that no part has' if '{' in store else 'as for another run'}; "
                f"write {{run}} into it, or the placeholders of all parts"
            )
        made[Path(store)] = {name: entry.path for name, entry in entries.items()}
    return made


def prepare(declared: Preparation, *, overwrite: bool = False) -> list[Path]:
    """Write all runs; those that are complete and made of the same are left as they are.

    Args:
        declared: What.
        overwrite: Whether stores that are complete are made again.

    Returns:
        The stores.

    Raises:
        M2MError: If files do not fit together, or something cannot be written.
    """
    runs = declared.runs()
    for number, (store, files) in enumerate(runs.items()):
        made_of = {name: content_of(path) for name, path in files.items()}
        digest = digest_of_all(declared, made_of)
        if not overwrite and is_done(store, digest):
            log.info("%s is there already", store)
            continue
        told = {
            ORIGIN: {
                os.path.relpath(path, store.parent): [state_of(path), made_of[name]]
                for name, path in files.items()
            }
        }
        with declared.opened(files) as fields:
            write(fields.assign_attrs(told), store, digest, declared.several, declared.axis)
        log.info("prepared %s, %d of %d", store, number + 1, len(runs))
    return [*runs]


def check_current(store: Path) -> None:
    """Refuse a store that was prepared of files that have changed since.

    Those that are not there, because the store was taken elsewhere, are not asked for.

    Args:
        store: Any file or folder.

    Raises:
        SourceError: If a file that it is made of has another content now.
    """
    origin = attributes_of(store).get(ORIGIN)
    for name, (state, content) in (origin or {}).items():
        path = store.parent / name
        if path.exists() and state_of(path) != state and content_of(path) != content:
            raise SourceError(
                f"{store} was prepared of {os.path.normpath(path)}, which has changed since; make "
                f"it again: m2m prepare RECIPE --overwrite"
            )


def state_of(path: Path) -> str:
    """Size and time of change of a file, or of all files of a folder, as a short text."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    states = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.blake2b(json.dumps(states).encode(), digest_size=16).hexdigest()


def content_of(path: Path) -> str:
    """A digest of what is in a file, or in all files of a folder and their names."""
    found = hashlib.blake2b(digest_size=16)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for each in files:
        found.update(f"{each.relative_to(path)}\0{each.stat().st_size}\0".encode())
        with each.open("rb") as file:
            while block := file.read(1 << 22):
                found.update(block)
    return found.hexdigest()


def digest_of_all(declared: Preparation, contents: Mapping[str, str]) -> str:
    """What a store is made of: the declaration, and the contents of the files of its parts.

    Where these lie is no matter.
    """
    how = _without(asdict(declared), ("files", "out"))  # type: ignore[call-overload]
    text = json.dumps([how, contents], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _without(value: Any, keys: Sequence[str]) -> Any:
    """Nested dictionaries without some keys."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without(each, keys) for key, each in value.items() if key not in keys}


def is_done(store: Path, digest: str) -> bool:
    """Whether a store is there and was made of the same.

    Raises:
        SaveError: If it was made of something else.
    """
    if not store.exists():
        return False
    found = digest_of(store)
    if found is None:
        raise SaveError(
            f"{store} is there, and was not prepared; choose another `out`, or remove it yourself"
        )
    if found != digest:
        raise SaveError(
            f"{store} was prepared of other files or in another way; choose another `out`, or "
            f"overwrite it"
        )
    return True


def attributes_of(store: Path) -> dict[str, Any]:
    """Attributes of a Zarr store; none if it is none."""
    try:
        return dict(json.loads((store / "zarr.json").read_text())["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def digest_of(store: Path) -> str | None:
    """What a store was made of; None if it is none of ours."""
    return attributes_of(store).get(DIGEST)


def write(fields: xr.Dataset, store: Path, digest: str, several: int, axis: str = "time") -> None:
    """Write a run, a slab after the others, and put it in its place when it is complete.

    Args:
        fields: What to write; fields that have the axis are computed so many at once.
        store: Where; a store that was prepared before is replaced.
        digest: What it is made of.
        several: How many at once, and in a chunk of the store.
        axis: Along which slabs follow each other.

    Raises:
        SaveError: If it cannot be written; what was written is taken up next time.
    """
    part = store.with_name(f".{store.name}.part")
    progress = part.with_name(f"{part.name}.json")
    if store.exists() and digest_of(store) is None:
        raise SaveError(f"{store} will not be overwritten: it was not prepared; remove it yourself")
    try:
        done = begun(progress, part, digest, axis)
        if done is None:
            # first, so that no other's progress is taken for that of what begins now
            progress.unlink(missing_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            begin(fields.assign_attrs({DIGEST: digest}), part, several, axis)
            done = 0
        told = time.monotonic()
        for first in slabs(fields, done, several, axis):
            slab = fields.isel({axis: slice(first, first + several)})
            fixed = [name for name, field in slab.items() if axis not in field.dims]
            slab = slab.drop_vars([*slab.coords, *fixed])
            read(slab, store).to_zarr(
                part, region={axis: slice(first, first + several)}, consolidated=False
            )
            with replacing(progress) as file:
                file.write_text(json.dumps({f"{axis}s": first + several}))
            if time.monotonic() - told > TOLD:
                told, size = time.monotonic(), fields.sizes[axis]
                log.info("%s: %d of %d along %s", store, first + slab.sizes[axis], size, axis)
        shutil.rmtree(store, ignore_errors=True)
        part.replace(store)
        progress.unlink(missing_ok=True)
    except M2MError:
        raise
    except OSError as error:
        raise SaveError(
            f"cannot write {store}: {error}; make room, and start again: what is in {part} is "
            f"taken up"
        ) from error


def read(fields: xr.Dataset, store: Path) -> xr.Dataset:
    """Compute fields.

    Raises:
        SourceError: If what they are made of cannot be read.
    """
    try:
        return fields.load()
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"cannot read what {store} is made of: {' '.join(str(error).split())}; "
            f"one of its files may be damaged"
        ) from error


def begun(progress: Path, part: Path, digest: str, axis: str) -> int | None:
    """How much an earlier try has written of the same; None if there was none."""
    try:
        state = json.loads(progress.read_text())
        return int(state[f"{axis}s"]) if digest_of(part) == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(fields: xr.Dataset, part: Path, several: int, axis: str) -> None:
    """Make the store: coordinates, what does not have the axis, and room for the rest."""
    fixed = {
        str(name): {"chunks": tuple(several if d == axis else n for d, n in field.sizes.items())}
        for name, field in fields.data_vars.items()
    }
    template = fields.copy()
    for name, field in template.variables.items():
        if name != axis:
            field.encoding = {}
        if name in fields.data_vars and axis not in field.dims:
            template[name] = template[name].load()
    part.parent.mkdir(parents=True, exist_ok=True)
    template.to_zarr(
        part, mode="w", compute=False, encoding=fixed, zarr_format=3, consolidated=False
    )


def slabs(fields: xr.Dataset, done: int, several: int, axis: str) -> Iterator[int]:
    """Where what is still to be written begins."""
    if axis in fields.dims:
        yield from range(done, fields.sizes[axis], several)
