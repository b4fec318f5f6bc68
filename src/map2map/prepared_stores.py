"""Stores that are prepared: written a few times after the others, and taken up where they ended.

A store has its name once it is complete. Before, it is called ``.NAME.part``, and a small file
beside it says how many times are in it. An attribute tells what it was made of.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import xarray as xr

from map2map.errors import M2MError, SaveError, SourceError
from map2map.files import replacing

__all__ = ["is_done", "write"]

DIGEST = "prepared"
"""The attribute of a store that tells what it was made of."""


def is_done(store: Path, digest: str) -> bool:
    """Whether a store is there and was made of the same.

    Raises:
        SaveError: If it was made of something else.
    """
    if not store.exists():
        return False
    found = digest_of(store)
    if found != digest:
        what = "is none that was prepared" if found is None else "was prepared of other files or in"
        raise SaveError(
            f"{store} {what}{'' if found is None else ' another way'}; choose another `out`, or "
            f"overwrite it"
        )
    return True


def digest_of(store: Path) -> str | None:
    """What a store was made of; None if it is none of ours."""
    try:
        return str(json.loads((store / "zarr.json").read_text())["attributes"][DIGEST])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(fields: xr.Dataset, store: Path, digest: str, times: int) -> None:
    """Write a run, a few times after the others, and put it in its place when it is complete.

    Args:
        fields: What to write; with an axis ``time``, so many times are computed at once.
        store: Where; a store that was prepared before is replaced.
        digest: What it is made of.
        times: How many at once.

    Raises:
        SaveError: If it cannot be written; what was written is taken up next time.
    """
    part = store.with_name(f".{store.name}.part")
    progress = part.with_name(f"{part.name}.json")
    if store.exists() and digest_of(store) is None:
        raise SaveError(f"{store} will not be overwritten: it was not prepared; remove it yourself")
    try:
        done = begun(progress, part, digest)
        if done is None:
            # first, so that no other's progress is taken for that of what begins now
            progress.unlink(missing_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            begin(fields.assign_attrs({DIGEST: digest}), part, times)
            done = 0
        for first in slabs(fields, done, times):
            several = fields.isel(time=slice(first, first + times))
            fixed = [name for name, field in several.items() if "time" not in field.dims]
            several = several.drop_vars([*several.coords, *fixed])
            read(several, store).to_zarr(
                part, region={"time": slice(first, first + times)}, consolidated=False
            )
            with replacing(progress) as file:
                file.write_text(json.dumps({"times": first + times}))
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


def begun(progress: Path, part: Path, digest: str) -> int | None:
    """How many times an earlier try has written of the same; None if there was none."""
    try:
        state = json.loads(progress.read_text())
        return int(state["times"]) if digest_of(part) == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin(fields: xr.Dataset, part: Path, times: int) -> None:
    """Make the store: coordinates, what has no axis of time, and room for the rest."""
    fixed = {
        str(name): {"chunks": tuple(times if d == "time" else n for d, n in field.sizes.items())}
        for name, field in fields.data_vars.items()
    }
    template = fields.copy()
    for name, field in template.variables.items():
        if name != "time":
            field.encoding = {}
        if name in fields.data_vars and "time" not in field.dims:
            template[name] = template[name].load()
    part.parent.mkdir(parents=True, exist_ok=True)
    template.to_zarr(
        part, mode="w", compute=False, encoding=fixed, zarr_format=3, consolidated=False
    )


def slabs(fields: xr.Dataset, done: int, times: int) -> Iterator[int]:
    """First times of what is still to be written."""
    if "time" in fields.dims:
        yield from range(done, fields.sizes["time"], times)
