"""Memory that the C library keeps for reuse, for training on the CPU."""

import ctypes
import platform

__all__ = ["keep_freed_memory"]

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
