"""Files: written so that nothing is half-written, and told from each other."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from map2map.errors import M2MError, SaveError

__all__ = ["digest", "link", "make_way", "refuse_existing", "replacing", "slug"]

ZIP_WRITER = re.compile("PytorchStreamWriter|inline_container|iostream error")
"""What torch's messages contain when it cannot write."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name once all is written and on disk.

    Raises:
        SaveError: If it cannot be written; what was at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except M2MError:
        # what went wrong is not the writing, even if it is an OSError
        raise
    except (OSError, RuntimeError) as error:
        # torch's zip writer turns a full disk into a RuntimeError of its own
        if not isinstance(error, OSError) and not ZIP_WRITER.search(str(error)):
            raise
        kept = "; the file that was there is unchanged" if path.exists() else ""
        raise SaveError(
            f"cannot write {path}: {error}{kept}; make room or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_way(
    folder: Path, patterns: Sequence[str], record: Path, *, overwrite: bool = False
) -> None:
    """Refuse to write a simulation where there is something; remove an old one if that is allowed.

    Files of another simulation would be read as if they were of this one.

    Args:
        folder: Where it shall be.
        patterns: What its files are called, relative to the folder.
        record: The file that says that all of them are simulated. Without it, they might be data
            that nobody can make again, and are never removed.
        overwrite: Whether they may be removed.

    Raises:
        SaveError: If there are such files.
    """
    old = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if not old:
        return
    if not (overwrite and record.exists()):
        remedy = (
            f"choose another folder, since without {record.name} they may be no simulation, and "
            f"are not removed"
            if overwrite
            else "choose another folder, or allow to overwrite, which removes them"
        )
        raise SaveError(f"{folder} holds {len(old)} files, such as {old[0]}, already; {remedy}")
    try:
        for path in old:
            path.unlink()
    except OSError as error:
        raise SaveError(f"cannot remove the old simulation: {error}") from error


def refuse_existing(
    files: Iterable[Path], *, overwrite: bool, choose: str = "another folder"
) -> None:
    """Refuse to replace files, before anything is computed.

    Args:
        files: That shall be written.
        overwrite: Whether they may be replaced.
        choose: What may be chosen instead.

    Raises:
        SaveError: If some are there already, and may not be.
    """
    existing = [str(path) for path in files if path.exists()]
    if existing and not overwrite:
        raise SaveError(
            f"{', '.join(existing[:3])}{', …' if existing[3:] else ''} would be replaced; choose "
            f"{choose}, or allow to overwrite"
        )


def link(path: Path, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, replacing what it was at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.link")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)
    except OSError as error:
        raise SaveError(f"cannot link {path} to {target}: {error}") from error


def digest(path: Path, whole: int = 1 << 26) -> dict[str, Any]:
    """What tells a file from others: its path, size and digest.

    Args:
        path: The file. Of a folder (Zarr) there is the path only.
        whole: Of a file of more bytes, 64 blocks are read, and the digest's name says so.
    """
    if path.is_dir():
        return {"path": str(path)}
    size, hashed = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        if size <= whole:
            while block := file.read(1 << 22):
                hashed.update(block)
        else:
            for i in range(64):
                file.seek(i * (size - 65536) // 63)
                hashed.update(file.read(65536))
    kind = "blake2b" if size <= whole else "blake2b_of_64_blocks"
    return {"path": str(path), "bytes": size, kind: hashed.hexdigest()}


def slug(name: str, used: set[str]) -> str:
    """A part of a file name for a field, a letter first, that no other field has.

    >>> used = set()
    >>> slug("T (2 m)", used), slug("t 2 M", used)
    ('t-2-m', 't-2-m-2')

    Args:
        name: Of the field.
        used: Those that are taken, to which this is added.
    """
    start = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "field"
    found, number = start, 2
    while found in used:
        found, number = f"{start}-{number}", number + 1
    used.add(found)
    return found
