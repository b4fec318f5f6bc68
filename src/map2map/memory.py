"""Memory: how much there is, what is asked for, what the C library keeps for reuse."""

import ctypes
import platform
import re
from contextlib import suppress
from pathlib import Path

import psutil

from map2map.errors import RecipeError

__all__ = ["bytes_of", "free_memory", "keep_freed_memory"]

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
UNITS |= {f"{unit}i": 1 << 10 * (i + 1) for i, unit in enumerate("kmgt")}


def bytes_of(size: int | str) -> int:
    """Bytes, from a number or a text such as 512MiB or 2GB.

    >>> bytes_of("1.5 GiB"), bytes_of("2GB")
    (1610612736, 2000000000)

    Raises:
        RecipeError: If it is not a size above 0.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]?i?)b?\s*", str(size).lower())
    if match is None or match[2] not in UNITS or float(match[1]) <= 0:
        raise RecipeError(f"{size!r} is no size of memory; write it like 512MiB, 2GiB or 1.5GB")
    return int(float(match[1]) * UNITS[match[2]])


def free_memory() -> int:
    """Bytes that this process may still take, of the machine or its container."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or one without a limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    return free


# parameters of glibc's mallopt(3)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let the process reuse the memory of tensors instead of returning it to the system.

    By default glibc maps every large tensor anew and the system clears its pages again and again,
    which takes a fifth of a training step of a 3-D network on the CPU. It is a setting of the
    whole process, so only commands ask for it; elsewhere than on Linux with glibc nothing happens.

    Returns:
        Whether it is in force.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 1 << 26))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
